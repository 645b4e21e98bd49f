/* norm_cuda.cu: RMSNorm, biases, and the sums over rows of their gradients; see launch.h and
 * norm.cuh. */
#include "ops/cuda/chain.cuh"
#include "ops/cuda/norm.cuh"

namespace
{

enum {
    PARTIALS = 528, /* blocks: a multiple of Hopper's 132 multiprocessors, 4 each */
    COLUMNS = 32,   /* that a block of the second stage adds up */
    SLICES = 32     /* of the partial rows, that it adds up at a time */
};

/* ---- Forward --------------------------------------------------------------------------------- */

template <class T, class L>
__global__ void __launch_bounds__(L::threads)
    rmsnorm_kernel(T *y, float *rstd, const T *x, const float *gain, int64_t rows, int E, float eps)
{
    const int lane = threadIdx.x % L::team;
    const int64_t row = (int64_t)blockIdx.x * L::teams + threadIdx.x / L::team;
    group<T, 8> in[L::chunks];
    float squares = 0;
    dependency_release();
    dependency_wait();
    load_row<L>(in, x, row, rows, E);
#pragma unroll
    for (int c = 0; c < L::chunks; c++) {
        const int e = (c * L::team + lane) * 8;
        if (row >= rows || e >= E) continue;
        float v[8];
        in[c].get(v);
#pragma unroll
        for (int i = 0; i < 8; i++) squares += v[i] * v[i];
    }
    const float factor = 1 / sqrtf(team_sum<L::team>(squares) / E + eps);
    if (lane == 0 && row < rows) rstd[row] = factor;
#pragma unroll
    for (int c = 0; c < L::chunks; c++) {
        const int e = (c * L::team + lane) * 8;
        if (row >= rows || e >= E) continue;
        float v[8], weight[8];
        in[c].get(v);
        read_numbers(weight, gain + e);
#pragma unroll
        for (int i = 0; i < 8; i++) v[i] *= factor * weight[i];
        write_numbers(y + row * E + e, v);
    }
}

/* Rows of any length on any address: a block a row, which is read twice. */
template <class T>
__global__ void __launch_bounds__(THREADS)
    rmsnorm_any_kernel(T *y, float *rstd, const T *x, const float *gain, int64_t E, float eps)
{
    const int64_t row = blockIdx.x;
    float squares = 0;
    for (int64_t e = threadIdx.x; e < E; e += THREADS) {
        const float v = number(x[row * E + e]);
        squares += v * v;
    }
    const float factor = 1 / sqrtf(team_sum<THREADS>(squares) / E + eps);
    if (threadIdx.x == 0) rstd[row] = factor;
    for (int64_t e = threadIdx.x; e < E; e += THREADS)
        y[row * E + e] = rounded<T>(number(x[row * E + e]) * factor * gain[e]);
}

/* ---- Backward -------------------------------------------------------------------------------- */

/* dx = s (dy g - xhat mean(dy g xhat)) with xhat = x s, and the sum of dy xhat over the block's
 * rows. */
template <class T, class L, bool RESIDUAL>
__global__ void __launch_bounds__(L::threads, L::blocks)
    rmsnorm_backward_kernel(T *dx, float *partials, const T *dy, const T *x, const float *gain,
                            const float *rstd, const T *residual, int64_t rows, int E)
{
    typedef typename row_sum<T>::type sum_type;
    const int lane = threadIdx.x % L::team, team = threadIdx.x / L::team;
    float dgain[L::chunks][8] = {};
    for (int64_t first = (int64_t)blockIdx.x * L::teams; first < rows;
         first += (int64_t)gridDim.x * L::teams) {
        const int64_t row = first + team;
        const bool live = row < rows;
        const float factor = live ? rstd[row] : 0;
        group<T, 8> up[L::chunks], in[L::chunks], straight[L::chunks];
#pragma unroll
        for (int c = 0; c < L::chunks; c++) {
            const int e = (c * L::team + lane) * 8;
            if (!live || e >= E) continue;
            up[c].load(dy + row * E + e);
            in[c].load(x + row * E + e);
            if (RESIDUAL) straight[c].load(residual + row * E + e);
        }
        sum_type dot = 0;
#pragma unroll
        for (int c = 0; c < L::chunks; c++) {
            const int e = (c * L::team + lane) * 8;
            if (!live || e >= E) continue;
            float d[8], v[8], weight[8];
            up[c].get(d);
            in[c].get(v);
            read_numbers(weight, gain + e);
#pragma unroll
            for (int i = 0; i < 8; i++) dot += (sum_type)(d[i] * weight[i]) * (sum_type)v[i];
        }
        const float mean = (float)(team_sum<L::team>(dot) * (sum_type)factor / (sum_type)E);
#pragma unroll
        for (int c = 0; c < L::chunks; c++) {
            const int e = (c * L::team + lane) * 8;
            if (!live || e >= E) continue;
            float d[8], v[8], weight[8];
            up[c].get(d);
            in[c].get(v);
            read_numbers(weight, gain + e);
#pragma unroll
            for (int i = 0; i < 8; i++) {
                const float normal = v[i] * factor;
                dgain[c][i] += d[i] * normal;
                v[i] = factor * (d[i] * weight[i] - normal * mean);
            }
            if (RESIDUAL) {
                straight[c].get(d);
#pragma unroll
                for (int i = 0; i < 8; i++) v[i] += d[i];
            }
            write_numbers(dx + row * E + e, v);
        }
    }
    store_partial<L>(partials + (int64_t)blockIdx.x * E, dgain, E);
}

/* Rows of any length on any address. Each thread owns the columns that it meets, and keeps their
 * sums in the block's partial row itself. */
template <class T>
__global__ void __launch_bounds__(THREADS)
    rmsnorm_backward_any_kernel(T *dx, float *partials, const T *dy, const T *x, const float *gain,
                                const float *rstd, const T *residual, int64_t rows, int64_t E)
{
    typedef typename row_sum<T>::type sum_type;
    float *partial = partials + blockIdx.x * E;
    for (int64_t e = threadIdx.x; e < E; e += THREADS) partial[e] = 0;
    for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
        const float factor = rstd[row];
        sum_type dot = 0;
        for (int64_t e = threadIdx.x; e < E; e += THREADS)
            dot += (sum_type)(number(dy[row * E + e]) * gain[e]) * (sum_type)number(x[row * E + e]);
        const float mean = (float)(team_sum<THREADS>(dot) * (sum_type)factor / (sum_type)E);
        for (int64_t e = threadIdx.x; e < E; e += THREADS) {
            const float d = number(dy[row * E + e]), normal = number(x[row * E + e]) * factor;
            partial[e] += d * normal;
            const float straight = residual != NULL ? number(residual[row * E + e]) : 0;
            dx[row * E + e] = rounded<T>(straight + factor * (d * gain[e] - normal * mean));
        }
    }
}

/* ---- Biases, and sums over rows -------------------------------------------------------------- */

template <class T, int W>
__global__ void __launch_bounds__(THREADS)
    bias_kernel(T *y, const T *x, const float *bias, int64_t groups, int64_t E)
{
    const int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (i >= groups) return;
    float v[W], offset[W];
    read_numbers(v, x + i * W);
    read_numbers(offset, bias + i * W - row_of(i, E / W) * E);
#pragma unroll
    for (int w = 0; w < W; w++) v[w] += offset[w];
    write_numbers(y + i * W, v);
}

/* The sum of the rows that a block sees, for 32 W columns: its eight warps take turns. */
template <class T, int W>
__global__ void __launch_bounds__(THREADS)
    bias_backward_kernel(float *partials, const T *dy, int64_t rows, int64_t E)
{
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int64_t e = ((int64_t)blockIdx.y * 32 + lane) * W;
    float sum[W] = {};
    const int64_t end = e < E ? rows : 0;
    for (int64_t row = (int64_t)blockIdx.x * 8 + warp; row < end; row += (int64_t)gridDim.x * 8) {
        float v[W];
        read_numbers(v, dy + row * E + e);
#pragma unroll
        for (int w = 0; w < W; w++) sum[w] += v[w];
    }
    __shared__ float of_warp[8][32][W];
#pragma unroll
    for (int w = 0; w < W; w++) of_warp[warp][lane][w] = sum[w];
    __syncthreads();
    if (warp > 0 || e >= E) return;
    for (int other = 1; other < 8; other++)
#pragma unroll
        for (int w = 0; w < W; w++) sum[w] += of_warp[other][lane][w];
#pragma unroll
    for (int w = 0; w < W; w++) partials[blockIdx.x * E + e + w] = sum[w];
}

/* total[e] += the sum of the partial rows. */
__global__ void __launch_bounds__(COLUMNS *SLICES)
    partials_kernel(float *total, const float *partials, int64_t blocks, int64_t E)
{
    const int column = threadIdx.x % COLUMNS, slice = threadIdx.x / COLUMNS;
    const int64_t e = (int64_t)blockIdx.x * COLUMNS + column;
    double sum = 0;
    if (e < E) {
#pragma unroll 8
        for (int64_t block = slice; block < blocks; block += SLICES)
            sum += (double)partials[block * E + e];
    }
    __shared__ double of_slice[SLICES][COLUMNS];
    of_slice[slice][column] = sum;
    __syncthreads();
    if (slice > 0 || e >= E) return;
    for (int other = 1; other < SLICES; other++) sum += of_slice[other][column];
    total[e] = (float)((double)total[e] + sum);
}

} // namespace

/* ---- Launchers ------------------------------------------------------------------------------- */

int64_t norm_partial_rows(int64_t rows)
{
    int64_t blocks = blocks_for(rows, 8);
    return blocks < PARTIALS ? blocks : PARTIALS;
}

const char *launch_partials(plx_stream stream, float *total, const float *partials, int64_t blocks,
                            int64_t E)
{
    partials_kernel<<<blocks_for(E, COLUMNS), COLUMNS * SLICES, 0, (cudaStream_t)stream>>>(
        total, partials, blocks, E);
    return launched();
}

const char *launch_rmsnorm(plx_stream stream, plx_dtype dtype, void *y, float *rstd, const void *x,
                           const float *gain, int64_t rows, int64_t E, double eps)
{
    const bool wide = is_wide(E, y, x, gain) && E <= longest_row;
    if (rows == 0 || E == 0) return NULL;
    for_dtype(dtype, [&](auto zero) {
        typedef decltype(zero) T;
        if (!wide)
            rmsnorm_any_kernel<<<rows, THREADS, 0, (cudaStream_t)stream>>>(
                (T *)y, rstd, (const T *)x, gain, E, (float)eps);
        else
            for_layout(E, [&](auto lay) {
                typedef decltype(lay) L;
                launch_chained(rmsnorm_kernel<T, L>, blocks_for(rows, L::teams), L::threads, stream,
                               (T *)y, rstd, (const T *)x, gain, rows, (int)E, (float)eps);
            });
    });
    return launched();
}

const char *launch_rmsnorm_backward(plx_stream stream, plx_dtype dtype, void *dx, float *dgain,
                                    const void *dy, const void *x, const float *gain,
                                    const float *rstd, const void *residual, int64_t rows,
                                    int64_t E, float *partials)
{
    const bool wide = is_wide(E, dx, dy, x, gain, residual) && E <= longest_row;
    const int64_t blocks = norm_partial_rows(rows);
    if (rows == 0 || E == 0) return NULL;
    for_dtype(dtype, [&](auto zero) {
        typedef decltype(zero) T;
        if (!wide)
            rmsnorm_backward_any_kernel<<<blocks, THREADS, 0, (cudaStream_t)stream>>>(
                (T *)dx, partials, (const T *)dy, (const T *)x, gain, rstd, (const T *)residual,
                rows, E);
        else
            for_layout(E, [&](auto lay) {
                typedef decltype(lay) L;
                auto kernel = residual != NULL ? rmsnorm_backward_kernel<T, L, true>
                                               : rmsnorm_backward_kernel<T, L, false>;
                kernel<<<blocks, L::threads, 0, (cudaStream_t)stream>>>(
                    (T *)dx, partials, (const T *)dy, (const T *)x, gain, rstd, (const T *)residual,
                    rows, (int)E);
            });
    });
    return launch_partials(stream, dgain, partials, blocks, E);
}

const char *launch_bias(plx_stream stream, plx_dtype dtype, void *y, const void *x,
                        const float *bias, int64_t rows, int64_t E)
{
    if (rows == 0 || E == 0) return NULL;
    for_groups(dtype, is_wide(E, y, x, bias), [&](auto zero, auto w) {
        typedef decltype(zero) T;
        const int64_t groups = rows * E / w.value;
        bias_kernel<T, w.value><<<blocks_for(groups, THREADS), THREADS, 0, (cudaStream_t)stream>>>(
            (T *)y, (const T *)x, bias, groups, E);
    });
    return launched();
}

const char *launch_bias_backward(plx_stream stream, plx_dtype dtype, float *dbias, const void *dy,
                                 int64_t rows, int64_t E, float *partials)
{
    const int64_t blocks = norm_partial_rows(rows);
    if (rows == 0 || E == 0) return NULL;
    for_groups(dtype, is_wide(E, dy), [&](auto zero, auto w) {
        typedef decltype(zero) T;
        const dim3 grid(blocks, blocks_for(E, 32 * w.value));
        bias_backward_kernel<T, w.value>
            <<<grid, THREADS, 0, (cudaStream_t)stream>>>(partials, (const T *)dy, rows, E);
    });
    return launch_partials(stream, dbias, partials, blocks, E);
}
