/* packed.c: between floats and the two packings; see packed.h. */
#include "core/packed.h"

#include <math.h>
#include <string.h>

#include "core/dtype.h"

static size_t element_bytes(enum packing kind)
{
    static const size_t bytes[PACKINGS] = {[PACKING_BF16] = 2, [PACKING_INT8] = 1};
    return bytes[kind];
}

const char *packing_name(enum packing kind)
{
    static const char *const names[PACKINGS] = {"none", "bf16", "int8"};
    return names[kind];
}

size_t packed_data_bytes(const struct packed *packed)
{
    return (size_t)(packed->rows * packed->columns) * element_bytes(packed->kind);
}

size_t packed_scale_bytes(const struct packed *packed)
{
    return packed->kind == PACKING_INT8 ? (size_t)packed->rows * sizeof *packed->scale : 0;
}

/* ---- bf16 ------------------------------------------------------------------------------------ */

static void store_bf16(uint16_t *row, const float *values, int64_t columns)
{
    for (int64_t k = 0; k < columns; k++) row[k] = dtype_f32_to_bf16(values[k]);
}

static void load_bf16(const uint16_t *row, float *values, int64_t columns)
{
    for (int64_t k = 0; k < columns; k++) values[k] = dtype_bf16_to_f32(row[k]);
}

/* ---- int8 ------------------------------------------------------------------------------------ */

/* A row of nothing above 2^-100, whose scale would be too small to divide by, is a row of zeros;
 * one that holds NaN or infinity gets the scale NaN, so that its products are NaN too. */
static float store_int8(int8_t *row, const float *values, int64_t columns)
{
    const float shift = 0x1.8p23f; /* rounds to a whole number and leaves it in the low bits */
    float largest = 0, odd = 0;    /* odd becomes NaN where a number is not finite */
#pragma omp simd reduction(max : largest) reduction(+ : odd)
    for (int64_t k = 0; k < columns; k++) {
        float size = fabsf(values[k]);
        largest = size > largest ? size : largest;
        odd += values[k] - values[k];
    }
    const bool finite = odd == 0;
    if (!finite || largest < 0x1p-100f) {
        memset(row, finite ? 0 : 1, (size_t)columns);
        return finite ? 0 : NAN;
    }
    const float inverse = 127.0f / largest;
#pragma omp simd
    for (int64_t k = 0; k < columns; k++) row[k] = (int8_t)float_bits(values[k] * inverse + shift);
    return largest / 127.0f;
}

static void load_int8(const int8_t *row, float scale, float *values, int64_t columns)
{
    for (int64_t k = 0; k < columns; k++) values[k] = scale * (float)row[k];
}

/* ---- Rows ------------------------------------------------------------------------------------ */

void packed_store(const struct packed *packed, int64_t first, int64_t count, const float *values)
{
    const int64_t K = packed->columns;
#pragma omp parallel for schedule(static) if (count * K > 1 << 16)
    for (int64_t r = first; r < first + count; r++) {
        const float *row = values + (r - first) * K;
        if (packed->kind == PACKING_INT8)
            packed->scale[r] = store_int8((int8_t *)packed->data + r * K, row, K);
        else
            store_bf16((uint16_t *)packed->data + r * K, row, K);
    }
}

void packed_load(const struct packed *packed, int64_t first, int64_t count, float *values)
{
    const int64_t K = packed->columns;
    for (int64_t r = first; r < first + count; r++) {
        float *row = values + (r - first) * K;
        if (packed->kind == PACKING_INT8)
            load_int8((const int8_t *)packed->data + r * K, packed->scale[r], row, K);
        else
            load_bf16((const uint16_t *)packed->data + r * K, row, K);
    }
}
