/* decoder_cache.c: the memory of sequences in progress: for every layer a pool of pages of keys and
 * values, from which sequences take pages as they grow (cache_pages.h), and what passes read. */
#include "models/decoder_cache.h"

#include <stdlib.h>

/* Enough rows to keep matrix products efficient, and a GPU busy for longer than it takes to queue
 * a pass; more would only cost scratch. */
enum { PASS_TOKENS = 1024 };

/* For the largest pass: ids and positions of its tokens, lengths of its sequences, and the rows of
 * their last tokens. */
static int64_t numbers_count(const struct model_cache *cache)
{
    return 2 * cache->most_tokens + 2 * cache->sequences;
}

static void carve_draws(struct model_cache *cache, struct arena *arena)
{
    struct pass_draws *draws = &cache->draws;
    const int64_t rows = cache->sequences,
                  seen[2] = {rows, cache->penalising ? cache->capacity : 1};
    draws->numbers = arena_tensor(arena, PLX_F64, 2, (int64_t[]){rows, DRAW_NUMBERS});
    draws->ids = arena_tensor(arena, PLX_I32, 1, &rows);
    draws->seen = arena_tensor(arena, PLX_I32, 2, seen);
    draws->seen_counts = arena_tensor(arena, PLX_I32, 1, &rows);
}

static void carve_cache(struct model_cache *cache, struct arena *arena)
{
    const struct model *model = cache->model;
    const struct cache_pages *pages = &cache->pages;
    const int64_t numbers = numbers_count(cache), table[2] = {cache->sequences, pages->width};
    for (int64_t l = 0; l < model->config.layers; l++)
        model->blocks[l].kind->carve_cache(model->blocks[l].mixer, model->be->activation,
                                           pages->total, pages->page, arena, cache->mixers[l]);
    cache->numbers = arena_tensor(arena, PLX_I32, 1, &numbers);
    cache->table = arena_tensor(arena, PLX_I32, 2, table);
    carve_draws(cache, arena);
}

static bool create_draws(struct pass_draws *draws, size_t rows, size_t seen)
{
    draws->host_numbers = calloc(rows, sizeof *draws->host_numbers);
    draws->host_ids = calloc(rows, sizeof *draws->host_ids);
    draws->host_seen = calloc(rows * seen, sizeof *draws->host_seen);
    draws->host_counts = calloc(rows, sizeof *draws->host_counts);
    return draws->host_numbers != NULL && draws->host_ids != NULL && draws->host_seen != NULL &&
           draws->host_counts != NULL;
}

static void destroy_draws(struct pass_draws *draws)
{
    free(draws->host_numbers);
    free(draws->host_ids);
    free(draws->host_seen);
    free(draws->host_counts);
}

static bool create_records(struct model_cache *cache)
{
    const struct model *model = cache->model;
    const size_t sequences = (size_t)cache->sequences;
    cache->lengths = calloc(5 * sequences, sizeof *cache->lengths);
    cache->host_numbers = calloc((size_t)numbers_count(cache), sizeof *cache->host_numbers);
    cache->host_table = calloc(sequences * (size_t)cache->pages.width, sizeof *cache->host_table);
    cache->mixers = calloc((size_t)model->config.layers, sizeof *cache->mixers);
    if (cache->lengths == NULL || cache->host_numbers == NULL || cache->host_table == NULL ||
        cache->mixers == NULL || !cache_pages_create(&cache->pages) ||
        !create_draws(&cache->draws, sequences, cache->penalising ? (size_t)cache->capacity : 1))
        return false;
    cache->left = cache->lengths + sequences;
    cache->next = cache->left + sequences;
    cache->chosen = cache->next + sequences;
    cache->wanted = cache->chosen + sequences;
    for (int64_t l = 0; l < model->config.layers; l++) {
        cache->mixers[l] = calloc(1, model->blocks[l].kind->cache_record_size);
        if (cache->mixers[l] == NULL) return false;
    }
    return true;
}

static plx_status cache_allocate(struct model_cache *cache)
{
    struct backend *be = cache->model->be;
    REQUIRE(be->err, create_records(cache), PLX_OUT_OF_MEMORY,
            "out of memory for a cache of %lld layers", (long long)cache->model->config.layers);
    struct arena measuring = arena_measuring(be->device);
    carve_cache(cache, &measuring);
    size_t scratch;
    TRY(decode_measure(cache, &scratch));
    TRY(backend_reserve(be, scratch));
    TRY(arena_create(&cache->arena, be->device, be->stream, measuring.used, be->err));
    carve_cache(cache, &cache->arena); /* the table is zeros, as the host's is */
    return PLX_OK;
}

/* The extents of the lists of pages, checked. */
static plx_status size_pages(const struct model *model, const struct model_cache_config *config,
                             struct cache_pages *pages)
{
    struct error *err = model->be->err;
    const long long row = model->config.kv_heads * model->config.head_dim;
    const long long sequences = config->sequences, capacity = config->capacity;
    REQUIRE(err, sequences >= 1 && sequences <= INT32_MAX && capacity >= 1 && capacity <= INT32_MAX,
            PLX_INVALID_ARGUMENT, "a cache of %lld sequences of %lld tokens", sequences, capacity);
    REQUIRE(err, config->page >= 0 && config->page <= INT32_MAX && config->pages >= 0,
            PLX_INVALID_ARGUMENT, "a cache of %lld pages of %lld tokens", (long long)config->pages,
            (long long)config->page);
    *pages = (struct cache_pages){.page = config->page > 0 ? config->page : MODEL_CACHE_PAGE,
                                  .sequences = sequences};
    pages->width = cache_pages_for(capacity, pages->page);
    pages->total = sequences * pages->width;
    if (config->pages > 0 && config->pages < pages->total) pages->total = config->pages;
    REQUIRE(err,
            pages->total <= INT32_MAX && pages->width * pages->page <= INT32_MAX &&
                pages->total <= (INT64_C(1) << 48) / row / pages->page,
            PLX_OUT_OF_MEMORY, "a cache of %lld pages of %lld tokens of %lld numbers each",
            (long long)pages->total, (long long)pages->page, row);
    return PLX_OK;
}

/* ---- The verbs of model.h ---- */

plx_status model_cache_create(struct model *model, const struct model_cache_config *config,
                              struct model_cache **cache)
{
    struct cache_pages pages;
    *cache = NULL;
    TRY(size_pages(model, config, &pages));
    struct model_cache *made = calloc(1, sizeof *made);
    REQUIRE(model->be->err, made != NULL, PLX_OUT_OF_MEMORY, "out of memory for a cache");
    made->model = model;
    made->sequences = config->sequences;
    made->capacity = config->capacity;
    made->penalising = config->penalising;
    made->pages = pages;
    made->most_tokens = made->capacity > PASS_TOKENS / made->sequences
                            ? PASS_TOKENS
                            : made->sequences * made->capacity;
    if (made->most_tokens < made->sequences) made->most_tokens = made->sequences;
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
    free(cache->host_table);
    destroy_draws(&cache->draws);
    cache_pages_destroy(&cache->pages);
    replay_forget(&cache->repeated, cache->model->be);
    arena_destroy(&cache->arena);
    free(cache);
}

struct model_cache_use model_cache_use(const struct model_cache *cache)
{
    const struct cache_pages *pages = &cache->pages;
    return (struct model_cache_use){.bytes = cache->arena.used,
                                    .page = pages->page,
                                    .pages = pages->total,
                                    .taken = pages->taken};
}

int64_t model_cache_length(const struct model_cache *cache, int64_t sequence)
{
    return cache->lengths[sequence];
}

void model_cache_end(struct model_cache *cache, int64_t sequence)
{
    cache_pages_give_back(&cache->pages, sequence);
    cache->lengths[sequence] = 0;
}

void model_cache_clear(struct model_cache *cache)
{
    for (int64_t s = 0; s < cache->sequences; s++) model_cache_end(cache, s);
}
