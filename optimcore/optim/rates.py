"""Values that may change from step to step: learning rates and weight decay."""

import math
from collections.abc import Iterable

import numpy as np

from ..checks import check_at_least, is_number
from ..parameter import Parameter
from ..schedules import LearningRateSchedule

__all__ = ["check_decay", "check_lengths", "is_dynamic", "make_rate", "read_decay", "reader"]


def make_rate(argument, value, name):
    """Turn any form of a learning rate into the object that keeps it.

    Parameters
    ----------
    argument : str
        What the user calls it, for messages.
    value : number, 0-d or 1-D array, iterable of numbers, or LearningRateSchedule
        The rate; all numbers finite and >= 0.
    name : str
        Name of the Parameter that keeps it.

    Returns
    -------
    Parameter or LearningRateSchedule
        A 0-d float64 Parameter (fixed), a 1-D float64 Parameter (one rate per step), or the schedule itself.
    """
    if isinstance(value, LearningRateSchedule):
        return value
    if isinstance(value, (Parameter, np.ndarray)):
        numbers = _array_rates(argument, np.asarray(value))
    elif isinstance(value, Iterable) and not isinstance(value, (str, bytes, dict, set, frozenset)):
        numbers = _listed_rates(argument, list(value))
    elif is_number(value):
        numbers = check_at_least(argument, value, 0)
    else:
        raise TypeError(
            f"{argument} must be a number, a list of numbers, an array or a LearningRateSchedule, got {value!r}"
        )
    return Parameter(np.array(numbers, np.float64), name, requires_grad=False)


def _array_rates(argument, array):
    if array.ndim > 1:
        raise ValueError(f"{argument} must have 0 or 1 dimensions, got {array.ndim}")
    if array.ndim == 1:
        return _listed_rates(argument, list(array))
    return check_at_least(argument, array[()], 0)


def _listed_rates(argument, values):
    if not values:
        raise ValueError(f"{argument} must not be empty, got {values}")
    for i, value in enumerate(values):
        if isinstance(value, (list, tuple, np.ndarray)):
            raise ValueError(f"{argument} must not be nested, got {value!r} at {argument}[{i}]")
    return [check_at_least(f"{argument}[{i}]", v, 0) for i, v in enumerate(values)]


def check_lengths(rates):
    """Raise ValueError when two rates that list one value per step differ in length."""
    lengths = sorted({r.size for r in rates if isinstance(r, Parameter) and r.ndim == 1})
    if len(lengths) > 1:
        raise ValueError(f"learning_rate must have the same length in all groups, got lengths {lengths}")


def is_dynamic(rate):
    """Tell whether a rate may differ from step to step."""
    return not isinstance(rate, Parameter) or rate.ndim == 1


def reader(rate):
    """Return the function ``read(step)`` of a rate, which gives the float for a step counted from 0.

    It raises ValueError when the value is negative or not finite (a Parameter can be set, a schedule can be
    anyone's), IndexError when a list of rates has no entry for the step.
    """
    if not isinstance(rate, Parameter):
        return _schedule_reader(rate)
    return _fixed_reader(rate) if rate.ndim == 0 else _listed_reader(rate)


def _fixed_reader(rate):
    item, infinity = rate.data.item, math.inf

    def read(step):
        # Steps of a small model cost about as much as a few function calls: a good rate passes without one.
        lr = item()
        return lr if 0.0 <= lr < infinity else _check_rate(lr, step)

    return read


def _listed_reader(rate):
    def read(step):
        if not 0 <= step < rate.size:
            raise IndexError(f"global_step must be in [0, {rate.size}), the length of {rate.name}, got {step}")
        return _check_rate(rate.data.item(step), step)

    return read


def _schedule_reader(schedule):
    return lambda step: _check_rate(_as_number(schedule(step)), step)


def _check_rate(lr, step):
    return check_at_least(f"learning_rate at step {step}", lr, 0)


def check_decay(argument, value):
    """Return a weight decay as it is kept: a float, or the callable itself."""
    if callable(value):
        return value
    if not is_number(value):
        raise TypeError(f"{argument} must be a number or a callable of the step, got {value!r}")
    return check_at_least(argument, value, 0)


def read_decay(decay, step):
    """Return the weight decay of a step as a float."""
    if not callable(decay):
        return decay
    return check_at_least(f"weight_decay at step {step}", _as_number(decay(step)), 0)


def _as_number(value):
    """Unpack an array of one element, which schedules written with NumPy return."""
    if isinstance(value, (Parameter, np.ndarray)) and value.size == 1:
        return np.asarray(value).reshape(())[()]
    return value
