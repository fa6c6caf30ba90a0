"""A source tree that nobody has compiled says so."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from optimcore import kernels


@pytest.fixture
def uncompiled(tmp_path):
    """Return a folder with the sources alone."""
    source = Path(kernels.__file__).parents[1]
    shutil.copytree(source, tmp_path / "optimcore", ignore=shutil.ignore_patterns("*.so", "*.pyd", "__pycache__"))
    return tmp_path


@pytest.fixture
def bare(tmp_path):
    """Return a folder with the package of kernels, which needs no other one."""
    (tmp_path / "optimcore" / "kernels").mkdir(parents=True)
    (tmp_path / "optimcore" / "__init__.py").touch()
    shutil.copy(kernels.__file__, tmp_path / "optimcore" / "kernels")
    return tmp_path


def last_line(folder, *options, path=""):
    """Return the last line of the error of ``import optimcore.kernels`` in a folder."""
    command = [sys.executable, *options, "-c", "import optimcore.kernels"]
    environment = {**os.environ, "PYTHONPATH": str(path)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True).stderr.splitlines()[-1]


def test_uncompiled_tree_says_so(uncompiled):
    start = f"ImportError: optimcore in {uncompiled}/optimcore is a source tree without compiled kernels"
    assert last_line(uncompiled).startswith(start)


def test_uncompiled_tree_says_how_to_compile_it(bare):
    assert last_line(bare, "-S") == (  # no packages that are installed
        f"ImportError: optimcore in {bare}/optimcore is a source tree without compiled kernels: "
        f"compile it with pip install -e {bare}"
    )


def test_uncompiled_tree_names_what_it_hides(bare, tmp_path_factory):
    # as `python -m pytest` does in a checkout, beside an installed wheel
    installed = tmp_path_factory.mktemp("installed") / "optimcore"
    installed.mkdir()
    (installed / "__init__.py").touch()
    assert last_line(bare, "-S", path=installed.parent).endswith(
        f"compiled kernels; it hides the one in {installed}: start Python in another folder or with -P, "
        f"or compile it with pip install -e {bare}"
    )
