"""Fixtures for all tests."""

import numpy as np
import pytest

import optimcore as nn
from optimcore.kernels import isa as builds


class Net:
    """Stand for a network: it has one convolution and one dense layer."""

    def __init__(self):
        shapes = {"conv.weight": (4, 3, 3, 3), "dense.weight": (2, 4), "dense.bias": (2,)}
        self._parameters = [nn.Parameter(np.ones(shape, np.float32), name=name) for name, shape in shapes.items()]

    def trainable_params(self):
        """Return the parameters that a gradient is computed for."""
        return [p for p in self._parameters if p.requires_grad]


@pytest.fixture
def doctest_namespace():
    """Names that examples in docstrings use without importing or defining them."""
    return {"np": np, "Net": Net}


@pytest.fixture
def net():
    """Return a small network."""
    return Net()


@pytest.fixture
def restore_runtime():
    """Put threads, ISA build and the least work for threads back as they were."""
    threads, isa, elements = nn.get_num_threads(), builds.active_isa(), nn.get_thread_threshold()
    yield
    nn.set_num_threads(threads)
    builds.use_isa(isa)
    nn.set_thread_threshold(elements)


@pytest.fixture
def torch():
    """Return torch, which the package itself never imports."""
    return pytest.importorskip("torch", reason="torch is not installed: it is half a gigabyte")
