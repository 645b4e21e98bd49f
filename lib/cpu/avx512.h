/* avx512.h: the words that CPU kernels are written in, for AVX-512 (F, BW, DQ, VL).
 *
 * A kernel body (lib/attention/attention_*_body.h) is compiled once for each instruction set by
 * including a header like this one before it; portable.h defines the same words for any machine. A
 * vec holds VEC_WIDTH floats. `part` words touch only the first `count` elements of memory, 0 <=
 * count <= VEC_WIDTH, and give zero in the other lanes.
 *
 * Only files that are compiled with AVX-512 flags may include this one. Next: product_body.h. */
#ifndef PLX_AVX512_H
#define PLX_AVX512_H

#include <immintrin.h>
#include <stdint.h>

typedef __m512 vec;

/* The register tile of a matrix product: 6 x 4 accumulators, 4 vectors of the right operand and one
 * broadcast of the left one are 29 of the 32 registers. 10 loads feed 24 multiply-adds, below one
 * load for each even where one of each starts a cycle (Zen 4) or two do (Intel). */
enum { VEC_WIDTH = 16, PRODUCT_ROWS = 6, PRODUCT_VECTORS = 4 };

static inline vec vec_set(float x)
{
    return _mm512_set1_ps(x);
}

static inline vec vec_load(const float *p)
{
    return _mm512_loadu_ps(p);
}

static inline void vec_store(float *p, vec x)
{
    _mm512_storeu_ps(p, x);
}

static inline __mmask16 vec_mask(int count)
{
    return (__mmask16)((1u << count) - 1);
}

static inline vec vec_load_part(const float *p, int count)
{
    return _mm512_maskz_loadu_ps(vec_mask(count), p);
}

static inline void vec_store_part(float *p, vec x, int count)
{
    _mm512_mask_storeu_ps(p, vec_mask(count), x);
}

/* bf16 is the upper half of a float. */
static inline vec vec_load_bf16(const uint16_t *p)
{
    __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const void *)p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}

static inline vec vec_load_bf16_part(const uint16_t *p, int count)
{
    __m256i half = _mm256_maskz_loadu_epi16(vec_mask(count), p);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

/* Rounds to nearest even; a NaN stays one because its quiet bit is set before the rest is dropped.
 */
static inline void vec_store_bf16_part(uint16_t *p, vec x, int count)
{
    __m512i bits = _mm512_castps_si512(x);
    __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
    rounded = _mm512_mask_or_epi32(rounded, nan, bits, _mm512_set1_epi32(0x400000));
    __m256i half = _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded, 16));
    _mm256_mask_storeu_epi16(p, vec_mask(count), half);
}

static inline vec vec_load_f16(const uint16_t *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const void *)p));
}

static inline vec vec_load_f16_part(const uint16_t *p, int count)
{
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(vec_mask(count), p));
}

/* Rounds to nearest even. */
static inline void vec_store_f16_part(uint16_t *p, vec x, int count)
{
    __m256i half = _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    _mm256_mask_storeu_epi16(p, vec_mask(count), half);
}

/* As dtype_f8_to_f32: the fields move to their places and a product corrects the exponent. */
static inline vec vec_load_f8_part(const uint8_t *p, int count)
{
    __m512i wide = _mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(vec_mask(count), p));
    __m512i size = _mm512_and_si512(wide, _mm512_set1_epi32(0x7f));
    __m512i sign = _mm512_slli_epi32(_mm512_xor_si512(wide, size), 24);
    __mmask16 nan = _mm512_cmpeq_epi32_mask(size, _mm512_set1_epi32(0x7f));
    __m512 value = _mm512_castsi512_ps(_mm512_slli_epi32(size, 20));
    __m512i bits = _mm512_castps_si512(_mm512_mul_ps(value, vec_set(0x1p120f)));
    bits = _mm512_mask_mov_epi32(bits, nan, _mm512_set1_epi32(0x7fc00000));
    return _mm512_castsi512_ps(_mm512_or_si512(bits, sign));
}

static inline vec vec_add(vec a, vec b)
{
    return _mm512_add_ps(a, b);
}

static inline vec vec_sub(vec a, vec b)
{
    return _mm512_sub_ps(a, b);
}

static inline vec vec_mul(vec a, vec b)
{
    return _mm512_mul_ps(a, b);
}

/* a b + c, rounded once. */
static inline vec vec_fma(vec a, vec b, vec c)
{
    return _mm512_fmadd_ps(a, b, c);
}

/* The second operand where either is a NaN. */
static inline vec vec_max(vec a, vec b)
{
    return _mm512_max_ps(a, b);
}

static inline float vec_sum(vec x)
{
    return _mm512_reduce_add_ps(x);
}

static inline float vec_largest(vec x)
{
    return _mm512_reduce_max_ps(x);
}

/* e^x: n is the integer nearest to x log2 e, and a polynomial of degree 6 (interpolating 2^f at the
 * Chebyshev nodes of [-1/2, 1/2], relative error below 6e-9 before rounding) is taken at f = x log2
 * e - n, rounded once; scalef applies n with correct underflow. -infinity gives zero because x is
 * held above a number whose power is zero. */
static inline vec vec_exp(vec x)
{
    const vec log2_e = vec_set(1.44269504f);
    x = vec_max(vec_set(-140.0f), x);
    vec n = _mm512_roundscale_ps(_mm512_mul_ps(x, log2_e),
                                 _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    vec f = _mm512_fmsub_ps(x, log2_e, n);
    vec y = vec_fma(vec_set(1.545316295e-4f), f, vec_set(1.339086336e-3f));
    y = vec_fma(y, f, vec_set(9.618082557e-3f));
    y = vec_fma(y, f, vec_set(5.550357114e-2f));
    y = vec_fma(y, f, vec_set(2.402265076e-1f));
    y = vec_fma(y, f, vec_set(6.931471880e-1f));
    y = vec_fma(y, f, vec_set(1.0f));
    return _mm512_scalef_ps(y, n);
}

/* Transposes a square of VEC_WIDTH vectors in place: lanes of 32 bits, then pairs, then whole
 * groups of 128 bits by two rounds of shuffles. */
static inline void vec_transpose(vec rows[VEC_WIDTH])
{
    vec a[16], b[16];
#pragma GCC unroll 8
    for (int i = 0; i < 16; i += 2) {
        a[i] = _mm512_unpacklo_ps(rows[i], rows[i + 1]);
        a[i + 1] = _mm512_unpackhi_ps(rows[i], rows[i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 16; i += 4) {
        __m512d lo0 = _mm512_castps_pd(a[i]), lo1 = _mm512_castps_pd(a[i + 2]);
        __m512d hi0 = _mm512_castps_pd(a[i + 1]), hi1 = _mm512_castps_pd(a[i + 3]);
        b[i] = _mm512_castpd_ps(_mm512_unpacklo_pd(lo0, lo1));
        b[i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(lo0, lo1));
        b[i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(hi0, hi1));
        b[i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(hi0, hi1));
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        vec even0 = _mm512_shuffle_f32x4(b[i], b[4 + i], 0x88);
        vec odd0 = _mm512_shuffle_f32x4(b[i], b[4 + i], 0xdd);
        vec even1 = _mm512_shuffle_f32x4(b[8 + i], b[12 + i], 0x88);
        vec odd1 = _mm512_shuffle_f32x4(b[8 + i], b[12 + i], 0xdd);
        rows[i] = _mm512_shuffle_f32x4(even0, even1, 0x88);
        rows[8 + i] = _mm512_shuffle_f32x4(even0, even1, 0xdd);
        rows[4 + i] = _mm512_shuffle_f32x4(odd0, odd1, 0x88);
        rows[12 + i] = _mm512_shuffle_f32x4(odd0, odd1, 0xdd);
    }
}

/* Lane i of the result is the sum of the lanes of rows[i]: each round adds halves of two vectors
 * into one, in the same tree for every row. */
static inline vec vec_sums(const vec rows[VEC_WIDTH])
{
    vec a[8], b[4], c[2];
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++)
        a[i] = _mm512_add_ps(_mm512_unpacklo_ps(rows[2 * i], rows[2 * i + 1]),
                             _mm512_unpackhi_ps(rows[2 * i], rows[2 * i + 1]));
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        __m512d even = _mm512_castps_pd(a[2 * i]), odd = _mm512_castps_pd(a[2 * i + 1]);
        b[i] = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(even, odd)),
                             _mm512_castpd_ps(_mm512_unpackhi_pd(even, odd)));
    }
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++)
        c[i] = _mm512_add_ps(_mm512_shuffle_f32x4(b[2 * i], b[2 * i + 1], 0x88),
                             _mm512_shuffle_f32x4(b[2 * i], b[2 * i + 1], 0xdd));
    return _mm512_add_ps(_mm512_shuffle_f32x4(c[0], c[1], 0x88),
                         _mm512_shuffle_f32x4(c[0], c[1], 0xdd));
}

#endif
