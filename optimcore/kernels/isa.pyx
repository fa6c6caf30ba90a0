# cython: language_level=3
"""ISA builds: which of them this CPU can run, and which one is in use."""
import os
from importlib import import_module

from cpython.pycapsule cimport PyCapsule_GetPointer
from libc.string cimport strcmp

cdef extern from "platform.h":
    bint cpu_has_avx2() noexcept nogil
    bint cpu_has_avx512() noexcept nogil

_builds = {}                # name -> compiled module, narrowest first
_active = None


def _load_builds():
    supported = {"baseline": True, "avx2": cpu_has_avx2(), "avx512": cpu_has_avx512()}
    for name, has in supported.items():
        if has:
            try:
                _builds[name] = import_module(f"optimcore.kernels._isa_{name}")
            except ModuleNotFoundError:     # other architectures and compilers build the baseline alone
                continue


def available_isas():
    """Return the names of the ISA builds that this CPU can run, narrowest first."""
    return tuple(_builds)


def active_isa():
    """Return the name of the ISA build that new plans use."""
    return _active


def use_isa(name):
    """Let plans that are built from now on use the ISA build `name`.

    Raises
    ------
    ValueError
        If there is no such build, or the CPU lacks it.
    """
    global _active
    if name not in _builds:
        raise ValueError(
            f"OPTIMCORE_ISA must name an ISA build that this CPU can run ({', '.join(_builds)}), got {name!r}")
    _active = name


def compiler():
    """Return name and version of the compiler that made the active ISA build."""
    return _builds[_active].compiler


def flags():
    """Return the compiler flags of the active ISA build."""
    return _builds[_active].flags


_load_builds()
use_isa(os.environ.get("OPTIMCORE_ISA") or list(_builds)[-1])


cdef KernelTable* active_table() except NULL:
    return <KernelTable*>PyCapsule_GetPointer(_builds[_active].kernel_table, "optimcore.kernel_table")


cdef RuleKernels* find_rule(KernelTable* table, str rule) except NULL:
    cdef bytes name = rule.encode()
    cdef int i
    for i in range(table.rule_count):
        if strcmp(table.rules[i].name, <const char*>name) == 0:
            return &table.rules[i]
    raise ValueError(f"rule must name a kernel, got {rule!r}")


cdef MeasureKernels* find_measure(KernelTable* table, str measure) except NULL:
    cdef bytes name = measure.encode()
    cdef int i
    for i in range(table.measure_count):
        if strcmp(table.measures[i].name, <const char*>name) == 0:
            return &table.measures[i]
    raise ValueError(f"measure must name a kernel, got {measure!r}")
