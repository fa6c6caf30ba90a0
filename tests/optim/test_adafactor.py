"""Tests of what is particular to AdaFactor: its arguments, slots, matrices and rates."""

import inspect
import math
import tracemalloc

import numpy as np
import pytest
from cases import DTYPES, TOLERANCE, state_of
from reference import Reference

import optimcore
from optimcore import LARS, AdaFactor, Parameter
from optimcore.kernels import isa as builds

# vectors, stacks of matrices, narrow ones too, matrices of several chunks, more columns than a chunk has elements
SHAPES = [
    *[(), (13,), (0,), (1, 1), (7, 11), (5, 3, 3, 3), (90, 70, 3, 3)],
    *[(1, 500), (500, 1), (300, 700), (2, 600, 80), (66, 17000)],
]


def make(shape=(2, 3), **kwargs):
    """Return an AdaFactor with one parameter of ones."""
    return AdaFactor([Parameter(np.ones(shape, np.float32), "w")], **kwargs)


def random_arrays(shapes, dtype=np.float32, seed=0):
    rng = np.random.default_rng(seed)
    return {f"w{i}": np.array(rng.standard_normal(shape), dtype) for i, shape in enumerate(shapes)}


def over(arrays, **kwargs):
    return AdaFactor([Parameter(a, name) for name, a in arrays.items()], **kwargs)


def test_signature():
    assert str(inspect.signature(AdaFactor)) == (
        "(params, learning_rate=None, eps=(1e-30, 0.001), clip_threshold=1.0, decay_rate=0.8, beta1=0.9, "
        "weight_decay=0.0, scale_parameter=True, relative_step=True, warmup_init=False, compression=False, "
        "loss_scale=1.0)"
    )


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"learning_rate": 0.1}, ValueError, "learning_rate must be None with relative_step, got 0.1"),
        ({"relative_step": False}, ValueError, "learning_rate must be given without relative_step, got None"),
        (
            {"learning_rate": 0.1, "relative_step": False, "warmup_init": True},
            ValueError,
            "warmup_init must be False without relative_step, got True",
        ),
        ({"learning_rate": "0.1", "relative_step": False}, TypeError, "learning_rate must be a number"),
        ({"eps": 1e-30}, TypeError, "eps must be a tuple or list of two numbers, got 1e-30"),
        ({"eps": (1e-30,)}, ValueError, "eps must have two numbers, got 1"),
        ({"eps": (1e-30, "x")}, TypeError, r"eps\[1\] must be a number, got 'x'"),
        ({"eps": (-1.0, 1e-3)}, ValueError, r"eps\[0\] must be >= 0, got -1\.0"),
        ({"clip_threshold": 0}, ValueError, "clip_threshold must be > 0, got 0"),
        ({"clip_threshold": None}, TypeError, "clip_threshold must be a number, got None"),
        ({"decay_rate": 0}, ValueError, r"decay_rate must be in \(0, 1\), got 0"),
        ({"decay_rate": 1.0}, ValueError, r"decay_rate must be in \(0, 1\), got 1\.0"),
        ({"decay_rate": float("nan")}, ValueError, "decay_rate must be finite, got nan"),
        ({"beta1": 1}, ValueError, r"beta1 must be in \[0, 1\), got 1"),
        ({"beta1": -0.1}, ValueError, r"beta1 must be in \[0, 1\), got -0\.1"),
        ({"beta1": False}, TypeError, "beta1 must be a number, got False"),
        ({"weight_decay": 1}, ValueError, r"weight_decay must be in \[0, 1\), got 1"),
        ({"weight_decay": -0.1}, ValueError, r"weight_decay must be in \[0, 1\), got -0\.1"),
        ({"weight_decay": "0"}, TypeError, "weight_decay must be a number, got '0'"),
        ({"scale_parameter": 1}, TypeError, "scale_parameter must be a bool, got 1"),
        ({"relative_step": 1}, TypeError, "relative_step must be a bool, got 1"),
        ({"warmup_init": 0}, TypeError, "warmup_init must be a bool, got 0"),
        ({"compression": None}, TypeError, "compression must be a bool, got None"),
        ({"loss_scale": 0}, ValueError, "loss_scale must be > 0, got 0"),
    ],
)
def test_arguments_are_checked(arguments, error, message):
    with pytest.raises(error, match=message):
        make(**arguments)


@pytest.mark.parametrize("dtype", DTYPES)
def test_slots(dtype):
    opt = over({"a": np.ones((4, 2, 3), DTYPES[dtype]), "b": np.ones(5, DTYPES[dtype])})
    compute = np.float64 if dtype == "float64" else np.float32
    slots = [*opt.exp_avg_sq_row, *opt.exp_avg_sq_col, *opt.exp_avg_sq, *opt.exp_avg]
    assert [(p.name, p.shape) for p in slots] == [
        ("exp_avg_sq_row.a", (4, 2)),
        ("exp_avg_sq_col.a", (4, 3)),
        ("exp_avg_sq.b", (5,)),
        ("exp_avg.a", (4, 2, 3)),
        ("exp_avg.b", (5,)),
    ]
    for slot in slots:
        assert slot.dtype == compute
        np.testing.assert_array_equal(slot, 0)


@pytest.mark.parametrize("beta1", [None, 0, 0.0])
def test_no_first_moment_without_beta1(beta1):
    opt = make(beta1=beta1)
    assert opt.beta1 == 0.0
    assert not hasattr(opt, "exp_avg")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "kwargs",
    [{}, dict(beta1=None, weight_decay=0.1), dict(clip_threshold=0.5, eps=(1e-3, 1e-2), decay_rate=0.5)],
    ids=str,
)
def test_matches_reference_for_matrices_of_every_shape(dtype, kwargs):
    arrays = random_arrays(SHAPES, DTYPES[dtype])
    oracle, opt = Reference("AdaFactor", arrays, kwargs), over(arrays, **kwargs)
    for step in range(3):
        gradients = list(random_arrays(SHAPES, DTYPES[dtype], step).values())
        gradients[step + 3] = None
        opt(gradients)
        oracle.step(gradients)
    for name, w in arrays.items():
        atol = TOLERANCE[dtype] * np.abs(oracle.w[name]).max(initial=1.0)
        np.testing.assert_allclose(w.astype(float), oracle.w[name], rtol=0, atol=atol, err_msg=name)
    if dtype in ("float16", "bfloat16"):
        return  # the means come from gradients alone, but the first moment also from the rounded parameter
    rtol = 1e-13 if dtype == "float64" else 1e-5
    for slots in (opt.exp_avg_sq_row, opt.exp_avg_sq_col, opt.exp_avg_sq):
        for slot in slots:
            prefix, name = slot.name.split(".")
            np.testing.assert_allclose(slot, oracle.slots()[prefix][name], rtol=rtol, err_msg=slot.name)


def test_empty_matrices():
    arrays = random_arrays([(0, 5), (5, 0), (3, 0, 4), (2, 2)])
    opt = over(arrays)
    opt(list(random_arrays([a.shape for a in arrays.values()], seed=1).values()))
    for slot in (*opt.exp_avg_sq_row[:3], *opt.exp_avg_sq_col[:3]):
        np.testing.assert_array_equal(slot, 0)
    assert opt.exp_avg_sq_row[3].data.all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_same_bits_for_every_isa_and_thread_count(dtype, restore_runtime):
    """As the law, for matrices of several chunks, narrow and wide."""
    optimcore.set_thread_threshold(0)
    shapes = [(300, 700), (2, 600, 80), (66, 17000), (90, 70, 3, 3), (9000, 5)]
    initial = random_arrays(shapes, DTYPES[dtype])
    gradients = [list(random_arrays(shapes, DTYPES[dtype], step).values()) for step in range(2)]
    states = []
    for name in builds.available_isas():
        builds.use_isa(name)
        for count in (1, 2, 3, 7):
            optimcore.set_num_threads(count)
            opt = over({key: a.copy() for key, a in initial.items()})
            for g in gradients:
                opt(g)
            states.append(state_of(opt))
    assert all(state == states[0] for state in states)


@pytest.mark.parametrize("size", [100.0, 1e10])
def test_rows_and_columns_without_gradient_are_no_nan(size):
    """Their mean squares are epsilon 1; the factor of an element is beyond float32 when others are large."""
    opt = make((4, 5), beta1=None)
    for _ in range(3):
        gradient = np.zeros((4, 5), np.float32)
        gradient[1:, 2:] = size
        opt([gradient])
    w = opt.parameters[0].asnumpy()
    assert (w[0] == 1).all() and (w[:, :2] == 1).all()
    assert (w[1:, 2:] < 1).all()
    vector = make((3,))
    vector([np.array([0.0, 0.0, 1.0], np.float32)])
    assert vector.parameters[0].asnumpy()[:2].tolist() == [1.0, 1.0]


def test_zero_gradients_change_nothing_but_for_decay():
    opt = make((4, 5), weight_decay=0.5)
    opt([np.zeros((4, 5), np.float32)])
    np.testing.assert_allclose(opt.parameters[0], 1 - 0.5 * 1e-2, rtol=1e-6)


def test_names_and_groups_have_no_influence_on_decay():
    results = []
    for name, extra in [("w", {}), ("gamma", {}), ("w", {"weight_decay": 0.0}), ("w", {"grad_centralization": True})]:
        w = Parameter(np.ones((2, 3, 3), np.float32), name)
        groups = [{"params": [w], **extra}] if extra else [w]
        opt = AdaFactor(groups, weight_decay=0.1)
        opt([np.arange(18, dtype=np.float32).reshape(2, 3, 3)])
        results.append(w.asnumpy().tolist())
    assert all(result == results[0] for result in results)


def test_weight_decay_may_depend_on_the_step():
    constant, dynamic = make(weight_decay=0.25), make(weight_decay=lambda step: 0.25)
    for opt in (constant, dynamic):
        opt([np.ones((2, 3), np.float32)])
    assert constant.parameters[0].asnumpy().tolist() == dynamic.parameters[0].asnumpy().tolist()


def test_loss_scale_is_looked_at_by_the_limit_of_the_norm_alone():
    plain, scaled = make(eps=(1.0, 1e-3)), make(eps=(1.0, 1e-3), loss_scale=1024.0)
    gradient = np.arange(6, dtype=np.float32).reshape(2, 3)
    for opt in (plain, scaled):
        opt([gradient])
    assert state_of(plain) == state_of(scaled)
    limited, before = make(eps=(1.0, 1e-3), loss_scale=2.0), make(eps=(1.0, 1e-3))
    limited.max_grad_norm = 1.0
    limited([gradient])
    before(optimcore.clip_by_global_norm([gradient], 2.0))
    assert state_of(limited) == state_of(before)


def test_compression_changes_nothing():
    results = []
    for compression in (False, True):
        opt = make(compression=compression)
        opt([np.arange(6, dtype=np.float32).reshape(2, 3)])
        results.append(state_of(opt))
    assert results[0] == results[1]


@pytest.mark.parametrize(
    ("warmup_init", "expected"),
    [(False, {0: 1e-2, 9_999: 1e-2, 39_999: 5e-3}), (True, {0: 1e-6, 99: 1e-4, 39_999: 5e-3})],
)
def test_relative_rate_follows_from_the_step(warmup_init, expected):
    opt = make(warmup_init=warmup_init)
    for step, rate in expected.items():
        opt.global_step = step
        assert opt.get_lr() == pytest.approx(rate)
    assert opt.afactor_step == 39_999
    opt([np.ones((2, 3), np.float32)])
    assert opt.afactor_step == 40_000


def test_rate_of_a_group_has_no_effect_with_relative_step():
    w = Parameter(np.ones((2, 3), np.float32), "w")
    opt = AdaFactor([{"params": [w], "lr": 0.5}])
    assert opt.get_lr() == (1e-2,)


def test_rates_of_groups():
    first, second = (Parameter(np.ones((2, 2), np.float32), name) for name in "ab")
    groups = [{"params": [first]}, {"params": [second], "lr": [0.25]}]
    opt = AdaFactor(groups, 0.5, relative_step=False, scale_parameter=False, beta1=None)
    opt([np.ones((2, 2), np.float32)] * 2)
    np.testing.assert_allclose(first, 0.5, rtol=1e-6)
    np.testing.assert_allclose(second, 0.75, rtol=1e-6)


def test_first_step_of_a_matrix_by_hand():
    opt = make((2, 2), learning_rate=0.1, relative_step=False, scale_parameter=False, beta1=None, clip_threshold=9)
    opt([np.array([[1, 1], [1, 2]], np.float32)])
    # row and column means of the square are (1, 2.5), their mean 1.75
    np.testing.assert_allclose(opt.exp_avg_sq_row[0], [1, 2.5])
    np.testing.assert_allclose(opt.exp_avg_sq_col[0], [1, 2.5])
    np.testing.assert_allclose(opt.parameters[0], 1 - 0.1 * np.sqrt([[1.75, 0.7], [0.7, 1.12]]), rtol=1e-6)


@pytest.mark.parametrize("bad", [np.ones((4, 3), np.float32), np.ones((3, 4), int), "text"])
def test_bad_gradient_of_the_last_parameter_changes_nothing(bad):
    arrays = random_arrays([(5, 6), (7,), (3, 4)])
    opt = over(arrays)
    before = state_of(opt)
    with pytest.raises((TypeError, ValueError), match=r"gradients\[2\], of parameter 'w2'"):
        opt([np.ones((5, 6), np.float32), np.ones(7, np.float32), bad])
    assert state_of(opt) == before


def test_resume_at_a_step_equals_the_uninterrupted_run():
    whole, resumed = make(), make()
    gradients = [[g] for g in random_arrays([(2, 3)] * 4).values()]
    for gradient in gradients[:2]:
        whole(gradient)
    for attribute in ("parameters", "exp_avg_sq_row", "exp_avg_sq_col", "exp_avg"):
        for target, source in zip(getattr(resumed, attribute), getattr(whole, attribute), strict=True):
            target.set_data(source)
    resumed.global_step = whole.global_step
    for opt in (whole, resumed):
        for gradient in gradients[2:]:
            opt(gradient)
    assert state_of(whole) == state_of(resumed)


def test_infinite_gradients_raise_no_warning():
    opt = make((4, 5))
    opt([np.full((4, 5), np.inf, np.float32)])
    assert np.isnan(opt.parameters[0]).any()


def test_lars_takes_the_decay():
    inner = make(weight_decay=0.5)
    wrapped = LARS(inner, coefficient=1.0)
    wrapped([np.full((2, 3), 0.5, np.float32)])
    free = make()
    free([np.ones((2, 3), np.float32)])  # the direction does not depend on the ratio
    np.testing.assert_allclose(inner.parameters[0], free.parameters[0], rtol=1e-6)
    assert math.isclose(wrapped.get_lr(), 1e-2)


def test_step_takes_no_memory_of_the_size_of_the_parameter():
    for shape in [(500, 2000), (1_000_000,)]:
        opt = make(shape, beta1=None)
        gradient = [np.ones(shape, np.float32)]
        opt(gradient)
        tracemalloc.start()
        opt(gradient)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 400_000  # of 4,000,000


def test_decay_that_methods_speak_of_carries_the_loss_scale():
    """The rule itself does not divide gradients by it, and so does not multiply the decay."""
    steps = {}
    for scale in (1.0, 4.0):
        w = Parameter(np.array([3.0, 4.0]), "w")
        opt = AdaFactor([dict(params=[w])], weight_decay=0.5, loss_scale=scale)
        assert opt.get_weight_decay() == (0.5 * scale,)
        assert opt.decay_weight((np.zeros(2),))[0].tolist() == [1.5 * scale, 2.0 * scale]
        opt((np.ones(2),))
        steps[scale] = w.asnumpy().tolist()
    assert steps[1.0] == steps[4.0]
