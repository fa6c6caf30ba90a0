"""Tests of what is particular to Adadelta: its arguments and slots."""

import inspect

import numpy as np
import pytest

from optimcore import Adadelta, Parameter


def make(*args, **kwargs):
    """Return an optimizer with one parameter of ones."""
    return Adadelta([Parameter(np.ones(2, np.float32), "w")], *args, **kwargs)


def gradient(*values):
    """Return the gradients of one step."""
    return [np.array(values, np.float32)]


def test_signature():
    assert str(inspect.signature(Adadelta)) == (
        "(params, learning_rate=1.0, rho=0.9, epsilon=1e-06, loss_scale=1.0, weight_decay=0.0)"
    )


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"rho": -0.1}, ValueError, r"rho must be in \[0, 1\], got -0\.1"),
        ({"rho": 1.5}, ValueError, r"rho must be in \[0, 1\], got 1\.5"),
        ({"rho": float("nan")}, ValueError, "rho must be finite, got nan"),
        ({"rho": "0"}, TypeError, "rho must be a number, got '0'"),
        ({"epsilon": -1}, ValueError, "epsilon must be >= 0, got -1"),
        ({"epsilon": True}, TypeError, "epsilon must be a number, got True"),
    ],
)
def test_arguments_are_checked(arguments, error, message):
    with pytest.raises(error, match=message):
        make(**arguments)


def test_slots():
    opt = make()
    expected = [("accum", "accum", 0), ("accum_update", "accum_update", 0)]
    for name, prefix, value in expected:
        (slot,) = getattr(opt, name)
        assert (slot.name, slot.shape, slot.dtype) == (f"{prefix}.w", (2,), np.float32)
        np.testing.assert_array_equal(slot, np.float32(value))


def test_ends_of_rho():
    forgets, keeps = make(rho=0, epsilon=1.0), make(rho=1, epsilon=1.0)
    for value in (2, 3):
        forgets(gradient(value, value))
        keeps(gradient(value, value))
    np.testing.assert_array_equal(forgets.accum[0], 9)
    np.testing.assert_array_equal(keeps.accum[0], 0)
    np.testing.assert_array_equal(keeps.parameters[0], 1 - 2 - 3)


def test_without_epsilon_nothing_ever_moves():
    """The movement is in proportion to earlier movements: epsilon starts it."""
    opt = make(epsilon=0)
    opt(gradient(2, -3))
    np.testing.assert_array_equal(opt.parameters[0], 1)
