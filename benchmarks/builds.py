"""Virtual environments with optimcore as it was, or is, at a revision.

A revision is built with the Cython, setuptools and compiler of the running Python, so that two revisions differ in
nothing else. Wheels are kept in ``$XDG_CACHE_HOME/optimcore-gate``, under what they were built from and with.
"""

import hashlib
import os
import subprocess
import sys
import sysconfig
import tempfile
import venv
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "optimcore-gate"
SOURCES = ["optimcore", "setup.py", "pyproject.toml", "MANIFEST.in"]  # what decides how a wheel comes out
BESIDE = ["numpy", "ml_dtypes"]  # what workloads use, in the versions of the running Python


def run(*command, **kwargs):
    """Run a command at the top of the checkout; return its output, without the last newline."""
    result = subprocess.run(command, cwd=TOP, text=True, stdout=subprocess.PIPE, **kwargs)
    if result.returncode:
        raise SystemExit(f"{' '.join(map(str, command))} failed\n{result.stdout}")
    return result.stdout.removesuffix("\n")


def working_tree():
    """Return git's name for the files as they are now, committed or not, ignored ones left out."""
    with tempfile.TemporaryDirectory() as folder:
        index = Path(folder, "index")
        index.write_bytes((TOP / run("git", "rev-parse", "--git-path", "index")).read_bytes())
        environment = {**os.environ, "GIT_INDEX_FILE": str(index)}
        run("git", "add", "--all", env=environment)
        return run("git", "write-tree", env=environment)


def tree_of(revision):
    """Return git's name for the files of a revision."""
    return run("git", "rev-parse", "--verify", f"{revision}^{{tree}}")


def default_base():
    """Return the commit that the working tree is compared with.

    On a branch, where it left main; on main, what is committed if something is not, else the commit before.
    """
    head = run("git", "rev-parse", "HEAD")
    for main in ("main", "origin/main"):
        if not subprocess.run(
            ["git", "rev-parse", "-q", "--verify", main], cwd=TOP, stdout=subprocess.DEVNULL
        ).returncode:
            base = run("git", "merge-base", "HEAD", main)
            if base != head:
                return base
            break
    return "HEAD~" if working_tree() == tree_of("HEAD") else "HEAD"


def compiler():
    """Return the first line of what the compiler says about itself."""
    command = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()
    return run(*command, "--version").splitlines()[0]


def build_wheel(tree):
    """Return the path of the wheel of a tree; it is built if it was not built before."""
    built_with = [
        sys.version,
        compiler(),
        version("Cython"),
        version("setuptools"),
        version("numpy"),
        os.environ.get("CFLAGS", ""),
    ]
    parts = [run("git", "ls-tree", tree, *SOURCES), *built_with]
    folder = CACHE / hashlib.sha256("\n".join(parts).encode()).hexdigest()[:20]
    if not folder.is_dir():
        print(f"building {tree[:10]}", file=sys.stderr)
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as work:
            source, wheels = Path(work, "source"), Path(work, "wheels")
            source.mkdir()
            run("git", "archive", "--format=tar", f"--output={work}/source.tar", tree)
            run("tar", "xf", f"{work}/source.tar", "-C", source)
            pip = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", wheels, source]
            run(*pip, stderr=subprocess.STDOUT)
            try:
                wheels.rename(folder)
            except OSError:  # another run has built the same meanwhile
                if not folder.is_dir():
                    raise
    return next(folder.glob("*.whl"))


def make_environment(folder, wheel):
    """Make a virtual environment with a wheel and what workloads use; return the path of its Python."""
    venv.create(folder, symlinks=os.name != "nt")
    python = Path(folder, "Scripts" if os.name == "nt" else "bin", "python")
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps"]
    run(*pip, wheel, *(f"{name}=={installed}" for name in BESIDE if (installed := installed_version(name))))
    return python


def installed_version(name):
    """Return the version of a package of the running Python, or None."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def environment():
    """Return the variables that both sides run with: one thread each, and nothing that leads to another optimcore."""
    variables = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "OPTIMCORE"))}
    return variables | dict.fromkeys(["OPTIMCORE_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"], "1")
