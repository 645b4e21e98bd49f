/* attention_decode_sm90_ring.cuh: how keys and values come into the rings of the warps. */
#ifndef PLX_ATTENTION_DECODE_SM90_RING_CUH
#define PLX_ATTENTION_DECODE_SM90_RING_CUH

#include "attention/attention_decode_sm90_tile.cuh"
#include "cuda/ptx_sm90.cuh"

/* Axes: a row of a box, keys, boxes of a head if it has several, heads, batch or pages. */
struct decode_maps {
    CUtensorMap k, v;
};

/* Boxes that are looked up at once, by a lane each; other lanes have something else to know. */
enum { DECODE_LOOKED = 30 };

/* Which copies fill the ring: boxes of the copy engine, which need 16-byte strides and tiles that
 * lie in one page; or chunks of 16 bytes, each from its own place. */
enum decode_feed { DECODE_BOXES, DECODE_CHUNKS };

/* What a block's work is, see attention_decode_plan.h: a part of one sequence, which may have
 * lengths or pages to be looked up, or a range of the list, which has. */
enum decode_way { DECODE_EVEN, DECODE_EVEN_LOOKS, DECODE_LIST };

/* SPLIT: pages are no multiples of a tile, which is several boxes then. */
template <int D_, int HEADS_, int SIZE_, enum decode_feed FEED_, enum decode_way WAY_, int WARPS_,
          int DEEP_ = 1, bool SPLIT_ = false>
struct decode_kind : decode_shape<D_, HEADS_, SIZE_, WARPS_, DEEP_> {
    static constexpr enum decode_feed FEED = FEED_;
    static constexpr bool LIST = WAY_ == DECODE_LIST, LOOKS = WAY_ != DECODE_EVEN;
    /* Tiles are asked for by what memory said before the launch before us had ended. */
    static constexpr bool GUESSES = LOOKS && FEED == DECODE_BOXES;
    static constexpr bool WIDE = WARPS_ == DECODE_WIDE_WARPS;
    static constexpr int THREADS = decode_kind::WARPS * 32;
    /* Tiles of a warp in shared memory, and blocks of a multiprocessor. */
    static constexpr int STAGES = WIDE ? 2 : 3, BLOCKS = WIDE ? 1 : 2;
    /* Rows that warps leave for each other at a time. A block without a list leaves them in its
     * ring, which it needs no more. */
    static constexpr int ROWS = LIST ? 2 : decode_kind::BLOCK_ROWS;
    /* Several blocks may have keys of a pair, and join in clusters. Deep ones of no list have all
     * keys, and no room for what others would bring. */
    static constexpr bool SHARES = LIST || DEEP_ == 1, JOINS = !LIST && DEEP_ == 1;
    /* The first values of a tile are loaded ahead of its weights; the longer tiles of 64 channels
     * gain nothing by it. */
    static constexpr bool AHEAD = !decode_kind::F8 && D_ == 128;
    /* Queries may lie anywhere, and not only where two numbers can be loaded at a time. */
    static constexpr bool ODD = FEED == DECODE_CHUNKS || decode_kind::F8;
    /* Boxes of a tile, and of the tiles that are looked up at once. */
    static constexpr int BOXED = SPLIT_ ? decode_kind::KEYS / DECODE_MIN_BOX : 1;
    static constexpr int LOOKED = DECODE_LOOKED / BOXED * BOXED;
};

/* A warp's ring: the stage it is at, a bit a stage for the phase to wait for, and one for those
 * that were asked for first. */
struct decode_ring {
    uint32_t tiles, full;
    int stage, phase, asked;
};

/* The tiles to ask for next: `turns` of a segment, the first at `key`, which is row `row` of its
 * page, or of its batch entry. Lane n has the block, that is page or batch entry, of the n-th of
 * LOOKED boxes that follow each other; `place`: the lane that has the next; `beyond`: this lane's
 * number less that of the lane that copies. */
template <class KIND> struct decode_ahead {
    int batch, head, begin, end, key, turns;
    int row, block, place, beyond;
    int blocks[KIND::BOXED]; /* of the next tile's boxes */
};

static __device__ __forceinline__ bool decode_has_keys(int key, int keys, int begin, int end)
{
    return key < end && key + keys > begin;
}

/* Chunks are looked up one by one. */
template <class KIND>
static __device__ __forceinline__ bool decode_pages(const struct decode_arguments &p)
{
    return KIND::LOOKS && KIND::FEED == DECODE_BOXES && p.pages != NULL;
}

/* The page of a key, or its batch entry where there are no pages. */
static __device__ __forceinline__ int decode_block_of(const struct decode_arguments &p, int batch,
                                                      int key)
{
    if (p.pages == NULL) return batch;
    return p.pages[batch * p.table + decode_divide(p.page, key)];
}

/* Where the pages of this warp's tiles are looked up, that of the n-th box from `key` on by lane n,
 * long before most of them are needed; NULL behind the last key. */
template <class KIND>
static __device__ __forceinline__ const int32_t *decode_page_place(const struct decode_arguments &p,
                                                                   int batch, int key, int end)
{
    int lane = threadIdx.x % 32;
    int own = key + lane / KIND::BOXED * KIND::UNIT + lane % KIND::BOXED * DECODE_MIN_BOX;
    return lane < KIND::LOOKED && own < end ? p.pages + batch * p.table + decode_divide(p.page, own)
                                            : NULL;
}

static __device__ __forceinline__ int decode_look_up(const int32_t *place)
{
    return place != NULL ? load_relaxed(place) : 0;
}

/* Where a key lies in its page. */
static __device__ __forceinline__ int decode_key_row(const struct decode_arguments &p, int key)
{
    return key - decode_divide(p.page, key) * p.page.divisor;
}

template <class KIND>
static __device__ __forceinline__ void
decode_ahead_enter(const struct decode_arguments &p, struct decode_ahead<KIND> &ahead, int batch,
                   const struct decode_segment &segment)
{
    ahead.batch = ahead.block = batch;
    ahead.begin = segment.begin, ahead.end = segment.end;
    ahead.key = segment.key, ahead.turns = segment.turns;
    ahead.row = KIND::LOOKS ? decode_key_row(p, segment.key) : segment.key, ahead.place = 0;
#pragma unroll
    for (int n = 0; n < KIND::BOXED; n++) ahead.blocks[n] = batch;
}

/* The blocks of the next tile, which lanes have; ahead of the time when they are needed. LATER:
 * only the lane that copies gets them, and others something else, so that the assembler does not
 * wait for them here to keep them in uniform registers. */
template <class KIND, bool LATER>
static __device__ __forceinline__ void decode_ahead_blocks(struct decode_ahead<KIND> &ahead)
{
    int lane = LATER ? ahead.beyond : 0;
#pragma unroll
    for (int n = 0; n < KIND::BOXED; n++)
        if (KIND::LOOKS)
            ahead.blocks[n] = __shfl_sync(0xffffffffu, ahead.block, ahead.place + n + lane);
}

/* The row of a page that comes `step` keys after another one, less than a page. */
template <class KIND>
static __device__ __forceinline__ int decode_row_after(const struct decode_arguments &p, int row,
                                                       int step)
{
    int next = row + step;
    return KIND::LOOKS && next >= p.page.divisor ? next - p.page.divisor : next;
}

template <class KIND>
static __device__ __forceinline__ void decode_ahead_look(const struct decode_arguments &p,
                                                         struct decode_ahead<KIND> &ahead)
{
    ahead.place = 0;
    if (!decode_pages<KIND>(p)) return;
    ahead.block = decode_look_up(decode_page_place<KIND>(p, ahead.batch, ahead.key, ahead.end));
}

/* To the next tile; in a list perhaps that of the next batch entry, which begins at *next. MORE:
 * there may be more than LOOKED boxes from the first on. */
template <class KIND, bool MORE>
static __device__ __forceinline__ void decode_ahead_step(const struct decode_arguments &p,
                                                         struct decode_ahead<KIND> &ahead,
                                                         struct decode_cursor *next)
{
    ahead.key += KIND::UNIT;
    if (!KIND::LIST || --ahead.turns > 0) {
        ahead.row = decode_row_after<KIND>(p, ahead.row, KIND::LOOKS ? p.step : KIND::UNIT);
        if (KIND::LOOKS) ahead.place += KIND::BOXED;
        if (MORE && ahead.place == KIND::LOOKED) decode_ahead_look<KIND>(p, ahead);
        decode_ahead_blocks<KIND, MORE>(ahead);
        return;
    }
    struct decode_cursor at = *next;
    if (at.left == 0 || at.batch >= p.B) { /* the latter of lengths that are out of date */
        ahead.end = 0;
        return;
    }
    struct decode_segment segment =
        decode_segment_of<KIND>(p, at, decode_lengths_of<KIND>(p, at.batch));
    decode_ahead_enter<KIND>(p, ahead, at.batch, segment);
    decode_ahead_look<KIND>(p, ahead);
    decode_ahead_blocks<KIND, MORE>(ahead);
    decode_next(segment, at);
    __syncwarp();
    *next = at;
    __syncwarp();
}

/* How a tile is kept in the L2 cache. Those that stay are always the same, as many in every part of
 * a sequence. */
template <class KIND>
static __device__ __forceinline__ uint64_t decode_policy(const struct decode_arguments &p, int key)
{
    bool stays = (uint32_t)key / KIND::KEYS * 0x9e3779b9u <= p.stay;
    return stays ? CACHE_USUAL : CACHE_FIRST;
}

/* A box of keys and one of values, the first of which is row `row` of its block; by one lane. */
template <class KIND>
static __device__ __forceinline__ void decode_copy(const struct decode_maps &maps, int head,
                                                   int block, int row, uint32_t target,
                                                   uint32_t full, uint64_t policy)
{
    uint32_t values = target + DECODE_TILE_BYTES / 2;
    if (KIND::BOXES == KIND::HEADS) {
        tma_load(target, &maps.k, 0, row, head, block, full, policy);
        tma_load(values, &maps.v, 0, row, head, block, full, policy);
    } else {
        tma_load(target, &maps.k, 0, row, 0, head, block, full, policy);
        tma_load(values, &maps.v, 0, row, 0, head, block, full, policy);
    }
}

/* Copies a tile, whose barrier has been told of it; by one lane. */
template <class KIND>
static __device__ __forceinline__ void
decode_copy_tile(const struct decode_arguments &p, const struct decode_maps &maps,
                 const struct decode_ahead<KIND> &ahead, uint32_t tile, uint32_t full)
{
    constexpr int BOX = DECODE_MIN_BOX;
    uint64_t policy = decode_policy<KIND>(p, ahead.key);
    int row = ahead.row;
#pragma unroll
    for (int n = 0; n < KIND::BOXED; n++) {
        if (n > 0) row = decode_row_after<KIND>(p, row, BOX);
        decode_copy<KIND>(maps, ahead.head, ahead.blocks[n], row, tile + n * BOX * KIND::PITCH,
                          full, policy);
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
        x = {decode_pair(from), decode_pair(from + 2), decode_pair(from + 4),
             decode_pair(from + 6)};
    store_shared(target, x);
}

/* The same by all lanes, chunk by chunk. Keys that no row sees are not touched and become zero. */
template <class KIND>
static __device__ __forceinline__ void decode_ask_chunks(const struct decode_arguments &p,
                                                         const struct decode_ahead<KIND> &ahead,
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

/* True where tiles may be left to ask for. A list may have another segment; and where nothing is
 * looked up, asking in vain is as short as finding out. */
template <class KIND>
static __device__ __forceinline__ bool decode_has_more(const struct decode_ahead<KIND> &ahead)
{
    return KIND::LIST || !KIND::LOOKS || ahead.key < ahead.end;
}

template <class KIND>
static __device__ __forceinline__ bool decode_has_tile(const struct decode_ahead<KIND> &ahead)
{
    return decode_has_keys(ahead.key, KIND::KEYS, ahead.begin, ahead.end);
}

/* Asks for the tile at `ahead`, if it has a key. */
template <class KIND>
static __device__ __forceinline__ bool
decode_ask(const struct decode_arguments &p, const struct decode_maps &maps,
           const struct decode_ahead<KIND> &ahead, uint32_t tile, uint32_t full)
{
    if (!decode_has_tile<KIND>(ahead)) return false;
    if (KIND::FEED == DECODE_CHUNKS) {
        decode_ask_chunks<KIND>(p, ahead, tile, full);
    } else if (elect_one()) {
        mbarrier_expect(full, DECODE_TILE_BYTES);
        decode_copy_tile<KIND>(p, maps, ahead, tile, full);
    }
    return true;
}

/* Values of keys outside begin .. end - 1 become zero: they may hold anything, and weight 0 times
 * NaN is NaN. */
template <class KIND>
static __device__ __forceinline__ void decode_clear(uint32_t values, int key, int begin, int end)
{
    constexpr int CHUNKS = KIND::PITCH / 16;
    for (int i = threadIdx.x % 32; i < KIND::KEYS * KIND::BOXES * CHUNKS; i += 32) {
        int row = i / CHUNKS % KIND::KEYS;
        if (key + row < begin || key + row >= end) shared_clear(values + i * 16);
    }
    __syncwarp();
    proxy_fence(); /* before the copy engine writes here again */
}

#endif
