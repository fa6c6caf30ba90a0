"""Attributes that can be assigned between steps, and why others cannot."""

import difflib
import inspect
from functools import cache

import numpy as np

from ..kernels.arrays import compute_dtype
from ..parameter import Parameter, ParameterTuple

__all__ = [
    *("FIXED", "arithmetic_of", "check_arithmetic", "check_keywords", "hint", "is_closed", "refusal", "state_names"),
]

# Attributes of every optimizer that follow from its arguments.
FIXED = frozenset(
    [
        *("param_length", "is_group", "is_group_lr", "is_group_params_ordered", "dynamic_lr", "use_parallel"),
        *("group_params", "group_lr", "group_weight_decay", "group_grad_centralization", "optim_filter"),
        *("reciprocal_scale", "need_scale", "exec_weight_decay", "decay_flags", "grad_centralization_flags"),
    ]
)

_FOLLOWS_FROM = {
    "reciprocal_scale": "loss_scale",
    "need_scale": "loss_scale",
    "exec_weight_decay": "weight_decay",
    "group_weight_decay": "weight_decay",
    "group_lr": "learning_rate",
    "dynamic_lr": "learning_rate",
}


def arithmetic_of(parameters):
    """Return the narrowest dtype that parameters are updated in: float32 or float64."""
    dtypes = [compute_dtype(p.dtype) for p in parameters]
    return min(dtypes, key=lambda dtype: dtype.itemsize)


def check_arithmetic(name, value, dtype, must_not_vanish=False):
    """Raise ValueError if a number, or one of a tuple, is beyond a dtype, or rounds to 0 there although it must not."""
    numbers = value if isinstance(value, tuple) else (value,)
    limits, largest = np.finfo(dtype), float(np.finfo(dtype).max)
    for number in numbers:
        if isinstance(number, bool) or not isinstance(number, (int, float)):
            continue
        if abs(number) > largest:
            raise ValueError(f"{name} must be at most {largest:.3g} in {dtype} arithmetic, got {value}")
        if must_not_vanish and number > 0 and dtype.type(number) == 0:
            raise ValueError(
                f"{name} must be at least {limits.smallest_subnormal:.2g} in {dtype} arithmetic, got {value}"
            )


def state_names(attributes):
    """Return the names of attributes that hold what steps advance: slots and numbers."""
    return {
        name
        for name, value in attributes.items()
        if not name.startswith("_") and isinstance(value, (Parameter, ParameterTuple, np.ndarray))
    }


def is_closed(optimizer, name):
    """Tell whether this is a public name, and the optimizer of a class of this package: nothing is added to these."""
    return not name.startswith("_") and type(optimizer).__module__.startswith("optimcore.")


def refusal(optimizer, name):
    """Return why an attribute cannot be assigned, and what to do."""
    cls, value = type(optimizer).__name__, getattr(optimizer, name, None)
    if isinstance(value, ParameterTuple):
        return f"{name} of {cls} cannot be assigned: its arrays can be, opt.{name}[i].set_data(values)"
    if isinstance(value, Parameter):
        return f"{name} of {cls} cannot be assigned: its value can be, opt.{name}.set_data(value)"
    if isinstance(value, np.ndarray):
        return f"{name} of {cls} cannot be assigned: its elements can be, opt.{name}[:] = values"
    if name in _FOLLOWS_FROM:
        return f"{name} of {cls} cannot be assigned: it follows from {_FOLLOWS_FROM[name]}, which can be"
    if callable(value):
        return f"{name} of {cls} cannot be assigned: it is a method, which a subclass can override"
    if hasattr(optimizer, name):
        return f"{name} of {cls} cannot be assigned: it is decided in the constructor, make a new optimizer"
    return f"{cls} has no attribute {name!r}{hint(name, [n for n in dir(optimizer) if not n.startswith('_')])}"


def hint(name, names):
    """Return the end of a message that suggests the name that was meant, if one is near."""
    known = "learning_rate" if name == "lr" and "learning_rate" in names else None
    near = [known] if known else difflib.get_close_matches(name, names, 1)
    return f": did you mean {near[0]!r}?" if near else ""


@cache
def keywords_of(cls):
    """Return the names of the constructor's arguments, None if it takes any."""
    parameters = inspect.signature(cls.__init__).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return None
    return frozenset(p.name for p in parameters)


def check_keywords(cls, kwargs):
    """Raise TypeError if the constructor has no argument of such a name, and say which one was meant."""
    names = keywords_of(cls) if kwargs else None
    for name in kwargs if names is not None else ():
        if name not in names:
            raise TypeError(f"{cls.__name__} has no argument {name!r}{hint(name, sorted(names - {'self'}))}")
