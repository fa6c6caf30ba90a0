"""Norms and clipping."""

import math

import numpy as np
import pytest

import optimcore
from optimcore import clip_by_global_norm, global_norm


@pytest.mark.parametrize(
    ("gradients", "norm"),
    [
        ([[3e200, 4e200]], 5e200),
        ([[3e-200, 4e-200]], 5e-200),
        ([[1e160] * 8], 8**0.5 * 1e160),
        ([[3e200], [4e200], [1.0], [1e-200]], 5e200),
        ([[3e-200], [], [4e-200], [0.0]], 5e-200),
        ([[3.0, 4e-200], [4.0]], 5.0),
        ([[5e-324]], 5e-324),
        ([[1e308, 1e308]], math.sqrt(2) * 1e308),
        ([[0.0, 0.0]], 0.0),
        ([], 0.0),
    ],
)
def test_norm_is_right_where_squares_overflow_or_vanish(gradients, norm):
    assert math.isclose(global_norm([np.array(g, np.float64) for g in gradients]), norm, rel_tol=1e-14)


def test_norm_beyond_the_largest_number_is_infinite():
    assert global_norm([np.full(8, 1e308)]) == math.inf
    assert math.isnan(global_norm([np.array([math.nan, 1e308])]))


def test_chunks_of_all_magnitudes_add_up():
    g = np.zeros(100_000)
    g[3], g[50_000], g[99_999] = 3e-200, 1e-300, 4e-200
    assert math.isclose(global_norm([g]), 5e-200, rel_tol=1e-14)
    g[60_000] = 1e200
    assert global_norm([g]) == 1e200


@pytest.mark.parametrize(
    ("g", "max_norm"),
    [([3e200, 4e200], 1.0), ([3e200, 4e200], 1e-200), ([1e308] * 8, 2.0), ([3e-10, 4e-10], 1e-320)],
)
def test_clipped_gradients_have_the_wanted_norm(g, max_norm):
    g = np.array(g)
    (clipped,) = clip_by_global_norm([g], max_norm)
    expected = g / g.max() * (max_norm / np.linalg.norm(g / g.max()))
    np.testing.assert_allclose(clipped, expected, rtol=1e-3 if max_norm < 1e-300 else 1e-14)
    w = np.zeros(len(g))
    optimizer = optimcore.SGD([optimcore.Parameter(w, "w")], learning_rate=1.0)
    optimizer.max_grad_norm = max_norm
    optimizer((g,))
    np.testing.assert_array_equal(w, -clipped)


def test_factor_that_vanishes_in_float32_is_split():
    g = np.full(1000, 3e38, np.float32)
    expected = 1e-10 / math.sqrt(1000)
    np.testing.assert_allclose(clip_by_global_norm([g], 1e-10)[0], expected, rtol=1e-6)
    w = np.zeros(1000, np.float32)
    optimizer = optimcore.SGD([optimcore.Parameter(w, "w")], learning_rate=1.0)
    optimizer.max_grad_norm = 1e-10
    optimizer((g,))
    np.testing.assert_allclose(w, -expected, rtol=1e-6)


@pytest.mark.parametrize("size", [1e200, 1e-200])
def test_layerwise_rules_see_norms_of_any_size(size):
    """A factor of all gradients changes nothing in the ratio of LARS and in the direction of AdaFactor."""

    def ratio(scale):
        w = np.array([3.0, 4.0])
        lars = optimcore.LARS(optimcore.SGD([optimcore.Parameter(w, "w")], 1.0), epsilon=0.0, coefficient=0.1)
        lars((np.array([0.6, 0.8]) * scale,))
        return w

    np.testing.assert_allclose(ratio(size), ratio(1.0), rtol=1e-12)
