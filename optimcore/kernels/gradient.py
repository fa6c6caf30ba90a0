"""Gradients on their own: their norm, and what a step does to them, with the same bits as inside of it."""

import math

import numpy as np

from optimcore.checks import check_positive
from optimcore.kernels.arrays import as_floats, converted
from optimcore.kernels.driver import Plan, compute_dtype, has_kernel


def all_finite(gradients):
    """Tell whether no gradient holds an infinity or a NaN.

    Parameters
    ----------
    gradients : tuple or list of ndarray or None
        Of any float dtypes and shapes; None is skipped.

    Returns
    -------
    bool
        True if there is nothing to look at. The search stops soon after the first one found.

    Raises
    ------
    TypeError
        If `gradients` is not a tuple or list, or an entry not an array of floats.

    Examples
    --------
    >>> all_finite([np.ones(3), np.array([1.0, np.inf])])
    False
    """
    plan, _, arrays = _reader(gradients)
    return not np.isnan(plan.measure("finite", arrays)).any()


def global_norm(gradients):
    """Return the root of the sum of the squares of all gradients.

    Parameters
    ----------
    gradients : tuple or list of ndarray or None
        Of any float dtypes and shapes; None is skipped.

    Returns
    -------
    float
        Accumulated in float64 in a fixed order: equal bits for any number of threads.

    Raises
    ------
    TypeError
        If `gradients` is not a tuple or list, or an entry not an array of floats.

    Examples
    --------
    >>> global_norm([np.array([3.0], np.float32), np.array([[4.0]])])
    5.0
    """
    plan, _, arrays = _reader(gradients)
    return norm_of(plan.measure("norm", arrays))


def clip_by_global_norm(gradients, max_norm):
    """Scale all gradients by ``max_norm / norm`` if their global norm exceeds `max_norm`.

    Parameters
    ----------
    gradients : tuple or list of ndarray or None
        Of any float dtypes and shapes; not modified. None stays None.
    max_norm : number
        The norm that they have at most afterwards, > 0.

    Returns
    -------
    tuple of ndarray or None
        New arrays in the compute dtype (float32 for 16-bit gradients); the gradients themselves if the norm is within
        bounds. Infinities and NaNs among the gradients make NaNs: ask `all_finite` first.

    Raises
    ------
    TypeError, ValueError
        As `global_norm`; and if `max_norm` is not a finite number > 0.

    References
    ----------
    R. Pascanu, T. Mikolov and Y. Bengio, "On the difficulty of training recurrent neural networks", 2013, algorithm 1.

    Examples
    --------
    >>> clip_by_global_norm([np.array([3.0]), np.array([4.0])], 1.0)
    (array([0.6]), array([0.8]))
    """
    max_norm = check_positive("max_norm", max_norm)
    plan, names, arrays = _reader(gradients)
    factor = clip_factor(norm_of(plan.measure("norm", arrays)), max_norm)
    if factor == 1:
        return tuple(gradients)
    clipped = iter(transform(names, arrays, arrays, clip=factor))
    return tuple(None if g is None else next(clipped) for g in gradients)


def norm_of(squares):
    """Return the root of the sum of the gradients' squares in what `Plan.measure` found."""
    return math.sqrt(squares[:, 1].sum())


def clip_factor(norm, max_norm):
    """Return the factor that brings a norm down to `max_norm`: 1 if it is within bounds."""
    return 1.0 if norm <= max_norm else max_norm / norm


def _reader(gradients):
    """Return a plan that reads the gradients which are there, and these as arrays that need no other copy."""
    if not isinstance(gradients, (tuple, list)):
        raise TypeError(f"gradients must be a tuple or list, got {type(gradients).__name__}")
    names = [f"gradients[{i}]" for i, g in enumerate(gradients) if g is not None]
    floats = [as_floats(g, name) for g, name in zip((g for g in gradients if g is not None), names, strict=True)]
    # long doubles have no kernel
    arrays = [converted(a, a.dtype if has_kernel(a.dtype) else np.dtype(np.float64)) for a in floats]
    return Plan(None, names, arrays, [], [False] * len(arrays)), names, arrays


def transform(names, parameters, gradients, decay=None, centralize=None, scale=1.0, clip=1.0, out=None):
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
    clip : float
        Factor of all gradients.
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
    if out is not None:
        _check_out(names, parameters, gradients, out)
    plan.step(gradients, [(0.0,)])
    if out is None:
        return tuple(None if g is None else result for g, result in zip(gradients, results, strict=True))
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
        compute_dtype(target.dtype)
        if target.shape != parameter.shape or not target.flags.writeable:
            raise ValueError(
                f"out[{i}], of parameter {name!r}, must be writable and have shape {parameter.shape}, "
                f"got shape {target.shape}"
            )
