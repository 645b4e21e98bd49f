/* portable.h: the words of avx512.h for any machine, on vectors of 16 bytes that the compiler maps
 * to whatever the baseline has (SSE2, NEON, or scalar code).
 *
 * The contracts of the words are stated in avx512.h. Nothing here needs a flag beyond the baseline
 * of the architecture. Next: product_body.h. */
#ifndef PLX_PORTABLE_H
#define PLX_PORTABLE_H

#include <stdint.h>
#include <string.h>

#include "core/dtype.h"

typedef float vec __attribute__((vector_size(16)));
typedef int32_t vec_bits __attribute__((vector_size(16)));

/* 4 x 2 accumulators, 2 vectors and a broadcast fit the 16 registers of SSE2, which also needs one
 * for each product because it has no fused multiply-add. */
enum { VEC_WIDTH = 4, PRODUCT_ROWS = 4, PRODUCT_VECTORS = 2 };

static inline vec vec_set(float x)
{
    return (vec){x, x, x, x};
}

static inline vec vec_load(const float *p)
{
    vec x;
    memcpy(&x, p, sizeof x);
    return x;
}

static inline void vec_store(float *p, vec x)
{
    memcpy(p, &x, sizeof x);
}

static inline vec vec_load_part(const float *p, int count)
{
    if (count == VEC_WIDTH) return vec_load(p);
    vec x = vec_set(0.0f);
    for (int i = 0; i < count; i++) x[i] = p[i];
    return x;
}

static inline void vec_store_part(float *p, vec x, int count)
{
    for (int i = 0; i < count; i++) p[i] = x[i];
}

static inline vec vec_load_bf16(const uint16_t *p)
{
    return (vec)((vec_bits){p[0], p[1], p[2], p[3]} << 16);
}

static inline vec vec_load_bf16_part(const uint16_t *p, int count)
{
    uint32_t bits[VEC_WIDTH] = {0};
    vec x;
    for (int i = 0; i < count; i++) bits[i] = (uint32_t)p[i] << 16;
    memcpy(&x, bits, sizeof x);
    return x;
}

static inline void vec_store_bf16_part(uint16_t *p, vec x, int count)
{
    for (int i = 0; i < count; i++) p[i] = dtype_f32_to_bf16(x[i]);
}

static inline vec vec_load_f16_part(const uint16_t *p, int count)
{
    vec x = vec_set(0.0f);
    for (int i = 0; i < count; i++) x[i] = dtype_f16_to_f32(p[i]);
    return x;
}

static inline vec vec_load_f16(const uint16_t *p)
{
    return vec_load_f16_part(p, VEC_WIDTH);
}

static inline void vec_store_f16_part(uint16_t *p, vec x, int count)
{
    for (int i = 0; i < count; i++) p[i] = dtype_f32_to_f16(x[i]);
}

static inline vec vec_load_f8_part(const uint8_t *p, int count)
{
    vec x = vec_set(0.0f);
    for (int i = 0; i < count; i++) x[i] = dtype_f8_to_f32(p[i]);
    return x;
}

static inline vec vec_add(vec a, vec b)
{
    return a + b;
}

static inline vec vec_sub(vec a, vec b)
{
    return a - b;
}

static inline vec vec_mul(vec a, vec b)
{
    return a * b;
}

/* Fused only where the baseline has it, so the roundings of this file depend on the architecture.
 */
static inline vec vec_fma(vec a, vec b, vec c)
{
    return a * b + c;
}

static inline vec vec_max(vec a, vec b)
{
    vec_bits greater = a > b;
    return (vec)((greater & (vec_bits)a) | (~greater & (vec_bits)b));
}

static inline float vec_sum(vec x)
{
    return (x[0] + x[2]) + (x[1] + x[3]);
}

static inline float vec_largest(vec x)
{
    float even = x[0] > x[2] ? x[0] : x[2], odd = x[1] > x[3] ? x[1] : x[3];
    return even > odd ? even : odd;
}

/* The polynomial of avx512.h. Adding and taking away 1.5 2^23 rounds to an integer n; 2^n goes
 * straight into the exponent bits. n is kept within the normal range, and what lies below it
 * becomes zero. Without a fused multiply-add n ln 2 is taken off in two parts, the first so short
 * that its product with n is exact, to keep the argument of the polynomial accurate. */
static inline vec vec_exp(vec x)
{
    const vec lowest = vec_set(-87.0f), highest = vec_set(89.0f), magic = vec_set(12582912.0f);
    vec_bits above = x >= lowest;
    vec held = vec_max(x, lowest);
    vec_bits below = held < highest;
    held = (vec)((below & (vec_bits)held) | (~below & (vec_bits)highest));
    vec n = (held * vec_set(1.44269504f) + magic) - magic;
    vec f = (held - n * vec_set(0.693359375f)) - n * vec_set(-2.12194440e-4f);
    f = f * vec_set(1.44269504f);
    vec y = vec_fma(vec_set(1.545316295e-4f), f, vec_set(1.339086336e-3f));
    y = vec_fma(y, f, vec_set(9.618082557e-3f));
    y = vec_fma(y, f, vec_set(5.550357114e-2f));
    y = vec_fma(y, f, vec_set(2.402265076e-1f));
    y = vec_fma(y, f, vec_set(6.931471880e-1f));
    y = vec_fma(y, f, vec_set(1.0f));
    vec_bits exponent = __builtin_convertvector(n, vec_bits);
    vec_bits not_a_number = x != x;
    vec power = y * (vec)((exponent + 127) << 23);
    return (vec)((above & (vec_bits)power) | (not_a_number & (vec_bits)x));
}

static inline void vec_transpose(vec rows[VEC_WIDTH])
{
    vec a = rows[0], b = rows[1], c = rows[2], d = rows[3];
    for (int i = 0; i < VEC_WIDTH; i++) rows[i] = (vec){a[i], b[i], c[i], d[i]};
}

static inline vec vec_sums(const vec rows[VEC_WIDTH])
{
    return (vec){vec_sum(rows[0]), vec_sum(rows[1]), vec_sum(rows[2]), vec_sum(rows[3])};
}

#endif
