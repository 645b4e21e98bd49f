/* cmd_convert.c: `parallax convert`: a model folder into another layout, type or attention. */
#include "cli.h"

#include <stddef.h>
#include <string.h>

#include "convert_run.h"

struct convert_values {
    char *to, *attention, *probe;
    bool drop_probe;
    struct convert_storage storage;
};

/* group, key, type, field, default, value's name or choices, smallest, largest, unrecorded, help */
static const struct option_row rows[] = {
    {"Layout", "to", OPTION_STRING, offsetof(struct convert_values, to), NULL,
     "qwen3|qwen2|llama|mistral|parallax|qwen3_parallax", 0, 0, false,
     "model_type to write; parallax is flash-linear-attention's; default: the source's, or the "
     "first that can say the model"},
    {NULL, "dtype", OPTION_STRING, offsetof(struct convert_values, storage.dtype), NULL,
     "f32|bf16|f16", 0, 0, false, "of the weights; default: as in the source"},
    {NULL, "shard_size", OPTION_REAL, offsetof(struct convert_values, storage.shard_size), "5",
     "GB", 0, 1e9, false, "most of one file, in 10^9 bytes; 0: everything in one"},
    {"Attention", "attention", OPTION_STRING, offsetof(struct convert_values, attention), NULL,
     "parallax|softmax", 0, 0, false, "give every layer a probe, or take it away"},
    {NULL, "probe", OPTION_STRING, offsetof(struct convert_values, probe), "zero-gain",
     "zero-gain|zero-weight|copy-q", 0, 0, false,
     "start of an added probe: W_R random behind a gain of zero, W_R zero without a norm, or r = "
     "q; the first two change no logit"},
    {NULL, "seed", OPTION_INT, offsetof(struct convert_values, storage.seed), "1", "N", 0, 9e18,
     false, "of the random W_R"},
    {NULL, "drop_probe", OPTION_BOOL, offsetof(struct convert_values, drop_probe), "false", NULL, 0,
     0, false, "with --attention softmax: yes, lose what the probes have learned"},
};

static const struct option_table *convert_table(void)
{
    static const struct option_table table = {rows, COUNT_OF(rows)};
    return &table;
}

static plx_status read_options(const struct option_settings *settings,
                               const struct convert_values *values, struct convert_options *options,
                               struct error *err)
{
    bool adds = strcmp(values->attention, "parallax") == 0;
    bool removes = strcmp(values->attention, "softmax") == 0;
    REQUIRE(err, adds || !option_is_set(settings, "probe"), PLX_INVALID_ARGUMENT,
            "--probe: %s is how an added probe starts, but --attention parallax is not given",
            values->probe);
    REQUIRE(err, removes || !values->drop_probe, PLX_INVALID_ARGUMENT,
            "--drop-probe: belongs to --attention softmax, which is not given");
    options->attention = adds ? CONVERT_TO_PARALLAX : removes ? CONVERT_TO_SOFTMAX : CONVERT_KEEP;
    options->probe = strcmp(values->probe, "copy-q") == 0        ? CONVERT_COPY_Q
                     : strcmp(values->probe, "zero-weight") == 0 ? CONVERT_ZERO_WEIGHT
                                                                 : CONVERT_ZERO_GAIN;
    options->drop_probe = values->drop_probe;
    for (int f = 0; f < MODEL_FAMILIES; f++) {
        if (strcmp(values->to, model_family_name((enum model_family)f)) != 0) continue;
        options->to_family = true;
        options->family = (enum model_family)f;
    }
    return PLX_OK;
}

static void print_change(const struct convert_report *report)
{
    char count[32];
    if (report->added > 0)
        printf("added: %s parameters of the probe\n", format_count(report->added, count));
    if (report->dropped > 0)
        printf("dropped: %s parameters of the probe\n", format_count(report->dropped, count));
    if (report->merged > 0)
        printf("merged: %s parameters of adapters into their weights\n",
               format_count(report->merged, count));
}

static void print_proof(const struct convert_report *report)
{
    char seconds[32];
    format_duration(report->proof_seconds, seconds);
    switch (report->proof) {
    case CONVERT_LOGITS_EQUAL:
        printf("proof: the logits of a prompt of %lld tokens equal the source's bit for bit (f32, "
               "CPU; %s)\n",
               (long long)report->prompt_tokens, seconds);
        break;
    case CONVERT_LOGITS_DIFFER:
        printf("checked: the logits of a prompt of %lld tokens differ from the source's by at most "
               "%.2g of the largest (f32, CPU; %s)\n",
               (long long)report->prompt_tokens, report->logit_difference, seconds);
        break;
    case CONVERT_NOTHING_TO_COMPARE:
        break;
    }
}

static plx_status convert_values(const struct option_settings *settings,
                                 const struct convert_values *values, struct error *err)
{
    struct convert_options options = {0};
    struct convert_report report;
    struct convert_watch watch;
    TRY(read_options(settings, values, &options, err));
    convert_run_options(&values->storage, &watch, &options);
    plx_status status =
        convert_folder(settings->positionals[0], settings->positionals[1], &options, &report, err);
    progress_end(&watch.progress);
    if (status != PLX_OK) return status;
    convert_run_print(settings->positionals[1], &report, &watch);
    print_change(&report);
    print_proof(&report);
    return PLX_OK;
}

static plx_status convert(const struct option_settings *settings, struct error *err)
{
    struct convert_values values = {0};
    plx_status status = options_read(convert_table(), settings, &values, err);
    if (status == PLX_OK) status = convert_values(settings, &values, err);
    options_clear(convert_table(), &values);
    return status;
}

const struct command command_convert = {
    .name = "convert",
    .summary = "turn a model folder into another layout, type or attention",
    .usage = "SRC DST [OPTION...]",
    .explanation =
        "Reads a model folder of Hugging Face (Qwen 2 to 3, Llama 2 and 3, Mistral), of "
        "flash-linear-attention's parallax or\n"
        "of our own (or a run, whose newest sound checkpoint is taken) and writes another one, "
        "which transformers loads.\n"
        "Weights go through tensor by tensor, adapters of --train lora merged into them; DST "
        "appears "
        "whole or not at all and\n"
        "must not exist. Before it is called done both models run a prompt, a layer in memory at a "
        "time; where nothing that is\n"
        "computed may change their logits must be the same bit for bit.",
    .examples = {"parallax convert Qwen3-0.6B-Base qwen3-parallax --attention parallax",
                 "parallax convert run exported --dtype bf16 --shard-size 2"},
    .table = convert_table,
    .min_words = 2,
    .max_words = 2,
    .run = convert,
};
