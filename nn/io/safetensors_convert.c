/* safetensors_convert.c: numbers of a safetensors file in another type.
 *
 * Equal types are copied byte for byte. Otherwise values go through double in blocks: every F32,
 * BF16, F16 and F64 is exactly a double, so a conversion rounds once, to nearest even. A finite
 * value that the target cannot hold is refused rather than turned into infinity. Data in the file
 * may lie at any address, so it is only ever touched by memcpy. The loops of a block have no
 * branches, so that the compiler can vectorise them, and threads share the blocks. */
#include "io/safetensors.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/dtype.h"
#include "core/transfer.h"

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
        values[i] = (double)dtype_bf16_to_f32(half);
    }
}

/* 1 sign, 5 exponent, 10 fraction bits. As the high bits of a double, exponent and fraction are the
 * value times 2^-1008, subnormals included; exponent 31 is infinity or NaN. */
static void decode_f16(const unsigned char *source, int count, double *values)
{
    for (int i = 0; i < count; i++) {
        uint16_t half;
        memcpy(&half, source + 2 * i, sizeof half);
        uint64_t magnitude = (uint64_t)(half & 0x7fff) << 42, sign = (uint64_t)(half & 0x8000)
                                                                     << 48;
        uint64_t special = (uint64_t)0 - (uint64_t)((half & 0x7c00) == 0x7c00);
        uint64_t bits = double_bits(bits_double(magnitude) * 0x1p1008);
        uint64_t endless = UINT64_C(0x7ff) << 52 | (magnitude & UINT64_C(0xfffffffffffff));
        values[i] = bits_double((bits & ~special) | (endless & special) | sign);
    }
}

/* ---- Encoding -------------------------------------------------------------------------------- */

/* The float below or above a value that has its last bit set where the value is no float ("round to
 * odd"): whatever was cut off leaves a trace, so that a second rounding to fewer bits sees on which
 * side of a half the value lies. */
static inline uint32_t odd_float_bits(double value)
{
    float narrow = (float)value;
    uint32_t bits = float_bits(narrow);
    uint32_t inexact = (uint32_t)((double)narrow != value) & (uint32_t)(value == value);
    uint32_t above = inexact & (uint32_t)(fabs((double)narrow) > fabs(value));
    return (bits - above) | inexact;
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
    for (int i = 0; i < count; i++) {
        uint32_t bits = odd_float_bits(values[i]);
        uint32_t nan = (uint32_t)0 - (uint32_t)(values[i] != values[i]);
        uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
        uint32_t quiet = (bits >> 16 & 0x8000) | 0x7fc0;
        ((uint16_t *)target)[i] = (uint16_t)((rounded & ~nan) | (quiet & nan));
    }
}

/* Below 2^-14 the result is subnormal: adding 1/2 lets the processor round to multiples of 2^-24,
 * which are then the low bits of the sum. */
static void encode_f16(const double *values, int count, void *target)
{
    for (int i = 0; i < count; i++) {
        uint32_t bits = odd_float_bits(values[i]), sign = bits >> 16 & 0x8000;
        uint32_t magnitude = bits & 0x7fffffff;
        uint32_t normal = (magnitude + 0xc8000fffu + (magnitude >> 13 & 1)) >> 13;
        uint32_t small = float_bits(bits_float(magnitude) + 0.5f) - 0x3f000000;
        uint32_t is_small = (uint32_t)0 - (uint32_t)(magnitude < 0x38800000);
        uint32_t is_large = (uint32_t)0 - (uint32_t)(magnitude >= 0x47800000);
        uint32_t is_nan = (uint32_t)0 - (uint32_t)(values[i] != values[i]);
        uint32_t finite = (small & is_small) | (normal & ~is_small);
        uint32_t endless = 0x7c00 | (0x0200 & is_nan);
        ((uint16_t *)target)[i] =
            (uint16_t)((finite & ~(is_large | is_nan)) | (endless & (is_large | is_nan)) | sign);
    }
}

/* The types of floating-point numbers. From limit on a magnitude does not round to a finite value;
 * NaN and infinity pass unchecked. */
static const struct float_type {
    const char *dtype;
    int bytes;
    double limit;
    void (*decode)(const unsigned char *source, int count, double *values);
    void (*encode)(const double *values, int count, void *target);
} float_types[] = {{"F32", 4, 0x1.ffffffp127, decode_f32, encode_f32},
                   {"BF16", 2, 0x1.ffp127, decode_bf16, encode_bf16},
                   {"F16", 2, 65520, decode_f16, encode_f16},
                   {"F64", 8, INFINITY, decode_f64, encode_f64}};

/* NULL where the name is that of no such type. */
static const struct float_type *find_float(const char *dtype)
{
    for (size_t i = 0; dtype != NULL && i < sizeof float_types / sizeof *float_types; i++)
        if (strcmp(float_types[i].dtype, dtype) == 0) return &float_types[i];
    return NULL;
}

size_t safetensors_float_bytes(const char *dtype)
{
    const struct float_type *type = find_float(dtype);
    return type != NULL ? (size_t)type->bytes : 0;
}

/* ---- The two kinds of copy ------------------------------------------------------------------- */

/* One block; returns the index of the first value that the target cannot hold, or count. Where the
 * target's limit is no lower than the source's, no finite value is beyond it. */
static int convert_block(const struct float_type *source, const struct float_type *target,
                         const unsigned char *data, int count, void *out)
{
    double values[BLOCK];
    source->decode(data, count, values);
    target->encode(values, count, out);
    if (source->limit <= target->limit) return count;
    int beyond = 0;
    for (int i = 0; i < count; i++)
        beyond += (fabs(values[i]) >= target->limit) & (fabs(values[i]) <= 0x1.fffffffffffffp1023);
    if (beyond == 0) return count;
    int at = 0;
    while (!(fabs(values[at]) >= target->limit) || isinf(values[at])) at++;
    return at;
}

static plx_status refuse_large(const struct safetensors_entry *entry, const char *file_name,
                               const struct float_type *source, int64_t element, const char *target,
                               struct error *err)
{
    double value;
    source->decode(entry->data + element * source->bytes, 1, &value);
    return error_set(err, PLX_BAD_DATA,
                     "%s: tensor %.200s: element %" PRId64 " is %g, too large for %s", file_name,
                     entry->name, element, value, target);
}

plx_status safetensors_convert(const struct safetensors_entry *entry, const char *file_name,
                               int64_t first, int64_t count, const char *dtype, void *out,
                               struct error *err)
{
    const struct float_type *source = find_float(entry->dtype), *target = find_float(dtype);
    REQUIRE(err, source != NULL && target != NULL, PLX_UNSUPPORTED,
            "%s: tensor %.200s is of dtype %s, which cannot be read as %s", file_name, entry->name,
            entry->dtype, dtype);
    const unsigned char *data = entry->data + first * source->bytes;
    if (source == target) {
        if (count > 0) memcpy(out, data, (size_t)count * (size_t)source->bytes);
        return PLX_OK;
    }
    int64_t refused = count;
#pragma omp parallel for schedule(static) reduction(min : refused) if (count > 64 * BLOCK)
    for (int64_t start = 0; start < count; start += BLOCK) {
        int length = (int)(count - start < BLOCK ? count - start : BLOCK);
        int good = convert_block(source, target, data + start * source->bytes, length,
                                 (char *)out + start * target->bytes);
        if (good < length && start + good < refused) refused = start + good;
    }
    if (refused == count) return PLX_OK;
    return refuse_large(entry, file_name, source, first + refused, target->dtype, err);
}

static plx_status copy_integers(const struct safetensors_entry *entry, const char *file_name,
                                const struct plx_tensor *tensor, struct error *err)
{
    bool wide = strcmp(entry->dtype, "I64") == 0;
    int32_t *target = tensor->data;
    int64_t count = plx_tensor_count(tensor);
    for (int64_t i = 0; i < count; i++) {
        int64_t value;
        int32_t narrow;
        if (wide)
            memcpy(&value, entry->data + 8 * i, sizeof value);
        else {
            memcpy(&narrow, entry->data + 4 * i, sizeof narrow);
            value = narrow;
        }
        REQUIRE(err, value >= INT32_MIN && value <= INT32_MAX, PLX_BAD_DATA,
                "%s: tensor %.200s: element %" PRId64 " is %" PRId64 ", which i32 cannot hold",
                file_name, entry->name, i, value);
        target[i] = (int32_t)value;
    }
    return PLX_OK;
}

static bool is_integer_copy(const struct safetensors_entry *entry, const struct plx_tensor *tensor)
{
    return tensor->dtype == PLX_I32 &&
           (strcmp(entry->dtype, "I32") == 0 || strcmp(entry->dtype, "I64") == 0);
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
    bool floats =
        find_float(entry->dtype) != NULL && find_float(safetensors_dtype(tensor->dtype)) != NULL;
    REQUIRE(err, is_integer_copy(entry, tensor) || floats, PLX_UNSUPPORTED,
            "%s: tensor %.200s is of dtype %s, which cannot be read as %s", file_name, entry->name,
            entry->dtype, plx_dtype_name(tensor->dtype));
    return PLX_OK;
}

plx_status safetensors_read(const struct safetensors_entry *entry, const char *file_name,
                            const struct plx_tensor *tensor, struct error *err)
{
    TRY(safetensors_check(entry, file_name, tensor, err));
    if (is_integer_copy(entry, tensor)) return copy_integers(entry, file_name, tensor, err);
    return safetensors_convert(entry, file_name, 0, plx_tensor_count(tensor),
                               safetensors_dtype(tensor->dtype), tensor->data, err);
}

/* An entry on its way into a device's memory. */
struct loading {
    const struct safetensors_entry *entry;
    const char *file_name, *dtype;
};

static plx_status load_piece(void *user, void *elements, int64_t first, int64_t count,
                             struct error *err)
{
    const struct loading *loading = user;
    return safetensors_convert(loading->entry, loading->file_name, first, count, loading->dtype,
                               elements, err);
}

plx_status safetensors_load(const struct safetensors_entry *entry, const char *file_name,
                            const struct plx_tensor *tensor, const struct device *device,
                            plx_stream stream, struct error *err)
{
    struct loading loading = {entry, file_name, safetensors_dtype(tensor->dtype)};
    TRY(safetensors_check(entry, file_name, tensor, err));
    return transfer_write(device, stream, tensor, load_piece, &loading, err);
}
