/* cache_append.h: appending to a cache, once its arguments are checked. */
#ifndef PLX_CACHE_APPEND_H
#define PLX_CACHE_APPEND_H

#include "attention/attention.h"

struct cache_append {
    /* The cache as decode sees it: k, v, k_lengths, k_pages, scales and extents. */
    struct attention_problem cache;
    struct plx_tensor k, v;                       /* the new rows */
    struct plx_tensor cosines, sines;             /* absent: rank 0 */
    struct plx_tensor q, r, q_rotated, r_rotated; /* absent: rank 0 */
};

/* Number in its cache of new row t of sequence b; negative or at least S where there is no place
 * for it. */
ATTENTION_INLINE int64_t cache_append_key(const struct cache_append *append, int64_t b, int64_t t)
{
    return ((const int32_t *)append->cache.k_lengths.data)[b] - append->cache.T + t;
}

/* On the context's GPU (cache_append_any.cu). */
plx_status cache_append_cuda(plx_context *context, const struct cache_append *append,
                             plx_stream stream);

#endif
