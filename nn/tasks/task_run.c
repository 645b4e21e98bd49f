/* task_run.c: from tokens to scores.
 *
 * Requests are sorted by length, longest first, so that the first batch is the largest and none
 * pads. Requests that read the same tokens (the choices of one token behind one context) go through
 * the model once. A batch is packed: requests never see each other, whatever their company. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "process.h"
#include "tasks/task_parts.h"

/* A batch being filled. */
struct packer {
    struct requests *requests;
    int32_t *ids, *positions, *offsets; /* of struct batch */
    struct score_query *queries;
    struct score *scores;
    int64_t max_tokens, max_sequences, max_queries;
    int64_t tokens, sequences, query_count;
    int64_t first, end; /* the requests in it */
};

/* ---- Order ---- */

/* user is the token list. Of equal length, equal tokens stand together. */
static int by_length(const void *a, const void *b, void *user)
{
    const struct request *left = a, *right = b;
    const int32_t *ids = user;
    if (left->length != right->length) return left->length < right->length ? 1 : -1;
    int order = memcmp(ids + left->first, ids + right->first, (size_t)left->length * sizeof *ids);
    if (order != 0) return order;
    return (left->slot > right->slot) - (left->slot < right->slot);
}

static bool reads_same(const struct requests *requests, int64_t a, int64_t b)
{
    const struct request *left = &requests->items[a], *right = &requests->items[b];
    return left->length == right->length &&
           memcmp(requests->ids + left->first, requests->ids + right->first,
                  (size_t)left->length * sizeof *requests->ids) == 0;
}

static int64_t count_tokens(const struct requests *requests)
{
    int64_t tokens = 0;
    for (int64_t r = 0; r < requests->count; r++)
        if (r == 0 || !reads_same(requests, r - 1, r)) tokens += requests->items[r].length;
    return tokens;
}

/* ---- Batches ---- */

static bool has_room(const struct packer *packer, int64_t r, bool shared)
{
    const struct request *request = &packer->requests->items[r];
    if (packer->query_count + request->scored > packer->max_queries) return false;
    return shared || (packer->tokens + request->length <= packer->max_tokens &&
                      packer->sequences < packer->max_sequences);
}

static void place(struct packer *packer, int64_t r, bool shared)
{
    const struct request *request = &packer->requests->items[r];
    const int32_t *ids = packer->requests->ids + request->first;
    if (!shared) {
        memcpy(packer->ids + packer->tokens, ids, (size_t)request->length * sizeof *ids);
        for (int32_t t = 0; t < request->length; t++) packer->positions[packer->tokens + t] = t;
        packer->tokens += request->length;
        packer->offsets[++packer->sequences] = (int32_t)packer->tokens;
    }
    for (int32_t i = request->length - request->scored; i < request->length; i++)
        packer->queries[packer->query_count++] = (struct score_query){
            .at = (int32_t)(packer->tokens - request->length + i), .token = ids[i + 1]};
}

/* As many of the requests that are left as there is room for: at least one. */
static void fill(struct packer *packer)
{
    packer->first = packer->end;
    packer->tokens = packer->sequences = packer->query_count = 0;
    packer->offsets[0] = 0;
    for (int64_t r = packer->first; r < packer->requests->count; r++) {
        bool shared = r > packer->first && reads_same(packer->requests, r - 1, r);
        if (!has_room(packer, r, shared)) return;
        place(packer, r, shared);
        packer->end = r + 1;
    }
}

static plx_status collect(const struct packer *packer, struct score *sums, struct error *err)
{
    int64_t query = 0;
    for (int64_t r = packer->first; r < packer->end; r++) {
        const struct request *request = &packer->requests->items[r];
        struct score *sum = &sums[request->slot];
        for (int32_t i = 0; i < request->scored; i++, query++) {
            sum->logprob += packer->scores[query].logprob;
            sum->greedy = sum->greedy && packer->scores[query].greedy;
        }
        REQUIRE(err, isfinite(sum->logprob), PLX_BAD_DATA,
                "the model gives a continuation the log-probability %g", sum->logprob);
    }
    return PLX_OK;
}

static plx_status run_batches(struct model *model, struct packer *packer, int64_t total,
                              task_progress progress, void *user, struct score *sums,
                              struct error *err)
{
    int64_t done = 0;
    while (packer->end < packer->requests->count) {
        fill(packer);
        const struct batch batch = {.tokens = packer->tokens,
                                    .sequences = packer->sequences,
                                    .ids = packer->ids,
                                    .positions = packer->positions,
                                    .offsets = packer->offsets};
        TRY(model_score(model, &batch, packer->queries, packer->query_count, packer->scores));
        TRY(collect(packer, sums, err));
        done += packer->tokens;
        if (progress) progress(user, done, total);
    }
    return PLX_OK;
}

static void packer_clear(struct packer *packer)
{
    free(packer->ids);
    free(packer->positions);
    free(packer->offsets);
    free(packer->queries);
    free(packer->scores);
}

/* Requests are sorted: the first is the longest. */
static plx_status packer_create(struct packer *packer, struct requests *requests, int64_t rows,
                                struct error *err)
{
    enum { SHORT_ONES = 16 }; /* sequences in the place of a longest one, at most */
    const int64_t longest = requests->items[0].length;
    REQUIRE(err, rows >= 1 && rows <= INT32_MAX / 256 / longest, PLX_INVALID_ARGUMENT,
            "a batch of %lld rows of %lld tokens is too large", (long long)rows,
            (long long)longest);
    *packer = (struct packer){.requests = requests,
                              .max_tokens = rows * longest,
                              .max_sequences = rows * SHORT_ONES,
                              .max_queries = 2 * rows * longest};
    packer->ids = malloc((size_t)packer->max_tokens * sizeof *packer->ids);
    packer->positions = malloc((size_t)packer->max_tokens * sizeof *packer->positions);
    packer->offsets = malloc((size_t)(packer->max_sequences + 1) * sizeof *packer->offsets);
    packer->queries = malloc((size_t)packer->max_queries * sizeof *packer->queries);
    packer->scores = malloc((size_t)packer->max_queries * sizeof *packer->scores);
    if (packer->ids && packer->positions && packer->offsets && packer->queries && packer->scores)
        return PLX_OK;
    packer_clear(packer);
    return error_set(err, PLX_OUT_OF_MEMORY, "no memory for a batch of %lld tokens",
                     (long long)packer->max_tokens);
}

plx_status requests_run(struct model *model, struct requests *requests, int64_t rows,
                        task_progress progress, void *user, int64_t *tokens, struct score *scores,
                        struct error *err)
{
    struct packer packer = {0};
    for (int64_t s = 0; s < requests->slots; s++) scores[s] = (struct score){0, true};
    *tokens = 0;
    if (requests->count == 0) return PLX_OK;
    qsort_r(requests->items, (size_t)requests->count, sizeof *requests->items, by_length,
            requests->ids);
    *tokens = count_tokens(requests);
    TRY(packer_create(&packer, requests, rows, err));
    plx_status status =
        model_reserve(model, packer.max_tokens, packer.max_sequences, false, RECOMPUTE_NONE, NULL);
    if (status == PLX_OK)
        status = run_batches(model, &packer, *tokens, progress, user, scores, err);
    packer_clear(&packer);
    return status;
}

/* ---- A task ---- */

/* What a text without context follows: the token that begins texts, or the one that ends them. */
static plx_status find_prefix(const struct model *model, const struct tokenizer *tokenizer,
                              int32_t *prefix, struct error *err)
{
    const struct model_config *config = model_get_config(model);
    int64_t id = config->bos_id >= 0 ? config->bos_id : tokenizer_end_of_text(tokenizer);
    if (id < 0) id = model_config_end(config);
    REQUIRE(err, id >= 0, PLX_BAD_DATA,
            "neither the model nor its tokenizer names a token that begins or ends a text");
    *prefix = (int32_t)id;
    return PLX_OK;
}

static plx_status run_scored(struct model *model, struct requests *requests,
                             const struct task_set *set, const struct task_options *options,
                             task_progress progress, void *user, struct task_result *result,
                             struct error *err)
{
    struct score *scores = calloc((size_t)requests->slots, sizeof *scores);
    REQUIRE(err, scores != NULL, PLX_OUT_OF_MEMORY, "no memory for %lld scores",
            (long long)requests->slots);
    plx_status status =
        requests_run(model, requests, options->rows, progress, user, &result->tokens, scores, err);
    if (status == PLX_OK) task_result_fill(set, scores, result);
    free(scores);
    return status;
}

plx_status task_run(struct model *model, const struct tokenizer *tokenizer,
                    const struct task_set *set, const struct task_options *options,
                    task_progress progress, void *user, struct task_result *result,
                    struct error *err)
{
    const int64_t most = model_get_config(model)->max_position;
    const int64_t context = options->context > 0 ? options->context : most;
    const double start = process_seconds();
    struct requests requests;
    int32_t prefix = -1;
    *result = (struct task_result){0};
    TRY(find_prefix(model, tokenizer, &prefix, err));
    TRY(requests_create(set, tokenizer, prefix, context, &requests, err));
    plx_status status = task_result_make(set->task, set->path, set->hash, set->count, result, err);
    if (status == PLX_OK)
        status = run_scored(model, &requests, set, options, progress, user, result, err);
    requests_clear(&requests);
    if (status != PLX_OK) task_result_clear(result);
    result->seconds = status == PLX_OK ? process_seconds() - start : 0;
    return status;
}
