/* gemv_cuda.cu: products of a few rows with a weight, as generation makes them; see launch.h.
 *
 * What such a product costs is reading the weight once. A team of threads takes a row of it, wide
 * enough that each thread has all its loads under way at once, and multiplies it with every row of
 * x, which the first-level cache holds. Sums are in float, in a fixed order. In a chain the first
 * loads of a constant weight are under way before the kernels ahead have finished. */
#include "ops/cuda/chain.cuh"

namespace
{

enum {
    THREADS = 256,
    FEW = 2,     /* rows of x; with 8 cuBLASLt is twice as fast, more than 2 were not measured */
    FEW_INT8 = 8 /* the same of a weight that cuBLASLt cannot read */
};

/* Numbers of a load, and loads that a thread has under way: of 32 numbers together. */
template <class W> constexpr int WIDE = sizeof(W) == 1 ? 16 : 8;
template <class W> constexpr int AHEAD = 32 / WIDE<W>;

template <class T, class W, class C, int M, int TEAM>
__global__ void __launch_bounds__(THREADS)
    gemv_kernel(C *y, const T *x, const W *weight, const float *scale, const C *add, int rows,
                int64_t N, int64_t K, bool constant)
{
    const int lane = threadIdx.x % TEAM;
    const int64_t n = (int64_t)blockIdx.x * (blockDim.x / TEAM) + threadIdx.x / TEAM;
    const W *row = weight + (n < N ? n : N - 1) * K;
    float sum[M] = {};
    bool waits = constant;
    dependency_release();
    if (!waits) dependency_wait();
    for (int64_t first = lane * WIDE<W>; first < K; first += AHEAD<W> * TEAM * WIDE<W>) {
        group<W, WIDE<W>> ahead[AHEAD<W>];
#pragma unroll
        for (int a = 0; a < AHEAD<W>; a++)
            if (first + a * TEAM * WIDE<W> < K) ahead[a].load(row + first + a * TEAM * WIDE<W>);
        if (waits) dependency_wait();
        waits = false;
#pragma unroll
        for (int a = 0; a < AHEAD<W>; a++) {
            const int64_t k = first + a * TEAM * WIDE<W>;
            if (k >= K) continue;
            float w[WIDE<W>], v[8];
            ahead[a].get(w);
#pragma unroll
            for (int m = 0; m < M; m++) {
                if (m >= rows) continue;
#pragma unroll
                for (int part = 0; part < WIDE<W>; part += 8) {
                    read_numbers(v, x + m * K + k + part);
#pragma unroll
                    for (int i = 0; i < 8; i++) sum[m] += w[part + i] * v[i];
                }
            }
        }
    }
    if (waits) dependency_wait();
    const float unit = scale != NULL && n < N ? scale[n] : 1;
#pragma unroll
    for (int m = 0; m < M; m++) {
        float total = team_sum<TEAM>(sum[m]) * unit;
        if (lane != 0 || n >= N || m >= rows) continue;
        if (add != NULL) total += number(add[m * N + n]);
        y[m * N + n] = rounded<C>(total);
    }
}

template <class T, class W, class C, int M>
static void launch_teams(plx_stream stream, const struct gemv *call)
{
    const int64_t loads = blocks_for(call->K, WIDE<W> * AHEAD<W>);
    auto launch = [&](auto kernel, int64_t blocks, int threads) {
        launch_chained(kernel, blocks, threads, stream, (C *)call->y, (const T *)call->x,
                       (const W *)call->weight, call->scale, (const C *)call->add, call->rows,
                       call->N, call->K, call->constant);
    };
    if (loads <= 32)
        launch(gemv_kernel<T, W, C, M, 32>, blocks_for(call->N, THREADS / 32), THREADS);
    else if (loads <= 64)
        launch(gemv_kernel<T, W, C, M, 64>, call->N, 64);
    else if (loads <= 128)
        launch(gemv_kernel<T, W, C, M, 128>, call->N, 128);
    else
        launch(gemv_kernel<T, W, C, M, 256>, call->N, 256);
}

template <class T, class C> static void launch_rows(plx_stream stream, const struct gemv *call)
{
    if (call->scale == NULL && call->rows == 1)
        launch_teams<T, T, C, 1>(stream, call);
    else if (call->scale == NULL)
        launch_teams<T, T, C, FEW>(stream, call);
    else if (call->rows == 1)
        launch_teams<T, int8_t, C, 1>(stream, call);
    else if (call->rows <= FEW)
        launch_teams<T, int8_t, C, FEW>(stream, call);
    else
        launch_teams<T, int8_t, C, FEW_INT8>(stream, call);
}

} // namespace

bool launch_gemv_serves(const struct gemv *call)
{
    const bool bytes = call->scale != NULL;
    return call->rows >= 1 && call->rows <= (bytes ? FEW_INT8 : FEW) && call->N >= 1 &&
           is_wide(call->K, call->x, call->weight) && call->K % (bytes ? 16 : 8) == 0 &&
           call->K > 0;
}

const char *launch_gemv(plx_stream stream, const struct gemv *call)
{
    for_dtype(call->in, [&](auto in) {
        for_dtype(call->out,
                  [&](auto out) { launch_rows<decltype(in), decltype(out)>(stream, call); });
    });
    return launched();
}
