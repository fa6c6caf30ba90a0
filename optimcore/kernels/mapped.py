"""Arrays in files: memory for the slots of a mapped table, and space for it on the disk."""

import errno
import mmap
import os
import weakref
from functools import partial

import numpy as np


def map_behind(array):
    """Return the writable numpy.memmap that an array is a part of, or None."""
    found = None
    while isinstance(array, np.ndarray):
        if isinstance(array, np.memmap) and array.mode in ("r+", "w+"):
            found = array
        array = array.base
    return found


def allocator(array):
    """Return the function for zeros beside an array: in memory, or in a file if the array is in one.

    Who maps a table has no memory for its slots. Memory that nothing has been written to takes none, but a page of new
    memory may have 2 MB, so that a few thousand rows fill gigabytes; a page of a file has 4 KB.
    """
    beside = map_behind(array)
    if beside is None or _folder_of(beside) is None:
        return np.zeros
    return partial(_zeros_in_file, _folder_of(beside))


def _folder_of(memmap):
    return os.path.dirname(memmap.filename) if memmap.filename is not None else getattr(memmap, "folder", None)


def _zeros_in_file(folder, size, dtype):
    import tempfile  # here, because it takes a while and most processes map no file

    with tempfile.TemporaryFile(dir=folder) as file:  # the mapping keeps it alive
        zeros = np.memmap(file, dtype, "w+", shape=(size,))
        zeros.folder, zeros.descriptor = folder, os.dup(file.fileno())  # the file has no name to find it by
    weakref.finalize(zeros, os.close, zeros.descriptor)
    if hasattr(mmap, "MADV_RANDOM"):  # the system would read megabytes around each row
        zeros.base.madvise(mmap.MADV_RANDOM)
    return zeros


# a full disk, a used-up quota, a limit of the process; whatever else fails says nothing about space
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def take_space(array, wanted=True):
    """Take the space on the disk that all of an array's file needs; return its bytes, 0 for an array in memory.

    Raises
    ------
    OSError
        If there is no such space; if `wanted`, also if the system cannot tell. The contents of the file are as they
        were.
    """
    part = map_behind(array)
    if part is None:
        return 0
    try:
        if hasattr(part, "descriptor"):
            _allocate(part.descriptor, part)
        else:
            with open(part.filename, "r+b") as file:
                _allocate(file.fileno(), part)
    except OSError as error:
        if not wanted and error.errno not in _NO_SPACE:
            return 0
        where = str(part.filename or getattr(part, "folder", None))
        raise OSError(error.errno, f"{os.strerror(error.errno)}, for {part.nbytes} bytes of", where) from error
    return part.nbytes


def _allocate(descriptor, memmap):
    if not hasattr(os, "posix_fallocate"):
        raise OSError(errno.ENOTSUP, "no posix_fallocate")
    os.posix_fallocate(descriptor, memmap.offset, memmap.nbytes)
