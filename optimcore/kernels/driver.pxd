"""Driver: from Python arrays to the kernels of the active ISA build, one crossing per step."""
from libc.stdint cimport uint64_t

from .row_gradient cimport Door
from .table cimport KernelTable, MeasureKernels, RuleKernels
from .turn cimport Turn
from .work cimport Work

# Memory from start up to stop.
cdef struct Span:
    const char* start
    const char* stop

# Numbers that a step advances: `count` of `size` bytes each.
cdef struct Entry:
    char* live
    const char* next
    Py_ssize_t size
    Py_ssize_t count
    bint own                # one for each parameter: only those of parameters that have had a gradient are booked

cdef class Plan:
    cdef Work work
    cdef Door* doors
    cdef RuleKernels* rule
    cdef Py_ssize_t count
    cdef Py_ssize_t room_for_squares
    cdef Py_ssize_t room_for_scratch
    cdef MeasureKernels* adaptation_measure
    cdef bint adaptation_is_raw
    cdef Py_ssize_t n_rates         # rows of the hypers; twice as many where first steps have numbers of their own
    cdef bint has_flags
    cdef bint has_first_steps
    cdef readonly Turn turn
    cdef bint is_open               # gradients are open,
    cdef long open_forks            # in the process that had as many forks behind it
    cdef readonly object decay
    cdef readonly object scale
    cdef readonly object adaptation_numbers
    cdef readonly object rows
    cdef readonly object frozen
    cdef double[::1] decay_view
    cdef double[::1] scale_view
    cdef double[:, ::1] numbers_view
    cdef int[::1] rows_view
    cdef unsigned char[::1] frozen_view
    cdef float[::1] flags           # not 0 for parameters before their first step
    cdef int[::1] hyper_rows
    cdef uint64_t[::1] keys
    cdef KernelTable* table
    cdef bint has_matrices
    cdef bint writes                # the rule writes the parameters
    cdef tuple names
    cdef readonly tuple parameters
    cdef tuple sources              # the arrays whose flags, shape and address are compared before a step
    cdef list dtypes                # of the sources: as long as they live, their addresses are their own
    cdef list slots                 # for each slot, its arrays
    cdef list row_means             # of parameters that are taken as matrices
    cdef list pinned                # memoryviews of the slots
    cdef list homes                 # memoryviews of the parameters
    cdef Span* spans                # what a step writes, sorted
    cdef Py_ssize_t n_spans
    cdef Entry* entries
    cdef int n_entries
    cdef list booked                # arrays behind the entries, and working memory of matrices
    cdef tuple opened               # the gradients that a pass reads: nobody frees them meanwhile, nor
    cdef list converted             # copies of some of them
    cdef bint fills_tables          # a row gradient of this step is not lazy
    cdef bint met_rows              # a gradient of this step is one of rows
    cdef list row_gradients         # a RowGradient for each parameter that has met one
    cdef public bint takes_rows     # the rule has a step on rows
    cdef public bint lazy           # rows without a gradient stay as they are
    cdef bint catching_up
    cdef public bint merge          # rows that share an index are summed first

    # ---- what a step consists of; the turn is the caller's business

    # Open gradients: check and convert them, all or none. Python code of gradients may run.
    # `once`: for one update and no other pass.
    cdef int open(self, gradients, bint once) except -1
    # Update all parameters that have a gradient, then book; raise an error before anything is changed, or none at all.
    cdef int update(self, list hypers) except -1
    # Tell whether opening gradients may have run Python code; raise an error if arrays are no more what they were.
    cdef bint has_run_python(self) noexcept
    cdef int check_homes(self) except -1
    # Let go of the gradients.
    cdef void close(self) noexcept
    # Settings: None leaves things as they are. Rows must be up to date.
    cdef int use_lazily(self, use_lazy) except -1
    cdef int fill_decay_and_scale(self, list decay, scale) except -1
    # After steps for a LARS: no decay, clipping, unscaling and adaptation any more.
    cdef void end_lars(self) noexcept
    cdef void neutralize_adaptation(self) noexcept

    cdef int choose_absent_rule(self) except -1
    cdef void drop_backlogs(self) noexcept
    cdef int flush_rows(self) except -1
    cdef int reserve_steps(self) except -1
    cdef void note_step(self) noexcept
    cdef void clear_backlogs(self) noexcept
    cdef int add_task(self, Py_ssize_t i, bint centralize, row_means) except -1
    cdef int settle_rule(self) except -1
    cdef int check_slots(self, Py_ssize_t i, list slots, list shapes) except -1
    cdef int add_matrices(self, Py_ssize_t i, column_means, row_means) except -1
    cdef int settle_parameter(self, Py_ssize_t i, parameter) except -1
    cdef int check_memory(self, Py_ssize_t i, array) except -1
    cdef int find_spans(self) except -1
    cdef bint is_apart(self, Py_ssize_t i, const void* start, Py_ssize_t nbytes) noexcept
    cdef int fill(self, list hypers) except -1
    cdef bint is_at_home(self, Py_ssize_t i) noexcept
    cdef int find_home(self, Py_ssize_t i) except -1
    cdef int open_gradient(self, Py_ssize_t i, gradient, bint once) except -1
    cdef bint take(self, Py_ssize_t i, gradient) noexcept
    cdef int open_rows(self, Py_ssize_t i, gradient, bint once) except -1
    cdef int refuse_rows(self) except -1
    cdef object not_dense(self, Py_ssize_t i, gradient)
    cdef object convert(self, Py_ssize_t i, gradient)
    cdef Py_ssize_t reserve(self) except -1
    cdef void run(self, Py_ssize_t threads) noexcept
    cdef void run_adapted(self, Py_ssize_t threads) noexcept
    cdef void run_portion(self, Py_ssize_t first, Py_ssize_t last, Py_ssize_t threads) noexcept
    cdef void book_numbers(self) noexcept
    cdef int make_room_for_squares(self) except -1
    cdef int make_room_for_scratch(self, Py_ssize_t threads) except -1
