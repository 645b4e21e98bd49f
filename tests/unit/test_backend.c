/* test_backend.c: creating backends, scratch, and what operations say about arguments that cannot
 * be right. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "op.h"

static struct error err;

static struct backend create(const struct backend_config *config)
{
    struct backend be;
    error_clear(&err);
    if (backend_create(&be, config, &err) != PLX_OK) fail_msg("%s", err.text);
    return be;
}

/* The operation failed with this status, and its sentence holds each of the words, which end with
 * NULL. */
static void expect_failure(plx_status got, plx_status expected, ...)
{
    assert_int_equal(got, expected);
    assert_int_equal(err.status, expected);
    va_list words;
    va_start(words, expected);
    for (const char *word; (word = va_arg(words, const char *)) != NULL;)
        if (strstr(err.text, word) == NULL) fail_msg("\"%s\" does not say \"%s\"", err.text, word);
    va_end(words);
    error_clear(&err);
}

static struct plx_tensor tensor(void *data, plx_dtype dtype, int64_t rows, int64_t columns)
{
    return plx_tensor_dense(data, dtype, 2, (const int64_t[]){rows, columns});
}

static void unsupported_dtypes_are_refused(void **state)
{
    (void)state;
    struct backend be;
    struct backend_config mixed = {.ops = &ops_ref, .storage = PLX_F64, .compute = PLX_F32};
    expect_failure(backend_create(&be, &mixed, &err), PLX_UNSUPPORTED, "f32", "f64", NULL);
    struct backend_config wide = {.ops = &ops_cpu, .storage = PLX_F64, .compute = PLX_F64};
    expect_failure(backend_create(&be, &wide, &err), PLX_UNSUPPORTED, "cpu", "f64", NULL);
    struct backend_config threads = {.ops = &ops_cpu, .threads = -1};
    expect_failure(backend_create(&be, &threads, &err), PLX_INVALID_ARGUMENT, "-1", NULL);
    backend_destroy(&be);
}

static void scratch_grows_and_never_while_in_use(void **state)
{
    (void)state;
    struct backend be = create(&(struct backend_config){.ops = &ops_ref, .threads = 1});
    assert_int_equal(backend_reserve(&be, 1000), PLX_OK);
    assert_true(be.scratch.capacity >= 1000);
    assert_int_equal(backend_reserve(&be, 10), PLX_OK);
    assert_true(be.scratch.capacity >= 1000);
    assert_int_equal(backend_reserve(&be, 5000), PLX_OK);
    assert_true(be.scratch.capacity >= 5000);
    assert_non_null(arena_push(&be.scratch, 64));
    expect_failure(backend_reserve(&be, 9000), PLX_INTERNAL, "9000", "in use", NULL);
    backend_destroy(&be);
}

static const struct rope rope = {.theta = 1e6};

static void dry_backends_measure_and_touch_nothing(void **state)
{
    (void)state;
    struct backend be = create(&(struct backend_config){.ops = &ops_cpu, .threads = 1});
    struct backend dry = backend_dry(&be);
    struct plx_tensor x = plx_tensor_dense(NULL, PLX_F32, 3, (const int64_t[]){5, 2, 64});
    struct plx_tensor at = plx_tensor_dense(NULL, PLX_I32, 1, (const int64_t[]){5});
    assert_int_equal(dry.ops->rope(&dry, &x, &x, &at, &rope, false), PLX_OK);
    assert_true(dry.scratch.peak >= 32 * sizeof(double));
    assert_int_equal(dry.scratch.used, 0);
    assert_int_equal(be.scratch.peak, 0);
    backend_destroy(&be);
}

static void missing_scratch_is_an_internal_error(void **state)
{
    (void)state;
    float data[8] = {0};
    int32_t position = 1;
    struct backend be = create(&(struct backend_config){.ops = &ops_cpu, .threads = 1});
    struct plx_tensor x = plx_tensor_dense(data, PLX_F32, 3, (const int64_t[]){1, 1, 8});
    struct plx_tensor at = plx_tensor_dense(&position, PLX_I32, 1, (const int64_t[]){1});
    expect_failure(be.ops->rope(&be, &x, &x, &at, &rope, false), PLX_INTERNAL, "rope",
                   "32 bytes of scratch", NULL);
    assert_int_equal(be.scratch.used, 0);
    backend_destroy(&be);
}

/* The same sentences from every table, the dry one included. */
static void check_shapes(struct backend *be)
{
    float data[64] = {0};
    int32_t ids[4] = {0};
    const struct ops *ops = be->ops;
    struct plx_tensor small = tensor(data, PLX_F32, 2, 3), large = tensor(data, PLX_F32, 2, 4);
    struct plx_tensor half = tensor(data, PLX_BF16, 2, 3);
    struct plx_tensor gap = small;
    gap.stride[0] = 5;
    expect_failure(ops->add(be, &small, &small, &large), PLX_INTERNAL, "add", "b", "[2,4]", "[2,3]",
                   NULL);
    expect_failure(ops->add(be, &small, &half, &small), PLX_INTERNAL, "a is bf16", "f32", NULL);
    expect_failure(ops->zero(be, &gap), PLX_INTERNAL, "zero", "[2,3]", "dense", NULL);
    struct gemm gemm = {.a = &small, .b = &large, .c = &large, .alpha = 1.0};
    expect_failure(ops->gemm(be, &gemm), PLX_INTERNAL, "gemm", "[2,3]", "[2,4]", NULL);
    gemm.b = &small;
    gemm.transpose_b = true;
    expect_failure(ops->gemm(be, &gemm), PLX_INTERNAL, "transposed", "c [2,4]", NULL);
    struct plx_tensor gain = plx_tensor_dense(data, PLX_F32, 1, (const int64_t[]){4});
    struct plx_tensor rstd = plx_tensor_dense(data, PLX_F32, 1, (const int64_t[]){2});
    expect_failure(ops->rmsnorm(be, &small, &rstd, &small, &gain, 1e-6), PLX_INTERNAL, "rmsnorm",
                   "gain [4]", "3 elements", "[2,3]", NULL);
    struct plx_tensor odd = plx_tensor_dense(data, PLX_F32, 3, (const int64_t[]){2, 1, 3});
    struct plx_tensor at = plx_tensor_dense(ids, PLX_I32, 1, (const int64_t[]){2});
    expect_failure(ops->rope(be, &odd, &odd, &at, &rope, false), PLX_INTERNAL, "rope", "[2,1,3]",
                   "odd", NULL);
    expect_failure(ops->bias(be, &small, &small, &gain), PLX_INTERNAL, "bias", "bias [4]",
                   "3 elements", "[2,3]", NULL);
    double one = 1.0;
    struct plx_tensor factor = plx_tensor_dense(&one, PLX_F64, 1, (const int64_t[]){1});
    struct update_item item = {&small, &small, &small, &small, &small, .lr = 1};
    struct adamw_update update = {
        .items = &item, .count = 1, .factor = &factor, .numbers = &factor};
    expect_failure(ops->adamw(be, &update), PLX_INTERNAL, "adamw", "numbers [1]", NULL);
    struct plx_tensor directions = plx_tensor_dense(data, PLX_F32, 3, (const int64_t[]){1, 2, 4});
    struct step_numbers told = {.step = 1};
    struct plx_tensor numbers =
        plx_tensor_dense(&told, PLX_F64, 1, (const int64_t[]){STEP_NUMBERS});
    struct muon_update muon = {.items = &item,
                               .count = 1,
                               .factor = &factor,
                               .numbers = &numbers,
                               .directions = &directions};
    expect_failure(ops->momentum(be, &muon), PLX_INTERNAL, "momentum", "[1,2,4]", "1 values", NULL);
    item.m = &large;
    expect_failure(ops->apply(be, &muon), PLX_INTERNAL, "apply", "m [2,4]", "value [2,3]", NULL);
}

static void wrong_shapes_are_named(void **state)
{
    (void)state;
    static const struct ops *const tables[] = {&ops_ref, &ops_cpu};
    for (int t = 0; t < 2; t++) {
        struct backend be = create(&(struct backend_config){.ops = tables[t], .threads = 1});
        check_shapes(&be);
        struct backend dry = backend_dry(&be);
        check_shapes(&dry);
        backend_destroy(&be);
    }
}

static void ids_outside_the_table_are_refused(void **state)
{
    (void)state;
    static const struct ops *const tables[] = {&ops_ref, &ops_cpu};
    float rows[6] = {0}, table[9] = {0};
    for (int t = 0; t < 2; t++) {
        int32_t ids[2] = {2, 3};
        struct backend be = create(&(struct backend_config){.ops = tables[t], .threads = 1});
        struct plx_tensor y = tensor(rows, PLX_F32, 2, 3), v = tensor(table, PLX_F32, 3, 3);
        struct plx_tensor at = plx_tensor_dense(ids, PLX_I32, 1, (const int64_t[]){2});
        expect_failure(be.ops->embed(&be, &y, &v, &at), PLX_INVALID_ARGUMENT, "embed", "id 3 at 1",
                       "0..2", NULL);
        ids[1] = -1;
        expect_failure(be.ops->embed_backward(&be, &v, &y, &at), PLX_INVALID_ARGUMENT,
                       "embed_backward", "id -1 at 1", NULL);
        struct plx_tensor losses = plx_tensor_dense(rows, PLX_F32, 1, (const int64_t[]){2});
        struct plx_tensor absent = {0};
        assert_int_equal(be.ops->cross_entropy(&be, &losses, &absent, &y, &at, NULL), PLX_OK);
        ids[0] = 3;
        expect_failure(be.ops->cross_entropy(&be, &losses, &absent, &y, &at, NULL),
                       PLX_INVALID_ARGUMENT, "cross_entropy", "id 3 at 0", NULL);
        backend_destroy(&be);
    }
}

/* More shapes than ops_cpu keeps plans for, each right, and the first still right when it comes
 * back. */
static void products_of_many_shapes_stay_right(void **state)
{
    (void)state;
    enum { SHAPES = 300 };
    static float a[SHAPES + 1], b[SHAPES + 1];
    float c = 0;
    for (int k = 0; k <= SHAPES; k++) {
        a[k] = (float)(k % 5 - 2);
        b[k] = (float)(k % 3 - 1);
    }
    struct backend be = create(&(struct backend_config){.ops = &ops_cpu, .threads = 1});
    assert_int_equal(backend_reserve(&be, 1 << 20), PLX_OK);
    for (int n = 1; n <= SHAPES + 1; n++) {
        int K = n <= SHAPES ? n : 1;
        struct plx_tensor left = tensor(a, PLX_F32, 1, K), right = tensor(b, PLX_F32, 1, K);
        struct plx_tensor result = tensor(&c, PLX_F32, 1, 1);
        struct gemm gemm = {.a = &left, .b = &right, .c = &result, .transpose_b = true, .alpha = 1};
        if (be.ops->gemm(&be, &gemm) != PLX_OK) fail_msg("%s", err.text);
        float sum = 0;
        for (int k = 0; k < K; k++) sum += a[k] * b[k];
        assert_true(c == sum);
    }
    backend_destroy(&be);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unsupported_dtypes_are_refused),
        cmocka_unit_test(scratch_grows_and_never_while_in_use),
        cmocka_unit_test(dry_backends_measure_and_touch_nothing),
        cmocka_unit_test(missing_scratch_is_an_internal_error),
        cmocka_unit_test(wrong_shapes_are_named),
        cmocka_unit_test(products_of_many_shapes_stay_right),
        cmocka_unit_test(ids_outside_the_table_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
