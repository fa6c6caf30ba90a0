"""Tests of what is particular to FTRL: its arguments, slots, and the conversions to other conventions."""

import inspect

import numpy as np
import pytest

from optimcore import FTRL, Parameter, WarmUpLR


def make(*args, **kwargs):
    """Return an optimizer with one parameter of ones."""
    return FTRL([Parameter(np.ones(2, np.float32), "w")], *args, **kwargs)


def gradient(*values):
    """Return the gradients of one step."""
    return [np.array(values, np.float32)]


def test_signature():
    assert str(inspect.signature(FTRL)) == (
        "(params, initial_accum=0.1, learning_rate=0.001, lr_power=-0.5, l1=0.0, l2=0.0, use_locking=False, "
        "loss_scale=1.0, weight_decay=0.0)"
    )


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"initial_accum": -1}, ValueError, "initial_accum must be >= 0, got -1"),
        ({"lr_power": 0.1}, ValueError, r"lr_power must be <= 0, got 0\.1"),
        ({"lr_power": float("-inf")}, ValueError, "lr_power must be finite, got -inf"),
        ({"lr_power": None}, TypeError, "lr_power must be a number, got None"),
        ({"l1": -0.5}, ValueError, r"l1 must be >= 0, got -0\.5"),
        ({"l2": float("nan")}, ValueError, "l2 must be finite, got nan"),
        ({"l2": True}, TypeError, "l2 must be a number, got True"),
        ({"use_locking": 0}, TypeError, "use_locking must be a bool, got 0"),
        ({"learning_rate": 0}, ValueError, r"learning_rate must be > 0, got 0"),
        ({"learning_rate": "0.1"}, TypeError, "learning_rate must be a number"),
        ({"learning_rate": [0.1, 0.2]}, ValueError, "learning_rate must be one number for all steps and groups"),
        ({"learning_rate": WarmUpLR(0.1, 5)}, ValueError, "learning_rate must be one number for all steps and groups"),
    ],
)
def test_arguments_are_checked(arguments, error, message):
    with pytest.raises(error, match=message):
        make(**arguments)


def test_slots():
    opt = make(initial_accum=0.5)
    expected = [("moments", "moments", 0.5), ("linear", "linear", 0)]
    for name, prefix, value in expected:
        (slot,) = getattr(opt, name)
        assert (slot.name, slot.shape, slot.dtype) == (f"{prefix}.w", (2,), np.float32)
        np.testing.assert_array_equal(slot, np.float32(value))


def test_rate_of_a_group_is_refused():
    groups = [{"params": [Parameter([1.0], "w")], "lr": 0.1}]
    with pytest.raises(ValueError, match="learning_rate must be one number for all steps and groups"):
        FTRL(groups, learning_rate=0.1)


def test_rate_can_be_changed_but_not_to_zero():
    opt = make(learning_rate=0.5, initial_accum=0.0)
    opt.learning_rate.set_data(0.25)
    opt(gradient(2, -2))
    np.testing.assert_array_equal(opt.parameters[0], [0.75, 1.25])
    opt.learning_rate.set_data(0.0)
    with pytest.raises(ValueError, match=r"learning_rate at step 1 must be > 0, got 0\.0"):
        opt(gradient(1, 1))
    assert opt.global_step == 1


def test_all_names_are_decayed_without_groups():
    opt = FTRL([Parameter([1.0], name) for name in ("w", "bn.gamma", "bn.beta")], weight_decay=0.1)
    assert opt.decay_flags == (True, True, True)


def test_general_power_agrees_with_the_rule_of_the_square_root():
    root = make(learning_rate=0.1, l1=0.01, l2=0.1)
    power = make(learning_rate=0.1, l1=0.01, l2=0.1, lr_power=np.nextafter(-0.5, 0))
    assert (root.rule, power.rule) == ("ftrl", "ftrl_power")
    for values in [(1, -2), (0.5, 3), (-1, 0)]:
        root(gradient(*values))
        power(gradient(*values))
    np.testing.assert_allclose(root.parameters[0], power.parameters[0], rtol=1e-6)


def test_l1_counts_with_the_sign_of_linear():
    opt = make(initial_accum=9.0, learning_rate=1.0, l1=1.0)
    opt(gradient(4, -4))
    np.testing.assert_allclose(opt.linear[0], [2, -6])
    np.testing.assert_allclose(opt.parameters[0], [-1 / 5, 5 / 5], rtol=1e-6)


def test_no_gradient_yet_gives_zero_and_not_nan():
    opt = make(initial_accum=0.0)
    opt(gradient(0, 0))
    np.testing.assert_array_equal(opt.parameters[0], 0)


def test_nan_does_not_get_lost():
    opt = make()
    opt(gradient(np.nan, 1))
    assert np.isnan(opt.parameters[0]).tolist() == [True, False]


# ---- conversions, as the notes of FTRL have them


def run(optimizer, gradients):
    """Return the parameter after each step, over float64."""
    path = []
    for g in gradients:
        optimizer([g])
        path.append(optimizer.parameters[0].data.copy())
    return path


def tensorflow(w, gradients, learning_rate, learning_rate_power, initial_accumulator_value, l1, l2, beta):
    """Yield the parameter as tf.keras.optimizers.Ftrl updates it, without shrinkage."""
    accumulator, linear = np.full_like(w, initial_accumulator_value), np.zeros_like(w)
    l2 += beta / (2 * learning_rate)
    for g in gradients:
        grown = accumulator + g**2
        sigma = (grown**-learning_rate_power - accumulator**-learning_rate_power) / learning_rate
        linear = linear + g - sigma * w
        accumulator = grown
        quadratic = accumulator**-learning_rate_power / learning_rate + 2 * l2
        w = (np.clip(linear, -l1, l1) - linear) / quadratic
        yield w


def paper(w, gradients, alpha, beta, lambda1, lambda2):
    """Yield the parameter of algorithm 1 in McMahan et al. 2013."""
    n, z = np.zeros_like(w), np.zeros_like(w)
    for g in gradients:
        sigma = (np.sqrt(n + g**2) - np.sqrt(n)) / alpha
        z = z + g - sigma * w
        n = n + g**2
        w = np.where(np.abs(z) <= lambda1, 0, -(z - np.sign(z) * lambda1) / ((beta + np.sqrt(n)) / alpha + lambda2))
        yield w


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    return rng.standard_normal(20), rng.standard_normal((10, 20))


@pytest.mark.parametrize("beta", [0.0, 0.7])
@pytest.mark.parametrize("power", [-0.5, -0.3])
def test_conversion_to_tensorflow(data, power, beta):
    start, gradients = data
    theirs = tensorflow(start, gradients, 0.1, power, 0.2, l1=2.0, l2=0.05, beta=beta)
    w = Parameter(start.copy(), "w")
    ours = FTRL([w], initial_accum=0.2, learning_rate=0.1, lr_power=power, l1=2.0, l2=0.05 + beta / (2 * 0.1))
    np.testing.assert_allclose(run(ours, gradients), list(theirs), rtol=1e-12, atol=1e-14)
    assert 0 < (w.data == 0).sum() < 20


def test_conversion_to_the_paper(data):
    start, gradients = data
    theirs = paper(start, gradients, alpha=0.1, beta=0.7, lambda1=0.3, lambda2=0.05)
    ours = FTRL([Parameter(start.copy(), "w")], 0.0, 0.1, l1=0.3, l2=(0.05 + 0.7 / 0.1) / 2)
    np.testing.assert_allclose(run(ours, gradients), list(theirs), rtol=1e-12, atol=1e-14)
