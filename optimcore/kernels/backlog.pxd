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
    COAST_DECAYED_MOMENTUM  # the gradient is the weight decay

cdef enum:
    LEVELS = 6
    RUNS = 8                # in one block of the level above, or blocks

# What a step makes of a parameter and its moment if both stand for themselves: w += ww w + wm m, m = mw w + mm m.
cdef struct Map:
    double ww
    double wm
    double mw
    double mm

# The steps of one table since all of its rows were up to date. Equal ones are kept as runs.
cdef struct Backlog:
    int32_t* marks          # for each row, how many of the steps it has had
    int32_t n_steps
    int32_t* starts         # of each run, its first step
    double* rates
    Map* maps[<int>LEVELS]  # if decay counts: of one step of each run, then of blocks of 8, 64, ... runs; else NULL
    Py_ssize_t n_runs
    Py_ssize_t room         # for runs

# Make an empty backlog; NULL if there is no memory. Marks cost memory only where rows have been touched.
cdef Backlog* new_backlog(Py_ssize_t n_rows) noexcept nogil
cdef void free_backlog(Backlog* backlog) noexcept nogil

# Make room for one more step, so that `add_step` and, if it is `mapped`, `add_map` cannot fail; -1 if there is none.
cdef int reserve_step(Backlog* backlog, bint mapped) noexcept nogil
cdef void add_step(Backlog* backlog, double rate) noexcept nogil
cdef void add_map(Backlog* backlog, Map step) noexcept nogil

# Return what a rule with momentum and these hypers does where the gradient is `decay` times the parameter.
cdef Map decayed_step(const RuleKernels* rule, const double* hyper, bint nesterov, double decay) noexcept nogil

# All rows are up to date and their marks are 0: forget the steps.
cdef void clear_backlog(Backlog* backlog) noexcept nogil

# Do to elements start..stop, one row, what steps first..last with a gradient of 0 do. `hyper` are the rule's hypers:
# all but the rate count. `rule` has the kernels of this coast; arrays.g is not used.
cdef void catch_up(
    const Backlog* backlog, Coast coast, bint nesterov, const RuleKernels* rule, const double* hyper, Layout layout,
    const Arrays* arrays, Py_ssize_t start, Py_ssize_t stop, int32_t first, int32_t last, const Prologue* prologue
) noexcept nogil
