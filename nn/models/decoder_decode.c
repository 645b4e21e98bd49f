/* decoder_decode.c: generation, token by token, with keys and values of earlier tokens in a cache.
 *
 * A step takes count new tokens of each sequence through the blocks; each mixer appends to its part
 * of the cache and attends to all of it. Long prompts go through in pieces of PIECE tokens, so
 * scratch does not grow with the prompt; only the last token of each sequence reaches the head.
 * Everything a step computes is in scratch, sized by a dry run of the same lines. */
#include <stdlib.h>

#include "layers/view.h"
#include "models/decoder.h"

/* Enough rows to keep matrix products efficient; more would only cost scratch. */
enum { PIECE = 256 };

struct model_cache {
    struct model *model;
    int64_t sequences, capacity, length;
    int64_t piece; /* most tokens a sequence takes in one pass */
    int64_t sized; /* the count that a dry run last found to fit the scratch */
    struct arena arena;
    void **mixers;               /* [L] decode records */
    struct plx_tensor positions; /* i32 [sequences * piece], as the next two */
    struct plx_tensor ids;
    struct plx_tensor lengths; /* i32 [sequences] */
};

/* ---- The cache ---- */

static void carve_cache(struct model_cache *cache, struct arena *arena)
{
    const struct model *model = cache->model;
    const int64_t tokens = cache->sequences * cache->piece;
    for (int64_t l = 0; l < model->config.layers; l++)
        model->blocks[l].kind->carve_cache(model->blocks[l].mixer, model->be->activation,
                                           cache->sequences, cache->capacity, arena,
                                           cache->mixers[l]);
    cache->positions = arena_tensor(arena, PLX_I32, 1, &tokens);
    cache->ids = arena_tensor(arena, PLX_I32, 1, &tokens);
    cache->lengths = arena_tensor(arena, PLX_I32, 1, &cache->sequences);
}

static bool create_records(struct model_cache *cache)
{
    const struct model *model = cache->model;
    cache->mixers = calloc((size_t)model->config.layers, sizeof *cache->mixers);
    if (cache->mixers == NULL) return false;
    for (int64_t l = 0; l < model->config.layers; l++) {
        cache->mixers[l] = calloc(1, model->blocks[l].kind->cache_record_size);
        if (cache->mixers[l] == NULL) return false;
    }
    return true;
}

/* ---- One pass ---- */

/* Rows of the last token of every sequence, [sequences, E]. */
static plx_status gather_last(struct backend *be, const struct decode_view *step,
                              const struct plx_tensor *x, const struct plx_tensor *last)
{
    for (int64_t s = 0; s < step->sequences; s++) {
        struct plx_tensor source = view_rows(x, (s + 1) * step->count - 1, 1),
                          target = view_rows(last, s, 1);
        TRY(be->ops->copy(be, &target, &source));
    }
    return PLX_OK;
}

static plx_status decode_head(struct model_cache *cache, struct backend *be,
                              const struct decode_view *step, const struct plx_tensor *x,
                              const struct plx_tensor *logits)
{
    struct model *model = cache->model;
    const int64_t shape[2] = {step->sequences, model->config.hidden_size};
    struct plx_tensor last = arena_tensor(&be->scratch, be->activation, 2, shape),
                      normed = arena_tensor(&be->scratch, be->activation, 2, shape),
                      rstd = arena_tensor(&be->scratch, be->storage, 1, shape);
    TRY(gather_last(be, step, x, &last));
    TRY(rmsnorm_forward(be, &model->norm, &model->params, &last, &normed, &rstd));
    return linear_forward(be, model->head, &model->params, &normed, logits);
}

/* Views of the cache's arrays; values are filled in by the caller of a real pass. */
static struct decode_view step_view(const struct model_cache *cache, int64_t count)
{
    return (struct decode_view){.sequences = cache->sequences,
                                .count = count,
                                .length = cache->length,
                                .positions =
                                    view_rows(&cache->positions, 0, cache->sequences * count),
                                .k_lengths = cache->lengths};
}

/* count tokens of each sequence, whose ids and positions are in place. logits NULL: not the last
 * piece. */
static plx_status decode_pass(struct model_cache *cache, struct backend *be, int64_t count,
                              const struct plx_tensor *logits)
{
    struct model *model = cache->model;
    const struct decode_view step = step_view(cache, count);
    const int64_t tokens = cache->sequences * count;
    const int64_t shape[2] = {tokens, model->config.hidden_size};
    struct plx_tensor ids = view_rows(&cache->ids, 0, tokens);
    struct plx_tensor x = arena_tensor(&be->scratch, be->activation, 2, shape),
                      y = arena_tensor(&be->scratch, be->activation, 2, shape);
    TRY(embedding_forward(be, model->table, &model->params, &ids, &x));
    for (int64_t l = 0; l < model->config.layers; l++) {
        TRY(block_decode(be, &model->blocks[l], &model->params, &step, &x, cache->mixers[l], &y));
        struct plx_tensor swap = x;
        x = y;
        y = swap;
    }
    return logits == NULL ? PLX_OK : decode_head(cache, be, &step, &x, logits);
}

/* Scratch of a pass, by a dry run. The cache's own tensors may have no data yet; their shapes
 * suffice. */
static plx_status measure_pass(struct model_cache *cache, int64_t count, size_t *bytes)
{
    struct backend dry = backend_dry(cache->model->be);
    const int64_t shape[2] = {cache->sequences, cache->model->config.vocab_size};
    struct plx_tensor logits = plx_tensor_dense(NULL, dry.storage, 2, shape);
    plx_status status = decode_pass(cache, &dry, count, &logits);
    *bytes = dry.scratch.peak;
    return status;
}

/* ---- The verbs of model.h ---- */

/* Workspace of a pass need not grow with its tokens, so one token and a full piece are both
 * measured. */
static plx_status cache_allocate(struct model_cache *cache)
{
    struct backend *be = cache->model->be;
    REQUIRE(be->err, create_records(cache), PLX_OUT_OF_MEMORY,
            "out of memory for a cache of %lld layers", (long long)cache->model->config.layers);
    struct arena measuring = arena_measuring(be->device);
    carve_cache(cache, &measuring);
    size_t one, full;
    TRY(measure_pass(cache, 1, &one));
    TRY(measure_pass(cache, cache->piece, &full));
    TRY(backend_reserve(be, one > full ? one : full));
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
    arena_destroy(&cache->arena);
    free(cache);
}

size_t model_cache_bytes(const struct model_cache *cache)
{
    return cache->arena.used;
}

int64_t model_cache_length(const struct model_cache *cache)
{
    return cache->length;
}

void model_cache_clear(struct model_cache *cache)
{
    cache->length = 0;
}

/* Puts the ids of tokens first .. first + count - 1 of every sequence in place, with their
 * positions. */
static void fill_step(struct model_cache *cache, const int32_t *ids, int64_t total, int64_t first,
                      int64_t count)
{
    int32_t *step_ids = cache->ids.data, *positions = cache->positions.data,
            *lengths = cache->lengths.data;
    for (int64_t s = 0; s < cache->sequences; s++) {
        lengths[s] = (int32_t)(cache->length + count);
        for (int64_t c = 0; c < count; c++) {
            step_ids[s * count + c] = ids[s * total + first + c];
            positions[s * count + c] = (int32_t)(cache->length + c);
        }
    }
}

static plx_status decode_piece(struct model_cache *cache, int64_t count,
                               const struct plx_tensor *logits)
{
    struct backend *be = cache->model->be;
    if (cache->sized != count) {
        size_t bytes, left = be->scratch.capacity - be->scratch.used;
        TRY(measure_pass(cache, count, &bytes));
        REQUIRE(be->err, bytes <= left, PLX_OUT_OF_MEMORY,
                "decoding %lld tokens of %lld sequences needs %zu bytes of scratch, but %zu are "
                "reserved",
                (long long)count, (long long)cache->sequences, bytes, left);
        cache->sized = count;
    }
    size_t mark = arena_mark(&be->scratch);
    plx_status status = decode_pass(cache, be, count, logits);
    arena_release(&be->scratch, mark);
    if (status == PLX_OK) cache->length += count;
    return status;
}

static plx_status check_step(const struct model_cache *cache, const int32_t *ids, int64_t count,
                             const struct plx_tensor *logits)
{
    const struct backend *be = cache->model->be;
    const int64_t V = cache->model->config.vocab_size;
    REQUIRE(be->err, count >= 1 && count <= cache->capacity - cache->length, PLX_INVALID_ARGUMENT,
            "%lld new tokens do not fit a cache that holds %lld of at most %lld", (long long)count,
            (long long)cache->length, (long long)cache->capacity);
    REQUIRE(be->err,
            logits->rank == 2 && logits->shape[0] == cache->sequences && logits->shape[1] == V &&
                logits->dtype == be->storage,
            PLX_INVALID_ARGUMENT, "logits must be %s [%lld, %lld]", plx_dtype_name(be->storage),
            (long long)cache->sequences, (long long)V);
    for (int64_t n = 0; n < cache->sequences * count; n++)
        REQUIRE(be->err, ids[n] >= 0 && ids[n] < V, PLX_INVALID_ARGUMENT,
                "token %lld to decode is %d but must be from 0 to %lld", (long long)n, ids[n],
                (long long)V - 1);
    return PLX_OK;
}

plx_status model_decode(struct model *model, struct model_cache *cache, const int32_t *ids,
                        int64_t count, const struct plx_tensor *logits)
{
    REQUIRE(model->be->err, cache->model == model, PLX_INVALID_ARGUMENT,
            "the cache belongs to another model");
    TRY(check_step(cache, ids, count, logits));
    for (int64_t first = 0; first < count; first += cache->piece) {
        int64_t piece = count - first < cache->piece ? count - first : cache->piece;
        fill_step(cache, ids, count, first, piece);
        TRY(decode_piece(cache, piece, first + piece == count ? logits : NULL));
    }
    return PLX_OK;
}
