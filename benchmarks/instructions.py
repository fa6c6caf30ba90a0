"""Instructions per call: callgrind counts them, and instructions.json says how many there should be.

A count does not depend on how fast or how busy a machine is, but it does on compiler, Cython, CPython, NumPy and libc.
The table says what it was made with. Where these are the same, a count must be within 2 % of the table, in both
directions: what has become better is recorded too, or it could be lost again unnoticed. Elsewhere the base revision is
counted in the same run and stands for the table; then only an increase is an error.

Valgrind 3.19 does not know AVX-512; the other ISA builds have the same loops with other vectors.
"""

import json
import os
import platform
import re
import sysconfig
from pathlib import Path

import builds

HERE = Path(__file__).resolve().parent
TABLE = HERE / "instructions.json"
ISAS = ["avx2", "baseline"]
BAND = 0.02


def made_with(python):
    """Return what counts depend on, as a dict of strings."""
    options = sysconfig.get_config_var("CONFIG_ARGS") or ""
    found = [option for option in ("--enable-optimizations", "--with-lto", "--enable-shared") if option in options]
    # isolated: else the checkout would be imported, built or not
    compiled = 'from optimcore.kernels import isa; print(isa.compiler(), end="")'
    return {
        "compiler": builds.run(python, "-I", "-c", compiled, env=builds.environment()),
        "cython": builds.version("Cython"),
        "python": " ".join([platform.python_version(), platform.python_compiler(), *found]),
        "numpy": builds.version("numpy"),
        "libc": " ".join(platform.libc_ver()),
        "machine": platform.machine(),
        "valgrind": builds.run("valgrind", "--version"),
    }


def count(python, names, folder):
    """Count with one Python, in a folder for files that nobody needs later.

    Returns
    -------
    dict
        "made with": see `made_with`; "counts": {"ISA ID": instructions of one call}.
    """
    library = Path(folder, "callgrind.so")
    builds.run(*os.environ.get("CC", "cc").split(), "-O2", "-shared", "-fPIC", HERE / "callgrind.c", "-o", library)
    counts = {}
    for isa in ISAS:
        output = Path(folder, f"{Path(python).parts[-3]}.{isa}")
        valgrind = ["valgrind", "-q", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={output}.%p"]
        environment = builds.environment() | {"OPTIMCORE_ISA": isa, "PYTHONHASHSEED": "0"}
        builds.run(*valgrind, python, HERE / "counted.py", library, *names, env=environment)
        counts |= {f"{isa} {name}": n for name, n in read_dumps(output.parent.glob(f"{output.name}.*")).items()}
    order = [f"{isa} {name}" for isa in ISAS for name in names]
    return {"made with": made_with(python), "counts": {key: counts[key] for key in order}}


def read_dumps(files):
    """Return {ID: instructions of one call}: of two stretches of n and 2 n calls, the difference by n."""
    totals = {}
    for file in files:
        text = file.read_text()
        if label := re.search(r"^desc: Trigger: Client Request: (\d+) (.*)$", text, re.MULTILINE):
            total = int(re.search(r"^(?:totals|summary): (\d+)", text, re.MULTILINE)[1])
            totals.setdefault((label[2], int(label[1])), []).append(total)
    return {name: round(abs(two - one) / calls) for (name, calls), (one, two) in totals.items()}


def differing(table, here):
    """Return in which points two results of `made_with` differ, as text; empty if in none."""
    return ", ".join(f"{key} {table.get(key)}, here {value}" for key, value in here.items() if table.get(key) != value)


def compare(table, counts, exact):
    """Return lines to print, and whether all is well.

    Parameters
    ----------
    table, counts : dict of str to int
        Expected and found.
    exact : bool
        Whether `table` is the recorded one: then a decrease is an error too, and so is what only one of the two has.
    """
    lines, good = [f"{'ISA, workload':52} {'expected':>12} {'counted':>12} {'change':>8}"], True
    for key in {**table, **counts}:
        old, new = table.get(key), counts.get(key)
        if not old or not new:
            verdict, change = "gone" if old else "new", "-"
        else:
            verdict = "" if abs(new - old) <= BAND * old else "more" if new > old else "less"
            change = f"{new / old - 1:+.1%}"
        good &= verdict in (["", "less", "new", "gone"], [""])[exact]
        lines.append(f"{key:52} {old or '-':>12} {new or '-':>12} {change:>8} {verdict}".rstrip())
    if not good and exact:
        lines.append("If this is meant, record it: python benchmarks/gate.py --instructions --update")
    return lines, good


def updated(table, new):
    """Return the table with counts of some workloads replaced by new ones.

    Raises
    ------
    SystemExit
        If they were made with something else than the rest of the table.
    """
    if differs := differing(table["made with"], new["made with"]):
        raise SystemExit(f"{TABLE.name} was made elsewhere ({differs}): update all of it, without --only")
    return {"made with": table["made with"], "counts": table["counts"] | new["counts"]}


def read():
    """Return what `count` returned when the table was made."""
    return json.loads(TABLE.read_text())


def write(counted):
    """Make what `count` returned the table."""
    TABLE.write_text(json.dumps(counted, indent=1) + "\n")
