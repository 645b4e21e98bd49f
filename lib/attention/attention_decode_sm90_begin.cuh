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
    for (int i = 0; i < D / 8; i++) operands[i / 2][i % 2 * 2 + which] = decode_pair(from + 8 * i);
}

/* [q; r] of each set as left operands of D / 16 products; of f8e4m3 keys also what scores and u
 * are to be multiplied with. */
template <class KIND> struct decode_operands {
    uint32_t of[KIND::SETS][KIND::D / 16][4];
    float factors[KIND::SETS][2];
};

/* Where this lane's row of q and of r begins, of each layer of the block's first head, if there is
 * one. */
template <class KIND> struct decode_places {
    int64_t q[KIND::DEEP], r[KIND::DEEP];
    int exist[KIND::DEEP];
};

static __device__ __forceinline__ int64_t decode_place(const struct decode_view &view, int batch,
                                                       const struct decode_row &row)
{
    return batch * view.batch + row.time * view.time + row.head * view.head;
}

template <class KIND>
static __device__ __forceinline__ decode_places<KIND>
decode_places_of(const struct decode_arguments &p, int batch)
{
    struct decode_places<KIND> places;
#pragma unroll
    for (int layer = 0; layer < KIND::DEEP; layer++) {
        int local = decode_own_row(layer);
        struct decode_row row = decode_row_of<KIND>(p, 0, local);
        places.q[layer] = decode_place(p.q, batch, row);
        places.r[layer] = decode_place(p.r, batch, row);
        places.exist[layer] = local < decode_rows_of<KIND>(p);
    }
    return places;
}

template <class KIND>
static __device__ __forceinline__ void
decode_query_of(const struct decode_arguments &p, const struct decode_view &view, int64_t place,
                int set, int which, struct decode_operands<KIND> &q)
{
    int head = set / KIND::DEEP;
    const uint16_t *from = (const uint16_t *)view.data + place + head * p.group * view.head;
    if constexpr (KIND::F8)
        decode_query_f8<KIND::D>(from, which, q.of[set]);
    else
        decode_query<KIND::D>(from, which, q.of[set]);
}

/* The block's rows of q and r, zeros where there is none, and the scales of f8e4m3 keys. */
template <class KIND, bool PROBE>
static __device__ __forceinline__ void decode_queries(const struct decode_arguments &p,
                                                      const struct decode_places<KIND> &places,
                                                      struct decode_operands<KIND> &q)
{
#pragma unroll
    for (int set = 0; set < KIND::SETS; set++) {
        q.factors[set][0] = q.factors[set][1] = 1.0f;
#pragma unroll
        for (int i = 0; i < KIND::D / 16; i++)
            q.of[set][i][0] = q.of[set][i][1] = q.of[set][i][2] = q.of[set][i][3] = 0;
    }
#pragma unroll
    for (int set = 0; set < KIND::SETS; set++) {
        int layer = set % KIND::DEEP;
        if (!places.exist[layer]) return;
        decode_query_of<KIND>(p, p.q, places.q[layer], set, 0, q);
        if (PROBE) decode_query_of<KIND>(p, p.r, places.r[layer], set, 1, q);
        if (KIND::F8 && p.k_scales != NULL)
            q.factors[set][0] = q.factors[set][1] =
                p.k_scales[decode_kv_head<KIND::HEADS>(p) + set / KIND::DEEP];
    }
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
        computed_here(x.counted[layer].first), computed_here(x.counted[layer].end);
    }
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
        computed_here(start.places.exist[layer]);
    }
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
    ahead.head = decode_kv_head<KIND::HEADS>(p);
    decode_ahead_enter<KIND>(p, ahead, start.at.batch, start.segment);
    if (decode_pages<KIND>(p)) ahead.block = start.facts.own;
    decode_ahead_blocks<KIND>(ahead);
}

/* The first tiles of a block that is no list are found, and their barriers told of them, while the
 * launch before us drains, so that nothing but the copies is left to do behind it. */
template <class KIND> struct decode_first {
    struct decode_ahead<KIND> of[KIND::STAGES];
};

template <class KIND>
static __device__ __forceinline__ struct decode_first<KIND>
decode_tell(const struct decode_arguments &p, struct decode_ring &ring,
            struct decode_ahead<KIND> &ahead, struct decode_cursor *next) {
    struct decode_first<KIND> first;
#pragma unroll
    for (int stage = 0; stage < KIND::STAGES; stage++) {
        first.of[stage] = ahead;
        if (decode_has_tile<KIND>(ahead)) {
            ring.asked |= 1 << stage;
            if (threadIdx.x % 32 == 0) mbarrier_expect(ring.full + stage * 8, DECODE_TILE_BYTES);
        }
        decode_ahead_step<KIND, false>(p, ahead, next);
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

/* Queries come behind the tiles of the first stage, which are needed as soon as they, and before
 * the others, which would keep them waiting. The facts are read again ahead of them, or, where that
 * takes long, behind all. */
template <class E, class KIND, bool PROBE>
static __device__ __forceinline__ void
decode_begin_reading(const struct decode_arguments &p, const struct decode_maps &maps,
                     const struct decode_start<KIND> &start, const struct decode_first<KIND> &first,
                     struct decode_ring &ring, struct decode_ahead<KIND> &ahead,
                     struct decode_cursor *next, struct decode_operands<KIND> &q,
                     struct decode_guess &guess)
{
    guess.then = guess.now = start.facts;
    if (KIND::LIST)
        decode_fill<KIND>(p, maps, 0, 1, ring, ahead, next);
    else
        decode_copy_first<KIND>(p, maps, 0, 1, first, ring);
    if (guess.open && start.own_at != NULL) guess.now.own = load_relaxed(start.own_at);
    decode_queries<KIND, PROBE>(p, start.places, q);
    if (KIND::LIST)
        decode_fill<KIND>(p, maps, 1, KIND::STAGES, ring, ahead, next);
    else
        decode_copy_first<KIND>(p, maps, 1, KIND::STAGES, first, ring);
    if (guess.open && KIND::LIST) guess.now.list = decode_begin_list<KIND>(p);
    decode_queries_ready<E, KIND, PROBE>(q);
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
