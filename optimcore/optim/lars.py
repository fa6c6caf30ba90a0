"""LARS."""

from ..checks import check_finite, check_flag
from ..gradients import norm_of
from ..kernels.driver import Plan
from ..kernels.gradient import transform
from .base import Optimizer
from .rates import read_decay

__all__ = ["LARS"]


def default_filter(parameter):
    """Tell whether LARS adapts a parameter: neither a bias nor of a layer normalization."""
    return "LayerNorm" not in parameter.name and "bias" not in parameter.name


def _forwarded(name):
    """Return a property that is the one of this name of the wrapped optimizer."""

    def read(self):
        return getattr(self.optimizer, name)

    def write(self, value):
        setattr(self.optimizer, name, value)

    return property(read, write, doc=f"`{name}` of the wrapped optimizer; see `Optimizer`.")


class LARS(Optimizer):
    r"""Layer-wise adaptive rate scaling around another optimizer.

    .. math::
        c = \frac{\kappa \|w\|}{\|g\| + \lambda \|w\| + \epsilon}, \quad g \leftarrow c (g + \lambda w)

    for each parameter that passes the filter, with the gradient `g` after unscaling and the weight decay
    :math:`\lambda` of the wrapped optimizer; that optimizer then takes its step without a decay of its own. Parameters
    that do not pass keep their gradient and are not decayed.

    Parameters
    ----------
    optimizer : Optimizer
        The optimizer to wrap. It gives up its weight decay and unscaling for good: they happen here.
    epsilon : number, default 1e-5
        Added to the denominator.
    coefficient : number, default 1e-3
        :math:`\kappa`, the trust coefficient.
    use_clip : bool, default False
        Whether c is replaced by ``min(c / lr, 1)``, at least 0, so that the rate is never raised.
    lars_filter : callable, optional
        ``lars_filter(parameter)`` tells whether a parameter is adapted; by default all whose name holds neither
        'LayerNorm' nor 'bias'.

    Attributes
    ----------
    optimizer : Optimizer
        The wrapped optimizer. Parameters, rates, slots and `global_step` are its own, and can be read through LARS.
    lars_flag : tuple of bool
        What the filter said of each parameter.

    Raises
    ------
    TypeError
        If `optimizer` is not an Optimizer, or an argument of the wrong kind.
    ValueError
        If an argument is not finite, or if `use_clip` meets rates that are both dynamic and per group, as in MindSpore.

    Notes
    -----
    The wrapped optimizer's step measures a few parameters, then updates them; gradients are centralized after the ratio
    is known, as in MindSpore. An optimizer with a decay or a step of its own gets new gradients instead. Where w, g and
    epsilon are all 0, so is c.

    References
    ----------
    Y. You, I. Gitman and B. Ginsburg, "Large batch training of convolutional networks", 2017, equation 6.

    Examples
    --------
    >>> import optimcore as nn
    >>> w = nn.Parameter([3.0, 4.0], name="w")
    >>> opt = nn.LARS(nn.SGD([w], learning_rate=1.0), coefficient=0.1)
    >>> opt([np.array([0.0, 2.0], np.float32)])
    True
    >>> w.asnumpy().round(4)
    array([3. , 3.5], dtype=float32)
    """

    def __init__(self, optimizer, epsilon=1e-5, coefficient=1e-3, use_clip=False, lars_filter=default_filter):
        if not isinstance(optimizer, Optimizer) or isinstance(optimizer, LARS):
            raise TypeError(f"optimizer must be an Optimizer other than LARS, got {type(optimizer).__name__}")
        self.epsilon = check_finite("epsilon", epsilon)
        self.coefficient = check_finite("coefficient", coefficient)
        self.use_clip = check_flag("use_clip", use_clip)
        if use_clip and optimizer.dynamic_lr and optimizer.is_group_lr:
            raise ValueError("use_clip must be False with rates that are dynamic and per group, got True")
        if not callable(lars_filter):
            raise TypeError(f"lars_filter must be callable, got {lars_filter!r}")
        self.lars_flag = tuple(bool(lars_filter(p)) for p in optimizer.parameters)
        self.optimizer = optimizer
        self._names = [p.name for p in optimizer.parameters]
        self._arrays = [p.data for p in optimizer.parameters]
        self._reader = Plan(None, self._names, self._arrays, [], [False] * len(self._arrays))
        self._taken_decay = optimizer.give_up_decay_and_scale()

    def __getattr__(self, name):
        # what is not of LARS is of the wrapped optimizer
        if name == "optimizer":
            raise AttributeError(name)
        return getattr(self.optimizer, name)

    global_step = _forwarded("global_step")
    max_grad_norm = _forwarded("max_grad_norm")
    stochastic_rounding = _forwarded("stochastic_rounding")
    rounding_seed = _forwarded("rounding_seed")
    unique = _forwarded("unique")
    use_lazy = _forwarded("use_lazy")

    def get_lr(self):
        """Return the rate of the wrapped optimizer; see `Optimizer.get_lr`."""
        return self.optimizer.get_lr()

    def __call__(self, gradients):
        """Do one step of the wrapped optimizer; see `Optimizer.__call__`."""
        optimizer, plan = self.optimizer, self.optimizer._plan
        # no other thread takes a step of this LARS meanwhile
        if plan is None or plan.decoupled or type(optimizer).construct is not Optimizer.construct:
            with self._reader.hold(gradients):
                return optimizer(self._adapted(gradients))
        with plan.hold(gradients):
            try:
                plan.clip = self._clip(plan, gradients)
                plan.decay[:], plan.scale[:] = self._fill(plan.adaptation_numbers, plan.clip)
                plan.adapt("lars")
                return optimizer(gradients)
            finally:
                plan.adapt(None)
                plan.clip, plan.decay[:], plan.scale[:] = 1.0, 0.0, 1.0

    def _adapted(self, gradients):
        """Return new gradients, for an optimizer that does not do all of this in its step."""
        clip = self._clip(self._reader, gradients)
        numbers = self._reader.adaptation_numbers
        decay, scale = self._fill(numbers, clip)
        return transform(self._names, self._arrays, gradients, decay, None, scale, clip, numbers)

    def _clip(self, plan, gradients):
        if self.max_grad_norm is None:
            return 1.0
        return self.optimizer.clip_factor(norm_of(plan.measure("gradient_norm", gradients)))

    def _fill(self, numbers, clip):
        """Write what the kernel makes the ratio of; return the decay times loss scale, and the scale without it."""
        unscale = self.optimizer.reciprocal_scale
        numbers[:, :4] = self.coefficient, self.epsilon, clip * unscale, self.use_clip
        numbers[:, 4] = self.optimizer.get_lr() if self.use_clip else 0.0
        numbers[:, 5] = [read_decay(d, self.global_step) for d in self._taken_decay]
        numbers[:, 6] = self.lars_flag
        # what does not pass the filter is only unscaled
        return numbers[:, 5] * numbers[:, 6] / unscale, unscale
