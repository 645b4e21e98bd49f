/* attention_decode_sm90.cuh: decode on Hopper: few queries against a long cache, with and without
 * the probe.
 *
 * The work is to read the keys and values once, at the speed of the memory. Each warp of a block
 * keeps a ring of a few tiles in shared memory and waits for nobody: warps meet only where a pair
 * ends.
 *
 *     1  the first tiles are asked for, then queries and probes become operands
 *     2  for each tile: [S; U] = [q; r] K', weights, [A1; A2] += [w; w (u - c)] V (NOTES.md), and
 *        its place is asked to be filled again
 *     3  the warps' results are joined, and those of blocks that share a pair: first in clusters,
 *        through shared memory, then through the workspace
 *
 * The order of all additions is fixed by shapes and lengths: results repeat bit for bit. */
#ifndef PLX_ATTENTION_DECODE_SM90_CUH
#define PLX_ATTENTION_DECODE_SM90_CUH

#include <type_traits>

#include "attention/attention_decode_sm90_begin.cuh"
#include "attention/attention_decode_sm90_join.cuh"

template <class KIND> struct decode_shared {
    unsigned char ring[KIND::WARPS][KIND::STAGES][DECODE_TILE_BYTES];
    uint64_t full[KIND::WARPS][KIND::STAGES];
    /* Of a list; each warp's own. */
    struct decode_cursor next[KIND::WARPS];
    bool last;
    /* Of a cluster. */
    uint64_t brought;
    struct decode_brought<KIND::D> rows[KIND::JOINS ? KIND::HEADS * DECODE_ROWS : 1];
    /* Of a list. */
    struct decode_left<KIND::D, KIND::LIST ? KIND::ROWS : 1> left[KIND::WARPS][KIND::HEADS];
};

/* ---- Through the keys ------------------------------------------------------------------------ */

/* The sums of each set of rows. */
template <class KIND> struct decode_results {
    struct decode_sums<KIND::D> of[KIND::SETS];
};

template <class KIND>
static __device__ __forceinline__ void decode_zero_sums(struct decode_results<KIND> &sums)
{
#pragma unroll
    for (int set = 0; set < KIND::SETS; set++) {
        sums.of[set].state = {-INFINITY, 0.0f, 0.0f, 0.0f};
#pragma unroll
        for (int j = 0; j < KIND::D / 8; j++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                sums.of[set].a[j][i] = 0.0f;
                computed_here(sums.of[set].a[j][i]);
            }
    }
}

template <class E, class KIND>
static __device__ __forceinline__ void
decode_keys(uint32_t tile, const uint32_t (&q)[KIND::D / 16][4], const float (&factors)[2],
            struct decode_scores<KIND> &x)
{
    if constexpr (KIND::F8)
        decode_multiply_keys_f8<KIND>(tile, q, factors, x);
    else
        decode_multiply_keys<E, KIND>(tile, q, x);
}

template <class E, class KIND, bool PROBE>
static __device__ __forceinline__ void decode_values(uint32_t values,
                                                     const struct decode_scores<KIND> &x,
                                                     struct decode_sums<KIND::D> &sums)
{
    if constexpr (KIND::F8)
        decode_multiply_values_f8<KIND, PROBE>(values, x, sums);
    else
        decode_multiply_values<E, KIND, PROBE>(values, x, sums);
}

/* A tile under one layer of rows of each head; masks: some row may not see all of it; clear: of
 * some of its keys nobody may see the values. */
template <class E, class KIND, bool PROBE>
static __device__ __forceinline__ void
decode_multiply(const struct decode_arguments &p, const struct decode_segment &segment,
                const struct decode_sight<KIND> &sight, const struct decode_operands<KIND> &q,
                uint32_t tile, int key, int layer, bool masks, bool clear,
                struct decode_results<KIND> &sums)
{
    constexpr int HEADS = KIND::HEADS, DEEP = KIND::DEEP;
    uint32_t values = tile + DECODE_TILE_BYTES / 2;
    struct decode_scores<KIND> x[HEADS];
#pragma unroll
    for (int head = 0; head < HEADS; head++)
        decode_keys<E, KIND>(tile + head * KIND::HEAD, q.of[head * DEEP + layer],
                             q.factors[head * DEEP + layer], x[head]);
    if (masks)
#pragma unroll
        for (int head = 0; head < HEADS; head++)
            decode_mask<KIND>(x[head], key, sight.own[layer], p.masked);
    if (clear) decode_clear<KIND>(values, key, segment.begin, segment.end);
#pragma unroll
    for (int head = 0; head < HEADS; head++)
        decode_weigh<KIND, PROBE>(x[head], sums.of[head * DEEP + layer], p.scale);
#pragma unroll
    for (int head = 0; head < HEADS; head++)
        decode_values<E, KIND, PROBE>(values + head * KIND::HEAD, x[head],
                                      sums.of[head * DEEP + layer]);
}

/* A warp's tiles of a segment. */
template <class E, class KIND, bool PROBE>
static __device__ __forceinline__ void
decode_walk(const struct decode_arguments &p, const struct decode_maps &maps,
            const struct decode_segment &segment, const struct decode_sight<KIND> &sight,
            const struct decode_operands<KIND> &q, struct decode_ring &ring,
            struct decode_ahead<KIND> &ahead, struct decode_cursor *next,
            struct decode_results<KIND> &sums)
{
    constexpr int KEYS = KIND::KEYS;
    struct decode_range common = decode_common_range(sight);
    const bool two = KIND::DEEP > 1 && decode_rows_of<KIND>(p) > DECODE_ROWS;
    int key = segment.key;
    for (int turn = 0; turn < segment.turns; turn++, key += KIND::UNIT) {
        uint32_t tile = ring.tiles + ring.stage * DECODE_TILE_BYTES;
        uint32_t full = ring.full + ring.stage * 8;
        if (decode_has_keys(key, KEYS, segment.begin, segment.end)) {
            mbarrier_wait(full, ring.phase >> ring.stage & 1);
            ring.phase ^= 1 << ring.stage;
            bool masks = key < common.first || key + KEYS > common.end;
            bool clear =
                KIND::FEED == DECODE_BOXES && (key < segment.begin || key + KEYS > segment.end);
#pragma unroll
            for (int layer = 0; layer < KIND::DEEP; layer++)
                if (layer == 0 || two)
                    decode_multiply<E, KIND, PROBE>(p, segment, sight, q, tile, key, layer, masks,
                                                    clear && layer == 0, sums);
            __syncwarp(); /* all lanes have read the tile */
        }
        if (decode_has_more<KIND>(ahead)) {
            decode_ask<KIND>(p, maps, ahead, tile, full);
            decode_ahead_step<KIND, true>(p, ahead, next);
        }
        ring.stage = ring.stage + 1 < KIND::STAGES ? ring.stage + 1 : 0;
    }
}

/* The tiles of a segment become sums. False if it should be another segment: in a list that is
 * found out before any has been summed, because it may be a long way to where that leads; otherwise
 * behind them all, when what was read again has long come. */
template <class E, class KIND, bool PROBE>
static __device__ __forceinline__ bool
decode_sum(const struct decode_arguments &p, const struct decode_maps &maps,
           const struct decode_segment &segment, const struct decode_sight<KIND> &sight,
           const struct decode_operands<KIND> &q, struct decode_ring &ring,
           struct decode_ahead<KIND> &ahead, struct decode_cursor *next,
           const struct decode_guess &guess, struct decode_results<KIND> &sums)
{
    if (KIND::LIST && !decode_holds<KIND>(guess)) return false;
    decode_walk<E, KIND, PROBE>(p, maps, segment, sight, q, ring, ahead, next, sums);
    if (!KIND::LIST && guess.open) {
        ring.asked = 0; /* all that was asked for has come */
        if (!decode_holds<KIND>(guess)) return false;
    }
#pragma unroll
    for (int set = 0; set < KIND::SETS; set++) {
        sums.of[set].state.sum = quad_sum(sums.of[set].state.sum);
        sums.of[set].state.shift = quad_sum(sums.of[set].state.shift);
    }
    return true;
}

/* ---- The end of a segment -------------------------------------------------------------------- */

template <class KIND>
static __device__ __forceinline__ float decode_value_scale(const struct decode_arguments &p,
                                                           int head)
{
    if (!KIND::F8 || p.v_scales == NULL) return 1.0f;
    return p.v_scales[decode_kv_head<KIND::HEADS>(p) + head];
}

/* Where a result belongs: outputs, or a slot of the workspace. */
struct decode_target {
    int batch, slot;
    bool whole;
};

/* A channel of a row: a result, or a part of one. */
template <class E, class KIND, bool PROBE>
static __device__ __forceinline__ void
decode_finish_channel(const struct decode_arguments &p, const struct decode_target &target,
                      int head, int row, int d, const struct decode_channels<1> &x)
{
    if (target.whole) {
        decode_write<E, PROBE>(p, target.batch, decode_row_of<KIND>(p, head, row), d, x);
        return;
    }
    struct decode_partial<KIND::D> *to = decode_part<KIND>(p, target.slot, head, row);
    to->a[0][d] = x.a1[0];
    if (PROBE) to->a[1][d] = x.a2[0];
    if (d == 0) to->state = x.state;
}

/* Joins the warps of the block, which leave their sums at `left`, `apart` bytes apart. */
template <class E, class KIND, bool PROBE>
static __device__ __forceinline__ void
decode_finish_block(const struct decode_arguments &p, const struct decode_target &target,
                    unsigned char *left, int apart, struct decode_shared<KIND> *shared,
                    const struct decode_results<KIND> &sums)
{
    constexpr int D = KIND::D, HEADS = KIND::HEADS, ROWS = KIND::ROWS;
    typedef struct decode_left<D, ROWS> left_rows;
    typedef typename std::conditional<KIND::F8, decode_f16, E>::type product;
    int rows = decode_rows_of<KIND>(p);
    for (int first = 0; first < rows; first += ROWS) {
        int here = min(ROWS, rows - first);
        if (first > 0) __syncthreads(); /* the rows before have been read */
#pragma unroll
        for (int set = 0; set < KIND::SETS; set++) {
            int head = set / KIND::DEEP;
            decode_leave<product, KIND, PROBE>(
                (left_rows *)(left + threadIdx.x / 32 * apart) + head, sums.of[set],
                decode_value_scale<KIND>(p, head), set % KIND::DEEP, first, here);
        }
        __syncthreads();
        for (int i = threadIdx.x; i < HEADS * here * D; i += KIND::THREADS) {
            int place = i / D, d = i % D, head = HEADS > 1 && place >= here;
            int row = place - head * here;
            struct decode_channels<1> x =
                decode_join_warps<KIND, PROBE>(left + head * sizeof(left_rows), apart, row, d);
            if (KIND::JOINS && p.cluster > 0)
                decode_bring<KIND>(p, &shared->rows[place], &shared->brought, d, x);
            else
                decode_finish_channel<E, KIND, PROBE>(p, target, head, first + row, d, x);
        }
    }
}

/* Joins the blocks of the cluster: the channels that are this block's. */
template <class E, class KIND, bool PROBE>
static __device__ __forceinline__ void decode_finish_cluster(const struct decode_arguments &p,
                                                             const struct decode_target &target,
                                                             struct decode_shared<KIND> *shared)
{
    int rows = decode_rows_of<KIND>(p), blocks = 1 << p.cluster,
        shift = decode_own_channels<KIND>(p);
    int lane = threadIdx.x & (blocks - 1), first = decode_rank(p) << shift;
    mbarrier_wait_cluster(shared_address(&shared->brought), 0);
    for (int i = threadIdx.x >> p.cluster; i < KIND::HEADS * rows << shift;
         i += KIND::THREADS >> p.cluster) {
        int place = i >> shift, own = i - (place << shift);
        int head = KIND::HEADS > 1 && place >= rows;
        const struct decode_brought<KIND::D> *from = &shared->rows[place];
        float2 a = from->a[(own << p.cluster) + lane];
        struct decode_channels<1> x = {
            from->state[lane], {a.x},
            {
                a.y
            }
        };
        x = decode_join_lanes<PROBE>(x, blocks);
        if (lane == 0)
            decode_finish_channel<E, KIND, PROBE>(p, target, head, place - head * rows, first + own,
                                                  x);
    }
}

/* Joins the clusters of a pair, if this block is the last of theirs. */
template <class E, class KIND, bool PROBE>
static __device__ __forceinline__ void
decode_finish_pair(const struct decode_arguments &p, int batch, const struct decode_parts &parts,
                   unsigned long long *counter, unsigned long long seen, bool *last)
{
    constexpr int D = KIND::D, HEADS = KIND::HEADS;
    __syncthreads(); /* all have written */
    unsigned arrivals = parts.count << p.cluster;
    if (threadIdx.x == 0) *last = counter_draw(counter, seen, arrivals) == arrivals - 1;
    __syncthreads();
    if (!*last) return;
    int rows = decode_rows_of<KIND>(p), shift = 0;
    while (1 << shift < min(parts.count, DECODE_JOINING)) shift++;
    int lanes = 1 << shift, lane = threadIdx.x & (lanes - 1), step = KIND::THREADS >> shift;
    int i = threadIdx.x >> shift, items = HEADS * rows * (D / 4);
    struct decode_channels<4> x, next = decode_part_of<KIND, PROBE>(p, parts, lanes, i, rows);
    for (; i < items; i += step) {
        x = next;
        if (i + step < items) next = decode_part_of<KIND, PROBE>(p, parts, lanes, i + step, rows);
        struct decode_item item = decode_item_of<KIND>(i, rows);
        x = decode_join_parts<KIND, PROBE>(p, parts, lanes, item, x);
        struct decode_row row = decode_row_of<KIND>(p, item.head, item.row);
#pragma unroll 1
        for (int n = lane; n < 4; n += lanes)
            decode_write<E, PROBE>(
                p, batch, row, item.d + n,
                {x.state, {decode_one_of(x.a1, n)}, {PROBE ? decode_one_of(x.a2, n) : 0.0f}});
    }
}

/* A segment from tiles to results; sums: that of nothing. False, before anything has been written,
 * if it should be another segment. */
template <class E, class KIND, bool PROBE>
static __device__ __forceinline__ bool
decode_segment_run(const struct decode_arguments &p, const struct decode_maps &maps, int batch,
                   const struct decode_segment &segment, const struct decode_sight<KIND> &sight,
                   const struct decode_parts &parts, const struct decode_operands<KIND> &q,
                   struct decode_shared<KIND> *shared, struct decode_ring &ring,
                   struct decode_ahead<KIND> &ahead, const struct decode_guess &guess,
                   struct decode_results<KIND> &sums)
{
    bool whole = !KIND::SHARES || parts.count == 1;
    unsigned long long *counter = p.counters + (int64_t)batch * gridDim.x + blockIdx.x, seen = 0;
    if (threadIdx.x == 0 && !whole) seen = counter_look(counter);
    if (!decode_sum<E, KIND, PROBE>(p, maps, segment, sight, q, ring, ahead,
                                    &shared->next[threadIdx.x / 32], guess, sums))
        return false;
    unsigned char *left = KIND::LIST ? (unsigned char *)shared->left : shared->ring[0][0];
    constexpr int APART = KIND::LIST ? sizeof shared->left[0] : sizeof shared->ring[0];
    const struct decode_target target = {batch, parts.own, whole};
    decode_finish_block<E, KIND, PROBE>(p, target, left, APART, shared, sums);
    if (KIND::JOINS && p.cluster > 0) decode_finish_cluster<E, KIND, PROBE>(p, target, shared);
    if (!whole) decode_finish_pair<E, KIND, PROBE>(p, batch, parts, counter, seen, &shared->last);
    return true;
}

/* ---- The kernel ------------------------------------------------------------------------------ */

/* All segments of a range of the list; false, before anything has been written, if it is another
 * range. */
template <class E, class KIND, bool PROBE>
static __device__ __forceinline__ bool
decode_list(const struct decode_arguments &p, const struct decode_maps &maps,
            const struct decode_start<KIND> &start, struct decode_operands<KIND> &q,
            struct decode_shared<KIND> *shared, struct decode_ring &ring,
            struct decode_ahead<KIND> &ahead, struct decode_guess &guess,
            struct decode_results<KIND> &sums)
{
    struct decode_cursor at = start.at;
    struct decode_segment segment = start.segment;
    struct decode_sight<KIND> sight = start.sight;
    struct decode_parts parts = start.parts;
    for (;;) {
        if (!decode_segment_run<E, KIND, PROBE>(p, maps, at.batch, segment, sight, parts, q, shared,
                                                ring, ahead, guess, sums))
            return false;
        guess.open = false;
        decode_next(segment, at);
        if (at.left == 0) return true;
        struct decode_lengths lengths = decode_lengths_of<KIND>(p, at.batch);
        segment = decode_segment_of<KIND>(p, at, lengths);
        sight = decode_sight_of<KIND>(p, lengths);
        parts = decode_list_parts(at, start.facts.list.cut, segment);
        decode_queries<KIND, PROBE>(p, decode_places_of<KIND>(p, at.batch), q);
        decode_queries_ready<E, KIND, PROBE>(q);
        decode_zero_sums<KIND>(sums);
        __syncthreads(); /* everybody has read what this segment overwrites */
    }
}

template <class KIND>
static __device__ __forceinline__ struct decode_ring
decode_ring_begin(struct decode_shared<KIND> *shared)
{
    int warp = uniform_warp(), lane = threadIdx.x % 32;
    struct decode_ring ring = {shared_address(shared->ring[warp]),
                               shared_address(shared->full[warp]), 0, 0, 0};
    /* A lane a barrier; but where lanes store tiles, one for all, because racecheck takes those
     * without a barrier for writers of what they store. */
    if (KIND::FEED == DECODE_BOXES) {
        if (lane < KIND::STAGES) mbarrier_init(ring.full + lane * 8, 1);
    } else if (lane == 0) {
        for (int stage = 0; stage < KIND::STAGES; stage++) mbarrier_init(ring.full + stage * 8, 32);
    }
    mbarrier_init_fence();
    __syncwarp();
    return ring;
}

/* Even: grid (pairs, parts, batch). List: grid (pairs, ranges).
 *
 * All that need not be read behind the launch before us is done while that drains, and first what
 * takes long: lengths and pages are read then too, although it may yet change them, and as soon as
 * it has ended tiles are asked for by what they were. Meanwhile they are read again, and a warp
 * that finds them changed forgets what it has summed and begins anew. */
template <class E, class KIND, bool PROBE>
__global__ void __launch_bounds__(KIND::THREADS, KIND::BLOCKS)
    decode_sm90_kernel(const __grid_constant__ struct decode_arguments p,
                       const __grid_constant__ struct decode_maps maps)
{
    extern __shared__ __align__(1024) unsigned char memory[];
    struct decode_shared<KIND> *shared = (struct decode_shared<KIND> *)memory;
    struct decode_early early = decode_read_early<KIND>(p);
    struct decode_ring ring = decode_ring_begin<KIND>(shared);
    struct decode_cursor *next = &shared->next[threadIdx.x / 32];
    if (KIND::FEED == DECODE_BOXES && threadIdx.x == 0) {
        tma_prefetch_map(&maps.k);
        tma_prefetch_map(&maps.v);
    }
    if (KIND::JOINS) decode_cluster_begin<KIND>(p, &shared->brought);
    if (KIND::JOINS && p.cluster > 0) cluster_wait();
    /* Chunks are copied from wherever a page is said to be, so that must be true. */
    if (KIND::FEED == DECODE_CHUNKS) dependency_wait();
    for (;;) {
        struct decode_start<KIND> start = decode_start_of<KIND>(p, early);
        struct decode_guess guess = {KIND::GUESSES};
        struct decode_operands<KIND> q;
        struct decode_ahead<KIND> ahead;
        struct decode_results<KIND> sums;
        decode_zero_sums<KIND>(sums);
        decode_ahead_begin<KIND>(p, ahead, start);
        struct decode_first<KIND> first;
        if (!KIND::LIST) first = decode_tell<KIND>(p, ring, ahead, next);
        if (KIND::LIST) {
            struct decode_cursor at = start.at;
            decode_next(start.segment, at);
            *next = at;
            __syncwarp();
        }
        dependency_wait();
        dependency_release();
        decode_begin_reading<E, KIND, PROBE>(p, maps, start, first, ring, ahead, next, q, guess);
        bool holds;
        if (start.idle)
            holds = decode_holds<KIND>(guess);
        else if constexpr (KIND::LIST)
            holds =
                decode_list<E, KIND, PROBE>(p, maps, start, q, shared, ring, ahead, guess, sums);
        else
            holds = decode_segment_run<E, KIND, PROBE>(p, maps, start.at.batch, start.segment,
                                                       start.sight, start.parts, q, shared, ring,
                                                       ahead, guess, sums);
        if (holds) return;
        decode_drain<KIND>(ring);
        early = decode_read_early<KIND>(p);
    }
}

#endif
