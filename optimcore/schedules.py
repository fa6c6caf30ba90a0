"""Learning rates that change from step to step: schedule objects and lists.

A schedule is called with a step and returns that step's rate; an optimizer calls it once per step.
A list function returns the rates of all steps at once, to be passed as a one-dimensional
learning rate. Steps and epochs count from 0.

Each formula stands once, in the `construct` of its class; a list function samples the same class
once per epoch. Arguments are Python or NumPy numbers, never bool, and ints become floats:
``learning_rate=1`` is accepted although MindSpore insists on ``1.0``. Rates are computed in
float64 (MindSpore: float32).
"""

import math

import numpy as np

from .checks import check_at_least, check_count, check_finite, check_flag, check_positive, is_number
from .kernels.arrays import as_array, one_number
from .kernels.tensors import is_tensor

__all__ = [
    "CosineDecayLR",
    "ExponentialDecayLR",
    "InverseDecayLR",
    "LearningRateSchedule",
    "NaturalExpDecayLR",
    "PolynomialDecayLR",
    "WarmUpLR",
    "cosine_decay_lr",
    "exponential_decay_lr",
    "inverse_decay_lr",
    "natural_exp_decay_lr",
    "piecewise_constant_lr",
    "polynomial_decay_lr",
    "warmup_lr",
]


class LearningRateSchedule:
    """Compute the learning rate from the step; base class of all schedules.

    A schedule of your own subclasses this class and defines ``construct(global_step)``, which
    receives one Python number and returns one number. Calling the schedule adds the rest:

    ========================  =================================================
    ``schedule(step)`` with   returns
    ========================  =================================================
    a Python or NumPy number  a float
    an ndarray of any shape   an ndarray of float64 with that shape
    ========================  =================================================

    An array is evaluated element by element, so it gives the same bits as its numbers one by one.

    Notes
    -----
    An optimizer passes its `global_step`, which is 0 in the first step. Steps are not
    range-checked: a negative or fractional step is put into the formula. Where a formula leaves
    the range of float64 (a `decay_rate` above 1 at a huge step, for example), a ValueError names
    the schedule and the step; MindSpore would train on with an infinite rate.

    Examples
    --------
    A warm-up, followed by a cosine that starts from 0 where the warm-up ends:

    >>> from optimcore import CosineDecayLR, LearningRateSchedule, WarmUpLR
    >>> class WarmUpCosine(LearningRateSchedule):
    ...     def __init__(self, peak, warmup_steps, decay_steps):
    ...         self.warmup_steps = warmup_steps
    ...         self.warmup = WarmUpLR(peak, warmup_steps)
    ...         self.cosine = CosineDecayLR(0.0, peak, decay_steps)
    ...
    ...     def construct(self, global_step):
    ...         if global_step < self.warmup_steps:
    ...             return self.warmup(global_step)
    ...         return self.cosine(global_step - self.warmup_steps)
    >>> schedule = WarmUpCosine(0.5, warmup_steps=2, decay_steps=4)
    >>> [round(schedule(step), 3) for step in range(7)]
    [0.0, 0.25, 0.5, 0.427, 0.25, 0.073, 0.0]
    """

    def __call__(self, global_step):
        # an int comes once per optimizer step: it passes with one look at its type
        if type(global_step) is not int:
            if isinstance(global_step, np.ndarray) or is_tensor(global_step):
                return self._rates(as_array(global_step, "global_step"))
            global_step = _python_number(global_step)
        try:
            rate = self.construct(global_step)
        except ArithmeticError as error:
            raise ValueError(self._not_finite(global_step, f"{type(error).__name__} ({error})")) from error
        return rate if type(rate) is float and -math.inf < rate < math.inf else self._to_float(rate, global_step)

    def _rates(self, steps):
        rates = [self(step) for step in steps.ravel().tolist()]
        return np.array(rates, np.float64).reshape(steps.shape)

    def construct(self, global_step):
        """Return the rate at `global_step`; a subclass defines it.

        Parameters
        ----------
        global_step : int or float
            Number of finished steps, 0 in the first step.

        Returns
        -------
        float
            Any number, or an array or a tensor of one element, is accepted from a subclass.

        Raises
        ------
        NotImplementedError
            If the subclass does not define it.
        """
        raise NotImplementedError(f"{type(self).__name__} must define construct(global_step)")

    def _to_float(self, rate, step):
        name = f"the result of {type(self).__name__}.construct"
        rate = one_number(rate, name)
        if not is_number(rate):
            raise TypeError(f"{name} must be a number, got {rate!r}")
        if not math.isfinite(rate):
            raise ValueError(self._not_finite(step, rate))
        return float(rate)

    def _not_finite(self, step, came):
        return f"learning_rate at step {step} must be finite, got {came} from {type(self).__name__}"


def _python_number(step):
    # NumPy scalars would carry their precision into the formula: np.float32(1) / 3 is a float32
    if not is_number(step):
        raise TypeError(f"global_step must be a number or an ndarray of numbers, got {step!r}")
    return int(step) if isinstance(step, (int, np.integer)) else float(step)


class _DecayLR(LearningRateSchedule):
    """Arguments of the three schedules that decay by a rate."""

    def __init__(self, learning_rate, decay_rate, decay_steps, is_stair=False):
        self.learning_rate = check_positive("learning_rate", learning_rate)
        self.decay_rate = check_positive("decay_rate", decay_rate)
        self.decay_steps = check_count("decay_steps", decay_steps)
        self.is_stair = check_flag("is_stair", is_stair)

    def _periods(self, step):
        return step // self.decay_steps if self.is_stair else step / self.decay_steps


class ExponentialDecayLR(_DecayLR):
    r"""Multiply the rate by `decay_rate` over every `decay_steps` steps.

    .. math:: rate(s) = learning\_rate \cdot decay\_rate^{p}, \quad p = s / decay\_steps

    With `is_stair`, p is rounded down: the rate stays the same within a period.

    Parameters
    ----------
    learning_rate : float
        Rate at step 0, > 0.
    decay_rate : float
        Factor per period, > 0. Above 1 the rate grows.
    decay_steps : int
        Length of a period in steps, >= 1.
    is_stair : bool, default False
        Whether the rate changes only from one period to the next.

    Raises
    ------
    TypeError
        If an argument is of another kind; a bool is not a number, a float is not an int.
    ValueError
        If an argument is out of its range, NaN or infinite.

    Examples
    --------
    >>> from optimcore import ExponentialDecayLR
    >>> schedule = ExponentialDecayLR(0.1, decay_rate=0.5, decay_steps=2)
    >>> [round(schedule(step), 4) for step in range(5)]
    [0.1, 0.0707, 0.05, 0.0354, 0.025]
    >>> schedule = ExponentialDecayLR(0.1, decay_rate=0.5, decay_steps=2, is_stair=True)
    >>> [schedule(step) for step in range(5)]
    [0.1, 0.1, 0.05, 0.05, 0.025]
    """

    def construct(self, global_step):
        return self.learning_rate * self.decay_rate ** self._periods(global_step)


class NaturalExpDecayLR(_DecayLR):
    r"""Decay the rate by a power of e per step.

    .. math:: rate(s) = learning\_rate \cdot e^{-decay\_rate \cdot p}, \quad p = s

    With `is_stair`, p is s rounded down to a multiple of `decay_steps`.

    MindSpore documents :math:`p = s / decay\_steps`, but computes what is written here, and so do
    we: p is a number of steps, and without `is_stair` the argument `decay_steps` has no effect.

    Parameters
    ----------
    learning_rate : float
        Rate at step 0, > 0.
    decay_rate : float
        Decay per step, > 0.
    decay_steps : int
        Length of a stair in steps, >= 1.
    is_stair : bool, default False
        Whether the rate changes only every `decay_steps` steps.

    Raises
    ------
    TypeError, ValueError
        As `ExponentialDecayLR`.

    Examples
    --------
    >>> from optimcore import NaturalExpDecayLR
    >>> schedule = NaturalExpDecayLR(0.1, decay_rate=0.9, decay_steps=4)
    >>> [round(schedule(step), 4) for step in range(5)]
    [0.1, 0.0407, 0.0165, 0.0067, 0.0027]
    >>> schedule = NaturalExpDecayLR(0.1, decay_rate=0.9, decay_steps=4, is_stair=True)
    >>> [round(schedule(step), 4) for step in range(5)]
    [0.1, 0.1, 0.1, 0.1, 0.0027]
    """

    def construct(self, global_step):
        steps = global_step // self.decay_steps * self.decay_steps if self.is_stair else global_step
        return self.learning_rate * math.exp(-self.decay_rate * steps)


class InverseDecayLR(_DecayLR):
    r"""Divide the rate by a number that grows linearly with the step.

    .. math:: rate(s) = \frac{learning\_rate}{1 + decay\_rate \cdot p}, \quad p = s / decay\_steps

    With `is_stair`, p is rounded down: the rate stays the same within a period.

    Parameters
    ----------
    learning_rate : float
        Rate at step 0, > 0.
    decay_rate : float
        Growth of the divisor per period, > 0.
    decay_steps : int
        Length of a period in steps, >= 1.
    is_stair : bool, default False
        Whether the rate changes only from one period to the next.

    Raises
    ------
    TypeError, ValueError
        As `ExponentialDecayLR`.

    Examples
    --------
    >>> from optimcore import InverseDecayLR
    >>> schedule = InverseDecayLR(0.5, decay_rate=1.0, decay_steps=2)
    >>> [round(schedule(step), 4) for step in range(5)]
    [0.5, 0.3333, 0.25, 0.2, 0.1667]
    """

    def construct(self, global_step):
        return self.learning_rate / (1 + self.decay_rate * self._periods(global_step))


class CosineDecayLR(LearningRateSchedule):
    r"""Lower the rate from `max_lr` to `min_lr` along half a cosine wave, then keep it.

    .. math::
        rate(s) = min\_lr + \frac{max\_lr - min\_lr}{2} (1 + \cos \pi q),
        \quad q = \min(s, decay\_steps) / decay\_steps

    Parameters
    ----------
    min_lr : float
        Rate from step `decay_steps` on, >= 0.
    max_lr : float
        Rate at step 0, > `min_lr`.
    decay_steps : int
        Length of the decay in steps, >= 1.

    Raises
    ------
    TypeError, ValueError
        As `ExponentialDecayLR`; ValueError also if `max_lr` is not above `min_lr`.

    Examples
    --------
    >>> from optimcore import CosineDecayLR
    >>> schedule = CosineDecayLR(0.0, 1.0, decay_steps=4)
    >>> [round(schedule(step), 4) for step in range(6)]
    [1.0, 0.8536, 0.5, 0.1464, 0.0, 0.0]
    """

    def __init__(self, min_lr, max_lr, decay_steps):
        self.min_lr = check_at_least("min_lr", min_lr, 0)
        self.max_lr = check_positive("max_lr", max_lr)
        self.decay_steps = check_count("decay_steps", decay_steps)
        if not self.max_lr > self.min_lr:
            raise ValueError(f"max_lr must be > min_lr = {min_lr}, got {max_lr}")

    def construct(self, global_step):
        angle = math.pi * (min(global_step, self.decay_steps) / self.decay_steps)
        return self.min_lr + (self.max_lr - self.min_lr) / 2 * (1 + math.cos(angle))


class PolynomialDecayLR(LearningRateSchedule):
    r"""Move the rate from its start to its end along a power of the remaining way.

    .. math::
        rate(s) = (learning\_rate - end\_learning\_rate) (1 - s' / D)^{power}
        + end\_learning\_rate

    Normally :math:`s' = \min(s, decay\_steps)` and :math:`D = decay\_steps`: after `decay_steps`
    steps the rate stays at its end. With `update_decay_steps`, :math:`s' = s` and D is the next
    multiple of `decay_steps` at or after s: the rate touches its end at each multiple and jumps up
    again after it.

    Parameters
    ----------
    learning_rate : float
        Rate at step 0, > 0.
    end_learning_rate : float
        Rate at the end, >= 0. It may exceed `learning_rate`; the rate then grows.
    decay_steps : int
        Length of the decay in steps, >= 1.
    power : float
        Exponent, > 0. 1.0 is a straight line.
    update_decay_steps : bool, default False
        Whether the decay starts again, over a longer way, each time it ends.

    Raises
    ------
    TypeError, ValueError
        As `ExponentialDecayLR`.

    Examples
    --------
    >>> from optimcore import PolynomialDecayLR
    >>> schedule = PolynomialDecayLR(0.5, 0.0, decay_steps=2, power=1.0)
    >>> [schedule(step) for step in range(5)]
    [0.5, 0.25, 0.0, 0.0, 0.0]
    >>> schedule = PolynomialDecayLR(0.5, 0.0, decay_steps=2, power=1.0, update_decay_steps=True)
    >>> [schedule(step) for step in range(5)]
    [0.5, 0.25, 0.0, 0.125, 0.0]
    """

    def __init__(self, learning_rate, end_learning_rate, decay_steps, power, update_decay_steps=False):
        self.learning_rate = check_positive("learning_rate", learning_rate)
        self.end_learning_rate = check_at_least("end_learning_rate", end_learning_rate, 0)
        self.decay_steps = check_count("decay_steps", decay_steps)
        self.power = check_positive("power", power)
        self.update_decay_steps = check_flag("update_decay_steps", update_decay_steps)

    def construct(self, global_step):
        end = self.end_learning_rate
        if self.update_decay_steps:
            # -(-a // b) rounds up without a rounding error, so that the root is never negative
            decay_steps = self.decay_steps * max(-(-global_step // self.decay_steps), 1)
        else:
            decay_steps = self.decay_steps
            global_step = min(global_step, decay_steps)
        return (self.learning_rate - end) * (1 - global_step / decay_steps) ** self.power + end


class WarmUpLR(LearningRateSchedule):
    r"""Raise the rate from 0 to `learning_rate` in a straight line, then keep it.

    .. math:: rate(s) = learning\_rate \cdot \min(s, warmup\_steps) / warmup\_steps

    The first step has s = 0, and therefore the rate 0: it changes nothing but the optimizer's
    state.

    Parameters
    ----------
    learning_rate : float
        Rate from step `warmup_steps` on, >= 0. (MindSpore documents > 0, but accepts 0 as well.)
    warmup_steps : int
        Length of the warm-up in steps, >= 1.

    Raises
    ------
    TypeError, ValueError
        As `ExponentialDecayLR`.

    Examples
    --------
    >>> from optimcore import WarmUpLR
    >>> schedule = WarmUpLR(0.5, warmup_steps=4)
    >>> [schedule(step) for step in range(6)]
    [0.0, 0.125, 0.25, 0.375, 0.5, 0.5]
    """

    def __init__(self, learning_rate, warmup_steps):
        self.learning_rate = check_at_least("learning_rate", learning_rate, 0)
        self.warmup_steps = check_count("warmup_steps", warmup_steps)

    def construct(self, global_step):
        return self.learning_rate * min(global_step, self.warmup_steps) / self.warmup_steps


# --- list functions ----------------------------------------------------------------------------


def piecewise_constant_lr(milestone, learning_rates):
    """Return a list of rates that is constant between milestones.

    Parameters
    ----------
    milestone : list or tuple of int
        ``learning_rates[t]`` holds up to, but not including, step ``milestone[t]``. Each is >= 1
        and at least the one before it; of two equal ones the second adds no item.
    learning_rates : list or tuple of float
        One rate per milestone. The sign is not checked here; an optimizer refuses negative rates.

    Returns
    -------
    list of float
        One rate per step; the last milestone is the length. Empty if there is no milestone.

    Raises
    ------
    TypeError
        If an argument is neither list nor tuple, a milestone no int or a rate no number.
    ValueError
        If the lengths differ, a milestone is < 1 or less than the one before, a rate is NaN or
        infinite.

    Examples
    --------
    >>> from optimcore import piecewise_constant_lr
    >>> piecewise_constant_lr([2, 5], [0.1, 0.05])
    [0.1, 0.1, 0.05, 0.05, 0.05]
    """
    for name, value in ("milestone", milestone), ("learning_rates", learning_rates):
        if not isinstance(value, (list, tuple)):
            raise TypeError(f"{name} must be a list or tuple, got {value!r}")
    if len(milestone) != len(learning_rates):
        raise ValueError(
            f"learning_rates must have one item per milestone, "
            f"got {len(learning_rates)} for {len(milestone)} milestones"
        )
    rates = []
    for t, (end, rate) in enumerate(zip(milestone, learning_rates, strict=True)):
        end = check_count(f"milestone[{t}]", end)
        rate = check_finite(f"learning_rates[{t}]", rate)
        if end < len(rates):
            raise ValueError(f"milestone[{t}] must be >= milestone[{t - 1}] = {len(rates)}, got {end}")
        rates += [rate] * (end - len(rates))
    return rates


def _sample_epochs(schedule, total_step, step_per_epoch):
    total_step = check_count("total_step", total_step)
    step_per_epoch = check_count("step_per_epoch", step_per_epoch)
    rates = [schedule(epoch) for epoch in range((total_step - 1) // step_per_epoch + 1)]
    return [rates[step // step_per_epoch] for step in range(total_step)]


def exponential_decay_lr(learning_rate, decay_rate, total_step, step_per_epoch, decay_epoch, is_stair=False):
    """Return the list of rates of `ExponentialDecayLR`, with the epoch as its step.

    Item i belongs to epoch ``i // step_per_epoch``.

    Parameters
    ----------
    learning_rate, decay_rate, is_stair
        As in `ExponentialDecayLR`.
    total_step : int
        Number of items, >= 1.
    step_per_epoch : int
        Steps in one epoch, >= 1.
    decay_epoch : int
        Takes the place of `decay_steps`, in epochs, >= 1.

    Returns
    -------
    list of float
        `total_step` rates.

    Raises
    ------
    TypeError, ValueError
        As `ExponentialDecayLR`.

    Examples
    --------
    >>> from optimcore import exponential_decay_lr
    >>> exponential_decay_lr(0.1, 0.5, total_step=6, step_per_epoch=2, decay_epoch=1)
    [0.1, 0.1, 0.05, 0.05, 0.025, 0.025]
    """
    decay_epoch = check_count("decay_epoch", decay_epoch)
    schedule = ExponentialDecayLR(learning_rate, decay_rate, decay_epoch, is_stair)
    return _sample_epochs(schedule, total_step, step_per_epoch)


def natural_exp_decay_lr(learning_rate, decay_rate, total_step, step_per_epoch, decay_epoch, is_stair=False):
    """Return the list of rates of `NaturalExpDecayLR`, with the epoch as its step.

    As there, the exponent counts epochs and is not divided by `decay_epoch`, whatever MindSpore's
    documentation says. Parameters, result and errors are those of `exponential_decay_lr`.

    Examples
    --------
    >>> from optimcore import natural_exp_decay_lr
    >>> rates = natural_exp_decay_lr(0.1, 0.9, total_step=6, step_per_epoch=2, decay_epoch=2)
    >>> [round(rate, 4) for rate in rates]
    [0.1, 0.1, 0.0407, 0.0407, 0.0165, 0.0165]
    """
    decay_epoch = check_count("decay_epoch", decay_epoch)
    schedule = NaturalExpDecayLR(learning_rate, decay_rate, decay_epoch, is_stair)
    return _sample_epochs(schedule, total_step, step_per_epoch)


def inverse_decay_lr(learning_rate, decay_rate, total_step, step_per_epoch, decay_epoch, is_stair=False):
    """Return the list of rates of `InverseDecayLR`, with the epoch as its step.

    Parameters, result and errors are those of `exponential_decay_lr`.

    Examples
    --------
    >>> from optimcore import inverse_decay_lr
    >>> inverse_decay_lr(0.5, 1.0, total_step=4, step_per_epoch=2, decay_epoch=1)
    [0.5, 0.5, 0.25, 0.25]
    """
    decay_epoch = check_count("decay_epoch", decay_epoch)
    schedule = InverseDecayLR(learning_rate, decay_rate, decay_epoch, is_stair)
    return _sample_epochs(schedule, total_step, step_per_epoch)


def cosine_decay_lr(min_lr, max_lr, total_step, step_per_epoch, decay_epoch):
    """Return the list of rates of `CosineDecayLR`, with the epoch as its step.

    `min_lr` and `max_lr` are those of `CosineDecayLR`; the other parameters, the result and the
    errors are those of `exponential_decay_lr`.

    Examples
    --------
    >>> from optimcore import cosine_decay_lr
    >>> rates = cosine_decay_lr(0.0, 1.0, total_step=6, step_per_epoch=2, decay_epoch=2)
    >>> [round(rate, 4) for rate in rates]
    [1.0, 1.0, 0.5, 0.5, 0.0, 0.0]
    """
    decay_epoch = check_count("decay_epoch", decay_epoch)
    schedule = CosineDecayLR(min_lr, max_lr, decay_epoch)
    return _sample_epochs(schedule, total_step, step_per_epoch)


def polynomial_decay_lr(
    learning_rate,
    end_learning_rate,
    total_step,
    step_per_epoch,
    decay_epoch,
    power,
    update_decay_epoch=False,
):
    """Return the list of rates of `PolynomialDecayLR`, with the epoch as its step.

    `update_decay_epoch` takes the place of `update_decay_steps`; `learning_rate`,
    `end_learning_rate` and `power` are those of `PolynomialDecayLR`; the other parameters, the
    result and the errors are those of `exponential_decay_lr`.

    Examples
    --------
    >>> from optimcore import polynomial_decay_lr
    >>> polynomial_decay_lr(0.5, 0.0, total_step=6, step_per_epoch=2, decay_epoch=2, power=1.0)
    [0.5, 0.5, 0.25, 0.25, 0.0, 0.0]
    """
    decay_epoch = check_count("decay_epoch", decay_epoch)
    update = check_flag("update_decay_epoch", update_decay_epoch)
    schedule = PolynomialDecayLR(learning_rate, end_learning_rate, decay_epoch, power, update)
    return _sample_epochs(schedule, total_step, step_per_epoch)


def warmup_lr(learning_rate, total_step, step_per_epoch, warmup_epoch):
    """Return the list of rates of `WarmUpLR`, with the epoch as its step.

    The whole first epoch has rate 0. `warmup_epoch`, in epochs, takes the place of `warmup_steps`;
    the other parameters, the result and the errors are those of `exponential_decay_lr`, but
    `learning_rate` may be 0.

    Examples
    --------
    >>> from optimcore import warmup_lr
    >>> warmup_lr(0.5, total_step=6, step_per_epoch=2, warmup_epoch=2)
    [0.0, 0.0, 0.25, 0.25, 0.5, 0.5]
    """
    warmup_epoch = check_count("warmup_epoch", warmup_epoch)
    return _sample_epochs(WarmUpLR(learning_rate, warmup_epoch), total_step, step_per_epoch)
