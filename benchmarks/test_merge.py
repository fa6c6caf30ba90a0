"""Summing rows that share an index, beside the limit, NumPy and what else there is."""

import pytest
from peers.merge import PEERS
from peers.peer import assert_same_result, parametrize
from workloads.merge import WORKLOADS


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda w: w.id)
def test_merge(measure, workload, run_once_made, threads):
    """The time of optimcore."""
    measure(workload, run_once_made.step, threads, limit=True)


@parametrize(WORKLOADS, [peer for peer in PEERS if peer.package != "numpy"])
def test_peer(measure, workload, peer, peer_threads):
    """The time of a peer, which agrees."""
    measure(workload, assert_same_result(workload, peer, peer_threads).step, peer_threads, who=peer.name)


# NumPy takes seconds for a million rows
@parametrize([w for w in WORKLOADS if "1e6" not in w.case], [peer for peer in PEERS if peer.package == "numpy"])
def test_numpy(measure, workload, peer, peer_threads):
    """The time of NumPy, which agrees."""
    measure(workload, assert_same_result(workload, peer, peer_threads).step, peer_threads, who=peer.name)
