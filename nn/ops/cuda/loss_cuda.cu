/* loss_cuda.cu: cross entropy over the vocabulary and its gradient, and the likeliest token; see
 * launch.h.
 *
 * A block takes a token. It reads the row of logits once, keeping as much of it as its shared
 * memory holds, and finds maximum and sum of exponentials on the way; then it writes the gradient
 * from what it kept and reads only the rest again, which is still in the second-level cache. The
 * terms of the sum are added up with compensation, because a confident loss, log(1 + little), is as
 * small as what rounding would leave. */
#include "numbers.cuh"

namespace
{

enum {
    THREADS_MAX = 1024,
    AHEAD = 4 /* groups that a thread loads before it uses the first */
};

/* sum - lost, times exp(most). */
struct softmax_part {
    float most, sum, lost;
};

template <class T>
static __device__ __forceinline__ void part_add(struct softmax_part &part, float logit)
{
    const float term = exponential<T>(logit - part.most) - part.lost, sum = part.sum + term;
    part.lost = (sum - part.sum) - term;
    part.sum = sum;
}

template <class T, int W>
static __device__ __forceinline__ void part_add_group(struct softmax_part &part,
                                                      const float (&logits)[W])
{
    float most = part.most;
#pragma unroll
    for (int w = 0; w < W; w++) most = fmaxf(most, logits[w]);
    if (most > part.most) {
        const float factor = exponential<T>(part.most - most);
        part.most = most;
        part.sum *= factor;
        part.lost *= factor;
    }
#pragma unroll
    for (int w = 0; w < W; w++) part_add<T>(part, logits[w]);
}

/* The maximum and the sum of exp(logit - maximum) over the block, in each thread. */
template <class T>
static __device__ __forceinline__ void block_softmax(const struct softmax_part &part, float *most,
                                                     double *sum)
{
    __shared__ float most_of[32];
    __shared__ double sum_of[32];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
    float largest = part.most;
    for (int step = 16; step > 0; step /= 2)
        largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, step));
    if (lane == 0) most_of[warp] = largest;
    __syncthreads();
    for (int other = 0; other < warps; other++) largest = fmaxf(largest, most_of[other]);
    double mine = (double)part.sum - (double)part.lost;
    mine = team_sum<32>(mine * (double)exponential<T>(part.most - largest));
    if (lane == 0) sum_of[warp] = mine;
    __syncthreads();
    *most = largest;
    *sum = 0;
    for (int other = 0; other < warps; other++) *sum += sum_of[other];
}

template <class T, int W> static __device__ void clear_row(T *row, int64_t V)
{
    const float zeros[W] = {};
    for (int64_t v = (int64_t)threadIdx.x * W; v < V; v += (int64_t)blockDim.x * W)
        write_numbers(row + v, zeros);
}

/* kept: numbers that fit shared memory, a multiple of W times the threads. */
template <class T, int W>
__global__ void __launch_bounds__(THREADS_MAX)
    cross_entropy_kernel(float *losses, T *dlogits, const T *logits, const int32_t *targets,
                         double scale, int64_t V, int kept)
{
    extern __shared__ __align__(16) unsigned char shared[];
    T *keep = (T *)shared;
    const int64_t row = blockIdx.x, stride = (int64_t)blockDim.x * W;
    const int64_t start = (int64_t)threadIdx.x * W;
    const int target = targets[row];
    const T *in = logits + row * V;
    T *out = dlogits == NULL ? NULL : dlogits + row * V;
    if (target < 0) {
        if (threadIdx.x == 0) losses[row] = 0;
        if (out != NULL) clear_row<T, W>(out, V);
        return;
    }
    const float wanted = target < V ? number(in[target]) : NAN;
    struct softmax_part part = {-FLT_MAX, 0, 0};
    for (int64_t first = start; first < V; first += AHEAD * stride) {
        group<T, W> ahead[AHEAD];
#pragma unroll
        for (int a = 0; a < AHEAD; a++)
            if (first + a * stride < V) ahead[a].load(in + first + a * stride);
#pragma unroll
        for (int a = 0; a < AHEAD; a++) {
            const int64_t v = first + a * stride;
            if (v >= V) continue;
            float values[W];
            ahead[a].get(values);
            part_add_group<T, W>(part, values);
            if (v < kept) ahead[a].store(keep + v);
        }
    }
    float most;
    double sum;
    block_softmax<T>(part, &most, &sum);
    if (threadIdx.x == 0) losses[row] = (float)(log(sum) + (double)most - (double)wanted);
    if (out == NULL) return;
    const float factor = (float)(scale / sum);
    auto write = [&](int64_t v, const T *from) {
        float values[W];
        read_numbers(values, from);
#pragma unroll
        for (int w = 0; w < W; w++) {
            const float term = exponential<T>(values[w] - most);
            values[w] = factor * term;
            if (v + w == target) values[w] = (float)(scale * (((double)term - sum) / sum));
        }
        write_numbers(out + v, values);
    };
    int64_t v = start;
#pragma unroll AHEAD
    for (; v < V && v < kept; v += stride) write(v, keep + v);
#pragma unroll AHEAD
    for (; v < V; v += stride) write(v, in + v);
}

/* Enough threads that each has a few groups, and shared memory for as many numbers as there are. */
struct plan {
    int threads, kept;
    size_t shared;
};

template <class T, int W> static cudaError_t make_plan(int64_t V, bool gradient, struct plan *plan)
{
    const int64_t wanted = blocks_for(V, AHEAD * W * 32) * 32;
    int device, most = 0;
    *plan = (struct plan){.threads = (int)(wanted < THREADS_MAX ? wanted : THREADS_MAX)};
    if (!gradient) return cudaSuccess;
    cudaError_t error = cudaGetDevice(&device);
    if (error == cudaSuccess)
        error = cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
    const int64_t stride = (int64_t)plan->threads * W, space = (most - 1024) / (int64_t)sizeof(T);
    const int64_t all = blocks_for(V, stride) * stride, fits = space / stride * stride;
    plan->kept = (int)(all < fits ? all : fits);
    plan->shared = (size_t)plan->kept * sizeof(T);
    if (error == cudaSuccess)
        error =
            cudaFuncSetAttribute(cross_entropy_kernel<T, W>,
                                 cudaFuncAttributeMaxDynamicSharedMemorySize, (int)plan->shared);
    return error;
}

/* ---- The largest number of a row ---- */

/* V where there is none yet. */
struct largest_part {
    float value;
    int64_t index;
};

/* The larger, of equal ones the first. */
static __device__ __forceinline__ void largest_join(struct largest_part &part, float value,
                                                    int64_t index)
{
    if (value > part.value || (value == part.value && index < part.index)) part = {value, index};
}

static __device__ __forceinline__ void largest_join_warp(struct largest_part &part)
{
    for (int step = 16; step > 0; step /= 2) {
        const float value = __shfl_xor_sync(0xffffffffu, part.value, step);
        const int64_t index = __shfl_xor_sync(0xffffffffu, part.index, step);
        largest_join(part, value, index);
    }
}

/* A block takes a row. */
__global__ void __launch_bounds__(THREADS_MAX)
    argmax_kernel(int32_t *ids, const float *x, int64_t V)
{
    __shared__ struct largest_part of_warp[32];
    const float *row = x + (int64_t)blockIdx.x * V;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
    struct largest_part part = {-INFINITY, V};
    for (int64_t v = threadIdx.x; v < V; v += blockDim.x) largest_join(part, row[v], v);
    largest_join_warp(part);
    if (lane == 0) of_warp[warp] = part;
    __syncthreads();
    if (warp > 0) return;
    part = lane < warps ? of_warp[lane] : largest_part{-INFINITY, V};
    largest_join_warp(part);
    if (lane == 0) ids[blockIdx.x] = part.index < V ? (int32_t)part.index : 0;
}

} // namespace

const char *launch_argmax(plx_stream stream, int32_t *ids, const float *x, int64_t N, int64_t V)
{
    if (N == 0 || V == 0) return NULL;
    argmax_kernel<<<N, THREADS_MAX, 0, (cudaStream_t)stream>>>(ids, x, V);
    return launched();
}

const char *launch_cross_entropy(plx_stream stream, plx_dtype dtype, float *losses, void *dlogits,
                                 const void *logits, const int32_t *targets, double scale,
                                 int64_t N, int64_t V)
{
    cudaError_t error = cudaSuccess;
    if (N == 0 || V == 0) return NULL;
    for_groups(dtype, is_wide(V, dlogits, logits), [&](auto zero, auto w) {
        typedef decltype(zero) T;
        struct plan plan;
        error = make_plan<T, w.value>(V, dlogits != NULL, &plan);
        if (error != cudaSuccess) return;
        cross_entropy_kernel<T, w.value><<<N, plan.threads, plan.shared, (cudaStream_t)stream>>>(
            losses, (T *)dlogits, (const T *)logits, targets, scale, V, plan.kept);
    });
    return error == cudaSuccess ? launched() : cudaGetErrorString(error);
}
