"""Tests of what is particular to Rprop: its arguments, slots and first step."""

import inspect

import numpy as np
import pytest

from optimcore import Parameter, Rprop


def make(*args, **kwargs):
    """Return an optimizer with one parameter of ones."""
    return Rprop([Parameter(np.ones(2, np.float32), "w")], *args, **kwargs)


def gradient(*values):
    """Return the gradients of one step."""
    return [np.array(values, np.float32)]


def test_signature():
    assert str(inspect.signature(Rprop)) == (
        "(params, learning_rate=0.1, etas=(0.5, 1.2), step_sizes=(1e-06, 50.0), weight_decay=0.0)"
    )


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"etas": [0.5, 1.2]}, TypeError, r"etas must be a tuple of two numbers, got \[0\.5, 1\.2\]"),
        ({"etas": (0.5,)}, ValueError, r"etas must have two numbers, got \(0\.5,\)"),
        ({"etas": (True, 1.2)}, TypeError, r"etas\[0\] must be a number, got True"),
        ({"etas": (0.0, 1.2)}, ValueError, r"etas\[0\] must be in \(0, 1\), got 0\.0"),
        ({"etas": (1, 1.2)}, ValueError, r"etas\[0\] must be in \(0, 1\)"),
        ({"etas": (0.5, 1)}, ValueError, r"etas\[1\] must be > 1, got 1\.0"),
        ({"etas": (0.5, float("inf"))}, ValueError, r"etas\[1\] must be finite, got inf"),
        ({"step_sizes": 0.1}, TypeError, "step_sizes must be a tuple of two numbers"),
        ({"step_sizes": (1, 2, 3)}, ValueError, "step_sizes must have two numbers"),
        ({"step_sizes": (2, 1)}, ValueError, r"step_sizes must be in ascending order, got \(2, 1\)"),
        ({"step_sizes": (0, "1")}, TypeError, r"step_sizes\[1\] must be a number, got '1'"),
    ],
)
def test_arguments_are_checked(arguments, error, message):
    with pytest.raises(error, match=message):
        make(**arguments)


def test_slots():
    opt = make()
    expected = [("prev", "prev", 0), ("step_size", "step_size", 0)]
    for name, prefix, value in expected:
        (slot,) = getattr(opt, name)
        assert (slot.name, slot.shape, slot.dtype) == (f"{prefix}.w", (2,), np.float32)
        np.testing.assert_array_equal(slot, np.float32(value))


def test_numbers_may_be_ints():
    opt = make(etas=(0.5, 2), step_sizes=(0, 1))
    assert (opt.etas, opt.step_sizes) == ((0.5, 2.0), (0.0, 1.0))


def test_only_the_rate_of_the_first_step_counts():
    opt = make([0.25, 100.0], etas=(0.5, 2.0))
    opt(gradient(1, -1))
    np.testing.assert_array_equal(opt.parameters[0], [0.75, 1.25])
    opt(gradient(1, -1))
    np.testing.assert_array_equal(opt.step_size[0], 0.5)


def test_element_rests_where_the_sign_changes():
    opt = make(0.25, etas=(0.5, 2.0))
    for value, expected, previous in [(1, 0.75, 1), (-3, 0.75, 0), (-3, 0.875, -3)]:
        opt(gradient(value, value))
        np.testing.assert_array_equal(opt.parameters[0], expected)
        np.testing.assert_array_equal(opt.prev[0], previous)


def test_step_sizes_stay_in_their_range():
    opt = make(0.25, etas=(0.5, 2.0), step_sizes=(0.2, 0.4))
    for signs, sizes in [((1, 1), (0.25, 0.25)), ((1, -1), (0.4, 0.2))]:
        opt(gradient(*signs))
        np.testing.assert_array_equal(opt.step_size[0], np.float32(sizes))
    first = make(9.0, step_sizes=(0.2, 0.4))
    first(gradient(1, 1))
    np.testing.assert_array_equal(first.step_size[0], np.float32(0.4))


def test_signs_are_compared_even_where_the_product_underflows():
    opt = make(0.25, etas=(0.5, 2.0))
    for _ in range(2):
        opt(gradient(1e-30, -1e-30))
    np.testing.assert_array_equal(opt.step_size[0], 0.5)


def test_nan_does_not_get_lost():
    opt = make(0.25)
    opt(gradient(np.nan, 1))
    assert np.isnan(opt.parameters[0]).tolist() == [True, False]


def test_first_step_of_a_skipped_parameter_comes_later():
    a, b = Parameter([1.0], "a"), Parameter([1.0], "b")
    opt = Rprop([{"params": [a], "lr": 0.5}, {"params": [b], "lr": 0.25}])
    one = np.ones(1, np.float32)
    opt((one, None))
    assert opt.flags.tolist() == [0, 1]
    opt((one, one))
    assert opt.flags.tolist() == [0, 0]
    assert b[0] == 0.75
