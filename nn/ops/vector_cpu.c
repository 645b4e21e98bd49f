/* vector_cpu.c: ops_cpu's operations on whole tensors as flat arrays, the optimiser updates among
 * them.
 *
 * All have the same shape: cut the array into blocks of fixed size, share the blocks among threads,
 * and let the instruction set's table do a block. Block borders do not depend on the number of
 * threads, so neither does any sum. */
#include "ops/check.h"
#include "ops/cpu_state.h"

#include <math.h>
#include <string.h>

/* 32 KiB of floats: long enough to hide a call, short enough that all operands of a block share a
 * cache. */
enum { VECTOR_BLOCK = 8192 };

static int64_t vector_blocks(int64_t count)
{
    return (count + VECTOR_BLOCK - 1) / VECTOR_BLOCK;
}

static int64_t vector_length(int64_t count, int64_t block)
{
    int64_t left = count - block * VECTOR_BLOCK;
    return left < VECTOR_BLOCK ? left : VECTOR_BLOCK;
}

plx_status cpu_zero(struct backend *be, const struct plx_tensor *y)
{
    TRY(check_zero(be, y));
    int64_t bytes = plx_tensor_count(y) * (int64_t)plx_dtype_size(y->dtype);
    unsigned char *out = y->data;
#pragma omp parallel for num_threads(cpu_threads(be, bytes / 4)) schedule(static)
    for (int64_t b = 0; b < vector_blocks(bytes); b++)
        memset(out + b * VECTOR_BLOCK, 0, (size_t)vector_length(bytes, b));
    return PLX_OK;
}

static void vector_copy(const struct backend *be, const struct plx_tensor *y,
                        const struct plx_tensor *x)
{
    int64_t bytes = plx_tensor_count(y) * (int64_t)plx_dtype_size(y->dtype);
    unsigned char *out = y->data;
    const unsigned char *in = x->data;
#pragma omp parallel for num_threads(cpu_threads(be, bytes / 4)) schedule(static)
    for (int64_t b = 0; b < vector_blocks(bytes); b++)
        memcpy(out + b * VECTOR_BLOCK, in + b * VECTOR_BLOCK, (size_t)vector_length(bytes, b));
}

plx_status cpu_copy(struct backend *be, const struct plx_tensor *y, const struct plx_tensor *x)
{
    TRY(check_copy(be, y, x));
    if (x->dtype == y->dtype && check_is_dense(x) && check_is_dense(y)) {
        vector_copy(be, y, x);
        return PLX_OK;
    }
    plx_status status = plx_convert(be->context, x, y);
    REQUIRE(be->err, status == PLX_OK, status, "copy: %s", plx_error(be->context));
    return PLX_OK;
}

plx_status cpu_add(struct backend *be, const struct plx_tensor *y, const struct plx_tensor *a,
                   const struct plx_tensor *b)
{
    TRY(check_add(be, y, a, b));
    const struct rows *rows = cpu_rows(be);
    int64_t count = plx_tensor_count(y);
    float *out = y->data;
    const float *left = a->data, *right = b->data;
#pragma omp parallel for num_threads(cpu_threads(be, count)) schedule(static)
    for (int64_t i = 0; i < vector_blocks(count); i++) {
        int64_t at = i * VECTOR_BLOCK;
        rows->add(out + at, left + at, right + at, vector_length(count, i));
    }
    return PLX_OK;
}

plx_status cpu_scale(struct backend *be, const struct plx_tensor *y, double factor)
{
    TRY(check_one(be, "scale", y));
    const struct rows *rows = cpu_rows(be);
    int64_t count = plx_tensor_count(y);
    float *out = y->data;
#pragma omp parallel for num_threads(cpu_threads(be, count)) schedule(static)
    for (int64_t i = 0; i < vector_blocks(count); i++)
        rows->scale(out + i * VECTOR_BLOCK, (float)factor, vector_length(count, i));
    return PLX_OK;
}

plx_status cpu_sum(struct backend *be, const struct plx_tensor *sum, const struct plx_tensor *x)
{
    TRY(check_sum(be, sum, x));
    const float *in = x->data;
    double total = 0.0;
    for (int64_t i = 0; i < plx_tensor_count(x); i++) total += (double)in[i];
    *(double *)sum->data += total;
    return PLX_OK;
}

/* At most SUMS partial sums whatever the size, added in order at the end. */
plx_status cpu_sum_squares(struct backend *be, const struct plx_tensor *x, double *sum)
{
    enum { SUMS = 256 };
    TRY(check_one(be, "sum_squares", x));
    const struct rows *rows = cpu_rows(be);
    int64_t count = plx_tensor_count(x);
    const float *in = x->data;
    int64_t share = (vector_blocks(count) + SUMS - 1) / SUMS * VECTOR_BLOCK;
    int64_t parts = share > 0 ? (count + share - 1) / share : 0;
    double sums[SUMS];
#pragma omp parallel for num_threads(cpu_threads(be, count)) schedule(static)
    for (int64_t p = 0; p < parts; p++) {
        int64_t left = count - p * share;
        sums[p] = rows->sum_squares(in + p * share, left < share ? left : share);
    }
    *sum = 0.0;
    for (int64_t p = 0; p < parts; p++) *sum += sums[p];
    return PLX_OK;
}

plx_status cpu_adamw(struct backend *be, const struct adamw_update *update)
{
    TRY(check_adamw(be, update));
    double step = (double)update->step;
    struct rows_adamw factors = {
        .beta1 = (float)update->beta1,
        .rest1 = (float)(1.0 - update->beta1),
        .beta2 = (float)update->beta2,
        .rest2 = (float)(1.0 - update->beta2),
        .keep = (float)(1.0 - update->lr * update->weight_decay),
        .rate = (float)(update->lr / (1.0 - pow(update->beta1, step))),
        .root = (float)(1.0 / sqrt(1.0 - pow(update->beta2, step))),
        .eps = (float)update->eps,
    };
    const struct rows *rows = cpu_rows(be);
    int64_t count = plx_tensor_count(update->value);
    float *w = update->value->data, *m = update->m->data, *v = update->v->data;
    const float *g = update->grad->data;
#pragma omp parallel for num_threads(cpu_threads(be, count)) schedule(static)
    for (int64_t i = 0; i < vector_blocks(count); i++) {
        int64_t at = i * VECTOR_BLOCK;
        rows->adamw(w + at, m + at, v + at, g + at, &factors, vector_length(count, i));
    }
    return PLX_OK;
}

plx_status cpu_momentum(struct backend *be, const struct plx_tensor *u, const struct plx_tensor *m,
                        const struct plx_tensor *g, double mu, bool nesterov, bool ema)
{
    TRY(check_momentum(be, u, m, g));
    const struct rows *rows = cpu_rows(be);
    int64_t count = plx_tensor_count(u);
    float *direction = u->data, *moment = m->data;
    const float *gradient = g->data;
    float take = (float)(ema ? 1.0 - mu : 1.0);
#pragma omp parallel for num_threads(cpu_threads(be, count)) schedule(static)
    for (int64_t i = 0; i < vector_blocks(count); i++) {
        int64_t at = i * VECTOR_BLOCK;
        rows->momentum(direction + at, moment + at, gradient + at, (float)mu, take, nesterov,
                       vector_length(count, i));
    }
    return PLX_OK;
}

plx_status cpu_apply(struct backend *be, const struct plx_tensor *w, const struct plx_tensor *u,
                     double decay, double rate)
{
    TRY(check_apply(be, w, u));
    const struct rows *rows = cpu_rows(be);
    int64_t count = plx_tensor_count(w);
    float *weight = w->data;
    const float *direction = u->data;
#pragma omp parallel for num_threads(cpu_threads(be, count)) schedule(static)
    for (int64_t i = 0; i < vector_blocks(count); i++) {
        int64_t at = i * VECTOR_BLOCK;
        rows->apply(weight + at, direction + at, (float)decay, (float)rate,
                    vector_length(count, i));
    }
    return PLX_OK;
}
