/* op_cases_packed.h: operands and calls of the operations on packed weights, for op_cases.h. A
 * packed matrix is no tensor: the calls pack an operand on the host and hand over a copy on the
 * backend's device. */
#ifndef TEST_OP_CASES_PACKED_H
#define TEST_OP_CASES_PACKED_H

#include <stdlib.h>

#include "op_operands.h"

/* The values of a dense operand of the storage dtype, as floats. */
static float *packed_floats(struct backend *be, const struct plx_tensor *matrix)
{
    const int64_t count = plx_tensor_count(matrix);
    const size_t bytes = (size_t)count * plx_dtype_size(matrix->dtype);
    void *numbers = malloc(bytes + 1);
    float *floats = malloc((size_t)(count + 1) * sizeof *floats);
    if (numbers == NULL || floats == NULL ||
        be->device->download(numbers, matrix->data, bytes, be->stream, be->err) != PLX_OK)
        abort();
    for (int64_t i = 0; i < count; i++)
        floats[i] =
            matrix->dtype == PLX_F64 ? (float)((double *)numbers)[i] : ((float *)numbers)[i];
    free(numbers);
    return floats;
}

static plx_status packed_upload(struct backend *be, void **memory, const void *host, size_t bytes)
{
    TRY(be->device->allocate(memory, bytes + 1, be->stream, be->err));
    return be->device->upload(*memory, host, bytes, be->stream, be->err);
}

/* In a dry run, where the operand has no data, neither has the result. */
static plx_status packed_create(struct backend *be, enum packing kind,
                                const struct plx_tensor *matrix, struct packed *device)
{
    struct packed host = {.kind = kind, .rows = matrix->shape[0], .columns = matrix->shape[1]};
    *device = host;
    if (matrix->data == NULL) return PLX_OK;
    host.data = malloc(packed_data_bytes(&host) + 1);
    host.scale = malloc(packed_scale_bytes(&host) + 1);
    if (host.data == NULL || host.scale == NULL) abort();
    float *floats = packed_floats(be, matrix);
    packed_store(&host, 0, host.rows, floats);
    void *scale;
    TRY(packed_upload(be, &device->data, host.data, packed_data_bytes(&host)));
    TRY(packed_upload(be, &scale, host.scale, packed_scale_bytes(&host)));
    device->scale = scale;
    free(floats);
    free(host.scale);
    free(host.data);
    return PLX_OK;
}

static void packed_release(struct backend *be, struct packed *device)
{
    if (device->data == NULL) return;
    be->device->release(device->data, be->stream);
    be->device->release(device->scale, be->stream);
}

static void operands_project(struct operand *o, int64_t n, int64_t e)
{
    const int64_t rows = n % 90 + 2;
    o[0] = matrix(ROLE_OUT, n, rows);
    o[1] = matrix(ROLE_IN, n, e);
    o[2] = stored(matrix(ROLE_IN, rows, e));
    o[2].values = FILL_WEIGHTS;
}

/* As the output head is computed: the result has the storage dtype. */
static void operands_project_stored(struct operand *o, int64_t n, int64_t e)
{
    operands_project(o, n, e);
    o[0] = stored(o[0]);
}

static void operands_project_add(struct operand *o, int64_t n, int64_t e)
{
    operands_project(o, n, e);
    o[3] = matrix(ROLE_IN, n, n % 90 + 2);
}

static plx_status project_packed(struct backend *be, const struct plx_tensor *v, enum packing kind,
                                 const struct plx_tensor *residual)
{
    struct packed weight;
    TRY(packed_create(be, kind, &v[2], &weight));
    plx_status status = be->ops->project(be, &v[0], &v[1], &weight, residual);
    packed_release(be, &weight);
    return status;
}

static plx_status run_project_bf16(struct backend *be, const struct plx_tensor *v)
{
    return project_packed(be, v, PACKING_BF16, NULL);
}

static plx_status run_project_int8(struct backend *be, const struct plx_tensor *v)
{
    return project_packed(be, v, PACKING_INT8, NULL);
}

static plx_status run_project_bf16_add(struct backend *be, const struct plx_tensor *v)
{
    return project_packed(be, v, PACKING_BF16, &v[3]);
}

static plx_status run_project_int8_add(struct backend *be, const struct plx_tensor *v)
{
    return project_packed(be, v, PACKING_INT8, &v[3]);
}

/* ---- Several products of one x ---- */

/* A matrix of each size: two that share a kernel's block and one that fills some. */
static inline int64_t all_rows(int64_t n, int i)
{
    return i == 0 ? n % 90 + 2 : i == 1 ? 3 : 101;
}

static void operands_all(struct operand *o, int64_t n, int64_t e)
{
    o[0] = matrix(ROLE_IN, n, e);
    o[1] = stored(vector(ROLE_IN, e));
    for (int i = 0; i < 3; i++) {
        o[2 + 2 * i] = matrix(ROLE_OUT, n, all_rows(n, i));
        o[3 + 2 * i] = stored(matrix(ROLE_IN, all_rows(n, i), e));
        o[3 + 2 * i].values = FILL_WEIGHTS;
    }
}

/* One or two rows of x, as generation has them, and lengths that kernels of few rows take. */
static inline int64_t few_rows(int64_t n)
{
    return n % 2 + 1;
}

static inline int64_t few_columns(int64_t e)
{
    return 16 * (e % 256 + 1);
}

static void operands_all_few(struct operand *o, int64_t n, int64_t e)
{
    operands_all(o, few_rows(n), few_columns(e));
}

static void operands_all_add(struct operand *o, int64_t n, int64_t e)
{
    operands_all_few(o, n, e);
    for (int i = 0; i < 3; i++) o[8 + i] = matrix(ROLE_IN, few_rows(n), all_rows(few_rows(n), i));
}

static void operands_all_stored(struct operand *o, int64_t n, int64_t e)
{
    operands_all_add(o, n, e);
    for (int i = 0; i < 3; i++) {
        o[2 + 2 * i].stored = true;
        o[8 + i].stored = true;
    }
}

static plx_status all_packed(struct backend *be, const struct plx_tensor *v, enum packing kind,
                             bool norms, bool adds)
{
    struct packed weights[3];
    struct projected items[3];
    for (int i = 0; i < 3; i++) {
        TRY(packed_create(be, kind, &v[3 + 2 * i], &weights[i]));
        items[i] = (struct projected){&weights[i], &v[2 + 2 * i], adds ? &v[8 + i] : NULL};
    }
    const struct project_all call = {
        .x = &v[0], .gain = norms ? &v[1] : NULL, .eps = 1e-6, .items = items, .count = 3};
    plx_status status = be->ops->project_all(be, &call);
    for (int i = 0; i < 3; i++) packed_release(be, &weights[i]);
    return status;
}

static plx_status run_all_bf16(struct backend *be, const struct plx_tensor *v)
{
    return all_packed(be, v, PACKING_BF16, true, false);
}

static plx_status run_all_int8(struct backend *be, const struct plx_tensor *v)
{
    return all_packed(be, v, PACKING_INT8, true, false);
}

static plx_status run_all_bf16_add(struct backend *be, const struct plx_tensor *v)
{
    return all_packed(be, v, PACKING_BF16, false, true);
}

static plx_status run_all_int8_add(struct backend *be, const struct plx_tensor *v)
{
    return all_packed(be, v, PACKING_INT8, false, true);
}

static void operands_gated(struct operand *o, int64_t n, int64_t e)
{
    o[0] = matrix(ROLE_IN, n, e);
    o[1] = stored(vector(ROLE_IN, e));
    o[2] = matrix(ROLE_OUT, n, n % 90 + 200);
    for (int i = 3; i < 5; i++) {
        o[i] = stored(matrix(ROLE_IN, n % 90 + 200, e));
        o[i].values = FILL_WEIGHTS;
    }
}

static void operands_gated_few(struct operand *o, int64_t n, int64_t e)
{
    operands_gated(o, few_rows(n), few_columns(e));
}

static plx_status gated_packed(struct backend *be, const struct plx_tensor *v, enum packing kind)
{
    struct packed gate, up;
    TRY(packed_create(be, kind, &v[3], &gate));
    TRY(packed_create(be, kind, &v[4], &up));
    const struct projected items[2] = {{&gate, &v[2], NULL}, {&up, NULL, NULL}};
    const struct project_all call = {
        .x = &v[0], .gain = &v[1], .eps = 1e-6, .items = items, .count = 2, .gated = true};
    plx_status status = be->ops->project_all(be, &call);
    packed_release(be, &gate);
    packed_release(be, &up);
    return status;
}

static plx_status run_gated_bf16(struct backend *be, const struct plx_tensor *v)
{
    return gated_packed(be, v, PACKING_BF16);
}

static plx_status run_gated_int8(struct backend *be, const struct plx_tensor *v)
{
    return gated_packed(be, v, PACKING_INT8);
}

static void operands_unpack(struct operand *o, int64_t n, int64_t e)
{
    o[0] = matrix(ROLE_OUT, n, e);
    o[1] = stored(matrix(ROLE_IN, 19, e));
    o[2] = integers(FILL_IDS, n, 19);
}

static plx_status unpack_packed(struct backend *be, const struct plx_tensor *v, enum packing kind)
{
    struct packed table;
    TRY(packed_create(be, kind, &v[1], &table));
    plx_status status = be->ops->unpack(be, &v[0], &table, &v[2]);
    packed_release(be, &table);
    return status;
}

static plx_status run_unpack_bf16(struct backend *be, const struct plx_tensor *v)
{
    return unpack_packed(be, v, PACKING_BF16);
}

static plx_status run_unpack_int8(struct backend *be, const struct plx_tensor *v)
{
    return unpack_packed(be, v, PACKING_INT8);
}

#endif
