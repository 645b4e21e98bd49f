/* test_model_check.c: every refusal of a configuration, with its sentence, and what the defaults
 * are. */
#include "../model_case.h"

struct refusal {
    const char *name;
    void (*spoil)(struct model_config *config);
    const char *sentence;
};

#define SPOIL(name, statement)                                                                     \
    static void name(struct model_config *config)                                                  \
    {                                                                                              \
        statement;                                                                                 \
    }

SPOIL(no_vocabulary, config->vocab_size = 0)
SPOIL(large_vocabulary, config->vocab_size = INT64_C(1) << 31)
SPOIL(no_width, config->hidden_size = -3)
SPOIL(no_inner_width, config->intermediate_size = 0)
SPOIL(no_layers, config->layers = 0)
SPOIL(many_layers, config->layers = 257)
SPOIL(no_heads, config->heads = 0)
SPOIL(no_key_heads, config->kv_heads = 0)
SPOIL(no_head_channels, config->head_dim = 0)
SPOIL(wide_heads, config->head_dim = 258)
SPOIL(odd_heads, config->head_dim = 7)
SPOIL(no_positions, config->max_position = 0)
SPOIL(uneven_groups, config->kv_heads = 3)
SPOIL(large_embedding, config->vocab_size = config->hidden_size = INT32_MAX)
SPOIL(large_inner, config->intermediate_size = config->hidden_size = 1 << 25)
SPOIL(large_heads,
      (config->heads = 1 << 20, config->head_dim = 256, config->hidden_size = (1 << 20) + 1))
SPOIL(zero_eps, config->norm_eps = 0)
SPOIL(nan_eps, config->qk_norm_eps = NAN)
SPOIL(negative_theta, config->rope.theta = -10000)
SPOIL(infinite_range, config->initializer_range = INFINITY)
SPOIL(negative_range, config->initializer_range = -0.02)
SPOIL(large_bos, config->bos_id = 61)
SPOIL(negative_eos, (config->end_count = 1, config->end_ids[0] = -2))
SPOIL(many_ends, config->end_count = 9)
SPOIL(shrinking_factor, config->rope.factor = 0.5)
SPOIL(bands_in_disorder, config->rope = ((struct rope){100, 8, 4, 1, 64}))
SPOIL(no_original_positions, config->rope = ((struct rope){100, 8, 1, 4, 0}))
SPOIL(unknown_start, config->probe_start = (enum probe_start)7)
SPOIL(no_mixer, config->layer[1].mixer = NULL)
SPOIL(negative_window, config->layer[1].window = -1)
SPOIL(gain_without_norm, (config->probe_norm = false, config->probe_start = PROBE_START_ZERO_GAIN))

static const struct refusal refusals[] = {
    {"no_vocabulary", no_vocabulary,
     "config.json: vocab_size is 0 but must be from 1 to 2147483647"},
    {"large_vocabulary", large_vocabulary,
     "config.json: vocab_size is 2147483648 but must be from 1 to 2147483647"},
    {"no_width", no_width, "config.json: hidden_size is -3 but must be from 1 to 2147483647"},
    {"no_inner_width", no_inner_width,
     "config.json: intermediate_size is 0 but must be from 1 to 2147483647"},
    {"no_layers", no_layers, "config.json: num_hidden_layers is 0 but must be from 1 to 256"},
    {"many_layers", many_layers, "config.json: num_hidden_layers is 257 but must be from 1 to 256"},
    {"no_heads", no_heads,
     "config.json: num_attention_heads is 0 but must be from 1 to 2147483647"},
    {"no_key_heads", no_key_heads,
     "config.json: num_key_value_heads is 0 but must be from 1 to 2147483647"},
    {"no_head_channels", no_head_channels, "config.json: head_dim is 0 but must be from 1 to 256"},
    {"wide_heads", wide_heads, "config.json: head_dim is 258 but must be from 1 to 256"},
    {"odd_heads", odd_heads, "config.json: head_dim is 7 but rotary positions need an even number"},
    {"no_positions", no_positions,
     "config.json: max_position_embeddings is 0 but must be from 1 to 2147483647"},
    {"uneven_groups", uneven_groups,
     "config.json: num_key_value_heads 3 does not divide num_attention_heads 4"},
    {"large_embedding", large_embedding,
     "config.json: vocab_size 2147483647 times hidden_size 2147483647 is more than the "
     "281474976710656 "
     "elements a matrix may have"},
    {"large_inner", large_inner,
     "config.json: intermediate_size 33554432 times hidden_size 33554432 is more than the "
     "281474976710656 elements a matrix may have"},
    {"large_heads", large_heads,
     "config.json: num_attention_heads * head_dim 268435456 times hidden_size 1048577 is more than "
     "the "
     "281474976710656 elements a matrix may have"},
    {"zero_eps", zero_eps, "config.json: rms_norm_eps is 0 but must be above 0 and finite"},
    {"nan_eps", nan_eps, "config.json: qk_norm_eps is nan but must be above 0 and finite"},
    {"negative_theta", negative_theta,
     "config.json: rope_theta is -10000 but must be above 0 and finite"},
    {"infinite_range", infinite_range,
     "config.json: initializer_range is inf but must be at least 0 and finite"},
    {"negative_range", negative_range,
     "config.json: initializer_range is -0.02 but must be at least 0 and finite"},
    {"large_bos", large_bos,
     "config.json: bos_token_id is 61 but must be below vocab_size 61, or -1 for none"},
    {"negative_eos", negative_eos,
     "config.json: eos_token_id is -2 but must be from 0 to below vocab_size 61"},
    {"many_ends", many_ends,
     "config.json: eos_token_id lists 9 tokens but at most 8 are supported"},
    {"shrinking_factor", shrinking_factor,
     "config.json: the factor of rope is 0.5 but must be at least 1 and finite"},
    {"bands_in_disorder", bands_in_disorder,
     "config.json: rope's low_freq_factor is 4 and its high_freq_factor 1, but they must be above "
     "0 and the second larger"},
    {"no_original_positions", no_original_positions,
     "config.json: rope's original_max_position_embeddings is 0 but must be at least 1 and finite"},
    {"unknown_start", unknown_start, "config.json: probe_start is 7 but must be one of 0, 1, 2"},
    {"no_mixer", no_mixer, "config.json: layer 1 has no mixer"},
    {"negative_window", negative_window,
     "config.json: the window of layer 1 is -1 but must be at least 0 (0: no window)"},
    {"gain_without_norm", gain_without_norm,
     "config.json: probe_start zero-gain needs probe_norm, because it sets the gain of that norm "
     "to zero "
     "(layer 0 is parallax)"},
};

static void test_refusal(void **state)
{
    const struct refusal *refusal = *state;
    struct model_config config = case_config(2, "parallax");
    struct error err = {0};
    refusal->spoil(&config);
    assert_int_equal(model_config_check(&config, "config.json", &err), PLX_BAD_DATA);
    assert_int_equal(err.status, PLX_BAD_DATA);
    assert_string_equal(err.text, refusal->sentence);
    assert_int_equal(model_config_check(&config, "config.json", NULL), PLX_BAD_DATA);
}

static void test_refused_by_create(void **state)
{
    (void)state;
    struct model_config config = case_config(2, "parallax");
    struct error err = {0};
    struct backend be;
    struct model *model = (struct model *)&config;
    const struct backend_config backend = {.ops = &ops_ref, .storage = PLX_F32, .compute = PLX_F32};
    assert_int_equal(backend_create(&be, &backend, &err), PLX_OK);
    config.kv_heads = 3;
    assert_int_equal(model_create(&be, &config, &model), PLX_BAD_DATA);
    assert_null(model);
    assert_string_equal(err.text,
                        "model: num_key_value_heads 3 does not divide num_attention_heads 4");
    backend_destroy(&be);
}

/* What is accepted stays accepted: extremes, and a softmax model whose probe options are idle. */
static void test_accepts(void **state)
{
    (void)state;
    struct error err = {0};
    struct model_config config = case_config(256, "parallax");
    assert_int_equal(model_config_check(&config, "c", &err), PLX_OK);
    config.head_dim = 256;
    config.kv_heads = config.heads = 64;
    config.hidden_size = 1;
    config.initializer_range = 0;
    config.bos_id = 60;
    assert_int_equal(model_config_check(&config, "c", &err), PLX_OK);
    config = case_config(2, "softmax");
    gain_without_norm(&config);
    assert_int_equal(model_config_check(&config, "c", &err), PLX_OK);
}

static void test_defaults(void **state)
{
    (void)state;
    const struct model_config config = model_config_default();
    assert_int_equal(config.vocab_size + config.hidden_size + config.intermediate_size +
                         config.layers + config.heads + config.kv_heads + config.head_dim +
                         config.max_position,
                     0);
    assert_true(config.norm_eps == 1e-6 && config.qk_norm_eps == 1e-6 && config.rope.theta == 1e6 &&
                config.initializer_range == 0.02);
    assert_true(config.tie_embeddings && config.qk_norm && config.probe_norm && config.probe_rope);
    assert_false(config.family == FAMILY_FLA || config.probe_gate);
    assert_int_equal(config.probe_start, PROBE_START_NORMAL);
    assert_true(config.bos_id == -1 && config.end_count == 0);
}

/* ---- The parameter table: names, shapes, starts, groups ---- */

struct row {
    const char *name;
    int64_t rows, columns; /* columns 0: a vector */
    enum param_group group;
    enum param_init init;
};

static void check_rows(const struct model_config *config, const struct row *rows, int count)
{
    struct case_model m;
    case_open(&m, config, &ops_ref, PLX_F32, 1);
    const struct param_list *params = model_params(m.model);
    assert_int_equal(params->count, count);
    for (int p = 0; p < count; p++) {
        const struct param *param = &params->items[p];
        assert_string_equal(param->name, rows[p].name);
        assert_int_equal(param->value.rank, rows[p].columns > 0 ? 2 : 1);
        assert_int_equal(param->value.shape[0], rows[p].rows);
        if (rows[p].columns > 0) assert_int_equal(param->value.shape[1], rows[p].columns);
        assert_int_equal(param->group, rows[p].group);
        assert_int_equal(param->init, rows[p].init);
        if (param->init == PARAM_INIT_NORMAL)
            assert_true(param->init_std == config->initializer_range);
    }
    case_close(&m);
}

static void test_names(void **state)
{
    (void)state;
    struct model_config config = case_config(1, "parallax");
    config.probe_gate = true;
    config.probe_start = PROBE_START_ZERO_GAIN;
    const struct row rows[] = {
        {"model.embed_tokens.weight", 61, 32, PARAM_EMBEDDING, PARAM_INIT_NORMAL},
        {"model.layers.0.input_layernorm.weight", 32, 0, PARAM_NORM, PARAM_INIT_ONE},
        {"model.layers.0.self_attn.q_proj.weight", 32, 32, PARAM_MATRIX, PARAM_INIT_NORMAL},
        {"model.layers.0.self_attn.q_norm.weight", 8, 0, PARAM_NORM, PARAM_INIT_ONE},
        {"model.layers.0.self_attn.k_proj.weight", 16, 32, PARAM_MATRIX, PARAM_INIT_NORMAL},
        {"model.layers.0.self_attn.k_norm.weight", 8, 0, PARAM_NORM, PARAM_INIT_ONE},
        {"model.layers.0.self_attn.r_proj.weight", 32, 32, PARAM_MATRIX, PARAM_INIT_NORMAL},
        {"model.layers.0.self_attn.r_norm.weight", 8, 0, PARAM_NORM, PARAM_INIT_ZERO},
        {"model.layers.0.self_attn.r_gate.weight", 4, 32, PARAM_THIN, PARAM_INIT_NORMAL},
        {"model.layers.0.self_attn.v_proj.weight", 16, 32, PARAM_MATRIX, PARAM_INIT_NORMAL},
        {"model.layers.0.self_attn.o_proj.weight", 32, 32, PARAM_MATRIX, PARAM_INIT_NORMAL},
        {"model.layers.0.post_attention_layernorm.weight", 32, 0, PARAM_NORM, PARAM_INIT_ONE},
        {"model.layers.0.mlp.gate_proj.weight", 40, 32, PARAM_MATRIX, PARAM_INIT_NORMAL},
        {"model.layers.0.mlp.up_proj.weight", 40, 32, PARAM_MATRIX, PARAM_INIT_NORMAL},
        {"model.layers.0.mlp.down_proj.weight", 32, 40, PARAM_MATRIX, PARAM_INIT_NORMAL},
        {"model.norm.weight", 32, 0, PARAM_NORM, PARAM_INIT_ONE},
    };
    check_rows(&config, rows, sizeof rows / sizeof rows[0]);
}

static void test_fla_names(void **state)
{
    (void)state;
    struct model_config config = case_config(1, "parallax");
    config.family = FAMILY_FLA;
    config.tie_embeddings = config.qk_norm = config.probe_norm = false;
    config.probe_start = PROBE_START_ZERO_WEIGHT;
    const struct row rows[] = {
        {"model.embeddings.weight", 61, 32, PARAM_EMBEDDING, PARAM_INIT_NORMAL},
        {"model.layers.0.attn_norm.weight", 32, 0, PARAM_NORM, PARAM_INIT_ONE},
        {"model.layers.0.attn.q_proj.weight", 32, 32, PARAM_MATRIX, PARAM_INIT_NORMAL},
        {"model.layers.0.attn.k_proj.weight", 16, 32, PARAM_MATRIX, PARAM_INIT_NORMAL},
        {"model.layers.0.attn.r_proj.weight", 32, 32, PARAM_MATRIX, PARAM_INIT_ZERO},
        {"model.layers.0.attn.v_proj.weight", 16, 32, PARAM_MATRIX, PARAM_INIT_NORMAL},
        {"model.layers.0.attn.o_proj.weight", 32, 32, PARAM_MATRIX, PARAM_INIT_NORMAL},
        {"model.layers.0.mlp_norm.weight", 32, 0, PARAM_NORM, PARAM_INIT_ONE},
        {"model.layers.0.mlp.gate_proj.weight", 40, 32, PARAM_MATRIX, PARAM_INIT_NORMAL},
        {"model.layers.0.mlp.up_proj.weight", 40, 32, PARAM_MATRIX, PARAM_INIT_NORMAL},
        {"model.layers.0.mlp.down_proj.weight", 32, 40, PARAM_MATRIX, PARAM_INIT_NORMAL},
        {"model.norm.weight", 32, 0, PARAM_NORM, PARAM_INIT_ONE},
        {"lm_head.weight", 61, 32, PARAM_HEAD, PARAM_INIT_NORMAL},
    };
    check_rows(&config, rows, sizeof rows / sizeof rows[0]);
}

/* Counts of the published sizes: Qwen-3 0.6B, and W_R with its norm on top. */
static void test_published_counts(void **state)
{
    (void)state;
    struct model_config config = model_config_default();
    config.vocab_size = 151936;
    config.hidden_size = 1024;
    config.intermediate_size = 3072;
    config.layers = 28;
    config.heads = 16;
    config.kv_heads = 8;
    config.head_dim = 128;
    config.max_position = 40960;
    const struct precision precision = {.storage = PLX_F32, .activation = PLX_F32};
    const int64_t counts[2] = {596049920, 596049920 + 58720256 + 28 * 128};
    for (int i = 0; i < 2; i++) {
        struct param_list params = {0};
        int64_t outside = config.vocab_size * config.hidden_size + config.hidden_size;
        for (int l = 0; l < config.layers; l++) {
            struct mixer_kind const *kind = mixer_at(i);
            struct mixer *mixer = kind->create(kind, &config, l, "p", precision, &params);
            assert_non_null(mixer);
            kind->destroy(mixer);
            outside += 2 * config.hidden_size + 3 * config.hidden_size * config.intermediate_size;
        }
        assert_int_equal(param_list_elements(&params) + outside, counts[i]);
        param_list_destroy(&params);
    }
}

static void test_mixer_table(void **state)
{
    (void)state;
    assert_string_equal(mixer_at(0)->name, "softmax");
    assert_string_equal(mixer_at(1)->name, "parallax");
    assert_null(mixer_at(2));
    assert_null(mixer_at(-1));
    assert_null(mixer_find("Parallax"));
    for (int i = 0; mixer_at(i) != NULL; i++)
        assert_ptr_equal(mixer_find(mixer_at(i)->name), mixer_at(i));
}

int main(void)
{
    enum { COUNT = sizeof refusals / sizeof refusals[0], OTHERS = 7 };
    struct CMUnitTest tests[COUNT + OTHERS] = {
        cmocka_unit_test(test_refused_by_create), cmocka_unit_test(test_accepts),
        cmocka_unit_test(test_defaults),          cmocka_unit_test(test_names),
        cmocka_unit_test(test_fla_names),         cmocka_unit_test(test_published_counts),
        cmocka_unit_test(test_mixer_table),
    };
    for (int i = 0; i < COUNT; i++)
        tests[OTHERS + i] = (struct CMUnitTest){.name = refusals[i].name,
                                                .test_func = test_refusal,
                                                .initial_state = (void *)&refusals[i]};
    return cmocka_run_group_tests_name("model configuration", tests, NULL, NULL);
}
