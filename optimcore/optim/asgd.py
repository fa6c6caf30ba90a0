"""Averaged stochastic gradient descent."""

import math
import sys

import numpy as np

from ..checks import check_finite
from ..parameter import Parameter, ParameterTuple
from .base import Optimizer

__all__ = ["ASGD"]

_TINY, _MOST = sys.float_info.min, sys.float_info.max

# powers that have a correctly rounded operation of their own
_POWERS = {0.5: math.sqrt, 2.0: lambda base: base * base, -1.0: lambda base: 1.0 / base}


def next_eta(rate, t, lambd, alpha):
    """Return eta of the step after step t; lambda and alpha may be anything: what they make of the rate stays finite.

    These are floats of Python, for steps of a small model: a call of NumPy costs as much as all of this.
    """
    growth = min(max(_TINY, 1.0 + lambd * rate * t), _MOST)
    power = _POWERS.get(alpha)
    try:
        growth = growth**alpha if power is None else power(growth)
    except OverflowError:
        growth = _MOST
    return min(rate / min(max(_TINY, growth), _MOST), _MOST)


class ASGD(Optimizer):
    r"""Stochastic gradient descent that also keeps the average of the parameters.

    .. math::
        w_t = (1 - \lambda \eta_t) w_{t-1} - \eta_t g_t, \quad
        \bar w_t = \bar w_{t-1} + \mu_t (w_t - \bar w_{t-1})

    .. math::
        \eta_{t+1} = \frac{r_t}{(1 + \lambda r_t t)^\alpha}, \quad
        \mu_{t+1} = \frac{1}{\max(1, t - t_0)}

    with rate :math:`r_t`, :math:`\eta_1 = r_1`, :math:`\mu_1 = 1` and t = 1 in the first step of a parameter. As in
    MindSpore and torch, eta is made one step ahead: from the second step on, the rate of a schedule acts one step late.
    MindSpore's documentation leaves the rate out of the numerator of eta; its code does not.

    Each parameter counts its own steps: one that gets no gradient at first begins as the others did. MindSpore counts
    for all at once.

    Parameters
    ----------
    params, learning_rate, weight_decay
        See `Optimizer`. The rate is 0.1 by default. There is no loss scale, as in MindSpore.
    lambd : number, default 1e-4
        Decay lambda, which eta multiplies.
    alpha : number, default 0.75
        Power by which eta falls.
    t0 : number, default 1e6
        Step after which averaging begins; up to there, the average is the parameter itself.

    Attributes
    ----------
    ax : ParameterTuple
        The average, 0 at first. The names begin with ``ax_``.
    mu, eta : ParameterTuple
        One number for each parameter, for its next step: 0-d float64, 1 and 0 at first, named ``mu_<name>`` and
        ``eta_<name>``.
    steps : ndarray of int64, shape (n,)
        Steps that each parameter has had.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of its range; see also `Optimizer`.

    References
    ----------
    B. T. Polyak and A. B. Juditsky, "Acceleration of stochastic approximation by averaging", 1992. L. Bottou,
    "Stochastic gradient descent tricks", 2012, has this form of eta and mu.

    Examples
    --------
    >>> import optimcore as nn
    >>> w = nn.Parameter([1.0, 2.0], name="w")
    >>> opt = nn.ASGD([w], learning_rate=0.5, lambd=0.0, t0=0)
    >>> for _ in range(3):
    ...     done = opt([np.ones(2, np.float32)])
    >>> w.asnumpy(), opt.ax[0].asnumpy()
    (array([-0.5,  0.5], dtype=float32), array([-0.25,  0.75], dtype=float32))
    """

    _settings = {"lambd": check_finite, "alpha": check_finite, "t0": check_finite}

    def __init__(self, params, learning_rate=0.1, lambd=1e-4, alpha=0.75, t0=1e6, weight_decay=0.0):
        self.lambd, self.alpha, self.t0 = lambd, alpha, t0
        super().__init__(learning_rate, params, weight_decay)
        self.ax = self.make_slot("ax_")
        self.steps = np.zeros(self.param_length, np.int64)
        self._mus, self._etas = np.ones(self.param_length), np.zeros(self.param_length)
        self.mu, self.eta = self._views("mu", self._mus), self._views("eta", self._etas)
        self.build_plan("asgd", self.ax)
        self._next_mus, self._next_etas = self._plan.book(self._mus, own=True), self._plan.book(self._etas, own=True)
        self._next_steps = self._plan.book(self.steps, own=True)

    def _plan_rows(self, rows):
        return list(range(self.param_length))

    def _views(self, prefix, numbers):
        return ParameterTuple(
            Parameter(numbers[i, ...], f"{prefix}_{p.name}", requires_grad=False) for i, p in enumerate(self.parameters)
        )

    def hypers(self):
        """Return one tuple per parameter, because each has its own eta and mu."""
        rates = self._current_rates()
        keys = list(zip(self._rows, self.steps.tolist(), self._etas.tolist(), self._mus.tolist(), strict=True))
        made = {key: self._numbers(rates[key[0]], *key[1:]) for key in set(keys)}  # few, however many parameters
        nexts = self._next_etas, self._next_mus, self._next_steps
        if len(made) == 1:
            hyper, *values = made[keys[0]]
            for following, value in zip(nexts, values, strict=True):
                following.fill(value)
            return [hyper] * len(keys)
        hypers, *columns = zip(*[made[key] for key in keys], strict=True)
        for following, values in zip(nexts, columns, strict=True):
            following[:] = values
        return list(hypers)

    def _numbers(self, rate, done, eta, mu):
        """Return the kernel's numbers for a parameter, and its eta, mu and steps of after this step."""
        t = done + 1
        if t == 1:
            eta = rate
        following = next_eta(rate, t, self.lambd, self.alpha), 1.0 / max(1.0, t - self.t0), t
        return (eta, 1.0 - self.lambd * eta, mu), *following
