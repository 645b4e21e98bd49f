/* attention_any_forward.cuh: forward and decode on any GPU, with and without the probe.
 *
 * One block walks the key tiles of one query tile with the online softmax of parallax/NOTES.md.
 * grid is (tile slots, H, splits): decode splits the keys over grid.z, every split leaves a partial
 * result (o, lse, t, m in f32) in the workspace, and a second kernel joins them by the formula of
 * plx_parallax_merge. With one split the first kernel writes the outputs itself.
 *
 * Phases of the main loop:
 *   1 keys to shared memory    2 scores, running maximum, weights    3 values over the keys    4
 * accumulate */
#ifndef PLX_ATTENTION_ANY_FORWARD_CUH
#define PLX_ATTENTION_ANY_FORWARD_CUH

#include "attention/attention_any.cuh"

enum { ANY_QUERIES = 16, ANY_WARP_ROWS = ANY_QUERIES / ANY_WARPS };

/* Where one split leaves its part; all f32, dense [splits, B, T, H(, D)]. NULL with one split. */
struct any_partials {
    int splits;
    float *o, *mean, *lse, *t;
};

/* Final or partial outputs of one row; every thread of the block calls it for its channels. */
template <bool PROBE>
static __device__ void any_write(const struct attention_problem &p,
                                 const struct any_partials &partials, int64_t batch, int64_t time,
                                 int64_t head, int d, float o, float mean, float lse, float t)
{
    if (partials.splits > 1) {
        int64_t row = ((blockIdx.z * p.B + batch) * p.T + time) * p.H + head;
        partials.o[row * p.D + d] = o;
        if (PROBE) partials.mean[row * p.D + d] = mean;
        if (d == 0) partials.lse[row] = lse;
        if (PROBE && d == 0) partials.t[row] = t;
        return;
    }
    element_store(p.o, element_row(p.o, batch, time, head) + d, o);
    if (PROBE && p.value_mean.data != NULL)
        element_store(p.value_mean, element_row(p.value_mean, batch, time, head) + d, mean);
    if (d == 0 && p.lse.data != NULL)
        element_store(p.lse, element_row(p.lse, batch, time, head), lse);
    if (PROBE && d == 0 && p.probe_mean.data != NULL)
        element_store(p.probe_mean, element_row(p.probe_mean, batch, time, head), t);
}

/* A sum over tiles that keeps what its rounding lost: equal tiles added to a large sum would all be
 * rounded the same way. */
struct any_sum {
    float value, lost;
};

static __device__ void any_sum_join(struct any_sum &sum, float factor, float tile)
{
    float earlier = sum.value * factor, added = fmaf(sum.lost, factor, tile);
    sum.value = earlier + added;
    sum.lost = added - (sum.value - earlier);
}

template <bool PROBE>
__global__ void __launch_bounds__(ANY_THREADS)
    any_forward_kernel(const __grid_constant__ struct attention_problem p,
                       const __grid_constant__ struct any_partials partials)
{
    extern __shared__ float shared[];
    __shared__ float weight[ANY_KEYS][ANY_QUERIES], probe_weight[ANY_KEYS][ANY_QUERIES];
    __shared__ float row_scale[ANY_QUERIES], row_sum[ANY_QUERIES], row_shift[ANY_QUERIES];
    __shared__ float row_lse[ANY_QUERIES], row_t[ANY_QUERIES];
    int D = (int)p.D;
    float *queries = shared, *probes = queries + ANY_QUERIES * (D + 1);
    float *keys = probes + (PROBE ? ANY_QUERIES * (D + 1) : 0);

    struct any_tile tile = any_find(p, blockIdx.x, ANY_QUERIES, false);
    if (!tile.used) return;
    struct attention_sequence s = tile.sequence;
    int64_t head = blockIdx.y, kv_head = head / (p.H / p.G);
    int lane = threadIdx.x % 32, row0 = threadIdx.x / 32 * ANY_WARP_ROWS;

    /* This block's share of whole key tiles. */
    struct attention_range range = any_keys(p, s, tile.first, ANY_QUERIES);
    int64_t tiles =
        range.end > range.first ? (range.end - range.first + ANY_KEYS - 1) / ANY_KEYS : 0;
    int64_t tile_begin = tiles * blockIdx.z / partials.splits;
    int64_t tile_end = tiles * (blockIdx.z + 1) / partials.splits;

    any_load(queries, p.q, s.q_batch, s.q_start, head, tile.first, s.T, ANY_QUERIES, D);
    if (PROBE) any_load(probes, p.r, s.q_batch, s.q_start, head, tile.first, s.T, ANY_QUERIES, D);

    float maximum[ANY_WARP_ROWS], c[ANY_WARP_ROWS];
    struct any_sum sum[ANY_WARP_ROWS], shift_sum[ANY_WARP_ROWS];
    for (int i = 0; i < ANY_WARP_ROWS; i++) {
        maximum[i] = -INFINITY;
        sum[i] = shift_sum[i] = (struct any_sum){0.0f, 0.0f};
        c[i] = 0.0f;
    }
    float a1[ANY_SLICES][ANY_QUERIES], a2[ANY_SLICES][ANY_QUERIES];
#pragma unroll
    for (int x = 0; x < ANY_SLICES; x++)
        for (int i = 0; i < ANY_QUERIES; i++) a1[x][i] = a2[x][i] = 0.0f;
    const float log2_e = 1.4426950408889634f;
    float scale = (float)p.scale;

    for (int64_t j = tile_begin; j < tile_end; j++) {
        int64_t key0 = range.first + j * ANY_KEYS;
        /* 1: the previous tile's values must have been read by all. */
        __syncthreads();
        any_load_keys(keys, p, p.k, p.k_scales, s, kv_head, key0, D);
        __syncthreads();
        /* 2 */
        float score[ANY_WARP_ROWS], u[ANY_WARP_ROWS];
        any_dots(score, queries, keys, row0, D);
        if (PROBE) any_dots(u, probes, keys, row0, D);
        for (int i = 0; i < ANY_WARP_ROWS; i++) {
            bool visible = any_visible(p, s, tile.first + row0 + i, key0 + lane);
            float l = visible ? score[i] * scale : -INFINITY;
            float next = fmaxf(maximum[i], warp_max(l));
            /* A row that has seen no key yet keeps factor 1 and weight 0 instead of inf - inf. */
            float factor = next == -INFINITY ? 1.0f : exp2f((maximum[i] - next) * log2_e);
            /* The difference before any rounding: at logits of hundreds it is all that counts. */
            float w = visible ? exp2f(fmaf(score[i], scale, -next) * log2_e) : 0.0f;
            float tile_sum = warp_sum(w);
            if (PROBE) {
                float tile_u = warp_sum(visible ? w * u[i] : 0.0f);
                if (sum[i].value == 0.0f && tile_sum > 0.0f) c[i] = tile_u / tile_sum;
                float wu = visible ? w * (u[i] - c[i]) : 0.0f;
                any_sum_join(shift_sum[i], factor, warp_sum(wu));
                probe_weight[lane][row0 + i] = wu;
            }
            any_sum_join(sum[i], factor, tile_sum);
            maximum[i] = next;
            weight[lane][row0 + i] = w;
            if (lane == 0) row_scale[row0 + i] = factor;
        }
        __syncthreads();
        /* 3: the scores are done with the keys. */
        any_load_keys(keys, p, p.v, p.v_scales, s, kv_head, key0, D);
        __syncthreads();
        /* 4 */
#pragma unroll
        for (int x = 0; x < ANY_SLICES; x++) {
            int d = threadIdx.x + x * ANY_THREADS;
            if (d >= D) continue;
#pragma unroll
            for (int i = 0; i < ANY_QUERIES; i++) {
                a1[x][i] *= row_scale[i];
                if (PROBE) a2[x][i] *= row_scale[i];
            }
            for (int key = 0; key < ANY_KEYS; key++) {
                float value = keys[key * (D + 1) + d];
#pragma unroll
                for (int i = 0; i < ANY_QUERIES; i++) {
                    a1[x][i] = fmaf(weight[key][i], value, a1[x][i]);
                    if (PROBE) a2[x][i] = fmaf(probe_weight[key][i], value, a2[x][i]);
                }
            }
        }
    }
    if (lane == 0)
        for (int i = 0; i < ANY_WARP_ROWS; i++) {
            /* Not "> 0": the sum of a row with a NaN score is NaN and must stay it. */
            bool seen = sum[i].value != 0.0f;
            float shift = seen ? shift_sum[i].value / sum[i].value : 0.0f;
            row_sum[row0 + i] = seen ? 1.0f / sum[i].value : 0.0f;
            row_shift[row0 + i] = shift;
            row_t[row0 + i] = seen ? c[i] + shift : 0.0f;
            row_lse[row0 + i] = seen ? maximum[i] + logf(sum[i].value) : -INFINITY;
        }
    __syncthreads();
#pragma unroll
    for (int x = 0; x < ANY_SLICES; x++) {
        int d = threadIdx.x + x * ANY_THREADS;
        if (d >= D) continue;
#pragma unroll
        for (int i = 0; i < ANY_QUERIES; i++) {
            if (tile.first + i >= tile.row_end) continue;
            float mean = a1[x][i] * row_sum[i];
            float o = PROBE ? mean * (1.0f + row_shift[i]) - a2[x][i] * row_sum[i] : mean;
            any_write<PROBE>(p, partials, s.q_batch, s.q_start + tile.first + i, head, d, o, mean,
                             row_lse[i], row_t[i]);
        }
    }
}

/* What a part counts against the largest of all; a part without keys counts nothing, one of a row
 * with a NaN score makes the whole NaN. */
static __device__ __forceinline__ float any_part_weight(float lse, float maximum)
{
    return lse == -INFINITY ? 0.0f : expf(lse - maximum);
}

/* Joins the splits of one row; one warp a row of [B,T,H]. */
template <bool PROBE>
__global__ void __launch_bounds__(ANY_THREADS)
    any_merge_kernel(const __grid_constant__ struct attention_problem p,
                     const __grid_constant__ struct any_partials partials)
{
    int64_t rows = p.B * p.T * p.H;
    int64_t row = (int64_t)blockIdx.x * ANY_WARPS + threadIdx.x / 32;
    if (row >= rows) return;
    float maximum = -INFINITY, sum = 0.0f, t = 0.0f;
    for (int i = 0; i < partials.splits; i++)
        maximum = fmaxf(maximum, partials.lse[i * rows + row]);
    for (int i = 0; i < partials.splits; i++) {
        float w = any_part_weight(partials.lse[i * rows + row], maximum);
        sum += w;
        if (PROBE) t += w * partials.t[i * rows + row];
    }
    bool seen = sum != 0.0f;
    float inverse = seen ? 1.0f / sum : 0.0f, lse = seen ? maximum + logf(sum) : -INFINITY;
    t *= inverse;
    struct any_partials whole = {1, NULL, NULL, NULL, NULL};
    int64_t head = row % p.H, time = row / p.H % p.T, batch = row / p.H / p.T;
    for (int d = threadIdx.x % 32; d < p.D; d += 32) {
        float mean = 0.0f, covariance = 0.0f;
        for (int i = 0; i < partials.splits && seen; i++) {
            int64_t part = i * rows + row;
            float w = any_part_weight(partials.lse[part], maximum) * inverse;
            mean += w * (PROBE ? partials.mean[part * p.D + d] : partials.o[part * p.D + d]);
        }
        for (int i = 0; PROBE && i < partials.splits && seen; i++) {
            int64_t part = i * rows + row;
            float w = any_part_weight(partials.lse[part], maximum) * inverse;
            float part_mean = partials.mean[part * p.D + d];
            covariance += w * ((part_mean - partials.o[part * p.D + d]) +
                               (partials.t[part] - t) * (part_mean - mean));
        }
        any_write<PROBE>(p, whole, batch, time, head, d, mean - covariance, mean, lse, t);
    }
}

#endif
