# The inner loops, compiled once for each ISA. Nothing here checks anything or holds a Python object.
from libc.stdint cimport uint8_t

cdef extern from "platform.h":
    const char* COMPILER
    const char* OPTIMCORE_FLAGS     # of this module, from setup.py
    void prefetch(const void* address) noexcept nogil
    void prefetch_span(const void* start, size_t nbytes) noexcept nogil
    bint out_of_range() noexcept nogil
    void set_out_of_range(bint value) noexcept nogil

ctypedef fused row_t:       # layouts of rows of gradients: values in `g`, sums in `slot0`
    Float32
    Float64
    Float16
    BFloat16

ctypedef fused summed_t:    # layouts whose gradient has the compute type, so that a sum can take its place
    Float32
    Float64
    Float16Mixed
    BFloat16Mixed

ctypedef fused direct_t:    # layouts that the element loop reads by itself; float16 is read faster by the strip
    Float32
    Float64
    BFloat16
    BFloat16Mixed

ctypedef fused index_t:
    int32_t
    int64_t

ctypedef fused slot1_t:     # rules that have a second slot
    Adam
    AdamNesterov
    AdamAmsgrad
    AdamWeightDecay
    Adamax
    Adadelta
    Rprop
    Ftrl
    FtrlPower
    Rmsprop
    RmspropCentered
    Lamb
    AdafactorMomentum
    AdamAbsent
    AdamAmsgradAbsent

ctypedef fused slot2_t:     # and a third
    AdamAmsgrad
    RmspropCentered
    AdamAmsgradAbsent

cdef enum:
    LANES = 16              # of every reduction, whatever the width of a vector: equal bits on every ISA
    BATCH = 256             # elements that a reduction converts at once
    STRIP = 256             # elements of 16 bits that an update converts at once
    ROWS_AHEAD = 8          # rows of a table between the one that is asked for and the one that is updated
    PREFETCHED = 128        # elements of a row that are asked for; the CPU sees the rest coming
    MERGE_AHEAD = 8         # rows between the one that is summed and the one that is fetched from memory


cdef inline void finish(rule_t* h, Prologue* p) noexcept nogil:
    """Bound numbers so that what formulas make of two of them is finite."""
    if rule_t is Ftrl or rule_t is FtrlPower:
        h.lr = max(h.lr, 1 / p.largest)
    elif rule_t is Lamb or rule_t is Adafactor or rule_t is AdafactorMomentum:
        p.trust = min(p.trust, p.largest / max(h.lr, 1.0))
        p.decay = min(p.decay, p.largest / max(h.lr, 1.0))


cdef inline void update(
    const rule_t* hyper, const direct_t* arrays, void* result, Py_ssize_t start, Py_ssize_t stop,
    const Prologue* prologue
) noexcept nogil:
    """Update elements start..stop by one rule, in the fast loop or the careful one."""
    cdef rule_t h = hyper[0]
    cdef Prologue p = prologue[0]
    finish(&h, &p)
    if rule_t in matrix_t:
        if p.factored:
            p.factored = True           # known to the compiler from here on
            if is_safe(&h, &p):
                update_elements(&h, arrays, result, start, stop, &p, False)
            else:
                update_elements(&h, arrays, result, start, stop, &p, True)
            return
        p.factored = False
    if rule_t in fast_t:
        if is_safe(&h, &p):
            update_elements(&h, arrays, result, start, stop, &p, False)
            return
    update_elements(&h, arrays, result, start, stop, &p, True)


cdef inline void update_elements(
    const rule_t* hyper, const direct_t* arrays, void* result, Py_ssize_t start, Py_ssize_t stop,
    const Prologue* prologue, bint careful
) noexcept nogil:
    """Update elements start..stop by one rule: the element loop around every formula.

    The parameter is written to `result`, in the compute type.
    """
    # copies, because a store to an array of doubles could otherwise change them as far as the compiler knows
    cdef rule_t h = hyper[0]
    cdef direct_t a = arrays[0]
    cdef Prologue p = prologue[0]
    cdef Py_ssize_t i
    p.careful = careful
    w = g = a.zero          # variables of the compute type
    if direct_t is Float64:
        updated = <double*>result
    else:
        updated = <float*>result
    for i in range(start, stop):
        load(&a, i, &w, &g)
        # Formulas read slots that they have just written. In memory that takes a while, and long where a vector lies in
        # two cache lines.
        if rule_t is not Sgd:
            slot0 = a.slot0[i]
        if rule_t in slot1_t:
            slot1 = a.slot1[i]
        if rule_t in slot2_t:
            slot2 = a.slot2[i]
        clip(&p, &g)
        if rule_t not in decoupled_t:
            decay(&p, &g, w)
        centralize_and_unscale(&p, &g)
        hold(&p, &g)
        if rule_t is Gradient:
            gradient(g, &slot0)
        elif rule_t is Sgd:
            sgd(&h, &p, &w, g)
        elif rule_t is SgdMomentum:
            sgd_momentum(&h, &p, &w, g, &slot0)
        elif rule_t is SgdNesterov:
            sgd_nesterov(&h, &p, &w, g, &slot0)
        elif rule_t is Momentum:
            momentum(&h, &p, &w, g, &slot0)
        elif rule_t is MomentumNesterov:
            momentum_nesterov(&h, &p, &w, g, &slot0)
        elif rule_t is Adam:
            adam(&h, &p, &w, g, &slot0, &slot1)
        elif rule_t is AdamNesterov:
            adam_nesterov(&h, &p, &w, g, &slot0, &slot1)
        elif rule_t is AdamAmsgrad:
            adam_amsgrad(&h, &p, &w, g, &slot0, &slot1, &slot2)
        elif rule_t is AdamWeightDecay:
            adam_weight_decay(&h, &p, &w, g, &slot0, &slot1)
        elif rule_t is Adamax:
            adamax(&h, &p, &w, g, &slot0, &slot1)
        elif rule_t is Adagrad:
            adagrad(&h, &p, &w, g, &slot0)
        elif rule_t is AdagradFrozen:
            adagrad_frozen(&h, &p, &w, g, &slot0)
        elif rule_t is Adadelta:
            adadelta(&h, &p, &w, g, &slot0, &slot1)
        elif rule_t is Asgd:
            asgd(&h, &p, &w, g, &slot0)
        elif rule_t is Rprop:
            rprop(&h, &p, &w, g, &slot0, &slot1)
        elif rule_t is Ftrl:
            ftrl(&h, &p, &w, g, &slot0, &slot1)
        elif rule_t is FtrlPower:
            ftrl_power(&h, &p, &w, g, &slot0, &slot1)
        elif rule_t is ProximalAdagrad:
            proximal_adagrad(&h, &p, &w, g, &slot0)
        elif rule_t is Rmsprop:
            rmsprop(&h, &p, &w, g, &slot0, &slot1)
        elif rule_t is RmspropCentered:
            rmsprop_centered(&h, &p, &w, g, &slot0, &slot1, &slot2)
        elif rule_t is Lamb:
            lamb(&h, &p, &w, g, &slot0, &slot1)
        elif rule_t is Adafactor:
            adafactor(&h, &p, &w, g, &slot0)
        elif rule_t is AdafactorMomentum:
            adafactor_momentum(&h, &p, &w, g, &slot0, &slot1)
        elif rule_t is MomentumAbsent:
            momentum_absent(&h, &p, &w, &slot0)
        elif rule_t is AdamAbsent:
            adam_absent(&h, &p, &w, &slot0, &slot1)
        elif rule_t is AdamAmsgradAbsent:
            adam_amsgrad_absent(&h, &p, &w, &slot0, &slot1, &slot2)
        elif rule_t is DecayedMomentumAbsent:
            decayed_momentum_absent(&h, &w, &slot0)
        if rule_t is not Sgd and rule_t is not AdagradFrozen:
            a.slot0[i] = slot0
        if rule_t in slot1_t:
            a.slot1[i] = slot1
        if rule_t in slot2_t:
            a.slot2[i] = slot2
        if rule_t is not Gradient:
            updated[i] = w


cdef inline void update_wide(
    const rule_t* hyper, const wide_t* arrays, Py_ssize_t start, Py_ssize_t stop, const Prologue* prologue
) noexcept nogil:
    """Update elements start..stop of parameters that have the compute type."""
    update(hyper, arrays, arrays.w, start, stop, prologue)


cdef void update_narrow(
    const rule_t* hyper, const narrow_t* arrays, Py_ssize_t start, Py_ssize_t stop, const Prologue* prologue
) noexcept nogil:
    """Update elements start..stop of 16-bit parameters, strip by strip in float32, which the cache keeps."""
    cdef float[<int>STRIP] w
    cdef float[<int>STRIP] g
    cdef Float32 strip
    cdef Py_ssize_t n
    cdef bint noted = out_of_range()
    while start < stop:
        n = min(stop - start, STRIP)
        if narrow_t in direct_t:
            update[rule_t, narrow_t](hyper, arrays, w - start, start, start + n, prologue)
        else:
            strip.w, strip.g = w - start, g - start
            strip.slot0, strip.slot1, strip.slot2 = arrays.slot0, arrays.slot1, arrays.slot2
            float32s_from_float16(w, &arrays.w[start], n)
            if narrow_t is Float16:
                float32s_from_float16(g, &arrays.g[start], n)
            else:
                strip.g = arrays.g
            update[rule_t, Float32](hyper, &strip, strip.w, start, start + n, prologue)
        noted |= out_of_range()
        if rule_t is not Gradient:
            narrow(arrays, start, n, w, &prologue.rounding)
            set_out_of_range(False)        # a float16 may be out of range where no slot is
        start += n
    set_out_of_range(noted)


cdef void narrow(
    const narrow_t* arrays, Py_ssize_t start, Py_ssize_t n, const float* w, const Rounding* r
) noexcept nogil:
    """Round n elements of the parameter; random bits depend on the element's number."""
    if narrow_t is Float16 or narrow_t is Float16Mixed:
        if r.stochastic:
            float16s_from_float32_stochastic(&arrays.w[start], w, n, <uint32_t>start, r.key0, r.key1)
        else:
            float16s_from_float32(&arrays.w[start], w, n)
    elif r.stochastic:
        bfloat16s_from_float32_stochastic(&arrays.w[start], w, n, <uint32_t>start, r.key0, r.key1)
    else:
        bfloat16s_from_float32(&arrays.w[start], w, n)


cdef void update_rows(
    const rule_t* hyper, const layout_t* arrays, const int64_t* rows, const Chains* chains, Py_ssize_t first,
    Py_ssize_t last, Py_ssize_t width, const Prologue* prologue
) noexcept nogil:
    """Update rows of a table, each by its row of the gradient, or by the sum of its chain."""
    # copies, as in `update`: what does not change from row to row is then computed before the first one
    cdef rule_t h = hyper[0]
    cdef layout_t a = arrays[0]
    cdef Prologue p = prologue[0]
    cdef double[<int>BATCH] sums
    cdef Py_ssize_t asked = min(width, PREFETCHED), ahead, r, j, row, start, stop
    for r in range(first, last):
        ahead = rows[min(r + ROWS_AHEAD, last - 1)] * width
        prefetch_span(&a.w[ahead], asked * sizeof(a.w[0]))
        if a.slot0 != NULL:
            prefetch_span(&a.slot0[ahead], asked * sizeof(a.slot0[0]))
        if a.slot1 != NULL:
            prefetch_span(&a.slot1[ahead], asked * sizeof(a.slot1[0]))
        if a.slot2 != NULL:
            prefetch_span(&a.slot2[ahead], asked * sizeof(a.slot2[0]))
        j = r if chains == NULL else chains.first[r]
        row = start = rows[r] * width
        stop = row + width
        a.g = &arrays.g[j * width - row]
        while start < row + width:
            if layout_t in summed_t:
                if chains != NULL and chains.next[j] >= 0:      # part by part, used while the cache has it
                    stop = min(start + BATCH, row + width)
                    sum_chain(arrays, chains.next, j, width, start - row, stop - row, sums)
                    if layout_t is Float64:
                        a.g = &sums[0] - start
                    else:
                        a.g = <const float*>&sums[0] - start
            if layout_t in wide_t:
                update_wide[rule_t, layout_t](&h, &a, start, stop, &p)
            else:
                update_narrow[rule_t, layout_t](&h, &a, start, stop, &p)
            start = stop


cdef void sum_chain(
    const summed_t* arrays, const int32_t* next, Py_ssize_t j, Py_ssize_t width, Py_ssize_t start, Py_ssize_t stop,
    double* sums
) noexcept nogil:
    """Sum elements start..stop of the rows of a chain, at least two of them, in order, as `merge` does."""
    cdef summed_t a = arrays[0]
    cdef double[<int>BATCH] hot
    cdef Py_ssize_t i, n = stop - start, count, second
    cdef bint is_hot = False
    g = other = a.zero
    if summed_t is Float64:
        a.slot0 = sums
    else:
        a.slot0 = <float*>sums
    while True:
        second = next[j]
        if second < 0:
            for i in range(n):
                load_gradient(&a, j * width + start + i, &g)
                a.slot0[i] = g
            break
        for i in range(n):
            load_gradient(&a, j * width + start + i, &g)
            load_gradient(&a, second * width + start + i, &other)
            a.slot0[i] = g + other
        j = next[second]
        count = 2
        while j >= 0 and (count < SUMMED or summed_t is Float64):
            for i in range(n):
                load_gradient(&a, j * width + start + i, &g)
                a.slot0[i] += g
            j = next[j]
            count += 1
        if j < 0:
            break
        for i in range(n):
            hot[i] = hot[i] + <double>a.slot0[i] if is_hot else <double>a.slot0[i]
        is_hot = True
    if is_hot:
        for i in range(n):
            add_hot(&hot[i], &a.slot0[i])


cdef inline void add_hot(const double* sum, real_t* row) noexcept nogil:
    """Round a sum in double and what is still to be added to it."""
    row[0] = <real_t>(sum[0] + <double>row[0])


cdef double total(
    const layout_t* arrays, Py_ssize_t start, Py_ssize_t stop, const Prologue* prologue, double factor
) noexcept nogil:
    """Sum the decayed gradient over elements start..stop, in float64 and in fixed lanes."""
    cdef layout_t a = arrays[0]
    cdef Prologue p = prologue[0]
    cdef double[<int>LANES] lanes
    cdef double[<int>BATCH] batch
    cdef Py_ssize_t n, i, lane
    w = g = a.zero
    for lane in range(LANES):
        lanes[lane] = 0
    while start < stop:
        n = min(stop - start, BATCH)
        for i in range(n):
            load(&a, start + i, &w, &g)
            clip(&p, &g)
            decay(&p, &g, w)
            if layout_t is Float64:
                batch[i] = held(&p, g) * factor
            else:
                batch[i] = <double>held(&p, g)
        add_to_lanes(lanes, batch, n)
        start += n
    return sum_of_lanes(lanes)


cdef void measure(
    const measure_t* hyper, const layout_t* arrays, Py_ssize_t start, Py_ssize_t stop, const Prologue* prologue,
    const double* factors, double* squares
) noexcept nogil:
    """Add up the squares of two quantities over elements start..stop, in float64 and in fixed lanes."""
    cdef double x_factor = factors[0], y_factor = factors[1]
    cdef measure_t h = hyper[0]
    cdef layout_t a = arrays[0]
    cdef Prologue p = prologue[0]
    p.careful = True
    cdef double[<int>LANES] x_lanes
    cdef double[<int>LANES] y_lanes
    cdef double[<int>BATCH] x_batch
    cdef double[<int>BATCH] y_batch
    cdef double x, y
    cdef Py_ssize_t n, i, lane
    w = g = a.zero
    for lane in range(LANES):
        x_lanes[lane] = y_lanes[lane] = 0
    while start < stop:
        n = min(stop - start, BATCH)
        for i in range(n):
            load(&a, start + i, &w, &g)
            if measure_t not in raw_t:
                clip(&p, &g)
                if measure_t not in decoupled_t:
                    decay(&p, &g, w)
                centralize_and_unscale(&p, &g)
                hold(&p, &g)
            if measure_t is Norm:
                norm(w, g, &x, &y)
            elif measure_t is GradientNorm:
                gradient_norm(g, &x, &y)
            elif measure_t is Finite:
                finite(g, &x, &y)
            elif measure_t is Lamb:
                lamb_norms(&h, &p, w, g, a.slot0[start + i], a.slot1[start + i], &x, &y)
            elif measure_t is Adafactor:
                adafactor_norms(&h, &p, w, g, a.slot0[start + i], &x, &y)
            if layout_t is Float64:
                x *= x_factor
                y *= y_factor
            if measure_t not in gradient_only_t:
                x_batch[i] = x * x
            y_batch[i] = y * y
        if measure_t not in gradient_only_t:
            add_to_lanes(x_lanes, x_batch, n)
        add_to_lanes(y_lanes, y_batch, n)
        start += n
    squares[0] = sum_of_lanes(x_lanes)
    squares[1] = sum_of_lanes(y_lanes)


cdef void square_sums(
    const layout_t* arrays, Py_ssize_t start, Py_ssize_t stop, Py_ssize_t rows, Py_ssize_t columns,
    const Prologue* prologue, double* row, double* column
) noexcept nogil:
    """Sum the squares of the gradient over each row from start to stop, and add them to their columns."""
    cdef double[<int>BATCH] batch
    cdef Py_ssize_t held = 0, used = 0, r = 0
    while start < stop:
        if columns > LANES:
            row[0] = add_wide_row[layout_t](arrays, start, columns, prologue, column)
        else:
            if used == held:        # whole rows at once
                held, used = min(stop - start, BATCH // columns * columns), 0
                squares_of[layout_t](arrays, start, held, prologue, batch)
            row[0] = add_narrow_row(&batch[used], columns, column)
            used += columns
        start += columns
        row += 1
        r += 1
        if r == rows:               # on to the next matrix
            r = 0
            column += columns


cdef inline double add_wide_row(
    const layout_t* arrays, Py_ssize_t start, Py_ssize_t columns, const Prologue* prologue, double* column
) noexcept nogil:
    cdef double[<int>LANES] lanes
    cdef double[<int>BATCH] batch
    cdef Py_ssize_t c = 0, i, n, lane
    for lane in range(LANES):
        lanes[lane] = 0
    while c < columns:
        n = min(columns - c, BATCH)
        squares_of[layout_t](arrays, start + c, n, prologue, batch)
        for i in range(n):
            column[c + i] += batch[i]
        add_to_lanes(lanes, batch, n)
        c += n
    return sum_of_lanes(lanes)


cdef inline double add_narrow_row(const double* squares, Py_ssize_t columns, double* column) noexcept nogil:
    cdef double result = 0
    cdef Py_ssize_t i
    for i in range(columns):
        result += squares[i]
        column[i] += squares[i]
    return result


cdef inline void squares_of(
    const layout_t* arrays, Py_ssize_t start, Py_ssize_t n, const Prologue* prologue, double* squares
) noexcept nogil:
    """Write the squares of n elements of the gradient."""
    cdef layout_t a = arrays[0]
    cdef Prologue p = prologue[0]
    p.careful = True
    cdef Py_ssize_t i
    w = g = a.zero
    for i in range(n):
        load(&a, start + i, &w, &g)
        clip(&p, &g)
        centralize_and_unscale(&p, &g)
        hold(&p, &g)
        squares[i] = <double>g * <double>g


cdef void factors(
    const double* row, const double* column, Py_ssize_t rows, Py_ssize_t columns, Py_ssize_t stride,
    Py_ssize_t start, Py_ssize_t stop, real_t* result
) noexcept nogil:
    """Write what rows and columns make of elements start..stop of matrices."""
    cdef Py_ssize_t c = start % columns, r = start // columns % rows
    cdef Py_ssize_t i, n
    row += start // columns
    column += start // columns // rows * stride
    while start < stop:
        n = min(columns - c, stop - start)
        for i in range(n):
            adafactor_factor(row[0], column[c + i], &result[i])
        result += n
        start += n
        c = 0
        row += 1
        r += 1
        if r == rows:               # on to the next matrix
            r = 0
            column += stride


cdef void settle(real_t* slot, Py_ssize_t start, Py_ssize_t stop, bint decays) noexcept nogil:
    """Hold elements start..stop of a slot within the finite numbers; set those that decay to 0 where subnormal."""
    cdef Py_ssize_t i
    for i in range(start, stop):
        slot[i] = settled(slot[i], decays)


cdef inline void add_to_lanes(double* lanes, double* batch, Py_ssize_t n) noexcept nogil:
    """Add n numbers lane by lane; the batch is padded with zeros to whole rows of lanes."""
    cdef Py_ssize_t rows = (n + LANES - 1) // LANES
    cdef Py_ssize_t i, row, lane
    for i in range(n, rows * LANES):
        batch[i] = 0
    for row in range(rows):
        for lane in range(LANES):
            lanes[lane] += batch[row * LANES + lane]


cdef inline double sum_of_lanes(const double* lanes) noexcept nogil:
    cdef double result = 0
    cdef Py_ssize_t lane
    for lane in range(LANES):
        result += lanes[lane]
    return result


cdef Py_ssize_t merge(
    const row_t* arrays, const int32_t* slots, Py_ssize_t start, Py_ssize_t k, Py_ssize_t width, HotRows* hot
) noexcept nogil:
    """Sum the rows that share a slot, in order of occurrence."""
    if row_t is not Float64:
        if hot.counts != NULL and width == 1:       # known to the compiler, it makes a shorter loop
            return merge_and_count(arrays, slots, start, k, 1, hot)
        if hot.counts != NULL:
            return merge_and_count(arrays, slots, start, k, width, hot)
    if width == 1:
        merge_plainly(arrays, slots, k, 1)
    else:
        merge_plainly(arrays, slots, k, width)
    return k


cdef inline void merge_plainly(
    const row_t* arrays, const int32_t* slots, Py_ssize_t k, Py_ssize_t width
) noexcept nogil:
    cdef row_t a = arrays[0]
    cdef Py_ssize_t j, slot, seen = 0
    row = a.slot0
    for j in range(k):
        prefetch(&a.slot0[slots[min(j + MERGE_AHEAD, k - 1)] * width])
        slot = slots[j]
        row = &a.slot0[slot * width]
        if slot == seen:        # slots are numbered in order of first appearance
            seen += 1
            copy_row(&a, j * width, width, row)
        else:
            add_row(&a, j * width, width, row)


cdef inline Py_ssize_t merge_and_count(
    const row_t* arrays, const int32_t* slots, Py_ssize_t start, Py_ssize_t k, Py_ssize_t width, HotRows* hot
) noexcept nogil:
    """Sum rows in float, up to SUMMED at once; sums of so many go to the sum in double."""
    cdef row_t a = arrays[0]
    cdef uint8_t* counts = hot.counts
    cdef double* sums = hot.sums
    cdef Py_ssize_t j, i, slot
    cdef uint8_t count
    row = a.slot0
    for j in range(start, k):
        slot = slots[min(j + MERGE_AHEAD, k - 1)]
        prefetch(&a.slot0[slot * width])
        prefetch(&counts[slot])
        slot = slots[j]
        row = &a.slot0[slot * width]
        count = counts[slot]
        if count % SUMMED != 0:
            counts[slot] = count + 1
            add_row(&a, j * width, width, row)
            continue
        if count == SUMMED:
            if hot.n_sums == hot.room:
                return j
            hot.places[slot], hot.slots[hot.n_sums] = <int32_t>hot.n_sums, <int32_t>slot
            sums = &hot.sums[hot.n_sums * width]
            hot.n_sums += 1
            for i in range(width):
                sums[i] = <double>row[i]
        elif count != 0:
            sums = &hot.sums[hot.places[slot] * width]
            for i in range(width):
                sums[i] += <double>row[i]
        counts[slot] = 1 if count == 0 else IS_HOT + 1
        copy_row(&a, j * width, width, row)
    for j in range(hot.n_sums):
        row = &a.slot0[hot.slots[j] * width]
        sums = &hot.sums[j * width]
        for i in range(width):
            add_hot(&sums[i], &row[i])
    return k


cdef inline void copy_row(const row_t* a, Py_ssize_t start, Py_ssize_t width, real_t* row) noexcept nogil:
    """Write elements start..start + width - 1 of the gradient to a row."""
    cdef real_t[<int>LANES] lanes       # all are read before one is written: nothing may overlap as far as gcc knows
    cdef real_t g
    cdef Py_ssize_t i = 0, lane
    while i + LANES <= width:
        for lane in range(LANES):
            load_gradient(a, start + i + lane, &lanes[lane])
        for lane in range(LANES):
            row[i + lane] = lanes[lane]
        i += LANES
    while i < width:
        load_gradient(a, start + i, &g)
        row[i] = g
        i += 1


cdef inline void add_row(const row_t* a, Py_ssize_t start, Py_ssize_t width, real_t* row) noexcept nogil:
    """Add elements start..start + width - 1 of the gradient to a row."""
    cdef real_t[<int>LANES] lanes
    cdef real_t g
    cdef Py_ssize_t i = 0, lane
    while i + LANES <= width:
        for lane in range(LANES):
            load_gradient(a, start + i + lane, &g)
            lanes[lane] = row[i + lane] + g
        for lane in range(LANES):
            row[i + lane] = lanes[lane]
        i += LANES
    while i < width:
        load_gradient(a, start + i, &g)
        row[i] += g
        i += 1


cdef void bounds(const index_t* indices, Py_ssize_t k, index_t* lowest, index_t* highest) noexcept nogil:
    cdef index_t low = indices[0], high = indices[0]
    cdef Py_ssize_t j
    for j in range(k):
        low = min(low, indices[j])
        high = max(high, indices[j])
    lowest[0], highest[0] = low, high


cdef int enlist(KernelTable* table, const char* name, int slots, const rule_t* hyper) except -1:
    """Enter the loops of one rule, for every layout; `hyper` only says which rule."""
    cdef RuleKernels* kernels = add_rule(table, name, sizeof(rule_t) // sizeof(double), slots)
    kernels.decoupled = rule_t in decoupled_t
    kernels.matrix = rule_t in matrix_t
    kernels.decaying = decaying_slots(hyper)
    kernels.update[<int>FLOAT32] = <update_f>update_wide[rule_t, Float32]
    kernels.update_rows[<int>FLOAT32] = <update_rows_f>update_rows[rule_t, Float32]
    kernels.update[<int>FLOAT64] = <update_f>update_wide[rule_t, Float64]
    kernels.update_rows[<int>FLOAT64] = <update_rows_f>update_rows[rule_t, Float64]
    kernels.update[<int>FLOAT16] = <update_f>update_narrow[rule_t, Float16]
    kernels.update_rows[<int>FLOAT16] = <update_rows_f>update_rows[rule_t, Float16]
    kernels.update[<int>BFLOAT16] = <update_f>update_narrow[rule_t, BFloat16]
    kernels.update_rows[<int>BFLOAT16] = <update_rows_f>update_rows[rule_t, BFloat16]
    kernels.update[<int>FLOAT16_MIXED] = <update_f>update_narrow[rule_t, Float16Mixed]
    kernels.update_rows[<int>FLOAT16_MIXED] = <update_rows_f>update_rows[rule_t, Float16Mixed]
    kernels.update[<int>BFLOAT16_MIXED] = <update_f>update_narrow[rule_t, BFloat16Mixed]
    kernels.update_rows[<int>BFLOAT16_MIXED] = <update_rows_f>update_rows[rule_t, BFloat16Mixed]
    return 0


cdef int enlist_measure(KernelTable* table, const char* name, const measure_t* hyper) except -1:
    """Enter the reading loops of one measure, for every layout; `hyper` only says which measure."""
    cdef MeasureKernels* kernels = add_measure(table, name)
    kernels.gradient_only = measure_t in gradient_only_t
    kernels.measure[<int>FLOAT32] = <measure_f>measure[measure_t, Float32]
    kernels.measure[<int>FLOAT64] = <measure_f>measure[measure_t, Float64]
    kernels.measure[<int>FLOAT16] = <measure_f>measure[measure_t, Float16]
    kernels.measure[<int>BFLOAT16] = <measure_f>measure[measure_t, BFloat16]
    kernels.measure[<int>FLOAT16_MIXED] = <measure_f>measure[measure_t, Float16Mixed]
    kernels.measure[<int>BFLOAT16_MIXED] = <measure_f>measure[measure_t, BFloat16Mixed]
    return 0


cdef KernelTable table

enlist[Gradient](&table, "gradient", 1, NULL)
enlist[Sgd](&table, "sgd", 0, NULL)
enlist[SgdMomentum](&table, "sgd_momentum", 1, NULL)
enlist[SgdNesterov](&table, "sgd_nesterov", 1, NULL)
enlist[Momentum](&table, "momentum", 1, NULL)
enlist[MomentumNesterov](&table, "momentum_nesterov", 1, NULL)
enlist[Adam](&table, "adam", 2, NULL)
enlist[AdamNesterov](&table, "adam_nesterov", 2, NULL)
enlist[AdamAmsgrad](&table, "adam_amsgrad", 3, NULL)
enlist[AdamWeightDecay](&table, "adam_weight_decay", 2, NULL)
enlist[Adamax](&table, "adamax", 2, NULL)
enlist[Adagrad](&table, "adagrad", 1, NULL)
enlist[AdagradFrozen](&table, "adagrad_frozen", 1, NULL)
enlist[Adadelta](&table, "adadelta", 2, NULL)
enlist[Asgd](&table, "asgd", 1, NULL)
enlist[Rprop](&table, "rprop", 2, NULL)
enlist[Ftrl](&table, "ftrl", 2, NULL)
enlist[FtrlPower](&table, "ftrl_power", 2, NULL)
enlist[ProximalAdagrad](&table, "proximal_adagrad", 1, NULL)
enlist[Rmsprop](&table, "rmsprop", 2, NULL)
enlist[RmspropCentered](&table, "rmsprop_centered", 3, NULL)
enlist[Lamb](&table, "lamb", 2, NULL)
enlist[Adafactor](&table, "adafactor", 1, NULL)
enlist[AdafactorMomentum](&table, "adafactor_momentum", 2, NULL)
enlist[MomentumAbsent](&table, "momentum_absent", 1, NULL)
enlist[AdamAbsent](&table, "adam_absent", 2, NULL)
enlist[AdamAmsgradAbsent](&table, "adam_amsgrad_absent", 3, NULL)
enlist[DecayedMomentumAbsent](&table, "decayed_momentum_absent", 1, NULL)

enlist_measure[Norm](&table, "norm", NULL)
enlist_measure[GradientNorm](&table, "gradient_norm", NULL)
enlist_measure[Finite](&table, "finite", NULL)
enlist_measure[Lamb](&table, "lamb", NULL)
enlist_measure[Adafactor](&table, "adafactor", NULL)

table.total[<int>FLOAT32] = <total_f>total[Float32]
table.total[<int>FLOAT64] = <total_f>total[Float64]
table.total[<int>FLOAT16] = <total_f>total[Float16]
table.total[<int>BFLOAT16] = <total_f>total[BFloat16]
table.total[<int>FLOAT16_MIXED] = <total_f>total[Float16Mixed]
table.total[<int>BFLOAT16_MIXED] = <total_f>total[BFloat16Mixed]

table.square_sums[<int>FLOAT32] = <square_sums_f>square_sums[Float32]
table.square_sums[<int>FLOAT64] = <square_sums_f>square_sums[Float64]
table.square_sums[<int>FLOAT16] = <square_sums_f>square_sums[Float16]
table.square_sums[<int>BFLOAT16] = <square_sums_f>square_sums[BFloat16]
table.square_sums[<int>FLOAT16_MIXED] = <square_sums_f>square_sums[Float16Mixed]
table.square_sums[<int>BFLOAT16_MIXED] = <square_sums_f>square_sums[BFloat16Mixed]
table.factors32 = <factors_f>factors[float]
table.factors64 = <factors_f>factors[double]
table.settle32 = <settle_f>settle[float]
table.settle64 = <settle_f>settle[double]

table.merge[<int>FLOAT32] = <merge_f>merge[Float32]
table.merge[<int>FLOAT64] = <merge_f>merge[Float64]
table.merge[<int>FLOAT16] = <merge_f>merge[Float16]
table.merge[<int>BFLOAT16] = <merge_f>merge[BFloat16]
table.merge[<int>FLOAT16_MIXED] = <merge_f>merge[Float32]     # the gradient of these layouts is float32
table.merge[<int>BFLOAT16_MIXED] = <merge_f>merge[Float32]
table.bounds32 = <bounds_f>bounds[int32_t]
table.bounds64 = <bounds_f>bounds[int64_t]

compiler, flags = COMPILER.decode(), OPTIMCORE_FLAGS.decode()
kernel_table = PyCapsule_New(&table, "optimcore.kernel_table", NULL)
