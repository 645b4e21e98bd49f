/* test_cache_append.c: appending to a cache on the CPU: the table of append_case.c to the bit, and
 * every rule about the arguments with its sentence. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdio.h>

#include "append_case.h"

static void caches_hold_what_was_appended(void **state)
{
    (void)state;
    assert_int_equal(append_cases_run(PLX_CPU), 0);
}

/* ---- Sentences ------------------------------------------------------------------------------- */

enum { B = 2, T = 3, S = 8, G = 2, H = 4, D = 6, PAGE = 4, POOL = 5 };

static struct fixture {
    plx_context *context;
    float fresh[B * T * H * D], cache[POOL * PAGE * G * D + B * S * G * D], table[S * D];
    float scales[G];
    int32_t lengths[B], pages[B * 2];
    struct plx_attention attention;
    struct plx_cache_append_args args;
} f;

static int open_fixture(void **state)
{
    (void)state;
    return plx_context_create(NULL, &f.context) != PLX_OK;
}

static int close_fixture(void **state)
{
    (void)state;
    plx_context_destroy(f.context);
    return 0;
}

/* A good call with everything but pages and scales. */
static void reset(void)
{
    const int64_t table[] = {S, D / 2}, sequences = B;
    struct plx_tensor k = plx_tensor_4d(f.fresh, PLX_F32, B, T, G, D);
    struct plx_tensor q = plx_tensor_4d(f.fresh, PLX_F32, B, T, H, D);
    struct plx_tensor cache = plx_tensor_4d(f.cache, PLX_F32, B, S, G, D);
    struct plx_tensor angles = plx_tensor_dense(f.table, PLX_F32, 2, table);
    f.lengths[0] = S, f.lengths[1] = T;
    for (int n = 0; n < B * 2; n++) f.pages[n] = n;
    f.attention =
        (struct plx_attention){.k_lengths = plx_tensor_dense(f.lengths, PLX_I32, 1, &sequences)};
    f.args = (struct plx_cache_append_args){.k = k,
                                            .v = k,
                                            .k_cache = cache,
                                            .v_cache = cache,
                                            .cosines = angles,
                                            .sines = angles,
                                            .q = q,
                                            .r = q,
                                            .q_rotated = q,
                                            .r_rotated = q};
}

static plx_status run(void)
{
    return plx_cache_append(f.context, &f.attention, &f.args, NULL);
}

static void expect(const char *sentence)
{
    plx_status status = run();
    assert_string_equal(plx_error(f.context), sentence);
    assert_int_equal(status, PLX_INVALID_ARGUMENT);
    reset();
}

static void the_fixture_itself_is_good(void **state)
{
    (void)state;
    reset();
    assert_int_equal(run(), PLX_OK);
    f.args.r = f.args.r_rotated = (struct plx_tensor){0};
    assert_int_equal(run(), PLX_OK);
    f.args.q = f.args.cosines = f.args.sines = (struct plx_tensor){0};
    assert_int_equal(run(), PLX_OK);
}

static void null_arguments(void **state)
{
    (void)state;
    reset();
    assert_int_equal(plx_cache_append(NULL, &f.attention, &f.args, NULL), PLX_INVALID_ARGUMENT);
    assert_int_equal(plx_cache_append(f.context, NULL, &f.args, NULL), PLX_INVALID_ARGUMENT);
    assert_string_equal(plx_error(f.context), "attention: is NULL");
    assert_int_equal(plx_cache_append(f.context, &f.attention, NULL, NULL), PLX_INVALID_ARGUMENT);
    assert_string_equal(plx_error(f.context), "args: is NULL");
    assert_int_equal(plx_cache_append(f.context, &f.attention, &f.args, f.fresh),
                     PLX_INVALID_ARGUMENT);
    assert_string_equal(plx_error(f.context), "stream: must be NULL on the CPU");
    f.args.v.data = NULL, expect("v: data is NULL");
    f.args.k_cache.data = NULL, expect("k_cache: data is NULL");
}

static void tensors(void **state)
{
    (void)state;
    reset();
    f.args.k.rank = 0, expect("k: rank 0 is not in 1..4");
    f.args.k.rank = 3, f.args.k.stride[2] = 1, expect("k: rank is 3 but must be 4");
    f.args.k.dtype = PLX_F64, expect("k_cache: dtype f32 does not go with a k of f64");
    f.args.k.dtype = PLX_F8E4M3, expect("k: dtype f8e4m3 is not one of f32, bf16, f16, f64");
    f.args.k.shape[3] = 0, expect("k: has no channels");
    f.args.v.dtype = PLX_BF16, expect("v: dtype bf16 must be f32");
    f.args.v.shape[1] = 2, expect("v: extent 2 of axis 1 differs from the 3 of k");
    f.args.k_cache.dtype = PLX_I32;
    expect("k_cache: dtype i32 is not one of f32, bf16, f16, f64, f8e4m3");
    f.args.k_cache.dtype = PLX_F64, expect("k_cache: dtype f64 does not go with a k of f32");
    f.args.k_cache.shape[2] = 1, expect("k_cache: extent 1 of axis 2 differs from the 2 of k");
    f.args.k_cache.stride[1] = 0;
    expect("k_cache: stride 0 of axis 1 makes its 8 entries share memory");
    f.args.v_cache.dtype = PLX_F16, expect("v_cache: dtype f16 must be f32");
    f.args.v_cache.shape[1] = 7;
    expect("v_cache: extent 7 of axis 1 differs from the 8 of k_cache");
    f.args.v_cache.device = PLX_CUDA;
    expect("v_cache: device 1 differs from the device 0 of the context");
}

static void rotary(void **state)
{
    (void)state;
    const struct plx_tensor none = {0};
    reset();
    f.args.sines = none, expect("sines: is absent although its other half is given");
    f.args.cosines = none, expect("cosines: is absent although its other half is given");
    f.args.cosines = f.args.sines = none, expect("q: given without cosines and sines");
    f.args.q = none, expect("r: given without q");
    f.args.q_rotated = none, expect("q_rotated: rank 0 is not in 1..4");
    f.args.r_rotated.shape[2] = 3;
    expect("r_rotated: extent 3 of axis 2 differs from the 4 of q");
    f.args.q.dtype = PLX_BF16, expect("q: dtype bf16 must be f32");
    f.args.cosines.dtype = PLX_BF16, expect("cosines: dtype bf16 must be f32");
    f.args.cosines.shape[1] = 2, expect("cosines: extent 2 of axis 1 differs from the 3 of k");
    f.args.sines.shape[0] = 7, expect("sines: extent 7 of axis 0 differs from the 8 of cosines");
    f.args.cosines.shape[0] = f.args.sines.shape[0] = 7;
    expect("cosines: 7 positions are fewer than the 8 keys of the cache");
    f.args.k.shape[3] = f.args.v.shape[3] = f.args.k_cache.shape[3] = f.args.v_cache.shape[3] = 5;
    expect("k: 5 channels are odd, so they do not turn in pairs");
}

static void use_pages(void)
{
    reset();
    f.attention.k_pages = plx_tensor_dense(f.pages, PLX_I32, 2, (int64_t[]){B, 2});
    f.args.k_cache = f.args.v_cache = plx_tensor_4d(f.cache, PLX_F32, POOL, PAGE, G, D);
}

static void lists(void **state)
{
    (void)state;
    const int64_t heads = G, sequences = B;
    const struct plx_tensor scales = plx_tensor_dense(f.scales, PLX_F32, 1, &heads);
    reset();
    f.attention.k_lengths = (struct plx_tensor){0}, expect("k_lengths: is absent");
    f.lengths[1] = 9, expect("k_lengths: entry 1 is 9, not in 0..8");
    f.attention.q_lengths = plx_tensor_dense(f.lengths, PLX_I32, 1, &sequences);
    expect("q_lengths: given although an append takes all of its rows");
    f.attention.q_offsets = f.attention.k_lengths;
    expect("q_offsets: given although a cache is not packed");
    f.attention.k_scales = scales;
    expect("k_scales: given although k and v are f32, not f8e4m3");
    use_pages(), assert_int_equal(run(), PLX_OK);
    f.pages[1] = 5;
    expect("k_pages: entry 1 of sequence 0 is 5, not one of the 5 pages of k");
    use_pages(), f.pages[2] = -1;
    expect("k_pages: entry 0 of sequence 1 is -1, not one of the 5 pages of k");
    use_pages(), f.pages[3] = -1; /* no length reaches it */
    assert_int_equal(run(), PLX_OK);
    f.args.v_cache.shape[0] = 4;
    expect("v_cache: extent 4 of axis 0 differs from the 5 of k_cache");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(caches_hold_what_was_appended),
        cmocka_unit_test(the_fixture_itself_is_good),
        cmocka_unit_test(null_arguments),
        cmocka_unit_test(tensors),
        cmocka_unit_test(rotary),
        cmocka_unit_test(lists),
    };
    return cmocka_run_group_tests(tests, open_fixture, close_fixture);
}
