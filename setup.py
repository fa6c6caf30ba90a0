"""Build: a table of extensions and one dict of ISA flags."""

import os
import platform
import sys
from glob import glob
from pathlib import Path

from Cython.Build import cythonize
from Cython.Compiler import Options
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

# Equal bits on every machine: no -ffast-math, no -march=native, no fused multiply-add.
COMMON = [
    *("-O3", "-g0", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=off", "-Werror=double-promotion"),
    # gcc inlines until a file has grown by 40 %; a loop that then calls a function is not vectorized
    "--param=inline-unit-growth=1000",
]
ISA_FLAGS = {
    "baseline": [],
    "avx2": ["-mavx2"],
    "avx512": ["-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl", "-mprefer-vector-width=512"],
}
KERNELS = "optimcore/kernels"
HEADERS = [f"{KERNELS}/{name}" for name in ("platform.h", "storage.h")] + sorted(glob(f"{KERNELS}/*.pxd"))

# A checkout is strict; an sdist also builds with a later Cython that warns about something new.
Options.warning_errors = Path(".ci").is_dir()


def extension(name, flags, depends):
    macro = ("OPTIMCORE_FLAGS", '"{}"'.format(" ".join(flags)))
    return Extension(
        f"optimcore.kernels.{name}",
        [f"{KERNELS}/{name}.pyx"],
        extra_compile_args=flags,
        define_macros=[macro],
        depends=depends,
    )


EXTENSIONS = [
    *(extension(f"_isa_{isa}", COMMON + flags, [*HEADERS, f"{KERNELS}/_isa.pxi"]) for isa, flags in ISA_FLAGS.items()),
    extension("crew", ["-O2", "-g0"], HEADERS),
    *(
        extension(name, ["-O2", "-g0"], HEADERS)
        for name in ("backlog", "driver", "embed", "isa", "row_gradient", "work")
    ),
    extension("unique", COMMON, HEADERS),
]


class BuildExt(build_ext):
    """Leave out what the compiler or the architecture does not know."""

    def finalize_options(self):
        super().finalize_options()
        self.parallel = self.parallel or os.cpu_count()

    def build_extensions(self):
        gnu = self.compiler.compiler_type != "msvc"
        x86_64 = platform.machine().lower() in ("x86_64", "amd64") and sys.maxsize > 2**32
        if not (gnu and x86_64):
            self.extensions = [e for e in self.extensions if "_isa_" not in e.name or e.name.endswith("baseline")]
        if not gnu:
            for e in self.extensions:
                e.extra_compile_args = ["/O2", "/fp:precise"]
        super().build_extensions()


setup(
    ext_modules=cythonize(
        EXTENSIONS,
        compiler_directives={"language_level": 3},
        build_dir="build/cython",
        nthreads=0 if os.name == "nt" else min(4, os.cpu_count() or 1),
    ),
    cmdclass={"build_ext": BuildExt},
)
