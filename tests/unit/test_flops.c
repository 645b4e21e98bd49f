/* test_flops.c: model FLOPs a token against sums made by hand, and the peaks of known cards. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "core/card.h"
#include "flops.h"
#include "mixers/mixer.h"

/* The shape of Qwen3-0.6B: 28 layers of width 1024, 16 query and 8 key/value heads of 128
 * channels, FFN 3072, a tied vocabulary of 151936. */
static struct model_config qwen3(const char *mixer)
{
    struct model_config config = model_config_default();
    config.vocab_size = 151936;
    config.hidden_size = 1024;
    config.intermediate_size = 3072;
    config.layers = 28;
    config.heads = 16;
    config.kv_heads = 8;
    config.head_dim = 128;
    config.max_position = 4096;
    config.tie_embeddings = true;
    for (int l = 0; l < 28; l++) config.layer[l].mixer = mixer_find(mixer);
    return config;
}

static struct flops flops_of(const struct model_config *config, bool probe_only, int64_t context)
{
    struct param_list params;
    struct error err = {0};
    assert_int_equal(model_describe(config, &params, &err), PLX_OK);
    if (probe_only) param_list_train_only(&params, true, false);
    struct flops flops = flops_per_token(config, &params, context);
    param_list_destroy(&params);
    return flops;
}

/* Weights of a layer: q and o 1024 x 2048, k and v 1024 x 1024, three of 1024 x 3072. */
#define LAYER_WEIGHTS (2.0 * 2097152 + 2.0 * 1048576 + 3.0 * 3145728)
#define PROBE_WEIGHTS 2097152.0
#define HEAD_WEIGHTS  155582464.0

static void softmax_of_qwen3(void **state)
{
    (void)state;
    const struct model_config config = qwen3("softmax");
    const struct flops flops = flops_of(&config, false, 4096);
    assert_true(flops.linear == 6 * (28 * LAYER_WEIGHTS + HEAD_WEIGHTS));
    assert_true(flops.linear == 3575906304.0);
    assert_true(flops.attention == 6.0 * 28 * 128 * 16 * 4096);
    assert_true(flops.total == 4985192448.0); /* 4.985 GFLOP */
}

static void parallax_of_qwen3(void **state)
{
    (void)state;
    const struct model_config config = qwen3("parallax");
    const struct flops flops = flops_of(&config, false, 4096);
    assert_true(flops.linear == 6 * (28 * (LAYER_WEIGHTS + PROBE_WEIGHTS) + HEAD_WEIGHTS));
    assert_true(flops.attention == 10.0 * 28 * 128 * 16 * 4096);
    assert_true(flops.total == 6277038080.0); /* 6.277 GFLOP */
}

/* An untied embedding is only looked up; its head is multiplied as a tied one is. */
static void tying_changes_nothing(void **state)
{
    (void)state;
    struct model_config config = qwen3("softmax");
    config.tie_embeddings = false;
    assert_true(flops_of(&config, false, 4096).total == 4985192448.0);
}

/* A window of 1024 in rows of 4096: the first 1024 queries see 512 keys on average, the others
 * 1024, which makes 896. */
static void windows_see_less(void **state)
{
    (void)state;
    struct model_config config = qwen3("softmax");
    for (int l = 0; l < 28; l += 2) config.layer[l].window = 1024;
    const struct flops flops = flops_of(&config, false, 4096);
    assert_true(flops.attention == 6.0 * 14 * 2 * 128 * 16 * (2048 + 896));
    config.layer[0].window = 5000; /* longer than the row: all of it */
    assert_true(flops_of(&config, false, 4096).attention ==
                6.0 * 2 * 128 * 16 * (15.0 * 2048 + 13.0 * 896));
}

/* A frozen weight has no gradient of its own. */
static void frozen_weights_cost_less(void **state)
{
    (void)state;
    const struct model_config config = qwen3("parallax");
    const struct flops flops = flops_of(&config, true, 4096);
    assert_true(flops.linear == 4 * (28 * LAYER_WEIGHTS + HEAD_WEIGHTS) + 6 * 28 * PROBE_WEIGHTS);
}

static void cards_by_name(void **state)
{
    (void)state;
    assert_true(card_named("NVIDIA H200")->tflops == 989.5);
    assert_true(card_named("NVIDIA H200 NVL")->tflops == 835.5);
    assert_true(card_named("NVIDIA H100 80GB HBM3")->tb_s == 3.35);
    assert_true(card_named("NVIDIA A100-SXM4-40GB")->tflops == 312);
    assert_null(card_named("NVIDIA GH200 480GB"));
    assert_null(card_named("AMD EPYC 9R14"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(softmax_of_qwen3),         cmocka_unit_test(parallax_of_qwen3),
        cmocka_unit_test(tying_changes_nothing),    cmocka_unit_test(windows_see_less),
        cmocka_unit_test(frozen_weights_cost_less), cmocka_unit_test(cards_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
