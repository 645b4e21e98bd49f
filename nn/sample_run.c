/* sample_run.c: the loop that continues prompts, one or several side by side.
 *
 * Prompts may differ in length: the cache counts each sequence's tokens by itself. A text that has
 * ended is fed its last token again until the others have ended too, so that every step is the same
 * pass, which costs little more than one without it and can be replayed as a graph on a GPU.
 *
 * Called by cli/cmd_sample.c, and by train.c for the samples it shows. */
#include <math.h>
#include <stdlib.h>

#include "process.h"
#include "sample.h"

/* Stream number of a sampling seed (see rng_make): any constant of its own will do. */
static const uint64_t sample_stream = 0x73616d706c65;

/* A text in progress. */
struct sequence {
    struct sample_request *request;
    int32_t *ids;  /* prompt, then what was drawn */
    int64_t count; /* of ids */
    struct rng rng;
    struct stop_filter stops;
    bool over;
};

/* What a run holds; released as a whole by run_release. */
struct sampling {
    struct model *model;
    const struct tokenizer *tokenizer;
    const struct sample_options *options;
    struct error *err;
    struct sequence *sequences;
    int64_t count; /* of sequences */
    int64_t vocab; /* ids that may be drawn */
    struct model_cache *cache;
    int32_t *ids;             /* of one step, sequence by sequence */
    int64_t *counts;          /* [count]: how many of each */
    struct plx_tensor logits; /* [count,V] in the storage dtype */
    float *row;               /* [vocab] logits of one sequence */
    struct sample_candidate *work;
};

static void run_release(struct sampling *run)
{
    for (int64_t s = 0; run->sequences != NULL && s < run->count; s++) {
        stop_filter_close(&run->sequences[s].stops);
        free(run->sequences[s].ids);
    }
    model_cache_destroy(run->cache);
    free(run->sequences);
    free(run->ids);
    free(run->counts);
    free(run->logits.data);
    free(run->row);
    free(run->work);
}

/* ---- Before the first token ---- */

/* How many ids the prompt has; none where it is empty. */
static plx_status count_prompt(const struct sampling *run, const struct sample_request *request,
                               unsigned how, int64_t *count)
{
    *count = 0;
    if (request->size > 0) {
        struct error reason = {0};
        plx_status status = tokenizer_encode_as(run->tokenizer, request->prompt, request->size, how,
                                                NULL, 0, count, &reason);
        if (status != PLX_OK && status != PLX_WORKSPACE_TOO_SMALL)
            return error_set(run->err, status, "%s", reason.text);
    }
    REQUIRE(run->err, *count > 0 || tokenizer_end_of_text(run->tokenizer) >= 0,
            PLX_INVALID_ARGUMENT,
            "the prompt is empty and the tokenizer has no end of text to start from");
    return PLX_OK;
}

/* The prompt's ids, with room for max_tokens more. */
static plx_status encode(const struct sampling *run, struct sequence *sequence)
{
    const struct sample_request *request = sequence->request;
    const unsigned how = run->options->framed ? SAMPLE_FRAMED : SAMPLE_ENCODING;
    const int64_t max_tokens = run->options->max_tokens;
    const int64_t context = model_get_config(run->model)->max_position;
    int64_t count;
    TRY(count_prompt(run, request, how, &count));
    const int64_t length = count > 0 ? count : 1;
    REQUIRE(run->err, length <= context, PLX_INVALID_ARGUMENT,
            "the prompt has %lld tokens but the model's context is %lld", (long long)length,
            (long long)context);
    REQUIRE(run->err, max_tokens <= context - length, PLX_INVALID_ARGUMENT,
            "the prompt's %lld tokens and %lld new ones are more than the model's context of %lld",
            (long long)length, (long long)max_tokens, (long long)context);
    sequence->ids = malloc((size_t)(length + max_tokens) * sizeof *sequence->ids);
    REQUIRE(run->err, sequence->ids != NULL, PLX_OUT_OF_MEMORY, "no memory for %lld tokens",
            (long long)(length + max_tokens));
    sequence->ids[0] = tokenizer_end_of_text(run->tokenizer);
    sequence->count = length;
    if (count == 0) return PLX_OK;
    return tokenizer_encode_as(run->tokenizer, request->prompt, request->size, how, sequence->ids,
                               length, &count, run->err);
}

static plx_status check_ids(const struct sampling *run, const struct sequence *sequence)
{
    const int64_t V = model_get_config(run->model)->vocab_size;
    for (int64_t i = 0; i < sequence->count; i++)
        REQUIRE(run->err, sequence->ids[i] >= 0 && sequence->ids[i] < V, PLX_INVALID_ARGUMENT,
                "token %d of the prompt is not in the model's vocabulary of %lld", sequence->ids[i],
                (long long)V);
    return PLX_OK;
}

static plx_status open_sequences(struct sampling *run, struct sample_request *requests)
{
    const struct sample_options *options = run->options;
    run->sequences = calloc((size_t)run->count, sizeof *run->sequences);
    REQUIRE(run->err, run->sequences != NULL, PLX_OUT_OF_MEMORY, "no memory for %lld texts",
            (long long)run->count);
    for (int64_t s = 0; s < run->count; s++) {
        struct sequence *sequence = &run->sequences[s];
        sequence->request = &requests[s];
        sequence->rng = rng_make(options->seed + (uint64_t)s, sample_stream);
        TRY(encode(run, sequence));
        TRY(check_ids(run, sequence));
        TRY(stop_filter_open(&sequence->stops, options->stops, options->stop_count, run->err));
        requests[s].report.prompt_tokens = sequence->count;
    }
    return PLX_OK;
}

static plx_status allocate(struct sampling *run)
{
    const int64_t V = model_get_config(run->model)->vocab_size;
    const plx_dtype dtype = model_backend(run->model)->storage;
    const int64_t shape[2] = {run->count, V};
    /* Rows beyond the tokenizer's size only pad the embedding; they have no text and are never
     * drawn. */
    const int64_t known = tokenizer_vocab_size(run->tokenizer);
    int64_t tokens = 0, longest = 0;
    for (int64_t s = 0; s < run->count; s++) {
        tokens += run->sequences[s].count;
        if (run->sequences[s].count > longest) longest = run->sequences[s].count;
    }
    run->vocab = known < V ? known : V;
    run->ids = calloc((size_t)tokens, sizeof *run->ids);
    run->counts = calloc((size_t)run->count, sizeof *run->counts);
    run->logits =
        plx_tensor_dense(calloc((size_t)(run->count * V), plx_dtype_size(dtype)), dtype, 2, shape);
    run->row = calloc((size_t)run->vocab, sizeof *run->row);
    run->work = calloc((size_t)run->vocab, sizeof *run->work);
    REQUIRE(run->err,
            run->ids != NULL && run->counts != NULL && run->logits.data != NULL &&
                run->row != NULL && run->work != NULL,
            PLX_OUT_OF_MEMORY, "no memory for the logits of %lld tokens", (long long)V);
    plx_status status =
        model_cache_create(run->model, run->count, longest + run->options->max_tokens, &run->cache);
    return status == PLX_OK ? PLX_OK
                            : error_set(run->err, status, "cannot create the key-value cache");
}

/* ---- Steps ---- */

/* The last counts[s] ids of every sequence go through the model. */
static plx_status feed(struct sampling *run)
{
    int64_t n = 0;
    for (int64_t s = 0; s < run->count; s++) {
        const struct sequence *sequence = &run->sequences[s];
        for (int64_t i = sequence->count - run->counts[s]; i < sequence->count; i++)
            run->ids[n++] = sequence->ids[i];
    }
    plx_status status = model_decode(run->model, run->cache, run->ids, run->counts, &run->logits);
    return status == PLX_OK ? PLX_OK : error_set(run->err, status, "decoding failed");
}

/* Refuses what no distribution can be made of, naming the token. */
static plx_status read_logits(const struct sampling *run, int64_t s)
{
    const int64_t first = s * run->logits.shape[1];
    for (int64_t i = 0; i < run->vocab; i++) {
        double logit = run->logits.dtype == PLX_F64 ? ((const double *)run->logits.data)[first + i]
                                                    : ((const float *)run->logits.data)[first + i];
        REQUIRE(run->err, isfinite((float)logit), PLX_BAD_DATA,
                "after %lld tokens the logit of token %lld is not finite (%g)",
                (long long)run->sequences[s].count, (long long)i, logit);
        run->row[i] = (float)logit;
    }
    return PLX_OK;
}

static bool ends_text(const struct sampling *run, int32_t id)
{
    const int32_t end = tokenizer_end_of_text(run->tokenizer), stop = run->options->stop_id;
    if (run->options->ignore_end) return false;
    return (end >= 0 && id == end) || (stop > 0 && id == stop) ||
           model_config_ends(model_get_config(run->model), id);
}

/* Draws the next token of a text and hands its bytes on. */
static plx_status draw(struct sampling *run, int64_t s)
{
    struct sequence *sequence = &run->sequences[s];
    struct sample_report *report = &sequence->request->report;
    sequence->over = report->new_tokens == run->options->max_tokens;
    if (sequence->over) return PLX_OK;
    TRY(read_logits(run, s));
    int32_t id = sample_token(run->row, run->vocab, sequence->ids, sequence->count, run->options,
                              &sequence->rng, run->work);
    report->ended = ends_text(run, id);
    if (!report->ended) {
        size_t size = 0;
        const char *bytes = tokenizer_token(run->tokenizer, id, &size);
        sequence->ids[sequence->count++] = id;
        report->new_tokens++;
        sequence->over = !stop_filter_write(&sequence->stops, bytes, size, sequence->request->sink,
                                            sequence->request->user);
    }
    report->stopped = sequence->stops.found;
    sequence->over =
        sequence->over || report->ended || report->new_tokens == run->options->max_tokens;
    return PLX_OK;
}

static plx_status run_steps(struct sampling *run)
{
    for (;;) {
        bool over = true;
        for (int64_t s = 0; s < run->count; s++) {
            run->counts[s] = 1;
            if (!run->sequences[s].over) TRY(draw(run, s));
            over = over && run->sequences[s].over;
        }
        if (over) return PLX_OK;
        TRY(feed(run));
    }
}

static plx_status run_all(struct sampling *run, struct sample_request *requests)
{
    TRY(open_sequences(run, requests));
    TRY(allocate(run));
    const double start = process_seconds();
    for (int64_t s = 0; s < run->count; s++) run->counts[s] = run->sequences[s].count;
    TRY(feed(run));
    const double prefilled = process_seconds();
    TRY(run_steps(run));
    for (int64_t s = 0; s < run->count; s++) {
        stop_filter_end(&run->sequences[s].stops, requests[s].sink, requests[s].user);
        requests[s].report.prefill_seconds = prefilled - start;
        requests[s].report.decode_seconds = process_seconds() - prefilled;
    }
    return PLX_OK;
}

plx_status sample_requests(struct model *model, const struct tokenizer *tokenizer,
                           struct sample_request *requests, int64_t count,
                           const struct sample_options *options, struct error *err)
{
    struct sampling run = {
        .model = model, .tokenizer = tokenizer, .options = options, .err = err, .count = count};
    for (int64_t s = 0; s < count; s++) requests[s].report = (struct sample_report){0};
    TRY(sample_options_check(options, err));
    if (count == 0) return PLX_OK;
    plx_status status = run_all(&run, requests);
    run_release(&run);
    return status;
}

plx_status sample_run(struct model *model, const struct tokenizer *tokenizer, const char *prompt,
                      size_t prompt_size, const struct sample_options *options, text_sink sink,
                      void *user, struct sample_report *report, struct error *err)
{
    struct sample_request request = {
        .prompt = prompt, .size = prompt_size, .sink = sink, .user = user};
    plx_status status = sample_requests(model, tokenizer, &request, 1, options, err);
    *report = request.report;
    return status;
}
