"""Values that may change from step to step: learning rates and weight decay."""

import math
from collections.abc import Iterable

import numpy as np

from ..checks import check_at_least, is_number
from ..kernels.arrays import as_array, is_float, one_number
from ..kernels.tensors import is_tensor
from ..parameter import Parameter
from ..schedules import LearningRateSchedule

__all__ = ["check_decay", "check_lengths", "is_dynamic", "make_rate", "read_decay", "reader"]


_ONE_RATE = "; a list holds the rate of every step: pass the number itself for a fixed rate"


def make_rate(argument, value, name):
    """Turn any form of a learning rate into the object that keeps it.

    Parameters
    ----------
    argument : str
        What the user calls it, for messages.
    value : number, 0-d or 1-D array or tensor, iterable of numbers, or LearningRateSchedule
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
    if is_array(value):
        numbers = _array_rates(argument, as_array(value, argument))
    elif isinstance(value, Iterable) and not isinstance(value, (str, bytes, dict, set, frozenset)):
        numbers = _listed_rates(argument, list(value))
    elif is_number(value):
        numbers = check_at_least(argument, value, 0)
    else:
        raise TypeError(
            f"{argument} must be a number, a list of numbers, an array or a LearningRateSchedule, got {value!r}"
        )
    return Parameter(np.array(numbers, np.float64), name, requires_grad=False)


def is_array(value):
    """Tell whether a value is an array of some library; NumPy's scalars are numbers."""
    return is_tensor(value) or (hasattr(value, "__array__") and not isinstance(value, np.generic))


def _array_rates(argument, array):
    if is_float(array.dtype):
        array = array.astype(np.float64)  # of bfloat16, too
    if array.ndim > 1:
        raise ValueError(f"{argument} must have 0 or 1 dimensions, got {array.ndim}")
    if array.ndim == 1:
        return _listed_rates(argument, list(array))
    return check_at_least(argument, array[()], 0)


def _listed_rates(argument, values):
    if not values:
        raise ValueError(f"{argument} must not be empty, got {values}")
    numbers = []
    for i, value in enumerate(values):
        if is_array(value):
            array = as_array(value, f"{argument}[{i}]")
            value = array.item() if array.ndim == 0 else array
        if isinstance(value, (list, tuple, np.ndarray)):
            raise ValueError(f"{argument} must not be nested, got {value!r} at {argument}[{i}]")
        numbers.append(check_at_least(f"{argument}[{i}]", value, 0))
    return numbers


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
            raise IndexError(
                f"global_step must be in [0, {rate.size}), the length of {rate.name}, got {step}"
                + _ONE_RATE * (rate.size == 1)
            )
        return _check_rate(rate.data.item(step), step)

    return read


def _schedule_reader(schedule):
    kind = type(schedule).__name__

    def read(step):
        try:
            lr = schedule(step)
        except ArithmeticError as error:  # of a subclass that overrides __call__; the base class names its own
            raise ValueError(
                f"learning_rate at step {step} must be finite, got {type(error).__name__} ({error}) from {kind}"
            ) from error
        if type(lr) is float and 0.0 <= lr < math.inf:
            return lr
        try:
            return _check_rate(one_number(lr, f"learning_rate at step {step}"), step)
        except (TypeError, ValueError) as error:
            raise type(error)(f"{error} from {kind}") from None

    return read


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
    name = f"weight_decay at step {step}"
    try:
        value = decay(step)
    except ArithmeticError as error:
        raise ValueError(f"{name} must be finite, got {type(error).__name__} ({error})") from error
    return check_at_least(name, one_number(value, name), 0)
