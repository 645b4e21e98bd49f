/* attention_decode_plan.h: how the Hopper decode kernel cuts a problem: a pure function of shapes.
 *
 * A row is one query token of one query head, a pair a block of up to DECODE_ROWS rows of a
 * key/value head. The keys of a sequence come in units, of which every warp of a block handles one
 * tile. Two ways of cutting them:
 *
 *     even   the units of every sequence are shared evenly by the same number of blocks a pair
 *     list   the units of all sequences make one list, which is cut into equal ranges, one for each
 *            block of a pair: a block has the end of one sequence, some whole ones, the beginning
 *            of another
 *
 * Either way the same blocks of all pairs walk through the same keys, side by side: heads of a key
 * are neighbours in memory. Lengths are read on the device, which uses the functions below; the
 * plan knows only the capacity S. The numbers were measured; see parallax/NOTES.md, "Hopper
 * decode". */
#ifndef PLX_ATTENTION_DECODE_PLAN_H
#define PLX_ATTENTION_DECODE_PLAN_H

#include "attention/attention.h"

enum {
    DECODE_WARPS = 4,         /* of a block */
    DECODE_ROWS = 8,          /* rows of a block */
    DECODE_MAX_ROWS = 64,     /* rows of a key/value head */
    DECODE_STAGES = 3,        /* tiles of a warp in shared memory */
    DECODE_TILE_BYTES = 8192, /* keys and values of a tile */
    DECODE_MIN_BOX = 16, /* keys of a tile of 128 channels, and of the smallest page that copies
                            of boxes take */
};

/* Keys of a unit. */
#define DECODE_UNIT(D) (DECODE_WARPS * DECODE_TILE_BYTES / (4 * (D)))

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

struct decode_plan {
    bool list;
    int row_blocks;            /* blocks of DECODE_ROWS rows a key/value head */
    int pairs;                 /* G times row_blocks */
    int parts;                 /* even: blocks that share a sequence; list: ranges */
    struct decode_cut cut;     /* of a sequence, if even and all are alike; else 0 */
    int box;                   /* keys that one copy brings; 0: each chunk of a key by itself */
    size_t counters, partials; /* bytes of the workspace: 8 a sequence and pair, and results */
};

/* boxes: whether the addresses of keys and values, which a plan does not look at, allow them. */
struct decode_plan decode_plan_make(const struct attention_problem *problem, bool boxes);

/* Why a problem cannot be cut, or NULL. */
const char *decode_plan_refuse(const struct attention_problem *problem);

#endif
