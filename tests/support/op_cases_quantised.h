/* op_cases_quantised.h: operands and calls of products with 8-bit operands, for op_cases.h. A
 * quantised matrix is no operand: the calls make it of one, in memory of their own. */
#ifndef TEST_OP_CASES_QUANTISED_H
#define TEST_OP_CASES_QUANTISED_H

#include <stdlib.h>

#include "op_operands.h"

/* Extents that such products take. */
static int64_t unit(int64_t n)
{
    return (n + QUANTISED_UNIT - 1) / QUANTISED_UNIT * QUANTISED_UNIT;
}

/* All bits set: NaN wherever quantise leaves a hole. */
static plx_status quantised_tensor(struct backend *be, plx_dtype dtype, int rank,
                                   const int64_t *shape, struct plx_tensor *tensor)
{
    *tensor = plx_tensor_dense(NULL, dtype, rank, shape);
    tensor->device = be->device->kind;
    size_t bytes = (size_t)plx_tensor_count(tensor) * plx_dtype_size(dtype);
    TRY(be->device->allocate(&tensor->data, bytes + 1, be->stream, be->err));
    return be->device->fill(tensor->data, 0xff, bytes, be->stream, be->err);
}

static plx_status quantised_create(struct backend *be, int64_t rows, int64_t columns,
                                   struct quantised *quantised)
{
    TRY(quantised_tensor(be, PLX_F8E4M3, 2, (int64_t[]){rows, columns}, &quantised->values));
    return quantised_tensor(be, be->storage, 1, &rows, &quantised->scale);
}

static void quantised_release(struct backend *be, struct quantised *quantised)
{
    be->device->release(quantised->values.data, be->stream);
    be->device->release(quantised->scale.data, be->stream);
}

/* A matrix and its transpose. */
struct quantised_pair {
    struct quantised rows, columns;
};

static plx_status pair_create(struct backend *be, const struct plx_tensor *x,
                              struct quantised_pair *pair)
{
    *pair = (struct quantised_pair){.rows.values.rank = 0};
    TRY(quantised_create(be, x->shape[0], x->shape[1], &pair->rows));
    TRY(quantised_create(be, x->shape[1], x->shape[0], &pair->columns));
    return be->ops->quantise(be, x, &pair->rows, &pair->columns);
}

static void pair_release(struct backend *be, struct quantised_pair *pair)
{
    quantised_release(be, &pair->rows);
    quantised_release(be, &pair->columns);
}

/* c = x w^T + beta add of quantised x and w. */
static plx_status multiply_quantised(struct backend *be, const struct plx_tensor *c,
                                     const struct quantised *x, const struct quantised *w,
                                     double beta, const struct plx_tensor *add)
{
    struct gemm gemm = {.a = &x->values,
                        .b = &w->values,
                        .c = c,
                        .transpose_b = true,
                        .alpha = 1,
                        .beta = beta,
                        .add = add,
                        .a_scale = &x->scale,
                        .b_scale = &w->scale};
    return be->ops->gemm(be, &gemm);
}

/* ---- Rounding -------------------------------------------------------------------------------- */

/* A product with ones where k % FOLD is n brings out what was stored: the very numbers of rows up
 * to FOLD long, sums of a few of longer ones. */
enum { FOLD = 256 };

static int64_t folded(int64_t n)
{
    return n < FOLD ? n : FOLD;
}

static plx_status fold_create(struct backend *be, int64_t length, struct quantised *fold)
{
    const int64_t shape[2] = {folded(length), length};
    const size_t size = plx_dtype_size(be->storage);
    const size_t bytes = (size_t)(shape[0] * shape[1]) * size;
    struct plx_tensor ones;
    char *host = calloc(bytes + 1, 1);
    if (host == NULL) abort();
    for (int64_t k = 0; k < length; k++) {
        char *place = host + (size_t)(k % FOLD * length + k) * size;
        if (be->storage == PLX_F64)
            memcpy(place, &(double){1}, size);
        else
            memcpy(place, &(float){1}, size);
    }
    TRY(quantised_tensor(be, be->storage, 2, shape, &ones));
    TRY(be->device->upload(ones.data, host, bytes, be->stream, be->err));
    free(host);
    TRY(quantised_create(be, shape[0], shape[1], fold));
    TRY(be->ops->quantise(be, &ones, fold, NULL));
    be->device->release(ones.data, be->stream);
    return PLX_OK;
}

/* y = what is stored, folded. */
static plx_status unfold(struct backend *be, const struct plx_tensor *y,
                         const struct quantised *stored)
{
    struct quantised fold;
    TRY(fold_create(be, stored->values.shape[1], &fold));
    plx_status status = multiply_quantised(be, y, stored, &fold, 0, NULL);
    quantised_release(be, &fold);
    return status;
}

static void operands_quantise_rows(struct operand *o, int64_t n, int64_t e)
{
    o[0] = matrix(ROLE_OUT, n, folded(unit(e)));
    o[1] = matrix(ROLE_IN, n, unit(e));
}

static plx_status run_quantise_rows(struct backend *be, const struct plx_tensor *v)
{
    struct quantised rows;
    TRY(quantised_create(be, v[1].shape[0], v[1].shape[1], &rows));
    plx_status status = be->ops->quantise(be, &v[1], &rows, NULL);
    if (status == PLX_OK) status = unfold(be, &v[0], &rows);
    quantised_release(be, &rows);
    return status;
}

/* Of weights, as they are and transposed. */
static void operands_quantise_both(struct operand *o, int64_t n, int64_t e)
{
    o[0] = matrix(ROLE_OUT, unit(n), folded(unit(e)));
    o[1] = matrix(ROLE_OUT, unit(e), folded(unit(n)));
    o[2] = stored(matrix(ROLE_IN, unit(n), unit(e)));
}

static plx_status run_quantise_both(struct backend *be, const struct plx_tensor *v)
{
    struct quantised_pair pair;
    plx_status status = pair_create(be, &v[2], &pair);
    if (status == PLX_OK) status = unfold(be, &v[0], &pair.rows);
    if (status == PLX_OK) status = unfold(be, &v[1], &pair.columns);
    pair_release(be, &pair);
    return status;
}

/* ---- Products -------------------------------------------------------------------------------- */

/* y = x W^T, what is added being in a place of its own, as a block's last projection has it. */
static void operands_quantised_forward(struct operand *o, int64_t n, int64_t e)
{
    o[0] = matrix(ROLE_OUT, n, unit(e));
    o[1] = matrix(ROLE_IN, n, unit((n + e) / 2 + 1));
    o[2] = stored(matrix(ROLE_IN, unit(e), unit((n + e) / 2 + 1)));
    o[3] = matrix(ROLE_IN, n, unit(e));
}

static plx_status multiply_weight(struct backend *be, const struct plx_tensor *c,
                                  const struct plx_tensor *x, const struct plx_tensor *weight,
                                  bool transposed, double beta, const struct plx_tensor *add)
{
    struct quantised_pair pair;
    struct quantised rows;
    TRY(quantised_create(be, x->shape[0], x->shape[1], &rows));
    plx_status status = pair_create(be, weight, &pair);
    if (status == PLX_OK) status = be->ops->quantise(be, x, &rows, NULL);
    if (status == PLX_OK)
        status =
            multiply_quantised(be, c, &rows, transposed ? &pair.columns : &pair.rows, beta, add);
    pair_release(be, &pair);
    quantised_release(be, &rows);
    return status;
}

static plx_status run_quantised_forward(struct backend *be, const struct plx_tensor *v)
{
    return multiply_weight(be, &v[0], &v[1], &v[2], false, 1, &v[3]);
}

/* dx += dy W. */
static void operands_quantised_backward(struct operand *o, int64_t n, int64_t e)
{
    o[0] = matrix(ROLE_BOTH, n, unit(e));
    o[1] = matrix(ROLE_IN, n, unit((n + e) / 2 + 1));
    o[2] = stored(matrix(ROLE_IN, unit((n + e) / 2 + 1), unit(e)));
}

static plx_status run_quantised_backward(struct backend *be, const struct plx_tensor *v)
{
    return multiply_weight(be, &v[0], &v[1], &v[2], true, 1, NULL);
}

#endif
