"""Arrays that the kernels read and write: dtypes, and what comes as a gradient in whatever form."""

import operator
from collections.abc import Sequence

import numpy as np

from optimcore.kernels.tensors import address, is_sparse_coo, is_tensor, tensor_array

COMPUTE_DTYPES = {
    "float16": np.dtype(np.float32),
    "bfloat16": np.dtype(np.float32),
    "float32": np.dtype(np.float32),
    "float64": np.dtype(np.float64),
}


def has_kernel(dtype):
    """Tell whether parameters and gradients of this dtype have kernels."""
    return dtype.name in COMPUTE_DTYPES


def compute_dtype(dtype, name="dtype"):
    """Return the dtype that kernels compute in, and slots have, for parameters of `dtype`.

    Parameters
    ----------
    dtype : dtype
        Of the parameters.
    name : str
        What has this dtype, for the message.

    Returns
    -------
    dtype
        float64 for float64; float32 for float32, float16 and bfloat16.

    Raises
    ------
    TypeError
        If no kernel takes parameters of this dtype.
    """
    if not has_kernel(dtype):
        raise TypeError(f"{name} must be one of {', '.join(COMPUTE_DTYPES)}, got {dtype}")
    return COMPUTE_DTYPES[dtype.name]


def aligned_zeros(shape, dtype, number=0, allocate=np.zeros):
    """Return new zeros, in pages that are not touched yet, where kernels are fastest.

    They start at a cache line: on CPUs with 64 byte vectors a step takes up to 2.8 times as long when no store does
    (Adam, 100,000 float32, AMD EPYC of family 25). Large arrays with another `number` lie differently in their page,
    so that a store to one is not mistaken for one to the other, of which the CPU compares the lowest 12 bits first.
    ``allocate(size, dtype)`` returns the zeros of which these are a part.
    """
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    line, page = 64, 4096
    where, period = (10 * line * (number + 1) % page, page) if size >= 4 * page else (0, line)
    memory = allocate(size + period, np.uint8)
    start = (where - address(memory)) % period
    return memory[start : start + size].view(dtype).reshape(shape)


def as_bits(array):
    """View bfloat16, which has no buffer format, as uint16: what the kernels see."""
    return array.view(np.uint16) if array.dtype.name == "bfloat16" else array


def is_float(dtype):
    """Tell whether a dtype is a real floating one, bfloat16 of ml_dtypes included."""
    return dtype.kind == "f" or dtype.name == "bfloat16"


def unmasked(array, name):
    """Return `array` as it is, unless it is a masked one: NumPy drops the mask, and what it hides becomes data."""
    if isinstance(array, np.ma.MaskedArray):
        raise TypeError(
            f"{name} must not be a masked array, whose mask would be lost; pass array.filled(0) or array.compressed()"
        )
    return array


def as_array(data, name):
    """Return `data` as an ndarray, sharing memory where possible.

    This is how the package reads whatever a caller passes: ndarrays, torch tensors (whose gradient is not followed),
    objects with ``__array__``, the buffer protocol or ``__dlpack__``, numbers, and nested lists of these.

    Raises
    ------
    TypeError
        If `data` is a masked array or has one in it.
    TypeError, ValueError, ImportError
        If it is a tensor that NumPy cannot share.
    Exception
        Whatever the object raises that cannot be read.
    """
    if isinstance(data, np.ndarray):
        return np.asarray(unmasked(data, name))
    if is_tensor(data):
        return tensor_array(data, name)
    if isinstance(data, (list, tuple)):
        data = _readable(data, name)
    elif hasattr(data, "__dlpack__") and not hasattr(data, "__array__"):
        return np.from_dlpack(data)
    return np.asarray(unmasked(np.asanyarray(data), name))


def _readable(data, name):
    """Return a list in which NumPy neither drops a mask nor asks a tensor for its ``__array__``.

    Rows in it are refused: NumPy would make dense arrays of them, as large as their tables.
    """
    kinds = set(map(type, data))  # most lists are of numbers, and long
    if all(issubclass(kind, (int, float, np.number)) for kind in kinds):
        return data
    if any(map(is_rows, data)):
        raise TypeError(
            f"{name} must not be a list of rows; pass one optimcore.RowTensor of their indices and values, each joined "
            "by numpy.concatenate"
        )
    return [_readable(x, name) if isinstance(x, (list, tuple)) else as_array(x, name) for x in data]


def as_floats(data, name):
    """Return `data` as an ndarray of floats, sharing memory where possible.

    Raises
    ------
    TypeError
        If it cannot be read, with the exporter's own reason, or does not hold floats.
    """
    array = _read(data, name, "an array of floats")
    if not is_float(array.dtype):
        came = array.dtype if isinstance(data, np.ndarray) else type(data).__name__
        raise TypeError(f"{name} must be an array of floats, got {came}{pair_hint(data)}")
    return array


def _read(data, name, kind):
    try:
        return as_array(data, name)
    except (ImportError, MemoryError):
        raise
    except Exception as error:
        if str(error).startswith(name):  # it says already what must be different
            raise
        reason = pair_hint(data) or f": {error}"
        raise TypeError(f"{name} must be {kind}, got {type(data).__name__}{reason}") from error


def pair_hint(data):
    """Return what to write instead of a pair of indices and values, or nothing if `data` is none."""
    if not isinstance(data, (list, tuple)) or len(data) != 2:
        return ""
    try:
        indices, values = as_array(data[0], "indices"), as_array(data[1], "values")
    except Exception:
        return ""
    if indices.dtype.kind not in "iu" or not is_float(values.dtype):
        return ""
    return "; pass indices and values as optimcore.RowTensor(indices, values, dense_shape)"


def as_indices(data, name):
    """Return `data` as an ndarray of integers with at least one axis, sharing memory where possible.

    An empty array of floats, which is how NumPy and torch read an empty list, holds no index.

    Raises
    ------
    TypeError, ValueError
        If it does not hold integers, has no axis, or a value does not fit int64.
    """
    array = _read(data, name, "an array of integers")
    if array.size == 0 and is_float(array.dtype):
        array = array.astype(np.int64)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name} must be integers, got dtype {array.dtype}")
    if array.ndim == 0:
        raise ValueError(f"{name} must have one dimension, got shape ()")
    if array.dtype.kind == "u" and array.max(initial=0) > np.iinfo(np.int64).max:
        raise ValueError(f"{name} must fit int64, got {array.max()}")
    return array


def as_shape(shape, name):
    """Return the shape of a dense array as a tuple of ints: of a tuple, a list, an array or a tensor of integers."""
    is_array = isinstance(shape, np.ndarray) or is_tensor(shape) or hasattr(shape, "__array__")
    try:
        if is_array:
            numbers = as_array(shape, name)
            if numbers.dtype.kind not in "iu" or numbers.ndim != 1:
                raise TypeError
            return tuple(numbers.tolist())
        if not isinstance(shape, Sequence) or isinstance(shape, (str, bytes)):
            raise TypeError
        if any(isinstance(n, (bool, np.bool_)) for n in shape):
            raise TypeError
        return tuple(operator.index(n) for n in shape)
    except TypeError:
        raise TypeError(f"{name} must be a tuple or list of ints, got {shape!r}") from None


def is_rows(gradient):
    """Tell whether a gradient looks like one of rows: a RowTensor, a sparse COO tensor, TensorFlow's IndexedSlices."""
    return hasattr(gradient, "dense_shape") or is_sparse_coo(gradient)


def as_rows(gradient, name, shape=None):
    """Return the indices, the values and the dense shape of a gradient for which `is_rows` is true.

    Parameters
    ----------
    gradient : RowTensor, torch.Tensor of layout sparse COO, or object with indices, values and dense_shape
        It may be not coalesced: then indices repeat.
    name : str
        What it is, for messages.
    shape : tuple of int, optional
        What its dense shape must be. A `dense_shape` of None stands for it.

    Returns
    -------
    indices : ndarray of integers, shape (k,)
    values : ndarray of floats, shape (k, *dense_shape[1:])
    dense_shape : tuple of int, or None
        None if neither the gradient nor the caller knows.

    Raises
    ------
    TypeError, ValueError
        If a shape or a dtype does not fit.
    """
    if is_sparse_coo(gradient):
        indices, values, dense_shape = _parts_of_coo(gradient, name)
    else:
        indices, values, dense_shape = gradient.indices, gradient.values, gradient.dense_shape
    if dense_shape is None:
        dense_shape = shape
    else:
        dense_shape = as_shape(dense_shape, f"dense_shape of {name}")
    if shape is not None and dense_shape != shape:
        raise ValueError(f"{name} must have dense_shape {shape}, got {dense_shape}")
    try:
        indices, values = as_indices(indices, "indices"), as_floats(values, "values")
        indices, values = matched(indices, values, dense_shape)
    except (TypeError, ValueError, ImportError) as error:
        known = "" if dense_shape is None else f", to fit dense_shape {dense_shape}"
        raise type(error)(f"{name} must have indices and values of rows{known}: {error}") from error
    return indices, values, dense_shape


def _parts_of_coo(tensor, name):
    if tensor.sparse_dim() != 1:
        raise ValueError(
            f"{name} must be sparse in its first dimension alone, got sparse_dim {tensor.sparse_dim()} for shape "
            f"{tuple(tensor.shape)}; pass tensor.to_dense()"
        )
    return tensor._indices()[0], tensor._values(), tuple(tensor.shape)


def matched(indices, values, dense_shape):
    """Return indices with one axis and the values that belong to them, one row for each.

    Indices of a batch of sequences, shape (batch, time), have values of shape (batch, time, ...): both are flattened.
    Without any index, ``[]`` are values.

    Parameters
    ----------
    indices, values : ndarray
    dense_shape : tuple of int, or None
        None if rows may have any shape.
    """
    row = values.shape[indices.ndim :] if dense_shape is None else dense_shape[1:]
    if indices.size == 0 and values.shape == (0,):
        values = values.reshape(0, *row)
        indices = indices.reshape(0)
    if indices.ndim > 1 and values.shape == (*indices.shape, *row):
        count = indices.size
        return indices.reshape(count), values.reshape(count, *row)
    if indices.ndim == 1 and values.ndim and len(values) != len(indices):
        raise ValueError(f"indices and values must have one length, got {len(indices)} and {len(values)}")
    if values.shape != (*indices.shape, *row):
        raise ValueError(
            f"values must have shape (*indices.shape, *dense_shape[1:]), that is {(*indices.shape, *row)}, "
            f"got {values.shape}"
        )
    return indices, values


def one_number(value, name):
    """Return the number in an array or tensor of one element as a Python number; anything else as it is."""
    if isinstance(value, (bool, int, float, np.generic)):
        return value
    if not (is_tensor(value) or hasattr(value, "__array__")):
        return value
    array = as_array(value, name)
    return array.item() if array.size == 1 else value


def converted(array, dtype):
    """Return `array` as the kernels read it: of `dtype`, C-contiguous, aligned, in native byte order."""
    flags = array.flags
    # equal dtypes need not be the same to C: long double is a float64 of its own where it has 64 bits
    if array.dtype.num == dtype.num and array.dtype.isnative and flags.c_contiguous and flags.aligned:
        return array
    if array.dtype.itemsize <= dtype.itemsize:
        return np.array(array, dtype, order="C")
    with np.errstate(over="ignore"):  # a float64 value beyond float32 is an infinity there
        return np.array(array, dtype, order="C")
