/* attention_decode_plan.h: how the Hopper decode kernel cuts a problem: a pure function of shapes.
 *
 * A row is one query token of one query head, a pair a block of up to DECODE_ROWS rows of a
 * key/value head, or of twice as many. The keys of a sequence come in units, of which every warp of
 * a block handles one tile. Two ways of cutting them:
 *
 *     even   the units of every sequence are shared evenly by the same number of blocks a pair
 *     list   the units of all sequences make one list, which is cut into equal ranges, one for each
 *            block of a pair: a block has the end of one sequence, some whole ones, the beginning
 *            of another
 *
 * Either way the same blocks of all pairs walk through the same keys, side by side: heads of a key
 * are neighbours in memory. Lengths are read on the device, which uses the functions below; the
 * plan knows only the capacity S. The numbers were measured; see parallax/NOTES-decode.md. */
#ifndef PLX_ATTENTION_DECODE_PLAN_H
#define PLX_ATTENTION_DECODE_PLAN_H

#include "attention/attention.h"

enum {
    DECODE_WARPS = 4,         /* of a block */
    DECODE_WIDE_WARPS = 8,    /* of a wide one, which has a multiprocessor to itself */
    DECODE_ROWS = 8,          /* rows of a set, which multiply a tile together */
    DECODE_MOST_DEEP = 2,     /* sets of each head of a block */
    DECODE_MAX_ROWS = 64,     /* rows of a key/value head */
    DECODE_TILE_BYTES = 8192, /* keys and values of a tile */
    DECODE_MAX_CLUSTER = 4,   /* blocks of a cluster: 2 to this */
    DECODE_MIN_BOX = 16,      /* keys of the smallest box, a tile of 128 channels; divides pages */
};

/* Keys of a tile; bytes: of a key, of both heads where two lie side by side. A unit is a tile of
 * every warp of a block. */
#define DECODE_KEYS(bytes) (DECODE_TILE_BYTES / (2 * (bytes)))

/* What a sequence of T queries and S keys has: keys first .. end - 1, which some row sees, in
 * `units` units, the first of which begins at a multiple of their size. At least one, so that
 * outputs are written. */
struct decode_keys {
    int first, end, units;
};

ATTENTION_INLINE struct decode_keys decode_keys_of(int T, int S, int64_t window, int unit)
{
    struct decode_keys keys = {0, T > 0 ? S : 0, 1};
    if (window > 0) {
        int64_t unseen = (int64_t)S - T + 1 - window;
        if (unseen > 0) keys.first = unseen < keys.end ? (int)unseen : keys.end;
    }
    int units = (keys.end + unit - 1) / unit - keys.first / unit;
    if (units > 1) keys.units = units;
    return keys;
}

/* Units cut into even parts: the first `longer` of them have each + 1, the others each. */
struct decode_cut {
    int each, longer;
};

/* parts: 1..units. */
ATTENTION_INLINE struct decode_cut decode_cut_of(int units, int parts)
{
    struct decode_cut cut = {units / parts, units % parts};
    return cut;
}

/* The first unit of a part. */
ATTENTION_INLINE int decode_cut_begin(struct decode_cut cut, int part)
{
    return part * cut.each + (part < cut.longer ? part : cut.longer);
}

/* The part that has a unit. */
ATTENTION_INLINE int decode_cut_owner(struct decode_cut cut, int unit)
{
    int front = cut.longer * (cut.each + 1);
    return unit < front ? unit / (cut.each + 1) : cut.longer + (unit - front) / cut.each;
}

/* Division of keys by the size of a page, which the device does by a product: quotient =
 * (high word of multiplier * n, plus n) >> shift. */
struct decode_divisor {
    int divisor, shift;
    uint32_t multiplier;
};

/* divisor: at least 1. */
ATTENTION_INLINE struct decode_divisor decode_divisor_of(int divisor)
{
    int shift = 0;
    while ((uint32_t)1 << shift < (uint32_t)divisor) shift++;
    uint64_t rest = ((uint64_t)1 << shift) - (uint64_t)divisor;
    struct decode_divisor x = {divisor, shift, (uint32_t)((rest << 32) / (uint64_t)divisor + 1)};
    return x;
}

/* n: at least 0. */
ATTENTION_INLINE int decode_divide(struct decode_divisor by, int n)
{
    uint32_t high = (uint32_t)((uint64_t)by.multiplier * (uint32_t)n >> 32);
    return (int)((high + (uint32_t)n) >> by.shift);
}

struct decode_plan {
    bool list;
    int warps;                 /* of a block */
    int heads;                 /* key/value heads of a block, side by side in its tiles: 1 or 2 */
    int deep;                  /* sets of DECODE_ROWS rows of each head of a block: 1 or 2 */
    int row_blocks;            /* blocks of so many rows a key/value head */
    int pairs;                 /* G / heads times row_blocks */
    int parts;                 /* even: blocks that share a sequence; list: ranges */
    int cluster;               /* 2 to this: parts that join in shared memory; divides parts */
    struct decode_cut cut;     /* of a sequence, if even and all are cut alike; else 0 */
    int box;                   /* keys that one copy brings; 0: each chunk of a key by itself */
    uint32_t stay;             /* share of the tiles that stay in the L2 cache, of 2^32 - 1 */
    size_t counters, partials; /* bytes of the workspace: 8 a sequence and pair, and results */
};

/* boxes: whether the addresses of keys and values, which a plan does not look at, allow them. */
struct decode_plan decode_plan_make(const struct attention_problem *problem, bool boxes);

/* Why a problem cannot be cut, or NULL. */
const char *decode_plan_refuse(const struct attention_problem *problem);

#endif
