/* attention_decode_plan.c: see attention_decode_plan.h. */
#include "attention/attention_decode_plan.h"

/* The largest Hopper chips: 132 multiprocessors with 228 KiB of shared memory, of which 1 KiB a block is
 * the system's, and two of our blocks each. */
enum { DECODE_CHIP = 132, DECODE_SLOTS = 264, DECODE_CHIP_SHARED = 228 * 1024 };

static int64_t decode_least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* The most keys that a row can see. */
static int64_t decode_keys(const struct attention_problem *p)
{
    return p->causal && p->window > 0 ? decode_least(p->window + p->T, p->S) : p->S;
}

/* As many blocks as run at once on a chip, but no more than there are tiles for their warps. */
static int decode_cluster(int64_t pairs, int64_t tiles)
{
    int cluster = 1;
    while (cluster < DECODE_MAX_CLUSTER && pairs * cluster * 2 <= DECODE_SLOTS &&
           cluster * DECODE_WARPS < tiles)
        cluster *= 2;
    return cluster;
}

/* Parts where the keys and values are too many for one moment: the second kernel then costs less than
 * what even work saves. Large parts fill the chip once; small ones are at least two tiles a warp. */
static void decode_parts(struct decode_plan *plan, int64_t tiles)
{
    const int64_t least = 2 * DECODE_WARPS;
    if (plan->pairs * tiles < 16384) return;
    plan->large = (int)decode_least(DECODE_SLOTS / plan->pairs, DECODE_MAX_PARTS - 8);
    if (plan->large < 1) plan->large = 1;
    plan->large_share = 44;
    plan->small = (int)decode_least(tiles * 20 / 64 / least, plan->large > 1 ? plan->large : 4);
    plan->small = (int)decode_least(plan->small, DECODE_MAX_PARTS - plan->large);
    if (plan->small == 0) plan->large = plan->large_share = 0;
}

/* The hardware fills one multiprocessor before the next. Asking for a larger share of the shared memory
 * keeps it to the blocks a multiprocessor that are needed for all to run at once. */
static int decode_spread(int bytes, int64_t blocks)
{
    int64_t each = (blocks + DECODE_CHIP - 1) / DECODE_CHIP;
    if (each < 1 || each > 4) return bytes;
    int most = DECODE_CHIP_SHARED / (int)each - 1024;
    return most > bytes ? most : bytes;
}

struct decode_plan decode_plan_make(const struct attention_problem *p)
{
    struct decode_plan plan = {.rows = (int)(p->T * (p->H / p->G)), .cluster = 1};
    int64_t tiles = (decode_keys(p) + DECODE_KEYS - 1) / DECODE_KEYS;
    plan.row_blocks = (plan.rows + DECODE_ROWS - 1) / DECODE_ROWS;
    plan.pairs = p->B * p->G * plan.row_blocks;
    decode_parts(&plan, tiles);
    if (plan.large == 0) plan.cluster = decode_cluster(plan.pairs, tiles);

    plan.direct = plan.cluster == 1 && plan.large == 0;

    size_t floats = (size_t)DECODE_ROWS * (4 + 2 * (size_t)p->D);
    plan.workspace = (size_t)plan.pairs * (size_t)(plan.large + plan.small) * floats * sizeof(float);
    int stage = 2 * DECODE_KEYS * ((int)p->D * 2 + 16);
    int states = (DECODE_WARPS + DECODE_MAX_CLUSTER) * DECODE_ROWS * 16;
    int64_t rows = decode_least(plan.rows, DECODE_ROWS);
    int received = (2 * (int)rows * (int)p->D + 2 * DECODE_MAX_CLUSTER) * 4;
    int64_t blocks = plan.pairs * (plan.large > 0 ? plan.large + plan.small : plan.cluster);
    int bytes = DECODE_WARPS * DECODE_STAGES * stage + states + received;
    plan.shared_bytes = decode_spread(bytes, blocks);
    return plan;
}
