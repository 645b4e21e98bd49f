/* cache_laws.h: what a cache of pages must keep on any device: logits are those of the forward
 * pass, whatever the size of pages, whoever held them before, and however few the pool has. */
#ifndef TESTS_CACHE_LAWS_H
#define TESTS_CACHE_LAWS_H

#include "model_laws.h"

/* Texts that take turns in fewer places, one after the other. */
enum { CACHE_TEXTS = 7, CACHE_PLACES = 3, CACHE_TOKENS = 121 };
static const int64_t cache_lengths[CACHE_TEXTS] = {29, 5, 17, 23, 1, 31, 15};

struct cache_places {
    struct model_cache *cache;
    int64_t page, pages;
    int64_t text[CACHE_PLACES]; /* -1: none */
    int64_t counts[CACHE_PLACES];
    int64_t waiting, reserved;
};

static inline int64_t cache_pages_of(const struct cache_places *places, int64_t text)
{
    return (cache_lengths[text] + places->page - 1) / places->page;
}

/* Free places go to texts that wait, as long as the pool has pages for all of their tokens; a third
 * of a text comes at once. */
static inline bool cache_take_places(struct cache_places *places)
{
    bool any = false;
    for (int s = 0; s < CACHE_PLACES; s++) {
        const int64_t next = places->waiting;
        const bool fits =
            next < CACHE_TEXTS && places->reserved + cache_pages_of(places, next) <= places->pages;
        if (places->text[s] < 0 && fits) {
            places->reserved += cache_pages_of(places, next);
            places->text[s] = places->waiting++;
            places->counts[s] = (cache_lengths[next] + 2) / 3;
        }
        any = any || places->text[s] >= 0;
    }
    return any;
}

/* One step: the next tokens of every text; its logits go to the row of all that its last token has.
 */
static inline void cache_step(struct case_model *m, struct cache_places *places,
                              const struct case_batch *b, const struct plx_tensor *logits,
                              const struct plx_tensor *all)
{
    const int64_t V = logits->shape[1];
    const size_t row = (size_t)V * plx_dtype_size(logits->dtype);
    int32_t ids[CACHE_TOKENS], *next = ids;
    for (int s = 0; s < CACHE_PLACES; next += places->counts[s], s++) {
        if (places->counts[s] == 0) continue;
        const int32_t *text = b->ids + b->offsets[places->text[s]];
        memcpy(next, text + model_cache_length(places->cache, s),
               (size_t)places->counts[s] * sizeof *ids);
    }
    CASE_OK(m, model_decode(m->model, places->cache, ids, places->counts, logits));
    for (int s = 0; s < CACHE_PLACES; s++) {
        const int64_t text = places->text[s], at = model_cache_length(places->cache, s);
        if (text < 0) continue;
        memcpy((char *)all->data + (size_t)(b->offsets[text] + at - 1) * row,
               (const char *)logits->data + (size_t)s * row, row);
        places->counts[s] = 1;
        if (at < cache_lengths[text]) continue;
        model_cache_end(places->cache, s);
        places->reserved -= cache_pages_of(places, text);
        places->text[s] = -1;
        places->counts[s] = 0;
    }
}

/* The logits of all texts [CACHE_TOKENS,V], decoded in turns; zeros after tokens that came together
 * with later ones. malloc'd. */
static inline struct plx_tensor cache_decoded(struct case_model *m, const struct case_batch *b,
                                              int64_t page, int64_t pages)
{
    const int64_t V = model_get_config(m->model)->vocab_size;
    struct plx_tensor all = case_tensor(m->be.storage, 2, (int64_t[]){CACHE_TOKENS, V}),
                      logits = case_tensor(m->be.storage, 2, (int64_t[]){CACHE_PLACES, V});
    struct cache_places places = {.page = page, .pages = pages, .text = {-1, -1, -1}};
    const struct model_cache_config config = {
        .sequences = CACHE_PLACES, .capacity = 31, .pages = pages, .page = page};
    CASE_OK(m, model_cache_create(m->model, &config, &places.cache));
    while (cache_take_places(&places)) cache_step(m, &places, b, &logits, &all);
    assert_int_equal(places.waiting, CACHE_TEXTS);
    assert_int_equal(model_cache_use(places.cache).taken, 0);
    model_cache_destroy(places.cache);
    free(logits.data);
    return all;
}

/* The same of a forward pass over whole texts. */
static inline struct plx_tensor cache_expected(struct case_model *m, const struct case_batch *b)
{
    CASE_OK(m, model_reserve(m->model, CACHE_TOKENS, CACHE_TEXTS, false, RECOMPUTE_NONE, NULL));
    struct plx_tensor all = logits_of(m, &b->batch);
    const size_t row = (size_t)all.shape[1] * plx_dtype_size(all.dtype);
    for (int t = 0; t < CACHE_TEXTS; t++)
        memset((char *)all.data + (size_t)b->offsets[t] * row, 0,
               (size_t)((cache_lengths[t] + 2) / 3 - 1) * row);
    return all;
}

/* Sizes of pages, the last of which holds a whole text, and of pools: enough for the longest alone,
 * for some, and for all. */
static const struct cache_extent {
    int64_t page, pages;
} cache_extents[] = {{1, 31}, {1, 60}, {5, 7}, {7, 20}, {16, 2}, {64, 1}, {64, 3}, {31, 3}};
enum { CACHE_EXTENTS = sizeof cache_extents / sizeof cache_extents[0] };

/* ---- Draws ---- */

enum { CACHE_STEPS = 12 };

/* The different ids of a text so far. */
struct cache_seen {
    int32_t ids[31];
    int64_t count;
};

static inline void cache_see(struct cache_seen *seen, int32_t id)
{
    for (int64_t i = 0; i < seen->count; i++)
        if (seen->ids[i] == id) return;
    seen->ids[seen->count++] = id;
}

/* What the CPU draws from a row of logits. */
static inline int32_t cache_drawn(struct backend *cpu, float *row, const struct model_draws *draws,
                                  int64_t s)
{
    struct draw_numbers told = draws->numbers[s];
    int32_t id = INT32_MIN, seen[31], count = (int32_t)draws->seen_counts[s];
    memcpy(seen, draws->seen[s], (size_t)count * sizeof *seen);
    const struct plx_tensor x = plx_tensor_dense(row, PLX_F32, 2, (int64_t[]){1, draws->vocab}),
                            ids = plx_tensor_dense(&id, PLX_I32, 1, (int64_t[]){1}),
                            numbers =
                                plx_tensor_dense(&told, PLX_F64, 2, (int64_t[]){1, DRAW_NUMBERS}),
                            list = plx_tensor_dense(seen, PLX_I32, 2, (int64_t[]){1, 31}),
                            counts = plx_tensor_dense(&count, PLX_I32, 1, (int64_t[]){1});
    assert_int_equal(cpu->ops->penalise(cpu, &x, &list, &counts, draws->penalty), PLX_OK);
    assert_int_equal(cpu->ops->draw(cpu, &ids, &x, &numbers), PLX_OK);
    return id;
}

/* One step of two equal caches, one of which draws: that it draws what the CPU draws from the
 * logits of the other. */
static inline void cache_draw_step(struct case_model *m, struct backend *cpu,
                                   struct model_cache *const caches[2], const int32_t *ids,
                                   const int64_t *counts, struct plx_tensor *logits,
                                   const struct model_draws *draws)
{
    CASE_OK(m, model_decode(m->model, caches[0], ids, counts, logits));
    CASE_OK(m, model_decode_draw(m->model, caches[1], ids, counts, draws));
    for (int64_t s = 0; s < CACHE_PLACES; s++) {
        if (counts[s] == 0) continue;
        float *row = (float *)logits->data + s * logits->shape[1];
        assert_int_equal(draws->ids[s], cache_drawn(cpu, row, draws, s));
    }
}

/* Prompts come at different times; every third step has a penalty, so what is repeated changes. */
static inline void cache_draws(struct case_model *m, const struct case_batch *b,
                               struct backend *cpu)
{
    const int64_t V = model_get_config(m->model)->vocab_size, begins[CACHE_PLACES] = {0, 1, 0},
                  prompts[CACHE_PLACES] = {4, 1, 7}, texts[CACHE_PLACES] = {0, 3, 5};
    const struct model_cache_config config = {
        .sequences = CACHE_PLACES, .capacity = 31, .page = 8, .penalising = true};
    struct plx_tensor logits = case_tensor(PLX_F32, 2, (int64_t[]){CACHE_PLACES, V});
    struct model_cache *caches[2];
    struct cache_seen seen[CACHE_PLACES] = {0};
    struct rng rng = rng_make(9, 9);
    for (int i = 0; i < 2; i++) CASE_OK(m, model_cache_create(m->model, &config, &caches[i]));
    for (int64_t step = 0; step < CACHE_STEPS; step++) {
        int32_t ids[CACHE_TOKENS], *next = ids, drawn[CACHE_PLACES];
        int64_t counts[CACHE_PLACES], seen_counts[CACHE_PLACES];
        struct draw_numbers numbers[CACHE_PLACES];
        const int32_t *lists[CACHE_PLACES];
        for (int64_t s = 0; s < CACHE_PLACES; s++) {
            counts[s] = step < begins[s] ? 0 : step == begins[s] ? prompts[s] : 1;
            const int32_t *text = b->ids + b->offsets[texts[s]];
            for (int64_t i = 0; i < counts[s]; i++) {
                *next = text[model_cache_length(caches[0], s) + i];
                cache_see(&seen[s], *next++);
            }
            numbers[s] = (struct draw_numbers){rng_uniform(&rng), s == 2 ? 0 : 0.8, s == 1 ? 9 : 0,
                                               s == 1 ? 0.8 : 1, -INFINITY};
            lists[s] = seen[s].ids;
            seen_counts[s] = seen[s].count;
        }
        cache_draw_step(m, cpu, caches, ids, counts, &logits,
                        &(struct model_draws){V - 3, numbers, step % 3 == 1 ? 1.3 : 1, lists,
                                              seen_counts, drawn});
    }
    for (int i = 0; i < 2; i++) model_cache_destroy(caches[i]);
    free(logits.data);
}

/* The same with the CPU's operations at hand. */
static inline void cache_draws_are_of_its_logits(struct case_model *m, const struct case_batch *b)
{
    const struct backend_config config = {
        .ops = &ops_cpu, .storage = PLX_F32, .compute = PLX_F32, .threads = 1};
    struct error err = {0};
    struct backend cpu;
    assert_int_equal(backend_create(&cpu, &config, &err), PLX_OK);
    assert_int_equal(backend_reserve(&cpu, 1 << 16), PLX_OK);
    cache_draws(m, b, &cpu);
    backend_destroy(&cpu);
}

#endif
