"""Optimizers: the base class and one module per family, named as in MindSpore."""

from .adam import Adam
from .base import Optimizer
from .lamb import Lamb
from .lars import LARS
from .momentum import Momentum
from .sgd import SGD

__all__ = [
    "LARS",
    "SGD",
    "Adam",
    "Lamb",
    "Momentum",
    "Optimizer",
]
