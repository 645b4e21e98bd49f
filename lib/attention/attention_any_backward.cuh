/* attention_any_backward.cuh: backward on any GPU, with and without the probe, bitwise
 * reproducible.
 *
 * Two kernels and no atomics: one block a query tile for dq and dr, one block a key tile (looping
 * over the query heads of its group) for dk and dv. Both rebuild the weights from lse: p =
 * exp(scale q.k - lse)    a = d_o.v    delta = a - b dl = p (a - c + (t - u) delta)    du = -p
 * delta    dv weight = p (1 + t - u) with the row scalars c = d_o.o and b = d_o.mean, which the
 * first kernel leaves in the workspace for the second. Without the probe dl = p (a - c) and the dv
 * weight is p.
 *
 * Eight query rows a tile keep four row tiles and two key tiles of 256 channels under 99 KB. */
#ifndef PLX_ATTENTION_ANY_BACKWARD_CUH
#define PLX_ATTENTION_ANY_BACKWARD_CUH

#include "attention/attention_any.cuh"

enum { ANY_BACK_QUERIES = 8, ANY_BACK_ROWS = ANY_BACK_QUERIES / ANY_WARPS };

/* Row scalars, dense f32 [B,T,H]. */
struct any_rows {
    float *c, *b;
};

struct any_weights {
    float dl, du, dv;
};

template <bool PROBE>
static __device__ __forceinline__ struct any_weights
any_gradients(float score, float u, float a, float c, float b, float lse, float t, float scale,
              bool visible)
{
    struct any_weights w = {0.0f, 0.0f, 0.0f};
    if (!visible) return w;
    float weight = exp2f((score * scale - lse) * 1.4426950408889634f);
    if (PROBE) {
        float delta = a - b;
        w.dl = weight * (a - c + (t - u) * delta);
        w.du = -weight * delta;
        w.dv = weight * (1.0f + (t - u));
    } else {
        w.dl = weight * (a - c);
        w.dv = weight;
    }
    return w;
}

/* Rows of a gradient from `time` on, at most `left`: factor times what each thread has summed for
 * its channels. */
template <int ROWS>
static __device__ __forceinline__ void
any_store(const struct plx_tensor &gradient, int64_t batch, int64_t time, int64_t left,
          int64_t head, int D, float factor, const float (&sums)[ANY_SLICES][ROWS])
{
#pragma unroll
    for (int x = 0; x < ANY_SLICES; x++) {
        int d = threadIdx.x + x * ANY_THREADS;
        if (d >= D) continue;
#pragma unroll
        for (int i = 0; i < ROWS; i++)
            if (i < left)
                element_store(gradient, element_row(gradient, batch, time + i, head) + d,
                              factor * sums[x][i]);
    }
}

template <bool PROBE>
__global__ void __launch_bounds__(ANY_THREADS)
    any_backward_query_kernel(const __grid_constant__ struct attention_problem p,
                              const __grid_constant__ struct any_rows rows)
{
    extern __shared__ float shared[];
    __shared__ float dl[ANY_KEYS][ANY_BACK_QUERIES], du[ANY_KEYS][ANY_BACK_QUERIES];
    int D = (int)p.D, size = ANY_BACK_QUERIES * (D + 1);
    float *queries = shared, *douts = queries + size, *probes = douts + size;
    float *keys = probes + (PROBE ? size : 0), *values = keys + ANY_KEYS * (D + 1);

    struct any_tile tile = any_find(p, blockIdx.x, ANY_BACK_QUERIES, false);
    if (!tile.used) return;
    struct attention_sequence s = tile.sequence;
    int64_t head = blockIdx.y, kv_head = head / (p.H / p.G);
    int lane = threadIdx.x % 32, row0 = threadIdx.x / 32 * ANY_BACK_ROWS;
    float scale = (float)p.scale;

    any_load(queries, p.q, s.q_batch, s.q_start, head, tile.first, s.T, ANY_BACK_QUERIES, D);
    any_load(douts, p.d_o, s.q_batch, s.q_start, head, tile.first, s.T, ANY_BACK_QUERIES, D);
    if (PROBE)
        any_load(probes, p.r, s.q_batch, s.q_start, head, tile.first, s.T, ANY_BACK_QUERIES, D);
    /* The outputs and means lie where the keys and values will. */
    any_load(keys, p.o, s.q_batch, s.q_start, head, tile.first, s.T, ANY_BACK_QUERIES, D);
    if (PROBE)
        any_load(values, p.value_mean, s.q_batch, s.q_start, head, tile.first, s.T,
                 ANY_BACK_QUERIES, D);
    __syncthreads();

    float c[ANY_BACK_ROWS], b[ANY_BACK_ROWS], lse[ANY_BACK_ROWS], t[ANY_BACK_ROWS];
    for (int i = 0; i < ANY_BACK_ROWS; i++) {
        int64_t row = tile.first + row0 + i, time = s.q_start + row;
        c[i] = b[i] = lse[i] = t[i] = 0.0f;
        if (row >= s.T) continue;
        /* Lane 0 for o, lane 1 for the mean: any_dot is sequential, and this is once a row. */
        const float *dout = douts + (row0 + i) * (D + 1);
        float dot = 0.0f;
        if (lane < (PROBE ? 2 : 1))
            dot = any_dot(dout, (lane == 0 ? keys : values) + (row0 + i) * (D + 1), D);
        c[i] = __shfl_sync(0xffffffffu, dot, 0);
        b[i] = __shfl_sync(0xffffffffu, dot, 1);
        lse[i] = element_load(p.lse, element_row(p.lse, s.q_batch, time, head));
        if (PROBE)
            t[i] = element_load(p.probe_mean, element_row(p.probe_mean, s.q_batch, time, head));
        /* A call without keys has no workspace. */
        if (lane == 0 && rows.c != NULL) {
            int64_t index = (s.q_batch * p.T + time) * p.H + head;
            rows.c[index] = c[i];
            if (PROBE) rows.b[index] = b[i];
        }
    }

    struct attention_range range = any_keys(p, s, tile.first, ANY_BACK_QUERIES);
    float dq[ANY_SLICES][ANY_BACK_QUERIES], dr[ANY_SLICES][ANY_BACK_QUERIES];
#pragma unroll
    for (int x = 0; x < ANY_SLICES; x++)
        for (int i = 0; i < ANY_BACK_QUERIES; i++) dq[x][i] = dr[x][i] = 0.0f;
    for (int64_t key0 = range.first; key0 < range.end; key0 += ANY_KEYS) {
        __syncthreads(); /* the previous keys have been read by all */
        any_load(keys, p.k, s.k_batch, s.k_start, kv_head, key0, s.S, ANY_KEYS, D);
        any_load(values, p.v, s.k_batch, s.k_start, kv_head, key0, s.S, ANY_KEYS, D);
        __syncthreads();
        float score[ANY_BACK_ROWS], u[ANY_BACK_ROWS] = {0}, a[ANY_BACK_ROWS];
        any_dots(score, queries, keys, row0, D);
        if (PROBE) any_dots(u, probes, keys, row0, D);
        any_dots(a, douts, values, row0, D);
        for (int i = 0; i < ANY_BACK_ROWS; i++) {
            bool visible = any_visible(p, s, tile.first + row0 + i, key0 + lane);
            struct any_weights w = any_gradients<PROBE>(score[i], u[i], a[i], c[i], b[i], lse[i],
                                                        t[i], scale, visible);
            dl[lane][row0 + i] = w.dl;
            if (PROBE) du[lane][row0 + i] = w.du;
        }
        __syncthreads();
#pragma unroll
        for (int x = 0; x < ANY_SLICES; x++) {
            int d = threadIdx.x + x * ANY_THREADS;
            if (d >= D) continue;
            for (int key = 0; key < ANY_KEYS; key++) {
                float value = keys[key * (D + 1) + d];
#pragma unroll
                for (int i = 0; i < ANY_BACK_QUERIES; i++) {
                    dq[x][i] = fmaf(dl[key][i], value, dq[x][i]);
                    if (PROBE) dr[x][i] = fmaf(du[key][i], value, dr[x][i]);
                }
            }
        }
    }
    int64_t time = s.q_start + tile.first, rows_left = tile.row_end - tile.first;
    any_store(p.dq, s.q_batch, time, rows_left, head, D, scale, dq);
    if (PROBE) any_store(p.dr, s.q_batch, time, rows_left, head, D, 1.0f, dr);
}

template <bool PROBE>
__global__ void __launch_bounds__(ANY_THREADS)
    any_backward_key_kernel(const __grid_constant__ struct attention_problem p,
                            const __grid_constant__ struct any_rows rows)
{
    extern __shared__ float shared[];
    __shared__ float dl[ANY_BACK_QUERIES][ANY_KEYS], du[ANY_BACK_QUERIES][ANY_KEYS];
    __shared__ float dw[ANY_BACK_QUERIES][ANY_KEYS];
    __shared__ uint32_t seen[ANY_BACK_QUERIES]; /* which keys a row sees: bit = key */
    int D = (int)p.D, size = ANY_BACK_QUERIES * (D + 1);
    float *queries = shared, *douts = queries + size, *probes = douts + size;
    float *keys = probes + (PROBE ? size : 0), *values = keys + ANY_KEYS * (D + 1);

    struct any_tile tile = any_find(p, blockIdx.x, ANY_KEYS, true);
    if (!tile.used) return;
    struct attention_sequence s = tile.sequence;
    int64_t kv_head = blockIdx.y, group = p.H / p.G;
    int lane = threadIdx.x % 32, row0 = threadIdx.x / 32 * ANY_BACK_ROWS;
    float scale = (float)p.scale;
    any_load(keys, p.k, s.k_batch, s.k_start, kv_head, tile.first, s.S, ANY_KEYS, D);
    any_load(values, p.v, s.k_batch, s.k_start, kv_head, tile.first, s.S, ANY_KEYS, D);

    /* Queries that may see a key of this tile: from the one at its first key to the one whose
     * window ends at its last. */
    int64_t last_key = tile.first + ANY_KEYS < s.S ? tile.first + ANY_KEYS : s.S;
    int64_t first_query = 0, end_query = tile.first < s.S ? s.T : 0;
    if (p.causal) {
        int64_t shift = s.S - s.T;
        if (tile.first - shift > 0)
            first_query = (tile.first - shift) / ANY_BACK_QUERIES * ANY_BACK_QUERIES;
        if (p.window > 0 && last_key - 1 + p.window - shift < end_query)
            end_query = last_key - 1 + p.window - shift;
    }
    float dk[ANY_SLICES][ANY_KEYS], dv[ANY_SLICES][ANY_KEYS];
#pragma unroll
    for (int x = 0; x < ANY_SLICES; x++)
        for (int i = 0; i < ANY_KEYS; i++) dk[x][i] = dv[x][i] = 0.0f;

    for (int64_t head = kv_head * group; head < (kv_head + 1) * group; head++)
        for (int64_t query0 = first_query; query0 < end_query; query0 += ANY_BACK_QUERIES) {
            __syncthreads(); /* the previous rows have been read by all */
            any_load(queries, p.q, s.q_batch, s.q_start, head, query0, s.T, ANY_BACK_QUERIES, D);
            any_load(douts, p.d_o, s.q_batch, s.q_start, head, query0, s.T, ANY_BACK_QUERIES, D);
            if (PROBE)
                any_load(probes, p.r, s.q_batch, s.q_start, head, query0, s.T, ANY_BACK_QUERIES, D);
            __syncthreads();
            float score[ANY_BACK_ROWS], u[ANY_BACK_ROWS] = {0}, a[ANY_BACK_ROWS];
            any_dots(score, queries, keys, row0, D);
            if (PROBE) any_dots(u, probes, keys, row0, D);
            any_dots(a, douts, values, row0, D);
            for (int i = 0; i < ANY_BACK_ROWS; i++) {
                int64_t query = query0 + row0 + i, time = s.q_start + query;
                struct any_weights w = {0.0f, 0.0f, 0.0f};
                bool visible = any_visible(p, s, query, tile.first + lane);
                uint32_t mask = __ballot_sync(0xffffffffu, visible);
                if (lane == 0) seen[row0 + i] = mask;
                if (query < s.T) {
                    int64_t index = (s.q_batch * p.T + time) * p.H + head;
                    float b = PROBE ? rows.b[index] : 0.0f;
                    float t = PROBE ? element_load(p.probe_mean,
                                                   element_row(p.probe_mean, s.q_batch, time, head))
                                    : 0.0f;
                    float lse = element_load(p.lse, element_row(p.lse, s.q_batch, time, head));
                    w = any_gradients<PROBE>(score[i], u[i], a[i], rows.c[index], b, lse, t, scale,
                                             visible);
                }
                dl[row0 + i][lane] = w.dl * scale;
                dw[row0 + i][lane] = w.dv;
                if (PROBE) du[row0 + i][lane] = w.du;
            }
            __syncthreads();
#pragma unroll
            for (int x = 0; x < ANY_SLICES; x++) {
                int d = threadIdx.x + x * ANY_THREADS;
                if (d >= D) continue;
                for (int row = 0; row < ANY_BACK_QUERIES; row++) {
                    float query = queries[row * (D + 1) + d], dout = douts[row * (D + 1) + d];
                    float probe = PROBE ? probes[row * (D + 1) + d] : 0.0f;
                    uint32_t mask = seen[row];
#pragma unroll
                    for (int i = 0; i < ANY_KEYS; i++) {
                        /* Not merely weight 0: a NaN in a row must not reach keys it does not see.
                         */
                        if ((mask >> i & 1) == 0) continue;
                        dk[x][i] = fmaf(dl[row][i], query, dk[x][i]);
                        if (PROBE) dk[x][i] = fmaf(du[row][i], probe, dk[x][i]);
                        dv[x][i] = fmaf(dw[row][i], dout, dv[x][i]);
                    }
                }
            }
        }
    int64_t time = s.k_start + tile.first, rows_left = tile.row_end - tile.first;
    any_store(p.dk, s.k_batch, time, rows_left, kv_head, D, 1.0f, dk);
    any_store(p.dv, s.k_batch, time, rows_left, kv_head, D, 1.0f, dv);
}

#endif
