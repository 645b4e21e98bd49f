/* draw_team.cuh: what the blocks that draw from a row know, add up, and read together; see
 * draw_cuda.cu. */
#ifndef PLX_DRAW_TEAM_CUH
#define PLX_DRAW_TEAM_CUH

#include <cooperative_groups.h>

#include "ops/cuda/numbers.cuh"
#include "ops/draw.h"

namespace
{

enum {
    CLUSTER = 8,
    THREADS = 512,
    WARPS = THREADS / 32,
    A_THREAD = DRAW_BINS / THREADS, /* bins */
    AHEAD = 2,                      /* groups that a thread loads before it uses the first */
    LIST = 4096,                    /* tokens that are searched by one block */
    MASS = 0,                       /* what a search adds up */
    COUNT = 1
};

/* ---- Teams ---- */

/* BLOCKS of them; this block's place. */
template <int BLOCKS> static __device__ __forceinline__ int team_rank(void)
{
    return BLOCKS == 1 ? 0 : (int)(blockIdx.x % BLOCKS);
}

/* What any block of the team has written is there for all of them. */
template <int BLOCKS> static __device__ __forceinline__ void team_sync(void)
{
#if __CUDA_ARCH__ >= 900
    if (BLOCKS > 1) {
        cooperative_groups::this_cluster().sync();
        return;
    }
#endif
    __syncthreads();
}

/* A variable of this block's shared memory in another block's. */
template <int BLOCKS, class T> static __device__ __forceinline__ T *team_at(T *mine, int rank)
{
#if __CUDA_ARCH__ >= 900
    if (BLOCKS > 1) return cooperative_groups::this_cluster().map_shared_rank(mine, rank);
#endif
    return mine;
}

/* ---- What a team knows ---- */

/* How many tokens are in each, and their mass, in two words. */
struct bins {
    uint32_t low[DRAW_BINS], high[DRAW_BINS], count[DRAW_BINS];
};

/* Some of a row's tokens, in the order of their ids. */
struct list {
    float logits[LIST];
    int32_t ids[LIST];
};

/* Of first digits, and of a later one; and what the leader searches alone. */
struct room {
    struct bins top, deep;
    struct list list;
};

static __device__ __forceinline__ struct room *block_room(void)
{
    extern __shared__ struct room room[];
    return room;
}

static __device__ __forceinline__ struct bins *bins_of(int level)
{
    return level > 0 ? &block_room()->deep : &block_room()->top;
}

/* Where a search is. */
struct place {
    uint32_t digit;
    uint64_t target; /* what is left of it */
    uint64_t before; /* mass of what comes before */
};

/* What other blocks write comes in turns, so that it is read before it is written again. */
template <int BLOCKS> struct board {
    uint64_t of_warp[2][BLOCKS * WARPS]; /* of all the team's */
    struct place place[2];               /* the leader's word */
    uint64_t scan[WARPS];                /* this block's own, as the next two */
    uint64_t target;
    uint32_t digit;
    float list[WARPS][64]; /* each warp's */
};

struct row {
    const float *x;
    int V, segment; /* neighbours that a warp looks at */
    int first;      /* of them */
    int warp;       /* of the team */
    float largest;
    double rate;
    int turn;
};

/* Shared among the warps of BLOCKS blocks. */
template <int BLOCKS, int W>
static __device__ __forceinline__ void share_row(struct row &row, const float *x, int V)
{
    row.x = x;
    row.V = V;
    row.warp = team_rank<BLOCKS>() * WARPS + (int)threadIdx.x / 32;
    row.segment = (V + BLOCKS * WARPS * 32 * W - 1) / (BLOCKS * WARPS * 32 * W) * 32 * W;
    row.first = row.warp * row.segment;
    row.turn = 0;
}

/* ---- Sums over blocks and teams ---- */

static __device__ __forceinline__ uint64_t warp_sum(uint64_t value)
{
#pragma unroll
    for (int step = 16; step > 0; step /= 2) value += __shfl_xor_sync(0xffffffffu, value, step);
    return value;
}

/* The sum of what lanes before this one have. */
static __device__ __forceinline__ uint64_t warp_before(uint64_t value)
{
    uint64_t sum = value;
#pragma unroll
    for (int step = 1; step < 32; step *= 2) {
        const uint64_t other = __shfl_up_sync(0xffffffffu, sum, step);
        if (threadIdx.x % 32 >= step) sum += other;
    }
    return sum - value;
}

/* The sum of what the block's threads before this one have, and all. */
template <int BLOCKS>
static __device__ __forceinline__ uint64_t block_before(struct board<BLOCKS> &board, uint64_t value,
                                                        uint64_t *all)
{
    const int warp = threadIdx.x / 32;
    uint64_t before = warp_before(value);
    __syncthreads();
    if (threadIdx.x % 32 == 31) board.scan[warp] = before + value;
    __syncthreads();
    *all = 0;
    for (int other = 0; other < WARPS; other++) {
        if (other == warp) before += *all;
        *all += board.scan[other];
    }
    return before;
}

/* What every warp of the team has, to each block. */
template <int BLOCKS>
static __device__ __forceinline__ const uint64_t *team_gather(struct board<BLOCKS> &board,
                                                              struct row &row, uint64_t of_warp)
{
    const int lane = threadIdx.x % 32;
    uint64_t *values = board.of_warp[row.turn];
    row.turn = 1 - row.turn;
    if (lane < BLOCKS) *team_at<BLOCKS>(&values[row.warp], lane) = of_warp;
    team_sync<BLOCKS>();
    return values;
}

template <int BLOCKS>
static __device__ __forceinline__ uint64_t team_sum(struct board<BLOCKS> &board, struct row &row,
                                                    uint64_t value)
{
    const uint64_t *values = team_gather<BLOCKS>(board, row, warp_sum(value));
    uint64_t sum = 0;
    for (int w = threadIdx.x % 32; w < BLOCKS * WARPS; w += 32) sum += values[w];
    return warp_sum(sum);
}

/* ---- Passes over a row ---- */

/* Calls work(v, logits, how many of them are there) for groups of W neighbours of the warp's
 * segment, one a lane and again. All lanes take part in every call. */
template <int W, class Work>
static __device__ __forceinline__ void for_groups_of(const struct row &row, const Work &work)
{
    const int lane = threadIdx.x % 32, end = row.first + row.segment;
    const int stop = end < row.V ? end : row.V;
    for (int begin = row.first; begin < stop; begin += AHEAD * 32 * W) {
        group<float, W> ahead[AHEAD] = {};
#pragma unroll
        for (int a = 0; a < AHEAD; a++) {
            const int v = begin + (a * 32 + lane) * W;
            if (v + W <= stop) ahead[a].load(row.x + v);
        }
#pragma unroll
        for (int a = 0; a < AHEAD; a++) {
            const int v = begin + (a * 32 + lane) * W, left = stop - v;
            float logits[W];
            ahead[a].get(logits);
#pragma unroll
            for (int w = 0; w < W; w++)
                if (left < W && w < left) logits[w] = row.x[v + w];
            work(v, logits, left < 0 ? 0 : left < W ? left : W);
        }
    }
}

/* Calls work(v, logit, whether it is there) for each. */
template <int W, class Work>
static __device__ __forceinline__ void for_logits(const struct row &row, const Work &work)
{
    for_groups_of<W>(row, [&](int v, const float(&logits)[W], int there) {
#pragma unroll
        for (int w = 0; w < W; w++) work(v + w, logits[w], w < there);
    });
}

/* The largest key with the lowest id. A logit that is not finite has a key above all others. */
template <int BLOCKS, int W>
static __device__ __forceinline__ uint64_t team_largest(struct board<BLOCKS> &board,
                                                        struct row &row)
{
    uint64_t largest = 0;
    for_logits<W>(row, [&](int v, float logit, bool there) {
        const uint32_t key = isfinite(logit) ? draw_key(logit) : 0xffffffffu;
        const uint64_t both = (uint64_t)key << 32 | (uint32_t)~v;
        if (there && both > largest) largest = both;
    });
    const auto join = [&] {
#pragma unroll
        for (int step = 16; step > 0; step /= 2) {
            const uint64_t other = __shfl_xor_sync(0xffffffffu, largest, step);
            largest = other > largest ? other : largest;
        }
    };
    join();
    const uint64_t *values = team_gather<BLOCKS>(board, row, largest);
    for (int w = threadIdx.x % 32; w < BLOCKS * WARPS; w += 32)
        largest = values[w] > largest ? values[w] : largest;
    join();
    return largest;
}

} // namespace

#endif
