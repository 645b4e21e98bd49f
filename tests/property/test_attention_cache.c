/* test_attention_cache.c: what a cache is made of does not change what attention reads from it, for
 * every row: pages against a contiguous cache, to the bit; and what was appended step by step
 * against the forward over all keys. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdlib.h>

#include "law.h"

static struct test_options options;

/* Lengths and a capacity in whole pages, so that both caches have the same number of keys. */
static void paged_is_contiguous(const struct law_row *row, struct seeded *random)
{
    static const int64_t pages[] = {1, 3, 16, 64, 100};
    struct attention_case c = law_case(random, false);
    int32_t lengths[2];
    const int64_t page = pages[seeded_between(random, 0, 4)];
    c.S = (c.S * seeded_between(random, 1, 4) + page) / page * page;
    for (int b = 0; b < 2; b++) lengths[b] = (int32_t)seeded_between(random, 0, c.S);
    c.k_lengths = lengths;
    c.f8 = seeded_between(random, 0, 2) == 0;
    struct attention_case paged = c;
    paged.page = page;
    struct case_data one = case_data_create(&c, row->dtype, seeded_u64(random));
    struct case_data other = case_data_copy(&one);
    if (law_run(row, &c, &one) && law_run(row, &paged, &other))
        for (int n = CASE_O; n <= CASE_VALUE_MEAN; n++)
            if (case_writes(row->mechanism, row->pass, (enum case_tensor)n))
                law_expect_same(row, case_tensor_names[n], other.values[n], one.values[n],
                                one.counts[n]);
    case_data_destroy(&one);
    case_data_destroy(&other);
}

/* ---- Append, then decode --------------------------------------------------------------------- */

/* A paged cache of the dtype of q: memory of all heads, sequence b owning pages b, b + B, ... */
struct paged {
    struct test_tensor k, v;
    int32_t *pages, *lengths;
    struct plx_attention attention;
};

static void paged_create(const struct attention_case *c, plx_dtype dtype, int64_t page,
                         struct paged *cache)
{
    const int64_t entries = (c->S + page - 1) / page, table[] = {c->B, entries};
    const int64_t pool[] = {c->B * entries, page, c->G, c->D};
    cache->k = test_tensor_create(dtype, VIEW_DENSE, 4, pool);
    cache->v = test_tensor_create(dtype, VIEW_PADDED, 4, pool);
    cache->pages = malloc(sizeof(int32_t) * (size_t)(c->B * entries));
    cache->lengths = calloc((size_t)c->B, sizeof(int32_t));
    assert_true(cache->pages && cache->lengths);
    for (int64_t n = 0; n < c->B * entries; n++)
        cache->pages[n] = (int32_t)(n / entries + n % entries * c->B);
    cache->attention =
        (struct plx_attention){.causal = c->causal,
                               .window = c->window,
                               .k_lengths = plx_tensor_dense(cache->lengths, PLX_I32, 1, table),
                               .k_pages = plx_tensor_dense(cache->pages, PLX_I32, 2, table)};
}

static void paged_destroy(struct paged *cache)
{
    test_tensor_destroy(&cache->k);
    test_tensor_destroy(&cache->v);
    free(cache->pages);
    free(cache->lengths);
}

/* Appends the keys and values of a case in pieces of random size. */
static void append_all(plx_context *context, const struct attention_case *c,
                       const struct test_tensor *k, const struct test_tensor *v,
                       struct paged *cache, struct seeded *random)
{
    for (int64_t done = 0, count; done < c->S; done += count) {
        count = seeded_between(random, 1, c->S - done < 30 ? c->S - done : 30);
        for (int64_t b = 0; b < c->B; b++) cache->lengths[b] = (int32_t)(done + count);
        const struct plx_cache_append_args args = {.k = plx_tensor_slice(k->view, 1, done, count),
                                                   .v = plx_tensor_slice(v->view, 1, done, count),
                                                   .k_cache = cache->k.view,
                                                   .v_cache = cache->v.view};
        if (plx_cache_append(context, &cache->attention, &args, NULL) != PLX_OK)
            fail_msg("%s", plx_error(context));
    }
}

static plx_status decode(plx_context *context, const struct law_row *row, const struct paged *cache,
                         const struct test_tensor of[CASE_TENSORS])
{
    static _Alignas(64) unsigned char workspace[8 << 20];
    const struct plx_parallax_args parallax = {.q = of[CASE_Q].view,
                                               .r = of[CASE_R].view,
                                               .k = cache->k.view,
                                               .v = cache->v.view,
                                               .o = of[CASE_O].view};
    const struct plx_softmax_args softmax = {
        .q = of[CASE_Q].view, .k = cache->k.view, .v = cache->v.view, .o = of[CASE_O].view};
    if (row->mechanism == PLX_PARALLAX)
        return plx_parallax_decode(context, &cache->attention, &parallax, workspace,
                                   sizeof workspace, NULL);
    return plx_softmax_decode(context, &cache->attention, &softmax, workspace, sizeof workspace,
                              NULL);
}

/* Decode of the last queries over what was appended equals the last rows of the forward. */
static void appended_is_forward(const struct law_row *row, struct seeded *random)
{
    struct attention_case c = law_case(random, true), last = c;
    last.T = seeded_between(random, 1, c.T < 9 ? c.T : 9);
    struct law_row forward = *row;
    forward.pass = PLX_FORWARD;
    struct case_data whole = case_data_create(&c, row->dtype, seeded_u64(random));
    struct case_data end = case_data_create(&last, row->dtype, 1), want = case_data_copy(&end);
    for (int n = CASE_Q; n <= CASE_V; n++)
        for (int64_t b = 0; b < c.B; b++)
            law_copy_rows(&whole, b, whole.shapes[n][1] - end.shapes[n][1], &end, b, 0,
                          end.shapes[n][1], (enum case_tensor)n);
    struct law_limits a = law_limits(&forward, &c, &whole), d = law_limits(row, &last, &end);
    if (law_run(&forward, &c, &whole)) {
        plx_context *context;
        struct plx_context_config config = {.kernel = row->kernel, .threads = 2};
        struct test_tensor of[CASE_TENSORS] = {0};
        struct paged cache;
        assert_int_equal(plx_context_create(&config, &context), PLX_OK);
        for (int n = CASE_Q; n <= CASE_O; n++) {
            if (n == CASE_D_O) continue;
            of[n] = test_tensor_create(row->dtype, VIEW_DENSE, 4, end.shapes[n]);
            if (n < CASE_O) test_tensor_write(&of[n], end.values[n]);
        }
        paged_create(&last, row->dtype, seeded_between(random, 1, 20), &cache);
        append_all(context, &last, &of[CASE_K], &of[CASE_V], &cache, random);
        if (decode(context, row, &cache, of) != PLX_OK) fail_msg("%s", plx_error(context));
        test_tensor_read(&of[CASE_O], end.values[CASE_O]);
        for (int64_t b = 0; b < c.B; b++)
            law_copy_rows(&whole, b, c.T - last.T, &want, b, 0, last.T, CASE_O);
        law_expect_near(row, "o", end.values[CASE_O], want.values[CASE_O], end.counts[CASE_O],
                        a.of[CASE_O] + d.of[CASE_O]);
        paged_destroy(&cache);
        for (int n = CASE_Q; n <= CASE_O; n++)
            if (of[n].view.rank) test_tensor_destroy(&of[n]);
        plx_context_destroy(context);
    }
    case_data_destroy(&whole);
    case_data_destroy(&end);
    case_data_destroy(&want);
}

static void caches_of_the_forward(void **state)
{
    (void)state;
    law_check(&options, "paged", PLX_SOFTMAX, PLX_FORWARD, paged_is_contiguous);
    law_check(&options, "paged", PLX_PARALLAX, PLX_FORWARD, paged_is_contiguous);
}

static void caches_of_decode(void **state)
{
    (void)state;
    law_check(&options, "paged", PLX_SOFTMAX, PLX_DECODE, paged_is_contiguous);
    law_check(&options, "paged", PLX_PARALLAX, PLX_DECODE, paged_is_contiguous);
    law_check(&options, "appended", PLX_SOFTMAX, PLX_DECODE, appended_is_forward);
    law_check(&options, "appended", PLX_PARALLAX, PLX_DECODE, appended_is_forward);
}

int main(int argc, char **argv)
{
    options = test_options_read(argc, argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(caches_of_the_forward),
        cmocka_unit_test(caches_of_decode),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
