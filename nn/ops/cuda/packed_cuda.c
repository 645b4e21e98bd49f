/* packed_cuda.c: operations of ops_cuda on packed weights.
 *
 * Products: a weight of bf16 beside activations of bf16 is a matrix like any other. Otherwise, few
 * rows of x, as in generation, cost reading the weight, which is widened in registers. For many, as
 * in a prompt, a tile of the weight at a time is widened to a matrix of the activations' type,
 * which the numbers of int8 fit without their scales; cuBLASLt's sums of it, in float, are scaled
 * then.
 */
#include "ops/check.h"
#include "ops/cuda/cuda_state.h"
#include "ops/cuda/gemm_library.h"
#include "ops/project_all.h"
#include "ops/scratch.h"

/* Rows of x up to which the weight is widened in registers: for the tensor cores, which are slower
 * for two, and otherwise; and numbers of a widened tile: as many as the second-level cache holds.
 */
enum { PROJECT_PAIR = 2, PROJECT_SEVERAL = 32, PROJECT_FEW = 8, PROJECT_TILE = 8 << 20 };

static const float *scale_of(const struct packed *packed)
{
    return packed->kind == PACKING_INT8 ? packed->scale : NULL;
}

static bool is_plain(const struct packed *packed, plx_dtype dtype)
{
    return packed->kind == PACKING_BF16 && dtype == PLX_BF16;
}

static struct plx_tensor dense_on(const struct backend *be, void *data, plx_dtype dtype,
                                  int64_t rows, int64_t columns)
{
    struct plx_tensor matrix = plx_tensor_dense(data, dtype, 2, (const int64_t[]){rows, columns});
    matrix.device = be->device->kind;
    return matrix;
}

/* ---- A weight as it is ---- */

static plx_status project_plain(struct backend *be, const struct plx_tensor *y,
                                const struct plx_tensor *x, const struct packed *weight,
                                const struct plx_tensor *residual)
{
    const struct plx_tensor b = dense_on(be, weight->data, PLX_BF16, weight->rows, weight->columns);
    return cuda_gemm(be, &(struct gemm){.a = x,
                                        .b = &b,
                                        .c = y,
                                        .transpose_b = true,
                                        .alpha = 1,
                                        .beta = residual != NULL ? 1 : 0,
                                        .add = residual,
                                        .weight = true});
}

/* ---- Few rows ---- */

/* A matter of shapes alone, so that a dry run knows it. */
static bool is_few(const struct plx_tensor *x, const struct packed *weight)
{
    const bool cores = weight->kind == PACKING_INT8 && x->dtype == PLX_BF16;
    return x->shape[0] <= (cores ? PROJECT_SEVERAL : PROJECT_FEW);
}

static const char *launch_few(plx_stream stream, const struct gemv *call)
{
    if (call->rows > PROJECT_PAIR && launch_tiles_serves(call)) return launch_tiles(stream, call);
    if (call->scale != NULL && launch_gemv_serves(call)) return launch_gemv(stream, call);
    return launch_project(stream, call);
}

static plx_status project_few(struct backend *be, const struct plx_tensor *y,
                              const struct plx_tensor *x, const struct packed *weight,
                              const struct plx_tensor *residual)
{
    const struct gemv call = {.y = y->data,
                              .x = x->data,
                              .weight = weight->data,
                              .add = residual != NULL ? residual->data : NULL,
                              .scale = scale_of(weight),
                              .in = x->dtype,
                              .out = y->dtype,
                              .constant = true,
                              .rows = (int)x->shape[0],
                              .N = weight->rows,
                              .K = weight->columns};
    return cuda_launched(be, "project", launch_few(be->stream, &call));
}

/* ---- Many rows ---- */

/* Weight rows of a tile. */
static int64_t tile_rows(const struct packed *weight)
{
    const int64_t most = weight->columns > 0 ? PROJECT_TILE / weight->columns / 64 * 64 : 0;
    return most < 64 ? 64 : most < weight->rows ? most : weight->rows;
}

static size_t wide_bytes(const struct packed *weight, plx_dtype dtype)
{
    const size_t bytes = (size_t)(tile_rows(weight) * weight->columns) * plx_dtype_size(dtype);
    return (bytes + 255) / 256 * 256;
}

/* y's columns first .. first + count - 1, by way of the tile and its sums. */
static plx_status project_tile(struct backend *be, const struct plx_tensor *y,
                               const struct plx_tensor *x, const struct packed *weight,
                               const struct plx_tensor *residual, int64_t first, int64_t count,
                               char *block)
{
    const int64_t K = weight->columns, M = x->shape[0];
    const size_t width = weight->kind == PACKING_INT8 ? 1 : 2, out = plx_dtype_size(y->dtype);
    const float *scale = scale_of(weight);
    const struct plx_tensor wide = dense_on(be, block, x->dtype, count, K),
                            sums = dense_on(be, block + wide_bytes(weight, x->dtype), PLX_F32, M,
                                            count);
    TRY(cuda_launched(be, "project",
                      launch_widen(be->stream, x->dtype, wide.data,
                                   (const char *)weight->data + (size_t)(first * K) * width,
                                   scale != NULL, count * K)));
    TRY(cuda_gemm(be,
                  &(struct gemm){.a = x, .b = &wide, .c = &sums, .transpose_b = true, .alpha = 1}));
    const struct scaled_sums call = {
        .y = (char *)y->data + (size_t)first * out,
        .add = residual != NULL ? (const char *)residual->data + (size_t)first * out : NULL,
        .sums = sums.data,
        .scale = scale != NULL ? scale + first : NULL,
        .M = M,
        .N = count,
        .stride = weight->rows};
    return cuda_launched(be, "project", launch_scale(be->stream, y->dtype, &call));
}

static plx_status project_many(struct backend *be, const struct plx_tensor *y,
                               const struct plx_tensor *x, const struct packed *weight,
                               const struct plx_tensor *residual, char *block)
{
    const int64_t N = weight->rows, rows = tile_rows(weight);
    for (int64_t first = 0; first < N; first += rows)
        TRY(project_tile(be, y, x, weight, residual, first, N - first < rows ? N - first : rows,
                         block));
    return PLX_OK;
}

/* ---- The operations ---- */

plx_status cuda_project_scratch(struct backend *be, const struct plx_tensor *y,
                                const struct plx_tensor *x, const struct packed *weight,
                                size_t *block, size_t *product)
{
    const bool plain = is_plain(weight, x->dtype), many = !is_few(x, weight);
    (void)be;
    *block = *product = 0;
    if (plx_tensor_count(y) == 0) return PLX_OK;
    *block = plain || !many ? 0
                            : wide_bytes(weight, x->dtype) +
                                  (size_t)(x->shape[0] * tile_rows(weight)) * sizeof(float);
    *product = plain || many ? GEMM_WORKSPACE : 0;
    return PLX_OK;
}

plx_status cuda_project(struct backend *be, const struct plx_tensor *y, const struct plx_tensor *x,
                        const struct packed *weight, const struct plx_tensor *residual)
{
    size_t bytes, product;
    void *block;
    TRY(check_project(be, y, x, weight, residual));
    if (plx_tensor_count(y) == 0) return PLX_OK;
    if (is_plain(weight, x->dtype)) return project_plain(be, y, x, weight, residual);
    if (is_few(x, weight)) return project_few(be, y, x, weight, residual);
    TRY(cuda_project_scratch(be, y, x, weight, &bytes, &product));
    const size_t mark = arena_mark(&be->scratch);
    plx_status status = scratch_push(be, "project", bytes, &block);
    if (status == PLX_OK) status = project_many(be, y, x, weight, residual, block);
    arena_release(&be->scratch, mark);
    return status;
}

static struct gemv_list list_of(const struct project_all *call)
{
    const struct projected *items = call->items;
    struct gemv_list list = {.gated = call->gated,
                             .x = call->x->data,
                             .gain = call->gain != NULL ? call->gain->data : NULL,
                             .eps = (float)call->eps,
                             .out = items[0].y->dtype,
                             .rows = (int)call->x->shape[0],
                             .K = call->x->shape[1]};
    for (int i = 0; i < call->count; i++) {
        const struct plx_tensor *y = items[i].y, *residual = items[i].residual;
        list.items[list.count++] =
            (struct gemv_item){.y = y != NULL ? y->data : NULL,
                               .weight = items[i].weight->data,
                               .scale = scale_of(items[i].weight),
                               .add = residual != NULL ? residual->data : NULL,
                               .N = items[i].weight->rows};
    }
    return list;
}

bool cuda_project_all_joins(const struct backend *be, const struct project_all *call)
{
    if (be->activation != PLX_BF16 || call->count > GEMV_ITEMS || call->x->shape[0] > INT32_MAX)
        return false;
    for (int i = 1; i < call->count; i++) {
        const struct projected *item = &call->items[i];
        if (item->weight->kind != call->items[0].weight->kind) return false;
        if (item->y != NULL && item->y->dtype != call->items[0].y->dtype) return false;
    }
    const struct gemv_list list = list_of(call);
    return launch_gemv_list_serves(&list);
}

plx_status cuda_project_all(struct backend *be, const struct project_all *call)
{
    if (!cuda_project_all_joins(be, call)) return project_all_by_parts(be, call);
    TRY(check_project_all(be, call));
    const struct gemv_list list = list_of(call);
    return cuda_launched(be, "project_all", launch_gemv_list(be->stream, &list));
}

plx_status cuda_unpack(struct backend *be, const struct plx_tensor *y, const struct packed *table,
                       const struct plx_tensor *ids)
{
    TRY(check_unpack(be, y, table, ids));
    return cuda_launched(be, "unpack",
                         launch_unpack(be->stream, y->dtype, y->data, table->data, scale_of(table),
                                       ids->data, plx_tensor_count(ids), table->rows,
                                       table->columns));
}
