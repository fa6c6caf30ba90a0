"""Numbering indices, with inverse, beside the limit, NumPy and what else there is."""

import pytest
from peers.peer import assert_same_result, parametrize
from peers.unique import PEERS
from workloads.unique import WORKLOADS


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda w: w.id)
def test_unique(measure, workload, run_once_made, threads):
    """The time of optimcore."""
    measure(workload, run_once_made.step, threads, limit=True)


@parametrize(WORKLOADS, PEERS)
def test_peer(measure, workload, peer, peer_threads):
    """The time of a peer, which agrees."""
    measure(workload, assert_same_result(workload, peer, peer_threads).step, peer_threads, who=peer.name)
