"""Tests of what is particular to AdaMax: its arguments, slots and power."""

import inspect

import numpy as np
import pytest

from optimcore import AdaMax, Parameter


def make(*args, **kwargs):
    """Return an optimizer with one parameter of ones."""
    return AdaMax([Parameter(np.ones(2, np.float32), "w")], *args, **kwargs)


def gradient(*values):
    """Return the gradients of one step."""
    return [np.array(values, np.float32)]


def test_signature():
    assert str(inspect.signature(AdaMax)) == (
        "(params, learning_rate=0.001, beta1=0.9, beta2=0.999, eps=1e-08, weight_decay=0.0, loss_scale=1.0)"
    )


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"beta1": 1.0}, ValueError, r"beta1 must be in \(0, 1\), got 1\.0"),
        ({"beta1": True}, TypeError, "beta1 must be a number, got True"),
        ({"beta2": 0}, ValueError, r"beta2 must be in \(0, 1\), got 0"),
        ({"beta2": float("nan")}, ValueError, "beta2 must be finite, got nan"),
        ({"eps": 0}, ValueError, "eps must be > 0, got 0"),
        ({"eps": "1"}, TypeError, "eps must be a number, got '1'"),
    ],
)
def test_arguments_are_checked(arguments, error, message):
    with pytest.raises(error, match=message):
        make(**arguments)


def test_slots():
    opt = make()
    expected = [("moment1", "moment1", 0), ("moment2", "moment2", 0)]
    for name, prefix, value in expected:
        (slot,) = getattr(opt, name)
        assert (slot.name, slot.shape, slot.dtype) == (f"{prefix}.w", (2,), np.float32)
        np.testing.assert_array_equal(slot, np.float32(value))


def test_power_advances_with_successful_steps_only():
    opt = make(beta1=0.5)
    assert (opt.beta1_power.name, opt.beta1_power.shape, float(opt.beta1_power)) == ("beta1_power", (), 1.0)
    opt(gradient(1, 2))
    with pytest.raises(ValueError):
        opt(gradient(1, 2, 3))
    assert float(opt.beta1_power) == 0.5


def test_power_can_be_set():
    whole, resumed = make(0.1), make(0.1)
    whole(gradient(1, 2))
    for name in ("parameters", "moment1", "moment2"):
        getattr(resumed, name)[0].set_data(getattr(whole, name)[0])
    resumed.beta1_power.set_data(whole.beta1_power)
    whole(gradient(1, 2))
    resumed(gradient(1, 2))
    np.testing.assert_array_equal(whole.parameters[0], resumed.parameters[0])


def test_norm_is_the_largest_decayed_magnitude():
    opt = make(beta2=0.5)
    for value, norm in [(-4, 4), (1, 2), (-3, 3)]:
        opt(gradient(value, 0))
        np.testing.assert_array_equal(opt.moment2[0], [norm, 0])
