/* safetensors_convert.c: copying values out of a safetensors file into a tensor.
 *
 * Equal types are copied byte for byte. Otherwise values go through double in blocks: every F32,
 * BF16, F16 and F64 is exactly a double, so a conversion rounds once, to nearest even. A finite
 * value that the target cannot hold is refused rather than turned into infinity. Data in the file
 * may lie at any address, so it is only ever touched by memcpy. */
#include "io/safetensors.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { BLOCK = 512, SHAPE_TEXT = 200 };

/* ---- Decoding: count elements at source as doubles ------------------------------------------- */

static void decode_f32(const unsigned char *source, int count, double *values)
{
    for (int i = 0; i < count; i++) {
        float value;
        memcpy(&value, source + 4 * i, sizeof value);
        values[i] = (double)value;
    }
}

static void decode_f64(const unsigned char *source, int count, double *values)
{
    memcpy(values, source, (size_t)count * sizeof *values);
}

static void decode_bf16(const unsigned char *source, int count, double *values)
{
    for (int i = 0; i < count; i++) {
        uint16_t half;
        memcpy(&half, source + 2 * i, sizeof half);
        uint32_t bits = (uint32_t)half << 16;
        float value;
        memcpy(&value, &bits, sizeof value);
        values[i] = (double)value;
    }
}

/* 1 sign, 5 exponent, 10 fraction bits; exponent 0 is subnormal, 31 infinity or NaN. */
static double f16_value(uint16_t half)
{
    int exponent = half >> 10 & 31, fraction = half & 1023;
    double value;
    if (exponent == 31)
        value = fraction == 0 ? INFINITY : NAN;
    else if (exponent == 0)
        value = ldexp(fraction, -24);
    else
        value = ldexp(1024 + fraction, exponent - 25);
    return half & 0x8000 ? -value : value;
}

static void decode_f16(const unsigned char *source, int count, double *values)
{
    for (int i = 0; i < count; i++) {
        uint16_t half;
        memcpy(&half, source + 2 * i, sizeof half);
        values[i] = f16_value(half);
    }
}

/* ---- Encoding -------------------------------------------------------------------------------- */

/* Rounds to bf16 once. The step through float rounds to odd: whatever was cut off leaves a trace in
 * the last bit, so that the second rounding sees on which side of a half the value lies. */
static uint16_t bf16_bits(double value)
{
    if (isnan(value)) return signbit(value) ? 0xffc0 : 0x7fc0;
    float narrow = (float)value;
    uint32_t bits;
    memcpy(&bits, &narrow, sizeof bits);
    if (isfinite(value) && (double)narrow != value) {
        if (fabs((double)narrow) > fabs(value)) bits--;
        bits |= 1;
    }
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

static void encode_f32(const double *values, int count, void *target)
{
    for (int i = 0; i < count; i++) ((float *)target)[i] = (float)values[i];
}

static void encode_f64(const double *values, int count, void *target)
{
    memcpy(target, values, (size_t)count * sizeof *values);
}

static void encode_bf16(const double *values, int count, void *target)
{
    for (int i = 0; i < count; i++) ((uint16_t *)target)[i] = bf16_bits(values[i]);
}

/* Largest magnitude that rounds to a finite value; NaN and infinity pass unchecked. */
struct target_type {
    plx_dtype dtype;
    const char *file_dtype;
    double limit;
    void (*encode)(const double *values, int count, void *target);
};

static const struct target_type target_types[] = {
    {PLX_F32, "F32", 0x1.ffffffp127, encode_f32},
    {PLX_BF16, "BF16", 0x1.ffp127, encode_bf16},
    {PLX_F64, "F64", INFINITY, encode_f64},
};

static const struct source_type {
    const char *dtype;
    int bytes;
    void (*decode)(const unsigned char *source, int count, double *values);
} source_types[] = {{"F32", 4, decode_f32},
                    {"BF16", 2, decode_bf16},
                    {"F16", 2, decode_f16},
                    {"F64", 8, decode_f64}};

/* ---- The two kinds of copy ------------------------------------------------------------------- */

struct copy {
    const struct safetensors_entry *entry;
    const char *file_name;
    const struct plx_tensor *tensor;
    int64_t count;
    struct error *err;
};

static plx_status copy_floats(const struct copy *copy, const struct source_type *source,
                              const struct target_type *target)
{
    double values[BLOCK];
    size_t width = plx_dtype_size(target->dtype);
    for (int64_t start = 0; start < copy->count; start += BLOCK) {
        int count = (int)(copy->count - start < BLOCK ? copy->count - start : BLOCK);
        source->decode(copy->entry->data + start * source->bytes, count, values);
        for (int i = 0; i < count; i++)
            REQUIRE(copy->err, !(fabs(values[i]) >= target->limit) || isinf(values[i]),
                    PLX_BAD_DATA, "%s: tensor %.200s: element %" PRId64 " is %g, too large for %s",
                    copy->file_name, copy->entry->name, start + i, values[i],
                    plx_dtype_name(target->dtype));
        target->encode(values, count, (char *)copy->tensor->data + (size_t)start * width);
    }
    return PLX_OK;
}

static plx_status copy_integers(const struct copy *copy)
{
    bool wide = strcmp(copy->entry->dtype, "I64") == 0;
    int32_t *target = copy->tensor->data;
    for (int64_t i = 0; i < copy->count; i++) {
        int64_t value;
        int32_t narrow;
        if (wide)
            memcpy(&value, copy->entry->data + 8 * i, sizeof value);
        else {
            memcpy(&narrow, copy->entry->data + 4 * i, sizeof narrow);
            value = narrow;
        }
        REQUIRE(copy->err, value >= INT32_MIN && value <= INT32_MAX, PLX_BAD_DATA,
                "%s: tensor %.200s: element %" PRId64 " is %" PRId64 ", which i32 cannot hold",
                copy->file_name, copy->entry->name, i, value);
        target[i] = (int32_t)value;
    }
    return PLX_OK;
}

static bool is_integer_copy(const struct safetensors_entry *entry, const struct plx_tensor *tensor)
{
    return tensor->dtype == PLX_I32 &&
           (strcmp(entry->dtype, "I32") == 0 || strcmp(entry->dtype, "I64") == 0);
}

/* The rows that a copy of floating-point numbers needs; NULL where there is none. */
static void find_types(const struct safetensors_entry *entry, const struct plx_tensor *tensor,
                       const struct target_type **target, const struct source_type **source)
{
    *target = NULL;
    *source = NULL;
    for (size_t i = 0; i < sizeof target_types / sizeof *target_types; i++)
        if (target_types[i].dtype == tensor->dtype) *target = &target_types[i];
    for (size_t i = 0; i < sizeof source_types / sizeof *source_types; i++)
        if (strcmp(source_types[i].dtype, entry->dtype) == 0) *source = &source_types[i];
}

/* "[2, 3]" */
static const char *shape_text(int rank, const int64_t *shape, char text[SHAPE_TEXT])
{
    int length = snprintf(text, SHAPE_TEXT, "[");
    for (int i = 0; i < rank; i++)
        length += snprintf(text + length, (size_t)(SHAPE_TEXT - length), "%s%" PRId64,
                           i > 0 ? ", " : "", shape[i]);
    snprintf(text + length, (size_t)(SHAPE_TEXT - length), "]");
    return text;
}

plx_status safetensors_check(const struct safetensors_entry *entry, const char *file_name,
                             const struct plx_tensor *tensor, struct error *err)
{
    /* A tensor view has at least one dimension, so a file's single number is read into shape [1].
     */
    bool scalar = entry->rank == 0 && tensor->rank == 1 && tensor->shape[0] == 1;
    bool equal = tensor->rank >= 1 && entry->rank == tensor->rank;
    for (int i = 0; equal && i < tensor->rank; i++) equal = entry->shape[i] == tensor->shape[i];
    char found[SHAPE_TEXT], wanted[SHAPE_TEXT];
    REQUIRE(err, equal || scalar, PLX_BAD_DATA,
            "%s: tensor %.200s has shape %s, but shape %s is expected", file_name, entry->name,
            shape_text(entry->rank, entry->shape, found),
            shape_text(tensor->rank, tensor->shape, wanted));
    const struct target_type *target;
    const struct source_type *source;
    find_types(entry, tensor, &target, &source);
    REQUIRE(err, is_integer_copy(entry, tensor) || (source != NULL && target != NULL),
            PLX_UNSUPPORTED, "%s: tensor %.200s is of dtype %s, which cannot be read as %s",
            file_name, entry->name, entry->dtype, plx_dtype_name(tensor->dtype));
    return PLX_OK;
}

plx_status safetensors_read(const struct safetensors_entry *entry, const char *file_name,
                            const struct plx_tensor *tensor, struct error *err)
{
    TRY(safetensors_check(entry, file_name, tensor, err));
    struct copy copy = {entry, file_name, tensor, plx_tensor_count(tensor), err};
    if (is_integer_copy(entry, tensor)) return copy_integers(&copy);
    const struct target_type *target;
    const struct source_type *source;
    find_types(entry, tensor, &target, &source);
    if (strcmp(entry->dtype, target->file_dtype) != 0) return copy_floats(&copy, source, target);
    if (entry->bytes > 0) memcpy(tensor->data, entry->data, entry->bytes);
    return PLX_OK;
}
