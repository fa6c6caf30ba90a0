"""One step on one tensor, beside its limit, NumPy and what else there is."""

import pytest
from peers.dense import PEERS
from peers.peer import assert_agreement, parametrize
from workloads import WORKLOADS
from workloads.dense import BETWEEN

DENSE = [w for w in WORKLOADS.values() if w.group == "dense"]
FLOAT32 = [w for w in DENSE if w.limit[1]["dtype"] == "float32"]


@pytest.mark.parametrize("workload", DENSE, ids=lambda w: w.id)
def test_dense(measure, workload, threads):
    """The time of optimcore."""
    measure(workload, workload.make().step, threads, limit=True)


@pytest.mark.between
@pytest.mark.parametrize("workload", BETWEEN, ids=lambda w: w.id)
def test_between(measure, workload, threads):
    """The time of optimcore on sizes between, for plots."""
    measure(workload, workload.make().step, threads, limit=True)


@parametrize(FLOAT32, PEERS)
def test_peer(measure, workload, peer, peer_threads):
    """The time of a peer, which agrees; on the tensor of 1e5 if that is smaller."""
    smaller = workload.id.replace("/1e7", "/1e5")
    assert_agreement(WORKLOADS[smaller], peer, peer_threads)
    measure(workload, peer.make(workload.make(), peer_threads).step, peer_threads, who=peer.name)
