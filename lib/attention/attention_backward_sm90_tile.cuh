/* attention_backward_sm90_tile.cuh: one step of a computing warpgroup of
 * attention_backward_sm90.cuh, which see first: sizes and addresses, and the arithmetic between the
 * products.
 *
 * Fragments are those of attention_forward_sm90_tile.cuh. Rows of scores are rows of the block's
 * own tile, columns those of the tile it walks over. */
#ifndef PLX_ATTENTION_BACKWARD_SM90_TILE_CUH
#define PLX_ATTENTION_BACKWARD_SM90_TILE_CUH

#include "attention/attention_forward_sm90.cuh"

extern "C" {
#include "attention/attention_backward_sm90_plan.h"
}

enum { BACKWARD_THREADS = 3 * FORWARD_GROUP };

/* Weights are computed times 2 to this, so that fp16 holds those down to 2^-29 with 11 bits; sums
 * are divided by it at the end, which rounds nothing. Where operands are fp16 too, gradients of
 * scores times it must not leave its range, and they are lost below 2^-26 instead. */
static __device__ __forceinline__ constexpr int backward_bits(int format)
{
    return format == WGMMA_F16 ? 2 : 15;
}

/* Scalars of a query row, from the statistics that forward saved. Without the probe: LSE and B, and
 * B is d_o.o. */
enum backward_scalar {
    BACKWARD_LSE, /* in units of log2, less BITS; +infinity: the row has no weights */
    BACKWARD_B,   /* d_o.value_mean */
    BACKWARD_X,   /* -scale (1 + t) */
    BACKWARD_Y    /* scale (b - d_o.o) */
};

struct backward_sm90_args {
    struct attention_problem problem;
    struct backward_sm90_plan plan;
    float log2_scale, scale;
    float *scalars; /* [pairs, slots, scalar, 64] */
    float *sums[2]; /* of dq and dr: [pairs, slots, D / 64, warps, 8, lanes, 4]: fragments */
    CUtensorMap q, r, k, v, d_o;
};

/* Where a slot's sums have elements 4x .. 4x + 3 of this thread's fragment. */
PTX_INLINE int backward_place(int x)
{
    return x / 8 * 4096 + (int)threadIdx.x % FORWARD_GROUP / 32 * 1024 + x % 8 * 128 +
           (int)threadIdx.x % 32 * 4;
}

/* What a block works on. */
struct backward_item {
    bool used;
    int first, rows; /* first row of its own tile within the sequence; rows to write */
    int T, S;        /* of the sequence */
    int q_batch, q_start, k_batch, k_start;
    int head, heads; /* query heads that are walked */
    int kv_head;
    int begin, end; /* tiles of 64 rows of the other side, for each head */
    int slot;       /* of the sequence's first queries, within a head */
    /* Tiles that own rows, all of them or those of a warpgroup, see without a mask. */
    struct backward_sm90_tiles plain, group_plain[2];
};

/* One instance. KEYS: a block owns keys and walks over queries, otherwise the reverse. FUSED: it
 * also adds to dq and dr. */
template <int CHANNELS_, bool PROBE_, bool KEYS_, bool FUSED_, int STAGES_, int FORMAT_>
struct backward_shape {
    static constexpr int CHANNELS = CHANNELS_, STAGES = STAGES_, FORMAT = FORMAT_;
    static constexpr bool PROBE = PROBE_, KEYS = KEYS_, FUSED = FUSED_;
    static constexpr int BOXES = CHANNELS / FORWARD_BOX;
    /* Three sets of scores beside two of sums are more than the registers: weights wait as fp16. */
    static constexpr bool NARROW = PROBE && CHANNELS == 128;
    static constexpr int SCORES = BACKWARD_SM90_SLOT / 2, SUMS = CHANNELS / 2;
    static constexpr bool EARLY =
        !FUSED || CHANNELS == 64; /* S of the next step fits the registers */
    static constexpr int SCALARS = PROBE ? 4 : 2;

    /* Tensors of the own tile and of a walked one: keys are K, V; queries are Q, dO, R. */
    static constexpr int QUERY_PARTS = PROBE ? 3 : 2;
    static constexpr int OWN_PARTS = KEYS ? 2 : QUERY_PARTS, PARTS = KEYS ? QUERY_PARTS : 2;
    /* Part that the scores S, A and U take on either side. */
    static constexpr int OWN_U = KEYS ? 0 : 2, WALKED_U = KEYS ? 2 : 0;

    static constexpr int OWN_BOX = BACKWARD_SM90_TILE * 128, BOX = BACKWARD_SM90_SLOT * 128;
    static constexpr int OWN_PART = BOXES * OWN_BOX, PART = BOXES * BOX;
    static constexpr int STAGE_BYTES = PARTS * PART, SCALAR_BYTES = SCALARS * 256;
    /* Gradients of scores that the warpgroups hand each other: two steps, 64 queries x 128 keys. */
    static constexpr int EXCHANGE_PART = 2 * BOX;
    static constexpr int EXCHANGE_BYTES = FUSED ? (PROBE ? 2 : 1) * EXCHANGE_PART : 0;
    /* Shares of dq and dr that wait for the copy engine to add them: two of each computing warp.
     * With the probe and 128 channels there is no room, and additions come from registers. */
    static constexpr bool STAGED = FUSED && !NARROW;
    static constexpr int SHARE_BYTES = 4096, SHARES_BYTES = STAGED ? 16 * SHARE_BYTES : 0;

    static constexpr int WALKED = OWN_PARTS * OWN_PART;
    static constexpr int EXCHANGE = WALKED + STAGES * STAGE_BYTES;
    static constexpr int SHARES = EXCHANGE + 2 * EXCHANGE_BYTES;
    static constexpr int ROWS = SHARES + SHARES_BYTES;
    static constexpr int ITEM = ROWS + (KEYS ? STAGES * SCALAR_BYTES : 0);
    static constexpr int BARRIERS = ITEM + (sizeof(struct backward_item) + 15) / 16 * 16;
    static constexpr int BYTES = BARRIERS + 8 * (5 + 2 * STAGES);

    static __device__ __forceinline__ unsigned char *bytes(void)
    {
        extern __shared__ __align__(1024) unsigned char backward_storage[];
        return backward_storage;
    }
    static __device__ __forceinline__ struct backward_item *item(void)
    {
        return (struct backward_item *)(bytes() + ITEM);
    }
    static __device__ __forceinline__ uint32_t at(int offset)
    {
        return shared_address(bytes()) + offset;
    }
    /* Full barriers take one arrival and the bytes of the copies, or one of each warp that stores;
     * empty ones one of each computing thread, or of the exchange each warpgroup that reads. */
    static __device__ __forceinline__ uint32_t own_full(void)
    {
        return at(BARRIERS);
    }
    static __device__ __forceinline__ uint32_t exchange_full(int buffer)
    {
        return at(BARRIERS + 8 + 8 * buffer);
    }
    static __device__ __forceinline__ uint32_t exchange_empty(int buffer)
    {
        return at(BARRIERS + 24 + 8 * buffer);
    }
    static __device__ __forceinline__ uint32_t full(int stage)
    {
        return at(BARRIERS + 40 + 8 * stage);
    }
    static __device__ __forceinline__ uint32_t empty(int stage)
    {
        return full(stage + STAGES);
    }
    static __device__ __forceinline__ uint32_t walked(int stage)
    {
        return at(WALKED + stage * STAGE_BYTES);
    }
};

/* A computing warpgroup in the middle of its walk. */
struct backward_worker {
    int group;       /* 0 or 1 */
    int step, stage; /* steps so far; place in the ring */
    uint32_t parity; /* of the ring's present round */
    int head, tile;
};

/* Where the mask lets an own row see: columns begin .. begin + size - 1 of the walked tile, less
 * this thread's first. */
struct backward_mask {
    int begin[2];
    unsigned size[2];
};

/* ---- Products ----------------------------------------------------------------------------------
 */

/* scores = this warpgroup's 64 rows of an own part, times the rows of a walked part. */
template <class F>
PTX_INLINE void backward_scores(float (&scores)[F::SCORES], int own, int part,
                                const struct backward_worker &w)
{
    uint32_t a = wgmma_place(F::at(own * F::OWN_PART) + w.group * FORWARD_GROUP_ROWS * 128);
    uint32_t b = wgmma_place(F::walked(w.stage) + part * F::PART);
#pragma unroll
    for (int step = 0; step < F::CHANNELS / 16; step++) {
        uint64_t left = wgmma_matrix(a, step / 4 * F::OWN_BOX + step % 4 * 32, 16, 1024);
        uint64_t right = wgmma_matrix(b, step / 4 * F::BOX + step % 4 * 32, 16, 1024);
        if (step == 0)
            wgmma_start<F::FORMAT>(scores, left, right);
        else
            wgmma_add<F::FORMAT>(scores, left, right);
    }
    wgmma_commit();
}

/* sums += 16 columns of gradients times the walked rows that they stand for; step: of 16 columns.
 */
template <class F>
PTX_INLINE void backward_add(float (&sums)[F::SUMS], const uint32_t (&gradients)[4], int step,
                             int part, const struct backward_worker &w)
{
    uint32_t b = wgmma_place(F::walked(w.stage) + part * F::PART);
    wgmma_add<F::FORMAT>(sums, gradients, wgmma_matrix(b, step * 2048, F::BOX, 1024));
}

/* ---- Between the products ----------------------------------------------------------------------
 */

/* A scalar of the query rows of elements 4x .. 4x + 3. */
template <class F>
PTX_INLINE void backward_scalars(float (&values)[4], enum backward_scalar kind, int x,
                                 const struct backward_worker &w, const float (&own)[F::SCALARS][2])
{
    if (F::KEYS) {
        int column = 8 * x + (int)threadIdx.x % 4 * 2;
        float2 pair = *(const float2 *)(F::bytes() + F::ROWS + w.stage * F::SCALAR_BYTES +
                                        (int)kind * 256 + column * 4);
        values[0] = values[2] = pair.x, values[1] = values[3] = pair.y;
    } else {
        values[0] = values[1] = own[kind][0], values[2] = values[3] = own[kind][1];
    }
}

/* scores become weights P. */
template <class F>
PTX_INLINE void backward_weights(float (&scores)[F::SCORES], float log2_scale,
                                 const struct backward_worker &w, const float (&own)[F::SCALARS][2])
{
#pragma unroll
    for (int x = 0; x < F::SCORES / 4; x++) {
        float lse[4];
        backward_scalars<F>(lse, BACKWARD_LSE, x, w, own);
#pragma unroll
        for (int y = 0; y < 4; y++)
            scores[4 * x + y] = power_of_two(fmaf(scores[4 * x + y], log2_scale, -lse[y]));
    }
}

/* Hidden weights become zero, whatever they were. */
template <int N>
PTX_INLINE void backward_hide(float (&weights)[N], const struct backward_mask &mask)
{
#pragma unroll
    for (int n = 0; n < N; n++) {
        int column = n / 4 * 8 + n % 2, half = n / 2 % 2;
        if ((unsigned)(column - mask.begin[half]) >= mask.size[half]) weights[n] = 0.0f;
    }
}

/* a becomes B - A (without the probe A - C, whose product with P is the gradient itself). */
template <class F>
PTX_INLINE void backward_center(float (&a)[F::SCORES], const struct backward_worker &w,
                                const float (&own)[F::SCALARS][2])
{
#pragma unroll
    for (int x = 0; x < F::SCORES / 4; x++) {
        float b[4];
        backward_scalars<F>(b, BACKWARD_B, x, w, own);
#pragma unroll
        for (int y = 0; y < 4; y++)
            a[4 * x + y] = F::PROBE ? b[y] - a[4 * x + y] : a[4 * x + y] - b[y];
    }
}

/* Weights while the other scores are awaited. */
template <class F> struct backward_held {
    uint32_t narrow[F::NARROW ? F::SCORES / 2 : 1];
    float wide[F::NARROW ? 1 : F::SCORES];
};

template <class F>
PTX_INLINE void backward_hold(struct backward_held<F> &held, const float (&weights)[F::SCORES])
{
#pragma unroll
    for (int n = 0; n < F::SCORES; n += 2) {
        if (F::NARROW)
            held.narrow[n / 2] = pack_f16(weights[n], weights[n + 1]);
        else
            held.wide[n] = weights[n], held.wide[n + 1] = weights[n + 1];
    }
}

/* Operands of the products with 16 walked rows: the weights of d_o, and the gradients of S and U.
 */
struct backward_operands {
    uint32_t w[4], l[4], u[4];
};

/* With X = 1 + t - U: w = -scale P X, u = P (B - A), l = scale (X P (A - B) + P (B - C)); without
 * the probe w = P, l = P (A - C). */
template <class F>
PTX_INLINE void
backward_gradients(struct backward_operands &to, int step, const struct backward_held<F> &held,
                   const float (&a)[F::SCORES], const float (&u)[F::SCORES], float scale,
                   const struct backward_worker &w, const float (&own)[F::SCALARS][2])
{
#pragma unroll
    for (int i = 0; i < 4; i++) {
        float p[2], g[2];
        int n = 4 * step + i;
        if (F::NARROW)
            p[0] = low_f16(held.narrow[n]), p[1] = high_f16(held.narrow[n]);
        else
            p[0] = held.wide[2 * n], p[1] = held.wide[2 * n + 1];
        g[0] = p[0] * a[2 * n], g[1] = p[1] * a[2 * n + 1];
        if constexpr (F::PROBE) {
            float origin[4], rest[4], x[2];
            int r = n % 2 * 2;
            backward_scalars<F>(origin, BACKWARD_X, n / 2, w, own);
            backward_scalars<F>(rest, BACKWARD_Y, n / 2, w, own);
            x[0] = fmaf(u[2 * n], scale, origin[r]);
            x[1] = fmaf(u[2 * n + 1], scale, origin[r + 1]);
            to.w[i] = pair_pack<F::FORMAT>(p[0] * x[0], p[1] * x[1]);
            to.u[i] = pair_pack<F::FORMAT>(g[0], g[1]);
            g[0] = fmaf(x[0], g[0], p[0] * rest[r]);
            g[1] = fmaf(x[1], g[1], p[1] * rest[r + 1]);
        } else {
            to.w[i] = pair_pack<F::FORMAT>(p[0], p[1]);
        }
        to.l[i] = pair_pack<F::FORMAT>(g[0], g[1]);
    }
}

#endif
