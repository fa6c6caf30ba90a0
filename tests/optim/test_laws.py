"""Laws that every optimizer obeys, over every row of `cases.CASES`."""

import threading

import numpy as np
import pytest
from cases import CASES, CONV_GROUPS, DTYPES, TOLERANCE, conv_arrays, gradients_of, state_of
from float_modes import float_mode

import optimcore
from optimcore.kernels import isa as builds

# around every vector width, around a chunk (16384 elements), and many chunks
SIZES = [0, 1, 3, 7, 8, 9, 15, 16, 17, 31, 33, 63, 65, 1000, 16383, 16385, 100_003]


@pytest.fixture(params=CASES, ids=str)
def case(request):
    return request.param


@pytest.fixture(params=[case for case in CASES if case.rule.takes_rate], ids=str)
def rated_case(request):
    return request.param


def assert_close(optimizer, oracle, dtype):
    for p in optimizer.parameters:
        expected = oracle.w[p.name]
        scale = np.abs(expected).max(initial=1.0)
        np.testing.assert_allclose(p.asnumpy(), expected, rtol=0, atol=TOLERANCE[dtype] * scale, err_msg=p.name)


def take_steps(optimizer, arrays, steps, scale=1.0):
    for step in range(steps):
        optimizer(gradients_of(arrays, seed=step, scale=scale))


@pytest.mark.parametrize("dtype", DTYPES)
def test_matches_reference_at_every_size(case, dtype):
    rng = np.random.default_rng(0)
    arrays = {f"w{n}": rng.standard_normal(n).astype(DTYPES[dtype]) for n in SIZES}
    oracle = case.oracle(arrays)
    optimizer = case.build(arrays)
    for step in range(3):
        gradients = gradients_of(arrays, seed=step)
        optimizer(gradients)
        oracle.step(gradients)
    assert_close(optimizer, oracle, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_matches_reference_with_groups_decay_centralization_and_loss_scale(case, dtype):
    arrays = conv_arrays(DTYPES[dtype])
    extra = dict(weight_decay=0.01, loss_scale=128.0)
    oracle = case.oracle(arrays, case.conv_groups, **extra)
    optimizer = case.build(arrays, case.conv_groups, **extra)
    for step in range(5):
        gradients = gradients_of(arrays, seed=step, scale=128.0)
        optimizer(gradients)
        oracle.step(gradients)
    assert_close(optimizer, oracle, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_same_bits_for_every_isa_and_thread_count(case, dtype, restore_runtime):
    rng = np.random.default_rng(3)
    initial = {"conv": rng.standard_normal((40, 30, 3, 7)), "big": rng.standard_normal(100_003)}
    initial |= {f"w{n}": rng.standard_normal(n) for n in range(40)}
    initial = {name: a.astype(DTYPES[dtype]) for name, a in initial.items()}
    gradients = [gradients_of(initial, seed=step) for step in range(3)]
    groups = [
        dict(params=["conv"], grad_centralization=True, weight_decay=0.05),
        dict(params=[name for name in initial if name != "conv"]),
    ]
    optimcore.set_thread_threshold(0)  # threads even for this little work
    states = []
    for isa in builds.available_isas():
        builds.use_isa(isa)
        for threads in (1, 2, 3, 7):
            optimcore.set_num_threads(threads)
            arrays = {name: a.copy() for name, a in initial.items()}
            optimizer = case.build(arrays, groups, loss_scale=3.0)
            optimizer.max_grad_norm = 10.0
            optimizer.stochastic_rounding = True
            for g in gradients:
                optimizer(g)
            states.append(state_of(optimizer))
    assert len(states) == 4 * len(builds.available_isas())
    assert all(state == states[0] for state in states)


@pytest.mark.parametrize("mode", ["flush subnormals", "round up"])
def test_helpers_compute_in_the_mode_of_the_caller(case, mode, restore_runtime):
    rng = np.random.default_rng(3)
    # subnormal numbers beside others: a result that is subnormal, and an operand
    factor = 10.0 ** rng.integers(-44, 1, 200_000)
    initial = {"w": (rng.standard_normal(200_000) * factor).astype(np.float32)}
    gradients = [((rng.standard_normal(200_000) * factor).astype(np.float32),) for _ in range(3)]
    optimcore.set_thread_threshold(0)
    states = []
    for threads in (1, 2, 4):
        optimcore.set_num_threads(threads)
        optimizer = case.build({"w": initial["w"].copy()})
        optimizer(gradients[0])  # in the usual mode: helpers are there when it changes
        with float_mode(mode):
            for g in gradients[1:]:
                optimizer(g)
        states.append(state_of(optimizer))
    assert states[1:] == states[:1] * 2


def test_fused_step_equals_separate_methods(case):
    if case.lars is not None:  # there is no method for what it does: see test_lars.py
        return
    arrays, twin = conv_arrays(), conv_arrays()
    decays = dict(weight_decay=0.01, loss_scale=3.0)
    fused = case.build(arrays, case.conv_groups, **decays)
    methods = case.build(conv_arrays(), case.conv_groups, **decays)
    # decay that stays apart from the gradient belongs to the rule, not to a method
    keys = ("params", "lr") if case.rule.couples_decay else ("params", "lr", "weight_decay")
    plain = case.build(
        twin,
        [{k: g[k] for k in g if k in keys} for g in case.conv_groups],
        weight_decay=0.0 if case.rule.couples_decay else decays["weight_decay"],
    )
    for step in range(4):
        gradients = gradients_of(arrays, seed=step)
        for ours, theirs in zip(methods.parameters, plain.parameters, strict=True):
            ours.set_data(theirs)  # `methods` decays the parameters that `plain` moves
        prepared = gradients
        if case.rule.couples_decay:
            prepared = methods.decay_weight(prepared)
        if case.rule.centralizes:
            prepared = methods.gradients_centralization(prepared)
        prepared = methods.scale_grad(prepared)
        plain(prepared)
        fused(gradients)
    assert state_of(fused) == state_of(plain)


def test_gradient_methods_write_in_place_with_the_same_bits():
    arrays = conv_arrays()
    optimizer = CASES[0].build(arrays, CONV_GROUPS, weight_decay=0.01, loss_scale=3.0)
    for method in (optimizer.decay_weight, optimizer.gradients_centralization, optimizer.scale_grad):
        gradients = gradients_of(arrays)
        expected = method(gradients)
        out = tuple(np.full_like(g, np.nan) for g in gradients)
        assert all(a is b for a, b in zip(method(gradients, out=out), out, strict=True))
        method(gradients, out=gradients)
        for e, o, g in zip(expected, out, gradients, strict=True):
            assert e.tobytes() == o.tobytes() == g.tobytes()


def test_gradients_are_only_read(case):
    arrays = conv_arrays()
    gradients = gradients_of(arrays)
    before = [g.tobytes() for g in gradients]
    for g in gradients:
        g.flags.writeable = False
    case.build(arrays, case.conv_groups, weight_decay=0.01, loss_scale=3.0)(gradients)
    assert [g.tobytes() for g in gradients] == before


def test_none_leaves_a_parameter_and_its_slots_untouched(case):
    arrays = conv_arrays()
    optimizer = case.build(arrays)
    before = state_of(optimizer)
    conv, dense, bias = gradients_of(arrays)
    optimizer((conv, None, bias))
    changed = {key for key, value in state_of(optimizer).items() if value != before[key]}
    assert not {key for key in changed if "dense" in key}
    assert {"conv", "bias"} <= changed


def test_parameter_that_comes_late_gets_its_own_first_step(case):
    arrays = {"w": np.ones(4, np.float32), "late": np.full(4, 2.0, np.float32)}
    optimizer = case.build(arrays)
    oracle = case.oracle(arrays)
    first, *others = (gradients_of(arrays, seed) for seed in range(4))
    for gradients in [(first[0], None), *others]:
        optimizer(gradients)
        oracle.step(gradients)
    assert_close(optimizer, oracle, "float32")


def test_any_float_gradient_layout_gives_the_same_bits(case):
    arrays, twin = conv_arrays(), conv_arrays()
    plain, other = case.build(arrays), case.build(twin)
    conv, dense, bias = gradients_of(arrays)
    for _ in range(2):
        plain((conv, dense, bias))
        odd = np.frombuffer(b"." + bias.tobytes(), np.uint8)[1:].view(np.float32)  # not aligned
        other([conv[::-1][::-1].astype(np.float64), np.asfortranarray(dense), odd])
        other_order = bias.astype(bias.dtype.newbyteorder())
        plain((None, None, bias))
        other((None, None, other_order))
    assert state_of(plain) == state_of(other)


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (lambda g: 5, TypeError, "gradients must be a tuple or list"),
        (lambda g: iter(g), TypeError, "gradients must be a tuple or list"),
        (lambda g: g[:2], ValueError, "gradients must have one entry per parameter, 3 in all, got 2"),
        (lambda g: (*g, g[0]), ValueError, "got 4"),
        (lambda g: (*g[:2], g[2][:-1]), ValueError, r"gradients\[2\], of parameter 'bias', must have shape \(13,\)"),
        (lambda g: (*g[:2], g[2][None]), ValueError, r"shape \(13,\), got \(1, 13\)"),
        (lambda g: (*g[:2], g[2].astype(int)), TypeError, r"gradients\[2\].* must be an array of floats, got int64"),
        (lambda g: (*g[:2], g[2].astype(complex)), TypeError, "floats, got complex128"),
        (lambda g: (*g[:2], g[2].astype(bool)), TypeError, "floats, got bool"),
        (lambda g: (*g[:2], "text"), TypeError, "floats, got str"),
        (lambda g: (*g[:2], object()), TypeError, "floats, got object"),
        (lambda g: (*g[:2], [[1.0], [2.0, 3.0]]), TypeError, r"gradients\[2\].* must be an array of floats, got list"),
    ],
)
def test_bad_gradients_change_nothing(case, spoil, error, message):
    arrays = conv_arrays()
    optimizer = case.build(arrays, weight_decay=0.01)
    optimizer(gradients_of(arrays))
    before = state_of(optimizer)
    with pytest.raises(error, match=message):
        optimizer(spoil(gradients_of(arrays)))
    assert state_of(optimizer) == before


@pytest.mark.parametrize(
    ("extra", "error", "message"),
    [
        (dict(learning_rate=[0.1, 0.2]), IndexError, "got 2"),
        (dict(weight_decay=lambda step: -1.0 if step == 2 else 0.1), ValueError, "weight_decay at step 2"),
        (dict(weight_decay=lambda step: "x" if step == 2 else 0.1), TypeError, "weight_decay at step 2"),
    ],
)
def test_bad_rate_or_decay_changes_nothing(case, extra, error, message):
    arrays = conv_arrays()
    if "learning_rate" in extra and not case.rule.takes_any_rate:
        with pytest.raises(ValueError, match="learning_rate must be one number for all steps"):
            case.build(arrays, **extra)
        return
    if "learning_rate" in extra and not case.rule.takes_rate:
        with pytest.raises(ValueError, match="learning_rate must be None"):
            case.build(arrays, **extra)
        return
    optimizer = case.build(arrays, **extra)
    take_steps(optimizer, arrays, 2)
    before = state_of(optimizer)
    with pytest.raises(error, match=message):
        optimizer(gradients_of(arrays))
    assert state_of(optimizer) == before


@pytest.mark.parametrize("rate", [np.nan, np.inf, -0.1])
def test_fixed_rate_that_is_spoiled_later_changes_nothing(rated_case, rate):
    arrays = conv_arrays()
    optimizer = rated_case.build(arrays)
    optimizer(gradients_of(arrays))
    optimizer.learning_rate.set_data(rate)
    before = state_of(optimizer)
    with pytest.raises(ValueError, match=f"learning_rate at step 1 .*{rate}"):
        optimizer(gradients_of(arrays))
    assert state_of(optimizer) == before


def test_loss_goes_down_on_a_parabola_and_on_rosenbrock(case):
    low_rate = {"learning_rate": case.kwargs["learning_rate"] * 0.01} if case.rule.takes_rate else {}

    def descend(gradient, start, steps):
        w = np.array(start)
        optimizer = case.build({"w": w}, **low_rate)
        for _ in range(steps):
            optimizer((gradient(w),))
        return w

    w = descend(lambda w: 2 * w, [1.0, -2.0, 3.0], 500)
    assert (w * w).sum() < 0.98 * 14.0

    def rosenbrock(w):
        x, y = w
        return (1 - x) ** 2 + 100 * (y - x * x) ** 2

    def slope(w):
        x, y = w
        return np.array([-2 * (1 - x) - 400 * x * (y - x * x), 200 * (y - x * x)])

    start = [-1.2, 1.0]
    assert rosenbrock(descend(slope, start, 500)) < 0.9 * rosenbrock(start)


def test_optimizers_step_at_once_in_several_threads(case, restore_runtime):
    optimcore.set_thread_threshold(0)
    optimcore.set_num_threads(3)
    arrays = [conv_arrays(seed=7) for _ in range(4)]
    optimizers = [case.build(a, case.conv_groups) for a in arrays]
    shared = [gradients_of(arrays[0], seed=s) for s in range(20)]  # the same inputs for all threads

    def run(optimizer):
        for gradients in shared:
            optimizer(gradients)

    threads = [threading.Thread(target=run, args=(optimizer,)) for optimizer in optimizers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    states = [state_of(optimizer) for optimizer in optimizers]
    assert all(state == states[0] for state in states)
    assert states[0]["global_step"] == 20


def test_many_small_parameters_of_mixed_dtypes(case):
    rng = np.random.default_rng(5)
    dtypes = list(DTYPES.values())
    arrays = {f"w{i}": rng.standard_normal(i % 50).astype(dtypes[i % 4]) for i in range(300)}
    oracle, optimizer = case.oracle(arrays), case.build(arrays)
    for step in range(3):
        gradients = gradients_of(arrays, seed=step)
        optimizer(gradients)
        oracle.step(gradients)
    for p in optimizer.parameters:
        tolerance = TOLERANCE[p.dtype.name] * np.abs(oracle.w[p.name]).max(initial=1.0)
        np.testing.assert_allclose(p.data.astype(float), oracle.w[p.name], rtol=0, atol=tolerance, err_msg=p.name)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_16_bit_step_is_a_float32_step_and_one_rounding(case, dtype):
    arrays = conv_arrays(DTYPES[dtype])
    wide_arrays = {name: a.astype(np.float32) for name, a in arrays.items()}
    narrow = case.build(arrays, case.conv_groups, weight_decay=0.01)
    wide = case.build(wide_arrays, case.conv_groups, weight_decay=0.01)
    for step in range(4):
        gradients = gradients_of(arrays, seed=step)
        if step % 2:  # gradients in the compute type
            gradients = tuple(g.astype(np.float32) * np.float32(1.001) for g in gradients)
        narrow(gradients)
        wide(tuple(g.astype(np.float32) for g in gradients))
        for ours, theirs in zip(narrow.parameters, wide.parameters, strict=True):
            rounded = theirs.data.astype(DTYPES[dtype])
            assert ours.data.tobytes() == rounded.tobytes()
            theirs.set_data(rounded.astype(np.float32))
    narrow_state, wide_state = state_of(narrow), state_of(wide)
    slots = [key for key in narrow_state if "/" in key and not key.startswith("stat")]
    assert all(narrow_state[key] == wide_state[key] for key in slots)


@pytest.mark.parametrize("other", ["float16", "bfloat16", "float32", "float64", "longdouble"])
def test_gradients_of_another_float_dtype(case, other):
    arrays, twin = conv_arrays(), conv_arrays()
    dtype = DTYPES.get(other, np.longdouble)
    gradients = tuple(g.astype(dtype) for g in gradients_of(arrays))
    optimizer, plain = case.build(arrays), case.build(twin)
    optimizer(gradients)
    plain(tuple(g.astype(np.float32) for g in gradients))
    assert state_of(optimizer) == state_of(plain)


@pytest.mark.parametrize("dtype", DTYPES)
def test_clipping_inside_the_step_equals_clipping_before_it(case, dtype):
    arrays, twin = conv_arrays(DTYPES[dtype]), conv_arrays(DTYPES[dtype])
    inside, before = case.build(arrays, weight_decay=0.01), case.build(twin, weight_decay=0.01)
    inside.max_grad_norm = 1.5
    for step, scale in enumerate([1.0, 0.001, 10.0]):  # beyond, within, beyond the limit
        gradients = gradients_of(arrays, seed=step, scale=scale)
        inside(gradients)
        before(optimcore.clip_by_global_norm(gradients, 1.5))
        if case.lars is None:
            assert state_of(inside) == state_of(before)
        for ours, theirs in zip(inside.parameters, before.parameters, strict=True):  # LARS measures before clipping
            ours, theirs = ours.data.astype(float), theirs.data.astype(float)
            np.testing.assert_allclose(ours, theirs, atol=TOLERANCE[dtype] * np.abs(theirs).max())


def test_clipping_looks_behind_the_loss_scale():
    case, arrays, twin = CASES[0], conv_arrays(), conv_arrays()
    gradients = gradients_of(arrays)
    plain, scaled = case.build(arrays), case.build(twin, loss_scale=1024.0)
    plain.max_grad_norm = scaled.max_grad_norm = 0.25
    plain(gradients)
    scaled(tuple(g * np.float32(1024) for g in gradients))
    for ours, theirs in zip(plain.parameters, scaled.parameters, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_limit_of_the_norm_can_be_lifted(case):
    arrays, twin = conv_arrays(), conv_arrays()
    lifted, plain = case.build(arrays), case.build(twin)
    lifted.max_grad_norm = 0.1
    lifted((None, None, None))
    lifted.max_grad_norm = None
    plain((None, None, None))
    take_steps(lifted, arrays, 2)
    take_steps(plain, twin, 2)
    assert state_of(lifted) == state_of(plain)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_stochastic_rounding_is_exact_on_resume(case, dtype):
    arrays, twin = conv_arrays(DTYPES[dtype]), conv_arrays(DTYPES[dtype])
    whole, resumed = case.build(arrays), case.build(twin)
    whole.stochastic_rounding, whole.rounding_seed = True, 5
    take_steps(whole, arrays, 3)
    resumed.stochastic_rounding, resumed.rounding_seed = True, 5
    resumed(gradients_of(arrays, seed=0))
    resumed((None, None, None))  # a step that draws for nobody, and does not count
    resumed.global_step = 1
    undo_powers(resumed)
    for step in (1, 2):
        resumed(gradients_of(arrays, seed=step))
    assert state_of(whole) == state_of(resumed)


def undo_powers(optimizer):
    """Take back what a step without gradients does to the powers of Adam's betas."""
    for name in ("beta1", "beta2"):
        power = getattr(optimizer, f"{name}_power", None)
        if power is not None:
            power.set_data(getattr(optimizer, name))


def test_stochastic_rounding_is_unbiased_and_moves_what_nearest_rounding_leaves(case):
    low_rate = {"learning_rate": 1e-4} if case.rule.takes_rate else {}

    def mean_after_five_steps(dtype, stochastic):
        w = np.full(4096, 1.0, DTYPES[dtype])
        optimizer = case.build({"w": w}, **low_rate)
        optimizer.stochastic_rounding = stochastic
        for _ in range(5):
            optimizer((np.full(4096, 1.0, np.float32),))
        return w.mean(dtype=np.float64)

    exact = mean_after_five_steps("float32", False)
    # one rounding has a deviation of at most half the distance of two numbers, which is 2^-8 just below 1
    deviation = np.sqrt(5 / 4096) * 2**-9
    assert abs(mean_after_five_steps("bfloat16", True) - exact) < 5 * deviation
    if 1 - exact < 2**-9:
        assert mean_after_five_steps("bfloat16", False) == 1.0


def test_error_of_a_rate_leaves_no_gradient_behind(case):
    if not (case.rule.takes_any_rate and case.rule.takes_rate):
        return
    arrays, twin = conv_arrays(), conv_arrays()
    spoilt, plain = case.build(arrays, learning_rate=[0.1]), case.build(twin, learning_rate=[0.1])
    spoilt.max_grad_norm = plain.max_grad_norm = 1.0
    gradients = list(gradients_of(arrays, seed=0))
    spoilt.global_step = 1
    with pytest.raises(IndexError):
        spoilt(gradients)
    spoilt.global_step = 0
    gradients[:] = gradients_of(arrays, seed=1)  # the same list with other gradients
    spoilt(gradients)
    plain(gradients)
    assert state_of(spoilt) == state_of(plain)


def test_user_defined_optimizer_clips_with_the_same_bits():
    class Plain(optimcore.Optimizer):
        def construct(self, gradients):
            for w, g in zip(self.parameters, self.scale_grad(gradients), strict=True):
                w -= self.get_lr() * g

    for seed in range(20):
        w = np.random.default_rng(seed).standard_normal(50)
        twin = w.copy()
        built_in = optimcore.SGD([optimcore.Parameter(w, "w")], learning_rate=0.5, loss_scale=3.0)
        own = Plain(0.5, [optimcore.Parameter(twin, "w")], loss_scale=3.0)
        built_in.max_grad_norm = own.max_grad_norm = 0.7
        (gradient,) = gradients_of({"w": w}, seed, scale=3.0)
        built_in((gradient,))
        own((gradient,))
        assert w.tobytes() == twin.tobytes()
