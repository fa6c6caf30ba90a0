"""Kernels: arrays and numbers, compiled. Nothing here knows of an optimizer."""


def _explain():
    """Return an ImportError that says which optimcore has no compiled modules, and which other one it hides."""
    import sys
    from importlib.machinery import PathFinder
    from pathlib import Path

    here = Path(__file__).resolve().parents[1]
    others = [entry for entry in sys.path if Path(entry or ".").resolve() != here.parent]
    spec = PathFinder.find_spec("optimcore", others)
    message = f"optimcore in {here} is a source tree without compiled kernels"
    if spec and spec.origin:
        message += f"; it hides the one in {Path(spec.origin).parent}: start Python in another folder or with -P, or"
    else:
        message += ":"
    return ImportError(f"{message} compile it with pip install -e {here.parent}")


try:
    import optimcore.kernels.crew  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "optimcore.kernels.crew":
        raise
    raise _explain() from error
