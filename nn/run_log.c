/* run_log.c: see run_log.h. Every object is one write of one line, so that a killed run leaves at
 * most one partial line, which run_log_resume drops. */
#include "run_log.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "data/utf8.h"
#include "io/fields.h"
#include "io/file.h"

/* A log of a million steps is about 300 MB; more than this is not a log. */
#define RUN_LOG_LIMIT ((size_t)4 << 30)

static plx_status run_log_path(struct run_log *log, const char *run, struct error *err)
{
    int length = snprintf(log->file.path, sizeof log->file.path, "%s/log.jsonl", run);
    REQUIRE(err, length > 0 && (size_t)length < sizeof log->file.path, PLX_INVALID_ARGUMENT,
            "%s: the path is too long", run);
    REQUIRE(err, utf8_is_text(run), PLX_INVALID_ARGUMENT,
            "%s: the folder's name is not UTF-8 text, so the log could not name it", run);
    return PLX_OK;
}

/* Adds a member to an object that is being built; NULL takes the object's place where memory runs
 * out. */
static void put(json_t **object, const char *key, json_t *value)
{
    if (json_object_set_new(*object, key, value) == 0) return;
    json_decref(*object);
    *object = NULL;
}

/* JSON has no NaN: what was not measured is left out, and an infinity becomes null. */
static void put_real(json_t **object, const char *key, double value)
{
    if (!isnan(value)) put(object, key, isinf(value) ? json_null() : json_real(value));
}

/* Of members that are always there. */
static void put_real_or_null(json_t **object, const char *key, double value)
{
    put(object, key, isfinite(value) ? json_real(value) : json_null());
}

/* Writes an object as one line and releases it. */
static plx_status run_log_put(struct run_log *log, json_t *object, struct error *err)
{
    char *text = object ? fields_print(object, JSON_COMPACT | JSON_PRESERVE_ORDER) : NULL;
    json_decref(object);
    REQUIRE(err, text, PLX_OUT_OF_MEMORY, "%s: no memory for a line", log->file.path);
    size_t length = strlen(text);
    text[length] = '\n'; /* over the NUL: one write for line and end */
    plx_status status = append_write(&log->file, text, length + 1, err);
    free(text);
    return status;
}

/* What the rates of the steps that follow are measured against. */
static void put_meter(json_t **object, const struct run_log_facts *facts)
{
    const struct train_meter *meter = facts->meter;
    put(object, "cuda_graphs", json_boolean(facts->cuda_graphs));
    put(object, "device", json_string(meter->device_name));
    put(object, "devices", json_integer(meter->devices));
    put(object, "flops_per_token", json_real(meter->flops.total));
    put(object, "flops_per_token_linear", json_real(meter->flops.linear));
    put(object, "flops_per_token_attention", json_real(meter->flops.attention));
    put(object, "flops_context", json_integer(meter->context));
    put_real_or_null(object, "peak_tflops", meter->peak_tflops);
    put(object, "peak_source", json_string(meter->peak_source));
}

static plx_status run_log_header(struct run_log *log, const struct run_log_facts *facts,
                                 struct error *err)
{
    json_t *options;
    TRY(fields_parse(facts->options_json, strlen(facts->options_json), "the run's options",
                     &options, err));
    json_t *object = json_pack("{s:s, s:s, s:I}", "kind", "run", "version", plx_build(),
                               "parameters", (json_int_t)facts->parameters);
    put(&object, "options", options);
    put_meter(&object, facts);
    return run_log_put(log, object, err);
}

/* Events of a run that goes on after a step, beside those of earlier starts; a new run's are alone.
 */
static plx_status open_board(struct run_log *log, const char *run, int64_t step,
                             const struct run_log_facts *facts, struct error *err)
{
    char folder[sizeof log->file.path];
    int length = snprintf(folder, sizeof folder, "%s/tensorboard", run);
    REQUIRE(err, length > 0 && (size_t)length < sizeof folder, PLX_INVALID_ARGUMENT,
            "%s: the path is too long", run);
    if (step == 0) TRY(file_remove_tree(folder, err));
    return facts->tensorboard ? tensorboard_open(&log->board, folder, step + 1, err) : PLX_OK;
}

plx_status run_log_create(struct run_log *log, const char *run, const struct run_log_facts *facts,
                          struct error *err)
{
    *log = RUN_LOG_CLOSED;
    TRY(run_log_path(log, run, err));
    TRY(file_replace(log->file.path, "", 0, err));
    TRY(append_open(&log->file, err));
    TRY(open_board(log, run, 0, facts, err));
    return run_log_header(log, facts, err);
}

/* Whether a line that was written to its end is not beyond the step. One that cannot be read says
 * nothing of its step, and stays. */
static bool run_log_keeps(const char *line, size_t size, int64_t step)
{
    json_t *object = json_loadb(line, size, 0, NULL);
    json_int_t after = json_integer_value(json_object_get(object, "after_step"));
    json_int_t own = json_integer_value(json_object_get(object, "step"));
    const char *kind = json_string_value(json_object_get(object, "kind"));
    bool result =
        kind && strcmp(kind, "result") == 0; /* the run goes on, so it is no result any more */
    json_decref(object);
    return own <= step && after <= step && !result;
}

/* Moves the kept lines to the front of text and returns their size. */
static size_t run_log_cut(char *text, size_t size, int64_t step)
{
    size_t kept = 0;
    for (size_t start = 0; start < size;) {
        char *end = memchr(text + start, '\n', size - start);
        if (!end) break;
        size_t length = (size_t)(end - text) - start;
        if (run_log_keeps(text + start, length, step)) {
            memmove(text + kept, text + start, length + 1);
            kept += length + 1;
        }
        start += length + 1;
    }
    return kept;
}

plx_status run_log_resume(struct run_log *log, const char *run, int64_t step,
                          const struct run_log_facts *facts, struct error *err)
{
    *log = RUN_LOG_CLOSED;
    TRY(run_log_path(log, run, err));
    TRY(open_board(log, run, step, facts, err));
    if (!file_exists(log->file.path)) {
        TRY(append_open(&log->file, err));
        TRY(run_log_header(log, facts, err));
    } else {
        char *text;
        size_t size;
        TRY(file_read_all(log->file.path, RUN_LOG_LIMIT, &text, &size, err));
        size_t kept = run_log_cut(text, size, step);
        plx_status status = kept == size ? PLX_OK : file_replace(log->file.path, text, kept, err);
        free(text);
        TRY(status);
        TRY(append_open(&log->file, err));
    }
    json_t *object = json_pack("{s:s, s:I}", "kind", "resume", "after_step", (json_int_t)step);
    put_meter(&object, facts);
    return run_log_put(log, object, err);
}

static plx_status put_board(struct run_log *log, const struct train_progress *progress,
                            struct error *err)
{
    const double gib = 1024.0 * 1024.0 * 1024.0;
    const struct tensorboard_scalar scalars[] = {
        {"loss/train", progress->loss},
        {"loss/val", progress->val_loss},
        {"loss/val_bits_per_byte", progress->val_bits_per_byte},
        {"optimizer/lr", progress->lr},
        {"optimizer/grad_norm", progress->grad_norm},
        {"speed/tokens_per_second", progress->tokens_per_second},
        {"speed/device_tokens_per_second", progress->device_tokens_per_second},
        {"speed/device_tflops", progress->device_tflops},
        {"speed/mfu", progress->mfu},
        {"time/step_seconds", progress->seconds},
        {"time/data_seconds", progress->data_seconds},
        {"memory/now_gib", (double)progress->memory_now / gib},
        {"memory/peak_gib", (double)progress->memory_peak / gib},
    };
    return tensorboard_write(&log->board, progress->step, scalars,
                             (int)(sizeof scalars / sizeof *scalars), err);
}

plx_status run_log_step(struct run_log *log, const struct train_progress *progress,
                        struct error *err)
{
    json_t *object = json_pack("{s:s, s:I, s:I}", "kind", "step", "step",
                               (json_int_t)progress->step, "tokens", (json_int_t)progress->tokens);
    put_real(&object, "loss", progress->loss);
    put_real(&object, "lr", progress->lr);
    put_real(&object, "grad_norm", progress->grad_norm);
    put_real(&object, "val_loss", progress->val_loss);
    put_real(&object, "val_bits_per_byte", progress->val_bits_per_byte);
    put_real(&object, "seconds", progress->seconds);
    put_real(&object, "data_seconds", progress->data_seconds);
    put_real(&object, "tokens_per_second", progress->tokens_per_second);
    put_real(&object, "device_tokens_per_second", progress->device_tokens_per_second);
    put_real(&object, "device_tflops", progress->device_tflops);
    put_real_or_null(&object, "mfu", progress->mfu);
    put(&object, "memory", json_integer((json_int_t)progress->memory_now));
    put(&object, "memory_peak", json_integer((json_int_t)progress->memory_peak));
    TRY(run_log_put(log, object, err));
    return log->board.file.descriptor >= 0 ? put_board(log, progress, err) : PLX_OK;
}

plx_status run_log_result(struct run_log *log, const struct train_result *result, struct error *err)
{
    json_t *object = json_pack(
        "{s:s, s:I, s:I, s:I, s:b, s:s}", "kind", "result", "after_step", (json_int_t)result->step,
        "parameters", (json_int_t)result->parameters, "tokens", (json_int_t)result->tokens,
        "stopped_early", result->stopped_early, "checkpoint", result->checkpoint);
    put_real(&object, "loss", result->loss);
    if (result->val.tokens > 0) {
        put_real(&object, "val_loss", result->val.loss);
        put_real(&object, "val_perplexity", result->val.perplexity);
        put_real(&object, "val_bits_per_byte", result->val.bits_per_byte);
    }
    put_real(&object, "seconds", result->seconds);
    put_real(&object, "tokens_per_second", result->tokens_per_second);
    put(&object, "memory_peak", json_integer((json_int_t)result->memory_peak));
    return run_log_put(log, object, err);
}

plx_status run_log_sync(struct run_log *log, struct error *err)
{
    return append_sync(&log->file, err);
}

void run_log_close(struct run_log *log)
{
    append_close(&log->file);
    tensorboard_close(&log->board);
}
