"""What sums rows that share an index elsewhere."""

import numpy as np
from workloads.merge import sorted_rows
from workloads.workload import Run

from . import frameworks
from .peer import Peer

__all__ = ["PEERS", "merge_by_numpy", "merge_by_tensorflow"]


def merge_by_numpy(indices, values):
    """Return sorted unique indices and the sums of their rows: sort, then add what is adjacent."""
    order = np.argsort(indices, kind="stable")
    ordered = indices[order]
    starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
    return ordered[starts], np.add.reduceat(values[order], starts, axis=0)


def by_numpy(run, threads):
    """Return NumPy's way."""
    return _run(lambda: merge_by_numpy(run.indices, run.values))


def by_coalesce(run, threads):
    """Return torch's coalesce of a sparse tensor."""
    torch = frameworks.torch(threads)
    rows, values = torch.from_numpy(run.indices)[None], torch.from_numpy(run.values)
    shape = (int(run.indices.max()) + 1, run.values.shape[1])

    def step():
        return torch.sparse_coo_tensor(rows, values, shape, check_invariants=False).coalesce()

    return _run(step, lambda sparse: frameworks.as_arrays((sparse.indices()[0], sparse.values())))


def by_index_add(run, threads):
    """Return torch's unique, then index_add_."""
    torch = frameworks.torch(threads)
    indices, values = torch.from_numpy(run.indices), torch.from_numpy(run.values)

    def step():
        unique, inverse = torch.unique(indices, return_inverse=True)
        return unique, torch.zeros(len(unique), values.shape[1]).index_add_(0, inverse, values)

    return _run(step, frameworks.as_arrays)


def merge_by_tensorflow(tensorflow, indices, values):
    """Return unique indices and the sums of their rows."""
    unique, inverse = tensorflow.unique(indices)
    return unique, tensorflow.math.unsorted_segment_sum(values, inverse, tensorflow.size(unique))


def by_tensorflow(run, threads):
    """Return TensorFlow's unique, then unsorted_segment_sum: what its optimizers do."""
    tensorflow = frameworks.tensorflow()
    indices, values = tensorflow.constant(run.indices), tensorflow.constant(run.values)
    return _run(lambda: merge_by_tensorflow(tensorflow, indices, values), frameworks.as_arrays)


def by_mindspore(run, threads):
    """Return MindSpore's Unique, then UnsortedSegmentSum: what its optimizers do."""
    mindspore = frameworks.mindspore()
    indices, values = mindspore.Tensor(run.indices), mindspore.Tensor(run.values)
    find, total = mindspore.ops.Unique(), mindspore.ops.UnsortedSegmentSum()

    def step():
        unique, inverse = find(indices)
        return frameworks.as_arrays((unique, total(values, inverse, unique.shape[0])))

    return _run(step)


def _run(step, arrays=lambda found: found):
    """Return a Run; `arrays` makes unique indices and rows of what a step returns, and is not timed."""
    return Run(step, lambda: sorted_rows(*arrays(step())))


NAMES = ("merge_rows",)
PEERS = [
    Peer("numpy", "numpy", by_numpy, NAMES, threads=(1,)),
    Peer("torch coalesce", "torch", by_coalesce, NAMES),
    Peer("torch unique, index_add_", "torch", by_index_add, NAMES),
    Peer("tensorflow unique, unsorted_segment_sum", "tensorflow", by_tensorflow, NAMES, threads=(2,)),
    Peer("mindspore Unique, UnsortedSegmentSum", "mindspore", by_mindspore, NAMES, threads=(2,)),
]
