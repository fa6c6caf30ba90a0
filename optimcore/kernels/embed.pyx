# cython: language_level=3, cdivision=True
"""The kernels for trainers in Cython; embed.pxd says what each function does."""
from cpython.mem cimport PyMem_RawCalloc, PyMem_RawFree

from . cimport crew, isa, unique
from libc.math cimport INFINITY

from .rules cimport Prologue, set_limits
from .storage cimport Arrays, Layout
from .table cimport KernelTable, RuleKernels


# The public types of pointers are those of the kernels under names of their own, so that the kernels may change.
cdef struct Rule:
    RuleKernels kernels

cdef struct Scratch:
    unique.Scratch* inner
    void* merged            # in memory of the inner one

# The first one only prepares gradients, the others need measures of whole parameters.
NOT_FOR_ROWS = (
    "gradient", "lamb", "adafactor", "adafactor_momentum",
    # and these stand for many steps without a gradient
    "momentum_absent", "adam_absent", "adam_amsgrad_absent", "decayed_momentum_absent",
)


# ---- rules

def count_numbers():
    """Return how many hypers and how many slots each rule takes that `find_rule` knows.

    Returns
    -------
    dict
        From the name of a rule to (hypers, slots).
    """
    cdef KernelTable* kernels = isa.active_table()
    cdef RuleKernels* rule
    cdef int i
    counts = {}
    for i in range(kernels.rule_count):
        rule = &kernels.rules[i]
        counts[rule.name.decode()] = (rule.hypers, rule.slots)
    return {name: count for name, count in counts.items() if name not in NOT_FOR_ROWS}


cdef const Rule* find_rule(const char* name) except NULL:
    rule = name.decode(errors="replace")
    if rule in NOT_FOR_ROWS:
        raise ValueError(f"rule must update one element at a time, got {rule!r}")
    return <const Rule*>isa.find_rule(isa.active_table(), rule)


cdef int count_hypers(const Rule* rule) noexcept nogil:
    return rule.kernels.hypers


cdef int count_slots(const Rule* rule) noexcept nogil:
    return rule.kernels.slots


cdef void update_row(
    const Rule* rule, Storage storage, const double* hypers, double decay, double scale, void* w, void** slots,
    const void* g, Py_ssize_t n
) noexcept nogil:
    cdef Arrays arrays = arrays_of(rule, w, slots, g)
    cdef Prologue prologue = prologue_of(storage, decay, scale)
    rule.kernels.update[<int>storage](hypers, &arrays, 0, n, &prologue)


cdef void update_rows(
    const Rule* rule, Storage storage, const double* hypers, double decay, double scale, void* table, void** slots,
    const int64_t* rows, Py_ssize_t n_rows, Py_ssize_t width, const void* values
) noexcept nogil:
    cdef Arrays arrays = arrays_of(rule, table, slots, values)
    cdef Prologue prologue = prologue_of(storage, decay, scale)
    rule.kernels.update_rows[<int>storage](hypers, &arrays, rows, NULL, 0, n_rows, width, &prologue)


cdef Arrays arrays_of(const Rule* rule, void* w, void** slots, const void* g) noexcept nogil:
    cdef Arrays arrays
    arrays.w, arrays.g, arrays.zero = w, g, 0
    arrays.slot0 = slots[0] if rule.kernels.slots > 0 else NULL
    arrays.slot1 = slots[1] if rule.kernels.slots > 1 else NULL
    arrays.slot2 = slots[2] if rule.kernels.slots > 2 else NULL
    return arrays


cdef Prologue prologue_of(Storage storage, double decay, double scale) noexcept nogil:
    cdef Prologue p
    p.clip, p.decay, p.mean, p.scale, p.most, p.trust = 1, decay, 0, scale, INFINITY, 1
    set_limits(&p, storage == FLOAT64)
    if decay != 0 or scale > 1:
        p.most = p.largest
    p.factored = False
    p.rounding.stochastic, p.rounding.key0, p.rounding.key1 = False, 0, 0
    return p


# ---- rows that share an index

cdef Scratch* new_scratch() except NULL:
    cdef Scratch* scratch = <Scratch*>PyMem_RawCalloc(1, sizeof(Scratch))
    if scratch == NULL:
        raise MemoryError()
    try:
        scratch.inner = unique.new_scratch()
    except MemoryError:
        PyMem_RawFree(scratch)
        raise
    return scratch


cdef void free_scratch(Scratch* scratch) noexcept nogil:
    if scratch != NULL:
        unique.free_scratch(scratch.inner)
        PyMem_RawFree(scratch)


cdef size_t scratch_bytes(const Scratch* scratch) noexcept nogil:
    return unique.scratch_bytes(scratch.inner)


cdef Py_ssize_t find_unique(Scratch* scratch, const int64_t* indices, Py_ssize_t k, int32_t* slots) noexcept nogil:
    return unique.find_unique(scratch.inner, indices, k, slots)


cdef Py_ssize_t merge_rows(
    Scratch* scratch, Storage storage, const int64_t* indices, Py_ssize_t k, const void* values, Py_ssize_t width
) noexcept nogil:
    cdef int32_t* slots = unique.reserve_slots(scratch.inner, k)
    cdef Py_ssize_t u = -1 if slots == NULL else find_unique(scratch, indices, k, slots)
    if u < 0:
        return -1
    scratch.merged = unique.reserve_merged(scratch.inner, u * width * (8 if storage == FLOAT64 else 4))
    if scratch.merged == NULL:
        return -1
    if unique.sum_rows(scratch.inner, slots, k, u, values, <Layout>storage, width, scratch.merged) != 0:
        return -1
    return u


cdef const int64_t* unique_indices(const Scratch* scratch) noexcept nogil:
    return <const int64_t*>unique.unique_indices(scratch.inner)


cdef int64_t lowest_index(const Scratch* scratch) noexcept nogil:
    return unique.lowest_index(scratch.inner)


cdef int64_t highest_index(const Scratch* scratch) noexcept nogil:
    return unique.highest_index(scratch.inner)


cdef const void* merged_rows(const Scratch* scratch) noexcept nogil:
    return scratch.merged


# ---- threads

cdef int num_threads() noexcept nogil:
    return <int>crew.allowed_threads()


cdef int run_blocks(block_f run, const void* work, long n_blocks, Py_ssize_t threads) except -1:
    return crew.run_blocks(<crew.block_f>run, work, n_blocks, threads)
