/* test_library_tensor.c: views (dense, slice, split heads) and conversion between dtypes. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <math.h>
#include <string.h>

#include "core/dtype.h"
#include "guarded.h"
#include "parallax/parallax.h"

static plx_context *context;

static int open_context(void **state)
{
    (void)state;
    return plx_context_create(NULL, &context) != PLX_OK;
}

static int close_context(void **state)
{
    (void)state;
    plx_context_destroy(context);
    return 0;
}

/* ---- Views --------------------------------------------------------------------------------- */

static void dtypes_have_sizes_and_names(void **state)
{
    (void)state;
    assert_int_equal(plx_dtype_size(PLX_F32), 4);
    assert_int_equal(plx_dtype_size(PLX_BF16), 2);
    assert_int_equal(plx_dtype_size(PLX_F64), 8);
    assert_int_equal(plx_dtype_size(PLX_I32), 4);
    assert_int_equal(plx_dtype_size((plx_dtype)9), 0);
    assert_string_equal(plx_dtype_name(PLX_F32), "f32");
    assert_string_equal(plx_dtype_name(PLX_BF16), "bf16");
    assert_string_equal(plx_dtype_name(PLX_F16), "f16");
    assert_string_equal(plx_dtype_name(PLX_F8E4M3), "f8e4m3");
    assert_int_equal(plx_dtype_size(PLX_F16), 2);
    assert_int_equal(plx_dtype_size(PLX_F8E4M3), 1);
    assert_string_equal(plx_dtype_name(PLX_F64), "f64");
    assert_string_equal(plx_dtype_name(PLX_I32), "i32");
    assert_string_equal(plx_dtype_name((plx_dtype)9), "unknown");
}

static void dense_views_are_row_major(void **state)
{
    (void)state;
    float data[2 * 3 * 4 * 5];
    struct plx_tensor x = plx_tensor_4d(data, PLX_F32, 2, 3, 4, 5);
    const int64_t strides[] = {60, 20, 5, 1};
    assert_int_equal(x.rank, 4);
    assert_memory_equal(x.stride, strides, sizeof strides);
    assert_int_equal(plx_tensor_count(&x), 120);
    assert_int_equal(plx_tensor_dense(data, PLX_F32, 0, x.shape).rank, 0);
    assert_int_equal(plx_tensor_dense(data, PLX_F32, 5, x.shape).rank, 0);
    assert_int_equal(plx_tensor_dense(data, PLX_F32, 2, NULL).rank, 0);
    struct plx_tensor none = {0};
    assert_int_equal(plx_tensor_count(&none), 0);
    assert_int_equal(plx_tensor_count(NULL), 0);
}

static void slices_point_inside(void **state)
{
    (void)state;
    uint16_t data[6 * 4];
    struct plx_tensor x = plx_tensor_dense(data, PLX_BF16, 2, (int64_t[]){6, 4});
    struct plx_tensor rows = plx_tensor_slice(x, 0, 2, 3), columns = plx_tensor_slice(x, 1, 1, 2);
    assert_ptr_equal(rows.data, data + 8);
    assert_int_equal(rows.shape[0], 3);
    assert_int_equal(rows.stride[0], 4);
    assert_ptr_equal(columns.data, data + 1);
    assert_int_equal(columns.shape[1], 2);
    assert_int_equal(plx_tensor_slice(x, 0, 6, 0).rank, 2);
    assert_null(plx_tensor_slice(plx_tensor_dense(NULL, PLX_F32, 1, (int64_t[]){4}), 0, 1, 2).data);
}

static void impossible_slices_have_rank_zero(void **state)
{
    (void)state;
    float data[24];
    struct plx_tensor x = plx_tensor_dense(data, PLX_F32, 2, (int64_t[]){6, 4});
    assert_int_equal(plx_tensor_slice(x, -1, 0, 1).rank, 0);
    assert_int_equal(plx_tensor_slice(x, 2, 0, 1).rank, 0);
    assert_int_equal(plx_tensor_slice(x, 0, -1, 1).rank, 0);
    assert_int_equal(plx_tensor_slice(x, 0, 0, -1).rank, 0);
    assert_int_equal(plx_tensor_slice(x, 0, 5, 2).rank, 0);
    assert_int_equal(plx_tensor_slice(x, 0, 7, 0).rank, 0);
    assert_int_equal(plx_tensor_slice(x, 0, 1, INT64_MAX).rank, 0);
}

static void heads_split_without_a_copy(void **state)
{
    (void)state;
    float data[2 * 3 * 40];
    struct plx_tensor fused = plx_tensor_dense(data, PLX_F32, 3, (int64_t[]){2, 3, 40});
    struct plx_tensor k = plx_tensor_split_heads(plx_tensor_slice(fused, 2, 24, 8), 2);
    assert_int_equal(k.rank, 4);
    assert_ptr_equal(k.data, data + 24);
    const int64_t shape[] = {2, 3, 2, 4}, stride[] = {120, 40, 4, 1};
    assert_memory_equal(k.shape, shape, sizeof shape);
    assert_memory_equal(k.stride, stride, sizeof stride);
    assert_int_equal(plx_tensor_split_heads(fused, 3).rank, 0);
    assert_int_equal(plx_tensor_split_heads(fused, 0).rank, 0);
    assert_int_equal(plx_tensor_split_heads(k, 1).rank, 0);
    assert_int_equal(plx_tensor_split_heads((struct plx_tensor){0}, 1).rank, 0);
}

/* ---- Conversion ---------------------------------------------------------------------------- */

static uint16_t bf16_of(double value, plx_dtype from)
{
    float single = (float)value;
    uint16_t result = 0;
    struct plx_tensor src = plx_tensor_dense(from == PLX_F64 ? (void *)&value : (void *)&single,
                                             from, 1, (int64_t[]){1});
    struct plx_tensor dst = plx_tensor_dense(&result, PLX_BF16, 1, (int64_t[]){1});
    assert_int_equal(plx_convert(context, &src, &dst), PLX_OK);
    return result;
}

static void bf16_rounds_to_nearest_even(void **state)
{
    (void)state;
    assert_int_equal(bf16_of(1.0, PLX_F32), 0x3f80);
    assert_int_equal(bf16_of(-2.0, PLX_F32), 0xc000);
    assert_int_equal(bf16_of(1 + 0x1p-8, PLX_F32), 0x3f80);           /* half way, even below */
    assert_int_equal(bf16_of(1 + 3 * 0x1p-8, PLX_F32), 0x3f82);       /* half way, even above */
    assert_int_equal(bf16_of(1 + 0x1p-8 + 0x1p-20, PLX_F32), 0x3f81); /* above half way */
    assert_int_equal(bf16_of(1 + 0x1p-8 + 0x1p-40, PLX_F64), 0x3f81); /* f32 would lose the tail */
    assert_int_equal(bf16_of(-1 - 0x1p-8 - 0x1p-40, PLX_F64), 0xbf81);
    assert_int_equal(bf16_of(1 + 3 * 0x1p-8 - 0x1p-40, PLX_F64), 0x3f81);
    assert_int_equal(bf16_of(3.4e38, PLX_F32), 0x7f80); /* past the largest */
    assert_int_equal(bf16_of(1e300, PLX_F64), 0x7f80);
    assert_int_equal(bf16_of(-1e300, PLX_F64), 0xff80);
    assert_int_equal(bf16_of(0x1p-133, PLX_F64), 0x0001); /* the smallest subnormal */
    assert_int_equal(bf16_of(-0.0, PLX_F64), 0x8000);
}

static void bf16_keeps_nan_and_infinity(void **state)
{
    (void)state;
    uint32_t low_payload = 0x7f800001u; /* truncation would make this infinity */
    float nan_value;
    memcpy(&nan_value, &low_payload, sizeof nan_value);
    assert_true(isnan(dtype_bf16_to_f32(dtype_f32_to_bf16(nan_value))));
    uint32_t full_payload = 0x7fffffffu; /* adding the rounding bias would overflow into the sign */
    memcpy(&nan_value, &full_payload, sizeof nan_value);
    assert_true(isnan(dtype_bf16_to_f32(dtype_f32_to_bf16(nan_value))));
    assert_true(isnan(dtype_bf16_to_f32(bf16_of(NAN, PLX_F64))));
    assert_int_equal(bf16_of(INFINITY, PLX_F32), 0x7f80);
    assert_int_equal(bf16_of(-INFINITY, PLX_F64), 0xff80);
}

/* A narrow dtype by its codes: those of positive finite numbers are 0 .. most, in order. */
struct narrow {
    plx_dtype dtype;
    uint32_t most, nan, sign;
};

static const struct narrow narrows[] = {{PLX_BF16, 0x7f7f, 0x7fc0, 0x8000},
                                        {PLX_F16, 0x7bff, 0x7e00, 0x8000},
                                        {PLX_F8E4M3, 0x7e, 0x7f, 0x80}};

static double value_of(const struct narrow *narrow, uint32_t code)
{
    uint64_t bytes = code;
    return dtype_load(&bytes, narrow->dtype, 0);
}

static uint32_t code_of(const struct narrow *narrow, double value)
{
    uint64_t bytes = 0;
    dtype_store(&bytes, narrow->dtype, 0, value);
    return (uint32_t)bytes;
}

static void every_narrow_number_survives_a_round_trip(void **state)
{
    (void)state;
    for (size_t n = 0; n < sizeof narrows / sizeof narrows[0]; n++) {
        const struct narrow *narrow = &narrows[n];
        double before = -1;
        for (uint32_t code = 0; code <= narrow->most; code++) {
            double value = value_of(narrow, code);
            assert_true(value > before && isfinite(value));
            assert_int_equal(code_of(narrow, value), code);
            assert_int_equal(code_of(narrow, -value), code | narrow->sign);
            before = value;
        }
        assert_true(isnan(value_of(narrow, narrow->nan)));
        assert_int_equal(code_of(narrow, NAN) & ~narrow->sign, narrow->nan);
    }
}

/* Between two neighbours the nearer one, and half way the one with an even code; from f64, so that
 * a rounding through f32 on the way would show. */
static void narrow_numbers_round_to_nearest_even(void **state)
{
    (void)state;
    for (size_t n = 0; n < sizeof narrows / sizeof narrows[0]; n++) {
        const struct narrow *narrow = &narrows[n];
        for (uint32_t code = 0; code < narrow->most; code++) {
            double low = value_of(narrow, code), middle = (low + value_of(narrow, code + 1)) / 2;
            assert_int_equal(code_of(narrow, middle), code + code % 2);
            assert_int_equal(code_of(narrow, nextafter(middle, 0)), code);
            assert_int_equal(code_of(narrow, -nextafter(middle, INFINITY)),
                             (code + 1) | narrow->sign);
        }
    }
}

static void numbers_past_the_largest(void **state)
{
    (void)state;
    const struct narrow *half = &narrows[1], *eighth = &narrows[2];
    assert_true(value_of(half, 0x7bff) == 65504 && value_of(half, 1) == 0x1p-24);
    assert_int_equal(code_of(half, 65519.99), 0x7bff);
    assert_int_equal(code_of(half, 65520), 0x7c00);
    assert_int_equal(code_of(half, -INFINITY), 0xfc00);
    assert_true(value_of(half, 0xfc00) == -INFINITY && isnan(value_of(half, 0xfc01)));
    assert_true(value_of(eighth, 0x7e) == 448 && value_of(eighth, 1) == 0x1p-9);
    assert_int_equal(code_of(eighth, 1e9), 0x7e);
    assert_int_equal(code_of(eighth, -INFINITY), 0xfe);
}

static void views_of_any_stride_convert(void **state)
{
    (void)state;
    static const plx_dtype dtypes[] = {PLX_F32, PLX_BF16, PLX_F64, PLX_F16, PLX_F8E4M3};
    const int64_t shape[] = {2, 3, 4, 5};
    double values[120], back[120];
    for (int n = 0; n < 120; n++) values[n] = n % 25 * 0.5 - 4; /* exact in every dtype */
    for (int from = 0; from < 5; from++) {
        for (int to = 0; to < 5; to++) {
            struct test_tensor src = test_tensor_create(dtypes[from], VIEW_PADDED, 4, shape);
            struct test_tensor dst = test_tensor_create(dtypes[to], VIEW_HEAD_MAJOR, 4, shape);
            test_tensor_write(&src, values);
            assert_int_equal(plx_convert(context, &src.view, &dst.view), PLX_OK);
            assert_true(test_tensor_intact(&src) && test_tensor_intact(&dst));
            test_tensor_read(&dst, back);
            assert_memory_equal(values, back, sizeof values);
            test_tensor_destroy(&src);
            test_tensor_destroy(&dst);
        }
    }
}

static void refuse(struct plx_tensor src, struct plx_tensor dst, const char *sentence)
{
    assert_int_equal(plx_convert(context, &src, &dst), PLX_INVALID_ARGUMENT);
    assert_string_equal(plx_error(context), sentence);
}

static void impossible_conversions_are_refused(void **state)
{
    (void)state;
    float data[24];
    struct plx_tensor x = plx_tensor_dense(data, PLX_F32, 2, (int64_t[]){3, 4}), y;
    assert_int_equal(plx_convert(context, NULL, &x), PLX_INVALID_ARGUMENT);
    assert_string_equal(plx_error(context), "src: is NULL");
    refuse(x, plx_tensor_dense(data, PLX_I32, 2, x.shape),
           "src: f32 to i32 is not a conversion between floating-point dtypes");
    refuse(x, plx_tensor_dense(data, PLX_F32, 1, x.shape),
           "dst: rank 1 differs from the rank 2 of src");
    refuse(x, plx_tensor_dense(data, PLX_F32, 2, (int64_t[]){3, 5}),
           "dst: extent 5 of axis 1 differs from the 4 of src");
    refuse(x, plx_tensor_dense(NULL, PLX_F32, 2, x.shape), "dst: data is NULL");
    refuse(plx_tensor_dense(NULL, PLX_F32, 2, x.shape), x, "src: data is NULL");
    refuse((struct plx_tensor){0}, x, "src: rank 0 is not in 1..4");
    y = x, y.stride[0] = 0;
    refuse(x, y, "dst: stride 0 of axis 0 makes its 3 entries share memory");
    y = x, y.stride[0] = -4;
    refuse(y, x, "src: stride -4 of axis 0 is negative");
    y = x, y.stride[1] = 2;
    refuse(y, x, "src: stride 2 of the last axis must be 1");
    y = x, y.shape[0] = -1;
    refuse(y, x, "src: extent -1 of axis 0 is not in 0..2147483647");
    y = x, y.dtype = (plx_dtype)9;
    refuse(y, x, "src: dtype 9 is not a dtype");
    y = x, y.device = PLX_CUDA;
    refuse(y, x, "src: device 1 differs from the device 0 of the context");
    y = x, y.stride[0] = INT64_MAX;
    refuse(y, x,
           "src: extent 3 with stride 9223372036854775807 of axis 0 exceeds the address space");
    y = plx_tensor_dense(NULL, PLX_F32, 2, (int64_t[]){0, 4});
    assert_int_equal(plx_convert(context, &y, &y), PLX_OK);
    assert_string_equal(plx_error(context), "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dtypes_have_sizes_and_names),
        cmocka_unit_test(dense_views_are_row_major),
        cmocka_unit_test(slices_point_inside),
        cmocka_unit_test(impossible_slices_have_rank_zero),
        cmocka_unit_test(heads_split_without_a_copy),
        cmocka_unit_test(bf16_rounds_to_nearest_even),
        cmocka_unit_test(bf16_keeps_nan_and_infinity),
        cmocka_unit_test(every_narrow_number_survives_a_round_trip),
        cmocka_unit_test(narrow_numbers_round_to_nearest_even),
        cmocka_unit_test(numbers_past_the_largest),
        cmocka_unit_test(views_of_any_stride_convert),
        cmocka_unit_test(impossible_conversions_are_refused),
    };
    return cmocka_run_group_tests(tests, open_context, close_context);
}
