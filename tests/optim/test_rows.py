"""Row gradients: laws over every optimizer that takes them, and the sparse golden vectors."""

import contextlib
import os
import subprocess
import sys
import threading

import golden_data
import numpy as np
import pytest
import reference
from allocations import fail_each_allocation
from cases import CASES, DTYPES, TOLERANCE, Case, state_of

import optimcore
from optimcore import RowTensor
from optimcore.kernels import isa as builds

ROW_CASES = [c for c in CASES if c.lars is None and c.cls not in ("Lamb", "LARS", "AdaFactor")]
SHAPES = {"table": (60, 5), "kernels": (30, 3, 4), "vector": (40,), "wide": (4, 700)}


@pytest.fixture(params=ROW_CASES, ids=str)
def case(request):
    return request.param


def make_arrays(dtype=np.float32, seed=0):
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(shape).astype(dtype) for name, shape in SHAPES.items()}


def make_rows(shape, dtype=np.float32, seed=1, k=None, index_dtype=np.int64):
    """Return a RowTensor with repeated indices that leaves some rows out."""
    rng = np.random.default_rng(seed)
    k = max(2, shape[0] // 2) if k is None else k
    indices = rng.integers(0, max(1, shape[0] - 1), k).astype(index_dtype)
    values = rng.standard_normal((k, *shape[1:]))
    return RowTensor(indices, (values + np.copysign(0.01, values)).astype(dtype), shape)


def row_gradients(arrays, seed, **options):
    return tuple(make_rows(a.shape, a.dtype, 100 * seed + i, **options) for i, a in enumerate(arrays.values()))


def for_oracle(gradients):
    return [reference.Rows(g.indices, g.values.astype(np.float64)) for g in gradients]


def dense_of(gradient):
    """Return a row gradient as a dense one: merged rows in the compute type among zeros."""
    indices, merged = optimcore.merge_rows(gradient.indices, gradient.values)
    dense = np.zeros(gradient.dense_shape, merged.dtype)
    dense[indices] = merged
    return dense


def build(case, arrays, lazy, **extra):
    optimizer = case.build(arrays, **extra)
    if optimizer._lazy is None:
        optimizer.use_lazy = lazy
    return optimizer


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_matches_reference(case, dtype, lazy):
    arrays = make_arrays(DTYPES[dtype])
    extra = dict(weight_decay=0.01, loss_scale=2.0)
    optimizer = build(case, arrays, lazy, **extra)
    oracle = case.oracle(arrays, use_lazy=optimizer.use_lazy, **extra)
    for step in range(3):
        gradients = row_gradients(arrays, step)
        optimizer(gradients)
        oracle.step(for_oracle(gradients))
    for p in optimizer.parameters:
        tolerance = TOLERANCE[dtype] * np.abs(oracle.w[p.name]).max(initial=1.0)
        np.testing.assert_allclose(p.data.astype(float), oracle.w[p.name], rtol=0, atol=tolerance, err_msg=p.name)


@pytest.mark.parametrize("n", [2, 15, 16, 17, 31, 32, 33, 1000])
@pytest.mark.parametrize("width", [1, 5, 300])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rows_that_are_summed_in_place_have_the_bits_of_merged_ones(n, width, dtype):
    """Few repeats are summed in the step itself, along a chain; `merge_rows` sums them before it."""
    rng = np.random.default_rng(n)
    shape = (9 * n, width)
    indices = rng.permutation(shape[0])
    indices[rng.permutation(shape[0])[:n]] = 3
    values = rng.standard_normal(shape).astype(dtype)
    tables = [np.zeros(shape, dtype) for _ in range(2)]
    merged = RowTensor(*optimcore.merge_rows(indices, values), shape)
    for table, gradient in zip(tables, (RowTensor(indices, values, shape), merged), strict=True):
        optimcore.SGD([optimcore.Parameter(table, "table")], learning_rate=1.0)((gradient,))
    assert tables[0].tobytes() == tables[1].tobytes()
    assert tables[0][3].tobytes() == (-merged.values[list(merged.indices).index(3)]).tobytes()


def decayed_twins(case, dtype, groups=None, **extra):
    """Return an optimizer that takes rows, and decays those that are absent, and its twin for dense gradients."""
    twins = []
    for _ in range(2):
        optimizer = case.build(make_arrays(DTYPES[dtype]), groups, weight_decay=0.05, **extra)
        plan = optimizer._plan
        plan.lazy, plan.decay_absent, plan.clip = False, True, 0.75
        twins.append(optimizer)
    return twins


@pytest.mark.parametrize("dtype", DTYPES)
def test_decayed_absent_rows_have_the_bits_of_the_dense_gradient(case, dtype):
    """Issue 10: clipped, decayed, centralized and unscaled like all others, for every rule."""
    groups = [dict(params=["kernels"], grad_centralization=True), dict(params=["table", "vector", "wide"])]
    rows, dense = decayed_twins(case, dtype, groups, loss_scale=2.0)
    rows.stochastic_rounding = dense.stochastic_rounding = True
    arrays = make_arrays(DTYPES[dtype])
    for step in range(3):
        gradients = row_gradients({p.name: arrays[p.name] for p in rows.parameters}, step)
        rows(gradients)
        dense(tuple(dense_of(g) for g in gradients))
        assert state_of(rows) == state_of(dense)
    untouched = make_arrays(DTYPES[dtype])["table"][-1]  # row_gradients leaves the last row out
    (table,) = (p.data for p in rows.parameters if p.name == "table")
    assert table[-1].tobytes() != untouched.tobytes()


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("shape", [(5, 2, 9000), (40, 3, 700), (3000, 2, 5)])
@pytest.mark.parametrize("rule", ["Adam", "AdamWeightDecay"])
def test_decayed_absent_rows_are_centralized_over_whole_rows(rule, shape, threads, restore_runtime):
    """Rows may be longer than a chunk, or cross the end of one."""
    optimcore.set_num_threads(threads)
    optimcore.set_thread_threshold(0)
    states = []
    for as_gradient in (lambda g: g, dense_of):
        w = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
        parameters = [optimcore.Parameter(w, "w")]
        groups = [dict(params=parameters, grad_centralization=True)]
        optimizer = getattr(optimcore, rule)(groups, learning_rate=0.1, weight_decay=0.1)
        optimizer._plan.decay_absent = True
        for step in range(2):
            optimizer((as_gradient(make_rows(shape, seed=step)),))
        states.append(state_of(optimizer))
    assert states[0] == states[1]


class Meddler:
    """A gradient that writes to the indices of another one when it is read."""

    def __init__(self, indices, value):
        self.indices, self.value = indices, value

    def __array__(self, dtype=None, copy=None):
        self.indices[:] = self.value
        return np.ones(3, np.float32)


@pytest.mark.parametrize("merge", [True, False])
@pytest.mark.parametrize("lazy", [False, True, "catch_up"])
@pytest.mark.parametrize("repeats", [False, True])
def test_indices_that_change_after_they_were_checked(case, lazy, merge, repeats):
    """Issue 10: a step works on the indices that it has checked, not on what the caller's memory holds later."""
    if lazy == "catch_up" and case.cls not in ("Momentum", "Adam", "AdamOffload"):
        return
    rng = np.random.default_rng(0)
    rows, width, n = 50, 4, 20
    indices = rng.integers(0, rows, n) if repeats else rng.permutation(rows)[:n]
    values = rng.standard_normal((n, width)).astype(np.float32)
    outcomes = []
    for meddled in (indices.copy(), None):  # the second step is the right one
        memory = np.ones((3 * rows, width), np.float32)  # that of others before and behind the table
        table = memory[rows : 2 * rows]
        optimizer = build(case, {"table": table, "other": np.ones(3, np.float32)}, lazy)
        optimizer.unique = merge
        other = np.ones(3, np.float32) if meddled is None else Meddler(meddled, rows + 5)
        optimizer((RowTensor(indices if meddled is None else meddled, values, table.shape), other))
        outcomes.append(state_of(optimizer))
        assert (memory[:rows] == 1).all()
        assert (memory[2 * rows :] == 1).all()
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize("merge", [True, False])
@pytest.mark.parametrize("lazy", [False, True])
def test_indices_that_another_thread_changes_in_a_step(lazy, merge):
    """Issue 10: nothing is ever written outside of the table; an index outside of it is an error or was not seen."""
    rows = 20_000
    memory = np.zeros((3 * rows, 2), np.float32)
    table = memory[rows : 2 * rows]
    optimizer = build(Case("Momentum", dict(learning_rate=0.1, momentum=0.9)), {"table": table}, lazy)
    optimizer.unique = merge
    indices = np.arange(rows)
    gradient = RowTensor(indices, np.ones(table.shape, np.float32), table.shape)
    done = threading.Event()

    def write():
        while not done.is_set():
            indices[-1000:] = rows + 5
            indices[-1000:] = np.arange(rows - 1000, rows)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(100):
            with contextlib.suppress(IndexError):
                optimizer((gradient,))
    finally:
        done.set()
        writer.join()
    assert not memory[:rows].any()
    assert not memory[2 * rows :].any()
    indices[:] = np.arange(rows)
    optimizer((gradient,))


def test_absent_rows_keep_every_bit(case):
    if case.cls == "Rprop":  # never lazy
        return
    arrays = make_arrays()
    optimizer = build(case, arrays, lazy=True, weight_decay=0.01)
    optimizer(row_gradients(arrays, 0))
    before = {name: a.copy() for name, a in arrays.items()}
    slots = slots_of(optimizer)
    slots_before = {name: s.copy() for name, s in slots.items()}
    gradients = row_gradients(arrays, 1)
    optimizer(gradients)
    for (name, a), g in zip(arrays.items(), gradients, strict=True):
        absent = np.setdiff1d(np.arange(len(a)), g.indices)
        assert len(absent)
        assert a[absent].tobytes() == before[name][absent].tobytes()
        assert (a[g.indices] != before[name][g.indices]).any()
        for key, s in slots.items():
            if key.endswith("." + name):
                assert s[absent].tobytes() == slots_before[key][absent].tobytes()


def slots_of(optimizer):
    """Return the slots by name, without scalars and without what is only a view of one number."""
    return {
        p.name: p.data
        for value in vars(optimizer).values()
        if isinstance(value, optimcore.ParameterTuple) and value is not optimizer.parameters
        for p in value
        if p.ndim and p.data.flags.writeable
    }


@pytest.mark.parametrize("dtype", DTYPES)
def test_step_on_rows_equals_the_dense_step_on_those_rows(case, dtype):
    # rows without a gradient have no part in it, so the exact mode passes as well
    arrays = make_arrays(DTYPES[dtype])
    touched = {name: make_rows(a.shape, a.dtype, seed=9) for name, a in arrays.items()}
    rows = {name: optimcore.unique(g.indices) for name, g in touched.items()}
    part = {name: a[rows[name]].copy() for name, a in arrays.items()}
    on_table = build(case, arrays, lazy=True, weight_decay=0.01, loss_scale=2.0)
    on_part = case.build(part, weight_decay=0.01, loss_scale=2.0)
    for step in range(3):
        gradients = [RowTensor(g.indices, g.values * g.dtype.type(step + 1), g.dense_shape) for g in touched.values()]
        on_table(gradients)
        on_part([optimcore.merge_rows(g.indices, g.values)[1] for g in gradients])
    for name, a in arrays.items():
        assert a[rows[name]].tobytes() == part[name].tobytes()


def test_exact_mode_equals_the_dense_step_with_zeros(case):
    arrays, twin = make_arrays(), make_arrays()
    exact, dense = build(case, arrays, lazy=False), case.build(twin)
    if exact.use_lazy:  # a gradient of 0 changes nothing
        return
    for step in range(3):
        gradients = row_gradients(arrays, step)
        exact(gradients)
        dense(tuple(dense_of(g) for g in gradients))
    assert state_of(exact) == state_of(dense)


@pytest.mark.parametrize("shape", [(30_000, 3), (7, 20_000), (16_384, 2), (50_000,), (3, 40_000, 1)])
def test_exact_mode_of_tables_with_many_chunks(shape):
    case = Case("Adam", dict(learning_rate=0.01))
    rng = np.random.default_rng(0)
    initial = rng.standard_normal(shape).astype(np.float32)
    exact, dense = case.build({"w": initial.copy()}), case.build({"w": initial.copy()})
    for step in range(2):
        gradient = make_rows(shape, seed=step, k=min(1000, 2 * shape[0]))
        exact((gradient,))
        dense((dense_of(gradient),))
    assert state_of(exact) == state_of(dense)


@pytest.mark.parametrize("lazy", [False, True])
def test_repeated_rows_equal_one_summed_row(case, lazy):
    arrays, twin = make_arrays(), make_arrays()
    repeated, summed = build(case, arrays, lazy), build(case, twin, lazy)
    for step in range(2):
        gradients = row_gradients(arrays, step)
        repeated(gradients)
        summed([RowTensor(*optimcore.merge_rows(g.indices, g.values), g.dense_shape) for g in gradients])
    assert state_of(repeated) == state_of(summed)


PATTERNS = {
    "all different": lambda rng, k: rng.permutation(4 * k)[:k],
    "one pair": lambda rng, k: np.r_[rng.permutation(4 * k)[: k - 1], 0],
    "one long chain": lambda rng, k: np.r_[1 + rng.permutation(4 * k)[: k - k // 8], np.zeros(k // 8, np.int64)],
    "few repeats": lambda rng, k: rng.integers(0, 4 * k, k),
    "many repeats": lambda rng, k: (4 * k * rng.random(k) ** 8).astype(np.int64),
    "pairs": lambda rng, k: np.arange(k) // 2,
    "all equal": lambda rng, k: np.full(k, k),
}


@pytest.mark.parametrize("table, values", [("float32", "float32"), ("float64", "float64"), ("bfloat16", "float32")])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_rows_summed_within_the_step_equal_rows_merged_before(pattern, table, values, restore_runtime):
    """Widths and counts around the parts of rows that are summed at once, and around chunks."""
    optimcore.set_thread_threshold(0)
    rng = np.random.default_rng(5)
    for k, width in [(2, 1), (3000, 15), (2100, 16), (1100, 17), (70, 255), (65, 256), (130, 257), (9, 513)]:
        shape = (4 * k + 1, width)
        w = rng.standard_normal(shape).astype(DTYPES[table])
        rows = RowTensor(PATTERNS[pattern](rng, k), rng.standard_normal((k, width)).astype(DTYPES[values]), shape)
        merged = RowTensor(*optimcore.merge_rows(rows.indices, rows.values), shape)
        states = []
        for gradient, threads in [(merged, 1), (rows, 1), (rows, 2), (rows, 3), (rows, 7)]:
            optimcore.set_num_threads(threads)
            optimizer = Case("LazyAdam", dict(weight_decay=0.01)).build({"w": w.copy()})
            optimizer.stochastic_rounding = True
            for _ in range(2):
                optimizer((gradient,))
            states.append(state_of(optimizer))
        assert all(state == states[0] for state in states), (k, width)


def test_order_of_rows_does_not_matter(case):
    arrays, twin = make_arrays(), make_arrays()
    one, other = build(case, arrays, True), build(case, twin, True)
    gradients = [RowTensor(*optimcore.merge_rows(g.indices, g.values), g.dense_shape) for g in row_gradients(arrays, 3)]
    one(gradients)
    other([RowTensor(g.indices[::-1], g.values[::-1], g.dense_shape) for g in gradients])
    assert state_of(one) == state_of(other)


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_same_bits_for_every_isa_and_thread_count(case, dtype, lazy, restore_runtime):
    optimcore.set_thread_threshold(0)
    rng = np.random.default_rng(4)
    initial = {"table": rng.standard_normal((3000, 17)), "conv": rng.standard_normal((200, 3, 5))}
    initial = {name: a.astype(DTYPES[dtype]) for name, a in initial.items()}
    gradients = [row_gradients(initial, step, k=2500) for step in range(2)]
    states = []
    for isa in builds.available_isas():
        builds.use_isa(isa)
        for threads in (1, 2, 3, 7):
            optimcore.set_num_threads(threads)
            arrays = {name: a.copy() for name, a in initial.items()}
            optimizer = build(case, arrays, lazy, weight_decay=0.01)
            optimizer.max_grad_norm, optimizer.stochastic_rounding = 5.0, True
            for g in gradients:
                optimizer(g)
            states.append(state_of(optimizer))
    assert all(state == states[0] for state in states)


def test_decay_reaches_a_row_once():
    w = np.ones((5, 2))
    opt = optimcore.SGD([optimcore.Parameter(w, "w")], learning_rate=1.0, weight_decay=0.5)
    opt((RowTensor(np.array([1, 1, 1]), np.zeros((3, 2)), (5, 2)),))
    assert w[:, 0].tolist() == [1, 0.5, 1, 1, 1]


@pytest.mark.parametrize("lazy", [False, True])
def test_rows_of_kernels_are_centralized(case, lazy):
    arrays = {"conv": make_arrays()["kernels"]}
    groups = [dict(params=["conv"], grad_centralization=True, weight_decay=0.05)]
    optimizer = build(case, arrays, lazy, groups=groups)
    oracle = case.oracle(arrays, groups, use_lazy=optimizer.use_lazy)
    for step in range(2):
        gradients = row_gradients(arrays, step)
        optimizer(gradients)
        oracle.step(for_oracle(gradients))
    np.testing.assert_allclose(arrays["conv"], oracle.w["conv"], atol=1e-5)


def test_methods_of_the_base_class_take_rows():
    arrays, twin = make_arrays(), make_arrays()
    case = Case("Adam", dict(learning_rate=0.01, use_lazy=True))
    fused = case.build(arrays, weight_decay=0.01, loss_scale=3.0)
    methods = case.build(make_arrays(), weight_decay=0.01, loss_scale=3.0)
    plain = case.build(twin)
    for step in range(3):
        for ours, theirs in zip(methods.parameters, plain.parameters, strict=True):
            ours.set_data(theirs)
        gradients = row_gradients(arrays, step)
        prepared = methods.scale_grad(methods.gradients_centralization(methods.decay_weight(gradients)))
        plain(prepared)
        fused(gradients)
    assert state_of(fused) == state_of(plain)


@pytest.mark.parametrize("lazy", [False, True])
def test_clipping_inside_the_step_counts_merged_rows(case, lazy):
    arrays, twin = make_arrays(), make_arrays()
    inside, before = build(case, arrays, lazy), build(case, twin, lazy)
    inside.max_grad_norm = 1.5
    for step in range(2):
        gradients = row_gradients(arrays, step)
        merged = [RowTensor(*optimcore.merge_rows(g.indices, g.values), g.dense_shape) for g in gradients]
        norm = np.sqrt(sum((g.values.astype(float) ** 2).sum() for g in merged))
        assert optimcore.global_norm(gradients) == pytest.approx(norm)
        inside(gradients)
        before(optimcore.clip_by_global_norm(merged, 1.5))
    assert state_of(inside) == state_of(before)


def test_all_finite_looks_at_rows():
    good = RowTensor(np.array([0, 1]), np.ones((2, 3)), (4, 3))
    bad = RowTensor(np.array([0, 1]), np.array([[1.0, 2, 3], [1, np.inf, 3]]), (4, 3))
    assert optimcore.all_finite((good, None, np.ones(3)))
    assert not optimcore.all_finite((good, bad))


@pytest.mark.parametrize("index_dtype", [np.int32, np.int64, np.uint8])
def test_index_dtypes(index_dtype):
    arrays, twin = make_arrays(), make_arrays()
    case = Case("LazyAdam", dict(learning_rate=0.01))
    one, other = case.build(arrays), case.build(twin)
    one(row_gradients(arrays, 1, index_dtype=index_dtype))
    other(row_gradients(arrays, 1))
    assert state_of(one) == state_of(other)


def test_no_rows_at_all(case):
    arrays = make_arrays()
    optimizer = build(case, arrays, lazy=True)
    before = {name: a.copy() for name, a in arrays.items()}
    optimizer(row_gradients(arrays, 0, k=0))
    if optimizer.use_lazy:
        assert all((a == before[name]).all() for name, a in arrays.items())


def test_dense_and_row_gradients_side_by_side(case):
    arrays = make_arrays()
    optimizer = build(case, arrays, lazy=True)
    oracle = case.oracle(arrays, use_lazy=optimizer.use_lazy)
    for step in range(4):
        rows = row_gradients(arrays, step)
        mixed = [g if (i + step) % 2 else dense_of(g) for i, g in enumerate(rows)]
        optimizer(mixed)
        oracle.step([for_oracle([g])[0] if isinstance(g, RowTensor) else g for g in mixed])
    for p in optimizer.parameters:
        np.testing.assert_allclose(p, oracle.w[p.name], atol=1e-5)


class Spoilt:
    """What looks like a RowTensor whose contents changed after it was checked."""

    def __init__(self, indices, values, dense_shape):
        self.indices, self.values, self.dense_shape = indices, values, dense_shape


@pytest.mark.parametrize("unique", [True, False])
@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (lambda g: Spoilt(g.indices - 1000, g.values, g.dense_shape), IndexError, r"indices in \[0, 60\), got -"),
        (lambda g: Spoilt(g.indices + 60, g.values, g.dense_shape), IndexError, r"indices in \[0, 60\), got "),
        (lambda g: Spoilt(g.indices, g.values[1:], g.dense_shape), ValueError, "to fit dense_shape.*one length"),
        (lambda g: RowTensor(g.indices, g.values, (61, 5)), ValueError, r"dense_shape \(60, 5\), got \(61, 5\)"),
        (lambda g: RowTensor(g.indices, g.values[:, :4], (60, 4)), ValueError, r"dense_shape \(60, 5\), got \(60, 4\)"),
    ],
)
def test_bad_rows_change_nothing(case, spoil, error, message, unique):
    arrays = make_arrays()
    optimizer = build(case, arrays, lazy=True)
    optimizer.unique = unique
    before = state_of(optimizer)
    table, *others = row_gradients(arrays, 0)
    bad = dict(zip(arrays, (table, *others), strict=True))
    bad["table"] = spoil(table)
    with pytest.raises(error, match=message):
        optimizer(list(reversed([bad[name] for name in reversed(list(arrays))])))
    assert state_of(optimizer) == before


@pytest.mark.parametrize(
    "make",
    [
        lambda ps: optimcore.Lamb(ps, 0.1),
        optimcore.AdaFactor,
        lambda ps: optimcore.LARS(optimcore.SGD(ps, momentum=0.9)),
        lambda ps: optimcore.LARS(optimcore.AdamWeightDecay(ps)),
    ],
    ids=["Lamb", "AdaFactor", "LARS", "LARS around AdamWeightDecay"],
)
def test_optimizers_of_whole_parameters_refuse_rows(make):
    arrays = make_arrays()
    optimizer = make([optimcore.Parameter(array, name) for name, array in arrays.items()])
    before = state_of(optimizer)
    with pytest.raises(TypeError, match="must be dense"):
        optimizer(row_gradients(arrays, 0))
    assert state_of(optimizer) == before


def test_without_merging_repeats_are_applied_in_order():
    w = np.zeros((3, 1))
    opt = optimcore.Momentum([optimcore.Parameter(w, "w")], learning_rate=1.0, momentum=0.5)
    opt.use_lazy, opt.unique = True, False
    opt((RowTensor(np.array([1, 1]), np.ones((2, 1)), (3, 1)),))
    assert w.ravel().tolist() == [0, -2.5, 0]  # moments 1, then 0.5 * 1 + 1


@pytest.mark.parametrize("cls", ["SGD", "Adam"])
def test_debug_mode_checks_the_promise_that_no_index_repeats(cls):
    code = """
import numpy as np, optimcore as nn
opt = nn.CLASS([nn.Parameter(np.zeros((9, 1)), "w")])
opt.unique = False
opt((nn.RowTensor(np.array([1, 2]), np.ones((2, 1)), (9, 1)),))
opt((nn.RowTensor(np.array([1, 7, 7]), np.ones((3, 1)), (9, 1)),))
"""
    result = subprocess.run(
        [sys.executable, "-c", code.replace("CLASS", cls)],
        env={**os.environ, "OPTIMCORE_DEBUG": "1"},
        capture_output=True,
        text=True,
    )
    assert "ValueError: gradients[0], of parameter 'w', must not repeat an index" in result.stderr
    assert "got 7 twice" in result.stderr


@pytest.mark.parametrize(("cls", "must"), [("SGD", True), ("Adagrad", True), ("FTRL", True), ("Rprop", False)])
def test_use_lazy_that_the_rule_does_not_allow(cls, must):
    optimizer = getattr(optimcore, cls)([optimcore.Parameter(np.ones(3), "w")])
    assert optimizer.use_lazy is must
    with pytest.raises(ValueError, match=f"use_lazy must be {must} for {cls}, got {not must}"):
        optimizer.use_lazy = not must


@pytest.mark.parametrize("config", golden_data.sparse(), ids=str)
def test_golden(config):
    optimizer = golden_data.build(config, optimcore)
    for step in range(config.steps):
        (rows,) = config.gradients(step)
        optimizer((RowTensor(rows.indices, rows.values, optimizer.parameters[0].shape),))
        np.testing.assert_allclose(optimizer.parameters[0], config.expected(step)[0], **golden_data.TOLERANCE)
    for slot, expected in config.expected_slots().items():
        actual = getattr(optimizer, slot)
        if isinstance(actual, optimcore.ParameterTuple):
            np.testing.assert_allclose(actual[0], expected[golden_data.TABLE], **golden_data.TOLERANCE)
        else:
            np.testing.assert_allclose(actual, np.squeeze(expected[golden_data.TABLE]), rtol=1e-5)


@pytest.mark.parametrize("values", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("table", DTYPES)
def test_repeated_rows_of_every_dtype_in_tables_of_every_dtype(table, values):
    w = np.zeros((4, 3), DTYPES[table])
    optimizer = optimcore.SGD([optimcore.Parameter(w, "w")], learning_rate=1.0)
    optimizer((RowTensor(np.array([1, 3, 1]), np.full((3, 3), 0.5, DTYPES[values]), w.shape),))
    assert w[:, 0].astype(float).tolist() == [0, -1, 0, -0.5]


def test_tables_of_several_dtypes_without_lazy_have_equal_bits_for_every_thread_count(restore_runtime):
    optimcore.set_thread_threshold(0)
    states = []
    for threads in (1, 2, 4, 7):
        optimcore.set_num_threads(threads)
        rng = np.random.default_rng(0)
        dtypes = [np.float64, np.float32, np.float16] * 3
        arrays = {f"w{i}": rng.standard_normal((600, 512)).astype(dtype) for i, dtype in enumerate(dtypes)}
        optimizer = Case("Adam", dict(learning_rate=0.01)).build(arrays)
        for step in range(2):
            optimizer(row_gradients(arrays, step))
        states.append(state_of(optimizer))
    assert all(state == states[0] for state in states)


@pytest.mark.parametrize("lazy", [False, True])
def test_foreign_row_gradients_are_read_as_they_are(lazy):
    """Strided or listed indices of something that only looks like a RowTensor."""
    for indices in (np.array([0, 10**9, 1, 10**9])[::2], [0, 1], np.array([0, 1], np.int16)):
        w = np.zeros((3, 1))
        optimizer = optimcore.Momentum([optimcore.Parameter(w, "w")], learning_rate=1.0, momentum=0.5)
        optimizer.use_lazy, optimizer.unique = lazy, False
        optimizer((Spoilt(indices, np.ones((2, 1)), (3, 1)),))
        assert w.ravel().tolist() == [-1, -1, 0]
    for indices, error in ((np.array([0.0, 1.0]), TypeError), (np.zeros((2, 1), int), ValueError)):
        with pytest.raises(error, match=r"gradients\[0\].* must have indices"):
            optimizer((Spoilt(indices, np.ones((2, 1)), (3, 1)),))


def test_methods_of_the_base_class_check_rows():
    optimizer = optimcore.SGD([optimcore.Parameter(np.zeros((3, 2)), "w")], weight_decay=0.1)
    rows = RowTensor(np.array([0]), np.ones((1, 2)), (100, 2))
    with pytest.raises(ValueError, match=r"gradients\[0\].* must have dense_shape \(3, 2\), got \(100, 2\)"):
        optimizer.decay_weight((rows,))
    with pytest.raises(ValueError, match="one entry per parameter, 1 in all, got 2"):
        optimizer.decay_weight((rows, rows))


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize(
    ("cls", "lazy", "merge"),
    [("LazyAdam", True, True), ("Adam", False, True), ("Adam", "catch_up", True), ("Adagrad", True, False)],
)
def test_every_allocation_of_a_step_on_rows_may_fail(cls, lazy, merge, dtype, restore_runtime):
    """Issue 10: MemoryError with everything unchanged, or the whole step; and then the next one."""
    optimcore.set_num_threads(1)
    arrays = {name: make_arrays(DTYPES[dtype])[name] for name in ("table", "vector")}
    first, second = row_gradients(arrays, 0, k=3), row_gradients(arrays, 1, index_dtype=np.int32)

    class Step:
        def __init__(self, n):
            self.optimizer = build(Case(cls, {}), {name: a.copy() for name, a in arrays.items()}, lazy)
            self.optimizer.unique = merge
            if n % 2:  # some of the memory is there already
                self.optimizer(first)
            self.before = state_of(self.optimizer)

        def __call__(self):
            self.optimizer(second)

    whole = [Step(n) for n in range(2)]
    for step in whole:
        step()
    after = [state_of(step.optimizer) for step in whole]

    def check(step, raised):
        if raised:
            assert state_of(step.optimizer) == step.before
            step()
        assert state_of(step.optimizer) in after

    assert fail_each_allocation(Step, check) > 10
