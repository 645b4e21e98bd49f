/* config_write.c: struct model_config to config.json.
 *
 * A model is written in the layout of its family where that can say it, otherwise in the first
 * that can; ours can say everything. What is written reads back as the same struct: numbers are
 * printed with the fewest digits that do. */
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "io/config_rows.h"
#include "io/fields.h"
#include "io/model_file.h"
#include "mixers/mixer.h"

/* How the windows of the layers can be said. */
struct windows {
    int64_t width; /* the one width of those that slide; 0: none slides */
    bool uniform;  /* all that slide have the same width */
    bool all;      /* every layer has the same window (or none) */
};

static struct windows summarise_windows(const struct model_config *config)
{
    struct windows windows = {.uniform = true, .all = true};
    for (int l = 0; l < config->layers; l++) {
        int64_t window = config->layer[l].window;
        if (window != config->layer[0].window) windows.all = false;
        if (window == 0) continue;
        if (windows.width == 0) windows.width = window;
        if (window != windows.width) windows.uniform = false;
    }
    return windows;
}

static bool every_mixer_is(const struct model_config *config, const char *name)
{
    for (int l = 0; l < config->layers; l++)
        if (strcmp(config->layer[l].mixer->name, name) != 0) return false;
    return true;
}

enum {
    QWEN3 = 1 << FAMILY_QWEN3,
    QWEN2 = 1 << FAMILY_QWEN2,
    LLAMA = 1 << FAMILY_LLAMA,
    MISTRAL = 1 << FAMILY_MISTRAL,
    FLA = 1 << FAMILY_FLA,
    SOFTMAX = QWEN3 | QWEN2 | LLAMA | MISTRAL
};

/* What a family's layout has no way to say otherwise; NULL where it can say the model. */
static const char *unmet_demand(const struct model_config *config, enum model_family family)
{
    const struct windows windows = summarise_windows(config);
    const struct {
        unsigned families;
        bool holds;
        const char *what;
    } demands[] = {
        {SOFTMAX, every_mixer_is(config, "softmax"), "every mixer is softmax"},
        {FLA, every_mixer_is(config, "parallax"), "every mixer is parallax"},
        {QWEN3, config->qk_norm, "qk_norm is on"},
        {QWEN2 | LLAMA | MISTRAL, !config->qk_norm, "qk_norm is off"},
        {QWEN3, config->qk_norm_eps == config->norm_eps, "qk_norm_eps equals rms_norm_eps"},
        {QWEN2, config->qkv_bias, "qkv_bias is on"},
        {QWEN3 | LLAMA | MISTRAL, !config->qkv_bias, "qkv_bias is off"},
        {QWEN3 | QWEN2, windows.uniform, "all layers that slide have the same window"},
        {LLAMA, windows.width == 0, "no layer has a window"},
        {MISTRAL | FLA, windows.all, "all layers have the same window"},
        {FLA, config->head_dim * config->heads == config->hidden_size,
         "head_dim times heads equals hidden_size"},
        {FLA, config->probe_norm == config->qk_norm, "probe_norm equals qk_norm"},
        {FLA, config->probe_rope, "probe_rope is on"},
        {FLA, !config->probe_gate, "probe_gate is off"},
        {FLA, !config->qk_norm || config->qk_norm_eps == config_fla_qk_norm_eps,
         "qk_norm_eps is 1e-5"},
        {FLA, config->rope.factor == 0, "positions are not stretched"},
        {SOFTMAX | FLA, config->lora.rank == 0, "no projection has an adapter"},
    };
    for (size_t i = 0; i < sizeof demands / sizeof *demands; i++)
        if (demands[i].families & 1u << family && !demands[i].holds) return demands[i].what;
    return NULL;
}

plx_status model_config_can_be(const struct model_config *config, enum model_family family,
                               struct error *err)
{
    const char *unmet = unmet_demand(config, family);
    REQUIRE(err, unmet == NULL, PLX_UNSUPPORTED,
            "config.json: the layout of model_type \"%s\" needs that %s", model_family_name(family),
            unmet);
    return PLX_OK;
}

/* Its names of tensors bind a model to flash-linear-attention's layout, and keep others from it. */
enum model_family model_config_family(const struct model_config *config)
{
    enum model_family family = config->family;
    if (family == FAMILY_FLA || unmet_demand(config, family) == NULL) return family;
    for (family = 0; family < FAMILY_OURS; family++)
        if (family != FAMILY_FLA && unmet_demand(config, family) == NULL) return family;
    return FAMILY_OURS;
}

/* ---- Building the object --------------------------------------------------------------------- */

/* The object being made; failed says that memory ran out somewhere, so that it is not complete. */
struct building {
    json_t *root;
    bool failed;
};

/* Takes over value, which may be NULL where making it failed. */
static void put(struct building *building, const char *key, json_t *value)
{
    if (json_object_set_new(building->root, key, value) != 0) building->failed = true;
}

static void append(struct building *building, json_t *array, json_t *value)
{
    if (json_array_append_new(array, value) != 0) building->failed = true;
}

static void set_row(struct building *building, const struct config_row *row,
                    const struct model_config *config)
{
    const void *member = (const char *)config + row->offset;
    json_t *value = NULL;
    switch (row->kind) {
    case ROW_EXTENT:
        value = json_integer(*(const int64_t *)member);
        break;
    case ROW_REAL:
        value = json_real(*(const double *)member);
        break;
    case ROW_BOOL:
        value = json_boolean(*(const bool *)member);
        break;
    case ROW_ID:
        value = *(const int64_t *)member < 0 ? json_null() : json_integer(*(const int64_t *)member);
        break;
    }
    put(building, row->key, value);
}

static json_t *rope_object(struct building *building, const struct rope *rope)
{
    json_t *object = json_pack("{s:f, s:s}", "rope_theta", rope->theta, "rope_type",
                               rope->factor > 0 ? "llama3" : "default");
    if (object == NULL) building->failed = true;
    for (int i = 0; rope->factor > 0 && i < rope_row_count; i++) {
        double value = *(const double *)((const char *)rope + rope_rows[i].offset);
        bool whole = value == floor(value) && fabs(value) < 1e15;
        json_t *number = whole ? json_integer((json_int_t)value) : json_real(value);
        if (json_object_set_new(object, rope_rows[i].key, number) != 0) building->failed = true;
    }
    return object;
}

/* Both spellings of rope: the older readers know rope_scaling beside rope_theta, the newer
 * rope_parameters. */
static void set_rope(struct building *building, const struct model_config *config)
{
    put(building, "rope_parameters", rope_object(building, &config->rope));
    if (config->rope.factor > 0)
        put(building, "rope_scaling", rope_object(building, &config->rope));
}

static void set_ends(struct building *building, const struct model_config *config)
{
    json_t *ends = config->end_count == 0 ? json_null() : json_integer(config->end_ids[0]);
    if (config->end_count > 1) {
        json_decref(ends);
        ends = json_array();
        for (int i = 0; i < config->end_count; i++)
            append(building, ends, json_integer(config->end_ids[i]));
    }
    put(building, "eos_token_id", ends);
}

static void set_windows(struct building *building, const struct model_config *config)
{
    struct windows windows = summarise_windows(config);
    json_t *array = json_array();
    for (int l = 0; l < config->layers; l++) {
        int64_t window = config->layer[l].window;
        const char *type = window > 0 ? "sliding_attention" : "full_attention";
        append(building, array, windows.uniform ? json_string(type) : json_integer(window));
    }
    bool slides = windows.uniform && windows.width > 0;
    put(building, "use_sliding_window", json_boolean(slides));
    put(building, "sliding_window", slides ? json_integer(windows.width) : json_null());
    put(building, windows.uniform ? "layer_types" : "layer_windows", array);
}

/* What all layouts of transformers share. */
static void set_llama(struct building *building, const struct model_config *config)
{
    put(building, "hidden_act", json_string("silu"));
    put(building, "attention_bias", json_false());
    put(building, "attention_dropout", json_real(0));
    set_rope(building, config);
}

static void set_qwen(struct building *building, const struct model_config *config)
{
    set_llama(building, config);
    set_windows(building, config);
}

static void set_mistral(struct building *building, const struct model_config *config)
{
    int64_t window = config->layer[0].window;
    set_llama(building, config);
    put(building, "sliding_window", window > 0 ? json_integer(window) : json_null());
}

static void set_fla(struct building *building, const struct model_config *config)
{
    int64_t window = config->layer[0].window;
    put(building, "hidden_act", json_string("swish"));
    put(building, "window_size", window > 0 ? json_integer(window) : json_null());
    put(building, "attnres_block_size", json_null());
}

static void set_lora(struct building *building, const struct lora *lora)
{
    json_t *targets = json_array();
    for (int i = 0; i < LORA_TARGETS; i++)
        if (lora->targets & 1u << i) append(building, targets, json_string(lora_target(i)));
    put(building, "lora",
        json_pack("{s:I, s:f, s:o}", "rank", (json_int_t)lora->rank, "alpha", lora->alpha,
                  "targets", targets));
}

static void set_ours(struct building *building, const struct model_config *config)
{
    set_qwen(building, config);
    json_t *mixers = json_array();
    for (int l = 0; l < config->layers; l++)
        append(building, mixers, json_string(config->layer[l].mixer->name));
    put(building, "mixer_types", mixers);
    put(building, "probe_start", json_string(config_probe_starts[config->probe_start]));
    if (config->lora.rank > 0) set_lora(building, &config->lora);
}

static const struct {
    const char *architecture;
    void (*set)(struct building *building, const struct model_config *config);
} layouts[MODEL_FAMILIES] = {
    [FAMILY_QWEN3] = {"Qwen3ForCausalLM", set_qwen},
    [FAMILY_QWEN2] = {"Qwen2ForCausalLM", set_qwen},
    [FAMILY_LLAMA] = {"LlamaForCausalLM", set_llama},
    [FAMILY_MISTRAL] = {"MistralForCausalLM", set_mistral},
    [FAMILY_FLA] = {"ParallaxForCausalLM", set_fla},
    [FAMILY_OURS] = {"Qwen3ParallaxForCausalLM", set_ours},
};

plx_status model_config_format(const struct model_config *config, char **json, struct error *err)
{
    *json = NULL;
    TRY(model_config_check(config, "config.json", err));
    enum model_family family = model_config_family(config);
    TRY(model_config_can_be(config, family, err));
    struct building building = {.root = json_object()};
    put(&building, "architectures", json_pack("[s]", layouts[family].architecture));
    put(&building, "model_type", json_string(model_family_name(family)));
    for (int i = 0; i < config_row_count; i++)
        if (config_rows[i].families & 1u << family) set_row(&building, &config_rows[i], config);
    set_ends(&building, config);
    layouts[family].set(&building, config);
    char *text = building.failed ? NULL : fields_format(building.root, 2);
    json_decref(building.root);
    REQUIRE(err, text != NULL, PLX_OUT_OF_MEMORY, "config.json: out of memory");
    *json = text;
    return PLX_OK;
}
