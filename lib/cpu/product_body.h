/* product_body.h: the small matrix product under every tile of an attention kernel, in the words of
 * avx512.h or portable.h.
 *
 *     c[i][n] (+)= scale[i] sum over k < depth of a[i a_row + k a_step] b[k b_row + n]
 *
 * The left operand is broadcast one element at a time, so it may be read transposed at no cost; the
 * right one is read in whole vectors. Accumulators stay in registers for a whole segment of the
 * depth, and an element is the sum of such chains of multiply-adds in the order of k whatever tile
 * it falls into: its bits do not depend on how rows are grouped. Operands live in packed scratch,
 * where rows are padded to whole vectors.
 *
 * Include after the words. Next: attention/attention_tile_body.h. */
#ifndef PLX_PRODUCT_BODY_H
#define PLX_PRODUCT_BODY_H

#include <stdbool.h>
#include <stdint.h>

enum { PRODUCT_SEGMENT = 32 };

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
    /* Terms summed in one chain; 0: all. Scores use PRODUCT_SEGMENT, because the rounding error of
     * a chain grows with its length and exponentials magnify that of a score. */
    int64_t segment;
    bool add; /* add to c instead of overwriting it */
    /* scale[i] is this for the first `scaled` rows and 1 for the others, so that scores come out
     * scaled while the stacked probe products stay as they are. */
    float scale;
    int64_t scaled;
};

/* One segment of one register tile, from row `first` of the product and term `begin` on; rows and
 * vectors are constants where this is inlined. */
static inline __attribute__((always_inline)) void
product_chain(const int rows, const int vectors, const struct product *p, int64_t first,
              const float *restrict a, const float *restrict b, float *restrict c, int64_t begin,
              int64_t end)
{
    const int64_t a_row = p->a_row, a_step = p->a_step, b_row = p->b_row, c_row = p->c_row;
    vec sum[PRODUCT_ROWS][PRODUCT_VECTORS];
#pragma GCC unroll 8
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 8
        for (int n = 0; n < vectors; n++) sum[i][n] = vec_set(0.0f);
    for (int64_t k = begin; k < end; k++) {
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
    for (int i = 0; i < rows; i++) {
        const vec scale = vec_set(first + i < p->scaled ? p->scale : 1.0f);
#pragma GCC unroll 8
        for (int n = 0; n < vectors; n++) {
            float *out = c + i * c_row + n * VEC_WIDTH;
            vec old = p->add || begin > 0 ? vec_load(out) : vec_set(0.0f);
            vec_store(out, vec_fma(scale, sum[i][n], old));
        }
    }
}

static inline __attribute__((always_inline)) void product_tile(const int rows, const int vectors,
                                                               const struct product *p,
                                                               int64_t first, const float *a,
                                                               const float *b, float *c)
{
    const int64_t segment = p->segment > 0 ? p->segment : p->depth;
    for (int64_t begin = 0; begin < p->depth; begin += segment) {
        int64_t end = begin + segment < p->depth ? begin + segment : p->depth;
        product_chain(rows, vectors, p, first, a, b, c, begin, end);
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
        product_tile(PRODUCT_ROWS, vectors, p, i, p->a + i * p->a_row, b, c + i * p->c_row);
    for (; i < p->rows; i += 2)
        product_tile(2, vectors, p, i, p->a + i * p->a_row, b, c + i * p->c_row);
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
