"""Indices of rows, in the patterns that matter."""

from functools import lru_cache

import numpy as np

__all__ = ["PATTERNS", "TABLE", "make_indices", "zipf"]

TABLE = 10**6  # rows


def zipf(rng, k, exponent=1.1):
    """Return k row numbers; the i-th most frequent of a million rows, in random places, has weight i**-exponent."""
    weights = np.cumsum(np.arange(1, TABLE + 1) ** -exponent)
    rank = np.searchsorted(weights, rng.random(k) * weights[-1])
    return rng.permutation(TABLE)[np.minimum(rank, TABLE - 1)]


PATTERNS = {
    "uniform": lambda rng, k: rng.integers(0, TABLE, k),
    "zipf": zipf,
    "all unique": lambda rng, k: rng.permutation(max(TABLE, k))[:k],
    "all equal": lambda rng, k: np.full(k, 7),
    "sorted": lambda rng, k: np.sort(rng.integers(0, TABLE, k)),
    "64 bits": lambda rng, k: rng.integers(-(2**63), 2**63 - 1, k),
}


@lru_cache(maxsize=16)
def _indices(pattern, k):
    return PATTERNS[pattern](np.random.default_rng(k), k)


def make_indices(pattern, k):
    """Return a new array of k indices, the same in every run; to draw them takes longer than most measurements."""
    return _indices(pattern, k).copy()
