"""What a peer is, and how it is checked before it is timed."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
import pytest

__all__ = ["Peer", "assert_agreement", "assert_same_result", "parametrize"]


@dataclass(frozen=True)
class Peer:
    """Someone who does the work of some workloads.

    Parameters
    ----------
    name : str
        With the mode if there are several, e.g. "torch fused".
    package : str
        What must be there to be imported.
    make : callable
        ``make(run, threads)`` returns a Run of the peer on copies of the data of one of optimcore.
    names : collection of str
        The workloads' names that it has the same rule for.
    threads : tuple of int
        Numbers of threads that it can be set to. A package that chooses them when it starts takes all CPUs: (2,).
    tolerance : float
        How far its movement of the arrays may be off, as a fraction of the movement, both as Euclidean norms. Not much
        less than 1 % can be asked: arrays of magnitude 1 in float32 move by 1e-4, and epsilons stand in other places.
    """

    name: str
    package: str
    make: Callable
    names: Collection
    threads: tuple = (1, 2)
    tolerance: float = 0.01

    def is_there(self):
        """Tell whether the package can be imported."""
        return find_spec(self.package) is not None


def parametrize(workloads, peers):
    """Return the decorator that runs a test for each workload with each peer that is there."""
    pairs = [
        pytest.param(workload, peer, threads, id=f"{workload.id}-{peer.name}-{threads}", marks=mark_of(peer))
        for workload in workloads
        for peer in peers
        if workload.name in peer.names and peer.is_there()
        for threads in peer.threads
    ]
    return pytest.mark.parametrize("workload, peer, peer_threads", pairs)


def mark_of(peer):
    """NumPy always takes part."""
    return () if peer.package == "numpy" else (pytest.mark.peer,)


def assert_agreement(workload, peer, threads=1, steps=2):
    """Return a peer's Run after a few steps; AssertionError unless they move the arrays as optimcore's do."""
    own, other = workload.make(), peer.make(workload.make(), threads)
    start = [np.array(a, np.float64) for a in own.result()]
    for run in (own, other):
        for _ in range(steps):
            run.step()
            if hasattr(run, "restore"):  # its step changes gradients
                run.restore()
    for i, (before, ours, theirs) in enumerate(zip(start, own.result(), other.result(), strict=True)):
        movement = np.linalg.norm(ours - before)
        error = np.linalg.norm(ours - np.asarray(theirs, np.float64)) / movement
        assert error <= peer.tolerance, f"{peer.name} moves array {i} of {workload.id} differently: {error:.2g}"
    return other


def assert_same_result(workload, peer, threads=1):
    """Return a peer's Run; AssertionError unless it returns what optimcore does, but for another order of sums."""
    own, other = workload.make(), peer.make(workload.make(), threads)
    for ours, theirs in zip(own.result(), other.result(), strict=True):
        scale = np.abs(ours).max(initial=1) if ours.dtype.kind == "f" else 0
        np.testing.assert_allclose(theirs, ours, rtol=0, atol=1e-4 * scale, err_msg=f"{peer.name}: {workload.id}")
    return other
