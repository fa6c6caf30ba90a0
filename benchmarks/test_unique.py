"""`unique` with inverse beside what does the same elsewhere. A peer takes part if it can be imported."""

from importlib.util import find_spec

import numpy as np
import pytest

import optimcore


def by_numpy():
    """Return NumPy's unique; it sorts."""
    return lambda indices: np.unique(indices, return_inverse=True)


def by_pandas():
    """Return pandas' factorize: a hash table, order of first appearance."""
    import pandas

    def run(indices):
        inverse, unique = pandas.factorize(indices)
        return unique, inverse

    return run


def by_pyarrow():
    """Return Arrow's dictionary encoding: a hash table, order of first appearance."""
    import pyarrow

    def run(indices):
        encoded = pyarrow.array(indices).dictionary_encode()
        return np.asarray(encoded.dictionary), np.asarray(encoded.indices)

    return run


def by_torch(threads):
    """Return torch's unique; it sorts."""
    import torch

    torch.set_num_threads(threads)

    def run(indices):
        unique, inverse = torch.unique(torch.from_numpy(indices), return_inverse=True)
        return unique.numpy(), inverse.numpy()

    return run


PEERS = {
    "optimcore": ("optimcore", lambda: lambda indices: optimcore.unique(indices, return_inverse=True)),
    "numpy": ("numpy", by_numpy),
    "pandas": ("pandas", by_pandas),
    "pyarrow": ("pyarrow", by_pyarrow),
    "torch, 1 thread": ("torch", lambda: by_torch(1)),
    "torch, 2 threads": ("torch", lambda: by_torch(2)),
}


@pytest.mark.parametrize("k", [10**4, 10**5, 10**6])
@pytest.mark.parametrize("pattern", ["uniform", "zipf", "all unique", "all equal", "sorted", "64 bits"])
@pytest.mark.parametrize("peer", [name for name, (module, _) in PEERS.items() if find_spec(module)])
def test_unique(benchmark, make_indices, peer, pattern, k):
    """The time of one call; the result is checked first."""
    benchmark.group = f"unique: {pattern}, {k:,}"
    run, indices = PEERS[peer][1](), make_indices(pattern, k)
    unique, inverse = run(indices)
    np.testing.assert_array_equal(unique[inverse], indices)
    assert len(unique) == len(optimcore.unique(indices))
    benchmark(run, indices)
