"""The kernels for trainers in Cython: rules on rows of a table, rows that share an index, threads. No GIL, no Python.

This is the public surface of the package for `cimport`. It only grows: no signature here ever changes. Memory belongs
to the caller unless a comment says otherwise; nothing checks its arguments unless a comment says so. Everything uses
the ISA build that is active when a rule or a scratch is made; results have the same bits in each.

A trainer with a table of `width` float columns, updated by FTRL:

    cdef const Rule* rule = find_rule("ftrl")                       # once, with the GIL
    cdef Scratch* scratch = new_scratch()                           # once for each thread, with the GIL

    u = merge_rows(scratch, FLOAT32, indices, k, values, width)     # each step: sum the rows that share an index
    if u < 0 or (u > 0 and (lowest_index(scratch) < 0 or highest_index(scratch) >= table_rows)):
        ...                                                         # no memory, or an index that is not in the table
    update_rows(rule, FLOAT32, hypers, 0, 1, table, slots, unique_indices(scratch), u, width, merged_rows(scratch))

    free_scratch(scratch)

To build against it, name optimcore in the build requirements and pass ``include_path=[optimcore.get_include()]`` to
`cythonize`. No library is linked; the module finds the functions when it is imported.
"""
from libc.stdint cimport int32_t, int64_t


# ---- rules

# Types of a parameter and its gradient. The slots of FLOAT64 are double, all others float; so is the gradient of the
# MIXED ones, whose parameter has 16 bits.
cdef enum Storage:
    FLOAT32
    FLOAT64
    FLOAT16
    BFLOAT16
    FLOAT16_MIXED
    BFLOAT16_MIXED

# A rule of the active ISA build. It lives as long as the process; any number of threads may use it.
cdef struct Rule

# Find a rule by name, or raise ValueError; needs the GIL. The hypers of a step, all double, and the slots, all 0 at
# first unless the optimizer of that name documents another value:
#
#   rule               hypers                                  slots
#   -----------------  --------------------------------------  ----------------------
#   sgd                lr
#   sgd_momentum       lr, momentum, keep, take                acc
#   sgd_nesterov       lr, momentum, keep, take                acc
#   momentum           lr, momentum                            m
#   momentum_nesterov  lr, momentum                            m
#   adam               lr, beta1, beta2, eps                   m, v
#   adam_nesterov      lr, beta1, beta2, eps                   m, v
#   adam_amsgrad       lr, beta1, beta2, eps                   m, v, vhat
#   adam_weight_decay  lr, beta1, beta2, eps                   m, v
#   adamax             lr, beta1, beta2, eps                   m, v
#   adagrad            lr, eps                                 acc
#   adagrad_frozen     lr, eps                                 acc
#   adadelta           lr, rho, eps                            acc, acc_update
#   asgd               lr, keep, mu                            average
#   rprop              lr, minus, plus, least, most, first     previous, size
#   ftrl               lr, l1, l2                              acc, linear
#   ftrl_power         lr, l1, l2, power                       acc, linear
#   proximal_adagrad   lr, l1, l2                              acc
#   rmsprop            lr, decay, momentum, eps                ms, moment
#   rmsprop_centered   lr, decay, momentum, eps                ms, moment, mg
#
# `lr` of adam, adam_nesterov and adam_amsgrad holds the correction of the bias: lr * sqrt(1 - beta2^t) / (1 - beta1^t)
# in step t = 1, 2, ...; that of adamax lr / (1 - beta1^t). `keep`, `take` of sgd: momentum and 1 - dampening, but 0 and
# 1 in the first step. `keep` of asgd: 1 - lambd * lr; `mu`: weight of the parameter in its average. `first` of rprop: 1
# in the first step, then 0. `power` is that of the rate, <= 0; `ftrl` is the one with -0.5.
cdef const Rule* find_rule(const char* name) except NULL

# How many hypers and slots it takes.
cdef int count_hypers(const Rule* rule) noexcept nogil
cdef int count_slots(const Rule* rule) noexcept nogil

# Update n elements of a parameter `w` by its gradient `g`. slots: one pointer for each slot of the rule, each to n
# elements; NULL for a rule without slots. decay: weight decay, 0 for none; where gradients carry a loss scale, times
# that. scale: the reciprocal of the loss scale, 1 for none.
cdef void update_row(
    const Rule* rule, Storage storage, const double* hypers, double decay, double scale, void* w, void** slots,
    const void* g, Py_ssize_t n
) noexcept nogil

# Update n_rows rows, of `width` elements each, of a table and of its slots, which have the table's shape: row rows[j]
# by row j of the gradient `values`. A row that comes twice is updated twice, in order. Threads may update different
# rows of one table at the same time.
cdef void update_rows(
    const Rule* rule, Storage storage, const double* hypers, double decay, double scale, void* table, void** slots,
    const int64_t* rows, Py_ssize_t n_rows, Py_ssize_t width, const void* values
) noexcept nogil


# ---- rows that share an index

# Working memory that is kept from call to call, so that the next one is faster. Its size follows the longest call, not
# the table: at most 4 MB, 128 bytes for each index, and three times the merged rows. One thread at a time may use it.
cdef struct Scratch

# Make an empty scratch, or raise MemoryError; needs the GIL. Release it with free_scratch, which takes NULL as well.
cdef Scratch* new_scratch() except NULL
cdef void free_scratch(Scratch* scratch) noexcept nogil
cdef size_t scratch_bytes(const Scratch* scratch) noexcept nogil

# Number k < 2**31 indices in order of first appearance: slots[j] becomes the number of indices[j], 0..u-1. Any values,
# negative ones too. Return u, or -1 if there is no memory.
cdef Py_ssize_t find_unique(Scratch* scratch, const int64_t* indices, Py_ssize_t k, int32_t* slots) noexcept nogil

# Sum the rows that share an index, in order of occurrence: row j of `values` belongs to indices[j], k < 2**31.
# `storage` is FLOAT32, FLOAT64, FLOAT16 or BFLOAT16. Of many rows of one index the sums of 16 each are summed in
# double. Return the number u of different indices, or -1 if there is no memory.
cdef Py_ssize_t merge_rows(
    Scratch* scratch, Storage storage, const int64_t* indices, Py_ssize_t k, const void* values, Py_ssize_t width
) noexcept nogil

# Of the last find_unique or merge_rows, in memory of the scratch and valid until the next of these calls: the u unique
# indices; the smallest and the largest of them, if u > 0; and after merge_rows the u sums, double if storage was
# FLOAT64 and float otherwise. Sums of 16-bit rows therefore go to update_rows with a MIXED storage.
cdef const int64_t* unique_indices(const Scratch* scratch) noexcept nogil
cdef int64_t lowest_index(const Scratch* scratch) noexcept nogil
cdef int64_t highest_index(const Scratch* scratch) noexcept nogil
cdef const void* merged_rows(const Scratch* scratch) noexcept nogil


# ---- threads

# The number of threads that optimcore may use: what `optimcore.set_num_threads` has set.
cdef int num_threads() noexcept nogil

# Do block number `block` of `work` in thread number `thread`, 0..threads-1. True means that the blocks which nobody has
# begun need not be done.
ctypedef bint (*block_f)(const void* work, long block, long thread) noexcept nogil

# Run blocks 0..n_blocks-1, each once and in any order, in the calling thread and up to `threads` - 1 helpers of
# optimcore, and return 0 when all are done. Needs the GIL and releases it while blocks run. It runs no Python code and
# never fails: where helpers cannot be had, the caller does their work. Helpers run in the caller's floating-point mode.
# No block may read what another one writes: then results do not depend on threads.
cdef int run_blocks(block_f run, const void* work, long n_blocks, Py_ssize_t threads) except -1
