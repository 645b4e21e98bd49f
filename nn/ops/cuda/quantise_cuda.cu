/* quantise_cuda.cu: matrices rounded to f8e4m3 with a power of two a row as factor; see launch.h
 * and core/quantised.h.
 *
 * Magnitudes are compared as the integers of their bits: the order is the same, infinity and NaN
 * come last, and the largest of several blocks can be found by an atomic without rounding or a
 * fixed order. */
#include <cuda_fp8.h>

#include "norm.cuh"

namespace
{

/* ---- Single rows ----------------------------------------------------------------------------- */

struct factors {
    float scale, inverse;
};

/* The least power of two with which the largest magnitude is at most 448 = 1.75 2^8: adding all
 * that is between 1.75 and 2 carries into the exponent where the mantissa is larger. */
__device__ __forceinline__ factors factors_of(uint32_t largest)
{
    if (largest >= 0x7f800000u) return {__uint_as_float(0x7fffffffu), __uint_as_float(0x7fffffffu)};
    const int exponent = (int)((largest + 0x1fffffu) >> 23) - 8;
    const uint32_t biased = exponent > 1 ? (uint32_t)exponent : 1u;
    return {__uint_as_float(biased << 23), __uint_as_float((254u - biased) << 23)};
}

__device__ __forceinline__ uint32_t magnitude(float x)
{
    return __float_as_uint(x) & 0x7fffffffu;
}

__device__ __forceinline__ uint32_t larger(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

__device__ __forceinline__ uint32_t stored_pair(float low, float high)
{
    return __nv_cvt_float2_to_fp8x2(make_float2(low, high), __NV_SATFINITE, __NV_E4M3);
}

__device__ __forceinline__ uint32_t stored_four(const float *v)
{
    return stored_pair(v[0], v[1]) | stored_pair(v[2], v[3]) << 16;
}

/* The largest over a team, as team_sum is the sum. */
template <int TEAM> __device__ __forceinline__ uint32_t team_largest(uint32_t value)
{
#pragma unroll
    for (int step = (TEAM < 32 ? TEAM : 32) / 2; step > 0; step /= 2)
        value = larger(value, __shfl_xor_sync(0xffffffffu, value, step));
    if (TEAM <= 32) return value;
    __shared__ uint32_t of_warp[TEAM / 32 > 0 ? TEAM / 32 : 1];
    if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = value;
    __syncthreads();
#pragma unroll
    for (int warp = 0; warp < TEAM / 32; warp++) value = larger(value, of_warp[warp]);
    return value;
}

template <class T, class L>
__global__ void __launch_bounds__(L::threads)
    quantise_rows_kernel(uint8_t *y, float *scale, const T *x, int64_t rows, int E)
{
    const int lane = threadIdx.x % L::team;
    const int64_t row = (int64_t)blockIdx.x * L::teams + threadIdx.x / L::team;
    group<T, 8> in[L::chunks];
#pragma unroll
    for (int c = 0; c < L::chunks; c++) {
        const int e = (c * L::team + lane) * 8;
        if (row < rows && e < E) in[c].load(x + row * E + e);
    }
    uint32_t largest = 0;
#pragma unroll
    for (int c = 0; c < L::chunks; c++) {
        const int e = (c * L::team + lane) * 8;
        if (row >= rows || e >= E) continue;
        float v[8];
        in[c].get(v);
#pragma unroll
        for (int i = 0; i < 8; i++) largest = larger(largest, magnitude(v[i]));
    }
    const factors by = factors_of(team_largest<L::team>(largest));
    if (lane == 0 && row < rows) scale[row] = by.scale;
#pragma unroll
    for (int c = 0; c < L::chunks; c++) {
        const int e = (c * L::team + lane) * 8;
        if (row >= rows || e >= E) continue;
        float v[8];
        in[c].get(v);
#pragma unroll
        for (int i = 0; i < 8; i++) v[i] *= by.inverse;
        *(uint2 *)(y + row * E + e) = make_uint2(stored_four(v), stored_four(v + 4));
    }
}

/* Rows of any length on any address: a block a row, which is read twice. */
template <class T>
__global__ void __launch_bounds__(THREADS)
    quantise_any_kernel(uint8_t *y, float *scale, const T *x, int64_t E)
{
    const T *in = x + blockIdx.x * E;
    uint32_t largest = 0;
    for (int64_t e = threadIdx.x; e < E; e += THREADS)
        largest = larger(largest, magnitude(number(in[e])));
    const factors by = factors_of(team_largest<THREADS>(largest));
    if (threadIdx.x == 0) scale[blockIdx.x] = by.scale;
    for (int64_t e = threadIdx.x; e < E; e += THREADS)
        y[blockIdx.x * E + e] = (uint8_t)stored_pair(number(in[e]) * by.inverse, 0);
}

/* ---- Rows and columns ------------------------------------------------------------------------ */

/* A block has a tile of the matrix, a warp every eighth row of it, a lane two columns. */
enum { TILE = 64, WARPS = THREADS / 32, HELD = TILE / WARPS };

struct tile {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int64_t row = (int64_t)blockIdx.y * TILE, column = (int64_t)blockIdx.x * TILE;

    __device__ __forceinline__ int64_t row_of(int i) const
    {
        return row + i * WARPS + warp;
    }
    __device__ __forceinline__ int64_t column_of(int j) const
    {
        return column + j * 32 + lane;
    }
    /* Zeros beyond the matrix. */
    template <class T>
    __device__ __forceinline__ void load(float (&v)[HELD][2], const T *x, int64_t M,
                                         int64_t K) const
    {
#pragma unroll
        for (int i = 0; i < HELD; i++)
#pragma unroll
            for (int j = 0; j < 2; j++) {
                const bool inside = row_of(i) < M && column_of(j) < K;
                v[i][j] = inside ? number(x[row_of(i) * K + column_of(j)]) : 0;
            }
    }
};

template <class T>
__global__ void __launch_bounds__(THREADS)
    largest_kernel(uint32_t *of_row, uint32_t *of_column, const T *x, int64_t M, int64_t K)
{
    const tile at;
    float v[HELD][2];
    uint32_t column[2] = {0, 0};
    __shared__ uint32_t columns[WARPS][TILE];
    at.load(v, x, M, K);
#pragma unroll
    for (int i = 0; i < HELD; i++) {
        const uint32_t left = magnitude(v[i][0]), right = magnitude(v[i][1]);
        column[0] = larger(column[0], left);
        column[1] = larger(column[1], right);
        const uint32_t row = team_largest<32>(larger(left, right));
        if (at.lane == 0 && at.row_of(i) < M) atomicMax(&of_row[at.row_of(i)], row);
    }
    columns[at.warp][at.lane] = column[0];
    columns[at.warp][at.lane + 32] = column[1];
    __syncthreads();
    if (threadIdx.x >= TILE || at.column + threadIdx.x >= K) return;
    uint32_t largest = 0;
    for (int warp = 0; warp < WARPS; warp++) largest = larger(largest, columns[warp][threadIdx.x]);
    atomicMax(&of_column[at.column + threadIdx.x], largest);
}

/* Lines of 64 bytes of a tile to a matrix with rows of length bytes: 16 bytes a thread. */
__device__ __forceinline__ void store_lines(uint8_t *to, const uint32_t (*lines)[TILE / 4 + 1],
                                            int64_t first, int64_t count, int64_t begin,
                                            int64_t length)
{
    const int line = threadIdx.x / 4, part = threadIdx.x % 4;
    if (first + line >= count || begin + part * 16 >= length) return;
    const uint32_t *word = &lines[line][part * 4];
    *(uint4 *)(to + (first + line) * length + begin + part * 16) =
        make_uint4(word[0], word[1], word[2], word[3]);
}

template <class T>
__global__ void __launch_bounds__(THREADS) quantise_both_kernel(quantise_both call)
{
    const tile at;
    float v[HELD][2];
    __shared__ uint32_t rows[TILE][TILE / 4 + 1], columns[TILE][TILE / 4 + 1];
    at.load(v, (const T *)call.x, call.M, call.K);
    const uint32_t *of_column = call.largest + call.M;
    factors by_column[2];
#pragma unroll
    for (int j = 0; j < 2; j++) {
        const int64_t k = at.column_of(j);
        by_column[j] = factors_of(k < call.K ? of_column[k] : 0);
        if (blockIdx.y == 0 && at.warp == 0 && k < call.K)
            call.column_scale[k] = by_column[j].scale;
    }
#pragma unroll
    for (int i = 0; i < HELD; i++) {
        const int64_t m = at.row_of(i);
        const int line = i * WARPS + at.warp;
        const factors by_row = factors_of(m < call.M ? call.largest[m] : 0);
        if (blockIdx.x == 0 && at.lane == 0 && m < call.M) call.row_scale[m] = by_row.scale;
#pragma unroll
        for (int j = 0; j < 2; j++) {
            const int column = at.lane + 32 * j;
            ((uint8_t *)rows[line])[column] = (uint8_t)stored_pair(v[i][j] * by_row.inverse, 0);
            ((uint8_t *)columns[column])[line] =
                (uint8_t)stored_pair(v[i][j] * by_column[j].inverse, 0);
        }
    }
    __syncthreads();
    store_lines((uint8_t *)call.rows, rows, at.row, call.M, at.column, call.K);
    store_lines((uint8_t *)call.columns, columns, at.column, call.K, at.row, call.M);
}

} // namespace

/* ---- Launchers ------------------------------------------------------------------------------- */

const char *launch_quantise_rows(plx_stream stream, plx_dtype dtype, void *y, float *scale,
                                 const void *x, int64_t rows, int64_t columns)
{
    const bool wide = is_wide(columns, x) && columns <= longest_row;
    for_dtype(dtype, [&](auto zero) {
        typedef decltype(zero) T;
        if (!wide)
            quantise_any_kernel<<<rows, THREADS, 0, (cudaStream_t)stream>>>((uint8_t *)y, scale,
                                                                            (const T *)x, columns);
        else
            for_layout(columns, [&](auto lay) {
                typedef decltype(lay) L;
                quantise_rows_kernel<T, L>
                    <<<blocks_for(rows, L::teams), L::threads, 0, (cudaStream_t)stream>>>(
                        (uint8_t *)y, scale, (const T *)x, rows, (int)columns);
            });
    });
    return launched();
}

const char *launch_quantise_both(plx_stream stream, plx_dtype dtype,
                                 const struct quantise_both *call)
{
    const dim3 grid(blocks_for(call->K, TILE), blocks_for(call->M, TILE));
    for_dtype(dtype, [&](auto zero) {
        typedef decltype(zero) T;
        largest_kernel<T><<<grid, THREADS, 0, (cudaStream_t)stream>>>(
            call->largest, call->largest + call->M, (const T *)call->x, call->M, call->K);
        quantise_both_kernel<T><<<grid, THREADS, 0, (cudaStream_t)stream>>>(*call);
    });
    return launched();
}
