/* cache_pages.h: which pages of a pool hold the tokens of which sequence.
 *
 * A page is so many tokens of every layer: one number names the same place in the pools of all of
 * them. A sequence takes pages as it grows and gives all of them back when it ends; the page given
 * back last is taken first, and a fresh pool gives neighbours, so that a sequence alone lies in one
 * run of memory. Only the host keeps these lists. */
#ifndef NN_CACHE_PAGES_H
#define NN_CACHE_PAGES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cache_pages {
    int64_t page;      /* tokens of a page */
    int64_t total;     /* pages of the pool */
    int64_t width;     /* pages of the longest sequence: entries of a row of the table */
    int64_t sequences; /* rows of the table */
    int64_t taken;     /* pages that sequences hold */
    int32_t *spare;    /* [total]: the first total - taken are free, the last of them is next */
    int32_t *table;    /* [sequences, width]: pages of a sequence in order, then zeros */
    int64_t *held;     /* [sequences]: how many of them it holds */
};

/* Pages that so many tokens take. */
int64_t cache_pages_for(int64_t tokens, int64_t page);
/* Lists for the extents above, nobody holding a page; false when out of memory. */
bool cache_pages_create(struct cache_pages *pages);
void cache_pages_destroy(struct cache_pages *pages);
/* How many pages a sequence lacks to hold so many tokens. */
int64_t cache_pages_lacking(const struct cache_pages *pages, int64_t sequence, int64_t tokens);
/* Takes them; they must be free. */
void cache_pages_take(struct cache_pages *pages, int64_t sequence, int64_t tokens);
void cache_pages_give_back(struct cache_pages *pages, int64_t sequence);

#endif
