/* train_from.c: from a model folder to the options of a run that starts there, and back: what the
 * options say may not contradict the folder. See train_from.h; called by cmd_train.c (adopt) and
 * train_session.c. */
#include "train_from.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "chat/chat.h"
#include "io/config_rows.h"
#include "mixers/mixer.h"
#include "train_session.h"

plx_status train_from_find(const char *from, const struct train_hooks *hooks, char *folder,
                           size_t size, struct error *err)
{
    return model_folder_find_noting(from, folder, size, train_session_note, (void *)hooks, err);
}

/* ---- Adopting ---- */

static plx_status set_text(char **option, const char *text, struct error *err)
{
    char *copy = strdup(text);
    REQUIRE(err, copy, PLX_OUT_OF_MEMORY, "no memory for options");
    free(*option);
    *option = copy;
    return PLX_OK;
}

/* One entry where all layers agree, otherwise one a layer. */
static plx_status adopt_layers(const struct model_config *config, struct train_options *options,
                               struct error *err)
{
    enum { ENTRY = 32 };
    char mixers[MODEL_MAX_LAYERS * ENTRY] = "", windows[MODEL_MAX_LAYERS * ENTRY] = "";
    bool same_mixer = true, same_window = true;
    for (int64_t i = 1; i < config->layers; i++) {
        same_mixer = same_mixer && config->layer[i].mixer == config->layer[0].mixer;
        same_window = same_window && config->layer[i].window == config->layer[0].window;
    }
    size_t mixer_size = 0, window_size = 0;
    for (int64_t i = 0; i < config->layers; i++) {
        const char *comma = i > 0 ? "," : "";
        const struct layer_config *layer = &config->layer[i];
        if (i == 0 || !same_mixer)
            mixer_size += (size_t)snprintf(mixers + mixer_size, sizeof mixers - mixer_size, "%s%s",
                                           comma, layer->mixer->name);
        if (i == 0 || !same_window)
            window_size += (size_t)snprintf(windows + window_size, sizeof windows - window_size,
                                            "%s%lld", comma, (long long)layer->window);
    }
    TRY(set_text(&options->mixer, mixers, err));
    return set_text(&options->window, windows, err);
}

/* A folder without a template that is known is no hindrance until a chat is met, which is refused
 * then. */
static plx_status adopt_chat(const char *folder, struct train_options *options, struct error *err)
{
    const struct chat_template *found;
    if (chat_template_of_folder(folder, &found, NULL) != PLX_OK) return PLX_OK;
    return set_text(&options->chat_template, chat_template_name(found), err);
}

plx_status train_from_adopt(const char *from, const struct train_hooks *hooks,
                            struct train_options *options, struct error *err)
{
    char folder[4096];
    struct model_config config;
    TRY(train_from_find(from, hooks, folder, sizeof folder, err));
    TRY(model_folder_config(folder, &config, err));
    options->vocab_size = config.vocab_size;
    options->hidden_size = config.hidden_size;
    options->intermediate_size = config.intermediate_size;
    options->layers = config.layers;
    options->heads = config.heads;
    options->kv_heads = config.kv_heads;
    options->head_dim = config.head_dim;
    options->tie_embeddings = config.tie_embeddings;
    options->qk_norm = config.qk_norm;
    options->probe_norm = config.probe_norm;
    options->probe_rope = config.probe_rope;
    options->probe_gate = config.probe_gate;
    options->rope_theta = config.rope.theta;
    options->norm_eps = config.norm_eps;
    options->initializer_range = config.initializer_range;
    if (options->context > config.max_position) options->context = config.max_position;
    TRY(adopt_layers(&config, options, err));
    TRY(adopt_chat(folder, options, err));
    TRY(set_text(&options->probe_start, config_probe_starts[config.probe_start], err));
    return set_text(&options->tokenizer, TRAIN_TOKENIZER_OF_MODEL, err);
}

/* A list of names means each of them; "all" means those that are there. */
static plx_status check_probe_target(const char *folder, const struct model_config *config,
                                     struct error *err)
{
    bool probe = config->lora.targets == LORA_ALL;
    for (int64_t i = 0; i < config->layers; i++)
        probe = probe || config->layer[i].mixer->mechanism == PLX_PARALLAX;
    REQUIRE(err, probe || !(config->lora.targets & lora_target_bit("r_proj", strlen("r_proj"))),
            PLX_INVALID_ARGUMENT, "--lora-targets: r_proj is in no layer of %s", folder);
    return PLX_OK;
}

plx_status train_from_adapt(const struct train_options *options, const char *folder,
                            struct model_config *config, struct error *err)
{
    REQUIRE(err, config->lora.rank == 0, PLX_INVALID_ARGUMENT,
            "--from: %s holds adapters that are still apart; parallax convert merges them into a "
            "model to start from",
            folder);
    TRY(train_lora_config(options, &config->lora, err));
    TRY(check_probe_target(folder, config, err));
    return model_config_can_be(config, model_config_family(config), err);
}

/* ---- Checking ---- */

enum field_kind { FIELD_WHOLE, FIELD_REAL, FIELD_SWITCH, FIELD_PROBE_START, FIELD_TARGETS };

static const struct field {
    const char *flag;
    enum field_kind kind;
    size_t offset;
} fields[] = {
    {"--vocab-size", FIELD_WHOLE, offsetof(struct model_config, vocab_size)},
    {"--hidden-size", FIELD_WHOLE, offsetof(struct model_config, hidden_size)},
    {"--intermediate-size", FIELD_WHOLE, offsetof(struct model_config, intermediate_size)},
    {"--layers", FIELD_WHOLE, offsetof(struct model_config, layers)},
    {"--heads", FIELD_WHOLE, offsetof(struct model_config, heads)},
    {"--kv-heads", FIELD_WHOLE, offsetof(struct model_config, kv_heads)},
    {"--head-dim", FIELD_WHOLE, offsetof(struct model_config, head_dim)},
    {"--tie-embeddings", FIELD_SWITCH, offsetof(struct model_config, tie_embeddings)},
    {"--qk-norm", FIELD_SWITCH, offsetof(struct model_config, qk_norm)},
    {"--probe-norm", FIELD_SWITCH, offsetof(struct model_config, probe_norm)},
    {"--probe-rope", FIELD_SWITCH, offsetof(struct model_config, probe_rope)},
    {"--probe-gate", FIELD_SWITCH, offsetof(struct model_config, probe_gate)},
    {"--probe-start", FIELD_PROBE_START, offsetof(struct model_config, probe_start)},
    {"--rope-theta", FIELD_REAL, offsetof(struct model_config, rope.theta)},
    {"--norm-eps", FIELD_REAL, offsetof(struct model_config, norm_eps)},
    {"--initializer-range", FIELD_REAL, offsetof(struct model_config, initializer_range)},
    {"--lora-rank", FIELD_WHOLE, offsetof(struct model_config, lora.rank)},
    {"--lora-alpha", FIELD_REAL, offsetof(struct model_config, lora.alpha)},
    {"--lora-targets", FIELD_TARGETS, offsetof(struct model_config, lora.targets)},
};

enum { FIELD_TEXT = LORA_TEXT };

/* The field as its flag would say it, exactly: equal texts are equal values. */
static void print_field(const struct field *field, const struct model_config *config,
                        char text[FIELD_TEXT])
{
    const void *at = (const char *)config + field->offset;
    switch (field->kind) {
    case FIELD_WHOLE:
        snprintf(text, FIELD_TEXT, "%lld", (long long)*(const int64_t *)at);
        break;
    case FIELD_REAL:
        snprintf(text, FIELD_TEXT, "%.17g", *(const double *)at);
        break;
    case FIELD_SWITCH:
        snprintf(text, FIELD_TEXT, "%s", *(const bool *)at ? "on" : "off");
        break;
    case FIELD_PROBE_START:
        snprintf(text, FIELD_TEXT, "%s", config_probe_starts[*(const enum probe_start *)at]);
        break;
    case FIELD_TARGETS:
        lora_targets_print(*(const unsigned *)at, text);
        break;
    }
}

static plx_status check_layer(const struct layer_config *said, const struct layer_config *is,
                              int64_t index, const char *folder, struct error *err)
{
    REQUIRE(err, said->mixer == is->mixer, PLX_INVALID_ARGUMENT,
            "--mixer: %s for layer %lld contradicts %s of %s, which only parallax convert changes",
            said->mixer->name, (long long)index, is->mixer->name, folder);
    REQUIRE(err, said->window == is->window, PLX_INVALID_ARGUMENT,
            "--window: %lld for layer %lld contradicts %lld of %s", (long long)said->window,
            (long long)index, (long long)is->window, folder);
    return PLX_OK;
}

plx_status train_from_check(const struct train_options *options, int64_t vocab_size,
                            const struct model_config *config, const char *folder,
                            struct error *err)
{
    struct model_config said;
    TRY(train_model_config(options, vocab_size, -1, &said, err));
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        char option[FIELD_TEXT], value[FIELD_TEXT];
        print_field(&fields[i], &said, option);
        print_field(&fields[i], config, value);
        REQUIRE(err, strcmp(option, value) == 0, PLX_INVALID_ARGUMENT,
                "%s: %s contradicts %s of %s", fields[i].flag, option, value, folder);
    }
    for (int64_t i = 0; i < config->layers; i++)
        TRY(check_layer(&said.layer[i], &config->layer[i], i, folder, err));
    REQUIRE(err, options->context <= config->max_position, PLX_INVALID_ARGUMENT,
            "--context: %lld tokens are more than the %lld positions of %s",
            (long long)options->context, (long long)config->max_position, folder);
    return PLX_OK;
}
