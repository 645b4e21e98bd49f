/* test_sample.c: one draw (sample_numbers, and the operations draw and penalise) against
 * distributions worked out by hand and against a naive sampler that sorts everything; how whole
 * texts are continued is test_sample_run.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <string.h>

#include "sample.h"

enum { MAX_VOCAB = 64, DRAWS = 40000 };

/* Options that do nothing but draw at temperature 1. */
static struct sample_options plain_options(void)
{
    return (struct sample_options){.temperature = 1.0, .top_p = 1.0, .repetition_penalty = 1.0};
}

static struct backend be;
static struct error err;

static int create_backend(void **state)
{
    (void)state;
    const struct backend_config config = {.ops = &ops_cpu, .storage = PLX_F32, .compute = PLX_F32};
    return backend_create(&be, &config, &err) != PLX_OK || backend_reserve(&be, 1 << 16) != PLX_OK;
}

static int destroy_backend(void **state)
{
    (void)state;
    backend_destroy(&be);
    return 0;
}

static int32_t draw(const float *logits, int64_t vocab, const struct sample_options *options,
                    struct rng *rng)
{
    float copy[MAX_VOCAB];
    int32_t id = INT32_MIN;
    struct draw_numbers told = sample_numbers(options, rng);
    memcpy(copy, logits, (size_t)vocab * sizeof *copy);
    const struct plx_tensor x = plx_tensor_dense(copy, PLX_F32, 2, (int64_t[]){1, vocab}),
                            ids = plx_tensor_dense(&id, PLX_I32, 1, (int64_t[]){1}),
                            numbers =
                                plx_tensor_dense(&told, PLX_F64, 2, (int64_t[]){1, DRAW_NUMBERS});
    if (be.ops->draw(&be, &ids, &x, &numbers) != PLX_OK) fail_msg("%s", err.text);
    return id;
}

/* Draws many times: tokens of probability 0 must never come, and Pearson's statistic over the
 * others must stay under its 0.9999 quantile for up to 5 degrees of freedom (25.7). The seed is
 * fixed, so this test either always passes or never does. */
static void assert_distribution(const float *logits, int64_t vocab,
                                const struct sample_options *options, const double *probability)
{
    struct rng rng = rng_make(17, 4);
    int64_t counts[MAX_VOCAB] = {0};
    for (int i = 0; i < DRAWS; i++) {
        int32_t id = draw(logits, vocab, options, &rng);
        assert_in_range(id, 0, vocab - 1);
        counts[id]++;
    }
    double statistic = 0.0;
    for (int64_t v = 0; v < vocab; v++) {
        double expected = probability[v] * DRAWS;
        if (expected == 0.0)
            assert_int_equal(counts[v], 0);
        else
            statistic += pow((double)counts[v] - expected, 2.0) / expected;
    }
    if (statistic < 25.7) return;
    for (int64_t v = 0; v < vocab; v++)
        print_error("token %lld: %lld draws, %.1f expected\n", (long long)v, (long long)counts[v],
                    probability[v] * DRAWS);
    fail_msg("chi-square statistic %.1f", statistic);
}

static void log_of(const double *probability, int64_t vocab, float *logits)
{
    for (int64_t v = 0; v < vocab; v++) logits[v] = (float)(log(probability[v]) + 3.0);
}

static const double toy[6] = {0.1, 0.3, 0.05, 0.25, 0.2, 0.1};

static void greedy_takes_the_largest_and_draws_nothing(void **unused)
{
    (void)unused;
    struct sample_options options = plain_options();
    options.temperature = 0.0;
    options.top_k = 2; /* filters change nothing about the first */
    options.top_p = 0.1;
    struct rng rng = rng_make(1, 1);
    const float logits[5] = {-2.0f, 0.5f, 3.0f, 3.0f, 1.0f};
    assert_int_equal(draw(logits, 5, &options, &rng), 2);
    const float equal[4] = {-1.0f, -1.0f, -1.0f, -1.0f};
    assert_int_equal(draw(equal, 4, &options, &rng), 0);
    assert_int_equal(rng.counter, 0);
}

static void temperature_sharpens_and_flattens(void **unused)
{
    (void)unused;
    static const double temperatures[] = {0.25, 0.5, 1.0, 2.0, 10.0};
    float logits[6];
    log_of(toy, 6, logits);
    for (size_t t = 0; t < 5; t++) {
        struct sample_options options = plain_options();
        options.temperature = temperatures[t];
        double expected[6], sum = 0.0;
        for (int v = 0; v < 6; v++) sum += expected[v] = pow(toy[v], 1.0 / temperatures[t]);
        for (int v = 0; v < 6; v++) expected[v] /= sum;
        assert_distribution(logits, 6, &options, expected);
    }
}

static void tiny_temperature_is_greedy(void **unused)
{
    (void)unused;
    float logits[6];
    log_of(toy, 6, logits);
    struct sample_options options = plain_options();
    options.temperature = 1e-300;
    static const double expected[6] = {0, 1, 0, 0, 0, 0};
    assert_distribution(logits, 6, &options, expected);
    options.top_p = 0.9;
    assert_distribution(logits, 6, &options, expected);
}

static void top_k_keeps_the_k_likeliest(void **unused)
{
    (void)unused;
    float logits[6];
    log_of(toy, 6, logits);
    struct sample_options options = plain_options();
    static const double three[6] = {0, 0.4, 0, 0.25 / 0.75, 0.2 / 0.75, 0};
    options.top_k = 3;
    assert_distribution(logits, 6, &options, three);
    static const double one[6] = {0, 1, 0, 0, 0, 0};
    options.top_k = 1;
    assert_distribution(logits, 6, &options, one);
    options.top_k = 6;
    assert_distribution(logits, 6, &options, toy);
    options.top_k = 1000;
    assert_distribution(logits, 6, &options, toy);
}

static void top_p_keeps_up_to_the_one_that_crosses(void **unused)
{
    (void)unused;
    float logits[6];
    log_of(toy, 6, logits);
    struct sample_options options = plain_options();
    static const double first[6] = {0, 1, 0, 0, 0, 0};
    options.top_p = 1e-9;
    assert_distribution(logits, 6, &options, first);
    options.top_p = 0.29;
    assert_distribution(logits, 6, &options, first);
    static const double two[6] = {0, 0.3 / 0.55, 0, 0.25 / 0.55, 0, 0};
    options.top_p = 0.31;
    assert_distribution(logits, 6, &options, two);
    options.top_p = 0.54;
    assert_distribution(logits, 6, &options, two);
    /* A share reached exactly is enough: two of four equal tokens are half. */
    static const float equal[4] = {1.5f, 1.5f, 1.5f, 1.5f};
    static const double half[4] = {0.5, 0.5, 0, 0};
    options.top_p = 0.5;
    assert_distribution(equal, 4, &options, half);
}

static void top_p_counts_what_top_k_left(void **unused)
{
    (void)unused;
    float logits[6];
    log_of(toy, 6, logits);
    struct sample_options options = plain_options();
    /* 0.3 of all, but 0.545 of the two that top-k leaves. */
    options.top_k = 2;
    options.top_p = 0.5;
    static const double first[6] = {0, 1, 0, 0, 0, 0};
    assert_distribution(logits, 6, &options, first);
    options.top_k = 0;
    static const double two[6] = {0, 0.3 / 0.55, 0, 0.25 / 0.55, 0, 0};
    assert_distribution(logits, 6, &options, two);
}

static void min_p_compares_with_the_likeliest(void **unused)
{
    (void)unused;
    float logits[6];
    log_of(toy, 6, logits);
    struct sample_options options = plain_options();
    static const double three[6] = {0, 0.4, 0, 0.25 / 0.75, 0.2 / 0.75, 0};
    options.min_p = 0.5;
    assert_distribution(logits, 6, &options, three);
    static const double five[6] = {0.1 / 0.95, 0.3 / 0.95, 0, 0.25 / 0.95, 0.2 / 0.95, 0.1 / 0.95};
    options.min_p = 0.2;
    assert_distribution(logits, 6, &options, five);
    /* At temperature 0.5 weights are squared: 0.25 / 0.3 becomes 0.694. */
    static const double first[6] = {0, 1, 0, 0, 0, 0};
    options.min_p = 0.7;
    options.temperature = 0.5;
    assert_distribution(logits, 6, &options, first);
    static const float equal[4] = {0.0f, 0.0f, 0.0f, -1.0f};
    static const double ties[4] = {1.0 / 3.0, 1.0 / 3.0, 1.0 / 3.0, 0};
    options.min_p = 1.0;
    assert_distribution(equal, 4, &options, ties);
}

static void ties_go_to_the_lowest_ids(void **unused)
{
    (void)unused;
    static const float equal[8] = {2, 2, 2, 2, 2, 2, 2, 2};
    struct sample_options options = plain_options();
    options.top_k = 3;
    static const double expected[8] = {1.0 / 3.0, 1.0 / 3.0, 1.0 / 3.0, 0, 0, 0, 0, 0};
    assert_distribution(equal, 8, &options, expected);
}

static void penalty_divides_and_multiplies(void **unused)
{
    (void)unused;
    float logits[6] = {3.0f, -1.5f, 0.0f, 4.0f, -8.0f, 1.0f};
    static const float expected[6] = {1.5f, -3.0f, 0.0f, 4.0f, -16.0f, 1.0f};
    int32_t seen[8] = {0, 1, 2, 4, -1, 6, 100, 3}, count = 7;
    const struct plx_tensor x = plx_tensor_dense(logits, PLX_F32, 2, (int64_t[]){1, 6}),
                            ids = plx_tensor_dense(seen, PLX_I32, 2, (int64_t[]){1, 8}),
                            counts = plx_tensor_dense(&count, PLX_I32, 1, (int64_t[]){1});
    assert_int_equal(be.ops->penalise(&be, &x, &ids, &counts, 2.0), PLX_OK);
    assert_memory_equal(logits, expected, sizeof logits);
}

/* ---- Against a naive sampler ---- */

struct naive {
    int32_t order[MAX_VOCAB];
    double probability[MAX_VOCAB]; /* in that order; 0: filtered out */
};

static void naive_normalise(struct naive *naive, int64_t vocab)
{
    double sum = 0.0;
    for (int64_t i = 0; i < vocab; i++) sum += naive->probability[i];
    for (int64_t i = 0; i < vocab; i++) naive->probability[i] /= sum;
}

/* Insertion sort, softmax, then each filter as its definition reads, renormalising in between. */
static void naive_distribution(const float *logits, int64_t vocab,
                               const struct sample_options *options, struct naive *naive)
{
    for (int64_t i = 0; i < vocab; i++) {
        int64_t place = i;
        while (place > 0 && logits[naive->order[place - 1]] < logits[i]) {
            naive->order[place] = naive->order[place - 1];
            place--;
        }
        naive->order[place] = (int32_t)i;
    }
    for (int64_t i = 0; i < vocab; i++)
        naive->probability[i] =
            exp(((double)logits[naive->order[i]] - logits[naive->order[0]]) / options->temperature);
    for (int64_t i = 0; i < vocab; i++)
        if (options->top_k > 0 && i >= options->top_k) naive->probability[i] = 0.0;
    naive_normalise(naive, vocab);
    double before = 0.0;
    for (int64_t i = 0; i < vocab; i++) {
        double share = naive->probability[i];
        if (before >= options->top_p) naive->probability[i] = 0.0;
        before += share;
    }
    naive_normalise(naive, vocab);
    for (int64_t i = 0; i < vocab; i++)
        if (naive->probability[i] < options->min_p * naive->probability[0])
            naive->probability[i] = 0.0;
    naive_normalise(naive, vocab);
}

static int32_t naive_draw(const struct naive *naive, int64_t vocab, double uniform)
{
    double reached = 0.0;
    for (int64_t i = 0; i < vocab; i++) {
        reached += naive->probability[i];
        if (reached > uniform) return naive->order[i];
    }
    return naive->order[0];
}

static void random_cases_match_the_naive_sampler(void **unused)
{
    (void)unused;
    const uint64_t seed = 20261122;
    print_message("seed %llu\n", (unsigned long long)seed);
    struct rng cases = rng_make(seed, 0), rng = rng_make(seed, 1);
    for (int c = 0; c < 20000; c++) {
        int64_t vocab = 1 + (int64_t)rng_below(&cases, MAX_VOCAB);
        float logits[MAX_VOCAB];
        /* Multiples of a quarter, so that ties are common. */
        for (int64_t v = 0; v < vocab; v++)
            logits[v] = (float)(rint(8.0 * rng_normal(&cases)) / 4.0);
        struct sample_options options = plain_options();
        options.temperature = 0.3 + 2.0 * rng_uniform(&cases);
        if (rng_below(&cases, 2)) options.top_k = 1 + (int64_t)rng_below(&cases, MAX_VOCAB);
        if (rng_below(&cases, 2)) options.top_p = 0.01 + 0.98 * rng_uniform(&cases);
        if (rng_below(&cases, 2)) options.min_p = rng_uniform(&cases);
        bool filters = options.top_k > 0 || options.top_p < 1.0 || options.min_p > 0.0;
        if (!filters) options.min_p = 1e-30; /* keeps all, but in sorted order as the oracle does */
        struct naive naive = {0};
        naive_distribution(logits, vocab, &options, &naive);
        struct rng same = rng;
        int32_t expected = naive_draw(&naive, vocab, rng_uniform(&same));
        int32_t id = draw(logits, vocab, &options, &rng);
        if (id != expected)
            fail_msg("case %d of seed %llu: drew %d, the naive sampler %d", c,
                     (unsigned long long)seed, id, expected);
        assert_int_equal(rng.counter, same.counter);
    }
}

static void equal_seeds_give_equal_streams(void **unused)
{
    (void)unused;
    float logits[6];
    log_of(toy, 6, logits);
    struct sample_options options = plain_options();
    options.top_p = 0.9;
    struct rng first = rng_make(5, 1), second = rng_make(5, 1), other = rng_make(6, 1);
    int differences = 0;
    for (int i = 0; i < 200; i++) {
        int32_t id = draw(logits, 6, &options, &first);
        assert_int_equal(id, draw(logits, 6, &options, &second));
        differences += id != draw(logits, 6, &options, &other);
    }
    assert_true(differences > 50);
}

static void options_out_of_range_are_refused(void **unused)
{
    (void)unused;
    struct sample_options good = sample_options_default();
    assert_int_equal(sample_options_check(&good, &err), PLX_OK);
    struct sample_options bad[13];
    for (size_t i = 0; i < 13; i++) bad[i] = good;
    bad[0].temperature = -0.1;
    bad[1].temperature = NAN;
    bad[2].temperature = INFINITY;
    bad[3].top_k = -1;
    bad[4].top_p = 0.0;
    bad[5].top_p = 1.01;
    bad[6].top_p = NAN;
    bad[7].min_p = -0.01;
    bad[8].min_p = 1.01;
    bad[9].repetition_penalty = 0.0;
    bad[10].repetition_penalty = INFINITY;
    bad[11].max_tokens = -1;
    bad[12].min_p = NAN;
    static const char *const names[13] = {
        "temperature", "temperature", "temperature", "top-k",      "top-p",      "top-p", "top-p",
        "min-p",       "min-p",       "repetition",  "repetition", "new tokens", "min-p"};
    for (size_t i = 0; i < 13; i++) {
        error_clear(&err);
        assert_int_equal(sample_options_check(&bad[i], &err), PLX_INVALID_ARGUMENT);
        assert_non_null(strstr(err.text, names[i]));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(greedy_takes_the_largest_and_draws_nothing),
        cmocka_unit_test(temperature_sharpens_and_flattens),
        cmocka_unit_test(tiny_temperature_is_greedy),
        cmocka_unit_test(top_k_keeps_the_k_likeliest),
        cmocka_unit_test(top_p_keeps_up_to_the_one_that_crosses),
        cmocka_unit_test(top_p_counts_what_top_k_left),
        cmocka_unit_test(min_p_compares_with_the_likeliest),
        cmocka_unit_test(ties_go_to_the_lowest_ids),
        cmocka_unit_test(penalty_divides_and_multiplies),
        cmocka_unit_test(random_cases_match_the_naive_sampler),
        cmocka_unit_test(equal_seeds_give_equal_streams),
        cmocka_unit_test(options_out_of_range_are_refused),
    };
    return cmocka_run_group_tests_name("sample", tests, create_backend, destroy_backend);
}
