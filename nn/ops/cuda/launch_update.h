/* launch_update.h: the optimisers' kernels as plain C functions, as launch.h has the others.
 *
 * A model has hundreds of parameters, most of them small: a launch takes a list of them, by value,
 * and its blocks find the parameter and the piece of it that is theirs. */
#ifndef NN_OPS_CUDA_LAUNCH_UPDATE_H
#define NN_OPS_CUDA_LAUNCH_UPDATE_H

#include <stdbool.h>

#include "parallax/parallax.h"

#include "../clip_state.h"
#include "../step_numbers.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Arguments of a kernel have 4 KiB. */
enum { UPDATE_LIST = 60 };

/* A parameter: tensors of count elements, float all but active, which is bf16 or NULL, and m and v,
 * which are of dtype M. */
struct update_entry {
    float *value;
    void *active;
    const float *grad;
    void *m, *v;
    float lr, weight_decay; /* as multiples of the step's */
    int32_t first; /* block of the launch, for lists of unequal counts: set by the launcher */
    uint32_t number;
    int64_t count;
};

struct update_list {
    struct update_entry entries[UPDATE_LIST];
    int32_t size;
};

/* sums[i] = the sum of squares of grad of entry i, 0 where its count is. partials: as many doubles
 * as squares_partials of all counts together. */
int64_t squares_partials(int64_t count);
const char *launch_squares(plx_stream stream, struct update_list *list, double *sums,
                           double *partials);

/* op.h's struct clip. */
const char *launch_clip(plx_stream stream, struct clip_state *state, const double *squares,
                        int64_t count, double limit, const struct step_numbers *numbers);

/* What an AdamW update multiplies by in every step. */
struct adamw_factors {
    float beta1, rest1, beta2, rest2, eps;
};
const char *launch_adamw(plx_stream stream, plx_dtype M, struct update_list *list,
                         const struct adamw_factors *factors, const double *factor,
                         const struct step_numbers *numbers);

/* Entries of one count and directions behind each other, of dtype T. */
struct momentum_factors {
    float keep, take;
    bool nesterov;
};
const char *launch_momentum(plx_stream stream, plx_dtype T, plx_dtype M,
                            const struct update_list *list, void *directions,
                            const struct momentum_factors *by, const double *factor,
                            const struct step_numbers *numbers);
const char *launch_apply(plx_stream stream, plx_dtype T, const struct update_list *list,
                         const void *directions, double scale, const double *factor,
                         const struct step_numbers *numbers);

/* matrices of size elements each; partials: squares_partials(size) doubles a matrix. */
const char *launch_normalise(plx_stream stream, plx_dtype T, void *y, const void *x,
                             int64_t matrices, int64_t size, double factor, double eps,
                             double *partials);

/* Of matrices of size elements each, by their sums of squares: scales[2 i] = 1 / (factor |x[i]| +
 * eps), scales[2 i + 1] its square. partials as in the last. Also makes the counters of so many
 * chains of these matrices, behind each other, zeros. */
const char *launch_scales(plx_stream stream, plx_dtype T, float *scales, const void *x,
                          int64_t matrices, int64_t size, double factor, double eps,
                          double *partials, uint32_t *counters, int chains);

/* ---- symmetric_sm90a.cu ---- */
enum { SYMMETRIC_MATRICES = 5, SYMMETRIC_CHAIN = 10 };

/* Dense matrices behind each other of rows x columns numbers of 16 bits. */
struct symmetric_matrix {
    void *data; /* NULL: none */
    int64_t rows, columns;
};

/* c = s (alpha left right' + beta left + gamma I), where the caller knows that left right' is
 * symmetric, so that half of it need not be computed; with left' right where tall. alpha is not 0,
 * and where beta is not either, left is symmetric and of f16. Matrices by their numbers in the
 * chain; c is neither left nor right. */
struct symmetric_product {
    int left, right, c;
    bool tall, half, half_c; /* half: left and right are of f16, half_c: c is; otherwise of bf16 */
    float alpha, beta, gamma;
    const float *scales; /* s of matrix i is scales[2 i]; NULL: 1 */
};

/* One product after the other, for each of so many matrices; results are side x side. */
struct symmetric_chain {
    struct symmetric_matrix matrix[SYMMETRIC_MATRICES];
    struct symmetric_product product[SYMMETRIC_CHAIN];
    int count;
    int64_t matrices, side;
    uint32_t *written; /* [matrices], zeros; spoiled */
};
/* Whether the GPU is a Hopper, and matrices of this shape and address can be an operand. */
bool symmetric_serves(int64_t rows, int64_t columns, const void *x);
const char *launch_symmetric(plx_stream stream, const struct symmetric_chain *chain);

#ifdef __cplusplus
}
#endif

#endif
