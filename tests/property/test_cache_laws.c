/* test_cache_laws.c: the key-value cache of generation: which pages sequences hold, that logits do
 * not depend on pages, and what a pool too small says. */
#include "../cache_laws.h"

#include "models/cache_pages.h"

/* ---- Lists of pages ---- */

/* Whatever is taken and given back, every page is either free or in one place of one row. */
static void assert_each_page_once(const struct cache_pages *pages)
{
    int seen[40] = {0};
    int64_t held = 0;
    for (int64_t s = 0; s < pages->sequences; held += pages->held[s], s++)
        for (int64_t n = 0; n < pages->width; n++) {
            const int32_t page = pages->table[s * pages->width + n];
            assert_true(page >= 0 && page < pages->total);
            if (n < pages->held[s])
                seen[page]++;
            else
                assert_int_equal(page, 0);
        }
    assert_int_equal(held, pages->taken);
    for (int64_t n = 0; n < pages->total - pages->taken; n++) seen[pages->spare[n]]++;
    for (int64_t n = 0; n < pages->total; n++) assert_int_equal(seen[n], 1);
}

static void pages_are_taken_and_given_back(void **state)
{
    (void)state;
    uint64_t seed = case_seed("pages");
    struct rng rng = rng_make(seed, 1);
    struct cache_pages pages = {.page = 4, .total = 40, .width = 12, .sequences = 5};
    int64_t tokens[5] = {0};
    assert_true(cache_pages_create(&pages));
    /* A fresh pool gives neighbours. */
    cache_pages_take(&pages, 2, 9);
    for (int n = 0; n < 3; n++) assert_int_equal(pages.table[2 * 12 + n], n);
    tokens[2] = 9;
    for (int step = 0; step < 2000; step++) {
        const int64_t s = (int64_t)rng_below(&rng, 5);
        const int64_t more = tokens[s] + (int64_t)rng_below(&rng, 7);
        const int64_t lacking = cache_pages_lacking(&pages, s, more);
        assert_int_equal(lacking, (more + 3) / 4 - (tokens[s] + 3) / 4);
        if (more > 48 || lacking > pages.total - pages.taken) {
            cache_pages_give_back(&pages, s);
            tokens[s] = 0;
        } else {
            cache_pages_take(&pages, s, more);
            tokens[s] = more;
        }
        assert_int_equal(pages.held[s], (tokens[s] + 3) / 4);
        assert_each_page_once(&pages);
    }
    cache_pages_destroy(&pages);
}

/* ---- Logits ---- */

/* On the CPU not even bits depend on pages, as tiles of keys lie in the same places of a text. */
static void test_pages(void **state)
{
    const struct model_config config = setup_config(*state);
    uint64_t seed = case_seed("pages of logits");
    struct rng rng = rng_make(seed, 2);
    for (int table = 0; table < LAW_TABLES; table++) {
        struct case_model m;
        struct case_batch b;
        case_open(&m, &config, law_tables[table].ops, law_tables[table].storage, seed);
        case_batch_fill(&b, cache_lengths, CACHE_TEXTS, config.vocab_size, &rng);
        struct plx_tensor expected = cache_expected(&m, &b), whole = cache_decoded(&m, &b, 31, 3);
        assert_close("decoded in turns", &whole, &expected, law_tables[table].bound);
        for (int e = 0; e < CACHE_EXTENTS; e++) {
            struct plx_tensor paged =
                cache_decoded(&m, &b, cache_extents[e].page, cache_extents[e].pages);
            assert_close("decoded from pages", &paged, &expected, law_tables[table].bound);
            if (cache_extents[e].pages * cache_extents[e].page >= 93)
                case_assert_same_bits(&paged, &whole);
            free(paged.data);
        }
        free(expected.data);
        free(whole.data);
        case_close(&m);
    }
}

/* ---- Refusals ---- */

static void pools_too_small_refuse(void **state)
{
    (void)state;
    const struct model_config config = case_config(1, "parallax");
    const struct model_cache_config two = {.sequences = 2, .capacity = 20, .pages = 3, .page = 8};
    const int32_t ids[40] = {0};
    struct case_model m;
    struct model_cache *cache;
    case_open(&m, &config, &ops_ref, PLX_F32, 1);
    struct plx_tensor logits = case_tensor(PLX_F32, 2, (int64_t[]){2, 61});
    CASE_OK(&m, model_cache_create(m.model, &two, &cache));
    CASE_OK(&m, model_decode(m.model, cache, ids, (int64_t[]){16, 1}, &logits));
    assert_int_equal(model_cache_use(cache).taken, 3);
    CASE_OK(&m, model_decode(m.model, cache, ids, (int64_t[]){0, 7}, &logits));
    assert_int_equal(model_decode(m.model, cache, ids, (int64_t[]){1, 1}, &logits),
                     PLX_OUT_OF_MEMORY);
    assert_string_equal(m.err.text, "2 new tokens take 2 more pages of 8 tokens, but 0 of the "
                                    "cache's 3 are free");
    error_clear(&m.err);
    assert_int_equal(model_cache_length(cache, 0), 16);
    assert_int_equal(model_cache_length(cache, 1), 8);
    model_cache_end(cache, 0);
    assert_int_equal(model_cache_use(cache).taken, 1);
    CASE_OK(&m, model_decode(m.model, cache, ids, (int64_t[]){5, 1}, &logits));
    model_cache_clear(cache);
    assert_int_equal(model_cache_use(cache).taken, 0);
    model_cache_destroy(cache);
    const struct model_cache_config bad = {.sequences = 2, .capacity = 20, .page = -1};
    assert_int_equal(model_cache_create(m.model, &bad, &cache), PLX_INVALID_ARGUMENT);
    assert_string_equal(m.err.text, "a cache of 0 pages of -1 tokens");
    free(logits.data);
    case_close(&m);
}

/* ---- Draws ---- */

static void draws_are_of_the_logits(void **state)
{
    (void)state;
    const struct model_config config = case_config(2, "parallax");
    struct case_batch b;
    struct case_model m;
    struct rng rng = rng_make(6, 6);
    case_batch_fill(&b, cache_lengths, CACHE_TEXTS, config.vocab_size, &rng);
    case_open(&m, &config, &ops_cpu, PLX_F32, 1);
    cache_draws_are_of_its_logits(&m, &b);
    case_close(&m);
}

int main(void)
{
    static const struct law laws[] = {{"logits do not depend on pages", test_pages}};
    static struct law_tests all;
    law_tests_fill(&all, laws, 1);
    all.tests[SETUPS] = (struct CMUnitTest)cmocka_unit_test(pages_are_taken_and_given_back);
    all.tests[SETUPS + 1] = (struct CMUnitTest)cmocka_unit_test(pools_too_small_refuse);
    all.tests[SETUPS + 2] = (struct CMUnitTest)cmocka_unit_test(draws_are_of_the_logits);
    return _cmocka_run_group_tests("laws of the cache", all.tests, SETUPS + 3, NULL, NULL);
}
