"""Threads and configuration of the running library, and where it is.

The number of threads changes how long a step takes, never its result. There is no OpenMP: helper threads are started
when a step is first large enough, end when no step needs them for 5 ms, and are started anew after a fork. They run in
the floating-point mode of the calling thread. Where no thread can be had, the calling thread does the step alone.
"""

import os

import numpy as np

from optimcore._version import __version__
from optimcore.checks import check_count
from optimcore.kernels import crew

# Elements from which a second thread pays, where helpers are awake: measured by benchmarks/threshold.py.
THREAD_THRESHOLD = 1 << 16


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
    crew.set_num_threads(check_count("num_threads", num_threads))


def get_num_threads():
    """Return how many threads a step may use.

    Examples
    --------
    >>> import optimcore
    >>> optimcore.set_num_threads(2)
    >>> optimcore.get_num_threads()
    2
    """
    return crew.get_num_threads()


def set_thread_threshold(elements):
    """Set how many elements a step must go over before it uses more than one thread.

    Parameters
    ----------
    elements : int
        At least 0, which lets the smallest step use all threads.

    Raises
    ------
    TypeError
        If `elements` is not an int.
    ValueError
        If it is negative.

    Notes
    -----
    The environment variable ``OPTIMCORE_THREAD_THRESHOLD`` sets the same at import. The default is what was measured
    on one machine; ``python benchmarks/threshold.py`` measures another one.
    """
    crew.set_thread_threshold(check_count("elements", elements, least=0))


def get_thread_threshold():
    """Return how many elements a step must go over before it uses more than one thread.

    Examples
    --------
    >>> import optimcore
    >>> optimcore.set_thread_threshold(100_000)
    >>> optimcore.get_thread_threshold()
    100000
    """
    return crew.get_thread_threshold()


def _from_environment(name, default, least):
    text = os.environ.get(name)
    if not text:
        return default
    try:
        return check_count(name, int(text), least)
    except ValueError:
        raise ValueError(f"{name} must be an int >= {least}, got {text!r}") from None


crew.set_num_threads(_from_environment("OPTIMCORE_NUM_THREADS", default_num_threads(), 1))
crew.set_thread_threshold(_from_environment("OPTIMCORE_THREAD_THRESHOLD", THREAD_THRESHOLD, 0))


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
        "threads": crew.get_num_threads(),
        "numpy": np.__version__,
    }


def show_config():
    """Print version, ISA builds, compiler and flags, threads and NumPy version."""
    for key, value in get_config().items():
        print(f"{key:14} {value}")
