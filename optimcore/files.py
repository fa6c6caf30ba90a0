"""Space on the disk for tables and slots in files."""

import numpy as np

from optimcore.kernels.mapped import map_behind, take_space
from optimcore.parameter import Parameter

__all__ = ["reserve"]


def reserve(*things):
    """Take the space on the disk that mapped tables and their slots need, so that no later step can lack it.

    A `numpy.memmap` of a sparse file, and slots that start at 0, take space page by page, as steps write them. When the
    disk is full by then, the system ends the process with SIGBUS: nobody can catch that. Call this before the
    first step, and a full disk is an error here.

    Parameters
    ----------
    *things : Optimizer, Parameter, ndarray, or a tuple or list of these
        Of an optimizer, all parameters and slots. Arrays in memory need nothing and are passed over.

    Returns
    -------
    int
        Bytes of files that have their space now.

    Raises
    ------
    OSError
        If a file cannot have its space, with the file (the folder, for slots, which have no name), the reason and the
        bytes; or if the system cannot take space in advance. What the files hold has not changed.
    TypeError
        If a thing is none of these.

    Notes
    -----
    A file with a name is found by it: do not rename it before. The space stays taken. Nothing helps against
    another process that truncates the file: pages that a file has lost end the process with SIGBUS, too.

    Examples
    --------
    >>> table = Parameter(np.zeros((4, 2), np.float32), name="table")
    >>> reserve(table)  # in memory
    0
    """
    maps = {id(array): array for thing in things for array in map(map_behind, _arrays(thing)) if array is not None}
    return sum(map(take_space, maps.values()))


def _arrays(thing):
    """Return the arrays of a thing, in lists of any depth."""
    if isinstance(thing, np.ndarray):
        return [thing]
    if isinstance(thing, Parameter):
        return [thing.data]
    if isinstance(thing, (tuple, list)):
        return [array for part in thing for array in _arrays(part)]
    if hasattr(thing, "parameters"):
        return _arrays(list(thing.parameters)) + _slots(list(vars(thing).values()))
    raise TypeError(f"things must be optimizers, Parameters or arrays, got {type(thing).__name__}")


def _slots(values):
    """Return the arrays of the Parameters among the attributes of an optimizer, or of one that it wraps."""
    arrays = []
    for value in values:
        if isinstance(value, Parameter) or hasattr(value, "parameters"):
            arrays += _arrays(value)
        elif isinstance(value, (tuple, list)):
            arrays += _slots(value)
        elif isinstance(value, dict):
            arrays += _slots(value.values())
    return arrays
