from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

THREAD_ELEMENTS: int

def available_isas() -> tuple[str, ...]: ...
def active_isa() -> str: ...
def use_isa(name: str) -> None: ...
def compiler() -> str: ...
def flags() -> str: ...
def compute_dtype(dtype: np.dtype) -> np.dtype: ...

class Plan:
    decay: NDArray[np.float64]
    rows: NDArray[np.intc]
    scale: float
    def __init__(
        self,
        rule: str,
        names: Sequence[str],
        parameters: Sequence[NDArray],
        slots: Sequence[Sequence[NDArray]],
        centralize: Sequence[bool],
        rows: Sequence[int] | None = None,
        row_means: Sequence[NDArray | None] | None = None,
    ) -> None: ...
    def step(
        self,
        gradients: tuple[object | None, ...] | list[object | None],
        hypers: Sequence[tuple[float, ...]],
    ) -> None: ...
    def factor(self, gradients: tuple[object | None, ...] | list[object | None], beta2: float, eps: float) -> None: ...
