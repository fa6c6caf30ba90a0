"""Adadelta."""

from functools import partial

from ..checks import check_at_least, check_finite
from .base import Optimizer

__all__ = ["Adadelta"]


def check_rho(name, value):
    """Return the number `value` as a float in [0, 1]."""
    number = check_finite(name, value)
    if not 0 <= number <= 1:
        raise ValueError(f"{name} must be in [0, 1], got {value}")
    return number


class Adadelta(Optimizer):
    r"""Adadelta: movements in the unit of the parameter, by the ratio of two running mean squares.

    .. math::
        a_t = \rho a_{t-1} + (1 - \rho) g_t^2, \quad
        d_t = \frac{\sqrt{u_{t-1} + \epsilon}}{\sqrt{a_t + \epsilon}} g_t, \quad
        u_t = \rho u_{t-1} + (1 - \rho) d_t^2, \quad
        w_t = w_{t-1} - \eta d_t

    with rate :math:`\eta`, which the paper does not have.

    Parameters
    ----------
    params, learning_rate, weight_decay, loss_scale
        See `Optimizer`. The rate is 1.0 by default.
    rho : number, default 0.9
        Decay of both means, in [0, 1].
    epsilon : number, default 1e-6
        Epsilon >= 0, inside both roots. Where a and epsilon are 0, so is d; with 0 nothing ever moves.

    Attributes
    ----------
    accum, accum_update : ParameterTuple
        a and u, 0 at first.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of its range; see also `Optimizer`.

    References
    ----------
    M. D. Zeiler, "ADADELTA: an adaptive learning rate method", 2012, algorithm 1.

    Examples
    --------
    >>> import optimcore as nn
    >>> w = nn.Parameter([1.0, 2.0], name="w")
    >>> opt = nn.Adadelta([w], rho=0.75, epsilon=1.0)
    >>> opt([np.array([0.0, -4.0], np.float32)])
    True
    >>> w.asnumpy().round(4)
    array([1.    , 3.7889], dtype=float32)
    """

    _settings = {"rho": check_rho, "epsilon": partial(check_at_least, least=0)}
    _epsilons = ("epsilon",)

    def __init__(self, params, learning_rate=1.0, rho=0.9, epsilon=1e-6, loss_scale=1.0, weight_decay=0.0):
        self.rho, self.epsilon = rho, epsilon
        super().__init__(learning_rate, params, weight_decay, loss_scale)
        self.accum = self.make_slot("accum")
        self.accum_update = self.make_slot("accum_update")
        self.build_plan("adadelta", self.accum, self.accum_update)

    def hyper(self, lr):
        """Return rate, rho and epsilon."""
        return (lr, self.rho, self.epsilon)
