"""``python -m optimcore train digits``: a convolutional network learns to read digits.

The data are 1,797 real handwritten digits of 8x8 pixels, shipped in ``data/`` with their licence.
"""

import hashlib
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import numpy as np

import optimcore
from optimcore.train import at_least, some_of
from optimcore.train.layers import AveragePool, Convolution, Dense, Relu, softmax_cross_entropy
from optimcore.train.precision import PRECISIONS, LossScaling, format_scales, storage_dtype
from optimcore.train.progress import Epoch, Progress, check_plot, format_table, plot_curves
from optimcore.train.recipes import OPTIMIZERS, build_optimizer

__all__ = [
    "Network",
    "Result",
    "TrainingStep",
    "add_arguments",
    "load_digits",
    "parameter_groups",
    "run",
    "train",
]

WEIGHT_DECAY = 1e-4
PRECISION_HELP = """of weights and gradients (default: %(default)s); in 16 bits the loss is scaled, steps with
overflow are dropped, and weights are rounded stochastically"""


def load_digits():
    """Return the images, float32 (1797, 1, 8, 8) in 0 to 1, and their digits, int64 (1797,)."""
    with np.load(Path(__file__).parent / "data" / "digits.npz") as data:
        images, labels = data["images"], data["labels"]
    return images[:, None].astype(np.float32) / 16, labels.astype(np.int64)


class Network:
    """Classify 8x8 images: three convolutions, two poolings and a dense layer.

    Parameters
    ----------
    rng : numpy.random.Generator
        Draws the initial weights.
    dtype : dtype, default float32
        Float dtype of the weights.
    """

    def __init__(self, rng, dtype=np.float32):
        conv1 = Convolution(rng, 1, 16, dtype)
        conv2 = Convolution(rng, 16, 16, dtype)
        conv3 = Convolution(rng, 16, 32, dtype)
        dense = Dense(rng, 32 * 2 * 2, 10, dtype)
        self.layers = [conv1, Relu()]
        self.layers += [conv2, Relu(), AveragePool()]
        self.layers += [conv3, Relu(), AveragePool()]
        self.layers += [dense]
        self.trained = {"conv1": conv1, "conv2": conv2, "conv3": conv3, "dense": dense}

    def weights(self):
        """Return the arrays to train, by name: ``conv1.weight``, ``conv1.bias`` and so on."""
        arrays = {}
        for name, layer in self.trained.items():
            arrays[f"{name}.weight"] = layer.weight
            arrays[f"{name}.bias"] = layer.bias
        return arrays

    def forward(self, images):
        """Return the logits of `images`, shape (batch, 10)."""
        x = images
        for layer in self.layers:
            x = layer.forward(x)
        return x

    def differentiate(self, images, labels, loss_scale=1.0):
        """Return the mean loss of a batch, and the gradients of `loss_scale` times it by the names of `weights`."""
        loss, dy = softmax_cross_entropy(self.forward(images), labels)
        dy *= dy.dtype.type(loss_scale)
        for layer in reversed(self.layers):
            dy = layer.backward(dy)
        gradients = {}
        for name, layer in self.trained.items():
            gradients[f"{name}.weight"] = layer.weight_gradient
            gradients[f"{name}.bias"] = layer.bias_gradient
        return loss, gradients

    def evaluate(self, images, labels):
        """Return the mean loss and the accuracy, a fraction."""
        logits = self.forward(images)
        loss, _ = softmax_cross_entropy(logits, labels)
        return loss, float(np.mean(logits.argmax(axis=1) == labels))


def parameter_groups(network):
    """Return the weights of `network` as parameter groups for an optimizer.

    Kernels of convolutions are decayed and their gradients centralized, the dense matrix is
    decayed, biases are neither.
    """
    parameters = [optimcore.Parameter(array, name) for name, array in network.weights().items()]
    kernels = [p for p in parameters if p.name.startswith("conv") and p.name.endswith(".weight")]
    matrices = [p for p in parameters if p.name == "dense.weight"]
    biases = [p for p in parameters if p.name.endswith(".bias")]
    return [
        {"params": kernels, "weight_decay": WEIGHT_DECAY, "grad_centralization": True},
        {"params": matrices, "weight_decay": WEIGHT_DECAY},
        {"params": biases, "weight_decay": 0.0},
    ]


class Result(NamedTuple):
    """What a training gave."""

    epochs: list  # of Epoch
    seconds: float  # of the whole training, evaluation included
    optimizer_seconds: float  # the part of them spent in the optimizer
    digest: str  # SHA-256 of the trained weights, in hexadecimal
    scaling: LossScaling  # as the training left it


class TrainingStep:
    """Do one step of a training after another.

    Parameters
    ----------
    network : Network
    opt : Optimizer
        It updates the weights of `network`.
    scaling : LossScaling

    Attributes
    ----------
    seconds : float
        Time spent in the optimizer.
    """

    def __init__(self, network, opt, scaling):
        self.network, self.opt, self.scaling = network, opt, scaling
        self.seconds = 0.0

    def __call__(self, images, labels):
        """Learn from a batch and return its loss; a step whose gradients overflow changes the loss scale alone."""
        # the scale is raised until gradients overflow, so that is no cause for a warning
        with np.errstate(over="ignore", invalid="ignore"):
            loss, by_name = self.network.differentiate(images, labels, self.scaling.scale)
            # the optimizer wants them in its own order, which is that of the groups
            gradients = self.scaling.unscale([by_name[p.name] for p in self.opt.parameters])
        if gradients is not None:
            before = perf_counter()
            self.opt(gradients)
            self.seconds += perf_counter() - before
        return loss


def train(optimizer="adam", epochs=30, batch_size=32, seed=0, precision="float32"):
    """Train a `Network` and test it on images that it does not learn from.

    One fifth of the images is held out. The seed decides which, and everything else that is
    random: equal arguments give equal bits on one machine, whatever the number of threads.

    Parameters
    ----------
    optimizer : str
        Which of `OPTIMIZERS` to use; each has a learning rate that suits it.
    epochs : int, >= 1
        How often to go through the training images.
    batch_size : int, >= 1
        Images in a step; the last batch of an epoch may be smaller.
    seed : int, >= 0
        Seed of the random generator.
    precision : {"float32", "float16", "bfloat16"}
        Dtype of the weights and their gradients. With 16 bits the loss is scaled; see `LossScaling`.

    Returns
    -------
    Result
    """
    start = perf_counter()
    rng = np.random.default_rng(seed)
    images, labels = load_digits()
    held_out, training = np.split(rng.permutation(len(labels)), [len(labels) // 5])
    ends = range(batch_size, len(training), batch_size)
    steps = len(ends) + 1

    dtype = storage_dtype(precision)
    network = Network(rng, dtype)
    opt = build_optimizer(optimizer, parameter_groups(network), epochs, steps, batch_size)
    step = TrainingStep(network, opt, LossScaling(dtype))
    history = []
    with Progress(epochs, steps, optimizer) as progress:
        for _ in range(epochs):
            losses = []
            for batch in np.split(rng.permutation(training), ends):
                shifted = _shift(rng, images[batch])
                rate = opt.get_lr()
                losses.append(step(shifted, labels[batch]))
                progress.step()
            held_out_loss, accuracy = network.evaluate(images[held_out], labels[held_out])
            history.append(Epoch(float(np.mean(losses)), held_out_loss, accuracy, rate))
            progress.end_epoch(f"loss {history[-1].loss:.4f}  accuracy {accuracy:.1%}")
    return Result(history, perf_counter() - start, step.seconds, _digest(network), step.scaling)


def _shift(rng, images):
    """Move each image by up to one pixel each way: more variety than 1,438 images have."""
    padded = np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, images.shape[2:], axis=(2, 3))
    down, right = rng.integers(0, 3, (2, len(images)))
    return windows[np.arange(len(images)), :, down, right]


def _digest(network):
    digest = hashlib.sha256()
    for array in network.weights().values():
        digest.update(array.tobytes())
    return digest.hexdigest()


def add_arguments(parser):
    """Add the options of this training to an argparse parser."""

    def add(option, help, **settings):
        parser.add_argument(option, help=help, **settings)

    count = {"metavar": "N", "type": at_least(1)}
    which = parser.add_mutually_exclusive_group()
    optimizer = {"choices": list(OPTIMIZERS), "metavar": "NAME", "default": "adam"}
    which.add_argument("--optimizer", help=f"{', '.join(OPTIMIZERS)} (default: %(default)s)", **optimizer)
    compare = {"metavar": "NAME,NAME,...", "type": some_of(list(OPTIMIZERS))}
    which.add_argument("--compare", help="train with several optimizers, one after the other", **compare)
    add("--precision", PRECISION_HELP, choices=PRECISIONS, default="float32")
    add("--epochs", "passes over the training images (default: %(default)s)", default=30, **count)
    add("--batch-size", "images in a step (default: %(default)s)", default=32, **count)
    add("--seed", "of all that is random (default: 0)", metavar="N", type=at_least(0), default=0)
    add("--threads", "of the optimizer; their number never changes the result", **count)
    add("--plot", "draw loss, accuracy and learning rate", metavar="FILE.png")


def run(options):
    """Train as the command-line options say and print the result."""
    # what is missing or wrong shows before the first training, not after it
    storage_dtype(options.precision)
    if options.plot is not None:
        check_plot(options.plot)
    if options.threads is not None:
        optimcore.set_num_threads(options.threads)
    results = {
        name: train(name, options.epochs, options.batch_size, options.seed, options.precision)
        for name in options.compare or [options.optimizer]
    }
    show = _show_comparison if options.compare else _show_result
    show(results, options.precision)
    if options.plot is not None:
        plot_curves(options.plot, {name: result.epochs for name, result in results.items()})


def _show_result(results, precision):
    [(name, result)] = results.items()
    last, scaling = result.epochs[-1], result.scaling
    table = [
        ("optimizer", name),
        ("accuracy", f"{last.accuracy:.2%} of the held-out images"),
        ("loss", f"{last.held_out_loss:.4f} on the held-out images"),
        ("seconds", f"{result.seconds:.2f}"),
        ("in the optimizer", f"{result.optimizer_seconds / result.seconds:.2%} of the time"),
        ("weights", f"{result.digest[:16]} (SHA-256; the same in every equal run)"),
    ]
    if precision == "float32":
        print(format_table(table))
        return
    table += [
        ("precision", f"{precision} weights and gradients, stochastic rounding"),
        ("dropped steps", f"{scaling.dropped} of {scaling.steps}, for overflow"),
    ]
    print(format_table(table))
    print(format_scales("loss scale from step", scaling.scales))


def _show_comparison(results, precision):
    table = [("optimizer", "accuracy", "loss", "seconds", "in the optimizer", "dropped steps", "weights")]
    for name, result in results.items():
        last = result.epochs[-1]
        table.append(
            (
                name,
                f"{last.accuracy:.2%}",
                f"{last.held_out_loss:.4f}",
                f"{result.seconds:.2f}",
                f"{result.optimizer_seconds / result.seconds:.2%}",
                result.scaling.dropped,
                result.digest[:16],
            )
        )
    print(format_table(table))
    if precision != "float32":
        for name, result in results.items():
            print(format_scales(f"{name}, loss scale from step", result.scaling.scales))
