"""Checks of arguments: the error names the argument, the rule and what came.

A number is a Python or NumPy integer or floating scalar, never a bool; it is returned as a float.
"""

import math

import numpy as np


def is_number(value):
    """Tell whether `value` is a real Python or NumPy scalar; a bool is not a number."""
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)


def check_finite(name, value):
    """Return the number `value` as a finite float."""
    if not is_number(value):
        raise TypeError(f"{name} must be a number, got {value!r}")
    try:
        number = float(value)
    except OverflowError:  # an int beyond float64
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"{name} must be finite, got {value}")
    return number


def check_positive(name, value):
    """Return the number `value` as a finite float > 0."""
    number = check_finite(name, value)
    if not number > 0:
        raise ValueError(f"{name} must be > 0, got {value}")
    return number


def check_at_least(name, value, least):
    """Return the number `value` as a finite float >= `least`."""
    number = check_finite(name, value)
    if not number >= least:
        raise ValueError(f"{name} must be >= {least}, got {value}")
    return number


def check_fraction(name, value):
    """Return the number `value` as a float in (0, 1)."""
    number = check_finite(name, value)
    if not 0 < number < 1:
        raise ValueError(f"{name} must be in (0, 1), got {value}")
    return number


def check_count(name, value, least=1):
    """Return `value` as an int >= `least`; a float is refused even when it is whole."""
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool):
        raise TypeError(f"{name} must be an int, got {value!r}")
    if value < least:
        raise ValueError(f"{name} must be >= {least}, got {value}")
    return int(value)


def check_flag(name, value):
    """Return `value`, which must be exactly True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be a bool, got {value!r}")
    return value
