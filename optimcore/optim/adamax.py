"""AdaMax."""

import numpy as np

from ..checks import check_fraction, check_positive
from ..parameter import Parameter
from .base import Optimizer

__all__ = ["AdaMax"]


class AdaMax(Optimizer):
    r"""Adam with the infinity norm in place of the root of the second moment.

    .. math::
        m_t = \beta_1 m_{t-1} + (1 - \beta_1) g_t, \quad
        v_t = \max(\beta_2 v_{t-1}, |g_t|), \quad
        w_t = w_{t-1} - \frac{\eta}{1 - \beta_1^t} \frac{m_t}{v_t + \epsilon}

    with rate :math:`\eta` and t = 1 in the first step.

    Parameters
    ----------
    params, learning_rate, weight_decay, loss_scale
        See `Optimizer`. The rate is 1e-3 by default.
    beta1, beta2 : number, default 0.9 and 0.999
        Decay of the moment and of the norm, in (0, 1).
    eps : number, default 1e-8
        Epsilon > 0, which the paper does not have: it keeps 0 / 0 away.

    Attributes
    ----------
    moment1, moment2 : ParameterTuple
        m and v, 0 at first.
    beta1_power : Parameter
        beta1 to the power of the number of steps done, 0-d float64, 1 at first.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of its range; see also `Optimizer`.

    References
    ----------
    D. P. Kingma and J. Ba, "Adam: a method for stochastic optimization", 2015, algorithm 2.

    Examples
    --------
    >>> import optimcore as nn
    >>> w = nn.Parameter([1.0, 2.0], name="w")
    >>> opt = nn.AdaMax([w], learning_rate=0.5)
    >>> opt([np.array([3.0, -4.0], np.float32)])
    True
    >>> w.asnumpy().round(4)
    array([0.5, 2.5], dtype=float32)
    """

    _settings = {"beta1": check_fraction, "beta2": check_fraction, "eps": check_positive}
    _epsilons = ("eps",)

    def __init__(self, params, learning_rate=1e-3, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.0, loss_scale=1.0):
        self.beta1, self.beta2, self.eps = beta1, beta2, eps
        super().__init__(learning_rate, params, weight_decay, loss_scale)
        power = np.ones(1)
        self.beta1_power = Parameter(power[0, ...], "beta1_power", requires_grad=False)
        self._power = memoryview(power)  # reads and writes single numbers faster than an ndarray
        self.moment1 = self.make_slot("moment1")
        self.moment2 = self.make_slot("moment2")
        self.build_plan("adamax", self.moment1, self.moment2)
        self._next_power = memoryview(self._plan.book(power))

    def hyper(self, lr):
        """Return the rate with the bias correction of this step, the betas and eps."""
        self._next_power[0] = power = self._power[0] * self.beta1
        return (lr / (1.0 - power), self.beta1, self.beta2, self.eps)
