"""Tests of what is particular to SGD: its arguments, slots and first step."""

import inspect

import numpy as np
import pytest

from optimcore import SGD, Parameter


def make(**kwargs):
    """Return an SGD with a float32 and a float64 parameter."""
    parameters = [Parameter(np.ones(2, np.float32), "w"), Parameter(np.ones((2, 2)), "v")]
    return SGD(parameters, **{"learning_rate": 1.0, **kwargs})


def ones(optimizer):
    """Return gradients of ones."""
    return tuple(np.ones(p.shape, p.dtype) for p in optimizer.parameters)


def test_signature():
    assert str(inspect.signature(SGD)) == (
        "(params, learning_rate=0.1, momentum=0.0, dampening=0.0, weight_decay=0.0, nesterov=False, loss_scale=1.0)"
    )


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"momentum": "0.9"}, TypeError, "momentum must be a number, got '0.9'"),
        ({"momentum": True}, TypeError, "momentum must be a number, got True"),
        ({"momentum": -0.1}, ValueError, r"momentum must be >= 0, got -0\.1"),
        ({"momentum": float("nan")}, ValueError, "momentum must be finite, got nan"),
        ({"dampening": None}, TypeError, "dampening must be a number, got None"),
        ({"dampening": -1}, ValueError, "dampening must be >= 0, got -1"),
        ({"dampening": float("inf")}, ValueError, "dampening must be finite, got inf"),
        ({"nesterov": 1}, TypeError, "nesterov must be a bool, got 1"),
        ({"nesterov": True}, ValueError, r"nesterov must come with momentum > 0 .*got momentum=0\.0"),
        (
            {"nesterov": True, "momentum": 0.9, "dampening": 0.1},
            ValueError,
            r"nesterov must come with .*dampening == 0, got momentum=0\.9 and dampening=0\.1",
        ),
    ],
)
def test_arguments_are_checked(arguments, error, message):
    with pytest.raises(error, match=message):
        make(**arguments)


def test_numbers_may_be_ints_and_exceed_one():
    opt = make(momentum=1, dampening=np.int64(2))
    assert (opt.momentum, opt.dampening) == (1.0, 2.0)
    assert type(opt.momentum) is type(opt.dampening) is float


def test_slots():
    opt = make(momentum=0.9)
    assert [p.name for p in opt.accum] == ["accum.w", "accum.v"]
    assert [p.name for p in opt.stat] == ["stat.w", "stat.v"]
    assert [p.dtype for p in opt.accum] == [np.float32, np.float64]
    for p, accum, stat in zip(opt.parameters, opt.accum, opt.stat, strict=True):
        assert p.shape == accum.shape == stat.shape
        np.testing.assert_array_equal(accum, 0)
        np.testing.assert_array_equal(stat, 1)


def test_stat_is_read_only_and_needs_no_memory():
    stat = make(momentum=0.9).stat[1]
    assert stat.data.strides == (0, 0)
    with pytest.raises(ValueError, match="read-only"):
        stat.set_data(np.zeros((2, 2)))


def test_without_momentum_slots_stay_as_they_are():
    opt = make(dampening=0.5)
    opt(ones(opt))
    for accum, stat in zip(opt.accum, opt.stat, strict=True):
        np.testing.assert_array_equal(accum, 0)
        np.testing.assert_array_equal(stat, 1)


def test_dampening_is_left_out_of_the_first_step():
    opt = make(momentum=0.5, dampening=0.75)
    opt(ones(opt))
    np.testing.assert_array_equal(opt.accum[0], 1)
    np.testing.assert_array_equal(opt.stat[0], 0)
    opt(ones(opt))
    np.testing.assert_array_equal(opt.accum[0], 0.75)
    np.testing.assert_array_equal(opt.parameters[0], 1 - 1 - 0.75)


def test_first_step_of_a_skipped_parameter_comes_later():
    opt = make(momentum=0.5, dampening=0.75)
    w, v = ones(opt)
    opt((w, None))
    assert opt.flags.tolist() == [0, 1]
    opt((w, v))
    assert opt.flags.tolist() == [0, 0]
    np.testing.assert_array_equal(opt.accum[0], 0.75)
    np.testing.assert_array_equal(opt.accum[1], 1)


def test_failed_first_step_is_not_a_step():
    opt = make(momentum=0.5, dampening=0.75)
    with pytest.raises(ValueError):
        opt((np.ones(3, np.float32), None))
    assert opt.flags.tolist() == [1, 1]
    opt(ones(opt))
    np.testing.assert_array_equal(opt.accum[0], 1)


def test_first_steps_with_rates_of_groups():
    a, b = Parameter([1.0], "a"), Parameter([1.0], "b")
    opt = SGD([{"params": [a], "lr": 0.5}, {"params": [b], "lr": 0.25}], momentum=0.5, dampening=0.5)
    one = np.ones(1, np.float32)
    opt((one, None))
    opt((one, one))
    assert a[0] == 1 - 0.5 * 1 - 0.5 * (0.5 + 0.5)
    assert b[0] == 1 - 0.25


def test_nesterov():
    opt = make(momentum=0.5, nesterov=True)
    opt(ones(opt))
    np.testing.assert_array_equal(opt.parameters[0], 1 - (1 + 0.5 * 1))
    opt(ones(opt))
    np.testing.assert_array_equal(opt.parameters[1], -0.5 - (1 + 0.5 * 1.5))
