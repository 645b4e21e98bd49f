/* cmd_eval.c: `parallax eval`: how well a model predicts a text that it was not trained on. */
#include "cli.h"

#include <jansson.h>
#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "eval_report.h"
#include "io/fields.h"
#include "progress.h"

struct eval_values {
    struct text_list data;
    char *jsonl_field;
    int64_t max_data_bytes, max_tokens;
    bool mask_documents;
    int64_t context, batch;
    bool json;
    struct text_list task, compare;
    char *task_folder;
    int64_t limit;
    struct model_run_options run;
};

/* group, key, type, field, default, value's name or choices, smallest, largest, unrecorded, help */
static const struct option_row rows[] = {
    {"Data", "data", OPTION_LIST, offsetof(struct eval_values, data), NULL, "PATH...", 0, 0, false,
     "text files, folders of them, .jsonl files, token shards"},
    {NULL, "jsonl_field", OPTION_STRING, offsetof(struct eval_values, jsonl_field), "text", "KEY",
     0, 0, false, "key of the text in .jsonl files"},
    {NULL, "max_data_bytes", OPTION_INT, offsetof(struct eval_values, max_data_bytes), "0", "N", 0,
     1e15, false, "stop reading text after so many bytes; 0: read all"},
    {NULL, "max_tokens", OPTION_INT, offsetof(struct eval_values, max_tokens), "0", "N", 0, 1e15,
     false, "score about so many tokens; 0: all"},
    {NULL, "mask_documents", OPTION_BOOL, offsetof(struct eval_values, mask_documents), "true",
     NULL, 0, 0, false, "attention and positions restart at document borders"},
    {"Benchmarks", "task", OPTION_LIST, offsetof(struct eval_values, task), NULL, "TASK...", 0, 0,
     false, "NAME, FILE.jsonl or NAME=FILE.jsonl instead of --data; NAME is one of those above"},
    {NULL, "task_folder", OPTION_STRING, offsetof(struct eval_values, task_folder), ".", "FOLDER",
     0, 0, false, "where the files of names lie, as NAME.jsonl"},
    {NULL, "limit", OPTION_INT, offsetof(struct eval_values, limit), "0", "N", 0, 1e9, false,
     "score the first N documents of a task; 0: all"},
    {NULL, "compare", OPTION_LIST, offsetof(struct eval_values, compare), NULL, "A B", 0, 0, false,
     "two results of --task --json, or two models on --task, with a paired test"},
    {"Batches", "context", OPTION_INT, offsetof(struct eval_values, context), "0", "TOKENS", 0,
     1048576, false, "tokens of a row; 0: the model's context"},
    {NULL, "batch", OPTION_INT, offsetof(struct eval_values, batch), "8", "ROWS", 1, 1048576, false,
     "rows of a batch; of a task: its longest texts, or as many shorter ones as fill it"},
    {"Output", "json", OPTION_BOOL, offsetof(struct eval_values, json), "false", NULL, 0, 0, false,
     "print one JSON object instead of the table"},
    {"Computing", "device", OPTION_STRING, offsetof(struct eval_values, run.device), "auto",
     "DEVICE", 0, 0, false,
     "auto, cpu, cuda or cuda:N; auto is the first GPU, or the CPU without one"},
    {NULL, "dtype", OPTION_STRING, offsetof(struct eval_values, run.dtype), NULL, "f32|bf16", 0, 0,
     false, "operands of matrix products, and on a GPU activations [f32, on a GPU bf16]"},
    {NULL, "kernel", OPTION_STRING, offsetof(struct eval_values, run.kernel), NULL, "NAME", 0, 0,
     false, "force an attention kernel (parallax info lists them)"},
    {NULL, "portable", OPTION_BOOL, offsetof(struct eval_values, run.portable), "false", NULL, 0, 0,
     false, "portable kernels only"},
    {NULL, "threads", OPTION_INT, offsetof(struct eval_values, run.threads), "0", "N", 0, 4096,
     false, "CPU threads; 0: all"},
};

static const struct option_table *eval_table(void)
{
    static const struct option_table table = {rows, COUNT_OF(rows)};
    return &table;
}

static plx_status load_data(const struct model_run *run, const struct eval_values *values,
                            struct corpus **corpus, struct error *err)
{
    const struct model_config *config = model_get_config(run->model);
    REQUIRE(err, values->data.count > 0, PLX_INVALID_ARGUMENT,
            "--data: no file or folder is given to evaluate on");
    struct corpus_options options = {.paths = (const char *const *)values->data.items,
                                     .path_count = values->data.count,
                                     .tokenizer = run->tokenizer,
                                     .vocab_size = config->vocab_size,
                                     .separator = (int32_t)model_config_end(config),
                                     .max_bytes = values->max_data_bytes,
                                     .jsonl_field = values->jsonl_field};
    int64_t skipped = 0;
    return corpus_load(&options, corpus, &skipped, err);
}

static void on_progress(void *user, int64_t tokens, int64_t total)
{
    progress_share(user, "evaluated", tokens, total);
}

static plx_status print_json(const struct model_run *run, const struct eval_result *result,
                             struct error *err)
{
    json_t *object =
        json_pack("{s:s, s:f, s:f, s:I, s:I, s:f}", "model", run->folder, "loss", result->loss,
                  "perplexity", result->perplexity, "tokens", (json_int_t)result->tokens, "bytes",
                  (json_int_t)result->bytes, "seconds", result->seconds);
    if (object && !isnan(result->bits_per_byte))
        json_object_set_new(object, "bits_per_byte", json_real(result->bits_per_byte));
    char *text = object ? fields_print(object, JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;
    json_decref(object);
    REQUIRE(err, text, PLX_INTERNAL, "%s: JSON cannot hold a loss of %g, or the folder's name",
            run->folder, result->loss);
    printf("%s\n", text);
    free(text);
    return PLX_OK;
}

static void print_table(const struct model_run *run, const struct eval_result *result)
{
    char count[32];
    printf("model           %s\n", run->folder);
    printf("loss            %.6f nats a token\n", result->loss);
    printf("perplexity      %.4f\n", result->perplexity);
    if (!isnan(result->bits_per_byte)) printf("bits per byte   %.4f\n", result->bits_per_byte);
    printf("tokens          %s\n", format_count(result->tokens, count));
    printf("bytes           %s\n", format_count(result->bytes, count));
    printf("seconds         %.2f\n", result->seconds);
}

static plx_status evaluate(struct model_run *run, const struct corpus *corpus,
                           const struct eval_values *values, struct error *err)
{
    int64_t context =
        values->context ? values->context : model_get_config(run->model)->max_position;
    struct eval_options options = {.rows = values->batch,
                                   .context = context,
                                   .max_tokens = values->max_tokens,
                                   .mask_documents = values->mask_documents};
    int64_t sequences;
    TRY(eval_max_sequences(corpus, &options, &sequences, err));
    struct model_memory memory;
    TRY(model_reserve(run->model, options.rows * options.context, sequences, false, RECOMPUTE_NONE,
                      &memory));
    struct progress progress = progress_make(1);
    progress.terminal = progress.terminal && !values->json;
    struct eval_result result;
    TRY(eval_run(run->model, corpus, &options, on_progress, &progress, &result, err));
    progress_end(&progress);
    if (values->json) return print_json(run, &result, err);
    print_table(run, &result);
    return PLX_OK;
}

/* ---- Benchmarks ---- */

static plx_status report_model(const char *path, const struct eval_values *values,
                               struct eval_report *report, struct error *err)
{
    const struct eval_report_options options = {
        .tasks = &values->task,
        .folder = values->task_folder,
        .limit = values->limit,
        .task = {.context = values->context, .rows = values->batch},
        .quiet = values->json};
    struct model_run run;
    TRY(model_run_open(&run, path, &values->run, err));
    plx_status status = eval_report_run(&run, &options, report, err);
    model_run_close(&run);
    return status;
}

static plx_status run_tasks(const char *model, const struct eval_values *values, struct error *err)
{
    struct eval_report report = {0};
    plx_status status = report_model(model, values, &report, err);
    if (status == PLX_OK && values->json) status = eval_report_print_json(&report, err);
    if (status == PLX_OK && !values->json) eval_report_print(&report);
    eval_report_clear(&report);
    return status;
}

/* A word of --compare: a file of results by its looks, or a model. */
static plx_status report_side(const char *word, const struct eval_values *values,
                              struct eval_report *report, struct error *err)
{
    const char *suffix = strrchr(word, '.');
    if (suffix != NULL && strcmp(suffix, ".json") == 0) return eval_report_read(word, report, err);
    REQUIRE(err, values->task.count > 0, PLX_INVALID_ARGUMENT,
            "--compare: %s is no .json file of results, and without --task a model has none", word);
    return report_model(word, values, report, err);
}

static plx_status run_compare(const struct eval_values *values, struct error *err)
{
    struct eval_report a = {0}, b = {0};
    REQUIRE(err, values->compare.count == 2, PLX_INVALID_ARGUMENT,
            "--compare: takes two results or models, not %d", values->compare.count);
    plx_status status = report_side(values->compare.items[0], values, &a, err);
    if (status == PLX_OK) status = report_side(values->compare.items[1], values, &b, err);
    if (status == PLX_OK) status = eval_report_compare(&a, &b, values->json, err);
    eval_report_clear(&a);
    eval_report_clear(&b);
    return status;
}

/* ---- The command ---- */

static plx_status run_text(const char *model, const struct eval_values *values, struct error *err)
{
    struct model_run run;
    TRY(model_run_open(&run, model, &values->run, err));
    struct corpus *corpus = NULL;
    plx_status status = load_data(&run, values, &corpus, err);
    if (status == PLX_OK) status = evaluate(&run, corpus, values, err);
    corpus_destroy(corpus);
    model_run_close(&run);
    return status;
}

static plx_status run_eval(const struct option_settings *settings, const struct eval_values *values,
                           struct error *err)
{
    const bool compare = values->compare.count > 0;
    REQUIRE(err, compare || settings->positional_count == 1, PLX_INVALID_ARGUMENT,
            "eval: MODEL is missing");
    REQUIRE(err, !compare || settings->positional_count == 0, PLX_INVALID_ARGUMENT,
            "--compare: names both models, so \"%s\" is one too many", settings->positionals[0]);
    REQUIRE(err, values->data.count == 0 || (values->task.count == 0 && !compare),
            PLX_INVALID_ARGUMENT, "--data cannot be given together with --task or --compare");
    if (compare) return run_compare(values, err);
    const char *model = settings->positionals[0];
    return values->task.count > 0 ? run_tasks(model, values, err) : run_text(model, values, err);
}

static plx_status eval(const struct option_settings *settings, struct error *err)
{
    struct eval_values values = {0};
    plx_status status = options_read(eval_table(), settings, &values, err);
    if (status == PLX_OK) status = run_eval(settings, &values, err);
    options_clear(eval_table(), &values);
    return status;
}

const struct command command_eval = {
    .name = "eval",
    .summary = "measure a model on held-out text or benchmarks",
    .usage = "MODEL --data PATH... | MODEL --task TASK... | --compare A B [OPTION...]",
    .explanation =
        "Scores every token of a text once and prints the mean loss, its perplexity, "
        "and bits per byte, which can be\n"
        "compared between models with different tokenizers. MODEL is a model folder or "
        "a run folder. The text is cut\n"
        "into rows of the model's context; the first token of a document is not scored.\n"
        "With --task it answers benchmarks, scored as lm-evaluation-harness does: "
        "arc_easy, arc_challenge, blimp, boolq,\n"
        "copa, hellaswag, lambada, openbookqa, piqa, sciq, winogrande, wikitext, or "
        "multiple_choice and continuation for\n"
        "files of your own. --json adds every document's score, which --compare reads.",
    .examples = {"parallax eval run --data held-out.txt",
                 "parallax eval run --task piqa arc_easy=ARC-Easy-Test.jsonl --json > a.json"},
    .table = eval_table,
    .min_words = 0,
    .max_words = 1,
    .run = eval,
};
