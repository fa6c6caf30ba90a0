"""RMSProp."""

from functools import partial

from ..checks import check_at_least, check_flag, check_positive
from .base import Optimizer

__all__ = ["RMSProp"]


class RMSProp(Optimizer):
    r"""Gradient descent with a rate divided, per element, by the root of the running mean square of the gradient.

    .. math::
        s_t = \rho s_{t-1} + (1 - \rho) g_t^2, \quad
        m_t = u m_{t-1} + \eta \frac{g_t}{\sqrt{s_t + \epsilon}}, \quad
        w_t = w_{t-1} - m_t

    with rate :math:`\eta`, decay :math:`\rho`, momentum `u`; with `centered`, the running variance
    :math:`s_t - b_t^2`, where :math:`b_t = \rho b_{t-1} + (1 - \rho) g_t`, takes the place of :math:`s_t` under the
    root. An element whose variance plus epsilon rounds to 0 or less keeps w and m in that step.

    s starts from 1 as in MindSpore, from 0 in torch and Keras. Epsilon is inside the root as in the documentation of
    MindSpore; its kernel for CPU has it outside for some elements and inside for others, by their place in memory.

    Parameters
    ----------
    params, learning_rate, weight_decay, loss_scale
        See `Optimizer`. The rate is 0.1 by default.
    decay : number, default 0.9
        Decay of the mean square, >= 0. Above 1, mean squares that would turn negative are held at 0.
    momentum : number, default 0.0
        u >= 0.
    epsilon : number, default 1e-10
        Epsilon > 0.
    use_locking : bool, default False
        Accepted as in MindSpore; steps of one optimizer never overlap anyway.
    centered : bool, default False
        Whether to divide by the root of the variance.

    Attributes
    ----------
    ms : ParameterTuple
        s, 1 at first. The names begin with ``mean_square``.
    moment : ParameterTuple
        m, 0 at first.
    mg : ParameterTuple
        Only with `centered`: b, 0 at first. The names begin with ``mean_grad``.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of its range; see also `Optimizer`.

    References
    ----------
    T. Tieleman and G. Hinton, "Lecture 6.5: RMSProp", COURSERA: Neural networks for machine learning, 2012. A. Graves,
    "Generating sequences with recurrent neural networks", 2013, for the centered form.

    Examples
    --------
    >>> import optimcore as nn
    >>> w = nn.Parameter([1.0, 2.0], name="w")
    >>> opt = nn.RMSProp([w], learning_rate=0.5, decay=0.75)
    >>> opt([np.array([0.0, -1.0], np.float32)])
    True
    >>> w.asnumpy()
    array([1. , 2.5], dtype=float32)
    """

    _settings = {
        "decay": partial(check_at_least, least=0),
        "momentum": partial(check_at_least, least=0),
        "epsilon": check_positive,
    }
    _epsilons = ("epsilon",)

    def __init__(
        self,
        params,
        learning_rate=0.1,
        decay=0.9,
        momentum=0.0,
        epsilon=1e-10,
        use_locking=False,
        centered=False,
        loss_scale=1.0,
        weight_decay=0.0,
    ):
        self.decay, self.momentum, self.epsilon = decay, momentum, epsilon
        self.use_locking = check_flag("use_locking", use_locking)
        self.centered = check_flag("centered", centered)
        super().__init__(learning_rate, params, weight_decay, loss_scale)
        self.ms = self.make_slot("mean_square", "ones")
        self.moment = self.make_slot("moment")
        if centered:
            self.mg = self.make_slot("mean_grad")
            self.build_plan("rmsprop_centered", self.ms, self.moment, self.mg)
        else:
            self.build_plan("rmsprop", self.ms, self.moment)

    def hyper(self, lr):
        """Return rate, decay, momentum and epsilon."""
        return (lr, self.decay, self.momentum, self.epsilon)
