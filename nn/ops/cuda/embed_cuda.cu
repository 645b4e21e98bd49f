/* embed_cuda.cu: rows of the embedding, and their gradient; see launch.h.
 *
 * The gradient adds rows of dy with the same id to one row of the table. To do so in a fixed order
 * the tokens are first sorted by id, in the order in which they came (a radix sort of nine bits a
 * pass, so two passes for most vocabularies). The sorted list is then cut into pieces of equal
 * length. A block adds up one piece: ids that lie wholly inside go straight to the table, while
 * those cut by an end of the piece leave a partial row there, and a second kernel, for each id that
 * is cut, adds its partial rows up from the first to the last. */
#include "ops/cuda/numbers.cuh"

namespace
{

enum {
    THREADS = 256,
    WARPS = THREADS / 32,
    BITS = 9,
    BINS = 1 << BITS,
    ROUNDS = 8,              /* tokens of a thread in one pass */
    TILE = THREADS * ROUNDS, /* tokens of a block in one pass */
    PIECE = 32,              /* sorted tokens that a block adds up */
    AHEAD = 8                /* rows that it loads before it uses the first */
};

/* ---- Forward --------------------------------------------------------------------------------- */

/* A row outside the table becomes NaN. */
template <class T, int W>
__global__ void __launch_bounds__(THREADS)
    embed_kernel(T *y, const T *table, const int32_t *ids, int64_t groups, int64_t V, int64_t E)
{
    const int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (i >= groups) return;
    const int64_t n = row_of(i, E / W), id = ids[n];
    float nothing[W];
    group<T, W> row;
#pragma unroll
    for (int w = 0; w < W; w++) nothing[w] = NAN;
    row.set(nothing);
    if (id >= 0 && id < V) row.load(table + (id - n) * E + i * W);
    row.store(y + i * W);
}

/* ---- Sorting ids ----------------------------------------------------------------------------- */

/* One list while it is sorted: ids, and where in the batch each stands. */
struct sorted {
    int32_t *id, *at;
};

static __device__ __forceinline__ int digit_of(int32_t id, int shift)
{
    return (id >> shift) & (BINS - 1);
}

/* counts[bin][tile]: how many ids of a tile have the digit. */
__global__ void __launch_bounds__(THREADS)
    count_kernel(int32_t *counts, const int32_t *ids, int64_t N, int shift)
{
    __shared__ int32_t count[BINS];
    for (int bin = threadIdx.x; bin < BINS; bin += THREADS) count[bin] = 0;
    __syncthreads();
    for (int round = 0; round < ROUNDS; round++) {
        const int64_t n = (int64_t)blockIdx.x * TILE + round * THREADS + threadIdx.x;
        if (n < N) atomicAdd(&count[digit_of(ids[n], shift)], 1);
    }
    __syncthreads();
    for (int bin = threadIdx.x; bin < BINS; bin += THREADS)
        counts[(int64_t)bin * gridDim.x + blockIdx.x] = count[bin];
}

enum { SCAN_THREADS = 1024 };

/* The sum of the values of all threads before this one; *total is that of all. */
static __device__ __forceinline__ int32_t block_sum_before(int32_t value, int32_t *total)
{
    __shared__ int32_t of_warp[SCAN_THREADS / 32];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int32_t upto = value, before = 0;
    for (int step = 1; step < 32; step *= 2) {
        const int32_t other = __shfl_up_sync(0xffffffffu, upto, step);
        if (lane >= step) upto += other;
    }
    __syncthreads();
    if (lane == 31) of_warp[warp] = upto;
    __syncthreads();
    *total = 0;
    for (int other = 0; other < SCAN_THREADS / 32; other++) {
        if (other < warp) before += of_warp[other];
        *total += of_warp[other];
    }
    return before + upto - value;
}

/* counts becomes the sums of all counts before each. One block. */
__global__ void __launch_bounds__(SCAN_THREADS) scan_kernel(int32_t *counts, int64_t size)
{
    int32_t before = 0;
    for (int64_t first = 0; first < size; first += SCAN_THREADS) {
        const int64_t i = first + threadIdx.x;
        int32_t total;
        const int32_t count = i < size ? counts[i] : 0;
        const int32_t start = before + block_sum_before(count, &total);
        if (i < size) counts[i] = start;
        before += total;
    }
}

/* Puts the ids of a tile where the scan says, equal digits in their order. A warp has a stretch of
 * the tile for itself, which it walks 32 ids at a time: next[warp][bin] is where its next id of a
 * digit goes. `from.at` NULL: ids stand where they are. */
__global__ void __launch_bounds__(THREADS)
    scatter_kernel(struct sorted to, struct sorted from, const int32_t *starts, int64_t N,
                   int shift)
{
    __shared__ int32_t next[WARPS][BINS];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int64_t first = (int64_t)blockIdx.x * TILE + warp * (TILE / WARPS) + lane;
    int32_t id[ROUNDS];
    for (int bin = lane; bin < BINS; bin += 32) next[warp][bin] = 0;
    __syncwarp();
    for (int round = 0; round < ROUNDS; round++) {
        const int64_t n = first + round * 32;
        id[round] = n < N ? from.id[n] : 0;
        if (n < N) atomicAdd(&next[warp][digit_of(id[round], shift)], 1);
    }
    __syncthreads();
    for (int bin = threadIdx.x; bin < BINS; bin += THREADS) {
        int32_t start = starts[(int64_t)bin * gridDim.x + blockIdx.x];
        for (int w = 0; w < WARPS; w++) {
            const int32_t count = next[w][bin];
            next[w][bin] = start;
            start += count;
        }
    }
    __syncthreads();
    for (int round = 0; round < ROUNDS; round++) {
        const int64_t n = first + round * 32;
        const bool live = n < N;
        const int bin = live ? digit_of(id[round], shift) : BINS;
        const unsigned same = __match_any_sync(0xffffffffu, bin);
        const int before = __popc(same & ((1u << lane) - 1));
        int32_t place = 0;
        if (live) place = next[warp][bin] + before;
        __syncwarp();
        if (live && before == 0) next[warp][bin] += __popc(same);
        __syncwarp();
        if (!live) continue;
        to.id[place] = id[round];
        to.at[place] = from.at != NULL ? from.at[n] : (int32_t)n;
    }
}

/* ---- Adding up ------------------------------------------------------------------------------- */

template <int W> static __device__ __forceinline__ void add_numbers(float *total, float (&v)[W])
{
    float before[W];
    read_numbers(before, total);
#pragma unroll
    for (int w = 0; w < W; w++) v[w] += before[w];
    write_numbers(total, v);
}

/* Columns e .. e + W - 1 of a piece. An id that began before the piece leaves its sum in heads,
 * one that goes on behind it in tails, and one that does both in heads. */
template <class T, int W>
__global__ void __launch_bounds__(THREADS)
    piece_kernel(float *dtable, float *heads, float *tails, const T *dy, struct sorted list,
                 int64_t N, int64_t E)
{
    const int64_t first = (int64_t)blockIdx.x * PIECE;
    const int count = (int)(N - first < PIECE ? N - first : PIECE);
    __shared__ int32_t id[PIECE + 2], at[PIECE]; /* id[0] and id[count + 1]: the neighbours */
    for (int i = threadIdx.x; i < count + 2; i += THREADS) {
        const int64_t n = first + i - 1;
        id[i] = n >= 0 && n < N ? list.id[n] : -1;
        if (i < count) at[i] = list.at[first + i];
    }
    __syncthreads();
    const int64_t e = ((int64_t)blockIdx.y * THREADS + threadIdx.x) * W;
    if (e >= E) return;
    float sum[W] = {};
    bool cut = id[0] == id[1];
    for (int begin = 0; begin < count; begin += AHEAD) {
        group<T, W> rows[AHEAD];
#pragma unroll
        for (int a = 0; a < AHEAD; a++)
            if (begin + a < count) rows[a].load(dy + at[begin + a] * E + e);
#pragma unroll
        for (int a = 0; a < AHEAD; a++) {
            const int i = begin + a;
            if (i >= count) break;
            float v[W];
            rows[a].get(v);
#pragma unroll
            for (int w = 0; w < W; w++) sum[w] += v[w];
            const bool goes_on = id[i + 2] == id[i + 1];
            if (goes_on && i < count - 1) continue;
            float *total = dtable + id[i + 1] * E + e;
            if (cut)
                write_numbers(heads + (int64_t)blockIdx.x * E + e, sum);
            else if (goes_on)
                write_numbers(tails + (int64_t)blockIdx.x * E + e, sum);
            else
                add_numbers(total, sum);
            cut = false;
#pragma unroll
            for (int w = 0; w < W; w++) sum[w] = 0;
        }
    }
}

/* The block of the piece where a cut id begins adds up the pieces of that id. */
__global__ void __launch_bounds__(THREADS)
    join_kernel(float *dtable, const float *heads, const float *tails, const int32_t *id, int64_t N,
                int64_t E)
{
    const int64_t piece = blockIdx.x, end = (piece + 1) * PIECE;
    if (end >= N || id[end] != id[end - 1]) return;
    const bool whole = id[end - 1] == id[piece * PIECE];
    if (whole && piece > 0 && id[piece * PIECE - 1] == id[end - 1]) return;
    const int64_t e = (int64_t)blockIdx.y * THREADS + threadIdx.x;
    if (e >= E) return;
    int64_t low = end, high = N; /* id[low] is this id, id[high] is another or none */
    while (high - low > 1) {
        const int64_t middle = (low + high) / 2;
        if (id[middle] == id[end])
            low = middle;
        else
            high = middle;
    }
    double sum = (double)tails[piece * E + e];
#pragma unroll 8
    for (int64_t p = piece + 1; p <= low / PIECE; p++) sum += (double)heads[p * E + e];
    float *total = dtable + id[end] * E + e;
    *total = (float)((double)*total + sum);
}

/* ---- Scratch --------------------------------------------------------------------------------- */

struct embed_scratch {
    struct sorted lists[2];
    int32_t *counts;
    float *heads, *tails;
};

/* Sizes of the blocks above, in elements of four bytes; returns how many in all. */
int64_t lay_out(struct embed_scratch *scratch, void *memory, int64_t N, int64_t E)
{
    const int64_t tiles = blocks_for(N, TILE), pieces = blocks_for(N, PIECE);
    const int64_t list = blocks_for(N, 64) * 64, row = blocks_for(pieces * E, 64) * 64;
    int32_t *begin = (int32_t *)memory, *next = begin;
    float *sums;
    for (int i = 0; i < 2; i++) {
        scratch->lists[i] = (struct sorted){next, next + list};
        next += 2 * list;
    }
    scratch->counts = next;
    next += tiles * BINS;
    sums = (float *)next;
    scratch->heads = sums;
    scratch->tails = sums + row;
    return 4 * list + tiles * BINS + 2 * row;
}

/* Sorts by as many digits as the largest id has. */
struct sorted sort_ids(cudaStream_t stream, const struct embed_scratch *scratch, const int32_t *ids,
                       int64_t N, int64_t V)
{
    const int64_t tiles = blocks_for(N, TILE);
    struct sorted list = {(int32_t *)ids, NULL};
    int target = 0, shift = 0;
    do {
        count_kernel<<<tiles, THREADS, 0, stream>>>(scratch->counts, list.id, N, shift);
        scan_kernel<<<1, SCAN_THREADS, 0, stream>>>(scratch->counts, tiles * BINS);
        scatter_kernel<<<tiles, THREADS, 0, stream>>>(scratch->lists[target], list, scratch->counts,
                                                      N, shift);
        list = scratch->lists[target];
        target = 1 - target;
        shift += BITS;
    } while (shift < 31 && (V - 1) >> shift > 0);
    return list;
}

} // namespace

/* ---- Launchers ------------------------------------------------------------------------------- */

const char *launch_embed(plx_stream stream, plx_dtype dtype, void *y, const void *table,
                         const int32_t *ids, int64_t N, int64_t V, int64_t E)
{
    if (N == 0 || E == 0) return NULL;
    for_groups(dtype, is_wide(E, y, table), [&](auto zero, auto w) {
        typedef decltype(zero) T;
        const int64_t groups = N * E / w.value;
        embed_kernel<T, w.value><<<blocks_for(groups, THREADS), THREADS, 0, (cudaStream_t)stream>>>(
            (T *)y, (const T *)table, ids, groups, V, E);
    });
    return launched();
}

size_t embed_backward_bytes(int64_t N, int64_t E)
{
    struct embed_scratch scratch;
    return (size_t)lay_out(&scratch, NULL, N, E) * sizeof(float);
}

const char *launch_embed_backward(plx_stream stream, plx_dtype dtype, float *dtable, const void *dy,
                                  const int32_t *ids, int64_t N, int64_t V, int64_t E, void *memory)
{
    struct embed_scratch scratch;
    const int64_t pieces = blocks_for(N, PIECE);
    if (N == 0 || E == 0) return NULL;
    lay_out(&scratch, memory, N, E);
    const struct sorted list = sort_ids((cudaStream_t)stream, &scratch, ids, N, V);
    for_groups(dtype, is_wide(E, dtable, dy, memory), [&](auto zero, auto w) {
        typedef decltype(zero) T;
        const dim3 grid(pieces, blocks_for(E, THREADS * w.value));
        piece_kernel<T, w.value><<<grid, THREADS, 0, (cudaStream_t)stream>>>(
            dtable, scratch.heads, scratch.tails, (const T *)dy, list, N, E);
    });
    join_kernel<<<dim3(pieces, blocks_for(E, THREADS)), THREADS, 0, (cudaStream_t)stream>>>(
        dtable, scratch.heads, scratch.tails, list.id, N, E);
    return launched();
}
