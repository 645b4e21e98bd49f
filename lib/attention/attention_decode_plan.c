/* attention_decode_plan.c: see attention_decode_plan.h. */
#include "attention/attention_decode_plan.h"

/* The largest Hopper chips: 132 multiprocessors with 228 KiB of shared memory, of which 1 KiB a
 * block is the system's. */
enum { DECODE_CHIP = 132, DECODE_CHIP_SHARED = 228 * 1024 };

static int64_t decode_least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* The most keys that a row can see, and a tile more where the window does not begin with a tile. */
static int64_t decode_keys(const struct attention_problem *p)
{
    if (!p->causal || p->window == 0 || p->window > p->S) return p->S;
    return decode_least(p->window + p->T + DECODE_KEYS, p->S);
}

/* Pairs of blocks fill the chip well; larger clusters leave multiprocessors out, because they must
 * lie within one of its parts, and then half a chip of them is as fast as a whole. No block without
 * a tile for each warp. */
static int decode_cluster(int64_t blocks, int64_t tiles)
{
    int cluster = 1;
    while (cluster < DECODE_MAX_CLUSTER && cluster * DECODE_WARPS < tiles) {
        int64_t room = cluster == 1 ? DECODE_CHIP : DECODE_CHIP / 2;
        if (blocks * cluster * 2 > room) break;
        cluster *= 2;
    }
    return cluster;
}

/* The hardware fills one multiprocessor before the next. Asking for a larger share of the shared
 * memory keeps it to the blocks a multiprocessor that must run at once: at least two, so that the
 * blocks of the next launch find a place while ours finish. */
static int decode_spread(int bytes, int64_t blocks)
{
    int64_t each = (blocks + DECODE_CHIP - 1) / DECODE_CHIP;
    if (each > 4) return bytes;
    if (each < 2) each = 2;
    int most = DECODE_CHIP_SHARED / (int)each - 1024;
    return most > bytes ? most : bytes;
}

struct decode_plan decode_plan_make(const struct attention_problem *p)
{
    struct decode_plan plan = {.rows = (int)(p->T * (p->H / p->G))};
    plan.row_blocks = (plan.rows + DECODE_ROWS - 1) / DECODE_ROWS;
    int64_t tiles = (decode_keys(p) + DECODE_KEYS - 1) / DECODE_KEYS;
    int64_t groups = p->B * p->G * plan.row_blocks;
    plan.cluster = decode_cluster(groups, tiles);

    int ring = DECODE_WARPS * DECODE_STAGES * 2 * DECODE_KEYS * ((int)p->D * 2 + 16);
    int states = (DECODE_WARPS + DECODE_MAX_CLUSTER) * DECODE_ROWS * 16;
    int rows = (int)decode_least(plan.rows, DECODE_ROWS);
    int received = (2 * rows * (int)p->D + 2 * DECODE_MAX_CLUSTER) * 4;
    plan.shared_bytes = decode_spread(ring + states + received, groups * plan.cluster);
    return plan;
}
