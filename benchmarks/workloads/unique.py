"""Numbering indices: `unique` with inverse, in every pattern."""

from functools import partial

import numpy as np

import optimcore

from .indices import PATTERNS, make_indices
from .workload import Run, Workload

__all__ = ["COUNTS", "WORKLOADS", "same_order"]

COUNTS = {"1e4": 10**4, "1e5": 10**5, "1e6": 10**6}


def make_run(pattern, k):
    """Return the Run of one call; a peer's order may be another, so what is compared is sorted."""
    indices = make_indices(pattern, k)
    step = partial(optimcore.unique, indices, return_inverse=True)
    return Run(step, lambda: same_order(*step()), indices=indices)


def same_order(unique, inverse):
    """Return what must agree whatever the order of the unique indices is."""
    return [np.sort(unique), unique[inverse]]


def limit(pattern, k):
    """Return the limit of numbering k indices: a copy where they are in order, else a number in a table for each."""
    if pattern in ("sorted", "all equal"):
        return "copy", dict(size=8 * k)
    if pattern == "64 bits":
        entries = 1 << (2 * k - 1).bit_length()  # a hash table at most half full, a tag and a number in each entry
        return "rows", dict(tables=1, width=2, k=k, pattern=pattern, table_rows=entries)
    return "rows", dict(tables=1, width=1, k=k, pattern=pattern)


WORKLOADS = [
    Workload(
        "unique",
        "unique",
        f"{pattern}, {count}",
        partial(make_run, pattern, k),
        limit(pattern, k),
        k,
        quick=count == "1e5" and not pattern.startswith("all"),
    )
    for count, k in COUNTS.items()
    for pattern in PATTERNS
]
