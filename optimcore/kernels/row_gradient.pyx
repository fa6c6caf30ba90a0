# cython: language_level=3, cdivision=True
"""The row gradient of one parameter, from step to step: its rows merged, checked, and sorted into chunks if need be.

Time and memory depend on the rows, never on the table (but for the chunks of a table that is updated as a whole), and
all memory is kept for the next step.
"""
import os

import numpy as np

from cpython.memoryview cimport PyMemoryView_GET_BUFFER
from libc.stdint cimport int32_t

from .storage cimport FLOAT64
from .unique cimport (
    find_unique, free_scratch, highest_index, lowest_index, new_scratch, reserve_merged, reserve_slots, sum_rows,
    unique_indices
)
from .work cimport CHUNK

from optimcore.kernels.arrays import as_bits, converted

# A caller who promises that no index repeats (`unique` is False) is then taken at his word.
DEBUG = os.environ.get("OPTIMCORE_DEBUG") == "1"


cdef class RowGradient:
    """Rows of a gradient, in memory that is kept from step to step."""

    def __cinit__(self):
        self.scratch = new_scratch()
        self.bucket_starts = self.bucket = np.empty(0, np.intp)

    def __dealloc__(self):
        if self.scratch != NULL:
            free_scratch(self.scratch)

    cdef int open(
        self, Task* task, const Door* door, str name, indices, values, bint same, bint merge, bint promised
    ) except -1:
        """Fill in a task's gradient, or raise IndexError if a row is not in the table.

        `merge`: rows that share an index are summed. `promised`: the caller says that there are none.
        """
        self.indices, self.values = memoryview(converted(indices, np.dtype(np.int64))), memoryview(as_bits(values))
        task.rows = <const int64_t*>PyMemoryView_GET_BUFFER(self.indices).buf
        task.n_rows = len(indices)
        task.arrays.g = PyMemoryView_GET_BUFFER(self.values).buf
        task.layout = door.layout if same else door.compute_layout
        task.ordered = not merge
        if task.n_rows == 0:
            return 0
        if merge or DEBUG:
            self.merge(task, door, name, promised and DEBUG)
        else:
            self.check(name, indices.min(), indices.max(), task)
        return 0

    cdef void release(self) noexcept:
        """Let go of the caller's arrays."""
        self.indices = self.values = None

    cdef int check(self, str name, lowest, highest, const Task* task) except -1:
        if lowest < 0 or highest >= task.table_rows:
            raise IndexError(
                f"{name} must have indices in [0, {task.table_rows}), got {lowest if lowest < 0 else highest}")
        return 0

    cdef int merge(self, Task* task, const Door* door, str name, bint refuse) except -1:
        cdef Py_ssize_t k = task.n_rows, u, size = 8 if door.layout == FLOAT64 else 4
        cdef int32_t* slots = reserve_slots(self.scratch, k)
        cdef void* merged
        with nogil:
            u = -1 if slots == NULL else find_unique(self.scratch, task.rows, k, slots)
        if u < 0:
            raise MemoryError()
        self.check(name, lowest_index(self.scratch), highest_index(self.scratch), task)
        if u == k:
            return 0
        if refuse:
            raise ValueError(f"{name} must not repeat an index while unique is False, got {first_repeat(task)} twice")
        merged = reserve_merged(self.scratch, u * task.width * size)
        if merged == NULL:
            raise MemoryError()
        with nogil:
            sum_rows(self.scratch, slots, k, task.arrays.g, task.layout, task.width, merged)
        task.rows, task.n_rows = <const int64_t*>unique_indices(self.scratch), u
        task.arrays.g, task.layout = merged, door.compute_layout
        return 0

    cdef int fill_buckets(self, Task* task) except -1:
        """Sort the rows by the chunks of the table that they lie in, by counting."""
        cdef Py_ssize_t n_chunks = (task.size + CHUNK - 1) // CHUNK, total, r, c
        cdef Py_ssize_t[::1] starts
        cdef Py_ssize_t[::1] bucket
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


cdef object first_repeat(const Task* task):
    seen = set()
    cdef Py_ssize_t r
    for r in range(task.n_rows):
        if task.rows[r] in seen:
            return task.rows[r]
        seen.add(task.rows[r])


cdef Py_ssize_t first_chunk(const Task* task, Py_ssize_t r) noexcept nogil:
    return task.rows[r] * task.width // CHUNK


cdef Py_ssize_t last_chunk(const Task* task, Py_ssize_t r) noexcept nogil:
    return ((task.rows[r] + 1) * task.width - 1) // CHUNK
