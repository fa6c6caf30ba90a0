"""Gradients in the memory of parameters or slots count as if all of them had been read first."""

import numpy as np
import pytest
from cases import CASES, state_of

import optimcore

N, WIDTH = 5000, 16  # several chunks


@pytest.fixture(params=CASES, ids=str)
def case(request):
    return request.param


def slots_of(optimizer):
    """Return the slots that have the shape of a parameter, as arrays."""
    inner = getattr(optimizer, "optimizer", optimizer)
    tuples = [v for v in vars(inner).values() if isinstance(v, optimcore.ParameterTuple) and v is not inner.parameters]
    arrays = [p.data for slot in tuples for p in slot]
    return [a for a in arrays if a.shape == (N, WIDTH) and a.strides[-1] == a.itemsize]


def views(kind, arrays, optimizer):
    """Return one gradient per parameter in the memory of parameters or slots."""
    first, second = arrays.values()
    if kind == "itself":
        return first, second
    if kind == "the other":
        return second, first
    if kind == "shifted":  # overlaps all chunks of its own parameter and its neighbours
        both = first.base
        return both[WIDTH // 2 :][: N * WIDTH].reshape(N, WIDTH), both[-N * WIDTH - 3 : -3].reshape(N, WIDTH)
    if kind == "reversed":
        return first[::-1], second[:, ::-1]
    slots = slots_of(optimizer) or [first]
    return slots[-1], slots[0]


def parameters(seed):
    rng = np.random.default_rng(seed)
    memory = rng.standard_normal(2 * N * WIDTH).astype(np.float32)
    memory[:] = memory * 0.1 + 1  # like gradients of a loss: neither tiny nor of one sign in every rule
    return {"a": memory[: N * WIDTH].reshape(N, WIDTH), "b": memory[N * WIDTH :].reshape(N, WIDTH)}


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("kind", ["itself", "the other", "shifted", "reversed", "slots"])
def test_dense_gradients(case, kind, threads, restore_runtime):
    optimcore.set_num_threads(threads)
    optimcore.set_thread_threshold(0)
    arrays, twin = parameters(0), parameters(0)
    aliased, plain = case.build(arrays), case.build(twin)
    for _ in range(2):
        copies = [np.array(g) for g in views(kind, twin, plain)]
        aliased(views(kind, arrays, aliased))
        plain(copies)
    assert state_of(aliased) == state_of(plain)


ROWS_CASES = [case for case in CASES if case.cls not in ("Lamb", "AdaFactor") and case.lars is None]


@pytest.mark.parametrize("lazy", [True, False])
@pytest.mark.parametrize("repeats", [False, True])
@pytest.mark.parametrize("case", ROWS_CASES, ids=str)
def test_rows(case, repeats, lazy):
    results = []
    for copies in (False, True):
        arrays = parameters(1)
        optimizer = case.build(arrays)
        if optimizer._lazy is None:
            optimizer.use_lazy = lazy
        table, other = arrays.values()
        indices = np.arange(10, 2010)
        if repeats:
            indices[1] = indices[0]
        for values in (table[5:2005], other[:2000], (slots_of(optimizer) or [table])[0][3:2003]):
            given = values.copy() if copies else values
            gradients = [optimcore.RowTensor(indices, given, table.shape), None]
            optimizer(gradients)
        results.append(state_of(optimizer))
    assert results[0] == results[1]


def test_memory_that_was_found_apart_is_looked_at_again_where_parameters_moved():
    memory = np.zeros(30, np.float32)
    w, g = memory[:10], memory[10:20]
    g[:] = 1
    opt = optimcore.Momentum([optimcore.Parameter(w, "w")], learning_rate=1.0, momentum=0.0)
    opt((g,))
    opt._plan.replace(0, memory[5:15])  # now the same gradient overlaps it
    expected = memory[5:15] - g
    opt((g,))
    np.testing.assert_array_equal(memory[5:15], expected)
