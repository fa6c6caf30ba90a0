"""Threads and configuration of the running library, and where it is.

The number of threads changes how long a step takes, never its result. There is no OpenMP: helpers come from a
`concurrent.futures` pool that is made when a step is first large enough, and made anew after a fork.
"""

import os
import threading

import numpy as np

from optimcore._version import __version__
from optimcore.checks import check_count

_lock = threading.Lock()
_pool = None
_pool_size = 0
_num_threads = None


def default_num_threads():
    """Return the number of CPUs that this process may use: affinity and cgroup limit, at least 1."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cpus, _cgroup_cpus()))


def _cgroup_cpus(root="/sys/fs/cgroup"):
    """Return the CPU limit of the control group (version 2 or 1), rounded up; infinity if there is none."""
    for files in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        try:
            quota, period = " ".join(_read(os.path.join(root, name)) for name in files).split()
            if quota != "max" and int(quota) > 0:
                return -(-int(quota) // int(period))
        except (OSError, ValueError):  # not Linux, no control groups, or a file of another form: no limit known
            continue
    return float("inf")


def _read(path):
    with open(path, encoding="ascii") as file:
        return file.read().strip()


def set_num_threads(num_threads):
    """Set how many threads a step may use; small steps use one whatever is set.

    Parameters
    ----------
    num_threads : int
        At least 1. The calling thread counts.

    Raises
    ------
    TypeError
        If `num_threads` is not an int.
    ValueError
        If it is below 1.

    Notes
    -----
    The environment variable ``OPTIMCORE_NUM_THREADS`` sets the same at import; without it the default is the number of
    CPUs that the process may use (affinity, control group).
    """
    global _num_threads
    _num_threads = check_count("num_threads", num_threads)


def get_num_threads():
    """Return how many threads a step may use.

    Examples
    --------
    >>> import optimcore
    >>> optimcore.set_num_threads(2)
    >>> optimcore.get_num_threads()
    2
    """
    return _num_threads


def call_helpers(function, count):
    """Have up to `count` threads of the pool call `function`, some time; do not wait."""
    try:
        with _lock:
            pool = _pool_of(count)
            for _ in range(count):
                pool.submit(function)
    except RuntimeError:  # the interpreter is shutting down: the caller does the work alone
        pass


def _pool_of(count):
    """Return the pool, made anew if it has fewer than `count` threads."""
    global _pool, _pool_size
    if _pool_size < count:
        # imported here: most processes never take a step that is large enough
        from concurrent.futures import ThreadPoolExecutor

        if _pool is not None:
            _pool.shutdown(wait=False)
        _pool, _pool_size = ThreadPoolExecutor(count, thread_name_prefix="optimcore"), count
    return _pool


def _forget_pool():
    """Start over in the child of a fork, which has none of its parent's threads."""
    global _lock, _pool, _pool_size
    _lock, _pool, _pool_size = threading.Lock(), None, 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)


def _initial_num_threads():
    text = os.environ.get("OPTIMCORE_NUM_THREADS")
    if not text:
        return default_num_threads()
    try:
        return check_count("OPTIMCORE_NUM_THREADS", int(text))
    except ValueError:
        raise ValueError(f"OPTIMCORE_NUM_THREADS must be an int >= 1, got {text!r}") from None


_num_threads = _initial_num_threads()


def get_include():
    """Return the folder to put on the include path of Cython: the one that the package is in.

    A module that says ``from optimcore.kernels.embed cimport ...`` is built with
    ``cythonize(..., include_path=[optimcore.get_include()])``. The C compiler needs no folder, the linker no library.

    Returns
    -------
    str
        The absolute path.
    """
    return os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def get_config():
    """Return what `show_config` prints, as a dict."""
    from optimcore.kernels import isa

    return {
        "version": __version__,
        "isa": isa.active_isa(),
        "isa available": ", ".join(isa.available_isas()),
        "compiler": isa.compiler(),
        "flags": isa.flags(),
        "threads": _num_threads,
        "numpy": np.__version__,
    }


def show_config():
    """Print version, ISA builds, compiler and flags, threads and NumPy version."""
    for key, value in get_config().items():
        print(f"{key:14} {value}")
