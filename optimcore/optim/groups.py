"""From the argument `parameters` to one entry per parameter."""

import sys
import warnings
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any, NamedTuple

import numpy as np

from ..checks import check_flag
from ..kernels.tensors import is_tensor
from ..parameter import Parameter, check_names
from .rates import check_decay, make_rate

__all__ = ["Entry", "collect", "plain_entries", "read_groups"]

GROUP_KEYS = ("params", "lr", "weight_decay", "grad_centralization", "order_params")
_LONG_NAMES = {"learning_rate": "lr", "parameters": "params"}


class Entry(NamedTuple):
    """One parameter and its values, which order_params moves together."""

    parameter: Parameter
    rate: Any
    weight_decay: Any  # None stands for the weight decay of the optimizer
    grad_centralization: bool


def collect(parameters):
    """Return the elements of `parameters` as a list, and whether they are groups."""
    if parameters is None:
        raise ValueError("parameters must be a list of Parameters or dicts, got None")
    _reject_single("parameters", parameters)
    elements = list(parameters)
    if not elements:
        raise ValueError("parameters must not be empty, got []")
    is_group = isinstance(elements[0], dict)
    for i, element in enumerate(elements):
        if is_group != isinstance(element, dict):
            raise TypeError(
                f"parameters must be all Parameters or all dicts, got {type(element).__name__} at parameters[{i}]"
            )
        if not is_group:
            _check_parameter(f"parameters[{i}]", element)
    return elements, is_group


def plain_entries(parameters, rate):
    """Give every parameter the values of the optimizer."""
    check_names(parameters)
    return [Entry(p, rate, None, False) for p in parameters]


def read_groups(groups, rate):
    """Expand groups into one `Entry` per parameter, in group order or that of order_params.

    Parameters
    ----------
    groups : list of dict
        As the optimizer got them. Iterators in them are consumed once, the dicts are not changed.
    rate : Parameter or LearningRateSchedule
        That of the optimizer, for groups without their own.

    Returns
    -------
    entries : list of Entry
    is_group_lr : bool
        Whether a group has a rate of its own.
    is_ordered : bool
        Whether order_params decided the order.
    """
    _check_keys(groups)
    members = {i: _members(i, g) for i, g in enumerate(groups) if "order_params" not in g}
    if not members:
        raise ValueError("parameters must have a group with 'params', got only 'order_params'")
    grouped = [p for parameters in members.values() for p in parameters]
    order = _find_order(groups, grouped)
    entries = []
    for i, parameters in members.items():
        values = _group_values(i, groups[i], rate)
        entries += [Entry(p, *values) for p in parameters]
    _check_duplicates(grouped)
    is_group_lr = any("lr" in groups[i] for i in members)
    return _reorder(entries, order), is_group_lr, bool(order)


def _check_keys(groups):
    for i, group in enumerate(groups):
        for key in group:
            if key not in GROUP_KEYS:
                raise KeyError(
                    f"keys of parameters[{i}] must be among {', '.join(GROUP_KEYS)}, got {key!r}{_suggestion(key)}"
                )


def _suggestion(key):
    """Ask for the key that may have been meant, if there is one."""
    near = [_LONG_NAMES[key]] if key in _LONG_NAMES else get_close_matches(str(key), GROUP_KEYS, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _members(i, group):
    """Return the parameters of a group as a list; an iterator is read here and never again."""
    name = f"parameters[{i}]['params']"
    if "params" not in group:
        raise KeyError(f"parameters[{i}] must have the key 'params', got {list(group)}")
    if group["params"] is None:
        raise ValueError(f"{name} must be a list of Parameters, got None")
    parameters = _list_of_parameters(name, group["params"])
    if not parameters:
        raise ValueError(f"{name} must not be empty, got []")
    return parameters


def _group_values(i, group, rate):
    name, weight_decay = f"parameters[{i}]", None
    if "lr" in group:
        rate = make_rate(f"{name}['lr']", group["lr"], f"learning_rate_group_{i}")
    if "weight_decay" in group:
        weight_decay = check_decay(f"{name}['weight_decay']", group["weight_decay"])
    centralize = group.get("grad_centralization", False)
    return rate, weight_decay, check_flag(f"{name}['grad_centralization']", centralize)


def _check_duplicates(parameters):
    seen = set()
    for p in parameters:
        if id(p) in seen:
            raise RuntimeError(f"a parameter must be in groups only once, got {p.name!r} twice")
        seen.add(id(p))
    check_names(parameters)


def _find_order(groups, grouped):
    """Return the last non-empty order_params as a checked list, or an empty list."""
    order = []
    for i, group in enumerate(groups):
        if "order_params" in group:
            _warn_of_ignored_keys(i, group)
            name = f"parameters[{i}]['order_params']"
            given = _list_of_parameters(name, group["order_params"])
            _check_order(name, given, grouped)
            order = given or order
    return order


def _warn_of_ignored_keys(i, group):
    ignored = [key for key in group if key != "order_params"]
    if ignored:
        text = f"keys beside 'order_params' are ignored: parameters[{i}] has {ignored}"
        warnings.warn(text, UserWarning, stacklevel=_level_of_user())


def _level_of_user():
    """Return the `stacklevel`, for a warning of the caller, of the first line outside of this package."""
    package = __name__.partition(".")[0]
    frame, level = sys._getframe(1), 1
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] == package:
        frame, level = frame.f_back, level + 1
    return level


def _check_order(name, order, grouped):
    if order and len(order) != len(grouped):
        raise ValueError(f"{name} must hold each of the {len(grouped)} grouped parameters once, got {len(order)}")
    present = {_key(p) for p in order}
    for p in grouped if order else ():
        if _key(p) not in present:
            raise ValueError(f"{name} must hold each grouped parameter once, got none named {p.name!r}")


def _reorder(entries, order):
    if not order:
        return entries
    entry_of = {_key(entry.parameter): entry for entry in entries}
    return [entry_of[_key(p)] for p in order]


def _key(parameter):
    """What order_params is matched by: the name; while there is none, the object."""
    return parameter.name if parameter.name is not None else id(parameter)


def _list_of_parameters(name, value):
    _reject_single(name, value)
    parameters = list(value)
    for i, p in enumerate(parameters):
        _check_parameter(f"{name}[{i}]", p)
    return parameters


def _reject_single(name, value):
    """Raise TypeError for what is no collection, or iterates into other things than its elements."""
    single = isinstance(value, (str, bytes, dict, Parameter, np.ndarray)) or is_tensor(value)
    if single or not isinstance(value, Iterable):
        raise TypeError(f"{name} must be a list of Parameters, got {_kind(value)}")


def _check_parameter(name, value):
    if not isinstance(value, Parameter):
        raise TypeError(
            f"{name} must be a Parameter, got {_kind(value)} (an array becomes one by optimcore.Parameter(array, name))"
        )


def _kind(value):
    """Name the type of a value; torch's own Parameter is a tensor."""
    return "torch.Tensor" if is_tensor(value) else type(value).__name__
