"""Schedules and list functions against golden values, and every check of their arguments.

``golden/schedules.json`` comes from MindSpore 2.10.0 on CPU (NumPy 1.26.4, PyNative): schedules in
float32, list functions in float64.
"""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from optimcore import schedules
from optimcore.schedules import (
    CosineDecayLR,
    ExponentialDecayLR,
    InverseDecayLR,
    LearningRateSchedule,
    NaturalExpDecayLR,
    PolynomialDecayLR,
    WarmUpLR,
    piecewise_constant_lr,
)

GOLDEN = json.loads((Path(__file__).parent / "golden" / "schedules.json").read_text())

SCHEDULES = [
    ExponentialDecayLR(0.1, 0.9, 4),
    ExponentialDecayLR(0.1, 0.9, 4, is_stair=True),
    NaturalExpDecayLR(0.1, 0.9, 4),
    NaturalExpDecayLR(0.1, 0.9, 4, is_stair=True),
    InverseDecayLR(0.1, 0.9, 4),
    InverseDecayLR(0.1, 0.9, 4, is_stair=True),
    CosineDecayLR(0.01, 0.1, 4),
    PolynomialDecayLR(0.1, 0.01, 4, 0.5),
    PolynomialDecayLR(0.1, 0.01, 4, 0.5, update_decay_steps=True),
    WarmUpLR(0.1, 4),
]


def golden_id(case):
    arguments = case["args"]
    values = arguments.values() if isinstance(arguments, dict) else arguments
    return "-".join([case["name"], *map(str, values)])


def schedule_id(schedule):
    return "-".join([type(schedule).__name__, *map(str, vars(schedule).values())])


# --- values ------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", GOLDEN["schedules"], ids=golden_id)
def test_schedule_matches_golden_values(case):
    schedule = getattr(schedules, case["name"])(**case["args"])
    rates = [schedule(step) for step in case["steps"]]
    # The golden side is float32: a sum is off by parts of its largest term, and e**-x by x times
    # the rounding of the base and of the exponent, where x reaches 13.5.
    if case["name"] == "NaturalExpDecayLR":
        tolerance = {"rtol": 13.5 * 2**-23, "atol": 0}
    else:
        tolerance = {"rtol": 2e-7, "atol": 1e-7 * max(case["values"])}
    np.testing.assert_allclose(rates, case["values"], **tolerance)


@pytest.mark.parametrize("case", GOLDEN["dynamic_lr"], ids=golden_id)
def test_list_function_matches_golden_values(case):
    rates = getattr(schedules, case["name"])(*case["args"])
    assert all(type(rate) is float for rate in rates)
    np.testing.assert_allclose(rates, case["values"], rtol=1e-14, atol=0)


# learning_rate 0.5, periods of 2 steps; worked by hand
NEGATIVE = [
    (ExponentialDecayLR(0.5, 0.25, 2), -1, 1.0),
    (ExponentialDecayLR(0.5, 0.25, 2, is_stair=True), -1, 2.0),
    (NaturalExpDecayLR(0.5, 1.0, 2), -1, 0.5 * math.e),
    (NaturalExpDecayLR(0.5, 1.0, 2, is_stair=True), -1, 0.5 * math.e**2),
    (InverseDecayLR(0.5, 1.0, 2), -1, 1.0),
    (InverseDecayLR(0.5, 0.5, 2, is_stair=True), -1, 1.0),
    (CosineDecayLR(0.0, 0.5, 2), -1, 0.25),
    (PolynomialDecayLR(0.5, 0.0, 2, 2.0), -2, 2.0),
    (PolynomialDecayLR(0.5, 0.0, 2, 2.0, update_decay_steps=True), -2, 2.0),
    (WarmUpLR(0.5, 2), -1, -0.25),
]


@pytest.mark.parametrize("schedule, step, rate", NEGATIVE)
def test_negative_steps_extrapolate(schedule, step, rate):
    assert schedule(step) == pytest.approx(rate, rel=1e-15)


def test_polynomial_root_exists_past_every_float():
    schedule = PolynomialDecayLR(0.1, 0.01, 3, 0.5, update_decay_steps=True)
    for step in [2**53 + 1, 3 * 2**60 + 1, 10**30, 0.1 + 0.2, 3 * (1 + 2**-52)]:
        assert 0.01 <= schedule(step) <= 0.1


def test_rate_past_float64_is_an_error_not_infinity():
    message = r"learning_rate at step 5000 must be finite, got OverflowError \(.*\) from ExponentialDecayLR"
    with pytest.raises(ValueError, match=message) as raised:
        ExponentialDecayLR(0.1, 2.0, 1)(5000)
    assert isinstance(raised.value.__cause__, OverflowError)
    with pytest.raises(ValueError, match="learning_rate at step 200 must be finite, got inf from ExponentialDecayLR"):
        ExponentialDecayLR(1e300, 2.0, 1)(200)


# a step before the first that no float can hold, or one at which a divisor is 0
BEYOND = [
    (ExponentialDecayLR(0.1, 0.5, 1), -5000),
    (NaturalExpDecayLR(0.1, 1.0, 1), -5000),
    (InverseDecayLR(0.1, 1.0, 1), -1),
    (CosineDecayLR(0.0, 0.1, 3), -(10**400)),
    (PolynomialDecayLR(0.1, 0.0, 3, 2000.0), -(10**300)),
    (WarmUpLR(0.1, 3), -(10**400)),
]


@pytest.mark.parametrize("schedule, step", BEYOND)
def test_arithmetic_that_fails_names_the_schedule_and_the_step(schedule, step):
    with pytest.raises(ValueError, match=rf"learning_rate at step {step} must be .* from {type(schedule).__name__}"):
        schedule(step)


@pytest.mark.parametrize("fail", [lambda: 1 / 0, lambda: 10.0**400, lambda: math.exp(1000), lambda: math.inf])
def test_schedule_of_a_user_is_named_too(fail):
    class Mine(LearningRateSchedule):
        def construct(self, global_step):
            return fail()

    with pytest.raises(ValueError, match="learning_rate at step 7 must be finite, got .* from Mine"):
        Mine()(7)


# --- kinds of steps ----------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", SCHEDULES, ids=schedule_id)
@pytest.mark.parametrize(
    "step", [np.int32(3), np.int64(3), np.uint8(3), np.float32(3), np.float64(3), np.longdouble(3)]
)
def test_numpy_number_equals_python_number(schedule, step):
    rate = schedule(step)
    assert type(rate) is float
    assert rate == schedule(3) == schedule(3.0)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=schedule_id)
@pytest.mark.parametrize("shape", [(), (1,), (6,), (2, 3), (0,)])
@pytest.mark.parametrize("dtype", [np.int32, np.uint64, np.float32, np.float64])
def test_array_of_steps_gives_the_rates_one_by_one(schedule, shape, dtype):
    steps = np.arange(math.prod(shape), dtype=dtype).reshape(shape)
    rates = schedule(steps)
    assert type(rates) is np.ndarray
    assert rates.dtype == np.float64
    assert rates.shape == shape
    assert rates.ravel().tolist() == [schedule(step) for step in range(steps.size)]


def test_non_contiguous_steps_keep_their_places():
    schedule = WarmUpLR(0.1, 4)
    steps = np.arange(12).reshape(3, 4)[::-1, ::2].T
    expected = [[schedule(int(step)) for step in row] for row in steps]
    np.testing.assert_array_equal(schedule(steps), expected)


@pytest.mark.parametrize("step", [True, np.True_, "3", None, 3j, [3], np.array([True]), np.array(["3"])], ids=repr)
def test_step_that_is_no_number_is_a_type_error(step):
    with pytest.raises(TypeError, match="global_step must be a number .*, got "):
        WarmUpLR(0.1, 4)(step)


# --- schedules of the user ---------------------------------------------------------------------


class Returning(LearningRateSchedule):
    """Return a given object for every step, and remember the steps."""

    def __init__(self, result):
        self.result = result
        self.steps = []

    def construct(self, global_step):
        self.steps.append(global_step)
        return self.result


def test_base_class_has_no_rate():
    with pytest.raises(NotImplementedError, match="LearningRateSchedule must define construct"):
        LearningRateSchedule()(0)


@pytest.mark.parametrize("result", [1, np.int64(1), np.float32(1), np.array(1.0), np.array([1], np.float32)], ids=repr)
def test_result_of_a_user_schedule_becomes_a_float(result):
    rate = Returning(result)(0)
    assert type(rate) is float
    assert rate == 1.0
    assert Returning(result)(np.arange(2)).tolist() == [1.0, 1.0]


@pytest.mark.parametrize("result", [None, "1", True, np.ones(2), np.array([True])], ids=repr)
def test_result_that_is_no_number_is_a_type_error(result):
    message = "the result of Returning.construct must be a number, got "
    with pytest.raises(TypeError, match=message):
        Returning(result)(0)


@pytest.mark.parametrize("step", [3, np.int32(3), np.array(3), np.array([3])], ids=repr)
def test_user_schedule_receives_a_python_number(step):
    schedule = Returning(0.1)
    schedule(step)
    assert [type(step) for step in schedule.steps] == [int]
    assert schedule.steps == [3]


# --- checks ------------------------------------------------------------------------------------

DECAY = {"learning_rate": 0.1, "decay_rate": 0.9}
COSINE = {"min_lr": 0.01, "max_lr": 0.1}
POLYNOMIAL = {"learning_rate": 0.1, "end_learning_rate": 0.01, "power": 0.5}
EPOCHS = {"total_step": 6, "step_per_epoch": 2}

VALID = {
    "ExponentialDecayLR": DECAY | {"decay_steps": 4},
    "NaturalExpDecayLR": DECAY | {"decay_steps": 4},
    "InverseDecayLR": DECAY | {"decay_steps": 4},
    "CosineDecayLR": COSINE | {"decay_steps": 4},
    "PolynomialDecayLR": POLYNOMIAL | {"decay_steps": 4},
    "WarmUpLR": {"learning_rate": 0.1, "warmup_steps": 4},
    "exponential_decay_lr": DECAY | EPOCHS | {"decay_epoch": 2},
    "natural_exp_decay_lr": DECAY | EPOCHS | {"decay_epoch": 2},
    "inverse_decay_lr": DECAY | EPOCHS | {"decay_epoch": 2},
    "cosine_decay_lr": COSINE | EPOCHS | {"decay_epoch": 2},
    "polynomial_decay_lr": POLYNOMIAL | EPOCHS | {"decay_epoch": 2},
    "warmup_lr": {"learning_rate": 0.1, **EPOCHS, "warmup_epoch": 2},
}
FLAGS = dict.fromkeys(
    [
        "ExponentialDecayLR",
        "NaturalExpDecayLR",
        "InverseDecayLR",
        "exponential_decay_lr",
        "natural_exp_decay_lr",
        "inverse_decay_lr",
    ],
    "is_stair",
) | {"PolynomialDecayLR": "update_decay_steps", "polynomial_decay_lr": "update_decay_epoch"}

NUMBERS = {"learning_rate", "decay_rate", "power", "min_lr", "max_lr", "end_learning_rate"}
MAY_BE_ZERO = {
    ("CosineDecayLR", "min_lr"),
    ("cosine_decay_lr", "min_lr"),
    ("PolynomialDecayLR", "end_learning_rate"),
    ("polynomial_decay_lr", "end_learning_rate"),
    ("WarmUpLR", "learning_rate"),
    ("warmup_lr", "learning_rate"),
}


def bad_arguments(name):
    """Yield (argument, value, error, rule) for every way in which `name` refuses an argument."""
    for argument in VALID[name]:
        if argument in NUMBERS:
            for value in ["0.1", None, True, np.True_, 1j, [0.1], np.array(0.1)]:
                yield argument, value, TypeError, "be a number"
            for value in [math.nan, math.inf, -math.inf, np.float32("nan")]:
                yield argument, value, ValueError, "be finite"
            zero = (name, argument) in MAY_BE_ZERO
            for value in [-0.1, -1, np.float32(-0.5)] + ([] if zero else [0, 0.0]):
                yield argument, value, ValueError, "be >= 0" if zero else "be > 0"
        else:
            for value in [4.0, np.float64(4), "4", None, True, np.True_, np.array(4)]:
                yield argument, value, TypeError, "be an int"
            for value in [0, -1, np.int64(0)]:
                yield argument, value, ValueError, "be >= 1"
    if name in FLAGS:
        for value in [1, 0, None, "True", np.True_]:
            yield FLAGS[name], value, TypeError, "be a bool"


@pytest.mark.parametrize(
    "name, argument, value, error, rule",
    [(name, *case) for name in VALID for case in bad_arguments(name)],
)
def test_bad_argument_is_refused(name, argument, value, error, rule):
    with pytest.raises(error, match=f"^{argument} must {rule}, got "):
        getattr(schedules, name)(**{**VALID[name], argument: value})


def test_message_shows_the_value():
    with pytest.raises(ValueError, match=r"^decay_rate must be > 0, got -0\.5$"):
        ExponentialDecayLR(0.1, -0.5, 4)
    with pytest.raises(TypeError, match=r"^learning_rate must be a number, got '0\.1'$"):
        WarmUpLR("0.1", 4)


@pytest.mark.parametrize("name", VALID)
def test_numpy_scalars_and_ints_are_numbers(name):
    # all of these are exact in every type
    exact = {"learning_rate": 2, "decay_rate": 3, "power": 2, "max_lr": 2}
    exact |= {"min_lr": 1, "end_learning_rate": 1}

    def rates(number, count):
        arguments = {
            argument: number(exact[argument]) if argument in NUMBERS else count(value)
            for argument, value in VALID[name].items()
        }
        result = getattr(schedules, name)(**arguments)
        return result if isinstance(result, list) else result(np.arange(6)).tolist()

    for number, count in [(int, np.int64), (np.float32, np.uint8), (np.int16, np.int32)]:
        assert rates(number, count) == rates(float, int)


@pytest.mark.parametrize("name, argument", sorted(MAY_BE_ZERO))
def test_zero_is_allowed_where_the_rate_ends(name, argument):
    getattr(schedules, name)(**{**VALID[name], argument: 0.0})


@pytest.mark.parametrize("name", ["CosineDecayLR", "cosine_decay_lr"])
@pytest.mark.parametrize("min_lr", [0.1, 0.2])
def test_cosine_needs_max_above_min(name, min_lr):
    with pytest.raises(ValueError, match=f"^max_lr must be > min_lr = {min_lr}, got 0.1$"):
        getattr(schedules, name)(**{**VALID[name], "min_lr": min_lr})


def test_polynomial_may_grow():
    assert PolynomialDecayLR(0.25, 0.5, 2, 1.0)(np.arange(4)).tolist() == [0.25, 0.375, 0.5, 0.5]


# --- piecewise_constant_lr ---------------------------------------------------------------------


def test_piecewise_takes_tuples_ints_and_any_sign():
    rates = piecewise_constant_lr((1, np.int64(3)), (1, np.float32(-0.5)))
    assert rates == [1.0, -0.5, -0.5]
    assert all(type(rate) is float for rate in rates)


def test_piecewise_without_milestones_is_empty():
    assert piecewise_constant_lr([], []) == []


@pytest.mark.parametrize(
    "milestone, learning_rates, error, message",
    [
        (5, [0.1], TypeError, "milestone must be a list or tuple, got 5"),
        (np.array([5]), [0.1], TypeError, "milestone must be a list or tuple, got "),
        ([5], 0.1, TypeError, "learning_rates must be a list or tuple, got 0.1"),
        ([5], "1", TypeError, "learning_rates must be a list or tuple, got '1'"),
        ([2, 5], [0.1], ValueError, "learning_rates must have one item per milestone, got 1 for 2"),
        ([2.0], [0.1], TypeError, r"milestone\[0\] must be an int, got 2.0"),
        ([2, True], [0.1, 0.2], TypeError, r"milestone\[1\] must be an int, got True"),
        ([0], [0.1], ValueError, r"milestone\[0\] must be >= 1, got 0"),
        ([5, 2], [0.1, 0.2], ValueError, r"milestone\[1\] must be >= milestone\[0\] = 5, got 2"),
        ([2], ["0.1"], TypeError, r"learning_rates\[0\] must be a number, got '0.1'"),
        ([2], [True], TypeError, r"learning_rates\[0\] must be a number, got True"),
        ([2], [math.nan], ValueError, r"learning_rates\[0\] must be finite, got nan"),
    ],
)
def test_piecewise_refuses(milestone, learning_rates, error, message):
    with pytest.raises(error, match=f"^{message}"):
        piecewise_constant_lr(milestone, learning_rates)
