"""Attributes that can be assigned between steps, and those that cannot."""

import numpy as np
import pytest
from cases import CASES, conv_arrays, gradients_of, state_of

import optimcore
from optimcore import Parameter, ParameterTuple

ONE = (np.ones(2, np.float32),)

# class, arguments, setting, other values that take effect from the next step on
SETTINGS = [
    ("SGD", dict(momentum=0.9), "momentum", [0.5, 0.0]),
    ("SGD", dict(momentum=0.0), "momentum", [0.5]),
    ("SGD", dict(momentum=0.9), "dampening", [0.5]),
    ("SGD", dict(momentum=0.9), "nesterov", [True]),
    ("SGD", dict(momentum=0.9, nesterov=True), "nesterov", [False]),
    ("Momentum", dict(learning_rate=0.1, momentum=0.9), "momentum", [0.5, 0]),
    ("Momentum", dict(learning_rate=0.1, momentum=0.9), "use_nesterov", [True]),
    ("Adam", dict(), "beta1", [0.5]),
    ("Adam", dict(), "beta2", [0.5]),
    ("Adam", dict(), "eps", [0.5]),
    ("Adam", dict(), "use_nesterov", [True]),
    ("LazyAdam", dict(), "beta1", [0.5]),
    ("AdamOffload", dict(), "eps", [0.5]),
    ("AdamWeightDecay", dict(), "beta1", [0.5]),
    ("AdamWeightDecay", dict(), "beta2", [0.5]),
    ("AdamWeightDecay", dict(), "eps", [0.5]),
    ("AdaMax", dict(), "beta1", [0.5]),
    ("AdaMax", dict(), "beta2", [0.5]),
    ("AdaMax", dict(), "eps", [0.5]),
    ("Adagrad", dict(), "eps", [0.5]),
    ("Adagrad", dict(), "update_slots", [False]),
    ("Adadelta", dict(), "rho", [0.5, 1]),
    ("Adadelta", dict(), "epsilon", [0.5]),
    ("ASGD", dict(), "lambd", [0.5]),
    ("ASGD", dict(), "alpha", [0.5]),
    ("ASGD", dict(t0=0.0), "t0", [1.0]),
    ("Rprop", dict(), "etas", [(0.25, 2.0)]),
    ("Rprop", dict(), "step_sizes", [(0.5, 1.0)]),
    ("FTRL", dict(l1=0.1), "l1", [0.5]),
    ("FTRL", dict(), "l2", [0.5]),
    ("FTRL", dict(), "lr_power", [-0.25]),
    ("FTRL", dict(lr_power=-0.25), "lr_power", [-0.5]),
    ("ProximalAdagrad", dict(), "l1", [0.5]),
    ("ProximalAdagrad", dict(), "l2", [0.5]),
    ("RMSProp", dict(), "decay", [0.5]),
    ("RMSProp", dict(), "momentum", [0.5]),
    ("RMSProp", dict(), "epsilon", [0.5]),
    ("Lamb", dict(learning_rate=0.1), "beta1", [0.5]),
    ("Lamb", dict(learning_rate=0.1), "beta2", [0.5]),
    ("Lamb", dict(learning_rate=0.1), "eps", [0.5]),
    ("AdaFactor", dict(), "eps", [(0.5, 0.5)]),
    ("AdaFactor", dict(), "clip_threshold", [0.5]),
    ("AdaFactor", dict(), "decay_rate", [0.5]),
    ("AdaFactor", dict(), "beta1", [0.5]),
    ("AdaFactor", dict(), "scale_parameter", [False]),
]
# beside them, what every optimizer has
SHARED = [("learning_rate", 0.5), ("weight_decay", 0.25), ("loss_scale", 4.0)]


def copy_state(source, target):
    """Let an optimizer go on from the state of another one."""
    for name, value in vars(source).items():
        mine = getattr(target, name, None)
        if name.startswith("_"):
            continue
        if isinstance(value, ParameterTuple):
            for one, other in zip(value, mine, strict=True):
                if one.data.flags.writeable:
                    other.set_data(one)
        elif isinstance(value, Parameter):
            mine.set_data(value)
        elif isinstance(value, np.ndarray):
            mine[...] = value
    for one, other in zip(source.parameters, target.parameters, strict=True):
        other.set_data(one)
    target.global_step = source.global_step


def build(cls, arguments):
    arrays = conv_arrays()
    return getattr(optimcore, cls)([Parameter(a, name) for name, a in arrays.items()], **arguments)


@pytest.mark.parametrize(("cls", "arguments", "name", "values"), SETTINGS, ids=lambda v: str(v))
def test_setting_takes_effect_in_the_next_step(cls, arguments, name, values):
    for value in values:
        optimizer, made, unchanged = (build(cls, a) for a in (arguments, arguments | {name: value}, arguments))
        for seed in range(2):
            optimizer(gradients_of(conv_arrays(), seed))
        copy_state(optimizer, made)
        copy_state(optimizer, unchanged)
        setattr(optimizer, name, value)
        assert getattr(optimizer, name) == getattr(made, name)
        for seed in (2, 3):
            for one in (optimizer, made, unchanged):
                one(gradients_of(conv_arrays(), seed))
        assert state_of(optimizer) == state_of(made)
        assert state_of(optimizer) != state_of(unchanged)


def test_table_of_settings_is_complete():
    found = {(type(case.build(conv_arrays())).__name__, s) for case in CASES for s in settings_of(case)}
    assert found == {(cls, name) for cls, _, name, _ in SETTINGS if cls not in ("LazyAdam", "AdamOffload")} | {
        (cls, name) for cls in ("LazyAdam", "AdamOffload") for name in ("beta1", "beta2", "eps", "use_nesterov")
    } | {("LARS", name) for name in ("epsilon", "coefficient", "use_clip")}


def settings_of(case):
    return case.build(conv_arrays())._settings


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize(("name", "value"), SHARED)
def test_shared_setting_takes_effect_in_the_next_step(case, name, value):
    arrays = conv_arrays()
    gradients = gradients_of(arrays)
    optimizer, unchanged = case.build(arrays), case.build(conv_arrays())
    for one in (optimizer, unchanged):
        one(gradients)
    try:
        setattr(optimizer, name, value)
    except ValueError as error:
        assert case.cls == "AdaFactor" and name in ("loss_scale", "learning_rate"), error
        return
    for one in (optimizer, unchanged):
        one(gradients)
    if case.cls == "Rprop" and name != "weight_decay" or (case.cls, name) == ("AdamWeightDecay", "loss_scale"):
        return  # only signs of gradients count, and rates in the first step; Adam hardly depends on the scale
    assert state_of(optimizer) != state_of(unchanged)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_setting_is_checked_as_in_the_constructor(case):
    optimizer = case.build(conv_arrays())
    for name in [*optimizer._settings, "weight_decay", "loss_scale", "learning_rate"]:
        before = getattr(optimizer, name)
        for bad in ("x", -1.5, [0.1, "x"], object()):
            with pytest.raises((TypeError, ValueError, AttributeError), match=name):
                if (name, bad) in [("lr_power", -1.5), ("lambd", -1.5), ("alpha", -1.5), ("t0", -1.5)]:
                    bad = np.nan
                if (name, bad) in [("epsilon", -1.5), ("coefficient", -1.5)] and case.lars is not None:
                    bad = np.nan
                setattr(optimizer, name, bad)
        assert getattr(optimizer, name) is before


@pytest.mark.parametrize("case", CASES, ids=str)
def test_what_cannot_be_honoured_is_refused(case):
    optimizer = case.build(conv_arrays())
    before = dict(vars(optimizer))
    for name, value in vars(getattr(optimizer, "optimizer", optimizer)).items():
        if not name.startswith("_") and name not in getattr(optimizer, "optimizer", optimizer)._settings:
            with pytest.raises(AttributeError, match=f"{name} of .* cannot be assigned: "):
                setattr(optimizer, name, value)
    for name in ("max_grad_nrom", "learning_rat", "foo"):
        with pytest.raises(AttributeError, match=f"has no attribute '{name}'"):
            setattr(optimizer, name, 1.0)
    with pytest.raises(AttributeError):
        optimizer.parameters = ()
    assert vars(optimizer) == before


def test_messages_say_what_to_do():
    opt = optimcore.SGD([Parameter(np.ones(2), "w")], momentum=0.9)
    for name, value, message in [
        ("accum", opt.accum, r"opt.accum\[i\].set_data\(values\)"),
        ("flags", np.ones(1), r"opt.flags\[:\] = values"),
        ("decay_flags", (True,), "make a new optimizer"),
        ("need_scale", True, "it follows from loss_scale, which can be"),
        ("max_grad_nrom", 1.0, "did you mean 'max_grad_norm'"),
    ]:
        with pytest.raises(AttributeError, match=message):
            setattr(opt, name, value)
    adam = optimcore.Adam([Parameter(np.ones(2), "w")])
    with pytest.raises(AttributeError, match=r"opt.beta1_power.set_data\(value\)"):
        adam.beta1_power = 0.35


def test_subclass_of_the_users_own_may_add_attributes():
    class Mine(optimcore.SGD):
        def __init__(self, params):
            self.before = 1
            super().__init__(params)
            self.after = 2

    opt = Mine([Parameter(np.ones(2), "w")])
    opt.before, opt.after, opt.later = 3, 4, 5
    assert (opt.before, opt.after, opt.later) == (3, 4, 5)
    with pytest.raises(AttributeError, match="accum of Mine cannot be assigned"):
        opt.accum = opt.accum


def test_numbers_behind_a_step_are_honoured():
    def run(resume):
        w = np.zeros(2)
        opt = optimcore.SGD([Parameter(w, "w")], learning_rate=0.5, momentum=0.5, dampening=0.5)
        opt((np.ones(2),))
        if resume:
            w[...], opt.flags[:] = 0, 1
            opt.accum[0].set_data([0, 0])
        opt((np.ones(2),))
        return w.tolist()

    assert run(False) == [-1.0, -1.0] and run(True) == [-0.5, -0.5]


def test_first_step_with_momentum_follows_when_momentum_is_set_later():
    w = np.ones(2)
    opt = optimcore.SGD([Parameter(w, "w")], learning_rate=1.0, momentum=0.0, dampening=0.5)
    opt((np.ones(2),))
    assert opt.flags.tolist() == [1] and opt.use_lazy is True
    opt.momentum = 0.5
    assert opt.use_lazy is False
    opt((np.ones(2),))
    opt((np.ones(2),))
    assert w.tolist() == [1 - 1 - 1 - (0.5 + 0.5)] * 2
    assert opt.flags.tolist() == [0]


def test_rows_get_what_they_have_missed_before_a_setting_changes():
    tables = [np.ones((4, 2)), np.ones((4, 2))]
    opts = [optimcore.Momentum([Parameter(t, "t")], 0.1, 0.9) for t in tables]
    opts[0].use_lazy = "catch_up"
    for i, momentum in enumerate((0.5, 0.25, 0.75)):
        for opt in opts:
            opt((optimcore.RowTensor([i], np.ones((1, 2)), (4, 2)),))
            opt.momentum = momentum
    opts[0].flush()
    np.testing.assert_allclose(*tables, rtol=1e-12)


def test_momentum_goes_and_comes_with_catch_up():
    tables = [np.ones((4, 2)), np.ones((4, 2))]
    opts = [optimcore.SGD([Parameter(t, "t")], 0.1, 0.9) for t in tables]
    opts[0].use_lazy = "catch_up"
    for i, momentum in enumerate((0.0, 0.5, 0.5)):
        for opt in opts:
            opt((optimcore.RowTensor([i], np.ones((1, 2)), (4, 2)),))
            opt.momentum = momentum
    assert opts[0].use_lazy == "catch_up"
    opts[0].flush()
    np.testing.assert_allclose(*tables, rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda ps, eps: optimcore.Adam(ps, eps=eps), "eps"),
        (lambda ps, eps: optimcore.AdamWeightDecay(ps, eps=eps), "eps"),
        (lambda ps, eps: optimcore.AdaMax(ps, eps=eps), "eps"),
        (lambda ps, eps: optimcore.Adagrad(ps, eps=eps), "eps"),
        (lambda ps, eps: optimcore.Adadelta(ps, epsilon=eps), "epsilon"),
        (lambda ps, eps: optimcore.RMSProp(ps, epsilon=eps), "epsilon"),
        (lambda ps, eps: optimcore.Lamb(ps, 0.1, eps=eps), "eps"),
    ],
)
def test_eps_counts_in_the_arithmetic(make, name, dtype):
    w = Parameter(np.ones(2, dtype))
    if dtype == np.float64:
        assert getattr(make([w], 1e-50), name) == 1e-50
        return
    with pytest.raises(ValueError, match=rf"{name} must be at least 1.4e-45 in float32 arithmetic, got 1e-50"):
        make([w], 1e-50)
    assert w.name is None  # nothing has changed
    opt = make([w], 1e-6)
    with pytest.raises(ValueError, match=f"{name} must be at least 1.4e-45"):
        setattr(opt, name, 1e-50)
    assert getattr(opt, name) == 1e-6


def test_numbers_beyond_the_arithmetic_are_refused():
    w = np.ones(2, np.float32)
    with pytest.raises(ValueError, match=r"momentum must be at most 3.4e\+38 in float32 arithmetic, got 1e\+39"):
        optimcore.Momentum([Parameter(w, "w")], 0.1, 1e39)
    with pytest.raises(ValueError, match=r"loss_scale must be at most 3.4e\+38"):
        optimcore.SGD([Parameter(w, "w")], loss_scale=1e50)
    # a huge rate may come from a schedule: it counts as the largest number
    optimcore.SGD([Parameter(w, "w")], 1e39)((np.array([0, 10], np.float32),))
    assert w.tolist() == [1, -np.inf]


# ---- decay and loss scale


def test_decay_that_is_apart_from_the_gradient_does_not_carry_the_loss_scale():
    class Own(optimcore.Optimizer):
        def __init__(self, params, **options):
            super().__init__(0.1, params, **options)
            self.m, self.v = self.make_slot("m"), self.make_slot("v")
            self.build_plan("adam_weight_decay", self.m, self.v)

        def hyper(self, lr):
            return lr, 0.9, 0.999, 1e-6

    results = []
    for loss_scale in (1.0, 1024.0):
        w = np.ones(2, np.float32)
        opt = Own([Parameter(w, "w")], weight_decay=0.01, loss_scale=loss_scale)
        opt((np.full(2, loss_scale, np.float32),))
        results.append(w.tolist())
    assert results[0] == results[1]


def test_decay_of_groups_with_their_own_stays():
    parameters = [Parameter(np.ones(2, np.float32), name) for name in "ab"]
    opt = optimcore.SGD([{"params": parameters[:1]}, {"params": parameters[1:], "weight_decay": 0.5}], 1.0)
    opt.weight_decay = 0.25
    assert opt.weight_decay == opt.group_weight_decay == (0.25, 0.5)
    opt((np.zeros(2, np.float32),) * 2)
    assert [p.data[0] for p in parameters] == [0.75, 0.5]
    opt.weight_decay = lambda step: 0.5 * step
    opt((np.zeros(2, np.float32),) * 2)
    assert [p.data[0] for p in parameters] == [0.375, 0.25]
    own = optimcore.SGD([{"params": parameters, "weight_decay": 0.5}])
    with pytest.raises(ValueError, match="all groups have one of their own"):
        own.weight_decay = 0.25


def test_loss_scale_can_follow_a_manager():
    w = np.zeros(2, np.float32)
    opt = optimcore.SGD([Parameter(w, "w")], 1.0, weight_decay=0.5, loss_scale=8.0)
    opt.loss_scale = 2
    assert (opt.loss_scale, opt.reciprocal_scale, opt.need_scale, opt.get_weight_decay()) == (2.0, 0.5, True, 1.0)
    opt((np.full(2, 2, np.float32),))
    assert w.tolist() == [-1, -1]
    opt.loss_scale = 1
    assert opt.need_scale is False
    opt((np.ones(2, np.float32),))
    assert w.tolist() == [-1 - (1 - 0.5)] * 2


@pytest.mark.parametrize(
    ("cls", "name"), [("Adagrad", "accum"), ("ProximalAdagrad", "accum"), ("FTRL", "initial_accum")]
)
def test_slots_start_within_the_arithmetic(cls, name):
    w = Parameter(np.ones(2, np.float32))
    with pytest.raises(ValueError, match=rf"{name} must be at most 3.4e\+38 in float32 arithmetic, got 1e\+39"):
        getattr(optimcore, cls)([w], **{name: 1e39})
    assert w.name is None


# ---- absent rows

SHAPE = (6, 2)


def table_after_steps(cls, options, dense=False, **settings):
    table = np.ones(SHAPE)
    opt = getattr(optimcore, cls)([Parameter(table, "t")], weight_decay=0.5, **{"learning_rate": 0.1, **options})
    for name, value in settings.items():
        setattr(opt, name, value)
    for step in range(4):
        gradient = optimcore.RowTensor([step % 2], np.ones((1, 2)), SHAPE)
        opt((np.asarray(gradient) if dense else gradient,))
    opt.flush()
    return table


@pytest.mark.parametrize(
    ("cls", "options"),
    [
        *[
            (cls, {})
            for cls in ("Adam", "AdamOffload", "RMSProp", "AdaMax", "Adadelta", "ASGD", "Rprop", "AdamWeightDecay")
        ],
        *[(cls, dict(momentum=0.9)) for cls in ("Momentum", "SGD")],
    ],
)
def test_decay_of_absent_rows_is_the_dense_rule(cls, options):
    dense, plain = table_after_steps(cls, options, dense=True), table_after_steps(cls, options)
    np.testing.assert_array_equal(table_after_steps(cls, options, decay_absent_rows=True), dense)
    assert (plain[2:] == 1).all() == (cls not in ("AdamWeightDecay", "ASGD"))  # these have a decay of their own


@pytest.mark.parametrize("cls", ["Momentum", "SGD"])
def test_decay_of_absent_rows_that_catch_up(cls):
    options = dict(momentum=0.9)
    caught = table_after_steps(cls, options, use_lazy="catch_up", decay_absent_rows=True)
    np.testing.assert_allclose(caught, table_after_steps(cls, options, dense=True), rtol=1e-12)


def test_decay_of_absent_rows_that_cannot_be():
    opt = optimcore.Adam([Parameter(np.ones(SHAPE), "t")], weight_decay=0.5)
    opt.use_lazy = "catch_up"
    with pytest.raises(ValueError, match="decay_absent_rows must be False with use_lazy='catch_up' and weight decay"):
        opt.decay_absent_rows = True
    opt.use_lazy = False
    opt.decay_absent_rows = True
    with pytest.raises(ValueError, match="decay_absent_rows must be False with use_lazy='catch_up' and weight decay"):
        opt.use_lazy = "catch_up"
    assert (opt.use_lazy, opt.decay_absent_rows) == (False, True)
    with pytest.raises(TypeError, match="decay_absent_rows must be a bool, got 1"):
        opt.decay_absent_rows = 1
    with pytest.raises(ValueError, match="decay_absent_rows must be False for Adagrad, which is lazy"):
        optimcore.Adagrad([Parameter(np.ones(SHAPE), "t")]).decay_absent_rows = True
