"""The row gradient of one parameter, from step to step."""
from .storage cimport Layout
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
    cdef Scratch* scratch
    cdef object indices             # memoryviews of this step's arrays
    cdef object values
    cdef Py_ssize_t[::1] bucket_starts
    cdef Py_ssize_t[::1] bucket

    cdef int open(
        self, Task* task, const Door* door, str name, indices, values, bint same, bint merge, bint promised
    ) except -1
    cdef void release(self) noexcept
    cdef int check(self, str name, lowest, highest, const Task* task) except -1
    cdef int merge(self, Task* task, const Door* door, str name, bint refuse) except -1
    cdef int fill_buckets(self, Task* task) except -1
