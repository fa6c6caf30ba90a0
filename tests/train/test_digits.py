import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import optimcore
from optimcore.train import digits
from optimcore.train.precision import PRECISIONS, LossScaling, storage_dtype
from optimcore.train.recipes import OPTIMIZERS, build_optimizer


@pytest.fixture
def few_digits(monkeypatch):
    """Let a training take a fifth of the time; it learns less."""
    images, labels = digits.load_digits()
    monkeypatch.setattr(digits, "load_digits", lambda: (images[:360], labels[:360]))


def small_network(dtype=np.float64):
    return digits.Network(np.random.default_rng(1), dtype)


def test_data_are_the_digits_of_uci():
    images, labels = digits.load_digits()
    assert (images.shape, images.dtype) == ((1797, 1, 8, 8), np.float32)
    assert np.bincount(labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    counts = (images * 16).astype(np.uint8)
    np.testing.assert_array_equal(counts, images * 16)
    assert (
        hashlib.sha256(counts.tobytes()).hexdigest()
        == "8f26b2bd9d135c256808f68f14fdabddde6d9c7f869ae419704b051f0f14b3b3"
    )


def test_data_are_small_and_carry_their_licence():
    folder = Path(digits.__file__).parent / "data"
    assert (folder / "digits.npz").stat().st_size < 100_000
    assert "CC BY 4.0" in (folder / "LICENSE.md").read_text(encoding="utf-8")


def test_gradients_of_the_network_agree_with_finite_differences():
    network = small_network()
    rng = np.random.default_rng(2)
    images, labels = rng.random((4, 1, 8, 8)), np.array([0, 1, 2, 9])
    _, gradients = network.differentiate(images, labels)
    step = 1e-6
    for name, weight in network.weights().items():
        # the slope along a random direction checks all elements of an array at once
        direction = rng.standard_normal(weight.shape)
        old = weight.copy()
        weight[...] = old + step * direction
        above, _ = network.evaluate(images, labels)
        weight[...] = old - step * direction
        below, _ = network.evaluate(images, labels)
        weight[...] = old
        slope = np.sum(gradients[name] * direction)
        assert slope == pytest.approx((above - below) / (2 * step), rel=1e-5, abs=1e-8), name


def test_groups_decay_weights_and_centralize_convolutions():
    kernels, matrices, biases = digits.parameter_groups(small_network())
    assert [p.name for p in kernels["params"]] == ["conv1.weight", "conv2.weight", "conv3.weight"]
    assert [p.name for p in matrices["params"]] == ["dense.weight"]
    assert [p.name for p in biases["params"]] == [
        "conv1.bias",
        "conv2.bias",
        "conv3.bias",
        "dense.bias",
    ]
    assert kernels["grad_centralization"] is True
    assert kernels["weight_decay"] > 0
    assert matrices["weight_decay"] > 0
    assert biases["weight_decay"] == 0


def test_parameters_share_memory_with_the_network():
    network = small_network()
    arrays = network.weights()
    for group in digits.parameter_groups(network):
        for parameter in group["params"]:
            assert np.shares_memory(parameter.data, arrays[parameter.name])


def test_shift_moves_by_at_most_one_pixel_and_fills_with_zeros():
    spot = np.zeros((300, 1, 8, 8), np.float32)
    spot[:, 0, 0, 4] = 1
    shifted = digits._shift(np.random.default_rng(3), spot)
    assert shifted.shape == spot.shape
    hits = np.argwhere(shifted.sum(axis=0)[0])
    # rows -1 to 1, of which -1 lies outside
    assert hits.tolist() == [[0, 3], [0, 4], [0, 5], [1, 3], [1, 4], [1, 5]]
    assert 0 < shifted.sum() < len(spot)


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam"])
def test_three_epochs_learn(optimizer):
    result = digits.train(optimizer, epochs=3)
    assert result.epochs[-1].accuracy > 0.85
    assert result.epochs[-1].held_out_loss < result.epochs[0].held_out_loss
    assert 0 < result.optimizer_seconds < result.seconds
    assert len(result.epochs) == 3
    assert (result.scaling.steps, result.scaling.dropped) == (3 * 45, 0)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_float16_overflows_at_first_and_learns_all_the_same(optimizer):
    result = digits.train(optimizer, epochs=4, precision="float16")
    assert result.epochs[-1].accuracy > 0.85
    assert result.scaling.dropped >= 4
    assert result.scaling.scales[0] == (0, 2.0**24)
    assert result.scaling.scales[4] == (4, 2.0**20)


def test_16_bits_come_within_a_point_of_float32():
    float32, *others = (digits.train(epochs=10, precision=p).epochs[-1].accuracy for p in PRECISIONS)
    assert float32 > 0.97
    assert all(abs(accuracy - float32) <= 0.01 for accuracy in others)


def test_weights_of_16_bits_are_those_of_the_network():
    network = small_network(np.float16)
    for name, array in network.weights().items():
        assert array.dtype == np.float16, name
    images, labels = digits.load_digits()
    _, gradients = network.differentiate(images[:8], labels[:8])
    assert {g.dtype for g in gradients.values()} == {np.dtype(np.float32)}


def bytes_of_state(opt):
    """All that an optimizer keeps in arrays or counts, LARS through the optimizer that it wraps."""
    state = vars(opt) | vars(getattr(opt, "optimizer", opt))
    tuples = [value for value in state.values() if isinstance(value, optimcore.ParameterTuple)]
    parameters = [value for value in state.values() if isinstance(value, optimcore.Parameter)]
    arrays = [value for value in state.values() if isinstance(value, np.ndarray)]
    flat = [p.data for p in parameters] + [p.data for slot in tuples for p in slot] + arrays
    return [array.tobytes() for array in flat], opt.global_step


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_dropped_step_leaves_parameters_slots_and_global_step(optimizer, precision):
    dtype = storage_dtype(precision)
    network = small_network(dtype)
    opt = build_optimizer(optimizer, digits.parameter_groups(network), epochs=1, steps=9, batch_size=32)
    scaling = LossScaling(dtype)
    step = digits.TrainingStep(network, opt, scaling)
    images, labels = digits.load_digits()
    batch = images[:32], labels[:32]
    scaling.manager.loss_scale = 2.0**10
    for _ in range(3):
        step(*batch)
    assert (opt.global_step, scaling.dropped) == (3, 0)
    before, weights = bytes_of_state(opt), [p.data.tobytes() for p in opt.parameters]

    scaling.manager.loss_scale = 2.0**128  # infinite in float32 as well
    step(*batch)
    assert (scaling.dropped, scaling.scale) == (1, 2.0**127)
    assert bytes_of_state(opt) == before
    assert [p.data.tobytes() for p in opt.parameters] == weights

    scaling.manager.loss_scale = 2.0**10
    step(*batch)
    assert opt.global_step == 4
    assert [p.data.tobytes() for p in opt.parameters] != weights


@pytest.mark.parametrize(
    "optimizer, precision",
    [*((name, "bfloat16") for name in OPTIMIZERS), ("adam", "float16"), ("adam", "float32"), ("sgd", "float32")],
)
def test_bits_do_not_depend_on_the_number_of_threads(optimizer, precision, restore_runtime, few_digits):
    digests = []
    for threads in (1, 3):
        optimcore.set_num_threads(threads)
        digests.append(digits.train(optimizer, epochs=1, precision=precision).digest)
    assert digests[0] == digests[1]


def test_bits_do_not_depend_on_the_threads_of_the_blas():
    # a batch of all images makes the largest products
    code = """if True:
        from optimcore.train.digits import train
        print(train(epochs=2, batch_size=1438).digest)
    """
    digests = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "OPENBLAS_NUM_THREADS": threads, "MKL_NUM_THREADS": threads},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for threads in ("1", "2")
    ]
    assert digests[0] == digests[1] != ""


def test_seed_decides(few_digits):
    assert digits.train(epochs=1, seed=1).digest == digits.train(epochs=1, seed=1).digest
    assert digits.train(epochs=1, seed=1).digest != digits.train(epochs=1, seed=2).digest


def test_batch_larger_than_the_data_is_one_step():
    result = digits.train(epochs=1, batch_size=10_000)
    assert len(result.epochs) == 1
