/* draw.h: the arithmetic of choosing a token, the same bits on every device. For C and CUDA.
 *
 * A token's weight exp((logit - largest) / temperature) is a whole number of 2^-42, so that sums do
 * not depend on their order, a GPU may add them by thousands of threads, and every device draws the
 * same token from the same logits. Weights are 2^-29 off at most, and what is below 2^-42 of the
 * largest is never drawn. */
#ifndef NN_OPS_DRAW_H
#define NN_OPS_DRAW_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#ifdef __CUDACC__
#define DRAW_INLINE static __device__ __forceinline__
#else
#define DRAW_INLINE static inline
#endif

/* What a row's draw is told, on the device: doubles all, as a row of a tensor f64 [N,
 * DRAW_NUMBERS]. */
struct draw_numbers {
    double uniform;     /* in [0, 1) */
    double temperature; /* 0: the largest */
    double top_k;       /* 0: off */
    double top_p;       /* 1: off */
    double floor;       /* keep what is at most that far, it is not positive, from the largest;
                           -INFINITY: off */
};
enum { DRAW_NUMBERS = sizeof(struct draw_numbers) / sizeof(double) };

/* The weight of the largest is 1 << DRAW_BITS; as many weights as a row may have fit 63 bits. */
enum { DRAW_BITS = 42, DRAW_LONGEST_ROW = 1 << 21 };

/* A logit's place in the order of logits, in three digits: bins of the first say where to look on,
 * and equal keys are equal logits. */
enum { DRAW_LEVELS = 3, DRAW_BINS = 2048 };

DRAW_INLINE uint32_t draw_key(float logit)
{
    const float unsigned_zero = logit + 0.0f;
    uint32_t bits;
    memcpy(&bits, &unsigned_zero, sizeof bits);
    return bits ^ ((0u - (bits >> 31)) | 0x80000000u);
}

/* How far the key is shifted before the digit of a level is its lowest, and how many bits that has.
 */
DRAW_INLINE int draw_shift(int level)
{
    return level == 0 ? 21 : level == 1 ? 10 : 0;
}

DRAW_INLINE uint32_t draw_digit(uint32_t key, int level)
{
    return (key >> draw_shift(level)) & (level < 2 ? 0x7ffu : 0x3ffu);
}

/* Whether anything is left out, so that tokens come in falling order rather than in that of their
 * ids. */
DRAW_INLINE bool draw_is_filtered(const struct draw_numbers *numbers)
{
    return numbers->top_k > 0 || numbers->top_p < 1 || numbers->floor > -INFINITY;
}

/* By how many 2^-32 of a halving a logit's distance counts. */
DRAW_INLINE double draw_rate(double temperature)
{
    const double rate = 0x1.71547652b82fep+32 / temperature;
    return rate < 0x1p1000 ? rate : 0x1p1000;
}

DRAW_INLINE uint32_t draw_high(uint32_t a, uint32_t b)
{
    return (uint32_t)((uint64_t)a * b >> 32);
}

/* 2^-(n + f) as (1 - f q(f)) >> n with q(f) = (1 - 2^-f) / f, which a polynomial that meets it at
 * seven Chebyshev nodes gives to 2^-33; the rest of the error is rounding. */
DRAW_INLINE uint64_t draw_weight(float logit, float largest, double rate)
{
    const double halvings = ((double)largest - (double)logit) * rate, most = 0x2.bp36;
    const uint64_t fixed = (uint64_t)(int64_t)(halvings < most ? halvings : most);
    const uint32_t f = (uint32_t)fixed;
    uint32_t q = 0x9c200u - draw_high(f, 0xbda6u);
    q = 0x5728b0u - draw_high(f, q);
    q = 0x27641a9u - draw_high(f, q);
    q = 0xe358127u - draw_high(f, q);
    q = 0x3d7f7bcbu - draw_high(f, q);
    q = 0xb17217f7u - draw_high(f, q);
    return ((UINT64_C(1) << DRAW_BITS) - ((uint64_t)f * q >> 22)) >> (fixed >> 32);
}

/* Of weights that add up to mass, which is positive: the draw takes the first token at which their
 * sum exceeds this. */
DRAW_INLINE uint64_t draw_target(double uniform, uint64_t mass)
{
    const uint64_t target = (uint64_t)(uniform * (double)mass);
    return target < mass ? target : mass - 1;
}

/* And top-p ends with the first at which it exceeds this: the sum reaches the share. */
DRAW_INLINE uint64_t draw_share(double top_p, uint64_t mass)
{
    const uint64_t share = (uint64_t)ceil(top_p * (double)mass);
    return (share < mass ? share : mass) - 1;
}

#endif
