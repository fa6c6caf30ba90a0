"""Resilient backpropagation."""

from ..checks import check_finite, check_fraction
from .first_step import FirstStepOptimizer

__all__ = ["Rprop"]


def check_pair(name, value):
    """Return a tuple of two finite numbers as floats."""
    if not isinstance(value, tuple):
        raise TypeError(f"{name} must be a tuple of two numbers, got {value!r}")
    if len(value) != 2:
        raise ValueError(f"{name} must have two numbers, got {value}")
    return tuple(check_finite(f"{name}[{i}]", number) for i, number in enumerate(value))


def check_etas(name, value):
    """Return the factors of step sizes, one in (0, 1) and one above 1."""
    minus, plus = check_pair(name, value)
    check_fraction(f"{name}[0]", minus)
    if not plus > 1:
        raise ValueError(f"{name}[1] must be > 1, got {plus}")
    return minus, plus


def check_step_sizes(name, value):
    """Return the least and the largest step size."""
    least, most = check_pair(name, value)
    if not least <= most:
        raise ValueError(f"{name} must be in ascending order, got {value}")
    return least, most


class Rprop(FirstStepOptimizer):
    r"""Resilient backpropagation: only the signs of gradients count, and each element has its own step size.

    .. math::
        s_t = \min(\max(f_t s_{t-1}, s_{min}), s_{max}), \quad
        w_t = w_{t-1} - \operatorname{sign}(g_t) s_t, \quad
        f_t = \begin{cases} \eta^+ & g_t p_{t-1} > 0 \\ \eta^- & g_t p_{t-1} < 0 \\ 1 & \text{otherwise} \end{cases}

    p is the gradient of the step before. Where the sign has changed, :math:`g_t` counts as 0: the element rests for
    this step, and has no sign to compare with in the next.

    In the first step of a parameter, s starts from the learning rate; rates of later steps have no effect. A parameter
    that gets no gradient at first has its first step when the first one comes.

    Parameters
    ----------
    params, learning_rate, weight_decay
        See `Optimizer`. The rate is 0.1 by default. There is no loss scale, as in MindSpore.
    etas : tuple of two numbers, default (0.5, 1.2)
        The factors :math:`\eta^-`, in (0, 1), and :math:`\eta^+`, > 1.
    step_sizes : tuple of two numbers, default (1e-6, 50.0)
        The least and the largest step size.

    Attributes
    ----------
    prev : ParameterTuple
        p, 0 at first.
    step_size : ParameterTuple
        s, 0 before the first step.
    flags : ndarray of float32, shape (n,)
        For each parameter, 1 before its first step and 0 afterwards.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of its range; see also `Optimizer`.

    References
    ----------
    M. Riedmiller and H. Braun, "A direct adaptive method for faster backpropagation learning: the RPROP algorithm",
    1993, without going back after a change of sign (the variant called iRprop- since C. Igel and M. Huesken, 2000).

    Examples
    --------
    >>> import optimcore as nn
    >>> w = nn.Parameter([1.0, 2.0], name="w")
    >>> opt = nn.Rprop([w], learning_rate=0.5, etas=(0.5, 1.5))
    >>> for _ in range(2):
    ...     done = opt([np.array([3.0, -0.001], np.float32)])
    >>> w.asnumpy()
    array([-0.25,  3.25], dtype=float32)
    """

    _lazy = False
    _settings = {"etas": check_etas, "step_sizes": check_step_sizes}

    def __init__(self, params, learning_rate=0.1, etas=(0.5, 1.2), step_sizes=(1e-6, 50.0), weight_decay=0.0):
        self.etas, self.step_sizes = etas, step_sizes
        super().__init__(learning_rate, params, weight_decay)
        self.prev = self.make_slot("prev")
        self.step_size = self.make_slot("step_size")
        self.build_plan_with_first_step("rprop", self.prev, self.step_size)

    def hypers(self):
        """Return two tuples per rate: for all steps of a parameter but the first, and for the first."""
        rates = self._current_rates()
        return [(lr, *self.etas, *self.step_sizes, first) for lr in rates for first in (0.0, 1.0)]
