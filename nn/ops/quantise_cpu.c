/* quantise_cpu.c: 8-bit operands on the CPU, which has no products of them: they are rounded as on
 * a GPU, widened to floats again and multiplied as every other matrix is. So what a training run in
 * fp8 comes to can be seen without a GPU; it is slower than f32, not faster. */
#include <math.h>

#include "core/dtype.h"
#include "ops/check.h"
#include "ops/cpu_state.h"
#include "ops/scratch.h"

/* ---- Rounding -------------------------------------------------------------------------------- */

/* One row of x, or one column, which is one element in every stride. */
static void quantise_line(const struct quantised *quantised, int64_t line, const float *x,
                          int64_t stride)
{
    const int64_t count = quantised->values.shape[1];
    uint8_t *out = (uint8_t *)quantised->values.data + line * count;
    float largest = 0, odd = 0; /* odd becomes NaN where a number is not finite */
    for (int64_t i = 0; i < count; i++) {
        largest = fmaxf(largest, fabsf(x[i * stride]));
        odd += x[i * stride] - x[i * stride];
    }
    const double scale = quantised_scale(odd == 0 ? largest : NAN);
    for (int64_t i = 0; i < count; i++) out[i] = dtype_f64_to_f8(x[i * stride] / scale);
    ((float *)quantised->scale.data)[line] = (float)scale;
}

static void quantise_lines(const struct backend *be, const struct quantised *quantised,
                           const float *x, int64_t step, int64_t stride)
{
    const int64_t lines = quantised->values.shape[0];
#pragma omp parallel for num_threads(cpu_threads(be, plx_tensor_count(&quantised->values)))        \
    schedule(static)
    for (int64_t line = 0; line < lines; line++)
        quantise_line(quantised, line, x + line * step, stride);
}

plx_status cpu_quantise(struct backend *be, const struct plx_tensor *x,
                        const struct quantised *rows, const struct quantised *columns)
{
    TRY(check_quantise(be, x, rows, columns));
    quantise_lines(be, rows, x->data, x->shape[1], 1);
    if (columns != NULL) quantise_lines(be, columns, x->data, 1, x->shape[1]);
    return PLX_OK;
}

/* ---- Products -------------------------------------------------------------------------------- */

/* Of both operands, b behind a, in one block. */
static size_t widened_bytes(const struct gemm *gemm)
{
    return (size_t)(plx_tensor_count(gemm->a) + plx_tensor_count(gemm->b)) * sizeof(float);
}

/* The product of the widened operands, whose memory is room. */
struct widened {
    struct plx_tensor a, b;
    struct gemm product;
};

static void widened_make(const struct gemm *gemm, float *room, struct widened *wide)
{
    *wide = (struct widened){.product = *gemm};
    float *behind = room != NULL ? room + plx_tensor_count(gemm->a) : NULL;
    wide->a = plx_tensor_dense(room, PLX_F32, 2, gemm->a->shape);
    wide->b = plx_tensor_dense(behind, PLX_F32, 2, gemm->b->shape);
    wide->product.a = &wide->a;
    wide->product.b = &wide->b;
    wide->product.a_scale = wide->product.b_scale = NULL;
}

static void widen(const struct backend *be, const struct plx_tensor *to,
                  const struct plx_tensor *values, const struct plx_tensor *scale)
{
    const int64_t rows = values->shape[0], columns = values->shape[1];
    float numbers[256];
    for (int stored = 0; stored < 256; stored++) numbers[stored] = dtype_f8_to_f32((uint8_t)stored);
#pragma omp parallel for num_threads(cpu_threads(be, rows *columns)) schedule(static)
    for (int64_t r = 0; r < rows; r++) {
        const uint8_t *in = (const uint8_t *)values->data + r * columns;
        const float factor = ((const float *)scale->data)[r];
        float *out = (float *)to->data + r * columns;
        for (int64_t c = 0; c < columns; c++) out[c] = factor * numbers[in[c]];
    }
}

/* The widened operands, and what their product takes. */
plx_status cpu_gemm_scratch(struct backend *be, const struct gemm *gemm, size_t *first,
                            size_t *second)
{
    *first = *second = 0;
    if (gemm->a_scale == NULL) return gemm_scratch(be, gemm, first);
    struct widened wide;
    widened_make(gemm, NULL, &wide);
    *first = widened_bytes(gemm);
    return gemm_scratch(be, &wide.product, second);
}

static plx_status gemm_quantised(struct backend *be, const struct gemm *gemm)
{
    const size_t mark = arena_mark(&be->scratch);
    struct widened wide;
    void *room;
    plx_status status = scratch_push(be, "gemm", widened_bytes(gemm), &room);
    widened_make(gemm, room, &wide);
    if (status == PLX_OK) {
        widen(be, &wide.a, gemm->a, gemm->a_scale);
        widen(be, &wide.b, gemm->b, gemm->b_scale);
    }
    if (status == PLX_OK) status = gemm_products(be, &wide.product);
    arena_release(&be->scratch, mark);
    return status;
}

plx_status cpu_gemm(struct backend *be, const struct gemm *gemm)
{
    TRY(check_gemm(be, gemm));
    return gemm->a_scale != NULL ? gemm_quantised(be, gemm) : gemm_products(be, gemm);
}
