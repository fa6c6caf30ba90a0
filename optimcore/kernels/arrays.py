"""What comes as a gradient: arrays of floats, in whatever form."""

import numpy as np


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


def converted(array, dtype):
    """Return `array` as the kernels read it: of `dtype`, C-contiguous, aligned, in native byte order."""
    flags = array.flags
    if array.dtype == dtype and array.dtype.isnative and flags.c_contiguous and flags.aligned:
        return array
    with np.errstate(over="ignore"):  # a float64 value beyond float32 is an infinity there
        return np.array(array, dtype, order="C")
