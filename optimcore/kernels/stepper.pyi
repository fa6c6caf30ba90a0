from collections.abc import Callable, Sequence
from typing import Any

from .driver import Plan
from .turn import Turn

class Stepper:
    _plan: Plan | None
    _readers: list[Callable[[int], float]]
    _max_grad_norm: float | None
    _clips: bool
    _dynamic_decay: bool
    _stochastic_rounding: bool
    _moving: bool
    _freezing: list[int]
    _freezing_seen: int
    _wrapper: Any
    _is_wrapped: bool
    _global_step: int

    @property
    def _turn(self) -> Turn: ...
    def __call__(self, gradients: Sequence[Any]) -> Any: ...
    def construct(self, gradients: Sequence[Any] = ...) -> Any: ...
    def hypers(self) -> list[tuple[float, ...]]: ...
    def hyper(self, lr: float) -> tuple[float, ...]: ...
    def _current_rates(self) -> list[float]: ...
    def _step_for(self, wrapper: Any, gradients: Sequence[Any]) -> Any: ...
    def _store(
        self,
        values: dict[str, Any],
        *,
        rule: str | None = None,
        use_lazy: bool | str | None = None,
        dynamic_decay: bool | None = None,
        decay: list[float] | None = None,
        scale: float | None = None,
    ) -> None: ...
    def _store_rates(self, readers: list[Callable[[int], float]], rows: list[int], values: dict[str, Any]) -> None: ...
