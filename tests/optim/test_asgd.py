"""Tests of what is particular to ASGD: its arguments, slots, and the numbers of each parameter."""

import inspect

import numpy as np
import pytest

from optimcore import ASGD, Parameter


def make(*args, **kwargs):
    """Return an optimizer with one parameter of ones."""
    return ASGD([Parameter(np.ones(2, np.float32), "w")], *args, **kwargs)


def gradient(*values):
    """Return the gradients of one step."""
    return [np.array(values, np.float32)]


def test_signature():
    assert str(inspect.signature(ASGD)) == (
        "(params, learning_rate=0.1, lambd=0.0001, alpha=0.75, t0=1000000.0, weight_decay=0.0)"
    )


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"lambd": "1"}, TypeError, "lambd must be a number, got '1'"),
        ({"alpha": True}, TypeError, "alpha must be a number, got True"),
        ({"t0": float("nan")}, ValueError, "t0 must be finite, got nan"),
        ({"lambd": float("inf")}, ValueError, "lambd must be finite, got inf"),
    ],
)
def test_arguments_are_checked(arguments, error, message):
    with pytest.raises(error, match=message):
        make(**arguments)


def numbers(optimizer):
    """Return (mu, eta) of each parameter."""
    return [(float(mu), float(eta)) for mu, eta in zip(optimizer.mu, optimizer.eta, strict=True)]


def test_slots():
    opt = make()
    (ax,), (mu,), (eta,) = opt.ax, opt.mu, opt.eta
    assert [(p.name, p.shape, p.dtype) for p in (ax, mu, eta)] == [
        ("ax_.w", (2,), np.float32),
        ("mu_w", (), np.float64),
        ("eta_w", (), np.float64),
    ]
    np.testing.assert_array_equal(ax, 0)
    assert numbers(opt) == [(1, 0)]
    assert opt.steps.tolist() == [0]


def test_numbers_of_the_next_step():
    opt = make(0.5, lambd=2.0, alpha=2.0, t0=1)
    expected = [(1, 0.5 / 2**2), (1, 0.5 / 3**2), (0.5, 0.5 / 4**2)]
    for pair in expected:
        opt(gradient(1, 1))
        assert numbers(opt) == [pair]
    assert opt.steps.tolist() == [3]


def test_rate_acts_one_step_late_after_the_first():
    opt = make([0.5, 0.25, 0.125], lambd=0.0)
    for expected in (0.5, 0.0, -0.25):
        opt(gradient(1, 1))
        np.testing.assert_array_equal(opt.parameters[0], expected)


def test_first_rate_of_zero_counts_as_a_rate():
    opt = make([0.0, 0.25, 0.25], lambd=0.0)
    for expected in (1, 1, 0.75):
        opt(gradient(1, 1))
        np.testing.assert_array_equal(opt.parameters[0], expected)


@pytest.mark.parametrize("alpha", [-2.0, 0.75])
def test_negative_lambda_is_legal(alpha):
    opt = make(0.5, lambd=-0.5, alpha=alpha)
    opt(gradient(1, 1))
    np.testing.assert_array_equal(opt.parameters[0], 1 * 1.25 - 0.5)
    assert numbers(opt)[0][1] == 0.5 / 0.75**alpha


def test_parameter_that_comes_late_goes_the_same_way():
    arguments = {"learning_rate": 0.5, "lambd": 0.25, "t0": 1}
    early, late = Parameter([1.0, 2.0], "early"), Parameter([1.0, 2.0], "late")
    opt = ASGD([early, late], **arguments)
    one = np.ones(2, np.float32)
    for _ in range(3):
        opt((one, None))
    after_three, average = early.data.copy(), opt.ax[0].data.copy()
    assert numbers(opt)[1] == (1, 0)
    for _ in range(3):
        opt((None, one))
    np.testing.assert_array_equal(late, after_three)
    np.testing.assert_array_equal(opt.ax[1], average)
    assert numbers(opt)[0] == numbers(opt)[1]
    assert opt.steps.tolist() == [3, 3]


def test_failed_step_leaves_the_numbers():
    opt = make()
    opt(gradient(1, 1))
    before = numbers(opt)
    with pytest.raises(ValueError):
        opt(gradient(1, 1, 1))
    assert numbers(opt) == before
    assert opt.steps.tolist() == [1]


def test_rates_of_groups():
    a, b = Parameter([1.0], "a"), Parameter([1.0], "b")
    opt = ASGD([{"params": [a], "lr": 0.5}, {"params": [b]}], learning_rate=0.25, lambd=0.0)
    opt((np.ones(1, np.float32),) * 2)
    assert (a[0], b[0]) == (0.5, 0.75)
    assert numbers(opt) == [(1, 0.5), (1, 0.25)]


@pytest.mark.parametrize(
    ("lambd", "alpha", "eta"),
    [
        (3.0, 1e6, 0.5 / np.finfo(np.float64).max),  # a power beyond float64
        (3.0, -1e6, 0.5 / np.finfo(np.float64).tiny),  # one below it
        (-1e30, 0.75, 0.5 / np.finfo(np.float64).tiny ** 0.75),
        (1e38, 0.0, 0.5),
        (6.0, 0.5, 0.25),
        (6.0, 2.0, 0.5 / 16),
        (6.0, -1.0, 2.0),
    ],
)
def test_eta_is_finite_whatever_lambda_and_alpha_are(lambd, alpha, eta):
    opt = make(0.5, lambd=lambd, alpha=alpha)
    with np.errstate(all="ignore"):
        opt(gradient(0, 0))
    assert numbers(opt)[0][1] == eta
