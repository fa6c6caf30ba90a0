"""Real steps on a real network: the tensors of ResNet-50, 161 of them with 25.6 million elements.

Momentum comes with all that a mixed-precision recipe does to gradients: unscale, clip by the global norm, decay, and
centralize those of convolutions. LAMB and LARS take theirs as they are.
"""

from dataclasses import replace
from functools import partial
from math import prod

import optimcore

from .dense import RULES, make_run, stream
from .workload import Workload

__all__ = ["DECAY", "LOSS_SCALE", "MAX_NORM", "SHAPES", "WORKLOADS"]

LOSS_SCALE, MAX_NORM, DECAY = 1024.0, 1.0, 1e-4


def shapes_of_resnet50():
    """Return the shapes of all tensors, in the order of the network.

    References
    ----------
    K. He, X. Zhang, S. Ren and J. Sun, "Deep Residual Learning for Image Recognition", 2015, table 1.
    """
    convolutions = [(64, 3, 7, 7)]
    channels = 64
    for width, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for block in range(blocks):
            convolutions += [(width, channels, 1, 1), (width, width, 3, 3), (4 * width, width, 1, 1)]
            if block == 0:  # the shortcut changes the number of channels, too
                convolutions.append((4 * width, channels, 1, 1))
            channels = 4 * width
    # each followed by the scale and shift of its batch normalization
    shapes = [shape for c in convolutions for shape in (c, c[:1], c[:1])]
    return [*shapes, (1000, 2048), (1000,)]


SHAPES = shapes_of_resnet50()
SIZES = [prod(shape) for shape in SHAPES]


# a norm of 1 among so many elements leaves little: a smaller rate would round to nothing
MOMENTUM = replace(RULES["momentum"], arguments=dict(learning_rate=1.0, momentum=0.9))


def build_momentum(parameters):
    """Return Momentum with all that it does to gradients."""
    named = [optimcore.Parameter(w, name=f"w{i}") for i, w in enumerate(parameters)]
    groups = [
        dict(params=[p for p in named if p.ndim == 4], weight_decay=DECAY, grad_centralization=True),
        dict(params=[p for p in named if p.ndim != 4], weight_decay=DECAY),
        dict(order_params=named),
    ]
    optimizer = optimcore.Momentum(groups, **MOMENTUM.arguments, loss_scale=LOSS_SCALE)
    optimizer.max_grad_norm = MAX_NORM
    return optimizer


def _workload(name, make, limit):
    return Workload("pipeline", name, "ResNet-50", make, limit, sum(SIZES))


# a pass that reads the gradients for their norm, then that of the rule
_clipped = "stream", dict(passes=(("g", ""), *MOMENTUM.passes), sizes=tuple(SIZES), dtype="float32")

WORKLOADS = [
    _workload("momentum", partial(make_run, MOMENTUM, SHAPES, build=build_momentum), _clipped),
    *(_workload(name, partial(make_run, RULES[name], SHAPES), stream(RULES[name], SIZES)) for name in ("lamb", "lars")),
]
