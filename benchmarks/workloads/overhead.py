"""What a call costs when there is next to nothing to update, and what it costs to make an optimizer.

A call on a tensor of 1e3 is in `dense`.
"""

from functools import partial
from importlib.util import find_spec

import numpy as np

import optimcore

from .dense import RULES, make_run, normals
from .pipeline import SHAPES
from .workload import Run, Workload

__all__ = ["WORKLOADS"]


LISTED = 100_000  # rates in a list


def make_call(name):
    """Return the Run of one step on one element."""
    rule = RULES[name]
    return make_run(rule, [(1, 1) if rule.columns else (1,)])


def parameters_of(shapes):
    """Return new Parameters."""
    return [optimcore.Parameter(normals(shape, start=i), name=f"w{i}") for i, shape in enumerate(shapes)]


def make_adam(count=1, groups=list, rate=lambda: 1e-4):
    """Return the Run of one step of Adam on tensors of one element."""
    optimizer = optimcore.Adam(groups(parameters_of([1] * count)), rate())
    gradients = tuple(normals(1, start=1) for _ in range(count))

    def step():
        if optimizer.global_step == LISTED:
            optimizer.global_step = 0
        optimizer(gradients)

    arrays = [p.data for p in optimizer.parameters]
    return Run(step, lambda: arrays, optimizer=optimizer)


def make_torch(count=10):
    """Return the Run of one step of Adam on torch tensors of one element: what looking after their memory costs."""
    import torch

    weights = [torch.nn.Parameter(torch.from_numpy(normals(1, start=i))) for i in range(count)]
    optimizer = optimcore.Adam([optimcore.Parameter(w, name=f"w{i}") for i, w in enumerate(weights)], 1e-4)
    gradients = tuple(normals(1, start=1) for _ in range(count))
    return Run(partial(optimizer, gradients), lambda: [p.data for p in optimizer.parameters])


def make_pipeline():
    """Return the Run of Adam with all that it does to gradients: unscale, clip by norm, decay, and centralize."""
    shapes = [(64, 64, 3, 3)] * 10
    group = dict(params=parameters_of(shapes), weight_decay=1e-4, grad_centralization=True)
    optimizer = optimcore.Adam([group], 1e-4, loss_scale=1024.0)
    optimizer.max_grad_norm = 1.0
    gradients = tuple(normals(shape, start=1000 + i) for i, shape in enumerate(shapes))
    return Run(partial(optimizer, gradients), lambda: [p.data for p in optimizer.parameters])


def make_get_lr():
    """Return the Run of `get_lr`."""
    optimizer = make_adam().optimizer
    return Run(optimizer.get_lr, lambda: [np.float64(optimizer.get_lr())])


def make_construction(shapes):
    """Return the Run of making an Adam; the slots are zeros that nothing has touched yet."""
    parameters = parameters_of(shapes)
    return Run(lambda: optimcore.Adam(parameters, 1e-4), lambda: [p.data for p in parameters])


def two_groups(parameters):
    """Return groups with a rate and a decay of their own."""
    half = len(parameters) // 2
    return [
        dict(params=parameters[:half], lr=1e-3, weight_decay=1e-4),
        dict(params=parameters[half:], weight_decay=1e-2),
    ]


def listed_rates():
    """Return one rate for each of many steps."""
    return np.full(LISTED, 1e-4)


def cosine():
    """Return a schedule."""
    return optimcore.CosineDecayLR(0.0, 1e-4, 1000)


# Adam in all that surrounds a step
AROUND = {
    "fixed rate": make_adam,
    "listed rates": partial(make_adam, rate=listed_rates),
    "schedule": partial(make_adam, rate=cosine),
    "10 tensors": partial(make_adam, 10),
    **({"10 torch tensors": make_torch} if find_spec("torch") else {}),
    "10 tensors in two groups": partial(make_adam, 10, two_groups),
    "10 convolutions, clipped and more": make_pipeline,
    "get_lr": make_get_lr,
    "construction, 1 tensor of 1e3": partial(make_construction, [1000]),
    "construction, ResNet-50": partial(make_construction, SHAPES),
}


def _workload(name, case, make, quick):
    return Workload("overhead", name, case, make, None, 1, quick)


ONE_PER_CLASS = {(rule.cls, rule.wrap is None): name for name, rule in reversed(RULES.items())}.values()
QUICK = ("listed rates", "schedule", "10 tensors in two groups", "10 convolutions, clipped and more")
WORKLOADS = [_workload(name, "1 element", partial(make_call, name), name in ONE_PER_CLASS) for name in RULES]
WORKLOADS += [_workload("adam", case, make, case in QUICK) for case, make in AROUND.items()]
