"""Sparse gradients: rows of a table, and the sums of rows that share an index."""

import math

import numpy as np

from optimcore.checks import check_flag
from optimcore.kernels import unique as kernel
from optimcore.kernels.arrays import as_floats, as_indices, as_shape, converted, matched

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
    indices = as_indices(indices, "indices")
    if indices.ndim != 1:
        raise ValueError(f"indices must have one dimension, got shape {indices.shape}; pass indices.reshape(-1)")
    indices = _as_keys(indices)
    check_flag("return_inverse", return_inverse)
    check_flag("return_counts", return_counts)
    result = _with_workspace(kernel.unique, indices, return_inverse, return_counts)
    return result if len(result) > 1 else result[0]


def merge_rows(indices, values):
    """Sum the rows of `values` that share an index.

    Parameters
    ----------
    indices : array_like of int, shape (k,) or (batch, time)
        Row numbers, any order, repeats allowed; >= 0 and k < 2**31. Dtypes as in `unique`. More dimensions than one
        are flattened, those of `values` with them.
    values : array_like of float, shape (k, ...) or (batch, time, ...)
        ``values[j]`` belongs to row ``indices[j]``: float16, bfloat16 (of ``ml_dtypes``), float32 or float64. Not
        modified. If it is not C-contiguous it is copied once.

    Returns
    -------
    unique : ndarray, shape (u,)
        Indices in order of first appearance, u <= k.
    merged : ndarray, shape (u, ...)
        Sums in order of occurrence: the same bits for any number of threads. Sums of 16-bit rows are returned in
        float32, all others in the dtype of `values`. Of many rows of one index the sums of 16 each are summed in
        float64: the relative error is below 1e-6 for any number of rows of one sign.

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
    indices, values = _as_pair(indices, values)
    rows = values.reshape(len(values), math.prod(values.shape[1:]))
    found, merged = _with_workspace(kernel.merge_rows, indices, rows)
    return found, merged.reshape(len(found), *values.shape[1:])


class RowTensor:
    """Hold a gradient of which only some rows are not zero.

    It stands for a dense array of shape `dense_shape` in which ``values[j]`` has been added to row ``indices[j]`` of
    zeros, for every j.

    Parameters
    ----------
    indices : array_like of int, shape (k,) or (batch, time)
        Row numbers in ``[0, dense_shape[0])``, any order, repeats allowed. int32 and int64 are shared, not copied;
        other integer dtypes are converted to int64. More dimensions than one are flattened, those of `values` with
        them. An empty array of floats is a batch without any row, and so is ``[]``.
    values : array_like of float, shape (k, *dense_shape[1:]) or (batch, time, *dense_shape[1:])
        float16, bfloat16, float32 or float64. Shared, not copied, unless it has to be made C-contiguous.
    dense_shape : sequence or array of int
        Shape of the dense gradient, at least one dimension.

    Raises
    ------
    TypeError
        If `indices` are not integers, `values` not floats, or `dense_shape` not a sequence of ints.
    ValueError
        If a shape does not fit.
    IndexError
        If an index is outside of the table.

    Notes
    -----
    Arrays may be NumPy's, torch tensors on the CPU, or whatever NumPy reads. Masked arrays are refused. NumPy reads a
    RowTensor as the dense array that it stands for: ``np.asarray(rows)``.

    Examples
    --------
    >>> RowTensor(np.array([3, 1]), np.ones((2, 4), np.float32), (1000, 4))
    RowTensor(2 rows of shape (1000, 4), dtype float32)
    """

    __slots__ = ("_dense_shape", "_indices", "_values")

    def __init__(self, indices, values, dense_shape):
        self._dense_shape = _check_shape(as_shape(dense_shape, "dense_shape"))
        self._indices, self._values = _as_pair(indices, values, self._dense_shape)
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

    def __array__(self, dtype=None, copy=None):
        """Return the dense array that it stands for: `dense_shape` in full, however few the rows are.

        Sums of rows that share an index are those of `merge_rows`.
        """
        if copy is False:
            raise ValueError("copy must not be False: a RowTensor has no dense array to share")
        dense = np.zeros(self._dense_shape, self.dtype if dtype is None else dtype)
        found, merged = merge_rows(self._indices, self._values)
        with np.errstate(over="ignore"):  # a sum beyond float16 is an infinity there
            dense[found] = merged
        return dense

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


def _as_pair(indices, values, dense_shape=None):
    indices, values = as_indices(indices, "indices"), as_floats(values, "values")
    if values.ndim == 0:
        raise ValueError("values must have at least one dimension, got shape ()")
    kernel.storage_of(values.dtype)
    indices, values = matched(indices, values, dense_shape)
    return _as_keys(indices), converted(values, values.dtype.newbyteorder("="))


def _as_keys(indices):
    """Return indices of one dimension as the hash kernel reads them."""
    if len(indices) >= 2**31:
        raise ValueError(f"indices must be fewer than 2**31, got {len(indices)}")
    return converted(indices, np.dtype(np.int32 if indices.dtype.str[1:] == "i4" else np.int64))


def _check_shape(shape):
    if not shape or min(shape) < 0:
        raise ValueError(f"dense_shape must have at least one dimension and none below 0, got {shape}")
    return shape
