"""One tensor: every rule of the package, in three sizes; Adam in every dtype."""

from dataclasses import dataclass, field
from functools import cache, partial

import numpy as np

import optimcore

from .workload import Run, Workload

__all__ = ["RULES", "WORKLOADS", "Rule", "make_run", "normals"]


@dataclass(frozen=True)
class Rule:
    """A rule: the class with its arguments, and what each of its passes over the tensor reads and updates.

    A pass is a pair of letters for arrays, those that it only reads and those that it updates; `w` and `g` have the
    dtype of the parameter, all others are slots. Of reductions, only those count that need a pass of their own.
    """

    cls: str
    arguments: dict
    passes: tuple
    wrap: dict | None = None  # arguments of a LARS around it
    columns: int = field(default=0)  # of the matrix that the tensor is; 0: it is a vector

    def build(self, parameters, **more):
        """Return the optimizer of a list of arrays."""
        named = [optimcore.Parameter(w, name=f"w{i}") for i, w in enumerate(parameters)]
        optimizer = getattr(optimcore, self.cls)(named, **self.arguments, **more)
        return optimizer if self.wrap is None else optimcore.LARS(optimizer, **self.wrap)


# The learning rates are so small that nothing overflows, however often a step is repeated with one gradient.
RULES = {
    "sgd": Rule("SGD", dict(learning_rate=1e-4), (("g", "w"),)),
    "sgd_momentum": Rule("SGD", dict(learning_rate=1e-4, momentum=0.9), (("g", "wa"),)),
    "sgd_nesterov": Rule("SGD", dict(learning_rate=1e-4, momentum=0.9, nesterov=True), (("g", "wa"),)),
    "momentum": Rule("Momentum", dict(learning_rate=1e-4, momentum=0.9), (("g", "wm"),)),
    "momentum_nesterov": Rule("Momentum", dict(learning_rate=1e-4, momentum=0.9, use_nesterov=True), (("g", "wm"),)),
    "adam": Rule("Adam", dict(learning_rate=1e-4), (("g", "wmv"),)),
    "adam_nesterov": Rule("Adam", dict(learning_rate=1e-4, use_nesterov=True), (("g", "wmv"),)),
    "adam_amsgrad": Rule("Adam", dict(learning_rate=1e-4, use_amsgrad=True), (("g", "wmvh"),)),
    "adam_weight_decay": Rule("AdamWeightDecay", dict(learning_rate=1e-4, weight_decay=0.01), (("g", "wmv"),)),
    "adamax": Rule("AdaMax", dict(learning_rate=1e-4), (("g", "wmv"),)),
    "adagrad": Rule("Adagrad", dict(learning_rate=1e-4), (("g", "wa"),)),
    "adagrad_frozen": Rule("Adagrad", dict(learning_rate=1e-4, update_slots=False), (("ga", "w"),)),
    "adadelta": Rule("Adadelta", dict(learning_rate=1e-4), (("g", "wau"),)),
    "asgd": Rule("ASGD", dict(learning_rate=1e-4), (("g", "wa"),)),
    "rprop": Rule("Rprop", dict(learning_rate=1e-4), (("g", "wps"),)),
    "ftrl": Rule("FTRL", dict(learning_rate=1e-4, l1=1e-3, l2=1e-3), (("g", "wal"),)),
    "ftrl_power": Rule("FTRL", dict(learning_rate=1e-4, lr_power=-0.4, l1=1e-3, l2=1e-3), (("g", "wal"),)),
    "proximal_adagrad": Rule("ProximalAdagrad", dict(learning_rate=1e-4, l1=1e-3, l2=1e-3), (("g", "wa"),)),
    "rmsprop": Rule("RMSProp", dict(learning_rate=1e-4), (("g", "wsm"),)),
    "rmsprop_centered": Rule("RMSProp", dict(learning_rate=1e-4, centered=True), (("g", "wsma"),)),
    "lamb": Rule("Lamb", dict(learning_rate=1e-4, weight_decay=0.01), (("gwmv", ""), ("g", "wmv"))),
    "lars": Rule(
        "Momentum", dict(learning_rate=1e-1, momentum=0.9, weight_decay=1e-4), (("gw", ""), ("g", "wm")), wrap={}
    ),
    "adafactor": Rule(
        "AdaFactor",
        dict(learning_rate=1e-4, relative_step=False, scale_parameter=False, beta1=0.0),
        (("g", ""), ("gw", ""), ("g", "w")),
        columns=100,
    ),
    "adafactor_momentum": Rule(
        "AdaFactor",
        dict(learning_rate=1e-4, relative_step=False, scale_parameter=False, beta1=0.9),
        (("g", ""), ("gw", ""), ("g", "wm")),
        columns=100,
    ),
}
SIZES = {"1e3": 10**3, "1e5": 10**5, "1e7": 10**7}
# of the goals of speed
FIVE = ("adam", "adam_weight_decay", "momentum", "adagrad", "rmsprop")


@cache
def _pool():
    """Return random numbers that all arrays are cut from: to draw them takes longer than most measurements."""
    return np.random.default_rng(5).standard_normal(2**20 + 1, dtype=np.float32)


def normals(shape, dtype="float32", start=0):
    """Return a new array of normal numbers; another `start` gives others."""
    size = int(np.prod(shape))
    return np.resize(np.roll(_pool(), -start), size).reshape(shape).astype(as_dtype(dtype), copy=False)


def as_dtype(name):
    """Return a dtype by name; bfloat16 is that of ml_dtypes."""
    if name == "bfloat16":
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(name)


def make_run(rule, shapes, dtype="float32", **more):
    """Return the Run of one step of a rule on tensors of these shapes."""
    parameters = [normals(shape, dtype, start=i) for i, shape in enumerate(shapes)]
    gradients = tuple(normals(shape, dtype, start=1000 + i) for i, shape in enumerate(shapes))
    optimizer = rule.build(parameters, **more)
    return Run(
        partial(optimizer, gradients),
        lambda: parameters,
        rule=rule,
        parameters=parameters,
        gradients=gradients,
        optimizer=optimizer,
    )


def stream(rule, sizes, dtype="float32"):
    """Return the limit of a rule: its passes over tensors of these sizes."""
    return "stream", dict(passes=rule.passes, sizes=tuple(sizes), dtype=dtype)


def _workload(name, size, dtype="float32"):
    rule, n = RULES[name], SIZES[size]
    shape = (n // rule.columns, rule.columns) if rule.columns else (n,)
    return Workload(
        "dense",
        name,
        size if dtype == "float32" else f"{size}, {dtype}",
        partial(make_run, rule, [shape], dtype),
        stream(rule, [n], dtype),
        n,
        quick=size == "1e5" or (size == "1e3" and name in FIVE),
    )


WORKLOADS = [_workload(name, size) for name in RULES for size in SIZES]
WORKLOADS += [_workload("adam", "1e7", dtype) for dtype in ("float16", "bfloat16", "float64")]
