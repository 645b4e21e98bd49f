/* sample.c: from logits to a token, and the loop that continues a prompt.
 *
 * The chain: repetition penalty, then weights exp((logit - largest) / temperature), then the
 * filters. Top-k, top-p and min-p each keep a prefix of the candidates in falling order of logit
 * (ties: rising id), so together they keep the shortest of the prefixes:
 *
 *     top-k   the first k
 *     top-p   up to and including the one whose cumulative probability reaches p, of those top-k
 * kept min-p   while the probability is at least min_p times the first one's
 *
 * Candidates come off a heap one at a time, so only what is kept is ever put in order; without
 * filters nothing is. One uniform number a draw, none where greedy: a stream is repeated by its
 * seed alone.
 *
 * Called by cli/cmd_sample.c, and by train.c for the samples it shows. */
#include "sample.h"

#include <math.h>
#include <stdlib.h>
#include <time.h>

/* Stream number of a sampling seed (see rng_make): any constant of its own will do. */
static const uint64_t sample_stream = 0x73616d706c65;

struct sample_options sample_options_default(void)
{
    return (struct sample_options){
        .temperature = 0.8, .top_p = 0.95, .repetition_penalty = 1.0, .max_tokens = 256};
}

plx_status sample_options_check(const struct sample_options *options, struct error *err)
{
    REQUIRE(err, options->temperature >= 0.0 && isfinite(options->temperature),
            PLX_INVALID_ARGUMENT, "temperature is %g but must be 0 (greedy) or above",
            options->temperature);
    REQUIRE(err, options->top_k >= 0, PLX_INVALID_ARGUMENT,
            "top-k is %lld but must be 0 (off) or above", (long long)options->top_k);
    REQUIRE(err, options->top_p > 0.0 && options->top_p <= 1.0, PLX_INVALID_ARGUMENT,
            "top-p is %g but must be above 0 and at most 1 (off)", options->top_p);
    REQUIRE(err, options->min_p >= 0.0 && options->min_p <= 1.0, PLX_INVALID_ARGUMENT,
            "min-p is %g but must be 0 (off) to 1", options->min_p);
    REQUIRE(err, options->repetition_penalty > 0.0 && isfinite(options->repetition_penalty),
            PLX_INVALID_ARGUMENT, "repetition penalty is %g but must be above 0; 1 is off",
            options->repetition_penalty);
    REQUIRE(err, options->max_tokens >= 0, PLX_INVALID_ARGUMENT,
            "the number of new tokens is %lld but must be 0 or above",
            (long long)options->max_tokens);
    return PLX_OK;
}

/* ---- One draw ---- */

/* Every token that occurs in the history is made less likely once, however often it occurs. */
static void sample_penalise(float *logits, int64_t vocab, const int32_t *history, int64_t count,
                            double penalty, struct sample_candidate *seen)
{
    if (penalty == 1.0) return;
    for (int64_t i = 0; i < vocab; i++) seen[i].id = 0;
    for (int64_t i = 0; i < count; i++) {
        int32_t id = history[i];
        if (id < 0 || id >= vocab || seen[id].id != 0) continue;
        seen[id].id = 1;
        double logit = logits[id];
        logits[id] = (float)(logit > 0.0 ? logit / penalty : logit * penalty);
    }
}

static int32_t sample_argmax(const float *logits, int64_t vocab)
{
    int64_t best = 0;
    for (int64_t i = 1; i < vocab; i++)
        if (logits[i] > logits[best]) best = i;
    return (int32_t)best;
}

/* The order of candidates: falling logit, rising id. It is total, so the result of sorting is
 * unique. */
static bool sample_before(struct sample_candidate a, struct sample_candidate b)
{
    return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
}

static void sample_sift(struct sample_candidate *heap, int64_t count, int64_t parent)
{
    struct sample_candidate moving = heap[parent];
    for (;;) {
        int64_t child = 2 * parent + 1;
        if (child >= count) break;
        if (child + 1 < count && sample_before(heap[child + 1], heap[child])) child++;
        if (!sample_before(heap[child], moving)) break;
        heap[parent] = heap[child];
        parent = child;
    }
    heap[parent] = moving;
}

static void sample_heapify(struct sample_candidate *work, const float *logits, int64_t vocab)
{
    for (int64_t i = 0; i < vocab; i++) work[i] = (struct sample_candidate){logits[i], (int32_t)i};
    for (int64_t i = vocab / 2 - 1; i >= 0; i--) sample_sift(work, vocab, i);
}

/* The first of a heap of count; afterwards it sits at heap[count - 1], so those taken lie in
 * falling order from the end of the array. */
static struct sample_candidate sample_pop(struct sample_candidate *heap, int64_t count)
{
    struct sample_candidate first = heap[0];
    heap[0] = heap[count - 1];
    sample_sift(heap, count - 1, 0);
    heap[count - 1] = first;
    return first;
}

/* Sum of the weights that top-p's share refers to: of the first k, or of all. */
static double sample_total(struct sample_candidate *work, const float *logits, int64_t vocab,
                           int64_t kept, double largest, double temperature)
{
    double total = 0.0;
    if (kept == vocab) {
        for (int64_t i = 0; i < vocab; i++) total += exp((logits[i] - largest) / temperature);
        return total;
    }
    for (int64_t i = 0; i < kept; i++)
        total += exp((work[vocab - 1 - i].logit - largest) / temperature);
    return total;
}

/* Draws from the prefix that all filters keep. */
static int32_t sample_filtered(const float *logits, int64_t vocab,
                               const struct sample_options *options, double uniform,
                               struct sample_candidate *work)
{
    sample_heapify(work, logits, vocab);
    bool limited = options->top_k > 0 && options->top_k < vocab;
    int64_t kept = limited ? options->top_k : vocab;
    int64_t taken = 0;
    double largest = work[0].logit;
    while (limited && taken < kept) sample_pop(work, vocab - taken++);
    double total = sample_total(work, logits, vocab, kept, largest, options->temperature);

    double sum = 0.0;
    int64_t count = 0;
    while (count < kept && (options->top_p >= 1.0 || sum < options->top_p * total)) {
        if (count == taken) sample_pop(work, vocab - taken++);
        double weight = exp((work[vocab - 1 - count].logit - largest) / options->temperature);
        if (weight < options->min_p) break; /* the first one's weight is 1 */
        sum += weight;
        count++;
    }
    /* Summing again in the same order reaches the same sum, so the loop ends inside the prefix
     * unless uniform * sum rounds up to it. */
    double target = uniform * sum, reached = 0.0;
    for (int64_t i = 0; i < count; i++) {
        reached += exp((work[vocab - 1 - i].logit - largest) / options->temperature);
        if (reached > target) return work[vocab - 1 - i].id;
    }
    return work[vocab - 1].id;
}

/* Draws from all candidates, in the order of their ids. */
static int32_t sample_unfiltered(const float *logits, int64_t vocab, double temperature,
                                 double uniform)
{
    int32_t likeliest = sample_argmax(logits, vocab);
    double largest = logits[likeliest], sum = 0.0, reached = 0.0;
    for (int64_t i = 0; i < vocab; i++) sum += exp((logits[i] - largest) / temperature);
    double target = uniform * sum;
    for (int64_t i = 0; i < vocab; i++) {
        reached += exp((logits[i] - largest) / temperature);
        if (reached > target) return (int32_t)i;
    }
    return likeliest;
}

int32_t sample_token(float *logits, int64_t vocab, const int32_t *history, int64_t history_count,
                     const struct sample_options *options, struct rng *rng,
                     struct sample_candidate *work)
{
    sample_penalise(logits, vocab, history, history_count, options->repetition_penalty, work);
    if (options->temperature == 0.0) return sample_argmax(logits, vocab);
    double uniform = rng_uniform(rng);
    bool filters = options->top_k > 0 || options->top_p < 1.0 || options->min_p > 0.0;
    return filters ? sample_filtered(logits, vocab, options, uniform, work)
                   : sample_unfiltered(logits, vocab, options->temperature, uniform);
}

/* ---- Continuing a prompt ---- */

/* What a run holds; released as a whole by sample_release. */
struct sample_state {
    struct model *model;
    const struct tokenizer *tokenizer;
    struct model_cache *cache;
    int32_t *ids;             /* prompt, then what was drawn */
    int64_t count;            /* of ids */
    int64_t vocab;            /* ids that may be drawn */
    struct plx_tensor logits; /* [1,V] in the storage dtype */
    float *candidates_logits; /* [vocab] */
    struct sample_candidate *work;
};

static void sample_release(struct sample_state *state)
{
    model_cache_destroy(state->cache);
    free(state->ids);
    free(state->logits.data);
    free(state->candidates_logits);
    free(state->work);
}

static double sample_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* The prompt's ids, with room for max_tokens more. */
static plx_status sample_encode(struct sample_state *state, const char *prompt, size_t size,
                                const struct sample_options *options, struct error *err)
{
    unsigned how = options->framed ? SAMPLE_FRAMED : SAMPLE_ENCODING;
    int64_t max_tokens = options->max_tokens;
    int64_t context = model_get_config(state->model)->max_position, count = 0;
    if (size > 0) {
        struct error reason = {0};
        plx_status status =
            tokenizer_encode_as(state->tokenizer, prompt, size, how, NULL, 0, &count, &reason);
        if (status != PLX_OK && status != PLX_WORKSPACE_TOO_SMALL)
            return error_set(err, status, "%s", reason.text);
    }
    if (count == 0) {
        REQUIRE(err, tokenizer_end_of_text(state->tokenizer) >= 0, PLX_INVALID_ARGUMENT,
                "the prompt is empty and the tokenizer has no end of text to start from");
    }
    int64_t length = count > 0 ? count : 1;
    REQUIRE(err, length <= context, PLX_INVALID_ARGUMENT,
            "the prompt has %lld tokens but the model's context is %lld", (long long)length,
            (long long)context);
    REQUIRE(err, max_tokens <= context - length, PLX_INVALID_ARGUMENT,
            "the prompt's %lld tokens and %lld new ones are more than the model's context of %lld",
            (long long)length, (long long)max_tokens, (long long)context);
    state->ids = malloc((size_t)(length + max_tokens) * sizeof *state->ids);
    REQUIRE(err, state->ids != NULL, PLX_OUT_OF_MEMORY, "no memory for %lld tokens",
            (long long)(length + max_tokens));
    state->ids[0] = tokenizer_end_of_text(state->tokenizer);
    state->count = length;
    if (count == 0) return PLX_OK;
    return tokenizer_encode_as(state->tokenizer, prompt, size, how, state->ids, length, &count,
                               err);
}

static plx_status sample_allocate(struct sample_state *state, int64_t max_tokens, struct error *err)
{
    const struct model_config *config = model_get_config(state->model);
    /* Rows beyond the tokenizer's size only pad the embedding; they have no text and are never
     * drawn. */
    int64_t known = tokenizer_vocab_size(state->tokenizer);
    state->vocab = known < config->vocab_size ? known : config->vocab_size;
    for (int64_t i = 0; i < state->count; i++)
        REQUIRE(err, state->ids[i] >= 0 && state->ids[i] < config->vocab_size, PLX_INVALID_ARGUMENT,
                "token %d of the prompt is not in the model's vocabulary of %lld", state->ids[i],
                (long long)config->vocab_size);
    plx_dtype dtype = model_backend(state->model)->storage;
    int64_t shape[2] = {1, config->vocab_size};
    void *data = calloc((size_t)config->vocab_size, plx_dtype_size(dtype));
    state->logits = plx_tensor_dense(data, dtype, 2, shape);
    state->candidates_logits = calloc((size_t)state->vocab, sizeof *state->candidates_logits);
    state->work = calloc((size_t)state->vocab, sizeof *state->work);
    REQUIRE(err, data != NULL && state->candidates_logits != NULL && state->work != NULL,
            PLX_OUT_OF_MEMORY, "no memory for the logits of %lld tokens",
            (long long)config->vocab_size);
    plx_status status =
        model_cache_create(state->model, 1, state->count + max_tokens, &state->cache);
    return status == PLX_OK ? PLX_OK : error_set(err, status, "cannot create the key-value cache");
}

static plx_status sample_feed(struct sample_state *state, const int32_t *ids, int64_t count,
                              struct error *err)
{
    plx_status status = model_decode(state->model, state->cache, ids, &count, &state->logits);
    return status == PLX_OK ? PLX_OK : error_set(err, status, "decoding failed");
}

/* Refuses what no distribution can be made of, naming the token. */
static plx_status sample_read_logits(struct sample_state *state, struct error *err)
{
    for (int64_t i = 0; i < state->vocab; i++) {
        double logit = state->logits.dtype == PLX_F64 ? ((const double *)state->logits.data)[i]
                                                      : ((const float *)state->logits.data)[i];
        REQUIRE(err, isfinite((float)logit), PLX_BAD_DATA,
                "after %lld tokens the logit of token %lld is not finite (%g)",
                (long long)state->count, (long long)i, logit);
        state->candidates_logits[i] = (float)logit;
    }
    return PLX_OK;
}

static plx_status sample_continue(struct sample_state *state, const struct sample_options *options,
                                  sample_sink sink, void *user, struct sample_report *report,
                                  struct error *err)
{
    int32_t end = tokenizer_end_of_text(state->tokenizer);
    const struct model_config *config = model_get_config(state->model);
    struct rng rng = rng_make(options->seed, sample_stream);
    while (report->new_tokens < options->max_tokens) {
        TRY(sample_read_logits(state, err));
        int32_t id = sample_token(state->candidates_logits, state->vocab, state->ids, state->count,
                                  options, &rng, state->work);
        bool stop = (end >= 0 && id == end) || (options->stop_id > 0 && id == options->stop_id);
        if (!options->ignore_end && (stop || model_config_ends(config, id))) {
            report->ended = true;
            return PLX_OK;
        }
        state->ids[state->count++] = id;
        report->new_tokens++;
        size_t size = 0;
        const char *bytes = tokenizer_token(state->tokenizer, id, &size);
        if (!sink(user, bytes, size)) return PLX_OK;
        if (report->new_tokens < options->max_tokens) TRY(sample_feed(state, &id, 1, err));
    }
    return PLX_OK;
}

plx_status sample_run(struct model *model, const struct tokenizer *tokenizer, const char *prompt,
                      size_t prompt_size, const struct sample_options *options, sample_sink sink,
                      void *user, struct sample_report *report, struct error *err)
{
    *report = (struct sample_report){0};
    TRY(sample_options_check(options, err));
    struct sample_state state = {.model = model, .tokenizer = tokenizer};
    plx_status status = sample_encode(&state, prompt, prompt_size, options, err);
    if (status == PLX_OK) status = sample_allocate(&state, options->max_tokens, err);
    report->prompt_tokens = status == PLX_OK ? state.count : 0;
    double start = sample_now();
    if (status == PLX_OK) status = sample_feed(&state, state.ids, state.count, err);
    double prefilled = sample_now();
    if (status == PLX_OK) status = sample_continue(&state, options, sink, user, report, err);
    report->prefill_seconds = prefilled - start;
    report->decode_seconds = sample_now() - prefilled;
    sample_release(&state);
    return status;
}
