# cython: language_level=3, cdivision=True
"""The row gradient of one parameter, from step to step: its rows merged, checked, and sorted into chunks if need be.

Time and memory depend on the rows, never on the table (but for the chunks of a table that is updated as a whole), and
all memory is kept for the next step.
"""
import os

import numpy as np

from libc.stdint cimport int32_t
from numpy cimport (
    NPY_INT64, PyArray_CheckExact, PyArray_DATA, PyArray_DIMS, PyArray_EquivTypenums, PyArray_ISCARRAY_RO, PyArray_NDIM,
    PyArray_TYPE, ndarray, npy_intp
)

from .isa cimport active_table
from .storage cimport BFLOAT16, FLOAT16, FLOAT64
from .unique cimport (
    copy_indices, find_unique, free_scratch, highest_index, lowest_index, new_scratch, reserve_merged, reserve_slots,
    sum_rows, unique_indices
)
from .work cimport CHUNK, length_of_rows

cdef enum:
    FEW_REPEATS = 8         # one row in so many may repeat an index; with more, merged rows in one stream are faster

# A caller who promises that no index repeats (`unique` is False) is then taken at his word.
DEBUG = os.environ.get("OPTIMCORE_DEBUG") == "1"


cdef class RowGradient:
    """Rows of a gradient, in memory that is kept from step to step."""

    def __cinit__(self, str name):
        self.name = name
        self.table = active_table()
        self.scratch = new_scratch()
        self.bucket_starts = self.bucket = np.empty(0, np.intp)

    def __dealloc__(self):
        self.release()
        if self.scratch != NULL:
            free_scratch(self.scratch)

    cdef bint take(self, Task* task, const Door* door, indices, values) noexcept:
        """Take arrays as they are, if they fit."""
        if not (PyArray_CheckExact(indices) and is_index_array(<ndarray>indices) and PyArray_CheckExact(values)):
            return False
        cdef Py_ssize_t n_rows = PyArray_DIMS(<ndarray>indices)[0]
        cdef const npy_intp* shape = PyArray_DIMS(<ndarray>values)
        if (
            PyArray_NDIM(<ndarray>values) != max(door.ndim, 1)
            or shape[0] != n_rows
            or not same_axes(shape, door.shape, 1, door.ndim)
            or not take_array(<ndarray>values, task, door)
        ):
            return False
        task.rows, task.n_rows = <const int64_t*>PyArray_DATA(<ndarray>indices), n_rows
        self.indices, self.values = indices, values
        return True

    cdef void release(self) noexcept:
        """Let go of the caller's arrays."""
        self.indices = self.values = None

    cdef int arrange(self, Task* task, const Door* door, bint merge, bint promised, bint in_place) except -1:
        """Fill in the rest of a task's gradient, or raise IndexError if a row is not in the table.

        `merge`: rows that share an index count as their sum. `promised`: the caller says that there are none.
        `in_place`: they need not be summed, it is enough to know them, which is faster while they are few.
        """
        task.ordered, task.chains = not merge, NULL
        if task.n_rows == 0:
            pass
        elif merge or DEBUG:
            self.merge(task, door, promised and DEBUG, in_place and task.layout not in (FLOAT16, BFLOAT16))
        else:
            self.copy(task)
        if task.chains == NULL:
            task.n_values = task.n_rows
        return 0

    cdef int copy(self, Task* task) except -1:
        """Let the task work on a copy of the indices, which nobody else can write to once it has been checked."""
        with nogil:
            task.rows = copy_indices(self.scratch, task.rows, task.n_rows)
        if task.rows == NULL:
            raise MemoryError()
        return self.check(task)

    cdef int check(self, const Task* task) except -1:
        cdef int64_t lowest = lowest_index(self.scratch), highest = highest_index(self.scratch)
        if lowest < 0 or highest >= task.table_rows:
            raise IndexError(
                f"{self.name} must have indices in [0, {task.table_rows}), got {lowest if lowest < 0 else highest}")
        return 0

    cdef int merge(self, Task* task, const Door* door, bint refuse, bint in_place) except -1:
        cdef Py_ssize_t k = task.n_rows, u, size = 8 if door.layout == FLOAT64 else 4
        cdef int32_t* slots = reserve_slots(self.scratch, k + 1)
        cdef void* merged
        cdef bint failed
        with nogil:
            u = -1 if slots == NULL else find_unique(self.scratch, task.rows, k, slots)
        if u < 0:
            raise MemoryError()
        self.check(task)
        task.rows = <const int64_t*>unique_indices(self.scratch)
        if u == k:
            return 0
        in_place = in_place and (k - u) * FEW_REPEATS <= k
        if refuse:
            raise ValueError(
                f"{self.name} must not repeat an index while unique is False, "
                f"got {task.rows[first_repeat(slots)]} twice")
        merged = reserve_merged(self.scratch, (2 * u + 1) * sizeof(int32_t) if in_place else u * task.width * size)
        if merged == NULL:
            raise MemoryError()
        task.n_rows, task.n_values = u, k
        if in_place:
            self.chains.first, self.chains.next = <int32_t*>merged, slots
            with nogil:
                link(slots, k, <int32_t*>merged, <int32_t*>merged + u + 1)
            task.chains = &self.chains
        else:
            with nogil:
                failed = sum_rows(self.scratch, slots, k, u, task.arrays.g, task.layout, task.width, merged)
            if failed:
                raise MemoryError()
            task.arrays.g, task.layout = merged, door.compute_layout
        return 0

    cdef int fill_buckets(self, Task* task) except -1:
        """Sort the rows by the chunks of the table that they lie in, by counting."""
        cdef Py_ssize_t length = length_of_rows(task.width) if task.centralized and task.size else CHUNK
        cdef Py_ssize_t n_chunks = (task.size + length - 1) // length, total, r, c
        cdef Py_ssize_t[::1] starts
        cdef Py_ssize_t[::1] bucket
        task.bucket_length = length
        if self.bucket_starts.shape[0] == 0:
            self.bucket_starts = np.empty(n_chunks + 1, np.intp)
        starts = self.bucket_starts
        starts[:] = 0
        for r in range(task.n_rows):
            for c in range(first_chunk(task, r), last_chunk(task, r) + 1):
                starts[c] += 1
        total = 0
        for c in range(n_chunks + 1):
            total += starts[c]
            starts[c] = total           # where the bucket ends; filling moves it to where it starts
        if self.bucket.shape[0] < total:
            self.bucket = np.empty(total, np.intp)
        bucket = self.bucket
        for r in range(task.n_rows):
            for c in range(first_chunk(task, r), last_chunk(task, r) + 1):
                starts[c] -= 1
                bucket[starts[c]] = r
        task.bucket_starts, task.bucket = &starts[0], &bucket[0] if total else NULL
        return 0


cdef bint is_index_array(ndarray array) noexcept:
    # long and long long are different types to NumPy, but the same to a kernel
    return (
        PyArray_NDIM(array) == 1
        and PyArray_EquivTypenums(PyArray_TYPE(array), NPY_INT64)
        and PyArray_ISCARRAY_RO(array))


cdef void link(int32_t* slots, Py_ssize_t k, int32_t* first, int32_t* last) noexcept nogil:
    """Replace the slot of each row by the next row with the same slot, or -1; also find the first of each slot.

    There is room for one more slot and one more first row. They are written where otherwise a branch would be needed,
    which nobody can predict.
    """
    cdef int32_t j, slot, before, u = 0
    cdef bint is_new
    for j in range(<int32_t>k):
        slot = slots[j]
        is_new = slot == u          # slots are numbered in order of first appearance
        first[u] = j
        before = last[slot]
        slots[j] = -1
        slots[<int32_t>k if is_new else before] = j
        last[slot] = j
        u += is_new


cdef int32_t first_repeat(const int32_t* slots) noexcept nogil:
    """Return the first slot that comes a second time; there is one."""
    cdef Py_ssize_t j = 0
    while slots[j] == j:        # slots are numbered in order of first appearance
        j += 1
    return slots[j]


cdef Py_ssize_t first_chunk(const Task* task, Py_ssize_t r) noexcept nogil:
    return task.rows[r] * task.width // task.bucket_length


cdef Py_ssize_t last_chunk(const Task* task, Py_ssize_t r) noexcept nogil:
    return ((task.rows[r] + 1) * task.width - 1) // task.bucket_length
