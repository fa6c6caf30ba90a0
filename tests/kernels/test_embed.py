"""The public .pxd: every function of it, and a whole trainer, in modules that are built against the package."""

import ctypes
import re
from pathlib import Path

import extension
import numpy as np
import pytest
from ml_dtypes import bfloat16

import optimcore
from optimcore.kernels import driver, embed
from optimcore.kernels import isa as builds

PXD = (Path(embed.__file__).parent / "embed.pxd").read_text(encoding="utf-8")
RULES = embed.count_numbers()
# in the order of the enum: dtypes of the parameter and of its gradient
STORAGE = [
    (np.float32, np.float32),
    (np.float64, np.float64),
    (np.float16, np.float16),
    (bfloat16, bfloat16),
    (np.float16, np.float32),
    (bfloat16, np.float32),
]
HYPERS = (0.1, 0.6, 0.7, 0.05, 0.5, 1.0)
DECAY, SCALE = 0.02, 0.25


@pytest.fixture(scope="module")
def doors(tmp_path_factory):
    code = (Path(__file__).parent / "embed_doors.pyx").read_text(encoding="utf-8")
    return extension.build(tmp_path_factory.mktemp("doors"), "embed_doors", code)


@pytest.fixture(scope="module")
def logistic(tmp_path_factory):
    code = (extension.EXAMPLE / "logistic.pyx").read_text(encoding="utf-8")
    return extension.build(tmp_path_factory.mktemp("logistic"), "logistic", code)


@pytest.fixture
def scratch(doors):
    scratch = doors.new_scratch()
    yield scratch
    doors.free_scratch(scratch)


# ---- the file


def test_the_table_of_rules_is_complete():
    """A rule that is missing, or a hyper too many, would send a stranger into memory that is not his."""
    lines = re.findall(r"^#   ([a-z_]+)  +([a-z0-9, ]+?)(?:  +([a-z_, ]+))?$", PXD, re.MULTILINE)
    documented = {rule: tuple(len(names.split()) for names in lists) for rule, *lists in lines if rule != "rule"}
    assert documented == RULES


def test_the_file_stands_alone():
    assert re.findall(r"^\s*(?:from (\S+) )?cimport ", PXD, re.MULTILINE) == ["libc.stdint"]
    assert "cdef extern" not in PXD and "include" not in re.sub(r"include_path|get_include", "", PXD)


def test_every_function_runs_without_the_gil_or_says_that_it_needs_it():
    functions = re.findall(r"(?:^#[^\n]*\n)*^(?:cdef [^(\n]*)\([^)]*\)[^\n]*", PXD, re.MULTILINE)
    assert len(functions) == len(embed.__pyx_capi__) == 16
    assert all(f.endswith("noexcept nogil") or "eeds the GIL" in f for f in functions)


def test_get_include_finds_the_file():
    assert (Path(optimcore.get_include()) / "optimcore" / "kernels" / "embed.pxd").is_file()


# ---- rules


def address(array):
    return array.ctypes.data


def random_arrays(rng, shape, dtypes, n_slots):
    """Return a parameter, its gradient, and slots that are not negative."""
    w, g = (rng.standard_normal(shape).astype(dtype) for dtype in dtypes)
    compute = np.float64 if dtypes[0] is np.float64 else np.float32
    return w, g, [rng.random(shape).astype(compute) for _ in range(n_slots)]


def make_plan(rule, w, slots):
    plan = driver.Plan(rule, ["w"], [w], [[s] for s in slots], [False])
    plan.decay[:], plan.scale[:], plan.takes_rows = DECAY, SCALE, True
    return plan


def copies(w, slots):
    return w.copy(), [s.copy() for s in slots]


def as_bytes(w, slots):
    return [a.tobytes() for a in (w, *slots)]


def arguments(doors, rule, storage, slots):
    """Return what the functions for rows have in common, and what must live as long as their call."""
    hypers = np.array(HYPERS[: RULES[rule][0]])
    pointers = np.array([address(s) for s in slots], np.uintp)
    first = (doors.find_rule(rule.encode()), storage, address(hypers), DECAY, SCALE)
    return first, address(pointers) if slots else 0, (hypers, pointers)


@pytest.mark.parametrize("storage", range(len(STORAGE)))
@pytest.mark.parametrize("rule", RULES)
def test_row_has_the_bits_of_a_dense_step(doors, rule, storage):
    w, g, slots = random_arrays(np.random.default_rng(0), 37, STORAGE[storage], RULES[rule][1])
    expected = copies(w, slots)
    make_plan(rule, *expected).step([g], [HYPERS[: RULES[rule][0]]])
    first, pointers, _alive = arguments(doors, rule, storage, slots)
    doors.update_row(*first, address(w), pointers, address(g), 37)
    assert as_bytes(w, slots) == as_bytes(*expected)


@pytest.mark.parametrize("storage", range(len(STORAGE)))
@pytest.mark.parametrize("rule", RULES)
def test_rows_have_the_bits_of_a_step_on_rows(doors, rule, storage):
    rng = np.random.default_rng(1)
    w, _, slots = random_arrays(rng, (50, 5), STORAGE[storage], RULES[rule][1])
    rows = rng.permutation(50)[:20]
    values = rng.standard_normal((20, 5)).astype(STORAGE[storage][1])
    expected = copies(w, slots)
    gradient = optimcore.RowTensor(rows, values, (50, 5))
    make_plan(rule, *expected).step([gradient], [HYPERS[: RULES[rule][0]]])
    first, pointers, _alive = arguments(doors, rule, storage, slots)
    doors.update_rows(*first, address(w), pointers, address(rows), 20, 5, address(values))
    assert as_bytes(w, slots) == as_bytes(*expected)


def test_counts(doors):
    assert {rule: doors.counts(doors.find_rule(rule.encode())) for rule in RULES} == RULES


def test_rules_are_those_of_the_active_isa(doors, restore_runtime):
    found = set()
    for isa in builds.available_isas():
        builds.use_isa(isa)
        found.add(doors.find_rule(b"adam"))
    assert len(found) == len(builds.available_isas())


@pytest.mark.parametrize("name", [b"sgdd", b"", b"\xff", b"norm"])
def test_rule_that_does_not_exist(doors, name):
    with pytest.raises(ValueError, match="rule must name a kernel, got "):
        doors.find_rule(name)


@pytest.mark.parametrize("name", embed.NOT_FOR_ROWS)
def test_rule_that_is_not_for_rows(doors, name):
    with pytest.raises(ValueError, match=f"rule must update one element at a time, got '{name}'"):
        doors.find_rule(name.encode())


# ---- rows that share an index


def read(pointer, count, dtype):
    """Return a copy of `count` items at an address."""
    return np.frombuffer(ctypes.string_at(pointer, count * np.dtype(dtype).itemsize), dtype)


@pytest.mark.parametrize("k", [1, 2, 1000])
def test_find_unique(doors, scratch, k):
    indices = np.random.default_rng(k).integers(-300, 300, k)
    slots = np.empty(k, np.int32)
    u = doors.find_unique(scratch, address(indices), k, address(slots))
    expected, inverse = optimcore.unique(indices, return_inverse=True)
    np.testing.assert_array_equal(read(doors.unique_indices(scratch), u, np.int64), expected)
    np.testing.assert_array_equal(slots, inverse)
    assert doors.bounds(scratch) == (indices.min(), indices.max())


@pytest.mark.parametrize("storage", range(4))
@pytest.mark.parametrize("width", [1, 7])
def test_merge_rows(doors, scratch, storage, width):
    rng = np.random.default_rng(storage)
    for k in (500, 3, 900):  # memory is kept, and grows
        indices = rng.integers(0, 200, k)
        values = rng.standard_normal((k, width)).astype(STORAGE[storage][1])
        u = doors.merge_rows(scratch, storage, address(indices), k, address(values), width)
        rows, sums = optimcore.merge_rows(indices, values)
        np.testing.assert_array_equal(read(doors.unique_indices(scratch), u, np.int64), rows)
        assert read(doors.merged_rows(scratch), u * width, sums.dtype).tobytes() == sums.tobytes()
    assert doors.scratch_bytes(scratch) < 4_000_000 + 120 * 900 + 8 * 200 * width


def test_no_rows_at_all(doors, scratch):
    assert doors.find_unique(scratch, 0, 0, 0) == 0
    assert doors.merge_rows(scratch, 0, 0, 0, 0, 4) == 0


# ---- threads


def test_num_threads(doors, restore_runtime):
    for threads in (1, 3):
        optimcore.set_num_threads(threads)
        assert doors.num_threads() == threads


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_run_blocks_runs_each_block_once(doors, threads):
    for n in (0, 1, 1000):
        runs, thread = doors.run_blocks(n, threads, -1)
        assert runs == [1] * n
        assert set(thread) <= set(range(threads))


def test_run_blocks_stops_where_a_block_says_so(doors):
    assert doors.run_blocks(10, 1, 3)[0] == [1] * 4 + [0] * 6


# ---- the trainer in cimport_example/

N_FEATURES = 5000
HYPER = dict(learning_rate=0.1, l1=0.002, l2=0.01, initial_accum=0.1)


def make_examples(n=3000):
    """Return examples as in a CSR matrix, with a few frequent and many rare features."""
    rng = np.random.default_rng(0)
    starts = np.append(0, np.cumsum(rng.integers(0, 20, n)))
    features = np.minimum(rng.zipf(1.3, starts[-1]), N_FEATURES) - 1
    values = rng.random(starts[-1], np.float32) + np.float32(0.5)
    truth = rng.standard_normal(N_FEATURES) * 2
    score = np.bincount(np.repeat(np.arange(n), np.diff(starts)), values * truth[features], n)
    return starts, features, values, (rng.random(n) < 1 / (1 + np.exp(-score))).astype(np.float32)


def loss_of(weights, starts, features, values, labels):
    n = len(labels)
    score = np.bincount(np.repeat(np.arange(n), np.diff(starts)), values * weights[features].astype(float), n)
    return np.logaddexp(0, np.where(labels == 1, -score, score)).mean()


def train_in_python(starts, features, values, labels, batch_size):
    weights = np.zeros(N_FEATURES, np.float32)
    opt = optimcore.FTRL([optimcore.Parameter(weights, "w")], **HYPER)
    for first in range(0, len(labels), batch_size):
        last = min(first + batch_size, len(labels))
        entries = slice(starts[first], starts[last])
        f, x, y = features[entries], values[entries], labels[first:last]
        example = np.repeat(np.arange(last - first), np.diff(starts[first : last + 1]))
        score = np.bincount(example, weights[f].astype(float) * x, last - first)
        error = (1 / (1 + np.exp(-score)) - y) / (last - first)
        opt((optimcore.RowTensor(f, (error[example] * x).astype(np.float32), (N_FEATURES,)),))
    return weights


def train_in_cython(logistic, examples, batch_size):
    model = logistic.LogisticRegression(N_FEATURES, *HYPER.values())
    model.fit(*examples, batch_size)
    return model.weights


def test_trainer_agrees_with_the_python_path(logistic):
    examples = make_examples()
    weights = train_in_cython(logistic, examples, 500)
    np.testing.assert_allclose(weights, train_in_python(*examples, 500), rtol=1e-4, atol=1e-6)
    assert 0 < np.count_nonzero(weights) < len(np.unique(examples[1]))
    assert loss_of(weights, *examples) < 0.8 * np.log(2)


def test_trainer_gives_equal_bits_for_every_thread_count_and_isa(logistic, restore_runtime):
    examples = make_examples()
    results = set()
    for isa in builds.available_isas():
        builds.use_isa(isa)
        for threads in (1, 2, 4):
            optimcore.set_num_threads(threads)
            results.add(train_in_cython(logistic, examples, 1000).tobytes())
    assert len(results) == 1


def test_trainer_refuses_features_that_it_does_not_know(logistic):
    starts, features, values, labels = make_examples(10)
    features[-1] = N_FEATURES
    with pytest.raises(ValueError, match="features be known"):
        train_in_cython(logistic, (starts, features, values, labels), 5)
