/* gate_cuda.cu: SwiGLU and gates of heads; see launch.h. */
#include "ops/cuda/chain.cuh"

namespace
{

enum { THREADS = 256 };

template <class T, int W>
__global__ void __launch_bounds__(THREADS)
    swiglu_kernel(T *y, const T *gate, const T *up, int64_t groups)
{
    const int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    dependency_release();
    dependency_wait();
    if (i >= groups) return;
    float g[W], u[W];
    read_numbers(g, gate + i * W);
    read_numbers(u, up + i * W);
#pragma unroll
    for (int w = 0; w < W; w++) g[w] *= sigmoid<T>(g[w]) * u[w];
    write_numbers(y + i * W, g);
}

/* silu'(g) = s + g s (1 - s) with s = sigmoid(g). y, which may be dy, is what swiglu_kernel gives.
 */
template <class T, int W>
__global__ void __launch_bounds__(THREADS)
    swiglu_backward_kernel(T *dgate, T *dup, T *y, const T *dy, const T *gate, const T *up,
                           int64_t groups)
{
    const int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (i >= groups) return;
    float d[W], g[W], u[W];
    read_numbers(d, dy + i * W);
    read_numbers(g, gate + i * W);
    read_numbers(u, up + i * W);
#pragma unroll
    for (int w = 0; w < W; w++) {
        const float s = sigmoid<T>(g[w]), silu = g[w] * s, product = g[w] * (s * u[w]);
        g[w] = d[w] * u[w] * (s + silu * (1 - s));
        u[w] = d[w] * silu;
        d[w] = product;
    }
    write_numbers(dgate + i * W, g);
    write_numbers(dup + i * W, u);
    write_numbers(y + i * W, d);
}

template <class T, int W>
__global__ void __launch_bounds__(THREADS)
    gate_kernel(T *y, const T *x, const T *z, int64_t groups, int D)
{
    const int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (i >= groups) return;
    const float s = sigmoid<T>(number(z[row_of(i, D / W)]));
    float v[W];
    read_numbers(v, x + i * W);
#pragma unroll
    for (int w = 0; w < W; w++) v[w] *= s;
    write_numbers(y + i * W, v);
}

/* A warp a head. */
template <class T, int W>
__global__ void __launch_bounds__(THREADS)
    gate_backward_kernel(T *dx, T *dz, const T *dy, const T *x, const T *z, int64_t rows, int D)
{
    typedef typename row_sum<T>::type sum_type;
    const int lane = threadIdx.x % 32;
    const int64_t row = (int64_t)blockIdx.x * (THREADS / 32) + threadIdx.x / 32;
    if (row >= rows) return;
    const float s = sigmoid<T>(number(z[row]));
    sum_type dot = 0;
    for (int d = lane * W; d < D; d += 32 * W) {
        float up[W], in[W];
        read_numbers(up, dy + row * D + d);
        read_numbers(in, x + row * D + d);
#pragma unroll
        for (int w = 0; w < W; w++) {
            dot += (sum_type)up[w] * (sum_type)in[w];
            up[w] *= s;
        }
        write_numbers(dx + row * D + d, up);
    }
    dot = team_sum<32>(dot);
    if (lane == 0) dz[row] = rounded<T>((float)dot * s * (1 - s));
}

} // namespace

/* ---- Launchers ------------------------------------------------------------------------------- */

const char *launch_swiglu(plx_stream stream, plx_dtype dtype, void *y, const void *gate,
                          const void *up, int64_t count)
{
    if (count == 0) return NULL;
    for_groups(dtype, is_wide(count, y, gate, up), [&](auto zero, auto w) {
        typedef decltype(zero) T;
        const int64_t groups = count / w.value;
        launch_chained(swiglu_kernel<T, w.value>, blocks_for(groups, THREADS), THREADS, stream,
                       (T *)y, (const T *)gate, (const T *)up, groups);
    });
    return launched();
}

const char *launch_swiglu_backward(plx_stream stream, plx_dtype dtype, void *dgate, void *dup,
                                   void *product, const void *dy, const void *gate, const void *up,
                                   int64_t count)
{
    if (count == 0) return NULL;
    for_groups(dtype, is_wide(count, dgate, dup, product, dy, gate, up), [&](auto zero, auto w) {
        typedef decltype(zero) T;
        const int64_t groups = count / w.value;
        swiglu_backward_kernel<T, w.value>
            <<<blocks_for(groups, THREADS), THREADS, 0, (cudaStream_t)stream>>>(
                (T *)dgate, (T *)dup, (T *)product, (const T *)dy, (const T *)gate, (const T *)up,
                groups);
    });
    return launched();
}

const char *launch_gate(plx_stream stream, plx_dtype dtype, void *y, const void *x, const void *z,
                        int64_t rows, int64_t D)
{
    if (rows == 0 || D == 0) return NULL;
    for_groups(dtype, is_wide(D, y, x), [&](auto zero, auto w) {
        typedef decltype(zero) T;
        const int64_t groups = rows * D / w.value;
        gate_kernel<T, w.value><<<blocks_for(groups, THREADS), THREADS, 0, (cudaStream_t)stream>>>(
            (T *)y, (const T *)x, (const T *)z, groups, (int)D);
    });
    return launched();
}

const char *launch_gate_backward(plx_stream stream, plx_dtype dtype, void *dx, void *dz,
                                 const void *dy, const void *x, const void *z, int64_t rows,
                                 int64_t D)
{
    if (rows == 0) return NULL;
    for_groups(dtype, is_wide(D, dx, dy, x), [&](auto zero, auto w) {
        typedef decltype(zero) T;
        gate_backward_kernel<T, w.value>
            <<<blocks_for(rows, THREADS / 32), THREADS, 0, (cudaStream_t)stream>>>(
                (T *)dx, (T *)dz, (const T *)dy, (const T *)x, (const T *)z, rows, (int)D);
    });
    return launched();
}
