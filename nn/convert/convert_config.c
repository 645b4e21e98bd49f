/* convert_config.c: from the source's configuration and the wishes to the target's. */
#include <string.h>

#include "convert/convert_parts.h"
#include "io/model_file.h"
#include "mixers/mixer.h"

static bool has_probe(const struct layer_config *layer)
{
    return layer->mixer->mechanism == PLX_PARALLAX;
}

static plx_status set_mixers(struct model_config *config, const char *name, struct error *err)
{
    const struct mixer_kind *kind = mixer_find(name);
    REQUIRE(err, kind != NULL, PLX_INTERNAL, "this build has no mixer %s", name);
    for (int l = 0; l < config->layers; l++) config->layer[l].mixer = kind;
    return PLX_OK;
}

/* A zero gain needs the norm whose gain it is; a zero W_R must not have one, because a norm divides
 * by almost nothing there and the first step would throw r to full length. */
static plx_status add_probe(const struct model_config *source, const char *where,
                            enum convert_probe probe, struct model_config *target,
                            struct error *err)
{
    for (int l = 0; l < source->layers; l++)
        REQUIRE(err, !has_probe(&source->layer[l]), PLX_INVALID_ARGUMENT,
                "%s: layer %d is parallax already, so no probe can be added", where, l);
    TRY(set_mixers(target, "parallax", err));
    target->probe_rope = true;
    target->probe_gate = false;
    switch (probe) {
    case CONVERT_ZERO_GAIN:
        target->probe_norm = true;
        target->probe_start = PROBE_START_ZERO_GAIN;
        break;
    case CONVERT_ZERO_WEIGHT:
        target->probe_norm = false;
        target->probe_start = PROBE_START_ZERO_WEIGHT;
        break;
    case CONVERT_COPY_Q:
        target->probe_norm = source->qk_norm;
        target->probe_start = PROBE_START_NORMAL;
        break;
    }
    return PLX_OK;
}

static plx_status remove_probe(const struct model_config *source, const char *where, bool agreed,
                               struct model_config *target, struct error *err)
{
    int probes = 0;
    for (int l = 0; l < source->layers; l++) probes += has_probe(&source->layer[l]);
    REQUIRE(err, probes > 0, PLX_INVALID_ARGUMENT, "%s: every layer is softmax already", where);
    REQUIRE(err, agreed, PLX_INVALID_ARGUMENT,
            "--attention softmax: would throw away the probes of %d layers and with them whatever "
            "they have learned; say --drop-probe if that is meant",
            probes);
    const struct model_config plain = model_config_default();
    target->probe_norm = plain.probe_norm;
    target->probe_rope = plain.probe_rope;
    target->probe_gate = plain.probe_gate;
    target->probe_start = plain.probe_start;
    return set_mixers(target, "softmax", err);
}

/* The layout: the one asked for, else the source's unless the source had it for want of a simpler
 * one, else the first that can say the model. Names of tensors follow from it. */
static plx_status choose_family(const struct convert_options *options, bool simpler,
                                struct model_config *target, struct error *err)
{
    if (options->to_family) {
        target->family = options->family;
        return model_config_can_be(target, options->family, err);
    }
    if (simpler || model_config_can_be(target, target->family, NULL) != PLX_OK)
        target->family = FAMILY_QWEN3;
    target->family = model_config_family(target);
    return PLX_OK;
}

plx_status convert_target_config(const struct model_config *source, const char *where,
                                 const struct convert_options *options, struct model_config *target,
                                 struct error *err)
{
    *target = *source;
    if (options->attention == CONVERT_TO_PARALLAX)
        TRY(add_probe(source, where, options->probe, target, err));
    if (options->attention == CONVERT_TO_SOFTMAX)
        TRY(remove_probe(source, where, options->drop_probe, target, err));
    target->lora = (struct lora){0};
    bool simpler = options->attention == CONVERT_TO_SOFTMAX || source->lora.rank > 0;
    TRY(choose_family(options, simpler, target, err));
    return model_config_check(target, where, err);
}
