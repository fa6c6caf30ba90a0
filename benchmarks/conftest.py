"""What benchmarks of sparse kernels share: the indices."""

import numpy as np
import pytest

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


@pytest.fixture
def make_indices():
    """Return a function of a pattern's name and a count; the same indices in every run."""
    return lambda pattern, k: PATTERNS[pattern](np.random.default_rng(k), k)
