/* attention_decode_sm90_walk.cuh: a warp's way through the tiles of a segment, which become sums.
 */
#ifndef PLX_ATTENTION_DECODE_SM90_WALK_CUH
#define PLX_ATTENTION_DECODE_SM90_WALK_CUH

#include "attention/attention_decode_sm90_begin.cuh"

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
decode_keys(uint32_t first, const uint32_t (&q)[KIND::D / 16][4], const float (&factors)[2],
            struct decode_scores<KIND> &x)
{
    if constexpr (KIND::F8)
        decode_multiply_keys_f8<KIND>(first, q, factors, x);
    else
        decode_multiply_keys<E, KIND>(first, q, x);
}

template <class E, class KIND, bool PROBE>
static __device__ __forceinline__ void decode_add(uint32_t first, const struct decode_values &v,
                                                  const struct decode_scores<KIND> &x,
                                                  struct decode_sums<KIND::D> &sums)
{
    if constexpr (KIND::F8)
        decode_multiply_values_f8<KIND, PROBE>(first, x, sums);
    else
        decode_multiply_values<E, KIND, PROBE>(first, v, x, sums);
}

/* A tile under one layer of rows of each head; masks: some row may not see all of it; clear: of
 * some of its keys nobody may see the values. */
template <class E, class KIND, bool PROBE>
static __device__ __forceinline__ void
decode_multiply(const struct decode_arguments &p, const struct decode_segment &segment,
                const struct decode_sight<KIND> &sight, const struct decode_operands<KIND> &q,
                const struct decode_lane &lane, uint32_t tile, int key, int layer, bool masks,
                bool clear, struct decode_results<KIND> &sums)
{
    constexpr int HEADS = KIND::HEADS, DEEP = KIND::DEEP;
    uint32_t values = tile + DECODE_TILE_BYTES / 2;
    struct decode_scores<KIND> x[HEADS];
    struct decode_values v[HEADS];
#pragma unroll
    for (int head = 0; head < HEADS; head++)
        decode_keys<E, KIND>(tile + lane.keys + head * KIND::HEAD, q.of[head * DEEP + layer],
                             q.factors[head * DEEP + layer], x[head]);
    if (__builtin_expect(masks || clear, 0)) { /* at the ends of what is seen */
        if (masks)
#pragma unroll
            for (int head = 0; head < HEADS; head++)
                decode_mask<KIND>(x[head], key, sight.own[layer], p.masked);
        if (clear) decode_clear<KIND>(values, key, segment.begin, segment.end);
    }
    if (KIND::AHEAD)
#pragma unroll
        for (int head = 0; head < HEADS; head++)
            decode_load_values<KIND>(values + lane.values + head * KIND::HEAD, 0, 0, v[head]);
#pragma unroll
    for (int head = 0; head < HEADS; head++)
        decode_weigh<KIND, PROBE>(x[head], sums.of[head * DEEP + layer], p.scale);
#pragma unroll
    for (int head = 0; head < HEADS; head++)
        decode_add<E, KIND, PROBE>(values + lane.values + head * KIND::HEAD, v[head], x[head],
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
    const struct decode_lane lane = decode_lane_of<KIND>();
    const bool two = KIND::DEEP > 1 && decode_rows_of<KIND>(p) > DECODE_ROWS;
    int key = segment.key;
    for (int turn = 0; turn < segment.turns; turn++, key += KIND::UNIT) {
        uint32_t tile = ring.tiles + ring.stage * DECODE_TILE_BYTES;
        uint32_t full = ring.full + ring.stage * 8;
        if (decode_has_keys(key, KEYS, segment.begin, segment.end)) {
            mbarrier_wait(full, ring.phase >> ring.stage & 1);
            ring.phase ^= 1 << ring.stage;
            bool masks = key < sight.common.first || key + KEYS > sight.common.end;
            bool clear =
                KIND::FEED == DECODE_BOXES && (key < segment.begin || key + KEYS > segment.end);
#pragma unroll
            for (int layer = 0; layer < KIND::DEEP; layer++)
                if (layer == 0 || two)
                    decode_multiply<E, KIND, PROBE>(p, segment, sight, q, lane, tile, key, layer,
                                                    masks, clear && layer == 0, sums);
            __syncwarp(); /* all lanes have read the tile */
        }
        if (decode_has_more<KIND>(ahead)) {
            decode_ask<KIND>(p, maps, ahead, tile, full);
            decode_ahead_step<KIND, true>(p, ahead, next);
        }
        ring.stage = ring.stage + 1 < KIND::STAGES ? ring.stage + 1 : 0;
    }
}

/* What lanes have of a row's sums is added up. */
template <class KIND>
static __device__ __forceinline__ void decode_total(struct decode_results<KIND> &sums)
{
#pragma unroll
    for (int set = 0; set < KIND::SETS; set++) {
        sums.of[set].state.sum = quad_sum(sums.of[set].state.sum);
        sums.of[set].state.shift = quad_sum(sums.of[set].state.shift);
    }
}

#endif
