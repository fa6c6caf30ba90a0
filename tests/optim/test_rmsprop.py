"""Tests of what is particular to RMSProp: its arguments, slots and the centered form."""

import inspect

import numpy as np
import pytest

from optimcore import Parameter, RMSProp


def make(*args, **kwargs):
    """Return an optimizer with one parameter of ones."""
    return RMSProp([Parameter(np.ones(2, np.float32), "w")], *args, **kwargs)


def gradient(*values):
    """Return the gradients of one step."""
    return [np.array(values, np.float32)]


def test_signature():
    assert str(inspect.signature(RMSProp)) == (
        "(params, learning_rate=0.1, decay=0.9, momentum=0.0, epsilon=1e-10, use_locking=False, centered=False, "
        "loss_scale=1.0, weight_decay=0.0)"
    )


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"decay": -0.1}, ValueError, r"decay must be >= 0, got -0\.1"),
        ({"decay": "0.9"}, TypeError, "decay must be a number, got '0.9'"),
        ({"momentum": -1}, ValueError, "momentum must be >= 0, got -1"),
        ({"momentum": True}, TypeError, "momentum must be a number, got True"),
        ({"epsilon": 0}, ValueError, "epsilon must be > 0, got 0"),
        ({"epsilon": float("nan")}, ValueError, "epsilon must be finite, got nan"),
        ({"use_locking": 1}, TypeError, "use_locking must be a bool, got 1"),
        ({"centered": 0}, TypeError, "centered must be a bool, got 0"),
    ],
)
def test_arguments_are_checked(arguments, error, message):
    with pytest.raises(error, match=message):
        make(**arguments)


def test_slots():
    opt = make(centered=True)
    expected = [("ms", "mean_square", 1), ("moment", "moment", 0), ("mg", "mean_grad", 0)]
    for name, prefix, value in expected:
        (slot,) = getattr(opt, name)
        assert (slot.name, slot.shape, slot.dtype) == (f"{prefix}.w", (2,), np.float32)
        np.testing.assert_array_equal(slot, np.float32(value))


def test_only_the_centered_form_has_a_mean_gradient():
    assert not hasattr(make(), "mg")


def test_epsilon_is_inside_the_root():
    opt = make(0.5, decay=1.0, epsilon=3.0)
    opt(gradient(1, -1))
    np.testing.assert_array_equal(opt.parameters[0], [0.75, 1.25])


def test_numbers_may_exceed_one():
    opt = make(0.5, decay=1, momentum=2, epsilon=3)
    for expected in (0.75, 0.0):
        opt(gradient(1, 1))
        np.testing.assert_array_equal(opt.parameters[0], expected)


def test_centered_element_rests_while_its_variance_is_not_positive():
    opt = make(decay=2.0, centered=True, momentum=0.5)
    opt(gradient(2, 0))
    np.testing.assert_array_equal(opt.ms[0], [0, 2])  # -2 is held at 0
    np.testing.assert_array_equal(opt.parameters[0], 1)
    np.testing.assert_array_equal(opt.moment[0], 0)


@pytest.mark.parametrize("centered", [False, True])
def test_nan_does_not_get_lost(centered):
    opt = make(centered=centered)
    opt(gradient(np.nan, 1))
    assert np.isnan(opt.parameters[0]).tolist() == [True, False]
