/* norm.cuh: how kernels that norm or scale rows lay them out, and where they leave sums over rows.
 *
 * A row is held in the registers of a team of neighbouring threads, so that it is read once. The
 * gradient of a gain is a sum over all rows: each team adds up its rows, a block its teams, which
 * leaves a fixed number of partial rows whatever the GPU is; launch_partials adds those. */
#ifndef NN_OPS_CUDA_NORM_CUH
#define NN_OPS_CUDA_NORM_CUH

#include "ops/cuda/numbers.cuh"

enum { THREADS = 256 };

/* How a row lies in a team: CHUNKS groups of eight a thread. */
template <int TEAM, int CHUNKS> struct layout {
    static constexpr int team = TEAM, chunks = CHUNKS;
    static constexpr int threads = TEAM <= 32 ? THREADS : TEAM;
    static constexpr int teams = threads / TEAM;
    static constexpr int64_t longest = (int64_t)TEAM * CHUNKS * 8;
    /* That fit a multiprocessor when a thread may have 64 (128) registers for 2 (4) groups. */
    static constexpr int blocks = TEAM <= 32 ? 8 / CHUNKS : 1;
};

/* Calls work with the first layout that holds a row. */
template <class Work> static inline bool for_layout(int64_t E, const Work &work)
{
    if (E <= layout<4, 2>::longest)
        work(layout<4, 2>());
    else if (E <= layout<8, 2>::longest)
        work(layout<8, 2>());
    else if (E <= layout<32, 4>::longest)
        work(layout<32, 4>());
    else if (E <= layout<128, 4>::longest)
        work(layout<128, 4>());
    else
        work(layout<512, 4>());
    return true;
}

static constexpr int64_t longest_row = layout<512, 4>::longest;

/* This thread's groups of a row of x, unless it lies behind the last. */
template <class L, class T>
static __device__ __forceinline__ void load_row(group<T, 8> (&groups)[L::chunks], const T *x,
                                                int64_t row, int64_t rows, int E)
{
    const int lane = threadIdx.x % L::team;
#pragma unroll
    for (int c = 0; c < L::chunks; c++) {
        const int e = (c * L::team + lane) * 8;
        if (row < rows && e < E) groups[c].load(x + row * E + e);
    }
}

/* One row of sums over the teams of a block. */
template <class L>
static __device__ __forceinline__ void store_partial(float *partial,
                                                     const float (&sums)[L::chunks][8], int E)
{
    const int lane = threadIdx.x % L::team, team = threadIdx.x / L::team;
    if constexpr (L::teams == 1) {
#pragma unroll
        for (int c = 0; c < L::chunks; c++) {
            const int e = (c * L::team + lane) * 8;
            if (e < E) write_numbers(partial + e, sums[c]);
        }
    } else {
        __shared__ float of_team[L::teams][L::longest];
#pragma unroll
        for (int c = 0; c < L::chunks; c++)
            write_numbers(&of_team[team][(c * L::team + lane) * 8], sums[c]);
        __syncthreads();
        for (int e = threadIdx.x; e < E; e += L::threads) {
            float sum = 0;
            for (int t = 0; t < L::teams; t++) sum += of_team[t][e];
            partial[e] = sum;
        }
    }
}

#endif
