"""Golden configurations in a neutral form, for the oracle and for the library.

Origin and layout of the files: ``golden/README.md``. `dense` and `sparse` list the configurations,
`oracle` builds the float64 reference of one, `build` the optimizer of the library. A test then is

    optimizer = build(config, optimcore)
    for step in range(config.steps):
        optimizer(config.gradients(step))
        for parameter, expected in zip(optimizer.parameters, config.expected(step)):
            np.testing.assert_allclose(parameter.asnumpy(), expected, **TOLERANCE)
"""

import inspect
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import reference

GOLDEN = Path(__file__).parent / "golden"

# The files are float32 after up to 10 steps; a float64 evaluation of the rules stays within this.
TOLERANCE = {"rtol": 1e-5, "atol": 2e-6}

TABLE = "table"  # name of the one parameter of a sparse configuration


class Schedule(NamedTuple):
    """A learning-rate schedule by class name."""

    cls: str
    kwargs: dict


@cache
def load(file):
    with np.load(GOLDEN / file) as arrays:
        return dict(arrays)


@cache
def manifest():
    return json.loads((GOLDEN / "manifest.json").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Config:
    """One optimizer, its gradients, and what came out of it.

    In `kwargs` and in the ``lr`` of `groups` a rate is a number, a list or a `Schedule`. Groups
    hold parameter names. `inner` is the optimizer that LARS wraps, else None. `order` is the order
    of gradients and of expected parameters.
    """

    id: str
    cls: str
    kwargs: dict
    groups: list | None
    inner: "Config | None"
    order: tuple
    steps: int
    grad_scale: float
    source: str
    file: str
    slot_names: tuple

    def __str__(self):
        return self.id

    def initial(self):
        """Fresh float32 arrays by name, in network order."""
        arrays = load("inputs.npz")
        return {name: arrays[f"init/{name}"].copy() for name in manifest()["param_names"]}

    def gradients(self, step):
        """Float32 gradients of a 0-based step, in `order`."""
        arrays, scale = load("inputs.npz"), np.float32(self.grad_scale)
        return tuple(arrays[f"grad/{name}"][step] * scale for name in self.order)

    def expected(self, step):
        """Parameters after a 0-based step, in `order`."""
        arrays = load(self.file)
        return tuple(arrays[f"{self.id}/p/{name}"][step] for name in self.order)

    def expected_slots(self):
        """State after the last step as {slot: {name: array}}; a shared scalar has the name ''."""
        slots = {}
        for key, array in load(self.file).items():
            if key.startswith(f"{self.id}/s/"):
                slot, name = key.removeprefix(f"{self.id}/s/").split("/", 1)
                slots.setdefault(slot, {})[name] = array
        return slots


class SparseConfig(Config):
    """A table that gets a `reference.Rows` gradient, with repeated indices, in every step."""

    def initial(self):
        return {TABLE: load("inputs.npz")["sparse/init"].copy()}

    def gradients(self, step):
        arrays = load("inputs.npz")
        values = arrays["sparse/values"][step] * np.float32(self.grad_scale)
        return (reference.Rows(arrays["sparse/indices"][step], values),)

    def expected(self, step):
        return (load(self.file)[f"{self.id}/p"][step],)

    def expected_slots(self):
        arrays = load(self.file)
        return {slot: {TABLE: arrays[f"{self.id}/s/{slot}"]} for slot in self.slot_names}


def dense(cls=None):
    """Dense configurations, of one class or of all."""
    return [_config(Config, entry) for entry in manifest()["configs"] if cls in (None, entry["cls"])]


def sparse(cls=None):
    """Row gradient configurations, of one class or of all."""
    return [
        _config(SparseConfig, {**entry, "param_order": [TABLE]})
        for entry in manifest()["sparse"]
        if cls in (None, entry["cls"])
    ]


def oracle(config):
    """The float64 reference of a configuration, before its first step."""
    if config.inner is not None:
        return reference.Lars(oracle(config.inner), **config.kwargs)

    def rate(value):
        return reference.schedule(value.cls, **value.kwargs) if _is_schedule(value) else value

    kwargs, groups = _arguments(config, reference.RULES[config.cls], rate)
    return reference.Reference(config.cls, config.initial(), kwargs, groups)


def build(config, nn):
    """The library's optimizer of a configuration, before its first step.

    `nn` is the optimcore module. The parameters are new float32 ones: `optimizer.parameters`.
    """
    if config.inner is not None:
        return nn.LARS(build(config.inner, nn), **config.kwargs)

    def rate(value):
        return getattr(nn, value.cls)(**value.kwargs) if _is_schedule(value) else value

    parameters = {name: nn.Parameter(w, name=name) for name, w in config.initial().items()}
    optimizer = getattr(nn, config.cls)
    kwargs, groups = _arguments(config, optimizer, rate)
    for group in groups or ():
        for key in group.keys() & {"params", "order_params"}:
            group[key] = [parameters[name] for name in group[key]]
    return optimizer(groups or list(parameters.values()), **kwargs)


def _is_schedule(value):
    return isinstance(value, Schedule)


def _arguments(config, cls, convert_rate):
    """Keyword arguments for `cls` and groups, rates converted, hyperparameters in float32.

    MindSpore rounds hyperparameters, defaults as well, to float32, and the vectors depend on it:
    1 - float32(0.999) is 1.3e-5 off 0.001, which AdamWeightDecay, without a bias correction where
    it would cancel, shows in every step.
    """
    defaults = {name: p.default for name, p in inspect.signature(cls).parameters.items()}
    floats = {
        name: float(np.float32(value))
        for name, value in {**defaults, **config.kwargs}.items()
        if isinstance(value, float)
    }
    kwargs = {**config.kwargs, **floats}
    if "learning_rate" in kwargs:
        kwargs["learning_rate"] = convert_rate(kwargs["learning_rate"])
    if config.groups is None:
        return kwargs, None
    groups = [{k: convert_rate(v) if k == "lr" else v for k, v in g.items()} for g in config.groups]
    return kwargs, groups


def _config(kind, entry):
    inner = entry.get("inner")
    return kind(
        id=entry["id"],
        cls=entry["cls"],
        kwargs=_decode(entry["kwargs"]),
        groups=entry.get("groups") and [_decode(group) for group in entry["groups"]],
        inner=inner and _config(kind, {**entry, "inner": None, **inner}),
        order=tuple(entry["param_order"]),
        steps=entry["steps"],
        grad_scale=entry["grad_scale"],
        source=entry["source"],
        file=entry["file"],
        slot_names=tuple(entry["slots"]),
    )


def _decode(arguments):
    """Arguments out of JSON: rates in neutral form, and tuples where the classes want tuples."""

    def value(key, item):
        if isinstance(item, dict):
            return item["list"] if "list" in item else Schedule(*item["schedule"])
        return tuple(item) if key in ("etas", "step_sizes") else item

    return {key: value(key, item) for key, item in arguments.items()}
