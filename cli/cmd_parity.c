/* cmd_parity.c: `parallax parity`: compares a model with recorded results of another
 * implementation. */
#include "cli.h"

#include <stddef.h>

#include "model_run.h"
#include "parity.h"

struct parity_values {
    double tolerance;
    bool quiet;
    struct model_run_options run;
};

/* group, key, type, field, default, value's name or choices, smallest, largest, unrecorded, help */
static const struct option_row rows[] = {
    {"Comparison", "tolerance", OPTION_REAL, offsetof(struct parity_values, tolerance), "1e-3", "X",
     0, 1e15, false, "largest error, relative to the largest value of its tensor"},
    {NULL, "quiet", OPTION_BOOL, offsetof(struct parity_values, quiet), "false", NULL, 0, 0, false,
     "print the summary only"},
    {"Computing", "device", OPTION_STRING, offsetof(struct parity_values, run.device), "auto",
     "DEVICE", 0, 0, false,
     "auto, cpu, cuda or cuda:N; auto is the first GPU, or the CPU without one"},
    {NULL, "dtype", OPTION_STRING, offsetof(struct parity_values, run.dtype), "f32", "f32|bf16", 0,
     0, false, "operands of matrix products, and on a GPU activations"},
    {NULL, "kernel", OPTION_STRING, offsetof(struct parity_values, run.kernel), NULL, "NAME", 0, 0,
     false, "force an attention kernel (parallax info lists them)"},
    {NULL, "portable", OPTION_BOOL, offsetof(struct parity_values, run.portable), "false", NULL, 0,
     0, false, "portable kernels only"},
    {NULL, "threads", OPTION_INT, offsetof(struct parity_values, run.threads), "0", "N", 0, 4096,
     false, "CPU threads; 0: all"},
};

static const struct option_table *parity_table(void)
{
    static const struct option_table table = {rows, COUNT_OF(rows)};
    return &table;
}

static plx_status compare(const struct option_settings *settings,
                          const struct parity_values *values, struct error *err)
{
    struct model_run run;
    TRY(model_run_open(&run, settings->positionals[0], &values->run, err));
    struct parity_result result = {0};
    plx_status status = parity_run(run.model, settings->positionals[1], values->tolerance,
                                   values->quiet ? NULL : stdout, &result, err);
    if (result.compared > 0)
        printf("%d tensors compared, %d not in the reference; largest relative error %.3g (%s), "
               "allowed "
               "%.3g; %lld greedy tokens, %lld differ\n",
               result.compared, result.missing, result.worst, result.worst_name, values->tolerance,
               (long long)result.greedy_tokens, (long long)result.greedy_mismatches);
    model_run_close(&run);
    return status;
}

static plx_status parity(const struct option_settings *settings, struct error *err)
{
    struct parity_values values = {0};
    plx_status status = options_read(parity_table(), settings, &values, err);
    if (status == PLX_OK) status = compare(settings, &values, err);
    options_clear(parity_table(), &values);
    return status;
}

const struct command command_parity = {
    .name = "parity",
    .summary = "compare a model with recorded results of another implementation",
    .usage = "MODEL REFERENCE.safetensors [OPTION...]",
    .explanation =
        "Runs a model on the batch recorded in a reference file and compares loss, logits, every "
        "gradient and greedy\n"
        "tokens with what the other implementation got (the tensors are listed in nn/parity.h). "
        "Prints the largest\n"
        "error of every tensor, the worst first, and fails where one is above the tolerance.",
    .examples = {"parallax parity qwen3-tiny reference.safetensors",
                 "parallax parity qwen3-tiny reference.safetensors --tolerance 1e-4 --portable"},
    .table = parity_table,
    .min_words = 2,
    .max_words = 2,
    .run = parity,
};
