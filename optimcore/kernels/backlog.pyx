# cython: language_level=3, cdivision=True, boundscheck=False, wraparound=False
"""The steps that absent rows of a table have missed, and what such steps do to a row, many of them at once.

While there is no gradient, moments decay by constant factors and move the parameter. For the momentum family the sum
of these movements is a geometric series for each run of equal rates. Adam divides each of them by
sqrt(beta2^i v) + eps, so the series depends on the element; but sqrt(beta2^i) changes little from step to step. Steps
are gathered into groups in which it falls by about a tenth, and two points stand for all steps of a group: those of
the Gauss quadrature with the movements as weights.

With weight decay a step with momentum is a linear map of a parameter and its moment, the same one for all elements. The
maps of several steps are multiplied: of equal steps by squaring, of others in blocks of 8, 64, ... runs.
"""
from libc.float cimport DBL_MAX, FLT_MAX
from libc.math cimport expm1, log, pow, sqrt
from libc.stdint cimport INT32_MAX
from libc.stdlib cimport calloc, free, realloc

from .rules cimport AdamAbsent, AdamAmsgradAbsent, DecayedMomentumAbsent, MomentumAbsent
from .storage cimport FLOAT64

# Movements are left out from where they are this much smaller than the first.
cdef double MOMENTUM_TAIL = 1e-17
cdef double ADAM_TAIL = 1e-9

# With beta1^2 > beta2 the movements grow until eps outweighs the root, which is taken to be smaller than this.
cdef double LARGEST_ROOT = 1e4

# Rates are held here, so that their sums are finite.
cdef double LARGEST_RATE = 1e290

# Relative fall of sqrt(beta2^i) within a group. The quadrature is then off by 6e-7 at most, and with movements that
# fall much faster, as they do with the usual betas, by far less.
cdef double GROUP_FALL = 0.1


# A map that grows beyond it stays there: the product of two such maps is still finite.
cdef double LARGEST_MAP = 1e150


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
    cdef int level
    if backlog != NULL:
        for level in range(LEVELS):
            free(backlog.maps[level])
        free(backlog.marks)
        free(backlog.starts)
        free(backlog.rates)
        free(backlog)


cdef int reserve_step(Backlog* backlog, bint mapped) noexcept nogil:
    cdef Py_ssize_t room = backlog.room if backlog.n_runs < backlog.room else 2 * backlog.room + 16, size
    cdef void* memory
    cdef int level
    if backlog.n_steps == INT32_MAX:
        return -1
    if room == backlog.room and (backlog.maps[LEVELS - 1] != NULL or not mapped):
        return 0
    memory = realloc(backlog.starts, room * sizeof(int32_t))
    if memory == NULL:
        return -1
    backlog.starts = <int32_t*>memory
    memory = realloc(backlog.rates, room * sizeof(double))
    if memory == NULL:
        return -1
    backlog.rates = <double*>memory
    if mapped or backlog.maps[0] != NULL:
        size = room
        for level in range(LEVELS):
            memory = realloc(backlog.maps[level], size * sizeof(Map))
            if memory == NULL:
                return -1
            backlog.maps[level] = <Map*>memory
            size = size // RUNS + 1
    backlog.room = room
    return 0


cdef void add_step(Backlog* backlog, double rate) noexcept nogil:
    rate = min(rate, LARGEST_RATE)
    if backlog.n_runs == 0 or backlog.rates[backlog.n_runs - 1] != rate:
        backlog.starts[backlog.n_runs], backlog.rates[backlog.n_runs] = backlog.n_steps, rate
        backlog.n_runs += 1
    backlog.n_steps += 1


cdef void add_map(Backlog* backlog, Map step) noexcept nogil:
    cdef Py_ssize_t run = backlog.n_runs
    if run == 0 or not are_equal(&backlog.maps[0][run - 1], &step):
        close_blocks(backlog)
        backlog.starts[run], backlog.maps[0][run] = backlog.n_steps, step
        backlog.n_runs += 1
    backlog.n_steps += 1


cdef void close_blocks(Backlog* backlog) noexcept nogil:
    """Multiply the maps of blocks that end with the last run."""
    cdef Py_ssize_t n = backlog.n_runs, i
    cdef Map product
    cdef int level = 1
    while level < LEVELS and n > 0 and n % RUNS == 0:
        product = IDENTITY
        for i in range(n - RUNS, n):
            product = multiplied(product, map_of_run(backlog, i) if level == 1 else backlog.maps[level - 1][i])
        n //= RUNS
        backlog.maps[level][n - 1] = product
        level += 1


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
    cdef DecayedMomentumAbsent decayed
    cdef Adam walk
    cdef Map steps
    # looking ahead multiplies the movement once more by the decay of the moments
    cdef double factor = hyper[1] if nesterov else 1
    cdef double most = prologue.largest, most_over_eps = most / 2 * min(hyper[3], 1.0) if coast != COAST_MOMENTUM else 0
    if coast == COAST_MOMENTUM:
        momentum.lr = min(factor * sum_of_movements(backlog, first, last, hyper[1], &momentum.keep), most)
        momentum.keep = min(momentum.keep, most)
        rule.update[<int>layout](&momentum, arrays, start, stop, prologue)
    elif coast == COAST_AMSGRAD:
        amsgrad.lr = min(factor * sum_of_movements(backlog, first, last, hyper[1], &amsgrad.keep1), most)
        amsgrad.beta2, amsgrad.keep2, amsgrad.eps = hyper[2], pow(hyper[2], last - first), hyper[3]
        rule.update[<int>layout](&amsgrad, arrays, start, stop, prologue)
    elif coast == COAST_DECAYED_MOMENTUM:
        steps = map_of_steps(backlog, first, last)
        limit(&steps, DBL_MAX if layout == FLOAT64 else <double>FLT_MAX)    # infinity times 0 would be NaN
        decayed.ww, decayed.wm, decayed.mw, decayed.mm = steps.ww, steps.wm, steps.mw, steps.mm
        rule.update[<int>layout](&decayed, arrays, start, stop, prologue)
    else:
        adam.eps = hyper[3]
        walk.step, walk.last, walk.run = first, last, find_run(backlog, first)
        walk.weight, walk.root = 1, 1
        while walk.step < last:
            walk = gather_group(walk, backlog, hyper, factor, &adam)
            adam.lr0, adam.lr1 = min(adam.lr0, most_over_eps), min(adam.lr1, most_over_eps)
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
        movement += backlog.rates[run] * min(power * u * geometric(u, stop - step), DBL_MAX)
        power = min(power * (pow(u, stop - step) if stop - step > 1 else u), DBL_MAX)
        step = stop
        run += 1
    keep[0] = power if step == last else 0
    return min(movement, DBL_MAX)


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


# ---- maps

cdef Map IDENTITY
IDENTITY.ww = IDENTITY.wm = IDENTITY.mw = 0
IDENTITY.mm = 1


cdef Map decayed_step(const RuleKernels* rule, const double* hyper, bint nesterov, double decay) noexcept nogil:
    # those of sgd are lr, momentum, keep and take, of momentum the first two
    cdef double keep = hyper[2] if rule.hypers > 2 else hyper[1], take = hyper[3] if rule.hypers > 2 else 1
    cdef double ahead = hyper[1] if nesterov else 1
    cdef Map step
    step.mw, step.mm = take * decay, keep
    step.ww = -hyper[0] * (ahead * step.mw + (decay if nesterov else 0))
    step.wm = -hyper[0] * ahead * keep
    return step


cdef inline bint are_equal(const Map* a, const Map* b) noexcept nogil:
    return a.ww == b.ww and a.wm == b.wm and a.mw == b.mw and a.mm == b.mm


cdef inline Map multiplied(Map first, Map second) noexcept nogil:
    """Return the map that does `first`, then `second`."""
    cdef Map product
    product.ww = first.ww + second.ww + second.ww * first.ww + second.wm * first.mw     # the 1 of both stays outside
    product.wm = first.wm + second.ww * first.wm + second.wm * first.mm
    product.mw = second.mw + second.mw * first.ww + second.mm * first.mw
    product.mm = second.mw * first.wm + second.mm * first.mm
    limit(&product, LARGEST_MAP)
    return product


cdef inline void limit(Map* map, double most) noexcept nogil:
    map.ww = max(-most, min(map.ww, most))
    map.wm = max(-most, min(map.wm, most))
    map.mw = max(-most, min(map.mw, most))
    map.mm = max(-most, min(map.mm, most))


cdef Map power_of(Map step, int32_t n) noexcept nogil:
    cdef Map result = IDENTITY
    while n > 0:
        if n % 2:
            result = multiplied(result, step)
        step = multiplied(step, step)
        n //= 2
    return result


cdef Map map_of_run(const Backlog* backlog, Py_ssize_t run) noexcept nogil:
    return power_of(backlog.maps[0][run], end_of_run(backlog, run) - backlog.starts[run])


cdef Map map_of_steps(const Backlog* backlog, int32_t first, int32_t last) noexcept nogil:
    """Multiply the maps of steps first..last: whole blocks where the steps cover them, runs or parts of them else."""
    cdef Py_ssize_t run = find_run(backlog, first), size
    cdef Py_ssize_t end = find_run(backlog, last - 1)       # the run that may not be whole
    cdef Map result = IDENTITY
    cdef int level
    cdef int32_t stop
    while first < last:
        level, size = 0, 1
        if first == backlog.starts[run]:
            while level + 1 < LEVELS and run % (size * RUNS) == 0 and run + size * RUNS <= end:
                level += 1
                size *= RUNS
        if level > 0:
            result = multiplied(result, backlog.maps[level][run // size])
            run += size
            first = backlog.starts[run]
        else:
            stop = min(end_of_run(backlog, run), last)
            result = multiplied(result, power_of(backlog.maps[0][run], stop - first))
            first = stop
            run += 1
    return result
