"""Tests of all forms of learning rate and weight decay."""

import math

import ml_dtypes
import numpy as np
import pytest

from optimcore import SGD, ExponentialDecayLR, LearningRateSchedule, Momentum, Optimizer, Parameter, WarmUpLR


def make(learning_rate, **kwargs):
    """Return an optimizer with one parameter."""
    return Optimizer(learning_rate, [Parameter([1.0, 2.0], "w")], **kwargs)


class Schedule(LearningRateSchedule):
    """Return what it was made with."""

    def __init__(self, value):
        super().__init__()
        self.value = value

    def construct(self, global_step):
        return self.value


# ---- forms


@pytest.mark.parametrize(
    "rate",
    [0.25, 0, 1, np.float32(0.25), np.float64(0.25), np.int64(2), np.array(0.25), np.array(1), Parameter(0.25)],
)
def test_fixed_rate(rate):
    opt = make(rate)
    assert type(opt.get_lr()) is float
    assert opt.get_lr() == float(rate)
    assert not opt.dynamic_lr
    stored = opt.learning_rate
    assert (type(stored), stored.name, stored.shape, stored.dtype) == (Parameter, "learning_rate", (), np.float64)


@pytest.mark.parametrize("rate", [0.1, 0.3, 1e-3, 1e-6, 5e-8])
def test_fixed_rate_keeps_its_value_beside_dynamic_ones(rate):
    groups = [{"params": [Parameter([1.0], "a")], "lr": rate}, {"params": [Parameter([1.0], "b")]}]
    opt = Optimizer([0.5, 0.5], groups)
    assert opt.get_lr() == (rate, 0.5)


RATES = [0.5, 0.25, 0.0]


@pytest.mark.parametrize(
    "rates",
    [RATES, tuple(RATES), iter(RATES), np.array(RATES), np.array(RATES, np.float32), Parameter(RATES)],
    ids=["list", "tuple", "iterator", "float64", "float32", "Parameter"],
)
def test_listed_rates(rates):
    opt = make(rates)
    assert opt.dynamic_lr
    assert (opt.learning_rate.shape, opt.learning_rate.dtype) == ((3,), np.float64)
    for step, rate in enumerate(RATES):
        opt.global_step = step
        assert opt.get_lr() == rate


def test_rates_are_copied():
    rates = np.array([0.5, 0.25])
    opt = make(rates)
    rates[:] = 7
    assert opt.get_lr() == 0.5


def test_one_listed_rate_is_dynamic():
    assert make([0.1]).dynamic_lr
    assert make(np.array([0.1])).dynamic_lr


def test_schedule_is_kept_and_called_with_the_step():
    schedule = WarmUpLR(0.1, 4)
    opt = make(schedule)
    assert opt.learning_rate is schedule
    assert opt.dynamic_lr
    assert opt.get_lr() == 0.0
    opt.global_step = 2
    assert opt.get_lr() == 0.05


@pytest.mark.parametrize("value", [0.5, np.float32(0.5), np.array(0.5), np.array([0.5])])
def test_schedule_may_return_any_kind_of_number(value):
    rate = make(Schedule(value)).get_lr()
    assert type(rate) is float
    assert rate == 0.5


# ---- errors at construction


@pytest.mark.parametrize(
    ("rate", "error", "message"),
    [
        ("0.1", TypeError, "learning_rate must be a number, a list of numbers, .*got '0.1'"),
        ("5", TypeError, "learning_rate must be a number"),
        (b"5", TypeError, "learning_rate must be a number"),
        (True, TypeError, "learning_rate must be a number, .*got True"),
        (np.bool_(True), TypeError, "learning_rate must be a number"),
        (None, TypeError, "learning_rate must be a number, .*got None"),
        (1j, TypeError, "learning_rate must be a number, .*got 1j"),
        ({0: 0.1}, TypeError, "learning_rate must be a number"),
        ({0.1}, TypeError, "learning_rate must be a number"),
        (lambda step: 0.1, TypeError, "learning_rate must be a number, .* or a LearningRateSchedule"),
        (np.array("0.1"), TypeError, "learning_rate must be a number"),
        (np.array([True]), TypeError, r"learning_rate\[0\] must be a number"),
        (np.array([1j]), TypeError, r"learning_rate\[0\] must be a number"),
        ([0.1, "0.2"], TypeError, r"learning_rate\[1\] must be a number, got '0.2'"),
        ([0.1, True], TypeError, r"learning_rate\[1\] must be a number, got True"),
        ([None], TypeError, r"learning_rate\[0\] must be a number, got None"),
        (-0.1, ValueError, r"learning_rate must be >= 0, got -0\.1"),
        (-1, ValueError, "learning_rate must be >= 0, got -1"),
        (math.nan, ValueError, "learning_rate must be finite, got nan"),
        (math.inf, ValueError, "learning_rate must be finite, got inf"),
        (np.array(-0.1), ValueError, r"learning_rate must be >= 0, got -0\.1"),
        (np.array(math.nan), ValueError, "learning_rate must be finite, got nan"),
        ([], ValueError, r"learning_rate must not be empty, got \[\]"),
        ((), ValueError, "learning_rate must not be empty"),
        (iter([]), ValueError, "learning_rate must not be empty"),
        (np.empty(0), ValueError, "learning_rate must not be empty"),
        ([[0.1], [0.2]], ValueError, r"learning_rate must not be nested, got \[0\.1\] at learning_rate\[0\]"),
        ([0.1, (0.2,)], ValueError, r"learning_rate must not be nested, .*at learning_rate\[1\]"),
        ([np.array([0.1])], ValueError, "learning_rate must not be nested"),
        (np.ones((2, 2)), ValueError, "learning_rate must have 0 or 1 dimensions, got 2"),
        (np.ones((1, 0)), ValueError, "learning_rate must have 0 or 1 dimensions, got 2"),
        ([0.1, math.nan], ValueError, r"learning_rate\[1\] must be finite, got nan"),
        ((0.1, 0.2, math.inf), ValueError, r"learning_rate\[2\] must be finite, got inf"),
        (np.array([-0.5, 0.1]), ValueError, r"learning_rate\[0\] must be >= 0, got -0\.5"),
    ],
)
def test_rates_are_checked(rate, error, message):
    with pytest.raises(error, match=message):
        make(rate)


# ---- errors at a step: nothing changes


def state(opt):
    """Return everything that a step may change."""
    values = [np.array(p) for p in (*opt.parameters, *opt.moments)]
    return [v.tolist() for v in values], opt.global_step


def stepper(learning_rate, **kwargs):
    """Return a Momentum after one step, and its gradients."""
    opt = Momentum([Parameter([1.0, 2.0], "w")], learning_rate, 0.9, **kwargs)
    return opt, [np.ones(2, np.float32)]


def test_step_past_the_end_of_the_rates_changes_nothing():
    opt, gradients = stepper([0.5, 0.25])
    opt(gradients)
    opt(gradients)
    before = state(opt)
    for call in (lambda: opt(gradients), opt.get_lr):
        with pytest.raises(IndexError, match=r"global_step must be in \[0, 2\), the length of learning_rate, got 2"):
            call()
    assert state(opt) == before


@pytest.mark.parametrize(("value", "error"), [(-1, ValueError), (0.5, TypeError), ("x", TypeError), (True, TypeError)])
@pytest.mark.parametrize("name", ["global_step", "rounding_seed"])
def test_counts_are_checked_when_they_are_set(name, value, error):
    opt = SGD([Parameter([1.0], "w")], learning_rate=[0.1, 0.2])
    with pytest.raises(error, match=f"{name} must be .*, got {value!r}"):
        setattr(opt, name, value)
    assert getattr(opt, name) == 0


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
@pytest.mark.parametrize("kind", ["fixed", "listed", "schedule"])
def test_bad_rate_at_a_step_changes_nothing(kind, value):
    if kind == "schedule":
        opt, gradients = stepper(Schedule(value))
    else:
        opt, gradients = stepper(0.5 if kind == "fixed" else [0.5])
        opt.learning_rate.set_data(value if kind == "fixed" else [value])
    before = state(opt)
    with pytest.raises(ValueError, match=rf"learning_rate at step 0 must be .*got {value}"):
        opt(gradients)
    assert state(opt) == before


@pytest.mark.parametrize("value", [None, "0.1", True, np.ones(2), [0.1]])
def test_schedule_must_return_a_number(value):
    opt, gradients = stepper(Schedule(value))
    with pytest.raises(TypeError, match="must be a number, got"):
        opt(gradients)
    assert opt.global_step == 0


# ---- changing rates


def test_fixed_rate_is_changed_in_place():
    opt, gradients = stepper(0.5)
    opt.learning_rate.set_data(0.0)
    opt(gradients)
    np.testing.assert_array_equal(opt.parameters[0], [1, 2])
    assert opt.get_lr() == 0.0


def test_fixed_rate_of_a_group_is_changed_in_place():
    a, b = Parameter([1.0], "a"), Parameter([1.0], "b")
    opt = Optimizer(0.1, [{"params": [a, b], "lr": 0.5}])
    opt.learning_rate[0].set_data(0.25)
    assert opt.get_lr() == (0.25, 0.25)


@pytest.mark.parametrize(
    ("value", "rates"),
    [
        (0.25, [0.25, 0.25]),
        (np.float32(0.25), [0.25, 0.25]),
        (np.array(0.25), [0.25, 0.25]),
        ([0.5, 0.25], [0.5, 0.25]),
        (np.array([0.5, 0.25]), [0.5, 0.25]),
        ((0.5, 0.25), [0.5, 0.25]),
        (WarmUpLR(1.0, 4), [0.0, 0.25]),
    ],
    ids=str,
)
@pytest.mark.parametrize("before", [0.1, [0.1, 0.1, 0.1], ExponentialDecayLR(0.1, 0.9, 4)], ids=type)
def test_rate_can_be_assigned_in_every_form(before, value, rates):
    opt = SGD([Parameter(np.zeros(1), "w")], before)
    opt.learning_rate = value
    assert opt.get_lr() == rates[0] and opt.dynamic_lr is (rates[0] != rates[1])
    assert opt.get_lr_parameter(opt.parameters[0]) is opt.learning_rate
    opt((np.ones(1),))
    opt((np.ones(1),))
    assert opt.parameters[0].data[0] == -sum(rates)


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (None, TypeError, "learning_rate must be a number, a list of numbers"),
        ("0.1", TypeError, "learning_rate must be a number, a list of numbers"),
        (-0.1, ValueError, "learning_rate must be >= 0"),
        ([], ValueError, "learning_rate must not be empty"),
        ([0.1, np.nan], ValueError, "must be finite"),
        (np.ones((1, 1)), ValueError, "learning_rate must have 0 or 1 dimensions"),
    ],
)
def test_rate_that_is_assigned_is_checked(value, error, message):
    opt = make(0.1)
    rate = opt.learning_rate
    with pytest.raises(error, match=message):
        opt.learning_rate = value
    assert opt.learning_rate is rate and opt.get_lr() == 0.1


def test_rate_of_groups_with_their_own_stays():
    a, b = Parameter([1.0], "a"), Parameter([1.0], "b")
    opt = SGD([{"params": [a]}, {"params": [b], "lr": 0.5}], 0.1)
    opt.learning_rate = 0.25
    assert opt.get_lr() == opt.rates() == (0.25, 0.5)
    opt((np.ones(1, np.float32), np.ones(1, np.float32)))
    assert (a[0], b[0]) == (0.75, 0.5)
    opt.learning_rate = [0.125, 0.125, 0.125]
    assert opt.get_lr() == (0.125, 0.5)
    own = SGD([{"params": [a], "lr": 0.5}], 0.1)
    with pytest.raises(ValueError, match="all groups have one of their own"):
        own.learning_rate = 0.25
    listed = SGD([{"params": [a]}, {"params": [b], "lr": [0.5, 0.5]}], 0.1)
    with pytest.raises(ValueError, match="same length"):
        listed.learning_rate = [0.1]


def test_rates_are_one_float_per_parameter():
    parameters = [Parameter([1.0], name) for name in "abc"]
    assert Optimizer(0.5, parameters).rates() == (0.5, 0.5, 0.5)
    groups = [{"params": parameters[:2]}, {"params": parameters[2:], "lr": WarmUpLR(0.1, 4)}]
    assert Optimizer(0.5, groups).rates() == (0.5, 0.5, 0.0)


def test_get_lr_is_pure():
    opt = make([0.5, 0.25])
    assert opt.get_lr() == opt.get_lr() == 0.5
    assert opt.global_step == 0


# ---- get_lr_parameter


def test_get_lr_parameter_of_a_fixed_rate():
    opt = make(0.5)
    (w,) = opt.parameters
    assert opt.get_lr_parameter(w) is opt.learning_rate
    assert opt.get_lr_parameter([w, w]) == [opt.learning_rate, opt.learning_rate]
    assert opt.get_lr_parameter([]) == []
    assert opt.get_lr_parameter(w).asnumpy() == 0.5


def test_get_lr_parameter_of_groups():
    a, b, c, d = (Parameter([1.0], name) for name in "abcd")
    schedule = WarmUpLR(0.1, 4)
    groups = [
        {"params": [a], "lr": 0.3},
        {"params": [b], "lr": [0.5, 0.25]},
        {"params": [c], "lr": schedule},
        {"params": [d]},
    ]
    opt = Optimizer(0.1, groups)
    rates = opt.get_lr_parameter([a, b, c, d])
    assert rates[0].asnumpy() == 0.3
    np.testing.assert_array_equal(rates[1].asnumpy(), [0.5, 0.25])
    assert rates[2] is schedule
    assert rates[3].name == "learning_rate"


@pytest.mark.parametrize(
    ("choose", "error", "message"),
    [
        (tuple, TypeError, "param must be a Parameter or a list of them, got tuple"),
        (lambda ps: ps, TypeError, "param must be a Parameter or a list of them, got ParameterTuple"),
        (lambda ps: "w", TypeError, "param must be a Parameter or a list of them, got str"),
        (lambda ps: [ps[0], 1], TypeError, r"param\[1\] must be a Parameter or a list of them, got int"),
        (lambda ps: Parameter([1.0], "w"), ValueError, "param must be in this optimizer, got 'w'"),
        (lambda ps: [Parameter([1.0], "v")], ValueError, r"param\[0\] must be in this optimizer, got 'v'"),
    ],
)
def test_get_lr_parameter_is_checked(choose, error, message):
    opt = make(0.1)
    with pytest.raises(error, match=message):
        opt.get_lr_parameter(choose(opt.parameters))


# ---- weight decay


@pytest.mark.parametrize("decay", [0, 1, 0.5, np.float32(0.5), np.int64(1)])
def test_weight_decay_is_a_number(decay):
    opt = make(0.1, weight_decay=decay, loss_scale=4)
    assert type(opt.weight_decay) is float
    assert opt.weight_decay == float(decay)
    assert opt.exec_weight_decay == (decay > 0)
    assert opt.get_weight_decay() == 4 * float(decay)


@pytest.mark.parametrize(
    ("decay", "error", "message"),
    [
        ("0.1", TypeError, "weight_decay must be a number or a callable of the step, got '0.1'"),
        (None, TypeError, "weight_decay must be a number or a callable of the step, got None"),
        (True, TypeError, "weight_decay must be a number or a callable of the step, got True"),
        ([0.1], TypeError, "weight_decay must be a number or a callable"),
        (np.array(0.1), TypeError, "weight_decay must be a number or a callable"),
        (-0.1, ValueError, r"weight_decay must be >= 0, got -0\.1"),
        (math.nan, ValueError, "weight_decay must be finite, got nan"),
        (math.inf, ValueError, "weight_decay must be finite, got inf"),
    ],
)
def test_weight_decay_is_checked(decay, error, message):
    with pytest.raises(error, match=message):
        make(0.1, weight_decay=decay)


def test_callable_weight_decay_is_called_with_the_step():
    calls = []

    def decay(step):
        calls.append(step)
        return 0.5 * step

    opt, gradients = stepper(1.0, weight_decay=decay, loss_scale=2.0)
    assert opt.weight_decay is decay
    assert opt.exec_weight_decay
    zero = [np.zeros_like(gradients[0])]
    opt(zero)
    np.testing.assert_array_equal(opt.parameters[0], [1, 2])
    opt(zero)
    np.testing.assert_array_equal(opt.parameters[0], [0.5, 1])
    assert calls == [0, 1]
    assert opt.get_weight_decay() == 2.0


def test_callable_weight_decay_in_groups():
    a, b, c = (Parameter([1.0], name) for name in "abc")
    groups = [{"params": [a, b], "weight_decay": lambda step: step}, {"params": [c]}]
    opt = Optimizer(0.1, groups, weight_decay=0.5, loss_scale=2.0)
    assert opt.decay_flags == (True, True, True)
    opt.global_step = 3
    assert opt.get_weight_decay() == (6.0, 6.0, 1.0)


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (-1.0, ValueError, r"weight_decay at step 0 must be >= 0, got -1\.0"),
        (math.nan, ValueError, "weight_decay at step 0 must be finite, got nan"),
        ("1", TypeError, "weight_decay at step 0 must be a number, got '1'"),
    ],
)
def test_callable_weight_decay_is_checked_at_the_step(value, error, message):
    opt, gradients = stepper(0.1, weight_decay=lambda step: value)
    before = state(opt)
    with pytest.raises(error, match=message):
        opt(gradients)
    assert state(opt) == before


# ---- messages and arrays of other kinds


@pytest.mark.parametrize("rates", [[0.1], (0.1,), np.array([0.1])])
def test_end_of_one_rate_explains_lists(rates):
    opt = make(rates)
    opt.global_step = 1
    with pytest.raises(
        IndexError, match="a list holds the rate of every step: pass the number itself for a fixed rate"
    ):
        opt.get_lr()


def test_end_of_several_rates_does_not():
    opt = make([0.1, 0.2])
    opt.global_step = 2
    with pytest.raises(IndexError) as raised:
        opt.get_lr()
    assert "fixed rate" not in str(raised.value)


def fails():
    raise FloatingPointError("underflow")


@pytest.mark.parametrize(
    "result", [lambda: 10.0**400, lambda: 1 / 0, fails, lambda: math.inf, lambda: np.float64(math.inf)]
)
def test_arithmetic_of_a_schedule_names_it(result):
    class Bad(LearningRateSchedule):
        def construct(self, global_step):
            return result()

    class Worse(Bad):
        def __call__(self, global_step):
            return result()

    for kind in (Bad, Worse):
        opt = make(kind())
        opt.global_step = 3
        with pytest.raises(ValueError, match=f"learning_rate at step 3 must be finite, got .* from {kind.__name__}"):
            opt.get_lr()


@pytest.mark.parametrize("result", [lambda: 10.0**400, lambda: 1 / 0, lambda: math.inf])
def test_arithmetic_of_a_decay_names_it(result):
    opt = make(0.1, weight_decay=lambda step: result())
    with pytest.raises(ValueError, match="weight_decay at step 0 must be finite, got"):
        opt.get_weight_decay()


@pytest.mark.parametrize("rate", [np.ma.array(0.5, mask=True), np.ma.array([0.5, 0.25]), [0.5, np.ma.array(0.25)]])
def test_masked_rates_are_refused(rate):
    with pytest.raises(TypeError, match="learning_rate.* must not be a masked array"):
        make(rate)
    if np.ndim(rate) == 0:
        with pytest.raises(TypeError, match="Schedule.construct must not be a masked array"):
            make(Schedule(rate)).get_lr()
        with pytest.raises(TypeError, match="weight_decay at step 0 must not be a masked array"):
            make(0.1, weight_decay=lambda step: rate).get_weight_decay()


def test_rates_of_16_bits():
    assert make(np.array(0.5, ml_dtypes.bfloat16)).get_lr() == 0.5
    assert make(np.array([0.5, 0.25], np.float16)).get_lr() == 0.5
    assert make([np.array(0.5), 0.25]).get_lr() == 0.5


def test_integer_beyond_float64_is_not_finite():
    with pytest.raises(ValueError, match="learning_rate must be finite, got 1000"):
        make(10**400)
