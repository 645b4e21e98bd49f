/* attention_decode_sm90_begin.cuh: what a block asks for first: its queries, and the tiles that its
 * rings take. The time from the end of the launch before it to its first copies is lost on every
 * short sequence, so all that does not look at device memory is computed ahead of that. */
#ifndef PLX_ATTENTION_DECODE_SM90_BEGIN_CUH
#define PLX_ATTENTION_DECODE_SM90_BEGIN_CUH

#include "attention/attention_decode_sm90_f8.cuh"
#include "attention/attention_decode_sm90_ring.cuh"

/* ---- Queries --------------------------------------------------------------------------------- */

/* A row of q (which = 0) or r (1), from this lane's first channel on, into left operands. */
template <int D, bool ALIGNED>
static __device__ __forceinline__ void decode_query(const uint16_t *from, int which,
                                                    uint32_t (&operands)[D / 16][4])
{
#pragma unroll
    for (int i = 0; i < D / 8; i++)
        operands[i / 2][i % 2 * 2 + which] =
            ALIGNED ? *(const uint32_t *)(from + 8 * i) : decode_pair(from + 8 * i);
}

/* [q; r] of each set as left operands of D / 16 products; of f8e4m3 keys also what scores and u
 * are to be multiplied with. */
template <class KIND> struct decode_operands {
    uint32_t of[KIND::SETS][KIND::D / 16][4];
    float factors[KIND::SETS][2];
};

/* This lane's first channels of its row of q and of r, of each layer of the block's first head; and
 * whether they, and those of the other heads, can be loaded two numbers at a time. */
template <class KIND> struct decode_places {
    const uint16_t *q[KIND::DEEP], *r[KIND::DEEP];
    int aligned;
};

/* The same of another head. */
static __device__ __forceinline__ const uint16_t *
decode_place_of_head(const struct decode_arguments &p, const struct decode_view &view,
                     const uint16_t *place, int head)
{
    return place + head * p.group * view.head;
}

template <class KIND>
static __device__ __forceinline__ const uint16_t *
decode_place(const struct decode_view &view, int batch, const struct decode_row &row)
{
    int column = (KIND::F8 ? 4 : 2) * (threadIdx.x % 4);
    int64_t place = batch * view.batch + row.time * view.time + row.head * view.head;
    return (const uint16_t *)view.data + place + column;
}

template <class KIND>
static __device__ __forceinline__ decode_places<KIND>
decode_places_of(const struct decode_arguments &p, int batch)
{
    struct decode_places<KIND> places;
    uintptr_t all = 0;
#pragma unroll
    for (int set = 0; set < KIND::SETS; set++) {
        int head = set / KIND::DEEP, layer = set % KIND::DEEP;
        struct decode_row row = decode_row_of<KIND>(p, 0, decode_computed_row<KIND>(p, layer));
        const uint16_t *q = decode_place<KIND>(p.q, batch, row);
        const uint16_t *r = decode_place<KIND>(p.r, batch, row);
        if (head == 0) places.q[layer] = q, places.r[layer] = r;
        all |= (uintptr_t)decode_place_of_head(p, p.q, q, head);
        all |= (uintptr_t)decode_place_of_head(p, p.r, r, head);
    }
    places.aligned = all % (KIND::F8 ? 8 : 4) == 0;
    return places;
}

template <class KIND, bool PROBE, bool ALIGNED>
static __device__ __forceinline__ void decode_load_queries(const struct decode_arguments &p,
                                                           const struct decode_places<KIND> &places,
                                                           struct decode_operands<KIND> &q)
{
    constexpr int D = KIND::D;
#pragma unroll
    for (int set = 0; set < KIND::SETS; set++) {
        int head = set / KIND::DEEP, layer = set % KIND::DEEP;
#pragma unroll
        for (int which = 0; which < (PROBE ? 2 : 1); which++) {
            const uint16_t *from = decode_place_of_head(
                p, which ? p.r : p.q, which ? places.r[layer] : places.q[layer], head);
            if constexpr (KIND::F8)
                decode_query_f8<D, ALIGNED>(from, which, q.of[set]);
            else
                decode_query<D, ALIGNED>(from, which, q.of[set]);
        }
    }
}

/* The block's rows of q and r, and the scales of f8e4m3 keys. */
template <class KIND, bool PROBE>
static __device__ __forceinline__ void decode_queries(const struct decode_arguments &p,
                                                      const struct decode_places<KIND> &places,
                                                      struct decode_operands<KIND> &q)
{
#pragma unroll
    for (int set = 0; set < KIND::SETS; set++) {
        q.factors[set][0] = q.factors[set][1] = 1.0f;
        if (KIND::F8 && p.k_scales != NULL)
            q.factors[set][0] = q.factors[set][1] =
                p.k_scales[decode_kv_head<KIND::HEADS>(p) + set / KIND::DEEP];
#pragma unroll
        for (int i = 0; i < KIND::D / 16; i++)
            if (!PROBE) q.of[set][i][1] = q.of[set][i][3] = 0;
    }
    if (!KIND::ODD || places.aligned)
        decode_load_queries<KIND, PROBE, true>(p, places, q);
    else
        decode_load_queries<KIND, PROBE, false>(p, places, q);
}

/* Makes them what products expect, which is much for f8e4m3 keys: behind all that is asked for. */
template <class E, class KIND, bool PROBE>
static __device__ __forceinline__ void decode_queries_ready(struct decode_operands<KIND> &q)
{
    if constexpr (KIND::F8)
#pragma unroll
        for (int set = 0; set < KIND::SETS; set++) {
            q.factors[set][0] *= decode_query_f8_ready<E, KIND::D>(0, q.of[set]);
            if (PROBE) q.factors[set][1] *= decode_query_f8_ready<E, KIND::D>(1, q.of[set]);
        }
}

/* ---- What the memory says ----------------------------------------------------------------------
 */

/* What a warp's work follows from: what each lane has read, that is a page of the first tiles or,
 * by the last two, a length of the sequence; and in a list where its range begins, for which all
 * lengths were read. */
struct decode_facts {
    int own;
    struct decode_range_start list;
};

/* What follows: where the block is in its work, and the first segment of that, with what its rows
 * see and where its results go; where its queries are, and this lane's page is looked up; and
 * whether there is nothing to do, since neither the block has keys nor its cluster. */
template <class KIND> struct decode_start {
    struct decode_facts facts;
    struct decode_cursor at;
    struct decode_segment segment;
    struct decode_sight<KIND> sight;
    struct decode_parts parts;
    struct decode_places<KIND> places;
    const int32_t *own_at; /* where a lane has read; or NULL */
    int idle;
};

static __device__ __forceinline__ void computed_here(struct decode_segment &x)
{
    computed_here(x.begin), computed_here(x.end), computed_here(x.key);
}

template <class KIND>
static __device__ __forceinline__ void computed_here(struct decode_sight<KIND> &x)
{
#pragma unroll
    for (int layer = 0; layer < KIND::DEEP; layer++) {
        computed_here(x.own[layer].first), computed_here(x.own[layer].end);
    }
    computed_here(x.common.first), computed_here(x.common.end);
}

static __device__ __forceinline__ void computed_here(struct decode_parts &x)
{
    computed_here(x.first), computed_here(x.count), computed_here(x.own);
}

/* True where a block begins at the first key whatever the length: its pages need not wait for that.
 */
template <class KIND>
static __device__ __forceinline__ bool decode_begins_first(const struct decode_arguments &p)
{
    return !KIND::LIST && p.parts == 1 && p.window == 0;
}

/* What a block that is no list reads before anything else: its lengths and, where they do not
 * depend on those, its pages. */
struct decode_early {
    struct decode_lengths_place place;
    struct decode_lengths read;
    const int32_t *page_at;
    int page;
};

template <class KIND>
static __device__ __forceinline__ struct decode_early
decode_read_early(const struct decode_arguments &p)
{
    int batch = (int)blockIdx.z;
    struct decode_early early = {decode_lengths_place_of(p, batch)};
    if (KIND::LIST) return early;
    if (decode_pages<KIND>(p) && decode_begins_first<KIND>(p)) {
        early.page_at = decode_page_place<KIND>(p, batch, uniform_warp() * KIND::KEYS, p.S);
        early.page = decode_look_up(early.page_at);
    }
    early.read = decode_lengths_read<KIND>(p, early.place);
    return early;
}

template <class KIND>
static __device__ __forceinline__ decode_start<KIND>
decode_start_of(const struct decode_arguments &p, const struct decode_early &early)
{
    decode_start<KIND> start = {};
    struct decode_facts &facts = start.facts;
    if (KIND::LIST)
        facts.list = decode_begin_list<KIND>(p);
    else
        facts.list.read = early.read;
    struct decode_lengths lengths = decode_lengths_fit(p, facts.list.read);
    int parts = 0;
    start.at = KIND::LIST ? facts.list.at : decode_begin_even<KIND>(p, lengths, &parts);
    start.segment = decode_segment_of<KIND>(p, start.at, lengths);
    start.sight = decode_sight_of<KIND>(p, lengths);
    start.parts = KIND::LIST ? decode_list_parts(start.at, facts.list.cut, start.segment)
                             : decode_even_parts(p, start.at.batch, parts);
    start.idle =
        start.at.left == 0 && (KIND::LIST || (int)blockIdx.y >> p.cluster << p.cluster >= parts);
    start.places = decode_places_of<KIND>(p, start.at.batch);
    start.own_at = early.page_at, facts.own = early.page;
    if (decode_pages<KIND>(p) && !decode_begins_first<KIND>(p)) {
        start.own_at =
            decode_page_place<KIND>(p, start.at.batch, start.segment.key, start.segment.end);
        facts.own = decode_look_up(start.own_at);
    }
    if (!KIND::LIST) {
        int lane = threadIdx.x % 32;
        if (lane == DECODE_LOOKED) start.own_at = early.place.T, facts.own = early.read.T;
        if (lane == DECODE_LOOKED + 1) start.own_at = early.place.S, facts.own = early.read.S;
    }
    if (KIND::GUESSES) arrived_here(facts.own);
    computed_here(start.segment), computed_here(start.sight), computed_here(start.parts);
#pragma unroll
    for (int layer = 0; layer < KIND::DEEP; layer++) {
        arrived_here(start.places.q[layer]), arrived_here(start.places.r[layer]);
    }
    computed_here(start.places.aligned);
    if (KIND::GUESSES) arrived_here(start.own_at);
    computed_here(start.at.left), computed_here(start.idle);
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
    bool same = guess.now.own == guess.then.own;
    if (KIND::LIST) {
        same = same && now.read.T == then.read.T && now.read.S == then.read.S;
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
                                                          struct decode_ahead<KIND> &ahead,
                                                          const struct decode_start<KIND> &start)
{
    ahead.head = __shfl_sync(0xffffffffu, decode_kv_head<KIND::HEADS>(p), 0); /* uniform */
    ahead.beyond = (int)threadIdx.x % 32 - elected_lane();
    computed_here(ahead.beyond);
    decode_ahead_enter<KIND>(p, ahead, start.at.batch, start.segment);
    if (decode_pages<KIND>(p)) ahead.block = start.facts.own;
    decode_ahead_blocks<KIND, false>(ahead);
}

/* The first tiles of a block that is no list are found, and their barriers told of them, while the
 * launch before us drains, so that nothing but the copies is left to do behind it. */
template <class KIND> struct decode_first {
    struct decode_ahead<KIND> of[KIND::STAGES];
};

template <class KIND>
static __device__ __forceinline__ struct decode_first<KIND>
decode_tell(const struct decode_arguments &p, struct decode_ring &ring,
            struct decode_ahead<KIND> &ahead) {
    struct decode_first<KIND> first;
#pragma unroll
    for (int stage = 0; stage < KIND::STAGES; stage++) {
        first.of[stage] = ahead;
        if (decode_has_tile<KIND>(ahead)) {
            ring.asked |= 1 << stage;
            if (threadIdx.x % 32 == 0) mbarrier_expect(ring.full + stage * 8, DECODE_TILE_BYTES);
        }
        decode_ahead_step<KIND, false>(p, ahead, NULL);
    }
    return first;
}

/* Copies the first tiles of stages from .. to - 1. */
template <class KIND>
static __device__ __forceinline__ void
decode_copy_first(const struct decode_arguments &p, const struct decode_maps &maps, int from,
                  int to, const struct decode_first<KIND> &first, const struct decode_ring &ring)
{
    if (!elect_one()) return;
#pragma unroll
    for (int stage = from; stage < to; stage++)
        if (ring.asked >> stage & 1)
            decode_copy_tile<KIND>(p, maps, first.of[stage], ring.tiles + stage * DECODE_TILE_BYTES,
                                   ring.full + stage * 8);
}

/* Asks for the first tiles of a list, which may be of several segments, for stages from .. to - 1.
 * Only behind the last key is there nothing more to ask for: before the first there may be tiles
 * without keys. */
template <class KIND>
static __device__ __forceinline__ void
decode_fill(const struct decode_arguments &p, const struct decode_maps &maps, int from, int to,
            struct decode_ring &ring, struct decode_ahead<KIND> &ahead, struct decode_cursor *next)
{
#pragma unroll 1
    for (int stage = from; stage < to && decode_has_more<KIND>(ahead); stage++) {
        if (decode_ask<KIND>(p, maps, ahead, ring.tiles + stage * DECODE_TILE_BYTES,
                             ring.full + stage * 8))
            ring.asked |= 1 << stage;
        decode_ahead_step<KIND, false>(p, ahead, next);
    }
}

/* Waits for all that was asked for, and forgets it. */
template <class KIND> static __device__ __forceinline__ void decode_drain(struct decode_ring &ring)
{
#pragma unroll 1
    for (int stage = 0; stage < KIND::STAGES; stage++)
        if (ring.asked >> stage & 1) mbarrier_wait(ring.full + stage * 8, ring.phase >> stage & 1);
    ring.phase ^= ring.asked;
    ring.asked = ring.stage = 0;
    __syncwarp();
}

#endif
