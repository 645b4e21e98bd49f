/* loss_cuda.cu: cross entropy over the vocabulary and its gradient; see launch.h.
 *
 * A block takes one token after another. It reads a row of logits once, finding maximum and sum of
 * exponentials on the way, and keeps as much of it as shared memory holds; then it writes the
 * gradient from what it kept, fetching the next token's row into each place as it becomes free, so
 * that memory is never idle. What does not fit is read twice, the second time from the second-level
 * cache. The terms of the sum are added up with compensation, because a confident loss,
 * log(1 + little), is as small as what rounding would leave. A row of a few hundred logits belongs
 * to a warp, which holds it in registers. */
#include "ops/cuda/numbers.cuh"

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

static __device__ __forceinline__ float warp_most(float most)
{
#pragma unroll
    for (int step = 16; step > 0; step /= 2)
        most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, step));
    return most;
}

/* The sum of exp(logit - most) over the warp. */
template <class T>
static __device__ __forceinline__ double warp_softmax(const struct softmax_part &part, float most)
{
    const double mine = (double)part.sum - (double)part.lost;
    return team_sum<32>(mine * (double)exponential<T>(part.most - most));
}

/* The maximum and the sum of exp(logit - maximum) over the block, in each thread. */
template <class T>
static __device__ __forceinline__ void block_softmax(const struct softmax_part &part, float *most,
                                                     double *sum)
{
    __shared__ float most_of[32];
    __shared__ double sum_of[32];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
    float largest = warp_most(part.most);
    if (lane == 0) most_of[warp] = largest;
    __syncthreads();
    for (int other = 0; other < warps; other++) largest = fmaxf(largest, most_of[other]);
    const double mine = warp_softmax<T>(part, largest);
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

/* What was fetched since the last call is one batch. */
static __device__ __forceinline__ void end_batch(void)
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}

/* Until no more than so many of the latest batches are on their way. */
template <int BATCHES> static __device__ __forceinline__ void wait_for_batches(void)
{
    asm volatile("cp.async.wait_group %0;" ::"n"(BATCHES) : "memory");
}

/* ---- The kernel ------------------------------------------------------------------------------ */

/* What a thread looks at: W numbers from first on, and again every stride. Those before kept are in
 * shared memory, fetched in two batches, the first up to half; all three are multiples of the
 * stride. */
struct span {
    int64_t first, stride, half, kept, V;
};

/* Calls work(v) for the places from `from` on and before `to`. */
template <class Work>
static __device__ __forceinline__ void for_kept(const struct span &span, int64_t from, int64_t to,
                                                const Work &work)
{
    for (int64_t v = span.first + from; v < to && v < span.V; v += span.stride) work(v);
}

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
static __device__ __forceinline__ void fetch_row(T *keep, const T *row, const struct span &span)
{
    for_kept(span, 0, span.half, [&](int64_t v) { fetch<T, W>(keep + v, row + v); });
    end_batch();
    for_kept(span, span.half, span.kept, [&](int64_t v) { fetch<T, W>(keep + v, row + v); });
    end_batch();
}

/* The rest comes last, because the gradient begins with it and finds it in the cache. */
template <class T, int W>
static __device__ __forceinline__ struct softmax_part row_part(const T *in, const T *keep,
                                                               const struct span &span)
{
    struct softmax_part part = {-FLT_MAX, 0, 0};
    auto add = [&](int64_t v) {
        float values[W];
        read_numbers(values, keep + v);
        part_add_group<T, W>(part, values);
    };
    wait_for_batches<1>();
    for_kept(span, 0, span.half, add);
    wait_for_batches<0>();
    for_kept(span, span.half, span.kept, add);
    for_rest<T, W>(in, span,
                   [&](int64_t, float(&values)[W]) { part_add_group<T, W>(part, values); });
    return part;
}

/* What the gradient of a row is made of. */
struct softmax_row {
    float most, factor; /* factor = scale / sum */
    double sum, scale;
    int target;
};

/* From most and sum; returns the loss. */
static __device__ __forceinline__ double finish_row(struct softmax_row &row, float wanted)
{
    row.factor = (float)(row.scale / row.sum);
    return log(row.sum) + (double)row.most - (double)wanted;
}

/* exp(logit - most). A bf16 gradient does not need the difference exact. */
template <class T> static __device__ __forceinline__ float share(float logit, float most)
{
    const float log2e = 1.44269504f;
    if (sizeof(T) != sizeof(bf16)) return expf(logit - most);
    return power_of_two(fmaf(logit, log2e, -most * log2e));
}

/* scale (softmax - one-hot) in place of the logits at v. The target's own is in double: it is the
 * difference of two numbers that may be nearly one. */
template <class T, int W>
static __device__ __forceinline__ void make_gradient(float (&values)[W], int64_t v,
                                                     const struct softmax_row &row)
{
    const bool here = (uint64_t)(row.target - v) < W;
    float wanted = 0;
    if (here)
#pragma unroll
        for (int w = 0; w < W; w++)
            if (v + w == row.target) wanted = values[w];
#pragma unroll
    for (int w = 0; w < W; w++) values[w] = row.factor * share<T>(values[w], row.most);
    if (!here) return;
    const double term = (double)exponential<T>(wanted - row.most);
#pragma unroll
    for (int w = 0; w < W; w++)
        if (v + w == row.target) values[w] = (float)(row.scale * ((term - row.sum) / row.sum));
}

/* The gradient at v, or zeros where the row is not scored. */
template <class T, int W>
static __device__ __forceinline__ void write_gradient(T *out, int64_t v, float (&values)[W],
                                                      const struct softmax_row &row)
{
    if (row.target >= 0)
        make_gradient<T, W>(values, v, row);
    else
        for (int w = 0; w < W; w++) values[w] = 0;
    write_numbers(out + v, values);
}

/* Writes the gradient of a row, or zeros where it is not scored, and fetches the next row; next is
 * NULL where there is none. */
template <class T, int W>
static __device__ __forceinline__ void write_row(T *out, const T *in, T *keep, const T *next,
                                                 const struct softmax_row &row,
                                                 const struct span &span)
{
    auto write = [&](int64_t v, float(&values)[W]) { write_gradient<T, W>(out, v, values, row); };
    auto write_kept = [&](int64_t v) {
        float values[W];
        read_numbers(values, keep + v);
        write(v, values);
        if (next != NULL) fetch<T, W>(keep + v, next + v);
    };
    if (row.target < 0) wait_for_batches<0>();
    for_rest<T, W>(in, span, write);
    for_kept(span, 0, span.half, write_kept);
    end_batch();
    for_kept(span, span.half, span.kept, write_kept);
    end_batch();
}

template <class T, int W>
__global__ void __launch_bounds__(THREADS_MAX)
    cross_entropy_kernel(float *losses, T *dlogits, const T *logits, const int32_t *targets,
                         const double *scale, int64_t N, int64_t V, int kept)
{
    extern __shared__ __align__(16) unsigned char shared[];
    T *keep = (T *)shared;
    const int64_t stride = (int64_t)blockDim.x * W;
    const struct span span = {(int64_t)threadIdx.x * W, stride, kept / stride / 2 * stride, kept,
                              V};
    const double factor = dlogits != NULL ? *scale : 0;
    fetch_row<T, W>(keep, logits + blockIdx.x * V, span);
    for (int64_t n = blockIdx.x; n < N; n += gridDim.x) {
        const T *in = logits + n * V, *next = n + gridDim.x < N ? in + gridDim.x * V : NULL;
        struct softmax_row row = {.sum = 1, .scale = factor, .target = targets[n]};
        double loss = 0;
        if (row.target >= 0) {
            const float wanted = row.target < V ? number(in[row.target]) : NAN;
            block_softmax<T>(row_part<T, W>(in, keep, span), &row.most, &row.sum);
            loss = finish_row(row, wanted);
        }
        if (threadIdx.x == 0) losses[n] = (float)loss;
        if (dlogits != NULL) write_row<T, W>(dlogits + n * V, in, keep, next, row, span);
    }
}

/* ---- Rows that a warp holds --------------------------------------------------------------------
 */

enum { SHORT_WARPS = 8, SHORT_HELD = 16, SHORT_ROW = 32 * SHORT_HELD };

template <class T, int W>
__global__ void __launch_bounds__(32 * SHORT_WARPS)
    short_rows_kernel(float *losses, T *dlogits, const T *logits, const int32_t *targets,
                      const double *scale, int64_t N, int64_t V)
{
    constexpr int GROUPS = SHORT_HELD / W;
    const int lane = threadIdx.x % 32;
    const int64_t n = (int64_t)blockIdx.x * SHORT_WARPS + threadIdx.x / 32;
    if (n >= N) return;
    const T *in = logits + n * V;
    group<T, W> held[GROUPS];
    const double factor = dlogits != NULL ? *scale : 0;
    struct softmax_row row = {.sum = 1, .scale = factor, .target = targets[n]};
    struct softmax_part part = {-FLT_MAX, 0, 0};
    float values[W];
    double loss = 0;
#pragma unroll
    for (int g = 0; g < GROUPS; g++)
        if ((g * 32 + lane) * W < V) held[g].load(in + (g * 32 + lane) * W);
    if (row.target >= 0) {
        const float wanted = row.target < V ? number(in[row.target]) : NAN;
#pragma unroll
        for (int g = 0; g < GROUPS; g++) {
            if ((g * 32 + lane) * W >= V) continue;
            held[g].get(values);
            part_add_group<T, W>(part, values);
        }
        row.most = warp_most(part.most);
        row.sum = warp_softmax<T>(part, row.most);
        loss = finish_row(row, wanted);
    }
    if (lane == 0) losses[n] = (float)loss;
    if (dlogits == NULL) return;
#pragma unroll
    for (int g = 0; g < GROUPS; g++) {
        if ((g * 32 + lane) * W >= V) continue;
        held[g].get(values);
        write_gradient<T, W>(dlogits + n * V, (g * 32 + lane) * W, values, row);
    }
}

/* ---- Plans -------------------------------------------------------------------------------------
 */

/* Enough threads that each has a few groups, and shared memory for as many numbers as there are. A
 * block a token where several fit a multiprocessor and so fill each other's gaps; otherwise a block
 * a multiprocessor. */
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
    plan->blocks = resident > 1 || processors > N ? N : processors;
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
                                 const void *logits, const int32_t *targets, const double *scale,
                                 int64_t N, int64_t V)
{
    cudaError_t error = cudaSuccess;
    if (N == 0 || V == 0) return NULL;
    for_groups(dtype, is_wide(V, dlogits, logits), [&](auto zero, auto w) {
        typedef decltype(zero) T;
        struct plan plan;
        if (V <= SHORT_ROW) {
            short_rows_kernel<T, w.value>
                <<<blocks_for(N, SHORT_WARPS), 32 * SHORT_WARPS, 0, (cudaStream_t)stream>>>(
                    losses, (T *)dlogits, (const T *)logits, targets, scale, N, V);
            return;
        }
        error = make_plan<T, w.value>(N, V, dlogits != NULL, &plan);
        if (error != cudaSuccess) return;
        cross_entropy_kernel<T, w.value>
            <<<plan.blocks, plan.threads, plan.shared, (cudaStream_t)stream>>>(
                losses, (T *)dlogits, (const T *)logits, targets, scale, N, V, plan.kept);
    });
    return error == cudaSuccess ? launched() : cudaGetErrorString(error);
}
