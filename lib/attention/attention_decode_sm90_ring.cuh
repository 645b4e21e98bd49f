/* attention_decode_sm90_ring.cuh: how keys and values come into the rings of the warps. */
#ifndef PLX_ATTENTION_DECODE_SM90_RING_CUH
#define PLX_ATTENTION_DECODE_SM90_RING_CUH

#include "attention/attention_decode_sm90_tile.cuh"
#include "cuda/ptx_sm90.cuh"

struct decode_maps {
    CUtensorMap k, v; /* axes: 128 bytes, keys, boxes of a head, heads, batch or pages */
};

/* Which copies fill the ring: boxes of the copy engine, which need 16-byte strides and tiles that
 * lie in one page; or chunks of 16 bytes, each from its own place. */
enum decode_feed { DECODE_BOXES, DECODE_CHUNKS };

/* What a block's work is, see attention_decode_plan.h: a part of one sequence, by four warps or by
 * eight, or a range of the list. */
enum decode_way { DECODE_EVEN, DECODE_WIDE, DECODE_LIST };

template <int D_, int HEADS_, int SIZE_, enum decode_feed FEED_, enum decode_way WAY_>
struct decode_kind
    : decode_shape<D_, HEADS_, SIZE_, WAY_ == DECODE_WIDE ? DECODE_WIDE_WARPS : DECODE_WARPS> {
    static constexpr enum decode_feed FEED = FEED_;
    static constexpr bool LIST = WAY_ == DECODE_LIST;
    static constexpr int THREADS = decode_kind::WARPS * 32;
    /* Tiles of a warp in shared memory, and blocks of a multiprocessor. */
    static constexpr int STAGES = WAY_ == DECODE_WIDE ? 2 : 3, BLOCKS = WAY_ == DECODE_WIDE ? 1 : 2;
    /* Rows that warps leave for each other at a time. A block without a list leaves them in its
     * ring, which it needs no more. */
    static constexpr int ROWS = LIST ? 2 : DECODE_ROWS;
};

/* The tiles to ask for next: `turns` of a segment, the first at `key`, which lies in `block`: its
 * batch entry, or its page, which is looked up one turn before it is needed. */
struct decode_ahead {
    int batch, head, begin, end, key, turns, block;
    int pages, place; /* lane n: the page of one of 32 tiles that follow each other; the next */
};

static __device__ __forceinline__ bool decode_has_keys(int key, int keys, int begin, int end)
{
    return key < end && key + keys > begin;
}

/* The page of a key, or its batch entry where there are no pages. */
static __device__ __forceinline__ int decode_block_of(const struct decode_arguments &p, int batch,
                                                      int key)
{
    if (p.pages == NULL) return batch;
    return p.pages[batch * p.table + decode_divide(p.page, key)];
}

/* Lane n looks up the page of the n-th tile from `key` on, long before most of them are needed. */
template <class KIND>
static __device__ __forceinline__ void decode_ahead_pages(const struct decode_arguments &p,
                                                          struct decode_ahead &ahead, int batch,
                                                          int key, int end)
{
    int further = threadIdx.x % 32 * KIND::UNIT;
    ahead.pages = further < end - key ? decode_block_of(p, batch, key + further) : 0;
    ahead.place = 0;
}

/* The block of the next tile. */
template <class KIND>
static __device__ __forceinline__ void decode_ahead_look(const struct decode_arguments &p,
                                                         struct decode_ahead &ahead)
{
    ahead.block = ahead.batch;
    if (p.pages == NULL) return;
    if (ahead.place == 32) decode_ahead_pages<KIND>(p, ahead, ahead.batch, ahead.key, ahead.end);
    ahead.block = __shfl_sync(0xffffffffu, ahead.pages, ahead.place++);
}

/* The pages of this warp's first tiles, asked for before the lengths are read, unless a window
 * moves with the length. */
template <class KIND>
static __device__ __forceinline__ void decode_first_pages(const struct decode_arguments &p,
                                                          struct decode_ahead &ahead,
                                                          const struct decode_cursor &at)
{
    if (p.pages == NULL) return;
    int first = 0;
    if (p.window > 0) {
        struct decode_lengths lengths = decode_lengths_of(p, at.batch);
        first = decode_keys_of(lengths.T, lengths.S, p.window, KIND::UNIT).first / KIND::UNIT;
    }
    int key = (first + at.unit) * KIND::UNIT + uniform_warp() * KIND::KEYS;
    decode_ahead_pages<KIND>(p, ahead, at.batch, key, p.S);
    asm volatile("" ::: "memory");
}

static __device__ __forceinline__ void decode_ahead_enter(struct decode_ahead &ahead, int batch,
                                                          const struct decode_segment &segment)
{
    ahead.batch = batch;
    ahead.begin = segment.begin, ahead.end = segment.end;
    ahead.key = segment.key, ahead.turns = segment.turns;
}

/* To the next tile; in a list perhaps that of the next batch entry, which begins at *next. */
template <class KIND>
static __device__ __forceinline__ void decode_ahead_step(const struct decode_arguments &p,
                                                         struct decode_ahead &ahead,
                                                         struct decode_cursor *next)
{
    ahead.key += KIND::UNIT;
    if (!KIND::LIST || --ahead.turns > 0) {
        decode_ahead_look<KIND>(p, ahead);
        return;
    }
    struct decode_cursor at = *next;
    if (at.left == 0) {
        ahead.end = 0;
        return;
    }
    struct decode_segment segment = decode_segment_of<KIND>(p, at);
    decode_ahead_enter(ahead, at.batch, segment);
    ahead.place = 32;
    decode_ahead_look<KIND>(p, ahead);
    decode_next(segment, at);
    __syncwarp();
    *next = at;
    __syncwarp();
}

/* Where a key lies in its block. */
static __device__ __forceinline__ int decode_key_row(const struct decode_arguments &p, int key)
{
    return p.pages == NULL ? key : key - decode_divide(p.page, key) * p.page.divisor;
}

/* How a tile is kept in the L2 cache. Those that stay are always the same, as many in every part of
 * a sequence. */
template <class KIND>
static __device__ __forceinline__ uint64_t decode_policy(const struct decode_arguments &p, int key)
{
    bool stays = (uint32_t)(key / KIND::KEYS) * 0x9e3779b9u <= p.stay;
    return stays ? CACHE_USUAL : CACHE_FIRST;
}

/* A box of keys and one of values, the first of which is row `row` of its block; by one lane. */
static __device__ __forceinline__ void decode_copy(const struct decode_maps &maps, int head,
                                                   int block, int row, uint32_t target,
                                                   uint32_t full, uint64_t policy)
{
    tma_load(target, &maps.k, 0, row, 0, head, block, full, policy);
    tma_load(target + DECODE_TILE_BYTES / 2, &maps.v, 0, row, 0, head, block, full, policy);
}

/* The boxes of a tile: one, unless its keys may lie in two pages. By one lane. */
template <class KIND>
static __device__ __forceinline__ void
decode_ask_boxes(const struct decode_arguments &p, const struct decode_maps &maps,
                 const struct decode_ahead &ahead, uint32_t tile, uint32_t full)
{
    constexpr int KEYS = KIND::KEYS, BOX = DECODE_MIN_BOX;
    uint64_t policy = decode_policy<KIND>(p, ahead.key);
    if (KEYS == BOX || p.box == KEYS) {
        mbarrier_expect(full, DECODE_TILE_BYTES);
        decode_copy(maps, ahead.head, ahead.block, decode_key_row(p, ahead.key), tile, full,
                    policy);
        return;
    }
    int bytes = 0;
    for (int i = 0; i < KEYS; i += BOX)
        if (decode_has_keys(ahead.key + i, BOX, ahead.begin, ahead.end))
            bytes += BOX * KIND::ROW * 2;
    mbarrier_expect(full, bytes);
    for (int i = 0; i < KEYS; i += BOX) {
        int key = ahead.key + i;
        if (decode_has_keys(key, BOX, ahead.begin, ahead.end))
            decode_copy(maps, ahead.head, decode_block_of(p, ahead.batch, key),
                        decode_key_row(p, key), tile + i * 128, full, policy);
    }
}

/* Eight elements to shared memory, or zeros. */
static __device__ __forceinline__ void decode_copy_chunk(uint32_t target, const uint16_t *from,
                                                         bool seen, bool aligned)
{
    if (aligned) {
        copy_async(target, from, seen ? 16 : 0);
        return;
    }
    uint4 x = {};
    if (seen)
        x = {from[0] | (uint32_t)from[1] << 16, from[2] | (uint32_t)from[3] << 16,
             from[4] | (uint32_t)from[5] << 16, from[6] | (uint32_t)from[7] << 16};
    store_shared(target, x);
}

/* The same by all lanes, chunk by chunk. Keys that no row sees are not touched and become zero. */
template <class KIND>
static __device__ __forceinline__ void decode_ask_chunks(const struct decode_arguments &p,
                                                         const struct decode_ahead &ahead,
                                                         uint32_t tile, uint32_t full)
{
    constexpr int CHUNKS = KIND::D / 8;
#pragma unroll 1
    for (int i = threadIdx.x % 32; i < KIND::KEYS * CHUNKS; i += 32) {
        int local = i / CHUNKS, key = ahead.key + local, chunk = i % CHUNKS;
        bool seen = key >= ahead.begin && key < ahead.end;
        int block = seen ? decode_block_of(p, ahead.batch, key) : 0;
        int row = seen ? decode_key_row(p, key) : 0;
        int64_t k = block * p.k.batch + row * p.k.time + ahead.head * p.k.head + 8 * chunk;
        int64_t v = block * p.v.batch + row * p.v.time + ahead.head * p.v.head + 8 * chunk;
        uint32_t target = decode_chunk<KIND>(tile, local, 0, 0) ^ chunk % 8 * 16;
        target += chunk / 8 * KIND::BOX;
        decode_copy_chunk(target, (const uint16_t *)p.k.data + k, seen, p.chunks);
        decode_copy_chunk(target + DECODE_TILE_BYTES / 2, (const uint16_t *)p.v.data + v, seen,
                          p.chunks);
    }
    __syncwarp(); /* what was stored and not copied is there for the warp */
    mbarrier_arrive_copies(full);
}

/* Asks for the tile at `ahead`, if it has a key. */
template <class KIND>
static __device__ __forceinline__ void
decode_ask(const struct decode_arguments &p, const struct decode_maps &maps,
           const struct decode_ahead &ahead, uint32_t tile, uint32_t full)
{
    if (!decode_has_keys(ahead.key, KIND::KEYS, ahead.begin, ahead.end)) return;
    if (KIND::FEED == DECODE_CHUNKS)
        decode_ask_chunks<KIND>(p, ahead, tile, full);
    else if (threadIdx.x % 32 == 0)
        decode_ask_boxes<KIND>(p, maps, ahead, tile, full);
}

/* Values of keys outside begin .. end - 1 become zero: they may hold anything, and weight 0 times
 * NaN is NaN. */
template <class KIND>
static __device__ __forceinline__ void decode_clear(uint32_t values, int key, int begin, int end)
{
    for (int i = threadIdx.x % 32; i < KIND::KEYS * KIND::BOXES * 8; i += 32) {
        int row = i / 8 % KIND::KEYS;
        if (key + row < begin || key + row >= end) shared_clear(values + i * 16);
    }
    __syncwarp();
    proxy_fence(); /* before the copy engine writes here again */
}

#endif
