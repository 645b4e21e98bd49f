/* cmd_sample.c: `parallax sample`: continues a prompt and streams the text as it comes. */
#include "cli.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "io/model_file.h"
#include "model_run.h"
#include "sample.h"
#include "text_input.h"
#include "utf8_stream.h"

struct sample_values {
    char *file;
    double temperature;
    int64_t top_k;
    double top_p, min_p, repetition_penalty;
    int64_t seed, max_tokens;
    bool ignore_end, echo, raw, stats;
    struct model_run_options run;
};

/* group, key, type, field, default, value's name or choices, smallest, largest, unrecorded, help */
static const struct option_row rows[] = {
    {"Prompt", "file", OPTION_STRING, offsetof(struct sample_values, file), NULL, "FILE", 0, 0,
     false, "read the prompt from a file"},
    {NULL, "echo", OPTION_BOOL, offsetof(struct sample_values, echo), "false", NULL, 0, 0, false,
     "print the prompt before its continuation"},
    {"Sampling", "max_tokens", OPTION_INT, offsetof(struct sample_values, max_tokens), "200", "N",
     1, 1e15, false, "new tokens at most; less where the context ends"},
    {NULL, "temperature", OPTION_REAL, offsetof(struct sample_values, temperature), "0.8", "X", 0,
     100, false, "0 takes the likeliest token each time"},
    {NULL, "top_k", OPTION_INT, offsetof(struct sample_values, top_k), "0", "N", 0, 1e15, false,
     "only the N likeliest tokens; 0: all"},
    {NULL, "top_p", OPTION_REAL, offsetof(struct sample_values, top_p), "1", "X", 0, 1, false,
     "only the likeliest tokens that add up to X; 1: all"},
    {NULL, "min_p", OPTION_REAL, offsetof(struct sample_values, min_p), "0", "X", 0, 1, false,
     "only tokens of at least X times the likeliest one's probability"},
    {NULL, "repetition_penalty", OPTION_REAL, offsetof(struct sample_values, repetition_penalty),
     "1", "X", 0.01, 100, false, "above 1: makes tokens that occurred less likely"},
    {NULL, "seed", OPTION_INT, offsetof(struct sample_values, seed), "1", "N", 0, 9e18, false,
     "of the draws; equal seeds give equal text"},
    {NULL, "ignore_end", OPTION_BOOL, offsetof(struct sample_values, ignore_end), "false", NULL, 0,
     0, false, "go on after the model ends its text"},
    {"Output", "raw", OPTION_BOOL, offsetof(struct sample_values, raw), "false", NULL, 0, 0, false,
     "write the model's bytes as they are; otherwise invalid UTF-8 becomes U+FFFD"},
    {NULL, "stats", OPTION_BOOL, offsetof(struct sample_values, stats), "false", NULL, 0, 0, false,
     "print counts and speed on stderr"},
    {"Computing", "dtype", OPTION_STRING, offsetof(struct sample_values, run.dtype), "f32",
     "f32|bf16", 0, 0, false, "operands of matrix products"},
    {NULL, "kernel", OPTION_STRING, offsetof(struct sample_values, run.kernel), NULL, "NAME", 0, 0,
     false, "force an attention kernel (parallax info lists them)"},
    {NULL, "portable", OPTION_BOOL, offsetof(struct sample_values, run.portable), "false", NULL, 0,
     0, false, "portable kernels only"},
    {NULL, "threads", OPTION_INT, offsetof(struct sample_values, run.threads), "0", "N", 0, 4096,
     false, "CPU threads; 0: all"},
};

static const struct option_table *sample_table(void)
{
    static const struct option_table table = {rows, COUNT_OF(rows)};
    return &table;
}

/* ---- The text ---- */

/* Where tokens go: through the UTF-8 stream, or as they are. */
struct output {
    bool raw;
    struct utf8_stream stream;
};

static bool write_token(void *user, const char *bytes, size_t size)
{
    struct output *output = user;
    if (output->raw) {
        fwrite(bytes, 1, size, stdout);
        fflush(stdout);
    } else {
        utf8_stream_write(&output->stream, bytes, size);
    }
    return !ferror(stdout);
}

static void print_stats(const struct sample_report *report)
{
    fprintf(stderr,
            "%lld prompt tokens in %.3f s (%.0f tokens/s), %lld new tokens in %.3f s (%.0f "
            "tokens/s)%s\n",
            (long long)report->prompt_tokens, report->prefill_seconds,
            (double)report->prompt_tokens / report->prefill_seconds, (long long)report->new_tokens,
            report->decode_seconds, (double)report->new_tokens / report->decode_seconds,
            report->ended ? ", ended by the model" : "");
}

static plx_status sample_prompt(struct model_run *run, const struct option_settings *settings,
                                const struct sample_values *values, const char *prompt, size_t size,
                                struct error *err)
{
    struct sample_options options = {.temperature = values->temperature,
                                     .top_k = values->top_k,
                                     .top_p = values->top_p,
                                     .min_p = values->min_p,
                                     .repetition_penalty = values->repetition_penalty,
                                     .seed = (uint64_t)values->seed,
                                     .max_tokens = values->max_tokens,
                                     .ignore_end = values->ignore_end};
    /* The default number of tokens gives way to the context; a number that was asked for does not.
     */
    int64_t context = model_get_config(run->model)->max_position, count = 0;
    plx_status status =
        tokenizer_encode_as(run->tokenizer, prompt, size, SAMPLE_ENCODING, NULL, 0, &count, NULL);
    if (!option_is_set(settings, "max_tokens") && status == PLX_WORKSPACE_TOO_SMALL &&
        count < context && count + options.max_tokens > context)
        options.max_tokens = context - count;
    struct output output = {.raw = values->raw, .stream = {.file = stdout}};
    if (values->echo) write_token(&output, prompt, size);
    struct sample_report report = {0};
    TRY(sample_run(run->model, run->tokenizer, prompt, size, &options, write_token, &output,
                   &report, err));
    if (!values->raw) utf8_stream_end(&output.stream);
    if (isatty(STDOUT_FILENO)) printf("\n");
    if (values->stats) print_stats(&report);
    return PLX_OK;
}

static plx_status run_sample(const struct option_settings *settings,
                             const struct sample_values *values, struct error *err)
{
    struct model_run run;
    TRY(model_run_open(&run, settings->positionals[0], &values->run, err));
    const char *word = settings->positional_count > 1 ? settings->positionals[1] : NULL;
    char *prompt = NULL;
    size_t size = 0;
    plx_status status =
        run.tokenizer ? text_input_read(word, values->file, &prompt, &size, err)
                      : error_set(err, PLX_IO_ERROR, "%s: holds no tokenizer.json", run.folder);
    if (status == PLX_OK) status = sample_prompt(&run, settings, values, prompt, size, err);
    free(prompt);
    model_run_close(&run);
    return status;
}

static plx_status sample(const struct option_settings *settings, struct error *err)
{
    struct sample_values values = {0};
    plx_status status = options_read(sample_table(), settings, &values, err);
    if (status == PLX_OK) status = run_sample(settings, &values, err);
    options_clear(sample_table(), &values);
    return status;
}

const struct command command_sample = {
    .name = "sample",
    .summary = "continue a prompt with a trained model",
    .usage = "MODEL [PROMPT|-] [OPTION...]",
    .explanation =
        "Continues a prompt and prints the text as it is decoded. MODEL is a model folder "
        "(config.json,\n"
        "model.safetensors, tokenizer.json) or a run folder, whose newest sound checkpoint is "
        "taken. The prompt is the\n"
        "argument, a file, or standard input; without any, the model starts a text of its own.",
    .examples = {"parallax sample run \"#include <\" --temperature 0.7 --top-p 0.9",
                 "head -c 100 story.txt | parallax sample run - --max-tokens 500 --stats"},
    .table = sample_table,
    .min_words = 1,
    .max_words = 2,
    .run = sample,
};
