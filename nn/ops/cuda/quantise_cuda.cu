/* quantise_cuda.cu: matrices rounded to f8e4m3 with a power of two a row as factor; see launch.h
 * and core/quantised.h.
 *
 * Magnitudes are compared as the integers of their bits: the order is the same, infinity and NaN
 * come last, and the largest of several blocks can be found by an atomic without rounding or a
 * fixed order. */
#include <cuda_fp16.h>
#include <cuda_fp8.h>

#include "ops/cuda/norm.cuh"

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
    load_row<L>(in, x, row, rows, E);
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

/* A block has a tile of 128 rows and 64 columns, half of it at a time. A warp has 16 rows and 32
 * columns of that, a lane four of each: so it reads whole lines, and what a lane has of a column is
 * a word of the transpose. Extents are multiples of 16, so no lane crosses the border. */
enum { ROWS = 128, COLUMNS = 64, HALF = ROWS / 2, WARPS = THREADS / 32 };

struct patch {
    float v[4][4];

    template <bool WIDE, class T>
    __device__ __forceinline__ void load(const T *x, int64_t row, int64_t column, int64_t M,
                                         int64_t K)
    {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const T *from = x + (row + i) * K + column;
            const bool inside = row < M && column < K;
            float4 four = {0, 0, 0, 0};
            if (WIDE && inside) four = load_four(from);
            if (!WIDE && inside)
                four = {number(from[0]), number(from[1]), number(from[2]), number(from[3])};
            v[i][0] = four.x, v[i][1] = four.y, v[i][2] = four.z, v[i][3] = four.w;
        }
    }

    static __device__ __forceinline__ float4 load_four(const float *from)
    {
        return *(const float4 *)from;
    }
    static __device__ __forceinline__ float4 load_four(const bf16 *from)
    {
        const uint2 words = *(const uint2 *)from;
        return {__uint_as_float(words.x << 16), __uint_as_float(words.x & 0xffff0000u),
                __uint_as_float(words.y << 16), __uint_as_float(words.y & 0xffff0000u)};
    }
};

/* Where a thread is in the tile. */
struct place {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int row = warp / 2 * 16 + lane / 8 * 4, column = warp % 2 * 32 + lane % 8 * 4;
};

template <class T, bool WIDE>
__global__ void __launch_bounds__(THREADS)
    largest_kernel(uint32_t *of_row, uint32_t *of_column, const T *x, int64_t M, int64_t K)
{
    const place at;
    const int64_t first = (int64_t)blockIdx.y * ROWS, column = blockIdx.x * COLUMNS + at.column;
    uint32_t columns[4] = {0, 0, 0, 0};
    __shared__ uint32_t of_warps[WARPS / 2][COLUMNS];
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int64_t row = first + half * HALF + at.row;
        patch in;
        in.load<WIDE>(x, row, column, M, K);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            uint32_t line = 0;
#pragma unroll
            for (int j = 0; j < 4; j++) {
                line = larger(line, magnitude(in.v[i][j]));
                columns[j] = larger(columns[j], magnitude(in.v[i][j]));
            }
            line = team_largest<8>(line);
            if (at.lane % 8 == 0 && row < M) atomicMax(&of_row[row + i], line);
        }
    }
#pragma unroll
    for (int j = 0; j < 4; j++) {
        columns[j] = larger(columns[j], __shfl_xor_sync(0xffffffffu, columns[j], 8));
        columns[j] = larger(columns[j], __shfl_xor_sync(0xffffffffu, columns[j], 16));
        if (at.lane < 8) of_warps[at.warp / 2][at.column + j] = columns[j];
    }
    __syncthreads();
    const int64_t mine = blockIdx.x * COLUMNS + threadIdx.x;
    if (threadIdx.x >= COLUMNS || mine >= K) return;
    uint32_t largest = 0;
#pragma unroll
    for (int warp = 0; warp < WARPS / 2; warp++)
        largest = larger(largest, of_warps[warp][threadIdx.x]);
    atomicMax(&of_column[mine], largest);
}

/* From the last tile to the first: what was read last is still in the cache. */
template <class T, bool WIDE>
__global__ void __launch_bounds__(THREADS) quantise_both_kernel(quantise_both call)
{
    const place at;
    const int64_t first = (int64_t)(gridDim.y - 1 - blockIdx.y) * ROWS,
                  left = (int64_t)(gridDim.x - 1 - blockIdx.x) * COLUMNS, column = left + at.column;
    __shared__ uint32_t transposed[COLUMNS][ROWS / 4 + 1];
    factors by_column[4];
#pragma unroll
    for (int j = 0; j < 4; j++) {
        by_column[j] = factors_of(column < call.K ? call.largest[call.M + column + j] : 0);
        if (first == 0 && at.row == 0 && column < call.K)
            call.column_scale[column + j] = by_column[j].scale;
    }
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int64_t row = first + half * HALF + at.row;
        const bool inside = row < call.M && column < call.K;
        patch in;
        in.load<WIDE>((const T *)call.x, row, column, call.M, call.K);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const factors by_row = factors_of(inside ? call.largest[row + i] : 0);
            float line[4];
#pragma unroll
            for (int j = 0; j < 4; j++) line[j] = in.v[i][j] * by_row.inverse;
            if (!inside) continue;
            *(uint32_t *)((uint8_t *)call.rows + (row + i) * call.K + column) = stored_four(line);
            if (column == 0) call.row_scale[row + i] = by_row.scale;
        }
#pragma unroll
        for (int j = 0; j < 4; j++) {
            float line[4];
#pragma unroll
            for (int i = 0; i < 4; i++) line[i] = in.v[i][j] * by_column[j].inverse;
            transposed[at.column + j][(half * HALF + at.row) / 4] = stored_four(line);
        }
    }
    __syncthreads();
    if (first + at.lane * 4 >= call.M) return;
    for (int line = at.warp; line < COLUMNS && left + line < call.K; line += WARPS)
        *(uint32_t *)((uint8_t *)call.columns + (left + line) * call.M + first + at.lane * 4) =
            transposed[line][at.lane];
}

/* ---- Products of a few rows ------------------------------------------------------------------ */

enum { FEW = 15 };

/* Sixteen numbers, exactly. */
__device__ __forceinline__ void widen(float (&v)[16], const void *from)
{
    const uint4 in = *(const uint4 *)from;
    const uint32_t words[4] = {in.x, in.y, in.z, in.w};
#pragma unroll
    for (int i = 0; i < 8; i++) {
        const __half2_raw pair = __nv_cvt_fp8x2_to_halfraw2(
            (__nv_fp8x2_storage_t)(words[i / 2] >> i % 2 * 16), __NV_E4M3);
        const float2 two = __half22float2(__half2(pair));
        v[2 * i] = two.x;
        v[2 * i + 1] = two.y;
    }
}

/* A warp has a row of b, and so a column of c. */
template <class T>
__global__ void __launch_bounds__(THREADS) quantised_few_kernel(quantised_few call)
{
    const int lane = threadIdx.x % 32;
    const int64_t n = (int64_t)blockIdx.x * (THREADS / 32) + threadIdx.x / 32, K = call.K;
    float sums[FEW] = {};
    if (n >= call.N) return;
    for (int64_t k = lane * 16; k < K; k += 32 * 16) {
        float weight[16], x[16];
        widen(weight, (const uint8_t *)call.b + n * K + k);
#pragma unroll
        for (int m = 0; m < FEW; m++) {
            if (m >= call.rows) continue;
            widen(x, (const uint8_t *)call.a + m * K + k);
#pragma unroll
            for (int i = 0; i < 16; i++) sums[m] += weight[i] * x[i];
        }
    }
#pragma unroll
    for (int m = 0; m < FEW; m++) {
        if (m >= call.rows) continue;
        float sum = call.alpha * team_sum<32>(sums[m]) * call.a_scale[m] * call.b_scale[n];
        if (call.beta != 0)
            sum += call.beta * number(((const T *)call.add)[m * call.add_stride + n]);
        if (lane == 0) ((T *)call.c)[m * call.c_stride + n] = rounded<T>(sum);
    }
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
    const dim3 grid(blocks_for(call->K, COLUMNS), blocks_for(call->M, ROWS));
    for_dtype(dtype, [&](auto zero) {
        typedef decltype(zero) T;
        const bool wide = (uintptr_t)call->x % 16 == 0;
        auto largest = wide ? largest_kernel<T, true> : largest_kernel<T, false>;
        auto store = wide ? quantise_both_kernel<T, true> : quantise_both_kernel<T, false>;
        largest<<<grid, THREADS, 0, (cudaStream_t)stream>>>(call->largest, call->largest + call->M,
                                                            (const T *)call->x, call->M, call->K);
        store<<<grid, THREADS, 0, (cudaStream_t)stream>>>(*call);
    });
    return launched();
}

const char *launch_quantised_few(plx_stream stream, plx_dtype dtype,
                                 const struct quantised_few *call)
{
    for_dtype(dtype, [&](auto zero) {
        typedef decltype(zero) T;
        quantised_few_kernel<T>
            <<<blocks_for(call->N, THREADS / 32), THREADS, 0, (cudaStream_t)stream>>>(*call);
    });
    return launched();
}
