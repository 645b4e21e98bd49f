/* decoder_decode.c: generation, token by token, with keys and values of earlier tokens in a cache.
 *
 * A pass takes the same number of new tokens of each of some neighbouring sequences through the
 * blocks; each mixer appends to its part of the cache and attends to all of it. A step whose
 * sequences get different numbers of tokens is cut into passes. Long prompts go through in pieces
 * of PIECE tokens, so scratch does not grow with the prompt; only the last token of each sequence
 * reaches the head. Everything a pass computes is in scratch, sized by a dry run of the same lines.
 *
 * All that differs from one pass to the next of its shape are numbers in the device's memory, which
 * one upload brings up to date: so the pass that decoding repeats, one token of every sequence, is
 * captured as a graph where the device has graphs, and launched as a whole from then on. */
#include <stdlib.h>
#include <string.h>

#include "core/transfer.h"
#include "layers/view.h"
#include "models/decoder.h"

/* Enough rows to keep matrix products efficient; more would only cost scratch. */
enum { PIECE = 256 };

/* Which sequences a pass is about, and how many tokens of each. */
struct pass_shape {
    int64_t first, sequences, count;
    int64_t ended; /* sequences whose last token is in the pass: their logits are wanted */
};

/* The pass of one token of every sequence as a graph, good for as long as scratch stays where it
 * was. */
struct captured_pass {
    device_graph graph;
    const void *scratch;
    bool ready; /* the pass has run once, so whatever it prepares is prepared */
};

struct model_cache {
    struct model *model;
    int64_t sequences, capacity;
    int64_t *lengths;        /* [sequences]: tokens held */
    int64_t *left;           /* [sequences]: tokens of a step that are still to come */
    int64_t *next;           /* [sequences]: where in the step's ids they begin */
    int64_t piece;           /* most tokens a sequence takes in one pass */
    struct pass_shape sized; /* what a dry run last found to fit the scratch */
    struct arena arena;
    void **mixers;             /* [L] decode records */
    struct plx_tensor numbers; /* i32: what a pass reads besides weights and cache */
    int32_t *host_numbers;     /* the same on the host */
    struct captured_pass captured;
};

/* ---- The cache ---- */

/* For the largest pass: ids and positions of its tokens, lengths of its sequences, and the rows of
 * their last tokens. */
static int64_t numbers_count(const struct model_cache *cache)
{
    return 2 * cache->sequences * cache->piece + 2 * cache->sequences;
}

static void carve_cache(struct model_cache *cache, struct arena *arena)
{
    const struct model *model = cache->model;
    const int64_t numbers = numbers_count(cache);
    for (int64_t l = 0; l < model->config.layers; l++)
        model->blocks[l].kind->carve_cache(model->blocks[l].mixer, model->be->activation,
                                           cache->sequences, cache->capacity, arena,
                                           cache->mixers[l]);
    cache->numbers = arena_tensor(arena, PLX_I32, 1, &numbers);
}

static bool create_records(struct model_cache *cache)
{
    const struct model *model = cache->model;
    cache->lengths = calloc((size_t)(3 * cache->sequences), sizeof *cache->lengths);
    cache->host_numbers = calloc((size_t)numbers_count(cache), sizeof *cache->host_numbers);
    cache->mixers = calloc((size_t)model->config.layers, sizeof *cache->mixers);
    if (cache->lengths == NULL || cache->host_numbers == NULL || cache->mixers == NULL)
        return false;
    cache->left = cache->lengths + cache->sequences;
    cache->next = cache->left + cache->sequences;
    for (int64_t l = 0; l < model->config.layers; l++) {
        cache->mixers[l] = calloc(1, model->blocks[l].kind->cache_record_size);
        if (cache->mixers[l] == NULL) return false;
    }
    return true;
}

/* ---- One pass ---- */

/* A pass's numbers, one list behind the other. */
struct pass_numbers {
    struct plx_tensor ids, positions; /* [sequences * count] */
    struct plx_tensor lengths;        /* [sequences], the new tokens counted */
    struct plx_tensor last;           /* [ended]: rows of tokens that logits are wanted of */
};

static struct pass_numbers pass_numbers(const struct plx_tensor *numbers,
                                        const struct pass_shape *shape)
{
    const int64_t tokens = shape->sequences * shape->count;
    return (struct pass_numbers){
        .ids = view_rows(numbers, 0, tokens),
        .positions = view_rows(numbers, tokens, tokens),
        .lengths = view_rows(numbers, 2 * tokens, shape->sequences),
        .last = view_rows(numbers, 2 * tokens + shape->sequences, shape->ended)};
}

/* Normed rows of the last tokens, and their logits [ended, V]. */
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

/* The pass itself; its numbers are in place. logits [ended, V] on the device. */
static plx_status decode_pass(struct model_cache *cache, struct backend *be,
                              const struct pass_shape *shape, const struct plx_tensor *logits)
{
    struct model *model = cache->model;
    const struct pass_numbers numbers = pass_numbers(&cache->numbers, shape);
    const struct decode_view step = {.first = shape->first,
                                     .sequences = shape->sequences,
                                     .count = shape->count,
                                     .positions = numbers.positions,
                                     .k_lengths = numbers.lengths};
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
    return shape->ended == 0 ? PLX_OK : decode_head(cache, be, &numbers.last, &x, logits);
}

static struct plx_tensor carve_logits(const struct model_cache *cache, struct backend *be,
                                      const struct pass_shape *shape)
{
    const int64_t rows[2] = {shape->ended, cache->model->config.vocab_size};
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

/* ---- Running passes ---- */

/* Queues the pass between the two calls of a capture. */
static plx_status capture_pass(struct model_cache *cache, const struct pass_shape *shape,
                               const struct plx_tensor *logits)
{
    struct backend *be = cache->model->be;
    struct captured_pass *captured = &cache->captured;
    if (captured->graph != NULL) be->device->graph_destroy(captured->graph);
    captured->graph = NULL;
    TRY(be->device->capture_begin(be->stream, be->err));
    plx_status status = decode_pass(cache, be, shape, logits);
    plx_status ended = be->device->capture_end(be->stream, &captured->graph, be->err);
    captured->scratch = logits->data;
    return status != PLX_OK ? status : ended;
}

/* The pass, or the graph of it. The first pass of a cache runs as it is: what operations prepare
 * when they first see a shape must not happen within a capture. */
static plx_status launch_pass(struct model_cache *cache, const struct pass_shape *shape,
                              const struct plx_tensor *logits)
{
    struct backend *be = cache->model->be;
    struct captured_pass *captured = &cache->captured;
    const bool repeated = be->device->capture_begin != NULL && shape->count == 1 &&
                          shape->sequences == cache->sequences && shape->ended == cache->sequences;
    if (!repeated) return decode_pass(cache, be, shape, logits);
    if (!captured->ready) {
        captured->ready = true;
        return decode_pass(cache, be, shape, logits);
    }
    if (captured->graph == NULL || captured->scratch != logits->data)
        TRY(capture_pass(cache, shape, logits));
    return be->device->graph_launch(captured->graph, be->stream, be->err);
}

static bool is_sized(const struct model_cache *cache, const struct pass_shape *shape)
{
    return cache->sized.sequences == shape->sequences && cache->sized.count == shape->count &&
           cache->sized.ended == shape->ended;
}

static plx_status check_scratch(struct model_cache *cache, const struct pass_shape *shape)
{
    const struct backend *be = cache->model->be;
    size_t bytes, left = be->scratch.capacity - be->scratch.used;
    if (is_sized(cache, shape)) return PLX_OK;
    TRY(measure_pass(cache, shape, &bytes));
    REQUIRE(be->err, bytes <= left, PLX_OUT_OF_MEMORY,
            "decoding %lld tokens of %lld sequences needs %zu bytes of scratch, but %zu are "
            "reserved",
            (long long)shape->count, (long long)shape->sequences, bytes, left);
    cache->sized = *shape;
    return PLX_OK;
}

/* The numbers of a pass over the next tokens of its sequences, with one upload. */
static plx_status upload_numbers(struct model_cache *cache, const struct pass_shape *shape,
                                 const int32_t *ids)
{
    const struct backend *be = cache->model->be;
    const int64_t tokens = shape->sequences * shape->count;
    int32_t *to_ids = cache->host_numbers, *positions = to_ids + tokens,
            *lengths = positions + tokens, *last = lengths + shape->sequences;
    for (int64_t n = 0; n < shape->sequences; n++) {
        const int64_t s = shape->first + n;
        memcpy(to_ids + n * shape->count, ids + cache->next[s],
               (size_t)shape->count * sizeof *to_ids);
        for (int64_t c = 0; c < shape->count; c++)
            positions[n * shape->count + c] = (int32_t)(cache->lengths[s] + c);
        lengths[n] = (int32_t)(cache->lengths[s] + shape->count);
        if (cache->left[s] == shape->count) *last++ = (int32_t)((n + 1) * shape->count - 1);
    }
    return be->device->upload(cache->numbers.data, cache->host_numbers,
                              (size_t)(last - cache->host_numbers) * sizeof *last, be->stream,
                              be->err);
}

/* Counts the pass's tokens as held, and brings logits of the sequences that it ends to their rows
 * on the host. */
static plx_status finish_pass(struct model_cache *cache, const struct pass_shape *shape,
                              const struct plx_tensor *from, const struct plx_tensor *logits)
{
    const struct backend *be = cache->model->be;
    int64_t row = 0, run = 0; /* rows run .. row - 1 belong to the sequences just before s */
    for (int64_t s = shape->first; s <= shape->first + shape->sequences; s++) {
        const bool inside = s < shape->first + shape->sequences;
        const bool ends = inside && cache->left[s] == shape->count;
        if (!ends && row > run) {
            struct plx_tensor rows = view_rows(from, run, row - run),
                              to = view_rows(logits, s - (row - run), row - run);
            TRY(transfer_download(be->device, be->stream, &rows, to.data, be->err));
            run = row;
        }
        row += ends;
        if (!inside) break;
        cache->lengths[s] += shape->count;
        cache->next[s] += shape->count;
        cache->left[s] -= shape->count;
    }
    return PLX_OK;
}

static plx_status run_pass(struct model_cache *cache, const struct pass_shape *shape,
                           const int32_t *ids, const struct plx_tensor *logits)
{
    struct backend *be = cache->model->be;
    TRY(check_scratch(cache, shape));
    TRY(upload_numbers(cache, shape, ids));
    size_t mark = arena_mark(&be->scratch);
    const struct plx_tensor own = carve_logits(cache, be, shape);
    plx_status status = launch_pass(cache, shape, &own);
    if (status == PLX_OK) status = finish_pass(cache, shape, &own, logits);
    arena_release(&be->scratch, mark);
    return status;
}

/* The next pass of a step: the first sequence that has tokens left, those behind it that have some
 * too, and as many tokens as the shortest of them; false where none has any. */
static bool next_pass(const struct model_cache *cache, struct pass_shape *shape)
{
    const int64_t *left = cache->left;
    int64_t first = 0, end;
    while (first < cache->sequences && left[first] == 0) first++;
    *shape = (struct pass_shape){.first = first, .count = cache->piece};
    for (end = first; end < cache->sequences && left[end] > 0; end++)
        if (left[end] < shape->count) shape->count = left[end];
    for (int64_t s = first; s < end; s++) shape->ended += left[s] == shape->count;
    shape->sequences = end - first;
    return shape->sequences > 0;
}

/* ---- The verbs of model.h ---- */

/* Workspace of a pass need not grow with its tokens, nor with its sequences, so few and many of
 * both are measured. */
static plx_status measure_passes(struct model_cache *cache, size_t *most)
{
    const int64_t sequences[2] = {1, cache->sequences}, counts[2] = {1, cache->piece};
    *most = 0;
    for (int i = 0; i < 4; i++) {
        const int64_t some = sequences[i / 2];
        size_t bytes;
        TRY(measure_pass(cache, &(struct pass_shape){0, some, counts[i % 2], some}, &bytes));
        if (bytes > *most) *most = bytes;
    }
    return PLX_OK;
}

static plx_status cache_allocate(struct model_cache *cache)
{
    struct backend *be = cache->model->be;
    REQUIRE(be->err, create_records(cache), PLX_OUT_OF_MEMORY,
            "out of memory for a cache of %lld layers", (long long)cache->model->config.layers);
    struct arena measuring = arena_measuring(be->device);
    carve_cache(cache, &measuring);
    size_t scratch;
    TRY(measure_passes(cache, &scratch));
    TRY(backend_reserve(be, scratch));
    TRY(arena_create(&cache->arena, be->device, be->stream, measuring.used, be->err));
    carve_cache(cache, &cache->arena);
    return PLX_OK;
}

plx_status model_cache_create(struct model *model, int64_t sequences, int64_t capacity,
                              struct model_cache **cache)
{
    struct error *err = model->be->err;
    const long long row = model->config.kv_heads * model->config.head_dim;
    *cache = NULL;
    REQUIRE(err, sequences >= 1 && sequences <= INT32_MAX && capacity >= 1 && capacity <= INT32_MAX,
            PLX_INVALID_ARGUMENT, "a cache of %lld sequences of %lld tokens", (long long)sequences,
            (long long)capacity);
    REQUIRE(err, sequences * capacity <= (INT64_C(1) << 48) / row, PLX_OUT_OF_MEMORY,
            "a cache of %lld sequences of %lld tokens of %lld numbers each", (long long)sequences,
            (long long)capacity, row);
    struct model_cache *made = calloc(1, sizeof *made);
    REQUIRE(err, made != NULL, PLX_OUT_OF_MEMORY, "out of memory for a cache");
    made->model = model;
    made->sequences = sequences;
    made->capacity = capacity;
    made->piece = capacity < PIECE ? capacity : PIECE;
    plx_status status = cache_allocate(made);
    if (status == PLX_OK)
        *cache = made;
    else
        model_cache_destroy(made);
    return status;
}

void model_cache_destroy(struct model_cache *cache)
{
    if (cache == NULL) return;
    for (int64_t l = 0; cache->mixers != NULL && l < cache->model->config.layers; l++)
        free(cache->mixers[l]);
    free(cache->mixers);
    free(cache->lengths);
    free(cache->host_numbers);
    if (cache->captured.graph != NULL)
        cache->model->be->device->graph_destroy(cache->captured.graph);
    arena_destroy(&cache->arena);
    free(cache);
}

size_t model_cache_bytes(const struct model_cache *cache)
{
    return cache->arena.used;
}

int64_t model_cache_length(const struct model_cache *cache, int64_t sequence)
{
    return cache->lengths[sequence];
}

void model_cache_clear(struct model_cache *cache)
{
    for (int64_t s = 0; s < cache->sequences; s++) cache->lengths[s] = 0;
}

/* Whether the counts fit, and how many tokens they make. */
static plx_status check_counts(const struct model_cache *cache, const int64_t *counts,
                               int64_t *tokens)
{
    struct error *err = cache->model->be->err;
    *tokens = 0;
    for (int64_t s = 0; s < cache->sequences; s++) {
        REQUIRE(err, counts[s] >= 0 && counts[s] <= cache->capacity - cache->lengths[s],
                PLX_INVALID_ARGUMENT,
                "%lld new tokens do not fit a cache that holds %lld of at most %lld",
                (long long)counts[s], (long long)cache->lengths[s], (long long)cache->capacity);
        *tokens += counts[s];
    }
    REQUIRE(err, *tokens > 0, PLX_INVALID_ARGUMENT, "no sequence of the cache has a new token");
    return PLX_OK;
}

static plx_status check_step(const struct model_cache *cache, const int32_t *ids,
                             const int64_t *counts, const struct plx_tensor *logits)
{
    const struct backend *be = cache->model->be;
    const int64_t V = cache->model->config.vocab_size;
    int64_t tokens;
    TRY(check_counts(cache, counts, &tokens));
    REQUIRE(be->err,
            logits->rank == 2 && logits->shape[0] == cache->sequences && logits->shape[1] == V &&
                logits->dtype == be->storage && logits->device == PLX_CPU,
            PLX_INVALID_ARGUMENT, "logits must be %s [%lld, %lld] in the host's memory",
            plx_dtype_name(be->storage), (long long)cache->sequences, (long long)V);
    for (int64_t n = 0; n < tokens; n++)
        REQUIRE(be->err, ids[n] >= 0 && ids[n] < V, PLX_INVALID_ARGUMENT,
                "token %lld to decode is %d but must be from 0 to %lld", (long long)n, ids[n],
                (long long)V - 1);
    return PLX_OK;
}

plx_status model_decode(struct model *model, struct model_cache *cache, const int32_t *ids,
                        const int64_t *counts, const struct plx_tensor *logits)
{
    REQUIRE(model->be->err, cache->model == model, PLX_INVALID_ARGUMENT,
            "the cache belongs to another model");
    TRY(check_step(cache, ids, counts, logits));
    int64_t begin = 0;
    for (int64_t s = 0; s < cache->sequences; begin += counts[s], s++) {
        cache->left[s] = counts[s];
        cache->next[s] = begin;
    }
    struct pass_shape shape;
    while (next_pass(cache, &shape)) TRY(run_pass(cache, &shape, ids, logits));
    return PLX_OK;
}
