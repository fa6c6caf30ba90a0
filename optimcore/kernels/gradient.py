"""Dense gradients outside of a step: what a step does to them, with the same bits as inside of it."""

import numpy as np

from optimcore.kernels.arrays import compute_dtype, unmasked
from optimcore.kernels.driver import Plan


def transform(names, parameters, gradients, decay=None, centralize=None, scale=1.0, clip=1.0, lars=None, out=None):
    """Return gradients after clipping, decay, centralization and unscaling, in this order.

    This runs the element loop of the optimizers with a rule that only writes the gradient, so that a user-defined
    optimizer and a built-in one agree to the last bit.

    Parameters
    ----------
    names : sequence of str
        Names of the parameters, for messages.
    parameters : sequence of ndarray
        Not modified.
    gradients : tuple or list of ndarray or None
        One entry per parameter; None stays None. Not modified, unless `out` shares their memory.
    decay : sequence of float, optional
        Weight decay times loss scale for each parameter, 0 for none.
    centralize : sequence of bool, optional
        Whether to subtract the mean over all axes but the first.
    scale : float
        Reciprocal of the loss scale.
    clip : float or tuple
        Factor of all gradients, as `Plan.clip`.
    lars : ndarray of float64, shape (n, 8), optional
        The numbers of `LarsNumbers` for each parameter, if `scale` is to be multiplied by what LARS makes of the norms.
    out : tuple or list of ndarray or None, optional
        Where to write, one entry per parameter; may be `gradients` itself.

    Returns
    -------
    tuple of ndarray or None
        New arrays in the compute dtype of the parameters (float32 for 16-bit ones), or the entries of `out`.

    Raises
    ------
    TypeError, ValueError
        As `Plan.step` does; and if `out` does not fit. Nothing was written then.
    """
    results = [np.empty(p.shape, compute_dtype(p.dtype)) for p in parameters]
    plan = Plan("gradient", names, parameters, [results], centralize or [False] * len(results))
    if decay is not None:
        plan.decay[:] = decay
    plan.scale[:] = scale
    plan.clip = clip
    if lars is not None:
        plan.adapt("lars")
        plan.adaptation_numbers[:] = lars
    if out is not None:
        _check_out(names, parameters, gradients, out)
    plan.step(gradients, [(0.0,)])
    if out is None:
        return tuple(None if g is None else result for g, result in zip(gradients, results, strict=True))
    with np.errstate(over="ignore"):  # what is beyond float16 is an infinity there
        for target, g, result in zip(out, gradients, results, strict=True):
            if g is not None:
                np.copyto(target, result, casting="same_kind")
    return tuple(out)


def _check_out(names, parameters, gradients, out):
    if not isinstance(out, (tuple, list)) or len(out) != len(parameters):
        raise ValueError(f"out must be a tuple or list with {len(parameters)} entries, one per parameter, got {out!r}")
    for i, (name, parameter, gradient, target) in enumerate(zip(names, parameters, gradients, out, strict=False)):
        if gradient is None:
            continue
        if not isinstance(target, np.ndarray):
            raise TypeError(f"out[{i}], of parameter {name!r}, must be an ndarray, got {type(target).__name__}")
        unmasked(target, f"out[{i}], of parameter {name!r},")
        compute_dtype(target.dtype, f"dtype of out[{i}]")
        if target.shape != parameter.shape or not target.flags.writeable:
            raise ValueError(
                f"out[{i}], of parameter {name!r}, must be writable and have shape {parameter.shape}, "
                f"got shape {target.shape}"
            )
