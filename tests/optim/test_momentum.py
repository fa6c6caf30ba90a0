"""Tests of what is particular to Momentum: its arguments and slots."""

import inspect

import numpy as np
import pytest

from optimcore import Momentum, Parameter


def make(**kwargs):
    """Return a Momentum with one parameter."""
    return Momentum([Parameter(np.ones(2, np.float32), "w")], **{"learning_rate": 1.0, "momentum": 0.5, **kwargs})


def test_signature():
    assert str(inspect.signature(Momentum)) == (
        "(params, learning_rate, momentum, weight_decay=0.0, loss_scale=1.0, use_nesterov=False)"
    )


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"momentum": "0.9"}, TypeError, "momentum must be a number, got '0.9'"),
        ({"momentum": False}, TypeError, "momentum must be a number, got False"),
        ({"momentum": -1.0}, ValueError, r"momentum must be >= 0, got -1\.0"),
        ({"momentum": float("inf")}, ValueError, "momentum must be finite, got inf"),
        ({"use_nesterov": None}, TypeError, "use_nesterov must be a bool, got None"),
    ],
)
def test_arguments_are_checked(arguments, error, message):
    with pytest.raises(error, match=message):
        make(**arguments)


def test_slots():
    opt = make(momentum=1)
    assert type(opt.momentum) is float
    (slot,) = opt.moments
    assert (slot.name, slot.shape, slot.dtype) == ("moments.w", (2,), np.float32)
    np.testing.assert_array_equal(slot, 0)


@pytest.mark.parametrize(("use_nesterov", "expected"), [(False, [0, -1.5]), (True, [-0.5, -2.25])])
def test_steps(use_nesterov, expected):
    opt = make(use_nesterov=use_nesterov)
    for value, moment in zip(expected, [1, 1.5], strict=True):
        opt([np.ones(2, np.float32)])
        np.testing.assert_array_equal(opt.parameters[0], value)
        np.testing.assert_array_equal(opt.moments[0], moment)
