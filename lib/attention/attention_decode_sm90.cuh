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

#include "attention/attention_decode_sm90_finish.cuh"

/* ---- A part of a sequence a block ------------------------------------------------------------ */

/* A warp's work on it. */
template <class KIND> struct decode_work {
    struct decode_start<KIND> start;
    struct decode_ahead<KIND> ahead;
    struct decode_first<KIND> first;
    struct decode_results<KIND> sums;
};

/* All of it that does not look at keys nor queries. */
template <class KIND>
static __device__ __forceinline__ void
decode_work_begin(const struct decode_arguments &p, const struct decode_early &early,
                  struct decode_ring &ring, struct decode_work<KIND> &work)
{
    work.start = decode_start_of<KIND>(p, early);
    decode_zero_sums<KIND>(work.sums);
    decode_ahead_begin<KIND>(p, work.ahead, work.start);
    work.first = decode_tell<KIND>(p, ring, work.ahead);
}

/* Asks for all that it takes, and reads the facts again. Queries come behind the tile of the first
 * stage, which is needed as soon as they, and before the others, which would keep them waiting; the
 * vote keeps the assembler from asking for them sooner. Where a tile is several copies it is faster
 * if they come first. */
template <class E, class KIND, bool PROBE>
static __device__ __forceinline__ void
decode_work_ask(const struct decode_arguments &p, const struct decode_maps &maps,
                const struct decode_ring &ring, struct decode_guess &guess,
                const struct decode_work<KIND> &work, struct decode_operands<KIND> &q)
{
    const struct decode_start<KIND> &start = work.start;
    decode_copy_first<KIND>(p, maps, 0, 1, work.first, ring);
    if (guess.open && start.own_at != NULL) guess.now.own = load_relaxed(start.own_at);
    if (KIND::BOXED == 1 && !__any_sync(0xffffffffu, ring.asked != 0)) return;
    decode_queries<KIND, PROBE>(p, start.places, q);
    decode_copy_first<KIND>(p, maps, 1, KIND::STAGES, work.first, ring);
    decode_queries_ready<E, KIND, PROBE>(q);
}

/* And sums it up. */
template <class E, class KIND, bool PROBE>
static __device__ __forceinline__ void
decode_work_sum(const struct decode_arguments &p, const struct decode_maps &maps,
                const struct decode_operands<KIND> &q, struct decode_ring &ring,
                struct decode_work<KIND> &work)
{
    if (!work.start.idle)
        decode_walk<E, KIND, PROBE>(p, maps, work.start.segment, work.start.sight, q, ring,
                                    work.ahead, NULL, work.sums);
}

/* All of it once more, from facts that do not change any more. It is not a loop around the work:
 * then nothing of that would be constant, and less of it in uniform registers. */
template <class E, class KIND, bool PROBE>
static __device__ __forceinline__ void
decode_work_again(const struct decode_arguments &p, const struct decode_maps &maps,
                  struct decode_ring &ring, struct decode_work<KIND> &work)
{
    struct decode_operands<KIND> q;
    struct decode_guess settled = {false};
    ring.asked = ring.stage = 0; /* all that was asked for has come */
    decode_work_begin<KIND>(p, decode_read_early<KIND>(p), ring, work);
    decode_work_ask<E, KIND, PROBE>(p, maps, ring, settled, work, q);
    decode_work_sum<E, KIND, PROBE>(p, maps, q, ring, work);
}

/* The whole part. What was asked for by a guess and found wrong behind the last tile is summed
 * again before anything is left for others. */
template <class E, class KIND, bool PROBE>
static __device__ __forceinline__ void
decode_even(const struct decode_arguments &p, const struct decode_maps &maps,
            struct decode_shared<KIND> *shared, const struct decode_early &early,
            struct decode_ring &ring)
{
    int batch = (int)blockIdx.z;
    unsigned long long seen = 0;
    struct decode_work<KIND> work;
    struct decode_operands<KIND> q;
    decode_work_begin<KIND>(p, early, ring, work);
    struct decode_guess guess = {KIND::GUESSES, work.start.facts, work.start.facts};
    dependency_wait();
    dependency_release();
    decode_work_ask<E, KIND, PROBE>(p, maps, ring, guess, work, q);
    bool meets = KIND::SHARES && p.parts >> p.cluster > 1; /* with others, in the workspace */
    if (meets && threadIdx.x == 0) seen = counter_look(decode_counter(p, batch));
    decode_work_sum<E, KIND, PROBE>(p, maps, q, ring, work);
    if (!decode_holds<KIND>(guess)) decode_work_again<E, KIND, PROBE>(p, maps, ring, work);
    if (work.start.idle) return;
    decode_finish<E, KIND, PROBE>(p, batch, work.start.parts, seen, shared, work.sums);
}

/* ---- A range of the list a block ------------------------------------------------------------- */

/* All segments of a range; false if it is another range, before anything has been summed, because
 * it may be a long way to where that leads. */
template <class E, class KIND, bool PROBE>
static __device__ __forceinline__ bool
decode_list_run(const struct decode_arguments &p, const struct decode_maps &maps,
                const struct decode_start<KIND> &start, struct decode_operands<KIND> &q,
                struct decode_shared<KIND> *shared, struct decode_ring &ring,
                struct decode_ahead<KIND> &ahead, const struct decode_guess &guess,
                struct decode_results<KIND> &sums)
{
    struct decode_cursor at = start.at;
    struct decode_segment segment = start.segment;
    struct decode_sight<KIND> sight = start.sight;
    struct decode_parts parts = start.parts;
    if (!decode_holds<KIND>(guess)) return false;
    for (;;) {
        unsigned long long seen = 0;
        if (threadIdx.x == 0 && parts.count > 1) seen = counter_look(decode_counter(p, at.batch));
        decode_walk<E, KIND, PROBE>(p, maps, segment, sight, q, ring, ahead,
                                    &shared->next[threadIdx.x / 32], sums);
        decode_finish<E, KIND, PROBE>(p, at.batch, parts, seen, shared, sums);
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

/* The whole range, begun anew if it is not where it was guessed to be. */
template <class E, class KIND, bool PROBE>
static __device__ __forceinline__ void
decode_list(const struct decode_arguments &p, const struct decode_maps &maps,
            struct decode_shared<KIND> *shared, const struct decode_early &early,
            struct decode_ring &ring)
{
    struct decode_cursor *next = &shared->next[threadIdx.x / 32];
    /* Chunks are copied from wherever a page is said to be, so that must be true. */
    if (KIND::FEED == DECODE_CHUNKS) dependency_wait();
    for (;;) {
        struct decode_start<KIND> start = decode_start_of<KIND>(p, early);
        struct decode_guess guess = {KIND::GUESSES, start.facts, start.facts};
        struct decode_operands<KIND> q;
        struct decode_ahead<KIND> ahead;
        struct decode_results<KIND> sums;
        decode_zero_sums<KIND>(sums);
        decode_ahead_begin<KIND>(p, ahead, start);
        struct decode_cursor at = start.at;
        decode_next(start.segment, at);
        *next = at;
        __syncwarp();
        dependency_wait();
        dependency_release();
        decode_fill<KIND>(p, maps, 0, 1, ring, ahead, next);
        if (guess.open && start.own_at != NULL) guess.now.own = load_relaxed(start.own_at);
        decode_queries<KIND, PROBE>(p, start.places, q);
        decode_fill<KIND>(p, maps, 1, KIND::STAGES, ring, ahead, next);
        if (guess.open) guess.now.list = decode_begin_list<KIND>(p);
        decode_queries_ready<E, KIND, PROBE>(q);
        bool holds = start.idle ? decode_holds<KIND>(guess)
                                : decode_list_run<E, KIND, PROBE>(p, maps, start, q, shared, ring,
                                                                  ahead, guess, sums);
        if (holds) return;
        decode_drain<KIND>(ring);
    }
}

/* ---- The kernel ------------------------------------------------------------------------------ */

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
    if (KIND::FEED == DECODE_BOXES && threadIdx.x == 0) {
        tma_prefetch_map(&maps.k);
        tma_prefetch_map(&maps.v);
    }
    if (KIND::JOINS) decode_cluster_begin<KIND>(p, &shared->brought);
    if (KIND::JOINS && p.cluster > 0) cluster_wait();
    if constexpr (KIND::LIST)
        decode_list<E, KIND, PROBE>(p, maps, shared, early, ring);
    else
        decode_even<E, KIND, PROBE>(p, maps, shared, early, ring);
}

#endif
