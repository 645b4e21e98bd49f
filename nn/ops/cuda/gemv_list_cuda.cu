/* gemv_list_cuda.cu: products of one or two rows of x with several weights, in one launch; see
 * launch.h.
 *
 * What a token at a time waits for is not memory alone: launches follow one another, and each reads
 * x, adds up, and writes before the next may read. So products that share x are one launch, which
 * norms x on its way in and joins gate and up on its way out; and a block asks for its whole share
 * of the weights before it waits for those ahead of it. The share comes to shared memory by the
 * copy engine, so that memory is busy while the launch ahead is worked through.
 *
 * A row is summed as gemv_cuda.cu does: a power of two of warps take turns along it, and their sums
 * are added in order. So results are the same bits as one product after another. */
#include "cuda/ptx_sm90.cuh"
#include "ops/cuda/chain.cuh"

namespace
{

enum {
    THREADS = 256,
    WARPS = THREADS / 32,
    FEW = 2,                        /* rows of x */
    GROUPS = 4,                     /* of eight numbers of a row, that a lane has */
    LONGEST_PART = GROUPS * 8 * 32, /* of a row, that a warp has */
    TOGETHER = 3,                   /* rows that a warp sums at once */
    MOST_ROWS = THREADS / FEW,      /* of weights in a block */
    MOST_PARTS = WARPS
};

/* Bytes of weights in a block, so that four of them fit a multiprocessor. */
constexpr int MOST_BYTES = 48 << 10;

template <class W> constexpr int WIDE = 16 / sizeof(W);
/* Loads of a lane. */
template <class W> constexpr int LOADS = GROUPS * 8 / WIDE<W>;

/* ---- Weights --------------------------------------------------------------------------------- */

/* A row of all weights, one behind the other. */
struct place {
    int item, n;
};

__device__ __forceinline__ place place_of(const struct gemv_list &list, int row)
{
    int item = 0;
    while (row >= list.items[item].N) row -= (int)list.items[item++].N;
    return {item, row};
}

/* Where a lane's load begins in a row that 1 << shift warps share. */
template <class W> __device__ __forceinline__ int load_at(int load, int part, int shift)
{
    return (((load << shift) + part) * 32 + threadIdx.x % 32) * WIDE<W>;
}

/* Asks for the rows of a block, which are neighbours in one weight or several; of gated ones for
 * half of them from each. One thread. */
template <class W>
__device__ __forceinline__ void ask(const struct gemv_list &list, int first, int rows,
                                    uint32_t memory, uint32_t arrived)
{
    const uint32_t bytes = (uint32_t)list.K * sizeof(W);
    mbarrier_init(arrived, 1);
    mbarrier_init_fence();
    mbarrier_expect(arrived, rows * bytes);
    for (int item = 0, done = 0; done < rows; item++) {
        const int N = (int)list.items[item].N, begin = list.gated ? first / 2 : first;
        const int wanted = list.gated ? rows / 2 : rows - done;
        const int some = wanted < N - begin ? wanted : N - begin;
        if (!list.gated) first = first > N ? first - N : 0;
        if (some <= 0) continue;
        bulk_load(memory + done * bytes,
                  (const W *)list.items[item].weight + (int64_t)begin * list.K, some * bytes,
                  arrived);
        done += some;
    }
}

/* ---- x --------------------------------------------------------------------------------------- */

/* Brings the gain to the second-level cache, a line of 128 bytes a thread. */
template <class G> __device__ __forceinline__ void prefetch(const G *gain, int64_t K)
{
    constexpr int line = 128 / sizeof(G);
    for (int64_t k = threadIdx.x * line; k < K; k += THREADS * line)
        asm volatile("prefetch.global.L2 [%0];" ::"l"(gain + k));
}

/* A lane's numbers of a row as they are in memory; zeros behind its end. */
template <class W, bool FULL, class T>
__device__ __forceinline__ void read_row(group<T, 8> (&in)[GROUPS], const T *row, int K, int part,
                                         int shift)
{
#pragma unroll
    for (int g = 0; g < GROUPS; g++) {
        const int each = WIDE<W> / 8, k = load_at<W>(g / each, part, shift) + g % each * 8;
        if (!FULL) in[g] = {};
        if (FULL || k < K) in[g].load(row + k);
    }
}

/* The factors of rmsnorm of each row of x. */
template <int M>
__device__ __forceinline__ void norm(const struct gemv_list &list, float (&factor)[M],
                                     const group<bf16, 8> (&x)[M][GROUPS],
                                     float (*of_part)[MOST_PARTS], int part, int shift)
{
    float squares[M] = {};
#pragma unroll
    for (int m = 0; m < M; m++) {
#pragma unroll
        for (int g = 0; g < GROUPS; g++) {
            float v[8];
            x[m][g].get(v);
#pragma unroll
            for (int i = 0; i < 8; i++) squares[m] += v[i] * v[i];
        }
        squares[m] = team_sum<32>(squares[m]);
    }
    if (shift > 0) {
        if (threadIdx.x == part * 32)
            for (int m = 0; m < M; m++) of_part[m][part] = squares[m];
        __syncthreads();
        for (int m = 0; m < M; m++) {
            squares[m] = 0;
            for (int other = 0; other < 1 << shift; other++) squares[m] += of_part[m][other];
        }
    }
#pragma unroll
    for (int m = 0; m < M; m++) factor[m] = 1 / sqrtf(squares[m] / (int)list.K + list.eps);
}

/* The numbers that rows of weights are multiplied with: x, or x as rmsnorm leaves it. */
template <class W, int M, bool NORM, bool FULL>
__device__ __forceinline__ void read_x(const struct gemv_list &list, float (&v)[M][GROUPS][8],
                                       float (*of_part)[MOST_PARTS], int part, int shift)
{
    const int K = (int)list.K;
    group<bf16, 8> x[M][GROUPS];
    group<float, 8> gain[GROUPS];
    float factor[M];
#pragma unroll
    for (int m = 0; m < M; m++)
        read_row<W, FULL>(x[m], (const bf16 *)list.x + (m < list.rows ? m : 0) * K, K, part, shift);
    if (NORM) read_row<W, FULL>(gain, list.gain, K, part, shift);
    if (NORM) norm(list, factor, x, of_part, part, shift);
#pragma unroll
    for (int g = 0; g < GROUPS; g++)
#pragma unroll
        for (int m = 0; m < M; m++) {
            if (NORM) {
                float by[8];
                gain[g].get(by);
                x[m][g].get(v[m][g]);
#pragma unroll
                for (int i = 0; i < 8; i++) v[m][g][i] *= factor[m] * by[i];
                x[m][g].set(v[m][g]);
            }
            x[m][g].get(v[m][g]);
        }
}

/* ---- Sums ------------------------------------------------------------------------------------ */

/* Sums of rows times x, [row][part][M]. */
template <class W, int M, bool FULL>
__device__ __forceinline__ void multiply(const W *weights, const float (&v)[M][GROUPS][8],
                                         float *sums, int rows, int K, int part, int shift)
{
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, units = rows << shift;
    for (int first = warp; first < units; first += TOGETHER * WARPS) {
        float sum[TOGETHER][M] = {};
#pragma unroll
        for (int l = 0; l < LOADS<W>; l++) {
            const int k = load_at<W>(l, part, shift);
            group<W, WIDE<W>> in[TOGETHER];
#pragma unroll
            for (int t = 0; t < TOGETHER; t++) {
                const int unit = first + t * WARPS < units ? first + t * WARPS : warp;
                if (!FULL) in[t] = {};
                if (FULL || k < K) in[t].load(weights + (unit >> shift) * K + k);
            }
#pragma unroll
            for (int t = 0; t < TOGETHER; t++) {
                float w[WIDE<W>];
                in[t].get(w);
#pragma unroll
                for (int m = 0; m < M; m++)
#pragma unroll
                    for (int i = 0; i < WIDE<W>; i++)
                        sum[t][m] += w[i] * v[m][l * (WIDE<W> / 8) + i / 8][i % 8];
            }
        }
#pragma unroll
        for (int t = 0; t < TOGETHER; t++)
#pragma unroll
            for (int m = 0; m < M; m++) {
                const float total = team_sum<32>(sum[t][m]);
                if (lane == t && first + t * WARPS < units)
                    sums[(first + t * WARPS) * M + m] = total;
            }
    }
}

template <int M>
__device__ __forceinline__ float total_of(const float *sums, int row, int m, int shift)
{
    float total = sums[(row << shift) * M + m];
    for (int part = 1; part < 1 << shift; part++) total += sums[((row << shift) + part) * M + m];
    return total;
}

/* ---- Results --------------------------------------------------------------------------------- */

/* What a result is made of besides its products, of row m of x. */
struct finish {
    place at;
    int m;
    float scale[2], add;
};

__device__ __forceinline__ finish finish_of(const struct gemv_list &list, int result, int m)
{
    finish f = {place_of(list, result), m, {1, 1}, 0};
#pragma unroll
    for (int i = 0; i < 2; i++) {
        if (i == 1 && !list.gated) continue;
        const float *scale = list.items[f.at.item + i].scale;
        if (scale != NULL) f.scale[i] = scale[f.at.n];
    }
    return f;
}

/* Behind dependency_wait. */
template <class C> __device__ __forceinline__ void read_add(const struct gemv_list &list, finish &f)
{
    const struct gemv_item &item = list.items[f.at.item];
    if (item.add != NULL) f.add = number(((const C *)item.add)[f.m * item.N + f.at.n]);
}

/* The same numbers as swiglu of two results that are stored. */
template <class C>
__device__ __forceinline__ void write(const struct gemv_list &list, const finish &f, float product,
                                      float up)
{
    const struct gemv_item &item = list.items[f.at.item];
    float y = product * f.scale[0];
    if (list.gated) {
        y = number(rounded<C>(y));
        y *= sigmoid<C>(y) * number(rounded<C>(up * f.scale[1]));
    }
    if (item.add != NULL) y += f.add;
    ((C *)item.y)[f.m * item.N + f.at.n] = rounded<C>(y);
}

/* ---- Kernels --------------------------------------------------------------------------------- */

/* C: of results, of which a thread has at most one. 1 << shift warps share a row; FULL: each of
 * their lanes has all of its loads. */
template <class W, class C, int M, bool NORM, bool FULL>
__global__ void __launch_bounds__(THREADS, 2)
    gemv_list_kernel(const __grid_constant__ struct gemv_list list, int total, int share, int shift)
{
#if __CUDA_ARCH__ >= 900
    extern __shared__ __align__(128) unsigned char memory[];
    __shared__ uint64_t arrived;
    __shared__ float sums[MOST_ROWS * MOST_PARTS * M], of_part[M][MOST_PARTS];
    const int first = (int)blockIdx.x * share, K = (int)list.K;
    const int rows = total - first < share ? total - first : share;
    const int results = list.gated ? rows / 2 : rows, part = threadIdx.x / 32 & ((1 << shift) - 1);
    const int result = threadIdx.x % MOST_ROWS, m_of = threadIdx.x / MOST_ROWS;
    const bool writes = result < results && m_of < list.rows && m_of < M;
    if (threadIdx.x == 0)
        ask<W>(list, first, rows, shared_address(memory), shared_address(&arrived));
    dependency_release();
    if (NORM) prefetch(list.gain, K);
    finish f = {};
    if (writes) f = finish_of(list, (list.gated ? first / 2 : first) + result, m_of);
    dependency_wait();
    float v[M][GROUPS][8];
    if (writes) read_add<C>(list, f);
    read_x<W, M, NORM, FULL>(list, v, of_part, part, shift);
    __syncthreads(); /* the barrier is there */
    mbarrier_wait(shared_address(&arrived), 0);
    multiply<W, M, FULL>((const W *)memory, v, sums, rows, K, part, shift);
    __syncthreads();
    if (writes)
        write<C>(list, f, total_of<M>(sums, result, m_of, shift),
                 list.gated ? total_of<M>(sums, results + result, m_of, shift) : 0);
#endif
}

/* Rows of any length on any address: a block a result of a row of x. */
template <class W, class C>
__global__ void __launch_bounds__(THREADS)
    gemv_list_any_kernel(const __grid_constant__ struct gemv_list list, int results)
{
    const int64_t K = list.K;
    const int m = (int)blockIdx.x / results;
    const bf16 *x = (const bf16 *)list.x + m * K;
    finish f = finish_of(list, (int)blockIdx.x % results, m);
    float squares = 0, product[2] = {};
    for (int64_t k = threadIdx.x; k < K; k += THREADS) squares += number(x[k]) * number(x[k]);
    const float factor = 1 / sqrtf(team_sum<THREADS>(squares) / (int)K + list.eps);
#pragma unroll
    for (int i = 0; i < 2; i++) {
        if (i == 1 && !list.gated) continue;
        const W *row = (const W *)list.items[f.at.item + i].weight + (int64_t)f.at.n * K;
        float sum = 0;
        for (int64_t k = threadIdx.x; k < K; k += THREADS) {
            float v = number(x[k]);
            if (list.gain != NULL) v = number(rounded<bf16>(v * (factor * list.gain[k])));
            sum += number(row[k]) * v;
        }
        product[i] = team_sum<THREADS>(sum);
    }
    read_add<C>(list, f);
    if (threadIdx.x == 0) write<C>(list, f, product[0], product[1]);
}

/* ---- Launchers ------------------------------------------------------------------------------- */

int64_t rows_of(const struct gemv_list *list)
{
    int64_t rows = 0;
    for (int i = 0; i < list->count; i++) rows += list->items[i].N;
    return rows;
}

/* Of the warps that share a row: as many as give each lane up to 32 of its numbers. */
int shift_of(int64_t K)
{
    int shift = 0;
    while (LONGEST_PART << shift < K) shift++;
    return shift;
}

/* Rows of weights of a block: two blocks a multiprocessor, if that is no more than fits. */
int share_of(const struct gemv_list *list, int64_t total, int64_t bytes)
{
    int device, chips = 1;
    if (cudaGetDevice(&device) != cudaSuccess ||
        cudaDeviceGetAttribute(&chips, cudaDevAttrMultiProcessorCount, device) != cudaSuccess)
        return list->gated ? 2 : 1;
    const int64_t unit = list->gated ? 2 : 1;
    int64_t share = blocks_for(total, 2 * chips * unit) * unit;
    if (share > MOST_BYTES / bytes) share = MOST_BYTES / bytes / unit * unit;
    return (int)(share > MOST_ROWS ? MOST_ROWS : share);
}

template <class W> bool is_aligned(const struct gemv_list *list)
{
    bool aligned = list->K % WIDE<W> == 0 && is_wide(list->K, list->x, list->gain);
    for (int i = 0; i < list->count; i++)
        aligned = aligned && (uintptr_t)list->items[i].weight % 16 == 0;
    return aligned;
}

template <class W, class C, int M, bool NORM>
void launch_rows(plx_stream stream, const struct gemv_list *list)
{
    const int64_t total = rows_of(list), bytes = list->K * (int64_t)sizeof(W);
    const int share = share_of(list, total, bytes), shift = shift_of(list->K);
    const bool full = list->K == LONGEST_PART << shift;
    launch_chained_with((size_t)(share * bytes),
                        full ? gemv_list_kernel<W, C, M, NORM, true>
                             : gemv_list_kernel<W, C, M, NORM, false>,
                        blocks_for(total, share), THREADS, stream, *list, (int)total, share, shift);
}

template <class W, class C> void launch_list(plx_stream stream, const struct gemv_list *list)
{
    if (!is_aligned<W>(list)) {
        const int64_t results = rows_of(list) / (list->gated ? 2 : 1);
        gemv_list_any_kernel<W, C>
            <<<results * list->rows, THREADS, 0, (cudaStream_t)stream>>>(*list, (int)results);
    } else if (list->rows == 1 && list->gain != NULL) {
        launch_rows<W, C, 1, true>(stream, list);
    } else if (list->rows == 1) {
        launch_rows<W, C, 1, false>(stream, list);
    } else if (list->gain != NULL) {
        launch_rows<W, C, 2, true>(stream, list);
    } else {
        launch_rows<W, C, 2, false>(stream, list);
    }
}

} // namespace

bool launch_gemv_list_serves(const struct gemv_list *list)
{
    return list->rows >= 1 && list->rows <= FEW && list->K >= 1 &&
           list->K <= MOST_PARTS * LONGEST_PART && rows_of(list) >= 1 &&
           rows_of(list) < INT32_MAX / FEW && is_hopper();
}

const char *launch_gemv_list(plx_stream stream, const struct gemv_list *list)
{
    for_dtype(list->out, [&](auto out) {
        if (list->items[0].scale != NULL)
            launch_list<int8_t, decltype(out)>(stream, list);
        else
            launch_list<bf16, decltype(out)>(stream, list);
    });
    return launched();
}
