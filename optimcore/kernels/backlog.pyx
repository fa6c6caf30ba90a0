# cython: language_level=3, cdivision=True, boundscheck=False, wraparound=False
"""The steps that absent rows of a table have missed, and what such steps do to a row, many of them at once.

While there is no gradient, moments decay by constant factors and move the parameter. For the momentum family the sum
of these movements is a geometric series for each run of equal rates. Adam divides each of them by
sqrt(beta2^i v) + eps, so the series depends on the element; but sqrt(beta2^i) changes little from step to step. Steps
are gathered into groups in which it falls by about a tenth, and two points stand for all steps of a group: those of
the Gauss quadrature with the movements as weights.
"""
from libc.math cimport expm1, log, pow, sqrt
from libc.stdint cimport INT32_MAX
from libc.stdlib cimport calloc, free, realloc

from .rules cimport AdamAbsent, AdamAmsgradAbsent, MomentumAbsent

# Movements are left out from where they are this much smaller than the first.
cdef double MOMENTUM_TAIL = 1e-17
cdef double ADAM_TAIL = 1e-9

# With beta1^2 > beta2 the movements grow until eps outweighs the root, which is taken to be smaller than this.
cdef double LARGEST_ROOT = 1e4

# Relative fall of sqrt(beta2^i) within a group. The quadrature is then off by 6e-7 at most, and with movements that
# fall much faster, as they do with the usual betas, by far less.
cdef double GROUP_FALL = 0.1


cdef Backlog* new_backlog(Py_ssize_t n_rows) noexcept nogil:
    cdef Backlog* backlog = <Backlog*>calloc(1, sizeof(Backlog))
    if backlog == NULL:
        return NULL
    backlog.marks = <int32_t*>calloc(n_rows, sizeof(int32_t))   # large: pages that nobody writes to cost nothing
    if backlog.marks == NULL:
        free(backlog)
        return NULL
    return backlog


cdef void free_backlog(Backlog* backlog) noexcept nogil:
    if backlog != NULL:
        free(backlog.marks)
        free(backlog.starts)
        free(backlog.rates)
        free(backlog)


cdef int reserve_step(Backlog* backlog) noexcept nogil:
    cdef Py_ssize_t room = 2 * backlog.room + 16
    cdef void* starts
    cdef void* rates
    if backlog.n_steps == INT32_MAX:
        return -1
    if backlog.n_runs < backlog.room:
        return 0
    starts = realloc(backlog.starts, room * sizeof(int32_t))
    if starts == NULL:
        return -1
    backlog.starts = <int32_t*>starts
    rates = realloc(backlog.rates, room * sizeof(double))
    if rates == NULL:
        return -1
    backlog.rates = <double*>rates
    backlog.room = room
    return 0


cdef void add_step(Backlog* backlog, double rate) noexcept nogil:
    if backlog.n_runs == 0 or backlog.rates[backlog.n_runs - 1] != rate:
        backlog.starts[backlog.n_runs], backlog.rates[backlog.n_runs] = backlog.n_steps, rate
        backlog.n_runs += 1
    backlog.n_steps += 1


cdef void clear_backlog(Backlog* backlog) noexcept nogil:
    backlog.n_steps = 0
    backlog.n_runs = 0


cdef void catch_up(
    const Backlog* backlog, Coast coast, bint nesterov, const RuleKernels* rule, const double* hyper, Layout layout,
    const Arrays* arrays, Py_ssize_t start, Py_ssize_t stop, int32_t first, int32_t last, const Prologue* prologue
) noexcept nogil:
    cdef MomentumAbsent momentum
    cdef AdamAmsgradAbsent amsgrad
    cdef AdamAbsent adam
    cdef Adam walk
    # looking ahead multiplies the movement once more by the decay of the moments
    cdef double factor = hyper[1] if nesterov else 1
    if coast == COAST_MOMENTUM:
        momentum.lr = factor * sum_of_movements(backlog, first, last, hyper[1], &momentum.keep)
        rule.update[<int>layout](&momentum, arrays, start, stop, prologue)
    elif coast == COAST_AMSGRAD:
        amsgrad.lr = factor * sum_of_movements(backlog, first, last, hyper[1], &amsgrad.keep1)
        amsgrad.beta2, amsgrad.keep2, amsgrad.eps = hyper[2], pow(hyper[2], last - first), hyper[3]
        rule.update[<int>layout](&amsgrad, arrays, start, stop, prologue)
    else:
        adam.eps = hyper[3]
        walk.step, walk.last, walk.run = first, last, find_run(backlog, first)
        walk.weight, walk.root = 1, 1
        while walk.step < last:
            walk = gather_group(walk, backlog, hyper, factor, &adam)
            rule.update[<int>layout](&adam, arrays, start, stop, prologue)


cdef Py_ssize_t find_run(const Backlog* backlog, int32_t step) noexcept nogil:
    """Find the last run that begins at or before a step."""
    cdef Py_ssize_t low = 0, high = backlog.n_runs, middle
    while high - low > 1:
        middle = (low + high) // 2
        if backlog.starts[middle] <= step:
            low = middle
        else:
            high = middle
    return low


cdef inline int32_t end_of_run(const Backlog* backlog, Py_ssize_t run) noexcept nogil:
    return backlog.starts[run + 1] if run + 1 < backlog.n_runs else backlog.n_steps


cdef double sum_of_movements(
    const Backlog* backlog, int32_t first, int32_t last, double u, double* keep
) noexcept nogil:
    """Return the sum of rate times u^i, i = 1, 2, ... over the steps; keep becomes u to the power of their number."""
    cdef double movement = 0, power = 1
    cdef int32_t step = first, stop
    cdef Py_ssize_t run = find_run(backlog, first)
    while step < last and power > MOMENTUM_TAIL:
        stop = min(end_of_run(backlog, run), last)
        movement += backlog.rates[run] * power * u * geometric(u, stop - step)
        power *= pow(u, stop - step) if stop - step > 1 else u
        step = stop
        run += 1
    keep[0] = power if step == last else 0
    return movement


cdef double geometric(double u, int32_t n) noexcept nogil:
    """Return 1 + u + ... + u^(n - 1)."""
    if n == 1 or u == 1:
        return n
    return expm1(n * log(u)) / (u - 1)      # not 1 - u^n, which is inexact for u near 1


# Where a walk over the steps that a row has missed stands.
cdef struct Adam:
    int32_t step
    int32_t last
    Py_ssize_t run
    double weight           # powers of beta1, and
    double root             # of sqrt(beta2), relative to the first step


cdef Adam gather_group(
    Adam walk, const Backlog* backlog, const double* hyper, double factor, AdamAbsent* group
) noexcept nogil:
    """Take steps until sqrt(beta2^i) has changed too much, or all the rest once it does not matter any more."""
    cdef double beta1 = hyper[1], root_beta2 = sqrt(hyper[2]), eps = hyper[3]
    cdef double keep = 1, root = 1, sum0 = 0, sum1 = 0, sum2 = 0, sum3 = 0, movement, fall
    cdef int32_t first = walk.step
    while walk.step < walk.last and root > 1 - GROUP_FALL and matters(&walk, eps):
        if walk.step >= end_of_run(backlog, walk.run):
            walk.run += 1
        keep *= beta1
        root *= root_beta2
        walk.weight *= beta1
        walk.root *= root_beta2
        walk.step += 1
        movement, fall = factor * backlog.rates[walk.run] * keep, 1 - root
        sum0 += movement
        sum1 += movement * fall
        sum2 += movement * fall * fall
        sum3 += movement * fall * fall * fall
    if not matters(&walk, eps):
        keep *= pow(beta1, walk.last - walk.step)
        walk.step = walk.last
    group.keep1, group.keep2 = keep, pow(hyper[2], walk.step - first)
    group.eps = eps
    place_points(sum0, sum1, sum2, sum3, group)
    return walk


cdef inline bint matters(const Adam* walk, double eps) noexcept nogil:
    return walk.weight > ADAM_TAIL * max(walk.root, eps / LARGEST_ROOT)


cdef void place_points(double sum0, double sum1, double sum2, double sum3, AdamAbsent* group) noexcept nogil:
    """Choose two points and weights with these moments of the fall: a Gauss quadrature."""
    cdef double mean, variance, third, half, distance, near, far
    group.lr0, group.root0, group.lr1, group.root1 = sum0, 1, 0, 1
    if sum0 == 0:
        return
    mean = sum1 / sum0
    variance = sum2 / sum0 - mean * mean
    group.root0 = 1 - mean
    if variance < 1e-12:                    # one point is as good
        return
    third = sum3 / sum0 - 3 * mean * variance - mean * mean * mean
    # the points, relative to the mean, are the roots of x^2 - (third / variance) x - variance
    half = third / variance / 2
    distance = sqrt(half * half + variance)
    near, far = half - distance, half + distance
    group.root0, group.root1 = 1 - mean - near, 1 - mean - far
    group.lr0, group.lr1 = sum0 * far / (far - near), -sum0 * near / (far - near)
