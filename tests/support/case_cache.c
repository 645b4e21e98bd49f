/* case_cache.c: see case_cache.h. */
#include "case_cache.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/dtype.h"

bool case_is_cached(const struct attention_case *c, plx_dtype dtype)
{
    return (c->page > 0 || c->f8) && dtype != PLX_F64;
}

/* No powers of two: a kernel that forgets or swaps them must not pass. */
float case_scale(enum case_tensor tensor, int64_t g)
{
    return tensor == CASE_K ? 0.03f + 0.011f * (float)g : 0.05f - 0.007f * (float)(g % 5);
}

double case_f8_rounded(double value, enum case_tensor tensor, int64_t g)
{
    const float scale = case_scale(tensor, g);
    return (double)(scale * dtype_f8_to_f32(dtype_f64_to_f8(value / (double)scale)));
}

/* A permutation of the pool; sequences take from it in turn, so that neighbours lie apart. */
static void draw_pages(struct case_cache *cache, const struct attention_case *c)
{
    struct seeded random = seeded_make(31, (uint64_t)cache->pool);
    int32_t *order = must_have(malloc(sizeof *order * (size_t)cache->pool));
    for (int64_t n = 0; n < cache->pool; n++) {
        const int64_t other = seeded_between(&random, 0, n);
        order[n] = order[other];
        order[other] = (int32_t)n;
    }
    for (int64_t b = 0; b < c->B; b++)
        for (int64_t n = 0; n < cache->entries; n++)
            cache->pages[b * cache->entries + n] =
                n * c->page < cache->lengths[b] ? order[n * c->B + b] : -1;
    free(order);
}

int64_t case_cache_row(const struct case_cache *cache, const struct attention_case *c, int64_t b,
                       int64_t j)
{
    if (!cache->pages) return b * c->S + j;
    const int64_t page = cache->pages[b * cache->entries + j / c->page];
    return page < 0 ? -1 : page * c->page + j % c->page;
}

static double *store(const struct case_cache *cache, const struct attention_case *c,
                     const struct case_data *data, enum case_tensor tensor)
{
    const int64_t rows = cache->pages ? cache->pool * c->page : c->B * c->S, width = c->G * c->D;
    double *stored = must_have(malloc(sizeof(double) * (size_t)(rows * width) + 1));
    for (int64_t n = 0; n < rows * width; n++) stored[n] = NAN;
    for (int64_t n = 0; n < c->B * c->S * width; n++) {
        const int64_t row = case_cache_row(cache, c, n / width / c->S, n / width % c->S);
        const double scale = c->f8 ? (double)case_scale(tensor, n % width / c->D) : 1;
        if (row >= 0) stored[row * width + n % width] = data->values[tensor][n] / scale;
    }
    return stored;
}

struct case_cache case_cache_create(const struct attention_case *c, const struct case_data *data)
{
    struct case_cache cache = {0};
    if (c->page > 0) {
        cache.entries = (c->S + c->page - 1) / c->page;
        cache.pool = c->B * cache.entries + 3;
        cache.lengths = must_have(malloc(sizeof(int32_t) * (size_t)c->B + 1));
        cache.pages = must_have(malloc(sizeof(int32_t) * (size_t)(c->B * cache.entries) + 1));
        for (int64_t b = 0; b < c->B; b++)
            cache.lengths[b] = c->k_lengths ? c->k_lengths[b] : (int32_t)c->S;
        draw_pages(&cache, c);
    }
    for (int n = 0; n < 2; n++) {
        const enum case_tensor tensor = n == 0 ? CASE_K : CASE_V;
        cache.stored[n] = store(&cache, c, data, tensor);
        if (!c->f8) continue;
        cache.scales[n] = must_have(malloc(sizeof(float) * (size_t)c->G));
        for (int64_t g = 0; g < c->G; g++) cache.scales[n][g] = case_scale(tensor, g);
    }
    return cache;
}

void case_cache_destroy(struct case_cache *cache)
{
    free(cache->pages);
    free(cache->lengths);
    for (int n = 0; n < 2; n++) {
        free(cache->scales[n]);
        free(cache->stored[n]);
    }
    *cache = (struct case_cache){0};
}

void case_cache_shape(const struct case_cache *cache, const struct attention_case *c,
                      int64_t shape[PLX_MAX_RANK])
{
    shape[0] = cache->pages ? cache->pool : c->B;
    shape[1] = cache->pages ? c->page : c->S;
    shape[2] = c->G;
    shape[3] = c->D;
}

static struct plx_tensor list_on(plx_device device, void *list, plx_dtype dtype, int rank,
                                 const int64_t *shape)
{
    struct plx_tensor view = plx_tensor_dense(list, dtype, rank, shape);
    view.device = device;
    return view;
}

void case_cache_attention(const struct case_cache *cache, const struct attention_case *c,
                          plx_device device, struct plx_attention *attention)
{
    if (cache->pages) {
        const int64_t table[2] = {c->B, cache->entries};
        attention->k_pages = list_on(device, cache->pages, PLX_I32, 2, table);
        attention->k_lengths = list_on(device, cache->lengths, PLX_I32, 1, table);
    }
    if (!c->f8) return;
    attention->k_scales = list_on(device, cache->scales[0], PLX_F32, 1, &c->G);
    attention->v_scales = list_on(device, cache->scales[1], PLX_F32, 1, &c->G);
}
