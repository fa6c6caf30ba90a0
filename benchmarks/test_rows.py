"""Steps with gradients of rows, beside the limit, NumPy and what else there is."""

import pytest
from peers.peer import assert_agreement, parametrize
from peers.rows import PEERS
from workloads.rows import WORKLOADS


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda w: w.id)
def test_rows(measure, workload, run_once_made, threads):
    """The time of optimcore."""
    measure(workload, run_once_made.step, threads, limit=True)


@parametrize(WORKLOADS, [peer for peer in PEERS if peer.package != "numpy"])
def test_peer(measure, workload, peer, peer_threads):
    """The time of a peer, which agrees."""
    measure(workload, assert_agreement(workload, peer, peer_threads).step, peer_threads, who=peer.name)


# NumPy, which is slow to check, is asked once per rule
@parametrize([w for w in WORKLOADS if w.case == "zipf, 1e4 x 16"], [peer for peer in PEERS if peer.package == "numpy"])
def test_numpy(measure, workload, peer, peer_threads):
    """The time of NumPy, which agrees."""
    measure(workload, assert_agreement(workload, peer, peer_threads).step, peer_threads, who=peer.name)
