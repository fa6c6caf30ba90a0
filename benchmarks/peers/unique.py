"""What numbers indices elsewhere."""

import numpy as np
from workloads.unique import same_order
from workloads.workload import Run

from . import frameworks
from .peer import Peer

__all__ = ["PEERS"]


def by_numpy(run, threads):
    """Return NumPy's unique; it sorts."""
    return _run(lambda: np.unique(run.indices, return_inverse=True))


def by_pandas(run, threads):
    """Return pandas' factorize: a hash table, order of first appearance."""
    import pandas

    return _run(lambda: pandas.factorize(run.indices), lambda found: found[::-1])


def by_pyarrow(run, threads):
    """Return Arrow's dictionary encoding: a hash table, order of first appearance."""
    import pyarrow

    return _run(
        lambda: pyarrow.array(run.indices).dictionary_encode(),
        lambda found: (np.asarray(found.dictionary), np.asarray(found.indices)),
    )


def by_torch_sorted(run, threads):
    """Return torch's unique as it is by default."""
    torch = frameworks.torch(threads)
    indices = torch.from_numpy(run.indices)
    return _run(lambda: torch.unique(indices, return_inverse=True), frameworks.as_arrays)


def by_torch_unsorted(run, threads):
    """Return torch's unique, which may leave the order as it finds it."""
    torch = frameworks.torch(threads)
    indices = torch.from_numpy(run.indices)
    return _run(lambda: torch.unique(indices, sorted=False, return_inverse=True), frameworks.as_arrays)


def by_tensorflow(run, threads):
    """Return TensorFlow's unique: a hash table, order of first appearance."""
    tensorflow = frameworks.tensorflow()
    indices = tensorflow.constant(run.indices)
    return _run(lambda: tensorflow.unique(indices), frameworks.as_arrays)


def by_mindspore(run, threads):
    """Return MindSpore's Unique, which may leave the order as it finds it."""
    mindspore = frameworks.mindspore()
    indices, unique = mindspore.Tensor(run.indices), mindspore.ops.Unique()
    return _run(lambda: frameworks.as_arrays(unique(indices)))  # a view, when the kernel is done


def _run(step, arrays=lambda found: found):
    """Return a Run; `arrays` makes unique indices and inverse of what a step returns, and is not timed."""
    return Run(step, lambda: same_order(*arrays(step())))


NAMES = ("unique",)
PEERS = [
    Peer("numpy", "numpy", by_numpy, NAMES, threads=(1,)),
    Peer("pandas factorize", "pandas", by_pandas, NAMES, threads=(1,)),
    Peer("pyarrow dictionary_encode", "pyarrow", by_pyarrow, NAMES, threads=(1,)),
    Peer("torch unique", "torch", by_torch_sorted, NAMES),
    Peer("torch unique, not sorted", "torch", by_torch_unsorted, NAMES),
    Peer("tensorflow unique", "tensorflow", by_tensorflow, NAMES, threads=(2,)),
    Peer("mindspore Unique", "mindspore", by_mindspore, NAMES, threads=(2,)),
]
