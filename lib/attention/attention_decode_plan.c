/* attention_decode_plan.c: see attention_decode_plan.h. */
#include "attention/attention_decode_plan.h"

#include "core/tensor.h"

/* The largest Hopper chips have 132 multiprocessors, and each room for two blocks. */
enum {
    DECODE_CHIP = 132,
    DECODE_ROOM = 2 * DECODE_CHIP,
    DECODE_HALF = 64,          /* blocks that fill half of it */
    DECODE_JOINED = 16,        /* partial results that are joined as fast as they are summed */
    DECODE_PLACED = 2,         /* units of a part that it has whatever the length */
    DECODE_TURNS = 4,          /* tiles of a warp, where more blocks would pay */
    DECODE_LONG = 256,         /* tiles of a block that other blocks should not wait for */
    DECODE_FULL = 30 << 20,    /* bytes of keys and values that the L2 cache cannot keep, and how */
    DECODE_KEEP = 24 << 20,    /* many of them it does from one launch to the next; */
    DECODE_LARGE = 64 << 20,   /* bytes that are too many to begin with, */
    DECODE_STAY = 18 << 20,    /* and how many of those */
    DECODE_SEVERAL = 8,        /* pairs whose blocks need not join in clusters first */
    DECODE_TWO_KEYS = 1 << 19, /* keys of all heads where two heads a block begin to pay, where */
    DECODE_TWO_FEW = 1 << 21,  /* there are many heads, and where there are few; */
    DECODE_TWO_PAIRS = 512,    /* or so many heads */
    DECODE_DEEP_FEW = 128,     /* blocks from which on two sets of rows had better share them, */
    DECODE_DEEP_MANY = 256,    /* and where a head has more than two sets; */
    DECODE_DEEP_LONG = 64,     /* tiles of a long sequence */
    DECODE_WORKSPACE = 256,    /* what the counters are rounded up to */
    DECODE_MAX_GRID = 65535,   /* along y and z */
};

static int64_t decode_least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t decode_most(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* Query rows of a key/value head. */
static int64_t decode_rows(const struct attention_problem *p)
{
    return p->T * (p->H / p->G);
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
    int keys = DECODE_KEYS(decode_bytes(p, heads));
    if (!decode_fits_boxes(&p->k) || !decode_fits_boxes(&p->v)) return 0;
    if (p->page == 0 || p->page % keys == 0) return keys;
    return p->page % DECODE_MIN_BOX == 0 ? DECODE_MIN_BOX : 0;
}

/* How many blocks of how many warps share the keys of a pair and sequence; 2 to `cluster` of them
 * join in shared memory. */
struct decode_share {
    int warps, parts, cluster;
};

/* The largest power of two that is not more than x, which is at least 1. */
static int decode_power(int64_t x)
{
    int power = 1;
    while (2 * power <= x) power *= 2;
    return power;
}

/* A cache that is read from memory: blocks of eight warps on half of the chip are enough to keep
 * it busy, but the smaller ones of a few pairs are sooner read by all of it. Narrow blocks
 * have four warps, and all of it. */
static struct decode_share decode_share_large(int64_t pairs, bool narrow, int64_t bytes)
{
    bool late = 4 * pairs <= DECODE_HALF && bytes < 2 * (int64_t)DECODE_LARGE;
    int64_t blocks = !narrow && !late ? DECODE_HALF : 2 * DECODE_HALF;
    int warps = narrow ? DECODE_WARPS : DECODE_WIDE_WARPS;
    struct decode_share share = {warps, decode_power(decode_most(blocks / pairs, 1)), 0};
    bool joined = share.parts == 2 && (narrow || bytes <= 2 * (int64_t)DECODE_LARGE);
    if (joined) share.cluster = 1;
    return share;
}

/* One cluster for all keys of a pair: as many blocks as fill half of the chip and leave the other
 * half to the next launch, or two where there are more pairs than that. Blocks are of eight warps
 * where four would have too many tiles each, which is later where clusters of eight would be in the
 * way of the next launch's, as each of their blocks takes a multiprocessor. parts is 0 where eight
 * would have too many, too. */
static struct decode_share decode_share_joined(int64_t pairs, int64_t tiles)
{
    bool few = 2 * pairs <= DECODE_HALF, two = 4 * pairs > DECODE_HALF;
    struct decode_share share = {DECODE_WARPS, 0, 0};
    int parts = few ? decode_power(decode_least(DECODE_HALF / pairs, 1 << DECODE_MAX_CLUSTER)) : 2;
    bool crowded = 4 * pairs * parts > 3 * DECODE_HALF;
    int turns = two ? DECODE_TURNS / 2 : crowded ? 2 * DECODE_TURNS : DECODE_TURNS;
    bool wide = few && tiles > turns * parts * DECODE_WARPS;
    if (wide) share.warps = DECODE_WIDE_WARPS;
    int64_t units = (tiles + share.warps - 1) / share.warps;
    if (pairs > DECODE_HALF || (wide && units > DECODE_TURNS * parts)) return share;
    share.parts = parts;
    while (share.parts / 2 >= units) share.parts /= 2;
    while (1 << share.cluster < share.parts) share.cluster++;
    return share;
}

/* Blocks of eight warps: the fewest parts that leave a warp few tiles. A second part pays where it
 * takes three tiles off a warp; very long sequences of a few pairs are worth so many that they join
 * in clusters first. */
static struct decode_share decode_share_wide(int64_t pairs, int64_t units)
{
    struct decode_share share = {DECODE_WIDE_WARPS, 1, 0};
    int64_t most = decode_least(decode_least(DECODE_CHIP / pairs, units), DECODE_JOINED);
    if (pairs <= 4 && units >= DECODE_HALF / 2 * pairs) most = DECODE_HALF / 2;
    int parts = decode_power(most);
    if (units - (units + parts - 1) / parts >= 3) share.parts = parts;
    while (share.parts >> share.cluster > DECODE_JOINED) share.cluster++;
    return share;
}

/* The one pair of a long sequence: eight clusters of eight blocks. */
static struct decode_share decode_share_single(int64_t units)
{
    bool wide = units >= 2 * DECODE_HALF;
    return (struct decode_share){wide ? DECODE_WIDE_WARPS : DECODE_WARPS, DECODE_HALF, 3};
}

/* narrow: four warps a block if the cache is large; bytes: of keys and values. */
static struct decode_share decode_share_of(int64_t pairs, int64_t tiles, bool narrow, int64_t bytes)
{
    int64_t units = (tiles + DECODE_WARPS - 1) / DECODE_WARPS;
    int64_t wide = (tiles + DECODE_WIDE_WARPS - 1) / DECODE_WIDE_WARPS;
    bool few = 2 * pairs <= DECODE_HALF; /* that a block of four warps leaves the chip idle */
    if (pairs > DECODE_CHIP || units == 1 || (units == 2 && !few) ||
        (units <= 2 * DECODE_TURNS && pairs > DECODE_HALF))
        return (struct decode_share){DECODE_WARPS, 1, 0};
    if (bytes >= DECODE_LARGE && pairs >= DECODE_SEVERAL)
        return decode_share_large(pairs, narrow, bytes);
    bool short_ones = units == 2 || (wide == 2 && !few); /* a tile a warp, or two of many pairs */
    if (short_ones) return (struct decode_share){DECODE_WIDE_WARPS, 1, 0};
    if (pairs == 1 && units > DECODE_HALF) return decode_share_single(units);
    struct decode_share share = decode_share_joined(pairs, tiles);
    return share.parts > 0 ? share : decode_share_wide(pairs, wide);
}

/* True where that would leave much of the chip idle in the end: the last of few rounds of blocks
 * is far from full. */
static bool decode_is_uneven(int64_t pairs)
{
    int64_t rounds = (pairs + DECODE_ROOM - 1) / DECODE_ROOM;
    return rounds > 1 && rounds <= 4 && pairs * 10 < rounds * DECODE_ROOM * 9;
}

/* Warps that widen f8e4m3 are slower: blocks of eight on half of the chip do not keep the memory
 * busy with the probe, nor on less of it without; so some pairs get twice as many blocks of four.
 */
static bool decode_is_slow(const struct attention_problem *p, int64_t pairs, int64_t bytes)
{
    bool some = 4 * pairs > DECODE_HALF && pairs <= DECODE_HALF;
    if (p->kv_dtype != PLX_F8E4M3 || !some || bytes > 2 * (int64_t)DECODE_LARGE) return false;
    return p->probe || decode_power(DECODE_HALF / pairs) * pairs < DECODE_HALF;
}

/* True where one round of blocks puts two on some multiprocessors and one on others, or so on pairs
 * of multiprocessors: memory serves those alike, and the crowded ones work on when the others have
 * ended. Of caches so large that this costs more than a list, which joins parts of every row. */
static bool decode_is_lopsided(const struct attention_problem *p, int64_t pairs, int64_t bytes)
{
    bool two = pairs > DECODE_CHIP;
    int64_t least = 2 * (int64_t)DECODE_LARGE;
    if (!two && decode_rows(p) > 1) least *= 2;
    if (p->kv_dtype == PLX_F8E4M3) least *= 2;
    if (bytes < least || 2 * pairs <= DECODE_CHIP) return false;
    return pairs * 10 < (two ? 9 * DECODE_ROOM : 8 * DECODE_CHIP);
}

/* Tiles that a sequence has at most. */
static int64_t decode_tiles(const struct attention_problem *p, int heads)
{
    int keys = DECODE_KEYS(decode_bytes(p, heads));
    return decode_keys_of((int)p->T, (int)p->S, p->window, keys).units;
}

static bool decode_is_alike(const struct attention_problem *p)
{
    return p->q_lengths.rank == 0 && p->k_lengths.rank == 0;
}

/* True where sequences of different lengths had better be a list: blocks of one that is as long as
 * it may be would still work long after those of short ones. */
static bool decode_is_ragged(const struct attention_problem *p, int64_t tiles, int parts)
{
    return !decode_is_alike(p) && p->B > 1 && tiles > (int64_t)DECODE_LONG * parts;
}

/* Ranges of a list of B sequences: as many as there is room for; or a few less, if then sequences
 * of one length are all cut into as many parts, or share a range with as many others. */
static int64_t decode_ranges(int64_t pairs, int64_t B)
{
    int64_t ranges = decode_most(DECODE_ROOM / pairs, 1);
    int64_t shared = (B + ranges - 1) / ranges;
    int64_t whole = ranges >= B ? ranges / B * B : B / shared;
    return whole * 10 >= ranges * 9 ? whole : ranges;
}

/* Two heads of 64 channels fill the 256 bytes that memory likes to be read in. That halves the
 * pairs, so it is for caches that are large, or have pairs enough. One box has both. The few pairs
 * of long sequences get blocks of eight warps, which have one head. */
static int decode_heads(const struct attention_problem *p, int64_t row_blocks)
{
    int64_t pairs = p->B * p->G * row_blocks, keys = p->B * p->G * p->S;
    bool worth = keys >= (pairs > DECODE_HALF ? DECODE_TWO_KEYS : DECODE_TWO_FEW);
    if (p->D != 64 || p->G % 2 != 0) return 1;
    if (pairs < 2 * DECODE_SEVERAL || (!worth && pairs < DECODE_TWO_PAIRS)) return 1;
    return decode_box(p, 2) == DECODE_KEYS(decode_bytes(p, 2)) ? 2 : 1;
}

/* Blocks of two sets of rows read a tile once for both, but take longer for it and for joining
 * parts: for where there are enough of them without cutting sequences, long ones where all blocks
 * of one set would have room side by side; and, with 128 channels, no list nor blocks of one set
 * beside others. */
static bool decode_is_deep(const struct attention_problem *p)
{
    int64_t sets = (decode_rows(p) + DECODE_ROWS - 1) / DECODE_ROWS;
    int64_t blocks = p->B * p->G * ((sets + 1) / DECODE_MOST_DEEP), tiles = decode_tiles(p, 1);
    if (sets <= 1 || p->kv_dtype == PLX_F8E4M3 || decode_box(p, 1) == 0) return false;
    bool list = decode_is_uneven(blocks) || decode_is_ragged(p, tiles, 1);
    bool mixed = sets % 2 != 0 && blocks > DECODE_ROOM;
    if (p->D == 128 && (list || mixed)) return false;
    if (tiles < (2 * blocks <= DECODE_ROOM ? DECODE_DEEP_LONG : DECODE_WARPS)) return false;
    return blocks >= (sets == 2 ? DECODE_DEEP_FEW : DECODE_DEEP_MANY);
}

/* Of a cache that does not fit the L2 cache, which would drop most lines before they are read
 * again, some tiles are read to stay there and the others to pass through; but where several blocks
 * of rows read a tile one after another, all of them stay. */
static uint32_t decode_stay(int64_t bytes, int64_t row_blocks)
{
    if (bytes < DECODE_FULL || row_blocks > 1) return UINT32_MAX;
    int stay = bytes < DECODE_LARGE ? DECODE_KEEP : DECODE_STAY;
    return (uint32_t)(UINT32_MAX / (double)bytes * stay);
}

struct decode_plan decode_plan_make(const struct attention_problem *p, bool boxes)
{
    const int deep = boxes && decode_is_deep(p) ? DECODE_MOST_DEEP : 1;
    int64_t rows = decode_rows(p), of_block = deep * DECODE_ROWS;
    int64_t row_blocks = (rows + of_block - 1) / of_block;
    struct decode_plan plan = {.warps = DECODE_WARPS,
                               .heads = boxes && deep == 1 ? decode_heads(p, row_blocks) : 1,
                               .deep = deep,
                               .row_blocks = (int)row_blocks};
    plan.box = boxes ? decode_box(p, plan.heads) : 0;
    int keys = DECODE_KEYS(decode_bytes(p, plan.heads));
    int64_t pairs = p->G / plan.heads * row_blocks;
    int64_t tiles = decode_tiles(p, plan.heads);
    plan.pairs = (int)pairs;
    int64_t size = 2 * p->B * p->G * p->S * decode_bytes(p, 1);
    struct decode_share share = {DECODE_WARPS, 1, 0};
    bool narrow = plan.heads == 2 || decode_is_slow(p, p->B * pairs, size);
    if (deep == 1) share = decode_share_of(p->B * pairs, tiles, narrow, size);
    bool lopsided = deep == 1 && plan.heads == 1 && decode_is_lopsided(p, p->B * pairs, size);
    plan.list = plan.box == 0 || lopsided || decode_is_uneven(p->B * pairs) ||
                decode_is_ragged(p, tiles, share.parts);
    if (plan.list) {
        plan.parts = (int)decode_ranges(pairs, p->B);
    } else {
        plan.warps = share.warps, plan.parts = share.parts, plan.cluster = share.cluster;
        int units = decode_keys_of((int)p->T, (int)p->S, p->window, share.warps * keys).units;
        bool same = decode_is_alike(p) || (p->window == 0 && units <= DECODE_PLACED * plan.parts);
        if (same) plan.cut = decode_cut_of(units, plan.parts);
    }
    plan.stay = decode_stay(size, row_blocks);
    int64_t results = plan.list ? 2 * (int64_t)plan.parts : p->B * (plan.parts >> plan.cluster);
    int64_t bytes = decode_least(rows, of_block) * plan.heads * (4 + 2 * p->D) * 4;
    plan.counters =
        (size_t)((p->B * pairs * 8 + DECODE_WORKSPACE - 1) / DECODE_WORKSPACE * DECODE_WORKSPACE);
    plan.partials = (size_t)(results * pairs * bytes);
    if (!plan.list && plan.parts >> plan.cluster == 1) plan.counters = plan.partials = 0;
    return plan;
}

const char *decode_plan_refuse(const struct attention_problem *p)
{
    int64_t unit = DECODE_WARPS * DECODE_KEYS(decode_bytes(p, 2)); /* the smallest */
    if (p->B > DECODE_MAX_GRID) return "it takes at most 65535 sequences";
    if (p->B * ((p->S + unit - 1) / unit + 1) > INT32_MAX) return "it takes fewer keys in all";
    return NULL;
}
