/* product_body.h: the small matrix product under every tile of an attention kernel, in the words of
 * avx512.h or portable.h.
 *
 *     c[i][n] (+)= sum over k < depth of a[i a_row + k a_step] b[k b_row + n]
 *
 * The left operand is broadcast one element at a time, so it may be read transposed at no cost; the right
 * one is read in whole vectors. Accumulators stay in registers for the whole depth, and an element is one
 * chain of multiply-adds in the order of k whatever tile it falls into: its bits do not depend on how
 * rows are grouped. Operands live in packed scratch, where rows are padded to whole vectors.
 *
 * Include after the words. Next: attention/attention_tile_body.h. */
#ifndef PLX_PRODUCT_BODY_H
#define PLX_PRODUCT_BODY_H

#include <stdbool.h>
#include <stdint.h>

struct product {
    const float *a;
    int64_t a_row, a_step;
    const float *b;
    int64_t b_row;
    float *c;
    int64_t c_row;
    int64_t rows;    /* even */
    int64_t vectors; /* columns in units of VEC_WIDTH */
    int64_t depth;
    bool add;        /* add to c instead of overwriting it */
};

/* One register tile; rows and vectors are constants where this is inlined. */
static inline __attribute__((always_inline)) void
product_tile(const int rows, const int vectors, const struct product *p, const float *restrict a,
             const float *restrict b, float *restrict c)
{
    const int64_t a_row = p->a_row, a_step = p->a_step, b_row = p->b_row, c_row = p->c_row;
    vec sum[PRODUCT_ROWS][PRODUCT_VECTORS];
#pragma GCC unroll 8
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 8
        for (int n = 0; n < vectors; n++) sum[i][n] = vec_set(0.0f);
    for (int64_t k = 0; k < p->depth; k++) {
        vec right[PRODUCT_VECTORS];
#pragma GCC unroll 8
        for (int n = 0; n < vectors; n++) right[n] = vec_load(b + k * b_row + n * VEC_WIDTH);
#pragma GCC unroll 8
        for (int i = 0; i < rows; i++) {
            vec left = vec_set(a[i * a_row + k * a_step]);
#pragma GCC unroll 8
            for (int n = 0; n < vectors; n++) sum[i][n] = vec_fma(left, right[n], sum[i][n]);
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 8
        for (int n = 0; n < vectors; n++) {
            float *out = c + i * c_row + n * VEC_WIDTH;
            vec_store(out, p->add ? vec_add(vec_load(out), sum[i][n]) : sum[i][n]);
        }
}

/* All rows against one panel of the right operand, which stays in the nearest cache meanwhile. */
static inline __attribute__((always_inline)) void product_panel(const int vectors,
                                                                const struct product *p, int64_t n)
{
    const float *b = p->b + n * VEC_WIDTH;
    float *c = p->c + n * VEC_WIDTH;
    int64_t i = 0;
    for (; i + PRODUCT_ROWS <= p->rows; i += PRODUCT_ROWS)
        product_tile(PRODUCT_ROWS, vectors, p, p->a + i * p->a_row, b, c + i * p->c_row);
    for (; i < p->rows; i += 2)
        product_tile(2, vectors, p, p->a + i * p->a_row, b, c + i * p->c_row);
}

static __attribute__((noinline)) void product_full_panel(const struct product *p, int64_t n)
{
    product_panel(PRODUCT_VECTORS, p, n);
}

static __attribute__((noinline)) void product_half_panel(const struct product *p, int64_t n)
{
    product_panel(PRODUCT_VECTORS / 2, p, n);
}

static __attribute__((noinline)) void product_narrow_panel(const struct product *p, int64_t n)
{
    product_panel(1, p, n);
}

static void product_run(const struct product *p)
{
    int64_t n = 0;
    for (; n + PRODUCT_VECTORS <= p->vectors; n += PRODUCT_VECTORS) product_full_panel(p, n);
    for (; n + PRODUCT_VECTORS / 2 <= p->vectors; n += PRODUCT_VECTORS / 2)
        product_half_panel(p, n);
    for (; n < p->vectors; n++) product_narrow_panel(p, n);
}

#endif
