"""One step on the tensors of ResNet-50, beside its limit and what one writes with NumPy, torch or optax."""

import pytest
from peers.peer import assert_agreement, parametrize
from peers.pipeline import PEERS
from workloads import WORKLOADS

PIPELINE = [w for w in WORKLOADS.values() if w.group == "pipeline"]


@pytest.mark.parametrize("workload", PIPELINE, ids=lambda w: w.id)
def test_pipeline(measure, workload, threads):
    """The time of optimcore."""
    measure(workload, workload.make().step, threads, limit=True)


@parametrize(PIPELINE, PEERS)
def test_peer(measure, workload, peer, peer_threads):
    """The time of a peer, which agrees."""
    assert_agreement(workload, peer, peer_threads)
    measure(workload, peer.make(workload.make(), peer_threads).step, peer_threads, who=peer.name)
