"""One pass over the parameters of an optimizer, cut into blocks that run without the GIL in any order."""
from libc.stdint cimport int64_t, uint64_t

from .backlog cimport Backlog, Coast, int32_t
from .storage cimport Arrays, Layout
from .table cimport (
    MAX_HYPERS, Chains, MeasureKernels, RuleKernels, factors_f, settle_f, square_sums_f, total_f, update_f
)

cdef enum:
    MAX_NUMBERS = 8
    SUMS = 4                # doubles that a chunk keeps of a measure: two sums of squares, and their powers of two
    CHUNK = 1 << 14         # elements that a thread takes at once: the working set of a rule stays in the L2 cache

# What a parameter as a whole makes of two sums, which a pass measures before the one that updates it.
cdef enum Adaptation:
    NOT_ADAPTED
    ADAPTED_BY_LAMB
    ADAPTED_BY_LARS
    ADAPTED_BY_ADAFACTOR

# A parameter as matrices over its last two axes, for rules that keep the mean squares of rows and columns
cdef struct Matrices:
    Py_ssize_t rows         # of one matrix
    Py_ssize_t columns      # 0: not taken as matrices
    Py_ssize_t length       # elements in a chunk of the pass that sums squares: whole rows, and
    Py_ssize_t parts        # number of such chunks in one matrix; 1: whole matrices
    void* row_means         # slots, in the compute type
    void* column_means
    double* row             # of each row the sum of squares, then its factor
    double* column          # of each column as many as parts; the factor is the first

# A parameter and its gradient of this step: dense, or of some rows only.
cdef struct Task:
    Arrays arrays
    Py_ssize_t size
    Py_ssize_t table_rows   # length of the first axis, and
    Py_ssize_t width        # elements at one index of it: a row
    Layout layout           # of the parameter and the gradient
    bint present            # has a gradient in this step
    bint centralized        # the gradient's mean over each row is subtracted
    # a row gradient: row r of arrays.g, or the sum of chain r, belongs to row rows[r] of the parameter
    const int64_t* rows     # NULL: dense
    Py_ssize_t n_rows
    const Chains* chains    # NULL: no two rows of arrays.g belong together; only for passes that update lazily
    Py_ssize_t n_values     # rows of arrays.g
    bint ordered            # a row may come twice: they are applied one after the other
    bint lazy               # rows without a gradient stay as they are; else they get a gradient of 0
    const Py_ssize_t* bucket_starts     # if not lazy: the rows of chunk c are
    const Py_ssize_t* bucket            # bucket[bucket_starts[c]:bucket_starts[c + 1]], with chunks of
    Py_ssize_t bucket_length            # elements
    Matrices matrices
    # rows that come back first receive what they have missed
    Backlog* backlog        # NULL: nothing
    int32_t n_missed        # steps of the backlog before this one
    # factors from the adaptation, 1 without one
    double decay
    double scale
    double trust
    # how this pass is cut
    Py_ssize_t length       # elements, or rows if lazy, in a chunk
    Py_ssize_t n_chunks
    Py_ssize_t first_chunk  # number of the first one among the chunks of all tasks

# Blocks from first_block on: each chunk of a task is one, or all chunks of several small tasks are one together.
cdef struct Segment:
    long first_block
    Py_ssize_t first_task
    Py_ssize_t n_tasks

cdef struct Work:
    Task* tasks
    Py_ssize_t n_tasks
    Segment* segments       # room for n_tasks
    Py_ssize_t n_segments
    long n_blocks
    Py_ssize_t n_chunks
    Py_ssize_t n_elements   # that other threads could take; rows and small tasks count for less
    const RuleKernels* rule
    const update_f* gradient            # the rule that only writes the prepared gradient
    const total_f* total
    const MeasureKernels* measure       # if this pass only reads, else NULL
    double* squares         # what it found: SUMS numbers for each chunk
    const square_sums_f* square_sums
    factors_f factors32
    factors_f factors64
    settle_f settle32
    settle_f settle64
    bint factoring          # this pass brings means and factors of rows and columns up to date, and does nothing else
    Adaptation adaptation
    double* numbers         # for it: rows of MAX_NUMBERS, one per task
    bint raw                # it reads the gradients as they came
    bint until_nan          # it may stop at the first chunk whose sum is NaN
    const RuleKernels* absent           # what the rule does without gradients, if tasks have a backlog
    Coast coast
    bint nesterov
    bint decay_absent       # rows without a gradient are decayed all the same, unless the task is lazy
    bint flushing           # this pass only brings all rows up to date
    const int* hyper_rows   # which of the hypers each task takes
    double* hypers          # rows of MAX_HYPERS, for parameters of float64, and
    Py_ssize_t n_hypers     # as many once more, finite in float32, for all others
    const double* decay     # one per task, as the next two
    const double* scale
    const uint64_t* keys    # of the random generator
    double clip
    int clip_exponent       # of a power of two that clip is multiplied by
    bint stochastic
    uint64_t key            # of seed and step
    # for each thread a chunk in the compute type: of zeros for tasks that have rows and are not lazy, of factors for
    # matrices; no rule knows both
    char* scratch
    Py_ssize_t scratch_length           # elements of such a chunk

# Cut tasks first..last into chunks, gather chunks of small tasks, count blocks and elements.
cdef void arrange(Work* work, Py_ssize_t first, Py_ssize_t last) noexcept nogil

# Return how many elements a chunk of whole rows has.
cdef Py_ssize_t length_of_rows(Py_ssize_t width) noexcept nogil

# Return where tasks end that begin with `first` and whose arrays the cache may hold from one pass to the next.
cdef Py_ssize_t end_of_portion(const Work* work, Py_ssize_t first) noexcept nogil

# After a pass of factoring: finish matrices that were cut into parts.
cdef void combine_parts(const Work* work, Py_ssize_t first, Py_ssize_t last) noexcept nogil

# After a pass that measured: norms of the two quantities of a task, times 2^exponent.
cdef void find_norms(const Work* work, Py_ssize_t t, int exponent, double* x, double* y) noexcept nogil

# After such a pass: find what each parameter as a whole makes of it.
cdef void adapt(const Work* work, Py_ssize_t first, Py_ssize_t last) noexcept nogil

# Run a block of the arranged work; true if no other one needs to be run. A `block_f` for `run_blocks`.
cdef bint run_block(const void* work, long block, long thread) noexcept nogil

# Return the bytes of an element of a task's gradient.
cdef Py_ssize_t gradient_size(const Task* task) noexcept nogil

# Spread every bit of x over all bits.
cdef uint64_t mixed(uint64_t x) noexcept nogil
