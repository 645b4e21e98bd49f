/* test_model_config.c: config.json in its layouts: every refusal by name, defaults, both
 * golden files, and round trips that give the same struct. */
#include "io_files.h"

#include <jansson.h>

#include "io/model_file.h"
#include "mixers/mixer.h"

static const char *const qwen3 =
    "{\"model_type\":\"qwen3\",\"vocab_size\":384,\"hidden_size\":64,\"intermediate_size\":160,"
    "\"num_hidden_layers\":3,\"num_attention_heads\":4,\"num_key_value_heads\":2,\"head_dim\":32,"
    "\"rope_theta\":1000000.0,\"rms_norm_eps\":1e-6,\"tie_word_embeddings\":true}";
static const char *const fla =
    "{\"model_type\":\"parallax\",\"vocab_size\":384,\"hidden_size\":128,\"num_hidden_layers\":3,"
    "\"num_heads\":4,\"num_kv_heads\":2,\"qk_norm\":true,\"norm_eps\":1e-6,\"window_size\":null,"
    "\"hidden_ratio\":4,\"intermediate_size\":null,\"attnres_block_size\":null}";
static const char *const ours =
    "{\"model_type\":\"qwen3_parallax\",\"vocab_size\":384,\"hidden_size\":64,\"intermediate_"
    "size\":160,"
    "\"num_hidden_layers\":3,\"num_attention_heads\":4,\"num_key_value_heads\":2,\"head_dim\":32,"
    "\"mixer_types\":[\"softmax\",\"parallax\",\"parallax\"]}";

static const char *const qwen2 =
    "{\"model_type\":\"qwen2\",\"vocab_size\":384,\"hidden_size\":64,\"intermediate_size\":160,"
    "\"num_hidden_layers\":3,\"num_attention_heads\":4,\"num_key_value_heads\":2,"
    "\"rope_theta\":1000000.0,\"rms_norm_eps\":1e-6,\"use_sliding_window\":false,"
    "\"sliding_window\":4096,\"max_window_layers\":1}";
static const char *const llama =
    "{\"model_type\":\"llama\",\"vocab_size\":384,\"hidden_size\":64,\"intermediate_size\":160,"
    "\"num_hidden_layers\":3,\"num_attention_heads\":4,\"num_key_value_heads\":2,"
    "\"rope_theta\":500000.0,\"rms_norm_eps\":1e-5,\"bos_token_id\":300,"
    "\"eos_token_id\":[301,308,309]}";
static const char *const mistral =
    "{\"model_type\":\"mistral\",\"vocab_size\":384,\"hidden_size\":64,\"intermediate_size\":160,"
    "\"num_hidden_layers\":3,\"num_attention_heads\":8,\"rms_norm_eps\":1e-5}";

/* The base with one member set to the JSON value, or removed where it is NULL. Malloc'd. */
static char *with(const char *base, const char *key, const char *value)
{
    json_t *root = json_loads(base, 0, NULL);
    assert_non_null(root);
    if (value == NULL)
        assert_int_equal(json_object_del(root, key), 0);
    else {
        json_t *member = json_loads(value, JSON_DECODE_ANY, NULL);
        assert_non_null(member);
        assert_int_equal(json_object_set_new(root, key, member), 0);
    }
    char *text = json_dumps(root, 0);
    json_decref(root);
    return text;
}

static void expect_config(const char *json, struct model_config *config)
{
    struct error err = {0};
    assert_ok(model_config_parse(json, strlen(json), "config.json", config, &err), &err);
}

static void expect_refusal(const char *json, plx_status status, const char *says)
{
    struct error err = {0};
    struct model_config config;
    plx_status found = model_config_parse(json, strlen(json), "config.json", &config, &err);
    assert_non_null(strstr(err.text, "config.json"));
    assert_refused(found, status, says, &err);
}

/* ---- Refusals -------------------------------------------------------------------------------- */

struct refusal {
    const char *name;
    const char *const *base;
    const char *key, *value;
    plx_status status;
    const char *says;
};

static const struct refusal refusals[] = {
    {"model_type missing", &qwen3, "model_type", NULL, PLX_BAD_DATA, "model_type is missing"},
    {"model_type a number", &qwen3, "model_type", "3", PLX_BAD_DATA,
     "model_type is 3 but must be a text"},
    {"model_type unknown", &qwen3, "model_type", "\"gpt2\"", PLX_UNSUPPORTED,
     "model_type is \"gpt2\", but only \"qwen3\", \"qwen2\", \"llama\", \"mistral\", \"parallax\" "
     "and "
     "\"qwen3_parallax\" are known"},
    {"vocab_size missing", &qwen3, "vocab_size", NULL, PLX_BAD_DATA, "vocab_size is missing"},
    {"hidden_size missing", &qwen3, "hidden_size", NULL, PLX_BAD_DATA, "hidden_size is missing"},
    {"hidden_size null", &qwen3, "hidden_size", "null", PLX_BAD_DATA, "hidden_size is missing"},
    {"intermediate_size missing", &qwen3, "intermediate_size", NULL, PLX_BAD_DATA,
     "intermediate_size is missing"},
    {"num_hidden_layers missing", &ours, "num_hidden_layers", NULL, PLX_BAD_DATA,
     "num_hidden_layers is missing"},
    {"num_attention_heads missing", &qwen3, "num_attention_heads", NULL, PLX_BAD_DATA,
     "num_attention_heads is missing"},
    {"num_heads missing", &fla, "num_heads", NULL, PLX_BAD_DATA, "num_heads is missing"},
    {"hidden_size a text", &qwen3, "hidden_size", "\"64\"", PLX_BAD_DATA,
     "hidden_size is \"64\" but must be a whole number from 1 to 2147483647"},
    {"hidden_size a fraction", &qwen3, "hidden_size", "64.5", PLX_BAD_DATA, "hidden_size is 64.5"},
    {"hidden_size zero", &qwen3, "hidden_size", "0", PLX_BAD_DATA, "hidden_size is 0"},
    {"hidden_size negative", &qwen3, "hidden_size", "-64", PLX_BAD_DATA, "hidden_size is -64"},
    {"hidden_size too large", &qwen3, "hidden_size", "2147483648", PLX_BAD_DATA,
     "hidden_size is 2147483648"},
    {"hidden_size an array", &qwen3, "hidden_size", "[64]", PLX_BAD_DATA, "hidden_size is [64]"},
    {"heads zero", &qwen3, "num_attention_heads", "0", PLX_BAD_DATA, "num_attention_heads is 0"},
    {"too many layers", &qwen3, "num_hidden_layers", "257", PLX_UNSUPPORTED,
     "num_hidden_layers is 257, more than the 256 supported"},
    {"kv heads do not divide", &qwen3, "num_key_value_heads", "3", PLX_BAD_DATA,
     "num_key_value_heads 3 does not divide num_attention_heads 4"},
    {"head_dim odd", &qwen3, "head_dim", "31", PLX_BAD_DATA, "head_dim is 31"},
    {"head_dim too large", &qwen3, "head_dim", "258", PLX_BAD_DATA, "head_dim is 258"},
    {"head_dim not derivable", &fla, "num_heads", "3", PLX_BAD_DATA,
     "3 heads do not divide hidden_size 128"},
    {"norm eps a text", &qwen3, "rms_norm_eps", "\"small\"", PLX_BAD_DATA,
     "rms_norm_eps is \"small\" but must be a number"},
    {"norm eps negative", &qwen3, "rms_norm_eps", "-1e-6", PLX_BAD_DATA, "rms_norm_eps is -1e-06"},
    {"norm_eps of fla negative", &fla, "norm_eps", "-1", PLX_BAD_DATA, "-1"},
    {"rope_theta a bool", &qwen3, "rope_theta", "true", PLX_BAD_DATA, "rope_theta is true"},
    {"rope_theta zero", &qwen3, "rope_theta", "0", PLX_BAD_DATA, "rope_theta is 0"},
    {"rope_parameters a number", &qwen3, "rope_parameters", "5", PLX_BAD_DATA,
     "rope_parameters is 5 but must be an object"},
    {"rope type yarn", &qwen3, "rope_parameters", "{\"rope_type\":\"yarn\",\"factor\":4}",
     PLX_UNSUPPORTED, "rope_type is \"yarn\", but only \"default\" and \"llama3\" are supported"},
    {"rope_scaling linear", &qwen3, "rope_scaling", "{\"type\":\"linear\",\"factor\":2}",
     PLX_UNSUPPORTED, "rope_scaling: type is \"linear\""},
    {"rope type a number", &qwen3, "rope_parameters", "{\"rope_type\":1}", PLX_BAD_DATA,
     "rope_type is 1"},
    {"two thetas", &qwen3, "rope_parameters", "{\"rope_theta\":10000.0}", PLX_BAD_DATA,
     "rope_theta is 10000 here, but 1e+06 elsewhere"},
    {"rope by layer type", &qwen3, "rope_parameters", "{\"full_attention\":{\"rope_theta\":1}}",
     PLX_BAD_DATA, "full_attention is {"},
    {"partial rotary", &qwen3, "partial_rotary_factor", "0.5", PLX_UNSUPPORTED,
     "partial_rotary_factor is 0.5"},
    {"partial rotary inside", &qwen3, "rope_parameters", "{\"partial_rotary_factor\":0.25}",
     PLX_UNSUPPORTED, "partial_rotary_factor is 0.25"},
    {"attention_bias", &qwen3, "attention_bias", "true", PLX_UNSUPPORTED, "attention_bias is true"},
    {"attention_bias a number", &qwen3, "attention_bias", "1", PLX_BAD_DATA,
     "attention_bias is 1 but must be true or false"},
    {"mlp_bias", &llama, "mlp_bias", "true", PLX_UNSUPPORTED, "mlp_bias is true"},
    {"qkv_bias a number", &fla, "qkv_bias", "1", PLX_BAD_DATA, "qkv_bias is 1"},
    {"llama3 rope without factor", &llama, "rope_scaling",
     "{\"rope_type\":\"llama3\",\"low_freq_factor\":1,\"high_freq_factor\":4,"
     "\"original_max_position_embeddings\":64}",
     PLX_BAD_DATA, "rope_scaling: factor is missing"},
    {"llama3 rope of factor 0", &llama, "rope_scaling",
     "{\"rope_type\":\"llama3\",\"factor\":0,\"low_freq_factor\":1,\"high_freq_factor\":4,"
     "\"original_max_position_embeddings\":64}",
     PLX_BAD_DATA, "factor is 0 but must be at least 1"},
    {"llama3 rope with bands in disorder", &llama, "rope_scaling",
     "{\"type\":\"llama3\",\"factor\":8,\"low_freq_factor\":4,\"high_freq_factor\":1,"
     "\"original_max_position_embeddings\":64}",
     PLX_BAD_DATA, "low_freq_factor is 4 and its high_freq_factor 1"},
    {"llama3 factor a text", &llama, "rope_scaling",
     "{\"type\":\"llama3\",\"factor\":\"8\",\"low_freq_factor\":1,\"high_freq_factor\":4,"
     "\"original_max_position_embeddings\":64}",
     PLX_BAD_DATA, "factor is \"8\" but must be a number"},
    {"llama3 rope in fla", &fla, "rope_scaling",
     "{\"type\":\"llama3\",\"factor\":8,\"low_freq_factor\":1,\"high_freq_factor\":4,"
     "\"original_max_position_embeddings\":64}",
     PLX_UNSUPPORTED, "rope is stretched, which flash-linear-attention's layer does not do"},
    {"mistral by layer types", &mistral, "layer_types", "[\"full_attention\"]", PLX_UNSUPPORTED,
     "the layers of a mistral model are all alike"},
    {"mistral window zero", &mistral, "sliding_window", "0", PLX_BAD_DATA, "sliding_window is 0"},
    {"mixer_types in llama", &llama, "mixer_types", "[\"softmax\"]", PLX_BAD_DATA,
     "but model_type is \"llama\""},
    {"hidden_act gelu", &qwen3, "hidden_act", "\"gelu\"", PLX_BAD_DATA,
     "hidden_act is \"gelu\" but must be \"silu\" or \"swish\""},
    {"hidden_act a number", &qwen3, "hidden_act", "1", PLX_BAD_DATA,
     "hidden_act is 1 but must be a text"},
    {"attnres", &fla, "attnres_block_size", "4", PLX_BAD_DATA,
     "attnres_block_size is 4 but must be null"},
    {"quantised", &qwen3, "quantization_config", "{\"bits\":4}", PLX_BAD_DATA,
     "quantization_config is {"},
    {"window without use", &qwen3, "layer_types",
     "[\"full_attention\",\"sliding_attention\",\"full_attention\"]", PLX_BAD_DATA,
     "layer_types names layer 1 sliding_attention, but use_sliding_window is false"},
    {"use without window", &qwen3, "use_sliding_window", "true", PLX_BAD_DATA,
     "use_sliding_window is true, but sliding_window is null"},
    {"sliding_window negative", &qwen3, "sliding_window", "-1", PLX_BAD_DATA,
     "sliding_window is -1"},
    {"layer_types too short", &qwen3, "layer_types", "[\"full_attention\"]", PLX_BAD_DATA,
     "layer_types has 1 elements, but num_hidden_layers is 3"},
    {"layer_types unknown", &qwen3, "layer_types",
     "[\"full_attention\",\"full_attention\",\"chunked_attention\"]", PLX_BAD_DATA,
     "layer_types is \"chunked_attention\" but must be"},
    {"layer_types no array", &qwen3, "layer_types", "\"full_attention\"", PLX_BAD_DATA,
     "must be an array"},
    {"layer_types of numbers", &qwen3, "layer_types", "[1,2,3]", PLX_BAD_DATA, "layer_types is 1"},
    {"max_window_layers negative", &qwen3, "max_window_layers", "-1", PLX_BAD_DATA,
     "max_window_layers is -1"},
    {"window_size of fla", &fla, "window_size", "0", PLX_BAD_DATA, "window_size is 0"},
    {"hidden_ratio", &fla, "hidden_ratio", "-4", PLX_BAD_DATA, "hidden_ratio is -4"},
    {"hidden_ratio a text", &fla, "hidden_ratio", "\"4\"", PLX_BAD_DATA, "hidden_ratio is \"4\""},
    {"mixer_types in qwen3", &qwen3, "mixer_types", "[\"softmax\",\"softmax\",\"softmax\"]",
     PLX_BAD_DATA, "belongs to model_type \"qwen3_parallax\""},
    {"mixer_types missing", &ours, "mixer_types", NULL, PLX_BAD_DATA, "mixer_types is missing"},
    {"mixer_types too long", &ours, "mixer_types",
     "[\"softmax\",\"softmax\",\"softmax\",\"softmax\"]", PLX_BAD_DATA,
     "mixer_types has 4 elements, but num_hidden_layers is 3"},
    {"mixer unknown", &ours, "mixer_types", "[\"softmax\",\"mamba\",\"softmax\"]", PLX_BAD_DATA,
     "mixer_types is \"mamba\" but must be made of \"softmax\", \"parallax\""},
    {"mixer a number", &ours, "mixer_types", "[\"softmax\",2,\"softmax\"]", PLX_BAD_DATA,
     "mixer_types is 2"},
    {"probe_start unknown", &ours, "probe_start", "\"zero\"", PLX_BAD_DATA,
     "probe_start is \"zero\" but must be \"normal\", \"zero-gain\" or \"zero-weight\""},
    {"lora no object", &ours, "lora", "8", PLX_BAD_DATA, "lora is 8 but must be an object or null"},
    {"lora without rank", &ours, "lora", "{\"alpha\":1,\"targets\":[\"q_proj\"]}", PLX_BAD_DATA,
     "rank is missing"},
    {"lora of rank zero", &ours, "lora", "{\"rank\":0,\"alpha\":1,\"targets\":[\"q_proj\"]}",
     PLX_BAD_DATA, "rank is 0"},
    {"lora of full rank", &ours, "lora", "{\"rank\":64,\"alpha\":1,\"targets\":[\"q_proj\"]}",
     PLX_BAD_DATA, "the rank of lora is 64 but must be from 1 to below the 64 of q_proj"},
    {"lora without alpha", &ours, "lora", "{\"rank\":2,\"targets\":[\"q_proj\"]}", PLX_BAD_DATA,
     "alpha is missing"},
    {"lora alpha negative", &ours, "lora", "{\"rank\":2,\"alpha\":-1,\"targets\":[\"q_proj\"]}",
     PLX_BAD_DATA, "the alpha of lora is -1"},
    {"lora without targets", &ours, "lora", "{\"rank\":2,\"alpha\":1}", PLX_BAD_DATA,
     "targets is missing"},
    {"lora of no target", &ours, "lora", "{\"rank\":2,\"alpha\":1,\"targets\":[]}", PLX_BAD_DATA,
     "lora targets no projection"},
    {"lora targets a text", &ours, "lora", "{\"rank\":2,\"alpha\":1,\"targets\":\"q_proj\"}",
     PLX_BAD_DATA, "targets is \"q_proj\" but must be an array"},
    {"lora target unknown", &ours, "lora", "{\"rank\":2,\"alpha\":1,\"targets\":[\"lm_head\"]}",
     PLX_BAD_DATA, "targets is \"lm_head\" but must be made of names of projections"},
    {"lora in qwen3", &qwen3, "lora", "{\"rank\":2,\"alpha\":1,\"targets\":[\"q_proj\"]}",
     PLX_BAD_DATA, "lora belongs to model_type \"qwen3_parallax\""},
    {"probe_norm a text", &ours, "probe_norm", "\"yes\"", PLX_BAD_DATA, "probe_norm is \"yes\""},
    {"qk_norm_eps zero", &ours, "qk_norm_eps", "0", PLX_BAD_DATA, "qk_norm_eps is 0"},
    {"layer_windows too short", &ours, "layer_windows", "[1]", PLX_BAD_DATA,
     "layer_windows has 1 elements"},
    {"layer_windows negative", &ours, "layer_windows", "[0,-1,0]", PLX_BAD_DATA,
     "layer_windows is -1"},
    {"eos_token_id of texts", &qwen3, "eos_token_id", "[1,\"2\"]", PLX_BAD_DATA,
     "eos_token_id is \"2\" but must be made of whole numbers"},
    {"eos_token_id negative in a list", &qwen3, "eos_token_id", "[1,-1]", PLX_BAD_DATA,
     "eos_token_id is -1"},
    {"eos_token_id too long a list", &qwen3, "eos_token_id", "[1,2,3,4,5,6,7,8,9]", PLX_UNSUPPORTED,
     "eos_token_id lists 9 tokens, more than the 8 supported"},
    {"eos_token_id outside", &qwen3, "eos_token_id", "384", PLX_BAD_DATA, "eos_token_id is 384"},
    {"tie_word_embeddings a number", &qwen3, "tie_word_embeddings", "0", PLX_BAD_DATA,
     "tie_word_embeddings is 0"},
};

static void member_is_refused(void **state)
{
    const struct refusal *refusal = *state;
    char *json = with(*refusal->base, refusal->key, refusal->value);
    expect_refusal(json, refusal->status, refusal->says);
    free(json);
}

static void malformed_documents_are_refused(void **state)
{
    (void)state;
    expect_refusal("", PLX_BAD_DATA, "config.json: line 1, column 0");
    expect_refusal("{", PLX_BAD_DATA, "config.json: line 1");
    expect_refusal("[]", PLX_BAD_DATA, "is not a JSON object");
    expect_refusal("{} x", PLX_BAD_DATA, "end of file expected");
    expect_refusal("{\"a\":1,\"a\":2}", PLX_BAD_DATA, "duplicate");
    expect_refusal("{\"a\":\"\xff\"}", PLX_BAD_DATA, "unable to decode byte 0xff");
    expect_refusal("{\"model_type\":\"\\u001b[31m\"}", PLX_UNSUPPORTED, "\"?[31m\"");
    char *nested = malloc(100001);
    memset(nested, '[', 100000);
    memcpy(nested, "{\"a\":", 5);
    nested[100000] = '\0';
    expect_refusal(nested, PLX_BAD_DATA, "depth");
    free(nested);
}

static void long_values_are_cut_in_messages(void **state)
{
    (void)state;
    char value[400] = "\"";
    memset(value + 1, 'x', 300);
    strcpy(value + 301, "\"");
    char *json = with(qwen3, "hidden_size", value);
    expect_refusal(json, PLX_BAD_DATA, "xxx... but must be a whole number from 1 to 2147483647");
    free(json);
}

/* ---- What is read ---------------------------------------------------------------------------- */

static void qwen3_defaults(void **state)
{
    (void)state;
    struct model_config config;
    const char *least =
        "{\"model_type\":\"qwen3\",\"vocab_size\":10,\"hidden_size\":64,"
        "\"intermediate_size\":16,\"num_hidden_layers\":1,\"num_attention_heads\":4}";
    expect_config(least, &config);
    assert_int_equal(config.kv_heads, 4);
    assert_int_equal(config.head_dim, 16);
    assert_int_equal(config.max_position, 32768);
    assert_true(config.rope.theta == 10000 && config.norm_eps == 1e-6 &&
                config.qk_norm_eps == 1e-6);
    assert_true(config.initializer_range == 0.02);
    assert_false(config.tie_embeddings);
    assert_true(config.qk_norm);
    assert_int_equal(config.family, FAMILY_QWEN3);
    assert_int_equal(config.bos_id, -1);
    assert_int_equal(model_config_end(&config), -1);
    assert_ptr_equal(config.layer[0].mixer, mixer_find("softmax"));
    assert_int_equal(config.layer[0].window, 0);
}

static void both_rope_spellings(void **state)
{
    (void)state;
    struct model_config config;
    char *nested = with(qwen3, "rope_theta", NULL), *both;
    char *json =
        with(nested, "rope_parameters", "{\"rope_theta\":5000.0,\"rope_type\":\"default\"}");
    expect_config(json, &config);
    assert_true(config.rope.theta == 5000);
    expect_config(qwen3, &config);
    assert_true(config.rope.theta == 1e6);
    both = with(qwen3, "rope_parameters", "{\"rope_theta\":1000000,\"rope_type\":\"default\"}");
    expect_config(both, &config);
    assert_true(config.rope.theta == 1e6);
    free(nested);
    free(json);
    free(both);
    json = with(qwen3, "rope_scaling", "null");
    expect_config(json, &config);
    free(json);
}

static void windows_of_qwen3(void **state)
{
    (void)state;
    struct model_config config;
    char *use = with(qwen3, "use_sliding_window", "true");
    char *window = with(use, "sliding_window", "7");
    char *first = with(window, "max_window_layers", "1");
    expect_config(first, &config);
    assert_int_equal(config.layer[0].window, 0);
    assert_int_equal(config.layer[1].window, 7);
    assert_int_equal(config.layer[2].window, 7);
    char *types =
        with(first, "layer_types", "[\"sliding_attention\",\"full_attention\",\"full_attention\"]");
    expect_config(types, &config);
    assert_int_equal(config.layer[0].window, 7);
    assert_int_equal(config.layer[2].window, 0);
    /* A width that is not in use says nothing. */
    char *unused = with(qwen3, "sliding_window", "4096");
    expect_config(unused, &config);
    assert_int_equal(config.layer[2].window, 0);
    free(use);
    free(window);
    free(first);
    free(types);
    free(unused);
}

static void fla_is_understood(void **state)
{
    (void)state;
    struct model_config config;
    expect_config(fla, &config);
    assert_true(config.family == FAMILY_FLA && config.qk_norm && config.probe_norm &&
                config.probe_rope);
    assert_false(config.probe_gate);
    assert_int_equal(config.head_dim, 32);
    assert_int_equal(config.intermediate_size, 512); /* 128 * 4 * 2/3 = 341, up to 256s */
    assert_true(config.norm_eps == 1e-6 && config.qk_norm_eps == 1e-5);
    assert_int_equal(config.max_position, 2048);
    assert_ptr_equal(config.layer[2].mixer, mixer_find("parallax"));
    char *plain = with(fla, "qk_norm", NULL);
    expect_config(plain, &config);
    assert_false(config.qk_norm || config.probe_norm);
    char *window = with(fla, "window_size", "9");
    expect_config(window, &config);
    assert_int_equal(config.layer[1].window, 9);
    char *heads = with(fla, "num_kv_heads", "null");
    expect_config(heads, &config);
    assert_int_equal(config.kv_heads, 4);
    free(plain);
    free(window);
    free(heads);
}

static void llama_is_understood(void **state)
{
    (void)state;
    struct model_config config;
    expect_config(llama, &config);
    assert_int_equal(config.family, FAMILY_LLAMA);
    assert_false(config.qk_norm || config.qkv_bias);
    assert_int_equal(config.head_dim, 16);
    assert_int_equal(config.max_position, 2048);
    assert_true(config.norm_eps == 1e-5 && config.rope.theta == 5e5 && config.rope.factor == 0);
    assert_int_equal(config.end_count, 3);
    assert_int_equal(model_config_end(&config), 301);
    assert_true(model_config_ends(&config, 309));
    assert_false(model_config_ends(&config, 300));
}

static void llama3_rope_in_both_spellings(void **state)
{
    (void)state;
    static const char *const scaling =
        "{\"rope_type\":\"llama3\",\"factor\":8.0,\"low_freq_factor\":1.0,\"high_freq_factor\":4.0,"
        "\"original_max_position_embeddings\":8192}";
    struct model_config old, new;
    char *json = with(llama, "rope_scaling", scaling), *nested, *parameters;
    expect_config(json, &old);
    assert_true(old.rope.factor == 8 && old.rope.low_freq_factor == 1);
    assert_true(old.rope.high_freq_factor == 4 && old.rope.original_positions == 8192);
    parameters = with(scaling, "rope_theta", "500000.0");
    nested = with(llama, "rope_theta", NULL);
    char *newer = with(nested, "rope_parameters", parameters);
    expect_config(newer, &new);
    assert_memory_equal(&old.rope, &new.rope, sizeof old.rope);
    /* Both at once must agree. */
    char *both = with(json, "rope_parameters", parameters);
    expect_config(both, &new);
    char *other = with(parameters, "factor", "32"), *apart = with(json, "rope_parameters", other);
    expect_refusal(apart, PLX_BAD_DATA, "rope_scaling: factor is 8 here, but 32 elsewhere");
    free(json);
    free(parameters);
    free(nested);
    free(newer);
    free(both);
    free(other);
    free(apart);
}

static void qwen2_and_mistral_are_understood(void **state)
{
    (void)state;
    struct model_config config;
    expect_config(qwen2, &config);
    assert_true(config.qkv_bias && !config.qk_norm);
    assert_int_equal(config.layer[2].window, 0);
    char *use = with(qwen2, "use_sliding_window", "true");
    expect_config(use, &config);
    assert_int_equal(config.layer[0].window, 0);
    assert_int_equal(config.layer[1].window, 4096);
    free(use);
    /* Mistral's own defaults: 8 key/value heads, a window of 4096; null is no window. */
    expect_config(mistral, &config);
    assert_false(config.qkv_bias || config.qk_norm);
    assert_int_equal(config.kv_heads, 8);
    assert_int_equal(config.max_position, 131072);
    for (int l = 0; l < 3; l++) assert_int_equal(config.layer[l].window, 4096);
    char *unlimited = with(mistral, "sliding_window", "null");
    expect_config(unlimited, &config);
    assert_int_equal(config.layer[1].window, 0);
    free(unlimited);
}

/* ---- Round trips ----------------------------------------------------------------------------- */

/* Field by field, because padding may differ. */
static void assert_same_config(const struct model_config *a, const struct model_config *b)
{
    assert_int_equal(a->vocab_size, b->vocab_size);
    assert_int_equal(a->hidden_size, b->hidden_size);
    assert_int_equal(a->intermediate_size, b->intermediate_size);
    assert_int_equal(a->layers, b->layers);
    assert_int_equal(a->heads, b->heads);
    assert_int_equal(a->kv_heads, b->kv_heads);
    assert_int_equal(a->head_dim, b->head_dim);
    assert_int_equal(a->max_position, b->max_position);
    assert_true(a->norm_eps == b->norm_eps);
    assert_true(a->qk_norm_eps == b->qk_norm_eps);
    assert_true(a->rope.theta == b->rope.theta && a->rope.factor == b->rope.factor);
    if (a->rope.factor != 0)
        assert_true(a->rope.low_freq_factor == b->rope.low_freq_factor &&
                    a->rope.high_freq_factor == b->rope.high_freq_factor &&
                    a->rope.original_positions == b->rope.original_positions);
    assert_true(a->initializer_range == b->initializer_range);
    assert_int_equal(a->tie_embeddings, b->tie_embeddings);
    assert_int_equal(a->qk_norm, b->qk_norm);
    assert_int_equal(a->family == FAMILY_FLA, b->family == FAMILY_FLA);
    assert_int_equal(a->qkv_bias, b->qkv_bias);
    assert_int_equal(a->probe_norm, b->probe_norm);
    assert_int_equal(a->probe_rope, b->probe_rope);
    assert_int_equal(a->probe_gate, b->probe_gate);
    assert_int_equal(a->probe_start, b->probe_start);
    assert_int_equal(a->lora.rank, b->lora.rank);
    assert_true(a->lora.alpha == b->lora.alpha && a->lora.targets == b->lora.targets);
    assert_int_equal(a->bos_id, b->bos_id);
    assert_int_equal(a->end_count, b->end_count);
    for (int i = 0; i < a->end_count; i++) assert_int_equal(a->end_ids[i], b->end_ids[i]);
    for (int l = 0; l < a->layers; l++) {
        assert_ptr_equal(a->layer[l].mixer, b->layer[l].mixer);
        assert_int_equal(a->layer[l].window, b->layer[l].window);
    }
}

/* Writes, checks the model_type, reads, compares. */
static void round_trip(const struct model_config *config, const char *model_type)
{
    struct error err = {0};
    struct model_config back;
    char *json, says[64];
    assert_ok(model_config_format(config, &json, &err), &err);
    snprintf(says, sizeof says, "\"model_type\": \"%s\"", model_type);
    if (strstr(json, says) == NULL) print_error("expected %s in %s\n", says, json);
    assert_non_null(strstr(json, says));
    expect_config(json, &back);
    assert_same_config(config, &back);
    free(json);
}

static void what_is_written_reads_back(void **state)
{
    (void)state;
    struct model_config config;
    expect_config(qwen3, &config);
    round_trip(&config, "qwen3");
    config.layer[1].window = 5;
    round_trip(&config, "qwen3");
    config.layer[2].window = 6;
    round_trip(&config, "qwen3_parallax");
    config.layer[2].window = 5;
    config.norm_eps = config.qk_norm_eps = 1.0 / 3.0;
    config.rope.theta = 12345.678901234567;
    config.bos_id = 3;
    config.end_count = 1;
    config.end_ids[0] = 0;
    round_trip(&config, "qwen3");
    config.qk_norm_eps = 1e-5;
    round_trip(&config, "qwen3_parallax");
    config.qk_norm_eps = config.norm_eps;
    config.qk_norm = false;
    round_trip(&config, "qwen3_parallax");

    expect_config(fla, &config);
    round_trip(&config, "parallax");
    for (int l = 0; l < 3; l++) config.layer[l].window = 8;
    round_trip(&config, "parallax");
    config.end_count = 2;
    config.end_ids[0] = 5;
    config.end_ids[1] = 2;
    round_trip(&config, "parallax");

    expect_config(qwen2, &config);
    round_trip(&config, "qwen2");
    config.qk_norm = true;
    round_trip(&config, "qwen3_parallax");
    expect_config(llama, &config);
    round_trip(&config, "llama");
    config.rope = (struct rope){500000, 8, 1, 4, 8192};
    round_trip(&config, "llama");
    config.rope.factor = 1.0 / 0.3;
    config.end_count = 1;
    round_trip(&config, "llama");
    for (int l = 0; l < 3; l++) config.layer[l].window = 7;
    round_trip(&config, "mistral");
    config.layer[1].window = 0;
    round_trip(&config, "qwen3_parallax");
    expect_config(mistral, &config);
    round_trip(&config, "mistral");
    for (int l = 0; l < 3; l++) config.layer[l].window = 0;
    round_trip(&config, "mistral");
    for (int l = 0; l < 3; l++) config.layer[l].mixer = mixer_find("parallax");
    config.qkv_bias = true;
    round_trip(&config, "qwen3_parallax");

    expect_config(ours, &config);
    round_trip(&config, "qwen3_parallax");
    for (int bits = 0; bits < 16; bits++) {
        config.qk_norm = bits & 1;
        config.probe_rope = bits & 2;
        config.probe_gate = bits & 4;
        config.tie_embeddings = bits & 8;
        for (int start = 0; start < 3; start++) {
            config.probe_start = (enum probe_start)start;
            config.probe_norm = start == PROBE_START_ZERO_GAIN || (bits & 1) == 0;
            round_trip(&config, "qwen3_parallax");
        }
    }
    expect_config(llama, &config);
    config.lora = (struct lora){.rank = 3, .alpha = 0.1, .targets = LORA_ALL & ~5u};
    round_trip(&config, "qwen3_parallax");
}

static void numbers_are_written_short(void **state)
{
    (void)state;
    struct error err = {0};
    struct model_config config;
    char *json;
    expect_config(qwen3, &config);
    assert_ok(model_config_format(&config, &json, &err), &err);
    assert_non_null(strstr(json, "\"initializer_range\": 0.02,"));
    free(json);
}

static void what_cannot_be_written_is_refused(void **state)
{
    (void)state;
    struct error err = {0};
    struct model_config config;
    char *json;
    expect_config(fla, &config);
    config.probe_gate = true;
    assert_refused(model_config_format(&config, &json, &err), PLX_UNSUPPORTED, "probe_gate is off",
                   &err);
    expect_config(fla, &config);
    config.layer[1].mixer = mixer_find("softmax");
    assert_refused(model_config_format(&config, &json, &err), PLX_UNSUPPORTED,
                   "every mixer is parallax", &err);
    expect_config(fla, &config);
    config.lora = (struct lora){.rank = 3, .alpha = 1, .targets = LORA_ALL};
    assert_refused(model_config_format(&config, &json, &err), PLX_UNSUPPORTED,
                   "model_type \"parallax\" needs that no projection has an adapter", &err);
    expect_config(fla, &config);
    config.rope = (struct rope){500000, 8, 1, 4, 8192};
    assert_refused(model_config_format(&config, &json, &err), PLX_UNSUPPORTED,
                   "model_type \"parallax\" needs that positions are not stretched", &err);
    expect_config(llama, &config);
    assert_refused(model_config_can_be(&config, FAMILY_QWEN3, &err), PLX_UNSUPPORTED,
                   "model_type \"qwen3\" needs that qk_norm is on", &err);
    assert_refused(model_config_can_be(&config, FAMILY_QWEN2, &err), PLX_UNSUPPORTED,
                   "model_type \"qwen2\" needs that qkv_bias is on", &err);
    expect_config(qwen3, &config);
    config.hidden_size = 0;
    assert_refused(model_config_format(&config, &json, &err), PLX_BAD_DATA, "hidden_size is 0",
                   &err);
}

/* ---- Golden files ---------------------------------------------------------------------------- */

static void golden_configs_load(void **state)
{
    (void)state;
    struct error err = {0};
    struct model_config config;
    if (!file_is_folder(SHARED_DATA "/golden")) {
        print_message("skipped: shared data absent\n");
        skip();
    }
    assert_ok(model_config_load(SHARED_DATA "/golden/qwen3_tiny_tied/config.json", &config, &err),
              &err);
    assert_true(config.rope.theta == 1e6 && config.tie_embeddings && config.head_dim == 32);
    assert_true(config.initializer_range == 0.2 && config.max_position == 512);
    round_trip(&config, "qwen3");
    assert_ok(model_config_load(SHARED_DATA "/golden/parallax_tiny_qknorm_gqa/config.json", &config,
                                &err),
              &err);
    assert_true(config.intermediate_size == 256 && config.bos_id == 1 &&
                model_config_end(&config) == 2);
    assert_true(config.rope.theta == 1e4 && !config.tie_embeddings && config.family == FAMILY_FLA);
    round_trip(&config, "parallax");
}

int main(void)
{
    static const struct CMUnitTest fixed[] = {
        cmocka_unit_test(malformed_documents_are_refused),
        cmocka_unit_test(long_values_are_cut_in_messages),
        cmocka_unit_test(qwen3_defaults),
        cmocka_unit_test(both_rope_spellings),
        cmocka_unit_test(windows_of_qwen3),
        cmocka_unit_test(fla_is_understood),
        cmocka_unit_test(llama_is_understood),
        cmocka_unit_test(llama3_rope_in_both_spellings),
        cmocka_unit_test(qwen2_and_mistral_are_understood),
        cmocka_unit_test(what_is_written_reads_back),
        cmocka_unit_test(numbers_are_written_short),
        cmocka_unit_test(what_cannot_be_written_is_refused),
        cmocka_unit_test(golden_configs_load),
    };
    enum { FIXED = sizeof fixed / sizeof *fixed, TABLE = sizeof refusals / sizeof *refusals };
    struct CMUnitTest tests[FIXED + TABLE];
    memcpy(tests, fixed, sizeof fixed);
    for (int i = 0; i < TABLE; i++)
        tests[FIXED + i] = (struct CMUnitTest){refusals[i].name, member_is_refused, NULL, NULL,
                                               (void *)&refusals[i]};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
