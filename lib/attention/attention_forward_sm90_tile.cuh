/* attention_forward_sm90_tile.cuh: one key tile in the hands of a computing warpgroup of
 * attention_forward_sm90.cuh, which see first: sizes and addresses, and the step from one tile to
 * the next.
 *
 * Fragments: thread t of the warpgroup holds rows g = t % 32 / 4 + 16 (t / 32) and g + 8, of every
 * eight columns the two from 2 (t % 4). Element 4x + y of an accumulator is column 8x + 2 (t % 4) +
 * y % 2 of row g + 8 (y / 2). Pairs of it, packed to bf16, are the left operand of a next product.
 */
#ifndef PLX_ATTENTION_FORWARD_SM90_TILE_CUH
#define PLX_ATTENTION_FORWARD_SM90_TILE_CUH

#include "attention/attention_any.cuh"
#include "cuda/ptx_sm90.cuh"

extern "C" {
#include "attention/attention_forward_sm90_plan.h"
}

enum {
    FORWARD_GROUP = 128, /* threads of a warpgroup */
    FORWARD_GROUP_ROWS = 64,
    FORWARD_THREADS = 3 * FORWARD_GROUP,
    FORWARD_BOX = 64,  /* channels of a copied box: 128 bytes, the width of the swizzle */
    FORWARD_ORDER = 1, /* named barriers 1 and 2: the turn of warpgroup 0 and 1 */
    FORWARD_TAIL = 3,  /* named barrier of both */
    FORWARD_MEET = 4   /* named barriers 4 and 5: the warps of warpgroup 0 and 1 */
};

struct forward_sm90_args {
    struct attention_problem problem;
    struct forward_sm90_plan plan;
    float log2_scale;
    CUtensorMap q, r, k, v;
};

/* An item as the loading thread describes it to the computing ones. */
struct forward_item {
    bool last;        /* no item: the block is done */
    int batch, start; /* row 0 of the sequence in q */
    int head;
    int first, rows; /* first row of the tile within the sequence; rows to write */
    int T, S;        /* of the sequence */
    int begin, end;  /* key tiles */
    bool dirty;      /* the last key tile reaches into memory behind the sequence */
};

/* Keys that a range of query rows sees (any row, and every row), as the mask has it. */
struct forward_span {
    int begin, end;         /* seen by any */
    int all_begin, all_end; /* seen by every row */
};

PTX_INLINE struct forward_span forward_keys(const struct attention_problem &p, int T, int S,
                                            int first, int last)
{
    struct forward_span span = {0, S, 0, S};
    if (last < first) return {0, 0, 0, 0};
    if (!p.causal) return span;
    span.end = min(S, max(0, S - T + last + 1));
    span.all_end = S - T + first + 1;
    if (p.window > 0) {
        int window = (int)(p.window < S + T ? p.window : S + T);
        span.begin = max(0, S - T + first + 1 - window);
        span.all_begin = S - T + last + 1 - window;
    }
    return span;
}

/* One instance: its tiles, and where they lie in shared memory. */
template <int CHANNELS_, int KEYS_, int STAGES_, bool PROBE_> struct forward_shape {
    static constexpr int CHANNELS = CHANNELS_, KEYS = KEYS_, STAGES = STAGES_;
    static constexpr bool PROBE = PROBE_;
    static constexpr int BOXES = CHANNELS / FORWARD_BOX;
    static constexpr int ROWS_BOX_BYTES = FORWARD_SM90_ROWS * 128, KEYS_BOX_BYTES = KEYS * 128;
    static constexpr int ROWS_BYTES = BOXES * ROWS_BOX_BYTES, KEYS_BYTES = BOXES * KEYS_BOX_BYTES;
    static constexpr int Q = 0, R = ROWS_BYTES, K = (PROBE ? 2 : 1) * ROWS_BYTES;
    static constexpr int V = K + STAGES * KEYS_BYTES, ITEMS = V + STAGES * KEYS_BYTES;
    /* Accumulators a thread: scores of a tile, and outputs. */
    static constexpr int SCORES = KEYS / 2, OUTPUTS = CHANNELS / 2;

    /* Addresses are constants, so that they cost no registers. Full barriers take one arrival and
     * the bytes of the copies, empty barriers one arrival of each computing warpgroup. */
    static constexpr int BARRIERS = ITEMS + 2 * sizeof(struct forward_item);

    static __device__ __forceinline__ unsigned char *bytes(void)
    {
        extern __shared__ __align__(1024) unsigned char forward_storage[];
        return forward_storage;
    }
    /* Two: an item may still be written out while the next begins. */
    static __device__ __forceinline__ struct forward_item *items(void)
    {
        return (struct forward_item *)(bytes() + ITEMS);
    }
    static __device__ __forceinline__ uint32_t at(int offset)
    {
        return shared_address(bytes()) + offset;
    }
    static __device__ __forceinline__ uint32_t q_full(void)
    {
        return at(BARRIERS);
    }
    static __device__ __forceinline__ uint32_t q_empty(void)
    {
        return at(BARRIERS + 8);
    }
    static __device__ __forceinline__ uint32_t k_full(int stage)
    {
        return at(BARRIERS + 16 + 8 * stage);
    }
    static __device__ __forceinline__ uint32_t v_full(int stage)
    {
        return k_full(stage + STAGES);
    }
    static __device__ __forceinline__ uint32_t k_empty(int stage)
    {
        return k_full(stage + 2 * STAGES);
    }
    static __device__ __forceinline__ uint32_t v_empty(int stage)
    {
        return k_full(stage + 3 * STAGES);
    }
    static __device__ __forceinline__ uint32_t keys(int stage)
    {
        return at(K + stage * KEYS_BYTES);
    }
    static __device__ __forceinline__ uint32_t values(int stage)
    {
        return at(V + stage * KEYS_BYTES);
    }
};

/* What a thread keeps of its two rows; maximum in units of log2. */
struct forward_rows {
    float maximum[2], shift[2];
    float sum[2], probe_sum[2]; /* of rounded weights */
    float exact_sum[2], exact_probe_sum[2];
};

/* A computing warpgroup: which, 0 or 1, and how many key tiles it has met since the kernel began.
 */
struct forward_worker {
    int group;
    unsigned count;
};

/* The one thread of a warpgroup that arrives for all. */
PTX_INLINE bool forward_leads(void)
{
    return threadIdx.x % FORWARD_GROUP == 0;
}

/* The first row of this thread's two within the tile. */
PTX_INLINE int forward_row(void)
{
    return (int)(threadIdx.x - FORWARD_GROUP) / 32 * 16 + (int)threadIdx.x % 32 / 4;
}

PTX_INLINE void forward_take_turn(int group)
{
    barrier_sync(FORWARD_ORDER + group, 2 * FORWARD_GROUP);
}

PTX_INLINE void forward_pass_turn(int group)
{
    barrier_arrive(FORWARD_ORDER + 1 - group, 2 * FORWARD_GROUP);
}

/* scores = this warpgroup's 64 rows at `rows`, times the keys of a stage. */
template <class F>
PTX_INLINE void forward_scores(float (&scores)[F::SCORES], int rows, int group, int stage)
{
    uint32_t a = wgmma_place(F::at(rows) + group * FORWARD_GROUP_ROWS * 128);
    uint32_t b = wgmma_place(F::keys(stage));
#pragma unroll
    for (int step = 0; step < F::CHANNELS / 16; step++) {
        uint64_t left = wgmma_matrix(a, step / 4 * F::ROWS_BOX_BYTES + step % 4 * 32, 16, 1024);
        uint64_t right = wgmma_matrix(b, step / 4 * F::KEYS_BOX_BYTES + step % 4 * 32, 16, 1024);
        if (step == 0)
            wgmma_start(scores, left, right);
        else
            wgmma_add(scores, left, right);
    }
    wgmma_commit();
}

/* outputs += weights times the values of a stage. */
template <class F>
PTX_INLINE void forward_values(float (&outputs)[F::OUTPUTS],
                               const uint32_t (&weights)[F::SCORES / 2], int stage)
{
    uint32_t b = wgmma_place(F::values(stage));
#pragma unroll
    for (int step = 0; step < F::KEYS / 16; step++)
        wgmma_add(outputs, weights + 4 * step,
                  wgmma_matrix(b, step * 2048, F::KEYS_BOX_BYTES, 1024));
}

PTX_INLINE float quad_max(float value)
{
    value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, 1));
    return fmaxf(value, __shfl_xor_sync(0xffffffffu, value, 2));
}

PTX_INLINE float quad_sum(float value)
{
    value += __shfl_xor_sync(0xffffffffu, value, 1);
    return value + __shfl_xor_sync(0xffffffffu, value, 2);
}

/* Scores that the mask hides become -infinity. */
template <int N>
static __device__ __forceinline__ void forward_mask(float (&scores)[N],
                                                    const struct attention_problem &p,
                                                    const struct forward_item &item, int key)
{
    int row = item.first + forward_row();
    key += threadIdx.x % 4 * 2;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        struct forward_span span = forward_keys(p, item.T, item.S, row + 8 * half, row + 8 * half);
        int begin = span.begin - key, size = max(span.end - span.begin, 0);
#pragma unroll
        for (int n = 0; n < N / 2; n++) {
            int place = n / 2 * 8 + n % 2;
            if ((unsigned)(place - begin) >= (unsigned)size)
                scores[n / 2 * 4 + n % 2 + 2 * half] = -INFINITY;
        }
    }
}

/* The tile's maximum joins the rows'; factor is what earlier weights count now. */
template <int N>
PTX_INLINE void forward_maximum(const float (&scores)[N], struct forward_rows &rows,
                                float log2_scale, float (&factor)[2], bool (&fresh)[2])
{
#pragma unroll
    for (int r = 0; r < 2; r++) {
        float top = scores[2 * r];
#pragma unroll
        for (int n = 0; n < N / 4; n++)
            top = fmaxf(top, fmaxf(scores[4 * n + 2 * r], scores[4 * n + 2 * r + 1]));
        top = fmaxf(rows.maximum[r], quad_max(top) * log2_scale);
        /* A row that has seen no key keeps factor 1 instead of the NaN of inf - inf. */
        fresh[r] = rows.maximum[r] == -INFINITY;
        factor[r] = fresh[r] ? 1.0f : exp2_fast(rows.maximum[r] - top);
        rows.maximum[r] = top;
    }
}

/* scores become weights P, packed too, and join the sums. */
template <int N>
PTX_INLINE void forward_weights(float (&scores)[N], uint32_t (&packed)[N / 2],
                                struct forward_rows &rows, float log2_scale,
                                const float (&factor)[2])
{
    float origin[2];
#pragma unroll
    for (int r = 0; r < 2; r++) {
        origin[r] = rows.maximum[r] == -INFINITY ? 0.0f : rows.maximum[r];
        rows.sum[r] *= factor[r];
        rows.exact_sum[r] *= factor[r];
    }
#pragma unroll
    for (int n = 0; n < N / 2; n++) {
        int r = n % 2;
        float a = exp2_fast(fmaf(scores[2 * n], log2_scale, -origin[r]));
        float b = exp2_fast(fmaf(scores[2 * n + 1], log2_scale, -origin[r]));
        scores[2 * n] = a, scores[2 * n + 1] = b;
        packed[n] = bf16_pack(a, b);
        rows.sum[r] += bf16_low(packed[n]) + bf16_high(packed[n]);
        rows.exact_sum[r] += a + b;
    }
}

/* In a row's first tile, c becomes the mean of U. */
template <int N>
PTX_INLINE void forward_shift(const float (&weights)[N], const float (&u)[N],
                              struct forward_rows &rows, const bool (&fresh)[2])
{
#pragma unroll
    for (int r = 0; r < 2; r++) {
        float sum = 0.0f, weighted = 0.0f;
#pragma unroll
        for (int n = 0; n < N / 4; n++) {
            sum += weights[4 * n + 2 * r] + weights[4 * n + 2 * r + 1];
            weighted = fmaf(weights[4 * n + 2 * r], u[4 * n + 2 * r], weighted);
            weighted = fmaf(weights[4 * n + 2 * r + 1], u[4 * n + 2 * r + 1], weighted);
        }
        sum = quad_sum(sum), weighted = quad_sum(weighted);
        if (fresh[r] && sum > 0.0f) rows.shift[r] = __fdividef(weighted, sum);
    }
}

/* W = P (U - c), packed, and its sums. */
template <int N>
PTX_INLINE void forward_probe_weights(const float (&weights)[N], const float (&u)[N],
                                      uint32_t (&packed)[N / 2], struct forward_rows &rows,
                                      const float (&factor)[2])
{
#pragma unroll
    for (int r = 0; r < 2; r++) {
        rows.probe_sum[r] *= factor[r];
        rows.exact_probe_sum[r] *= factor[r];
    }
#pragma unroll
    for (int n = 0; n < N / 2; n++) {
        int r = n % 2;
        float a = weights[2 * n] * (u[2 * n] - rows.shift[r]);
        float b = weights[2 * n + 1] * (u[2 * n + 1] - rows.shift[r]);
        packed[n] = bf16_pack(a, b);
        rows.probe_sum[r] += bf16_low(packed[n]) + bf16_high(packed[n]);
        rows.exact_probe_sum[r] += a + b;
    }
}

template <int N> PTX_INLINE void forward_rescale(float (&outputs)[N], const float (&factor)[2])
{
#pragma unroll
    for (int n = 0; n < N; n++) outputs[n] *= factor[n / 2 % 2];
}

/* Operands of the products with values. */
template <class F> struct forward_packed {
    uint32_t weights[F::SCORES / 2], probe_weights[F::PROBE ? F::SCORES / 2 : 1];
};

/* Issues S and U of the tile that count names. */
template <class F>
PTX_INLINE void forward_begin(const struct forward_worker &w, float (&s)[F::SCORES],
                              float (&u)[F::SCORES])
{
    int stage = w.count % F::STAGES;
    forward_take_turn(w.group);
    mbarrier_wait(F::k_full(stage), w.count / F::STAGES & 1);
    wgmma_fence();
    forward_scores<F>(s, F::Q, w.group, stage);
    if (F::PROBE) forward_scores<F>(u, F::R, w.group, stage);
    forward_pass_turn(w.group);
}

/* From S and U in flight to packed weights of the tile that count names; the outputs so far are
 * brought to the new maximum. last: no tile follows in this item. */
template <class F>
static __device__ __forceinline__ void
forward_weigh(const struct forward_worker &w, const struct forward_sm90_args &args,
              const struct forward_item &item, int key, bool border, bool last,
              struct forward_rows &rows, float (&s)[F::SCORES], float (&u)[F::SCORES],
              struct forward_packed<F> &packed, float (&o)[F::OUTPUTS], float (&e)[F::OUTPUTS])
{
    float factor[2];
    bool fresh[2];
    /* 1 Weights, while U is still in flight. */
    wgmma_wait<F::PROBE ? 1 : 0>();
    registers_pin(s);
    if (border) forward_mask(s, args.problem, item, key);
    forward_maximum(s, rows, args.log2_scale, factor, fresh);
    forward_weights(s, packed.weights, rows, args.log2_scale, factor);
    if (__any_sync(0xffffffffu, factor[0] != 1.0f || factor[1] != 1.0f)) {
        forward_rescale(o, factor);
        if (F::PROBE) forward_rescale(e, factor);
    }
    if (F::PROBE) {
        wgmma_wait<0>();
        registers_pin(u);
    }
    /* The keys, and after the last tile the queries, may be replaced. */
    if (forward_leads()) mbarrier_arrive(F::k_empty(w.count % F::STAGES));
    if (last && forward_leads()) mbarrier_arrive(F::q_empty());
    /* 2 Probe weights. */
    if constexpr (F::PROBE) {
        if (border) {
#pragma unroll
            for (int n = 0; n < F::SCORES; n++) u[n] = s[n] == 0.0f ? 0.0f : u[n];
        }
        /* Warps decide as one: the sums within are exchanged between lanes. */
        if (__any_sync(0xffffffffu, fresh[0] || fresh[1])) forward_shift(s, u, rows, fresh);
        forward_probe_weights(s, u, packed.probe_weights, rows, factor);
    }
}

/* Issues the products with the values of the tile that count names. */
template <class F>
PTX_INLINE void forward_accumulate(const struct forward_worker &w,
                                   const struct forward_packed<F> &packed, float (&o)[F::OUTPUTS],
                                   float (&e)[F::OUTPUTS])
{
    int stage = w.count % F::STAGES;
    forward_take_turn(w.group);
    mbarrier_wait(F::v_full(stage), w.count / F::STAGES & 1);
    registers_pin(o);
    if (F::PROBE) registers_pin(e);
    wgmma_fence();
    forward_values<F>(o, packed.weights, stage);
    if constexpr (F::PROBE) forward_values<F>(e, packed.probe_weights, stage);
    wgmma_commit();
}

/* The products with values are finished: their operands are free. */
template <class F>
PTX_INLINE void forward_accumulated(const struct forward_worker &w,
                                    struct forward_packed<F> &packed, float (&o)[F::OUTPUTS],
                                    float (&e)[F::OUTPUTS])
{
    registers_pin(packed.weights);
    registers_pin(o);
    if (F::PROBE) {
        registers_pin(packed.probe_weights);
        registers_pin(e);
    }
    if (forward_leads()) mbarrier_arrive(F::v_empty(w.count % F::STAGES));
}

/* The burst between two tiles. */
template <class F>
PTX_INLINE void forward_burst(struct forward_worker &w, struct forward_packed<F> &packed,
                              float (&s)[F::SCORES], float (&u)[F::SCORES], float (&o)[F::OUTPUTS],
                              float (&e)[F::OUTPUTS])
{
    int next = (w.count + 1) % F::STAGES;
    forward_accumulate<F>(w, packed, o, e);
    mbarrier_wait(F::k_full(next), (w.count + 1) / F::STAGES & 1);
    wgmma_fence();
    forward_scores<F>(s, F::Q, w.group, next);
    wgmma_wait<1>();
    forward_accumulated<F>(w, packed, o, e);
    if (F::PROBE) {
        wgmma_fence();
        forward_scores<F>(u, F::R, w.group, next);
    }
    forward_pass_turn(w.group);
    w.count++;
}

#endif
