"""Tests of what is particular to Adagrad: its arguments and accumulator."""

import inspect

import numpy as np
import pytest

from optimcore import Adagrad, Parameter


def make(*args, **kwargs):
    """Return an optimizer with one parameter of ones."""
    return Adagrad([Parameter(np.ones(2, np.float32), "w")], *args, **kwargs)


def gradient(*values):
    """Return the gradients of one step."""
    return [np.array(values, np.float32)]


def test_signature():
    assert str(inspect.signature(Adagrad)) == (
        "(params, accum=0.1, learning_rate=0.001, update_slots=True, loss_scale=1.0, weight_decay=0.0, eps=1e-08)"
    )


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"accum": -0.1}, ValueError, r"accum must be >= 0, got -0\.1"),
        ({"accum": None}, TypeError, "accum must be a number, got None"),
        ({"accum": float("inf")}, ValueError, "accum must be finite, got inf"),
        ({"accum": False}, TypeError, "accum must be a number, got False"),
        ({"update_slots": 1}, TypeError, "update_slots must be a bool, got 1"),
    ],
)
def test_arguments_are_checked(arguments, error, message):
    with pytest.raises(error, match=message):
        make(**arguments)


def test_slots():
    opt = make(accum=0.5)
    expected = [("accum", "accum", 0.5)]
    for name, prefix, value in expected:
        (slot,) = getattr(opt, name)
        assert (slot.name, slot.shape, slot.dtype) == (f"{prefix}.w", (2,), np.float32)
        np.testing.assert_array_equal(slot, np.float32(value))


def test_accumulator_may_start_from_zero():
    opt = make(accum=0, learning_rate=0.25)
    opt(gradient(0, -2))
    np.testing.assert_array_equal(opt.parameters[0], [1, 1.25])


def test_without_update_the_accumulator_keeps_every_bit():
    opt = make(accum=4.0, learning_rate=0.5, update_slots=False)
    for expected in (0.5, 0.0):
        opt(gradient(2, 2))
        np.testing.assert_allclose(opt.parameters[0], expected, atol=1e-7)
        np.testing.assert_array_equal(opt.accum[0], 4)
    opt(gradient(np.inf, np.nan))
    np.testing.assert_array_equal(opt.accum[0], 4)
