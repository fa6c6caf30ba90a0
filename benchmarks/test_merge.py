"""`merge_rows` beside what does the same elsewhere. A peer takes part if it can be imported."""

from importlib.util import find_spec

import numpy as np
import pytest

import optimcore


def by_numpy():
    """Return NumPy's way: sort, then add at."""

    def run(indices, values):
        unique, inverse = np.unique(indices, return_inverse=True)
        merged = np.zeros((len(unique), values.shape[1]), values.dtype)
        np.add.at(merged, inverse, values)
        return unique, merged

    return run


def by_coalesce(threads):
    """Return torch's coalesce of a sparse tensor."""
    import torch

    torch.set_num_threads(threads)

    def run(indices, values):
        rows = torch.from_numpy(indices)[None]
        shape = (int(indices.max()) + 1, values.shape[1])
        sparse = torch.sparse_coo_tensor(rows, torch.from_numpy(values), shape, check_invariants=False).coalesce()
        return sparse.indices()[0].numpy(), sparse.values().numpy()

    return run


def by_index_add(threads):
    """Return torch's unique, then index_add_."""
    import torch

    torch.set_num_threads(threads)

    def run(indices, values):
        unique, inverse = torch.unique(torch.from_numpy(indices), return_inverse=True)
        merged = torch.zeros(len(unique), values.shape[1]).index_add_(0, inverse, torch.from_numpy(values))
        return unique.numpy(), merged.numpy()

    return run


PEERS = {
    "optimcore": ("optimcore", lambda: optimcore.merge_rows),
    "numpy": ("numpy", by_numpy),
    "torch coalesce, 1 thread": ("torch", lambda: by_coalesce(1)),
    "torch coalesce, 2 threads": ("torch", lambda: by_coalesce(2)),
    "torch index_add, 1 thread": ("torch", lambda: by_index_add(1)),
    "torch index_add, 2 threads": ("torch", lambda: by_index_add(2)),
}


@pytest.mark.parametrize("width", [1, 16, 64, 128])
@pytest.mark.parametrize("pattern", ["uniform", "zipf", "all unique", "all equal"])
@pytest.mark.parametrize("peer", [name for name, (module, _) in PEERS.items() if find_spec(module)])
def test_merge_rows(benchmark, make_indices, peer, pattern, width):
    """The time of one call with 100,000 rows; the result is checked first."""
    benchmark.group = f"merge: {pattern}, 100,000 x {width}"
    run, indices = PEERS[peer][1](), make_indices(pattern, 10**5)
    values = np.random.default_rng(width).standard_normal((len(indices), width), dtype=np.float32)
    unique, merged = run(indices, values)
    expected_unique, expected = optimcore.merge_rows(indices, values)
    order, expected_order = np.argsort(unique), np.argsort(expected_unique)
    np.testing.assert_array_equal(unique[order], expected_unique[expected_order])
    np.testing.assert_allclose(merged[order], expected[expected_order], rtol=1e-2, atol=1e-2)
    benchmark(run, indices, values)
