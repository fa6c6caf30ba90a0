# cython: cdivision=True, boundscheck=False, wraparound=False
"""Storage layouts: how a parameter, its gradient and its slots lie in memory.

A layout is five pointers. Parameters and gradients have a storage type; slots always have the compute type,
which is float for every layout but `Float64`. A rule that has fewer slots leaves the rest NULL. `zero` is 0 in the
compute type: from it, code that is generic over layouts infers the type of its variables.
"""
from libc.stdint cimport uint16_t, uint32_t

cdef extern from "storage.h":
    float float32_from_float16(uint16_t half) noexcept nogil
    float float32_from_bfloat16(uint16_t bfloat) noexcept nogil
    void float32s_from_float16(float* to, const uint16_t* values, Py_ssize_t n) noexcept nogil
    void float16s_from_float32(uint16_t* to, const float* values, Py_ssize_t n) noexcept nogil
    void bfloat16s_from_float32(uint16_t* to, const float* values, Py_ssize_t n) noexcept nogil
    void float16s_from_float32_stochastic(
        uint16_t* to, const float* values, Py_ssize_t n, uint32_t first, uint32_t key0, uint32_t key1) noexcept nogil
    void bfloat16s_from_float32_stochastic(
        uint16_t* to, const float* values, Py_ssize_t n, uint32_t first, uint32_t key0, uint32_t key1) noexcept nogil

# How the 16-bit storage types are written.
ctypedef struct Rounding:
    bint stochastic         # else to nearest even
    uint32_t key0           # from seed, step and parameter
    uint32_t key1

ctypedef struct Float32:
    float* w
    const float* g
    float* slot0
    float* slot1
    float* slot2
    float zero

ctypedef struct Float64:
    double* w
    const double* g
    double* slot0
    double* slot1
    double* slot2
    double zero

ctypedef struct Float16:
    uint16_t* w
    const uint16_t* g
    float* slot0
    float* slot1
    float* slot2
    float zero

ctypedef struct BFloat16:
    uint16_t* w
    const uint16_t* g
    float* slot0
    float* slot1
    float* slot2
    float zero

# 16-bit parameters whose gradient is already in the compute type
ctypedef struct Float16Mixed:
    uint16_t* w
    const float* g
    float* slot0
    float* slot1
    float* slot2
    float zero

ctypedef struct BFloat16Mixed:
    uint16_t* w
    const float* g
    float* slot0
    float* slot1
    float* slot2
    float zero

ctypedef fused layout_t:
    Float32
    Float64
    Float16
    BFloat16
    Float16Mixed
    BFloat16Mixed

# layouts whose parameters have the compute type, and those of 16 bits
ctypedef fused wide_t:
    Float32
    Float64

ctypedef fused narrow_t:
    Float16
    BFloat16
    Float16Mixed
    BFloat16Mixed

ctypedef fused compute_t:
    float
    double


# The pairs of layout and compute type that do not belong together have no body; nothing calls them.
cdef inline void load(const layout_t* a, Py_ssize_t i, compute_t* w, compute_t* g) noexcept nogil:
    """Read element i of the parameter and its gradient in the compute type."""
    if layout_t is Float64 and compute_t is double:
        w[0] = a.w[i]
        g[0] = a.g[i]
    elif layout_t is Float32 and compute_t is float:
        w[0] = a.w[i]
        g[0] = a.g[i]
    elif layout_t is Float16 and compute_t is float:
        w[0] = float32_from_float16(a.w[i])
        g[0] = float32_from_float16(a.g[i])
    elif layout_t is BFloat16 and compute_t is float:
        w[0] = float32_from_bfloat16(a.w[i])
        g[0] = float32_from_bfloat16(a.g[i])
    elif layout_t is Float16Mixed and compute_t is float:
        w[0] = float32_from_float16(a.w[i])
        g[0] = a.g[i]
    elif layout_t is BFloat16Mixed and compute_t is float:
        w[0] = float32_from_bfloat16(a.w[i])
        g[0] = a.g[i]


cdef inline void load_gradient(const layout_t* a, Py_ssize_t i, compute_t* g) noexcept nogil:
    """Read element i of the gradient alone: there may be no parameter."""
    if layout_t is Float64 and compute_t is double:
        g[0] = a.g[i]
    elif (layout_t is Float32 or layout_t is Float16Mixed or layout_t is BFloat16Mixed) and compute_t is float:
        g[0] = a.g[i]
    elif layout_t is Float16 and compute_t is float:
        g[0] = float32_from_float16(a.g[i])
    elif layout_t is BFloat16 and compute_t is float:
        g[0] = float32_from_bfloat16(a.g[i])


# index of a layout in the kernel tables
cdef enum Layout:
    FLOAT32
    FLOAT64
    FLOAT16
    BFLOAT16
    FLOAT16_MIXED
    BFLOAT16_MIXED
    LAYOUTS

# what the layouts have in common, for code that does not look behind the pointers
ctypedef struct Arrays:
    void* w
    const void* g
    void* slot0
    void* slot1
    void* slot2
    double zero
