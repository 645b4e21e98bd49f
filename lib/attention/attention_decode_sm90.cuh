/* attention_decode_sm90.cuh: decode on Hopper: few queries against a long bf16 cache, with and
 * without the probe.
 *
 * The work is to read the keys and values once, at the speed of the memory. A block has
 * DECODE_WARPS warps; each keeps a ring of DECODE_STAGES tiles of 16 keys and their values in
 * shared memory, fed by asynchronous copies of 16 bytes, and waits for nobody: warps meet only at
 * the end. Matrix products have 16 rows: query rows are 0..7 and their probes 8..15, so that the
 * score and the u of a key meet in one thread. Without the probe the lower half carries what the
 * rounding of the weights to bf16 left, so the products with the values are as exact as with two of
 * them.
 *
 *     1  copies of the first tiles
 *     2  for each tile: [S; U] = [q; r] K', weights, [A1; A2] += [w; w (u - c)] V    (NOTES.md)
 *     3  the warps' partial results are joined, each block sends every block of its cluster the
 * slice of rows and channels that this one finishes, and it does
 *
 * Weights enter the products as two bf16 numbers, high and low part, so their rounding costs 2^-17
 * instead of 2^-9. The order of all additions is fixed: results repeat bit for bit. */
#ifndef PLX_ATTENTION_DECODE_SM90_CUH
#define PLX_ATTENTION_DECODE_SM90_CUH

#include "cuda/element.cuh"
#include "cuda/instructions.cuh"

extern "C" {
#include "attention/attention_decode_plan.h"
}

/* Strides in elements. */
struct decode_view {
    void *data;
    int64_t batch, time, head;
    int is_f32;
};

struct decode_arguments {
    struct decode_view q, r, k, v, o, lse, probe_mean,
        value_mean;                       /* outputs: data NULL where absent */
    const int32_t *q_lengths, *k_lengths; /* NULL: T, S */
    int T, S, group, rows, row_blocks;
    int causal, aligned; /* aligned: keys and values lie on multiples of 16 bytes */
    int64_t window;      /* 0: unlimited */
    float scale;         /* times log2 e */
};

/* What a warp, a block or a cluster knows of a row, in units of log 2: maximum, sum of w, sum of w
 * (u - c). */
struct decode_state {
    float maximum, sum, shift, c;
};

/* Keys first..end - 1 that a row sees, and its place. Rows behind a length do not exist: they are
 * written as zeros but never read. */
struct decode_row {
    int first, end;
    int64_t time, head;
    bool exists;
};

static __device__ __forceinline__ struct decode_row
decode_row_of(const struct decode_arguments &p, int row, int kv_head, int T, int S)
{
    struct decode_row at = {0, 0, row / p.group, (int64_t)kv_head * p.group + row % p.group, false};
    at.exists = row < p.rows && at.time < T;
    if (!at.exists) return at;
    at.end = S;
    if (p.causal) {
        int position = S - T + (int)at.time;
        at.end = position + 1 < 0 ? 0 : position + 1;
        if (p.window > 0 && position + 1 - p.window > 0) at.first = (int)(position + 1 - p.window);
    }
    return at;
}

static __device__ __forceinline__ void decode_store(const struct decode_view &view, int64_t batch,
                                                    int64_t time, int64_t head, int d, float value)
{
    int64_t index = batch * view.batch + time * view.time + head * view.head + d;
    if (view.is_f32)
        ((float *)view.data)[index] = value;
    else
        ((__nv_bfloat16 *)view.data)[index] = __float2bfloat16_rn(value);
}

/* A part's weight against the largest maximum; none of a part without keys, NaN of one with a NaN.
 */
static __device__ __forceinline__ float decode_weight(const struct decode_state &part,
                                                      float maximum)
{
    return part.sum == 0.0f ? 0.0f : power_of_two(part.maximum - maximum);
}

/* Copies of one tile: lanes side by side along the channels. Keys from `end` on become zero: they
 * may hold anything, and weight 0 times NaN is NaN. */
template <int D>
static __device__ __forceinline__ void decode_fetch(const struct decode_arguments &p,
                                                    const char *keys, const char *values, int first,
                                                    int end, uint32_t stage)
{
    constexpr int PITCH = 2 * D + 16, LANES = D / 8, STEP = 32 / LANES;
    int lane = threadIdx.x % 32, key = first + lane / LANES;
    const char *k = keys + (int64_t)key * p.k.time * 2 + lane % LANES * 16;
    const char *v = values + (int64_t)key * p.v.time * 2 + lane % LANES * 16;
    uint32_t target = stage + lane / LANES * PITCH + lane % LANES * 16;
    if (p.aligned) {
#pragma unroll
        for (int i = 0; i < DECODE_KEYS; i += STEP) {
            int bytes = key + i < end ? 16 : 0;
            copy_async(target + i * PITCH, k + (int64_t)i * p.k.time * 2, bytes);
        }
#pragma unroll
        for (int i = 0; i < DECODE_KEYS; i += STEP) {
            int bytes = key + i < end ? 16 : 0;
            copy_async(target + (DECODE_KEYS + i) * PITCH, v + (int64_t)i * p.v.time * 2, bytes);
        }
    } else {
#pragma unroll 1
        for (int i = 0; i < DECODE_KEYS; i += STEP)
#pragma unroll 1
            for (int which = 0; which < 2; which++) {
                const uint16_t *from = (const uint16_t *)(which ? v + (int64_t)i * p.v.time * 2
                                                                : k + (int64_t)i * p.k.time * 2);
                uint16_t x[8];
                for (int d = 0; d < 8; d++) x[d] = key + i < end ? from[d] : 0;
                uint4 packed = {x[0] | (uint32_t)x[1] << 16, x[2] | (uint32_t)x[3] << 16,
                                x[4] | (uint32_t)x[5] << 16, x[6] | (uint32_t)x[7] << 16};
                store_shared(target + (which * DECODE_KEYS + i) * PITCH, packed);
            }
    }
    copy_commit();
}

/* One row of q or r as the left operand of a product over D channels; zeros where the row does not
 * exist. */
template <int D>
static __device__ __forceinline__ void decode_operand(const struct decode_view &view, int64_t batch,
                                                      const struct decode_row &row,
                                                      uint32_t (&a)[D / 16][2])
{
    const uint16_t *from = (const uint16_t *)view.data + batch * view.batch + row.time * view.time +
                           row.head * view.head + 2 * (threadIdx.x % 4);
    bool pairs = (uintptr_t)from % 4 == 0;
#pragma unroll
    for (int i = 0; i < D / 8; i++) {
        const uint16_t *x = from + 8 * i;
        a[i / 2][i % 2] = 0;
        if (row.exists && pairs) a[i / 2][i % 2] = *(const uint32_t *)x;
        if (row.exists && !pairs) a[i / 2][i % 2] = x[0] | (uint32_t)x[1] << 16;
    }
}

/* ---- Tiles
 * ---------------------------------------------------------------------------------------- */

/* A warp's running result; lane 4 g + t holds row g. */
template <int D> struct decode_sums {
    float a[D / 8][4]; /* [A1; A2], or without the probe [high; low] of A1 */
    struct decode_state state;
};

/* Scores and u of 16 keys: column 2t + h of half n. */
template <int D>
static __device__ __forceinline__ void decode_scores(uint32_t stage, const uint32_t (&q)[D / 16][2],
                                                     const uint32_t (&r)[D / 16][2],
                                                     float (&s)[2][2], float (&u)[2][2])
{
    constexpr int PITCH = 2 * D + 16;
    int lane = threadIdx.x % 32;
    uint32_t address = stage + (lane / 16 * 8 + lane % 8) * PITCH + lane / 8 % 2 * 16;
    float c[2][2][4]; /* two chains a half: shorter waits, and shorter sums */
#pragma unroll
    for (int i = 0; i < 16; i++) c[i / 8][i / 4 % 2][i % 4] = 0.0f;
#pragma unroll
    for (int i = 0; i < D / 16; i++) {
        uint32_t k[4];
        load_matrices(address + 32 * i, k);
        multiply_add(c[0][i % 2], q[i][0], r[i][0], q[i][1], r[i][1], k[0], k[1]);
        multiply_add(c[1][i % 2], q[i][0], r[i][0], q[i][1], r[i][1], k[2], k[3]);
    }
#pragma unroll
    for (int n = 0; n < 2; n++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            s[n][h] = c[n][0][h] + c[n][1][h];
            u[n][h] = c[n][0][2 + h] + c[n][1][2 + h];
        }
}

static __device__ __forceinline__ float quad_sum(float x)
{
    x += __shfl_xor_sync(0xffffffffu, x, 1);
    return x + __shfl_xor_sync(0xffffffffu, x, 2);
}

/* Scores (times scale; -infinity where masked) become weights in place; u becomes w (u - c). */
template <int D, bool PROBE>
static __device__ __forceinline__ void decode_weights(struct decode_sums<D> &sums, float (&s)[2][2],
                                                      float (&u)[2][2])
{
    struct decode_state &state = sums.state;
    float tile = fmaxf(fmaxf(s[0][0], s[0][1]), fmaxf(s[1][0], s[1][1]));
    tile = fmaxf(tile, __shfl_xor_sync(0xffffffffu, tile, 1));
    tile = fmaxf(tile, __shfl_xor_sync(0xffffffffu, tile, 2));
    bool fresh = state.maximum == -INFINITY;
    if (__any_sync(0xffffffffu, tile > state.maximum)) {
        float next = fmaxf(state.maximum, tile);
        float factor = next == state.maximum ? 1.0f : power_of_two(state.maximum - next);
        state.maximum = next;
        state.sum *= factor;
        state.shift *= factor;
#pragma unroll
        for (int j = 0; j < D / 8; j++)
#pragma unroll
            for (int i = 0; i < 4; i++) sums.a[j][i] *= factor;
    }
    /* A row that has seen no key yet: all weights 0, or NaN where a score is. */
    float maximum = state.maximum == -INFINITY ? 0.0f : state.maximum;
    float sum = 0.0f, moment = 0.0f;
#pragma unroll
    for (int n = 0; n < 2; n++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            s[n][h] = power_of_two(s[n][h] - maximum);
            sum += s[n][h];
            if (PROBE) moment += s[n][h] * u[n][h];
        }
    state.sum += sum;
    if (!PROBE) return;
    if (__any_sync(0xffffffffu, fresh)) { /* c: the mean u of the first tile with a key */
        float whole = quad_sum(sum), mean = quad_sum(moment);
        if (fresh && whole > 0.0f) state.c = __fdividef(mean, whole);
    }
#pragma unroll
    for (int n = 0; n < 2; n++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            u[n][h] = s[n][h] * (u[n][h] - state.c);
            state.shift += u[n][h];
        }
}

/* Weights as left operands of the products with the values: bf16, high and low part. */
struct decode_operands {
    uint32_t high[2], low[2], high_u[2], low_u[2];
};

template <bool PROBE>
static __device__ __forceinline__ struct decode_operands decode_split(const float (&w)[2][2],
                                                                      const float (&wu)[2][2])
{
    struct decode_operands x = {};
#pragma unroll
    for (int n = 0; n < 2; n++) {
        x.high[n] = pack_bf16(w[n][0], w[n][1]);
        x.low[n] = pack_bf16(w[n][0] - low_bf16(x.high[n]), w[n][1] - high_bf16(x.high[n]));
        if (!PROBE) continue;
        x.high_u[n] = pack_bf16(wu[n][0], wu[n][1]);
        x.low_u[n] = pack_bf16(wu[n][0] - low_bf16(x.high_u[n]), wu[n][1] - high_bf16(x.high_u[n]));
    }
    return x;
}

template <bool PROBE>
static __device__ __forceinline__ void
decode_multiply(float (&a)[4], const struct decode_operands &w, uint32_t b0, uint32_t b1)
{
    if (PROBE) {
        multiply_add(a, w.high[0], w.high_u[0], w.high[1], w.high_u[1], b0, b1);
        multiply_add(a, w.low[0], w.low_u[0], w.low[1], w.low_u[1], b0, b1);
    } else {
        multiply_add(a, w.high[0], w.low[0], w.high[1], w.low[1], b0, b1);
    }
}

/* Adds the tile's values under their weights. */
template <int D, bool PROBE>
static __device__ __forceinline__ void decode_values(struct decode_sums<D> &sums, uint32_t stage,
                                                     const float (&w)[2][2],
                                                     const float (&wu)[2][2])
{
    constexpr int PITCH = 2 * D + 16;
    int lane = threadIdx.x % 32;
    uint32_t address = stage + (DECODE_KEYS + lane / 8 % 2 * 8 + lane % 8) * PITCH + lane / 16 * 16;
    struct decode_operands x = decode_split<PROBE>(w, wu);
#pragma unroll
    for (int j = 0; j < D / 8; j += 2) {
        uint32_t v[4];
        load_matrices_transposed(address + 16 * j, v);
        decode_multiply<PROBE>(sums.a[j], x, v[0], v[1]);
        decode_multiply<PROBE>(sums.a[j + 1], x, v[2], v[3]);
    }
}

/* ---- Through the keys
 * ------------------------------------------------------------------------------- */

/* Keys and values of a head, and a warp's tiles: first, first + DECODE_WARPS, ... below end. */
struct decode_span {
    const char *keys, *values;
    int first, end, end_key;
};

/* Scores times scale; -infinity where the row does not see the key. */
static __device__ __forceinline__ void decode_mask(float (&s)[2][2], const struct decode_row &row,
                                                   int tile, float scale)
{
#pragma unroll
    for (int n = 0; n < 2; n++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            int key = tile * DECODE_KEYS + 8 * n + 2 * (threadIdx.x % 4) + h;
            s[n][h] = key >= row.first && key < row.end ? s[n][h] * scale : -INFINITY;
        }
}

/* A warp's tiles, DECODE_STAGES of them in flight. */
template <int D, bool PROBE>
static __device__ __forceinline__ void
decode_walk(const struct decode_arguments &p, const struct decode_span &span, int64_t batch,
            const struct decode_row &row, uint32_t ring, struct decode_sums<D> &sums)
{
    constexpr int STAGE = 2 * DECODE_KEYS * (2 * D + 16);
#pragma unroll
    for (int stage = 0; stage < DECODE_STAGES; stage++) {
        int tile = span.first + stage * DECODE_WARPS;
        if (tile < span.end)
            decode_fetch<D>(p, span.keys, span.values, tile * DECODE_KEYS, span.end_key,
                            ring + stage * STAGE);
        else
            copy_commit();
    }
    uint32_t q[D / 16][2], r[D / 16][2];
    decode_operand<D>(p.q, batch, row, q);
    if (PROBE)
        decode_operand<D>(p.r, batch, row, r);
    else
        for (int i = 0; i < D / 16; i++) r[i][0] = r[i][1] = 0;
    int stage = 0;
    for (int tile = span.first; tile < span.end; tile += DECODE_WARPS) {
        copy_wait<DECODE_STAGES - 1>();
        __syncwarp();
        uint32_t place = ring + stage * STAGE;
        float s[2][2], u[2][2];
        decode_scores<D>(place, q, r, s, u);
        decode_mask(s, row, tile, p.scale);
        decode_weights<D, PROBE>(sums, s, u);
        decode_values<D, PROBE>(sums, place, s, u);
        __syncwarp(); /* all lanes have read the tile */
        int next = tile + DECODE_STAGES * DECODE_WARPS;
        if (next < span.end)
            decode_fetch<D>(p, span.keys, span.values, next * DECODE_KEYS, span.end_key, place);
        else
            copy_commit();
        stage = stage + 1 < DECODE_STAGES ? stage + 1 : 0;
    }
}

/* ---- Joining
 * -------------------------------------------------------------------------------------- */

/* Shared memory of a block behind the rings, and of every block of the cluster at the same place.
 */
template <int D> struct decode_shared {
    struct decode_state warps[DECODE_WARPS][DECODE_ROWS];
    struct decode_state blocks[DECODE_MAX_CLUSTER][DECODE_ROWS]; /* sent by each block */
    float received[2 * DECODE_ROWS * D +
                   2 * DECODE_MAX_CLUSTER]; /* [block][A1, A2][slice]; fewer for few rows */
};

/* What the blocks' parts count; lies where the rings were, so that two blocks fit a multiprocessor.
 */
struct decode_counts {
    struct decode_state whole[DECODE_ROWS];
    float2 weights[DECODE_ROWS * DECODE_MAX_CLUSTER];
};

/* The block's state of a row: the warps' common maximum, the c of the first with keys, the sums. */
static __device__ __forceinline__ struct decode_state
decode_join_warps(const struct decode_state *warps)
{
    struct decode_state part[DECODE_WARPS], whole = {-INFINITY, 0.0f, 0.0f, 0.0f};
#pragma unroll
    for (int w = 0; w < DECODE_WARPS; w++) part[w] = warps[w * DECODE_ROWS];
#pragma unroll
    for (int w = DECODE_WARPS - 1; w >= 0; w--) {
        whole.maximum = fmaxf(whole.maximum, part[w].maximum);
        whole.c = part[w].sum != 0.0f ? part[w].c : whole.c;
    }
#pragma unroll
    for (int w = 0; w < DECODE_WARPS; w++) {
        float weight = decode_weight(part[w], whole.maximum);
        whole.sum += weight * part[w].sum;
        whole.shift += weight * (part[w].shift + (part[w].c - whole.c) * part[w].sum);
    }
    return whole;
}

/* Leaves the warp's sums in its own ring, brought to the block's maximum and c: [row][A1, A2][D].
 */
template <int D, bool PROBE>
static __device__ __forceinline__ void decode_leave(const struct decode_sums<D> &sums,
                                                    const struct decode_state &whole, float *row)
{
    int t = threadIdx.x % 4;
    float weight = decode_weight(sums.state, whole.maximum), dc = sums.state.c - whole.c;
#pragma unroll
    for (int j = 0; j < D / 8; j++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            int d = 8 * j + 2 * t + h;
            float a1 = (PROBE ? sums.a[j][h] : sums.a[j][h] + sums.a[j][2 + h]) * weight;
            row[d] = a1;
            if (PROBE) row[D + d] = sums.a[j][2 + h] * weight + dc * a1;
        }
}

/* A channel of a row, summed over the warps. */
template <int D>
static __device__ __forceinline__ float decode_over_warps(const float *rings, int ring_floats,
                                                          int row, int which, int d)
{
    float sum = 0.0f;
#pragma unroll
    for (int w = 0; w < DECODE_WARPS; w++)
        sum += rings[w * ring_floats + (row * 2 + which) * D + d];
    return sum;
}

/* What the parts of the cluster's blocks count in each row (x), with their distance of c (y), and
 * the row's state. One warp a row, one lane a block. */
template <int D>
static __device__ __forceinline__ void decode_weigh(const struct decode_shared<D> *shared,
                                                    struct decode_counts *counts, int blocks,
                                                    int rows)
{
    int lane = threadIdx.x % 32;
    for (int row = threadIdx.x / 32; row < rows; row += DECODE_WARPS) {
        struct decode_state part = {-INFINITY, 0.0f, 0.0f, 0.0f}, all = part;
        if (lane < blocks) part = shared->blocks[lane][row];
        all.maximum = warp_max(part.maximum);
        uint32_t live = __ballot_sync(0xffffffffu, part.sum != 0.0f);
        float c = __shfl_sync(0xffffffffu, part.c, live != 0 ? __ffs(live) - 1 : 0);
        if (live != 0) all.c = c;
        float weight = decode_weight(part, all.maximum), dc = part.c - all.c;
        if (lane < blocks) counts->weights[row * DECODE_MAX_CLUSTER + lane] = {weight, dc};
        all.sum = warp_sum(weight * part.sum);
        all.shift = warp_sum(weight * (part.shift + dc * part.sum));
        if (lane == 0) counts->whole[row] = all;
    }
}

/* Everything about one channel of one finished row. a1, a2: sums under the weights. */
template <bool PROBE>
static __device__ __forceinline__ void
decode_write(const struct decode_arguments &p, int64_t batch, int kv_head, int row, int d,
             const struct decode_state &whole, float a1, float a2)
{
    int64_t time = row / p.group, head = (int64_t)kv_head * p.group + row % p.group;
    bool seen = whole.sum != 0.0f;
    float inverse = seen ? 1.0f / whole.sum : 0.0f;
    float mean = a1 * inverse, shift = whole.shift * inverse;
    decode_store(p.o, batch, time, head, d, PROBE ? mean * (1.0f + shift) - a2 * inverse : mean);
    if (PROBE && p.value_mean.data != NULL) decode_store(p.value_mean, batch, time, head, d, mean);
    if (d != 0) return;
    if (p.lse.data != NULL)
        decode_store(p.lse, batch, time, head, 0,
                     seen ? (whole.maximum + log2f(whole.sum)) * 0.6931471805599453f : -INFINITY);
    if (PROBE && p.probe_mean.data != NULL)
        decode_store(p.probe_mean, batch, time, head, 0, seen ? whole.c + shift : 0.0f);
}

/* The sums of a block, to the blocks of its cluster. */
template <int D, bool PROBE>
static __device__ __forceinline__ void decode_send(struct decode_shared<D> *shared,
                                                   const float *rings, int ring_floats, int rows,
                                                   int slice, int rank)
{
    for (int i = threadIdx.x; i < rows * D; i += DECODE_WARPS * 32) {
        float *place = &shared->received[rank * 2 * slice + i % slice];
        uint32_t target = cluster_address(shared_address(place), i / slice);
        cluster_store(target, decode_over_warps<D>(rings, ring_floats, i / D, 0, i % D));
        if (PROBE)
            cluster_store(target + 4 * slice,
                          decode_over_warps<D>(rings, ring_floats, i / D, 1, i % D));
    }
}

/* Joins what the blocks sent for this block's slice and writes the outputs. */
template <int D, bool PROBE>
static __device__ __forceinline__ void
decode_finish(const struct decode_arguments &p, const struct decode_shared<D> *shared,
              const struct decode_counts *counts, int64_t batch, int kv_head, int first_row,
              int rows, int slice, int rank, int blocks)
{
    for (int i = threadIdx.x; i < slice && rank * slice + i < rows * D; i += DECODE_WARPS * 32) {
        int row = (rank * slice + i) / D, d = (rank * slice + i) % D;
        float a1 = 0.0f, a2 = 0.0f;
#pragma unroll 4
        for (int b = 0; b < blocks; b++) {
            float2 weight = counts->weights[row * DECODE_MAX_CLUSTER + b];
            float x = shared->received[b * 2 * slice + i] * weight.x;
            a1 += x;
            if (PROBE) a2 += shared->received[(b * 2 + 1) * slice + i] * weight.x + weight.y * x;
        }
        decode_write<PROBE>(p, batch, kv_head, first_row + row, d, counts->whole[row], a1, a2);
    }
}

/* ---- The kernel
 * ------------------------------------------------------------------------------------ */

/* grid: (cluster, key/value heads times row blocks, batch). */
template <int D, bool PROBE>
__global__ void __launch_bounds__(DECODE_WARPS * 32, 2)
    decode_sm90_kernel(const __grid_constant__ struct decode_arguments p)
{
    constexpr int RING = DECODE_STAGES * 2 * DECODE_KEYS * (2 * D + 16);
    extern __shared__ __align__(128) unsigned char memory[];
    struct decode_shared<D> *shared = (struct decode_shared<D> *)(memory + DECODE_WARPS * RING);
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, t = lane % 4;
    int rank = blockIdx.x, blocks = gridDim.x, y = blockIdx.y;
    int64_t batch = blockIdx.z;
    int kv_head = y / p.row_blocks, first_row = y % p.row_blocks * DECODE_ROWS;
    int rows = min(DECODE_ROWS, p.rows - first_row);

    cluster_arrive(); /* waited for before the first write to another block, which must have begun
                         by then */
    dependency_wait();
    dependency_release();

    int T = p.T, S = p.S;
    if (p.q_lengths != NULL) T = max(0, min(T, p.q_lengths[batch]));
    if (p.k_lengths != NULL) S = max(0, min(S, p.k_lengths[batch]));
    struct decode_row row = decode_row_of(p, first_row + lane / 4, kv_head, T, S);
    /* Rows are ordered by time, so the first sees the earliest keys and the last living one the
     * latest. */
    int last_row = min(first_row + rows, T * p.group) - 1;
    int first_key = 0, end_key = 0;
    if (last_row >= first_row) {
        first_key = decode_row_of(p, first_row, kv_head, T, S).first;
        end_key = decode_row_of(p, last_row, kv_head, T, S).end;
    }
    int skipped = first_key / DECODE_KEYS;
    int tiles = max(0, (end_key + DECODE_KEYS - 1) / DECODE_KEYS - skipped);

    struct decode_sums<D> sums;
    sums.state = {-INFINITY, 0.0f, 0.0f, 0.0f};
#pragma unroll
    for (int j = 0; j < D / 8; j++)
        sums.a[j][0] = sums.a[j][1] = sums.a[j][2] = sums.a[j][3] = 0.0f;
    struct decode_span span = {
        (const char *)p.k.data + (batch * p.k.batch + kv_head * p.k.head) * 2,
        (const char *)p.v.data + (batch * p.v.batch + kv_head * p.v.head) * 2,
        skipped + (int)((int64_t)tiles * rank / blocks) + warp,
        skipped + (int)((int64_t)tiles * (rank + 1) / blocks), end_key};
    decode_walk<D, PROBE>(p, span, batch, row, shared_address(memory) + warp * RING, sums);

    /* 3 */
    sums.state.sum = quad_sum(sums.state.sum);
    sums.state.shift = quad_sum(sums.state.shift);
    int local = lane / 4, slice = (rows * D + blocks - 1) / blocks;
    float *mine = (float *)(memory + warp * RING) + local * 2 * D;
    if (t == 0) shared->warps[warp][local] = sums.state;
    __syncthreads();
    cluster_wait();
    if (local < rows) {
        struct decode_state whole = decode_join_warps(&shared->warps[0][local]);
        decode_leave<D, PROBE>(sums, whole, mine);
        float4 packed = {whole.maximum, whole.sum, whole.shift, whole.c};
        uint32_t place = shared_address(&shared->blocks[rank][local]);
        if (warp == 0)
            for (int b = t; b < blocks; b += 4) cluster_store4(cluster_address(place, b), packed);
    }
    __syncthreads();
    if (blocks == 1) {
        for (int i = threadIdx.x; i < rows * D; i += DECODE_WARPS * 32)
            decode_write<PROBE>(
                p, batch, kv_head, first_row + i / D, i % D, shared->blocks[0][i / D],
                decode_over_warps<D>((const float *)memory, RING / 4, i / D, 0, i % D),
                PROBE ? decode_over_warps<D>((const float *)memory, RING / 4, i / D, 1, i % D)
                      : 0.0f);
        return;
    }
    decode_send<D, PROBE>(shared, (const float *)memory, RING / 4, rows, slice, rank);
    cluster_arrive();
    cluster_wait();
    struct decode_counts *counts = (struct decode_counts *)memory;
    decode_weigh<D>(shared, counts, blocks, rows);
    __syncthreads();
    decode_finish<D, PROBE>(p, shared, counts, batch, kv_head, first_row, rows, slice, rank,
                            blocks);
}

#endif
