"""One step on many small tensors, beside its limit, NumPy and what else there is."""

import pytest
from peers.many import PEERS
from peers.peer import assert_agreement, parametrize
from workloads import WORKLOADS

MANY = [w for w in WORKLOADS.values() if w.group == "many"]


@pytest.mark.parametrize("workload", MANY, ids=lambda w: w.id)
def test_many(measure, workload, threads):
    """The time of optimcore."""
    measure(workload, workload.make().step, threads, limit=True)


@parametrize(MANY, PEERS)
def test_peer(measure, workload, peer, peer_threads):
    """The time of a peer, which agrees."""
    assert_agreement(workload, peer, peer_threads)
    measure(workload, peer.make(workload.make(), peer_threads).step, peer_threads, who=peer.name)
