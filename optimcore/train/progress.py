"""What a training shows: progress while it runs, a table at the end, a picture of its curves.

tqdm and matplotlib are optional and are imported only where they are used.
"""

import itertools
import os
import sys
from pathlib import Path
from typing import NamedTuple

from optimcore.train import UsageError

__all__ = ["Epoch", "Progress", "check_plot", "format_table", "plot_curves", "save_figure"]


class Epoch(NamedTuple):
    """How a training stands after one epoch."""

    loss: float  # mean over the batches, each before its step
    held_out_loss: float
    accuracy: float  # fraction of the held-out images
    rate: float  # of the last step


class Progress:
    """Show how far a training is, on stderr: a tqdm bar, or one line an epoch without tqdm.

    Parameters
    ----------
    epochs : int
        Number of epochs.
    steps : int
        Number of steps in an epoch.
    label : str, optional
        What is trained.
    unit : str, default "step"
        What a step is called; it may be as small as one word of a text.

    Notes
    -----
    Use it in a ``with`` statement, which leaves the terminal in order when a training is
    interrupted.
    """

    def __init__(self, epochs, steps, label="", unit="step"):
        self.label = label
        self.epochs = epochs
        self.epoch = 0
        try:
            from tqdm import tqdm
        except ImportError:
            self.bar = None
        else:
            # a log file keeps every refresh of the bar, so it gets fewer of them
            pause = 0.1 if sys.stderr.isatty() else 2.0
            self.bar = tqdm(
                desc=label,
                total=epochs * steps,
                unit=unit,
                unit_scale=unit != "step",  # thousands and millions are shortened
                mininterval=pause,
                file=sys.stderr,
            )

    def __enter__(self):
        return self

    def __exit__(self, *error):
        if self.bar is not None:
            self.bar.close()

    def step(self, count=1, state=None):
        """Count some steps; the bar shows `state`, if given, from its next refresh on."""
        if self.bar is not None:
            if state is not None:
                self.bar.set_postfix_str(state, refresh=False)
            self.bar.update(count)

    def end_epoch(self, state):
        """Count one epoch and show `state`, a few words on how things stand."""
        self.epoch += 1
        if self.bar is not None:
            self.bar.set_postfix_str(state, refresh=False)
        else:
            width = len(str(self.epochs))
            line = f"{self.label}  epoch {self.epoch:{width}}/{self.epochs}  {state}"
            print(line.lstrip(), file=sys.stderr, flush=True)


def format_table(rows):
    """Return `rows`, tuples of equal length, as lines of aligned columns."""
    widths = [max(len(str(cell)) for cell in column) for column in zip(*rows, strict=True)]
    lines = ["  ".join(f"{cell!s:{width}}" for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(line.rstrip() for line in lines)


def check_plot(path):
    """Check, before a training, that `plot_curves` will be able to write `path`.

    Raises
    ------
    UsageError
        If the name does not end in ``.png``, matplotlib is missing or the file cannot be written.
    """
    if Path(path).suffix.lower() != ".png":
        raise UsageError(f"--plot must name a .png file, got {path!r}")
    try:
        import matplotlib.figure  # noqa: F401 - only asks whether it is there
    except ImportError:
        raise UsageError("--plot needs matplotlib: pip install 'optimcore[plot]'") from None
    existed = os.path.lexists(path)
    try:
        # appending nothing asks the file system itself and keeps what an older file holds
        with open(path, "ab"):
            pass
        if not existed:
            os.remove(path)
    except OSError as error:
        raise _unwritable(path, error) from None


def plot_curves(path, curves):
    """Draw loss, accuracy and rate of one or more trainings, one below the other.

    Parameters
    ----------
    path : str
        PNG file to write.
    curves : dict
        For each training, under its label, the list of its `Epoch` tuples.

    Raises
    ------
    UsageError
        If the file cannot be written.
    """
    # a Figure of its own, without pyplot, draws with Agg and changes no global state
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 8), layout="constrained")
    loss, accuracy, rate = figure.subplots(3, sharex=True)
    colors = colormaps["tab10" if len(curves) <= 10 else "tab20"].colors
    for (label, epochs), color in zip(curves.items(), itertools.cycle(colors), strict=False):
        x = range(1, len(epochs) + 1)
        style = {"color": color, "marker": "."}
        loss.plot(x, [e.loss for e in epochs], **style, ls=":")
        loss.plot(x, [e.held_out_loss for e in epochs], **style, label=label)
        accuracy.plot(x, [100 * e.accuracy for e in epochs], **style)
        rate.plot(x, [e.rate for e in epochs], **style)
    figure.legend(loc="outside right upper")
    loss.set(ylabel="loss (dotted: of the batches learnt)", yscale="log")
    accuracy.set(ylabel="held-out accuracy (%)")
    # rates of one optimizer are a curve to look at, those of several differ by orders of magnitude
    rate.set(ylabel="learning rate", xlabel="epoch", yscale="linear" if len(curves) == 1 else "log")
    for axes in (loss, accuracy, rate):
        axes.grid(alpha=0.3)
    save_figure(figure, path)


def save_figure(figure, path):
    """Write a matplotlib figure as PNG; UsageError if the file cannot be written."""
    try:
        figure.savefig(path, format="png")
    except OSError as error:
        raise _unwritable(path, error) from None


def _unwritable(path, error):
    return UsageError(f"--plot cannot write {path!r}: {error.strerror or error}")
