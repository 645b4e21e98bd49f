/* decoder_decode.c: generation, token by token, with keys and values of earlier tokens in a cache.
 *
 * A pass takes the same number of new tokens of each of some sequences through the blocks; each
 * mixer appends to their pages and attends to all that these hold. A step whose sequences get
 * different numbers of tokens is cut into passes, and so is one of more tokens than a pass takes,
 * so scratch does not grow with prompts; only the last token of each sequence reaches the head.
 * Everything a pass computes is in scratch, sized by a dry run of the same lines.
 *
 * What follows is drawn from the logits where they are, and ids come to the host; logits themselves
 * only where they are asked for.
 *
 * All that differs from one pass to the next of its shape are numbers in the device's memory: ids,
 * positions, lengths, the table of pages, and what draws are told. So the pass that decoding
 * repeats, one token of every sequence, is captured as a graph where the device has graphs, and
 * launched as a whole from then on. Sequences that have no token in such a pass are taken along
 * with length 0. */
#include <string.h>

#include "core/transfer.h"
#include "layers/view.h"
#include "models/decoder_cache.h"

/* ---- One pass ---- */

bool pass_shape_equal(const struct pass_shape *a, const struct pass_shape *b)
{
    return a->sequences == b->sequences && a->count == b->count && a->rows == b->rows &&
           a->vocab == b->vocab && a->penalty == b->penalty;
}

/* A pass's numbers, one list behind the other. */
struct pass_numbers {
    struct plx_tensor ids, positions; /* [sequences * count] */
    struct plx_tensor lengths;        /* [sequences], the new tokens counted */
    struct plx_tensor last;           /* [rows]: of tokens that logits are wanted of */
};

static struct pass_numbers pass_numbers(const struct plx_tensor *numbers,
                                        const struct pass_shape *shape)
{
    const int64_t tokens = shape->sequences * shape->count;
    return (struct pass_numbers){
        .ids = view_rows(numbers, 0, tokens),
        .positions = view_rows(numbers, tokens, tokens),
        .lengths = view_rows(numbers, 2 * tokens, shape->sequences),
        .last = view_rows(numbers, 2 * tokens + shape->sequences, shape->rows)};
}

/* Normed rows of the last tokens, and their logits [rows, V]. */
static plx_status decode_head(struct model_cache *cache, struct backend *be,
                              const struct plx_tensor *last, const struct plx_tensor *x,
                              const struct plx_tensor *logits)
{
    struct model *model = cache->model;
    const int64_t shape[2] = {last->shape[0], model->config.hidden_size};
    struct plx_tensor rows = arena_tensor(&be->scratch, be->activation, 2, shape),
                      normed = arena_tensor(&be->scratch, be->activation, 2, shape),
                      rstd = arena_tensor(&be->scratch, be->storage, 1, shape);
    TRY(be->ops->embed(be, &rows, x, last));
    TRY(rmsnorm_forward(be, &model->norm, &model->params, &rows, &normed, &rstd));
    return linear_forward(be, model->head, &model->params, &normed, logits);
}

/* Draws from the logits of ids that may be drawn; where there is a penalty it changes them. */
static plx_status decode_draw(struct model_cache *cache, struct backend *be,
                              const struct pass_shape *shape, const struct plx_tensor *logits)
{
    const struct pass_draws *draws = &cache->draws;
    const struct plx_tensor numbers = view_rows(&draws->numbers, 0, shape->rows),
                            ids = view_rows(&draws->ids, 0, shape->rows),
                            seen = view_rows(&draws->seen, 0, shape->rows),
                            counts = view_rows(&draws->seen_counts, 0, shape->rows);
    struct plx_tensor known = *logits;
    known.shape[1] = shape->vocab;
    if (shape->penalty != 1) TRY(be->ops->penalise(be, &known, &seen, &counts, shape->penalty));
    return be->ops->draw(be, &ids, &known, &numbers);
}

/* The pass itself; its numbers are in place. logits [rows, V] on the device. */
static plx_status decode_pass(struct model_cache *cache, struct backend *be,
                              const struct pass_shape *shape, const struct plx_tensor *logits)
{
    struct model *model = cache->model;
    const struct pass_numbers numbers = pass_numbers(&cache->numbers, shape);
    const struct decode_view step = {.sequences = shape->sequences,
                                     .count = shape->count,
                                     .positions = numbers.positions,
                                     .k_lengths = numbers.lengths,
                                     .k_pages = view_rows(&cache->table, 0, shape->sequences)};
    const int64_t rows[2] = {shape->sequences * shape->count, model->config.hidden_size};
    struct plx_tensor x = arena_tensor(&be->scratch, be->activation, 2, rows),
                      y = arena_tensor(&be->scratch, be->activation, 2, rows);
    TRY(embedding_forward(be, model->table, &model->params, &numbers.ids, &x));
    for (int64_t l = 0; l < model->config.layers; l++) {
        TRY(block_decode(be, &model->blocks[l], &model->params, &step, &x, cache->mixers[l], &y));
        struct plx_tensor swap = x;
        x = y;
        y = swap;
    }
    if (shape->rows == 0) return PLX_OK;
    TRY(decode_head(cache, be, &numbers.last, &x, logits));
    return shape->vocab == 0 ? PLX_OK : decode_draw(cache, be, shape, logits);
}

static struct plx_tensor carve_logits(const struct model_cache *cache, struct backend *be,
                                      const struct pass_shape *shape)
{
    const int64_t rows[2] = {shape->rows, cache->model->config.vocab_size};
    return arena_tensor(&be->scratch, be->storage, 2, rows);
}

/* Scratch of a pass, by a dry run. The cache's own tensors may have no data yet; their shapes
 * suffice. */
static plx_status measure_pass(struct model_cache *cache, const struct pass_shape *shape,
                               size_t *bytes)
{
    struct backend dry = backend_dry(cache->model->be);
    struct plx_tensor logits = carve_logits(cache, &dry, shape);
    plx_status status = decode_pass(cache, &dry, shape, &logits);
    *bytes = dry.scratch.peak;
    return status;
}

/* Workspace of a pass need not grow with its tokens, nor with its sequences, so few and many of
 * both are measured. */
plx_status decode_measure(struct model_cache *cache, size_t *bytes)
{
    const int64_t V = cache->model->config.vocab_size;
    *bytes = 0;
    for (int64_t some = 1;; some = 2 * some < cache->sequences ? 2 * some : cache->sequences) {
        const int64_t share = cache->most_tokens / some;
        const int64_t counts[2] = {1, share < cache->capacity ? share : cache->capacity};
        for (int i = 0; i < 2; i++) {
            size_t need;
            TRY(measure_pass(cache, &(struct pass_shape){some, counts[i], some, V, 1}, &need));
            if (need > *bytes) *bytes = need;
        }
        if (some == cache->sequences) return PLX_OK;
    }
}

/* ---- Running passes ---- */

static bool is_repeated(const struct model_cache *cache, int64_t count)
{
    return count == 1 && cache->model->be->device->capture_begin != NULL;
}

struct repeated_pass {
    struct model_cache *cache;
    const struct pass_shape *shape;
    const struct plx_tensor *logits;
};

static plx_status repeat_pass(void *user)
{
    const struct repeated_pass *pass = user;
    return decode_pass(pass->cache, pass->cache->model->be, pass->shape, pass->logits);
}

static plx_status launch_pass(struct model_cache *cache, const struct pass_shape *shape,
                              const struct plx_tensor *logits)
{
    struct backend *be = cache->model->be;
    struct repeated_pass pass = {cache, shape, logits};
    if (!is_repeated(cache, shape->count)) return decode_pass(cache, be, shape, logits);
    if (!pass_shape_equal(&cache->captured, shape)) replay_forget(&cache->repeated, be);
    cache->captured = *shape;
    return replay_run(&cache->repeated, be, repeat_pass, &pass);
}

/* Scratch for few and for many tokens and sequences is there; a shape in between may want more. */
static plx_status reserve_scratch(struct model_cache *cache, const struct pass_shape *shape)
{
    size_t bytes;
    if (pass_shape_equal(&cache->sized, shape)) return PLX_OK;
    TRY(measure_pass(cache, shape, &bytes));
    TRY(backend_reserve(cache->model->be, bytes));
    cache->sized = *shape;
    return PLX_OK;
}

/* The numbers of a pass over the next tokens of its sequences, with one upload. */
static plx_status upload_numbers(struct model_cache *cache, const struct pass_shape *shape,
                                 const int32_t *ids)
{
    const struct backend *be = cache->model->be;
    const int64_t count = shape->count, tokens = shape->sequences * count;
    int32_t *to_ids = cache->host_numbers, *positions = to_ids + tokens,
            *lengths = positions + tokens, *last = lengths + shape->sequences;
    for (int64_t n = 0, row = 0; n < shape->sequences; n++) {
        const int64_t s = cache->chosen[n];
        const bool idle = cache->left[s] == 0;
        for (int64_t c = 0; c < count; c++) {
            to_ids[n * count + c] = idle ? 0 : ids[cache->next[s] + c];
            positions[n * count + c] = idle ? 0 : (int32_t)(cache->lengths[s] + c);
        }
        lengths[n] = idle ? 0 : (int32_t)(cache->lengths[s] + count);
        if (row < shape->rows && cache->wanted[row] == s)
            last[row++] = (int32_t)((n + 1) * count - 1);
    }
    return be->device->upload(cache->numbers.data, cache->host_numbers,
                              (size_t)(last + shape->rows - cache->host_numbers) * sizeof *last,
                              be->stream, be->err);
}

/* The rows of the table that the pass reads, where the device does not hold them yet. */
static plx_status upload_table(struct model_cache *cache, const struct pass_shape *shape)
{
    const struct backend *be = cache->model->be;
    const int64_t width = cache->pages.width;
    const size_t bytes = (size_t)width * sizeof *cache->host_table;
    int64_t changed = 0; /* rows up to the last that differs */
    for (int64_t n = 0; n < shape->sequences; n++) {
        const int32_t *row = cache->pages.table + cache->chosen[n] * width;
        if (memcmp(cache->host_table + n * width, row, bytes) == 0) continue;
        memcpy(cache->host_table + n * width, row, bytes);
        changed = n + 1;
    }
    if (changed == 0) return PLX_OK;
    return be->device->upload(cache->table.data, cache->host_table, (size_t)changed * bytes,
                              be->stream, be->err);
}

/* What draws of the pass's rows are told. */
static plx_status upload_draws(struct model_cache *cache, const struct pass_shape *shape,
                               const struct model_draws *draws)
{
    const struct backend *be = cache->model->be;
    struct pass_draws *to = &cache->draws;
    const int64_t rows = shape->rows, width = to->seen.shape[1];
    for (int64_t row = 0; row < rows; row++)
        to->host_numbers[row] = draws->numbers[cache->wanted[row]];
    TRY(be->device->upload(to->numbers.data, to->host_numbers,
                           (size_t)rows * sizeof *to->host_numbers, be->stream, be->err));
    if (shape->penalty == 1) return PLX_OK;
    for (int64_t row = 0; row < rows; row++) {
        const int64_t s = cache->wanted[row], count = draws->seen_counts[s];
        to->host_counts[row] = (int32_t)count;
        if (count > 0)
            memcpy(to->host_seen + row * width, draws->seen[s],
                   (size_t)count * sizeof *to->host_seen);
    }
    TRY(be->device->upload(to->seen_counts.data, to->host_counts,
                           (size_t)rows * sizeof *to->host_counts, be->stream, be->err));
    return be->device->upload(to->seen.data, to->host_seen,
                              (size_t)(rows * width) * sizeof *to->host_seen, be->stream, be->err);
}

/* Brings what was drawn for the sequences that the pass ends. */
static plx_status download_draws(const struct model_cache *cache, const struct pass_shape *shape,
                                 const struct model_draws *draws)
{
    const struct backend *be = cache->model->be;
    const struct pass_draws *from = &cache->draws;
    if (shape->rows == 0) return PLX_OK;
    TRY(be->device->download(from->host_ids, from->ids.data,
                             (size_t)shape->rows * sizeof *from->host_ids, be->stream, be->err));
    for (int64_t row = 0; row < shape->rows; row++) {
        const int64_t s = cache->wanted[row];
        if (cache->left[s] == shape->count) draws->ids[s] = from->host_ids[row];
    }
    return PLX_OK;
}

/* Counts the pass's tokens as held. */
static void count_pass(struct model_cache *cache, const struct pass_shape *shape)
{
    for (int64_t n = 0; n < shape->sequences; n++) {
        const int64_t s = cache->chosen[n];
        if (cache->left[s] == 0) continue;
        cache->lengths[s] += shape->count;
        cache->next[s] += shape->count;
        cache->left[s] -= shape->count;
    }
}

/* Brings logits of the sequences that the pass ends to their rows on the host, neighbours at once.
 */
static plx_status download_logits(const struct model_cache *cache, const struct pass_shape *shape,
                                  const struct plx_tensor *from, const struct plx_tensor *logits)
{
    const struct backend *be = cache->model->be;
    const int64_t *wanted = cache->wanted;
    for (int64_t row = 0, end; row < shape->rows; row = end) {
        end = row + 1;
        if (cache->left[wanted[row]] != shape->count) continue;
        while (end < shape->rows && wanted[end] == wanted[end - 1] + 1 &&
               cache->left[wanted[end]] == shape->count)
            end++;
        struct plx_tensor rows = view_rows(from, row, end - row),
                          to = view_rows(logits, wanted[row], end - row);
        TRY(transfer_download(be->device, be->stream, &rows, to.data, be->err));
    }
    return PLX_OK;
}

/* What a step leaves on the host: logits, or what was drawn from them. */
struct step_result {
    const struct plx_tensor *logits; /* NULL: draws */
    const struct model_draws *draws;
};

static plx_status run_pass(struct model_cache *cache, const struct pass_shape *shape,
                           const int32_t *ids, const struct step_result *result)
{
    struct backend *be = cache->model->be;
    const bool draws = result->logits == NULL;
    TRY(reserve_scratch(cache, shape));
    TRY(upload_numbers(cache, shape, ids));
    TRY(upload_table(cache, shape));
    if (draws) TRY(upload_draws(cache, shape, result->draws));
    size_t mark = arena_mark(&be->scratch);
    const struct plx_tensor own = carve_logits(cache, be, shape);
    plx_status status = launch_pass(cache, shape, &own);
    if (status == PLX_OK)
        status = draws ? download_draws(cache, shape, result->draws)
                       : download_logits(cache, shape, &own, result->logits);
    if (status == PLX_OK) count_pass(cache, shape);
    arena_release(&be->scratch, mark);
    return status;
}

/* The next pass of a step: as many tokens as the shortest of the sequences has left that have some,
 * if they are not too many together; false where none has any. What it does with its logits stays
 * as it is. */
static bool next_pass(struct model_cache *cache, struct pass_shape *shape)
{
    const int64_t *left = cache->left;
    int64_t waiting = 0, count = cache->most_tokens;
    for (int64_t s = 0; s < cache->sequences; s++) {
        if (left[s] == 0) continue;
        if (left[s] < count) count = left[s];
        cache->chosen[waiting++] = s;
    }
    if (waiting == 0) return false;
    if (count > cache->most_tokens / waiting) count = cache->most_tokens / waiting;
    shape->sequences = waiting;
    shape->count = count;
    shape->rows = 0;
    if (is_repeated(cache, count)) {
        shape->sequences = shape->rows = cache->sequences;
        for (int64_t s = 0; s < cache->sequences; s++) cache->chosen[s] = cache->wanted[s] = s;
        return true;
    }
    for (int64_t n = 0; n < waiting; n++)
        if (left[cache->chosen[n]] == count) cache->wanted[shape->rows++] = cache->chosen[n];
    return true;
}

/* ---- The verbs of model.h ---- */

/* Whether the counts fit, and how many tokens and pages they take. */
static plx_status check_counts(const struct model_cache *cache, const int64_t *counts,
                               int64_t *tokens)
{
    struct error *err = cache->model->be->err;
    const struct cache_pages *pages = &cache->pages;
    int64_t lacking = 0;
    *tokens = 0;
    for (int64_t s = 0; s < cache->sequences; s++) {
        REQUIRE(err, counts[s] >= 0 && counts[s] <= cache->capacity - cache->lengths[s],
                PLX_INVALID_ARGUMENT,
                "%lld new tokens do not fit a cache that holds %lld of at most %lld",
                (long long)counts[s], (long long)cache->lengths[s], (long long)cache->capacity);
        *tokens += counts[s];
        lacking += cache_pages_lacking(pages, s, cache->lengths[s] + counts[s]);
    }
    REQUIRE(err, *tokens > 0, PLX_INVALID_ARGUMENT, "no sequence of the cache has a new token");
    REQUIRE(err, lacking <= pages->total - pages->taken, PLX_OUT_OF_MEMORY,
            "%lld new tokens take %lld more pages of %lld tokens, but %lld of the cache's %lld are "
            "free",
            (long long)*tokens, (long long)lacking, (long long)pages->page,
            (long long)(pages->total - pages->taken), (long long)pages->total);
    return PLX_OK;
}

static plx_status check_step(const struct model_cache *cache, const int32_t *ids,
                             const int64_t *counts)
{
    const struct backend *be = cache->model->be;
    const int64_t V = cache->model->config.vocab_size;
    int64_t tokens;
    TRY(check_counts(cache, counts, &tokens));
    for (int64_t n = 0; n < tokens; n++)
        REQUIRE(be->err, ids[n] >= 0 && ids[n] < V, PLX_INVALID_ARGUMENT,
                "token %lld to decode is %d but must be from 0 to %lld", (long long)n, ids[n],
                (long long)V - 1);
    return PLX_OK;
}

static plx_status check_logits(const struct model_cache *cache, const struct plx_tensor *logits)
{
    const struct backend *be = cache->model->be;
    const int64_t V = cache->model->config.vocab_size;
    REQUIRE(be->err,
            logits->rank == 2 && logits->shape[0] == cache->sequences && logits->shape[1] == V &&
                logits->dtype == be->storage && logits->device == PLX_CPU,
            PLX_INVALID_ARGUMENT, "logits must be %s [%lld, %lld] in the host's memory",
            plx_dtype_name(be->storage), (long long)cache->sequences, (long long)V);
    return PLX_OK;
}

static plx_status check_draws(const struct model_cache *cache, const struct model_draws *draws)
{
    struct error *err = cache->model->be->err;
    const int64_t V = cache->model->config.vocab_size;
    REQUIRE(err, draws->vocab >= 1 && draws->vocab <= V, PLX_INVALID_ARGUMENT,
            "draws from %lld ids of a model that has %lld", (long long)draws->vocab, (long long)V);
    if (draws->penalty == 1) return PLX_OK;
    REQUIRE(err, cache->penalising, PLX_INVALID_ARGUMENT,
            "a penalty of %g, but the cache is for draws without", draws->penalty);
    for (int64_t s = 0; s < cache->sequences; s++)
        REQUIRE(err, draws->seen_counts[s] >= 0 && draws->seen_counts[s] <= cache->capacity,
                PLX_INVALID_ARGUMENT, "a penalty of %lld ids in a cache for %lld tokens",
                (long long)draws->seen_counts[s], (long long)cache->capacity);
    return PLX_OK;
}

static plx_status run_step(struct model_cache *cache, const int32_t *ids, const int64_t *counts,
                           struct pass_shape shape, const struct step_result *result)
{
    int64_t begin = 0;
    for (int64_t s = 0; s < cache->sequences; begin += counts[s], s++) {
        cache->left[s] = counts[s];
        cache->next[s] = begin;
        cache_pages_take(&cache->pages, s, cache->lengths[s] + counts[s]);
    }
    while (next_pass(cache, &shape)) TRY(run_pass(cache, &shape, ids, result));
    return PLX_OK;
}

plx_status model_decode(struct model *model, struct model_cache *cache, const int32_t *ids,
                        const int64_t *counts, const struct plx_tensor *logits)
{
    REQUIRE(model->be->err, cache->model == model, PLX_INVALID_ARGUMENT,
            "the cache belongs to another model");
    TRY(check_step(cache, ids, counts));
    TRY(check_logits(cache, logits));
    return run_step(cache, ids, counts, (struct pass_shape){.penalty = 1},
                    &(struct step_result){.logits = logits});
}

plx_status model_decode_draw(struct model *model, struct model_cache *cache, const int32_t *ids,
                             const int64_t *counts, const struct model_draws *draws)
{
    REQUIRE(model->be->err, cache->model == model, PLX_INVALID_ARGUMENT,
            "the cache belongs to another model");
    TRY(check_step(cache, ids, counts));
    TRY(check_draws(cache, draws));
    return run_step(cache, ids, counts,
                    (struct pass_shape){.vocab = draws->vocab, .penalty = draws->penalty},
                    &(struct step_result){.draws = draws});
}
