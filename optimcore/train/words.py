"""``python -m optimcore train words``: words of a text get vectors, alike for words that are used alike.

Skip-gram with negative sampling. By default the text is the standard library of the running interpreter: about
3 million words of English and Python, which need no download. Both tables of vectors get gradients for the rows of a
batch only, as an `optimcore.RowTensor`.
"""

from argparse import ArgumentTypeError
from time import perf_counter
from typing import NamedTuple

import numpy as np

import optimcore
from optimcore.train import UsageError, at_least
from optimcore.train.progress import Progress, check_plot, format_table, save_figure
from optimcore.train.skipgram import Sampler, SkipGram
from optimcore.train.text import library_files, read_corpus
from optimcore.train.vectors import check_output, nearest, write_vectors

__all__ = ["Result", "Step", "add_arguments", "plot_training", "run", "train"]

# The class, its rate at the start, its own options. Rprop is left out: it trusts the sign of a gradient, and those of
# small parts of a text have many.
OPTIMIZERS = {
    "sgd": (optimcore.SGD, 0.03, {}),
    "momentum": (optimcore.Momentum, 0.003, {"momentum": 0.9}),
    "adam": (optimcore.Adam, 0.04, {}),
    "lazyadam": (optimcore.LazyAdam, 0.04, {}),
    "adamoffload": (optimcore.AdamOffload, 0.04, {}),
    "adamweightdecay": (optimcore.AdamWeightDecay, 0.02, {}),
    "adamax": (optimcore.AdaMax, 0.1, {}),
    "adagrad": (optimcore.Adagrad, 0.5, {}),
    "adadelta": (optimcore.Adadelta, 20.0, {}),
    "asgd": (optimcore.ASGD, 0.03, {}),
    "ftrl": (
        optimcore.FTRL,
        0.3,
        {"initial_accum": 1e-6},
    ),  # the more at first, the more of the initial vectors is lost
    "proximaladagrad": (optimcore.ProximalAdagrad, 0.5, {}),
    "rmsprop": (optimcore.RMSProp, 0.03, {}),
}
FIXED_RATE = {"ftrl"}  # takes no schedule
NEIGHBOURS = 6  # shown for a word
FREQUENT = 500  # the words to show are taken from so many
POINTS = 200  # of a curve


class Step(NamedTuple):
    """What one step did."""

    words: int  # of the text
    pairs: int
    loss: float  # sum over the pairs and their noise, before the step
    rate: float
    seconds: float  # in the optimizer


class Result(NamedTuple):
    """What a training gave."""

    vectors: np.ndarray  # float32 (vocabulary, dim)
    steps: list  # of Step
    loss: float  # mean over the pairs of the last epoch, or as much as there was of it
    seconds: float  # of the whole training
    interrupted: bool  # whether Ctrl-C ended it


def train(
    corpus,
    optimizer="lazyadam",
    dim=64,
    window=5,
    negative=5,
    epochs=5,
    batch_size=1024,
    subsample=1e-4,
    seed=0,
):
    """Learn a vector for every word of a text.

    Equal arguments give equal bits on one machine, whatever the number of threads. Ctrl-C ends the training early
    and keeps the vectors so far.

    Parameters
    ----------
    corpus : Corpus
        The text; see `optimcore.train.text.make_corpus`.
    optimizer : str, default "lazyadam"
        A key of `OPTIMIZERS`; each has a learning rate that suits it and, but for FTRL's, falls in a straight line.
    dim : int, >= 1
        Elements of a vector.
    window, negative, batch_size, subsample
        See `optimcore.train.skipgram.Sampler`.
    epochs : int, >= 1
        How often to go through the text.
    seed : int, >= 0
        Seed of the random generator.

    Returns
    -------
    Result
    """
    start = perf_counter()
    rng = np.random.default_rng(seed)
    sampler = Sampler(rng, corpus, dim, window, negative, batch_size, subsample)
    model = SkipGram(rng, len(corpus.vocabulary), dim)
    opt = _build_optimizer(optimizer, model, epochs * sampler.steps())
    steps = []
    try:
        with Progress(epochs, len(corpus.words), unit="word") as progress:
            for epoch in range(epochs):
                first = len(steps)
                for batch in sampler.epoch():
                    steps.append(_step(model, opt, batch))
                    progress.step(batch.words, f"loss {_mean_loss(steps[-50:]):.3f}")
                speed = (epoch + 1) * len(corpus.words) / (perf_counter() - start)
                progress.end_epoch(f"loss {_mean_loss(steps[first:]):.4f}  {speed:,.0f} words/s")
        interrupted = False
    except KeyboardInterrupt:
        interrupted = True
    loss = _mean_loss(steps[-sampler.steps() :])
    return Result(model.inputs, steps, loss, perf_counter() - start, interrupted)


def _build_optimizer(name, model, steps):
    kind, lr, options = OPTIMIZERS[name]
    tables = [optimcore.Parameter(model.inputs, "inputs"), optimcore.Parameter(model.outputs, "outputs")]
    if name not in FIXED_RATE:
        lr = optimcore.PolynomialDecayLR(lr, lr / 100, decay_steps=max(1, steps), power=1.0)
    opt = kind(tables, learning_rate=lr, **options)
    opt.use_lazy = True  # a step costs what its rows cost, however large the vocabulary
    return opt


def _step(model, opt, batch):
    loss, gradients = model.differentiate(batch)
    rate = opt.get_lr()
    before = perf_counter()
    opt(gradients)
    return Step(batch.words, batch.pairs, loss, rate, perf_counter() - before)


def _mean_loss(steps):
    pairs = sum(step.pairs for step in steps)
    return sum(step.loss for step in steps) / pairs if pairs else float("nan")


def plot_training(path, steps):
    """Draw the loss and the learning rate of a training over the words of the text, one below the other.

    Parameters
    ----------
    path : str
        PNG file to write.
    steps : list of Step

    Raises
    ------
    UsageError
        If the file cannot be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 5), layout="constrained")
    upper, lower = figure.subplots(2, sharex=True)
    # means of neighbouring steps: single ones are noisy
    parts = [part for part in np.array_split(np.array(steps), POINTS) if len(part)]
    words = np.cumsum([part[:, 0].sum() for part in parts]) / 1e6
    upper.plot(words, [part[:, 2].sum() / max(1, part[:, 1].sum()) for part in parts])
    lower.plot(words, [part[-1, 3] for part in parts])
    upper.set(ylabel="loss per pair")
    lower.set(ylabel="learning rate", xlabel="million words")
    for axes in (upper, lower):
        axes.grid(alpha=0.3)
    save_figure(figure, path)


def add_arguments(parser):
    """Add the options of this training to an argparse parser."""

    def add(option, help, **settings):
        parser.add_argument(option, help=help, **settings)

    count = {"metavar": "N", "type": at_least(1)}
    add("--text", "text to learn from, UTF-8 (default: Python's standard library)", nargs="+", metavar="FILE")
    add("--optimizer", "default: %(default)s", choices=list(OPTIMIZERS), default="lazyadam")
    add("--dim", "elements of a vector (default: %(default)s)", default=64, **count)
    add("--window", "largest distance of a word and its context (default: %(default)s)", default=5, **count)
    add("--negative", "noise words for each context (default: %(default)s)", default=5, **count)
    add("--epochs", "passes over the text (default: %(default)s)", default=5, **count)
    add("--batch-size", "words in a step (default: %(default)s)", default=1024, **count)
    add("--min-count", "leave out rarer words (default: %(default)s)", default=5, **count)
    add(
        "--subsample",
        "thin out words that make up more than this fraction of the text (default: %(default)s; 1: none)",
        default=1e-4,
        metavar="FRACTION",
        type=_fraction,
    )
    add("--seed", "of all that is random (default: 0)", metavar="N", type=at_least(0), default=0)
    add("--threads", "of the optimizer; their number never changes the result", **count)
    add("--neighbours", "whose nearest words to show (default: some frequent words)", metavar="WORD,...")
    add("--output", "write the vectors in word2vec's text format", metavar="FILE.txt")
    add("--plot", "draw loss and learning rate", metavar="FILE.png")


def _fraction(text):
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number <= 1:
        raise ArgumentTypeError(f"must be in (0, 1], got {text!r}")
    return number


def run(options):
    """Train as the command-line options say and print the result."""
    if options.plot is not None:
        check_plot(options.plot)
    if options.output is not None:
        check_output(options.output)
    if options.threads is not None:
        optimcore.set_num_threads(options.threads)
    corpus = read_corpus(options.text or library_files(), options.min_count)
    shown = _shown_words(options.neighbours, corpus.vocabulary)
    result = train(
        corpus,
        options.optimizer,
        options.dim,
        options.window,
        options.negative,
        options.epochs,
        options.batch_size,
        options.subsample,
        options.seed,
    )
    if options.output is not None:
        write_vectors(options.output, corpus.vocabulary, result.vectors)
    print(format_table(_table(options, corpus, result)))
    print()
    print(format_table([(word, _neighbours(word, corpus.vocabulary, result.vectors)) for word in shown]))
    if options.plot is not None and result.steps:
        plot_training(options.plot, result.steps)
    if result.interrupted:
        raise KeyboardInterrupt


def _shown_words(text, vocabulary):
    """Return the words of the option ``--neighbours``, by default some frequent ones."""
    if text is None:
        frequent = vocabulary[:FREQUENT]
        return frequent[len(frequent) // 20 :: max(1, len(frequent) // 10)]
    words = text.lower().split(",")
    for word in words:
        if word not in vocabulary:
            raise UsageError(f"--neighbours must name words of the vocabulary, got {word!r}")
    return words


def _table(options, corpus, result):
    words = sum(step.words for step in result.steps)
    share = sum(step.seconds for step in result.steps) / result.seconds
    table = [
        ("optimizer", options.optimizer),
        ("words", f"{words:,} read, of a text of {len(corpus.words):,}"),
        ("vocabulary", f"{len(corpus.vocabulary):,} words"),
        ("pairs", f"{sum(step.pairs for step in result.steps):,}"),
        ("loss", f"{result.loss:.4f} for each pair of the last epoch"),
        ("seconds", f"{result.seconds:.2f}"),
        ("words per second", f"{words / result.seconds:,.0f}"),
        ("in the optimizer", f"{share:.2%} of the time"),
    ]
    if options.output is not None:
        table.append(("saved", f"{len(result.vectors):,} vectors in {options.output}"))
    return table


def _neighbours(word, vocabulary, vectors):
    found = nearest(vectors, vocabulary.index(word), NEIGHBOURS)
    return "  ".join(f"{vocabulary[i]} {cosine:.2f}" for i, cosine in found)
