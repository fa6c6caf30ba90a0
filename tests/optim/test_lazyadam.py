"""Tests of what is particular to LazyAdam: it is Adam with use_lazy."""

import inspect

import numpy as np
import pytest

from optimcore import Adam, LazyAdam, Parameter


def make(cls=LazyAdam, **kwargs):
    """Return an optimizer with one parameter of ones."""
    return cls([Parameter(np.ones(2, np.float32), "w")], **kwargs)


def test_signature():
    assert str(inspect.signature(LazyAdam)) == (
        "(params, learning_rate=0.001, beta1=0.9, beta2=0.999, eps=1e-08, use_locking=False, use_nesterov=False, "
        "weight_decay=0.0, loss_scale=1.0)"
    )


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"beta1": 1}, ValueError, r"beta1 must be in \(0, 1\), got 1"),
        ({"beta2": "0.9"}, TypeError, "beta2 must be a number, got '0.9'"),
        ({"eps": 0}, ValueError, "eps must be > 0, got 0"),
        ({"use_locking": 0}, TypeError, "use_locking must be a bool, got 0"),
        ({"use_nesterov": 0}, TypeError, "use_nesterov must be a bool, got 0"),
        ({"use_amsgrad": True}, TypeError, "use_amsgrad"),
        ({"use_offload": True}, TypeError, "use_offload"),
    ],
)
def test_arguments_are_checked(arguments, error, message):
    with pytest.raises(error, match=message):
        make(**arguments)


def test_slots():
    opt = make()
    assert [p.name for p in (*opt.moment1, *opt.moment2)] == ["moment1.w", "moment2.w"]
    assert (opt.use_lazy, opt.use_offload, opt.use_amsgrad) == (True, False, False)


def test_every_argument_reaches_adam():
    arguments = {"learning_rate": 0.1, "beta1": 0.5, "beta2": 0.6, "eps": 0.5, "weight_decay": 0.1, "loss_scale": 2.0}
    arguments |= {"use_locking": True, "use_nesterov": True}
    lazy, adam = make(**arguments), make(Adam, **arguments)
    assert lazy.use_locking is True
    for values in [(1.0, -2.0), (3.0, 0.0)]:
        lazy([np.array(values, np.float32)])
        adam([np.array(values, np.float32)])
    np.testing.assert_array_equal(lazy.parameters[0], adam.parameters[0])
