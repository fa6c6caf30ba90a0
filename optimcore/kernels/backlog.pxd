"""The steps that absent rows of a table have missed, and what such steps do to a row."""
from libc.stdint cimport int32_t

from .storage cimport Arrays, Layout
from .rules cimport Prologue
from .table cimport RuleKernels

# How a rule with momentum goes on while there is no gradient.
cdef enum Coast:
    COAST_MOMENTUM
    COAST_ADAM
    COAST_AMSGRAD

# The steps of one table since all of its rows were up to date. Their rates are kept as runs of equal ones.
cdef struct Backlog:
    int32_t* marks          # for each row, how many of the steps it has had
    int32_t n_steps
    int32_t* starts         # of each run, its first step
    double* rates
    Py_ssize_t n_runs
    Py_ssize_t room         # for runs

# Make an empty backlog; NULL if there is no memory. Marks cost memory only where rows have been touched.
cdef Backlog* new_backlog(Py_ssize_t n_rows) noexcept nogil
cdef void free_backlog(Backlog* backlog) noexcept nogil

# Make room for one more step, so that `add_step` cannot fail; -1 if there is none.
cdef int reserve_step(Backlog* backlog) noexcept nogil
cdef void add_step(Backlog* backlog, double rate) noexcept nogil

# All rows are up to date and their marks are 0: forget the steps.
cdef void clear_backlog(Backlog* backlog) noexcept nogil

# Do to elements start..stop, one row, what steps first..last with a gradient of 0 do. `hyper` are the rule's hypers:
# all but the rate count. `rule` has the kernels of this coast; arrays.g is not used.
cdef void catch_up(
    const Backlog* backlog, Coast coast, bint nesterov, const RuleKernels* rule, const double* hyper, Layout layout,
    const Arrays* arrays, Py_ssize_t start, Py_ssize_t stop, int32_t first, int32_t last, const Prologue* prologue
) noexcept nogil
