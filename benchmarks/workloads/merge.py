"""Summing rows that share an index: `merge_rows` in every pattern and several widths."""

from functools import cache, partial

import numpy as np

import optimcore

from .dense import normals
from .indices import make_indices
from .unique import COUNTS
from .workload import Run, Workload

__all__ = ["WORKLOADS", "sorted_rows"]

PATTERNS = ("uniform", "zipf", "all unique", "all equal", "sorted")


def make_run(pattern, k, width):
    """Return the Run of one call; a peer's order may be another, so what is compared is sorted."""
    indices, values = make_indices(pattern, k), normals((k, width))
    step = partial(optimcore.merge_rows, indices, values)
    return Run(step, lambda: sorted_rows(*step()), indices=indices, values=values)


def sorted_rows(unique, merged):
    """Return unique indices and their rows in the order of the indices."""
    order = np.argsort(unique)
    return [unique[order], merged[order]]


@cache
def _distinct(pattern, k):
    return int(np.count_nonzero(np.bincount(make_indices(pattern, k))))


def limit(pattern, k, width):
    """Return the limit: a copy of as many bytes as are read and written, indices and rows."""
    return "copy", dict(size=(k + _distinct(pattern, k)) * (8 + 4 * width) // 2)


def _workload(pattern, count, width):
    k = COUNTS[count]
    return Workload(
        "merge",
        "merge_rows",
        f"{pattern}, {count} x {width}",
        partial(make_run, pattern, k, width),
        limit(pattern, k, width),
        k * width,
        quick=count == "1e4" and width == 16 and not pattern.startswith("all"),
    )


PLAIN = tuple(pattern for pattern in PATTERNS if pattern != "sorted")  # whose rows are merged like any others
WORKLOADS = [
    *(_workload(p, count, width) for count in ("1e4", "1e5") for width in (1, 64, 128) for p in PLAIN),
    *(_workload(p, count, 16) for count in COUNTS for p in PATTERNS),
    # more would not tell more, and take gigabytes
    *(_workload(p, "1e6", 1) for p in PLAIN),
    *(_workload(p, "1e6", 64) for p in ("uniform", "zipf")),
]
