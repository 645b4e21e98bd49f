/* few_rows_cuda.cu: products of few rows with a large matrix, as decoding has them; see launch.h.
 *
 * Such a product reads W once and does little with it, so all that counts is that enough of W is on
 * its way at any time. A warp takes two rows of W and sums for all rows of x, 16 bytes of each a
 * lane; where W has few rows, four warps share them, each a part of the channels. Sums are in float
 * in an order that depends on the shape alone. */
#include "numbers.cuh"

namespace
{

enum { THREADS = 256, WARPS = THREADS / 32, ROWS = 2, WIDTH = 8 };
/* Rows of W from which one warp for two of them keeps the GPU busy. */
enum { MANY_ROWS = 8192 };

/* acc[m][r] += x[m] . w[r] over eight channels. */
template <class T, int M>
static __device__ __forceinline__ void add_products(float (&sums)[M][ROWS], const T *x,
                                                    int64_t x_stride, int rows,
                                                    const float (&w)[ROWS][WIDTH])
{
#pragma unroll
    for (int m = 0; m < M; m++) {
        float v[WIDTH];
        read_numbers(v, x + min(m, rows - 1) * x_stride);
#pragma unroll
        for (int r = 0; r < ROWS; r++)
#pragma unroll
            for (int i = 0; i < WIDTH; i++) sums[m][r] += v[i] * w[r][i];
    }
}

/* The lanes' sums, in all of them. */
template <int M> static __device__ __forceinline__ void add_lanes(float (&sums)[M][ROWS])
{
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int r = 0; r < ROWS; r++) sums[m][r] = team_sum<32>(sums[m][r]);
}

static __device__ __forceinline__ void write_number(const few_rows &of, int64_t m, int64_t n,
                                                    float sum)
{
    float value = of.alpha * sum;
    int64_t from = m * of.add_stride + n, to = m * of.c_stride + n;
    if (of.c_dtype == PLX_BF16) {
        if (of.beta != 0) value += of.beta * number(((const bf16 *)of.add)[from]);
        ((bf16 *)of.c)[to] = rounded<bf16>(value);
    } else {
        if (of.beta != 0) value += of.beta * ((const float *)of.add)[from];
        ((float *)of.c)[to] = value;
    }
}

/* SHARE warps of a block for the same rows of W. */
template <class T, int M, int SHARE>
__global__ void __launch_bounds__(THREADS) few_rows_kernel(const __grid_constant__ few_rows of)
{
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, part = warp % SHARE;
    const int64_t first = ((int64_t)blockIdx.x * (WARPS / SHARE) + warp / SHARE) * ROWS;
    const T *x = (const T *)of.x;
    const T *w[ROWS];
#pragma unroll
    for (int r = 0; r < ROWS; r++) w[r] = (const T *)of.w + min(first + r, of.N - 1) * of.w_stride;
    float sums[M][ROWS] = {};
#pragma unroll 4
    for (int64_t k = (part * 32 + lane) * WIDTH; k < of.K; k += SHARE * 32 * WIDTH) {
        float v[ROWS][WIDTH];
#pragma unroll
        for (int r = 0; r < ROWS; r++) read_numbers(v[r], w[r] + k);
        add_products<T, M>(sums, x + k, of.x_stride, of.M, v);
    }
    add_lanes<M>(sums);
    __shared__ float parts[WARPS][M * ROWS];
    if (SHARE > 1) {
#pragma unroll
        for (int m = 0; m < M; m++)
#pragma unroll
            for (int r = 0; r < ROWS; r++)
                if (lane == m * ROWS + r) parts[warp][lane] = sums[m][r];
        __syncthreads();
        if (part > 0) return;
    }
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            if (lane != m * ROWS + r || m >= of.M || first + r >= of.N) continue;
            float sum = sums[m][r];
            for (int p = 1; p < SHARE; p++) sum += parts[warp + p][lane];
            write_number(of, m, first + r, sum);
        }
}

template <class T, int M> static void queue(plx_stream stream, const few_rows &of)
{
    const bool many = of.N >= MANY_ROWS;
    auto kernel = many ? few_rows_kernel<T, M, 1> : few_rows_kernel<T, M, 4>;
    int64_t blocks = blocks_for(of.N, many ? WARPS * ROWS : WARPS / 4 * ROWS);
    kernel<<<blocks, THREADS, 0, (cudaStream_t)stream>>>(of);
}

} // namespace

const char *launch_few_rows(plx_stream stream, plx_dtype T, const few_rows *of)
{
    for_dtype(T, [&](auto zero) {
        typedef decltype(zero) type;
        if (of->M == 1)
            queue<type, 1>(stream, *of);
        else if (of->M == 2)
            queue<type, 2>(stream, *of);
        else if (of->M <= 4)
            queue<type, 4>(stream, *of);
        else
            queue<type, 8>(stream, *of);
    });
    return launched();
}
