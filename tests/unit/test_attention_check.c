/* test_attention_check.c: every rule about the arguments of an attention call, with its sentence.
 *
 * A good call is changed in one place at a time; the call must fail with the status and the
 * sentence of that rule, and must leave the outputs alone. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "attention/attention.h"
#include "parallax/parallax.h"

enum { B = 2, T = 5, S = 6, H = 4, G = 2, D = 8 };

/* A valid Parallax call of every pass; o is filled with a mark to see whether it was written. */
static struct fixture {
    plx_context *context;
    float q[B * T * H * D], k[B * S * G * D], row[B * T * H], o[B * T * H * D];
    float pool[5 * 3 * G * D];
    float out[6][B * S * H * D];
    _Alignas(64) unsigned char workspace[1 << 22];
    int32_t lengths[B], offsets[4];
    struct plx_attention attention;
    struct plx_parallax_args args;
} f;

static int open_fixture(void **state)
{
    (void)state;
    struct plx_context_config config = {.threads = 2};
    return plx_context_create(&config, &f.context) != PLX_OK;
}

static int close_fixture(void **state)
{
    (void)state;
    plx_context_destroy(f.context);
    return 0;
}

static void reset(void)
{
    const int64_t row[] = {B, T, H};
    struct plx_tensor q = plx_tensor_4d(f.q, PLX_F32, B, T, H, D);
    struct plx_tensor k = plx_tensor_4d(f.k, PLX_F32, B, S, G, D);
    struct plx_tensor like_q = q, like_k = k;
    f.attention = (struct plx_attention){.causal = true};
    for (int n = 0; n < B * T * H * D; n++) f.o[n] = 7;
    f.args = (struct plx_parallax_args){.q = q, .r = q, .k = k, .v = k, .d_o = q};
    f.args.o = plx_tensor_4d(f.o, PLX_F32, B, T, H, D);
    f.args.lse = plx_tensor_dense(f.row, PLX_F32, 3, row);
    f.args.probe_mean = plx_tensor_dense(f.out[5], PLX_F32, 3, row);
    like_q.data = f.out[0], f.args.value_mean = like_q;
    like_q.data = f.out[1], f.args.dq = like_q;
    like_q.data = f.out[2], f.args.dr = like_q;
    like_k.data = f.out[3], f.args.dk = like_k;
    like_k.data = f.out[4], f.args.dv = like_k;
}

static plx_status run(plx_pass pass)
{
    if (pass == PLX_FORWARD)
        return plx_parallax_forward(f.context, &f.attention, &f.args, f.workspace,
                                    sizeof f.workspace, NULL);
    if (pass == PLX_BACKWARD)
        return plx_parallax_backward(f.context, &f.attention, &f.args, f.workspace,
                                     sizeof f.workspace, NULL);
    return plx_parallax_decode(f.context, &f.attention, &f.args, f.workspace, sizeof f.workspace,
                               NULL);
}

/* The fixture as it stands must be refused in this pass, with this sentence; then it is reset. */
static void expect_in(plx_pass pass, const char *sentence)
{
    plx_status status = run(pass);
    assert_string_equal(plx_error(f.context), sentence);
    assert_int_equal(status, PLX_INVALID_ARGUMENT);
    for (int n = 0; n < B * T * H * D; n++) assert_true(f.o[n] == 7);
    reset();
}

static void expect(const char *sentence)
{
    expect_in(PLX_FORWARD, sentence);
}

static struct plx_tensor list(int32_t *values, int64_t count)
{
    return plx_tensor_dense(values, PLX_I32, 1, &count);
}

static void the_fixture_itself_is_good(void **state)
{
    (void)state;
    for (plx_pass pass = PLX_FORWARD; pass <= PLX_DECODE; pass++) {
        reset();
        assert_int_equal(run(pass), PLX_OK);
        assert_string_equal(plx_error(f.context), "");
    }
}

static void null_arguments(void **state)
{
    (void)state;
    size_t bytes;
    const char *name;
    reset();
    assert_int_equal(
        plx_parallax_forward(f.context, NULL, &f.args, f.workspace, sizeof f.workspace, NULL),
        PLX_INVALID_ARGUMENT);
    assert_string_equal(plx_error(f.context), "attention: is NULL");
    assert_int_equal(plx_parallax_workspace(f.context, &f.attention, PLX_FORWARD, NULL, &bytes),
                     PLX_INVALID_ARGUMENT);
    assert_string_equal(plx_error(f.context), "args: is NULL");
    assert_int_equal(plx_parallax_workspace(f.context, &f.attention, PLX_FORWARD, &f.args, NULL),
                     PLX_INVALID_ARGUMENT);
    assert_string_equal(plx_error(f.context), "bytes: is NULL");
    assert_int_equal(plx_parallax_kernel(f.context, &f.attention, PLX_FORWARD, &f.args, NULL),
                     PLX_INVALID_ARGUMENT);
    assert_string_equal(plx_error(f.context), "name: is NULL");
    assert_int_equal(plx_parallax_kernel(f.context, &f.attention, (plx_pass)3, &f.args, &name),
                     PLX_INVALID_ARGUMENT);
    assert_string_equal(plx_error(f.context), "pass: 3 is not a pass");
}

static void ranks_and_presence(void **state)
{
    (void)state;
    reset();
    f.args.q.rank = 0, expect("q: rank 0 is not in 1..4");
    f.args.q.rank = 3, f.args.q.stride[2] = 1, expect("q: rank is 3 but must be 4");
    f.args.k.rank = 5, expect("k: rank 5 is not in 1..4");
    f.args.k.rank = 3, f.args.k.stride[2] = 1, expect("k: rank is 3 but must be 4");
    f.args.r = (struct plx_tensor){0}, expect("r: rank 0 is not in 1..4");
    f.args.v = (struct plx_tensor){0}, expect("v: rank 0 is not in 1..4");
    f.args.o = (struct plx_tensor){0}, expect("o: rank 0 is not in 1..4");
    f.args.lse = f.args.o, expect("lse: rank is 4 but must be 3");
    f.args.lse = (struct plx_tensor){0}, expect_in(PLX_BACKWARD, "lse: rank 0 is not in 1..4");
    f.args.probe_mean = (struct plx_tensor){0};
    expect_in(PLX_BACKWARD, "probe_mean: rank 0 is not in 1..4");
    f.args.value_mean = (struct plx_tensor){0};
    expect_in(PLX_BACKWARD, "value_mean: rank 0 is not in 1..4");
    f.args.d_o = (struct plx_tensor){0}, expect_in(PLX_BACKWARD, "d_o: rank 0 is not in 1..4");
    f.args.dr = (struct plx_tensor){0}, expect_in(PLX_BACKWARD, "dr: rank 0 is not in 1..4");
    f.args.q.data = NULL, expect("q: data is NULL");
    f.args.o.data = NULL, expect("o: data is NULL");
    f.args.probe_mean.data = NULL, expect_in(PLX_DECODE, "probe_mean: data is NULL");
}

static void members_that_a_pass_does_not_look_at(void **state)
{
    (void)state;
    for (plx_pass pass = PLX_FORWARD; pass <= PLX_DECODE; pass += 2) {
        reset();
        f.args.lse = f.args.probe_mean = f.args.value_mean = (struct plx_tensor){0};
        f.args.d_o.rank = f.args.dq.rank = -7;
        f.args.dr.dtype = (plx_dtype)55;
        assert_int_equal(run(pass), PLX_OK);
    }
}

static void extents(void **state)
{
    (void)state;
    reset();
    f.args.r.shape[0] = 3, expect("r: batch 3 differs from the 2 of q");
    f.args.r.shape[1] = 4, expect("r: time 4 differs from the 5 of q");
    f.args.r.shape[2] = 2, expect("r: heads 2 differs from the 4 of q");
    f.args.r.shape[3] = 7, expect("r: channels 7 differs from the 8 of q");
    f.args.k.shape[0] = 1, expect("k: batch 1 differs from the 2 of q");
    f.args.k.shape[3] = 9, expect("k: channels 9 differs from the 8 of q");
    f.args.v.shape[1] = 5, expect("v: keys 5 differs from the 6 of k");
    f.args.v.shape[2] = 1, expect("v: heads 1 differs from the 2 of k");
    f.args.lse.shape[2] = 3, expect("lse: heads 3 differs from the 4 of q");
    f.args.dk.shape[1] = 7, expect_in(PLX_BACKWARD, "dk: keys 7 differs from the 6 of k");
    f.args.k.shape[2] = 3, expect("k: 3 heads do not divide the 4 heads of q");
    f.args.k.shape[2] = 0, expect("k: 0 heads do not divide the 4 heads of q");
    f.args.q.shape[3] = 65537, expect("q: 65537 channels are not in 1..65536");
    f.args.q.shape[3] = 0, expect("q: 0 channels are not in 1..65536");
    f.args.q.shape[1] = -1, expect("q: extent -1 of axis 1 is not in 0..2147483647");
    f.args.v.shape[0] = (int64_t)1 << 40;
    expect("v: extent 1099511627776 of axis 0 is not in 0..2147483647");
}

static void strides_and_devices(void **state)
{
    (void)state;
    reset();
    f.args.k.stride[1] = -1, expect("k: stride -1 of axis 1 is negative");
    f.args.v.stride[3] = 2, expect("v: stride 2 of the last axis must be 1");
    f.args.r.stride[3] = 0, expect("r: stride 0 of the last axis must be 1");
    f.args.lse.stride[2] = 5, expect("lse: stride 5 of the last axis must be 1");
    f.args.o.stride[2] = 0, expect("o: stride 0 of axis 2 makes its 4 entries share memory");
    f.args.dv.stride[0] = 0;
    expect_in(PLX_BACKWARD, "dv: stride 0 of axis 0 makes its 2 entries share memory");
    f.args.v.device = PLX_CUDA, expect("v: device 1 differs from the device 0 of the context");
    f.args.r.stride[0] = INT64_MAX / 4;
    expect("r: extent 2 with stride 2305843009213693951 of axis 0 exceeds the address space");
    f.args.k.stride[0] = 0; /* one cache for the whole batch: inputs may share memory */
    assert_int_equal(run(PLX_FORWARD), PLX_OK);
}

static void dtypes(void **state)
{
    (void)state;
    reset();
    f.args.q.dtype = PLX_I32, expect("q: dtype i32 is not one of f32, bf16, f16, f64");
    f.args.q.dtype = (plx_dtype)8, expect("q: dtype 8 is not a dtype");
    f.args.r.dtype = PLX_BF16, expect("r: dtype bf16 differs from the f32 of q");
    f.args.k.dtype = PLX_F64, expect("k: dtype f64 differs from the f32 of q");
    f.args.v.dtype = PLX_I32, expect("v: dtype i32 differs from the f32 of q");
    f.args.o.dtype = PLX_BF16, expect("o: dtype bf16 must be f32 beside a f32 q");
    f.args.dq.dtype = PLX_F64;
    expect_in(PLX_BACKWARD, "dq: dtype f64 must be f32 beside a f32 q");
    f.args.lse.dtype = PLX_F64, expect("lse: dtype f64 must be f32 beside a f32 q");
    f.args.q.dtype = f.args.r.dtype = f.args.k.dtype = f.args.v.dtype = PLX_F64;
    expect("lse: dtype f32 must be f64 beside a f64 q");
    f.args.q.dtype = f.args.r.dtype = f.args.k.dtype = f.args.v.dtype = PLX_BF16;
    f.args.o.dtype = PLX_F64, expect("o: dtype f64 is neither f32 nor the bf16 of q");
}

static void masks(void **state)
{
    (void)state;
    reset();
    f.attention.window = -1, expect("window: -1 is negative");
    f.attention.window = 3, f.attention.causal = false;
    expect("window: 3 keys require causal attention");
    f.attention.scale = NAN;
    assert_int_equal(run(PLX_FORWARD), PLX_INVALID_ARGUMENT);
    assert_non_null(strstr(plx_error(f.context), "scale: "));
    f.attention.scale = INFINITY, expect("scale: inf is not finite");
}

static void lengths(void **state)
{
    (void)state;
    reset();
    f.lengths[0] = 5, f.lengths[1] = 6;
    f.attention.q_lengths = list(f.lengths, B), expect("q_lengths: entry 1 is 6, not in 0..5");
    f.lengths[0] = -1;
    f.attention.k_lengths = list(f.lengths, B), expect("k_lengths: entry 0 is -1, not in 0..6");
    f.attention.k_lengths = list(f.lengths, 1), expect("k_lengths: 1 entries must be 2");
    f.attention.k_lengths = list(NULL, B), expect("k_lengths: data is NULL");
    f.attention.q_lengths = list(f.lengths, B), f.attention.q_lengths.dtype = PLX_F32;
    expect("q_lengths: dtype f32 must be i32");
    f.attention.q_lengths = plx_tensor_dense(f.lengths, PLX_I32, 2, (int64_t[]){1, B});
    expect("q_lengths: rank is 2 but must be 1");
}

/* A packed batch of 5 queries and 6 keys. */
static void pack(int32_t a, int32_t b, int32_t c, int32_t d)
{
    reset();
    f.offsets[0] = a, f.offsets[1] = b, f.offsets[2] = c, f.offsets[3] = d;
    struct plx_tensor *const tensors[] = {&f.args.q,          &f.args.r,         &f.args.k,
                                          &f.args.v,          &f.args.o,         &f.args.lse,
                                          &f.args.probe_mean, &f.args.value_mean};
    for (size_t n = 0; n < sizeof tensors / sizeof tensors[0]; n++) tensors[n]->shape[0] = 1;
}

static void offsets(void **state)
{
    (void)state;
    static int32_t keys[] = {0, 1, 6, 6};
    reset();
    f.attention.k_offsets = list(f.offsets, 4), expect("k_offsets: given without q_offsets");
    f.attention.q_offsets = list(f.offsets, 4);
    expect("q_offsets: the batch of a packed q is 2 but must be 1");
    pack(0, 2, 2, 5), f.attention.q_offsets = list(f.offsets, 4);
    expect("k_offsets: absent although the 6 keys differ from the 5 queries");
    pack(0, 2, 2, 5), f.attention.q_offsets = list(f.offsets, 4);
    f.attention.k_offsets = list(keys, 4);
    assert_int_equal(run(PLX_FORWARD), PLX_OK);
    f.attention.q_lengths = list(f.lengths, 1);
    assert_int_equal(run(PLX_FORWARD), PLX_INVALID_ARGUMENT);
    assert_string_equal(plx_error(f.context), "q_lengths: lengths and offsets exclude each other");
    pack(0, 2, 2, 5), f.attention.q_offsets = list(f.offsets, 4);
    f.attention.k_offsets = list(keys, 3), expect("k_offsets: 3 entries must be 4");
    pack(0, 2, 2, 5), f.attention.q_offsets = list(f.offsets, 1);
    f.attention.k_offsets = list(keys, 1), expect("q_offsets: 1 entries are fewer than 2");
    pack(1, 2, 2, 5), f.attention.q_offsets = list(f.offsets, 4);
    f.attention.k_offsets = list(keys, 4), expect("q_offsets: entry 0 is 1 but must be 0");
    pack(0, 3, 2, 5), f.attention.q_offsets = list(f.offsets, 4);
    f.attention.k_offsets = list(keys, 4),
    expect("q_offsets: entry 2 is 2, less than the 3 before it");
    pack(0, 2, 2, 4), f.attention.q_offsets = list(f.offsets, 4);
    f.attention.k_offsets = list(keys, 4), expect("q_offsets: entry 3 is 4 but must be 5");
    pack(0, 2, 2, 5), f.attention.k_offsets = f.attention.q_offsets = list(f.offsets, 4);
    expect("k_offsets: entry 3 is 5 but must be 6");
}

/* Two sequences of two pages of three keys in a pool of five. */
static void page(int32_t a, int32_t b, int32_t c, int32_t d)
{
    static int32_t table[4];
    reset();
    table[0] = a, table[1] = b, table[2] = c, table[3] = d;
    f.lengths[0] = 6, f.lengths[1] = 3;
    f.attention.k_lengths = list(f.lengths, B);
    f.attention.k_pages = plx_tensor_dense(table, PLX_I32, 2, (int64_t[]){B, 2});
    f.args.k = f.args.v = plx_tensor_4d(f.pool, PLX_F32, 5, 3, G, D);
}

static void pages(void **state)
{
    (void)state;
    for (plx_pass pass = PLX_FORWARD; pass <= PLX_DECODE; pass += 2) {
        page(4, 0, 2, -9); /* no length reaches the last */
        assert_int_equal(run(pass), PLX_OK);
        page(4, 4, 4, 7); /* sequences may share pages */
        assert_int_equal(run(pass), PLX_OK);
    }
    page(4, 5, 2, 0);
    expect("k_pages: entry 1 of sequence 0 is 5, not one of the 5 pages of k");
    page(4, 3, -1, 0);
    expect_in(PLX_DECODE, "k_pages: entry 0 of sequence 1 is -1, not one of the 5 pages of k");
    page(0, 1, 2, 3), f.lengths[1] = 7, expect("k_lengths: entry 1 is 7, not in 0..6");
    page(0, 1, 2, 3), f.attention.k_lengths = (struct plx_tensor){0};
    expect("k_lengths: absent although k_pages is given");
    page(0, 1, 2, 3), f.attention.k_pages.dtype = PLX_F32;
    expect("k_pages: dtype f32 must be i32");
    page(0, 1, 2, 3), f.attention.k_pages.shape[0] = 1;
    expect("k_pages: 1 sequences must be 2");
    page(0, 1, 2, 3), f.attention.k_pages = list(f.lengths, B);
    expect("k_pages: rank is 1 but must be 2");
    page(0, 1, 2, 3), f.attention.k_pages.data = NULL, expect("k_pages: data is NULL");
    page(0, 1, 2, 3), f.args.v.shape[0] = 4, expect("v: pages 4 differs from the 5 of k");
    page(0, 1, 2, 3), f.args.v.shape[1] = 2, expect("v: page size 2 differs from the 3 of k");
    page(0, 1, 2, 3), f.args.k.shape[1] = f.args.v.shape[1] = INT32_MAX;
    f.args.k.stride[0] = f.args.v.stride[0] = 0;
    expect("k_pages: 2 pages of 2147483647 keys are more than 2147483647 keys");
    page(0, 1, 2, 3);
    expect_in(PLX_BACKWARD, "k_pages: given although backward takes no paged cache");
}

static void f8_caches(void **state)
{
    (void)state;
    const int64_t heads = G, one = 1;
    struct plx_tensor scales = plx_tensor_dense(f.row, PLX_F32, 1, &heads);
    for (int n = 0; n < 2; n++) {
        reset();
        f.args.k.dtype = f.args.v.dtype = PLX_F8E4M3;
        if (n) f.attention.k_scales = f.attention.v_scales = scales;
        f.args.lse = (struct plx_tensor){0};
        assert_int_equal(run(PLX_DECODE), PLX_OK);
    }
    reset();
    f.args.q.dtype = PLX_F8E4M3, expect("q: dtype f8e4m3 is not one of f32, bf16, f16, f64");
    f.args.k.dtype = PLX_F8E4M3, expect("v: dtype f32 differs from the f8e4m3 of k");
    f.args.v.dtype = PLX_F8E4M3, expect("v: dtype f8e4m3 differs from the f32 of q");
    f.args.k.dtype = f.args.v.dtype = PLX_F8E4M3;
    expect_in(PLX_BACKWARD, "k: dtype f8e4m3 is that of a cache, which backward does not take");
    f.args.k.dtype = f.args.v.dtype = PLX_F8E4M3, f.args.q.dtype = f.args.r.dtype = PLX_F64;
    expect("k: dtype f8e4m3 is not taken beside a f64 q");
    f.args.o.dtype = PLX_F8E4M3, expect("o: dtype f8e4m3 must be f32 beside a f32 q");
    f.attention.v_scales = scales;
    expect("v_scales: given although k and v are f32, not f8e4m3");
    f.args.k.dtype = f.args.v.dtype = PLX_F8E4M3;
    f.attention.k_scales = plx_tensor_dense(f.row, PLX_F32, 1, &one);
    expect("k_scales: 1 entries must be 2");
    f.args.k.dtype = f.args.v.dtype = PLX_F8E4M3;
    f.attention.v_scales = scales, f.attention.v_scales.dtype = PLX_BF16;
    expect("v_scales: dtype bf16 must be f32");
    f.args.k.dtype = f.args.v.dtype = PLX_F8E4M3;
    f.attention.k_scales = scales, f.attention.k_scales.data = NULL;
    expect("k_scales: data is NULL");
}

static void workspace_and_stream(void **state)
{
    (void)state;
    size_t bytes = 0;
    char sentence[200];
    struct plx_context_config config = {.threads = 1, .kernel = "reference"};
    plx_context *context;
    reset();
    assert_int_equal(plx_context_create(&config, &context), PLX_OK);
    assert_int_equal(plx_parallax_workspace(context, &f.attention, PLX_FORWARD, &f.args, &bytes),
                     PLX_OK);
    assert_true(bytes > 0 && bytes % 64 == 0);
    assert_int_equal(
        plx_parallax_forward(context, &f.attention, &f.args, f.workspace, bytes - 1, NULL),
        PLX_WORKSPACE_TOO_SMALL);
    snprintf(sentence, sizeof sentence,
             "workspace: %zu bytes are fewer than the %zu that kernel \"reference\" needs",
             bytes - 1, bytes);
    assert_string_equal(plx_error(context), sentence);
    assert_int_equal(plx_parallax_forward(context, &f.attention, &f.args, NULL, bytes, NULL),
                     PLX_INVALID_ARGUMENT);
    snprintf(sentence, sizeof sentence,
             "workspace: is NULL but kernel \"reference\" needs %zu bytes", bytes);
    assert_string_equal(plx_error(context), sentence);
    assert_int_equal(plx_parallax_forward(context, &f.attention, &f.args, f.workspace + 16,
                                          sizeof f.workspace - 16, NULL),
                     PLX_INVALID_ARGUMENT);
    assert_string_equal(plx_error(context),
                        "workspace: address ends in 16 but must be a multiple of 64");
    assert_int_equal(
        plx_parallax_forward(context, &f.attention, &f.args, f.workspace, sizeof f.workspace, f.q),
        PLX_INVALID_ARGUMENT);
    assert_string_equal(plx_error(context), "stream: must be NULL on the CPU");
    plx_context_destroy(context);
}

/* The queries about a call look at shapes only: neither tensors nor lists need memory. */
static void shapes_are_enough_to_ask(void **state)
{
    (void)state;
    size_t bytes;
    const char *name = NULL;
    reset();
    struct plx_tensor *tensor = &f.args.q;
    for (size_t n = 0; n < sizeof f.args / sizeof *tensor; n++) tensor[n].data = NULL;
    f.attention.k_lengths = list(NULL, B);
    for (plx_pass pass = PLX_FORWARD; pass <= PLX_DECODE; pass++) {
        assert_int_equal(plx_parallax_workspace(f.context, &f.attention, pass, &f.args, &bytes),
                         PLX_OK);
        assert_int_equal(plx_parallax_kernel(f.context, &f.attention, pass, &f.args, &name),
                         PLX_OK);
        assert_true(strlen(name) > 0);
    }
}

static void empty_calls_are_valid(void **state)
{
    (void)state;
    reset();
    f.args.q.shape[0] = f.args.r.shape[0] = f.args.k.shape[0] = f.args.v.shape[0] = 0;
    f.args.o.shape[0] = f.args.lse.shape[0] = f.args.probe_mean.shape[0] = 0;
    f.args.value_mean.shape[0] = 0;
    assert_int_equal(plx_parallax_forward(f.context, &f.attention, &f.args, NULL, 0, NULL), PLX_OK);
    assert_true(f.o[0] == 7);

    reset(); /* no key: every row is a row that sees none */
    f.args.k.shape[1] = f.args.v.shape[1] = 0;
    assert_int_equal(plx_parallax_forward(f.context, &f.attention, &f.args, NULL, 0, NULL), PLX_OK);
    for (int n = 0; n < B * T * H * D; n++) assert_true(f.o[n] == 0 && f.out[0][n] == 0);
    for (int n = 0; n < B * T * H; n++) assert_true(f.row[n] == -INFINITY && f.out[5][n] == 0);

    reset(); /* no query: nothing reaches the keys */
    struct plx_tensor *const rows[] = {&f.args.q,   &f.args.r,          &f.args.o,
                                       &f.args.lse, &f.args.probe_mean, &f.args.value_mean,
                                       &f.args.d_o, &f.args.dq,         &f.args.dr};
    for (size_t n = 0; n < sizeof rows / sizeof rows[0]; n++) rows[n]->shape[1] = 0;
    f.out[3][0] = f.out[4][5] = 3;
    assert_int_equal(plx_parallax_backward(f.context, &f.attention, &f.args, NULL, 0, NULL),
                     PLX_OK);
    for (int n = 0; n < B * S * G * D; n++) assert_true(f.out[3][n] == 0 && f.out[4][n] == 0);
}

static void softmax_has_the_same_rules_without_the_probe(void **state)
{
    (void)state;
    reset();
    struct plx_softmax_args args = {.q = f.args.q, .k = f.args.k, .v = f.args.v, .o = f.args.o};
    assert_int_equal(
        plx_softmax_forward(f.context, &f.attention, &args, f.workspace, sizeof f.workspace, NULL),
        PLX_OK);
    args.v.shape[1] = 2;
    assert_int_equal(
        plx_softmax_decode(f.context, &f.attention, &args, f.workspace, sizeof f.workspace, NULL),
        PLX_INVALID_ARGUMENT);
    assert_string_equal(plx_error(f.context), "v: keys 2 differs from the 6 of k");
    args.v.shape[1] = S;
    assert_int_equal(
        plx_softmax_backward(f.context, &f.attention, &args, f.workspace, sizeof f.workspace, NULL),
        PLX_INVALID_ARGUMENT);
    assert_string_equal(plx_error(f.context), "lse: rank 0 is not in 1..4");
}

static void merges_check_their_parts(void **state)
{
    (void)state;
    reset();
    const struct plx_parallax_args *a = &f.args;
    struct plx_parallax_partial part = {a->o, a->lse, a->probe_mean, a->value_mean}, parts[2];
    struct plx_parallax_partial out = {.o = a->dq};
    struct plx_softmax_partial soft = {a->o, a->lse}, soft_out = {.o = a->dq};
    parts[0] = parts[1] = part;
    assert_int_equal(plx_parallax_merge(f.context, parts, 2, &out), PLX_OK);
    assert_int_equal(plx_parallax_merge(f.context, parts, 0, &out), PLX_INVALID_ARGUMENT);
    assert_string_equal(plx_error(f.context), "count: 0 parts are fewer than 1");
    assert_int_equal(plx_parallax_merge(f.context, NULL, 1, &out), PLX_INVALID_ARGUMENT);
    assert_string_equal(plx_error(f.context), "parts: is NULL");
    assert_int_equal(plx_parallax_merge(f.context, parts, 1, NULL), PLX_INVALID_ARGUMENT);
    assert_string_equal(plx_error(f.context), "out: is NULL");
    parts[1].lse.shape[1] = 4;
    assert_int_equal(plx_parallax_merge(f.context, parts, 2, &out), PLX_INVALID_ARGUMENT);
    assert_string_equal(plx_error(f.context),
                        "parts[1].lse: extent 4 of axis 1 differs from the 5 of parts[0].o");
    parts[1] = part, parts[1].probe_mean = (struct plx_tensor){0};
    assert_int_equal(plx_parallax_merge(f.context, parts, 2, &out), PLX_INVALID_ARGUMENT);
    assert_string_equal(plx_error(f.context), "parts[1].probe_mean: rank 0 is not in 1..4");
    parts[1] = part, out.o.dtype = PLX_I32;
    assert_int_equal(plx_parallax_merge(f.context, parts, 2, &out), PLX_INVALID_ARGUMENT);
    assert_string_equal(plx_error(f.context), "out.o: dtype i32 is not one of f32, bf16, f16, f64");
    soft.lse.dtype = PLX_BF16;
    assert_int_equal(plx_softmax_merge(f.context, &soft, 1, &soft_out), PLX_INVALID_ARGUMENT);
    assert_string_equal(plx_error(f.context), "parts[0].lse: dtype bf16 is not one of f32, f64");
    soft.lse.dtype = PLX_F32, soft_out.lse = soft.lse, soft_out.lse.stride[1] = 0;
    assert_int_equal(plx_softmax_merge(f.context, &soft, 1, &soft_out), PLX_INVALID_ARGUMENT);
    assert_string_equal(plx_error(f.context),
                        "out.lse: stride 0 of axis 1 makes its 5 entries share memory");
}

/* ---- Workspace ---- */

static const char *refuse_odd(const void *problem, const plx_context *context)
{
    (void)context;
    const struct attention_problem *p = problem;
    return (uintptr_t)p->q.data % 16 ? "it takes even addresses" : NULL;
}

static const char *refuse_nothing(const void *problem, const plx_context *context)
{
    (void)problem, (void)context;
    return NULL;
}

static size_t take_little(const void *problem)
{
    (void)problem;
    return 8;
}

static size_t take_more(const void *problem)
{
    const struct attention_problem *p = problem;
    return (size_t)p->T * 100;
}

static const struct kernel_row even = {"even", refuse_odd, take_little, NULL},
                               even_more = {"even", refuse_odd, take_more, NULL},
                               rest = {"rest", refuse_nothing, take_more, NULL},
                               rest_little = {"rest", refuse_nothing, take_little, NULL};

static struct kernel_table less_where_even(plx_pass pass)
{
    static const struct kernel_row *const rows[] = {&even, &rest};
    (void)pass;
    return (struct kernel_table){rows, 2};
}

static struct kernel_table more_where_even(plx_pass pass)
{
    static const struct kernel_row *const rows[] = {&even_more, &rest_little};
    (void)pass;
    return (struct kernel_table){rows, 2};
}

static plx_status ask_workspace(attention_table table, void *q, size_t *bytes)
{
    struct attention_problem problem = {.pass = PLX_FORWARD, .probe = true};
    problem.q = f.args.q, problem.r = f.args.r, problem.k = f.args.k, problem.v = f.args.v;
    problem.o = f.args.o;
    problem.q.data = q;
    return attention_workspace(f.context, &f.attention, table, &problem, bytes);
}

static size_t workspace_of(attention_table table, void *q)
{
    size_t bytes = 0;
    assert_int_equal(ask_workspace(table, q, &bytes), PLX_OK);
    return bytes;
}

/* What is asked for before memory is taken must be enough for whatever kernel its addresses get. */
static void workspace_is_enough_for_every_address(void **state)
{
    (void)state;
    reset();
    for (int n = 0; n < 3; n++) {
        void *const places[] = {NULL, f.workspace, f.workspace + 4};
        assert_int_equal(workspace_of(less_where_even, places[n]), 100 * T);
        assert_int_equal(workspace_of(more_where_even, places[n]), 100 * T);
    }
}

/* It is refused where the call will be, so that nobody takes memory for it. */
static void workspace_of_a_forced_kernel_is_refused_where_it_is(void **state)
{
    (void)state;
    reset();
    plx_context *all = f.context;
    struct plx_context_config config = {.threads = 1, .kernel = "even"};
    assert_int_equal(plx_context_create(&config, &f.context), PLX_OK);
    size_t bytes = 1;
    assert_int_equal(ask_workspace(less_where_even, f.workspace + 4, &bytes), PLX_UNSUPPORTED);
    assert_non_null(strstr(plx_error(f.context), "it takes even addresses"));
    assert_int_equal(workspace_of(less_where_even, f.workspace), 8);
    plx_context_destroy(f.context);
    f.context = all;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_fixture_itself_is_good),
        cmocka_unit_test(null_arguments),
        cmocka_unit_test(ranks_and_presence),
        cmocka_unit_test(members_that_a_pass_does_not_look_at),
        cmocka_unit_test(extents),
        cmocka_unit_test(strides_and_devices),
        cmocka_unit_test(dtypes),
        cmocka_unit_test(masks),
        cmocka_unit_test(lengths),
        cmocka_unit_test(offsets),
        cmocka_unit_test(pages),
        cmocka_unit_test(f8_caches),
        cmocka_unit_test(workspace_and_stream),
        cmocka_unit_test(shapes_are_enough_to_ask),
        cmocka_unit_test(empty_calls_are_valid),
        cmocka_unit_test(softmax_has_the_same_rules_without_the_probe),
        cmocka_unit_test(merges_check_their_parts),
        cmocka_unit_test(workspace_is_enough_for_every_address),
        cmocka_unit_test(workspace_of_a_forced_kernel_is_refused_where_it_is),
    };
    return cmocka_run_group_tests(tests, open_fixture, close_fixture);
}
