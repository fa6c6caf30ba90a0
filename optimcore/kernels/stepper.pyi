from collections.abc import Callable, Sequence
from typing import Any

from .driver import Plan

class Stepper:
    _plan: Plan | None
    _readers: list[Callable[[int], float]]
    _only_reader: Callable[[int], float] | None
    _max_grad_norm: float | None
    _clips: bool
    _prepares: bool
    _global_step: int

    def __call__(self, gradients: Sequence[Any]) -> Any: ...
    def construct(self, gradients: Sequence[Any]) -> Any: ...
    def advance(self, gradients: Sequence[Any]) -> None: ...
    def hypers(self) -> list[tuple[float, ...]]: ...
    def hyper(self, lr: float) -> tuple[float, ...]: ...
    def _current_rates(self) -> list[float]: ...
