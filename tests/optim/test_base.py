"""Tests of the base class: attributes, the step, the three gradient methods, inherited properties."""

import math

import numpy as np
import pytest

from optimcore import SGD, Adam, Momentum, Optimizer, Parameter

SHAPES = {"conv.weight": (4, 3, 2, 2), "fc.weight": (3, 5), "bn.gamma": (4,), "bn.beta": (4,), "scale": ()}


class Plain(Optimizer):
    """A user-defined optimizer: plain gradient descent on the inherited methods."""

    def construct(self, gradients):
        gradients = self.scale_grad(self.gradients_centralization(self.decay_weight(gradients)))
        rates = self.get_lr() if self.is_group_lr else (self.get_lr(),) * self.param_length
        for p, g, lr in zip(self.parameters, gradients, rates, strict=True):
            if g is not None:
                p -= p.dtype.type(lr) * g
        return "done"


def make_parameters(dtype=np.float32, seed=0):
    """Return parameters of all kinds of shape."""
    rng = np.random.default_rng(seed)
    return [Parameter(rng.standard_normal(shape).astype(dtype), name) for name, shape in SHAPES.items()]


def make_gradients(dtype=np.float32, seed=1):
    """Return gradients for `make_parameters`."""
    rng = np.random.default_rng(seed)
    return tuple(np.asarray(rng.standard_normal(shape)).astype(dtype) for shape in SHAPES.values())


def make_groups(parameters):
    """Group parameters with all keys in use."""
    conv, dense, *others = parameters
    return [
        {"params": [conv], "weight_decay": 0.25, "grad_centralization": True},
        {"params": others, "lr": 0.05, "grad_centralization": True},
        {"params": [dense], "lr": 0.02, "weight_decay": 0.0},
        {"order_params": [dense, conv, *others]},
    ]


def order_like(optimizer, gradients):
    """Bring gradients into the order of the optimizer."""
    by_name = dict(zip(SHAPES, gradients, strict=True))
    return tuple(by_name[p.name] for p in optimizer.parameters)


# ---- attributes


def test_attributes():
    parameters = make_parameters()
    opt = Optimizer(0.1, parameters, weight_decay=0.5, loss_scale=4)
    assert tuple(opt.parameters) == tuple(parameters)
    assert (opt.weight_decay, opt.loss_scale, opt.reciprocal_scale) == (0.5, 4.0, 0.25)
    assert type(opt.loss_scale) is float
    assert opt.need_scale is opt.exec_weight_decay is opt.unique is True
    assert opt.decay_flags == (True, True, False, False, True)
    assert opt.grad_centralization_flags == (False,) * 5
    assert opt.optim_filter == (True,) * 5
    assert opt.is_group is opt.is_group_lr is opt.is_group_params_ordered is opt.dynamic_lr is False
    assert opt.use_parallel is False
    assert (opt.global_step, opt.param_length, opt.target) == (0, 5, "CPU")
    for name in ("group_params", "group_lr", "group_weight_decay", "group_grad_centralization"):
        assert not hasattr(opt, name)


def test_defaults():
    opt = Optimizer(0.1, make_parameters())
    assert (opt.weight_decay, opt.loss_scale) == (0.0, 1.0)
    assert opt.need_scale is opt.exec_weight_decay is False


@pytest.mark.parametrize(
    ("name", "decayed"),
    [
        ("xbeta1", False),
        ("alphabetagamma", False),
        ("bn.gamma", False),
        ("Beta", True),
        ("LayerNorm.weight", True),
        ("bias", True),
    ],
)
def test_name_filter(name, decayed):
    assert Optimizer(0.1, [Parameter([1.0], name)]).decay_flags == (decayed,)


def test_name_filter_can_be_overridden():
    class DecaysAll(Optimizer):
        def decay_filter(self, name):
            return True

    assert DecaysAll(0.1, make_parameters()).decay_flags == (True,) * 5


@pytest.mark.parametrize("scale", [1, 0.5, 1024.0, np.float32(8), np.int64(8)])
def test_loss_scale_is_a_number(scale):
    assert Optimizer(0.1, make_parameters(), loss_scale=scale).loss_scale == float(scale)


@pytest.mark.parametrize(
    ("scale", "error", "message"),
    [
        ("1", TypeError, "loss_scale must be a number, got '1'"),
        (None, TypeError, "loss_scale must be a number, got None"),
        (True, TypeError, "loss_scale must be a number, got True"),
        (np.array(1.0), TypeError, "loss_scale must be a number, got array"),
        (0, ValueError, "loss_scale must be > 0, got 0"),
        (-1.0, ValueError, r"loss_scale must be > 0, got -1\.0"),
        (math.nan, ValueError, "loss_scale must be finite, got nan"),
        (math.inf, ValueError, "loss_scale must be finite, got inf"),
    ],
)
def test_loss_scale_is_checked(scale, error, message):
    with pytest.raises(error, match=message):
        Optimizer(0.1, make_parameters(), loss_scale=scale)


# ---- the step


def test_base_class_has_no_rule():
    opt = Optimizer(0.1, make_parameters())
    with pytest.raises(NotImplementedError, match=r"Optimizer must define construct\(self, gradients\)"):
        opt(make_gradients())
    assert opt.global_step == 0


@pytest.mark.parametrize("cls", [Plain, SGD])
def test_step_is_counted_once_per_call(cls):
    opt = cls(params=make_parameters(), learning_rate=0.1) if cls is SGD else cls(0.1, make_parameters())
    results = [opt(make_gradients()) for _ in range(3)]
    assert opt.global_step == 3
    assert results == [True if cls is SGD else "done"] * 3


def test_listed_rates_advance_in_a_user_defined_optimizer():
    w = Parameter([0.0], "w")
    opt = Plain([1.0, 0.5, 0.25], [w])
    for expected in (-1.0, -1.5, -1.75):
        opt([np.ones(1, np.float32)])
        assert w[0] == expected


def test_global_step_can_be_set():
    w = Parameter([0.0], "w")
    opt = SGD([w], [1.0, 0.5, 0.25])
    opt.global_step = 2
    opt([np.ones(1, np.float32)])
    assert w[0] == -0.25
    assert opt.global_step == 3


def test_failing_construct_does_not_count():
    class Failing(Optimizer):
        def construct(self, gradients):
            raise FloatingPointError

    opt = Failing(0.1, make_parameters())
    with pytest.raises(FloatingPointError):
        opt(make_gradients())
    assert opt.global_step == 0


BUILT_IN = [
    lambda ps: SGD(ps, 0.1, momentum=0.9, dampening=0.5, weight_decay=0.1),
    lambda ps: Momentum(ps, 0.1, 0.9, weight_decay=0.1),
    lambda ps: Adam(ps, 0.1, weight_decay=0.1),
    lambda ps: Adam(ps, 0.1, use_amsgrad=True),
]


def state(opt):
    """Return copies of all that a step may change."""
    tuples = ("parameters", "accum", "stat", "moments", "moment1", "moment2", "vhat")
    values = [np.array(p) for name in tuples for p in getattr(opt, name, ())]
    powers = [float(getattr(opt, name, 0)) for name in ("beta1_power", "beta2_power")]
    return [v.tolist() for v in values], powers, opt.global_step


def replace(gradients, i, gradient):
    """Return gradients with entry i exchanged."""
    return (*gradients[:i], gradient, *gradients[i + 1 :])


BAD_GRADIENTS = [
    (lambda gs: gs[:-1], ValueError, "gradients must"),
    (lambda gs: gs + gs[:1], ValueError, "gradients must"),
    (lambda gs: gs[0], TypeError, "gradients must be a tuple or list"),
    (lambda gs: iter(gs), TypeError, "gradients must be a tuple or list"),
    (lambda gs: None, TypeError, "gradients must be a tuple or list"),
    (lambda gs: replace(gs, 4, np.ones(2, np.float32)), ValueError, "scale"),
    (lambda gs: replace(gs, 3, np.ones((4, 1), np.float32)), ValueError, "bn.beta"),
    (lambda gs: replace(gs, 3, np.ones(4, np.int64)), TypeError, "bn.beta"),
    (lambda gs: replace(gs, 3, np.ones(4, np.complex64)), TypeError, "bn.beta"),
    (lambda gs: replace(gs, 3, "gradient"), TypeError, "bn.beta"),
]


@pytest.mark.parametrize("make", BUILT_IN, ids=["SGD", "Momentum", "Adam", "amsgrad"])
@pytest.mark.parametrize(("spoil", "error", "message"), BAD_GRADIENTS)
def test_step_with_bad_gradients_changes_nothing(make, spoil, error, message):
    opt = make(make_parameters())
    opt((None, *make_gradients()[1:]))
    before = state(opt)
    with pytest.raises(error, match=message):
        opt(spoil(make_gradients()))
    assert state(opt) == before


@pytest.mark.parametrize("make", BUILT_IN, ids=["SGD", "Momentum", "Adam", "amsgrad"])
def test_none_skips_a_parameter(make):
    opt = make(make_parameters())
    gradients = make_gradients()
    before = [np.array(p) for p in opt.parameters]
    opt(replace(gradients, 1, None))
    changed = [not np.array_equal(p, b) for p, b in zip(opt.parameters, before, strict=True)]
    assert changed == [True, False, True, True, True]
    assert opt.global_step == 1


def test_parameters_must_not_share_memory():
    data = np.ones(6, np.float32)
    SGD([Parameter(data[:3], "a"), Parameter(data[3:], "b")])
    with pytest.raises(ValueError, match="parameters must not share memory, got 'a' and 'b'"):
        SGD([Parameter(data[:4], "a"), Parameter(data[3:], "b")])


# ---- gradient methods


METHODS = ["decay_weight", "gradients_centralization", "scale_grad"]


@pytest.mark.parametrize("method", METHODS)
def test_nothing_to_do_returns_the_same_tuple(method):
    opt = Optimizer(0.1, make_parameters())
    gradients = make_gradients()
    assert getattr(opt, method)(gradients) is gradients
    assert getattr(opt, method)(list(gradients)) == gradients


@pytest.mark.parametrize("method", METHODS)
def test_nothing_to_do_still_fills_out(method):
    opt = Optimizer(0.1, make_parameters())
    gradients = make_gradients()
    out = tuple(np.empty_like(g) for g in gradients)
    result = getattr(opt, method)(gradients, out=out)
    for r, o, g in zip(result, out, gradients, strict=True):
        assert r is o
        np.testing.assert_array_equal(o, g)


@pytest.mark.parametrize("loss_scale", [1.0, 4.0])
@pytest.mark.parametrize("method", METHODS)
def test_gradients_are_counted_by_every_method(method, loss_scale):
    opt = Optimizer(0.1, make_parameters(), loss_scale=loss_scale)
    with pytest.raises(ValueError, match="gradients must"):
        getattr(opt, method)(make_gradients()[1:])
    with pytest.raises(TypeError, match="gradients must be a tuple or list"):
        getattr(opt, method)(np.ones(5, np.float32))


def test_decay_weight():
    opt = Optimizer(0.1, make_parameters(), weight_decay=0.5, loss_scale=4.0)
    gradients = make_gradients()
    before = [g.copy() for g in gradients]
    decayed = opt.decay_weight(gradients)
    for w, g, new, old, flag in zip(opt.parameters, gradients, decayed, before, opt.decay_flags, strict=True):
        expected = g + np.float32(2.0) * w if flag else g
        np.testing.assert_array_equal(new, expected)
        np.testing.assert_array_equal(g, old)
        assert new.dtype == np.float32


def test_decay_weight_in_groups():
    opt = Optimizer(0.1, make_groups(make_parameters()), weight_decay=0.5)
    gradients = order_like(opt, make_gradients())
    decayed = opt.decay_weight(gradients)
    assert opt.weight_decay == (0.0, 0.25, 0.5, 0.5, 0.5)
    for w, g, new, decay in zip(opt.parameters, gradients, decayed, opt.weight_decay, strict=True):
        np.testing.assert_array_equal(new, g + np.float32(decay) * w)


def test_centralization_is_for_convolution_kernels_in_groups_that_ask():
    parameters = [Parameter(np.ones((2, 3, 2), np.float32), name) for name in "abc"]
    parameters += [Parameter(np.ones((2, 16), np.float32), "dense"), Parameter(np.ones(16, np.float32), "bias")]
    groups = [
        {"params": [parameters[0], *parameters[3:]], "grad_centralization": True},
        {"params": [parameters[1]], "grad_centralization": False},
        {"params": [parameters[2]]},
    ]
    opt = Optimizer(0.1, groups)
    rng = np.random.default_rng(0)
    gradients = tuple(rng.standard_normal(p.shape).astype(np.float32) for p in opt.parameters)
    result = opt.gradients_centralization(gradients)
    assert opt.grad_centralization_flags == (True, True, True, False, False)
    expected = gradients[0] - gradients[0].mean((1, 2), keepdims=True, dtype=np.float64)
    np.testing.assert_allclose(result[0], expected, rtol=0, atol=1e-7)
    for new, g in zip(result[1:], gradients[1:], strict=True):
        np.testing.assert_array_equal(new, g)


@pytest.mark.parametrize("loss_scale", [3.0, 1024.0, 0.5])
def test_scale_grad_multiplies_by_the_rounded_reciprocal(loss_scale):
    opt = Optimizer(0.1, make_parameters(), loss_scale=loss_scale)
    gradients = make_gradients()
    for new, g in zip(opt.scale_grad(gradients), gradients, strict=True):
        np.testing.assert_array_equal(new, g * np.float32(1 / loss_scale))


@pytest.mark.parametrize("method", METHODS)
def test_methods_keep_none(method):
    groups = make_groups(make_parameters())
    opt = Optimizer(0.1, groups, weight_decay=0.5, loss_scale=4.0)
    gradients = replace(order_like(opt, make_gradients()), 1, None)
    result = getattr(opt, method)(gradients)
    assert [g is None for g in result] == [False, True, False, False, False]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("container", [tuple, list])
def test_methods_write_into_out(method, container):
    opt = Optimizer(0.1, make_groups(make_parameters()), weight_decay=0.5, loss_scale=4.0)
    gradients = container(order_like(opt, make_gradients()))
    expected = [np.array(g) for g in getattr(opt, method)(gradients)]
    out = tuple(np.zeros_like(g) for g in gradients)
    for given in (out, gradients):
        result = getattr(opt, method)(gradients, out=given)
        for r, o, e in zip(result, given, expected, strict=True):
            assert r is o
            np.testing.assert_array_equal(o, e)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("loss_scale", [1.0, 3.0, 1024.0])
@pytest.mark.parametrize("grouped", [False, True])
def test_user_defined_and_built_in_optimizer_agree_to_the_bit(dtype, loss_scale, grouped):
    arguments = {"learning_rate": [0.1, 0.05], "weight_decay": 0.1, "loss_scale": loss_scale}
    ours, theirs = make_parameters(dtype), make_parameters(dtype)
    if grouped:
        arguments["learning_rate"] = 0.1
        fused = SGD(make_groups(ours), **arguments)
        plain = Plain(parameters=make_groups(theirs), **arguments)
    else:
        fused = SGD(ours, **arguments)
        plain = Plain(parameters=theirs, **arguments)
    for seed in (1, 2):
        gradients = order_like(fused, make_gradients(dtype, seed))
        fused(gradients)
        plain(gradients)
    for p, q in zip(fused.parameters, plain.parameters, strict=True):
        np.testing.assert_array_equal(p, q)


# ---- properties


def test_unique():
    opt = Optimizer(0.1, make_parameters())
    assert opt.unique is True
    opt.unique = False
    assert opt.unique is False
    for value in (1, None, np.bool_(True), "True"):
        with pytest.raises(TypeError, match="unique must be a bool, got"):
            opt.unique = value


def test_unique_parameter_switches_merging_off():
    parameters = make_parameters()
    parameters[2].unique = True
    assert Optimizer(0.1, parameters).unique is False


@pytest.mark.parametrize("make", BUILT_IN, ids=["SGD", "Momentum", "Adam", "amsgrad"])
def test_target(make):
    opt = make(make_parameters())
    opt.target = "CPU"
    assert opt.target == "CPU"
    for value, error, message in [
        ("GPU", ValueError, "target must be 'CPU' on a host without that device, got 'GPU'"),
        ("Ascend", ValueError, "target must be 'CPU' on a host without that device, got 'Ascend'"),
        ("cpu", ValueError, "target must be 'CPU', got 'cpu'"),
        (1, TypeError, "target must be a str, got 1"),
        (None, TypeError, "target must be a str, got None"),
    ]:
        with pytest.raises(error, match=message):
            opt.target = value
    assert opt.target == "CPU"


@pytest.mark.parametrize(("given", "expected"), [(True, True), (False, False), ((True, True), True)])
def test_broadcast_params_returns_a_bool(given, expected):
    assert Optimizer(0.1, make_parameters()).broadcast_params(given) is expected
