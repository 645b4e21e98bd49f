/* test_model_laws.c: what must hold for any model of the family, whatever its weights.
 *
 * Decoding, in any pieces, equals the forward pass; both zero starts of the probe equal softmax bit
 * for bit; scores of tokens are log-probabilities of the logits; gradients of micro-batches add up
 * to those of the whole batch; the fast operations agree with the reference; and recomputation
 * changes nothing. What stands around a document in a batch is the matter of test_model_layouts.c.
 */
#include "../model_laws.h"

/* ---- Decoding ---- */

/* Decodes 3 sequences of 29 tokens in pieces and compares every logits row it returns. */
static void check_decode(struct case_model *m, const struct case_batch *b,
                         const struct plx_tensor *full, const int64_t *pieces, double bound)
{
    enum { S = 3, T = 29 };
    const int64_t V = full->shape[1];
    struct model_cache *cache;
    CASE_OK(m, model_cache_create(
                   m->model, &(struct model_cache_config){.sequences = S, .capacity = T}, &cache));
    struct plx_tensor logits = case_tensor(m->be.storage, 2, (int64_t[]){S, V});
    int64_t at = 0;
    for (int p = 0; at < T; p++) {
        int32_t ids[S * T];
        int64_t count = pieces[p] > 0 ? pieces[p] : 1;
        for (int64_t s = 0; s < S; s++)
            memcpy(ids + s * count, b->ids + s * T + at, (size_t)count * 4);
        CASE_OK(m, model_decode(m->model, cache, ids, (int64_t[S]){count, count, count}, &logits));
        at += count;
        for (int64_t s = 0; s < S; s++) assert_int_equal(model_cache_length(cache, s), at);
        for (int64_t s = 0; s < S; s++) {
            struct plx_tensor row = rows_of(&logits, s, 1),
                              expected = rows_of(full, s * T + at - 1, 1);
            assert_close("decoded against forward", &row, &expected, bound);
        }
        if (pieces[p] == 0) p--;
    }
    int32_t ids[S] = {0};
    assert_int_equal(model_decode(m->model, cache, ids, (int64_t[S]){0, 0, 1}, &logits),
                     PLX_INVALID_ARGUMENT);
    assert_non_null(strstr(m->err.text, "do not fit a cache that holds 29 of at most 29"));
    error_clear(&m->err);
    model_cache_clear(cache);
    for (int64_t s = 0; s < S; s++) assert_int_equal(model_cache_length(cache, s), 0);
    free(logits.data);
    model_cache_destroy(cache);
}

/* Sequences that advance by different numbers of tokens, some by none: rows of those that got some
 * are the forward's, the others stay. */
static void check_uneven(struct case_model *m, const struct case_batch *b,
                         const struct plx_tensor *full, double bound)
{
    enum { S = 3, STEPS = 7 };
    static const int64_t counts[STEPS][S] = {{5, 11, 2}, {1, 1, 1}, {0, 4, 9},   {3, 0, 0},
                                             {1, 0, 1},  {1, 1, 1}, {18, 12, 15}};
    const int64_t V = full->shape[1];
    struct model_cache *cache;
    CASE_OK(m, model_cache_create(
                   m->model, &(struct model_cache_config){.sequences = S, .capacity = 29}, &cache));
    struct plx_tensor logits = case_tensor(m->be.storage, 2, (int64_t[]){S, V});
    for (int step = 0; step < STEPS; step++) {
        int32_t ids[S * 29], *next = ids;
        for (int64_t i = 0; i < S * V; i++) case_set(&logits, i, -77);
        for (int64_t s = 0; s < S; next += counts[step][s], s++)
            memcpy(next, b->ids + s * 29 + model_cache_length(cache, s),
                   (size_t)counts[step][s] * sizeof *ids);
        CASE_OK(m, model_decode(m->model, cache, ids, counts[step], &logits));
        for (int64_t s = 0; s < S; s++) {
            const int64_t at = model_cache_length(cache, s);
            struct plx_tensor row = rows_of(&logits, s, 1),
                              expected = rows_of(full, s * 29 + at - 1, 1);
            if (counts[step][s] > 0)
                assert_close("decoded unevenly", &row, &expected, bound);
            else
                for (int64_t v = 0; v < V; v++) assert_true(case_get(&row, v) == -77);
        }
    }
    for (int64_t s = 0; s < S; s++) assert_int_equal(model_cache_length(cache, s), 29);
    free(logits.data);
    model_cache_destroy(cache);
}

static void test_decode(void **state)
{
    const struct model_config config = setup_config(*state);
    uint64_t seed = case_seed("decode");
    struct rng rng = rng_make(seed, 7);
    /* 0: one by one until the end. */
    const int64_t one_by_one[] = {0}, prefill[] = {17, 0}, pieces[] = {3, 9, 1, 14, 2},
                  whole[] = {29};
    for (int table = 0; table < LAW_TABLES; table++) {
        struct case_model m;
        struct case_batch b;
        case_open(&m, &config, law_tables[table].ops, law_tables[table].storage, seed);
        case_batch_fill(&b, (int64_t[]){29, 29, 29}, 3, config.vocab_size, &rng);
        CASE_OK(&m, model_reserve(m.model, 87, 3, false, RECOMPUTE_NONE, NULL));
        struct plx_tensor full = logits_of(&m, &b.batch);
        check_decode(&m, &b, &full, one_by_one, law_tables[table].bound);
        check_decode(&m, &b, &full, prefill, law_tables[table].bound);
        check_decode(&m, &b, &full, pieces, law_tables[table].bound);
        check_decode(&m, &b, &full, whole, law_tables[table].bound);
        check_uneven(&m, &b, &full, law_tables[table].bound);
        free(full.data);
        case_close(&m);
    }
}

/* A prompt longer than one pass. */
static void test_long_prefill(void **state)
{
    const struct model_config config = setup_config(*state);
    enum { T = 1100 };
    uint64_t seed = case_seed("long prefill");
    struct rng rng = rng_make(seed, 8);
    struct case_model m;
    struct case_batch b;
    case_open(&m, &config, &ops_ref, PLX_F64, seed);
    case_batch_fill(&b, (int64_t[]){T}, 1, config.vocab_size, &rng);
    CASE_OK(&m, model_reserve(m.model, T, 1, false, RECOMPUTE_NONE, NULL));
    struct plx_tensor full = logits_of(&m, &b.batch),
                      logits = case_tensor(PLX_F64, 2, (int64_t[]){1, config.vocab_size}),
                      last = rows_of(&full, T - 1, 1);
    struct model_cache *cache;
    CASE_OK(&m, model_cache_create(
                    m.model, &(struct model_cache_config){.sequences = 1, .capacity = T}, &cache));
    CASE_OK(&m, model_decode(m.model, cache, b.ids, &(int64_t){T}, &logits));
    assert_close("prefill in passes", &logits, &last, 1e-12);
    model_cache_destroy(cache);
    free(full.data);
    free(logits.data);
    case_close(&m);
}

/* ---- Zero starts ---- */

/* Weights by name are drawn from streams of their own, so both models share all but the probe's. */
static void test_zero_starts(void **state)
{
    (void)state;
    uint64_t seed = case_seed("zero starts");
    const struct {
        enum probe_start start;
        bool norm, gate;
    } starts[] = {{PROBE_START_ZERO_GAIN, true, false},
                  {PROBE_START_ZERO_GAIN, true, true},
                  {PROBE_START_ZERO_WEIGHT, true, false},
                  {PROBE_START_ZERO_WEIGHT, false, false},
                  {PROBE_START_ZERO_WEIGHT, false, true}};
    const struct ops *const tables[] = {&ops_ref, &ops_cpu};
    for (int i = 0; i < 2 * (int)(sizeof starts / sizeof starts[0]); i++) {
        struct rng rng = rng_make(seed, 9);
        struct model_config config = case_config(2, "parallax");
        config.probe_start = starts[i / 2].start;
        config.probe_norm = starts[i / 2].norm;
        config.probe_gate = starts[i / 2].gate;
        config.layer[1].window = 6;
        struct model_config plain = config;
        for (int l = 0; l < 2; l++) plain.layer[l].mixer = mixer_find("softmax");
        struct case_model probe, softmax;
        struct case_batch b;
        case_open(&probe, &config, tables[i % 2], PLX_F32, seed);
        case_open(&softmax, &plain, tables[i % 2], PLX_F32, seed);
        struct param_list *from = model_params(softmax.model), *to = model_params(probe.model);
        for (int p = 0; p < from->count; p++) {
            struct param *target = param_find(to, from->items[p].name);
            memcpy(target->value.data, from->items[p].value.data,
                   (size_t)plx_tensor_count(&target->value) * sizeof(float));
        }
        case_batch_fill(&b, lengths, SEQUENCES, config.vocab_size, &rng);
        CASE_OK(&probe, model_reserve(probe.model, TOKENS, SEQUENCES, false, RECOMPUTE_NONE, NULL));
        CASE_OK(&softmax,
                model_reserve(softmax.model, TOKENS, SEQUENCES, false, RECOMPUTE_NONE, NULL));
        struct plx_tensor a = logits_of(&probe, &b.batch), c = logits_of(&softmax, &b.batch);
        case_assert_same_bits(&a, &c);
        free(a.data);
        free(c.data);
        case_close(&probe);
        case_close(&softmax);
    }
}

/* ---- Gradients ---- */

static void test_accumulation(void **state)
{
    const struct model_config config = setup_config(*state);
    uint64_t seed = case_seed("accumulation");
    struct rng rng = rng_make(seed, 10);
    struct case_model m;
    struct case_batch b;
    case_open(&m, &config, &ops_ref, PLX_F64, seed);
    case_batch_fill(&b, (int64_t[]){13, 9}, 2, config.vocab_size, &rng);
    CASE_OK(&m, model_reserve(m.model, 22, 2, true, RECOMPUTE_NONE, NULL));
    CASE_OK(&m, model_zero_grads(m.model));
    gradients_of(&m, &b.batch, 0.1);
    struct plx_tensor *whole = copy_gradients(&m);
    CASE_OK(&m, model_zero_grads(m.model));
    for (int64_t s = 0; s < 2; s++) {
        int32_t offsets[2];
        struct batch one = sequence_of(&b.batch, s, offsets);
        gradients_of(&m, &one, 0.1);
    }
    struct param_list *params = model_params(m.model);
    for (int p = 0; p < params->count; p++)
        assert_close(params->items[p].name, &params->items[p].grad, &whole[p], 1e-11);
    free_gradients(&m, whole);
    case_close(&m);
}

/* |a - b|^2 / |b|^2. */
static double square_error(const struct plx_tensor *a, const struct plx_tensor *b)
{
    double difference = 0, size = 0;
    for (int64_t i = 0; i < plx_tensor_count(b); i++) {
        difference += pow(case_get(a, i) - case_get(b, i), 2);
        size += pow(case_get(b, i), 2);
    }
    return size > 0 ? difference / size : difference;
}

/* The three of a comparison: fast and naive, with products in f32 or bf16, and the same weights in
 * double. */
static void open_three(struct case_model m[3], const struct model_config *config, plx_dtype compute,
                       uint64_t seed)
{
    const struct backend_config tables[3] = {
        {.ops = &ops_cpu, .storage = PLX_F32, .compute = compute, .threads = 1},
        {.ops = &ops_ref, .storage = PLX_F32, .compute = compute, .threads = 1},
        {.ops = &ops_ref, .storage = PLX_F64, .compute = PLX_F64, .threads = 1}};
    for (int t = 0; t < 3; t++) {
        case_open_on(&m[t], config, &tables[t], seed);
        struct param_list *first = model_params(m[0].model), *params = model_params(m[t].model);
        for (int p = 0; p < params->count; p++)
            for (int64_t i = 0; i < plx_tensor_count(&params->items[p].value); i++)
                case_set(&params->items[p].value, i, case_get(&first->items[p].value, i));
    }
}

/* Adds the squared relative errors of logits and of every gradient to *fast and *naive. */
static void add_errors(struct case_model m[3], const struct batch *batch, double *fast,
                       double *naive)
{
    struct plx_tensor logits[3];
    for (int t = 0; t < 3; t++) {
        CASE_OK(&m[t], model_reserve(m[t].model, batch->tokens, batch->sequences, true,
                                     RECOMPUTE_NONE, NULL));
        CASE_OK(&m[t], model_zero_grads(m[t].model));
        gradients_of(&m[t], batch, 1.0 / TOKENS);
        logits[t] = logits_of(&m[t], batch);
    }
    *fast += square_error(&logits[0], &logits[2]);
    *naive += square_error(&logits[1], &logits[2]);
    for (int p = 0; p < model_params(m[0].model)->count; p++) {
        const struct plx_tensor *exact = &model_params(m[2].model)->items[p].grad;
        *fast += square_error(&model_params(m[0].model)->items[p].grad, exact);
        *naive += square_error(&model_params(m[1].model)->items[p].grad, exact);
    }
    for (int t = 0; t < 3; t++) free(logits[t].data);
}

/* The tolerance rule: errors at most twice those of the reference operations in f32. One model's
 * errors are a few roundings that its weights happen to amplify, so the rule is about the root mean
 * square over all tensors of several models; a tensor that is wrong stands out of it by orders of
 * magnitude. */
static void check_rule(const struct model_config *config, plx_dtype compute, uint64_t seed)
{
    struct rng rng = rng_make(seed, 11);
    double fast = 0, naive = 0;
    for (int draw = 0; draw < 8; draw++) {
        struct case_model m[3];
        struct case_batch b;
        case_batch_fill(&b, lengths, SEQUENCES, config->vocab_size, &rng);
        open_three(m, config, compute, seed + (uint64_t)draw);
        add_errors(m, &b.batch, &fast, &naive);
        for (int t = 0; t < 3; t++) case_close(&m[t]);
    }
    printf("%s products: error %.2e, %.2f times the naive one\n", plx_dtype_name(compute),
           sqrt(fast), sqrt(fast / naive));
    if (!(sqrt(fast) <= 2 * sqrt(naive)))
        fail_msg("%s products: root of squared errors %.3e, naive %.3e", plx_dtype_name(compute),
                 sqrt(fast), sqrt(naive));
}

static void test_fast_operations(void **state)
{
    const struct model_config config = setup_config(*state);
    uint64_t seed = case_seed("fast operations");
    check_rule(&config, PLX_F32, seed);
    check_rule(&config, PLX_BF16, seed);
}

/* Gradients of the fast operations with and without recomputation, to the bit. */
static void test_recompute(void **state)
{
    const struct model_config config = setup_config(*state);
    uint64_t seed = case_seed("recompute");
    struct rng rng = rng_make(seed, 12);
    struct case_model m;
    struct case_batch b;
    case_open(&m, &config, &ops_cpu, PLX_F32, seed);
    case_batch_fill(&b, lengths, SEQUENCES, config.vocab_size, &rng);
    struct plx_tensor *copies[2];
    for (int recompute = 0; recompute < 2; recompute++) {
        CASE_OK(&m, model_reserve(m.model, TOKENS, SEQUENCES, true,
                                  recompute ? RECOMPUTE_FULL : RECOMPUTE_NONE, NULL));
        CASE_OK(&m, model_zero_grads(m.model));
        gradients_of(&m, &b.batch, 0.05);
        copies[recompute] = copy_gradients(&m);
    }
    for (int p = 0; p < model_params(m.model)->count; p++)
        case_assert_same_bits(&copies[0][p], &copies[1][p]);
    free_gradients(&m, copies[0]);
    free_gradients(&m, copies[1]);
    case_close(&m);
}

/* ---- Scores ---- */

/* Log-probability by the definition, in double, from a row of logits. */
static double logprob_of(const struct plx_tensor *logits, int64_t row, int64_t token)
{
    const int64_t V = logits->shape[1];
    double largest = -INFINITY, sum = 0;
    for (int64_t v = 0; v < V; v++) largest = fmax(largest, case_get(logits, row * V + v));
    for (int64_t v = 0; v < V; v++) sum += exp(case_get(logits, row * V + v) - largest);
    return case_get(logits, row * V + token) - largest - log(sum);
}

/* Every token after every place, last place first: each is what the logits say, exactly one is
 * greedy, and the probabilities of all that can follow sum to 1. */
static void check_scores(struct case_model *m, const struct case_batch *b, double bound)
{
    const int64_t N = b->batch.tokens, V = model_get_config(m->model)->vocab_size;
    struct plx_tensor logits = logits_of(m, &b->batch);
    struct score_query *queries = calloc((size_t)(N * V), sizeof *queries);
    struct score *scores = calloc((size_t)(N * V), sizeof *scores);
    assert_true(queries != NULL && scores != NULL);
    for (int64_t i = 0; i < N * V; i++)
        queries[i] = (struct score_query){(int32_t)(N - 1 - i / V), (int32_t)(i % V)};
    CASE_OK(m, model_score(m->model, &b->batch, queries, N * V, scores));
    for (int64_t row = 0; row < N; row++) {
        double sum = 0;
        int greedy = 0;
        for (int64_t i = row * V; i < (row + 1) * V; i++) {
            double expected = logprob_of(&logits, queries[i].at, queries[i].token);
            if (!(fabs(scores[i].logprob - expected) <= bound * fmax(1, fabs(expected))))
                fail_msg("token %d after %d: %.17g but must be %.17g", queries[i].token,
                         queries[i].at, scores[i].logprob, expected);
            sum += exp(scores[i].logprob);
            greedy += scores[i].greedy;
        }
        assert_true(fabs(sum - 1) <= (double)V * bound);
        assert_int_equal(greedy, 1);
    }
    queries[0].token = (int32_t)V;
    assert_int_equal(model_score(m->model, &b->batch, queries, 1, scores), PLX_INVALID_ARGUMENT);
    assert_non_null(strstr(m->err.text, "query 0 asks for token 61"));
    error_clear(&m->err);
    free(queries);
    free(scores);
    free(logits.data);
}

static void test_scores(void **state)
{
    const struct model_config config = setup_config(*state);
    uint64_t seed = case_seed("scores");
    struct rng rng = rng_make(seed, 9);
    for (int table = 0; table < LAW_TABLES; table++) {
        struct case_model m;
        struct case_batch b;
        case_open(&m, &config, law_tables[table].ops, law_tables[table].storage, seed);
        case_batch_fill(&b, (int64_t[]){13, 1, 8}, 3, config.vocab_size, &rng);
        CASE_OK(&m, model_reserve(m.model, 22, 3, false, RECOMPUTE_NONE, NULL));
        check_scores(&m, &b, law_tables[table].bound);
        case_close(&m);
    }
}

/* ---- Streaming ---- */

/* A read of a model that is in memory, which must go through every parameter without a gap. */
struct source {
    struct param_list *params;
    const struct param *last;
    int64_t next; /* row of the last parameter */
    int64_t most; /* numbers of a table that were read at once */
};

static plx_status read_source(void *user, const struct param *param, int64_t first, int64_t count,
                              void *values)
{
    struct source *source = user;
    const struct plx_tensor *value = &param_find(source->params, param->name)->value;
    const int64_t rows = value->shape[0], columns = plx_tensor_count(value) / rows;
    const size_t row_bytes = (size_t)columns * plx_dtype_size(value->dtype);
    if (first > 0) {
        assert_ptr_equal(param, source->last);
        assert_int_equal(first, source->next);
    } else if (source->last != NULL) {
        assert_int_equal(source->next, source->last->value.shape[0]);
    }
    source->last = param;
    source->next = first + count;
    bool table = param->group == PARAM_EMBEDDING || param->group == PARAM_HEAD;
    if (table && count * columns > source->most) source->most = count * columns;
    memcpy(values, (const char *)value->data + (size_t)first * row_bytes,
           (size_t)count * row_bytes);
    return PLX_OK;
}

static void check_streaming(struct case_model *m, const struct batch *batch)
{
    const struct model_config *config = model_get_config(m->model);
    struct source source = {.params = model_params(m->model)};
    struct plx_tensor whole = logits_of(m, batch),
                      streamed = case_tensor(whole.dtype, 2, whole.shape);
    CASE_OK(m, model_stream_logits(&m->be, config, batch, read_source, &source, &streamed));
    case_assert_same_bits(&whole, &streamed);
    assert_int_equal(source.next, config->vocab_size);
    assert_true(source.most <= 1 << 20);
    free(whole.data);
    free(streamed.data);
}

/* A model of which one block is in memory at a time computes the same bits; a table of 40,000 rows
 * of 32 numbers goes through in two pieces. */
static void test_streaming(void **state)
{
    static const struct {
        const struct ops *ops;
        plx_dtype storage;
        int64_t vocab;
        bool tied;
    } cases[] = {{&ops_cpu, PLX_F32, 61, true},
                 {&ops_cpu, PLX_F32, 61, false},
                 {&ops_ref, PLX_F32, 40000, true},
                 {&ops_ref, PLX_F64, 40000, false}};
    struct model_config config = setup_config(*state);
    uint64_t seed = case_seed("streaming");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct case_model m;
        struct case_batch b;
        struct rng rng = rng_make(seed, 9);
        config.vocab_size = cases[i].vocab;
        config.tie_embeddings = cases[i].tied;
        case_open(&m, &config, cases[i].ops, cases[i].storage, seed);
        case_batch_fill(&b, (int64_t[]){13, 1, 8}, 3, config.vocab_size, &rng);
        CASE_OK(&m, model_reserve(m.model, 22, 3, false, RECOMPUTE_NONE, NULL));
        check_streaming(&m, &b.batch);
        case_close(&m);
    }
}

int main(void)
{
    static const struct law laws[] = {
        {"decoding equals forward", test_decode},
        {"long prefill equals forward", test_long_prefill},
        {"scores are the logits' log-probabilities", test_scores},
        {"streaming changes no bit", test_streaming},
        {"micro-batches add up", test_accumulation},
        {"fast operations keep to the tolerance rule", test_fast_operations},
        {"recomputation changes no bit", test_recompute}};
    enum { LAWS = sizeof laws / sizeof laws[0] };
    static struct law_tests all;
    law_tests_fill(&all, laws, LAWS);
    all.tests[LAWS * SETUPS] = (struct CMUnitTest)cmocka_unit_test(test_zero_starts);
    return _cmocka_run_group_tests("laws of the model", all.tests, LAWS * SETUPS + 1, NULL, NULL);
}
