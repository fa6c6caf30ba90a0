"""The row gradient of one parameter, from step to step."""
from .storage cimport Layout
from .table cimport Chains, KernelTable
from .unique cimport Scratch
from .work cimport Task, int64_t

# What a gradient must look like to go straight to the kernels.
cdef struct Door:
    int ndim
    const Py_ssize_t* shape
    char format             # the parameter's own, or
    char compute_format     # the compute type's
    Layout layout
    Layout compute_layout

cdef class RowGradient:
    cdef KernelTable* table
    cdef Scratch* scratch
    cdef Chains chains
    cdef str name                   # for messages
    cdef Py_buffer indices          # of this step's arrays
    cdef Py_buffer values
    cdef Py_ssize_t[::1] bucket_starts
    cdef Py_ssize_t[::1] bucket

    cdef bint take(self, Task* task, const Door* door, indices, values, bint is_bits) noexcept
    cdef bint fits(self, Task* task, const Door* door, bint is_bits) noexcept
    cdef void release(self) noexcept
    cdef int arrange(self, Task* task, const Door* door, bint merge, bint promised, bint in_place) except -1
    cdef int check(self, int64_t lowest, int64_t highest, const Task* task) except -1
    cdef int merge(self, Task* task, const Door* door, bint refuse, bint in_place) except -1
    cdef int fill_buckets(self, Task* task) except -1
