"""The row gradient of one parameter, from step to step."""
from numpy cimport PyArray_DATA, PyArray_ISCARRAY_RO, PyArray_TYPE, ndarray, npy_intp

from .storage cimport Layout
from .table cimport Chains, KernelTable
from .unique cimport Scratch
from .work cimport Task, int64_t

# What a gradient must look like to go straight to the kernels.
cdef struct Door:
    int ndim
    const Py_ssize_t* shape
    int type                # NumPy's number of the parameter's dtype, or
    int compute_type        # of the compute dtype
    Layout layout
    Layout compute_layout
    void* source            # the array that is compared with this before a step, and
    void* dtype             # its dtype: borrowed from the plan, which keeps both
    const void* apart       # the last gradient that was found to share no memory with what a step writes,
    Py_ssize_t apart_bytes  # and its length


cdef inline bint same_axes(const npy_intp* shape, const Py_ssize_t* other, int first, int stop) noexcept:
    """Tell whether axes first..stop of two shapes are equal; if there are none, nothing is read."""
    cdef int axis
    for axis in range(first, stop):
        if shape[axis] != other[axis]:
            return False
    return True


cdef inline bint take_array(ndarray array, Task* task, const Door* door) noexcept:
    """Let the kernels read the numbers of an array as it is, if they can; its shape is the caller's business."""
    cdef int type = PyArray_TYPE(array)
    if not PyArray_ISCARRAY_RO(array) or (type != door.type and type != door.compute_type):
        return False
    task.layout = door.layout if type == door.type else door.compute_layout
    task.arrays.g = PyArray_DATA(array)
    return True


cdef class RowGradient:
    cdef KernelTable* table
    cdef Scratch* scratch
    cdef Chains chains
    cdef str name                   # for messages
    cdef object indices             # of this step
    cdef object values
    cdef Py_ssize_t[::1] bucket_starts
    cdef Py_ssize_t[::1] bucket

    cdef bint take(self, Task* task, const Door* door, indices, values) noexcept
    cdef void release(self) noexcept
    cdef int arrange(self, Task* task, const Door* door, bint merge, bint promised, bint in_place) except -1
    cdef int copy(self, Task* task) except -1
    cdef int check(self, const Task* task) except -1
    cdef int merge(self, Task* task, const Door* door, bint refuse, bint in_place) except -1
    cdef int fill_buckets(self, Task* task) except -1
