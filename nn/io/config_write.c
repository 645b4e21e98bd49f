/* config_write.c: struct model_config to config.json.
 *
 * A model that Hugging Face's Qwen3 can express is written as one, a model read in
 * flash-linear-attention's layout is written back in it, and everything else is qwen3_parallax.
 * What is written reads back as the same struct: numbers are printed with the fewest digits that
 * do. */
#include <jansson.h>
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

/* flash-linear-attention's layer has no way to say any of these otherwise. */
static plx_status check_fla(const struct model_config *config, struct error *err)
{
    const struct {
        bool holds;
        const char *what;
    } demands[] = {
        {config->head_dim * config->heads == config->hidden_size,
         "head_dim times heads equals hidden_size"},
        {every_mixer_is(config, "parallax"), "every mixer is parallax"},
        {summarise_windows(config).all, "all layers have the same window"},
        {config->probe_norm == config->qk_norm, "probe_norm equals qk_norm"},
        {config->probe_rope, "probe_rope is on"},
        {!config->probe_gate, "probe_gate is off"},
        {config->qk_norm_eps == config_fla_qk_norm_eps, "qk_norm_eps is 1e-5"},
    };
    for (size_t i = 0; i < sizeof demands / sizeof *demands; i++)
        REQUIRE(err, demands[i].holds, PLX_UNSUPPORTED,
                "config.json: flash-linear-attention's layout needs that %s", demands[i].what);
    return PLX_OK;
}

static enum config_type choose_type(const struct model_config *config)
{
    if (config->fla_names) return CONFIG_FLA;
    bool plain = every_mixer_is(config, "softmax") && config->qk_norm &&
                 config->qk_norm_eps == config->norm_eps && summarise_windows(config).uniform;
    return plain ? CONFIG_QWEN3 : CONFIG_OURS;
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

/* Both spellings of rope: the older readers know the first, the newer the second. */
static void set_rope(struct building *building, const struct model_config *config)
{
    put(building, "rope_parameters",
        json_pack("{s:f, s:s}", "rope_theta", config->rope_theta, "rope_type", "default"));
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

static void set_qwen3(struct building *building, const struct model_config *config)
{
    put(building, "hidden_act", json_string("silu"));
    put(building, "attention_bias", json_false());
    put(building, "attention_dropout", json_real(0));
    set_rope(building, config);
    set_windows(building, config);
}

static void set_fla(struct building *building, const struct model_config *config)
{
    int64_t window = config->layer[0].window;
    put(building, "hidden_act", json_string("swish"));
    put(building, "qkv_bias", json_false());
    put(building, "window_size", window > 0 ? json_integer(window) : json_null());
    put(building, "attnres_block_size", json_null());
}

static void set_ours(struct building *building, const struct model_config *config)
{
    set_qwen3(building, config);
    json_t *mixers = json_array();
    for (int l = 0; l < config->layers; l++)
        append(building, mixers, json_string(config->layer[l].mixer->name));
    put(building, "mixer_types", mixers);
    put(building, "probe_start", json_string(config_probe_starts[config->probe_start]));
}

static const struct {
    const char *architecture;
    void (*set)(struct building *building, const struct model_config *config);
} layouts[CONFIG_TYPES] = {
    [CONFIG_QWEN3] = {"Qwen3ForCausalLM", set_qwen3},
    [CONFIG_FLA] = {"ParallaxForCausalLM", set_fla},
    [CONFIG_OURS] = {"Qwen3ParallaxForCausalLM", set_ours},
};

plx_status model_config_format(const struct model_config *config, char **json, struct error *err)
{
    *json = NULL;
    TRY(model_config_check(config, "config.json", err));
    enum config_type type = choose_type(config);
    if (type == CONFIG_FLA) TRY(check_fla(config, err));
    struct building building = {.root = json_object()};
    put(&building, "architectures", json_pack("[s]", layouts[type].architecture));
    put(&building, "model_type", json_string(config_type_names[type]));
    for (int i = 0; i < config_row_count; i++)
        if (config_rows[i].types & 1u << type) set_row(&building, &config_rows[i], config);
    layouts[type].set(&building, config);
    char *text = building.failed ? NULL : fields_format(building.root, 2);
    json_decref(building.root);
    REQUIRE(err, text != NULL, PLX_OUT_OF_MEMORY, "config.json: out of memory");
    *json = text;
    return PLX_OK;
}
