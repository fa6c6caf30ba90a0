"""Averaged stochastic gradient descent."""

import numpy as np

from ..checks import check_finite
from ..parameter import Parameter, ParameterTuple
from .base import Optimizer

__all__ = ["ASGD"]

_TINY, _MOST = np.finfo(np.float64).tiny, np.finfo(np.float64).max


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
        rates = np.array(self._current_rates())[self._rows]
        t = self.steps + 1
        with np.errstate(all="ignore"):  # lambda and alpha may be anything: what they make of the rate stays finite
            growth = np.clip(1.0 + self.lambd * rates * t, _TINY, _MOST) ** self.alpha
            self._next_etas[:] = np.clip(rates / np.clip(growth, _TINY, _MOST), 0.0, _MOST)
        self._next_mus[:] = 1.0 / np.maximum(1.0, t - self.t0)
        self._next_steps[:] = t
        etas = np.where(t == 1, rates, self._etas)
        return list(zip(etas.tolist(), (1.0 - self.lambd * etas).tolist(), self._mus.tolist(), strict=True))
