# cython: language_level=3, cdivision=True, boundscheck=False, wraparound=False
"""One pass over the parameters of an optimizer, cut into blocks that run without the GIL in any order.

Chunks do not depend on the number of threads and no chunk reads what another one writes: any number of threads gives
equal bits.
"""
from libc.float cimport DBL_MAX, FLT_MIN
from libc.math cimport INFINITY, copysign, fabs, ilogb, isnan, ldexp
from libc.stdint cimport uint32_t
from libc.string cimport memset

from .backlog cimport catch_up
from .rules cimport (
    Adafactor, AdafactorNumbers, LarsNumbers, Prologue, adafactor_mean, adafactor_size, adafactor_trust, lamb_trust,
    lars_ratio, real_t, root, set_limits, settled
)
from .storage cimport BFLOAT16, BFLOAT16_MIXED, FLOAT16, FLOAT16_MIXED, FLOAT64, Arrays, Layout

cdef extern from "platform.h":
    bint out_of_range() noexcept nogil
    void set_out_of_range(bint value) noexcept nogil

cdef enum:
    BLOCK = 64              # tasks at most in one block, for optimizers with many small parameters
    PORTION = 1 << 19       # elements that a step measures and then updates before it goes on to the next ones
    TASK_COST = 256         # elements that take as long as telling another core of a task
    ROW_COST = 4            # elements of a row that take as long as finding the row
    SHIFT = 600             # power of two by which float64 numbers are scaled where their squares overflow or vanish
    ROW_GAIN = 2            # a second thread gains less where it finds rows in the other core's cache: by this factor


# ---- cutting

cdef void arrange(Work* work, Py_ssize_t first, Py_ssize_t last) noexcept nogil:
    cdef Py_ssize_t t, elements = 0
    cdef Task* task
    cdef Segment* segment = NULL
    work.n_segments = work.n_blocks = work.n_chunks = work.n_elements = 0
    for t in range(first, last):
        task = &work.tasks[t]
        cut(work, task)
        task.first_chunk = work.n_chunks
        work.n_chunks += task.n_chunks
        work.n_elements += max(0, task_elements(task) - <Py_ssize_t>TASK_COST)
        if task.n_chunks == 0:
            continue
        # a small task joins the segment before it, unless that one is a large task or has enough
        if segment == NULL or task.n_chunks > 1 or elements >= CHUNK or t - segment.first_task >= BLOCK:
            segment = &work.segments[work.n_segments]
            segment.first_block, segment.first_task = work.n_blocks, t
            work.n_segments += 1
            work.n_blocks += task.n_chunks
            elements = 0
        segment.n_tasks = t + 1 - segment.first_task
        elements += task_elements(task) if task.n_chunks == 1 else CHUNK


cdef void cut(const Work* work, Task* task) noexcept nogil:
    cdef const Matrices* m = &task.matrices
    cdef Py_ssize_t whole = task.size
    task.length = CHUNK
    if work.factoring:
        task.length = m.length
        if m.parts > 1:             # as if the last part of a matrix were as long as the others
            whole = whole // (m.rows * m.columns) * m.parts * m.length
        elif m.columns == 0:
            whole, task.length = 0, 1
    elif task.rows != NULL and (task.lazy or work.measure != NULL):
        whole = task.n_rows
        task.length = max(1, whole if task.ordered else CHUNK * whole // max(task.n_values * task.width, 1))
    elif task.rows != NULL:
        task.length = task.bucket_length
    elif task.centralized or task.backlog != NULL:      # whole rows: their means, their marks
        task.length = length_of_rows(task.width)
    task.n_chunks = (whole + task.length - 1) // task.length if task.present else 0


cdef Py_ssize_t length_of_rows(Py_ssize_t width) noexcept nogil:
    return max(1, CHUNK // width) * width


cdef Py_ssize_t end_of_portion(const Work* work, Py_ssize_t first) noexcept nogil:
    cdef Py_ssize_t elements = 0, t = first
    cdef Py_ssize_t size
    while t < work.n_tasks:
        size = work.tasks[t].size if work.tasks[t].present else 0
        if elements > 0 and elements + size > PORTION:
            break
        elements += size
        t += 1
    return t


cdef Py_ssize_t task_elements(const Task* task) noexcept nogil:
    if task.n_chunks == 0:
        return 0
    if task.rows == NULL or not task.lazy:
        return task.size
    return task.n_values * (task.width + ROW_COST) // ROW_GAIN


# ---- running

cdef bint run_block(const void* any_work, long block, long thread) noexcept nogil:
    cdef const Work* work = <const Work*>any_work
    cdef const Segment* segment = find_segment(work, block)
    cdef Py_ssize_t t = segment.first_task, stop = t + segment.n_tasks, c = 0
    if work.tasks[t].n_chunks > 1:
        stop, c = t + 1, block - segment.first_block
    set_out_of_range(False)
    for t in range(t, stop):
        if work.tasks[t].n_chunks and run_chunk(work, t, c, thread):
            return True
    if out_of_range() and work.measure == NULL and not work.factoring:
        for t in range(segment.first_task, stop):
            if work.tasks[t].n_chunks:
                settle_chunk(work, t, c)
    return False


cdef void settle_chunk(const Work* work, Py_ssize_t t, Py_ssize_t c) noexcept nogil:
    """Bring the slots of a chunk into range after an update; see `rules.pxd`."""
    cdef const Task* task = &work.tasks[t]
    cdef Py_ssize_t start = c * task.length, width = task.width, r
    if work.rule.update == work.gradient:       # its slot is for others
        return
    if task.rows == NULL or not task.lazy:
        settle_slots(work, task, start, min(start + task.length, task.size))
        return
    for r in range(start, min(start + task.length, task.n_rows)):
        settle_slots(work, task, task.rows[r] * width, (task.rows[r] + 1) * width)


cdef void settle_slots(const Work* work, const Task* task, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    cdef int decaying = work.rule.decaying
    settle = work.settle64 if task.layout == FLOAT64 else work.settle32
    if task.arrays.slot0 != NULL and task.matrices.columns == 0:        # of matrices see `move_means`
        settle(task.arrays.slot0, start, stop, decaying & 1)
    if task.arrays.slot1 != NULL:
        settle(task.arrays.slot1, start, stop, decaying & 2)
    if task.arrays.slot2 != NULL:
        settle(task.arrays.slot2, start, stop, decaying & 4)


cdef const Segment* find_segment(const Work* work, long block) noexcept nogil:
    """Find the last segment that begins at or before a block."""
    cdef Py_ssize_t low = 0, high = work.n_segments, middle
    while high - low > 1:
        middle = (low + high) // 2
        if work.segments[middle].first_block <= block:
            low = middle
        else:
            high = middle
    return &work.segments[low]


cdef bint run_chunk(const Work* work, Py_ssize_t t, Py_ssize_t c, long thread) noexcept nogil:
    cdef const Task* task = &work.tasks[t]
    cdef Py_ssize_t start = c * task.length
    cdef Prologue prologue
    write_prologue(work, t, &prologue)
    if work.factoring:
        sum_squares(work, t, c, &prologue)
        return False
    if task.matrices.columns and not work.raw:
        run_matrices(work, t, c, start, min(start + task.length, task.size), &prologue, thread)
    elif task.rows == NULL:
        if task.n_missed and work.measure == NULL:
            catch_up_span(work, t, start, min(start + task.length, task.size))
        if not work.flushing:
            run_span(work, t, c, task, start, min(start + task.length, task.size), &prologue)
    elif work.measure != NULL:
        measure_rows(work, t, c, start, min(start + task.length, task.n_rows), &prologue)
    elif task.lazy:
        update_rows(work, t, start, min(start + task.length, task.n_rows), &prologue)
    else:
        update_all_rows(work, t, c, start, min(start + task.length, task.size), &prologue, thread)
    return work.until_nan and work.squares[SUMS * (task.first_chunk + c) + 1] != 0


cdef void run_span(
    const Work* work, Py_ssize_t t, Py_ssize_t c, const Task* task, Py_ssize_t start, Py_ssize_t stop,
    Prologue* prologue
) noexcept nogil:
    """Update, or measure, elements start..stop of task t with a dense gradient, row by row if it is centralized.

    `task` is that task, or what it amounts to in this chunk.
    """
    cdef const double* hyper = hyper_of(work, t)
    cdef Py_ssize_t end = stop
    while start < stop:
        if task.centralized and not work.raw:
            end = start + task.width
            prologue.mean = mean_of_row(work, task, &task.arrays, start, prologue)
        if work.measure == NULL:
            work.rule.update[<int>task.layout](hyper, &task.arrays, start, end, prologue)
        else:
            measure_span(work, t, c, &task.arrays, start, end, prologue)
        start = end


cdef void run_matrices(
    const Work* work, Py_ssize_t t, Py_ssize_t c, Py_ssize_t start, Py_ssize_t stop, Prologue* prologue, long thread
) noexcept nogil:
    """Update, or measure, elements start..stop of matrices.

    In place of the first slot the rule finds the factor of each element, which exists only for the chunk.
    """
    cdef Task task = work.tasks[t]
    cdef const Matrices* m = &task.matrices
    cdef char* scratch = scratch_of(work, thread)
    write = work.factors64 if task.layout == FLOAT64 else work.factors32
    write(m.row, m.column, m.rows, m.columns, m.parts * m.columns, start, stop, scratch)
    task.arrays.slot0 = scratch - start * compute_size(&task)
    prologue.factored = True
    run_span(work, t, c, &task, start, stop, prologue)


cdef void sum_squares(const Work* work, Py_ssize_t t, Py_ssize_t c, const Prologue* prologue) noexcept nogil:
    """Sum the squares of rows and columns over a chunk: whole matrices, or a part of one."""
    cdef const Task* task = &work.tasks[t]
    cdef const Matrices* m = &task.matrices
    cdef Py_ssize_t size = m.rows * m.columns
    cdef Py_ssize_t first = c // m.parts if m.parts > 1 else c * (m.length // size)     # the first matrix, and
    cdef Py_ssize_t last = min(first + max(1, m.length // size), task.size // size)     # the one behind the last
    cdef Py_ssize_t start = first * size + c % m.parts * m.length
    cdef Py_ssize_t stop = min(start + m.length, last * size)
    cdef double* column = m.column + (first * m.parts + c % m.parts) * m.columns
    memset(column, 0, (last - first) * m.columns * sizeof(double))
    work.square_sums[<int>task.layout](
        &task.arrays, start, stop, m.rows, m.columns, prologue, m.row + start // m.columns, column)
    if m.parts == 1:
        find_factors(work, t, first, last)


cdef void combine_parts(const Work* work, Py_ssize_t first, Py_ssize_t last) noexcept nogil:
    cdef const Matrices* m
    cdef Py_ssize_t t, matrix, part, i
    for t in range(first, last):
        m = &work.tasks[t].matrices
        if m.parts <= 1 or not work.tasks[t].present:
            continue
        for matrix in range(work.tasks[t].size // (m.rows * m.columns)):
            column = m.column + matrix * m.parts * m.columns
            for part in range(1, m.parts):
                for i in range(m.columns):
                    column[i] += column[part * m.columns + i]
            find_factors(work, t, matrix, matrix + 1)


cdef void find_factors(const Work* work, Py_ssize_t t, Py_ssize_t first, Py_ssize_t last) noexcept nogil:
    """Move the means of matrices first..last by their sums of squares, and put factors in the place of these."""
    cdef const Task* task = &work.tasks[t]
    cdef const Adafactor* h = <const Adafactor*>hyper_of(work, t)
    if task.layout == FLOAT64:
        move_means[double](h, task, first, last, <double*>task.matrices.row_means, <double*>task.matrices.column_means)
    else:
        move_means[float](h, task, first, last, <float*>task.matrices.row_means, <float*>task.matrices.column_means)


cdef inline real_t kept(double x, real_t unused) noexcept nogil:
    """Return a mean square as it is kept in a slot: finite, and not subnormal."""
    if real_t is float:
        return settled(<real_t>x, True)
    else:
        return settled(x, True)


cdef void move_means(
    const Adafactor* h, const Task* task, Py_ssize_t first, Py_ssize_t last, real_t* row_means, real_t* column_means
) noexcept nogil:
    cdef const Matrices* m = &task.matrices
    cdef double* row = m.row + first * m.rows
    cdef double* column = m.column + first * m.parts * m.columns
    cdef double per_row = 1 / <double>m.columns, per_column = 1 / <double>m.rows
    cdef double total
    cdef Prologue p
    cdef Py_ssize_t i
    set_limits(&p, True)
    row_means += first * m.rows
    column_means += first * m.columns
    for _ in range(first, last):
        total = 0
        for i in range(m.rows):
            row[i] = adafactor_mean(&p, h.eps, h.beta2, min(row[i] * per_row, DBL_MAX), <double>row_means[i])
            row_means[i] = kept(row[i], row_means[i])
            total += row[i]
        if total > DBL_MAX:
            total = 0
            for i in range(m.rows):
                total += row[i] * per_column
        else:
            total *= per_column
        for i in range(m.rows):         # a mean of 0 belongs to gradients of 0
            row[i] = 0 if row[i] <= 0 else root(min(total / row[i], DBL_MAX))
        for i in range(m.columns):
            column[i] = adafactor_mean(
                &p, h.eps, h.beta2, min(column[i] * per_column, DBL_MAX), <double>column_means[i])
            column_means[i] = kept(column[i], column_means[i])
            column[i] = 0 if column[i] <= 0 else 1 / root(column[i])
        row += m.rows
        row_means += m.rows
        column += m.parts * m.columns
        column_means += m.columns


cdef double root_of_sum(
    const Work* work, const Task* task, int q, double divisor, int exponent
) noexcept nogil:
    """Return the root of a task's sum of squares over a divisor, times 2^exponent."""
    cdef double sum = 0, power = 0
    cdef Py_ssize_t c
    for c in range(task.first_chunk, task.first_chunk + task.n_chunks):
        add_squares(work.squares[SUMS * c + q], work.squares[SUMS * c + 2 + q], &sum, &power)
    sum = root(sum / divisor)
    exponent += <int>power * SHIFT
    return sum if exponent == 0 else ldexp(sum, exponent)


cdef void find_norms(const Work* work, Py_ssize_t t, int exponent, double* x, double* y) noexcept nogil:
    x[0] = root_of_sum(work, &work.tasks[t], 0, 1, exponent)
    y[0] = root_of_sum(work, &work.tasks[t], 1, 1, exponent)


cdef void adapt(const Work* work, Py_ssize_t first, Py_ssize_t last) noexcept nogil:
    cdef Task* task
    cdef const double* numbers
    cdef double x, y, size, elements
    cdef Py_ssize_t t
    for t in range(first, last):
        task = &work.tasks[t]
        numbers = &work.numbers[t * MAX_NUMBERS]
        elements = <double>task.size if work.adaptation == ADAPTED_BY_ADAFACTOR else 1
        x, y = root_of_sum(work, task, 0, elements, 0), root_of_sum(work, task, 1, elements, 0)
        if work.adaptation == ADAPTED_BY_LAMB:
            task.trust = lamb_trust(x, y)
        elif work.adaptation == ADAPTED_BY_LARS:
            task.scale = lars_ratio(<const LarsNumbers*>numbers, x, y)
        elif work.adaptation == ADAPTED_BY_ADAFACTOR:
            size = adafactor_size(<const AdafactorNumbers*>numbers, x)
            task.decay = size
            task.trust = adafactor_trust(<const AdafactorNumbers*>numbers, size, y)


cdef void update_rows(
    const Work* work, Py_ssize_t t, Py_ssize_t first, Py_ssize_t last, Prologue* prologue
) noexcept nogil:
    """Update the rows that gradient rows first..last belong to, and nothing else."""
    cdef const Task* task = &work.tasks[t]
    cdef const double* hyper = hyper_of(work, t)
    cdef Py_ssize_t end = last
    cdef Arrays arrays
    cdef Py_ssize_t r
    if task.backlog != NULL:
        for r in range(first, last):
            catch_up_row(work, t, task.rows[r], task.n_missed + 1)
    while first < last:
        if task.centralized:
            end = first + 1
            arrays = shifted_gradient(task, first)
            prologue.mean = mean_of_row(work, task, &arrays, task.rows[first] * task.width, prologue)
        work.rule.update_rows[<int>task.layout](
            hyper, &task.arrays, task.rows, task.chains, first, end, task.width, prologue)
        first = end


cdef void catch_up_span(const Work* work, Py_ssize_t t, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    """Bring whole rows up to date for good: their marks are counted from now on."""
    cdef Py_ssize_t width = work.tasks[t].width
    cdef Py_ssize_t row
    for row in range(start // width, stop // width):
        catch_up_row(work, t, row, 0)


cdef void catch_up_row(const Work* work, Py_ssize_t t, Py_ssize_t row, int32_t mark) noexcept nogil:
    """Do to a row what the steps that it has missed would have done, then mark it."""
    cdef const Task* task = &work.tasks[t]
    cdef int32_t* marks = task.backlog.marks
    cdef Prologue prologue
    cdef Arrays arrays
    if marks[row] < task.n_missed:
        write_prologue(work, t, &prologue)
        prologue.clip, prologue.decay, prologue.scale = 1, 0, 1
        prologue.rounding.key1 = ~prologue.rounding.key1    # the update that follows has its own random bits
        arrays = task.arrays
        arrays.g = arrays.w                                 # not used, but read as far as a compiler knows
        catch_up(
            task.backlog, work.coast, work.nesterov, work.absent, hyper_of(work, t), own_layout(task.layout),
            &arrays, row * task.width, (row + 1) * task.width, marks[row], task.n_missed, &prologue)
    marks[row] = mark


cdef void update_all_rows(
    const Work* work, Py_ssize_t t, Py_ssize_t c, Py_ssize_t start, Py_ssize_t stop, Prologue* prologue, long thread
) noexcept nogil:
    """Update elements start..stop by a dense gradient that is 0 except in the rows that have one.

    The dense gradient exists only for the chunk, in the scratch memory of the thread. If absent rows are not decayed,
    it is prepared row by row, and is then clipped, centralized and unscaled, and decayed unless the rule does that
    itself. Otherwise all rows are prepared as those of any dense gradient.
    """
    cdef Task task = work.tasks[t]
    cdef Py_ssize_t size = compute_size(&task)
    cdef char* scratch = scratch_of(work, thread)
    cdef Prologue spread = prologue[0]
    cdef Arrays arrays
    cdef Py_ssize_t b, r, row, low, high
    if work.decay_absent:
        clear_prologue(&spread, task.layout)
    else:
        prologue.clip, prologue.scale = 1, 1
        if work.rule.decoupled:
            spread.decay = 0
        else:
            prologue.decay = 0
    for b in range(task.bucket_starts[c], task.bucket_starts[c + 1]):
        r = task.bucket[b]
        row = task.rows[r] * task.width
        low, high = max(row, start), min(row + task.width, stop)
        arrays = shifted_gradient(&task, r)
        arrays.slot0 = scratch - start * size
        if task.centralized and not work.decay_absent:
            spread.mean = mean_of_row(work, &task, &arrays, row, &spread)
        work.gradient[<int>task.layout](hyper_of(work, t), &arrays, low, high, &spread)
    task.arrays.g, task.layout = scratch - start * size, mixed_layout(task.layout)
    task.centralized = task.centralized and work.decay_absent
    run_span(work, t, c, &task, start, stop, prologue)
    for b in range(task.bucket_starts[c], task.bucket_starts[c + 1]):
        row = task.rows[task.bucket[b]] * task.width
        low, high = max(row, start), min(row + task.width, stop)
        memset(scratch + (low - start) * size, 0, (high - low) * size)


cdef void measure_rows(
    const Work* work, Py_ssize_t t, Py_ssize_t c, Py_ssize_t first, Py_ssize_t last, Prologue* prologue
) noexcept nogil:
    """Measure gradient rows first..last alone; the quantity that belongs to the parameter has no meaning."""
    cdef const Task* task = &work.tasks[t]
    cdef Arrays arrays = task.arrays
    arrays.w = <void*>arrays.g
    measure_span(work, t, c, &arrays, first * task.width, last * task.width, prologue)


cdef void measure_span(
    const Work* work, Py_ssize_t t, Py_ssize_t c, const Arrays* arrays, Py_ssize_t start, Py_ssize_t stop,
    const Prologue* prologue
) noexcept nogil:
    """Measure elements start..stop, once more with a factor where squares of float64 overflow or vanish."""
    cdef const Task* task = &work.tasks[t]
    cdef double* chunk = &work.squares[SUMS * (task.first_chunk + c)]
    cdef double[2] factors
    cdef double[2] sums
    cdef double[2] scaled
    cdef int q
    factors[0] = factors[1] = 1
    measure = work.measure.measure[<int>task.layout]
    measure(hyper_of(work, t), arrays, start, stop, prologue, factors, sums)
    if task.layout == FLOAT64 and not work.until_nan:
        for q in range(work.measure.gradient_only, 2):
            if sums[q] > DBL_MAX:
                factors[q] = ldexp(1, -SHIFT)
            elif sums[q] < 1e-270:
                factors[q] = ldexp(1, SHIFT)
        if factors[0] != 1 or factors[1] != 1:
            measure(hyper_of(work, t), arrays, start, stop, prologue, factors, scaled)
            sums[0], sums[1] = scaled[0], scaled[1]
    for q in range(2):
        add_squares(sums[q], 1 if factors[q] < 1 else (-1 if factors[q] > 1 else 0), &chunk[q], &chunk[2 + q])


cdef void add_squares(double squares, double power, double* sum, double* sum_power) noexcept nogil:
    """Add squares * 4^(SHIFT * power) to a sum that has such a power of its own."""
    if squares == 0:
        return
    if sum[0] == 0:
        sum[0], sum_power[0] = squares, power
        return
    while power < sum_power[0]:
        squares = ldexp(squares, -2 * SHIFT)
        power += 1
    while power > sum_power[0]:
        sum[0] = ldexp(sum[0], -2 * SHIFT)
        sum_power[0] += 1
    sum[0] += squares


cdef double mean_of_row(
    const Work* work, const Task* task, const Arrays* arrays, Py_ssize_t start, const Prologue* prologue
) noexcept nogil:
    """Return the mean of the gradient that is to be centralized over one row."""
    cdef Prologue p = prologue[0]
    cdef double width = <double>task.width, total
    if work.rule != NULL and work.rule.decoupled:
        p.decay = 0
    total = work.total[<int>task.layout](arrays, start, start + task.width, &p, 1)
    if task.layout != FLOAT64 or fabs(total) <= DBL_MAX:
        return total / width
    # the sum overflows, the mean does not
    total = work.total[<int>task.layout](arrays, start, start + task.width, &p, ldexp(1, -SHIFT))
    total = ldexp(total / width, SHIFT)
    return copysign(DBL_MAX, total) if fabs(total) > DBL_MAX else total


cdef Arrays shifted_gradient(const Task* task, Py_ssize_t r) noexcept nogil:
    """Return arrays in which gradient row r lies beside the row of the parameter that it belongs to."""
    cdef Arrays arrays = task.arrays
    arrays.g = <const char*>arrays.g + (r - task.rows[r]) * task.width * gradient_size(task)
    return arrays


cdef const double* hyper_of(const Work* work, Py_ssize_t t) noexcept nogil:
    cdef Py_ssize_t first = 0 if work.tasks[t].layout == FLOAT64 else work.n_hypers
    return &work.hypers[(first + work.hyper_rows[t]) * MAX_HYPERS]


cdef char* scratch_of(const Work* work, long thread) noexcept nogil:
    return work.scratch + thread * work.scratch_length * <Py_ssize_t>sizeof(double)     # whatever the compute types are


cdef Py_ssize_t compute_size(const Task* task) noexcept nogil:
    return 8 if task.layout == FLOAT64 else 4


cdef Py_ssize_t gradient_size(const Task* task) noexcept nogil:
    if task.layout == FLOAT64:
        return 8
    return 2 if task.layout == FLOAT16 or task.layout == BFLOAT16 else 4


cdef Layout mixed_layout(Layout layout) noexcept nogil:
    """Return the layout of the same parameter with a gradient in the compute type."""
    if layout == FLOAT16:
        return FLOAT16_MIXED
    return BFLOAT16_MIXED if layout == BFLOAT16 else layout


cdef Layout own_layout(Layout layout) noexcept nogil:
    """Return the layout of the same parameter with a gradient of its own type."""
    if layout == FLOAT16_MIXED:
        return FLOAT16
    return BFLOAT16 if layout == BFLOAT16_MIXED else layout


cdef void clear_prologue(Prologue* p, Layout layout) noexcept nogil:
    """Leave the gradient as it came."""
    p.clip, p.decay, p.mean, p.scale, p.most, p.trust = 1, 0, 0, 1, INFINITY, 1
    p.factored = False
    set_limits(p, layout == FLOAT64)
    p.rounding.stochastic, p.rounding.key0, p.rounding.key1 = False, 0, 0


cdef void write_prologue(const Work* work, Py_ssize_t t, Prologue* p) noexcept nogil:
    cdef uint64_t key
    cdef const Task* task = &work.tasks[t]
    clear_prologue(p, task.layout)
    if not work.raw:
        p.clip, p.trust = work.clip, task.trust
        p.decay, p.scale = work.decay[t] * task.decay, work.scale[t] * task.scale
        fit(work, task, p)
    if work.stochastic:
        key = mixed(work.key ^ work.keys[t])
        p.rounding.stochastic = True
        p.rounding.key0, p.rounding.key1 = <uint32_t>key, <uint32_t>(key >> 32)


cdef void fit(const Work* work, const Task* task, Prologue* p) noexcept nogil:
    """Bring the factors of a gradient into the range of the compute type, and find out whether it may overflow."""
    cdef bint decoupled = work.rule != NULL and work.rule.decoupled
    cdef bint prepares = work.rule != NULL and work.rule.update == work.gradient
    cdef double least = 1e-270 if task.layout == FLOAT64 else 1e-30
    cdef int shift
    if p.scale == 0:            # of LARS: not even an infinite decay counts
        p.clip = 0
        if not decoupled:
            p.decay = 0
    elif work.clip_exponent != 0 or not (p.clip >= least and fabs(p.scale) >= least):
        # (g clip + w decay - mean) scale: two factors whose product has to be in range, not each of them
        if p.clip > 0 and not isnan(p.scale):
            shift = (ilogb(p.scale) - ilogb(p.clip) + work.clip_exponent) // 2
            p.clip, p.scale = ldexp(p.clip, shift), ldexp(p.scale, work.clip_exponent - shift)
            if not decoupled:
                p.decay = ldexp(p.decay, shift - work.clip_exponent)
    p.clip = bound(p.clip, p.largest)
    p.decay = bound(p.decay, p.largest)
    p.scale = bound(p.scale, p.largest)
    if task.layout != FLOAT64 and <float>p.decay == 0:
        p.decay = 0
    if 0 < fabs(p.scale) < <double>FLT_MIN and task.layout != FLOAT64:
        p.scale = copysign(<double>FLT_MIN, p.scale)
    if prepares and work.adaptation != ADAPTED_BY_LARS:         # whoever takes the gradient sees what became of it
        return
    if (p.decay != 0 and not decoupled) or task.centralized or p.clip > 1 or not fabs(p.scale) <= 1:
        p.most = p.largest


cdef inline double bound(double x, double most) noexcept nogil:
    return copysign(most, x) if fabs(x) > most else x


cdef uint64_t mixed(uint64_t x) noexcept nogil:
    """The finalizer of splitmix64 (Steele, Lea and Flood 2014)."""
    x += <uint64_t>0x9e3779b97f4a7c15
    x = (x ^ (x >> 30)) * <uint64_t>0xbf58476d1ce4e5b9
    x = (x ^ (x >> 27)) * <uint64_t>0x94d049bb133111eb
    return x ^ (x >> 31)
