/* convert_prove.c: what a conversion has to show before it may say done.
 *
 * Where the model fits memory, source and target run a prompt one after the other, in f32 on the
 * CPU; matrices that both folders hold in bf16 may stay so, which loses nothing and takes half.
 * Where the conversion changes no number and adds at most a silent probe, every logit must be the
 * same, bit for bit; elsewhere the difference is reported. A model that does not fit is proven by
 * its tensors: the target is read back and compared with what was to be written. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "convert/convert_parts.h"
#include "io/file.h"
#include "io/model_file.h"
#include "process.h"

enum { PROMPT = 24 };

/* ---- By logits ------------------------------------------------------------------------------- */

struct prompt {
    int32_t ids[PROMPT], positions[PROMPT], offsets[2];
    struct batch batch;
};

/* The prompt of a vocabulary: any ids will do, as long as they differ. */
static void fill_prompt(struct prompt *prompt, const struct model_config *config)
{
    struct rng rng = rng_make(0, 0);
    int64_t count = config->max_position < PROMPT ? config->max_position : PROMPT;
    for (int64_t n = 0; n < count; n++) {
        prompt->ids[n] = (int32_t)rng_below(&rng, (uint64_t)config->vocab_size);
        prompt->positions[n] = (int32_t)n;
    }
    prompt->offsets[0] = 0;
    prompt->offsets[1] = (int32_t)count;
    prompt->batch = (struct batch){.tokens = count,
                                   .sequences = 1,
                                   .ids = prompt->ids,
                                   .positions = prompt->positions,
                                   .offsets = prompt->offsets};
}

static plx_status run_prompt(struct backend *be, const char *folder, float *values,
                             struct error *err)
{
    struct model *model;
    struct prompt prompt;
    TRY(model_open(be, folder, &model, err));
    fill_prompt(&prompt, model_get_config(model));
    const int64_t shape[2] = {prompt.batch.tokens, model_get_config(model)->vocab_size};
    struct plx_tensor logits = plx_tensor_dense(values, PLX_F32, 2, shape);
    plx_status status = model_reserve(model, prompt.batch.tokens, 1, false, RECOMPUTE_NONE, NULL);
    if (status == PLX_OK) status = model_logits(model, &prompt.batch, &logits);
    model_destroy(model);
    return status;
}

/* A backend of its own for each model, because scratch keeps the size of the largest. */
static plx_status folder_logits(const char *folder, enum packing packing, float *values,
                                struct error *err)
{
    const struct backend_config config = {
        .ops = &ops_cpu, .storage = PLX_F32, .compute = PLX_F32, .packing = packing};
    struct backend be;
    TRY(backend_create(&be, &config, err));
    plx_status status = run_prompt(&be, folder, values, err);
    backend_destroy(&be);
    return status;
}

/* Largest difference relative to the largest logit; 0 for equal bits, whatever they are. */
static double compare_logits(const float *source, const float *target, int64_t count)
{
    double largest = 0, difference = 0;
    if (memcmp(source, target, (size_t)count * sizeof *source) == 0) return 0;
    for (int64_t i = 0; i < count; i++) {
        double apart = fabs((double)source[i] - (double)target[i]);
        if (!(apart <= difference)) difference = apart;
        if (fabs((double)source[i]) > largest) largest = fabs((double)source[i]);
    }
    /* Zeros of different signs are no equal bits either. */
    double relative = largest > 0 ? difference / largest : difference;
    return relative == 0 ? 0x1p-149 : relative;
}

static plx_status prove_by_logits(const struct convert_plan *plan, enum packing packing,
                                  const char *source, const char *folder, bool silent,
                                  struct convert_report *report, struct error *err)
{
    const int64_t V = report->config.vocab_size;
    float *logits = calloc((size_t)(2 * PROMPT * V), sizeof *logits);
    REQUIRE(err, logits != NULL, PLX_OUT_OF_MEMORY, "out of memory for the logits of a prompt");
    int64_t tokens = report->config.max_position < PROMPT ? report->config.max_position : PROMPT;
    plx_status status = folder_logits(source, packing, logits, err);
    if (status == PLX_OK) status = folder_logits(folder, packing, logits + PROMPT * V, err);
    report->prompt_tokens = tokens;
    if (status == PLX_OK)
        report->logit_difference = compare_logits(logits, logits + PROMPT * V, tokens * V);
    free(logits);
    if (status != PLX_OK) return status;
    report->proof = report->logit_difference == 0 ? CONVERT_LOGITS_EQUAL : CONVERT_LOGITS_DIFFER;
    REQUIRE(err, report->logit_difference == 0 || !silent || !plan->exact, PLX_INTERNAL,
            "%s: the logits of a prompt of %lld tokens differ from those of %s by %g of the "
            "largest, but they must be the same",
            folder, (long long)tokens, source, report->logit_difference);
    return PLX_OK;
}

/* ---- By tensors ------------------------------------------------------------------------------ */

struct comparing {
    const struct weights_row *written;
    size_t at;
};

static plx_status compare_piece(void *user, const void *data, size_t bytes, struct error *err)
{
    struct comparing *comparing = user;
    const struct safetensors_entry *entry = comparing->written->entry;
    REQUIRE(err,
            bytes <= entry->bytes - comparing->at &&
                memcmp(entry->data + comparing->at, data, bytes) == 0,
            PLX_IO_ERROR, "%s: tensor %.200s does not read back as it was written",
            comparing->written->path, entry->name);
    file_map_forget(entry->data + comparing->at, bytes);
    comparing->at += bytes;
    return PLX_OK;
}

static plx_status prove_by_tensors(const struct convert_plan *plan, const char *folder,
                                   const struct convert_options *options, struct error *err)
{
    struct weights *weights;
    size_t done = 0;
    TRY(weights_open(folder, &weights, err));
    plx_status status = PLX_OK;
    for (int i = 0; status == PLX_OK && i < plan->count; i++) {
        const struct safetensors_spec *spec = &plan->tensors[i].spec;
        struct comparing comparing = {.written = weights_find(weights, spec->name)};
        status =
            comparing.written != NULL
                ? convert_stream(&plan->tensors[i], options->seed, compare_piece, &comparing, err)
                : error_set(err, PLX_IO_ERROR, "%s: tensor %.200s is missing after writing", folder,
                            spec->name);
        done += safetensors_spec_bytes(spec);
        if (options->progress != NULL)
            options->progress(options->user, "comparing", done, plan->bytes);
    }
    weights_close(weights);
    return status;
}

/* ---- Which ----------------------------------------------------------------------------------- */

/* Whether the target must compute what the source does: nothing changed, or a probe added that
 * starts silent. */
static bool is_silent(const struct convert_options *options)
{
    switch (options->attention) {
    case CONVERT_KEEP:
        return true;
    case CONVERT_TO_PARALLAX:
        return options->probe != CONVERT_COPY_Q;
    case CONVERT_TO_SOFTMAX:
        break;
    }
    return false;
}

/* Whether every matrix is copied as the bf16 that it is; added ones must be made in it, too. */
static bool is_bf16(const struct convert_plan *plan)
{
    for (int i = 0; i < plan->count; i++) {
        const struct convert_tensor *tensor = &plan->tensors[i];
        if (tensor->spec.rank < 2) continue;
        if (strcmp(tensor->spec.dtype, "BF16") != 0 || tensor->down != NULL) return false;
        if (tensor->source != NULL && strcmp(tensor->source->entry->dtype, "BF16") != 0)
            return false;
    }
    return true;
}

/* The weights of one model at a time, the logits of both, and some room for activations. */
static size_t memory_needed(const struct convert_report *report, int64_t weights, size_t width)
{
    return (size_t)weights * width +
           (size_t)(2 * PROMPT * report->config.vocab_size) * sizeof(float) + ((size_t)64 << 20);
}

plx_status convert_prove(const struct convert_plan *plan, const struct model_config *source_config,
                         const char *source, const char *folder,
                         const struct convert_options *options, struct convert_report *report,
                         struct error *err)
{
    struct param_list own;
    enum packing packing = PACKING_NONE;
    TRY(model_describe(source_config, &own, err));
    int64_t larger = param_list_elements(&own);
    param_list_destroy(&own);
    if (param_list_elements(&plan->params) > larger) larger = param_list_elements(&plan->params);
    report->needed = memory_needed(report, larger, sizeof(float));
    report->available = options->proof_memory > 0 ? options->proof_memory : process_available() / 2;
    if (report->needed > report->available && is_bf16(plan)) {
        packing = PACKING_BF16;
        report->needed = memory_needed(report, larger, sizeof(uint16_t));
    }
    if (report->needed <= report->available)
        return prove_by_logits(plan, packing, source, folder, is_silent(options), report, err);
    report->proof = CONVERT_TENSORS_EQUAL;
    return prove_by_tensors(plan, folder, options, err);
}
