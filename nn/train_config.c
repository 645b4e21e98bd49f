/* train_config.c: from a run's options to the configurations of its parts: model, optimiser,
 * schedule, backend. Every mistake is a sentence that begins with the flag and names what was given
 * and what is allowed. Called by train_session.c and by `parallax bench step`. */
#include "train.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "computing.h"
#include "mixers/mixer.h"

/* A word of an option and the enum value it stands for. */
struct word {
    const char *name;
    int value;
};

static plx_status word_find(const struct word *words, int count, const char *flag, const char *name,
                            int *value, struct error *err)
{
    char known[256] = "";
    for (int i = 0; i < count; i++) {
        if (strcmp(words[i].name, name) == 0) {
            *value = words[i].value;
            return PLX_OK;
        }
        strncat(known, i ? ", " : "", sizeof known - strlen(known) - 1);
        strncat(known, words[i].name, sizeof known - strlen(known) - 1);
    }
    return error_set(err, PLX_INVALID_ARGUMENT, "%s: \"%s\" is none of %s", flag, name, known);
}

#define WORD_COUNT(words) ((int)(sizeof(words) / sizeof((words)[0])))

static double given_or(double value, double fallback)
{
    return isnan(value) ? fallback : value;
}

/* The index-th entry of a comma list, repeated from its start as often as needed. */
static void list_entry(const char *list, int index, char *entry, size_t size)
{
    int count = 1;
    for (const char *c = list; *c; c++) count += *c == ',';
    const char *start = list;
    for (int skip = index % count; skip > 0; skip--) start = strchr(start, ',') + 1;
    size_t length = strcspn(start, ",");
    if (length >= size) length = size - 1;
    memcpy(entry, start, length);
    entry[length] = 0;
}

static plx_status set_layer(const struct train_options *options, int index,
                            struct layer_config *layer, struct error *err)
{
    char entry[64];
    list_entry(options->mixer, index, entry, sizeof entry);
    layer->mixer = mixer_find(entry);
    if (!layer->mixer) {
        char known[256] = "";
        const struct mixer_kind *kind;
        for (int i = 0; (kind = mixer_at(i)); i++) {
            strncat(known, i ? ", " : "", sizeof known - strlen(known) - 1);
            strncat(known, kind->name, sizeof known - strlen(known) - 1);
        }
        return error_set(err, PLX_INVALID_ARGUMENT, "--mixer: \"%s\" is none of %s", entry, known);
    }
    list_entry(options->window, index, entry, sizeof entry);
    char *end;
    layer->window = strtoll(entry, &end, 10);
    REQUIRE(err, end != entry && *end == 0 && layer->window >= 0, PLX_INVALID_ARGUMENT,
            "--window: \"%s\" is not a number of keys (0 or more)", entry);
    return PLX_OK;
}

/* ---- Which weights ---- */

struct part {
    bool all, probe, adapters;
};

static plx_status find_part(const struct train_options *options, struct part *part,
                            struct error *err)
{
    static const struct part parts[] = {
        {.all = true}, {.probe = true}, {.adapters = true}, {.probe = true, .adapters = true}};
    static const struct word words[] = {{"all", 0}, {"probe", 1}, {"lora", 2}, {"lora+probe", 3}};
    int index;
    TRY(word_find(words, WORD_COUNT(words), "--train", options->train, &index, err));
    *part = parts[index];
    return PLX_OK;
}

static plx_status refuse_adapters(const struct train_options *options, struct error *err)
{
    const char *given = options->lora_rank > 0          ? "--lora-rank"
                        : !isnan(options->lora_alpha)   ? "--lora-alpha"
                        : options->lora_targets[0] != 0 ? "--lora-targets"
                                                        : NULL;
    REQUIRE(err, given == NULL, PLX_INVALID_ARGUMENT,
            "%s: belongs to --train lora, but --train is %s", given, options->train);
    return PLX_OK;
}

plx_status train_lora_config(const struct train_options *options, struct lora *lora,
                             struct error *err)
{
    const unsigned probe = lora_target_bit("r_proj", strlen("r_proj"));
    struct part part;
    *lora = (struct lora){0};
    TRY(find_part(options, &part, err));
    if (!part.adapters) return refuse_adapters(options, err);
    REQUIRE(err, options->from[0] != 0, PLX_INVALID_ARGUMENT,
            "--train: %s adapts a model, but --from names none", options->train);
    lora->rank = options->lora_rank > 0 ? options->lora_rank : 8;
    lora->alpha = given_or(options->lora_alpha, 2 * (double)lora->rank);
    lora->targets = part.probe ? LORA_ALL & ~probe : LORA_ALL;
    if (options->lora_targets[0] == 0) return PLX_OK;
    TRY(lora_targets_parse(options->lora_targets, "--lora-targets", &lora->targets, err));
    REQUIRE(err, !part.probe || !(lora->targets & probe), PLX_INVALID_ARGUMENT,
            "--lora-targets: %s names r_proj, which --train %s trains itself",
            options->lora_targets, options->train);
    return PLX_OK;
}

/* ---- The model ---- */

plx_status train_model_config(const struct train_options *options, int64_t vocab_size,
                              int32_t end_of_text, struct model_config *config, struct error *err)
{
    static const struct word starts[] = {{"normal", PROBE_START_NORMAL},
                                         {"zero-gain", PROBE_START_ZERO_GAIN},
                                         {"zero-weight", PROBE_START_ZERO_WEIGHT}};
    *config = model_config_default();
    config->vocab_size = vocab_size;
    config->hidden_size = options->hidden_size;
    config->intermediate_size = options->intermediate_size;
    config->layers = options->layers;
    config->heads = options->heads;
    config->kv_heads = options->kv_heads;
    config->head_dim = options->head_dim;
    config->max_position = options->context;
    config->norm_eps = options->norm_eps;
    config->qk_norm_eps = options->norm_eps;
    config->rope.theta = options->rope_theta;
    config->initializer_range = options->initializer_range;
    config->tie_embeddings = options->tie_embeddings;
    config->qk_norm = options->qk_norm;
    config->probe_norm = options->probe_norm;
    config->probe_rope = options->probe_rope;
    config->probe_gate = options->probe_gate;
    int start;
    TRY(word_find(starts, WORD_COUNT(starts), "--probe-start", options->probe_start, &start, err));
    config->probe_start = (enum probe_start)start;
    config->bos_id = -1;
    config->end_count = end_of_text >= 0;
    config->end_ids[0] = end_of_text;
    REQUIRE(err, options->layers >= 1 && options->layers <= MODEL_MAX_LAYERS, PLX_INVALID_ARGUMENT,
            "--layers: %lld is not between 1 and %d", (long long)options->layers, MODEL_MAX_LAYERS);
    for (int i = 0; i < options->layers; i++) TRY(set_layer(options, i, &config->layer[i], err));
    TRY(train_lora_config(options, &config->lora, err));
    plx_status status = model_config_check(config, "the model's options", err);
    /* What is bad data in a file is a bad argument here. */
    if (status != PLX_BAD_DATA) return status;
    if (err) err->status = PLX_INVALID_ARGUMENT;
    return PLX_INVALID_ARGUMENT;
}

plx_status train_optim_config(const struct train_options *options, struct optim_config *config,
                              struct error *err)
{
    static const struct word scales[] = {{"keller", MUON_SCALE_KELLER},
                                         {"match-rms", MUON_SCALE_MATCH_RMS},
                                         {"spectral-unclamped", MUON_SCALE_SPECTRAL_UNCLAMPED},
                                         {"max", MUON_SCALE_MAX},
                                         {"none", MUON_SCALE_NONE}};
    static const struct word coefficients[] = {{"quintic", MUON_QUINTIC},
                                               {"polar-express", MUON_POLAR_EXPRESS},
                                               {"polar-modded", MUON_POLAR_MODDED},
                                               {"opt", MUON_OPT}};
    static const struct word moments[] = {{"f32", false}, {"bf16", true}};
    *config = optim_config_default(options->optimizer);
    int value;
    TRY(word_find(moments, WORD_COUNT(moments), "--moments", options->moments, &value, err));
    config->bf16_moments = value;
    TRY(word_find(scales, WORD_COUNT(scales), "--muon-scale", options->muon_scale, &value, err));
    config->scale = (enum muon_scale)value;
    TRY(word_find(coefficients, WORD_COUNT(coefficients), "--muon-coefficients",
                  options->muon_coefficients, &value, err));
    config->coefficients = (enum muon_coefficients)value;
    config->lr = given_or(options->lr, config->lr);
    config->weight_decay = given_or(options->weight_decay, config->weight_decay);
    config->beta1 = given_or(options->beta1, config->beta1);
    config->beta2 = given_or(options->beta2, config->beta2);
    config->eps = given_or(options->eps, config->eps);
    config->momentum = given_or(options->momentum, config->momentum);
    config->embedding_lr = given_or(options->embedding_lr, config->embedding_lr);
    config->head_lr = given_or(options->head_lr, config->head_lr);
    config->norm_lr = given_or(options->norm_lr, config->norm_lr);
    config->other_lr = given_or(options->other_lr, config->other_lr);
    config->clip = options->clip;
    return PLX_OK;
}

plx_status train_schedule_config(const struct train_options *options,
                                 struct schedule_config *config, struct error *err)
{
    static const struct word kinds[] = {
        {"wsd", SCHEDULE_WSD}, {"cosine", SCHEDULE_COSINE}, {"constant", SCHEDULE_CONSTANT}};
    static const struct word shapes[] = {
        {"linear", DECAY_LINEAR}, {"sqrt", DECAY_SQRT}, {"cosine", DECAY_COSINE}};
    int kind, shape;
    TRY(word_find(kinds, WORD_COUNT(kinds), "--schedule", options->schedule, &kind, err));
    TRY(word_find(shapes, WORD_COUNT(shapes), "--decay-shape", options->decay_shape, &shape, err));
    /* The paper's recipe warms up for 1 % of a cosine run and not at all before WSD. */
    int64_t warmup = options->warmup;
    if (warmup < 0) warmup = kind == SCHEDULE_COSINE ? options->steps / 100 : 0;
    REQUIRE(err, warmup <= options->steps, PLX_INVALID_ARGUMENT,
            "--warmup: %lld steps are more than the run's %lld", (long long)warmup,
            (long long)options->steps);
    *config = (struct schedule_config){.kind = (enum schedule_kind)kind,
                                       .shape = (enum decay_shape)shape,
                                       .steps = options->steps,
                                       .warmup = warmup,
                                       .decay_ratio = options->decay_ratio,
                                       .min_factor = options->min_lr,
                                       .weight_decay_gamma = options->weight_decay_gamma};
    return PLX_OK;
}

plx_status train_backend_config(const struct train_options *options, struct backend_config *config,
                                struct error *err)
{
    const struct computing computing = {.device = options->device,
                                        .dtype = options->dtype,
                                        .kernel = options->kernel,
                                        .portable = options->portable,
                                        .deterministic = options->deterministic,
                                        .threads = options->threads};
    return computing_config(&computing, config, err);
}

plx_status train_settle_dtype(struct train_options *options, struct error *err)
{
    struct backend_config config;
    TRY(train_backend_config(options, &config, err));
    free(options->dtype);
    options->dtype = strdup(computing_dtype_name(&config));
    REQUIRE(err, options->dtype != NULL, PLX_OUT_OF_MEMORY, "no memory for options");
    return PLX_OK;
}

/* In the order of the enum. */
static const struct word recomputations[] = {
    {"none", RECOMPUTE_NONE}, {"selective", RECOMPUTE_SELECTIVE}, {"full", RECOMPUTE_FULL}};

plx_status train_recompute(const struct train_options *options, enum recompute *recompute,
                           struct error *err)
{
    int kind;
    TRY(word_find(recomputations, WORD_COUNT(recomputations), "--recompute", options->recompute,
                  &kind, err));
    *recompute = (enum recompute)kind;
    return PLX_OK;
}

const char *train_recompute_name(enum recompute recompute)
{
    return recomputations[recompute].name;
}

plx_status train_freeze(const struct train_options *options, struct param_list *params,
                        struct error *err)
{
    struct part part;
    TRY(find_part(options, &part, err));
    if (part.all) return PLX_OK;
    param_list_train_only(params, part.probe, part.adapters);
    bool probe = false;
    for (int i = 0; i < params->count; i++) probe = probe || params->items[i].probe;
    REQUIRE(err, probe || !part.probe, PLX_INVALID_ARGUMENT,
            "--train: %s is to train the probe, but no layer of the model has one", options->train);
    return PLX_OK;
}
