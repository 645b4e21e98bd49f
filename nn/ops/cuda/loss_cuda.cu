/* loss_cuda.cu: cross entropy over the vocabulary and its gradient; see launch.h.
 *
 * A block takes one token after another. It reads a row of logits once, finding maximum and sum of
 * exponentials on the way, and keeps as much of it as shared memory holds; then it writes the
 * gradient from what it kept, fetching the next token's row into each place as it becomes free, so
 * that memory is never idle. What does not fit is read twice, the second time from the second-level
 * cache. The terms of the sum are added up with compensation, because a confident loss,
 * log(1 + little), is as small as what rounding would leave. */
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

/* ---- Rows in shared memory: each thread reads what it fetched itself ------------------------- */

template <class T, int W> static __device__ __forceinline__ void fetch(T *to, const T *from)
{
    if constexpr (W == 1) {
        *to = *from;
    } else {
        const uint32_t target = (uint32_t)__cvta_generic_to_shared(to);
#pragma unroll
        for (int i = 0; i < (int)sizeof(T) / 2; i++)
            asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(target + 16 * i),
                         "l"(from + i * 16 / sizeof(T))
                         : "memory");
    }
}

static __device__ __forceinline__ void wait_for_fetched(void)
{
    asm volatile("cp.async.wait_all;" ::: "memory");
}

/* ---- The kernel ------------------------------------------------------------------------------ */

/* What a thread looks at: W numbers from first on, and again every stride. Those before kept are in
 * shared memory, a multiple of the stride. */
struct span {
    int64_t first, stride, kept, V;
};

/* Calls work(v, values) for what is not kept. */
template <class T, int W, class Work>
static __device__ __forceinline__ void for_rest(const T *in, const struct span &span,
                                                const Work &work)
{
    for (int64_t begin = span.first + span.kept; begin < span.V; begin += AHEAD * span.stride) {
        group<T, W> ahead[AHEAD];
#pragma unroll
        for (int a = 0; a < AHEAD; a++)
            if (begin + a * span.stride < span.V) ahead[a].load(in + begin + a * span.stride);
#pragma unroll
        for (int a = 0; a < AHEAD; a++) {
            float values[W];
            if (begin + a * span.stride >= span.V) continue;
            ahead[a].get(values);
            work(begin + a * span.stride, values);
        }
    }
}

template <class T, int W>
static __device__ __forceinline__ struct softmax_part row_part(const T *in, const T *keep,
                                                               const struct span &span)
{
    struct softmax_part part = {-FLT_MAX, 0, 0};
    for_rest<T, W>(in, span,
                   [&](int64_t, float(&values)[W]) { part_add_group<T, W>(part, values); });
    wait_for_fetched();
    for (int64_t v = span.first; v < span.kept && v < span.V; v += span.stride) {
        float values[W];
        read_numbers(values, keep + v);
        part_add_group<T, W>(part, values);
    }
    return part;
}

template <class T, int W>
__global__ void __launch_bounds__(THREADS_MAX)
    cross_entropy_kernel(float *losses, T *dlogits, const T *logits, const int32_t *targets,
                         double scale, int64_t N, int64_t V, int kept)
{
    extern __shared__ __align__(16) unsigned char shared[];
    T *keep = (T *)shared;
    const struct span span = {(int64_t)threadIdx.x * W, (int64_t)blockDim.x * W, kept, V};
    for (int64_t v = span.first; v < span.kept && v < V; v += span.stride)
        fetch<T, W>(keep + v, logits + blockIdx.x * V + v);
    for (int64_t row = blockIdx.x; row < N; row += gridDim.x) {
        const T *in = logits + row * V, *next = in + gridDim.x * V;
        const int target = targets[row];
        const bool scored = target >= 0, followed = row + gridDim.x < N;
        const float wanted = !scored ? 0 : target < V ? number(in[target]) : NAN;
        float most = 0;
        double sum = 1;
        if (scored) block_softmax<T>(row_part<T, W>(in, keep, span), &most, &sum);
        if (threadIdx.x == 0)
            losses[row] = scored ? (float)(log(sum) + (double)most - (double)wanted) : 0;
        if (dlogits == NULL) continue;
        const float factor = scored ? (float)(scale / sum) : 0;
        auto write = [&](int64_t v, float(&values)[W]) {
#pragma unroll
            for (int w = 0; w < W; w++) {
                const float term = exponential<T>(values[w] - most);
                values[w] = scored ? factor * term : 0;
                if (v + w == target) values[w] = (float)(scale * (((double)term - sum) / sum));
            }
            write_numbers(dlogits + row * V + v, values);
        };
        if (!scored) wait_for_fetched();
        for (int64_t v = span.first; v < span.kept && v < V; v += span.stride) {
            float values[W];
            read_numbers(values, keep + v);
            write(v, values);
            if (followed) fetch<T, W>(keep + v, next + v);
        }
        for_rest<T, W>(in, span, write);
    }
}

/* Enough threads that each has a few groups, shared memory for as many numbers as there are, and as
 * many blocks as the GPU holds at a time. */
struct plan {
    int threads, kept;
    size_t shared;
    int64_t blocks;
};

template <class T, int W>
static cudaError_t make_plan(int64_t N, int64_t V, bool gradient, struct plan *plan)
{
    auto kernel = cross_entropy_kernel<T, W>;
    const int64_t wanted = blocks_for(V, AHEAD * W * 32) * 32;
    const int64_t limit = gradient ? THREADS_MAX : THREADS_MAX / 2;
    int device, processors, space, resident;
    *plan = (struct plan){.threads = (int)(wanted < limit ? wanted : limit)};
    cudaError_t error = cudaGetDevice(&device);
    if (error == cudaSuccess)
        error = cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device);
    if (error == cudaSuccess)
        error = cudaDeviceGetAttribute(&space, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
    if (error != cudaSuccess) return error;
    const int64_t stride = (int64_t)plan->threads * W, most = (space - 1024) / (int64_t)sizeof(T);
    const int64_t all = blocks_for(V, stride) * stride, fits = most / stride * stride;
    if (gradient) plan->kept = (int)(all < fits ? all : fits);
    plan->shared = (size_t)plan->kept * sizeof(T);
    error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                 (int)plan->shared);
    if (error == cudaSuccess)
        error = cudaOccupancyMaxActiveBlocksPerMultiprocessor(&resident, kernel, plan->threads,
                                                              plan->shared);
    if (error != cudaSuccess) return error;
    plan->blocks = (int64_t)processors * (resident > 0 ? resident : 1);
    if (plan->blocks > N) plan->blocks = N;
    return cudaSuccess;
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
        error = make_plan<T, w.value>(N, V, dlogits != NULL, &plan);
        if (error != cudaSuccess) return;
        cross_entropy_kernel<T, w.value>
            <<<plan.blocks, plan.threads, plan.shared, (cudaStream_t)stream>>>(
                losses, (T *)dlogits, (const T *)logits, targets, scale, N, V, plan.kept);
    });
    return error == cudaSuccess ? launched() : cudaGetErrorString(error);
}
