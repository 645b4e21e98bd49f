/* attention_decode_plan.c: see attention_decode_plan.h. */
#include "attention/attention_decode_plan.h"

/* Blocks that the largest Hopper chips run at once: 132 multiprocessors, two blocks each. */
enum { DECODE_SLOTS = 264 };

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

struct decode_plan decode_plan_make(const struct attention_problem *p)
{
    struct decode_plan plan = {.rows = (int)(p->T * (p->H / p->G)), .cluster = 1};
    int64_t tiles = (decode_keys(p) + DECODE_KEYS - 1) / DECODE_KEYS;
    plan.row_blocks = (plan.rows + DECODE_ROWS - 1) / DECODE_ROWS;
    plan.pairs = p->B * p->G * plan.row_blocks;
    decode_parts(&plan, tiles);
    if (plan.large == 0) plan.cluster = decode_cluster(plan.pairs, tiles);

    size_t floats = (size_t)DECODE_ROWS * (4 + 2 * (size_t)p->D);
    plan.workspace = (size_t)plan.pairs * (size_t)(plan.large + plan.small) * floats * sizeof(float);
    int stage = 2 * DECODE_KEYS * ((int)p->D * 2 + 16);
    int states = (DECODE_WARPS + DECODE_MAX_CLUSTER) * DECODE_ROWS * 16;
    int received = (2 * DECODE_ROWS * (int)p->D + 2 * DECODE_MAX_CLUSTER) * 4;
    plan.shared_bytes = DECODE_WARPS * DECODE_STAGES * stage + states + received;
    return plan;
}
