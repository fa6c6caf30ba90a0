"""Steps with gradients of rows: what an embedding costs.

The batch is the same in every step, as in the row limit; what fits the cache stays there. Only where absent rows catch
up do batches alternate, for otherwise no row would ever be absent.
"""

from dataclasses import dataclass, field
from functools import partial
from itertools import cycle

import numpy as np

import optimcore

from .dense import normals
from .indices import TABLE, make_indices
from .unique import COUNTS
from .workload import Run, Workload

__all__ = ["GROWTH", "RULES", "WORKLOADS"]


@dataclass(frozen=True)
class Rule:
    """A rule on rows: the class with its arguments, its slots, and `use_lazy` unless it is what it cannot but be.

    Slots that are `busy` do not begin at 0, so that absent rows move too.
    """

    cls: str
    arguments: dict
    slots: tuple
    use_lazy: object = None
    busy: bool = field(default=False)

    def build(self, table):
        """Return the optimizer of a table."""
        optimizer = getattr(optimcore, self.cls)([optimcore.Parameter(table, name="table")], **self.arguments)
        if self.use_lazy is not None:
            optimizer.use_lazy = self.use_lazy
        return optimizer


RULES = {
    "lazy_adam": Rule("LazyAdam", dict(learning_rate=1e-4), ("moment1", "moment2")),
    "adagrad": Rule("Adagrad", dict(learning_rate=1e-4, accum=0.1), ("accum",)),
    "ftrl": Rule("FTRL", dict(learning_rate=1e-2, l1=1e-3, l2=1e-3), ("moments", "linear")),
    "adam": Rule("Adam", dict(learning_rate=1e-4), ("moment1", "moment2"), use_lazy=False, busy=True),
    "adam_catch_up": Rule("Adam", dict(learning_rate=1e-4), ("moment1", "moment2"), use_lazy="catch_up", busy=True),
}
BATCHES = 4  # that alternate where rows catch up


def make_run(rule, pattern, k, width, rows=TABLE, empty=False):
    """Return the Run of one step; an `empty` table is not touched before the first one."""
    shape = (rows, width)
    table = np.zeros(shape, np.float32) if empty else normals(shape)
    optimizer = rule.build(table)
    slots = [getattr(optimizer, name)[0].data for name in rule.slots]
    if rule.busy:
        slots[0][:], slots[1][:] = normals(shape, start=3), np.square(normals(shape, start=4))
    values = normals((k, width), start=1000)
    count = BATCHES if rule.use_lazy == "catch_up" else 1
    indices = [part % rows for part in np.split(make_indices(pattern, count * k), count)]
    batches = cycle([[optimcore.RowTensor(part, values, shape)] for part in indices])
    seen = np.union1d(np.concatenate(indices), np.arange(0, rows, 997))  # and some that are in no batch
    return Run(
        lambda: optimizer(next(batches)),
        lambda: [array[seen] for array in (table, *slots)],
        rule=rule,
        optimizer=optimizer,
        table=table,
        slots=slots,
        indices=indices[0],
        values=values,
        seen=seen,
    )


def _limit(name, pattern, k, width, rows):
    rule = RULES[name]
    if rule.use_lazy is False:  # a pass over the table, whatever the rows
        return "stream", dict(passes=(("", "wmv"),), sizes=(rows * width,), dtype="float32")
    tables = 1 + len(rule.slots)
    return "rows", dict(tables=tables, width=width, k=k, pattern=pattern, table_rows=rows)


def _workload(name, pattern, count, width, table="1e6"):
    k, rows = COUNTS[count], int(float(table))
    grows = table != "1e6"
    return Workload(
        "rows",
        name,
        f"{pattern}, {count} x {width}" + f", table of {table}" * grows,
        partial(make_run, RULES[name], pattern, k, width, rows, empty=grows),
        _limit(name, pattern, k, width, rows),
        (rows if RULES[name].use_lazy is False else k) * width,
        quick=(pattern, table) == ("zipf", "1e5"),
    )


PATTERNS = ("uniform", "zipf", "all unique", "all equal")
# Workloads of one limit follow one another: a limit is slow to make.
CASES = [
    *(("lazy_adam", pattern, count, 1) for count in ("1e4", "1e5") for pattern in PATTERNS),
    *(
        (name, pattern, count, 16)
        for count in ("1e4", "1e5")
        for pattern in PATTERNS
        for name in ("lazy_adam", "ftrl", "adagrad")
        if name == "lazy_adam" or not pattern.startswith("all")
    ),
    *(
        (name, pattern, count, 64)
        for count in ("1e4", "1e5")
        for pattern in ("uniform", "zipf")
        for name in ("lazy_adam", "ftrl", "adagrad")
    ),
    *(("lazy_adam", "zipf", count, 128) for count in ("1e4", "1e5")),
    ("lazy_adam", "uniform", "1e6", 16),
    *(("adam_catch_up", pattern, count, 16) for count in ("1e4", "1e5") for pattern in ("uniform", "zipf")),
    *(("adam", pattern, count, 16) for count in ("1e4", "1e5") for pattern in ("uniform", "zipf")),
    *((name, "zipf", "1e4", 64) for name in ("adam_catch_up", "adam")),
]
WORKLOADS = [_workload(*case) for case in CASES]
# One batch on tables that grow: the time must not. The table of 1e6 is above.
GROWTH = {table: _workload("lazy_adam", "uniform", "1e4", 16, table) for table in ("1e4", "1e5", "1e6", "1e7")}
# On a table that is soon made, for the gate.
WORKLOADS += [_workload(name, "zipf", "1e4", 16, "1e5") for name in RULES]
WORKLOADS += [workload for table, workload in GROWTH.items() if table != "1e6"]
