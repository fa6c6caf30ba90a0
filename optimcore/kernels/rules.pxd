# cython: cdivision=True, boundscheck=False, wraparound=False
"""Rules: the formula of every optimizer, one element at a time, and the hyperparameters that it takes.

A struct holds the hyperparameters of one step, as doubles, the learning rate first; the formula casts each of
them once to the compute type. `w` is the parameter, `g` the gradient after the prologue, the rest are slots.
To add a rule: its struct and formula here, its name in `rule_t`, one branch and one line in `_isa.pxi`.
"""
from libc.math cimport sqrt, sqrtf

from .storage cimport Rounding

ctypedef fused real_t:
    float
    double


cdef inline real_t root(real_t x) noexcept nogil:
    if real_t is float:
        return sqrtf(x)
    else:
        return sqrt(x)


# What happens to a gradient before any rule sees it: clip, decay, centralize, unscale, in this order.
ctypedef struct Prologue:
    double clip             # factor of clipping by norm, 1: none
    double decay            # weight decay times loss scale, 0: none
    double mean             # of the decayed gradient over one output channel, 0: not centralized
    double scale            # reciprocal of the loss scale, 1: none
    double trust            # factor of the rate for rules that have one per parameter
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


# LAMB. Decay is apart from the gradient. The struct also holds 1 / (1 - beta^t), the corrections of the moments' bias;
# trust, the norm of the parameter over that of its direction, comes from a pass that measures both.
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
    Lamb

# rules that read the decay themselves: their gradient goes without
ctypedef fused decoupled_t:
    Lamb


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


ctypedef fused measure_t:
    Norm
    Finite
    Lamb
