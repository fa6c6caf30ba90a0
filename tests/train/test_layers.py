import numpy as np
import pytest

from optimcore.train.layers import AveragePool, Convolution, Dense, Relu, softmax_cross_entropy

IMAGES = np.random.default_rng(1).standard_normal((3, 2, 4, 6))


def new_layers(dtype=np.float64):
    rng = np.random.default_rng(2)
    return [
        Convolution(rng, 2, 3, dtype),
        Dense(rng, IMAGES[0].size, 5, dtype),
        Relu(),
        AveragePool(),
    ]


def numeric_gradient(function, array, step=1e-6):
    """Central differences of the number `function()` in every element of `array`."""
    gradient = np.empty_like(array)
    for index in np.ndindex(array.shape):
        old = array[index]
        array[index] = old + step
        above = function()
        array[index] = old - step
        below = function()
        array[index] = old
        gradient[index] = (above - below) / (2 * step)
    return gradient


@pytest.mark.parametrize("layer", new_layers(), ids=lambda layer: type(layer).__name__)
def test_backward_agrees_with_finite_differences(layer):
    x = IMAGES.copy()
    dy = np.random.default_rng(3).standard_normal(layer.forward(x).shape)

    def loss():
        return np.sum(layer.forward(x) * dy)

    layer.forward(x)
    np.testing.assert_allclose(layer.backward(dy), numeric_gradient(loss, x), atol=1e-8)
    for name in ("weight", "bias"):
        if hasattr(layer, name):
            expected = numeric_gradient(loss, getattr(layer, name))
            np.testing.assert_allclose(getattr(layer, f"{name}_gradient"), expected, atol=1e-8)


def test_cross_entropy_agrees_with_finite_differences():
    logits = np.random.default_rng(4).standard_normal((4, 10))
    labels = np.array([0, 9, 3, 3])
    _, gradient = softmax_cross_entropy(logits, labels)
    expected = numeric_gradient(lambda: softmax_cross_entropy(logits, labels)[0], logits)
    np.testing.assert_allclose(gradient, expected, atol=1e-8)


def test_cross_entropy_of_equal_logits_is_log_of_their_number():
    loss, _ = softmax_cross_entropy(np.zeros((2, 10)), np.array([1, 7]))
    assert loss == pytest.approx(np.log(10))


def test_cross_entropy_survives_huge_logits():
    loss, gradient = softmax_cross_entropy(np.array([[1e4, -1e4]], np.float32), np.array([1]))
    assert loss == 2e4
    np.testing.assert_array_equal(gradient, [[1, -1]])


def test_convolution_slides_the_kernel_over_a_zero_border():
    layer = Convolution(np.random.default_rng(5), 1, 1, np.float64)
    layer.weight[:] = np.arange(9).reshape(1, 1, 3, 3)
    layer.bias[:] = 100
    spot = np.zeros((1, 1, 4, 4))
    spot[0, 0, 1, 2] = 1
    # one bright pixel prints the kernel around itself, turned by half a turn
    expected = np.full((4, 4), 100.0)
    expected[0:3, 1:4] += np.arange(9)[::-1].reshape(3, 3)
    np.testing.assert_array_equal(layer.forward(spot)[0, 0], expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_layers_keep_the_dtype(dtype):
    for layer in new_layers(dtype):
        y = layer.forward(IMAGES.astype(dtype))
        dx = layer.backward(y)
        arrays = [y, dx, *(value for key, value in vars(layer).items() if "gradient" in key)]
        assert [array.dtype for array in arrays] == [dtype] * len(arrays)


def test_weights_of_16_bits_compute_in_the_dtype_of_the_input():
    for layer, kept in zip(new_layers(np.float32), new_layers(np.float16), strict=True):
        if hasattr(layer, "weight"):
            layer.weight[...] = kept.weight
        x = IMAGES.astype(np.float32)
        y = layer.forward(x)
        np.testing.assert_array_equal(kept.forward(x), y)
        np.testing.assert_array_equal(kept.backward(y), layer.backward(y))
        if hasattr(layer, "weight"):
            assert kept.weight_gradient.dtype == np.float32
            np.testing.assert_array_equal(kept.weight_gradient, layer.weight_gradient)
