/* task_run.c: from tokens to scores.
 *
 * Requests of a document mostly begin alike: its choices stand behind one context. What they have
 * in common goes through the model once, as a sequence of its own, and each goes on from there as a
 * sequence that sees the common tokens before its own. Such groups are sorted by size, largest
 * first, so that the first batch is the largest and none pads. A batch is packed: documents never
 * see each other, whatever their company. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "process.h"
#include "tasks/task_parts.h"

/* Requests first .. first + count - 1, whose first prefix tokens are the same. */
struct group {
    int64_t first, count;
    int32_t prefix;
    int64_t tokens, sequences, keys, queries; /* that it adds to a batch */
};

/* What a batch has room for. */
struct limits {
    int64_t tokens, sequences, keys, queries;
};

/* A batch being filled. */
struct packer {
    const struct requests *requests;
    struct group *groups;
    int64_t group_count;
    int32_t *ids, *positions, *offsets; /* of struct batch, as the next */
    int32_t *keys, *key_offsets;
    struct score_query *queries;
    struct score *scores;
    struct limits limits;
    struct limits used;
    int64_t first, end; /* the groups in it */
    bool shared;        /* a sequence of it sees tokens of another one */
};

/* ---- Groups ---- */

static const int32_t *ids_of(const struct requests *requests, int64_t r)
{
    return requests->ids + requests->items[r].first;
}

/* How many tokens two requests read alike. */
static int32_t common_prefix(const struct requests *requests, int64_t a, int64_t b)
{
    const int32_t *left = ids_of(requests, a), *right = ids_of(requests, b);
    int32_t most = requests->items[a].length, count = 0;
    if (requests->items[b].length < most) most = requests->items[b].length;
    while (count < most && left[count] == right[count]) count++;
    return count;
}

/* What so many requests make of a batch when their first prefix tokens are read once. */
static struct group make_group(const struct requests *requests, int64_t first, int64_t count,
                               int32_t prefix)
{
    struct group group = {first, count, prefix, prefix, 1, prefix, 0};
    for (int64_t r = first; r < first + count; r++) {
        const struct request *request = &requests->items[r];
        group.queries += request->scored;
        if (request->length == prefix) continue;
        group.tokens += request->length - prefix;
        group.keys += request->length;
        group.sequences++;
    }
    return group;
}

static bool fits(const struct group *group, const struct limits *limits)
{
    return group->tokens <= limits->tokens && group->sequences <= limits->sequences &&
           group->keys <= limits->keys && group->queries <= limits->queries;
}

/* The group with the next request in it, where that is of the same document, fits, and saves no
 * fewer tokens than the group does without it. */
static bool extend(const struct requests *requests, const struct limits *limits,
                   struct group *group)
{
    const int64_t r = group->first + group->count;
    if (r == requests->count ||
        requests->items[r].document != requests->items[group->first].document)
        return false;
    int32_t prefix = common_prefix(requests, group->first, r);
    if (prefix > group->prefix) prefix = group->prefix;
    if (prefix == 0 || group->count * prefix < (group->count - 1) * group->prefix) return false;
    const struct group larger = make_group(requests, group->first, group->count + 1, prefix);
    if (!fits(&larger, limits)) return false;
    *group = larger;
    return true;
}

static int by_tokens(const void *a, const void *b)
{
    const struct group *left = a, *right = b;
    if (left->tokens != right->tokens) return left->tokens < right->tokens ? 1 : -1;
    return (left->first > right->first) - (left->first < right->first);
}

static plx_status make_groups(struct packer *packer, struct error *err)
{
    const struct requests *requests = packer->requests;
    packer->groups = malloc((size_t)requests->count * sizeof *packer->groups);
    REQUIRE(err, packer->groups != NULL, PLX_OUT_OF_MEMORY, "no memory for %lld requests",
            (long long)requests->count);
    for (int64_t r = 0; r < requests->count;) {
        struct group group = make_group(requests, r, 1, requests->items[r].length);
        while (extend(requests, &packer->limits, &group)) continue;
        packer->groups[packer->group_count++] = group;
        r += group.count;
    }
    qsort(packer->groups, (size_t)packer->group_count, sizeof *packer->groups, by_tokens);
    return PLX_OK;
}

/* ---- Batches ---- */

/* Tokens first .. end - 1 of a text as a sequence, which sees those before, beginning at token
 * before of the batch, too. */
static void place_sequence(struct packer *packer, const int32_t *ids, int32_t first, int32_t end,
                           int64_t before)
{
    struct limits *used = &packer->used;
    for (int32_t t = 0; t < first; t++) packer->keys[used->keys++] = (int32_t)before + t;
    for (int32_t t = first; t < end; t++) {
        packer->keys[used->keys++] = (int32_t)used->tokens;
        packer->ids[used->tokens] = ids[t];
        packer->positions[used->tokens++] = t;
    }
    used->sequences++;
    packer->offsets[used->sequences] = (int32_t)used->tokens;
    packer->key_offsets[used->sequences] = (int32_t)used->keys;
}

static void place_request(struct packer *packer, int64_t r, int32_t prefix, int64_t trunk)
{
    const struct request *request = &packer->requests->items[r];
    const int32_t *ids = ids_of(packer->requests, r);
    const int64_t branch = packer->used.tokens;
    if (request->length > prefix) {
        place_sequence(packer, ids, prefix, request->length, trunk);
        packer->shared = true;
    }
    for (int32_t i = request->length - request->scored; i < request->length; i++)
        packer->queries[packer->used.queries++] = (struct score_query){
            .at = (int32_t)(i < prefix ? trunk + i : branch + i - prefix), .token = ids[i + 1]};
}

/* As many of the groups that are left as there is room for: at least one. */
static void fill(struct packer *packer)
{
    packer->first = packer->end;
    packer->used = (struct limits){0};
    packer->shared = false;
    packer->offsets[0] = packer->key_offsets[0] = 0;
    for (; packer->end < packer->group_count; packer->end++) {
        const struct group *group = &packer->groups[packer->end];
        const struct limits left = {packer->limits.tokens - packer->used.tokens,
                                    packer->limits.sequences - packer->used.sequences,
                                    packer->limits.keys - packer->used.keys,
                                    packer->limits.queries - packer->used.queries};
        if (!fits(group, &left)) return;
        const int64_t trunk = packer->used.tokens;
        place_sequence(packer, ids_of(packer->requests, group->first), 0, group->prefix, 0);
        for (int64_t r = group->first; r < group->first + group->count; r++)
            place_request(packer, r, group->prefix, trunk);
    }
}

static plx_status collect_request(const struct request *request, const struct score *scores,
                                  struct score *sum, struct error *err)
{
    for (int32_t i = 0; i < request->scored; i++) {
        sum->logprob += scores[i].logprob;
        sum->greedy = sum->greedy && scores[i].greedy;
    }
    REQUIRE(err, isfinite(sum->logprob), PLX_BAD_DATA,
            "the model gives a continuation the log-probability %g", sum->logprob);
    return PLX_OK;
}

static plx_status collect(const struct packer *packer, struct score *sums, struct error *err)
{
    const struct score *scores = packer->scores;
    for (int64_t g = packer->first; g < packer->end; g++) {
        const struct group *group = &packer->groups[g];
        for (int64_t r = group->first; r < group->first + group->count; r++) {
            const struct request *request = &packer->requests->items[r];
            TRY(collect_request(request, scores, &sums[request->slot], err));
            scores += request->scored;
        }
    }
    return PLX_OK;
}

static plx_status run_batches(struct model *model, struct packer *packer, int64_t total,
                              task_progress progress, void *user, struct score *sums,
                              struct error *err)
{
    int64_t done = 0;
    while (packer->end < packer->group_count) {
        fill(packer);
        const struct batch batch = {.tokens = packer->used.tokens,
                                    .sequences = packer->used.sequences,
                                    .ids = packer->ids,
                                    .positions = packer->positions,
                                    .offsets = packer->offsets,
                                    .keys = packer->shared ? packer->keys : NULL,
                                    .key_offsets = packer->key_offsets};
        TRY(model_score(model, &batch, packer->queries, packer->used.queries, packer->scores));
        TRY(collect(packer, sums, err));
        done += packer->used.tokens;
        if (progress) progress(user, done, total);
    }
    return PLX_OK;
}

static void packer_clear(struct packer *packer)
{
    free(packer->groups);
    free(packer->ids);
    free(packer->queries);
    free(packer->scores);
}

static int64_t longest_request(const struct requests *requests)
{
    int64_t longest = 0;
    for (int64_t r = 0; r < requests->count; r++)
        if (requests->items[r].length > longest) longest = requests->items[r].length;
    return longest;
}

/* All arrays of numbers lie in one block, which ids points to. */
static plx_status packer_create(struct packer *packer, const struct requests *requests,
                                int64_t rows, struct error *err)
{
    /* Sequences in the place of a longest request, and keys in the place of a token, at most. */
    enum { SHORT_ONES = 16, KEYS = 4 };
    const int64_t longest = longest_request(requests);
    REQUIRE(err, rows >= 1 && rows <= INT32_MAX / 256 / KEYS / longest, PLX_INVALID_ARGUMENT,
            "a batch of %lld rows of %lld tokens is too large", (long long)rows,
            (long long)longest);
    const struct limits limits = {.tokens = rows * longest,
                                  .sequences = rows * SHORT_ONES,
                                  .keys = KEYS * rows * longest,
                                  .queries = 2 * rows * longest};
    const size_t offsets = (size_t)limits.sequences + 1,
                 numbers = (size_t)(2 * limits.tokens + limits.keys) + 2 * offsets;
    *packer = (struct packer){.requests = requests, .limits = limits};
    packer->ids = malloc(numbers * sizeof *packer->ids);
    packer->queries = malloc((size_t)limits.queries * sizeof *packer->queries);
    packer->scores = malloc((size_t)limits.queries * sizeof *packer->scores);
    REQUIRE(err, packer->ids != NULL && packer->queries != NULL && packer->scores != NULL,
            PLX_OUT_OF_MEMORY, "no memory for a batch of %lld tokens", (long long)limits.tokens);
    packer->positions = packer->ids + limits.tokens;
    packer->keys = packer->positions + limits.tokens;
    packer->offsets = packer->keys + limits.keys;
    packer->key_offsets = packer->offsets + offsets;
    return make_groups(packer, err);
}

static plx_status run_packed(struct model *model, struct packer *packer, task_progress progress,
                             void *user, int64_t *tokens, struct score *scores, struct error *err)
{
    const struct limits *limits = &packer->limits;
    bool shared = false;
    for (int64_t g = 0; g < packer->group_count; g++) {
        *tokens += packer->groups[g].tokens;
        shared = shared || packer->groups[g].sequences > 1;
    }
    TRY(model_reserve(model, limits->tokens, limits->sequences, false, RECOMPUTE_NONE, NULL));
    if (shared) TRY(model_reserve_keys(model, limits->keys));
    return run_batches(model, packer, *tokens, progress, user, scores, err);
}

plx_status requests_run(struct model *model, const struct requests *requests, int64_t rows,
                        task_progress progress, void *user, int64_t *tokens, struct score *scores,
                        struct error *err)
{
    struct packer packer = {0};
    for (int64_t s = 0; s < requests->slots; s++) scores[s] = (struct score){0, true};
    *tokens = 0;
    if (requests->count == 0) return PLX_OK;
    plx_status status = packer_create(&packer, requests, rows, err);
    if (status == PLX_OK) status = run_packed(model, &packer, progress, user, tokens, scores, err);
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

static plx_status run_scored(struct model *model, const struct requests *requests,
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
