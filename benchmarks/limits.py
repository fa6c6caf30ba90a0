"""How fast this machine can be: hand-written C with the traffic of a workload and next to no arithmetic.

A limit is a name and a dict of arguments:

- ``"copy", dict(size=...)``: memcpy of so many bytes.
- ``"stream", dict(passes=..., sizes=..., dtype=..., together=...)``: passes over tensors of these sizes, in elements. A
  pass is a pair of letters, one for each array: those that it reads, and those that it reads and writes. `g` and `w`
  have the dtype, all others the compute dtype. So many tensors `together`, by default all, take all their passes before
  the next ones begin: the cache may have them from pass to pass.
- ``"rows", dict(tables=..., width=..., k=..., pattern=..., table_rows=...)``: rows of `width` float32 in so many
  tables are gathered, updated and scattered by k gradients; rows come in the order in which they first appear among
  the k indices of a pattern, and each once. Gradients that follow for the same rows are read.

C has the arrays that a user has: `w` and `g` come from NumPy, slots begin at a cache line as those of the package do.
It prefetches as far ahead as turns out best. With two threads the second spins while a measurement is on.
"""

import ctypes
import hashlib
import os
import shlex
import statistics
import subprocess
import sysconfig
import tempfile
from ctypes import POINTER, Structure, byref, c_char_p, c_double, c_long, c_void_p
from functools import cache
from pathlib import Path

import numpy as np
from workloads.indices import PATTERNS

from optimcore.kernels.arrays import aligned_zeros

__all__ = ["LIMITS", "Limit", "is_available", "seconds", "traffic"]

SOURCE = Path(__file__).with_name("limits.c")
FLAGS = ["-O3", "-march=native", "-std=gnu11", "-shared", "-fPIC", "-pthread"]
ITEM = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8}


@cache
def library():
    """Compile limits.c by the compiler that built Python's extensions, once, and return it; None if that fails."""
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    key = hashlib.sha256(repr((compiler, FLAGS, os.uname()[1])).encode() + SOURCE.read_bytes()).hexdigest()[:16]
    target = SOURCE.parent.parent / "build" / "limits" / f"{key}.so"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        # to a name of its own first: another run may be at it
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            built = Path(folder) / target.name
            subprocess.run([*compiler, *FLAGS, str(SOURCE), "-o", str(built)], check=True)
            built.replace(target)
    lib = ctypes.CDLL(str(target))
    for name in ("measure_streams", "measure_copy", "measure_rows"):
        getattr(lib, name).restype = c_double
        getattr(lib, name).argtypes = [c_void_p, c_long]
    lib.has_pattern.argtypes = [c_long] * 3
    return lib


@cache
def is_available():
    """Tell whether there is a C compiler that makes the limits."""
    try:
        library()
    except (OSError, AttributeError, subprocess.CalledProcessError):
        return False
    return True


def _pointers(arrays):
    """Return a C array of the addresses of arrays."""
    return (c_void_p * len(arrays))(*(a.__array_interface__["data"][0] for a in arrays))


class _Pass(Structure):
    _fields_ = [("reads", c_long), ("updates", c_long), ("narrow", c_long), ("arrays", c_void_p)]


class _Streams(Structure):
    _fields_ = [
        *((name, c_long) for name in ("threads", "passes", "tensors", "ahead", "together")),
        ("pass_", POINTER(_Pass)),
        ("sizes", POINTER(c_long)),
    ]


class Streams:
    """Passes over tensors."""

    aheads = (0, 1024, 4096, 8192)  # bytes

    def __init__(self, passes, sizes, dtype, together=None):
        item, slot_item = ITEM[dtype], max(4, ITEM[dtype])
        narrow = item < slot_item
        if narrow and any(n % 32 for n in sizes):
            raise ValueError(f"sizes must be multiples of 32 for {dtype}, got {sizes}")
        self.tensors = [self._arrays(n, passes, item, slot_item) for n in sizes]
        self.passes = (_Pass * len(passes))()
        self.pinned = []
        for one, (reads, updates) in zip(self.passes, passes, strict=True):
            bits = sum(1 << i for i, letter in enumerate(reads + updates) if letter in "gw") if narrow else 0
            if not library().has_pattern(len(reads), len(updates), bits):
                raise ValueError(f"limits.c has no loop for {reads!r} and {updates!r} of {dtype}")
            arrays = _pointers([arrays[letter] for arrays in self.tensors for letter in reads + updates])
            self.pinned.append(arrays)
            one.reads, one.updates, one.narrow = len(reads), len(updates), bits
            one.arrays = ctypes.cast(arrays, c_void_p)
        self.sizes = (c_long * len(sizes))(*(n * slot_item for n in sizes))
        self.job = _Streams(1, len(passes), len(sizes), 0, together or len(sizes), self.passes, self.sizes)
        self.function = library().measure_streams

    @staticmethod
    def _arrays(n, passes, item, slot_item):
        letters = sorted({letter for one in passes for letters in one for letter in letters})
        arrays = {}
        for i, letter in enumerate(letters):
            if letter in "gw":
                arrays[letter] = np.ones(n * item, np.uint8)
            else:
                arrays[letter] = aligned_zeros((n * slot_item,), np.dtype(np.uint8), i)
                arrays[letter][:] = 1
        return arrays

    @staticmethod
    def traffic(passes, sizes, dtype, together=None):
        """Return the bytes that are read and written."""
        item, slot_item = ITEM[dtype], max(4, ITEM[dtype])
        letters = "".join(reads + 2 * updates for reads, updates in passes)
        return sum(sizes) * sum(item if letter in "gw" else slot_item for letter in letters)


class _Copy(Structure):
    _fields_ = [("threads", c_long), ("size", c_long), ("from_", c_void_p), ("to", c_void_p), ("ahead", c_long)]


class Copy:
    """A copy by memcpy."""

    aheads = (0,)

    def __init__(self, size):
        self.arrays = np.ones(size, np.uint8), np.ones(size, np.uint8)
        source, target = _pointers(self.arrays)
        self.job = _Copy(1, size, source, target, 0)
        self.function = library().measure_copy

    @staticmethod
    def traffic(size):
        """Return the bytes that are read and written."""
        return 2 * size


class _Rows(Structure):
    _fields_ = [
        *((name, c_long) for name in ("threads", "tables", "rows", "gradients", "width", "ahead")),
        ("table", c_void_p),
        ("gradient", c_char_p),
        ("row", c_void_p),
    ]


class Rows:
    """Rows of tables, gathered, updated and scattered."""

    aheads = (0, 4, 8, 16, 32)  # rows

    def __init__(self, tables, width, k, pattern="uniform", table_rows=10**6):
        if not 1 <= tables <= 4:
            raise ValueError(f"tables must be in 1 .. 4, got {tables}")
        self.rows = first_appearances(pattern, k, table_rows)
        self.gradient = np.ones((k, width), np.float32)
        self.tables = [aligned_zeros((table_rows, width), np.dtype(np.float32), i) for i in range(tables)]
        for table in self.tables:
            table[:] = 1  # its pages
        self.table = _pointers(self.tables)
        gradient, rows = _pointers([self.gradient, self.rows])
        table = ctypes.cast(self.table, c_void_p)
        gradient = ctypes.cast(gradient, c_char_p)
        self.job = _Rows(1, tables, len(self.rows), k, 4 * width, 0, table, gradient, rows)
        self.function = library().measure_rows

    @staticmethod
    def traffic(tables, width, k, pattern="uniform", table_rows=10**6):
        """Return the bytes that are read and written."""
        return 4 * width * (k + 2 * tables * len(first_appearances(pattern, k, table_rows)))


def first_appearances(pattern, k, table_rows):
    """Return the rows among the k indices of a pattern, each once, in the order in which they first appear."""
    indices = PATTERNS[pattern](np.random.default_rng(k), k) % table_rows
    _, first = np.unique(indices, return_index=True)
    return np.ascontiguousarray(indices[np.sort(first)], np.int64)


LIMITS = {"copy": Copy, "stream": Streams, "rows": Rows}


def traffic(limit):
    """Return how many bytes a limit reads and writes."""
    name, arguments = limit
    return LIMITS[name].traffic(**arguments)


class Limit:
    """A limit with its arrays, ready to be measured.

    Parameters
    ----------
    limit : tuple
        See the module.
    threads : int, default 1
        How many take part.
    """

    def __init__(self, limit, threads=1):
        name, arguments = limit
        self.loop = LIMITS[name](**arguments)
        self.best = {}  # by threads: how far ahead, and how many calls in a row
        self.use(threads)

    def use(self, threads):
        """Set the number of threads."""
        self.loop.job.threads = threads
        if threads not in self.best:
            self.best[threads] = self._find_best()
        self.loop.job.ahead, self.repeats = self.best[threads]

    def _once(self):
        """Return the seconds of one call, by as many in a row as the clock needs."""
        seconds = self.loop.function(byref(self.loop.job), self.repeats)
        if seconds < 0:
            raise RuntimeError("no threads to be had")
        return seconds / self.repeats

    def _find_best(self):
        self.repeats = 1
        while self._once() * self.repeats < 1e-4:
            self.repeats *= 2
        times = {}
        for ahead in 2 * self.loop.aheads:
            self.loop.job.ahead = ahead
            times[ahead] = min([times.get(ahead, 1e9), *(self._once() for _ in range(3))])
        return min(times, key=times.get), self.repeats

    def sample(self, budget=0.03, least=5):
        """Return the seconds of one call, as often as the budget of seconds allows."""
        times = [self._once() for _ in range(least)]
        more = int(budget / max(sum(times) / least * self.repeats, 1e-9)) - least
        return times + [self._once() for _ in range(min(more, 500))]


def seconds(limit, threads=1, budget=0.1):
    """Return the median of the seconds of one call.

    Examples
    --------
    >>> seconds(("stream", dict(passes=(("g", "wmv"),), sizes=(10**5,), dtype="float32"))) > 0
    True
    """
    return statistics.median(Limit(limit, threads).sample(budget))
