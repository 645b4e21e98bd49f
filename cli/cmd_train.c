/* cmd_train.c: `parallax train`: finds out what to run (defaults, a checkpoint's record, a
 * configuration file, flags), runs it, and reports. The loop itself is nn/train.c. */
#include "cli.h"

#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "launch.h"
#include "model_run.h"
#include "progress.h"
#include "train_from.h"
#include "utf8_stream.h"

/* The run folder where --out is not given. */
#define DEFAULT_RUN "run"
/* For a rank that has lost another one, or has failed, to end by itself. */
#define GRACE_SECONDS 5.0

/* ---- Signals: they end the run after its step; a second Ctrl-C kills ---- */

static volatile sig_atomic_t stop_requested;

/* Schedulers repeat theirs, which must not cost the checkpoint that the first one asked for. */
static void request_stop(int signal_number)
{
    stop_requested = 1;
    if (signal_number == SIGINT) signal(SIGINT, SIG_DFL);
}

static void install_signals(void)
{
    stop_requested = 0;
    struct sigaction action = {.sa_handler = request_stop, .sa_flags = SA_RESTART};
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGUSR1, &action, NULL);
}

/* ---- Hooks of the training loop ---- */

static void on_message(void *user, const char *sentence)
{
    progress_message(user, sentence);
}

static void on_progress(void *user, const struct train_progress *step)
{
    progress_step(user, step);
}

static void on_sample(void *user, int64_t step, const char *text, size_t size)
{
    progress_end(user);
    struct utf8_stream stream = {.file = stdout};
    printf("--- sample after step %lld ---\n", (long long)step);
    utf8_stream_write(&stream, text, size);
    utf8_stream_end(&stream);
    printf("\n---\n");
    fflush(stdout);
}

static bool on_stop(void *user)
{
    (void)user;
    return stop_requested != 0;
}

/* ---- Options ---- */

/* With --resume FOLDER and no --out, the run continues in the folder that holds checkpoints/FOLDER.
 */
static plx_status choose_run(struct train_options *options, struct error *err)
{
    if (options->out[0]) return PLX_OK;
    char run[4096] = DEFAULT_RUN;
    if (options->resume[0] && strcmp(options->resume, "auto") != 0) {
        snprintf(run, sizeof run, "%s", options->resume);
        size_t length = strlen(run);
        while (length > 1 && run[length - 1] == '/') run[--length] = 0;
        char *parent = strstr(run, "checkpoints/step-");
        if (!parent)
            snprintf(run, sizeof run, DEFAULT_RUN);
        else if (parent == run)
            snprintf(run, sizeof run, ".");
        else
            parent[-1] = 0;
    }
    free(options->out);
    options->out = strdup(run);
    REQUIRE(err, options->out, PLX_OUT_OF_MEMORY, "no memory for options");
    return PLX_OK;
}

/* The configuration file and the flags on top of what the options hold. */
static plx_status apply_settings(const struct option_table *table,
                                 const struct option_settings *settings,
                                 struct train_options *options, struct error *err)
{
    if (settings->config) TRY(options_set_file(table, settings->config, options, err));
    return options_set_flags(table, settings, options, err);
}

/* Replaces *options by the defaults with the model's own shape and tokenizer, and on top the
 * configuration file and the flags. */
static plx_status start_from(const struct option_table *table,
                             const struct option_settings *settings,
                             const struct train_hooks *hooks, struct train_options *options,
                             struct error *err)
{
    struct train_options adopted = {0};
    plx_status status = options_set_defaults(table, &adopted, err);
    if (status == PLX_OK) status = train_from_adopt(options->from, hooks, &adopted, err);
    if (status == PLX_OK) status = apply_settings(table, settings, &adopted, err);
    options_clear(table, status == PLX_OK ? options : &adopted);
    if (status != PLX_OK) return status;
    *options = adopted;
    return choose_run(options, err);
}

/* Tells which recorded options differ from those of the checkpoint. */
static void name_differences(const struct option_table *table, const struct train_options *recorded,
                             const struct train_options *options, const struct train_hooks *hooks)
{
    if (!hooks->message) return;
    for (int i = 0; i < table->count; i++) {
        const struct option_row *row = &table->rows[i];
        if (row->unrecorded || option_equal(row, recorded, options)) continue;
        char before[512], now[512], sentence[1200];
        option_print(row, recorded, before, sizeof before);
        option_print(row, options, now, sizeof now);
        snprintf(sentence, sizeof sentence, "%s: %s now, but %s in the checkpoint", row->key, now,
                 before);
        hooks->message(hooks->user, sentence);
    }
}

static plx_status check_start(const struct train_options *recorded,
                              const struct train_options *options, const char *checkpoint,
                              struct error *err)
{
    REQUIRE(err, strcmp(recorded->from, options->from) == 0, PLX_INVALID_ARGUMENT,
            "--from: \"%s\" is not \"%s\", from which the run of %s began", options->from,
            recorded->from, checkpoint);
    return PLX_OK;
}

/* Replaces *options by the checkpoint's record with the configuration file and the flags on top. */
static plx_status rebase(const struct option_table *table, const struct option_settings *settings,
                         const char *checkpoint, struct train_options *options,
                         const struct train_hooks *hooks, struct error *err)
{
    struct train_state state = {0};
    TRY(checkpoint_load_state(checkpoint, &state, err));
    struct train_options recorded = {0};
    char *out = strdup(options->out);
    plx_status status = out ? options_set_defaults(table, &recorded, err)
                            : error_set(err, PLX_OUT_OF_MEMORY, "no memory for options");
    const char *json = state.options_json ? state.options_json : "{}";
    if (status == PLX_OK)
        status = options_set_json(table, json, strlen(json), checkpoint, &recorded, err);
    options_clear(table, options);
    memset(options, 0, sizeof *options);
    if (status == PLX_OK) status = options_set_defaults(table, options, err);
    if (status == PLX_OK)
        status = options_set_json(table, json, strlen(json), checkpoint, options, err);
    if (status == PLX_OK) status = apply_settings(table, settings, options, err);
    if (status == PLX_OK) status = check_start(&recorded, options, checkpoint, err);
    if (status == PLX_OK) {
        name_differences(table, &recorded, options, hooks);
        free(options->out);
        options->out = out;
        out = NULL;
    }
    free(out);
    options_clear(table, &recorded);
    train_state_clear(&state);
    return status;
}

/* ---- The run ---- */

static void report_result(const struct train_options *options, const struct train_result *result)
{
    char tokens[32], rate[32], duration[32], memory[32];
    if (result->stopped_early)
        printf("stopped after step %lld of %lld as asked; continue with --resume auto --out %s\n",
               (long long)result->step, (long long)options->steps, options->out);
    if (!isnan(result->loss))
        printf(
            "trained to step %lld: %s tokens in all; this time %s at %s tokens/s; last loss %.4f\n",
            (long long)result->step, format_count(result->tokens, tokens),
            format_duration(result->seconds, duration),
            format_count(llround(result->tokens_per_second), rate), result->loss);
    if (result->val.tokens > 0)
        printf("held-out text: loss %.4f, perplexity %.3f, %.4f bits/byte over %s tokens\n",
               result->val.loss, result->val.perplexity, result->val.bits_per_byte,
               format_count(result->val.tokens, tokens));
    if (result->memory_peak > 0)
        printf("peak memory: %s\n", format_bytes(result->memory_peak, memory));
    if (result->checkpoint[0])
        printf("model: %s; try: parallax sample %s \"...\"\n", result->checkpoint, options->out);
}

static int64_t ranks_asked(const struct train_options *options)
{
    return options->gpus > 1 ? options->gpus : options->ranks;
}

/* --gpus takes GPUs and --ranks the CPU, whatever auto would find. */
static plx_status settle_device(struct train_options *options, struct error *err)
{
    if (ranks_asked(options) == 1) return PLX_OK;
    REQUIRE(err, options->gpus == 1 || options->ranks == 1, PLX_INVALID_ARGUMENT,
            "--ranks: %lld on the CPU contradict --gpus %lld", (long long)options->ranks,
            (long long)options->gpus);
    const char *flag = options->gpus > 1 ? "--gpus" : "--ranks";
    const char *device = options->gpus > 1 ? device_cuda.name : device_cpu.name;
    bool open = strcmp(options->device, "auto") == 0;
    REQUIRE(err, open || strcmp(options->device, device) == 0, PLX_INVALID_ARGUMENT,
            "%s: its ranks run on %s, but --device is %s", flag, device, options->device);
    char *copy = strdup(device);
    REQUIRE(err, copy, PLX_OUT_OF_MEMORY, "no memory for options");
    free(options->device);
    options->device = copy;
    return PLX_OK;
}

static plx_status run_options(const struct option_table *table, struct train_options *options,
                              struct comm *comm, const struct train_hooks *hooks, struct error *err)
{
    char *json;
    TRY(settle_device(options, err));
    TRY(train_settle_dtype(options, err));
    TRY(options_format(table, options, &json, err));
    install_signals();
    if (options->portable) model_run_hold_portable();
    struct train_result result;
    plx_status status = train_run(options, json, comm, hooks, &result, err);
    free(json);
    if (comm_rank(comm) > 0) return status;
    progress_end(hooks->user);
    if (status == PLX_OK) report_result(options, &result);
    return status;
}

static plx_status prepare_and_run(const struct option_settings *settings,
                                  struct train_options *options, struct comm *comm,
                                  struct error *err)
{
    const struct option_table *table = train_option_table();
    struct progress progress = progress_make(options->log_every);
    struct train_hooks hooks = {on_message, on_progress, on_sample, on_stop, &progress};
    if (comm_rank(comm) > 0) hooks = (struct train_hooks){.stop = on_stop};
    char checkpoint[4096];
    TRY(train_find_checkpoint(options->out, options->resume, &hooks, checkpoint, sizeof checkpoint,
                              err));
    if (checkpoint[0])
        TRY(rebase(table, settings, checkpoint, options, &hooks, err));
    else if (options->from[0])
        TRY(start_from(table, settings, &hooks, options, err));
    progress.log_every = options->log_every;
    free(options->resume);
    options->resume = strdup(checkpoint);
    REQUIRE(err, options->resume, PLX_OUT_OF_MEMORY, "no memory for options");
    return run_options(table, options, comm, &hooks, err);
}

/* Ends a rank whose own thread waits for what will never come. That thread may hold the lock of
 * stdout, and what atexit has in store may wait for the device, too. */
static void end_rank(void *comm, bool lost, const struct error *err)
{
    struct error sentence = *err;
    bool told = launch_report(err->status, lost, &sentence),
         drawn = comm_rank(comm) == 0 && isatty(STDERR_FILENO); /* a line of progress, maybe */
    if (!told) fprintf(stderr, "%sparallax: %s\n", drawn ? "\n" : "", sentence.text);
    _exit(1);
}

/* This process's part of the run: all of it, or that of one rank. */
static plx_status run_rank(const struct option_settings *settings, struct train_options *options,
                           struct error *err)
{
    struct comm *comm = NULL;
    plx_status status = comm_open(&comm, err);
    const int64_t asked = ranks_asked(options);
    if (status == PLX_OK && asked > 1 && asked != comm_size(comm))
        status = error_set(err, PLX_INVALID_ARGUMENT,
                           "--gpus: %lld, but %s says that there are %d ranks", (long long)asked,
                           place_launcher()->size, comm_size(comm));
    if (status == PLX_OK) status = comm_watch(comm, GRACE_SECONDS, end_rank, comm);
    if (status == PLX_OK) status = prepare_and_run(settings, options, comm, err);
    bool lost = comm_lost(comm);
    comm_close(comm, status == PLX_OK);
    if (status == PLX_OK || place_launcher() == NULL || !launch_report(status, lost, err))
        return status;
    fflush(stdout);
    exit(1);
}

static plx_status read_options(const struct option_settings *settings,
                               struct train_options *options, struct error *err)
{
    TRY(options_read(train_option_table(), settings, options, err));
    TRY(choose_run(options, err));
    return settle_device(options, err);
}

static plx_status launch_or_run(const struct option_settings *settings,
                                struct train_options *options, struct error *err)
{
    plx_status status = read_options(settings, options, err);
    if (status != PLX_OK) {
        comm_decline();
        return status;
    }
    int64_t asked = ranks_asked(options);
    if (asked > 1 && place_launcher() == NULL)
        return launch_ranks(settings, (int)asked, options->out, err);
    return run_rank(settings, options, err);
}

static plx_status train(const struct option_settings *settings, struct error *err)
{
    struct train_options options = {0};
    plx_status status = launch_or_run(settings, &options, err);
    options_clear(train_option_table(), &options);
    return status;
}

const struct command command_train = {
    .name = "train",
    .summary = "train a model on text, or continue a run",
    .usage = "--data PATH... [--from MODEL] [OPTION...]",
    .explanation =
        "Trains a decoder language model whose layers mix tokens by Parallax or softmax "
        "attention. The run folder\n"
        "receives log.jsonl (one JSON object a step) and checkpoints, each of them a "
        "model folder that sample and\n"
        "eval read. A run that was interrupted, even by a crash, continues with "
        "--resume auto and ends with the same\n"
        "bits as if it had not been. Ctrl-C, SIGTERM or SIGUSR1 finishes the step, writes "
        "a checkpoint and ends; a second\n"
        "Ctrl-C kills.",
    .examples = {"parallax train --data texts/ --out run --steps 2000 --sample-every 500",
                 "parallax train --from model --data texts/ --out tuned --steps 500 --lr 1e-3"},
    .table = train_option_table,
    .max_words = 0,
    .run = train,
    .refused = comm_decline,
};
