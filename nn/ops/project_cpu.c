/* project_cpu.c: products with packed weights on the CPU.
 *
 * Few rows of x, as in generation: every weight is read once, widened in registers (or, in int8
 * where the processor has dot products of bytes, used as it is) for all of them; memory is the
 * limit. Many rows, as in a prompt: a tile of weights is widened to floats in scratch and
 * multiplied as every other matrix is, so that arithmetic is the limit. Threads share blocks of
 * weight rows whose borders do not depend on their number. */
#include "ops/check.h"
#include "ops/cpu_state.h"
#include "ops/scratch.h"

/* Weight rows of a block: several kilobytes, so that all rows of x find them in the first cache. */
enum { PROJECT_BLOCK = 16 };
/* Rows of x from which widening a tile pays, and weight rows of a tile. */
enum { PROJECT_MANY = 24, PROJECT_TILE = 512 };

static size_t tile_bytes(const struct packed *weight)
{
    int64_t rows = weight->rows < PROJECT_TILE ? weight->rows : PROJECT_TILE;
    return (size_t)(rows * weight->columns) * sizeof(float);
}

/* The rows of x, made ready for the kind of weights. */
struct project_rows {
    const void *rows[PROJECT_MANY];
    int64_t count;
};

static void project_block(const struct rows *rows, const struct packed *weight, int64_t first,
                          int64_t count, const struct project_rows *x, float *y)
{
    const int64_t N = weight->rows, K = weight->columns;
    for (int64_t m = 0; m < x->count; m++) {
        float *out = y + m * N + first;
        if (weight->kind == PACKING_INT8)
            rows->dots_int8(out, (const int8_t *)weight->data + first * K, weight->scale + first,
                            x->rows[m], count, K);
        else
            rows->dots_bf16(out, (const uint16_t *)weight->data + first * K, x->rows[m], count, K);
    }
}

static size_t room_bytes(const struct backend *be, const struct packed *weight)
{
    return weight->kind == PACKING_INT8 ? cpu_rows(be)->int8_room(weight->columns) : 0;
}

static void project_few(const struct backend *be, const struct plx_tensor *y,
                        const struct plx_tensor *x, const struct packed *weight, char *room)
{
    const struct rows *rows = cpu_rows(be);
    const int64_t N = weight->rows, K = weight->columns;
    const int64_t blocks = (N + PROJECT_BLOCK - 1) / PROJECT_BLOCK;
    struct project_rows ready = {.count = x->shape[0]};
    for (int64_t m = 0; m < ready.count; m++) {
        const float *row = (const float *)x->data + m * K;
        ready.rows[m] =
            weight->kind == PACKING_INT8 ? rows->int8_ready(row, K, room) : (const void *)row;
        if (room != NULL) room += room_bytes(be, weight);
    }
#pragma omp parallel for num_threads(cpu_threads(be, N * weight->columns)) schedule(static)
    for (int64_t b = 0; b < blocks; b++) {
        int64_t first = b * PROJECT_BLOCK;
        int64_t count = N - first < PROJECT_BLOCK ? N - first : PROJECT_BLOCK;
        project_block(rows, weight, first, count, &ready, y->data);
    }
}

/* The product of one tile: columns first .. of y. */
static struct plx_tensor tile_of(const struct plx_tensor *y, int64_t first, int64_t count)
{
    struct plx_tensor columns = *y;
    columns.shape[1] = count;
    if (columns.data != NULL) columns.data = (float *)y->data + first;
    return columns;
}

static plx_status project_many(struct backend *be, const struct plx_tensor *y,
                               const struct plx_tensor *x, const struct packed *weight, float *tile)
{
    for (int64_t first = 0; first < weight->rows; first += PROJECT_TILE) {
        int64_t left = weight->rows - first, count = left < PROJECT_TILE ? left : PROJECT_TILE;
#pragma omp parallel for num_threads(be->threads) schedule(static)
        for (int64_t r = 0; r < count; r++)
            packed_load(weight, first + r, 1, tile + r * weight->columns);
        const int64_t shape[2] = {count, weight->columns};
        struct plx_tensor b = plx_tensor_dense(tile, PLX_F32, 2, shape),
                          c = tile_of(y, first, count);
        TRY(cpu_gemm(be,
                     &(struct gemm){.a = x, .b = &b, .c = &c, .transpose_b = true, .alpha = 1}));
    }
    return PLX_OK;
}

static size_t block_bytes(const struct backend *be, const struct plx_tensor *x,
                          const struct packed *weight)
{
    const int64_t M = x->shape[0];
    return M < PROJECT_MANY ? (size_t)M * room_bytes(be, weight) : tile_bytes(weight);
}

/* Few rows: room to make them ready in. Many: the tile, and what the larger of the products with a
 * full and with the last tile takes beside it. */
plx_status project_scratch(struct backend *be, const struct plx_tensor *y,
                           const struct plx_tensor *x, const struct packed *weight, size_t *block,
                           size_t *product)
{
    const int64_t N = weight->rows;
    const int64_t counts[2] = {N < PROJECT_TILE ? N : PROJECT_TILE, N % PROJECT_TILE};
    *block = block_bytes(be, x, weight);
    *product = 0;
    if (x->shape[0] < PROJECT_MANY) return PLX_OK;
    for (int i = 0; i < 2; i++) {
        const int64_t shape[2] = {counts[i], weight->columns};
        struct plx_tensor b = plx_tensor_dense(NULL, PLX_F32, 2, shape),
                          c = tile_of(y, 0, counts[i]);
        size_t bytes;
        TRY(gemm_scratch(
            be, &(struct gemm){.a = x, .b = &b, .c = &c, .transpose_b = true, .alpha = 1}, &bytes));
        if (bytes > *product) *product = bytes;
    }
    return PLX_OK;
}

plx_status cpu_project(struct backend *be, const struct plx_tensor *y, const struct plx_tensor *x,
                       const struct packed *weight, const struct plx_tensor *residual)
{
    TRY(check_project(be, y, x, weight, residual));
    size_t mark = arena_mark(&be->scratch);
    void *block;
    plx_status status = scratch_push(be, "project", block_bytes(be, x, weight), &block);
    if (status == PLX_OK && x->shape[0] < PROJECT_MANY)
        project_few(be, y, x, weight, block);
    else if (status == PLX_OK)
        status = project_many(be, y, x, weight, block);
    arena_release(&be->scratch, mark);
    return status == PLX_OK && residual != NULL ? cpu_add(be, y, residual, y) : status;
}

plx_status cpu_unpack(struct backend *be, const struct plx_tensor *y, const struct packed *table,
                      const struct plx_tensor *ids)
{
    TRY(check_unpack(be, y, table, ids));
    TRY(check_ids(be, "unpack", ids, table->rows, false));
    const int32_t *id = ids->data;
    const int64_t N = plx_tensor_count(ids), E = table->columns;
    float *out = y->data;
    for (int64_t n = 0; n < N; n++) packed_load(table, id[n], 1, out + n * E);
    return PLX_OK;
}
