/* test_model_laws.c: what must hold for any model of the family, whatever its weights.
 *
 * Packing equals separate sequences; no token sees the future; decoding, in any pieces, equals the
 * forward pass; both zero starts of the probe equal softmax bit for bit; gradients of micro-batches
 * add up to those of the whole batch; the fast operations agree with the reference; and
 * reservations are exact. */
#include "../model_case.h"

struct setup {
    const char *name;
    const char *mixers[2];
    int64_t windows[2];
    bool gate;
};

static const struct setup setups[] = {
    {"softmax", {"softmax", "softmax"}, {0, 0}, false},
    {"parallax", {"parallax", "parallax"}, {0, 0}, false},
    {"parallax, windows", {"parallax", "parallax"}, {4, 7}, true},
    {"mixed", {"softmax", "parallax"}, {5, 0}, false},
};
enum { SETUPS = sizeof setups / sizeof setups[0] };

static struct model_config setup_config(const struct setup *setup)
{
    struct model_config config = case_config(2, "softmax");
    for (int l = 0; l < 2; l++) {
        config.layer[l].mixer = mixer_find(setup->mixers[l]);
        config.layer[l].window = setup->windows[l];
    }
    config.probe_gate = setup->gate;
    return config;
}

/* malloc'd logits [N,V] of a batch. */
static struct plx_tensor logits_of(struct case_model *m, const struct batch *batch)
{
    struct plx_tensor logits = case_tensor(
        m->be.storage, 2, (int64_t[]){batch->tokens, model_get_config(m->model)->vocab_size});
    CASE_OK(m, model_logits(m->model, batch, &logits));
    return logits;
}

static double largest_difference(const struct plx_tensor *a, const struct plx_tensor *b,
                                 double *largest)
{
    double difference = 0;
    *largest = 0;
    for (int64_t i = 0; i < plx_tensor_count(a); i++) {
        double d = fabs(case_get(a, i) - case_get(b, i));
        if (!(d <= difference)) difference = d;
        *largest = fmax(*largest, fabs(case_get(b, i)));
    }
    return difference;
}

static void assert_close(const char *what, const struct plx_tensor *a, const struct plx_tensor *b,
                         double bound)
{
    double largest, difference = largest_difference(a, b, &largest);
    if (!(difference <= bound * largest))
        fail_msg("%s: %.3e apart, largest %.3e", what, difference, largest);
}

/* Rows first .. first + count - 1 of a matrix. */
static struct plx_tensor rows_of(const struct plx_tensor *tensor, int64_t first, int64_t count)
{
    return plx_tensor_slice(*tensor, 0, first, count);
}

/* One sequence of a batch as a batch of its own. */
static struct batch sequence_of(const struct batch *batch, int64_t s, int32_t offsets[2])
{
    const int64_t start = batch->offsets[s], count = batch->offsets[s + 1] - start;
    offsets[0] = 0;
    offsets[1] = (int32_t)count;
    return (struct batch){.tokens = count,
                          .sequences = 1,
                          .ids = batch->ids + start,
                          .targets = batch->targets + start,
                          .positions = batch->positions + start,
                          .offsets = offsets};
}

static const int64_t lengths[] = {13, 1, 8, 0, 21};
enum { SEQUENCES = sizeof lengths / sizeof lengths[0], TOKENS = 43 };

/* ---- Packing and causality ---- */

static void test_packing(void **state)
{
    const struct model_config config = setup_config(*state);
    uint64_t seed = case_seed("packing");
    struct rng rng = rng_make(seed, 5);
    struct case_model m;
    struct case_batch b;
    case_open(&m, &config, &ops_ref, PLX_F64, seed);
    case_batch_fill(&b, lengths, SEQUENCES, config.vocab_size, &rng);
    CASE_OK(&m, model_reserve(m.model, TOKENS, SEQUENCES, false, RECOMPUTE_NONE, NULL));
    struct plx_tensor packed = logits_of(&m, &b.batch);
    struct model_loss whole, sum = {0};
    CASE_OK(&m, model_loss(m.model, &b.batch, &whole));
    for (int64_t s = 0; s < SEQUENCES; s++) {
        int32_t offsets[2];
        struct batch one = sequence_of(&b.batch, s, offsets);
        struct model_loss loss;
        CASE_OK(&m, model_loss(m.model, &one, &loss));
        sum.sum += loss.sum;
        sum.count += loss.count;
        if (one.tokens == 0) continue;
        struct plx_tensor alone = logits_of(&m, &one),
                          rows = rows_of(&packed, b.batch.offsets[s], one.tokens);
        assert_close("packed against separate", &rows, &alone, 1e-13);
        free(alone.data);
    }
    assert_int_equal(sum.count, whole.count);
    assert_true(fabs(sum.sum - whole.sum) <= 1e-12 * whole.sum);
    free(packed.data);
    case_close(&m);
}

/* Another future, the same past, to the bit. */
static void test_causality(void **state)
{
    const struct model_config config = setup_config(*state);
    uint64_t seed = case_seed("causality");
    struct rng rng = rng_make(seed, 6);
    const struct ops *const tables[] = {&ops_ref, &ops_cpu};
    for (int table = 0; table < 2; table++) {
        struct case_model m;
        struct case_batch b;
        case_open(&m, &config, tables[table], PLX_F32, seed);
        case_batch_fill(&b, (int64_t[]){24}, 1, config.vocab_size, &rng);
        CASE_OK(&m, model_reserve(m.model, 24, 1, false, RECOMPUTE_NONE, NULL));
        struct plx_tensor before = logits_of(&m, &b.batch);
        int64_t cut = 1 + (int64_t)rng_below(&rng, 23);
        for (int64_t n = cut; n < 24; n++) b.ids[n] = (b.ids[n] + 1) % (int32_t)config.vocab_size;
        struct plx_tensor after = logits_of(&m, &b.batch);
        struct plx_tensor past = rows_of(&before, 0, cut), same = rows_of(&after, 0, cut);
        case_assert_same_bits(&past, &same);
        struct plx_tensor future = rows_of(&before, cut, 1), other = rows_of(&after, cut, 1);
        double largest;
        assert_true(largest_difference(&future, &other, &largest) > 0);
        free(before.data);
        free(after.data);
        case_close(&m);
    }
}

/* ---- Decoding ---- */

/* Decodes 3 sequences of 29 tokens in pieces and compares every logits row it returns. */
static void check_decode(struct case_model *m, const struct case_batch *b,
                         const struct plx_tensor *full, const int64_t *pieces, double bound)
{
    enum { S = 3, T = 29 };
    const int64_t V = full->shape[1];
    struct model_cache *cache;
    CASE_OK(m, model_cache_create(m->model, S, T, &cache));
    struct plx_tensor logits = case_tensor(m->be.storage, 2, (int64_t[]){S, V});
    int64_t at = 0;
    for (int p = 0; at < T; p++) {
        int32_t ids[S * T];
        int64_t count = pieces[p] > 0 ? pieces[p] : 1;
        for (int64_t s = 0; s < S; s++)
            memcpy(ids + s * count, b->ids + s * T + at, (size_t)count * 4);
        CASE_OK(m, model_decode(m->model, cache, ids, count, &logits));
        at += count;
        assert_int_equal(model_cache_length(cache), at);
        for (int64_t s = 0; s < S; s++) {
            struct plx_tensor row = rows_of(&logits, s, 1),
                              expected = rows_of(full, s * T + at - 1, 1);
            assert_close("decoded against forward", &row, &expected, bound);
        }
        if (pieces[p] == 0) p--;
    }
    int32_t ids[S] = {0};
    assert_int_equal(model_decode(m->model, cache, ids, 1, &logits), PLX_INVALID_ARGUMENT);
    assert_non_null(strstr(m->err.text, "do not fit a cache that holds 29 of at most 29"));
    error_clear(&m->err);
    model_cache_clear(cache);
    assert_int_equal(model_cache_length(cache), 0);
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
    const struct {
        const struct ops *ops;
        plx_dtype storage;
        double bound;
    } tables[] = {{&ops_ref, PLX_F64, 1e-12}, {&ops_cpu, PLX_F32, 2e-5}};
    for (int table = 0; table < 2; table++) {
        struct case_model m;
        struct case_batch b;
        case_open(&m, &config, tables[table].ops, tables[table].storage, seed);
        case_batch_fill(&b, (int64_t[]){29, 29, 29}, 3, config.vocab_size, &rng);
        CASE_OK(&m, model_reserve(m.model, 87, 3, false, RECOMPUTE_NONE, NULL));
        struct plx_tensor full = logits_of(&m, &b.batch);
        check_decode(&m, &b, &full, one_by_one, tables[table].bound);
        check_decode(&m, &b, &full, prefill, tables[table].bound);
        check_decode(&m, &b, &full, pieces, tables[table].bound);
        check_decode(&m, &b, &full, whole, tables[table].bound);
        free(full.data);
        case_close(&m);
    }
}

/* A prompt longer than one internal piece. */
static void test_long_prefill(void **state)
{
    const struct model_config config = setup_config(*state);
    enum { T = 500 };
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
    CASE_OK(&m, model_cache_create(m.model, 1, T, &cache));
    CASE_OK(&m, model_decode(m.model, cache, b.ids, T, &logits));
    assert_close("prefill in internal pieces", &logits, &last, 1e-12);
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

static void gradients_of(struct case_model *m, const struct batch *batch, double scale)
{
    struct model_loss loss;
    CASE_OK(m, model_loss_backward(m->model, batch, scale, &loss));
}

static struct plx_tensor *copy_gradients(struct case_model *m)
{
    struct param_list *params = model_params(m->model);
    struct plx_tensor *copies = calloc((size_t)params->count, sizeof *copies);
    for (int p = 0; p < params->count; p++) {
        const struct plx_tensor *grad = &params->items[p].grad;
        copies[p] = case_tensor(grad->dtype, grad->rank, grad->shape);
        memcpy(copies[p].data, grad->data,
               (size_t)plx_tensor_count(grad) * plx_dtype_size(grad->dtype));
    }
    return copies;
}

static void free_gradients(struct case_model *m, struct plx_tensor *copies)
{
    for (int p = 0; p < model_params(m->model)->count; p++) free(copies[p].data);
    free(copies);
}

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

int main(void)
{
    static const struct {
        const char *name;
        void (*test)(void **state);
    } laws[] = {{"packed sequences equal separate ones", test_packing},
                {"the past does not see the future", test_causality},
                {"decoding equals forward", test_decode},
                {"long prefill equals forward", test_long_prefill},
                {"micro-batches add up", test_accumulation},
                {"fast operations keep to the tolerance rule", test_fast_operations},
                {"recomputation changes no bit", test_recompute}};
    enum { LAWS = sizeof laws / sizeof laws[0] };
    static char names[LAWS * SETUPS][96];
    struct CMUnitTest tests[LAWS * SETUPS + 1] = {cmocka_unit_test(test_zero_starts)};
    for (int i = 0; i < LAWS * SETUPS; i++) {
        snprintf(names[i], sizeof names[i], "%s: %s", laws[i / SETUPS].name,
                 setups[i % SETUPS].name);
        tests[i + 1] = (struct CMUnitTest){.name = names[i],
                                           .test_func = laws[i / SETUPS].test,
                                           .initial_state = (void *)&setups[i % SETUPS]};
    }
    return cmocka_run_group_tests_name("laws of the model", tests, NULL, NULL);
}
