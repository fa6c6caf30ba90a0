"""Many small tensors, where what is spent per tensor counts."""

from functools import partial

from .dense import RULES, make_run, stream
from .workload import Workload

__all__ = ["WORKLOADS"]

CASES = {"200 x 1e3": [1000] * 200, "1,000 x 100": [100] * 1000}
NAMES = ("adam", "adagrad", "momentum")
QUICK = [("adam", "200 x 1e3"), ("momentum", "1,000 x 100")]


def _workload(name, case):
    sizes = CASES[case]
    make = partial(make_run, RULES[name], [(n,) for n in sizes])
    return Workload("many", name, case, make, stream(RULES[name], sizes), sum(sizes), quick=(name, case) in QUICK)


WORKLOADS = [_workload(name, case) for name in NAMES for case in CASES]
