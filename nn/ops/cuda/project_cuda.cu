/* project_cuda.cu: products of several rows with a weight of int8, as generation of several texts
 * makes them; see launch.h.
 *
 * The tensor cores multiply: 16 weight rows and 8 rows of x at a time, 16 numbers deep. int8 fits
 * bf16, so that products are of the very numbers, and sums are in float. The order within a sum is
 * free, so a thread loads 16 neighbours of a weight row at once and multiplies them in four steps
 * of four, with the same neighbours of x. The warps of a block share the length of 16 weight rows,
 * and add what each has in a fixed order. */
#include "ops/cuda/chain.cuh"

namespace
{

enum {
    WARPS = 8,
    TILE = 16,         /* weight rows of a block */
    COLUMNS = 8,       /* rows of x in a step */
    DEPTH = 64,        /* numbers of a row that a warp takes at a time */
    MOST = 4 * COLUMNS /* rows of x: beyond, all is better widened once */
};

/* Two numbers of int8, the lower two bytes of a word or the upper two, as a pair of bf16: as floats
 * they have nothing in their lower halves. */
static __device__ __forceinline__ uint32_t pair_of_bytes(uint32_t word, int shift)
{
    const float low = (float)(int8_t)(word >> shift), high = (float)(int8_t)(word >> (shift + 8));
    return __byte_perm(__float_as_uint(low), __float_as_uint(high), 0x7632);
}

static __device__ __forceinline__ uint4 load16(const void *from, bool exists)
{
    return exists ? *(const uint4 *)from : make_uint4(0, 0, 0, 0);
}

static __device__ __forceinline__ uint32_t word_of(const uint4 &v, int i)
{
    return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w;
}

/* A thread's part of DEPTH numbers: 16 neighbours of rows g and g + 8 of the tile. */
struct weights {
    uint4 row[2];
};

/* sums += the tile's numbers times those of COLUMNS * GROUPS rows of x. */
template <int GROUPS>
static __device__ __forceinline__ void add_products(float (&sums)[GROUPS][4],
                                                    const struct weights &w, const bf16 *x,
                                                    int rows, int64_t K, int64_t k)
{
    const int g = threadIdx.x % 32 / 4;
    uint4 v[GROUPS][2];
#pragma unroll
    for (int c = 0; c < GROUPS; c++) {
        const int m = c * COLUMNS + g;
#pragma unroll
        for (int half = 0; half < 2; half++)
            v[c][half] = load16(x + m * K + k + 8 * half, m < rows && k < K);
    }
#pragma unroll
    for (int step = 0; step < 4; step++) {
        const uint32_t above = word_of(w.row[0], step), below = word_of(w.row[1], step);
        const uint32_t a[4] = {pair_of_bytes(above, 0), pair_of_bytes(below, 0),
                               pair_of_bytes(above, 16), pair_of_bytes(below, 16)};
#pragma unroll
        for (int c = 0; c < GROUPS; c++)
            multiply_add(sums[c], a[0], a[1], a[2], a[3], word_of(v[c][step / 2], step % 2 * 2),
                         word_of(v[c][step / 2], step % 2 * 2 + 1));
    }
}

/* AHEAD: loads of DEPTH numbers that a warp has under way. */
template <class C, int GROUPS, int AHEAD>
__global__ void __launch_bounds__(WARPS * 32)
    tile_kernel(C *y, const bf16 *x, const int8_t *weight, const float *scale, const C *add,
                int rows, int64_t N, int64_t K)
{
    __shared__ float parts[WARPS][GROUPS * COLUMNS][TILE];
    const int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    const int64_t first = (int64_t)blockIdx.x * TILE;
    const int8_t *from[2];
    float sums[GROUPS][4] = {};
    bool waits = true;
    dependency_release();
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int64_t n = first + g + 8 * half;
        from[half] = weight + (n < N ? n : N - 1) * K;
    }
    for (int64_t begin = warp * DEPTH; begin < K; begin += AHEAD * WARPS * DEPTH) {
        struct weights ahead[AHEAD];
#pragma unroll
        for (int i = 0; i < AHEAD; i++) {
            const int64_t k = begin + i * WARPS * DEPTH + 16 * t;
            ahead[i].row[0] = load16(from[0] + k, k < K);
            ahead[i].row[1] = load16(from[1] + k, k < K);
        }
        if (waits) dependency_wait();
        waits = false;
#pragma unroll
        for (int i = 0; i < AHEAD; i++) {
            const int64_t chunk = begin + i * WARPS * DEPTH;
            if (chunk < K) add_products<GROUPS>(sums, ahead[i], x, rows, K, chunk + 16 * t);
        }
    }
    if (waits) dependency_wait();
#pragma unroll
    for (int c = 0; c < GROUPS; c++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            parts[warp][c * COLUMNS + 2 * t + i % 2][g + i / 2 * 8] = sums[c][i];
    __syncthreads();
    for (int i = threadIdx.x; i < GROUPS * COLUMNS * TILE; i += WARPS * 32) {
        const int m = i / TILE;
        const int64_t n = first + i % TILE;
        float total = 0;
        if (m >= rows || n >= N) continue;
#pragma unroll
        for (int part = 0; part < WARPS; part++) total += parts[part][m][i % TILE];
        total *= scale[n];
        if (add != NULL) total += number(add[m * N + n]);
        y[m * N + n] = rounded<C>(total);
    }
}

template <class C, int GROUPS, int AHEAD>
static void launch_ahead(plx_stream stream, const struct gemv *call)
{
    launch_chained(tile_kernel<C, GROUPS, AHEAD>, blocks_for(call->N, TILE), WARPS * 32, stream,
                   (C *)call->y, (const bf16 *)call->x, (const int8_t *)call->weight, call->scale,
                   (const C *)call->add, call->rows, call->N, call->K);
}

template <class C, int GROUPS> static void launch_groups(plx_stream stream, const struct gemv *call)
{
    if (call->K <= 2 * WARPS * DEPTH)
        launch_ahead<C, GROUPS, 2>(stream, call);
    else
        launch_ahead<C, GROUPS, 4>(stream, call);
}

} // namespace

bool launch_tiles_serves(const struct gemv *call)
{
    return call->in == PLX_BF16 && call->scale != NULL && call->rows >= 1 && call->rows <= MOST &&
           call->N >= 1 && call->K >= 16 && call->K % 16 == 0 &&
           is_wide(call->K, call->x, call->weight);
}

const char *launch_tiles(plx_stream stream, const struct gemv *call)
{
    for_dtype(call->out, [&](auto out) {
        typedef decltype(out) C;
        if (call->rows <= COLUMNS)
            launch_groups<C, 1>(stream, call);
        else if (call->rows <= 2 * COLUMNS)
            launch_groups<C, 2>(stream, call);
        else
            launch_groups<C, 4>(stream, call);
    });
    return launched();
}
