"""The kernel table of the active ISA build, and what it holds."""
from .table cimport KernelTable, MeasureKernels, RuleKernels

# A table lives as long as the process.
cdef KernelTable* active_table() except NULL

# Find kernels by name, or raise ValueError.
cdef RuleKernels* find_rule(KernelTable* table, str rule) except NULL
cdef MeasureKernels* find_measure(KernelTable* table, str measure) except NULL
