/* attention_any.cuh: what the simple CUDA kernels share: tiles in shared memory, and where a block
 * works.
 *
 * These kernels run on every GPU from sm_80, for every mask, layout, dtype and head size that the
 * public header allows. They compute in f32 on the ordinary cores, keep one tile of queries and one
 * of keys in shared memory, and are the yardstick for the tuned kernels rather than their rival.
 *
 * A block has 128 threads and works on QUERIES query rows and 32 keys at a time. For scores, lane =
 * key and warp w holds rows w * QUERIES/4 and up, so row maxima and sums are warp reductions. For
 * products with values a thread owns channels threadIdx.x and threadIdx.x + 128.
 *
 * Included by attention_any_forward.cuh and attention_any_backward.cuh. */
#ifndef PLX_ATTENTION_ANY_CUH
#define PLX_ATTENTION_ANY_CUH

#include "cuda/element.cuh"

extern "C" {
#include "attention/attention.h"
}

enum { ANY_THREADS = 128, ANY_WARPS = 4, ANY_KEYS = 32, ANY_MAX_D = 256, ANY_SLICES = 2 };

static __device__ __forceinline__ int64_t any_offset(const struct plx_tensor &offsets, int64_t n)
{
    return ((const int32_t *)offsets.data)[n];
}

static __device__ __forceinline__ int64_t any_clamp(int64_t value, int64_t limit)
{
    return value < 0 ? 0 : value > limit ? limit : value;
}

/* The device twin of attention_sequence() in attention.c. */
static __device__ struct attention_sequence any_sequence(const struct attention_problem &p,
                                                         int64_t n)
{
    if (p.q_offsets.data != NULL) {
        const struct plx_tensor &keys = p.k_offsets.data != NULL ? p.k_offsets : p.q_offsets;
        int64_t q_start = any_offset(p.q_offsets, n), k_start = any_offset(keys, n);
        struct attention_sequence s = {0, q_start, any_offset(p.q_offsets, n + 1) - q_start,
                                       0, k_start, any_offset(keys, n + 1) - k_start};
        return s;
    }
    struct attention_sequence s = {n, 0, p.T, n, 0, p.S};
    /* Lengths live in device memory and were not checked: clamp, so that no read leaves the
     * tensors. */
    if (p.q_lengths.data != NULL) s.T = any_clamp(any_offset(p.q_lengths, n), p.T);
    if (p.k_lengths.data != NULL) s.S = any_clamp(any_offset(p.k_lengths, n), p.S);
    return s;
}

/* Blocks along grid.x that cover `extent` rows in tiles of `rows`: for packed batches every
 * sequence may end with a partial tile, and slot numbers are start / rows + n, which never collide.
 */
static inline int64_t any_slots(const struct attention_problem *p, int64_t extent, int rows)
{
    if (p->q_offsets.data != NULL || p->q_offsets.rank != 0) return extent / rows + p->sequences;
    return (extent + rows - 1) / rows * p->sequences;
}

/* Which tile a slot is. live_end: rows of the tile's sequence that exist (others are padding behind
 * a length); row_end: rows that must be written. */
struct any_tile {
    struct attention_sequence sequence;
    int64_t number; /* of the sequence */
    int64_t first;  /* first row of the tile within its sequence */
    int64_t row_end;
    bool used;
};

static __device__ struct any_tile any_find(const struct attention_problem &p, int64_t slot,
                                           int rows, bool by_key)
{
    struct any_tile tile;
    int64_t n, extent = by_key ? p.S : p.T;
    if (p.q_offsets.data == NULL) {
        int64_t tiles = (extent + rows - 1) / rows;
        n = slot / tiles;
        tile.sequence = any_sequence(p, n);
        tile.number = n;
        tile.first = slot % tiles * rows;
        tile.row_end = extent;
        tile.used = true;
        return tile;
    }
    const struct plx_tensor &offsets =
        by_key && p.k_offsets.data != NULL ? p.k_offsets : p.q_offsets;
    int64_t low = 0, high = p.sequences - 1; /* last n whose first slot is <= slot */
    while (low < high) {
        int64_t middle = (low + high + 1) / 2;
        if (any_offset(offsets, middle) / rows + middle <= slot)
            low = middle;
        else
            high = middle - 1;
    }
    tile.sequence = any_sequence(p, low);
    tile.number = low;
    tile.first = (slot - any_offset(offsets, low) / rows - low) * rows;
    tile.row_end = by_key ? tile.sequence.S : tile.sequence.T;
    tile.used = tile.first < tile.row_end;
    return tile;
}

/* Rows first .. first + rows - 1 of one head into shared memory as f32, row stride D + 1 (so that
 * lanes that read one channel of 32 rows meet 32 banks); rows at or past end become zero and are
 * never read. */
static __device__ void any_load(float *shared, const struct plx_tensor &tensor, int64_t batch,
                                int64_t start, int64_t head, int64_t first, int64_t end, int rows,
                                int D)
{
    for (int row = threadIdx.x / 32; row < rows; row += ANY_WARPS) {
        int64_t source = element_row(tensor, batch, start + first + row, head);
        for (int d = threadIdx.x % 32; d < D; d += 32)
            shared[row * (D + 1) + d] = first + row < end ? element_load(tensor, source + d) : 0.0f;
    }
}

/* The same for keys or values first .. first + 31 of a sequence, wherever its cache has them. */
static __device__ void any_load_keys(float *shared, const struct attention_problem &p,
                                     const struct plx_tensor &tensor,
                                     const struct plx_tensor &scales,
                                     const struct attention_sequence &s, int64_t head,
                                     int64_t first, int D)
{
    float scale = scales.data != NULL ? ((const float *)scales.data)[head] : 1.0f;
    for (int row = threadIdx.x / 32; row < ANY_KEYS; row += ANY_WARPS) {
        bool live = first + row < s.S;
        int64_t source = live ? attention_key_offset(&p, &tensor, &s, first + row, head) : 0;
        for (int d = threadIdx.x % 32; d < D; d += 32)
            shared[row * (D + 1) + d] = live ? scale * element_load(tensor, source + d) : 0.0f;
    }
}

/* Channels summed before they join the total: a sum of sums, which keeps long rows accurate. */
enum { ANY_RUN = 16 };

/* Dot products of this lane's key with ROWS query rows beginning at row. */
template <int ROWS>
static __device__ __forceinline__ void any_dots(float (&dots)[ROWS], const float *queries,
                                                const float *keys, int row, int D)
{
    const float *key = keys + (threadIdx.x % 32) * (D + 1);
    for (int i = 0; i < ROWS; i++) dots[i] = 0.0f;
    for (int begin = 0; begin < D; begin += ANY_RUN) {
        float part[ROWS];
        int end = begin + ANY_RUN < D ? begin + ANY_RUN : D;
        for (int i = 0; i < ROWS; i++) part[i] = 0.0f;
        for (int d = begin; d < end; d++) {
            float value = key[d];
#pragma unroll
            for (int i = 0; i < ROWS; i++)
                part[i] = fmaf(queries[(row + i) * (D + 1) + d], value, part[i]);
        }
        for (int i = 0; i < ROWS; i++) dots[i] += part[i];
    }
}

/* The dot product of two rows in shared memory, in the very order of any_dots: where an output row
 * equals a value row, so do their products with a third, and differences of them are exactly zero.
 */
static __device__ __forceinline__ float any_dot(const float *a, const float *b, int D)
{
    float dot = 0.0f;
    for (int begin = 0; begin < D; begin += ANY_RUN) {
        float part = 0.0f;
        int end = begin + ANY_RUN < D ? begin + ANY_RUN : D;
        for (int d = begin; d < end; d++) part = fmaf(a[d], b[d], part);
        dot += part;
    }
    return dot;
}

/* Keys that any live row of a tile of `rows` query rows sees. */
static __device__ __forceinline__ struct attention_range
any_keys(const struct attention_problem &p, const struct attention_sequence &s, int64_t first,
         int rows)
{
    int64_t last = first + rows < s.T ? first + rows : s.T;
    struct attention_range range = {0, 0};
    if (last > first) {
        range.first = attention_keys(&p, s.T, s.S, first).first;
        range.end = attention_keys(&p, s.T, s.S, last - 1).end;
    }
    return range;
}

static __device__ __forceinline__ bool any_visible(const struct attention_problem &p,
                                                   const struct attention_sequence &s,
                                                   int64_t query, int64_t key)
{
    struct attention_range keys = attention_keys(&p, s.T, s.S, query);
    return query < s.T && key >= keys.first && key < keys.end;
}

#endif
