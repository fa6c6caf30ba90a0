"""Managers of the loss scale, for training in 16-bit precision.

The training step multiplies the loss by the scale, so that small gradients do not vanish in 16
bits, and divides the gradients by it again. A manager holds the scale and says what an overflow
does to it.
"""

import math
import sys

import numpy as np

from optimcore.checks import check_at_least, check_count, check_flag, check_positive
from optimcore.kernels.arrays import as_array

__all__ = [
    "DynamicLossScaleManager",
    "DynamicLossScaleUpdateCell",
    "FixedLossScaleManager",
    "FixedLossScaleUpdateCell",
]


class FixedLossScaleManager:
    """Hold a loss scale that never changes.

    With ``drop_overflow_update=True`` the training step divides the gradients, skips the update
    after an overflow, and the optimizer keeps ``loss_scale=1.0``. With False nothing is skipped
    and the optimizer divides: then, and only then, give the optimizer the same `loss_scale`.

    Parameters
    ----------
    loss_scale : float, default 128.0
        >= 1. An int stays an int. NaN is refused, although MindSpore lets it pass.
    drop_overflow_update : bool, default True
        Whether a step with overflow is skipped.

    Raises
    ------
    TypeError
        If `loss_scale` is no number or `drop_overflow_update` no bool.
    ValueError
        If `loss_scale` is less than 1, NaN or infinite.

    Examples
    --------
    >>> from optimcore import FixedLossScaleManager
    >>> manager = FixedLossScaleManager(1024.0, drop_overflow_update=False)
    >>> manager.update_loss_scale(overflow=True)
    >>> manager.get_loss_scale()
    1024.0
    """

    def __init__(self, loss_scale=128.0, drop_overflow_update=True):
        check_at_least("loss_scale", loss_scale, 1)
        self.loss_scale = loss_scale
        self.drop_overflow_update = check_flag("drop_overflow_update", drop_overflow_update)

    def get_loss_scale(self):
        """Return the loss scale as it was given."""
        return self.loss_scale

    def get_drop_overflow_update(self):
        """Return whether a step with overflow is skipped."""
        return self.drop_overflow_update

    def update_loss_scale(self, overflow):
        """Do nothing: the scale is fixed."""

    def get_update_cell(self):
        """Return a new `FixedLossScaleUpdateCell`, or None if no step is ever skipped."""
        return FixedLossScaleUpdateCell(self.loss_scale) if self.drop_overflow_update else None


class FixedLossScaleUpdateCell:
    """Stand in for `DynamicLossScaleUpdateCell` where the scale is fixed.

    Parameters
    ----------
    loss_scale_value : float
        The loss scale, >= 1.

    Raises
    ------
    TypeError, ValueError
        As `FixedLossScaleManager`.
    """

    def __init__(self, loss_scale_value):
        check_at_least("loss_scale_value", loss_scale_value, 1)
        self.loss_scale_value = loss_scale_value

    def get_loss_scale(self):
        """Return the loss scale as it was given."""
        return self.loss_scale_value

    def __call__(self, loss_scale, overflow):
        """Return `overflow` unchanged and leave `loss_scale` alone."""
        return overflow


class _DynamicLossScale:
    """The rule that the manager and the update cell share, and the count of steps it needs."""

    def __init__(self, scale_factor, scale_window):
        self.increase_ratio = check_positive("scale_factor", scale_factor)
        self.decrease_ratio = 1 / self.increase_ratio
        self.scale_window = check_count("scale_window", scale_window)
        self.cur_iter = 1  # the coming step, counted from 1
        self.last_overflow_iter = 0

    def _next_scale(self, loss_scale, overflow, largest=sys.float_info.max):
        """Return the scale of the next step. `largest`: the largest number of the type that holds it."""
        top = math.ldexp(1.0, math.frexp(largest)[1] - 1)  # a power of two, so that unscaling stays exact
        if not loss_scale <= largest:
            loss_scale = top  # it has been infinite
        if overflow:
            scale = max(loss_scale * self.decrease_ratio, 1.0)
        elif (self.cur_iter - self.last_overflow_iter) % self.scale_window == 0:
            scale = loss_scale * self.increase_ratio
        else:
            return loss_scale
        return scale if scale <= largest else max(loss_scale, top)


def _largest(dtype):
    """Return the largest finite number of a dtype, as a float."""
    if dtype.kind in "iu":
        return float(np.iinfo(dtype).max)
    if dtype.name == "bfloat16":
        from ml_dtypes import finfo  # it is there, as arrays of it are

        return float(finfo(dtype).max)
    return float(np.finfo(dtype).max)


class DynamicLossScaleManager(_DynamicLossScale):
    """Lower the loss scale after an overflow, raise it after a series of good steps.

    An overflow divides the scale by `scale_factor`, but never below 1. Every `scale_window` steps
    in a row without overflow multiply it by `scale_factor`, as long as the type that holds the
    scale has such a number: float64 here, the type of the array in the update cell. A step that
    would lead beyond leads to the largest power of two of the type, 2**1023 or 2**15 for float16,
    and so does an infinite scale, for instance a loaded one. MindSpore has no upper bound, and does
    not come back from infinity. A step with overflow is always to be skipped, so the optimizer
    keeps ``loss_scale=1.0``.

    Parameters
    ----------
    init_loss_scale : float, default 2**24
        Scale of the first step, >= 1.
    scale_factor : float, default 2
        > 0; a sensible one is > 1.
    scale_window : int, default 2000
        Good steps in a row before the scale is raised, >= 1.

    Attributes
    ----------
    loss_scale : float
        The scale of the coming step.
    increase_ratio, decrease_ratio : float
        `scale_factor` and its reciprocal.
    cur_iter : int
        Number of the coming step; the first is 1.
    last_overflow_iter : int
        Number of the last step with overflow, 0 if there was none.
    bad_step, bad_step_max : int
        Number of steps with overflow in a row, and how many are allowed (1000).

    Raises
    ------
    TypeError
        If `init_loss_scale` or `scale_factor` is no number, or `scale_window` no int.
    ValueError
        If an argument is out of its range, NaN or infinite.

    Examples
    --------
    >>> from optimcore import DynamicLossScaleManager
    >>> manager = DynamicLossScaleManager(init_loss_scale=16, scale_factor=2, scale_window=3)
    >>> for overflow in [False, False, False, True]:
    ...     manager.update_loss_scale(overflow)
    ...     print(manager.get_loss_scale())
    16.0
    16.0
    32.0
    16.0
    """

    def __init__(self, init_loss_scale=2**24, scale_factor=2, scale_window=2000):
        self.loss_scale = check_at_least("init_loss_scale", init_loss_scale, 1)
        super().__init__(scale_factor, scale_window)
        self.bad_step = 0
        self.bad_step_max = 1000

    def get_loss_scale(self):
        """Return the loss scale of the coming step."""
        return self.loss_scale

    def get_drop_overflow_update(self):
        """Return True: a step with overflow is always skipped."""
        return True

    def update_loss_scale(self, overflow):
        """Count one step and adapt the loss scale to it.

        Parameters
        ----------
        overflow : bool
            Whether a gradient of this step was infinite or NaN.

        Raises
        ------
        RuntimeError
            If more than `bad_step_max` steps in a row had an overflow: then the scale is not to
            blame.
        """
        self.loss_scale = self._next_scale(self.loss_scale, overflow)
        if overflow:
            self.last_overflow_iter = self.cur_iter
            self.bad_step += 1
        else:
            self.bad_step = 0
        if self.bad_step > self.bad_step_max:
            raise RuntimeError(
                f"overflow must not occur in more than {self.bad_step_max} steps in a row, "
                f"got {self.bad_step}; the loss scale is {self.loss_scale}, so look for NaN or "
                f"infinity in the data and the model"
            )
        self.cur_iter += 1

    def get_update_cell(self):
        """Return a new `DynamicLossScaleUpdateCell` that starts from the present scale."""
        return DynamicLossScaleUpdateCell(self.loss_scale, self.increase_ratio, self.scale_window)


class DynamicLossScaleUpdateCell(_DynamicLossScale):
    """Update a loss scale that the training step keeps in an array.

    The scale takes the same values as in `DynamicLossScaleManager`, with a step count of its own
    and without a limit on overflows in a row.

    Parameters
    ----------
    loss_scale_value : float
        Scale of the first step, > 0.
    scale_factor, scale_window
        As in `DynamicLossScaleManager`.

    Raises
    ------
    TypeError, ValueError
        As `DynamicLossScaleManager`.

    Examples
    --------
    >>> import numpy as np
    >>> from optimcore import DynamicLossScaleManager
    >>> cell = DynamicLossScaleManager(init_loss_scale=16).get_update_cell()
    >>> loss_scale = np.array(cell.get_loss_scale())
    >>> cell(loss_scale, True)
    True
    >>> print(loss_scale)
    8.0
    """

    def __init__(self, loss_scale_value, scale_factor, scale_window):
        # positive, not >= 1: a manager with scale_factor < 1 may have brought its scale below 1
        self.loss_scale_value = check_positive("loss_scale_value", loss_scale_value)
        super().__init__(scale_factor, scale_window)

    def get_loss_scale(self):
        """Return the scale of the first step."""
        return self.loss_scale_value

    def __call__(self, loss_scale, overflow):
        """Count one step, adapt `loss_scale` to it in place and return `overflow` unchanged.

        Parameters
        ----------
        loss_scale : ndarray or Parameter, one element
            The scale of this step; overwritten by that of the coming step.
        overflow : bool
            Whether a gradient of this step was infinite or NaN.

        Raises
        ------
        TypeError
            If `loss_scale` cannot be written in place.
        ValueError
            If `loss_scale` is read-only or has not exactly one element.
        """
        if not hasattr(loss_scale, "__setitem__") or isinstance(loss_scale, list):
            raise TypeError(f"loss_scale must be an ndarray or Parameter, got {loss_scale!r}")
        array = as_array(loss_scale, "loss_scale")
        if array.size != 1:
            raise ValueError(f"loss_scale must have one element, got shape {array.shape}")
        number = array.astype(np.float64).item()
        loss_scale[...] = self._next_scale(number, overflow, _largest(array.dtype))
        if overflow:
            self.last_overflow_iter = self.cur_iter
        self.cur_iter += 1
        return overflow
