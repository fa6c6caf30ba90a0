"""Follow the regularized leader."""

from functools import partial

from ..checks import check_at_least, check_finite, check_flag, check_positive
from .base import Optimizer
from .rates import is_dynamic

__all__ = ["FTRL"]


def check_power(name, value):
    """Return the number `value` as a float <= 0."""
    number = check_finite(name, value)
    if number > 0:
        raise ValueError(f"{name} must be <= 0, got {value}")
    return number


class FTRL(Optimizer):
    r"""Follow the (proximally) regularized leader: sparse parameters for models with many features.

    .. math::
        n_t = n_{t-1} + g_t^2, \quad
        u_t = u_{t-1} + g_t - \frac{n_t^{-p} - n_{t-1}^{-p}}{\eta} w_{t-1}

    .. math::
        w_t = \begin{cases}
        \dfrac{\operatorname{sign}(u_t) l_1 - u_t}{n_t^{-p} / \eta + 2 l_2} & |u_t| > l_1 \\
        0 & \text{otherwise} \end{cases}

    with rate :math:`\eta` and power p. The parameter follows from n and u alone: without l1 and l2, the first step
    keeps :math:`1 - (n_0 / n_1)^{-p}` of its initial value, all of it with ``initial_accum=0``, but nothing where the
    first gradient is 0.

    Parameters
    ----------
    params, weight_decay, loss_scale
        See `Optimizer`. Without groups all parameters are decayed, whatever their names.
    initial_accum : number, default 0.1
        Initial value of n, >= 0.
    learning_rate : number, default 1e-3
        Rate > 0. It must be fixed and the same in all groups.
    lr_power : number, default -0.5
        p <= 0. Every power but -0.5 is some twenty to forty times slower.
    l1, l2 : number, default 0.0
        Strength of the regularization, >= 0; see the notes for what is multiplied by them.
    use_locking : bool, default False
        Accepted as in MindSpore; steps of one optimizer never overlap anyway.

    Attributes
    ----------
    moments : ParameterTuple
        n, `initial_accum` at first.
    linear : ParameterTuple
        u, 0 at first.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of its range, if the rate changes from step to step or a group has
        one of its own; see also `Optimizer`.

    Notes
    -----
    The step minimizes :math:`u w + l_1 |w| + (n^{-p} / (2 \eta) + l_2) w^2`: l2 multiplies the square itself, hence
    the 2 in the denominator. In the paper, with p = -0.5, that denominator is
    :math:`(\beta + \sqrt{n}) / \alpha + \lambda_2`, so that

    ==================================  =======================================
    algorithm 1 of the paper            here
    ==================================  =======================================
    alpha, lambda_1                     `learning_rate`, `l1`
    beta, lambda_2                      ``l2 = (lambda_2 + beta / alpha) / 2``
    n = 0 at first                      ``initial_accum=0``
    ==================================  =======================================

    ``tf.keras.optimizers.Ftrl`` doubles its l2 as well (its documentation shows the formula of the paper):

    ==================================  =======================================
    TensorFlow                          here
    ==================================  =======================================
    learning_rate, learning_rate_power  `learning_rate`, `lr_power`
    initial_accumulator_value           `initial_accum`
    l1_regularization_strength          `l1`
    l2_regularization_strength, beta    ``l2 = l2_regularization_strength + beta / (2 * learning_rate)``
    l2_shrinkage_regularization_...     none: `weight_decay` also goes into n
    ==================================  =======================================

    The dense kernel of MindSpore 2.10 on CPU adds l1 whatever the sign of u; here the sign counts, as documented.

    References
    ----------
    H. B. McMahan et al., "Ad click prediction: a view from the trenches", 2013, algorithm 1.

    Examples
    --------
    >>> import optimcore as nn
    >>> w = nn.Parameter([0.0, 0.0], name="w")
    >>> opt = nn.FTRL([w], initial_accum=0.0, learning_rate=0.5, l1=1.0)
    >>> opt([np.array([4.0, -0.5], np.float32)])
    True
    >>> w.asnumpy()
    array([-0.375,  0.   ], dtype=float32)
    """

    _lazy = _use_lazy = True
    _settings = {
        "l1": partial(check_at_least, least=0),
        "l2": partial(check_at_least, least=0),
        "lr_power": check_power,
    }

    def __init__(
        self,
        params,
        initial_accum=0.1,
        learning_rate=1e-3,
        lr_power=-0.5,
        l1=0.0,
        l2=0.0,
        use_locking=False,
        loss_scale=1.0,
        weight_decay=0.0,
    ):
        initial = check_at_least("initial_accum", initial_accum, 0)
        self._starts = {"initial_accum": initial}
        self.lr_power, self.l1, self.l2 = lr_power, l1, l2
        self.use_locking = check_flag("use_locking", use_locking)
        super().__init__(learning_rate, params, weight_decay, loss_scale)
        self.moments = self.make_slot("moments", initial)
        self.linear = self.make_slot("linear")
        self.build_plan(self.kernel_rule({"lr_power": self.lr_power}), self.moments, self.linear)

    def check_rates(self, rates):
        """Raise ValueError unless there is one fixed rate > 0 for all parameters."""
        first = rates[0]
        if self.is_group_lr or is_dynamic(first) or any(rate is not first for rate in rates):
            raise ValueError(f"learning_rate must be one number for all steps and groups, got {first!r}")
        check_positive("learning_rate", first.data.item())

    def kernel_rule(self, values):
        """Return the rule; see `Optimizer.kernel_rule`."""
        return "ftrl" if values["lr_power"] == -0.5 else "ftrl_power"

    def decay_filter(self, name):
        """Return True: without groups, all parameters are decayed."""
        return True

    def hyper(self, lr):
        """Return rate, l1 and l2, then the power unless its rule is the common one."""
        if lr == 0:  # set since the constructor, and the rule divides by it
            raise ValueError(f"learning_rate at step {self.global_step} must be > 0, got {lr}")
        return (lr, self.l1, self.l2) if self.lr_power == -0.5 else (lr, self.l1, self.l2, self.lr_power)
