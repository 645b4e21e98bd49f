/* attention_check.h: the checks of arguments that attention and appending to a cache share. */
#ifndef PLX_ATTENTION_CHECK_H
#define PLX_ATTENTION_CHECK_H

#include "attention/attention.h"

/* A list of the given dtype and count; absent (rank 0) becomes all zero. */
plx_status attention_check_list(plx_context *context, const char *name, struct plx_tensor *list,
                                plx_dtype dtype, int64_t count, bool shapes_only);
/* A table of pages for each of B sequences; what k, a pool of rank 4, then says about the cache:
 * its pages, their size, and S. */
plx_status attention_check_pages(plx_context *context, struct attention_problem *problem,
                                 bool shapes_only);
/* Scales of G heads, which only an f8e4m3 cache may have. */
plx_status attention_check_scales(plx_context *context, struct attention_problem *problem,
                                  bool shapes_only);

#endif
