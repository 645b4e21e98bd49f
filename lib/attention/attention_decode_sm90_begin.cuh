/* attention_decode_sm90_begin.cuh: what a block asks for first: its queries, and the tiles that its
 * rings take. The time from the end of the launch before it to its first copies is lost on every
 * short sequence, so all that does not look at device memory is computed ahead of that. */
#ifndef PLX_ATTENTION_DECODE_SM90_BEGIN_CUH
#define PLX_ATTENTION_DECODE_SM90_BEGIN_CUH

#include "attention/attention_decode_sm90_f8.cuh"
#include "attention/attention_decode_sm90_ring.cuh"

/* ---- Queries --------------------------------------------------------------------------------- */

/* A row of q (which = 0) or r (which = 1) into left operands; it need not be aligned. */
template <int D>
static __device__ __forceinline__ void decode_query(const uint16_t *row, int which,
                                                    uint32_t (&operands)[D / 16][4])
{
    const uint16_t *from = row + 2 * (threadIdx.x % 4);
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

/* [q; r] of each head as left operands of D / 16 products; of f8e4m3 keys also what scores and u
 * are to be multiplied with. */
template <class KIND> struct decode_operands {
    uint32_t of[KIND::HEADS][KIND::D / 16][4];
    float factors[KIND::HEADS][2];
};

/* Where this lane's row of q and of r begins, of the block's first head. */
struct decode_places {
    int64_t q, r;
};

static __device__ __forceinline__ int64_t decode_place(const struct decode_view &view, int batch,
                                                       const struct decode_row &row)
{
    return batch * view.batch + row.time * view.time + row.head * view.head;
}

template <class KIND>
static __device__ __forceinline__ struct decode_places
decode_places_of(const struct decode_arguments &p, int batch)
{
    struct decode_row row = decode_row_of<KIND::HEADS>(p, 0, threadIdx.x % 32 / 4);
    return {decode_place(p.q, batch, row), decode_place(p.r, batch, row)};
}

template <class E, class KIND>
static __device__ __forceinline__ void
decode_query_of(const struct decode_arguments &p, const struct decode_view &view, int64_t place,
                int head, int which, struct decode_operands<KIND> &q)
{
    const uint16_t *from = (const uint16_t *)view.data + place + head * p.group * view.head;
    if constexpr (!KIND::F8) {
        decode_query<KIND::D>(from, which, q.of[head]);
    } else {
        float factor = decode_query_f8<E, KIND::D>(from, which, q.of[head]);
        if (p.k_scales != NULL) factor *= p.k_scales[decode_kv_head<KIND::HEADS>(p) + head];
        q.factors[head][which] = factor;
    }
}

/* The block's rows of q and r; zeros where there is none. */
template <class E, class KIND, bool PROBE>
static __device__ __forceinline__ void decode_queries(const struct decode_arguments &p,
                                                      const struct decode_places &places,
                                                      struct decode_operands<KIND> &q)
{
#pragma unroll
    for (int head = 0; head < KIND::HEADS; head++) {
        q.factors[head][0] = q.factors[head][1] = 1.0f;
#pragma unroll
        for (int i = 0; i < KIND::D / 16; i++)
            q.of[head][i][0] = q.of[head][i][1] = q.of[head][i][2] = q.of[head][i][3] = 0;
    }
    if (threadIdx.x % 32 / 4 >= decode_rows_of(p)) return;
#pragma unroll
    for (int head = 0; head < KIND::HEADS; head++) {
        decode_query_of<E, KIND>(p, p.q, places.q, head, 0, q);
        if (PROBE) decode_query_of<E, KIND>(p, p.r, places.r, head, 1, q);
    }
}

/* ---- The first tiles --------------------------------------------------------------------------
 */

/* A warp's place in its ring. */
struct decode_ring {
    uint32_t tiles, full;
    int stage, phase;
};

/* Asks for the tiles of stages from .. to - 1. */
template <class KIND>
static __device__ __forceinline__ void
decode_fill(const struct decode_arguments &p, const struct decode_maps &maps, int from, int to,
            const struct decode_ring &ring, struct decode_ahead &ahead, struct decode_cursor *next)
{
#pragma unroll 1
    for (int stage = from; stage < to; stage++) {
        decode_ask<KIND>(p, maps, ahead, ring.tiles + stage * DECODE_TILE_BYTES,
                         ring.full + stage * 8);
        decode_ahead_step<KIND>(p, ahead, next);
    }
}

/* The same for a segment without pages, in two steps: its barriers are told of the tiles that have
 * a key while the launch before us drains, so that nothing but the copies is left to do behind it.
 */
template <class KIND>
static __device__ __forceinline__ void decode_fill_expect(const struct decode_segment &segment,
                                                          const struct decode_ring &ring)
{
#pragma unroll
    for (int stage = 0; stage < KIND::STAGES; stage++)
        if (decode_has_keys(segment.key + stage * KIND::UNIT, KIND::KEYS, segment.begin,
                            segment.end) &&
            threadIdx.x % 32 == 0)
            mbarrier_expect(ring.full + stage * 8, DECODE_TILE_BYTES);
}

template <class KIND>
static __device__ __forceinline__ void
decode_fill_plain(const struct decode_arguments &p, const struct decode_maps &maps, int from,
                  int to, const struct decode_ring &ring, struct decode_ahead &ahead)
{
#pragma unroll 1
    for (int stage = from; stage < to; stage++, ahead.key += KIND::UNIT)
        if (decode_has_keys(ahead.key, KIND::KEYS, ahead.begin, ahead.end) && threadIdx.x % 32 == 0)
            decode_copy(maps, ahead.head, (int)blockIdx.z, ahead.key,
                        ring.tiles + stage * DECODE_TILE_BYTES, ring.full + stage * 8,
                        decode_policy<KIND>(p, ahead.key));
}

/* Queries come behind the tiles of the first stage, which are needed as soon as they, and before
 * the others, which would keep them waiting. A list reads them with each segment. */
template <class E, class KIND, bool PROBE>
static __device__ __forceinline__ void
decode_begin_reading(const struct decode_arguments &p, const struct decode_maps &maps, bool plain,
                     const struct decode_places &places, const struct decode_ring &ring,
                     struct decode_ahead &ahead, struct decode_cursor *next,
                     struct decode_operands<KIND> &q)
{
    if (plain) {
        decode_fill_plain<KIND>(p, maps, 0, 1, ring, ahead);
        decode_queries<E, KIND, PROBE>(p, places, q);
        decode_fill_plain<KIND>(p, maps, 1, KIND::STAGES, ring, ahead);
        return;
    }
    decode_fill<KIND>(p, maps, 0, 1, ring, ahead, next);
    if (!KIND::LIST) decode_queries<E, KIND, PROBE>(p, places, q);
    decode_fill<KIND>(p, maps, 1, KIND::STAGES, ring, ahead, next);
}

#endif
