"""What a workload is."""

from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Run", "Workload"]


class Run:
    """A workload with its data, ready to be timed.

    Parameters
    ----------
    step : callable
        One call without arguments: what is timed.
    result : callable
        Returns a list of arrays: what must agree between those who do the same work. The arrays may be those that the
        next step changes.
    **data
        Become attributes: what a peer needs to do the same work, in the state before the first step.
    """

    def __init__(self, step, result, **data):
        self.step, self.result = step, result
        vars(self).update(data)


@dataclass(frozen=True)
class Workload:
    """Work that optimcore does, under a name.

    Parameters
    ----------
    group : str
        dense, many, pipeline, unique, merge, rows or overhead.
    name : str
        The kernel's word, such as adam or merge_rows.
    case : str
        The rest, such as "1e5" or "zipf, 1e5 x 64".
    make : callable
        Builds data (of a fixed seed) and optimizer, and returns a `Run`. Two runs share nothing.
    limit : tuple or None
        Hand-written C of the same traffic: a name in `limits.LIMITS` and a dict of arguments.
    elements : int
        How many one call touches.
    quick : bool
        Whether the gate and the table of instructions have it.
    """

    group: str
    name: str
    case: str
    make: Callable
    limit: tuple | None
    elements: int
    quick: bool = False

    @property
    def id(self):
        """str : group, name and case, e.g. "dense/adam/1e5"."""
        return f"{self.group}/{self.name}/{self.case}"
