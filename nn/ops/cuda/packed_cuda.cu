/* packed_cuda.cu: products with weights of bf16 or int8, and rows of such tables; see launch.h.
 *
 * A warp takes a row of the weight, reads it once and multiplies a few rows of x with it: the
 * weight is what generation reads. Sums are in float over x as it is. */
#include "numbers.cuh"

namespace
{

enum { THREADS = 256, ROWS = 8 /* of x that a warp multiplies at a time */ };

template <class T, class P>
__global__ void __launch_bounds__(THREADS)
    project_kernel(T *y, const T *x, const P *weight, const float *scale, int64_t M, int64_t N,
                   int64_t K)
{
    const int lane = threadIdx.x % 32;
    const int64_t n = (int64_t)blockIdx.x * (THREADS / 32) + threadIdx.x / 32;
    const int64_t first = (int64_t)blockIdx.y * ROWS;
    const int count = (int)(M - first < ROWS ? M - first : ROWS);
    float sum[ROWS] = {};
    if (n >= N) return;
    for (int64_t k = lane; k < K; k += 32) {
        const float w = number(weight[n * K + k]);
#pragma unroll
        for (int m = 0; m < ROWS; m++)
            if (m < count) sum[m] += w * number(x[(first + m) * K + k]);
    }
#pragma unroll
    for (int m = 0; m < ROWS; m++) {
        const float total = team_sum<32>(sum[m]) * (scale != NULL ? scale[n] : 1);
        if (lane == 0 && m < count) y[(first + m) * N + n] = rounded<T>(total);
    }
}

/* A row outside the table becomes NaN. */
template <class T, class P>
__global__ void __launch_bounds__(THREADS)
    unpack_kernel(T *y, const P *table, const float *scale, const int32_t *ids, int64_t count,
                  int64_t V, int64_t E)
{
    const int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (i >= count) return;
    const int64_t n = row_of(i, E), id = ids[n];
    float v = NAN;
    if (id >= 0 && id < V) v = number(table[(id - n) * E + i]) * (scale != NULL ? scale[id] : 1);
    y[i] = rounded<T>(v);
}

/* Calls work with a number of the packed type. */
template <class Work> void for_packed(const float *scale, const Work &work)
{
    if (scale == NULL)
        work(bf16());
    else
        work(int8_t());
}

} // namespace

const char *launch_project(plx_stream stream, plx_dtype dtype, void *y, const void *x,
                           const void *weight, const float *scale, int64_t M, int64_t N, int64_t K)
{
    const dim3 grid(blocks_for(N, THREADS / 32), blocks_for(M, ROWS));
    if (M == 0 || N == 0) return NULL;
    for_dtype(dtype, [&](auto zero) {
        for_packed(scale, [&](auto none) {
            typedef decltype(zero) T;
            typedef decltype(none) P;
            project_kernel<<<grid, THREADS, 0, (cudaStream_t)stream>>>(
                (T *)y, (const T *)x, (const P *)weight, scale, M, N, K);
        });
    });
    return launched();
}

const char *launch_unpack(plx_stream stream, plx_dtype dtype, void *y, const void *table,
                          const float *scale, const int32_t *ids, int64_t N, int64_t V, int64_t E)
{
    const int64_t count = N * E;
    if (count == 0) return NULL;
    for_dtype(dtype, [&](auto zero) {
        for_packed(scale, [&](auto none) {
            typedef decltype(zero) T;
            typedef decltype(none) P;
            unpack_kernel<<<blocks_for(count, THREADS), THREADS, 0, (cudaStream_t)stream>>>(
                (T *)y, (const P *)table, scale, ids, count, V, E);
        });
    });
    return launched();
}
