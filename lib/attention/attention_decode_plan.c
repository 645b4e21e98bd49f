/* attention_decode_plan.c: see attention_decode_plan.h. */
#include "attention/attention_decode_plan.h"

#include "core/tensor.h"

/* The largest Hopper chips have 132 multiprocessors, and each room for two blocks. */
enum {
    DECODE_CHIP = 132,
    DECODE_ROOM = 2 * DECODE_CHIP,
    DECODE_MAX_PARTS = 64,   /* more are joined more slowly than they are summed */
    DECODE_MAX_CLUSTER = 3,  /* 2 to this */
    DECODE_SHORT = 16,       /* units of a range that is worth a second block a multiprocessor */
    DECODE_WORKSPACE = 256,  /* what the counters are rounded up to */
    DECODE_MAX_GRID = 65535, /* along y and z */
};

static int64_t decode_least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t decode_most(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* Copies of boxes need distances that are positive multiples of 16 bytes. */
static bool decode_fits_boxes(const struct plx_tensor *tensor)
{
    int64_t unit = (int64_t)(16 / plx_dtype_size(tensor->dtype));
    for (int axis = 0; axis < 3; axis++)
        if (tensor->shape[axis] > 1 &&
            (tensor->stride[axis] <= 0 || tensor->stride[axis] % unit != 0 ||
             tensor->stride[axis] >= (int64_t)1 << 38))
            return false;
    return plx_tensor_count(tensor) > 0;
}

/* Bytes of a key in a tile of so many heads. */
static int decode_bytes(const struct attention_problem *p, int heads)
{
    return heads * (int)p->D * (int)plx_dtype_size(p->kv_dtype);
}

/* A box lies in one page. */
static int decode_box(const struct attention_problem *p, int heads)
{
    int keys = DECODE_UNIT(decode_bytes(p, heads)) / DECODE_WARPS;
    if (!decode_fits_boxes(&p->k) || !decode_fits_boxes(&p->v)) return 0;
    if (p->page == 0 || p->page % keys == 0) return keys;
    return p->page % DECODE_MIN_BOX == 0 ? DECODE_MIN_BOX : 0;
}

/* Blocks of a pair where every sequence gets the same number: one on each multiprocessor. */
static int64_t decode_parts(int64_t pairs, int64_t units)
{
    int64_t parts = decode_most(DECODE_CHIP / pairs, 1);
    return decode_least(decode_least(parts, units), DECODE_MAX_PARTS);
}

/* Parts that join in shared memory: as many as a cluster may have. Their number is rounded down to
 * whole clusters. */
static int decode_cluster(int *parts)
{
    int cluster = 0;
    while (cluster < DECODE_MAX_CLUSTER && *parts >> (cluster + 1) > 0) cluster++;
    *parts = *parts >> cluster << cluster;
    return cluster;
}

/* True where that would leave much of the chip idle in the end: the last of few rounds of blocks
 * is far from full. */
static bool decode_is_uneven(int64_t pairs)
{
    int64_t rounds = (pairs + DECODE_ROOM - 1) / DECODE_ROOM;
    return rounds > 1 && rounds <= 4 && pairs * 10 < rounds * DECODE_ROOM * 9;
}

/* Ranges of a list of B sequences: as many as there is room for, or half of that where they would
 * be short; and a multiple of the sequences if one is near, so that sequences of one length are not
 * cut. */
static int64_t decode_ranges(int64_t pairs, int64_t B, int64_t units)
{
    int64_t ranges = decode_most(DECODE_ROOM / pairs, 1);
    if (B * units < DECODE_SHORT * ranges) ranges = decode_most(DECODE_CHIP / pairs, 1);
    int64_t whole = ranges / B * B;
    return whole * 10 >= ranges * 9 ? whole : ranges;
}

/* Two heads of 64 channels fill the 128 bytes that memory is read in as well as one of 128. */
static int decode_heads(const struct attention_problem *p)
{
    return p->D == 64 && p->kv_dtype != PLX_F8E4M3 && p->G % 2 == 0 && decode_box(p, 2) > 0 ? 2 : 1;
}

struct decode_plan decode_plan_make(const struct attention_problem *p, bool boxes)
{
    int64_t rows = p->T * (p->H / p->G);
    struct decode_plan plan = {.heads = boxes ? decode_heads(p) : 1,
                               .row_blocks = (int)((rows + DECODE_ROWS - 1) / DECODE_ROWS)};
    plan.box = boxes ? decode_box(p, plan.heads) : 0;
    int unit = DECODE_UNIT(decode_bytes(p, plan.heads));
    int64_t pairs = p->G / plan.heads * plan.row_blocks;
    int64_t units = decode_keys_of((int)p->T, (int)p->S, p->window, unit).units;
    bool alike = p->q_lengths.rank == 0 && p->k_lengths.rank == 0;
    plan.pairs = (int)pairs;
    plan.list = plan.box == 0 || (!alike && p->B > 1) || decode_is_uneven(p->B * pairs);
    plan.parts =
        (int)(plan.list ? decode_ranges(pairs, p->B, units) : decode_parts(p->B * pairs, units));
    if (!plan.list) plan.cluster = decode_cluster(&plan.parts);
    if (!plan.list && alike) plan.cut = decode_cut_of((int)units, plan.parts);
    int64_t results = plan.list ? 2 * (int64_t)plan.parts : p->B * (plan.parts >> plan.cluster);
    int64_t bytes = decode_least(rows, DECODE_ROWS) * plan.heads * (4 + 2 * p->D) * 4;
    plan.counters =
        (size_t)((p->B * pairs * 8 + DECODE_WORKSPACE - 1) / DECODE_WORKSPACE * DECODE_WORKSPACE);
    plan.partials = (size_t)(results * pairs * bytes);
    if (!plan.list && plan.parts >> plan.cluster == 1) plan.counters = plan.partials = 0;
    return plan;
}

const char *decode_plan_refuse(const struct attention_problem *p)
{
    int64_t unit = DECODE_UNIT(decode_bytes(p, 2)); /* the smallest */
    if (p->B > DECODE_MAX_GRID) return "it takes at most 65535 sequences";
    if (p->B * ((p->S + unit - 1) / unit + 1) > INT32_MAX) return "it takes fewer keys in all";
    return NULL;
}
