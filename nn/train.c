/* train.c: the training loop, readable in one sitting.
 *
 * A step: fetch the micro-batches, add up their gradients with every token weighing 1 / scored
 * tokens of the whole step (so accumulation equals a larger batch), clip and update, then evaluate,
 * sample, log and checkpoint where it is their turn. Everything up to the update is queued
 * (train_step.h); a GPU is waited for once in --log-every steps, and where something else needs it.
 * All that a step depends on (weights, optimiser state, data position, random numbers) is in a
 * checkpoint, so a resumed run computes the same bits as one never interrupted.
 *
 * A loss or a gradient that is not finite ends the run; such a gradient changes nothing. A
 * checkpoint is only written of weights whose loss on the step's last micro-batch is finite, so the
 * last checkpoint is always a good one. */
#include "train.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/file.h"
#include "process.h"
#include "train_session.h"

/* ---- Where to continue ---- */

static bool run_holds(const char *run, const char *name)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", run, name);
    return file_exists(path) || file_is_folder(path);
}

static bool same_folder(const char *a, const char *b)
{
    char *real_a = realpath(a, NULL);
    char *real_b = realpath(b, NULL);
    bool same = real_a && real_b && strcmp(real_a, real_b) == 0;
    free(real_a);
    free(real_b);
    return same;
}

/* --resume FOLDER: a sound checkpoint that may continue in run: run holds nothing, or this is its
 * newest. */
static plx_status find_named(const char *run, const char *folder, const struct train_hooks *hooks,
                             char *path, size_t size, struct error *err)
{
    REQUIRE(err, file_is_folder(folder), PLX_IO_ERROR, "%s: is not a checkpoint folder", folder);
    TRY(checkpoint_verify(folder, err));
    if (run_holds(run, "checkpoints")) {
        char newest[4096];
        bool found = false;
        TRY(checkpoint_latest(run, newest, sizeof newest, &found, train_session_note, (void *)hooks,
                              err));
        REQUIRE(
            err, !found || same_folder(newest, folder), PLX_INVALID_ARGUMENT,
            "--resume: %s is not the newest checkpoint of %s, which is %s; choose another --out",
            folder, run, newest);
    }
    int length = snprintf(path, size, "%s", folder);
    REQUIRE(err, length >= 0 && (size_t)length < size, PLX_INVALID_ARGUMENT,
            "%s: the path is too long", folder);
    return PLX_OK;
}

plx_status train_find_checkpoint(const char *run, const char *resume,
                                 const struct train_hooks *hooks, char *path, size_t size,
                                 struct error *err)
{
    path[0] = 0;
    if (resume[0] == 0) {
        REQUIRE(err, !run_holds(run, "checkpoints") && !run_holds(run, "log.jsonl"),
                PLX_INVALID_ARGUMENT,
                "%s: already holds a run; continue it with --resume auto or choose another --out",
                run);
        return PLX_OK;
    }
    if (strcmp(resume, "auto") != 0) return find_named(run, resume, hooks, path, size, err);
    bool found = false;
    if (run_holds(run, "checkpoints"))
        TRY(checkpoint_latest(run, path, size, &found, train_session_note, (void *)hooks, err));
    if (!found) {
        path[0] = 0;
        train_session_say(hooks,
                          "%s: holds no checkpoint yet, so the run starts from the beginning", run);
    }
    return PLX_OK;
}

/* ---- One step ---- */

/* What the user still has, for the end of a sentence. */
static void name_checkpoint(const struct train_session *session, char *clause, size_t size)
{
    if (session->last_checkpoint[0])
        snprintf(clause, size, "the last good checkpoint is %s", session->last_checkpoint);
    else
        snprintf(clause, size, "no checkpoint had been written");
}

/* Ends the run with one sentence: what is wrong, and what the user still has. */
static plx_status end_badly(struct train_session *session, plx_status status, const char *what)
{
    char clause[sizeof session->last_checkpoint + 32];
    name_checkpoint(session, clause, sizeof clause);
    error_clear(session->err);
    return error_set(session->err, status, "%s; %s", what, clause);
}

static plx_status diverged(struct train_session *session, int64_t step, const char *what)
{
    char sentence[sizeof session->err->text + 32];
    snprintf(sentence, sizeof sentence, "step %lld: %s", (long long)step, what);
    return end_badly(session, PLX_BAD_DATA, sentence);
}

/* Only rank 0 knows which checkpoints are complete, and names the last one where it loses a rank:
 * while it waits for what never comes, by what is told here. */
static void tell_checkpoint(struct train_session *session)
{
    char clause[sizeof session->last_checkpoint + 32];
    name_checkpoint(session, clause, sizeof clause);
    if (comm_rank(session->comm) == 0) comm_loss_ends_with(session->comm, clause);
}

static plx_status lost_rank(struct train_session *session, plx_status status)
{
    char what[sizeof session->err->text];
    if (!comm_lost(session->comm) || comm_rank(session->comm) > 0) return status;
    snprintf(what, sizeof what, "%s", session->err->text);
    return end_badly(session, status, what);
}

static plx_status queue_step(struct train_session *session, struct train_progress *progress)
{
    const double scale = 1.0 / (double)session->count.scored;
    const int64_t step = session->state.step, last = session->options->accumulate - 1;
    const double factor = schedule_lr(&session->schedule, step);
    progress->lr = factor * session->peak_lr;
    TRY(train_step_begin(&session->step, session->count.alike));
    for (int64_t i = 0; i <= last; i++)
        TRY(train_step_add(&session->step, &session->micro[i].batch, scale, i == last));
    return train_step_update(&session->step, factor,
                             schedule_weight_decay(&session->schedule, step));
}

static plx_status run_step(struct train_session *session)
{
    struct train_progress progress = {.steps = session->options->steps};
    struct train_readings *readings = &session->readings;
    double start = process_seconds();
    if (readings->count == 0) readings->began = start;
    TRY(train_session_fetch(session));
    progress.data_seconds = process_seconds() - start;
    TRY(queue_step(session, &progress));
    progress.step = ++session->state.step;
    progress.tokens = session->state.tokens += session->count.tokens;
    session->state.position = loader_position(session->loader);
    return train_readings_add(readings, session->model, session->optim, &progress,
                              session->count.scored);
}

/* Waits for the steps that are queued and refuses the first whose loss or gradient is not finite.
 */
static plx_status read_steps(struct train_session *session)
{
    struct train_readings *readings = &session->readings;
    TRY(train_readings_read(readings, session->comm));
    struct optim_report report = {0};
    plx_status status = optim_read_report(session->optim, &report);
    if (status != PLX_OK && status != PLX_BAD_DATA) return status;
    for (int i = 0; i < readings->count; i++) {
        const struct train_progress *step = &readings->steps[i];
        if (!isfinite(step->loss))
            return diverged(session, step->step,
                            isnan(step->loss) ? "the loss is nan" : "the loss is infinite");
        if (report.bad_step != step->step) continue;
        char what[sizeof session->err->text];
        snprintf(what, sizeof what, "%s", session->err->text);
        return diverged(session, step->step, what);
    }
    return status;
}

/* ---- What happens between steps ---- */

static bool is_turn(int64_t step, int64_t every)
{
    return every > 0 && step % every == 0;
}

static plx_status evaluate(struct train_session *session, struct eval_result *result)
{
    return eval_run(session->model, session->held_out, &session->eval, NULL, NULL, result,
                    session->err);
}

/* Rank 0's part, which nothing cuts off. */
static plx_status write_checkpoint(struct train_session *session)
{
    const struct train_options *options = session->options;
    TRY(run_log_sync(&session->log, session->err));
    TRY(checkpoint_save(options->out, session->model, session->optim, session->tokenizer,
                        &session->companions, &session->state, (int)options->keep, session->err));
    optim_return(session->optim);
    return PLX_OK;
}

static plx_status save_checkpoint(struct train_session *session)
{
    const struct train_options *options = session->options;
    struct model_loss loss = {0};
    const struct batch *batch = &session->micro[options->accumulate - 1].batch;
    TRY(model_loss(session->model, batch, &loss));
    TRY(comm_sum(session->comm, &loss.sum, 1));
    if (!isfinite(loss.sum))
        return diverged(session, session->state.step, "the loss after the update is not finite");
    TRY(sharding_collect(&session->sharding, session->optim));
    comm_hold(session->comm);
    plx_status status = comm_rank(session->comm) == 0 ? write_checkpoint(session) : PLX_OK;
    if (status == PLX_OK) {
        snprintf(session->last_checkpoint, sizeof session->last_checkpoint,
                 "%s/checkpoints/step-%08lld", options->out, (long long)session->state.step);
        session->last_checkpoint_step = session->state.step;
        tell_checkpoint(session);
    }
    comm_release(session->comm);
    return status;
}

/* A sample's text while it grows. */
struct sample_text {
    char *text;
    size_t size;
    bool failed;
};

static bool collect(void *user, const char *bytes, size_t size)
{
    struct sample_text *sample = user;
    char *grown = realloc(sample->text, sample->size + size + 1);
    if (!grown) {
        sample->failed = true;
        return false;
    }
    memcpy(grown + sample->size, bytes, size);
    sample->text = grown;
    sample->size += size;
    return true;
}

static plx_status write_sample(struct train_session *session)
{
    const struct train_options *options = session->options;
    struct sample_options sampling = sample_options_default();
    sampling.temperature = options->sample_temperature;
    sampling.max_tokens = options->sample_tokens;
    sampling.seed = rng_u64(&session->state.rng);
    struct sample_text sample = {0};
    struct sample_report report;
    plx_status status = sample_run(session->model, session->tokenizer, options->sample_prompt,
                                   strlen(options->sample_prompt), &sampling, collect, &sample,
                                   &report, session->err);
    if (status == PLX_OK && sample.failed)
        status = error_set(session->err, PLX_OUT_OF_MEMORY, "no memory for a sample's text");
    if (status == PLX_OK && session->hooks->sample)
        session->hooks->sample(session->hooks->user, session->state.step,
                               sample.text ? sample.text : "", sample.size);
    free(sample.text);
    return status;
}

/* ---- The run ---- */

/* What the user sees and reads of a step: rank 0's part. */
static plx_status report_step(struct train_session *session, const struct train_progress *progress)
{
    TRY(run_log_step(&session->log, progress, session->err));
    if (session->hooks->progress) session->hooks->progress(session->hooks->user, progress);
    return is_turn(progress->step, session->options->sample_every) ? write_sample(session) : PLX_OK;
}

/* Whether the host must know of the steps up to this one before the next is queued. */
static bool is_read(const struct train_session *session)
{
    const struct train_options *options = session->options;
    const int64_t step = session->state.step;
    return session->readings.count == session->readings.depth || step >= options->steps ||
           is_turn(step, options->log_every) || is_turn(step, options->sample_every) ||
           is_turn(step, options->checkpoint_every) ||
           (session->held_out && is_turn(step, options->eval_every));
}

/* What follows the steps that are queued, of which only the last can be one to evaluate, sample or
 * checkpoint after. */
static plx_status after_steps(struct train_session *session, struct train_result *result)
{
    const struct train_options *options = session->options;
    struct train_readings *readings = &session->readings;
    const int64_t step = session->state.step;
    const bool last = step >= options->steps;
    TRY(read_steps(session));
    result->val = (struct eval_result){0};
    if (session->held_out && (last || is_turn(step, options->eval_every)))
        TRY(evaluate(session, &result->val));
    for (int i = 0; i < readings->count; i++) {
        struct train_progress *progress = &readings->steps[i];
        bool evaluated = progress->step == step && result->val.tokens > 0;
        progress->val_loss = evaluated ? result->val.loss : NAN;
        progress->val_bits_per_byte = evaluated ? result->val.bits_per_byte : NAN;
        TRY(train_meter_step(&session->meter, progress, session->err));
        result->loss = progress->loss;
        result->memory_peak = progress->memory_peak;
        if (comm_rank(session->comm) == 0) TRY(report_step(session, progress));
    }
    readings->count = 0;
    if (last || is_turn(step, options->checkpoint_every)) TRY(save_checkpoint(session));
    return PLX_OK;
}

/* Where one rank must, all stop after the same step, and forget their graphs. */
static plx_status must_stop(struct train_session *session, bool *stop)
{
    enum { STOP, STALE };
    const double limit = session->options->max_seconds;
    bool asked = session->hooks->stop && session->hooks->stop(session->hooks->user);
    bool late = limit > 0 && process_seconds() - session->meter.start >= limit;
    double wanted[] = {[STOP] = asked || late, [STALE] = train_step_is_stale(&session->step)};
    TRY(comm_sum(session->comm, wanted, 2));
    if (wanted[STALE] > 0) train_step_forget(&session->step);
    *stop = wanted[STOP] > 0;
    return PLX_OK;
}

static plx_status run_loop(struct train_session *session, struct train_result *result)
{
    train_meter_start(&session->meter, session->state.tokens);
    while (session->state.step < session->options->steps) {
        TRY(must_stop(session, &result->stopped_early));
        if (result->stopped_early) break;
        TRY(run_step(session));
        if (is_read(session)) TRY(after_steps(session, result));
    }
    if (session->readings.count > 0) TRY(after_steps(session, result));
    result->seconds = process_seconds() - session->meter.start;
    result->tokens_per_second = train_meter_rate(&session->meter);
    return PLX_OK;
}

static plx_status run_session(struct train_session *session, struct train_result *result)
{
    if (session->state.step >= session->options->steps)
        train_session_say(session->hooks, "all %lld steps are done already",
                          (long long)session->options->steps);
    TRY(run_loop(session, result));
    if (session->state.step > 0 && session->last_checkpoint_step != session->state.step)
        TRY(save_checkpoint(session));
    bool finished = session->state.step >= session->options->steps;
    if (session->held_out && finished && result->val.tokens == 0)
        TRY(evaluate(session, &result->val));
    result->step = session->state.step;
    result->tokens = session->state.tokens;
    result->parameters = param_list_elements(model_params(session->model));
    snprintf(result->checkpoint, sizeof result->checkpoint, "%s", session->last_checkpoint);
    if (comm_rank(session->comm) > 0) return PLX_OK;
    return run_log_result(&session->log, result, session->err);
}

plx_status train_run(const struct train_options *options, const char *options_json,
                     struct comm *comm, const struct train_hooks *hooks,
                     struct train_result *result, struct error *err)
{
    static const struct train_hooks silent;
    *result = (struct train_result){.loss = NAN, .tokens_per_second = NAN};
    struct train_session session;
    TRY(train_session_open(&session, options, options_json, comm, hooks ? hooks : &silent, err));
    comm_hold(comm);
    tell_checkpoint(&session);
    comm_release(comm);
    plx_status status = run_session(&session, result);
    if (status != PLX_OK) status = lost_rank(&session, status);
    train_session_close(&session, status == PLX_OK);
    return status;
}
