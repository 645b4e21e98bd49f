/* packed_cuda.cu: products with weights of bf16 or int8, and rows of such tables; see launch.h. */
#include "ops/cuda/numbers.cuh"

namespace
{

enum { THREADS = 256, ROWS = 8 /* of x that a warp multiplies at a time */ };

/* Of any lengths and on any addresses: a warp takes a row of the weight, reads it once and
 * multiplies a few rows of x with it. Sums are in float over x as it is. */
template <class T, class P, class C>
__global__ void __launch_bounds__(THREADS)
    project_kernel(C *y, const T *x, const P *weight, const float *scale, const C *add, int64_t M,
                   int64_t N, int64_t K)
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
        float total = team_sum<32>(sum[m]) * (scale != NULL ? scale[n] : 1);
        if (lane != 0 || m >= count) continue;
        if (add != NULL) total += number(add[(first + m) * N + n]);
        y[(first + m) * N + n] = rounded<C>(total);
    }
}

template <class T, class P, int W>
__global__ void __launch_bounds__(THREADS) widen_kernel(T *wide, const P *packed, int64_t groups)
{
    const int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    float v[W];
    if (i >= groups) return;
    read_numbers(v, packed + i * W);
    if constexpr (W == 1) {
        write_numbers(wide + i, v);
    } else {
#pragma unroll
        for (int part = 0; part < W; part += 8) {
            float eight[8];
#pragma unroll
            for (int k = 0; k < 8; k++) eight[k] = v[part + k];
            write_numbers(wide + i * W + part, eight);
        }
    }
}

template <class T>
__global__ void __launch_bounds__(THREADS) scale_kernel(const struct scaled_sums call)
{
    const int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (i >= call.M * call.N) return;
    const int64_t m = row_of(i, call.N), n = i - m * call.N, place = m * call.stride + n;
    float total = call.sums[i] * (call.scale != NULL ? call.scale[n] : 1);
    if (call.add != NULL) total += number(((const T *)call.add)[place]);
    ((T *)call.y)[place] = rounded<T>(total);
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
template <class Work> void for_packed(bool int8, const Work &work)
{
    if (int8)
        work(int8_t());
    else
        work(bf16());
}

} // namespace

const char *launch_project(plx_stream stream, const struct gemv *call)
{
    const dim3 grid(blocks_for(call->N, THREADS / 32), blocks_for(call->rows, ROWS));
    if (call->rows == 0 || call->N == 0) return NULL;
    for_dtype(call->in, [&](auto in) {
        for_dtype(call->out, [&](auto out) {
            for_packed(call->scale != NULL, [&](auto none) {
                typedef decltype(in) T;
                typedef decltype(out) C;
                typedef decltype(none) P;
                project_kernel<<<grid, THREADS, 0, (cudaStream_t)stream>>>(
                    (C *)call->y, (const T *)call->x, (const P *)call->weight, call->scale,
                    (const C *)call->add, (int64_t)call->rows, call->N, call->K);
            });
        });
    });
    return launched();
}

const char *launch_widen(plx_stream stream, plx_dtype dtype, void *wide, const void *packed,
                         bool int8, int64_t count)
{
    if (count == 0) return NULL;
    for_dtype(dtype, [&](auto zero) {
        for_packed(int8, [&](auto none) {
            typedef decltype(zero) T;
            typedef decltype(none) P;
            constexpr int W = sizeof(P) == 1 ? 16 : 8;
            if (count % W == 0 && is_wide(8, wide, packed))
                widen_kernel<T, P, W>
                    <<<blocks_for(count / W, THREADS), THREADS, 0, (cudaStream_t)stream>>>(
                        (T *)wide, (const P *)packed, count / W);
            else
                widen_kernel<T, P, 1>
                    <<<blocks_for(count, THREADS), THREADS, 0, (cudaStream_t)stream>>>(
                        (T *)wide, (const P *)packed, count);
        });
    });
    return launched();
}

const char *launch_scale(plx_stream stream, plx_dtype dtype, const struct scaled_sums *call)
{
    const int64_t count = call->M * call->N;
    if (count == 0) return NULL;
    for_dtype(dtype, [&](auto zero) {
        scale_kernel<decltype(zero)>
            <<<blocks_for(count, THREADS), THREADS, 0, (cudaStream_t)stream>>>(*call);
    });
    return launched();
}

const char *launch_unpack(plx_stream stream, plx_dtype dtype, void *y, const void *table,
                          const float *scale, const int32_t *ids, int64_t N, int64_t V, int64_t E)
{
    const int64_t count = N * E;
    if (count == 0) return NULL;
    for_dtype(dtype, [&](auto zero) {
        for_packed(scale != NULL, [&](auto none) {
            typedef decltype(zero) T;
            typedef decltype(none) P;
            unpack_kernel<<<blocks_for(count, THREADS), THREADS, 0, (cudaStream_t)stream>>>(
                (T *)y, (const P *)table, scale, ids, count, V, E);
        });
    });
    return launched();
}
