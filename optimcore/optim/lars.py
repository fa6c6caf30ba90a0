"""LARS."""

import math
from functools import wraps

import numpy as np

from ..checks import check_finite, check_flag
from ..gradients import clip_parts, norm_for_clipping
from ..kernels.driver import ADAPTATION_NUMBERS
from ..kernels.gradient import transform
from .base import Optimizer

__all__ = ["LARS"]


def default_filter(parameter):
    """Tell whether LARS adapts a parameter: neither a bias nor of a layer normalization."""
    return "LayerNorm" not in parameter.name and "bias" not in parameter.name


def forwarded_property(name):
    """Return a property that is the one of this name of the wrapped optimizer."""

    def read(self):
        return getattr(self.optimizer, name)

    def write(self, value):
        setattr(self.optimizer, name, value)

    return property(read, write, doc=f"`{name}` of the wrapped optimizer; see `Optimizer`.")


def forwarded_method(method):
    """Return a method that is the one of this name of the wrapped optimizer."""

    @wraps(method)
    def call(self, *args, **kwargs):
        return getattr(self.optimizer, method.__name__)(*args, **kwargs)

    return call


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

    _settings = {"epsilon": check_finite, "coefficient": check_finite, "use_clip": check_flag}

    def __init__(self, optimizer, epsilon=1e-5, coefficient=1e-3, use_clip=False, lars_filter=default_filter):
        if not isinstance(optimizer, Optimizer) or isinstance(optimizer, LARS):
            raise TypeError(f"optimizer must be an Optimizer other than LARS, got {type(optimizer).__name__}")
        self.epsilon, self.coefficient, self.use_clip = epsilon, coefficient, use_clip
        self.optimizer = optimizer
        self.check_settings({name: getattr(self, name) for name in self._settings})
        if not callable(lars_filter):
            raise TypeError(f"lars_filter must be callable, got {lars_filter!r}")
        self.lars_flag = tuple(bool(lars_filter(p)) for p in optimizer.parameters)
        self._is_fused = False
        optimizer._give_to_wrapper()
        self._fixed = frozenset(["optimizer", "lars_flag"])
        self._sealed = True

    def check_settings(self, values):
        """Check that settings go together; see `Optimizer.check_settings`."""
        if values["use_clip"] and self.optimizer.dynamic_lr and self.optimizer.is_group_lr:
            raise ValueError("use_clip must be False with rates that are dynamic and per group, got True")

    def __getattr__(self, name):
        # what is not of LARS is of the wrapped optimizer
        if name == "optimizer":
            raise AttributeError(name)
        return getattr(self.optimizer, name)

    def __dir__(self):
        return sorted({*super().__dir__(), *dir(self.optimizer)})

    def __setattr__(self, name, value):
        is_own = name.startswith("_") or name in self._settings or name in self._fixed or not self._sealed
        if not is_own and not hasattr(type(self), name) and hasattr(self.optimizer, name):
            setattr(self.optimizer, name, value)
        else:
            super().__setattr__(name, value)

    def _change(self, new):
        with self.optimizer._turn:
            self.check_settings({name: getattr(self, name) for name in self._settings} | new)
            self._store(new)

    def __call__(self, gradients):
        """Do one step of the wrapped optimizer; see `Optimizer.__call__`."""
        return self.optimizer._step_for(self, gradients)

    def before_step(self, gradients):
        """Return the gradients for the step: those that came, if the wrapped optimizer's plan can adapt them."""
        plan = self.optimizer._plan
        own = type(self.optimizer).construct is not Optimizer.construct
        self._is_fused = not (plan is None or plan.decoupled or own)
        return gradients if self._is_fused else self._adapted(gradients)

    def prepare(self, plan):
        """Tell the plan, which has opened the gradients, to adapt them in this step."""
        if self._is_fused:
            plan.adapt("lars")
            clip = 1.0, 0
            if self.max_grad_norm is not None:
                clip = plan.clip = self.optimizer.clip_opened(plan)
            plan.decay[:], plan.scale[:] = self._fill(plan.adaptation_numbers, clip)

    def _adapted(self, gradients):
        """Return new gradients, for an optimizer that does not do all of this in its step."""
        optimizer = self.optimizer
        gradients = optimizer._without_frozen(gradients)
        clip = 1.0, 0
        if self.max_grad_norm is not None:
            clip = clip_parts(norm_for_clipping(gradients), self.max_grad_norm, optimizer.reciprocal_scale)
        numbers = np.zeros((optimizer.param_length, ADAPTATION_NUMBERS))
        decay, scale = self._fill(numbers, clip)
        names, arrays = zip(*((p.name, p.data) for p in optimizer.parameters), strict=True)
        return transform(names, arrays, gradients, decay, None, scale, clip, numbers)

    def _fill(self, numbers, clip):
        """Fill the `LarsNumbers` of each parameter; return (decay * loss_scale, 1 / loss_scale) for the step."""
        optimizer = self.optimizer
        unscale = optimizer.reciprocal_scale
        numbers[:, :4] = self.coefficient, self.epsilon, math.ldexp(*clip) * unscale, self.use_clip
        numbers[:, 4] = optimizer.get_lr() if self.use_clip else 0.0
        numbers[:, 5] = optimizer._current_decay(1.0)
        numbers[:, 6] = self.lars_flag
        # what does not pass the filter is only unscaled
        return numbers[:, 5] * numbers[:, 6] / unscale, unscale


# Whatever else an optimizer has is that of the wrapped one.
for _name, _member in vars(Optimizer).items():
    if not _name.startswith("_") and _name not in vars(LARS):
        if isinstance(_member, property):
            setattr(LARS, _name, forwarded_property(_name))
        elif callable(_member):
            setattr(LARS, _name, forwarded_method(_member))
