/* vector_cpu.c: ops_cpu's operations on whole tensors as flat arrays; those of the optimiser are in
 * update_cpu.c.
 *
 * All have the same shape: cut the array into blocks of fixed size, share the blocks among threads,
 * and let the instruction set's table do a block. Block borders do not depend on the number of
 * threads, so neither does any sum. */
#include "ops/check.h"
#include "ops/cpu_state.h"

#include <string.h>

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

plx_status cpu_sum(struct backend *be, const struct plx_tensor *sum, const struct plx_tensor *x)
{
    TRY(check_sum(be, sum, x));
    const float *in = x->data;
    double total = 0.0;
    for (int64_t i = 0; i < plx_tensor_count(x); i++) total += (double)in[i];
    *(double *)sum->data += total;
    return PLX_OK;
}
