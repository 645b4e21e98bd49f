/* append_case.h: appending to a cache as data: what is appended to what, and a run on a device that
 * compares every element of the caches and of the turned queries, to the bit, with the words of the
 * public header, and checks that nothing else was written. */
#ifndef TEST_APPEND_CASE_H
#define TEST_APPEND_CASE_H

#include "guarded.h"

struct append_case {
    const char *name;
    int64_t B, T, S, G, H, D; /* H 0: neither q nor r */
    plx_dtype dtype, cache;   /* of the new rows and of the cache */
    int64_t page;             /* 0: not paged */
    bool rotary, in_place;    /* turned; q and r where they are */
    enum view_kind view;
    const int32_t *lengths; /* [B], after the append */
};

/* The table that every device runs. */
extern const struct append_case append_cases[];
extern const int append_case_count;

/* False with a message where something is not as it must be. */
bool append_case_run(const struct append_case *c, plx_device device, uint64_t seed, char *message,
                     size_t size);

#endif
