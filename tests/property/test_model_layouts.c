/* test_model_layouts.c: a document is the same whatever stands around it in a batch.
 *
 * Packing equals separate sequences, and equal sequences need no packing; what stands before a
 * document, or where its positions begin, is nothing to it; and no token sees the future. */
#include "../model_laws.h"

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

/* Equal sequences are a dense batch to attention, and with an empty one behind them a packed batch:
 * the same bits on the CPU. */
static void test_equal_sequences(void **state)
{
    const struct model_config config = setup_config(*state);
    uint64_t seed = case_seed("equal sequences");
    struct rng rng = rng_make(seed, 15);
    const struct ops *const tables[] = {&ops_ref, &ops_cpu};
    for (int table = 0; table < 2; table++) {
        struct case_model m;
        struct case_batch dense, packed;
        case_open(&m, &config, tables[table], PLX_F32, seed);
        case_batch_fill(&dense, (int64_t[]){21, 21, 21}, 3, config.vocab_size, &rng);
        packed = dense;
        packed.batch.sequences = 4;
        packed.offsets[4] = packed.offsets[3];
        packed.batch.offsets = packed.offsets;
        CASE_OK(&m, model_reserve(m.model, 63, 4, true, RECOMPUTE_NONE, NULL));
        struct plx_tensor one = logits_of(&m, &dense.batch), other = logits_of(&m, &packed.batch);
        case_assert_same_bits(&one, &other);
        CASE_OK(&m, model_zero_grads(m.model));
        gradients_of(&m, &dense.batch, 0.1);
        struct plx_tensor *copies = copy_gradients(&m);
        CASE_OK(&m, model_zero_grads(m.model));
        gradients_of(&m, &packed.batch, 0.1);
        for (int p = 0; p < model_params(m.model)->count; p++)
            case_assert_same_bits(&copies[p], &model_params(m.model)->items[p].grad);
        free_gradients(&m, copies);
        free(one.data);
        free(other.data);
        case_close(&m);
    }
}

/* The last `count` tokens of a batch as a batch of their own. */
static struct batch suffix_of(const struct batch *batch, int64_t count, int32_t offsets[2])
{
    offsets[0] = (int32_t)(batch->tokens - count);
    offsets[1] = (int32_t)batch->tokens;
    struct batch last = *batch;
    last.offsets = offsets, last.sequences = 1;
    return sequence_of(&last, 0, offsets);
}

/* A document behind other documents has the logits, and gives the gradients, that it has alone. */
static void test_left_padding(void **state)
{
    const struct model_config config = setup_config(*state);
    uint64_t seed = case_seed("left padding");
    struct rng rng = rng_make(seed, 13);
    const int64_t padding[] = {1, 16, 17, 40};
    for (int i = 0; i < 8; i++) {
        struct case_model m;
        struct case_batch b;
        int32_t offsets[2];
        const int64_t ahead = padding[i / 2], first = (int64_t)rng_below(&rng, (uint64_t)ahead + 1);
        case_open(&m, &config, law_tables[i % LAW_TABLES].ops, law_tables[i % LAW_TABLES].storage,
                  seed);
        case_batch_fill(&b, (int64_t[]){first, ahead - first, 23}, 3, config.vocab_size, &rng);
        for (int64_t n = 0; n < ahead; n++) b.targets[n] = -1;
        struct batch alone = suffix_of(&b.batch, 23, offsets);
        CASE_OK(&m, model_reserve(m.model, ahead + 23, 3, true, RECOMPUTE_NONE, NULL));
        struct plx_tensor padded = logits_of(&m, &b.batch), logits = logits_of(&m, &alone),
                          rows = rows_of(&padded, ahead, 23);
        assert_close("behind other documents", &rows, &logits, law_tables[i % LAW_TABLES].bound);
        CASE_OK(&m, model_zero_grads(m.model));
        gradients_of(&m, &b.batch, 0.1);
        struct plx_tensor *copies = copy_gradients(&m);
        CASE_OK(&m, model_zero_grads(m.model));
        gradients_of(&m, &alone, 0.1);
        for (int p = 0; p < model_params(m.model)->count; p++)
            assert_close(model_params(m.model)->items[p].name, &copies[p],
                         &model_params(m.model)->items[p].grad, law_tables[i % LAW_TABLES].bound);
        free_gradients(&m, copies);
        free(padded.data);
        free(logits.data);
        case_close(&m);
    }
}

/* Rotations depend on distances only: positions may begin anywhere, as they do where a batch is
 * padded on the left and counts the padding. */
static void test_positions(void **state)
{
    const struct model_config config = setup_config(*state);
    uint64_t seed = case_seed("positions");
    struct rng rng = rng_make(seed, 14);
    struct case_model m;
    struct case_batch b;
    case_open(&m, &config, &ops_ref, PLX_F64, seed);
    case_batch_fill(&b, (int64_t[]){24}, 1, config.vocab_size, &rng);
    CASE_OK(&m, model_reserve(m.model, 24, 1, false, RECOMPUTE_NONE, NULL));
    struct plx_tensor from_zero = logits_of(&m, &b.batch);
    int32_t ahead = 1 + (int32_t)rng_below(&rng, 39);
    for (int n = 0; n < 24; n++) b.positions[n] += ahead;
    struct plx_tensor shifted = logits_of(&m, &b.batch);
    assert_close("positions from elsewhere", &shifted, &from_zero, 1e-10);
    b.positions[23]++; /* another distance must show */
    struct plx_tensor other = logits_of(&m, &b.batch);
    double largest;
    assert_true(largest_difference(&other, &from_zero, &largest) > 1e-6 * largest);
    free(from_zero.data);
    free(shifted.data);
    free(other.data);
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

int main(void)
{
    static const struct law laws[] = {{"packed sequences equal separate ones", test_packing},
                                      {"equal sequences need no packing", test_equal_sequences},
                                      {"left padding changes nothing", test_left_padding},
                                      {"positions may begin anywhere", test_positions},
                                      {"the past does not see the future", test_causality}};
    enum { LAWS = sizeof laws / sizeof laws[0] };
    static struct law_tests all;
    law_tests_fill(&all, laws, LAWS);
    return _cmocka_run_group_tests("layouts of a batch", all.tests, LAWS * SETUPS, NULL, NULL);
}
