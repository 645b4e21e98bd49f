/* train_session.c: builds what a run needs, in this order: the folder it starts from, data,
 * backend, model, optimiser, loader, sizes; then resumes, opens the log and tells the user what
 * will run. Next: train.c. */
#include "train_session.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "chat/chat.h"
#include "io/file.h"
#include "mixers/mixer.h"
#include "train_from.h"
#include "train_report.h"

/* Streams of the run's seed; the model's parameters derive theirs from seed and name. */
enum { TRAIN_STREAM_SAMPLES = 3 };

void train_session_say(const struct train_hooks *hooks, const char *format, ...)
{
    if (!hooks || !hooks->message) return;
    char text[2048];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    hooks->message(hooks->user, text);
}

void train_session_note(void *user, const char *sentence)
{
    train_session_say(user, "%s", sentence);
}

/* ---- The folder it starts from ---- */

/* A resumed run has all of the model in its checkpoint: the folder it began with may be gone. */
static plx_status find_model(struct train_session *session)
{
    const struct train_options *options = session->options;
    if (options->from[0] == 0) return PLX_OK;
    if (options->resume[0] == 0)
        TRY(train_from_find(options->from, session->hooks, session->model_folder,
                            sizeof session->model_folder, session->err));
    else
        snprintf(session->model_folder, sizeof session->model_folder, "%s", options->resume);
    return companions_read(session->model_folder, &session->companions, session->err);
}

/* ---- Data ---- */

static plx_status load_tokenizer(struct train_session *session)
{
    const char *name = session->options->tokenizer, *folder = session->model_folder;
    bool of_model = strcmp(name, TRAIN_TOKENIZER_OF_MODEL) == 0;
    REQUIRE(session->err, of_model == (folder[0] != 0), PLX_INVALID_ARGUMENT,
            of_model ? "--tokenizer: %s is the one of --from, which is not given"
                     : "--tokenizer: %s contradicts --from, which brings its own; only model and "
                       "none go with it",
            name);
    if (strcmp(name, "bytes") == 0)
        return tokenizer_create_bytes(&session->tokenizer, session->err);
    if (!of_model) return tokenizer_load(name, &session->tokenizer, session->err);
    TRY(tokenizer_load_folder(folder, &session->tokenizer, session->err));
    REQUIRE(session->err, session->tokenizer, PLX_IO_ERROR,
            "%s: holds no tokenizer, so only token shards can be read, with --tokenizer none",
            folder);
    return PLX_OK;
}

static plx_status open_tokenizer(struct train_session *session)
{
    const struct train_options *options = session->options;
    if (strcmp(options->tokenizer, "none") == 0) {
        REQUIRE(session->err, options->vocab_size > 0, PLX_INVALID_ARGUMENT,
                "--vocab-size: must be given with --tokenizer none");
        session->vocab_size = options->vocab_size;
        session->end_of_text = (int32_t)options->separator;
        return PLX_OK;
    }
    TRY(load_tokenizer(session));
    session->vocab_size = tokenizer_vocab_size(session->tokenizer);
    REQUIRE(session->err, options->vocab_size == 0 || options->vocab_size >= session->vocab_size,
            PLX_INVALID_ARGUMENT, "--vocab-size: %lld is less than the tokenizer's %lld",
            (long long)options->vocab_size, (long long)session->vocab_size);
    if (options->vocab_size > 0) session->vocab_size = options->vocab_size;
    session->end_of_text = options->separator >= 0 ? (int32_t)options->separator
                                                   : tokenizer_end_of_text(session->tokenizer);
    return PLX_OK;
}

static plx_status load_corpus(struct train_session *session, const struct text_list *paths,
                              struct corpus **corpus)
{
    struct corpus_options options = {.paths = (const char *const *)paths->items,
                                     .path_count = paths->count,
                                     .tokenizer = session->tokenizer,
                                     .vocab_size = session->vocab_size,
                                     .separator = session->end_of_text,
                                     .max_bytes = session->options->max_data_bytes,
                                     .jsonl_field = session->options->jsonl_field};
    if (session->options->chat_template[0])
        TRY(chat_template_by_name(session->options->chat_template, &options.chat, session->err));
    int64_t skipped = 0;
    TRY(corpus_load(&options, corpus, &skipped, session->err));
    if (skipped > 0)
        train_session_say(session->hooks,
                          "skipped %lld files that are neither text nor token shards",
                          (long long)skipped);
    return PLX_OK;
}

static plx_status open_data(struct train_session *session)
{
    const struct train_options *options = session->options;
    REQUIRE(session->err, options->data.count > 0, PLX_INVALID_ARGUMENT,
            "--data: no file or folder is given to train on");
    TRY(open_tokenizer(session));
    TRY(load_corpus(session, &options->data, &session->corpus));
    if (options->val_data.count > 0)
        TRY(load_corpus(session, &options->val_data, &session->held_out));
    else if (options->val_fraction > 0)
        TRY(corpus_split(session->corpus, options->val_fraction, (uint64_t)options->seed,
                         &session->held_out, session->err));
    struct loader_options loader_options = {.rows = options->batch,
                                            .context = options->context,
                                            .seed = (uint64_t)options->seed,
                                            .shuffle = options->shuffle,
                                            .shuffle_rows = options->shuffle,
                                            .mask_documents = options->mask_documents,
                                            .loop = true};
    TRY(loader_create(session->corpus, &loader_options, &session->loader, session->err));
    session->max_sequences = loader_max_sequences(session->loader);
    session->eval = (struct eval_options){.rows = options->batch,
                                          .context = options->context,
                                          .max_tokens = options->eval_tokens,
                                          .mask_documents = options->mask_documents,
                                          .comm = session->comm};
    if (session->held_out) {
        int64_t sequences;
        TRY(eval_max_sequences(session->held_out, &session->eval, &sequences, session->err));
        if (sequences > session->max_sequences) session->max_sequences = sequences;
    }
    return PLX_OK;
}

static plx_status allocate_micro_batches(struct train_session *session)
{
    int64_t count = session->options->accumulate;
    size_t tokens = (size_t)(session->options->batch * session->options->context);
    size_t offsets = (size_t)session->max_sequences + 1;
    session->micro = calloc((size_t)count, sizeof *session->micro);
    REQUIRE(session->err, session->micro, PLX_OUT_OF_MEMORY, "no memory for %lld micro-batches",
            (long long)count);
    for (int64_t i = 0; i < count; i++) {
        struct micro_batch *micro = &session->micro[i];
        micro->ids = calloc(3 * tokens + offsets, sizeof *micro->ids);
        REQUIRE(session->err, micro->ids, PLX_OUT_OF_MEMORY,
                "no memory for a micro-batch of %zu tokens", tokens);
        micro->targets = micro->ids + tokens;
        micro->positions = micro->targets + tokens;
        micro->offsets = micro->positions + tokens;
    }
    return PLX_OK;
}

static void micro_batch_copy(struct micro_batch *micro, const struct batch *batch)
{
    size_t tokens = (size_t)batch->tokens;
    memcpy(micro->ids, batch->ids, tokens * sizeof *micro->ids);
    memcpy(micro->targets, batch->targets, tokens * sizeof *micro->targets);
    memcpy(micro->positions, batch->positions, tokens * sizeof *micro->positions);
    memcpy(micro->offsets, batch->offsets, ((size_t)batch->sequences + 1) * sizeof *micro->offsets);
    micro->batch = (struct batch){.tokens = batch->tokens,
                                  .sequences = batch->sequences,
                                  .ids = micro->ids,
                                  .targets = micro->targets,
                                  .positions = micro->positions,
                                  .offsets = micro->offsets};
}

static void count_batch(struct step_count *count, const struct batch *batch)
{
    if (count->tokens == 0)
        *count = (struct step_count){
            .first = batch->tokens, .sequences = batch->sequences, .alike = true, .even = true};
    count->alike &= batch->tokens == count->first;
    count->even &= batch_is_even(batch) && batch->sequences == count->sequences;
    if (batch->sequences > count->sequences) count->sequences = batch->sequences;
    count->tokens += batch->tokens;
    for (int64_t n = 0; n < batch->tokens; n++) count->scored += batch->targets[n] >= 0;
}

/* One micro-batch of every rank, in the order of ranks: together they are what a single rank with
 * as many times the rows would read. Every rank reads them all, which costs little beside a step,
 * so each knows the counts of all and where the data stands, and a run can go on with another
 * number of ranks. */
static plx_status fetch_micro_batch(struct train_session *session, struct micro_batch *micro)
{
    for (int r = 0; r < comm_size(session->comm); r++) {
        struct batch batch;
        bool more;
        TRY(loader_next(session->loader, &batch, &more, session->err));
        REQUIRE(session->err, more, PLX_INTERNAL, "the training data ended, though it loops");
        if (r == comm_rank(session->comm)) micro_batch_copy(micro, &batch);
        count_batch(&session->count, &batch);
    }
    return PLX_OK;
}

static plx_status fetch_once(struct train_session *session)
{
    session->count = (struct step_count){.tokens = 0};
    for (int64_t i = 0; i < session->options->accumulate; i++)
        TRY(fetch_micro_batch(session, &session->micro[i]));
    return PLX_OK;
}

/* Where steps may be graphs, the micro-batches of one step, on all ranks, are of one shape, and
 * those of many steps are. With graphs turned off they are too, so that the bits are the same. */
static void fill_up(const struct train_session *session)
{
    if (session->backend.device->capture_begin == NULL || session->count.even) return;
    int64_t sequences = train_step_sequences(session->count.sequences);
    if (sequences > session->max_sequences) sequences = session->max_sequences;
    for (int64_t i = 0; i < session->options->accumulate; i++) {
        struct micro_batch *micro = &session->micro[i];
        for (int64_t s = micro->batch.sequences; s < sequences; s++)
            micro->offsets[s + 1] = (int32_t)micro->batch.tokens;
        micro->batch.sequences = sequences;
        micro->batch.uneven = true;
    }
}

plx_status train_session_fetch(struct train_session *session)
{
    /* A tiny batch of tiny documents may have nothing to learn from; it is passed over. The loader
     * refuses a corpus in which that would never end. */
    do TRY(fetch_once(session));
    while (session->count.scored == 0);
    fill_up(session);
    return PLX_OK;
}

/* ---- Model and optimiser ---- */

static plx_status describe_model(const struct train_session *session, struct model_config *config)
{
    const struct train_options *options = session->options;
    if (session->model_folder[0] == 0)
        return train_model_config(options, session->vocab_size, session->end_of_text, config,
                                  session->err);
    TRY(model_folder_config(session->model_folder, config, session->err));
    if (options->resume[0] == 0)
        TRY(train_from_adapt(options, session->model_folder, config, session->err));
    return train_from_check(options, session->vocab_size, config, session->model_folder,
                            session->err);
}

/* A resumed run loads its weights with its state. */
static plx_status set_weights(struct train_session *session)
{
    const struct train_options *options = session->options;
    if (session->model_folder[0] == 0 || options->resume[0])
        return model_init(session->model, (uint64_t)options->seed);
    TRY(model_load_adapted(session->model, session->model_folder, (uint64_t)options->seed,
                           session->err));
    train_session_say(session->hooks, "starting from the weights of %s", session->model_folder);
    return PLX_OK;
}

/* With several ranks each has a GPU of its own. */
static plx_status choose_rank_device(const struct train_session *session,
                                     struct backend_config *config)
{
    if (comm_size(session->comm) == 1) return PLX_OK;
    REQUIRE(session->err, config->device_index == 0, PLX_INVALID_ARGUMENT,
            "--device: %s names one GPU, but %d ranks share the run", session->options->device,
            comm_size(session->comm));
    config->device_index = comm_device_index(session->comm, config->ops->device->kind);
    return PLX_OK;
}

/* Nothing is allocated before it is known that all of it fits. */
static plx_status build_parts(struct train_session *session, const struct model_config *config)
{
    const struct train_options *options = session->options;
    struct backend *be = &session->backend;
    struct train_shape shape;
    struct train_parts parts;
    struct train_memory taken;
    struct device_memory device;
    TRY(train_shape_make(options, config, session->max_sequences, &shape, session->err));
    TRY(train_memory_measure(be, options, session->comm, &shape, &session->memory));
    TRY(be->device->memory(&device, session->err));
    session->available = device.available;
    TRY(train_memory_check(be, options, session->comm, &shape, &session->memory, device.available));
    /* At once as large as it will be: growing it later would hold both for a moment. */
    TRY(backend_reserve(be, session->memory.scratch));
    TRY(train_parts_create(be, options, session->comm, &shape, &parts, &taken));
    session->model = parts.model;
    session->sharding = parts.sharding;
    session->optim = parts.optim;
    session->peak_lr = shape.optim.lr;
    session->step =
        train_step_make(session->model, &session->sharding, session->optim, options->cuda_graphs);
    return train_readings_create(&session->readings, be,
                                 train_readings_depth(be->device, options->log_every));
}

static plx_status open_model(struct train_session *session)
{
    const struct train_options *options = session->options;
    struct model_config config;
    TRY(describe_model(session, &config));
    struct backend_config backend_config;
    TRY(train_backend_config(options, &backend_config, session->err));
    TRY(choose_rank_device(session, &backend_config));
    TRY(train_schedule_config(options, &session->schedule, session->err));
    TRY(backend_create(&session->backend, &backend_config, session->err));
    session->backend_exists = true;
    TRY(comm_attach(session->comm, session->backend.device->kind));
    TRY(build_parts(session, &config));
    TRY(set_weights(session));
    return train_meter_create(&session->meter, options, comm_size(session->comm), &session->backend,
                              &config, model_params(session->model));
}

/* A sample that would not fit must be refused before the first step, not at the first sample. */
static plx_status check_samples(struct train_session *session)
{
    const struct train_options *options = session->options;
    if (options->sample_every == 0) return PLX_OK;
    REQUIRE(session->err, session->tokenizer, PLX_INVALID_ARGUMENT,
            "--sample-every: needs a tokenizer, but --tokenizer is none");
    int64_t count = 0;
    plx_status status =
        tokenizer_encode_as(session->tokenizer, options->sample_prompt,
                            strlen(options->sample_prompt), SAMPLE_ENCODING, NULL, 0, &count, NULL);
    if (status != PLX_OK && status != PLX_WORKSPACE_TOO_SMALL)
        return error_set(session->err, status, "--sample-prompt: cannot be tokenised");
    REQUIRE(session->err, count + options->sample_tokens <= options->context, PLX_INVALID_ARGUMENT,
            "--sample-tokens: %lld after a prompt of %lld tokens exceed the context of %lld",
            (long long)options->sample_tokens, (long long)count, (long long)options->context);
    return PLX_OK;
}

/* ---- Resuming ---- */

static plx_status resume(struct train_session *session)
{
    const char *folder = session->options->resume;
    char *options_json = session->state.options_json;
    uint64_t fingerprint = session->state.corpus_fingerprint;
    struct train_state loaded = {0};
    TRY(checkpoint_load_state(folder, &loaded, session->err));
    free(loaded.options_json);
    session->state = loaded;
    session->state.options_json = options_json;
    session->state.corpus_fingerprint = fingerprint;
    TRY(checkpoint_load(folder, session->model, session->optim, session->err));
    optim_set_steps(session->optim, loaded.step);
    if (loaded.corpus_fingerprint == fingerprint)
        TRY(loader_seek(session->loader, loaded.position, session->err));
    else
        train_session_say(
            session->hooks,
            "the training data is not what this run was trained on so far; it is read "
            "from its beginning");
    snprintf(session->last_checkpoint, sizeof session->last_checkpoint, "%s", folder);
    session->last_checkpoint_step = loaded.step;
    train_session_say(session->hooks, "resuming after step %lld from %s", (long long)loaded.step,
                      folder);
    return PLX_OK;
}

/* That all ranks are about to do the same; nothing has been written yet. */
static plx_status agree(struct train_session *session, const char *options_json)
{
    TRY(comm_agree(session->comm, "the options", XXH64(options_json, strlen(options_json), 0)));
    TRY(comm_agree(session->comm, "the training data", session->state.corpus_fingerprint));
    return comm_agree(session->comm, "the step to resume after", (uint64_t)session->state.step);
}

static plx_status open_state(struct train_session *session, const char *options_json)
{
    const struct train_options *options = session->options;
    session->state.options_json = strdup(options_json);
    REQUIRE(session->err, session->state.options_json, PLX_OUT_OF_MEMORY,
            "no memory for the options");
    session->state.rng = rng_make((uint64_t)options->seed, TRAIN_STREAM_SAMPLES);
    session->state.corpus_fingerprint = corpus_fingerprint(session->corpus);
    if (options->resume[0]) TRY(resume(session));
    TRY(agree(session, options_json));
    if (comm_rank(session->comm) > 0) return PLX_OK;
    TRY(file_make_folder(options->out, session->err));
    const struct run_log_facts facts = {.options_json = options_json,
                                        .parameters =
                                            param_list_elements(model_params(session->model)),
                                        .meter = &session->meter,
                                        .cuda_graphs = session->step.replaying,
                                        .tensorboard = options->tensorboard};
    if (options->resume[0])
        return run_log_resume(&session->log, options->out, session->state.step, &facts,
                              session->err);
    return run_log_create(&session->log, options->out, &facts, session->err);
}

/* ---- The whole ---- */

static plx_status open_parts(struct train_session *session, const char *options_json)
{
    TRY(find_model(session));
    TRY(open_data(session));
    TRY(allocate_micro_batches(session));
    TRY(check_samples(session));
    TRY(open_model(session));
    TRY(open_state(session, options_json));
    train_report_plan(session);
    return PLX_OK;
}

plx_status train_session_open(struct train_session *session, const struct train_options *options,
                              const char *options_json, struct comm *comm,
                              const struct train_hooks *hooks, struct error *err)
{
    *session = (struct train_session){.options = options,
                                      .hooks = hooks,
                                      .comm = comm,
                                      .err = err,
                                      .log = RUN_LOG_CLOSED,
                                      .last_checkpoint_step = -1};
    plx_status status = open_parts(session, options_json);
    if (status != PLX_OK) train_session_close(session, false);
    return status;
}

void train_session_close(struct train_session *session, bool orderly)
{
    run_log_close(&session->log);
    train_step_forget(&session->step);
    if (!orderly) comm_abandon(session->comm);
    free(session->state.options_json);
    train_readings_destroy(&session->readings);
    optim_destroy(session->optim);
    sharding_destroy(&session->sharding);
    model_destroy(session->model);
    if (session->backend_exists) backend_destroy(&session->backend);
    for (int64_t i = 0; session->micro && i < session->options->accumulate; i++)
        free(session->micro[i].ids);
    free(session->micro);
    loader_destroy(session->loader);
    corpus_destroy(session->held_out);
    corpus_destroy(session->corpus);
    tokenizer_destroy(session->tokenizer);
    companions_clear(&session->companions);
    *session = (struct train_session){.log = RUN_LOG_CLOSED, .last_checkpoint_step = -1};
}
