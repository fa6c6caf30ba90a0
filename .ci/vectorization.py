"""Check that gcc vectorizes every element loop of every ISA build, at the full width of that ISA.

Usage: python .ci/vectorization.py [FOLDER]       (from the top of a checkout, with optimcore and Cython installed)

FOLDER holds the C files of a build that was done with OPTIMCORE_VECTOR_REPORT set, and what gcc then said of its loops:
build/cython/optimcore/kernels. Without it each kernel module is compiled once more with the flags that it was built
with. An element loop is an innermost loop that loads a parameter and its gradient.
The loops of the rules in SCALAR_RULES are left out. All builds in FOLDER are looked at, also those that this CPU cannot
run; without FOLDER, those that it can.
"""

import re
import subprocess
import sys
import sysconfig
import tempfile
from importlib import import_module
from pathlib import Path

KERNELS = Path("optimcore/kernels")
SCALAR_RULES = ["ftrl_power"]  # pow has no vector form without -ffast-math; the usual power has the rule `ftrl`
SHORT = 20  # lines of C between `while` and a short loop in it
VECTOR_BYTES = {"baseline": 16, "avx2": 32, "avx512": 64}


def element_loops(c_file):
    """Return innermost loops with a load in their body, except those of scalar rules.

    Each is a line number, and that of the loop around it if this one is short: it has a fixed number of elements, so
    that gcc unrolls it and vectorizes the loop around it.
    """
    scalar = re.compile(rf"rules_({'|'.join(SCALAR_RULES)})\(")
    loops, open_loops = [], []
    depth, around = 0, -SHORT
    for number, line in enumerate(c_file.read_text().splitlines(), 1):
        if line.lstrip().startswith("/*") or line.lstrip().startswith("*"):
            continue
        if re.match(r"\s*while \(1\) {", line):
            around = number
        if re.match(r"\s*for \(", line):
            open_loops.append([number, depth, False])
        elif open_loops and re.search(r"_load(?:_gradient)?\(", line):
            open_loops[-1][2] = True
        elif open_loops and scalar.search(line):
            open_loops[-1][2] = False
        depth += line.count("{") - line.count("}")
        while open_loops and depth <= open_loops[-1][1]:
            number, _, loads = open_loops.pop()
            if loads:
                short = number - around < SHORT
                loops.append((number, around if short else number))
    return loops


def compile_again(isa, folder):
    """Write the C file of an ISA build into a folder, and gcc's report beside it."""
    flags = import_module(f"optimcore.kernels._isa_{isa}").flags.split()
    c_file = folder / f"_isa_{isa}.c"
    subprocess.run(["cython", "-3", str(KERNELS / f"_isa_{isa}.pyx"), "-o", str(c_file)], check=True)
    command = ["gcc", *flags, "-fPIC", f"-I{KERNELS}", f"-I{sysconfig.get_path('include')}", "-c", str(c_file)]
    report = c_file.with_suffix(".txt")
    subprocess.run([*command, "-o", "/dev/null", f"-fopt-info-vec-optimized={report}"], check=True)


def vector_widths(c_file):
    """Return {line: bytes of the widest vectors that its loop uses}."""
    report = c_file.with_suffix(".txt").read_text()
    widths = {}
    for name, line, width in re.findall(r"(\w+\.c):(\d+):\d+: optimized: loop vectorized using (\d+) byte", report):
        if name != c_file.name:
            continue
        widths[int(line)] = max(widths.get(int(line), 0), int(width))
    return widths


def check(isa, folder):
    """Print the figures of one ISA build; return the number of loops that are not vectorized as they should be."""
    c_file = folder / f"_isa_{isa}.c"
    if not c_file.with_suffix(".txt").exists():
        print(f"{isa}: no report of the compiler, {c_file.stem}.txt: set OPTIMCORE_VECTOR_REPORT and build anew")
        return 1
    loops, widths = element_loops(c_file), vector_widths(c_file)
    failed = []
    for line, around in loops:
        # short loops take sixteen elements at once: of 16 bits, these are 32 bytes
        least = VECTOR_BYTES[isa] if line == around else min(VECTOR_BYTES[isa], 32)
        if max(widths.get(number, 0) for number in range(around, line + 1)) < least:
            failed.append(line)
    print(f"{isa}: {len(loops) - len(failed)} of {len(loops)} loops vectorized with {VECTOR_BYTES[isa]} byte vectors")
    for line in failed:
        print(f"  not vectorized: {c_file.name}:{line}, widest {widths.get(line, 0)} bytes")
    return len(failed) if loops else 1


def main(built=None):
    """Check the builds in a folder, or each one that this CPU can run; return how many loops or builds fail."""
    if built is not None:
        isas = sorted(path.stem.removeprefix("_isa_") for path in Path(built).glob("_isa_*.c"))
        if not isas:
            raise SystemExit(f"FOLDER must hold the C files of a build, _isa_*.c, got {built}")
        return sum(check(isa, Path(built)) for isa in isas)
    from optimcore.kernels.isa import available_isas

    with tempfile.TemporaryDirectory() as folder:
        for isa in available_isas():
            compile_again(isa, Path(folder))
        return sum(check(isa, Path(folder)) for isa in available_isas())


if __name__ == "__main__":
    sys.exit(bool(main(*sys.argv[1:])))
