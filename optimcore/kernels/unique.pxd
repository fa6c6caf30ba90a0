"""Number indices in order of first appearance, and sum rows that share an index, without the GIL.

Cost and memory depend on the number of indices k, never on the size of the table that they point into. Nothing here
checks its arguments. A step on rows takes the unique indices as row numbers, looks at `lowest_index` and
`highest_index` before it writes anything, and sums the rows that share an index unless u == k:

    cdef Scratch* scratch = new_scratch()                           # once
    u = find_unique(scratch, indices, k, slots)                     # each step, with slots = reserve_slots(scratch, k)
    row_numbers = <const int64_t*>unique_indices(scratch)
    sum_rows(scratch, slots, k, u, values, FLOAT32, width, merged)
    free_scratch(scratch)
"""
from libc.stdint cimport int32_t, int64_t

from .storage cimport Layout

ctypedef fused index_t:
    int32_t
    int64_t

ctypedef fused slot_t:
    int32_t
    int64_t

# Working memory that is kept from call to call: at most 4 MB, 128 bytes for each index of the longest call, and three
# times the merged rows. It makes the next call faster, because nothing has to be cleared. One thread at a time may
# use it.
cdef struct Scratch

# Make an empty scratch; needs the GIL. Release it with free_scratch.
cdef Scratch* new_scratch() except NULL
cdef void free_scratch(Scratch* scratch) noexcept nogil
cdef size_t scratch_bytes(const Scratch* scratch) noexcept nogil

# Number k < 2**31 indices in order of first appearance: slots[j] becomes the number of indices[j], 0..u-1.
# Return u, or -1 if there is no memory. No index value is special. Another thread may write to the indices meanwhile:
# slots, unique indices and their bounds then still belong together.
cdef Py_ssize_t find_unique(Scratch* scratch, const index_t* indices, Py_ssize_t k, slot_t* slots) noexcept nogil

# Of the last find_unique: its u unique indices, of the type of the indices, in order of first appearance (valid until
# the next call); the smallest and the largest of them, if u > 0.
cdef const void* unique_indices(const Scratch* scratch) noexcept nogil
cdef int64_t lowest_index(const Scratch* scratch) noexcept nogil
cdef int64_t highest_index(const Scratch* scratch) noexcept nogil

# Copy k indices to where the unique ones of a find_unique would be, and find the smallest and the largest of the copy.
# NULL if there is no memory.
cdef const int64_t* copy_indices(Scratch* scratch, const int64_t* indices, Py_ssize_t k) noexcept nogil

# Memory of the scratch, at least this large, kept until the next call with the same purpose; NULL if there is none.
cdef int32_t* reserve_slots(Scratch* scratch, Py_ssize_t k) noexcept nogil
cdef void* reserve_merged(Scratch* scratch, size_t nbytes) noexcept nogil

# Sum rows that share a slot: row slots[j] of `merged` (u rows of `width` elements of the compute type: float, or double
# if storage is FLOAT64) is the sum of rows j of `values` (k rows of storage FLOAT32, FLOAT64, FLOAT16 or BFLOAT16), in
# order of occurrence. The slots are those of find_unique. Return 0, or -1 if there is no memory.
#
# Of many rows of one index the sums of 16 each are summed in double, and the result is rounded once. Chains of such
# rows, which a step sums by itself, give the same bits.
cdef int sum_rows(
    Scratch* scratch, const int32_t* slots, Py_ssize_t k, Py_ssize_t u, const void* values, Layout storage,
    Py_ssize_t width, void* merged
) noexcept nogil
