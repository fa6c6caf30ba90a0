"""16-bit storage: conversion exactly as NumPy and ml_dtypes do it, and stochastic rounding."""

import ml_dtypes
import numpy as np
import pytest

from optimcore.kernels import isa as builds
from optimcore.kernels.driver import Plan

DTYPES = {"float16": np.dtype(np.float16), "bfloat16": np.dtype(ml_dtypes.bfloat16)}


@pytest.fixture(params=builds.available_isas())
def isa(request):
    before = builds.active_isa()
    builds.use_isa(request.param)
    yield request.param
    builds.use_isa(before)


@pytest.fixture(params=DTYPES)
def dtype(request):
    return DTYPES[request.param]


def patterns(dtype):
    return np.arange(65536, dtype=np.uint16).view(dtype)


def assert_same_numbers(actual, expected):
    """Equal bits, except that one NaN is as good as another."""
    nan = np.isnan(expected)
    assert (np.isnan(actual) == nan).all()
    bits = np.uint16 if actual.dtype.itemsize == 2 else np.uint32
    np.testing.assert_array_equal(actual.view(bits)[~nan], expected.view(bits)[~nan])


def load(values):
    """Read values of a 16-bit dtype through the kernels, as the gradient rule writes them: float32."""
    out = np.empty(values.shape, np.float32)
    Plan("gradient", ["w"], [np.zeros_like(values)], [[out]], [False]).step([values], [(0.0,)])
    return out


def store(values, dtype, stochastic=None):
    """Write float32 values as a 16-bit dtype through the kernels: 0 - 1 * (-value) in float32, then rounded."""
    w = np.zeros(values.shape, dtype)
    plan = Plan("sgd", ["w"], [w], [], [False])
    if stochastic is not None:
        plan.round_stochastically(*stochastic)
    with np.errstate(invalid="ignore"):
        plan.step([-values], [(1.0,)])
    return w


def test_all_patterns_in(isa, dtype):
    with np.errstate(invalid="ignore"):
        assert_same_numbers(load(patterns(dtype)), patterns(dtype).astype(np.float32))


def interesting_float32(dtype):
    """Every 16-bit value, the halfway points between neighbours, what lies next to those, and random bits."""
    with np.errstate(all="ignore"):
        exact = patterns(dtype).astype(np.float32)
        halfway = (exact[:-1].astype(np.float64) + exact[1:].astype(np.float64)).astype(np.float32) / np.float32(2)
        near = [np.nextafter(a, np.float32(s)) for a in (exact, halfway) for s in (-np.inf, np.inf)]
        random = np.random.default_rng(0).integers(0, 2**32, 300_000, np.uint32).view(np.float32)
        values = np.concatenate([exact, halfway, *near, random])
    return np.concatenate([values, -values])


def test_dense_sample_out(isa, dtype):
    values = interesting_float32(dtype)
    with np.errstate(all="ignore"):
        expected = values.astype(dtype)
    # 0 - 1 * (-0.0) is +0.0: the sign of zero is the rule's, not the conversion's
    expected = np.where(values == 0, dtype.type(0), expected).astype(dtype)
    assert_same_numbers(store(values, dtype), expected)


def neighbours(values, dtype):
    """Return the 16-bit numbers below and above each value, in float64."""
    with np.errstate(invalid="ignore"):
        table = patterns(dtype).astype(np.float64)
    table = np.unique(table[np.isfinite(table)])
    index = np.searchsorted(table, values.astype(np.float64), side="right") - 1
    return table[index], table[np.minimum(index + 1, len(table) - 1)]


@pytest.mark.parametrize("value", [1.0003, -3.14159, 2.0e-5, -4.1e-8, 1000.7, 6.0e-6])
def test_stochastic_rounding_is_unbiased_within_five_sigma(dtype, value):
    n = 1_000_000
    values = np.full(n, value, np.float32)
    rounded = store(values, dtype, (1, 2)).astype(np.float64)
    below, above = (float(x[0]) for x in neighbours(values[:1], dtype))
    assert set(np.unique(rounded)) == {below, above}
    chance = (float(values[0]) - below) / (above - below)
    sigma = (above - below) * np.sqrt(chance * (1 - chance) / n)
    assert abs(rounded.mean() - float(values[0])) < 5 * sigma


def test_stochastic_rounding_keeps_what_is_exact(isa, dtype):
    values = patterns(dtype).astype(np.float32)
    values = values[np.isfinite(values) & (values != 0)]
    assert_same_numbers(store(values, dtype, (3, 4)), values.astype(dtype))


def test_stochastic_rounding_of_what_is_not_finite_or_too_large(isa, dtype):
    largest = float(ml_dtypes.finfo(dtype).max)
    values = np.array([np.inf, -np.inf, np.nan, largest, -largest, 3.4e38], np.float32)
    with np.errstate(over="ignore"):
        assert_same_numbers(store(values, dtype, (3, 4)), values.astype(dtype))


def test_stochastic_rounding_has_equal_bits_on_every_isa(dtype):
    before = builds.active_isa()
    values = np.random.default_rng(5).standard_normal(100_003).astype(np.float32)
    results = set()
    for isa in builds.available_isas():
        builds.use_isa(isa)
        results.add(store(values, dtype, (7, 8)).tobytes())
    builds.use_isa(before)
    assert len(results) == 1


def test_stochastic_rounding_depends_on_seed_step_parameter_and_element(dtype):
    values = np.full(4096, 1.0003, np.float32)

    def draws(name, seed, step):
        w = np.zeros(values.shape, dtype)
        plan = Plan("sgd", [name], [w], [], [False])
        plan.round_stochastically(seed, step)
        plan.step([-values], [(1.0,)])
        return w.astype(np.float64) > 1.0003

    base = draws("w", 0, 0)
    for other in (draws("w", 1, 0), draws("w", 0, 1), draws("v", 0, 0), np.roll(base, 1), np.roll(base, 64)):
        chance = base.mean()
        # independent draws agree as often as chance says
        agreement = chance**2 + (1 - chance) ** 2
        assert abs((base == other).mean() - agreement) < 5 * np.sqrt(agreement * (1 - agreement) / len(values))
    assert (draws("w", 0, 0) == base).all()


def test_stochastic_rounding_never_moves_exact_subnormals():
    values = np.full(1_000_000, 1000 * 2.0**-24, np.float32)
    assert_same_numbers(store(values, DTYPES["float16"], (1, 2)), values.astype(np.float16))
