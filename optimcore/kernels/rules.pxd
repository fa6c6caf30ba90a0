# cython: cdivision=True, boundscheck=False, wraparound=False
"""Rules: the formula of every optimizer, one element at a time, and the hyperparameters that it takes.

A struct holds the hyperparameters of one step, as doubles, the learning rate first; the formula casts each of
them once to the compute type. `w` is the parameter, `g` the gradient after the prologue, the rest are slots.
To add a rule: its struct and formula here, its name in `rule_t`, one branch and one line in `_isa.pxi`, and its name in
`slot1_t` or `slot2_t` there if it has so many slots.
"""
from libc.float cimport DBL_MAX, FLT_MAX
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
    # a NaN stays one
    return most if x > most else (least if x < least else x)


# What happens to a gradient before any rule sees it: clip, decay, centralize, unscale, in this order.
ctypedef struct Prologue:
    double clip             # factor of clipping by norm, 1: none
    double decay            # weight decay times loss scale, 0: none
    double mean             # of the decayed gradient over one output channel, 0: not centralized
    double scale            # reciprocal of the loss scale, 1: none
    double trust            # factor of the rate for rules that have one per parameter
    bint factored           # the first slot only holds factors of the gradient, for rules over matrices
    Rounding rounding


cdef inline void clip(const Prologue* p, real_t* g) noexcept nogil:
    g[0] *= <real_t>p.clip

cdef inline void decay(const Prologue* p, real_t* g, real_t w) noexcept nogil:
    # gradients still carry the loss scale, so decay does too; a gradient without decay keeps even the sign of zero
    g[0] = g[0] + w * <real_t>p.decay if p.decay != 0 else g[0]

cdef inline void centralize_and_unscale(const Prologue* p, real_t* g) noexcept nogil:
    g[0] = (g[0] - <real_t>p.mean) * <real_t>p.scale


# The prologue alone: writes the prepared gradient and leaves the parameter as it is.
ctypedef struct Gradient:
    double lr               # not used

cdef inline void gradient(real_t g, real_t* out) noexcept nogil:
    out[0] = g


ctypedef struct Sgd:
    double lr

cdef inline void sgd(const Sgd* h, real_t* w, real_t g) noexcept nogil:
    w[0] -= <real_t>h.lr * g


# keep, take: momentum and 1 - dampening, but 0 and 1 on the first step of a parameter, which skips dampening
ctypedef struct SgdMomentum:
    double lr
    double momentum
    double keep
    double take

cdef inline void sgd_momentum(const SgdMomentum* h, real_t* w, real_t g, real_t* acc) noexcept nogil:
    acc[0] = <real_t>h.keep * acc[0] + <real_t>h.take * g
    w[0] -= <real_t>h.lr * acc[0]


ctypedef struct SgdNesterov:
    double lr
    double momentum
    double keep
    double take

cdef inline void sgd_nesterov(const SgdNesterov* h, real_t* w, real_t g, real_t* acc) noexcept nogil:
    acc[0] = <real_t>h.keep * acc[0] + <real_t>h.take * g
    w[0] -= <real_t>h.lr * (g + <real_t>h.momentum * acc[0])


ctypedef struct Momentum:
    double lr
    double momentum

cdef inline void momentum(const Momentum* h, real_t* w, real_t g, real_t* m) noexcept nogil:
    m[0] = <real_t>h.momentum * m[0] + g
    w[0] -= <real_t>h.lr * m[0]


ctypedef struct MomentumNesterov:
    double lr
    double momentum

cdef inline void momentum_nesterov(const MomentumNesterov* h, real_t* w, real_t g, real_t* m) noexcept nogil:
    m[0] = <real_t>h.momentum * m[0] + g
    w[0] -= <real_t>h.lr * (g + <real_t>h.momentum * m[0])


# lr of the three Adam rules already holds the bias correction sqrt(1 - beta2^t) / (1 - beta1^t); eps stays outside
# the root
ctypedef struct Adam:
    double lr
    double beta1
    double beta2
    double eps

cdef inline void adam(const Adam* h, real_t* w, real_t g, real_t* m, real_t* v) noexcept nogil:
    m[0] += (g - m[0]) * <real_t>(1 - h.beta1)
    v[0] += (g * g - v[0]) * <real_t>(1 - h.beta2)
    w[0] -= <real_t>h.lr * m[0] / (root(v[0]) + <real_t>h.eps)


ctypedef struct AdamNesterov:
    double lr
    double beta1
    double beta2
    double eps

cdef inline void adam_nesterov(const AdamNesterov* h, real_t* w, real_t g, real_t* m, real_t* v) noexcept nogil:
    m[0] += (g - m[0]) * <real_t>(1 - h.beta1)
    v[0] += (g * g - v[0]) * <real_t>(1 - h.beta2)
    w[0] -= <real_t>h.lr * (<real_t>h.beta1 * m[0] + <real_t>(1 - h.beta1) * g) / (root(v[0]) + <real_t>h.eps)


ctypedef struct AdamAmsgrad:
    double lr
    double beta1
    double beta2
    double eps

cdef inline void adam_amsgrad(
    const AdamAmsgrad* h, real_t* w, real_t g, real_t* m, real_t* v, real_t* vhat
) noexcept nogil:
    m[0] += (g - m[0]) * <real_t>(1 - h.beta1)
    v[0] += (g * g - v[0]) * <real_t>(1 - h.beta2)
    vhat[0] = v[0] if v[0] > vhat[0] else vhat[0]
    w[0] -= <real_t>h.lr * m[0] / (root(vhat[0]) + <real_t>h.eps)


# Decay is apart from the gradient: it reaches the parameter undivided by the root. No bias correction.
ctypedef struct AdamWeightDecay:
    double lr
    double beta1
    double beta2
    double eps

cdef inline void adam_weight_decay(
    const AdamWeightDecay* h, const Prologue* p, real_t* w, real_t g, real_t* m, real_t* v
) noexcept nogil:
    m[0] += (g - m[0]) * <real_t>(1 - h.beta1)
    v[0] += (g * g - v[0]) * <real_t>(1 - h.beta2)
    w[0] -= <real_t>h.lr * (m[0] / (root(v[0]) + <real_t>h.eps) + <real_t>p.decay * w[0])


# lr already holds the bias correction 1 / (1 - beta1^t)
ctypedef struct Adamax:
    double lr
    double beta1
    double beta2
    double eps

cdef inline void adamax(const Adamax* h, real_t* w, real_t g, real_t* m, real_t* v) noexcept nogil:
    m[0] += (g - m[0]) * <real_t>(1 - h.beta1)
    v[0] *= <real_t>h.beta2
    v[0] = v[0] if v[0] > magnitude(g) else magnitude(g)
    w[0] -= <real_t>h.lr * m[0] / (v[0] + <real_t>h.eps)


ctypedef struct Adagrad:
    double lr
    double eps

cdef inline void adagrad(const Adagrad* h, real_t* w, real_t g, real_t* acc) noexcept nogil:
    acc[0] += g * g
    w[0] -= <real_t>h.lr * g / root(acc[0] + <real_t>h.eps)


# Adagrad that keeps its accumulator as it is
ctypedef struct AdagradFrozen:
    double lr
    double eps

cdef inline void adagrad_frozen(const AdagradFrozen* h, real_t* w, real_t g, const real_t* acc) noexcept nogil:
    w[0] -= <real_t>h.lr * g / root(acc[0] + <real_t>h.eps)


# acc, acc_update: mean squares of the gradient and of the movement
ctypedef struct Adadelta:
    double lr
    double rho
    double eps

cdef inline void adadelta(const Adadelta* h, real_t* w, real_t g, real_t* acc, real_t* acc_update) noexcept nogil:
    acc[0] = <real_t>h.rho * acc[0] + <real_t>(1 - h.rho) * g * g
    cdef real_t delta = root(acc_update[0] + <real_t>h.eps) * g / root(acc[0] + <real_t>h.eps)
    acc_update[0] = <real_t>h.rho * acc_update[0] + <real_t>(1 - h.rho) * delta * delta
    w[0] -= <real_t>h.lr * delta


# lr: eta of this step; keep: 1 - lambd * eta; mu: weight of the parameter in its average, 1 replaces the average
ctypedef struct Asgd:
    double lr
    double keep
    double mu

cdef inline void asgd(const Asgd* h, real_t* w, real_t g, real_t* average) noexcept nogil:
    w[0] = w[0] * <real_t>h.keep - <real_t>h.lr * g
    average[0] = w[0] if h.mu == 1 else average[0] + (w[0] - average[0]) * <real_t>h.mu


# first: not 0 in the first step of a parameter, the only one in which lr counts
ctypedef struct Rprop:
    double lr
    double minus
    double plus
    double least
    double most
    double first

cdef inline void rprop(const Rprop* h, real_t* w, real_t g, real_t* previous, real_t* size) noexcept nogil:
    # the product of the signs, because that of the gradients may underflow
    cdef real_t agree = sign(g) * sign(previous[0])
    cdef real_t factor = <real_t>h.plus if agree > <real_t>0 else (<real_t>h.minus if agree < <real_t>0 else <real_t>1)
    size[0] = (<real_t>h.lr if h.first != 0 else size[0]) * factor
    size[0] = clamp(size[0], <real_t>h.least, <real_t>h.most)
    previous[0] = <real_t>0 if agree < <real_t>0 else g
    w[0] -= sign(previous[0]) * size[0]


# The two FTRL rules differ in how fast the rate falls: n^(-1/2), or n^power with a power <= 0 at the price of `pow`.
ctypedef struct Ftrl:
    double lr
    double l1
    double l2

cdef inline void ftrl(const Ftrl* h, real_t* w, real_t g, real_t* acc, real_t* linear) noexcept nogil:
    cdef real_t old = root(acc[0])
    acc[0] += g * g
    ftrl_solve(w, g, linear, old, root(acc[0]), <real_t>(1 / h.lr), <real_t>h.l1, <real_t>(2 * h.l2))


ctypedef struct FtrlPower:
    double lr
    double l1
    double l2
    double power

cdef inline void ftrl_power(const FtrlPower* h, real_t* w, real_t g, real_t* acc, real_t* linear) noexcept nogil:
    cdef real_t old = power(acc[0], <real_t>-h.power)
    acc[0] += g * g
    cdef real_t new = power(acc[0], <real_t>-h.power)
    ftrl_solve(w, g, linear, old, new, <real_t>(1 / h.lr), <real_t>h.l1, <real_t>(2 * h.l2))


cdef inline void ftrl_solve(
    real_t* w, real_t g, real_t* linear, real_t old, real_t new, real_t inverse_lr, real_t l1, real_t twice_l2
) noexcept nogil:
    """Minimize the FTRL model of the loss, whose curvature grows from `old` to `new` over the rate."""
    linear[0] += g - (new - old) * inverse_lr * w[0]
    cdef real_t solution = (clamp(linear[0], -l1, l1) - linear[0]) / (new * inverse_lr + twice_l2)
    # not only a shortcut: 0 / 0 where there has been no gradient yet
    w[0] = <real_t>0 if magnitude(linear[0]) <= l1 else solution


ctypedef struct ProximalAdagrad:
    double lr
    double l1
    double l2

cdef inline void proximal_adagrad(const ProximalAdagrad* h, real_t* w, real_t g, real_t* acc) noexcept nogil:
    acc[0] += g * g
    cdef real_t rate = <real_t>h.lr / root(acc[0])
    cdef real_t threshold = rate * <real_t>h.l1
    w[0] -= rate * g
    w[0] = (w[0] - clamp(w[0], -threshold, threshold)) / (<real_t>1 + <real_t>h.l2 * rate)


# In both RMSProp rules eps is inside the root.
ctypedef struct Rmsprop:
    double lr
    double decay
    double momentum
    double eps

cdef inline void rmsprop(const Rmsprop* h, real_t* w, real_t g, real_t* ms, real_t* moment) noexcept nogil:
    ms[0] += (g * g - ms[0]) * <real_t>(1 - h.decay)
    moment[0] = <real_t>h.momentum * moment[0] + <real_t>h.lr * g / root(ms[0] + <real_t>h.eps)
    w[0] -= moment[0]


ctypedef struct RmspropCentered:
    double lr
    double decay
    double momentum
    double eps

cdef inline void rmsprop_centered(
    const RmspropCentered* h, real_t* w, real_t g, real_t* ms, real_t* moment, real_t* mg
) noexcept nogil:
    ms[0] += (g * g - ms[0]) * <real_t>(1 - h.decay)
    mg[0] += (g - mg[0]) * <real_t>(1 - h.decay)
    cdef real_t variance = ms[0] - mg[0] * mg[0] + <real_t>h.eps
    cdef real_t moved = <real_t>h.momentum * moment[0] + <real_t>h.lr * g / root(variance)
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

cdef inline void lamb_moments(const Lamb* h, real_t g, real_t* m, real_t* v) noexcept nogil:
    m[0] += (g - m[0]) * <real_t>(1 - h.beta1)
    v[0] += (g * g - v[0]) * <real_t>(1 - h.beta2)

cdef inline void lamb(const Lamb* h, const Prologue* p, real_t* w, real_t g, real_t* m, real_t* v) noexcept nogil:
    lamb_moments(h, g, m, v)
    cdef real_t direction = m[0] * <real_t>h.m_correction / (root(v[0] * <real_t>h.v_correction) + <real_t>h.eps)
    w[0] -= <real_t>(h.lr * p.trust) * (direction + <real_t>p.decay * w[0])

# The direction whose norm counts has eps inside the root, unlike the one that is taken.
cdef inline void lamb_norms(
    const Lamb* h, const Prologue* p, real_t w, real_t g, real_t m, real_t v, double* x, double* y
) noexcept nogil:
    lamb_moments(h, g, &m, &v)
    cdef real_t direction = m * <real_t>h.m_correction / root(v * <real_t>h.v_correction + <real_t>h.eps)
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
    m[0] = <real_t>h.beta1 * m[0] + <real_t>(1 - h.beta1) * step
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
    return 1 if not numbers.is_scaled else (numbers.least if size < numbers.least else size)

cdef inline double adafactor_trust(const AdafactorNumbers* numbers, double size, double direction) noexcept nogil:
    cdef double excess = direction / numbers.threshold
    return size / (1 if excess < 1 else excess)

cdef inline real_t adafactor_direction(double eps, double beta2, const Prologue* p, real_t g, real_t* v) noexcept nogil:
    # of a matrix, the mean squares of rows and columns are up to date, and v is what they make of an element
    v[0] = v[0] if p.factored else adafactor_mean(eps, beta2, g * g, v[0])
    return g * v[0] if p.factored else g / root(v[0])

cdef inline real_t adafactor_mean(double eps, double beta2, real_t square, real_t v) noexcept nogil:
    # not v + (square - v) * (1 - beta2): that may round to 0, and a zero gradient then makes 0 / 0
    return <real_t>beta2 * v + <real_t>(1 - beta2) * (square + <real_t>eps)

cdef inline void adafactor_move(double lr, const Prologue* p, real_t* w, real_t step) noexcept nogil:
    w[0] = w[0] - <real_t>(lr * p.decay) * w[0] - step

cdef inline void adafactor_factor(double row, double column, real_t* factor) noexcept nogil:
    # finite where row and column are without a gradient, for it is 0 there
    cdef double most = <double>FLT_MAX if real_t is float else DBL_MAX
    factor[0] = <real_t>(most if row * column > most else row * column)


# ---- absent rows: what several steps with a gradient of 0 do at once. `backlog.pyx` sums up the steps.

# lr: sum of rate times decay of the moment over the steps; keep: decay over all of them
ctypedef struct MomentumAbsent:
    double lr
    double keep

cdef inline void momentum_absent(const MomentumAbsent* h, real_t* w, real_t* m) noexcept nogil:
    w[0] -= <real_t>h.lr * m[0]
    m[0] *= <real_t>h.keep


# Two points stand for the steps: lr as above, root: decay of the root of v
ctypedef struct AdamAbsent:
    double lr0
    double lr1
    double root0
    double root1
    double keep1
    double keep2
    double eps

cdef inline void adam_absent(const AdamAbsent* h, real_t* w, real_t* m, real_t* v) noexcept nogil:
    cdef real_t r = root(v[0])
    cdef real_t rate0 = <real_t>h.lr0 / (<real_t>h.root0 * r + <real_t>h.eps)
    cdef real_t rate1 = <real_t>h.lr1 / (<real_t>h.root1 * r + <real_t>h.eps)
    w[0] -= (rate0 + rate1) * m[0]
    m[0] *= <real_t>h.keep1
    v[0] *= <real_t>h.keep2


# While v decays, the largest v stays what it is after the first step.
ctypedef struct AdamAmsgradAbsent:
    double lr
    double keep1
    double keep2
    double beta2
    double eps

cdef inline void adam_amsgrad_absent(
    const AdamAmsgradAbsent* h, real_t* w, real_t* m, real_t* v, real_t* vhat
) noexcept nogil:
    cdef real_t first = <real_t>h.beta2 * v[0]
    vhat[0] = first if first > vhat[0] else vhat[0]
    w[0] -= <real_t>h.lr * m[0] / (root(vhat[0]) + <real_t>h.eps)
    m[0] *= <real_t>h.keep1
    v[0] *= <real_t>h.keep2


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
    cdef double divisor = gradient_norm * numbers.unscale + numbers.decay * norm + numbers.epsilon
    cdef double ratio = numbers.coefficient * norm / divisor if divisor != 0 else 0
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
