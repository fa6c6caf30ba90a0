"""Adam, and its variants without centralization and with decoupled weight decay."""

import inspect
import math

import numpy as np

from ..checks import check_flag, check_fraction, check_positive
from ..parameter import Parameter
from .base import Optimizer
from .settings import hint

__all__ = ["Adam", "AdamOffload", "AdamWeightDecay"]


class Adam(Optimizer):
    r"""Adaptive moment estimation.

    .. math::
        m_t = \beta_1 m_{t-1} + (1 - \beta_1) g_t, \quad
        v_t = \beta_2 v_{t-1} + (1 - \beta_2) g_t^2, \quad
        w_t = w_{t-1} - \eta \frac{\sqrt{1 - \beta_2^t}}{1 - \beta_1^t} \frac{m_t}{\sqrt{v_t} + \epsilon}

    with rate :math:`\eta` and t = 1 in the first step; with `use_nesterov`,
    :math:`\beta_1 m_t + (1 - \beta_1) g_t` takes the place of :math:`m_t` in the last equation; with `use_amsgrad`,
    :math:`\hat v_t = \max(\hat v_{t-1}, v_t)` that of :math:`v_t`.

    Parameters
    ----------
    params, learning_rate, weight_decay, loss_scale
        See `Optimizer`. The rate is 1e-3 by default.
    beta1, beta2 : number, default 0.9 and 0.999
        Decay of the moments, in (0, 1).
    eps : number, default 1e-8
        Epsilon > 0. It is added to the root of the uncorrected v: "epsilon hat" in the paper, section 2.
    use_locking : bool, default False
        Accepted as in MindSpore; steps of one optimizer never overlap anyway.
    use_nesterov : bool, default False
        Whether to look ahead. Ignored with `use_amsgrad`, as in MindSpore.
    use_amsgrad : bool, default False
        Whether to divide by the largest v so far.
    **kwargs
        ``use_lazy`` (bool or 'catch_up', default False): rows that are absent from a sparse gradient stay as they are,
        or catch up when they come back, see `Optimizer.use_lazy`; it changes nothing for dense gradients.
        ``use_offload`` (bool, default False): the same numbers, but gradients are never centralized, as in MindSpore.

    Attributes
    ----------
    moment1, moment2 : ParameterTuple
        m and v, 0 at first.
    vhat : ParameterTuple
        Only with `use_amsgrad`: the largest v, 0 at first.
    beta1_power, beta2_power : Parameter
        The betas to the power of the number of steps done, 0-d float64, 1 at first.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of its range; see also `Optimizer`.
    KeyError
        If a keyword is unknown.

    References
    ----------
    D. P. Kingma and J. Ba, "Adam: a method for stochastic optimization", 2015, algorithm 1 in the order of
    computation given at the end of section 2. S. J. Reddi, S. Kale and S. Kumar, "On the convergence of Adam and
    beyond", 2018, algorithm 2.

    Examples
    --------
    >>> import optimcore as nn
    >>> w = nn.Parameter([1.0, 2.0], name="w")
    >>> opt = nn.Adam([w], learning_rate=0.5)
    >>> opt([np.array([3.0, -4.0], np.float32)])
    True
    >>> w.asnumpy().round(4)
    array([0.5, 2.5], dtype=float32)
    """

    _settings = {"beta1": check_fraction, "beta2": check_fraction, "eps": check_positive, "use_nesterov": check_flag}
    _epsilons = ("eps",)

    def __init__(
        self,
        params,
        learning_rate=1e-3,
        beta1=0.9,
        beta2=0.999,
        eps=1e-8,
        use_locking=False,
        use_nesterov=False,
        weight_decay=0.0,
        loss_scale=1.0,
        use_amsgrad=False,
        **kwargs,
    ):
        self.beta1, self.beta2, self.eps = beta1, beta2, eps
        self.use_locking = check_flag("use_locking", use_locking)
        self.use_nesterov = use_nesterov
        self.use_amsgrad = check_flag("use_amsgrad", use_amsgrad)
        use_lazy, self.use_offload = _check_modes(use_amsgrad, **kwargs)
        super().__init__(learning_rate, params, weight_decay, loss_scale)
        powers = np.ones(2)
        self.beta1_power = Parameter(powers[0, ...], "beta1_power", requires_grad=False)
        self.beta2_power = Parameter(powers[1, ...], "beta2_power", requires_grad=False)
        self._powers = memoryview(powers)  # reads and writes single numbers faster than an ndarray
        self.moment1 = self.make_slot("moment1")
        self.moment2 = self.make_slot("moment2")
        slots = [self.moment1, self.moment2]
        if use_amsgrad:
            self.vhat = self.make_slot("vhat")
            slots.append(self.vhat)
        self.build_plan(self.kernel_rule({"use_nesterov": use_nesterov}), *slots, centralize=not self.use_offload)
        self._next_powers = memoryview(self._plan.book(powers))
        self.use_lazy = use_lazy

    def kernel_rule(self, values):
        """Return the rule; see `Optimizer.kernel_rule`."""
        if self.use_amsgrad:
            return "adam_amsgrad"
        return "adam_nesterov" if values["use_nesterov"] else "adam"

    def hyper(self, lr):
        """Return the rate with the bias correction of this step, the betas and eps."""
        (power1, power2), coming = self._powers, self._next_powers
        coming[0] = power1 = power1 * self.beta1
        coming[1] = power2 = power2 * self.beta2
        return (lr * (math.sqrt(1.0 - power2) / (1.0 - power1)), self.beta1, self.beta2, self.eps)


class AdamOffload(Adam):
    """Adam whose gradients are never centralized: ``Adam(..., use_offload=True)`` under a name of its own.

    In MindSpore the step of this class runs on the host; here every step does.

    Parameters
    ----------
    params, learning_rate, beta1, beta2, eps, use_locking, use_nesterov, weight_decay, loss_scale
        See `Adam`, which also describes the slots.

    Raises
    ------
    TypeError, ValueError
        As `Adam`.

    Examples
    --------
    >>> import optimcore as nn
    >>> w = nn.Parameter([1.0, 2.0], name="w")
    >>> opt = nn.AdamOffload([w], learning_rate=0.5)
    >>> opt([np.array([3.0, -4.0], np.float32)])
    True
    >>> w.asnumpy().round(4)
    array([0.5, 2.5], dtype=float32)
    """

    def __init__(
        self,
        params,
        learning_rate=1e-3,
        beta1=0.9,
        beta2=0.999,
        eps=1e-8,
        use_locking=False,
        use_nesterov=False,
        weight_decay=0.0,
        loss_scale=1.0,
    ):
        super().__init__(
            params,
            learning_rate,
            beta1,
            beta2,
            eps,
            use_locking,
            use_nesterov,
            weight_decay,
            loss_scale,
            use_offload=True,
        )


class AdamWeightDecay(Optimizer):
    r"""Adam with decoupled weight decay and without bias correction.

    .. math::
        m_t = \beta_1 m_{t-1} + (1 - \beta_1) g_t, \quad
        v_t = \beta_2 v_{t-1} + (1 - \beta_2) g_t^2, \quad
        w_t = w_{t-1} - \eta \left(\frac{m_t}{\sqrt{v_t} + \epsilon} + \lambda w_{t-1}\right)

    with rate :math:`\eta` and weight decay :math:`\lambda`, which does not go through the moments. AdamW of the paper
    and of torch corrects the bias of the moments; this rule, from BERT, does not. Gradients are taken as they are:
    there is no loss scale and no centralization, as in MindSpore.

    Parameters
    ----------
    params, learning_rate, weight_decay
        See `Optimizer`, also for which parameters are decayed. The rate is 1e-3 by default.
    beta1, beta2 : number, default 0.9 and 0.999
        Decay of the moments, in (0, 1).
    eps : number, default 1e-6
        Epsilon > 0, added to the root.

    Attributes
    ----------
    moments1, moments2 : ParameterTuple
        m and v, 0 at first. Their names begin with ``adam_m`` and ``adam_v``.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of its range; see also `Optimizer`.

    References
    ----------
    I. Loshchilov and F. Hutter, "Decoupled weight decay regularization", 2019, algorithm 2 without the bias correction.

    Examples
    --------
    >>> import optimcore as nn
    >>> w = nn.Parameter([1.0, 2.0], name="w")
    >>> opt = nn.AdamWeightDecay([w], learning_rate=0.5, beta2=0.99, weight_decay=0.5)
    >>> opt([np.array([3.0, -4.0], np.float32)])
    True
    >>> w.asnumpy().round(4)
    array([0.25, 2.  ], dtype=float32)
    """

    _settings = {"beta1": check_fraction, "beta2": check_fraction, "eps": check_positive}
    _epsilons = ("eps",)

    def __init__(self, params, learning_rate=1e-3, beta1=0.9, beta2=0.999, eps=1e-6, weight_decay=0.0):
        self.beta1, self.beta2, self.eps = beta1, beta2, eps
        super().__init__(learning_rate, params, weight_decay)
        self.moments1 = self.make_slot("adam_m")
        self.moments2 = self.make_slot("adam_v")
        self.build_plan("adam_weight_decay", self.moments1, self.moments2, centralize=False)

    def hyper(self, lr):
        """Return the rate, the betas and eps."""
        return (lr, self.beta1, self.beta2, self.eps)


def _check_modes(use_amsgrad, **kwargs):
    modes = {"use_lazy": False, "use_offload": False}
    for key, value in kwargs.items():
        if key not in modes:
            names = [name for name in inspect.signature(Adam).parameters if name != "kwargs"]
            raise KeyError(f"keywords must be among use_lazy, use_offload, got {key!r}{hint(key, [*names, *modes])}")
        modes[key] = value if key == "use_lazy" and isinstance(value, str) else check_flag(key, value)
    use_lazy, use_offload = modes.values()
    # MindSpore's limits; 'catch_up', which it does not have, goes with everything
    if use_lazy is True and use_offload:
        raise ValueError("use_lazy must be False with use_offload, got True")
    if use_amsgrad and (use_lazy is True or use_offload):
        raise ValueError("use_amsgrad must be False with use_lazy or use_offload, got True")
    return use_lazy, use_offload
