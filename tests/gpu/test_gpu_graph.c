/* test_gpu_graph.c: one captured decode, replayed while lengths and page tables change between
 * replays, as a server does with it; or while the launch before it in the graph changes them, when
 * the decode may have begun and looked at them. Every replay must give the bits that the same call
 * gives outside a graph with a workspace of its own, and a sequence whose length changed another
 * output than before. Without a GPU the program says "skipped, no GPU" and exits with 77. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/device.h"
#include "core/dtype.h"
#include "device_memory.h"
#include "late_write.h"
#include "seeded.h"

enum { LENGTHS = 4, MOST_SEQUENCES = 40, MOST_PAGES = 256, REPLAYS = 5 };

/* A cache of bf16; page 0: not paged; window 0: none. Sequences b, b + 4, b + 8 .. are of one
 * length. */
struct graph_case {
    const char *name;
    int64_t B, T, S, H, G, D, page;
    int32_t lengths[REPLAYS][LENGTHS];
    int64_t window;
};

static const struct graph_case cases[] = {
    {"one_sequence", 1, 1, 2048, 8, 8, 128, 0, {{2048}, {1}, {0}, {65}, {2048}}, 0},
    {"one_sequence_64", 1, 1, 2048, 4, 2, 64, 0, {{3}, {2047}, {2047}, {1000}, {64}}, 0},
    {"one_head", 1, 2, 4096, 1, 1, 64, 0, {{4096}, {2}, {640}, {4096}, {129}}, 0},
    {"ragged",
     4,
     1,
     700,
     8,
     4,
     128,
     0,
     {{700, 1, 0, 300}, {1, 700, 5, 300}, {9, 9, 9, 300}, {9, 9, 9, 9}, {700, 700, 700, 700}},
     0},
    {"tokens", 2, 4, 300, 4, 2, 64, 0, {{300, 4}, {4, 300}, {299, 40}, {60, 60}, {5, 6}}, 0},
    {"page_16",
     4,
     1,
     512,
     8,
     4,
     128,
     16,
     {{512, 1, 0, 300}, {1, 512, 5, 300}, {9, 9, 9, 300}, {9, 9, 9, 9}, {512, 512, 512, 512}},
     0},
    {"page_16_64", 1, 1, 1024, 4, 2, 64, 16, {{1024}, {17}, {16}, {500}, {1}}, 0},
    {"rows", 2, 4, 300, 32, 8, 128, 16, {{300, 4}, {4, 300}, {299, 40}, {60, 60}, {5, 6}}, 0},
    {"long", 1, 1, 8192, 8, 8, 128, 64, {{8192}, {500}, {8000}, {65}, {4097}}, 0},
    {"long_64", 1, 1, 4096, 8, 8, 64, 16, {{4096}, {500}, {4000}, {65}, {2049}}, 0},
    {"window", 1, 1, 2048, 8, 8, 128, 16, {{2048}, {500}, {2000}, {65}, {1050}}, 300},
    {"many",
     40,
     1,
     90,
     8,
     8,
     128,
     16,
     {{90, 1, 0, 30}, {1, 70, 5, 30}, {9, 9, 9, 30}, {9, 9, 9, 9}, {90, 90, 90, 90}},
     0},
    {"page_100",
     2,
     1,
     400,
     4,
     4,
     128,
     100,
     {{400, 1}, {101, 399}, {101, 400}, {0, 0}, {7, 300}},
     0},
};

/* What a case has in the GPU's memory. Lengths and, behind them, pages are `count` numbers at
 * `lists`; coming: what they are to be. */
struct memory {
    struct plx_attention attention;
    struct plx_parallax_args args;
    int32_t *lists, *coming;
    int count;
    char *workspace;
    size_t bytes;
};

static struct error err;

static void must(plx_status status)
{
    if (status != PLX_OK) fail_msg("%s", err.text);
}

static struct plx_tensor random_tensor(struct seeded *random, int64_t a, int64_t b, int64_t c,
                                       int64_t d)
{
    struct plx_tensor view = plx_tensor_4d(NULL, PLX_BF16, a, b, c, d);
    const int64_t count = plx_tensor_count(&view);
    uint16_t *values = malloc(sizeof *values * (size_t)count);
    for (int64_t n = 0; n < count; n++) dtype_store(values, PLX_BF16, n, seeded_normal(random));
    view.data = device_upload(values, sizeof *values * (size_t)count);
    view.device = PLX_CUDA;
    free(values);
    return view;
}

/* Sequence b's pages, in another order each replay and none of them another sequence's. */
static void draw_pages(struct seeded *random, const struct graph_case *c, int32_t *pages)
{
    const int64_t each = (c->S + c->page - 1) / c->page;
    for (int64_t n = 0; n < c->B * each; n++) pages[n] = (int32_t)n;
    for (int64_t n = c->B * each - 1; n > 0; n--) {
        int64_t other = seeded_between(random, n / each * each, n);
        int32_t page = pages[n];
        pages[n] = pages[other], pages[other] = page;
    }
}

/* New device memory, every byte of which is the same. */
static char *filled(int byte, size_t bytes)
{
    char *host = malloc(bytes + 1);
    memset(host, byte, bytes + 1);
    char *memory = device_upload(host, bytes + 1);
    free(host);
    return memory;
}

static struct plx_tensor list(int32_t *data, int rank, const int64_t *shape)
{
    struct plx_tensor view = plx_tensor_dense(data, PLX_I32, rank, shape);
    view.device = PLX_CUDA;
    return view;
}

static struct memory memory_create(plx_context *context, const struct graph_case *c,
                                   struct seeded *random)
{
    struct memory m = {.attention = {.causal = true, .window = c->window}};
    const int64_t pages = c->page > 0 ? (c->S + c->page - 1) / c->page : 0;
    const int64_t table[] = {c->B, pages}, blocks = c->page > 0 ? c->B * pages : c->B;
    m.args.q = random_tensor(random, c->B, c->T, c->H, c->D);
    m.args.r = random_tensor(random, c->B, c->T, c->H, c->D);
    m.args.o = random_tensor(random, c->B, c->T, c->H, c->D);
    m.args.k = random_tensor(random, blocks, c->page > 0 ? c->page : c->S, c->G, c->D);
    m.args.v = random_tensor(random, blocks, c->page > 0 ? c->page : c->S, c->G, c->D);
    m.count = (int)(c->B + c->B * pages);
    m.lists = (int32_t *)filled(0, sizeof(int32_t) * (size_t)m.count);
    m.coming = (int32_t *)filled(0, sizeof(int32_t) * (size_t)m.count);
    m.attention.k_lengths = list(m.lists, 1, table);
    if (pages > 0) m.attention.k_pages = list(m.lists + c->B, 2, table);
    plx_status status =
        plx_parallax_workspace(context, &m.attention, PLX_DECODE, &m.args, &m.bytes);
    if (status == PLX_OK) m.workspace = filled(0xa5, m.bytes);
    return m;
}

static void memory_destroy(struct memory *m)
{
    void *const all[] = {m->args.q.data, m->args.r.data, m->args.k.data, m->args.v.data,
                         m->args.o.data, m->lists,       m->coming,      m->workspace};
    for (size_t n = 0; n < sizeof all / sizeof all[0]; n++) device_free(all[n]);
}

static void decode(plx_context *context, const struct memory *m, char *workspace)
{
    plx_status status =
        plx_parallax_decode(context, &m->attention, &m->args, workspace, m->bytes, device_stream());
    if (status != PLX_OK) fail_msg("%s", plx_error(context));
}

static size_t output_bytes(const struct memory *m)
{
    return 2 * (size_t)plx_tensor_count(&m->args.o);
}

/* o becomes NaN, so that what is not written shows. */
static void forget(const struct memory *m)
{
    must(device_cuda.fill(m->args.o.data, 0xff, output_bytes(m), device_stream(), &err));
}

static void upload(int32_t *to, const int32_t *lists, const struct memory *m)
{
    must(device_cuda.upload(to, lists, sizeof *lists * (size_t)m->count, device_stream(), &err));
}

/* Lengths and pages of a replay. Late: they come while the decode may have begun, and until then
 * are those of the replay before, or anything. */
static void upload_lists(const struct graph_case *c, const struct memory *m, int replay, bool late,
                         struct seeded *random)
{
    int32_t lists[MOST_SEQUENCES + MOST_PAGES], other[MOST_SEQUENCES + MOST_PAGES];
    for (int64_t b = 0; b < c->B; b++) lists[b] = c->lengths[replay][b % LENGTHS];
    if (c->page > 0) draw_pages(random, c, lists + c->B);
    for (int n = 0; n < m->count; n++)
        other[n] =
            (int32_t)(seeded_between(random, 0, UINT32_MAX) >> seeded_between(random, 0, 31));
    if (late && replay % 2 == 1) upload(m->lists, other, m);
    upload(late ? m->coming : m->lists, lists, m);
}

/* The same call, not captured, with a workspace of its own. */
static void decode_apart(plx_context *context, const struct memory *m, int byte,
                         unsigned char *bytes)
{
    char *workspace = filled(byte, m->bytes);
    forget(m);
    decode(context, m, workspace);
    device_download(bytes, m->args.o.data, output_bytes(m));
    device_free(workspace);
}

static void expect_change(const struct graph_case *c, int replay, const unsigned char *got,
                          const unsigned char *before)
{
    const size_t row = 2 * (size_t)(c->T * c->H * c->D);
    for (int64_t b = 0; b < c->B; b++)
        if (c->lengths[replay][b % LENGTHS] != c->lengths[replay - 1][b % LENGTHS] &&
            memcmp(got + b * (int64_t)row, before + b * (int64_t)row, row) == 0)
            fail_msg("%s: replay %d: sequence %d did not see that its length changed", c->name,
                     replay, (int)b);
}

static void run_case(plx_context *context, const struct graph_case *c, bool late,
                     struct seeded *random)
{
    struct memory m = memory_create(context, c, random);
    unsigned char *got = malloc(output_bytes(&m)), *want = malloc(output_bytes(&m));
    unsigned char *before = malloc(output_bytes(&m));
    device_graph graph = NULL;
    if (m.workspace == NULL) fail_msg("%s: %s", c->name, plx_error(context));
    must(device_cuda.capture_begin(device_stream(), &err));
    if (late) late_write(m.lists, m.coming, m.count, device_stream());
    decode(context, &m, m.workspace);
    must(device_cuda.capture_end(device_stream(), &graph, &err));
    for (int replay = 0; replay < REPLAYS; replay++) {
        upload_lists(c, &m, replay, late, random);
        forget(&m);
        must(device_cuda.graph_launch(graph, device_stream(), &err));
        device_download(got, m.args.o.data, output_bytes(&m));
        decode_apart(context, &m, replay, want);
        if (memcmp(got, want, output_bytes(&m)) != 0)
            fail_msg("%s: replay %d gave other bits", c->name, replay);
        if (replay > 0) expect_change(c, replay, got, before);
        memcpy(before, got, output_bytes(&m));
    }
    device_cuda.graph_destroy(graph);
    free(got);
    free(want);
    free(before);
    memory_destroy(&m);
}

static void run_all(const char *kernel, bool late)
{
    plx_context *context;
    struct plx_context_config config = {.device = PLX_CUDA, .kernel = kernel};
    assert_int_equal(plx_context_create(&config, &context), PLX_OK);
    for (size_t n = 0; n < sizeof cases / sizeof cases[0]; n++) {
        struct seeded random = seeded_make(7, n);
        run_case(context, &cases[n], late, &random);
    }
    plx_context_destroy(context);
}

static void run_tuned(bool late)
{
    char text[256];
    device_describe(text, sizeof text);
    if (!strstr(text, "capability 9.")) skip();
    run_all("cuda_sm90", late);
}

static void tuned_decode_is_replayed(void **state)
{
    (void)state;
    run_tuned(false);
}

static void tuned_decode_sees_what_comes_late(void **state)
{
    (void)state;
    run_tuned(true);
}

static void fallback_is_replayed(void **state)
{
    (void)state;
    run_all("cuda_any", false);
}

int main(void)
{
    if (!device_ready()) return 77;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tuned_decode_is_replayed),
        cmocka_unit_test(tuned_decode_sees_what_comes_late),
        cmocka_unit_test(fallback_is_replayed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
