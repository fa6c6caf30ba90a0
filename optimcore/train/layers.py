"""Layers of a small convolutional network, forward and backward, in NumPy.

A layer holds its weights as plain arrays (``weight``, ``bias``). ``forward`` takes a batch of
images, shape (batch, channel, row, column). ``backward`` turns the gradient of the output into
that of the input and leaves those of the weights behind, as ``weight_gradient`` and
``bias_gradient``. Every float dtype works. A layer computes in the dtype of its input, in which
the gradients are as well; weights that are kept in 16 bits are converted on the way.

Each matrix product is over one image. A BLAS splits large products over its threads, and a split
sum differs in its last bits. These products stay below that size whatever the batch size, so the
bits do not depend on the number of BLAS threads.
"""

import numpy as np

__all__ = ["AveragePool", "Convolution", "Dense", "Relu", "softmax_cross_entropy"]


class Convolution:
    """Convolve with 3x3 kernels; a border of zeros keeps the image size.

    Parameters
    ----------
    rng : numpy.random.Generator
        Draws the kernels (He initialisation). Biases start at zero.
    inputs, outputs : int
        Number of channels.
    dtype : dtype, default float32
        Float dtype of the weights.

    Attributes
    ----------
    weight : ndarray, shape (outputs, inputs, 3, 3)
    bias : ndarray, shape (outputs,)
    """

    def __init__(self, rng, inputs, outputs, dtype=np.float32):
        self.weight = _draw(rng, (outputs, inputs, 3, 3), dtype)
        self.bias = np.zeros(outputs, dtype)

    def forward(self, x):
        batch, _, height, width = x.shape
        outputs = len(self.bias)
        self.patches = _patches(x)
        self.matrix = self.weight.reshape(outputs, -1).astype(x.dtype, copy=False)
        y = self.matrix @ self.patches + self.bias.astype(x.dtype, copy=False)[:, None]
        return y.reshape(batch, outputs, height, width)

    def backward(self, dy):
        batch, outputs, height, width = dy.shape
        flat = dy.reshape(batch, outputs, height * width)
        per_image = flat @ self.patches.transpose(0, 2, 1)
        self.weight_gradient = per_image.sum(axis=0).reshape(self.weight.shape)
        self.bias_gradient = flat.sum(axis=(0, 2))
        dpatches = self.matrix.T @ flat
        return _sum_patches(dpatches.reshape(batch, -1, 3, 3, height, width))


class Dense:
    """Multiply the flattened images by a matrix and add a bias.

    Parameters
    ----------
    rng : numpy.random.Generator
        Draws the matrix (He initialisation). Biases start at zero.
    inputs, outputs : int
        Number of values per image.
    dtype : dtype, default float32
        Float dtype of the weights.

    Attributes
    ----------
    weight : ndarray, shape (outputs, inputs)
    bias : ndarray, shape (outputs,)
    """

    def __init__(self, rng, inputs, outputs, dtype=np.float32):
        self.weight = _draw(rng, (outputs, inputs), dtype)
        self.bias = np.zeros(outputs, dtype)

    def forward(self, x):
        self.x = x
        self.matrix = self.weight.astype(x.dtype, copy=False)
        columns = x.reshape(len(x), -1, 1)
        return (self.matrix @ columns)[:, :, 0] + self.bias.astype(x.dtype, copy=False)

    def backward(self, dy):
        rows = self.x.reshape(len(self.x), 1, -1)
        self.weight_gradient = (dy[:, :, None] @ rows).sum(axis=0)
        self.bias_gradient = dy.sum(axis=0)
        return (self.matrix.T @ dy[:, :, None]).reshape(self.x.shape)


class Relu:
    """Replace negative values by zero."""

    def forward(self, x):
        self.positive = x > 0
        return x * self.positive

    def backward(self, dy):
        return dy * self.positive


class AveragePool:
    """Average squares of 2x2 pixels; height and width must be even."""

    def forward(self, x):
        rows = x[:, :, ::2] + x[:, :, 1::2]
        return (rows[..., ::2] + rows[..., 1::2]) / 4

    def backward(self, dy):
        return (dy / 4).repeat(2, axis=2).repeat(2, axis=3)


def softmax_cross_entropy(logits, labels):
    """Compare logits with labels.

    Parameters
    ----------
    logits : ndarray of float, shape (batch, classes)
    labels : ndarray of int, shape (batch,)

    Returns
    -------
    loss : float
        Mean over the batch of -log(probability of the label), in nats.
    gradient : ndarray, shape (batch, classes)
        Derivative of the loss with respect to the logits.
    """
    shifted = logits - logits.max(axis=1, keepdims=True)
    exponentials = np.exp(shifted)
    totals = exponentials.sum(axis=1, keepdims=True)
    images = np.arange(len(labels))
    loss = np.mean(np.log(totals[:, 0]) - shifted[images, labels])
    gradient = exponentials / totals
    gradient[images, labels] -= 1
    return float(loss), gradient / len(labels)


def _draw(rng, shape, dtype):
    """Draw normal weights of variance 2 / fan-in (He et al. 2015, equation 10)."""
    inputs = np.prod(shape[1:])
    return (rng.standard_normal(shape) * np.sqrt(2 / inputs)).astype(dtype)


def _patches(x):
    """Return the 3x3 neighbourhoods, shape (batch, channels * 9, height * width)."""
    batch, channels, height, width = x.shape
    padded = np.zeros((batch, channels, height + 2, width + 2), x.dtype)
    padded[:, :, 1:-1, 1:-1] = x
    patches = np.empty((batch, channels, 3, 3, height, width), x.dtype)
    for i in range(3):
        for j in range(3):
            patches[:, :, i, j] = padded[:, :, i : i + height, j : j + width]
    return patches.reshape(batch, channels * 9, height * width)


def _sum_patches(patches):
    """Add every patch value to the pixel that it came from: the transpose of `_patches`."""
    batch, channels, _, _, height, width = patches.shape
    padded = np.zeros((batch, channels, height + 2, width + 2), patches.dtype)
    for i in range(3):
        for j in range(3):
            padded[:, :, i : i + height, j : j + width] += patches[:, :, i, j]
    return padded[:, :, 1:-1, 1:-1]
