/* config_read.c: config.json to struct model_config.
 *
 * A layout a family, told apart by model_type: Hugging Face's qwen3, qwen2, llama and mistral,
 * flash-linear-attention's parallax, and our qwen3_parallax, which is qwen3 plus mixer_types and
 * the probe's options. Members that are absent take the defaults of the code that writes the
 * layout. Whatever would change what the model computes and is not understood here is refused by
 * name; other members are ignored, since Hugging Face writes many that say nothing about the model.
 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/config_rows.h"
#include "io/fields.h"
#include "io/file.h"
#include "io/model_file.h"
#include "mixers/mixer.h"

static plx_status read_row(const struct fields *fields, const struct config_row *row,
                           struct model_config *config)
{
    void *member = (char *)config + row->offset;
    if (row->required) TRY(fields_require(fields, row->key));
    switch (row->kind) {
    case ROW_EXTENT:
        return fields_integer(fields, row->key, 1, INT32_MAX, member);
    case ROW_REAL:
        return fields_real(fields, row->key, member);
    case ROW_BOOL:
        return fields_bool(fields, row->key, member);
    case ROW_ID:
        return fields_integer(fields, row->key, -1, INT32_MAX, member);
    }
    return PLX_OK;
}

/* ---- What this version does not compute ------------------------------------------------------ */

static plx_status refuse_unsupported(const struct fields *fields)
{
    static const struct {
        const char *key, *reason;
    } must_be_false[] = {{"attention_bias", "a bias of the output projection is not supported"},
                         {"mlp_bias", "biases of the MLP are not supported"}};
    for (size_t i = 0; i < sizeof must_be_false / sizeof *must_be_false; i++) {
        bool set = false;
        TRY(fields_bool(fields, must_be_false[i].key, &set));
        REQUIRE(fields->err, !set, PLX_UNSUPPORTED, "%s: %s is true, but %s", fields->where,
                must_be_false[i].key, must_be_false[i].reason);
    }
    static const char *const must_be_null[] = {"attnres_block_size", "quantization_config"};
    for (size_t i = 0; i < sizeof must_be_null / sizeof *must_be_null; i++) {
        const json_t *found = fields_get(fields, must_be_null[i]);
        if (found != NULL)
            return fields_refuse(fields, must_be_null[i], found,
                                 "null, because this version does not support it");
    }
    const char *act = "silu";
    TRY(fields_text(fields, "hidden_act", &act));
    if (strcmp(act, "silu") != 0 && strcmp(act, "swish") != 0)
        return fields_refuse(fields, "hidden_act", fields_get(fields, "hidden_act"),
                             "\"silu\" or \"swish\"");
    return PLX_OK;
}

/* ---- Rope ------------------------------------------------------------------------------------ */

/* rope_type of rope_parameters or rope_scaling; older files call it type. */
static plx_status read_rope_type(const struct fields *rope, const char *key, bool *stretched)
{
    const char *type = *stretched ? "llama3" : "default";
    TRY(fields_text(rope, key, &type));
    *stretched = strcmp(type, "llama3") == 0;
    REQUIRE(rope->err, *stretched || strcmp(type, "default") == 0, PLX_UNSUPPORTED,
            "%s: %s is \"%.40s\", but only \"default\" and \"llama3\" are supported", rope->where,
            key, type);
    return PLX_OK;
}

static plx_status refuse_partial_rotary(const struct fields *fields)
{
    double partial = 1;
    TRY(fields_real(fields, "partial_rotary_factor", &partial));
    REQUIRE(fields->err, partial == 1, PLX_UNSUPPORTED,
            "%s: partial_rotary_factor is %g, but only 1 is supported", fields->where, partial);
    return PLX_OK;
}

/* One number of rope; where another place has said it too, both must agree. */
static plx_status read_rope_number(const struct fields *rope, const char *key, bool known,
                                   double *value)
{
    double found = *value;
    TRY(fields_real(rope, key, &found));
    REQUIRE(rope->err, !known || found == *value, PLX_BAD_DATA,
            "%s: %s is %g here, but %g elsewhere", rope->where, key, found, *value);
    *value = found;
    return PLX_OK;
}

/* What one object says of rope, beyond what is known of theta and the stretching. */
struct rope_known {
    bool theta, stretching;
};

static plx_status read_rope_members(const struct fields *rope, struct rope_known *known,
                                    struct rope *values)
{
    const char *member;
    json_t *value;
    json_object_foreach((json_t *)rope->object, member, value)
    {
        if (json_is_object(value))
            return fields_refuse(rope, member, value, "no object: one rope serves all layers");
    }
    bool stretched = false;
    TRY(read_rope_type(rope, "type", &stretched));
    TRY(read_rope_type(rope, "rope_type", &stretched));
    TRY(refuse_partial_rotary(rope));
    TRY(read_rope_number(rope, "rope_theta", known->theta, &values->theta));
    known->theta = known->theta || fields_get(rope, "rope_theta") != NULL;
    if (!stretched) return PLX_OK;
    for (int i = 0; i < rope_row_count; i++) {
        TRY(fields_require(rope, rope_rows[i].key));
        TRY(read_rope_number(rope, rope_rows[i].key, known->stretching,
                             (double *)((char *)values + rope_rows[i].offset)));
    }
    REQUIRE(rope->err, values->factor != 0, PLX_BAD_DATA, "%s: factor is 0 but must be at least 1",
            rope->where);
    known->stretching = true;
    return PLX_OK;
}

static plx_status read_rope_object(const struct fields *fields, const char *key,
                                   struct rope_known *known, struct rope *values)
{
    const json_t *object = fields_get(fields, key);
    if (object == NULL) return PLX_OK;
    if (!json_is_object(object)) return fields_refuse(fields, key, object, "an object or null");
    char where[256];
    snprintf(where, sizeof where, "%.200s: %s", fields->where, key);
    return read_rope_members(&(struct fields){object, where, fields->err}, known, values);
}

/* Both spellings of rope: newer files have rope_parameters, older ones rope_theta and rope_scaling
 * at the top. */
static plx_status read_rope(const struct fields *fields, struct model_config *config)
{
    struct rope_known known = {.theta = fields_get(fields, "rope_theta") != NULL};
    TRY(read_rope_object(fields, "rope_parameters", &known, &config->rope));
    TRY(read_rope_object(fields, "rope_scaling", &known, &config->rope));
    return refuse_partial_rotary(fields);
}

/* ---- Ends of text ---------------------------------------------------------------------------- */

/* One number, or a list of them; -1 is none. */
static plx_status read_ends(const struct fields *fields, struct model_config *config)
{
    const char *key = "eos_token_id";
    const json_t *found = fields_get(fields, key);
    int64_t id = -1;
    if (!json_is_array(found)) {
        TRY(fields_integer(fields, key, -1, INT32_MAX, &id));
        config->end_count = id >= 0;
        config->end_ids[0] = id;
        return PLX_OK;
    }
    REQUIRE(fields->err, json_array_size(found) <= MODEL_MAX_ENDS, PLX_UNSUPPORTED,
            "%s: eos_token_id lists %zu tokens, more than the %d supported", fields->where,
            json_array_size(found), MODEL_MAX_ENDS);
    for (size_t i = 0; i < json_array_size(found); i++) {
        const json_t *item = json_array_get(found, i);
        if (!json_is_integer(item))
            return fields_refuse(fields, key, item, "made of whole numbers");
        config->end_ids[config->end_count++] = json_integer_value(item);
    }
    return PLX_OK;
}

/* ---- Windows --------------------------------------------------------------------------------- */

/* Member of one element a layer; *array stays NULL where it is absent. */
static plx_status layer_array(const struct fields *fields, const char *key, int64_t layers,
                              const json_t **array)
{
    *array = fields_get(fields, key);
    if (*array == NULL) return PLX_OK;
    if (!json_is_array(*array)) return fields_refuse(fields, key, *array, "an array");
    REQUIRE(fields->err, (int64_t)json_array_size(*array) == layers, PLX_BAD_DATA,
            "%s: %s has %zu elements, but num_hidden_layers is %" PRId64, fields->where, key,
            json_array_size(*array), layers);
    return PLX_OK;
}

/* layer_types, or without it Hugging Face's rule that layers from max_window_layers on slide. */
static plx_status read_layer_types(const struct fields *fields, int64_t window,
                                   struct model_config *config)
{
    int64_t first = 28;
    TRY(fields_integer(fields, "max_window_layers", 0, INT32_MAX, &first));
    const json_t *types;
    TRY(layer_array(fields, "layer_types", config->layers, &types));
    for (int l = 0; l < config->layers; l++) {
        bool slides = window > 0 && l >= first;
        if (types != NULL) {
            const json_t *type = json_array_get(types, (size_t)l);
            const char *name = json_is_string(type) ? json_string_value(type) : "";
            slides = strcmp(name, "sliding_attention") == 0;
            if (!slides && strcmp(name, "full_attention") != 0)
                return fields_refuse(fields, "layer_types", type,
                                     "made of \"full_attention\" and \"sliding_attention\"");
        }
        REQUIRE(fields->err, !slides || window > 0, PLX_BAD_DATA,
                "%s: layer_types names layer %d sliding_attention, but use_sliding_window is false "
                "or sliding_window is null",
                fields->where, l);
        config->layer[l].window = slides ? window : 0;
    }
    return PLX_OK;
}

static plx_status read_windows(const struct fields *fields, struct model_config *config)
{
    bool use = false;
    int64_t window = 0;
    TRY(fields_bool(fields, "use_sliding_window", &use));
    TRY(fields_integer(fields, "sliding_window", 1, INT32_MAX, &window));
    REQUIRE(fields->err, !use || window > 0, PLX_BAD_DATA,
            "%s: use_sliding_window is true, but sliding_window is null", fields->where);
    return read_layer_types(fields, use ? window : 0, config);
}

/* ---- The layouts ----------------------------------------------------------------------------- */

static plx_status set_mixers(const struct fields *fields, const char *name,
                             struct model_config *config)
{
    const struct mixer_kind *kind = mixer_find(name);
    REQUIRE(fields->err, kind != NULL, PLX_UNSUPPORTED, "%s: this build has no mixer %s",
            fields->where, name);
    for (int l = 0; l < config->layers; l++) config->layer[l].mixer = kind;
    return PLX_OK;
}

/* head_dim where the file does not say it. */
static plx_status derive_head_dim(const struct fields *fields, struct model_config *config)
{
    REQUIRE(fields->err, config->hidden_size % config->heads == 0, PLX_BAD_DATA,
            "%s: head_dim is missing, and %" PRId64 " heads do not divide hidden_size %" PRId64,
            fields->where, config->heads, config->hidden_size);
    config->head_dim = config->hidden_size / config->heads;
    return PLX_OK;
}

/* What the plain softmax models of transformers share. */
static plx_status read_softmax(const struct fields *fields, struct model_config *config)
{
    if (config->head_dim == 0) TRY(derive_head_dim(fields, config));
    config->qk_norm_eps = config->norm_eps;
    REQUIRE(fields->err, fields_get(fields, "mixer_types") == NULL, PLX_BAD_DATA,
            "%s: mixer_types belongs to model_type \"qwen3_parallax\", but model_type is \"%s\"",
            fields->where, model_family_name(config->family));
    return set_mixers(fields, "softmax", config);
}

static plx_status read_qwen3(const struct fields *fields, struct model_config *config)
{
    config->qk_norm = true;
    TRY(read_windows(fields, config));
    return read_softmax(fields, config);
}

static plx_status read_qwen2(const struct fields *fields, struct model_config *config)
{
    config->qkv_bias = true;
    TRY(read_windows(fields, config));
    return read_softmax(fields, config);
}

static plx_status read_llama(const struct fields *fields, struct model_config *config)
{
    return read_softmax(fields, config);
}

/* Every layer slides; a width that is absent is 4096, and null means no window. */
static plx_status read_mistral(const struct fields *fields, struct model_config *config)
{
    const json_t *given = json_object_get(fields->object, "sliding_window");
    int64_t window = given == NULL ? 4096 : 0;
    TRY(fields_integer(fields, "sliding_window", 1, INT32_MAX, &window));
    REQUIRE(fields->err, fields_get(fields, "layer_types") == NULL, PLX_UNSUPPORTED,
            "%s: layer_types is given, but the layers of a mistral model are all alike",
            fields->where);
    for (int l = 0; l < config->layers; l++) config->layer[l].window = window;
    return read_softmax(fields, config);
}

/* flash-linear-attention widens the MLP to hidden_ratio * 2/3 of the model, rounded up to 256. */
static plx_status derive_intermediate(const struct fields *fields, struct model_config *config)
{
    double ratio = 4;
    TRY(fields_real(fields, "hidden_ratio", &ratio));
    double width = floor((double)config->hidden_size * ratio * 2 / 3);
    REQUIRE(fields->err, width >= 1 && width <= INT32_MAX - 256, PLX_BAD_DATA,
            "%s: hidden_ratio is %g, which with hidden_size %" PRId64
            " gives the impossible MLP width %g",
            fields->where, ratio, config->hidden_size, width);
    config->intermediate_size = ((int64_t)width + 255) / 256 * 256;
    return PLX_OK;
}

static plx_status read_fla(const struct fields *fields, struct model_config *config)
{
    int64_t window = 0;
    REQUIRE(fields->err, config->rope.factor == 0, PLX_UNSUPPORTED,
            "%s: rope is stretched, which flash-linear-attention's layer does not do",
            fields->where);
    TRY(derive_head_dim(fields, config));
    if (config->intermediate_size == 0) TRY(derive_intermediate(fields, config));
    TRY(fields_integer(fields, "window_size", 1, INT32_MAX, &window));
    for (int l = 0; l < config->layers; l++) config->layer[l].window = window;
    config->qk_norm_eps = config_fla_qk_norm_eps;
    config->probe_norm = config->qk_norm;
    return set_mixers(fields, "parallax", config);
}

static plx_status read_mixer_types(const struct fields *fields, struct model_config *config)
{
    const json_t *types;
    TRY(fields_require(fields, "mixer_types"));
    TRY(layer_array(fields, "mixer_types", config->layers, &types));
    for (int l = 0; l < config->layers; l++) {
        const json_t *type = json_array_get(types, (size_t)l);
        if (json_is_string(type)) config->layer[l].mixer = mixer_find(json_string_value(type));
        if (config->layer[l].mixer != NULL) continue;
        char known[256] = "made of";
        for (int m = 0; mixer_at(m) != NULL; m++) {
            size_t length = strlen(known);
            snprintf(known + length, sizeof known - length, "%s \"%s\"", m > 0 ? "," : "",
                     mixer_at(m)->name);
        }
        return fields_refuse(fields, "mixer_types", type, known);
    }
    return PLX_OK;
}

static plx_status read_probe_start(const struct fields *fields, struct model_config *config)
{
    const char *start = config_probe_starts[PROBE_START_NORMAL];
    TRY(fields_text(fields, "probe_start", &start));
    for (int i = 0; i < 3; i++) {
        if (strcmp(start, config_probe_starts[i]) != 0) continue;
        config->probe_start = (enum probe_start)i;
        return PLX_OK;
    }
    return fields_refuse(fields, "probe_start", fields_get(fields, "probe_start"),
                         "\"normal\", \"zero-gain\" or \"zero-weight\"");
}

/* Windows that differ between layers, which Hugging Face's fields cannot say. */
static plx_status read_layer_windows(const struct fields *fields, struct model_config *config)
{
    const json_t *windows;
    TRY(layer_array(fields, "layer_windows", config->layers, &windows));
    if (windows == NULL) return read_windows(fields, config);
    bool use = false;
    TRY(fields_bool(fields, "use_sliding_window", &use));
    REQUIRE(fields->err, !use, PLX_BAD_DATA,
            "%s: layer_windows is given and use_sliding_window is true; they exclude each other",
            fields->where);
    for (int l = 0; l < config->layers; l++) {
        const json_t *window = json_array_get(windows, (size_t)l);
        if (!json_is_integer(window) || json_integer_value(window) < 0 ||
            json_integer_value(window) > INT32_MAX)
            return fields_refuse(fields, "layer_windows", window,
                                 "made of whole numbers from 0 (no window) to 2147483647");
        config->layer[l].window = json_integer_value(window);
    }
    return PLX_OK;
}

static plx_status read_lora_targets(const struct fields *lora, unsigned *targets)
{
    const json_t *list = fields_get(lora, "targets");
    TRY(fields_require(lora, "targets"));
    if (!json_is_array(list)) return fields_refuse(lora, "targets", list, "an array");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *item = json_array_get(list, i);
        const char *name = json_is_string(item) ? json_string_value(item) : "";
        unsigned bit = lora_target_bit(name, strlen(name));
        if (bit == 0) return fields_refuse(lora, "targets", item, "made of names of projections");
        *targets |= bit;
    }
    return PLX_OK;
}

static plx_status read_lora(const struct fields *fields, struct lora *values)
{
    const json_t *object = fields_get(fields, "lora");
    char where[256];
    if (object == NULL) return PLX_OK;
    if (!json_is_object(object)) return fields_refuse(fields, "lora", object, "an object or null");
    snprintf(where, sizeof where, "%.200s: lora", fields->where);
    const struct fields lora = {object, where, fields->err};
    TRY(fields_require(&lora, "rank"));
    TRY(fields_integer(&lora, "rank", 1, INT32_MAX, &values->rank));
    TRY(fields_require(&lora, "alpha"));
    TRY(fields_real(&lora, "alpha", &values->alpha));
    return read_lora_targets(&lora, &values->targets);
}

static plx_status read_ours(const struct fields *fields, struct model_config *config)
{
    if (config->head_dim == 0) TRY(derive_head_dim(fields, config));
    if (fields_get(fields, "qk_norm_eps") == NULL) config->qk_norm_eps = config->norm_eps;
    TRY(read_layer_windows(fields, config));
    TRY(read_probe_start(fields, config));
    TRY(read_lora(fields, &config->lora));
    return read_mixer_types(fields, config);
}

static const struct {
    plx_status (*read)(const struct fields *fields, struct model_config *config);
    int64_t max_position, kv_heads; /* where the file does not say; 0: as many as query heads */
} layouts[MODEL_FAMILIES] = {
    [FAMILY_QWEN3] = {read_qwen3, 32768, 0}, [FAMILY_QWEN2] = {read_qwen2, 32768, 0},
    [FAMILY_LLAMA] = {read_llama, 2048, 0},  [FAMILY_MISTRAL] = {read_mistral, 131072, 8},
    [FAMILY_FLA] = {read_fla, 2048, 0},      [FAMILY_OURS] = {read_ours, 32768, 0},
};

static plx_status find_family(const struct fields *fields, enum model_family *family)
{
    const char *name = NULL;
    TRY(fields_require(fields, "model_type"));
    TRY(fields_text(fields, "model_type", &name));
    for (*family = 0; *family < MODEL_FAMILIES; (*family)++)
        if (strcmp(model_family_name(*family), name) == 0) return PLX_OK;
    char known[256] = "";
    for (int f = 0; f < MODEL_FAMILIES; f++) {
        size_t length = strlen(known);
        snprintf(known + length, sizeof known - length, "%s\"%s\"",
                 f == 0                    ? ""
                 : f + 1 == MODEL_FAMILIES ? " and "
                                           : ", ",
                 model_family_name((enum model_family)f));
    }
    return error_set(fields->err, PLX_UNSUPPORTED,
                     "%s: model_type is \"%.60s\", but only %s are known", fields->where, name,
                     known);
}

static plx_status read_config(const struct fields *fields, struct model_config *config)
{
    enum model_family family;
    TRY(find_family(fields, &family));
    *config = model_config_default();
    config->family = family;
    config->tie_embeddings = false;
    config->rope.theta = 10000;
    config->qk_norm = family == FAMILY_OURS;
    config->max_position = layouts[family].max_position;
    config->kv_heads =
        fields_get(fields, "num_key_value_heads") == NULL ? layouts[family].kv_heads : 0;
    for (int i = 0; i < config_row_count; i++)
        if (config_rows[i].families & 1u << family) TRY(read_row(fields, &config_rows[i], config));
    REQUIRE(fields->err, config->layers <= MODEL_MAX_LAYERS, PLX_UNSUPPORTED,
            "%s: num_hidden_layers is %" PRId64 ", more than the %d supported", fields->where,
            config->layers, MODEL_MAX_LAYERS);
    if (config->kv_heads == 0) config->kv_heads = config->heads;
    TRY(refuse_unsupported(fields));
    REQUIRE(fields->err, family == FAMILY_OURS || fields_get(fields, "lora") == NULL, PLX_BAD_DATA,
            "%s: lora belongs to model_type \"qwen3_parallax\", but model_type is \"%s\"",
            fields->where, model_family_name(family));
    TRY(read_rope(fields, config));
    TRY(read_ends(fields, config));
    TRY(layouts[family].read(fields, config));
    return model_config_check(config, fields->where, fields->err);
}

plx_status model_config_parse(const char *json, size_t size, const char *name,
                              struct model_config *config, struct error *err)
{
    json_t *root;
    TRY(fields_parse(json, size, name, &root, err));
    struct fields fields = {root, name, err};
    plx_status status = read_config(&fields, config);
    json_decref(root);
    return status;
}

plx_status model_config_load(const char *path, struct model_config *config, struct error *err)
{
    char *text;
    size_t size;
    TRY(file_read_all(path, (size_t)16 << 20, &text, &size, err));
    plx_status status = model_config_parse(text, size, path, config, err);
    free(text);
    return status;
}
