"""Functions of all gradients of a step, dense arrays and row tensors alike."""

import math

import numpy as np

from optimcore.checks import check_positive
from optimcore.kernels.arrays import as_floats, as_rows, converted, has_kernel, is_rows
from optimcore.kernels.driver import Plan, norm_of
from optimcore.kernels.gradient import transform
from optimcore.sparse import RowTensor, merge_rows

__all__ = ["all_finite", "clip_by_global_norm", "global_norm"]


def all_finite(gradients):
    """Tell whether no gradient holds an infinity or a NaN.

    Parameters
    ----------
    gradients : tuple or list of array, RowTensor, sparse tensor or None
        Whatever a step takes, of any float dtypes and shapes; None is skipped.

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
    plan, arrays = _reader(gradients)
    return not math.isnan(norm_of(plan.measure("finite", arrays)))


def global_norm(gradients):
    """Return the root of the sum of the squares of all gradients.

    Parameters
    ----------
    gradients : tuple or list of array, RowTensor, sparse tensor or None
        Whatever a step takes, of any float dtypes and shapes; None is skipped. Rows that share an index count after
        they are summed.

    Returns
    -------
    float
        Accumulated in float64 in a fixed order: equal bits for any number of threads. Squares may overflow or vanish:
        the norm is right wherever it is a float64 itself, and otherwise infinite.

    Raises
    ------
    TypeError
        If `gradients` is not a tuple or list, or an entry not an array of floats.

    Examples
    --------
    >>> global_norm([np.array([3.0], np.float32), np.array([[4.0]])])
    5.0
    """
    plan, arrays = _reader(gradients)
    return norm_of(plan.measure("gradient_norm", arrays))


def clip_by_global_norm(gradients, max_norm):
    """Scale all gradients by ``max_norm / norm`` if their global norm exceeds `max_norm`.

    Parameters
    ----------
    gradients : tuple or list of array, RowTensor, sparse tensor or None
        Whatever a step takes, of any float dtypes and shapes; not modified. None stays None.
    max_norm : number
        The norm that they have at most afterwards, > 0.

    Returns
    -------
    tuple of ndarray or None
        New arrays in the compute dtype (float32 for 16-bit gradients); the gradients themselves if the norm is within
        bounds. An infinity makes itself NaN and all others 0, a NaN makes all NaN: ask `all_finite` first.

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
    return clipped(gradients, check_positive("max_norm", max_norm))


def clipped(gradients, max_norm, reciprocal_scale=1.0):
    """Return gradients whose norm times `reciprocal_scale` is at most `max_norm`."""
    return scaled(gradients, clip_parts(norm_for_clipping(gradients), max_norm, reciprocal_scale))


def scaled(gradients, factor):
    """Return gradients times a factor, in the compute dtype; the gradients themselves if it is 1.

    The factor is a number, or a number and the exponent of a power of two that it is multiplied by.
    """
    if factor in (1, (1, 0)):
        return tuple(gradients)
    gradients = [_row_tensor(g, f"gradients[{i}]") if is_rows(g) else g for i, g in enumerate(gradients)]
    dense = _dense(gradients)
    names = [f"gradients[{i}]" for i in range(len(dense))]
    results = iter(transform(names, dense, dense, clip=factor))
    return tuple(None if g is None else _like(g, next(results)) for g in gradients)


def norm_for_clipping(gradients):
    """Return a function for `clip_parts`."""
    plan, arrays = _reader(gradients)
    return lambda exponent: norm_of(plan.measure("gradient_norm", arrays, exponent=exponent))


def clip_parts(norm_of_gradients, max_norm, reciprocal_scale=1.0):
    """Return the factor that brings gradients down to `max_norm`, and the exponent of a power of two beside it.

    The exponent is 0 unless the factor alone, or the norm, is out of the range of a float.

    Parameters
    ----------
    norm_of_gradients : callable
        ``norm_of_gradients(exponent)`` returns the norm times this power of two.
    max_norm : float
        Limit of the norm times `reciprocal_scale`.
    reciprocal_scale : float
        Reciprocal of the loss scale that the gradients carry.
    """
    norm = norm_of_gradients(0) * reciprocal_scale
    if norm <= max_norm:
        return 1.0, 0
    factor = max_norm / norm
    if factor > 1e-270 or math.isnan(norm):
        return factor, 0
    norm, exponent = norm_of_gradients(-512), -512
    if norm == math.inf:  # because a gradient is
        return 0.0, 0
    ratio, power = 1.0, 0
    for number, sign in ((max_norm, 1), (norm, -1), (reciprocal_scale, -1)):
        mantissa, e = math.frexp(number)
        ratio *= mantissa**sign
        power += sign * e
    return ratio, power + exponent


def prepare(names, parameters, gradients, out=None, **actions):
    """Return gradients after what `transform` does to them, row tensors with their rows merged.

    The parameters of the methods of `Optimizer`: a row of a table is decayed once, however often its index occurs.
    """
    if not isinstance(gradients, (tuple, list)) or not any(map(is_rows, gradients)):
        return transform(names, parameters, gradients, out=out, **actions)
    if out is not None:
        raise ValueError("out must be None where a gradient is a RowTensor")
    if len(gradients) != len(parameters):
        raise ValueError(f"gradients must have one entry per parameter, {len(parameters)} in all, got {len(gradients)}")
    named = [f"gradients[{i}], of parameter {name!r}," for i, name in enumerate(names)]
    merged = [
        _merged(_row_tensor(g, name, p.shape)) if is_rows(g) else g
        for g, name, p in zip(gradients, named, parameters, strict=True)
    ]
    tables = [p[g.indices] if is_rows(g) else p for p, g in zip(parameters, merged, strict=True)]
    dense = [g.values if is_rows(g) else g for g in merged]
    results = transform(names, tables, dense, **actions)
    return tuple(_like(g, result) if is_rows(g) else result for g, result in zip(merged, results, strict=True))


def _row_tensor(gradient, name, shape=None):
    """Return a gradient of rows, of whatever kind, as a RowTensor."""
    if isinstance(gradient, RowTensor) and shape in (None, gradient.dense_shape):
        return gradient
    indices, values, dense_shape = as_rows(gradient, name, shape)
    if dense_shape is None:
        raise ValueError(f"{name} must have a dense_shape, got None")
    return RowTensor(indices, values, dense_shape)


def _merged(gradient):
    indices, values = merge_rows(gradient.indices, gradient.values)
    return RowTensor(indices, values, gradient.dense_shape)


def _like(gradient, values):
    """Return `values` in the form of a gradient."""
    return RowTensor(gradient.indices, values, gradient.dense_shape) if is_rows(gradient) else values


def _reader(gradients):
    """Return a plan that only measures, and the gradients that are there as arrays which it reads without a copy.

    Of row tensors these are the merged rows.
    """
    if not isinstance(gradients, (tuple, list)):
        raise TypeError(f"gradients must be a tuple or list, got {type(gradients).__name__}")
    merged = []
    for i, g in enumerate(gradients):
        if is_rows(g):
            indices, values, _ = as_rows(g, f"gradients[{i}]")
            g = merge_rows(indices, values)[1]
        merged.append(g)
    arrays = _dense(merged)
    names = [f"gradients[{i}]" for i in range(len(arrays))]
    return Plan(None, names, arrays, [], [False] * len(arrays)), arrays


def _dense(gradients):
    """Return the gradients that are there as arrays that kernels read, of row tensors their rows."""
    arrays = []
    for i, g in enumerate(gradients):
        if g is not None:
            array = as_floats(g.values if is_rows(g) else g, f"gradients[{i}]")
            # long doubles have no kernel
            arrays.append(converted(array, array.dtype if has_kernel(array.dtype) else np.dtype(np.float64)))
    return arrays
