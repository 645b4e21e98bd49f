/* ops_watched.h: a table of operations with something done before and after each: a clock read, or
 * memory opened and closed. Benchmarks and tests look into a model's steps through it, without a
 * hook in the model. */
#ifndef NN_OPS_WATCHED_H
#define NN_OPS_WATCHED_H

#include "op.h"

struct ops_watch {
    const struct ops *inner;
    const struct device *device; /* instead of the inner table's; NULL: that one */
    /* member is the offset of the operation in struct ops. */
    void (*before)(struct backend *be, size_t member);
    void (*after)(struct backend *be, size_t member);
};

/* The table of the watch, which must stay; a second call puts another watch in the place of the
 * first. */
const struct ops *ops_watched(const struct ops_watch *watch);

#endif
