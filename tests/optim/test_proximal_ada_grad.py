"""Tests of what is particular to ProximalAdagrad: its arguments and accumulator."""

import inspect

import numpy as np
import pytest

from optimcore import Parameter, ProximalAdagrad


def make(*args, **kwargs):
    """Return an optimizer with one parameter of ones."""
    return ProximalAdagrad([Parameter(np.ones(2, np.float32), "w")], *args, **kwargs)


def gradient(*values):
    """Return the gradients of one step."""
    return [np.array(values, np.float32)]


def test_signature():
    assert str(inspect.signature(ProximalAdagrad)) == (
        "(params, accum=0.1, learning_rate=0.001, l1=0.0, l2=0.0, use_locking=False, loss_scale=1.0, weight_decay=0.0)"
    )


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"accum": -1}, ValueError, "accum must be >= 0, got -1"),
        ({"accum": "1"}, TypeError, "accum must be a number, got '1'"),
        ({"l1": -0.5}, ValueError, r"l1 must be >= 0, got -0\.5"),
        ({"l2": True}, TypeError, "l2 must be a number, got True"),
        ({"l2": float("inf")}, ValueError, "l2 must be finite, got inf"),
        ({"use_locking": None}, TypeError, "use_locking must be a bool, got None"),
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


def test_rate_of_the_element_multiplies_l1_and_l2():
    opt = make(accum=12.0, learning_rate=0.4, l1=2.0, l2=5.0)
    opt(gradient(2, -2))
    np.testing.assert_allclose(opt.parameters[0], [(0.8 - 0.2) / 1.5, (1.2 - 0.2) / 1.5], rtol=1e-6)


def test_l1_makes_exact_zeros():
    opt = make(accum=0.0, learning_rate=0.5, l1=4.0)
    opt(gradient(2, -8))
    np.testing.assert_array_equal(opt.parameters[0], [0, 1.25])


def test_nan_does_not_get_lost():
    opt = make(l1=1.0)
    opt(gradient(np.nan, 1))
    assert np.isnan(opt.parameters[0]).tolist() == [True, False]
