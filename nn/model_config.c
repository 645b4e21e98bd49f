/* model_config.c: defaults and refusals of a model's configuration.
 *
 * Every way a configuration can be wrong is refused here, before anything is allocated, with a
 * sentence that names the field and both values; code behind this check relies on it and does not
 * look again. */
#include "model_config.h"

#include <math.h>
#include <stddef.h>

#include "mixers/mixer.h"

/* Extents fit token ids and oneDNN's 32-bit dimensions; a matrix of 2^48 elements is beyond any
 * machine, and leaves the sum over a model of MODEL_MAX_LAYERS layers, in bytes, below 2^63. */
static const int64_t extent_max = INT32_MAX;
static const int64_t matrix_max = INT64_C(1) << 48;

struct model_config model_config_default(void)
{
    return (struct model_config){.norm_eps = 1e-6,
                                 .qk_norm_eps = 1e-6,
                                 .rope = {.theta = 1e6},
                                 .initializer_range = 0.02,
                                 .tie_embeddings = true,
                                 .qk_norm = true,
                                 .probe_norm = true,
                                 .probe_rope = true,
                                 .probe_start = PROBE_START_NORMAL,
                                 .bos_id = -1};
}

const char *model_family_name(enum model_family family)
{
    static const char *const names[MODEL_FAMILIES] = {
        [FAMILY_QWEN3] = "qwen3",     [FAMILY_QWEN2] = "qwen2",  [FAMILY_LLAMA] = "llama",
        [FAMILY_MISTRAL] = "mistral", [FAMILY_FLA] = "parallax", [FAMILY_OURS] = "qwen3_parallax",
    };
    return names[family];
}

int64_t model_config_end(const struct model_config *config)
{
    return config->end_count > 0 ? config->end_ids[0] : -1;
}

bool model_config_ends(const struct model_config *config, int64_t id)
{
    for (int i = 0; i < config->end_count; i++)
        if (config->end_ids[i] == id) return true;
    return false;
}

const struct tensor_names *model_tensor_names(enum model_family family)
{
    static const struct tensor_names hugging_face = {"model.embed_tokens", "self_attn",
                                                     "input_layernorm", "post_attention_layernorm"};
    static const struct tensor_names fla = {"model.embeddings", "attn", "attn_norm", "mlp_norm"};
    return family == FAMILY_FLA ? &fla : &hugging_face;
}

static plx_status check_extents(const struct model_config *config, const char *where,
                                struct error *err)
{
    const struct {
        const char *name;
        int64_t value, max;
    } fields[] = {
        {"vocab_size", config->vocab_size, extent_max},
        {"hidden_size", config->hidden_size, extent_max},
        {"intermediate_size", config->intermediate_size, extent_max},
        {"num_hidden_layers", config->layers, MODEL_MAX_LAYERS},
        {"num_attention_heads", config->heads, extent_max},
        {"num_key_value_heads", config->kv_heads, extent_max},
        {"head_dim", config->head_dim, 256},
        {"max_position_embeddings", config->max_position, extent_max},
    };
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++)
        REQUIRE(err, fields[i].value >= 1 && fields[i].value <= fields[i].max, PLX_BAD_DATA,
                "%s: %s is %lld but must be from 1 to %lld", where, fields[i].name,
                (long long)fields[i].value, (long long)fields[i].max);
    REQUIRE(err, config->heads % config->kv_heads == 0, PLX_BAD_DATA,
            "%s: num_key_value_heads %lld does not divide num_attention_heads %lld", where,
            (long long)config->kv_heads, (long long)config->heads);
    REQUIRE(err, config->head_dim % 2 == 0, PLX_BAD_DATA,
            "%s: head_dim is %lld but rotary positions need an even number", where,
            (long long)config->head_dim);
    return PLX_OK;
}

/* heads * head_dim itself cannot overflow: at most 2^31 * 2^8. */
static plx_status check_products(const struct model_config *config, const char *where,
                                 struct error *err)
{
    const struct {
        const char *name;
        int64_t value;
    } fields[] = {
        {"vocab_size", config->vocab_size},
        {"intermediate_size", config->intermediate_size},
        {"num_attention_heads * head_dim", config->heads * config->head_dim},
    };
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++)
        REQUIRE(
            err, fields[i].value <= matrix_max / config->hidden_size, PLX_BAD_DATA,
            "%s: %s %lld times hidden_size %lld is more than the %lld elements a matrix may have",
            where, fields[i].name, (long long)fields[i].value, (long long)config->hidden_size,
            (long long)matrix_max);
    return PLX_OK;
}

static plx_status check_numbers(const struct model_config *config, const char *where,
                                struct error *err)
{
    const struct {
        const char *name;
        double value;
        bool zero_allowed;
    } fields[] = {
        {"rms_norm_eps", config->norm_eps, false},
        {"qk_norm_eps", config->qk_norm_eps, false},
        {"rope_theta", config->rope.theta, false},
        {"initializer_range", config->initializer_range, true},
    };
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++)
        REQUIRE(err,
                isfinite(fields[i].value) &&
                    (fields[i].value > 0 || (fields[i].zero_allowed && fields[i].value == 0)),
                PLX_BAD_DATA, "%s: %s is %g but must be %s and finite", where, fields[i].name,
                fields[i].value, fields[i].zero_allowed ? "at least 0" : "above 0");
    return PLX_OK;
}

static plx_status check_ids(const struct model_config *config, const char *where, struct error *err)
{
    const long long V = config->vocab_size;
    REQUIRE(err, config->bos_id >= -1 && config->bos_id < V, PLX_BAD_DATA,
            "%s: bos_token_id is %lld but must be below vocab_size %lld, or -1 for none", where,
            (long long)config->bos_id, V);
    REQUIRE(err, config->end_count >= 0 && config->end_count <= MODEL_MAX_ENDS, PLX_BAD_DATA,
            "%s: eos_token_id lists %d tokens but at most %d are supported", where,
            config->end_count, MODEL_MAX_ENDS);
    for (int i = 0; i < config->end_count; i++)
        REQUIRE(err, config->end_ids[i] >= 0 && config->end_ids[i] < V, PLX_BAD_DATA,
                "%s: eos_token_id is %lld but must be from 0 to below vocab_size %lld", where,
                (long long)config->end_ids[i], V);
    return PLX_OK;
}

/* Positions stretched as Llama-3 does, if at all. */
static plx_status check_rope(const struct model_config *config, const char *where,
                             struct error *err)
{
    const struct rope *rope = &config->rope;
    if (rope->factor == 0) return PLX_OK;
    REQUIRE(err, isfinite(rope->factor) && rope->factor >= 1, PLX_BAD_DATA,
            "%s: the factor of rope is %g but must be at least 1 and finite", where, rope->factor);
    REQUIRE(err,
            rope->low_freq_factor > 0 && rope->low_freq_factor < rope->high_freq_factor &&
                isfinite(rope->high_freq_factor),
            PLX_BAD_DATA,
            "%s: rope's low_freq_factor is %g and its high_freq_factor %g, but they must be above "
            "0 and the second larger",
            where, rope->low_freq_factor, rope->high_freq_factor);
    REQUIRE(err, isfinite(rope->original_positions) && rope->original_positions >= 1, PLX_BAD_DATA,
            "%s: rope's original_max_position_embeddings is %g but must be at least 1 and finite",
            where, rope->original_positions);
    return PLX_OK;
}

static plx_status check_layers(const struct model_config *config, const char *where,
                               struct error *err)
{
    for (int l = 0; l < config->layers; l++) {
        const struct layer_config *layer = &config->layer[l];
        REQUIRE(err, layer->mixer != NULL, PLX_BAD_DATA, "%s: layer %d has no mixer", where, l);
        REQUIRE(err, layer->window >= 0, PLX_BAD_DATA,
                "%s: the window of layer %d is %lld but must be at least 0 (0: no window)", where,
                l, (long long)layer->window);
        REQUIRE(
            err,
            layer->mixer->mechanism != PLX_PARALLAX || config->probe_norm ||
                config->probe_start != PROBE_START_ZERO_GAIN,
            PLX_BAD_DATA,
            "%s: probe_start zero-gain needs probe_norm, because it sets the gain of that norm to "
            "zero (layer %d is %s)",
            where, l, layer->mixer->name);
    }
    return PLX_OK;
}

/* An adapter of as many ranks as its weight has rows or columns would be no smaller than it. */
static plx_status check_lora(const struct model_config *config, const char *where,
                             struct error *err)
{
    const struct lora *lora = &config->lora;
    const int64_t E = config->hidden_size, F = config->intermediate_size,
                  queries = config->heads * config->head_dim,
                  keys = config->kv_heads * config->head_dim;
    const int64_t widths[LORA_TARGETS] = {queries, keys, keys, queries, queries, F, F, F};
    if (lora->rank == 0) return PLX_OK;
    REQUIRE(err, isfinite(lora->alpha) && lora->alpha > 0, PLX_BAD_DATA,
            "%s: the alpha of lora is %g but must be above 0 and finite", where, lora->alpha);
    REQUIRE(err, lora->targets != 0 && (lora->targets & ~LORA_ALL) == 0, PLX_BAD_DATA,
            "%s: lora targets no projection", where);
    for (int i = 0; i < LORA_TARGETS; i++) {
        const int64_t most = widths[i] < E ? widths[i] : E;
        REQUIRE(err, !(lora->targets & 1u << i) || (lora->rank >= 1 && lora->rank < most),
                PLX_BAD_DATA,
                "%s: the rank of lora is %lld but must be from 1 to below the %lld of %s", where,
                (long long)lora->rank, (long long)most, lora_target(i));
    }
    return PLX_OK;
}

plx_status model_config_check(const struct model_config *config, const char *where,
                              struct error *err)
{
    TRY(check_extents(config, where, err));
    TRY(check_products(config, where, err));
    TRY(check_numbers(config, where, err));
    TRY(check_ids(config, where, err));
    TRY(check_rope(config, where, err));
    TRY(check_lora(config, where, err));
    REQUIRE(err,
            config->probe_start == PROBE_START_NORMAL ||
                config->probe_start == PROBE_START_ZERO_GAIN ||
                config->probe_start == PROBE_START_ZERO_WEIGHT,
            PLX_BAD_DATA, "%s: probe_start is %d but must be one of %d, %d, %d", where,
            (int)config->probe_start, PROBE_START_NORMAL, PROBE_START_ZERO_GAIN,
            PROBE_START_ZERO_WEIGHT);
    return check_layers(config, where, err);
}
