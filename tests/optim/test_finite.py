"""Finite in, finite out: no step, now or later, makes a NaN of finite numbers, over every row of `cases.CASES`."""

import numpy as np
import pytest
from cases import CASES, DTYPES, Case

import optimcore
from optimcore.kernels.driver import can_catch_up

WIDTH = 19
# squares of the outer ones overflow or vanish in float64; a float32 array holds its largest number or 0 in their place
EXTREMES = [0.0, 5e-324, 1e-300, 1e-200, 1e-45, 1e-38, 1e-30, 1.0, 2e19, 1e20, 1e38, 1e160, 1e200, 1e308]

# every hyperparameter at the ends of its range
HARSH = [
    Case("SGD", dict(learning_rate=0.0)),
    Case("SGD", dict(learning_rate=1e300, weight_decay=1e30)),
    Case("SGD", dict(learning_rate=0.1, weight_decay=10.0)),
    Case("SGD", dict(learning_rate=0.1, momentum=1e30, dampening=1e30)),
    Case("SGD", dict(learning_rate=1e30, momentum=2.0, nesterov=True)),
    Case("SGD", dict(learning_rate=0.1, momentum=0.9, dampening=1.0, loss_scale=1e-40)),
    Case("SGD", dict(learning_rate=0.1, loss_scale=1e60, weight_decay=0.1)),
    Case("Momentum", dict(learning_rate=0.0, momentum=0.9)),
    Case("Momentum", dict(learning_rate=1e300, momentum=1e30)),
    Case("Momentum", dict(learning_rate=1e30, momentum=3.0, use_nesterov=True, weight_decay=5.0)),
    Case("Adam", dict(learning_rate=0.0)),
    Case("Adam", dict(learning_rate=1e300, weight_decay=1.0)),
    Case("Adam", dict(learning_rate=1e30, beta1=0.999, beta2=0.01, eps=1e-30)),
    Case("Adam", dict(learning_rate=1e30, use_nesterov=True, loss_scale=1e-30)),
    Case("Adam", dict(learning_rate=0.1, beta1=1e-20, beta2=1 - 1e-16, use_amsgrad=True)),
    Case("AdamWeightDecay", dict(learning_rate=1e30, weight_decay=1e30)),
    Case("AdamWeightDecay", dict(learning_rate=0.0, weight_decay=1e300, beta2=0.01)),
    Case("AdaMax", dict(learning_rate=1e300, beta1=0.999, beta2=0.01)),
    Case("AdaMax", dict(learning_rate=0.1, eps=1e300, weight_decay=1.0)),
    Case("Adagrad", dict(learning_rate=1e300, accum=0.0)),
    Case("Adagrad", dict(learning_rate=0.0, accum=1e38)),
    Case("Adagrad", dict(learning_rate=1.0, accum=0.0, update_slots=False, weight_decay=2.0)),
    Case("Adadelta", dict(learning_rate=1e300, epsilon=0.0)),
    Case("Adadelta", dict(learning_rate=1.0, rho=1.0, epsilon=0.0)),
    Case("Adadelta", dict(learning_rate=1.0, rho=0.0, epsilon=1e300)),
    Case("ASGD", dict(learning_rate=1e300, lambd=1.0, alpha=-1.0, t0=0.0)),
    Case("ASGD", dict(learning_rate=1.0, lambd=-1.0, t0=0.0)),
    Case("ASGD", dict(learning_rate=1.0, lambd=1.0, t0=2.0)),
    Case("ASGD", dict(learning_rate=0.0, lambd=1e308, alpha=1e308)),
    Case("Rprop", dict(learning_rate=1e300, etas=(0.5, 1e300), step_sizes=(1e-300, 1e300))),
    Case("FTRL", dict(learning_rate=1e300, initial_accum=0.0)),
    Case("FTRL", dict(learning_rate=1e-300, initial_accum=0.0, l1=1e300)),
    Case("FTRL", dict(learning_rate=1.0, initial_accum=1e38, l2=1e300, weight_decay=2.0)),
    Case("FTRL", dict(learning_rate=0.1, lr_power=-1e300, initial_accum=0.0)),
    Case("ProximalAdagrad", dict(learning_rate=0.1, accum=0.0)),
    Case("ProximalAdagrad", dict(learning_rate=1e300, accum=0.0, l1=1e300, l2=1e300)),
    Case("ProximalAdagrad", dict(learning_rate=0.0, accum=0.0, l1=1.0)),
    Case("RMSProp", dict(learning_rate=0.1, decay=0.0)),
    Case("RMSProp", dict(learning_rate=0.0, decay=1.0, momentum=1e30)),
    Case("RMSProp", dict(learning_rate=1e300, decay=0.5, momentum=1.0, epsilon=1e300)),
    Case("RMSProp", dict(learning_rate=0.1, decay=0.0, momentum=2.0, centered=True)),
    Case("Lamb", dict(learning_rate=1e300, weight_decay=1e300)),
    Case("Lamb", dict(learning_rate=0.0, beta1=0.999, beta2=0.01, weight_decay=1.0)),
    Case("AdaFactor", dict(eps=(0.0, 0.0))),
    Case("AdaFactor", dict(learning_rate=1e300, relative_step=False, eps=(0.0, 1e300), weight_decay=0.9)),
    Case("AdaFactor", dict(eps=(1e300, 0.0), clip_threshold=1e-300, beta1=None)),
    Case("SGD", dict(learning_rate=0.1, weight_decay=0.1), lars=dict(coefficient=1e300, epsilon=0.0)),
    Case("Momentum", dict(learning_rate=1e30, momentum=0.9), lars=dict(coefficient=0.0, use_clip=True)),
]


def sequence(shape, dtype):
    """Return extreme gradients of both signs in mixed order, each kind also alone, then zeros and ordinary ones."""
    rng = np.random.default_rng(0)
    most = float(np.finfo(np.float32 if np.dtype(dtype).itemsize < 8 else np.float64).max)
    numbers = np.clip(np.array([*EXTREMES, most]), 0, most)
    mixed = [rng.choice(numbers, shape) * rng.choice([-1.0, 1.0], shape) for _ in range(8)]
    alone = [np.full(shape, sign * n) for n in numbers for sign in (1, -1)]
    ordinary = [np.zeros(shape)] * 3 + [rng.standard_normal(shape) for _ in range(3)]
    kind = np.float64 if np.dtype(dtype).itemsize == 8 else np.float32
    return [g.astype(kind) for g in [*mixed, *ordinary, *alone, *mixed, *ordinary]]


def slots_of(optimizer):
    inner = getattr(optimizer, "optimizer", optimizer)
    for name, value in vars(inner).items():
        if isinstance(value, optimcore.ParameterTuple) and value is not inner.parameters:
            yield from ((name, slot.data) for slot in value)


def check(optimizer, step):
    for p in optimizer.parameters:
        assert not np.isnan(p.data.astype(np.float64)).any(), f"{p.name} is NaN in step {step}"
    for name, slot in slots_of(optimizer):
        assert np.isfinite(slot).all(), f"{name} is not finite in step {step}"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", [*CASES, *HARSH], ids=str)
def test_dense(case, dtype):
    arrays = {"w": np.ones((3, WIDTH), DTYPES[dtype]), "bias": np.zeros(WIDTH, DTYPES[dtype])}
    try:
        optimizer = case.build(arrays)
    except ValueError:  # the constructor refuses this hyperparameter
        return
    for step, (g, b) in enumerate(
        zip(sequence((3, WIDTH), DTYPES[dtype]), sequence(WIDTH, DTYPES[dtype]), strict=True)
    ):
        optimizer((g, b))
        check(optimizer, step)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", [c for c in [*CASES, *HARSH] if c.cls not in ("Lamb", "AdaFactor", "LARS")], ids=str)
def test_rows_in_every_mode(case, dtype):
    if case.lars is not None:
        return
    for mode in (True, False, "catch_up"):
        arrays = {"w": np.ones((4, WIDTH), DTYPES[dtype])}
        try:
            optimizer = case.build(arrays)
            if mode == "catch_up" and not can_catch_up(optimizer.rule):
                continue
            optimizer.use_lazy = mode
        except ValueError:
            continue
        for step, g in enumerate(sequence((2, WIDTH), DTYPES[dtype])):
            rows = np.array([step % 4, (step + 1) % 4])
            optimizer((optimcore.RowTensor(rows, g, (4, WIDTH)),))
            if step % 7 == 6:
                optimizer.flush()
            check(optimizer, step)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_centralized_kernels(dtype):
    for cls in ("SGD", "Adam", "Momentum", "Lamb"):
        w = optimcore.Parameter(np.ones((2, 3, 5), DTYPES[dtype]), "w")
        kwargs = {"momentum": 0.9} if cls == "Momentum" else {}
        group = dict(params=[w], grad_centralization=True, weight_decay=10.0)
        optimizer = getattr(optimcore, cls)([group], learning_rate=0.1, **kwargs)
        for step, g in enumerate(sequence((2, 3, 5), DTYPES[dtype])):
            optimizer((g,))
            check(optimizer, step)


def test_mean_of_a_kernel_is_right_where_its_sum_overflows():
    w = optimcore.Parameter(np.zeros((1, 2, 2)), "w")
    optimizer = optimcore.SGD([dict(params=[w], grad_centralization=True)], learning_rate=1.0)
    optimizer((np.array([[[1e308, 1.5e308], [1.5e308, 1e308]]]),))
    np.testing.assert_allclose(w.data.ravel(), [0.25e308, -0.25e308, -0.25e308, 0.25e308], rtol=1e-12)


def test_adam_recovers_from_a_gradient_whose_square_overflows():
    """The square of 2e19 is beyond float32, but not its share in v: torch comes to the same number."""
    w = np.ones(1, np.float32)
    optimizer = optimcore.Adam([optimcore.Parameter(w, "w")], learning_rate=0.1)
    oracle = Case("Adam", dict(learning_rate=0.1)).oracle({"w": np.ones(1)})
    for g in [2e19, *[1.0] * 5]:
        optimizer((np.array([g], np.float32),))
        oracle.step((np.array([g]),))
    np.testing.assert_allclose(w, oracle.w["w"], rtol=1e-5)


def test_rmsprop_without_memory_is_exact():
    w = np.ones(1, np.float32)
    optimizer = optimcore.RMSProp([optimcore.Parameter(w, "w")], learning_rate=0.125, decay=0.0)
    for g in (1e-3, 1e3, 1e-3):
        before = w.copy()
        optimizer((np.array([g], np.float32),))
        np.testing.assert_allclose(before - w, 0.125, rtol=1e-3)


@pytest.mark.parametrize("tiny", [0.0, 1e-30])
@pytest.mark.parametrize(
    "case",
    [
        Case("ProximalAdagrad", dict(learning_rate=0.1, accum=0.0)),
        Case("Adagrad", dict(learning_rate=0.1, accum=0.0)),
        Case("Adadelta", dict(learning_rate=0.1, epsilon=0.0)),
        Case("AdaFactor", dict(eps=(0.0, 0.0))),
    ],
    ids=str,
)
def test_vanishing_first_gradient_moves_nothing(case, tiny):
    w = np.ones(2, np.float32)
    case.build({"w": w})((np.array([tiny, 1.0], np.float32),))
    assert w[0] == 1


DECAYING = {
    "SGD": "accum",
    "Momentum": "moments",
    "Adam": "moment1 moment2",
    "AdamOffload": "moment1 moment2",
    "LazyAdam": "moment1 moment2",
    "AdamWeightDecay": "moments1 moments2",
    "AdaMax": "moment1 moment2",
    "Adadelta": "accum accum_update",
    "RMSProp": "ms moment mg",
    "Lamb": "moments1 moments2",
    "AdaFactor": "exp_avg exp_avg_sq exp_avg_sq_row exp_avg_sq_col",
}


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("mode", ["dense", "rows", "catch_up"])
@pytest.mark.parametrize("case", [c for c in CASES if c.cls in DECAYING and c.lars is None], ids=str)
def test_slots_that_decay_reach_zero(case, mode, dtype):
    """Rounding alone keeps 0.9 * 6e-45 where it is, and subnormal numbers make steps slow for good."""
    if case.cls == "AdaFactor" and (mode != "dense" or case.kwargs.get("eps")):
        return
    extra = {"eps": (0.0, 1e-3)} if case.cls == "AdaFactor" else {}
    optimizer = case.build({"w": np.ones((3, WIDTH), DTYPES[dtype]), "b": np.ones(5, DTYPES[dtype])}, **extra)
    if mode == "catch_up":
        if not can_catch_up(optimizer.rule) or case.cls == "LazyAdam":
            return
        optimizer.use_lazy = mode
    elif mode == "rows" and case.cls == "Lamb":
        return
    names = DECAYING[case.cls].split()
    slots = [slot.data for name in names for slot in getattr(optimizer, name, ())]
    if case.cls == "SGD" and not case.kwargs.get("momentum") or case.cls == "RMSProp" and mode == "rows":
        return
    for slot in slots:
        slot[...] = 3 * np.finfo(slot.dtype).smallest_normal
    zero = np.zeros((3, WIDTH), slots[0].dtype)
    rows = optimcore.RowTensor(np.arange(3), zero, (3, WIDTH))
    gradient = zero if mode == "dense" else rows
    steps = 30 if "beta1" in case.kwargs or case.cls in ("SGD", "Momentum") else 60
    for _ in range(steps):
        optimizer((gradient, np.zeros(5, slots[0].dtype)))
    optimizer.flush()
    for name in names:
        for slot in getattr(optimizer, name, ()):
            subnormal = (slot.data != 0) & (abs(slot.data) < np.finfo(slot.data.dtype).smallest_normal)
            assert not subnormal.any(), name


def test_parameters_gradients_and_averages_keep_subnormal_numbers():
    w = np.full(3, 3e-45, np.float32)
    optimizer = optimcore.Momentum([optimcore.Parameter(w, "w")], 0.1, 0.9)
    optimizer((np.zeros(3, np.float32),))
    assert (w == np.float32(3e-45)).all()
    asgd = optimcore.ASGD([optimcore.Parameter(w, "w")], learning_rate=0.0)
    asgd((np.zeros(3, np.float32),))
    assert (asgd.ax[0].data == w).all() and w.all()
