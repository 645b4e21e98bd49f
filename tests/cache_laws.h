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

#endif
