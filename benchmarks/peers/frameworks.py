"""Frameworks, imported and set up once, the way that lets all of them live in one process."""

import os
import warnings

import numpy as np

__all__ = ["as_arrays", "mindspore", "quietly", "tensorflow", "torch"]


def torch(threads):
    """Return torch with that many threads."""
    import torch

    torch.set_num_threads(threads)
    torch.sparse.check_sparse_tensor_invariants.disable()  # as is the default, but not without a warning
    return torch


def tensorflow():
    """Return TensorFlow; its threads cannot be changed once it runs."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import tensorflow

    return tensorflow


def mindspore():
    """Return MindSpore without its notes of operations that are going to go.

    Only its `Primitive` classes are used: functions such as ``ops.unique`` need the NumPy that it was built with.
    """
    os.environ.setdefault("GLOG_v", "3")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mindspore

    mindspore.set_context(mode=mindspore.PYNATIVE_MODE, device_target="CPU")
    return mindspore


def quietly(function, *arguments, **keywords):
    """Return what the function does, without its warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function(*arguments, **keywords)


def as_arrays(tensors):
    """Return tensors of any framework as arrays."""
    return [tensor.asnumpy() if hasattr(tensor, "asnumpy") else np.asarray(tensor) for tensor in tensors]
