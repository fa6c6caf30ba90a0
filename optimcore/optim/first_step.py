"""What rules share that take other numbers in the first step of a parameter."""

import numpy as np

from .base import Optimizer

__all__ = ["FirstStepOptimizer"]


class FirstStepOptimizer(Optimizer):
    """An optimizer with two tuples of numbers per rate: for all steps of a parameter but the first, and for the first.

    A parameter that gets no gradient at first has its first step later. A subclass overrides `hypers`, which returns
    the two tuples of every rate, and calls `build_plan_with_first_step`.

    Attributes
    ----------
    flags : ndarray of float32, shape (n,)
        For each parameter, 1 before its first step and 0 afterwards. Its elements may be written to resume elsewhere.
    """

    def __init__(self, learning_rate, parameters, weight_decay=0.0, loss_scale=1.0):
        super().__init__(learning_rate, parameters, weight_decay, loss_scale)
        self.flags = np.ones(self.param_length, np.float32)

    def build_plan_with_first_step(self, rule, *slots):
        """Let a kernel do the steps, as `build_plan` does."""
        self.build_plan(rule, *slots, flags=self.flags)
