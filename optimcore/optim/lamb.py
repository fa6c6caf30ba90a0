"""LAMB."""

from ..checks import check_fraction, check_positive
from .base import Optimizer

__all__ = ["Lamb"]


class Lamb(Optimizer):
    r"""Layer-wise adaptive moments for large batches.

    .. math::
        m_t = \beta_1 m_{t-1} + (1 - \beta_1) g_t, \quad
        v_t = \beta_2 v_{t-1} + (1 - \beta_2) g_t^2, \quad
        \hat m_t = \frac{m_t}{1 - \beta_1^t}, \quad
        \hat v_t = \frac{v_t}{1 - \beta_2^t}, \quad
        w_t = w_{t-1} - r \eta
        \Bigl(\frac{\hat m_t}{\sqrt{\hat v_t} + \epsilon} + \lambda w_{t-1}\Bigr)

    with rate :math:`\eta`, weight decay :math:`\lambda`, t = 1 in the first step, and for each parameter the trust
    ratio :math:`r = \|w\| / \|\hat m / \sqrt{\hat v + \epsilon} + \lambda w\|`, at most 10, and 1 where a norm is 0.

    Parameters
    ----------
    params, learning_rate, weight_decay
        See `Optimizer`. The rate has no default. The decay is apart from the gradient; there is no loss scale.
    beta1, beta2 : number, default 0.9 and 0.999
        Decay of the moments, in (0, 1).
    eps : number, default 1e-6
        Epsilon > 0. As in MindSpore's kernels it is inside the root in the norm, but outside in the step.

    Attributes
    ----------
    moments1, moments2 : ParameterTuple
        m and v, 0 at first, with names ``lamb_m.<name>`` and ``lamb_v.<name>``.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of its range; see also `Optimizer`.

    Notes
    -----
    t is `global_step` + 1. MindSpore 2.10 has no CPU kernel; this is the rule of its GPU kernel.

    References
    ----------
    Y. You et al., "Large batch optimization for deep learning: training BERT in 76 minutes", 2020, algorithm 2.

    Examples
    --------
    >>> import optimcore as nn
    >>> w = nn.Parameter([3.0, 4.0], name="w")
    >>> opt = nn.Lamb([w], learning_rate=0.1)
    >>> opt([np.ones(2, np.float32)])
    True
    >>> w.asnumpy().round(4)
    array([2.6464, 3.6464], dtype=float32)
    """

    _settings = {"beta1": check_fraction, "beta2": check_fraction, "eps": check_positive}
    _epsilons = ("eps",)

    def __init__(self, params, learning_rate, beta1=0.9, beta2=0.999, eps=1e-6, weight_decay=0.0):
        self.beta1, self.beta2, self.eps = beta1, beta2, eps
        super().__init__(learning_rate, params, weight_decay)
        self.moments1 = self.make_slot("lamb_m")
        self.moments2 = self.make_slot("lamb_v")
        self.build_plan("lamb", self.moments1, self.moments2, takes_rows=False)
        self._plan.adapt("lamb")

    def hyper(self, lr):
        """Return rate, betas, eps and the corrections of the moments' bias."""
        t = self.global_step + 1
        return lr, self.beta1, self.beta2, self.eps, 1.0 / (1.0 - self.beta1**t), 1.0 / (1.0 - self.beta2**t)
