from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Gradients = tuple[object | None, ...] | list[object | None]

def can_catch_up(rule: str) -> bool: ...

class Plan:
    decay: NDArray[np.float64]
    scale: NDArray[np.float64]
    numbers: NDArray[np.float64]
    rows: NDArray[np.intc]
    clip: float
    catch_up: bool
    takes_rows: bool
    lazy: bool
    merge: bool
    def __init__(
        self,
        rule: str | None,
        names: Sequence[str],
        parameters: Sequence[NDArray],
        slots: Sequence[Sequence[NDArray]],
        centralize: Sequence[bool],
        rows: Sequence[int] | None = None,
        row_means: Sequence[NDArray | None] | None = None,
    ) -> None: ...
    @property
    def decoupled(self) -> bool: ...
    def step(self, gradients: Gradients, hypers: Sequence[tuple[float, ...]]) -> None: ...
    def measure(
        self, measure: str, gradients: Gradients, hypers: Sequence[tuple[float, ...]] | None = None
    ) -> NDArray[np.float64]: ...
    def adapt(self, how: str | None) -> None: ...
    def hold(self, gradients: Gradients) -> Plan: ...
    def __enter__(self) -> Plan: ...
    def __exit__(self, *error: object) -> None: ...
    def round_stochastically(self, seed: int | None, step: int) -> None: ...
    def flush(self) -> None: ...
