/* attention_decode_sm90_list.cuh: which part of the work is whose: what attention_decode_plan.h
 * describes, on the device, where the lengths are. */
#ifndef PLX_ATTENTION_DECODE_SM90_LIST_CUH
#define PLX_ATTENTION_DECODE_SM90_LIST_CUH

#include <stdint.h>

#include "cuda/instructions.cuh"

extern "C" {
#include "attention/attention_decode_plan.h"
}

/* Strides in elements. */
struct decode_view {
    void *data;
    int64_t batch, time, head;
    int is_f32;
};

struct decode_arguments {
    struct decode_view q, r, k,
        v; /* paged: batch is the stride of pages, time that of their rows */
    struct decode_view o, lse, probe_mean, value_mean; /* data NULL where absent */
    const int32_t *q_lengths, *k_lengths;              /* NULL: T, S */
    const int32_t *pages;                              /* [B, table]; NULL: no pages */
    struct decode_divisor page;                        /* keys of a page; no pages: the most */
    int step;                                          /* keys of a unit modulo those */
    int64_t table;                                     /* stride of the table */
    int chunks; /* keys and values lie on multiples of 16 bytes */
    int B, T, S, G, group, rows, causal;
    int parts, cluster;
    struct decode_divisor by_parts, by_group, by_row_blocks;
    struct decode_cut cut; /* these three: of the plan */
    uint32_t stay;         /* and this */
    int64_t window;        /* 0: unlimited */
    float scale, masked;   /* scale is in units of log 2; masked times scale is -infinity */
    void *partials;
    unsigned long long *counters;
    const float *k_scales, *v_scales; /* of f8e4m3; NULL: 1 */
};

struct decode_lengths {
    int T, S;
};

/* Where memory holds them; NULL where it does not. */
struct decode_lengths_place {
    const int32_t *T, *S;
};

static __device__ __forceinline__ struct decode_lengths_place
decode_lengths_place_of(const struct decode_arguments &p, int batch)
{
    return {p.q_lengths != NULL ? p.q_lengths + batch : NULL,
            p.k_lengths != NULL ? p.k_lengths + batch : NULL};
}

/* What memory holds now. */
template <class KIND>
static __device__ __forceinline__ struct decode_lengths
decode_lengths_read(const struct decode_arguments &p, const struct decode_lengths_place &place)
{
    struct decode_lengths l = {p.T, p.S};
    if (KIND::LOOKS && place.T != NULL) l.T = load_relaxed(place.T);
    if (KIND::LOOKS && place.S != NULL) l.S = load_relaxed(place.S);
    return l;
}

/* Never more than there is room for, whatever was read. */
static __device__ __forceinline__ struct decode_lengths
decode_lengths_fit(const struct decode_arguments &p, const struct decode_lengths &read)
{
    return {max(0, min(p.T, read.T)), max(0, min(p.S, read.S))};
}

template <class KIND>
static __device__ __forceinline__ struct decode_lengths
decode_lengths_of(const struct decode_arguments &p, int batch)
{
    return decode_lengths_fit(p, decode_lengths_read<KIND>(p, decode_lengths_place_of(p, batch)));
}

/* Where a block is in its work: a batch entry, one of the units of its keys, and how many units the
 * block still has, this one included. The block's pair is the blockIdx.x-th of every entry. origin:
 * where the entry begins in the list. */
struct decode_cursor {
    int batch, unit, left, origin;
};

/* What a block has of one batch entry: keys begin .. end - 1, of which this warp's first tile is at
 * `key` and the others a unit further each, `turns` of them; units: of the whole entry. */
struct decode_segment {
    int begin, end, key, turns, units;
};

template <class KIND>
static __device__ __forceinline__ struct decode_segment
decode_segment_of(const struct decode_arguments &p, const struct decode_cursor &at,
                  const struct decode_lengths &lengths)
{
    struct decode_segment segment;
    struct decode_keys keys = decode_keys_of(lengths.T, lengths.S, p.window, KIND::UNIT);
    int key = (keys.first / KIND::UNIT + at.unit) * KIND::UNIT;
    segment.units = keys.units;
    segment.turns = min(keys.units - at.unit, at.left);
    segment.begin = max(keys.first, key);
    segment.end = min(keys.end, key + segment.turns * KIND::UNIT);
    segment.key = key + uniform_warp() * KIND::KEYS;
    return segment;
}

/* ---- Even ------------------------------------------------------------------------------------ */

/* This block's share of its pair, and among how many it is shared. Left is 0 for none; a block that
 * others of its cluster count on goes on without. */
template <class KIND>
static __device__ __forceinline__ struct decode_cursor
decode_begin_even(const struct decode_arguments &p, const struct decode_lengths &lengths,
                  int *parts)
{
    struct decode_cursor at = {(int)blockIdx.z, 0, 0, 0};
    struct decode_cut cut = p.cut;
    int part = (int)blockIdx.y;
    *parts = p.parts;
    if (cut.each == 0) {
        int units = decode_keys_of(lengths.T, lengths.S, p.window, KIND::UNIT).units;
        *parts = min(p.parts, units);
        cut.each = units <= p.parts ? 1 : decode_divide(p.by_parts, units);
        cut.longer = units - *parts * cut.each;
    }
    at.unit = decode_cut_begin(cut, part);
    if (part < *parts) at.left = decode_cut_begin(cut, part + 1) - at.unit;
    return at;
}

/* ---- List ------------------------------------------------------------------------------------ */

static __device__ __forceinline__ int decode_inclusive_sum(int x)
{
    for (int step = 1; step < 32; step *= 2) {
        int below = __shfl_up_sync(0xffffffffu, x, step);
        if (threadIdx.x % 32 >= step) x += below;
    }
    return x;
}

/* A batch entry's lengths as they are read, and its units; 0 behind the last. */
struct decode_entry {
    struct decode_lengths read;
    int units;
};

template <class KIND>
static __device__ __forceinline__ struct decode_entry
decode_entry_of(const struct decode_arguments &p, int batch)
{
    if (batch >= p.B) return {{0, 0}, 0};
    struct decode_lengths read = decode_lengths_read<KIND>(p, decode_lengths_place_of(p, batch));
    struct decode_lengths lengths = decode_lengths_fit(p, read);
    return {read, decode_keys_of(lengths.T, lengths.S, p.window, KIND::UNIT).units};
}

/* Where a block begins in the list, how that is cut, and the lengths of the first entry. */
struct decode_range_start {
    struct decode_cursor at;
    struct decode_cut cut;
    struct decode_lengths read;
};

/* The block's range; every warp adds up the lengths for itself. */
template <class KIND>
static __device__ __forceinline__ struct decode_range_start
decode_begin_list(const struct decode_arguments &p)
{
    int lane = threadIdx.x % 32, range = (int)blockIdx.y;
    struct decode_entry mine = decode_entry_of<KIND>(p, lane);
    int total = mine.units;
#pragma unroll 1
    for (int b = lane + 32; b < p.B; b += 32) total += decode_entry_of<KIND>(p, b).units;
    total = __reduce_add_sync(0xffffffffu, total);
    struct decode_range_start start = {};
    start.cut.each = total < p.parts ? 1 : decode_divide(p.by_parts, total);
    start.cut.longer = total < p.parts ? 0 : total - p.parts * start.cut.each;
    if (range >= total) return start;
    int place = decode_cut_begin(start.cut, range);
    start.at.left = decode_cut_begin(start.cut, range + 1) - place;
#pragma unroll 1
    for (int b = 0, before = 0;; b += 32) {
        if (b > 0) mine = decode_entry_of<KIND>(p, b + lane);
        int behind = before + decode_inclusive_sum(mine.units);
        uint32_t found = __ballot_sync(0xffffffffu, behind > place);
        int here = found != 0 ? __ffs(found) - 1 : 31;
        before = __shfl_sync(0xffffffffu, behind - (found != 0 ? mine.units : 0), here);
        if (found == 0) continue;
        start.at.batch = b + here, start.at.unit = place - before, start.at.origin = before;
        start.read = {__shfl_sync(0xffffffffu, mine.read.T, here),
                      __shfl_sync(0xffffffffu, mine.read.S, here)};
        return start;
    }
}

/* To the first unit of the next batch entry. */
static __device__ __forceinline__ void decode_next(const struct decode_segment &segment,
                                                   struct decode_cursor &at)
{
    at.left -= segment.turns;
    at.origin += segment.units;
    at.unit = 0;
    at.batch++;
}

/* ---- Results --------------------------------------------------------------------------------- */

/* Where the `count` partial results of a pair and sequence lie, the first by itself, and which of
 * those places is this block's, or its cluster's. */
struct decode_parts {
    int first, second, step, count, own;
};

/* Of a part of a sequence that is cut into so many. */
static __device__ __forceinline__ struct decode_parts
decode_even_parts(const struct decode_arguments &p, int batch, int parts)
{
    int pairs = (int)gridDim.x, clusters = (parts + (1 << p.cluster) - 1) >> p.cluster;
    int first = batch * (p.parts >> p.cluster) * pairs + (int)blockIdx.x;
    return {first, first + pairs, pairs, clusters, first + ((int)blockIdx.y >> p.cluster) * pairs};
}

/* Of a segment at `at` of the list. A range has room for two a pair: that of a sequence which
 * began before it, and behind it that of one which begins in it. */
static __device__ __forceinline__ struct decode_parts
decode_list_parts(const struct decode_cursor &at, const struct decode_cut &cut,
                  const struct decode_segment &segment)
{
    int pairs = (int)gridDim.x, pair = (int)blockIdx.x;
    if (segment.turns == segment.units) return {0, 0, 0, 1, 0};
    int first = decode_cut_owner(cut, at.origin);
    int last = decode_cut_owner(cut, at.origin + segment.units - 1);
    return {(2 * first + 1) * pairs + pair, (2 * first + 2) * pairs + pair, 2 * pairs,
            last - first + 1, (2 * (int)blockIdx.y + (at.unit == 0)) * pairs + pair};
}

/* ---- Rows ------------------------------------------------------------------------------------ */

struct decode_row {
    int time, head;
};

/* The key/value head of this block, or the first of several. */
template <int HEADS>
static __device__ __forceinline__ int decode_kv_head(const struct decode_arguments &p)
{
    return decode_divide(p.by_row_blocks, (int)blockIdx.x) * HEADS;
}

/* The block's first row of each of its heads. */
template <class KIND>
static __device__ __forceinline__ int decode_first_row(const struct decode_arguments &p)
{
    int block = (int)blockIdx.x, head = decode_divide(p.by_row_blocks, block);
    return (block - head * p.by_row_blocks.divisor) * KIND::BLOCK_ROWS;
}

/* Row `local` of this block's `head`. */
template <class KIND>
static __device__ __forceinline__ struct decode_row decode_row_of(const struct decode_arguments &p,
                                                                  int head, int local)
{
    int row = local + decode_first_row<KIND>(p), time = decode_divide(p.by_group, row);
    return {time, (decode_kv_head<KIND::HEADS>(p) + head) * p.group + row - time * p.group};
}

/* Rows of each head of this block. */
template <class KIND>
static __device__ __forceinline__ int decode_rows_of(const struct decode_arguments &p)
{
    constexpr int ROWS = KIND::BLOCK_ROWS;
    return min(ROWS, p.rows - decode_first_row<KIND>(p));
}

/* This lane's row of a layer, among the rows of its head. */
static __device__ __forceinline__ int decode_own_row(int layer)
{
    return layer * DECODE_ROWS + threadIdx.x % 32 / 4;
}

/* The row that it computes: where the block has no such row its last, of which nothing is left. */
template <class KIND>
static __device__ __forceinline__ int decode_computed_row(const struct decode_arguments &p,
                                                          int layer)
{
    return min(decode_own_row(layer), decode_rows_of<KIND>(p) - 1);
}

/* Keys first .. end - 1 that a row sees; none where the row lies behind its length. */
struct decode_range {
    int first, end;
};

static __device__ __forceinline__ struct decode_range
decode_range_of(const struct decode_arguments &p, const struct decode_lengths &lengths, int time)
{
    if (time >= lengths.T) return {0, 0};
    if (!p.causal) return {0, lengths.S};
    int end = lengths.S - lengths.T + time + 1;
    int64_t first = p.window > 0 ? end - p.window : 0;
    return {(int)max((int64_t)0, first), max(0, end)};
}

/* What this lane's row of each layer sees, and what all rows of the block see. */
template <class KIND> struct decode_sight {
    struct decode_range own[KIND::DEEP], common;
};

template <class KIND>
static __device__ __forceinline__ decode_sight<KIND>
decode_sight_of(const struct decode_arguments &p, const struct decode_lengths &lengths)
{
    struct decode_sight<KIND> sight;
    struct decode_range all = {0, INT32_MAX};
#pragma unroll
    for (int layer = 0; layer < KIND::DEEP; layer++) {
        int row = decode_computed_row<KIND>(p, layer);
        struct decode_range own = decode_range_of(p, lengths, decode_row_of<KIND>(p, 0, row).time);
        sight.own[layer] = own;
        all.first = max(all.first, own.first);
        all.end = min(all.end, own.end);
    }
    sight.common = {__reduce_max_sync(0xffffffffu, all.first),
                    __reduce_min_sync(0xffffffffu, all.end)};
    return sight;
}

#endif
