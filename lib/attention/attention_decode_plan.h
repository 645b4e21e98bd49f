/* attention_decode_plan.h: how the Hopper decode kernel cuts a problem: a pure function of shapes.
 *
 * A block holds up to 8 rows (a row is one query token of one query head) of one key/value head and
 * a share of its keys; the blocks of one cluster share the keys of the same rows and join their
 * results in shared memory, so no workspace is needed. Lengths are read on the device: the plan
 * knows only the capacity S. The numbers were measured; see parallax/NOTES.md, "Hopper decode". */
#ifndef PLX_ATTENTION_DECODE_PLAN_H
#define PLX_ATTENTION_DECODE_PLAN_H

#include "attention/attention.h"

enum {
    DECODE_KEYS = 16,     /* keys a warp handles at a time */
    DECODE_ROWS = 8,      /* rows of a block */
    DECODE_MAX_ROWS = 64, /* rows of a key/value head: query tokens times group */
    DECODE_MAX_CLUSTER = 8,
    DECODE_WARPS = 4,
    DECODE_STAGES = 3, /* key tiles in flight a warp */
};

struct decode_plan {
    int rows;         /* T times H / G */
    int row_blocks;   /* blocks of DECODE_ROWS that they make */
    int cluster;      /* blocks that share the keys of the same rows: 1, 2, 4 or 8 */
    int shared_bytes; /* of dynamic shared memory a block */
};

struct decode_plan decode_plan_make(const struct attention_problem *problem);

#endif
