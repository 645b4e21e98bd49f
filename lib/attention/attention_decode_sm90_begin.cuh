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

/* ---- What the memory says ----------------------------------------------------------------------
 */

/* What a warp's work follows from: the lengths of its first sequence as they were read, in a list
 * also where its range begins, for which all lengths were read; and the first pages. */
struct decode_facts {
    struct decode_range_start list;
    int page;
};

/* What follows: where the block is in its work, and the first segment of that; where its queries
 * are, and this lane's page is looked up; and among how many parts a sequence is shared that is cut
 * evenly. */
struct decode_start {
    struct decode_facts facts;
    struct decode_cursor at;
    struct decode_segment segment;
    struct decode_places places;
    const int32_t *page_at;
    int parts;
};

template <class KIND>
static __device__ __forceinline__ struct decode_start
decode_start_of(const struct decode_arguments &p)
{
    struct decode_start start = {};
    struct decode_facts &facts = start.facts;
    if (KIND::LIST)
        facts.list = decode_begin_list<KIND>(p);
    else
        facts.list.read = decode_lengths_read<KIND>(p, (int)blockIdx.z);
    struct decode_lengths lengths = decode_lengths_fit(p, facts.list.read);
    start.at = KIND::LIST ? facts.list.at : decode_begin_even<KIND>(p, lengths, &start.parts);
    start.segment = decode_segment_of<KIND>(p, start.at, lengths);
    start.places = decode_places_of<KIND>(p, start.at.batch);
    if (decode_pages<KIND>(p)) {
        start.page_at =
            decode_page_place<KIND>(p, start.at.batch, start.segment.key, start.segment.end);
        facts.page = arrived_here(decode_look_up(start.page_at));
    }
    computed_here(start.places.q), computed_here(start.places.r), computed_here(start.page_at);
    computed_here(start.segment.begin), computed_here(start.segment.end);
    computed_here(start.segment.key), computed_here(start.at.left);
    return start;
}

/* Facts that a start followed from, and what they are now; open: they may have changed. */
struct decode_guess {
    bool open;
    struct decode_facts then, now;
};

/* True, in all lanes of the warp, if they have not changed. */
template <class KIND>
static __device__ __forceinline__ bool decode_holds(const struct decode_guess &guess)
{
    if (!guess.open) return true;
    const struct decode_range_start &then = guess.then.list, &now = guess.now.list;
    int page = arrived_here(guess.now.page), T = arrived_here(now.read.T);
    int S = arrived_here(now.read.S);
    bool same = page == guess.then.page & T == then.read.T & S == then.read.S;
    if (KIND::LIST) {
        same = same && now.at.batch == then.at.batch && now.at.unit == then.at.unit;
        same = same && now.at.left == then.at.left && now.at.origin == then.at.origin;
        same = same && now.cut.each == then.cut.each && now.cut.longer == then.cut.longer;
    }
    return __all_sync(0xffffffffu, same);
}

/* ---- The first tiles --------------------------------------------------------------------------
 */

template <class KIND>
static __device__ __forceinline__ void decode_ahead_begin(const struct decode_arguments &p,
                                                          struct decode_ahead &ahead,
                                                          const struct decode_start &start)
{
    ahead.head = decode_kv_head<KIND::HEADS>(p);
    decode_ahead_enter<KIND>(p, ahead, start.at.batch, start.segment);
    if (decode_pages<KIND>(p)) ahead.block = start.facts.page;
}

/* Asks for the tiles of stages from .. to - 1. Only behind the last key is there nothing more to
 * ask for: before the first there may be tiles without keys. */
template <class KIND>
static __device__ __forceinline__ void
decode_fill(const struct decode_arguments &p, const struct decode_maps &maps, int from, int to,
            bool told, struct decode_ring &ring, struct decode_ahead &ahead,
            struct decode_cursor *next)
{
#pragma unroll 1
    for (int stage = from; stage < to && decode_has_more<KIND>(ahead); stage++) {
        if (decode_ask<KIND>(p, maps, ahead, told, ring.tiles + stage * DECODE_TILE_BYTES,
                             ring.full + stage * 8))
            ring.asked |= 1 << stage;
        decode_ahead_step<KIND, false>(p, ahead, next);
    }
}

/* Barriers are told of the first tiles while the launch before us drains, so that nothing but the
 * copies is left to do behind it. In a list, where they may be of several segments, they are not.
 */
template <class KIND>
static __device__ __forceinline__ void decode_tell(const struct decode_arguments &p,
                                                   const struct decode_ring &ring,
                                                   const struct decode_ahead &ahead)
{
#pragma unroll
    for (int stage = 0; stage < KIND::STAGES; stage++) {
        int key = ahead.key + stage * KIND::UNIT;
        if (decode_has_keys(key, KIND::KEYS, ahead.begin, ahead.end) && threadIdx.x % 32 == 0)
            decode_expect<KIND>(p, ahead, key, ring.full + stage * 8);
    }
}

/* Queries come behind the tiles of the first stage, which are needed as soon as they, and before
 * the others, which would keep them waiting. The facts are read again ahead of all, or, where that
 * takes long, behind. */
template <class E, class KIND, bool PROBE>
static __device__ __forceinline__ void
decode_begin_reading(const struct decode_arguments &p, const struct decode_maps &maps, bool told,
                     const struct decode_start &start, struct decode_ring &ring,
                     struct decode_ahead &ahead, struct decode_cursor *next,
                     struct decode_operands<KIND> &q, struct decode_guess &guess)
{
    guess.then = guess.now = start.facts;
    if (guess.open && !KIND::LIST)
        guess.now.list.read = decode_lengths_read<KIND>(p, start.at.batch);
    if (guess.open) guess.now.page = decode_look_up(start.page_at);
    decode_fill<KIND>(p, maps, 0, 1, told, ring, ahead, next);
    decode_queries<E, KIND, PROBE>(p, start.places, q);
    decode_fill<KIND>(p, maps, 1, KIND::STAGES, told, ring, ahead, next);
    if (guess.open && KIND::LIST) guess.now.list = decode_begin_list<KIND>(p);
}

/* Waits for all that was asked for, and forgets it. */
template <class KIND> static __device__ __forceinline__ void decode_drain(struct decode_ring &ring)
{
#pragma unroll 1
    for (int stage = 0; stage < KIND::STAGES; stage++)
        if (ring.asked >> stage & 1) mbarrier_wait(ring.full + stage * 8, ring.phase >> stage & 1);
    ring.phase ^= ring.asked;
    ring.asked = 0;
    __syncwarp();
}

#endif
