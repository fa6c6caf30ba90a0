"""Memory that moves, or is changed, after an optimizer was made: followed, or refused before anything is written."""

import numpy as np
import pytest
from cases import CASES, conv_arrays, gradients_of, state_of

import optimcore
from optimcore import Parameter


@pytest.fixture(params=CASES, ids=str)
def case(request):
    return request.param


def spoil_shape(array):
    array.resize((11, 7), refcheck=False)


def make_larger(array):
    array.resize((700, 1100), refcheck=False)


def make_read_only(array):
    array.flags.writeable = False


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_shape, r"parameter 'dense' must stay as it was .*: of shape \(7, 11\)"),
        (make_larger, r"parameter 'dense' must stay as it was .*: of shape \(7, 11\)"),
        (
            make_read_only,
            r"parameter 'dense' must stay as it was .*: writable, got an array that has been made read-only",
        ),
    ],
)
def test_array_that_was_changed_is_refused(case, spoil, message):
    arrays = {name: a.copy() for name, a in conv_arrays().items()}
    optimizer = case.build(arrays)
    gradients = gradients_of(arrays)
    optimizer(gradients)
    spoil(arrays["dense"])
    before = state_of(optimizer)
    if case.cls == "AdamWeightDecay" and case.lars is not None and spoil is not make_read_only:
        message = "'dense', must have shape"  # LARS makes new gradients before the step of such an optimizer
    with pytest.raises(ValueError, match=message):
        optimizer(gradients)
    assert state_of(optimizer) == before
    optimizer((gradients[0], None, gradients[2]))  # what has no gradient is not written
    assert optimizer.global_step == 2


def test_array_that_has_other_memory_is_followed():
    array = np.ones(1000, np.float32)
    opt = optimcore.SGD([Parameter(array, "w")], learning_rate=1.0)
    array.resize(100_000, refcheck=False)
    kept = np.ones(1000, np.float32)  # may lie where the array was
    array.resize(1000, refcheck=False)
    opt((np.ones(1000, np.float32),))
    assert array.tolist() == [0] * 1000 and kept.tolist() == [1] * 1000


def test_memmap_that_is_made_read_only(tmp_path):
    table = np.memmap(tmp_path / "table", np.float32, "w+", shape=(10,))
    opt = optimcore.SGD([Parameter(table, "w")], learning_rate=1.0)
    table.flags.writeable = False
    with pytest.raises(ValueError, match="made read-only"):
        opt((np.ones(10, np.float32),))
    assert not table.any()


def test_table_that_is_made_read_only_is_not_flushed():
    table = np.ones((4, 2))
    opt = optimcore.Momentum([Parameter(table, "t")], 0.1, 0.9)
    opt.use_lazy = "catch_up"
    for i in range(2):
        opt((optimcore.RowTensor([i], np.ones((1, 2)), (4, 2)),))
    table.flags.writeable = False
    before = table.copy()
    with pytest.raises(ValueError, match="made read-only"):
        opt.flush()
    np.testing.assert_array_equal(table, before)
    table.flags.writeable = True
    opt.flush()
    assert (table[0] != before[0]).all()


# ---- torch


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="torch is an optional extra")


@pytest.mark.parametrize("threads", [1, 2])
def test_leaf_that_moves_is_followed(case, torch, threads, restore_runtime):
    optimcore.set_num_threads(threads)
    optimcore.set_thread_threshold(0)
    arrays, twin = conv_arrays(), conv_arrays()
    leaves = {name: torch.nn.Parameter(torch.from_numpy(a.copy())) for name, a in arrays.items()}
    moved, plain = case.build(leaves), case.build(twin)
    for step in range(4):
        gradients = gradients_of(arrays, seed=step)
        if step in (1, 2):
            leaf = leaves["dense" if step == 1 else "conv"]
            leaf.data = leaf.data.clone()
        moved(gradients)
        plain(gradients)
        if step == 2:  # both are flushed, and methods read the memory of today
            for one in (moved, plain):
                one.flush()
                one.decay_weight(gradients)
    for name, leaf in leaves.items():
        np.testing.assert_array_equal(leaf.detach().numpy(), twin[name])
    assert state_of(moved) == state_of(plain)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda leaf, torch: setattr(leaf, "data", leaf.data.double()),
        lambda leaf, torch: setattr(leaf, "data", leaf.data[:3].clone()),
        lambda leaf, torch: setattr(leaf, "data", leaf.data.t()),
        lambda leaf, torch: leaf.data.untyped_storage().resize_(0),
    ],
    ids=["dtype", "shape", "strides", "freed"],
)
def test_leaf_that_cannot_be_followed_is_refused(case, torch, spoil):
    arrays = conv_arrays()
    leaves = {name: torch.nn.Parameter(torch.from_numpy(a).clone()) for name, a in arrays.items()}
    optimizer = case.build(leaves)
    optimizer(gradients_of(arrays))
    spoil(leaves["dense"], torch)
    kept = {name: leaf.detach().clone() for name, leaf in leaves.items() if name != "dense"}
    with pytest.raises(ValueError, match="'dense'"):
        optimizer(gradients_of(arrays))
    assert optimizer.global_step == 1
    assert all(torch.equal(leaves[name].detach(), old) for name, old in kept.items())


def test_two_leaves_that_move_to_the_same_memory_are_refused(torch):
    leaves = [torch.nn.Parameter(torch.zeros(4)) for _ in range(2)]
    opt = optimcore.SGD([Parameter(leaf, name) for leaf, name in zip(leaves, "ab", strict=True)], 1.0)
    leaves[1].data = leaves[0].data
    with pytest.raises(ValueError, match="parameters must not share memory, got 'a' and 'b'"):
        opt((np.ones(4, np.float32),) * 2)
    assert not leaves[0].detach().any() and opt.global_step == 0


def test_gradient_of_a_leaf_in_its_own_memory(torch):
    leaf = torch.nn.Parameter(torch.arange(5.0))
    opt = optimcore.Momentum([Parameter(leaf, "w")], 1.0, 0.0)
    opt((leaf.detach(),))
    assert leaf.tolist() == [0] * 5
