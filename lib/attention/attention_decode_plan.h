/* attention_decode_plan.h: how the Hopper decode kernel cuts a problem: a pure function of shapes.
 *
 * A block holds up to 8 rows (a row is one query token of one query head) of one key/value head and a
 * share of its keys, in one of two ways. Short caches: the blocks of one cluster share the keys and
 * join their results in shared memory; no workspace. Long caches: a pair (key/value head, 8 rows) is
 * cut into large parts, which fill the GPU once, and small parts, which multiprocessors take as they
 * become free, because the memory serves some of them a quarter faster than others; the parts meet in
 * the workspace and a second kernel joins them. Lengths are read on the device: the plan knows only
 * the capacity S. The numbers were measured; see parallax/NOTES.md, "Hopper decode". */
#ifndef PLX_ATTENTION_DECODE_PLAN_H
#define PLX_ATTENTION_DECODE_PLAN_H

#include "attention/attention.h"

enum {
    DECODE_KEYS = 16,     /* keys a warp handles at a time */
    DECODE_ROWS = 8,      /* rows of a block */
    DECODE_MAX_ROWS = 64, /* rows of a key/value head: query tokens times group */
    DECODE_MAX_CLUSTER = 16,
    DECODE_MAX_PARTS = 64,
    DECODE_WARPS = 4,
    DECODE_STAGES = 3, /* key tiles in flight a warp */
};

struct decode_plan {
    int rows;         /* T times H / G */
    int row_blocks;   /* blocks of DECODE_ROWS that they make */
    int64_t pairs;    /* B times G times row_blocks */
    int cluster;      /* blocks that share the keys of a pair: 1, 2, 4, 8 or 16; 1 with parts */
    int large, small; /* parts of a pair; 0, 0: none, the cluster does it */
    int large_share;  /* of 64: how much of the keys the large parts take together */
    int shared_bytes;
    size_t workspace;
};

struct decode_plan decode_plan_make(const struct attention_problem *problem);

/* Tiles begin..end - 1 of `tiles` that a part takes. */
struct decode_share {
    int begin, end;
};

ATTENTION_INLINE struct decode_share decode_plan_share(int tiles, int part, int large, int small,
                                                       int large_share)
{
    int first = (int)((int64_t)tiles * large_share / 64);
    struct decode_share share;
    if (part < large) {
        share.begin = (int)((int64_t)first * part / large);
        share.end = (int)((int64_t)first * (part + 1) / large);
    } else {
        share.begin = first + (int)((int64_t)(tiles - first) * (part - large) / small);
        share.end = first + (int)((int64_t)(tiles - first) * (part - large + 1) / small);
    }
    return share;
}

#endif
