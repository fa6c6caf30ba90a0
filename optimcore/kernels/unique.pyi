import numpy as np
from numpy.typing import NDArray

PARTED_FROM: int

class Workspace:
    nbytes: int
    probes: int
    collisions: int
    busy: bool
    def skip_numbers(self, base: int) -> None: ...

def spare_bytes() -> int: ...
def storage_of(dtype: np.dtype) -> tuple[int, np.dtype]: ...
def bounds(indices: NDArray[np.integer]) -> tuple[int, int]: ...
def unique(
    indices: NDArray[np.integer], return_inverse: bool, return_counts: bool, workspace: Workspace
) -> tuple[NDArray[np.integer], ...]: ...
def merge_rows(
    indices: NDArray[np.integer], values: NDArray, workspace: Workspace
) -> tuple[NDArray[np.integer], NDArray[np.floating]]: ...
