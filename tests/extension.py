"""Build Cython modules against the installed package, as a project outside would."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import optimcore

EXAMPLE = Path(__file__).parent / "cimport_example"


def build(folder, name, code):
    """Write a Cython module into an empty folder, build it with the setup.py of the example, and run it.

    Returns
    -------
    module
        The module, imported from the folder.
    """
    (folder / f"{name}.pyx").write_text(code, encoding="utf-8")
    shutil.copy(EXAMPLE / "setup.py", folder)
    # speed is not tested; tests may have been started with a relative path
    environment = {**os.environ, "CFLAGS": "-O0 -g0", "PYTHONPATH": optimcore.get_include()}
    command = [sys.executable, "setup.py", "build_ext", "--inplace"]
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    (library,) = [path for path in folder.glob(f"{name}.*") if path.suffix in (".so", ".pyd")]
    spec = importlib.util.spec_from_file_location(name, library)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
