"""Arrays that the kernels read and write: dtypes, and what comes as a gradient in whatever form."""

import numpy as np

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
    start = (where - memory.__array_interface__["data"][0]) % period
    return memory[start : start + size].view(dtype).reshape(shape)


def as_bits(array):
    """View bfloat16, which has no buffer format, as uint16: what the kernels see."""
    return array.view(np.uint16) if array.dtype.name == "bfloat16" else array


def is_rows(gradient):
    """Tell whether a gradient is a RowTensor, or looks like one."""
    return hasattr(gradient, "dense_shape")


def is_float(dtype):
    """Tell whether a dtype is a real floating one, bfloat16 of ml_dtypes included."""
    return dtype.kind == "f" or dtype.name == "bfloat16"


def as_floats(data, name):
    """Return `data` as an ndarray of floats, sharing memory where possible.

    Takes ndarrays and anything else that NumPy can read: ``__array__``, the buffer protocol.

    Raises
    ------
    TypeError
        If it cannot be read, with the exporter's own reason, or does not hold floats.
    """
    try:
        array = np.asarray(data)
    except Exception as error:
        raise TypeError(f"{name} must be an array of floats, got {type(data).__name__}: {error}") from error
    if not is_float(array.dtype):
        came = array.dtype if isinstance(data, np.ndarray) else type(data).__name__
        raise TypeError(f"{name} must be an array of floats, got {came}")
    return array


def as_indices(data, name):
    """Return `data` as an ndarray of integers with one axis, sharing memory where possible.

    Raises
    ------
    TypeError, ValueError
        If it does not hold integers, or has another number of axes.
    """
    array = np.asarray(data)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name} must have indices that are integers, got {array.dtype}")
    if array.ndim != 1:
        raise ValueError(f"{name} must have indices with one axis, got shape {array.shape}")
    return array


def converted(array, dtype):
    """Return `array` as the kernels read it: of `dtype`, C-contiguous, aligned, in native byte order."""
    flags = array.flags
    # equal dtypes need not be the same to C: long double is a float64 of its own where it has 64 bits
    if array.dtype.num == dtype.num and array.dtype.isnative and flags.c_contiguous and flags.aligned:
        return array
    with np.errstate(over="ignore"):  # a float64 value beyond float32 is an infinity there
        return np.array(array, dtype, order="C")
