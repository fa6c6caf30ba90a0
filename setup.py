"""Build: a table of extensions and one dict of ISA flags."""

import os
import platform
import shlex
import subprocess
import sys
import tempfile
import time
from glob import glob
from pathlib import Path

import Cython
import numpy as np
from Cython.Build import cythonize
from Cython.Compiler import Options
from setuptools import Extension, setup
from setuptools.command.build import build
from setuptools.command.build_ext import build_ext

# Equal bits on every machine: no -ffast-math, no -march=native, no fused multiply-add.
COMMON = [
    *("-O3", "-g0", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=off", "-Werror=double-promotion"),
    # gcc inlines until a file has grown by 40 %; a loop that then calls a function is not vectorized
    "--param=inline-unit-growth=1000",
]
ISA_FLAGS = {
    "baseline": [],
    "avx2": ["-mavx2", "-mf16c"],
    "avx512": ["-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl", "-mprefer-vector-width=512"],
}
KERNELS = "optimcore/kernels"
HEADERS = [
    *(f"{KERNELS}/{name}" for name in ("platform.h", "storage.h")),
    *sorted(glob(f"{KERNELS}/*.pxd")),
    "setup.py",
]
C_FILES = f"build/cython/{KERNELS}"

# A checkout is strict; an sdist also builds with a later Cython that warns about something new.
Options.warning_errors = Path(".ci").is_dir()


def extension(name, flags, depends):
    return Extension(
        f"optimcore.kernels.{name}",
        [f"{KERNELS}/{name}.pyx"],
        extra_compile_args=flags,
        include_dirs=[np.get_include()],
        depends=depends,
    )


EXTENSIONS = [
    *(extension(f"_isa_{isa}", COMMON + flags, [*HEADERS, f"{KERNELS}/_isa.pxi"]) for isa, flags in ISA_FLAGS.items()),
    extension("crew", ["-O2", "-g0"], HEADERS),
    *(
        extension(name, ["-O2", "-g0", "-ffp-contract=off"], HEADERS)
        for name in ("backlog", "driver", "embed", "isa", "row_gradient", "stepper", "turn", "work")
    ),
    extension("unique", COMMON, HEADERS),
]


class BuildExt(build_ext):
    """Leave out what the compiler or the architecture does not know, and translate the rest.

    Commands that compile nothing, such as sdist and what pip asks for first, then do not wait for Cython.
    """

    def finalize_options(self):
        super().finalize_options()
        self.parallel = self.parallel or os.cpu_count()
        if self.editable_mode:
            # pip names a new folder every time; in the usual one is what need not be compiled again
            usual = build(self.distribution)
            usual.ensure_finalized()
            self.build_lib, self.build_temp = usual.build_platlib, usual.build_temp

    def build_extensions(self):
        gnu = self.compiler.compiler_type != "msvc"
        x86_64 = platform.machine().lower() in ("x86_64", "amd64") and sys.maxsize > 2**32
        if not (gnu and x86_64):
            self.extensions = [e for e in self.extensions if "_isa_" not in e.name or e.name.endswith("baseline")]
        unknown = {flag for flag in COMMON if gnu and flag.startswith("--param") and not self.knows(flag)}
        for e in self.extensions:
            flags = [f for f in e.extra_compile_args if f not in unknown] if gnu else ["/O2", "/fp:precise"]
            flags += shlex.split(os.environ.get("OPTIMCORE_CFLAGS", ""))  # last: for .ci/sanitize
            e.define_macros = [("OPTIMCORE_FLAGS", '"{}"'.format(" ".join(flags)))]
            if gnu and "OPTIMCORE_VECTOR_REPORT" in os.environ:  # beside the C file, for .ci/vectorization.py
                flags = [*flags, f"-fopt-info-vec-optimized={C_FILES}/{e.name.rpartition('.')[2]}.txt"]
            e.extra_compile_args = flags
        start = time.monotonic()
        self.say(
            f"translating {len(self.extensions)} Cython modules to C and compiling them, {self.parallel} at a time: "
            "one minute to five"
        )
        self.translate()
        super().build_extensions()
        self.say(f"{len(self.extensions)} modules are there after {time.monotonic() - start:.0f} seconds")

    def say(self, text):
        """Print a line at once. pip shows it with -v, and all of them if the build fails."""
        print(f"optimcore: {text}", flush=True)

    def knows(self, flag):
        """Tell whether the compiler takes a flag without a warning."""
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder, "empty.c")
            source.write_text("typedef int nothing;\n")
            command = [*self.compiler.compiler_so, "-Werror", flag, "-c", str(source), "-o", f"{folder}/empty.o"]
            return subprocess.run(command, capture_output=True).returncode == 0

    def translate(self):
        """Put the C files in place of the .pyx files.

        Cython's own check of what is out of date also looks at the age of Cython's files, and these are new in every
        environment that pip makes for a build: all would be translated and compiled again.
        """
        newest = max(map(os.path.getmtime, glob(f"{KERNELS}/*.pyx") + glob(f"{KERNELS}/*.px[di]")))
        c_files = [f"{C_FILES}/{e.name.rpartition('.')[2]}.c" for e in self.extensions]
        if not all(is_current(c_file, newest) for c_file in c_files):
            cythonize(
                self.extensions,
                compiler_directives={"language_level": 3},
                build_dir="build/cython",
                nthreads=0 if os.name == "nt" else min(4, os.cpu_count() or 1),
            )
        for e, c_file in zip(self.extensions, c_files, strict=True):
            e.sources = [c_file]


def is_current(c_file, newest):
    """Tell whether a C file is from this Cython and younger than all that it may be made from."""
    if not os.path.exists(c_file) or os.path.getmtime(c_file) <= newest:
        return False
    with open(c_file, encoding="utf-8") as lines:
        return lines.readline() == f"/* Generated by Cython {Cython.__version__} */\n"


setup(ext_modules=EXTENSIONS, cmdclass={"build_ext": BuildExt})
