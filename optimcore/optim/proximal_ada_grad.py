"""Proximal Adagrad."""

from functools import partial

from ..checks import check_at_least, check_flag
from .base import Optimizer

__all__ = ["ProximalAdagrad"]


class ProximalAdagrad(Optimizer):
    r"""Adagrad followed by a proximal step for l1 and l2 regularization.

    .. math::
        a_t = a_{t-1} + g_t^2, \quad e_t = \frac{\eta}{\sqrt{a_t}}, \quad x_t = w_{t-1} - e_t g_t, \quad
        w_t = \frac{\operatorname{sign}(x_t) \max(|x_t| - e_t l_1, 0)}{1 + e_t l_2}

    with rate :math:`\eta`. The rate of the element, e, multiplies l1 and l2, as in MindSpore's code; its
    documentation has the plain rate there.

    Parameters
    ----------
    params, learning_rate, weight_decay, loss_scale
        See `Optimizer`. The rate is 1e-3 by default.
    accum : number, default 0.1
        Initial value of a, >= 0. There is no epsilon: where a is 0, e counts as 0, and the element stays where it is.
    l1, l2 : number, default 0.0
        Strength of the regularization, >= 0.
    use_locking : bool, default False
        Accepted as in MindSpore; steps of one optimizer never overlap anyway.

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
    J. Duchi and Y. Singer, "Efficient online and batch learning using forward backward splitting", 2009, with the
    rates of Adagrad.

    Examples
    --------
    >>> import optimcore as nn
    >>> w = nn.Parameter([1.0, 2.0], name="w")
    >>> opt = nn.ProximalAdagrad([w], accum=0.0, learning_rate=0.5, l1=4.0)
    >>> opt([np.array([3.0, -4.0], np.float32)])
    True
    >>> w.asnumpy()
    array([0., 2.], dtype=float32)
    """

    _lazy = _use_lazy = True
    _settings = {"l1": partial(check_at_least, least=0), "l2": partial(check_at_least, least=0)}

    def __init__(
        self,
        params,
        accum=0.1,
        learning_rate=1e-3,
        l1=0.0,
        l2=0.0,
        use_locking=False,
        loss_scale=1.0,
        weight_decay=0.0,
    ):
        initial = check_at_least("accum", accum, 0)
        self._starts = {"accum": initial}
        self.l1, self.l2 = l1, l2
        self.use_locking = check_flag("use_locking", use_locking)
        super().__init__(learning_rate, params, weight_decay, loss_scale)
        self.accum = self.make_slot("accum", initial)
        self.build_plan("proximal_adagrad", self.accum)

    def hyper(self, lr):
        """Return rate, l1 and l2."""
        return (lr, self.l1, self.l2)
