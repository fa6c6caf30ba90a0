"""Sparse gradients: rows of a table, and the sums of rows that share an index."""

import math

import numpy as np

from optimcore.checks import check_flag
from optimcore.kernels import unique as kernel
from optimcore.kernels.arrays import as_floats, converted

__all__ = ["RowTensor", "merge_rows", "unique"]

# A workspace that the last call left for the next one: clearing new memory would take longer than most calls do.
SPARE_BYTES = 1 << 25
_spare = []


def unique(indices, return_inverse=False, return_counts=False):
    """Return the distinct values of `indices` in order of first appearance.

    The result is that of ``pandas.factorize``; ``numpy.unique`` sorts instead.

    Parameters
    ----------
    indices : array_like of int, shape (k,)
        Any values, negative ones too; k < 2**31. int32 and int64 are taken as they are, other integer dtypes are
        converted to int64 once.
    return_inverse : bool, default False
        Also return for every index where in the result it is.
    return_counts : bool, default False
        Also return how often each value of the result occurs.

    Returns
    -------
    unique : ndarray, shape (u,)
        int32 for int32 indices, int64 for all others.
    inverse : ndarray of int64, shape (k,)
        ``unique[inverse]`` equals `indices`. Only if asked for.
    counts : ndarray of int64, shape (u,)
        Only if asked for.

    Raises
    ------
    TypeError
        If `indices` are not integers (bool is none), or a flag is not a bool.
    ValueError
        If `indices` do not have one dimension, or a value does not fit int64.

    Notes
    -----
    Without the GIL, in time proportional to k whatever the values are. Working memory is at most 4 MB and 128 bytes for
    each index; up to 32 MB of it are kept for the next call. So is the memory of large results that are not used any
    more, again up to 32 MB: results do not wait for the system to hand out new pages.

    Examples
    --------
    >>> unique(np.array([3, 1, 3, -7]), return_inverse=True)
    (array([ 3,  1, -7]), array([0, 1, 0, 2]))
    """
    indices = _as_indices(indices)
    check_flag("return_inverse", return_inverse)
    check_flag("return_counts", return_counts)
    result = _with_workspace(kernel.unique, indices, return_inverse, return_counts)
    return result if len(result) > 1 else result[0]


def merge_rows(indices, values):
    """Sum the rows of `values` that share an index.

    Parameters
    ----------
    indices : array_like of int, shape (k,)
        Row numbers, any order, repeats allowed; >= 0 and k < 2**31. Dtypes as in `unique`.
    values : array_like of float, shape (k, ...)
        ``values[j]`` belongs to row ``indices[j]``: float16, bfloat16 (of ``ml_dtypes``), float32 or float64. Not
        modified. If it is not C-contiguous it is copied once.

    Returns
    -------
    unique : ndarray, shape (u,)
        Indices in order of first appearance, u <= k.
    merged : ndarray, shape (u, ...)
        Sums in order of occurrence: the same bits for any number of threads. Sums of 16-bit rows are accumulated, and
        returned, in float32; all others in the dtype of `values`.

    Raises
    ------
    TypeError
        If `indices` are not integers or `values` not floats.
    ValueError
        If the lengths differ or an index is negative.

    Examples
    --------
    >>> merge_rows(np.array([3, 1, 3]), np.array([[1.0, 2.0], [3.0, 4.0], [10.0, 20.0]]))
    (array([3, 1]), array([[11., 22.],
           [ 3.,  4.]]))
    """
    indices, values = _as_indices(indices), _as_values(values)
    _check_lengths(indices, values)
    rows = values.reshape(len(values), math.prod(values.shape[1:]))
    found, merged = _with_workspace(kernel.merge_rows, indices, rows)
    return found, merged.reshape(len(found), *values.shape[1:])


class RowTensor:
    """Hold a gradient of which only some rows are not zero.

    It stands for a dense array of shape `dense_shape` in which ``values[j]`` has been added to row ``indices[j]`` of
    zeros, for every j.

    Parameters
    ----------
    indices : array_like of int, shape (k,)
        Row numbers in ``[0, dense_shape[0])``, any order, repeats allowed. int32 and int64 are shared, not copied;
        other integer dtypes are converted to int64.
    values : array_like of float, shape (k, *dense_shape[1:])
        float16, bfloat16, float32 or float64. Shared, not copied, unless it has to be made C-contiguous.
    dense_shape : sequence of int
        Shape of the dense gradient, at least one dimension.

    Raises
    ------
    TypeError
        If `indices` are not integers, `values` not floats, or `dense_shape` not a sequence of ints.
    ValueError
        If a shape does not fit.
    IndexError
        If an index is outside of the table.

    Examples
    --------
    >>> RowTensor(np.array([3, 1]), np.ones((2, 4), np.float32), (1000, 4))
    RowTensor(2 rows of shape (1000, 4), dtype float32)
    """

    __slots__ = ("_dense_shape", "_indices", "_values")

    def __init__(self, indices, values, dense_shape):
        self._dense_shape = _as_shape(dense_shape)
        self._indices, self._values = _as_indices(indices), _as_values(values)
        _check_lengths(self._indices, self._values)
        if self._values.shape[1:] != self._dense_shape[1:]:
            raise ValueError(
                f"values must have shape (k, *dense_shape[1:]), that is "
                f"{(len(self._indices), *self._dense_shape[1:])}, got {self._values.shape}"
            )
        if len(self._indices):
            check_range(*kernel.bounds(self._indices), self._dense_shape[0])

    @property
    def indices(self):
        """ndarray of int32 or int64, shape (k,) : row numbers."""
        return self._indices

    @property
    def values(self):
        """ndarray, shape (k, *dense_shape[1:]) : the rows."""
        return self._values

    @property
    def dense_shape(self):
        """tuple of int : shape of the dense gradient."""
        return self._dense_shape

    @property
    def dtype(self):
        """numpy.dtype : dtype of the rows."""
        return self._values.dtype

    def __repr__(self):
        return f"RowTensor({len(self._indices)} rows of shape {self._dense_shape}, dtype {self.dtype})"


def check_range(lowest, highest, rows):
    """Raise IndexError if indices from `lowest` to `highest` are not all in a table of `rows` rows."""
    if lowest < 0 or highest >= rows:
        raise IndexError(f"indices must be in [0, {rows}), got {lowest if lowest < 0 else highest}")


def _with_workspace(function, *arguments):
    # list operations are atomic: two threads never get the same workspace
    try:
        workspace = _spare.pop()
    except IndexError:
        workspace = kernel.Workspace()
    try:
        return function(*arguments, workspace)
    finally:
        if workspace.nbytes <= SPARE_BYTES and not _spare:
            _spare.append(workspace)


def _as_indices(indices):
    try:
        array = np.asarray(indices)
    except Exception as error:
        raise TypeError(f"indices must be an array of integers, got {type(indices).__name__}: {error}") from error
    if array.dtype.kind not in "iu" and not (isinstance(indices, (list, tuple)) and array.size == 0):
        raise TypeError(f"indices must be integers, got dtype {array.dtype}")
    if array.ndim != 1:
        raise ValueError(f"indices must have one dimension, got shape {array.shape}")
    if len(array) >= 2**31:
        raise ValueError(f"indices must be fewer than 2**31, got {len(array)}")
    if array.dtype.kind == "u" and array.max(initial=0) > np.iinfo(np.int64).max:
        raise ValueError(f"indices must fit int64, got {array.max()}")
    return converted(array, np.dtype(np.int32 if array.dtype.str[1:] == "i4" else np.int64))


def _as_values(values):
    array = as_floats(values, "values")
    if array.ndim == 0:
        raise ValueError("values must have at least one dimension, got shape ()")
    kernel.storage_of(array.dtype)
    return converted(array, array.dtype.newbyteorder("="))


def _as_shape(shape):
    if not isinstance(shape, (tuple, list)):
        raise TypeError(f"dense_shape must be a tuple or list of ints, got {shape!r}")
    for n in shape:
        if isinstance(n, (bool, np.bool_)) or not isinstance(n, (int, np.integer)):
            raise TypeError(f"dense_shape must be a tuple or list of ints, got {shape!r}")
    if not shape or min(shape) < 0:
        raise ValueError(f"dense_shape must have at least one dimension and none below 0, got {tuple(shape)}")
    return tuple(int(n) for n in shape)


def _check_lengths(indices, values):
    if len(indices) != len(values):
        raise ValueError(f"indices and values must have one length, got {len(indices)} and {len(values)}")
