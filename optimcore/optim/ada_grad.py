"""Adagrad."""

from ..checks import check_at_least, check_flag, check_positive
from .base import Optimizer

__all__ = ["Adagrad"]


class Adagrad(Optimizer):
    r"""Gradient descent with a rate that falls, per element, with the squared gradients so far.

    .. math::
        a_t = a_{t-1} + g_t^2, \quad w_t = w_{t-1} - \eta \frac{g_t}{\sqrt{a_t + \epsilon}}

    with rate :math:`\eta`. Epsilon is inside the root, as in Keras; torch puts it outside. It matters only where a is
    near 0. Its default is the constant of MindSpore 2.10, whose documentation leaves it out.

    Parameters
    ----------
    params, learning_rate, weight_decay, loss_scale
        See `Optimizer`. The rate is 1e-3 by default.
    accum : number, default 0.1
        Initial value of a, >= 0.
    update_slots : bool, default True
        Whether a grows; if False it keeps its values. MindSpore 2.10 ignores False on CPU, against its documentation;
        here it works.
    eps : number, default 1e-8
        Epsilon > 0, inside the root. An extension.

    Attributes
    ----------
    accum : ParameterTuple
        a, `accum` at first.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of its range; see also `Optimizer`.

    References
    ----------
    J. Duchi, E. Hazan and Y. Singer, "Adaptive subgradient methods for online learning and stochastic optimization",
    2011, figure 1 with a diagonal matrix.

    Examples
    --------
    >>> import optimcore as nn
    >>> w = nn.Parameter([1.0, 2.0], name="w")
    >>> opt = nn.Adagrad([w], accum=0.0, learning_rate=0.5)
    >>> opt([np.array([3.0, -4.0], np.float32)])
    True
    >>> w.asnumpy()
    array([0.5, 2.5], dtype=float32)
    """

    _lazy = _use_lazy = True

    _settings = {"update_slots": check_flag, "eps": check_positive}
    _epsilons = ("eps",)

    def __init__(
        self,
        params,
        accum=0.1,
        learning_rate=1e-3,
        update_slots=True,
        loss_scale=1.0,
        weight_decay=0.0,
        eps=1e-8,
    ):
        initial = check_at_least("accum", accum, 0)
        self._starts = {"accum": initial}
        self.update_slots, self.eps = update_slots, eps
        super().__init__(learning_rate, params, weight_decay, loss_scale)
        self.accum = self.make_slot("accum", initial)
        self.build_plan(self.kernel_rule({"update_slots": update_slots}), self.accum)

    def kernel_rule(self, values):
        """Return the rule; see `Optimizer.kernel_rule`."""
        return "adagrad" if values["update_slots"] else "adagrad_frozen"

    def hyper(self, lr):
        """Return rate and epsilon."""
        return (lr, self.eps)
