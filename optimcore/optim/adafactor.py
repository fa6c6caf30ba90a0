"""AdaFactor."""

import math
from itertools import compress

import numpy as np

from ..checks import check_at_least, check_finite, check_flag, check_fraction, check_positive
from ..kernels.arrays import compute_dtype
from ..parameter import Parameter, ParameterTuple
from .base import Optimizer

__all__ = ["AdaFactor"]


def check_eps(name, value):
    """Return a tuple of two finite numbers >= 0."""
    if not isinstance(value, (tuple, list)):
        raise TypeError(f"{name} must be a tuple or list of two numbers, got {value!r}")
    if len(value) != 2:
        raise ValueError(f"{name} must have two numbers, got {len(value)}")
    return tuple(check_at_least(f"{name}[{i}]", e, 0) for i, e in enumerate(value))


def check_below_one(name, value):
    """Return the number `value` as a float in [0, 1)."""
    number = check_finite(name, value)
    if not 0 <= number < 1:
        raise ValueError(f"{name} must be in [0, 1), got {value}")
    return number


def check_beta1(name, value):
    """Return the number `value` as a float in [0, 1), 0.0 for None."""
    return 0.0 if value is None else check_below_one(name, value)


class AdaFactor(Optimizer):
    r"""Adaptive rates from the mean squares of rows and columns, in place of one number per element.

    .. math::
        R_t = \hat\beta_t R_{t-1} + (1 - \hat\beta_t) \operatorname{mean}_{\text{columns}}(g_t^2 + \epsilon_1), \quad
        C_t = \hat\beta_t C_{t-1} + (1 - \hat\beta_t) \operatorname{mean}_{\text{rows}}(g_t^2 + \epsilon_1), \quad
        x_t = \frac{g_t}{\sqrt{R_t / \operatorname{mean}(R_t)} \sqrt{C_t}}

    for parameters with two axes or more, which are matrices over the last two of them. For the others,
    :math:`V_t = \hat\beta_t V_{t-1} + (1 - \hat\beta_t) (g_t^2 + \epsilon_1)` and :math:`x_t = g_t / \sqrt{V_t}`. Then

    .. math::
        \alpha_t = \eta_t \max(\epsilon_2, \operatorname{rms}(w_{t-1})), \quad
        u_t = \alpha_t \frac{x_t}{\max(1, \operatorname{rms}(x_t) / d)}, \quad
        m_t = \beta_1 m_{t-1} + (1 - \beta_1) u_t, \quad
        w_t = w_{t-1} - \lambda \alpha_t w_{t-1} - m_t

    with :math:`\hat\beta_t = 1 - t^{-c}`, decay rate `c`, t = 1 in the first step, threshold `d`, weight decay
    :math:`\lambda`, and the root mean square rms over all of a parameter. The rate :math:`\eta_t` is the relative step
    :math:`\min(10^{-2}, 1 / \sqrt t)`, or :math:`\min(10^{-6} t, 1 / \sqrt t)` with `warmup_init`, or `learning_rate`.

    Parameters
    ----------
    params
        See `Optimizer`. The weight decay of groups has no effect, nor their centralization, nor their rate with
        `relative_step`.
    learning_rate : number, array, iterable of numbers or LearningRateSchedule, optional
        See `Optimizer`. Required without `relative_step`, and not allowed with it.
    eps : tuple or list of two numbers, default (1e-30, 1e-3)
        Epsilon 1, added to the squares, and epsilon 2, the least size of a parameter; both >= 0. An element
        whose mean squares are 0 has the direction 0.
    clip_threshold : number, default 1.0
        d > 0.
    decay_rate : number, default 0.8
        c, in (0, 1).
    beta1 : number or None, default 0.9
        Decay of the first moment, in [0, 1). With 0 or None there is none: :math:`m_t = u_t`, and no memory for it.
    weight_decay : number or callable, default 0.0
        In [0, 1). It is apart from the gradient, and the same for all parameters whatever their names and groups.
    scale_parameter : bool, default True
        Whether the rate is relative to the size of the parameter; otherwise :math:`\alpha_t = \eta_t`.
    relative_step : bool, default True
        Whether the rate follows from the step alone.
    warmup_init : bool, default False
        Whether that rate starts low. Requires `relative_step`.
    compression : bool, default False
        Accepted as in MindSpore, where it is about storage; here it has no effect.
    loss_scale : number, default 1.0
        Only `max_grad_norm` looks at it: gradients are not divided by it, and their scale hardly matters to this rule.

    Attributes
    ----------
    exp_avg_sq_row, exp_avg_sq_col : ParameterTuple
        R, of shape ``shape[:-1]``, and C, of shape ``shape[:-2] + shape[-1:]``, for parameters with two axes or more;
        0 at first.
    exp_avg_sq : ParameterTuple
        V for the other parameters; 0 at first.
    exp_avg : ParameterTuple
        Only with `beta1`: m, 0 at first.
    afactor_step : int
        Number of steps done: `global_step`.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of its range; see also `Optimizer`.

    Notes
    -----
    The paper's algorithms have neither weight decay nor first moment, and sums of rows and columns in place of means,
    which makes no difference. As in MindSpore, the matrices are always the last two axes: when they have few columns,
    as in small convolution kernels, they save little memory, and finding the means takes longer than the step.

    A first pass reads the gradient for the sums of squares, a second one for the root mean squares; only the third one
    writes. Beside the slots that takes 8 bytes for each row and each column, and no memory of a parameter's size.

    Row gradients are refused: their mean squares belong to whole parameters.

    References
    ----------
    N. Shazeer and M. Stern, "Adafactor: adaptive learning rates with sublinear memory cost", 2018, algorithms 4
    (matrices), 5 (vectors) and 6 (hyperparameters).

    Examples
    --------
    >>> import optimcore as nn
    >>> w = nn.Parameter([[3.0, 4.0], [0.0, 0.0]], name="w")
    >>> opt = nn.AdaFactor([w], beta1=None)
    >>> opt([np.array([[1.0, -1.0], [1.0, 1.0]], np.float32)])
    True
    >>> w.asnumpy()
    array([[ 2.975,  4.025],
           [-0.025, -0.025]], dtype=float32)
    """

    _unscales = False
    _settings = {
        "eps": check_eps,
        "clip_threshold": check_positive,
        "decay_rate": check_fraction,
        "beta1": check_beta1,
        "scale_parameter": check_flag,
    }

    def __init__(
        self,
        params,
        learning_rate=None,
        eps=(1e-30, 1e-3),
        clip_threshold=1.0,
        decay_rate=0.8,
        beta1=0.9,
        weight_decay=0.0,
        scale_parameter=True,
        relative_step=True,
        warmup_init=False,
        compression=False,
        loss_scale=1.0,
    ):
        self.scale_parameter = scale_parameter
        self.relative_step = check_flag("relative_step", relative_step)
        self.warmup_init = check_flag("warmup_init", warmup_init)
        self.compression = check_flag("compression", compression)
        _check_rate(learning_rate, relative_step, warmup_init)
        self.eps, self.clip_threshold, self.decay_rate, self.beta1 = eps, clip_threshold, decay_rate, beta1
        super().__init__(0.0 if learning_rate is None else learning_rate, params, weight_decay, loss_scale)
        self._make_means()
        slots = [self._column_means]
        if self.beta1 > 0:
            self.exp_avg = self.make_slot("exp_avg")
            slots.append(self.exp_avg)
        rule = "adafactor_momentum" if self.beta1 > 0 else "adafactor"
        self.build_plan(rule, *slots, centralize=False, takes_rows=False, row_means=self._row_means)
        self._plan.adapt("adafactor")

    def _make_means(self):
        """Make R and C of parameters with two axes or more, V of the others."""
        parameters = self.parameters
        is_matrix = [p.ndim > 1 for p in parameters]
        self._row_means = [_slot("exp_avg_sq_row", p, p.shape[:-1]) if p.ndim > 1 else None for p in parameters]
        self._column_means = [
            _slot("exp_avg_sq_col", p, p.shape[:-2] + p.shape[-1:]) if p.ndim > 1 else _slot("exp_avg_sq", p, p.shape)
            for p in parameters
        ]
        self.exp_avg_sq_row = ParameterTuple(compress(self._row_means, is_matrix))
        self.exp_avg_sq_col = ParameterTuple(compress(self._column_means, is_matrix))
        self.exp_avg_sq = ParameterTuple(compress(self._column_means, [not m for m in is_matrix]))

    def decay_filter(self, name):
        """Tell that weight decay applies to every parameter."""
        return True

    def check_decay(self, name, value):
        """Return a weight decay in [0, 1), or a callable; see `Optimizer.check_decay`."""
        return value if callable(value) else check_below_one(name, value)

    def _decay_of_groups(self, entries):
        return [None] * len(entries)  # as in MindSpore, that of the optimizer counts

    def check_settings(self, values):
        """Check that settings go together; see `Optimizer.check_settings`."""
        super().check_settings(values)
        if self._plan is not None and (values["beta1"] > 0) != (self.beta1 > 0):
            raise ValueError(
                f"beta1 must stay {'> 0' if self.beta1 > 0 else '0'}, for it decides whether there is a first moment, "
                f"got {values['beta1']}: make a new optimizer"
            )

    @property
    def afactor_step(self):
        """int : number of steps done, as `global_step`."""
        return self.global_step

    def _make_readers(self, rates):
        if self.relative_step:
            return [_relative_reader(self.warmup_init)] * len(rates)
        return super()._make_readers(rates)

    def check_rates(self, rates):
        """Raise ValueError if the rate follows from the step, but is set."""
        if self.relative_step and self._fixed:
            raise ValueError("learning_rate must not be set with relative_step: make a new optimizer without it")

    def _beta2(self):
        return 1.0 - (self.global_step + 1) ** -self.decay_rate

    def hypers(self):
        """Return the numbers of this step; see `Optimizer.hypers`."""
        self._plan.adaptation_numbers[:, :3] = self.eps[1], self.clip_threshold, self.scale_parameter
        return super().hypers()

    def hyper(self, lr):
        """Return rate, epsilon 1, the decay of the mean squares in this step, and beta1 if there is a first moment."""
        hyper = lr, self.eps[0], self._beta2()
        return (*hyper, self.beta1) if self.beta1 > 0 else hyper


def _relative_reader(warmup_init):
    def read(step):
        t = step + 1
        return min(1e-6 * t if warmup_init else 1e-2, 1.0 / math.sqrt(t))

    return read


def _slot(prefix, parameter, shape):
    data = np.zeros(shape, compute_dtype(parameter.dtype))
    return Parameter(data, f"{prefix}.{parameter.name}", parameter.requires_grad)


def _check_rate(learning_rate, relative_step, warmup_init):
    if relative_step and learning_rate is not None:
        raise ValueError(f"learning_rate must be None with relative_step, got {learning_rate!r}")
    if not relative_step and learning_rate is None:
        raise ValueError("learning_rate must be given without relative_step, got None")
    if warmup_init and not relative_step:
        raise ValueError("warmup_init must be False without relative_step, got True")
