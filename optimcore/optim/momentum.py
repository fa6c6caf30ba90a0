"""Momentum."""

from functools import partial

from ..checks import check_at_least, check_flag
from .base import Optimizer

__all__ = ["Momentum"]


class Momentum(Optimizer):
    r"""Gradient descent with momentum.

    .. math::
        m_t = u m_{t-1} + g_t, \quad w_t = w_{t-1} - \eta m_t

    with momentum `u` and rate :math:`\eta`; with `use_nesterov`,
    :math:`w_t = w_{t-1} - \eta (g_t + u m_t)`.

    Parameters
    ----------
    params, learning_rate, weight_decay, loss_scale
        See `Optimizer`. The rate has no default.
    momentum : number
        u >= 0. No default.
    use_nesterov : bool, default False
        Whether to look ahead. MindSpore 2.10 ignores it on CPU, against its documentation; here it works.

    Attributes
    ----------
    moments : ParameterTuple
        m, 0 at first.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of its range; see also `Optimizer`.

    Examples
    --------
    >>> import optimcore as nn
    >>> w = nn.Parameter([1.0, 2.0], name="w")
    >>> opt = nn.Momentum([w], learning_rate=0.5, momentum=0.5)
    >>> opt([np.ones(2, np.float32)]) and opt([np.ones(2, np.float32)])
    True
    >>> w.asnumpy()
    array([-0.25,  0.75], dtype=float32)
    """

    _settings = {"momentum": partial(check_at_least, least=0), "use_nesterov": check_flag}

    def __init__(
        self,
        params,
        learning_rate,
        momentum,
        weight_decay=0.0,
        loss_scale=1.0,
        use_nesterov=False,
    ):
        self.momentum, self.use_nesterov = momentum, use_nesterov
        super().__init__(learning_rate, params, weight_decay, loss_scale)
        self.moments = self.make_slot("moments")
        self.build_plan(self.kernel_rule({"use_nesterov": use_nesterov}), self.moments)

    def kernel_rule(self, values):
        """Return the rule; see `Optimizer.kernel_rule`."""
        return "momentum_nesterov" if values["use_nesterov"] else "momentum"

    def hyper(self, lr):
        """Return rate and momentum."""
        return (lr, self.momentum)
