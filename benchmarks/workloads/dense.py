"""One tensor: every rule of the package, in three sizes; Adam in every dtype."""

from dataclasses import dataclass, replace
from functools import cache, partial

import numpy as np

import optimcore

from .workload import Run, Workload

__all__ = ["BETWEEN", "RULES", "WORKLOADS", "Rule", "make_run", "normals"]


@dataclass(frozen=True)
class Rule:
    """A rule: the class with its arguments, and what each of its passes over the tensor reads and updates.

    A pass is a pair of letters for arrays, those that it only reads and those that it updates; `w` and `g` have the
    dtype of the parameter, the slots are m, v and h. Of reductions, only those count that need a pass of their own.
    """

    name: str
    cls: str
    arguments: dict
    passes: tuple
    wrap: dict | None = None  # arguments of a LARS around it
    columns: int = 0  # of the matrix that the tensor is; 0: it is a vector

    def build(self, parameters, **more):
        """Return the optimizer of a list of arrays."""
        named = [optimcore.Parameter(w, name=f"w{i}") for i, w in enumerate(parameters)]
        optimizer = getattr(optimcore, self.cls)(named, **self.arguments, **more)
        return optimizer if self.wrap is None else optimcore.LARS(optimizer, **self.wrap)


# The learning rates are so small that nothing overflows, however often a step is repeated with one gradient.
RULES = [
    Rule("sgd", "SGD", dict(learning_rate=1e-4), (("g", "w"),)),
    Rule("sgd_momentum", "SGD", dict(learning_rate=1e-4, momentum=0.9), (("g", "wm"),)),
    Rule("sgd_nesterov", "SGD", dict(learning_rate=1e-4, momentum=0.9, nesterov=True), (("g", "wm"),)),
    Rule("momentum", "Momentum", dict(learning_rate=1e-4, momentum=0.9), (("g", "wm"),)),
    Rule("momentum_nesterov", "Momentum", dict(learning_rate=1e-4, momentum=0.9, use_nesterov=True), (("g", "wm"),)),
    Rule("adam", "Adam", dict(learning_rate=1e-4), (("g", "wmv"),)),
    Rule("adam_nesterov", "Adam", dict(learning_rate=1e-4, use_nesterov=True), (("g", "wmv"),)),
    Rule("adam_amsgrad", "Adam", dict(learning_rate=1e-4, use_amsgrad=True), (("g", "wmvh"),)),
    Rule("adam_weight_decay", "AdamWeightDecay", dict(learning_rate=1e-4, weight_decay=0.01), (("g", "wmv"),)),
    Rule("adamax", "AdaMax", dict(learning_rate=1e-4), (("g", "wmv"),)),
    Rule("adagrad", "Adagrad", dict(learning_rate=1e-4), (("g", "wm"),)),
    Rule("adagrad_frozen", "Adagrad", dict(learning_rate=1e-4, update_slots=False), (("gm", "w"),)),
    Rule("adadelta", "Adadelta", dict(learning_rate=1e-4), (("g", "wmv"),)),
    Rule("asgd", "ASGD", dict(learning_rate=1e-4), (("g", "wm"),)),
    Rule("rprop", "Rprop", dict(learning_rate=1e-4), (("g", "wmv"),)),
    Rule("ftrl", "FTRL", dict(learning_rate=1e-4, l1=1e-3, l2=1e-3), (("g", "wmv"),)),
    Rule("ftrl_power", "FTRL", dict(learning_rate=1e-4, lr_power=-0.4, l1=1e-3, l2=1e-3), (("g", "wmv"),)),
    Rule("proximal_adagrad", "ProximalAdagrad", dict(learning_rate=1e-4, l1=1e-3, l2=1e-3), (("g", "wm"),)),
    Rule("rmsprop", "RMSProp", dict(learning_rate=1e-4, momentum=0.9), (("g", "wmv"),)),
    Rule("rmsprop_centered", "RMSProp", dict(learning_rate=1e-4, momentum=0.9, centered=True), (("g", "wmvh"),)),
    Rule("lamb", "Lamb", dict(learning_rate=1e-4, weight_decay=0.01), (("gwmv", ""), ("g", "wmv"))),
    Rule(
        "lars",
        "Momentum",
        dict(learning_rate=1e-1, momentum=0.9, weight_decay=1e-4),
        (("gw", ""), ("g", "wm")),
        wrap={},
    ),
    Rule(
        "adafactor",
        "AdaFactor",
        dict(learning_rate=1e-4, relative_step=False, beta1=0.0),
        (("g", ""), ("gw", ""), ("g", "w")),
        columns=100,
    ),
    Rule(
        "adafactor_momentum",
        "AdaFactor",
        dict(learning_rate=1e-4, relative_step=False, beta1=0.9),
        (("g", ""), ("gw", ""), ("g", "wm")),
        columns=100,
    ),
]
RULES = {rule.name: rule for rule in RULES}
SIZES = {"1e3": 10**3, "1e5": 10**5, "1e7": 10**7}
SIZES_BETWEEN = {"1e4": 10**4, "1e6": 10**6}


@cache
def _pool():
    """Return random numbers that all arrays are cut from: to draw them takes longer than most measurements."""
    return np.random.default_rng(5).standard_normal(2**20 + 1, dtype=np.float32)


def normals(shape, dtype="float32", start=0):
    """Return a new array of normal numbers; another `start` gives others."""
    size = int(np.prod(shape))
    numbers = _pool()[start:]
    # resize repeats them, but copies all of them first
    numbers = numbers[:size].copy() if size <= len(numbers) else np.resize(numbers, size)
    return numbers.reshape(shape).astype(as_dtype(dtype), copy=False)


def as_dtype(name):
    """Return a dtype by name; bfloat16 is that of ml_dtypes."""
    if name == "bfloat16":
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(name)


def make_run(rule, shapes, dtype="float32", build=None, **more):
    """Return the Run of one step of a rule on tensors of these shapes; `build` replaces `Rule.build`."""
    parameters = [normals(shape, dtype, start=i) for i, shape in enumerate(shapes)]
    gradients = tuple(normals(shape, dtype, start=1000 + i) for i, shape in enumerate(shapes))
    optimizer = (build or rule.build)(parameters, **more)
    return Run(
        partial(optimizer, gradients),
        lambda: parameters,
        rule=rule,
        parameters=parameters,
        gradients=gradients,
        optimizer=optimizer,
    )


def stream(rule, sizes, dtype="float32"):
    """Return the limit of a rule: its passes over tensors of these sizes, tensor by tensor if there are several."""
    together = None if len(rule.passes) == 1 else 1
    return "stream", dict(passes=rule.passes, sizes=tuple(sizes), dtype=dtype, together=together)


def _workload(rule, size, dtype="float32", suffix="", quick=True):
    n = (SIZES | SIZES_BETWEEN)[size]
    shape = (n // rule.columns, rule.columns) if rule.columns else (n,)
    return Workload(
        "dense",
        rule.name,
        size + suffix,
        partial(make_run, rule, [shape], dtype),
        stream(rule, [n], dtype),
        n,
        quick=quick and (size == "1e5" or (size, rule.name) == ("1e3", "adam")),
    )


WORKLOADS = [_workload(rule, size) for size in SIZES for rule in RULES.values()]
WORKLOADS += [_workload(RULES["adam"], "1e7", dtype, f", {dtype}") for dtype in ("float16", "bfloat16", "float64")]
WORKLOADS += [_workload(RULES["adam"], "1e5", dtype, f", {dtype}") for dtype in ("float16", "bfloat16")]
# RMSProp's default: a moment that is kept though it does nothing; others have none
PLAIN_RMSPROP = replace(RULES["rmsprop"], arguments=dict(learning_rate=1e-4))
WORKLOADS += [_workload(PLAIN_RMSPROP, size, suffix=", momentum 0", quick=False) for size in SIZES]
# for plots alone: they tell nothing that the others do not
BETWEEN = [_workload(rule, size, quick=False) for size in SIZES_BETWEEN for rule in RULES.values()]
