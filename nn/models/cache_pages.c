/* cache_pages.c: see cache_pages.h. */
#include "models/cache_pages.h"

#include <stdlib.h>
#include <string.h>

int64_t cache_pages_for(int64_t tokens, int64_t page)
{
    return tokens / page + (tokens % page > 0);
}

bool cache_pages_create(struct cache_pages *pages)
{
    pages->taken = 0;
    pages->spare = calloc((size_t)pages->total, sizeof *pages->spare);
    pages->table = calloc((size_t)(pages->sequences * pages->width), sizeof *pages->table);
    pages->held = calloc((size_t)pages->sequences, sizeof *pages->held);
    if (pages->spare == NULL || pages->table == NULL || pages->held == NULL) return false;
    for (int64_t i = 0; i < pages->total; i++) pages->spare[i] = (int32_t)(pages->total - 1 - i);
    return true;
}

void cache_pages_destroy(struct cache_pages *pages)
{
    free(pages->spare);
    free(pages->table);
    free(pages->held);
    *pages = (struct cache_pages){0};
}

int64_t cache_pages_lacking(const struct cache_pages *pages, int64_t sequence, int64_t tokens)
{
    const int64_t lacking = cache_pages_for(tokens, pages->page) - pages->held[sequence];
    return lacking > 0 ? lacking : 0;
}

void cache_pages_take(struct cache_pages *pages, int64_t sequence, int64_t tokens)
{
    int32_t *row = pages->table + sequence * pages->width;
    for (int64_t n = cache_pages_lacking(pages, sequence, tokens); n > 0; n--)
        row[pages->held[sequence]++] = pages->spare[pages->total - ++pages->taken];
}

void cache_pages_give_back(struct cache_pages *pages, int64_t sequence)
{
    int32_t *row = pages->table + sequence * pages->width;
    for (int64_t n = pages->held[sequence]; n > 0; n--) {
        pages->spare[pages->total - pages->taken--] = row[n - 1];
        row[n - 1] = 0;
    }
    pages->held[sequence] = 0;
}
