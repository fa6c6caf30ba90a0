# cython: cdivision=True, boundscheck=False, wraparound=False
"""Rules: the formula of every optimizer, one element at a time, and the hyperparameters that it takes.

A struct holds the hyperparameters of one step, as doubles, the learning rate first; the formula casts each of
them once to the compute type. `w` is the parameter, `g` the gradient after the prologue, the rest are slots.

Finite numbers never make a NaN. Hyperparameters are finite in the compute type (`Plan` sees to that). Slots are held at
the largest finite number. A parameter may become infinite, so steps are held as well where they may be infinite: the
rules in `fast_t` have a loop without that, for hyperparameters with which `is_safe`. A NaN stays a NaN in every helper.
After a loop in which the processor has noted an overflow or underflow, `settle` holds slots, and sets those that decay
to 0 where they are subnormal: rounding would keep them from 0 for ever, and arithmetic with subnormal numbers is slow.

To add a rule: its struct and formula here, its name in `rule_t`, one branch and one line in `_isa.pxi`, and its name in
`slot1_t` or `slot2_t` there if it has so many slots.
"""
from libc.float cimport DBL_MAX, DBL_MIN, FLT_MAX, FLT_MIN
from libc.math cimport fabs, fabsf, pow, powf, sqrt, sqrtf

from .storage cimport Rounding

ctypedef fused real_t:
    float
    double


cdef inline real_t root(real_t x) noexcept nogil:
    if real_t is float:
        return sqrtf(x)
    else:
        return sqrt(x)


cdef inline real_t power(real_t x, real_t exponent) noexcept nogil:
    if real_t is float:
        return powf(x, exponent)
    else:
        return pow(x, exponent)


cdef inline real_t magnitude(real_t x) noexcept nogil:
    if real_t is float:
        return fabsf(x)
    else:
        return fabs(x)


cdef inline real_t sign(real_t x) noexcept nogil:
    # the last x is a zero, or a NaN that must not get lost
    return <real_t>1 if x > <real_t>0 else (<real_t>-1 if x < <real_t>0 else x)


cdef inline real_t clamp(real_t x, real_t least, real_t most) noexcept nogil:
    # a NaN stays one; two statements become two instructions, a nested condition would become five
    x = most if x > most else x
    return least if x < least else x


cdef inline double held_double(double x) noexcept nogil:
    return clamp(x, -DBL_MAX, DBL_MAX)


# What happens to a gradient before any rule sees it: clip, decay, centralize, unscale, in this order.
ctypedef struct Prologue:
    double clip             # factor of clipping by norm, 1: none
    double decay            # weight decay times loss scale, 0: none
    double mean             # of the decayed gradient over one output channel, 0: not centralized
    double scale            # reciprocal of the loss scale, 1: none
    double most             # magnitude at which the result is held; infinite where no action can overflow
    double largest          # finite number of the compute type; a variable, because gcc holds at a constant less well
    bint careful            # steps may overflow: they are held as well
    double trust            # factor of the rate for rules that have one per parameter
    bint factored           # the first slot only holds factors of the gradient, for rules over matrices
    Rounding rounding


cdef inline void set_limits(Prologue* p, bint wide) noexcept nogil:
    if wide:
        p.largest = DBL_MAX
    else:
        p.largest = <double>FLT_MAX
    p.careful = True


cdef inline real_t held(const Prologue* p, real_t x) noexcept nogil:
    """Hold x within the finite numbers."""
    return clamp(x, <real_t>-p.largest, <real_t>p.largest)


cdef inline real_t half_held(const Prologue* p, real_t x) noexcept nogil:
    """Hold x within half of the finite numbers: the sum of two such numbers is finite."""
    return clamp(x, <real_t>(-0.5 * p.largest), <real_t>(0.5 * p.largest))


cdef inline real_t held_square(const Prologue* p, real_t x) noexcept nogil:
    """Hold x >= 0 at the largest finite number."""
    return <real_t>p.largest if x > <real_t>p.largest else x


cdef inline real_t guarded(const Prologue* p, real_t x) noexcept nogil:
    """Hold x in the careful loop."""
    return held(p, x) if p.careful else x


cdef inline real_t half_guarded(const Prologue* p, real_t x) noexcept nogil:
    return half_held(p, x) if p.careful else x


cdef inline void clip(const Prologue* p, real_t* g) noexcept nogil:
    g[0] *= <real_t>p.clip

cdef inline void decay(const Prologue* p, real_t* g, real_t w) noexcept nogil:
    # gradients still carry the loss scale, so decay does too; a gradient without decay keeps even the sign of zero
    cdef real_t decay = <real_t>p.decay
    g[0] = g[0] + w * decay if decay != <real_t>0 else g[0]

cdef inline void centralize_and_unscale(const Prologue* p, real_t* g) noexcept nogil:
    g[0] = (g[0] - <real_t>p.mean) * <real_t>p.scale

cdef inline void hold(const Prologue* p, real_t* g) noexcept nogil:
    g[0] = clamp(g[0], <real_t>-p.most, <real_t>p.most) if p.careful else g[0]

# The decay of rules that apply it themselves. Its sum with a direction within the same bounds is finite.
cdef inline real_t own_decay(const Prologue* p, real_t w) noexcept nogil:
    return half_guarded(p, <real_t>p.decay * held(p, w))

cdef inline void move(const Prologue* p, real_t* w, real_t step) noexcept nogil:
    # an infinite parameter minus an infinite step would be a NaN: such a parameter stays
    cdef real_t moved = w[0] - step
    if p.careful:
        moved = moved if magnitude(w[0]) <= <real_t>p.largest else w[0]
    w[0] = moved


# The prologue alone: writes the prepared gradient and leaves the parameter as it is.
ctypedef struct Gradient:
    double lr               # not used

cdef inline void gradient(real_t g, real_t* out) noexcept nogil:
    out[0] = g


ctypedef struct Sgd:
    double lr

cdef inline void sgd(const Sgd* h, const Prologue* p, real_t* w, real_t g) noexcept nogil:
    move(p, w, <real_t>h.lr * g)


# keep, take: momentum and 1 - dampening, but 0 and 1 on the first step of a parameter, which skips dampening
ctypedef struct SgdMomentum:
    double lr
    double momentum
    double keep
    double take

cdef inline void sgd_momentum(
    const SgdMomentum* h, const Prologue* p, real_t* w, real_t g, real_t* acc
) noexcept nogil:
    acc[0] = sgd_accumulate(p, h.keep, h.take, g, acc[0])
    move(p, w, <real_t>h.lr * acc[0])

cdef inline real_t sgd_accumulate(const Prologue* p, double keep, double take, real_t g, real_t acc) noexcept nogil:
    return held(p, <real_t>keep * acc + guarded(p, <real_t>take * g))


ctypedef struct SgdNesterov:
    double lr
    double momentum
    double keep
    double take

cdef inline void sgd_nesterov(const SgdNesterov* h, const Prologue* p, real_t* w, real_t g, real_t* acc) noexcept nogil:
    acc[0] = sgd_accumulate(p, h.keep, h.take, g, acc[0])
    move(p, w, <real_t>h.lr * held(p, g + <real_t>h.momentum * acc[0]))


ctypedef struct Momentum:
    double lr
    double momentum

cdef inline void momentum(const Momentum* h, const Prologue* p, real_t* w, real_t g, real_t* m) noexcept nogil:
    m[0] = held(p, <real_t>h.momentum * m[0] + g)
    move(p, w, <real_t>h.lr * m[0])


ctypedef struct MomentumNesterov:
    double lr
    double momentum

cdef inline void momentum_nesterov(
    const MomentumNesterov* h, const Prologue* p, real_t* w, real_t g, real_t* m
) noexcept nogil:
    m[0] = held(p, <real_t>h.momentum * m[0] + g)
    move(p, w, <real_t>h.lr * held(p, g + <real_t>h.momentum * m[0]))


# The moments of the Adam family. Not v + (g * g - v) * (1 - beta2): where g * g is infinite that would be NaN in the
# next step, and where 1 - beta2 is near 1 it loses digits.
# Moments are held in both loops: a condition here would keep gcc from vectorizing one of them.
cdef inline real_t first_moment(const Prologue* p, double beta1, real_t g, real_t m) noexcept nogil:
    return held(p, <real_t>beta1 * m + <real_t>(1 - beta1) * g)

cdef inline real_t second_moment(const Prologue* p, double beta2, real_t g, real_t v) noexcept nogil:
    return held_square(p, <real_t>beta2 * v + <real_t>(1 - beta2) * g * g)


# lr of the three Adam rules already holds the bias correction sqrt(1 - beta2^t) / (1 - beta1^t); eps stays outside
# the root
ctypedef struct Adam:
    double lr
    double beta1
    double beta2
    double eps

cdef inline void adam(const Adam* h, const Prologue* p, real_t* w, real_t g, real_t* m, real_t* v) noexcept nogil:
    m[0] = first_moment(p, h.beta1, g, m[0])
    v[0] = second_moment(p, h.beta2, g, v[0])
    move(p, w, <real_t>h.lr * m[0] / (root(v[0]) + <real_t>h.eps))


ctypedef struct AdamNesterov:
    double lr
    double beta1
    double beta2
    double eps

cdef inline void adam_nesterov(
    const AdamNesterov* h, const Prologue* p, real_t* w, real_t g, real_t* m, real_t* v
) noexcept nogil:
    m[0] = first_moment(p, h.beta1, g, m[0])
    v[0] = second_moment(p, h.beta2, g, v[0])
    cdef real_t ahead = held(p, <real_t>h.beta1 * m[0] + <real_t>(1 - h.beta1) * g)
    move(p, w, <real_t>h.lr * ahead / (root(v[0]) + <real_t>h.eps))


ctypedef struct AdamAmsgrad:
    double lr
    double beta1
    double beta2
    double eps

cdef inline void adam_amsgrad(
    const AdamAmsgrad* h, const Prologue* p, real_t* w, real_t g, real_t* m, real_t* v, real_t* vhat
) noexcept nogil:
    m[0] = first_moment(p, h.beta1, g, m[0])
    v[0] = second_moment(p, h.beta2, g, v[0])
    vhat[0] = v[0] if v[0] > vhat[0] else vhat[0]
    move(p, w, <real_t>h.lr * m[0] / (root(vhat[0]) + <real_t>h.eps))


# Decay is apart from the gradient: it reaches the parameter undivided by the root. No bias correction.
ctypedef struct AdamWeightDecay:
    double lr
    double beta1
    double beta2
    double eps

cdef inline void adam_weight_decay(
    const AdamWeightDecay* h, const Prologue* p, real_t* w, real_t g, real_t* m, real_t* v
) noexcept nogil:
    m[0] = first_moment(p, h.beta1, g, m[0])
    v[0] = second_moment(p, h.beta2, g, v[0])
    cdef real_t direction = m[0] / (root(v[0]) + <real_t>h.eps)
    direction = half_guarded(p, direction)
    move(p, w, <real_t>h.lr * (direction + own_decay(p, w[0])))


# lr already holds the bias correction 1 / (1 - beta1^t)
ctypedef struct Adamax:
    double lr
    double beta1
    double beta2
    double eps

cdef inline void adamax(const Adamax* h, const Prologue* p, real_t* w, real_t g, real_t* m, real_t* v) noexcept nogil:
    m[0] = first_moment(p, h.beta1, g, m[0])
    v[0] *= <real_t>h.beta2
    v[0] = v[0] if v[0] > magnitude(g) else magnitude(g)
    v[0] = held_square(p, v[0])
    move(p, w, <real_t>h.lr * m[0] / guarded(p, v[0] + <real_t>h.eps))


# The rules that add up squares move nothing where the sum is 0: there has been no gradient yet, or its square vanishes.
cdef inline real_t over_root(const Prologue* p, real_t x, real_t square) noexcept nogil:
    square = guarded(p, square)
    return <real_t>0 if p.careful and square <= <real_t>0 else x / root(square)


ctypedef struct Adagrad:
    double lr
    double eps

cdef inline void adagrad(const Adagrad* h, const Prologue* p, real_t* w, real_t g, real_t* acc) noexcept nogil:
    acc[0] = guarded(p, acc[0] + g * g)
    move(p, w, over_root(p, <real_t>h.lr * g, acc[0] + <real_t>h.eps))


# Adagrad that keeps its accumulator as it is
ctypedef struct AdagradFrozen:
    double lr
    double eps

cdef inline void adagrad_frozen(
    const AdagradFrozen* h, const Prologue* p, real_t* w, real_t g, const real_t* acc
) noexcept nogil:
    move(p, w, over_root(p, <real_t>h.lr * g, acc[0] + <real_t>h.eps))


# acc, acc_update: mean squares of the gradient and of the movement
ctypedef struct Adadelta:
    double lr
    double rho
    double eps

cdef inline void adadelta(
    const Adadelta* h, const Prologue* p, real_t* w, real_t g, real_t* acc, real_t* acc_update
) noexcept nogil:
    cdef real_t eps = <real_t>h.eps
    acc[0] = second_moment(p, h.rho, g, acc[0])
    cdef real_t distance = held(p, root(guarded(p, acc_update[0] + eps)) * g)
    cdef real_t delta = guarded(p, over_root(p, distance, acc[0] + eps))
    acc_update[0] = second_moment(p, h.rho, delta, acc_update[0])
    move(p, w, <real_t>h.lr * delta)


# lr: eta of this step; keep: 1 - lambd * eta; mu: weight of the parameter in its average, 1 replaces the average
ctypedef struct Asgd:
    double lr
    double keep
    double mu

cdef inline void asgd(const Asgd* h, const Prologue* p, real_t* w, real_t g, real_t* average) noexcept nogil:
    cdef real_t keep = <real_t>h.keep
    w[0] = w[0] * keep if keep != <real_t>0 else <real_t>0
    move(p, w, <real_t>h.lr * g)
    cdef real_t kept = held(p, w[0])
    cdef real_t mu = <real_t>h.mu
    average[0] = kept if h.mu == 1 else held(p, average[0] + (kept * mu - average[0] * mu))


# first: not 0 in the first step of a parameter, the only one in which lr counts
ctypedef struct Rprop:
    double lr
    double minus
    double plus
    double least
    double most
    double first

cdef inline void rprop(
    const Rprop* h, const Prologue* p, real_t* w, real_t g, real_t* previous, real_t* size
) noexcept nogil:
    # the product of the signs, because that of the gradients may underflow
    cdef real_t agree = sign(g) * sign(previous[0])
    cdef real_t factor = <real_t>h.plus if agree > <real_t>0 else (<real_t>h.minus if agree < <real_t>0 else <real_t>1)
    size[0] = (<real_t>h.lr if h.first != 0 else size[0]) * factor
    size[0] = <real_t>h.most if size[0] > <real_t>h.most else (
        <real_t>h.least if size[0] < <real_t>h.least else size[0])
    previous[0] = <real_t>0 if agree < <real_t>0 else g
    w[0] -= sign(previous[0]) * size[0]


# The two FTRL rules differ in how fast the rate falls: n^(-1/2), or n^power with a power <= 0 at the price of `pow`.
ctypedef struct Ftrl:
    double lr
    double l1
    double l2

cdef inline void ftrl(
    const Ftrl* h, const Prologue* p, real_t* w, real_t g, real_t* acc, real_t* linear
) noexcept nogil:
    cdef real_t old = root(acc[0])
    acc[0] = held_square(p, acc[0] + g * g)
    ftrl_solve(p, w, g, linear, old, root(acc[0]), <real_t>(1 / h.lr), <real_t>h.l1, <real_t>(2 * h.l2))


ctypedef struct FtrlPower:
    double lr
    double l1
    double l2
    double power

cdef inline void ftrl_power(
    const FtrlPower* h, const Prologue* p, real_t* w, real_t g, real_t* acc, real_t* linear
) noexcept nogil:
    cdef real_t exponent = <real_t>-h.power
    cdef real_t old = held_square(p, power(acc[0], exponent))
    acc[0] = held_square(p, acc[0] + g * g)
    cdef real_t new = held_square(p, power(acc[0], exponent))
    ftrl_solve(p, w, g, linear, old, new, <real_t>(1 / h.lr), <real_t>h.l1, <real_t>(2 * h.l2))


cdef inline void ftrl_solve(
    const Prologue* p, real_t* w, real_t g, real_t* linear, real_t old, real_t new, real_t inverse_lr, real_t l1,
    real_t twice_l2
) noexcept nogil:
    """Minimize the FTRL model of the loss, whose curvature grows from `old` to `new` over the rate."""
    cdef real_t curvature = new * inverse_lr + twice_l2
    linear[0] = guarded(p, linear[0] + (g - guarded(p, (new - old) * inverse_lr) * held(p, w[0])))
    cdef real_t solution = (clamp(linear[0], -l1, l1) - linear[0]) / curvature
    solution = <real_t>0 if magnitude(linear[0]) <= l1 else solution
    # without curvature there has been no gradient yet, or its square vanishes
    w[0] = <real_t>0 if curvature <= <real_t>0 else solution


ctypedef struct ProximalAdagrad:
    double lr
    double l1
    double l2

cdef inline void proximal_adagrad(
    const ProximalAdagrad* h, const Prologue* p, real_t* w, real_t g, real_t* acc
) noexcept nogil:
    acc[0] = held_square(p, acc[0] + g * g)
    # before the first gradient the sum may be 0, in the fast loop as well
    cdef real_t rate = guarded(p, <real_t>0 if acc[0] <= <real_t>0 else <real_t>h.lr / root(acc[0]))
    cdef real_t threshold = guarded(p, rate * <real_t>h.l1)
    move(p, w, rate * g)
    w[0] = (w[0] - clamp(w[0], -threshold, threshold)) / (<real_t>1 + guarded(p, <real_t>h.l2 * rate))


# In both RMSProp rules eps is inside the root.
ctypedef struct Rmsprop:
    double lr
    double decay
    double momentum
    double eps

cdef inline void rmsprop(
    const Rmsprop* h, const Prologue* p, real_t* w, real_t g, real_t* ms, real_t* moment
) noexcept nogil:
    cdef real_t step
    ms[0] = mean_square(p, h.decay, g, ms[0])
    step = guarded(p, <real_t>h.lr * g / root(guarded(p, ms[0] + <real_t>h.eps)))
    moment[0] = guarded(p, <real_t>h.momentum * moment[0] + step)
    w[0] -= moment[0]

cdef inline real_t mean_square(const Prologue* p, double decay, real_t g, real_t ms) noexcept nogil:
    # with a decay above 1 the first term may overflow, and the second is negative
    ms = guarded(p, <real_t>decay * ms) + <real_t>(1 - decay) * g * g
    return clamp(ms, <real_t>0, <real_t>p.largest) if p.careful else ms


ctypedef struct RmspropCentered:
    double lr
    double decay
    double momentum
    double eps

cdef inline void rmsprop_centered(
    const RmspropCentered* h, const Prologue* p, real_t* w, real_t g, real_t* ms, real_t* moment, real_t* mg
) noexcept nogil:
    ms[0] = mean_square(p, h.decay, g, ms[0])
    mg[0] = held(p, held(p, <real_t>h.decay * mg[0]) + <real_t>(1 - h.decay) * g)
    cdef real_t variance = held_square(p, ms[0] - mg[0] * mg[0] + <real_t>h.eps)
    cdef real_t step = held(p, <real_t>h.lr * g / root(variance))
    cdef real_t moved = held(p, <real_t>h.momentum * moment[0] + step)
    # the difference may round below 0: such an element rests for this step
    w[0] = w[0] if variance <= <real_t>0 else w[0] - moved
    moment[0] = moment[0] if variance <= <real_t>0 else moved


# LAMB. Decay is apart from the gradient. The struct also holds 1 / (1 - beta^t), the corrections of the moments' bias;
# trust comes from `lamb_trust`.
ctypedef struct Lamb:
    double lr
    double beta1
    double beta2
    double eps
    double m_correction
    double v_correction

cdef inline void lamb(const Lamb* h, const Prologue* p, real_t* w, real_t g, real_t* m, real_t* v) noexcept nogil:
    # both squares from the sum as it is: gcc makes branches of one bound after another
    cdef real_t square = <real_t>h.beta2 * v[0] + <real_t>(1 - h.beta2) * g * g
    m[0] = first_moment(p, h.beta1, g, m[0])
    v[0] = held_square(p, square)
    square = held_square(p, square * <real_t>h.v_correction)
    cdef real_t direction = half_guarded(p, m[0] * <real_t>h.m_correction / (root(square) + <real_t>h.eps))
    move(p, w, <real_t>(h.lr * p.trust) * (direction + own_decay(p, w[0])))

# The direction whose norm counts has eps inside the root, unlike the one that is taken.
cdef inline void lamb_norms(
    const Lamb* h, const Prologue* p, real_t w, real_t g, real_t m, real_t v, double* x, double* y
) noexcept nogil:
    # m and the sum need not be held: a NaN makes the trust 0
    m = <real_t>h.beta1 * m + <real_t>(1 - h.beta1) * g
    v = <real_t>h.beta2 * v + <real_t>(1 - h.beta2) * g * g
    cdef real_t square = held_square(p, v * <real_t>h.v_correction + <real_t>h.eps)
    cdef real_t direction = m * <real_t>h.m_correction / root(square)
    x[0] = <double>w
    y[0] = <double>(direction + <real_t>p.decay * w)

cdef inline double lamb_trust(double norm, double direction) noexcept nogil:
    cdef double trust = norm / direction if norm > 0 and direction > 0 else 1
    return 0 if trust != trust else (10 if trust > 10 else trust)


# AdaFactor. Decay is apart from the gradient, and times the size of the parameter; trust comes from `adafactor_trust`.
ctypedef struct Adafactor:
    double lr
    double eps
    double beta2

cdef inline void adafactor(const Adafactor* h, const Prologue* p, real_t* w, real_t g, real_t* v) noexcept nogil:
    adafactor_move(h.lr, p, w, <real_t>(h.lr * p.trust) * adafactor_direction(h.eps, h.beta2, p, g, v))


ctypedef struct AdafactorMomentum:
    double lr
    double eps
    double beta2
    double beta1

cdef inline void adafactor_momentum(
    const AdafactorMomentum* h, const Prologue* p, real_t* w, real_t g, real_t* v, real_t* m
) noexcept nogil:
    cdef real_t step = <real_t>(h.lr * p.trust) * adafactor_direction(h.eps, h.beta2, p, g, v)
    m[0] = first_moment(p, h.beta1, step, m[0])
    adafactor_move(h.lr, p, w, m[0])


cdef inline void adafactor_norms(
    const Adafactor* h, const Prologue* p, real_t w, real_t g, real_t v, double* x, double* y
) noexcept nogil:
    x[0] = <double>w
    y[0] = <double>adafactor_direction(h.eps, h.beta2, p, g, &v)

# size, of the parameter, and direction are root mean squares
ctypedef struct AdafactorNumbers:
    double least            # that a size counts for
    double threshold        # of the direction, from which on it is scaled down
    double is_scaled        # whether the size counts at all

cdef inline double adafactor_size(const AdafactorNumbers* numbers, double size) noexcept nogil:
    # a NaN stays one, here and below
    return 1 if not numbers.is_scaled else held_double(numbers.least if size < numbers.least else size)

cdef inline double adafactor_trust(const AdafactorNumbers* numbers, double size, double direction) noexcept nogil:
    cdef double excess = direction / numbers.threshold
    return size / (1 if excess < 1 else excess)

cdef inline real_t adafactor_direction(double eps, double beta2, const Prologue* p, real_t g, real_t* v) noexcept nogil:
    # of a matrix, the mean squares of rows and columns are up to date, and v is the factor of an element
    v[0] = v[0] if p.factored else adafactor_mean(p, eps, beta2, g * g, v[0])
    # where v is 0, so is g, or its square; 4 over the largest number is the smallest normal one
    cdef real_t least = <real_t>(4 / p.largest)
    cdef real_t divisor = least if v[0] < least else v[0]
    return g * v[0] if p.factored else g / root(divisor)

cdef inline real_t adafactor_mean(
    const Prologue* p, double eps, double beta2, real_t square, real_t v
) noexcept nogil:
    # not v + (square - v) * (1 - beta2): that may round to 0, and a zero gradient then makes 0 / 0
    return held_square(p, <real_t>beta2 * v + <real_t>(1 - beta2) * (square + <real_t>eps))

cdef inline void adafactor_move(double lr, const Prologue* p, real_t* w, real_t step) noexcept nogil:
    cdef real_t rate = <real_t>(lr * p.decay)
    w[0] = w[0] - guarded(p, rate * held(p, w[0])) - guarded(p, step)

cdef inline void adafactor_factor(double row, double column, real_t* factor) noexcept nogil:
    # finite where row and column are without a gradient, for it is 0 there
    cdef double most = <double>FLT_MAX if real_t is float else DBL_MAX
    factor[0] = <real_t>(most if row * column > most else row * column)


# ---- absent rows: what several steps with a gradient of 0 do at once. `backlog.pyx` sums up the steps.

# lr: sum of rate times decay of the moment over the steps; keep: decay over all of them
ctypedef struct MomentumAbsent:
    double lr
    double keep

cdef inline void momentum_absent(const MomentumAbsent* h, const Prologue* p, real_t* w, real_t* m) noexcept nogil:
    move(p, w, <real_t>h.lr * m[0])
    m[0] = held(p, <real_t>h.keep * m[0])


# Two points stand for the steps: lr as above, root: decay of the root of v
ctypedef struct AdamAbsent:
    double lr0
    double lr1
    double root0
    double root1
    double keep1
    double keep2
    double eps

cdef inline void adam_absent(const AdamAbsent* h, const Prologue* p, real_t* w, real_t* m, real_t* v) noexcept nogil:
    cdef real_t r = root(v[0])
    cdef real_t rate0 = <real_t>h.lr0 / (<real_t>h.root0 * r + <real_t>h.eps)
    cdef real_t rate1 = <real_t>h.lr1 / (<real_t>h.root1 * r + <real_t>h.eps)
    move(p, w, (rate0 + rate1) * m[0])
    m[0] = held(p, <real_t>h.keep1 * m[0])
    v[0] = held_square(p, <real_t>h.keep2 * v[0])


# While v decays, the largest v stays what it is after the first step.
ctypedef struct AdamAmsgradAbsent:
    double lr
    double keep1
    double keep2
    double beta2
    double eps

cdef inline void adam_amsgrad_absent(
    const AdamAmsgradAbsent* h, const Prologue* p, real_t* w, real_t* m, real_t* v, real_t* vhat
) noexcept nogil:
    cdef real_t first = <real_t>h.beta2 * v[0]
    vhat[0] = first if first > vhat[0] else vhat[0]
    move(p, w, <real_t>h.lr * m[0] / (root(vhat[0]) + <real_t>h.eps))
    m[0] = held(p, <real_t>h.keep1 * m[0])
    v[0] = held_square(p, <real_t>h.keep2 * v[0])


# Momentum where decay alone makes the gradient: a linear map of the parameter and its moment. `ww` comes without its 1.
ctypedef struct DecayedMomentumAbsent:
    double ww
    double wm
    double mw
    double mm

cdef inline void decayed_momentum_absent(const DecayedMomentumAbsent* h, real_t* w, real_t* m) noexcept nogil:
    cdef real_t old = w[0]
    w[0] += <real_t>h.ww * old + <real_t>h.wm * m[0]
    m[0] = <real_t>h.mw * old + <real_t>h.mm * m[0]


ctypedef fused rule_t:
    Gradient
    Sgd
    SgdMomentum
    SgdNesterov
    Momentum
    MomentumNesterov
    Adam
    AdamNesterov
    AdamAmsgrad
    AdamWeightDecay
    Adamax
    Adagrad
    AdagradFrozen
    Adadelta
    Asgd
    Rprop
    Ftrl
    FtrlPower
    ProximalAdagrad
    Rmsprop
    RmspropCentered
    Lamb
    Adafactor
    AdafactorMomentum
    MomentumAbsent
    AdamAbsent
    AdamAmsgradAbsent
    DecayedMomentumAbsent

# rules whose loop exists twice: see `is_safe`
ctypedef fused fast_t:
    Sgd
    SgdMomentum
    SgdNesterov
    Momentum
    MomentumNesterov
    Adam
    AdamNesterov
    AdamAmsgrad
    AdamWeightDecay
    Adamax
    Adagrad
    Adadelta
    Rmsprop
    Ftrl
    ProximalAdagrad
    Adafactor
    AdafactorMomentum

# rules that read the decay themselves: their gradient goes without
ctypedef fused decoupled_t:
    AdamWeightDecay
    Lamb
    Adafactor
    AdafactorMomentum

# rules that may take a parameter as matrices: they heed `factored`
ctypedef fused matrix_t:
    Adafactor
    AdafactorMomentum


cdef inline bint is_safe(const rule_t* h, const Prologue* p) noexcept nogil:
    """Tell whether steps are finite wherever slots are, so that the loop need not hold them.

    Slots may become infinite then, by an overflow, which `settle` mends after the loop.
    """
    # gradients are infinite at most where the prologue overflows, or w is infinite and decayed
    cdef bint finite = p.decay == 0 and not p.most <= p.largest
    if rule_t is Sgd:
        return finite and 0 < h.lr <= 1
    elif rule_t is SgdMomentum or rule_t is SgdNesterov:
        return 0 < h.lr <= 1 and h.keep <= 1 and 0 < h.take <= 1
    elif rule_t is Momentum or rule_t is MomentumNesterov:
        return 0 < h.lr <= 1 and h.momentum <= 1
    # m decays no slower than the root of v, so that their ratio stays bounded
    elif rule_t is Adam or rule_t is AdamNesterov or rule_t is AdamAmsgrad:
        return 0 < h.lr <= 1 and h.beta1 * h.beta1 <= h.beta2
    elif rule_t is AdamWeightDecay:
        return 0 < h.lr <= 1 and h.beta1 * h.beta1 <= h.beta2 and p.decay <= 1
    elif rule_t is Adafactor or rule_t is AdafactorMomentum:
        return h.lr * p.trust <= 1 and h.lr * p.decay <= 1 and not p.most <= p.largest
    elif rule_t is Adamax:
        return 0 < h.lr <= 1 and h.beta1 <= h.beta2 and h.eps <= 1
    elif rule_t is Adagrad:
        return finite and 0 < h.lr <= 1 and 1e-30 <= h.eps <= 1
    # the sum of squares has (1 - rho) * g * g in it, so that it bounds the quotient; the product over it is held
    elif rule_t is Adadelta:
        return finite and 0 < h.lr <= 1 and 0 <= h.rho <= 0.999999 and 1e-30 <= h.eps <= 1
    # w stays below MAX / 1e8 unless l2 and the sum of squares are 0, and then it is 0
    elif rule_t is Ftrl:
        return finite and 1e-6 <= h.lr <= 1 and h.l1 <= 1e6 and h.l2 <= 1e6
    # a rate is at most the reciprocal of the root of the smallest number
    elif rule_t is ProximalAdagrad:
        return finite and 0 < h.lr <= 1 and 0 <= h.l1 <= 1e6 and 0 <= h.l2 <= 1e6
    elif rule_t is Rmsprop:
        return finite and 0 < h.lr <= 1 and h.decay <= 0.999999 and h.momentum <= 0.999999 and h.eps <= 1
    else:
        return False


# LARS, around another rule: a factor of the gradient. Norms are of the parameter and of the gradient as it came.
ctypedef struct LarsNumbers:
    double coefficient
    double epsilon
    double unscale          # of the gradient: clip times the reciprocal of the loss scale
    double is_clipped       # whether the factor must not raise the rate
    double rate             # of the wrapped optimizer
    double decay            # without the loss scale
    double is_adapted       # whether there is a factor at all

cdef inline double lars_ratio(const LarsNumbers* numbers, double norm, double gradient_norm) noexcept nogil:
    # the norm of an infinite parameter is held, so that it makes no NaN; that of a NaN stays one
    norm, gradient_norm = held_double(norm), held_double(gradient_norm)
    cdef double divisor = held_double(gradient_norm * numbers.unscale + numbers.decay * norm + numbers.epsilon)
    cdef double ratio = held_double(held_double(numbers.coefficient * norm) / divisor) if divisor != 0 else 0
    if numbers.is_clipped:
        ratio = clamp(ratio / numbers.rate if numbers.rate > 0 else 1.0, 0.0, 1.0)
    return ratio if numbers.is_adapted else 1


# ---- measures: two quantities per element whose squares are summed over a parameter

ctypedef struct Norm:
    double lr               # not used

cdef inline void norm(real_t w, real_t g, double* x, double* y) noexcept nogil:
    x[0] = <double>w
    y[0] = <double>g


# g - g is 0 for every finite g and NaN for all others
ctypedef struct Finite:
    double lr               # not used

cdef inline void finite(real_t g, double* x, double* y) noexcept nogil:
    x[0] = 0
    y[0] = <double>(g - g)


ctypedef struct GradientNorm:
    double lr               # not used

cdef inline void gradient_norm(real_t g, double* x, double* y) noexcept nogil:
    x[0] = 0
    y[0] = <double>g


cdef inline real_t settled(real_t x, bint decays) noexcept nogil:
    """Return a slot as it is kept: finite, and if it decays not subnormal."""
    if real_t is float:
        x = clamp(x, -FLT_MAX, FLT_MAX)
        return <real_t>0 if decays and magnitude(x) < FLT_MIN else x
    else:
        x = clamp(x, -DBL_MAX, DBL_MAX)
        return <real_t>0 if decays and magnitude(x) < DBL_MIN else x


# Slots that decay, as bits 1, 2 and 4.
cdef inline int decaying_slots(const rule_t* h) noexcept nogil:
    if rule_t is SgdMomentum or rule_t is SgdNesterov or rule_t is Momentum or rule_t is MomentumNesterov:
        return 1
    elif rule_t is Adafactor:
        return 1
    elif rule_t is RmspropCentered:
        return 7
    elif (
        rule_t is Adam or rule_t is AdamNesterov or rule_t is AdamAmsgrad or rule_t is AdamWeightDecay
        or rule_t is Adamax or rule_t is Adadelta or rule_t is Rmsprop or rule_t is Lamb or rule_t is AdafactorMomentum
    ):
        return 3
    else:
        return 0


ctypedef fused measure_t:
    Norm
    GradientNorm
    Finite
    Lamb
    Adafactor

# measures that see gradients as they came
ctypedef fused raw_t:
    Norm
    GradientNorm
    Finite

# measures of gradients alone: the first quantity is 0
ctypedef fused gradient_only_t:
    GradientNorm
    Finite
