/* 16-bit storage types: exact conversion to and from float32.
 *
 * In integer arithmetic, because gcc does not vectorize _Float16 and F16C is not on every machine: these operations
 * vectorize on every ISA. Where the CPU converts float16 by itself it gives the same bits, sooner. Rounding is to
 * nearest, ties to even. Every selection is a ternary on values that are always computed, so that the loops around
 * them stay free of branches.
 */
#ifndef OPTIMCORE_STORAGE_H
#define OPTIMCORE_STORAGE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>
#if defined(__F16C__) || defined(__AVX512F__)
#include <immintrin.h>
#endif

static inline float float32_from_bits(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline uint32_t float32_bits(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline float float32_from_float16(uint16_t half) {
    uint32_t magnitude = half & 0x7fffu;
    uint32_t sign = (uint32_t)(half & 0x8000u) << 16;
    /* exponent bias 127 - 15 = 112; infinity and NaN move from exponent 31 to 255 */
    uint32_t rebias = magnitude >= 0x7c00u ? 0x70000000u : 0x38000000u;
    uint32_t normal = (magnitude << 13) + rebias;
    /* a subnormal is a count of 2^-24; going through an integer does not depend on the denormals-are-zero mode */
    uint32_t subnormal = float32_bits((float)(int32_t)magnitude * 0x1p-24f);
    return float32_from_bits(sign | (magnitude < 0x0400u ? subnormal : normal));
}

static inline uint16_t float16_from_float32(float value) {
    uint32_t bits = float32_bits(value);
    uint32_t magnitude = bits & 0x7fffffffu;
    uint32_t sign = (bits >> 16) & 0x8000u;
    uint32_t normal = (magnitude - 0x38000000u + 0x0fffu + ((magnitude >> 13) & 1u)) >> 13;
    /* below 2^-14: adding 1/2 makes the last bit of the sum worth 2^-24, and the addition itself rounds to even */
    uint32_t subnormal = float32_bits(float32_from_bits(magnitude) + 0.5f) - 0x3f000000u;
    uint32_t finite = magnitude < 0x38800000u ? subnormal : normal;
    uint32_t infinite_or_nan = magnitude > 0x7f800000u ? 0x7e00u | ((magnitude >> 13) & 0x03ffu) : 0x7c00u;
    /* 65520 = 0x477ff000 is the first value that rounds to infinity */
    return (uint16_t)(sign | (magnitude >= 0x477ff000u ? infinite_or_nan : finite));
}

/* As float16_from_float32, but up or down by chance, so that the expected value is exact. `random` is uniform in 32 bits.
 * What lies beyond the largest finite value is rounded to nearest. */
static inline uint16_t float16_from_float32_stochastic(float value, uint32_t random) {
    uint32_t bits = float32_bits(value);
    uint32_t magnitude = bits & 0x7fffffffu;
    uint32_t sign = (bits >> 16) & 0x8000u;
    uint32_t normal = (magnitude - 0x38000000u + (random & 0x1fffu)) >> 13;
    /* a count of 2^-24 plus a draw below 1, cut off; the selection of the magnitude only keeps unused lanes in an int */
    float count = float32_from_bits(magnitude < 0x38800000u ? magnitude : 0u) * 0x1p24f;
    /* from 1 on 14 bits of the draw: more would be rounded away in the sum, and up to the next count */
    uint32_t draw = magnitude < 0x33800000u ? random >> 8 : (random >> 18) << 10;
    uint32_t subnormal = (uint32_t)(int32_t)(count + (float)(int32_t)draw * 0x1p-24f);
    uint32_t finite = magnitude < 0x38800000u ? subnormal : normal;
    return magnitude > 0x477fe000u ? float16_from_float32(value) : (uint16_t)(sign | finite);
}

static inline float float32_from_bfloat16(uint16_t bfloat) {
    return float32_from_bits((uint32_t)bfloat << 16);
}

static inline uint16_t bfloat16_from_float32(float value) {
    uint32_t bits = float32_bits(value);
    uint32_t rounded = bits + 0x7fffu + ((bits >> 16) & 1u);
    uint32_t nan = (bits & 0x80000000u) | 0x7fc00000u;
    /* selected before the shift: in 16 bits gcc would narrow the one and widen it again */
    return (uint16_t)((value != value ? nan : rounded) >> 16);
}

static inline uint16_t bfloat16_from_float32_stochastic(float value, uint32_t random) {
    uint32_t bits = float32_bits(value);
    uint32_t rounded = (bits + (random & 0xffffu)) >> 16;
    return (bits & 0x7fffffffu) > 0x7f7f0000u ? bfloat16_from_float32(value) : (uint16_t)rounded;
}

/* A counter-based generator: 32 bits for element `i` under two keys, two rounds of multiply and xor-shift. */
static inline uint32_t random_bits(uint32_t i, uint32_t key0, uint32_t key1) {
    uint32_t x = i * 0x9e3779b9u + key0;
    x ^= x >> 16;
    x *= 0x7feb352du;
    x ^= (x >> 15) ^ key1;
    x *= 0x846ca68bu;
    return x ^ (x >> 16);
}

/* ---- n values at once; they must not overlap */

static inline void float32s_from_float16(float *restrict to, const uint16_t *restrict from, ptrdiff_t n) {
    ptrdiff_t i = 0;
#if defined(__AVX512F__)
    for (; i + 16 <= n; i += 16)
        _mm512_storeu_ps(to + i, _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(from + i))));
#elif defined(__F16C__)
    for (; i + 8 <= n; i += 8)
        _mm256_storeu_ps(to + i, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(from + i))));
#endif
    for (; i < n; i++)
        to[i] = float32_from_float16(from[i]);
}

static inline void float16s_from_float32(uint16_t *restrict to, const float *restrict from, ptrdiff_t n) {
    ptrdiff_t i = 0;
#if defined(__AVX512F__)
    for (; i + 16 <= n; i += 16)
        _mm256_storeu_si256((__m256i *)(to + i), _mm512_cvtps_ph(_mm512_loadu_ps(from + i), _MM_FROUND_TO_NEAREST_INT));
#elif defined(__F16C__)
    for (; i + 8 <= n; i += 8)
        _mm_storeu_si128((__m128i *)(to + i), _mm256_cvtps_ph(_mm256_loadu_ps(from + i), _MM_FROUND_TO_NEAREST_INT));
#endif
    for (; i < n; i++)
        to[i] = float16_from_float32(from[i]);
}

static inline void bfloat16s_from_float32(uint16_t *restrict to, const float *restrict from, ptrdiff_t n) {
    for (ptrdiff_t i = 0; i < n; i++)
        to[i] = bfloat16_from_float32(from[i]);
}

/* the first value is element number `first` */
static inline void float16s_from_float32_stochastic(
    uint16_t *restrict to, const float *restrict from, ptrdiff_t n, uint32_t first, uint32_t key0, uint32_t key1
) {
    for (ptrdiff_t i = 0; i < n; i++)
        to[i] = float16_from_float32_stochastic(from[i], random_bits(first + (uint32_t)i, key0, key1));
}

static inline void bfloat16s_from_float32_stochastic(
    uint16_t *restrict to, const float *restrict from, ptrdiff_t n, uint32_t first, uint32_t key0, uint32_t key1
) {
    for (ptrdiff_t i = 0; i < n; i++)
        to[i] = bfloat16_from_float32_stochastic(from[i], random_bits(first + (uint32_t)i, key0, key1));
}

#endif
