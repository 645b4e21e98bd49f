/* update_cuda.cu: the optimisers' kernels; see launch_update.h.
 *
 * All are bound by memory: an AdamW update reads four floats and writes three and a bf16 an
 * element. Blocks take pieces of CHUNK elements, four neighbours a thread and access where
 * addresses allow. Sums are in double, over pieces whose borders depend on the tensor alone, so
 * they repeat bit for bit. */
#include "ops/cuda/launch_update.h"
#include "ops/cuda/numbers.cuh"
#include "ops/rounding.h"

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
    *(uint2 *)to = make_uint2(pack_bf16(v[0], v[1]), pack_bf16(v[2], v[3]));
}

/* States are stored as they are in float; in bf16 they are rounded by 16 bits of each word. */
template <int W>
static __device__ __forceinline__ void keep_state(float *to, const float (&v)[W],
                                                  const uint32_t (&)[W], int)
{
    store(to, v);
}

template <int W>
static __device__ __forceinline__ void keep_state(bf16 *to, const float (&v)[W],
                                                  const uint32_t (&random)[W], int shift)
{
    uint16_t halves[W];
#pragma unroll
    for (int i = 0; i < W; i++)
        halves[i] = rounding_bf16(__float_as_uint(v[i]), random[i] >> shift);
    if constexpr (W == 4)
        *(uint2 *)to = make_uint2(halves[0] | (uint32_t)halves[1] << 16,
                                  halves[2] | (uint32_t)halves[3] << 16);
    else
        *(uint16_t *)to = halves[0];
}

/* The words of W neighbours from element i on; none are needed for states in float. */
template <class M, int W>
static __device__ __forceinline__ void draw_words(uint32_t (&random)[W], uint32_t key, int64_t i)
{
#pragma unroll
    for (int k = 0; k < W; k++)
        random[k] = sizeof(M) < sizeof(float) ? rounding_word(key, (uint32_t)i + k) : 0;
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
    clip_kernel(clip_state *state, const double *squares, int64_t count, double limit,
                const step_numbers *numbers)
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
    state->bad_step = bad ? numbers->step : 0;
    state->bad_index = bad ? (double)blame : 0;
}

/* ---- Rates ----------------------------------------------------------------------------------- */

/* A parameter's share of the step: what is kept of a weight, and what its update is multiplied by,
 * in double as on the CPU. */
struct step_rates {
    float keep, rate;
};

static __device__ __forceinline__ step_rates rates_of(const update_entry &entry,
                                                      const step_numbers &numbers, double scale)
{
    const double lr = numbers.lr * entry.lr, decay = numbers.weight_decay * entry.weight_decay;
    return {(float)(1 - lr * decay), (float)(lr * scale)};
}

/* ---- AdamW ----------------------------------------------------------------------------------- */

/* All that an element is updated by. */
struct adamw_step {
    adamw_factors by;
    step_rates rates;
    float factor, root; /* of the gradient; 1 / sqrt(1 - beta2^step) */
    uint32_t key;
};

template <class M, int W>
static __device__ __forceinline__ void adamw_at(const update_entry &entry, const adamw_step &step,
                                                int64_t i)
{
    const adamw_factors &by = step.by;
    float w[W], g[W], m[W], v[W];
    load(g, entry.grad + i);
    load(m, (const M *)entry.m + i);
    load(v, (const M *)entry.v + i);
    load(w, (const float *)entry.value + i);
#pragma unroll
    for (int k = 0; k < W; k++) {
        float slope = step.factor * g[k];
        m[k] = by.beta1 * m[k] + by.rest1 * slope;
        v[k] = by.beta2 * v[k] + by.rest2 * slope * slope;
        w[k] =
            step.rates.keep * w[k] - step.rates.rate * (m[k] / (sqrtf(v[k]) * step.root + by.eps));
    }
    uint32_t random[W];
    draw_words<M>(random, step.key, i);
    keep_state((M *)entry.m + i, m, random, 0);
    keep_state((M *)entry.v + i, v, random, 16);
    store(entry.value + i, w);
    if (entry.active != NULL) store((bf16 *)entry.active + i, w);
}

template <class M, int W>
__global__ void __launch_bounds__(THREADS)
    adamw_kernel(const __grid_constant__ update_list list, const __grid_constant__ adamw_factors by,
                 const double *factor, const step_numbers *numbers)
{
    const double scale = *factor;
    if (scale == 0) return;
    const update_entry &entry = entry_of(list, blockIdx.x);
    const adamw_step step = {by, rates_of(entry, *numbers, 1 / numbers->bias1), (float)scale,
                             (float)(1 / sqrt(numbers->bias2)),
                             rounding_key(numbers->step, entry.number)};
    for_piece<W>(
        blockIdx.x - entry.first, entry.count, [&](int64_t i) { adamw_at<M, W>(entry, step, i); },
        [&](int64_t i) { adamw_at<M, 1>(entry, step, i); });
}

/* ---- Muon ------------------------------------------------------------------------------------ */

/* All that an element's momentum is updated by. */
struct momentum_step {
    momentum_factors by;
    float factor;
    uint32_t key;
};

template <class T, class M, int W>
static __device__ __forceinline__ void momentum_at(const update_entry &entry, T *direction,
                                                   const momentum_step &step, int64_t i)
{
    const momentum_factors &by = step.by;
    float g[W], m[W], u[W];
    load(g, entry.grad + i);
    load(m, (const M *)entry.m + i);
#pragma unroll
    for (int k = 0; k < W; k++) {
        float slope = step.factor * g[k];
        m[k] = by.keep * m[k] + by.take * slope;
        u[k] = by.nesterov ? by.take * slope + by.keep * m[k] : m[k];
    }
    uint32_t random[W];
    draw_words<M>(random, step.key, i);
    keep_state((M *)entry.m + i, m, random, 0);
    store(direction + i, u);
}

/* Blocks: pieces of an entry, and entries. */
template <class T, class M, int W>
__global__ void __launch_bounds__(THREADS)
    momentum_kernel(const __grid_constant__ update_list list, T *directions, momentum_factors by,
                    const double *factor, const step_numbers *numbers)
{
    const double scale = *factor;
    if (scale == 0) return;
    const update_entry &entry = list.entries[blockIdx.y];
    const momentum_step step = {by, (float)scale, rounding_key(numbers->step, entry.number)};
    T *direction = directions + blockIdx.y * entry.count;
    for_piece<W>(
        blockIdx.x, entry.count,
        [&](int64_t i) { momentum_at<T, M, W>(entry, direction, step, i); },
        [&](int64_t i) { momentum_at<T, M, 1>(entry, direction, step, i); });
}

template <class T, int W>
static __device__ __forceinline__ void apply_at(const update_entry &entry, const T *direction,
                                                const step_rates &rates, int64_t i)
{
    float w[W], u[W];
    load(u, direction + i);
    load(w, (const float *)entry.value + i);
#pragma unroll
    for (int k = 0; k < W; k++) w[k] = rates.keep * w[k] - rates.rate * u[k];
    store(entry.value + i, w);
    if (entry.active != NULL) store((bf16 *)entry.active + i, w);
}

template <class T, int W>
__global__ void __launch_bounds__(THREADS)
    apply_kernel(const __grid_constant__ update_list list, const T *directions, double scale,
                 const double *factor, const step_numbers *numbers)
{
    if (*factor == 0) return;
    const update_entry &entry = list.entries[blockIdx.y];
    const step_rates rates = rates_of(entry, *numbers, scale);
    const T *direction = directions + blockIdx.y * entry.count;
    for_piece<W>(
        blockIdx.x, entry.count, [&](int64_t i) { apply_at<T, W>(entry, direction, rates, i); },
        [&](int64_t i) { apply_at<T, 1>(entry, direction, rates, i); });
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
    scales_kernel(float *scales, int64_t size, double factor, double eps, const double *partials,
                  uint32_t *counters, int chains)
{
    const int64_t pieces = (size + SQUARES_CHUNK - 1) / SQUARES_CHUNK;
    const double squares = total_of(partials + blockIdx.x * pieces, size);
    const float scale = (float)(1 / (factor * sqrt(squares) + eps));
    if (threadIdx.x > 0) return;
    for (int i = 0; i < chains; i++) counters[i * gridDim.x + blockIdx.x] = 0;
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
                        double limit, const step_numbers *numbers)
{
    clip_kernel<<<1, THREADS, 0, (cudaStream_t)stream>>>(state, squares, count, limit, numbers);
    return launched();
}

const char *launch_adamw(plx_stream stream, plx_dtype M, update_list *list,
                         const adamw_factors *factors, const double *factor,
                         const step_numbers *numbers)
{
    int64_t blocks = deal_blocks(list, CHUNK);
    if (blocks == 0) return NULL;
    for_fours(M, are_aligned(list), [&](auto zero, auto w) {
        adamw_kernel<decltype(zero), decltype(w)::value>
            <<<blocks, THREADS, 0, (cudaStream_t)stream>>>(*list, *factors, factor, numbers);
    });
    return launched();
}

const char *launch_momentum(plx_stream stream, plx_dtype T, plx_dtype M, const update_list *list,
                            void *directions, const momentum_factors *by, const double *factor,
                            const step_numbers *numbers)
{
    int64_t count = list->size > 0 ? list->entries[0].count : 0;
    if (count == 0) return NULL;
    bool wide = are_aligned(list) && count % 4 == 0 && (uintptr_t)directions % 16 == 0;
    dim3 grid((unsigned)blocks_for(count, CHUNK), (unsigned)list->size);
    for_fours(T, wide, [&](auto zero, auto w) {
        typedef decltype(zero) type;
        for_dtype(M, [&](auto state) {
            momentum_kernel<type, decltype(state), decltype(w)::value>
                <<<grid, THREADS, 0, (cudaStream_t)stream>>>(*list, (type *)directions, *by, factor,
                                                             numbers);
        });
    });
    return launched();
}

const char *launch_apply(plx_stream stream, plx_dtype T, const update_list *list,
                         const void *directions, double scale, const double *factor,
                         const step_numbers *numbers)
{
    int64_t count = list->size > 0 ? list->entries[0].count : 0;
    if (count == 0) return NULL;
    bool wide = are_aligned(list) && count % 4 == 0 && (uintptr_t)directions % 16 == 0;
    dim3 grid((unsigned)blocks_for(count, CHUNK), (unsigned)list->size);
    for_fours(T, wide, [&](auto zero, auto w) {
        typedef decltype(zero) type;
        apply_kernel<type, decltype(w)::value><<<grid, THREADS, 0, (cudaStream_t)stream>>>(
            *list, (const type *)directions, scale, factor, numbers);
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
                          double *partials, uint32_t *counters, int chains)
{
    if (matrices == 0 || size == 0) return NULL;
    dim3 sums((unsigned)squares_partials(size), (unsigned)matrices);
    for_dtype(T, [&](auto zero) {
        typedef decltype(zero) type;
        matrix_squares_kernel<<<sums, THREADS, 0, (cudaStream_t)stream>>>(partials, (const type *)x,
                                                                          size);
    });
    scales_kernel<<<(unsigned)matrices, THREADS, 0, (cudaStream_t)stream>>>(
        scales, size, factor, eps, partials, counters, chains);
    return launched();
}
