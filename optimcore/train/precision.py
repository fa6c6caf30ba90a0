"""What a training in 16 bits needs beside the optimizer: storage dtypes and the scale of the loss.

The weights and the gradients of such a training are kept in 16 bits, the arithmetic between them is in
float32. Small gradients would vanish, so the loss is multiplied by a scale that is as large as the gradients
allow; a step in which one of them overflows is dropped, and the scale lowered.
"""

import textwrap

import numpy as np

import optimcore
from optimcore.train import UsageError

__all__ = ["PRECISIONS", "LossScaling", "format_scales", "storage_dtype"]

PRECISIONS = ("float32", "float16", "bfloat16")
# steps without overflow before the scale is doubled: the default of 2000 is longer than a whole training
SCALE_WINDOW = 200


def storage_dtype(precision):
    """Return the dtype of the weights for one of `PRECISIONS`.

    Raises
    ------
    UsageError
        If it is bfloat16 and ml_dtypes is missing.
    """
    if precision != "bfloat16":
        return np.dtype(precision)
    try:
        import ml_dtypes
    except ImportError:
        raise UsageError("--precision bfloat16 needs ml_dtypes: pip install 'optimcore[bf16]'") from None
    return np.dtype(ml_dtypes.bfloat16)


class LossScaling:
    """Bring gradients of the scaled loss into the dtype of the weights, and tell which steps to drop.

    Parameters
    ----------
    dtype : dtype
        That of the weights. The loss is scaled if it has 16 bits.

    Attributes
    ----------
    steps, dropped : int
        Number of steps seen, and of those among them that had to be dropped.
    scales : list of (int, float)
        The first step that uses a scale, counted from 0, and the scale: one entry for each change.
    """

    def __init__(self, dtype):
        self.dtype = dtype
        if dtype.itemsize == 2:
            self.manager = optimcore.DynamicLossScaleManager(scale_window=SCALE_WINDOW)
        else:
            self.manager = optimcore.FixedLossScaleManager(1.0, drop_overflow_update=False)
        self.steps = self.dropped = 0
        self.scales = [(0, self.scale)]

    @property
    def scale(self):
        """float : what to multiply the loss of the coming step by."""
        return self.manager.get_loss_scale()

    def unscale(self, gradients):
        """Return the gradients as the optimizer takes them, and count a step.

        Parameters
        ----------
        gradients : list of ndarray of float32
            Gradients of the loss times `scale`.

        Returns
        -------
        list of ndarray or None
            The gradients of the loss itself, in float32, after the way through 16 bits. None if they overflowed
            there: drop the step.
        """
        self.steps += 1
        if not self.manager.get_drop_overflow_update():
            return gradients
        scale = self.scale
        stored = [g.astype(self.dtype) for g in gradients]
        overflow = not optimcore.all_finite(stored)
        self.manager.update_loss_scale(overflow)
        if self.scale != scale:
            self.scales.append((self.steps, self.scale))
        if overflow:
            self.dropped += 1
            return None
        # divided in float32: in 16 bits the smallest would vanish after all
        return [g.astype(np.float32) / scale for g in stored]


def format_scales(label, scales):
    """Return the history of a loss scale, `LossScaling.scales`, as lines of text that begin with `label`."""
    history = ", ".join(f"{step}: 2^{np.log2(scale):g}" for step, scale in scales)
    return textwrap.fill(f"{label}  {history}", 100, subsequent_indent=" " * (len(label) + 2))
