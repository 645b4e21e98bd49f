/* attention_decode_sm90.cuh: decode on Hopper: few queries against a long cache, with and without
 * the probe.
 *
 * The work is to read the keys and values once, at the speed of the memory. Each of the
 * DECODE_WARPS warps of a block keeps a ring of DECODE_STAGES tiles in shared memory and waits for
 * nobody: warps meet only where a pair ends.
 *
 *     1  the first tiles are asked for, then queries and probes become operands
 *     2  for each tile: [S; U] = [q; r] K', weights, [A1; A2] += [w; w (u - c)] V (NOTES.md), and
 *        its place is asked to be filled again
 *     3  the warps' results are joined, and those of blocks that share a pair
 *
 * The order of all additions is fixed by shapes and lengths: results repeat bit for bit. */
#ifndef PLX_ATTENTION_DECODE_SM90_CUH
#define PLX_ATTENTION_DECODE_SM90_CUH

#include "attention/attention_decode_sm90_join.cuh"
#include "attention/attention_decode_sm90_ring.cuh"

template <class KIND> struct decode_shared {
    unsigned char ring[DECODE_WARPS][DECODE_STAGES][DECODE_TILE_BYTES];
    uint64_t full[DECODE_WARPS][DECODE_STAGES];
    /* Of a list; each warp's own. */
    struct decode_cursor current[DECODE_WARPS], next[DECODE_WARPS];
    struct decode_cut cut[DECODE_WARPS];
    bool last;
    struct decode_left<KIND::D, KIND::LIST ? KIND::ROWS : 1> left[DECODE_WARPS]; /* of a list */
};

/* ---- Queries --------------------------------------------------------------------------------- */

/* A row of q (which = 0) or r (which = 1) into left operands; it need not be aligned. */
template <int D>
static __device__ __forceinline__ void decode_query(const struct decode_view &view, int batch,
                                                    const struct decode_row &row, int which,
                                                    uint32_t (&operands)[D / 16][4])
{
    const uint16_t *from = (const uint16_t *)view.data + batch * view.batch + row.time * view.time +
                           row.head * view.head + 2 * (threadIdx.x % 4);
    if ((uintptr_t)from % 4 == 0) {
#pragma unroll
        for (int i = 0; i < D / 8; i++)
            operands[i / 2][i % 2 * 2 + which] = *(const uint32_t *)(from + 8 * i);
        return;
    }
#pragma unroll
    for (int i = 0; i < D / 8; i++)
        operands[i / 2][i % 2 * 2 + which] = from[8 * i] | (uint32_t)from[8 * i + 1] << 16;
}

/* The block's rows of q and r as left operands; zeros where there is none. */
template <int D, bool PROBE>
static __device__ __forceinline__ void decode_queries(const struct decode_arguments &p, int batch,
                                                      uint32_t (&operands)[D / 16][4])
{
    int local = threadIdx.x % 32 / 4;
#pragma unroll
    for (int i = 0; i < D / 16; i++)
        operands[i][0] = operands[i][1] = operands[i][2] = operands[i][3] = 0;
    if (local >= decode_rows_of(p)) return;
    struct decode_row row = decode_row_of(p, local);
    decode_query<D>(p.q, batch, row, 0, operands);
    if (PROBE) decode_query<D>(p.r, batch, row, 1, operands);
}

/* ---- Through the keys ------------------------------------------------------------------------ */

/* A warp's place in its ring. */
struct decode_ring {
    uint32_t tiles, full;
    int stage, phase;
};

/* Keys that all rows of a pair see; only lanes of its rows count. */
static __device__ __forceinline__ struct decode_range
decode_common_range(const struct decode_range &range, bool counts)
{
    return {__reduce_max_sync(0xffffffffu, counts ? range.first : 0),
            __reduce_min_sync(0xffffffffu, counts ? range.end : INT32_MAX)};
}

/* A warp's tiles of a segment. */
template <class E, class KIND, bool PROBE>
static __device__ __forceinline__ void
decode_walk(const struct decode_arguments &p, const struct decode_maps &maps,
            const struct decode_segment &segment, const struct decode_range &range, bool counts,
            const uint32_t (&q)[KIND::D / 16][4], struct decode_ring &ring,
            struct decode_ahead &ahead, struct decode_cursor *next,
            struct decode_sums<KIND::D> &sums)
{
    constexpr int KEYS = KIND::KEYS;
    struct decode_range common = decode_common_range(range, counts);
    int key = segment.key;
    for (int turn = 0; turn < segment.turns; turn++, key += KIND::UNIT) {
        uint32_t tile = ring.tiles + ring.stage * DECODE_TILE_BYTES;
        uint32_t values = tile + DECODE_TILE_BYTES / 2, full = ring.full + ring.stage * 8;
        if (decode_has_keys(key, KEYS, segment.begin, segment.end)) {
            struct decode_scores<KIND> x;
            mbarrier_wait(full, ring.phase >> ring.stage & 1);
            ring.phase ^= 1 << ring.stage;
            decode_multiply_keys<E, KIND>(tile, q, x);
            if (key < common.first || key + KEYS > common.end)
                decode_mask<KIND>(x, key, range, p.masked);
            if (KIND::FEED == DECODE_BOXES && (key < segment.begin || key + KEYS > segment.end))
                decode_clear<KIND>(values, key, segment.begin, segment.end);
            decode_weigh<KIND, PROBE>(x, sums, p.scale);
            decode_multiply_values<E, KIND, PROBE>(values, x, sums);
            __syncwarp(); /* all lanes have read the tile */
        }
        decode_ask<KIND>(p, maps, ahead, tile, full);
        decode_ahead_step<KIND>(p, ahead, next);
        ring.stage = ring.stage + 1 < DECODE_STAGES ? ring.stage + 1 : 0;
    }
}

/* The tiles of a segment become sums. */
template <class E, class KIND, bool PROBE>
static __device__ __forceinline__ void
decode_sum(const struct decode_arguments &p, const struct decode_maps &maps,
           const struct decode_segment &segment, const uint32_t (&q)[KIND::D / 16][4],
           struct decode_ring &ring, struct decode_ahead &ahead, struct decode_cursor *next,
           struct decode_sums<KIND::D> &sums)
{
    int local = threadIdx.x % 32 / 4;
    struct decode_range range = decode_range_of(p, segment.lengths, decode_row_of(p, local).time);
    sums.state = {-INFINITY, 0.0f, 0.0f, 0.0f};
#pragma unroll
    for (int j = 0; j < KIND::D / 8; j++)
        sums.a[j][0] = sums.a[j][1] = sums.a[j][2] = sums.a[j][3] = 0.0f;
    decode_walk<E, KIND, PROBE>(p, maps, segment, range, local < decode_rows_of(p), q, ring, ahead,
                                next, sums);
    sums.state.sum = quad_sum(sums.state.sum);
    sums.state.shift = quad_sum(sums.state.shift);
}

/* ---- The end of a segment -------------------------------------------------------------------- */

/* Joins the warps and writes the result, or leaves it in the workspace at `slot`. left: where the
 * warps leave theirs, `apart` bytes apart. */
template <class E, class KIND, bool PROBE>
static __device__ __forceinline__ void
decode_finish_block(const struct decode_arguments &p, int batch, bool whole, int slot,
                    unsigned char *left, int apart, const struct decode_sums<KIND::D> &sums)
{
    constexpr int D = KIND::D, ROWS = KIND::ROWS;
    int rows = decode_rows_of(p);
    for (int first = 0; first < rows; first += ROWS) {
        int here = min(ROWS, rows - first);
        if (first > 0) __syncthreads(); /* the rows before have been read */
        decode_leave<E, D, PROBE>((struct decode_left<D, ROWS> *)(left + threadIdx.x / 32 * apart),
                                  sums, first, here);
        __syncthreads();
        for (int i = threadIdx.x; i < here * D; i += DECODE_WARPS * 32) {
            int row = first + i / D, d = i % D;
            struct decode_channel x = decode_join_warps<D, PROBE, ROWS>(left, apart, i / D, d);
            if (whole) {
                decode_write<E, PROBE>(p, batch, row, d, x);
                continue;
            }
            struct decode_partial<D> *to = decode_part<D>(p, slot, row);
            to->a[0][d] = x.a1;
            if (PROBE) to->a[1][d] = x.a2;
            if (d == 0) to->state = x.state;
        }
    }
}

/* Joins the blocks of a pair, if this one is the last of them. */
template <class E, int D, bool PROBE>
static __device__ __forceinline__ void
decode_finish_pair(const struct decode_arguments &p, int batch, const struct decode_parts &parts,
                   unsigned long long *counter, unsigned long long seen, bool *last)
{
    __syncthreads(); /* all have written */
    if (threadIdx.x == 0) *last = decode_arrive(counter, seen, parts.count);
    __syncthreads();
    if (!*last) return;
    int rows = decode_rows_of(p);
    for (int i = threadIdx.x; i < rows * D; i += DECODE_WARPS * 32)
        decode_write<E, PROBE>(p, batch, i / D, i % D,
                               decode_join_blocks<D, PROBE>(p, parts, i / D, i % D));
}

/* A segment from tiles to results. parts: where the partial results of the pair are; slot: that
 * of this block. */
template <class E, class KIND, bool PROBE>
static __device__ __forceinline__ void
decode_segment_run(const struct decode_arguments &p, const struct decode_maps &maps, int batch,
                   const struct decode_segment &segment, const uint32_t (&q)[KIND::D / 16][4],
                   const struct decode_parts &parts, int slot, struct decode_shared<KIND> *shared,
                   struct decode_ring &ring, struct decode_ahead &ahead)
{
    bool whole = segment.turns == segment.units;
    unsigned long long *counter = p.counters + (int64_t)batch * gridDim.x + blockIdx.x, seen = 0;
    if (threadIdx.x == 0 && !whole) seen = *(volatile unsigned long long *)counter;
    struct decode_sums<KIND::D> sums;
    decode_sum<E, KIND, PROBE>(p, maps, segment, q, ring, ahead, &shared->next[threadIdx.x / 32],
                               sums);
    unsigned char *left = KIND::LIST ? (unsigned char *)shared->left : shared->ring[0][0];
    constexpr int APART = KIND::LIST ? sizeof shared->left[0] : sizeof shared->ring[0];
    decode_finish_block<E, KIND, PROBE>(p, batch, whole, slot, left, APART, sums);
    if (!whole)
        decode_finish_pair<E, KIND::D, PROBE>(p, batch, parts, counter, seen, &shared->last);
}

/* ---- The kernel ------------------------------------------------------------------------------ */

/* All segments of a range of the list. A range has room for two partial results a pair: that of a
 * sequence which began before it, and behind it that of one which begins in it. */
template <class E, class KIND, bool PROBE>
static __device__ __forceinline__ void
decode_list(const struct decode_arguments &p, const struct decode_maps &maps,
            struct decode_shared<KIND> *shared, struct decode_ring &ring,
            struct decode_ahead &ahead)
{
    struct decode_cursor *current = &shared->current[threadIdx.x / 32];
    int pairs = (int)gridDim.x, pair = (int)blockIdx.x;
    do {
        struct decode_cursor at = *current;
        struct decode_segment segment = decode_segment_of<KIND::UNIT>(p, at);
        struct decode_cut cut = shared->cut[threadIdx.x / 32];
        int first = decode_cut_owner(cut, at.origin);
        int last = decode_cut_owner(cut, at.origin + segment.units - 1);
        struct decode_parts parts = {(2 * first + 1) * pairs + pair, (2 * first + 2) * pairs + pair,
                                     2 * pairs, last - first + 1};
        int slot = (2 * (int)blockIdx.y + (at.unit == 0)) * pairs + pair;
        uint32_t q[KIND::D / 16][4];
        decode_queries<KIND::D, PROBE>(p, at.batch, q);
        decode_segment_run<E, KIND, PROBE>(p, maps, at.batch, segment, q, parts, slot, shared, ring,
                                           ahead);
        decode_next(segment, at);
        __syncthreads(); /* everybody has read what the next segment overwrites */
        *current = at;
        __syncwarp();
    } while (current->left > 0);
}

template <class KIND>
static __device__ __forceinline__ struct decode_ring
decode_ring_begin(struct decode_shared<KIND> *shared)
{
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    struct decode_ring ring = {shared_address(shared->ring[warp]),
                               shared_address(shared->full[warp]), 0, 0};
    if (lane < DECODE_STAGES)
        mbarrier_init(ring.full + lane * 8, KIND::FEED == DECODE_CHUNKS ? 32 : 1);
    mbarrier_init_fence();
    __syncwarp();
    return ring;
}

/* Even: grid (pairs, parts, batch). List: grid (pairs, ranges). */
template <class E, class KIND, bool PROBE>
__global__ void __launch_bounds__(DECODE_WARPS * 32, 2)
    decode_sm90_kernel(const __grid_constant__ struct decode_arguments p,
                       const __grid_constant__ struct decode_maps maps)
{
    extern __shared__ __align__(1024) unsigned char memory[];
    struct decode_shared<KIND> *shared = (struct decode_shared<KIND> *)memory;
    struct decode_ring ring = decode_ring_begin<KIND>(shared);
    if (KIND::FEED == DECODE_BOXES && threadIdx.x == 0) {
        tma_prefetch_map(&maps.k);
        tma_prefetch_map(&maps.v);
    }
    dependency_wait();
    dependency_release();

    int parts = 0;
    struct decode_cut cut = {};
    struct decode_cursor at = KIND::LIST ? decode_begin_list<KIND::UNIT>(p, &cut)
                                         : decode_begin_even<KIND::UNIT>(p, &parts);
    if (at.left == 0) return;
    struct decode_segment segment = decode_segment_of<KIND::UNIT>(p, at);
    struct decode_ahead ahead;
    ahead.head = decode_kv_head(p);
    decode_ahead_enter(ahead, at.batch, segment);
    struct decode_cursor *next = &shared->next[threadIdx.x / 32];
    if (KIND::LIST) {
        shared->cut[threadIdx.x / 32] = cut;
        shared->current[threadIdx.x / 32] = at;
        decode_next(segment, at);
        *next = at;
        __syncwarp();
    }
    uint32_t q[KIND::D / 16][4]; /* of a list: read with each segment */
    if (!KIND::LIST) decode_queries<KIND::D, PROBE>(p, at.batch, q);
#pragma unroll 1
    for (int stage = 0; stage < DECODE_STAGES; stage++) {
        decode_ask<KIND>(p, maps, ahead, ring.tiles + stage * DECODE_TILE_BYTES,
                         ring.full + stage * 8);
        decode_ahead_step<KIND>(p, ahead, next);
    }
    if (KIND::LIST) {
        decode_list<E, KIND, PROBE>(p, maps, shared, ring, ahead);
        return;
    }
    int pairs = (int)gridDim.x, slot = at.batch * p.parts * pairs + (int)blockIdx.x;
    decode_segment_run<E, KIND, PROBE>(p, maps, at.batch, segment, q,
                                       {slot, slot + pairs, pairs, parts},
                                       slot + (int)blockIdx.y * pairs, shared, ring, ahead);
}

#endif
