"""The kernel table: what one ISA build offers to the driver, handed over in a capsule."""
from libc.stdint cimport int32_t, int64_t, uint8_t

from .storage cimport LAYOUTS
from .rules cimport Prologue

# update elements start..stop of one parameter: hyper is the rule's struct, arrays the layout's struct
ctypedef void (*update_f)(
    const void* hyper, const void* arrays, Py_ssize_t start, Py_ssize_t stop, const Prologue* prologue
) noexcept nogil

# Rows of a gradient that belong together, in order of occurrence: first[r], next[first[r]] and so on, until -1.
ctypedef struct Chains:
    const int32_t* first
    const int32_t* next

# Update rows[first..last] of one parameter, each of `width` elements. To row rows[r] belongs row r of the gradient, or
# with chains the sum of chain r; then the layout's gradient has the compute type.
ctypedef void (*update_rows_f)(
    const void* hyper, const void* arrays, const int64_t* rows, const Chains* chains, Py_ssize_t first, Py_ssize_t last,
    Py_ssize_t width, const Prologue* prologue
) noexcept nogil

# sum the decayed gradient, times a factor if it is float64, over elements start..stop
ctypedef double (*total_f)(
    const void* arrays, Py_ssize_t start, Py_ssize_t stop, const Prologue* prologue, double factor
) noexcept nogil

# Write to squares[0..1] the sums of squares of a measure's two quantities over elements start..stop. With a float64
# parameter, each quantity is multiplied by its factor before it is squared.
ctypedef void (*measure_f)(
    const void* hyper, const void* arrays, Py_ssize_t start, Py_ssize_t stop, const Prologue* prologue,
    const double* factors, double* squares
) noexcept nogil

# hold elements start..stop of a slot within the finite numbers, and set them to 0 where they are subnormal if it decays
ctypedef void (*settle_f)(void* slot, Py_ssize_t start, Py_ssize_t stop, bint decays) noexcept nogil

# Sum the squares of the gradient over whole rows from start to stop: row[0], row[1], ... are set, and column[0],
# column[1], ... added to, those of the next matrix after every `rows` rows.
ctypedef void (*square_sums_f)(
    const void* arrays, Py_ssize_t start, Py_ssize_t stop, Py_ssize_t rows, Py_ssize_t columns,
    const Prologue* prologue, double* row, double* column
) noexcept nogil

# write the factors of elements start..stop of matrices, from those of all rows and of the columns of each matrix,
# which lie `stride` apart
ctypedef void (*factors_f)(
    const double* row, const double* column, Py_ssize_t rows, Py_ssize_t columns, Py_ssize_t stride,
    Py_ssize_t start, Py_ssize_t stop, void* factors
) noexcept nogil

# smallest and largest of k >= 1 indices (int32 or int64)
ctypedef void (*bounds_f)(const void* indices, Py_ssize_t k, void* lowest, void* highest) noexcept nogil

cdef enum:
    SUMMED = 16             # rows of one index that are summed in float; the sums of so many each are summed in double
    IS_HOT = 128            # a multiple of it

# What the sums in double need to know of slots with more than SUMMED rows, the hot ones.
cdef struct HotRows:
    uint8_t* counts         # for each slot, 0 at first: how many rows are summed in float; + IS_HOT if it is hot
    int32_t* places         # for each slot, if it is hot: where its sum is
    double* sums
    int32_t* slots          # of the sums
    Py_ssize_t n_sums
    Py_ssize_t room         # for sums

# Sum rows start..k-1 of the gradient into rows of slot0, row j into row slots[j], and return k; or return earlier, with
# the row to go on with, if there is no room for one more hot slot. Slots are numbered in order of first appearance; the
# first row of a slot is copied. `start` is 0 in the first call. `hot` without counts: no slot is hot.
ctypedef Py_ssize_t (*merge_f)(
    const void* arrays, const int32_t* slots, Py_ssize_t start, Py_ssize_t k, Py_ssize_t width, HotRows* hot
) noexcept nogil

cdef enum:
    MAX_RULES = 64
    MAX_MEASURES = 16
    MAX_HYPERS = 8          # doubles in the struct of a rule
    MAX_SLOTS = 3

ctypedef struct RuleKernels:
    const char* name
    int hypers              # doubles in the rule's struct
    int slots
    bint decoupled          # the rule reads the decay itself; its gradient goes without
    bint matrix             # it may take a parameter as matrices
    int decaying            # slots that decay, as bits 1, 2 and 4
    update_f[<int>LAYOUTS] update
    update_rows_f[<int>LAYOUTS] update_rows

ctypedef struct MeasureKernels:
    const char* name
    bint gradient_only      # the first quantity is 0
    measure_f[<int>LAYOUTS] measure

ctypedef struct KernelTable:
    int rule_count
    RuleKernels[<int>MAX_RULES] rules
    int measure_count
    MeasureKernels[<int>MAX_MEASURES] measures
    total_f[<int>LAYOUTS] total
    square_sums_f[<int>LAYOUTS] square_sums
    factors_f factors32
    factors_f factors64
    settle_f settle32
    settle_f settle64
    merge_f[<int>LAYOUTS] merge
    bounds_f bounds32
    bounds_f bounds64


cdef inline RuleKernels* add_rule(KernelTable* table, const char* name, int hypers, int slots) except NULL:
    """Return the next rule of a table, to be filled in; RuntimeError if the rule is too large or the table is full."""
    if hypers > MAX_HYPERS:
        raise RuntimeError(f"rule {name.decode()!r} must have at most MAX_HYPERS = {MAX_HYPERS} hypers, got {hypers}")
    if slots > MAX_SLOTS:
        raise RuntimeError(f"rule {name.decode()!r} must have at most MAX_SLOTS = {MAX_SLOTS} slots, got {slots}")
    if table.rule_count >= MAX_RULES:
        raise RuntimeError(f"rules must be at most MAX_RULES = {MAX_RULES}, got {name.decode()!r} beside them")
    cdef RuleKernels* rule = &table.rules[table.rule_count]
    rule.name, rule.hypers, rule.slots = name, hypers, slots
    table.rule_count += 1
    return rule


cdef inline MeasureKernels* add_measure(KernelTable* table, const char* name) except NULL:
    """Return the next measure of a table, to be filled in; RuntimeError if the table is full."""
    if table.measure_count >= MAX_MEASURES:
        raise RuntimeError(f"measures must be at most MAX_MEASURES = {MAX_MEASURES}, got {name.decode()!r} beside them")
    cdef MeasureKernels* measure = &table.measures[table.measure_count]
    measure.name = name
    table.measure_count += 1
    return measure
