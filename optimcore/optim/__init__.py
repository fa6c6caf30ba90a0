"""Optimizers: the base class and one module per family, named as in MindSpore."""

from .adam import Adam
from .base import Optimizer
from .momentum import Momentum
from .sgd import SGD

__all__ = ["SGD", "Adam", "Momentum", "Optimizer"]
