/* update_cuda.cu: the optimisers' kernels; see launch_update.h.
 *
 * All are bound by memory: an AdamW update reads four floats and writes three and a bf16 an
 * element. Blocks take pieces of CHUNK elements, four neighbours a thread and access where
 * addresses allow. Sums are in double, over pieces whose borders depend on the tensor alone, so
 * they repeat bit for bit. */
#include "launch_update.h"
#include "numbers.cuh"

namespace
{

enum { THREADS = 256, CHUNK = 4096, SQUARES_CHUNK = 16384 };

/* ---- Four neighbours ------------------------------------------------------------------------- */

template <class T, int W> static __device__ __forceinline__ void load(float (&v)[W], const T *from)
{
#pragma unroll
    for (int i = 0; i < W; i++) v[i] = number(from[i]);
}

template <> __device__ __forceinline__ void load(float (&v)[4], const float *from)
{
    float4 four = *(const float4 *)from;
    v[0] = four.x, v[1] = four.y, v[2] = four.z, v[3] = four.w;
}

template <> __device__ __forceinline__ void load(float (&v)[4], const bf16 *from)
{
    uint2 pairs = *(const uint2 *)from;
    v[0] = __uint_as_float(pairs.x << 16), v[1] = __uint_as_float(pairs.x & 0xffff0000u);
    v[2] = __uint_as_float(pairs.y << 16), v[3] = __uint_as_float(pairs.y & 0xffff0000u);
}

template <class T, int W> static __device__ __forceinline__ void store(T *to, const float (&v)[W])
{
#pragma unroll
    for (int i = 0; i < W; i++) to[i] = rounded<T>(v[i]);
}

template <> __device__ __forceinline__ void store(float *to, const float (&v)[4])
{
    *(float4 *)to = make_float4(v[0], v[1], v[2], v[3]);
}

template <> __device__ __forceinline__ void store(bf16 *to, const float (&v)[4])
{
    *(uint2 *)to = make_uint2(packed_pair(v[0], v[1]), packed_pair(v[2], v[3]));
}

/* Calls work(i) for the W neighbours at every i of the block's piece that this thread has, and for
 * single ones where the tensor ends. */
template <int W, class Wide, class Single>
static __device__ __forceinline__ void for_piece(int64_t piece, int64_t count, const Wide &wide,
                                                 const Single &single)
{
#pragma unroll
    for (int round = 0; round < CHUNK / THREADS / W; round++) {
        int64_t i = piece * CHUNK + (int64_t)(round * THREADS + (int)threadIdx.x) * W;
        if (i + W <= count)
            wide(i);
        else
            for (int64_t j = i; j < count; j++) single(j);
    }
}

/* ---- Lists ----------------------------------------------------------------------------------- */

/* The last entry that begins at or before the block. */
static __device__ __forceinline__ const update_entry &entry_of(const update_list &list,
                                                               int32_t block)
{
    int low = 0, high = list.size - 1;
    while (low < high) {
        int middle = (low + high + 1) / 2;
        if (list.entries[middle].first <= block)
            low = middle;
        else
            high = middle - 1;
    }
    return list.entries[low];
}

/* Deals blocks out to the entries; returns how many there are. */
static int64_t deal_blocks(update_list *list, int64_t chunk)
{
    int64_t blocks = 0;
    for (int i = 0; i < list->size; i++) {
        list->entries[i].first = (int32_t)blocks;
        blocks += blocks_for(list->entries[i].count, chunk);
    }
    return blocks;
}

static bool are_aligned(const update_list *list)
{
    uintptr_t all = 0;
    for (int i = 0; i < list->size; i++) {
        const update_entry *entry = &list->entries[i];
        all |= (uintptr_t)entry->value | (uintptr_t)entry->active | (uintptr_t)entry->grad |
               (uintptr_t)entry->m | (uintptr_t)entry->v;
    }
    return all % 16 == 0;
}

/* ---- Sums of squares ------------------------------------------------------------------------- */

/* Of the block's piece of x; every thread gets the sum. */
template <class T>
static __device__ __forceinline__ double piece_squares(const T *x, int64_t count, int64_t piece)
{
    int64_t begin = piece * SQUARES_CHUNK;
    int64_t end = begin + SQUARES_CHUNK < count ? begin + SQUARES_CHUNK : count;
    double sum = 0;
    bool aligned = (uintptr_t)x % (4 * sizeof(T)) == 0;
#pragma unroll 4
    for (int64_t i = begin + threadIdx.x * 4; i < end; i += THREADS * 4) {
        float v[4] = {0, 0, 0, 0};
        if (aligned && i + 4 <= end)
            load(v, x + i);
        else
            for (int64_t j = 0; j < 4 && i + j < end; j++) v[j] = number(x[i + j]);
#pragma unroll
        for (int j = 0; j < 4; j++) sum += (double)v[j] * (double)v[j];
    }
    return team_sum<THREADS>(sum);
}

__global__ void __launch_bounds__(THREADS)
    squares_kernel(const __grid_constant__ update_list list, double *partials)
{
    const update_entry &entry = entry_of(list, blockIdx.x);
    double sum = piece_squares(entry.grad, entry.count, blockIdx.x - entry.first);
    if (threadIdx.x == 0) partials[blockIdx.x] = sum;
}

/* Every thread gets the sum of the partial sums of so many elements. */
static __device__ __forceinline__ double total_of(const double *partials, int64_t count)
{
    int64_t pieces = (count + SQUARES_CHUNK - 1) / SQUARES_CHUNK;
    double sum = 0;
    for (int64_t i = threadIdx.x; i < pieces; i += THREADS) sum += partials[i];
    return team_sum<THREADS>(sum);
}

__global__ void __launch_bounds__(THREADS)
    totals_kernel(const __grid_constant__ update_list list, double *sums, const double *partials)
{
    const update_entry &entry = list.entries[blockIdx.x];
    double sum = total_of(partials + entry.first, entry.count);
    if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

/* ---- Clipping -------------------------------------------------------------------------------- */

/* One thread adds, in order, what all fetch; clip_host.h has the same arithmetic. */
__global__ void __launch_bounds__(THREADS)
    clip_kernel(clip_state *state, const double *squares, int64_t count, double limit, double step)
{
    __shared__ double fetched[THREADS];
    bool done = state->bad_step != 0;
    double total = 0;
    int64_t blame = count;
    for (int64_t begin = 0; begin < count; begin += THREADS) {
        int64_t length = count - begin < THREADS ? count - begin : THREADS;
        __syncthreads();
        if ((int64_t)threadIdx.x < length) fetched[threadIdx.x] = squares[begin + threadIdx.x];
        __syncthreads();
        if (threadIdx.x > 0) continue;
        for (int i = 0; i < length; i++) {
            total += fetched[i];
            if (blame == count && !isfinite(total)) blame = begin + i;
        }
    }
    if (threadIdx.x > 0 || done) return;
    double norm = sqrt(total);
    bool bad = blame < count;
    double factor = limit > 0 && norm > limit ? limit / norm : 1;
    state->factor = bad ? 0 : factor;
    state->norm = norm;
    state->bad_step = bad ? step : 0;
    state->bad_index = bad ? (double)blame : 0;
}

/* ---- AdamW ----------------------------------------------------------------------------------- */

template <int W>
static __device__ __forceinline__ void adamw_at(const update_entry &entry, const adamw_factors &by,
                                                float factor, int64_t i)
{
    float w[W], g[W], m[W], v[W];
    load(g, entry.grad + i);
    load(m, (const float *)entry.m + i);
    load(v, (const float *)entry.v + i);
    load(w, (const float *)entry.value + i);
#pragma unroll
    for (int k = 0; k < W; k++) {
        float slope = factor * g[k];
        m[k] = by.beta1 * m[k] + by.rest1 * slope;
        v[k] = by.beta2 * v[k] + by.rest2 * slope * slope;
        w[k] = entry.keep * w[k] - entry.rate * (m[k] / (sqrtf(v[k]) * by.root + by.eps));
    }
    store(entry.m + i, m);
    store(entry.v + i, v);
    store(entry.value + i, w);
    if (entry.active != NULL) store((bf16 *)entry.active + i, w);
}

template <int W>
__global__ void __launch_bounds__(THREADS)
    adamw_kernel(const __grid_constant__ update_list list, const __grid_constant__ adamw_factors by,
                 const double *factor)
{
    const double scale = *factor;
    if (scale == 0) return;
    const update_entry &entry = entry_of(list, blockIdx.x);
    for_piece<W>(
        blockIdx.x - entry.first, entry.count,
        [&](int64_t i) { adamw_at<W>(entry, by, (float)scale, i); },
        [&](int64_t i) { adamw_at<1>(entry, by, (float)scale, i); });
}

/* ---- Muon ------------------------------------------------------------------------------------ */

struct momentum_factors {
    float keep, take;
    bool nesterov;
};

template <class T, int W>
static __device__ __forceinline__ void momentum_at(const update_entry &entry, T *direction,
                                                   const momentum_factors &by, float factor,
                                                   int64_t i)
{
    float g[W], m[W], u[W];
    load(g, entry.grad + i);
    load(m, (const float *)entry.m + i);
#pragma unroll
    for (int k = 0; k < W; k++) {
        float slope = factor * g[k];
        m[k] = by.keep * m[k] + by.take * slope;
        u[k] = by.nesterov ? by.take * slope + by.keep * m[k] : m[k];
    }
    store(entry.m + i, m);
    store(direction + i, u);
}

/* Blocks: pieces of an entry, and entries. */
template <class T, int W>
__global__ void __launch_bounds__(THREADS)
    momentum_kernel(const __grid_constant__ update_list list, T *directions, momentum_factors by,
                    const double *factor)
{
    const double scale = *factor;
    if (scale == 0) return;
    const update_entry &entry = list.entries[blockIdx.y];
    T *direction = directions + blockIdx.y * entry.count;
    for_piece<W>(
        blockIdx.x, entry.count,
        [&](int64_t i) { momentum_at<T, W>(entry, direction, by, (float)scale, i); },
        [&](int64_t i) { momentum_at<T, 1>(entry, direction, by, (float)scale, i); });
}

template <class T, int W>
static __device__ __forceinline__ void apply_at(const update_entry &entry, const T *direction,
                                                int64_t i)
{
    float w[W], u[W];
    load(u, direction + i);
    load(w, (const float *)entry.value + i);
#pragma unroll
    for (int k = 0; k < W; k++) w[k] = entry.keep * w[k] - entry.rate * u[k];
    store(entry.value + i, w);
    if (entry.active != NULL) store((bf16 *)entry.active + i, w);
}

template <class T, int W>
__global__ void __launch_bounds__(THREADS) apply_kernel(const __grid_constant__ update_list list,
                                                        const T *directions, const double *factor)
{
    if (*factor == 0) return;
    const update_entry &entry = list.entries[blockIdx.y];
    const T *direction = directions + blockIdx.y * entry.count;
    for_piece<W>(
        blockIdx.x, entry.count, [&](int64_t i) { apply_at<T, W>(entry, direction, i); },
        [&](int64_t i) { apply_at<T, 1>(entry, direction, i); });
}

/* Blocks: pieces of a matrix, and matrices. */
template <class T>
__global__ void __launch_bounds__(THREADS)
    matrix_squares_kernel(double *partials, const T *x, int64_t size)
{
    double sum = piece_squares(x + blockIdx.y * size, size, blockIdx.x);
    if (threadIdx.x == 0) partials[blockIdx.y * gridDim.x + blockIdx.x] = sum;
}

template <class T, int W>
__global__ void __launch_bounds__(THREADS)
    normalise_kernel(T *y, const T *x, int64_t size, double factor, double eps,
                     const double *partials)
{
    int64_t pieces = (size + SQUARES_CHUNK - 1) / SQUARES_CHUNK;
    double squares = total_of(partials + blockIdx.y * pieces, size);
    const float rate = (float)(1 / (factor * sqrt(squares) + eps));
    y += blockIdx.y * size, x += blockIdx.y * size;
    for_piece<W>(
        blockIdx.x, size,
        [&](int64_t i) {
            float v[W];
            load(v, x + i);
#pragma unroll
            for (int k = 0; k < W; k++) v[k] *= rate;
            store(y + i, v);
        },
        [&](int64_t i) { y[i] = rounded<T>(rate * number(x[i])); });
}

/* Blocks: matrices. */
__global__ void __launch_bounds__(THREADS)
    scales_kernel(float *scales, int64_t size, double factor, double eps, const double *partials)
{
    const int64_t pieces = (size + SQUARES_CHUNK - 1) / SQUARES_CHUNK;
    const double squares = total_of(partials + blockIdx.x * pieces, size);
    const float scale = (float)(1 / (factor * sqrt(squares) + eps));
    if (threadIdx.x > 0) return;
    scales[2 * blockIdx.x] = scale;
    scales[2 * blockIdx.x + 1] = scale * scale;
}

/* Calls work with the dtype's type and a width of 4 or 1. */
template <class Work> static void for_fours(plx_dtype dtype, bool wide, const Work &work)
{
    for_dtype(dtype, [&](auto zero) {
        if (wide)
            work(zero, width<4>());
        else
            work(zero, width<1>());
    });
}

} // namespace

int64_t squares_partials(int64_t count)
{
    return blocks_for(count, SQUARES_CHUNK);
}

const char *launch_squares(plx_stream stream, update_list *list, double *sums, double *partials)
{
    int64_t blocks = deal_blocks(list, SQUARES_CHUNK);
    if (list->size == 0) return NULL;
    if (blocks > 0) squares_kernel<<<blocks, THREADS, 0, (cudaStream_t)stream>>>(*list, partials);
    totals_kernel<<<list->size, THREADS, 0, (cudaStream_t)stream>>>(*list, sums, partials);
    return launched();
}

const char *launch_clip(plx_stream stream, clip_state *state, const double *squares, int64_t count,
                        double limit, int64_t step)
{
    clip_kernel<<<1, THREADS, 0, (cudaStream_t)stream>>>(state, squares, count, limit,
                                                         (double)step);
    return launched();
}

const char *launch_adamw(plx_stream stream, update_list *list, const adamw_factors *factors,
                         const double *factor)
{
    int64_t blocks = deal_blocks(list, CHUNK);
    if (blocks == 0) return NULL;
    auto kernel = are_aligned(list) ? adamw_kernel<4> : adamw_kernel<1>;
    kernel<<<blocks, THREADS, 0, (cudaStream_t)stream>>>(*list, *factors, factor);
    return launched();
}

const char *launch_momentum(plx_stream stream, plx_dtype T, const update_list *list,
                            void *directions, float keep, float take, bool nesterov,
                            const double *factor)
{
    int64_t count = list->size > 0 ? list->entries[0].count : 0;
    if (count == 0) return NULL;
    bool wide = are_aligned(list) && count % 4 == 0 && (uintptr_t)directions % 16 == 0;
    dim3 grid((unsigned)blocks_for(count, CHUNK), (unsigned)list->size);
    momentum_factors by = {keep, take, nesterov};
    for_fours(T, wide, [&](auto zero, auto w) {
        typedef decltype(zero) type;
        momentum_kernel<type, decltype(w)::value>
            <<<grid, THREADS, 0, (cudaStream_t)stream>>>(*list, (type *)directions, by, factor);
    });
    return launched();
}

const char *launch_apply(plx_stream stream, plx_dtype T, const update_list *list,
                         const void *directions, const double *factor)
{
    int64_t count = list->size > 0 ? list->entries[0].count : 0;
    if (count == 0) return NULL;
    bool wide = are_aligned(list) && count % 4 == 0 && (uintptr_t)directions % 16 == 0;
    dim3 grid((unsigned)blocks_for(count, CHUNK), (unsigned)list->size);
    for_fours(T, wide, [&](auto zero, auto w) {
        typedef decltype(zero) type;
        apply_kernel<type, decltype(w)::value>
            <<<grid, THREADS, 0, (cudaStream_t)stream>>>(*list, (const type *)directions, factor);
    });
    return launched();
}

const char *launch_normalise(plx_stream stream, plx_dtype T, void *y, const void *x,
                             int64_t matrices, int64_t size, double factor, double eps,
                             double *partials)
{
    if (matrices == 0 || size == 0) return NULL;
    bool wide = size % 4 == 0 && ((uintptr_t)x | (uintptr_t)y) % 16 == 0;
    dim3 sums((unsigned)squares_partials(size), (unsigned)matrices);
    dim3 grid((unsigned)blocks_for(size, CHUNK), (unsigned)matrices);
    for_fours(T, wide, [&](auto zero, auto w) {
        typedef decltype(zero) type;
        matrix_squares_kernel<<<sums, THREADS, 0, (cudaStream_t)stream>>>(partials, (const type *)x,
                                                                          size);
        normalise_kernel<type, decltype(w)::value><<<grid, THREADS, 0, (cudaStream_t)stream>>>(
            (type *)y, (const type *)x, size, factor, eps, partials);
    });
    return launched();
}

const char *launch_scales(plx_stream stream, plx_dtype T, float *scales, const void *x,
                          int64_t matrices, int64_t size, double factor, double eps,
                          double *partials)
{
    if (matrices == 0 || size == 0) return NULL;
    dim3 sums((unsigned)squares_partials(size), (unsigned)matrices);
    for_dtype(T, [&](auto zero) {
        typedef decltype(zero) type;
        matrix_squares_kernel<<<sums, THREADS, 0, (cudaStream_t)stream>>>(partials, (const type *)x,
                                                                          size);
    });
    scales_kernel<<<(unsigned)matrices, THREADS, 0, (cudaStream_t)stream>>>(scales, size, factor,
                                                                            eps, partials);
    return launched();
}
