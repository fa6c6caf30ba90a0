"""What is measured: work of optimcore, without those it is compared with. `WORKLOADS` has all of it by id."""

from . import dense, many, merge, overhead, pipeline, rows, unique
from .workload import Run, Workload

__all__ = ["WORKLOADS", "Run", "Workload"]

MODULES = [
    dense,
    many,
    overhead,
    pipeline,
    unique,
    merge,
    rows,
]
WORKLOADS = {workload.id: workload for module in MODULES for workload in module.WORKLOADS}
