/* gemv_cuda.cu: products of a few rows with a weight, as generation makes them; see launch.h.
 *
 * What such a product costs is reading the weight once. A team of threads takes a row of it, wide
 * enough that each thread has all its loads under way at once, and multiplies it with every row of
 * x, which the first-level cache holds. Sums are in float, in a fixed order. */
#include "numbers.cuh"

namespace
{

enum {
    THREADS = 256,
    WIDE = 8, /* numbers of a load */
    AHEAD = 4 /* loads that a thread has under way */
};

template <class T, class C, int M, int TEAM>
__global__ void __launch_bounds__(THREADS)
    gemv_kernel(C *y, const T *x, const T *weight, const C *add, int rows, int64_t N, int64_t K)
{
    const int lane = threadIdx.x % TEAM;
    const int64_t n = (int64_t)blockIdx.x * (blockDim.x / TEAM) + threadIdx.x / TEAM;
    const T *row = weight + (n < N ? n : N - 1) * K;
    float sum[M] = {};
    for (int64_t first = lane * WIDE; first < K; first += AHEAD * TEAM * WIDE) {
        group<T, WIDE> ahead[AHEAD];
#pragma unroll
        for (int a = 0; a < AHEAD; a++)
            if (first + a * TEAM * WIDE < K) ahead[a].load(row + first + a * TEAM * WIDE);
#pragma unroll
        for (int a = 0; a < AHEAD; a++) {
            const int64_t k = first + a * TEAM * WIDE;
            if (k >= K) continue;
            float w[WIDE], v[WIDE];
            ahead[a].get(w);
#pragma unroll
            for (int m = 0; m < M; m++) {
                if (m >= rows) continue;
                read_numbers(v, x + m * K + k);
#pragma unroll
                for (int i = 0; i < WIDE; i++) sum[m] += w[i] * v[i];
            }
        }
    }
#pragma unroll
    for (int m = 0; m < M; m++) {
        float total = team_sum<TEAM>(sum[m]);
        if (lane != 0 || n >= N || m >= rows) continue;
        if (add != NULL) total += number(add[m * N + n]);
        y[m * N + n] = rounded<C>(total);
    }
}

template <class T, class C, int M>
static void launch_teams(cudaStream_t stream, C *y, const T *x, const T *weight, const C *add,
                         int rows, int64_t N, int64_t K)
{
    const int64_t loads = blocks_for(K, WIDE * AHEAD);
    if (loads <= 32)
        gemv_kernel<T, C, M, 32>
            <<<blocks_for(N, THREADS / 32), THREADS, 0, stream>>>(y, x, weight, add, rows, N, K);
    else if (loads <= 64)
        gemv_kernel<T, C, M, 64><<<N, 64, 0, stream>>>(y, x, weight, add, rows, N, K);
    else if (loads <= 128)
        gemv_kernel<T, C, M, 128><<<N, 128, 0, stream>>>(y, x, weight, add, rows, N, K);
    else
        gemv_kernel<T, C, M, 256><<<N, 256, 0, stream>>>(y, x, weight, add, rows, N, K);
}

} // namespace

bool launch_gemv_serves(const struct gemv *call)
{
    return call->rows >= 1 && call->rows <= 8 && call->N >= 1 &&
           is_wide(call->K, call->x, call->weight) && call->K >= WIDE;
}

const char *launch_gemv(plx_stream stream, const struct gemv *call)
{
    for_dtype(call->in, [&](auto in) {
        for_dtype(call->out, [&](auto out) {
            typedef decltype(in) T;
            typedef decltype(out) C;
            const int rows = call->rows;
            auto launch = [&](auto most) {
                launch_teams<T, C, most.value>((cudaStream_t)stream, (C *)call->y,
                                               (const T *)call->x, (const T *)call->weight,
                                               (const C *)call->add, rows, call->N, call->K);
            };
            if (rows == 1)
                launch(width<1>());
            else if (rows == 2)
                launch(width<2>());
            else if (rows <= 4)
                launch(width<4>());
            else
                launch(width<8>());
        });
    });
    return launched();
}
