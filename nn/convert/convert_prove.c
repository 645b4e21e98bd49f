/* convert_prove.c: what a conversion has to show before it may say done.
 *
 * Source and target run a prompt one after the other, in f32 on the CPU, layer by layer, so that a
 * model of any size takes the memory of one layer. Where the conversion changes no number and adds
 * at most a silent probe, every logit must be the same, bit for bit; elsewhere the difference is
 * reported. What a prompt cannot see, such as the W_R of a silent probe and rows of the embedding
 * that it does not use, is seen too: every tensor of the target goes by, and must have the XXH64 of
 * what was written. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "convert/convert_parts.h"
#include "io/file.h"
#include "io/model_file.h"
#include "process.h"
/* For the size of the hash state. */
#define XXH_STATIC_LINKING_ONLY
#include <xxhash.h>

enum { PROMPT = 24, PIECE_ELEMENTS = 1 << 19 };

/* ---- Reading --------------------------------------------------------------------------------- */

/* A folder as its model is run. */
struct reading {
    const char *folder;
    const struct convert_plan *plan; /* of what was written there; NULL: nothing is known */
    const struct convert_options *options;
    struct weights *weights;
    XXH64_state_t sum;  /* of the tensor being read */
    size_t done, total; /* bytes */
    struct error *err;
};

static plx_status check_sum(const struct reading *reading, const struct param *param,
                            const char *path)
{
    const struct convert_plan *plan = reading->plan;
    for (int i = 0; plan != NULL && i < plan->count; i++)
        REQUIRE(reading->err,
                strcmp(plan->tensors[i].spec.name, param->name) != 0 ||
                    plan->tensors[i].sum == XXH64_digest(&reading->sum),
                PLX_IO_ERROR, "%s: tensor %.200s does not read back as it was written", path,
                param->name);
    return PLX_OK;
}

/* A model_read_rows; the pages of the file are let go as they are done. */
static plx_status read_rows(void *user, const struct param *param, int64_t first, int64_t count,
                            void *values)
{
    struct reading *reading = user;
    const struct weights_row *row = weights_find(reading->weights, param->name);
    const size_t width = safetensors_float_bytes(row->entry->dtype);
    const int64_t rows = param->value.shape[0], columns = plx_tensor_count(&param->value) / rows;
    const int64_t begin = first * columns, end = (first + count) * columns;
    if (first == 0) XXH64_reset(&reading->sum, 0);
    for (int64_t at = begin; at < end; at += PIECE_ELEMENTS) {
        const int64_t some = end - at < PIECE_ELEMENTS ? end - at : PIECE_ELEMENTS;
        const unsigned char *data = row->entry->data + (size_t)at * width;
        const size_t bytes = (size_t)some * width;
        if (reading->plan != NULL) XXH64_update(&reading->sum, data, bytes);
        TRY(safetensors_convert(row->entry, row->path, at, some, "F32",
                                (float *)values + (at - begin), reading->err));
        file_map_forget(data, bytes);
        reading->done += bytes;
        if (reading->options->progress != NULL)
            reading->options->progress(reading->options->user,
                                       reading->plan != NULL ? "running the target"
                                                             : "running the source",
                                       reading->done, reading->total);
    }
    return first + count == rows ? check_sum(reading, param, row->path) : PLX_OK;
}

/* The folder's weights are those that its configuration asks for; counts the bytes to read. */
static plx_status check_weights(struct reading *reading, const struct model_config *config)
{
    struct param_list params;
    TRY(model_describe(config, &params, reading->err));
    plx_status status = model_check_weights(&params, reading->weights, true, reading->err);
    for (int i = 0; status == PLX_OK && i < params.count; i++) {
        const bool twice = params.items[i].group == PARAM_EMBEDDING && config->tie_embeddings;
        const size_t bytes = weights_find(reading->weights, params.items[i].name)->entry->bytes;
        reading->total += twice ? 2 * bytes : bytes;
    }
    param_list_destroy(&params);
    return status;
}

/* ---- Running --------------------------------------------------------------------------------- */

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

static plx_status run_reading(struct reading *reading, struct backend *be,
                              const struct plx_tensor *logits)
{
    struct model_config config;
    struct prompt prompt;
    TRY(model_folder_config(reading->folder, &config, reading->err));
    TRY(check_weights(reading, &config));
    fill_prompt(&prompt, &config);
    return model_stream_logits(be, &config, &prompt.batch, read_rows, reading, logits);
}

static plx_status run_folder(struct reading *reading, const struct plx_tensor *logits)
{
    const struct backend_config config = {.ops = &ops_cpu, .storage = PLX_F32, .compute = PLX_F32};
    struct backend be;
    TRY(weights_open(reading->folder, &reading->weights, reading->err));
    plx_status status = backend_create(&be, &config, reading->err);
    if (status == PLX_OK) status = run_reading(reading, &be, logits);
    backend_destroy(&be);
    weights_close(reading->weights);
    return status;
}

/* ---- Comparing ------------------------------------------------------------------------------- */

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

static plx_status compare_folders(struct reading *source, struct reading *target,
                                  struct convert_report *report, struct error *err)
{
    const struct model_config *config = &report->config;
    const int64_t N = config->max_position < PROMPT ? config->max_position : PROMPT;
    const int64_t shape[2] = {N, config->vocab_size};
    struct plx_tensor logits = plx_tensor_dense(NULL, PLX_F32, 2, shape), other = logits;
    const int64_t count = plx_tensor_count(&logits);
    float *values = calloc((size_t)(2 * count), sizeof *values);
    REQUIRE(err, values != NULL, PLX_OUT_OF_MEMORY, "out of memory for the logits of a prompt");
    logits.data = values;
    other.data = values + count;
    plx_status status = run_folder(source, &logits);
    if (status == PLX_OK) status = run_folder(target, &other);
    report->prompt_tokens = N;
    if (status == PLX_OK) report->logit_difference = compare_logits(values, values + count, count);
    report->proof = report->logit_difference == 0 ? CONVERT_LOGITS_EQUAL : CONVERT_LOGITS_DIFFER;
    free(values);
    return status;
}

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

plx_status convert_prove(const struct convert_plan *plan, const char *source, const char *folder,
                         const struct convert_options *options, struct convert_report *report,
                         struct error *err)
{
    struct reading from = {.folder = source, .options = options, .err = err},
                   to = {.folder = folder, .plan = plan, .options = options, .err = err};
    const double started = process_seconds();
    TRY(compare_folders(&from, &to, report, err));
    report->proof_seconds = process_seconds() - started;
    REQUIRE(err, report->logit_difference == 0 || !is_silent(options) || !plan->exact, PLX_INTERNAL,
            "%s: the logits of a prompt of %lld tokens differ from those of %s by %g of the "
            "largest, but they must be the same",
            folder, (long long)report->prompt_tokens, source, report->logit_difference);
    return PLX_OK;
}
