/* case_cache.h: the keys and values of a case as a cache holds them: in pages that lie in a pool in
 * any order, and as f8e4m3 numbers with a scale for each head. */
#ifndef TEST_CASE_CACHE_H
#define TEST_CASE_CACHE_H

#include "attention_case.h"

/* What the cache of one call adds to its memory. */
struct case_cache {
    int32_t *pages;    /* [B,P]; NULL where it is not paged; -1 where no length reaches */
    int32_t *lengths;  /* [B] */
    float *scales[2];  /* [G] of keys and of values; NULL where they are not f8e4m3 */
    int64_t entries;   /* P */
    int64_t pool;      /* pages of the pool, a few more than any sequence uses */
    double *stored[2]; /* what the tensors k and v contain, dense; NaN in unused rows */
};

/* Of a case in a dtype: the double oracle has no cache. */
bool case_is_cached(const struct attention_case *c, plx_dtype dtype);
/* The scale of a head of keys or values, and a value as an f8e4m3 cache gives it back. */
float case_scale(enum case_tensor tensor, int64_t g);
double case_f8_rounded(double value, enum case_tensor tensor, int64_t g);

struct case_cache case_cache_create(const struct attention_case *c, const struct case_data *data);
void case_cache_destroy(struct case_cache *cache);
/* Where key j of sequence b lies among the rows of k and v; -1 where it has no page. */
int64_t case_cache_row(const struct case_cache *cache, const struct attention_case *c, int64_t b,
                       int64_t j);
/* The shape of k and v. */
void case_cache_shape(const struct case_cache *cache, const struct attention_case *c,
                      int64_t shape[PLX_MAX_RANK]);
/* Adds lengths, pages and scales to those of a call on a device, as yet with the host's data. */
void case_cache_attention(const struct case_cache *cache, const struct attention_case *c,
                          plx_device device, struct plx_attention *attention);

#endif
