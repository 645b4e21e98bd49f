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
    FORWARD_BOX = 64, /* channels of a copied box: 128 bytes, the width of the swizzle */
    FORWARD_FEW = 64, /* rows that see fewer keys get products with unrounded weights */
    /* Named barriers: the turn of each computing warpgroup; all of them; the warps of each. */
    FORWARD_ORDER = 1,
    FORWARD_TAIL = 4,
    FORWARD_MEET = 5
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
    int least;              /* how many the row sees that sees fewest */
};

PTX_INLINE struct forward_span forward_keys(const struct attention_problem &p, int T, int S,
                                            int first, int last)
{
    struct forward_span span = {0, S, 0, S, S};
    if (last < first) return {0, 0, 0, 0, 0};
    if (!p.causal) return span;
    span.end = min(S, max(0, S - T + last + 1));
    span.all_end = S - T + first + 1;
    if (p.window > 0) {
        int window = (int)(p.window < S + T ? p.window : S + T);
        span.begin = max(0, S - T + first + 1 - window);
        span.all_begin = S - T + last + 1 - window;
    }
    span.least = max(0, min(span.all_end, p.window > 0 ? (int)min(p.window, (int64_t)S) : S));
    return span;
}

/* One instance: its tiles, and where they lie in shared memory. */
template <int CHANNELS_, int KEYS_, int STAGES_, bool PROBE_, int GROUPS_, int FORMAT_ = WGMMA_BF16>
struct forward_shape {
    static constexpr int CHANNELS = CHANNELS_, KEYS = KEYS_, STAGES = STAGES_, GROUPS = GROUPS_;
    static constexpr bool PROBE = PROBE_;
    static constexpr int FORMAT = FORMAT_;
    static constexpr int ROWS = GROUPS * FORWARD_GROUP_ROWS;
    static constexpr int THREADS = (GROUPS + 1) * FORWARD_GROUP;
    /* Of a loading and a computing thread. Together they are what the launch gives, 168 or 128 a
     * thread: growing beyond waits forever. */
    static constexpr int LOAD_REGISTERS = GROUPS == 2 ? 24 : 32;
    static constexpr int REGISTERS = GROUPS == 2 ? 240 : 160;
    /* A maximum is followed when it has grown by this, in units of log2: the weights of f16 need
     * room for U below 65504. */
    static constexpr float LAZY = FORMAT == WGMMA_F16 ? 2 : 8;
    static constexpr int BOXES = CHANNELS / FORWARD_BOX;
    static constexpr int ROWS_BOX_BYTES = ROWS * 128, KEYS_BOX_BYTES = KEYS * 128;
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
    static __device__ __forceinline__ uint32_t r_full(void)
    {
        return at(BARRIERS + 16);
    }
    static __device__ __forceinline__ uint32_t r_empty(void)
    {
        return at(BARRIERS + 24);
    }
    static __device__ __forceinline__ uint32_t k_full(int stage)
    {
        return at(BARRIERS + 32 + 8 * stage);
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

/* What a thread keeps of its two rows. maximum, in units of log2, is what weights are relative to;
 * it follows the true one only when that has grown by LAZY, because bringing all outputs to a new
 * maximum costs as much as the exponentials of a tile. */
struct forward_rows {
    float maximum[2], shift[2], sum[2], probe_sum[2];
    float before[2]; /* sum without the tile at hand */
};

/* A computing warpgroup: which, and how many items and key tiles it has met since the kernel began.
 */
struct forward_worker {
    int group;
    unsigned turn, count;
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

template <class F> PTX_INLINE void forward_take_turn(int group)
{
    barrier_sync(FORWARD_ORDER + group, 2 * FORWARD_GROUP);
}

template <class F> PTX_INLINE void forward_pass_turn(int group)
{
    int next = group + 1 == F::GROUPS ? 0 : group + 1;
    barrier_arrive(FORWARD_ORDER + next, 2 * FORWARD_GROUP);
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
            wgmma_start<F::FORMAT>(scores, left, right);
        else
            wgmma_add<F::FORMAT>(scores, left, right);
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
        wgmma_add<F::FORMAT>(outputs, weights + 4 * step,
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

/* Follows the maxima of the rows where one has grown too much, for a whole warp at a time; true if
 * so, and then earlier weights count by factor. */
template <class F>
PTX_INLINE bool forward_maximum(const float (&scores)[F::SCORES], struct forward_rows &rows,
                                float log2_scale, float (&factor)[2])
{
    float top[2];
#pragma unroll
    for (int r = 0; r < 2; r++) {
        top[r] = scores[2 * r];
#pragma unroll
        for (int n = 0; n < F::SCORES / 4; n++)
            top[r] = fmaxf(top[r], fmaxf(scores[4 * n + 2 * r], scores[4 * n + 2 * r + 1]));
        top[r] *= log2_scale;
    }
    bool grows = top[0] > rows.maximum[0] + F::LAZY || top[1] > rows.maximum[1] + F::LAZY;
    if (!__any_sync(0xffffffffu, grows)) return false;
#pragma unroll
    for (int r = 0; r < 2; r++) {
        top[r] = quad_max(top[r]);
        bool follows = top[r] > rows.maximum[r] + F::LAZY;
        factor[r] = follows ? exp2_fast(rows.maximum[r] - top[r]) : 1.0f;
        if (follows) rows.maximum[r] = top[r];
        rows.sum[r] *= factor[r];
        if (F::PROBE) rows.probe_sum[r] *= factor[r];
    }
    return true;
}

/* scores become weights P, relative to the rows' maxima; sum: what they add. */
template <int N>
PTX_INLINE void forward_exponentials(float (&scores)[N], const float (&origin)[2], float log2_scale,
                                     float (&sum)[2])
{
    sum[0] = sum[1] = 0.0f;
#pragma unroll
    for (int n = 0; n < N; n++) {
        int r = n / 2 % 2;
        scores[n] = exp2_fast(fmaf(scores[n], log2_scale, -origin[r]));
        sum[r] += scores[n];
    }
}

/* Scores become weights and join the sums; true where earlier weights count by factor from now on.
 */
template <class F>
PTX_INLINE bool forward_weigh(const struct forward_sm90_args &args, const struct forward_item &item,
                              int key, bool border, struct forward_rows &rows,
                              float (&scores)[F::SCORES], float (&factor)[2])
{
    float origin[2], sum[2];
    if (border) forward_mask(scores, args.problem, item, key);
    bool grown = forward_maximum<F>(scores, rows, args.log2_scale, factor);
#pragma unroll
    for (int r = 0; r < 2; r++) origin[r] = rows.maximum[r] == -INFINITY ? 0.0f : rows.maximum[r];
    forward_exponentials(scores, origin, args.log2_scale, sum);
#pragma unroll
    for (int r = 0; r < 2; r++) {
        rows.before[r] = rows.sum[r];
        rows.sum[r] += sum[r];
    }
    return grown;
}

/* A tile that weighs more than twice as much as all before it, like a row's first, sets c to its
 * mean of U. So c stays where the weight is, and W, whose rounding grows with |U - c|, as small as
 * the spread of U. Warps decide as one, because sums are exchanged between lanes. */
template <int SCORES, int OUTPUTS>
PTX_INLINE void forward_shift(const float (&weights)[SCORES], const float (&u)[SCORES],
                              struct forward_rows &rows, const float (&o)[OUTPUTS],
                              float (&e)[OUTPUTS])
{
    bool heavy[2] = {rows.sum[0] > 3 * rows.before[0], rows.sum[1] > 3 * rows.before[1]};
    if (!__any_sync(0xffffffffu, heavy[0] || heavy[1])) return;
#pragma unroll
    for (int r = 0; r < 2; r++) {
        float sum = 0.0f, weighted = 0.0f;
#pragma unroll
        for (int n = 0; n < SCORES / 4; n++) {
            sum += weights[4 * n + 2 * r] + weights[4 * n + 2 * r + 1];
            weighted = fmaf(weights[4 * n + 2 * r], u[4 * n + 2 * r], weighted);
            weighted = fmaf(weights[4 * n + 2 * r + 1], u[4 * n + 2 * r + 1], weighted);
        }
        sum = quad_sum(sum), weighted = quad_sum(weighted);
        bool moves = quad_max(heavy[r]) > 0 && sum > 0;
        float shift = moves ? __fdividef(weighted, sum) : rows.shift[r];
        float step = shift - rows.shift[r];
        rows.shift[r] = shift;
        rows.probe_sum[r] -= step * rows.before[r];
#pragma unroll
        for (int n = 0; n < OUTPUTS; n++)
            if (n / 2 % 2 == r) e[n] -= step * o[n];
    }
}

/* u becomes W = P (U - c) and joins the sums. */
template <int N>
PTX_INLINE void forward_probe_weights(const float (&weights)[N], float (&u)[N],
                                      struct forward_rows &rows)
{
#pragma unroll
    for (int n = 0; n < N; n++) {
        int r = n / 2 % 2;
        u[n] = weights[n] * (u[n] - rows.shift[r]);
        rows.probe_sum[r] += u[n];
    }
}

template <class F>
PTX_INLINE void forward_pack(const float (&weights)[F::SCORES], uint32_t (&packed)[F::SCORES / 2])
{
#pragma unroll
    for (int n = 0; n < F::SCORES / 2; n++)
        packed[n] = pair_pack<F::FORMAT>(weights[2 * n], weights[2 * n + 1]);
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

/* W from P and finished U. */
template <class F>
PTX_INLINE void forward_weigh_probe(bool border, struct forward_rows &rows,
                                    const float (&weights)[F::SCORES], float (&u)[F::SCORES],
                                    const float (&o)[F::OUTPUTS], float (&e)[F::OUTPUTS])
{
    if (border) {
#pragma unroll
        for (int n = 0; n < F::SCORES; n++) u[n] = weights[n] == 0.0f ? 0.0f : u[n];
    }
    forward_shift(weights, u, rows, o, e);
    forward_probe_weights(weights, u, rows);
}

/* Issues S and U of the first tile that the rows see, and makes S weights. */
template <class F>
PTX_INLINE void forward_begin(const struct forward_worker &w, const struct forward_sm90_args &args,
                              const struct forward_item &item, int key, bool border,
                              struct forward_rows &rows, float (&s)[F::SCORES],
                              float (&u)[F::SCORES])
{
    int stage = w.count % F::STAGES;
    float factor[2];
    forward_take_turn<F>(w.group);
    mbarrier_wait(F::k_full(stage), w.count / F::STAGES & 1);
    wgmma_fence();
    forward_scores<F>(s, F::Q, w.group, stage);
    if (F::PROBE) {
        mbarrier_wait(F::r_full(), w.turn & 1);
        wgmma_fence();
        forward_scores<F>(u, F::R, w.group, stage);
    }
    forward_pass_turn<F>(w.group);
    wgmma_wait<F::PROBE ? 1 : 0>();
    registers_pin(s);
    forward_weigh<F>(args, item, key, border, rows, s, factor);
}

/* After U of the tile that count names: its keys, and after the last tile the queries and probes,
 * may be replaced. */
template <class F> PTX_INLINE void forward_release_keys(const struct forward_worker &w, bool last)
{
    if (!forward_leads()) return;
    mbarrier_arrive(F::k_empty(w.count % F::STAGES));
    if (!last) return;
    mbarrier_arrive(F::q_empty());
    if (F::PROBE) mbarrier_arrive(F::r_empty());
}

/* Waits for U of the tile that count names and packs P and W. last: no tile follows in this item.
 */
template <class F>
PTX_INLINE void forward_combine(const struct forward_worker &w, bool border, bool last,
                                struct forward_rows &rows, float (&s)[F::SCORES],
                                float (&u)[F::SCORES], struct forward_packed<F> &packed,
                                const float (&o)[F::OUTPUTS], float (&e)[F::OUTPUTS])
{
    if (F::PROBE) {
        wgmma_wait<0>();
        registers_pin(u);
    }
    forward_release_keys<F>(w, last);
    if constexpr (F::PROBE) {
        forward_weigh_probe<F>(border, rows, s, u, o, e);
        forward_pack<F>(u, packed.probe_weights);
    }
    forward_pack<F>(s, packed.weights);
}

/* Issues the products with the values of the tile that count names. */
template <class F>
PTX_INLINE void forward_accumulate(const struct forward_worker &w,
                                   const struct forward_packed<F> &packed, float (&o)[F::OUTPUTS],
                                   float (&e)[F::OUTPUTS])
{
    int stage = w.count % F::STAGES;
    mbarrier_wait(F::v_full(stage), w.count / F::STAGES & 1);
    registers_pin(o);
    if (F::PROBE) registers_pin(e);
    wgmma_fence();
    forward_values<F>(o, packed.weights, stage);
    if constexpr (F::PROBE) forward_values<F>(e, packed.probe_weights, stage);
    wgmma_commit();
}

/* Waits for them: their operands are free. */
template <class F>
PTX_INLINE void forward_accumulated(const struct forward_worker &w,
                                    struct forward_packed<F> &packed, float (&o)[F::OUTPUTS],
                                    float (&e)[F::OUTPUTS])
{
    wgmma_wait<0>();
    registers_pin(packed.weights);
    registers_pin(o);
    if (F::PROBE) {
        registers_pin(packed.probe_weights);
        registers_pin(e);
    }
    if (forward_leads()) mbarrier_arrive(F::v_empty(w.count % F::STAGES));
}

/* From packed weights of one tile to weights and U of the next. The scores of the next go first, so
 * that their exponentials hide behind the products with the values. */
template <class F>
PTX_INLINE void forward_burst(struct forward_worker &w, const struct forward_sm90_args &args,
                              const struct forward_item &item, int key, bool border,
                              struct forward_rows &rows, struct forward_packed<F> &packed,
                              float (&s)[F::SCORES], float (&u)[F::SCORES], float (&o)[F::OUTPUTS],
                              float (&e)[F::OUTPUTS])
{
    int next = (w.count + 1) % F::STAGES;
    float factor[2];
    forward_take_turn<F>(w.group);
    mbarrier_wait(F::k_full(next), (w.count + 1) / F::STAGES & 1);
    wgmma_fence();
    forward_scores<F>(s, F::Q, w.group, next);
    forward_accumulate<F>(w, packed, o, e);
    forward_pass_turn<F>(w.group);
    wgmma_wait<1>();
    registers_pin(s);
    if (forward_weigh<F>(args, item, key, border, rows, s, factor)) {
        wgmma_wait<0>();
        registers_pin(o);
        forward_rescale(o, factor);
        if (F::PROBE) registers_pin(e);
        if (F::PROBE) forward_rescale(e, factor);
    }
    forward_accumulated<F>(w, packed, o, e);
    if (F::PROBE) {
        wgmma_fence();
        forward_scores<F>(u, F::R, w.group, next);
    }
    w.count++;
}

/* outputs += weights times the values of a stage, with what packing loses added as a product of its
 * own. One step at a time: this is rare. */
template <class F>
PTX_INLINE void forward_values_exact(float (&outputs)[F::OUTPUTS],
                                     const float (&weights)[F::SCORES], int stage)
{
    uint32_t values = wgmma_place(F::values(stage));
#pragma unroll
    for (int step = 0; step < F::KEYS / 16; step++) {
        uint32_t pairs[4], rest[4];
#pragma unroll
        for (int n = 0; n < 4; n++) {
            float low = weights[8 * step + 2 * n], high = weights[8 * step + 2 * n + 1];
            pairs[n] = pair_pack<F::FORMAT>(low, high);
            rest[n] = pair_pack<F::FORMAT>(low - pair_low<F::FORMAT>(pairs[n]),
                                           high - pair_high<F::FORMAT>(pairs[n]));
        }
        uint64_t matrix = wgmma_matrix(values, step * 2048, F::KEYS_BOX_BYTES, 1024);
        registers_pin(outputs);
        wgmma_fence();
        wgmma_add<F::FORMAT>(outputs, pairs, matrix);
        wgmma_add<F::FORMAT>(outputs, rest, matrix);
        wgmma_commit();
        wgmma_wait<0>();
        registers_pin(pairs);
        registers_pin(rest);
        registers_pin(outputs);
    }
}

/* A whole tile, for rows that see so few keys that the rounding of weights does not average: one
 * step after the other. */
template <class F>
static __device__ __forceinline__ void
forward_step_exact(struct forward_worker &w, const struct forward_sm90_args &args,
                   const struct forward_item &item, int key, bool last, struct forward_rows &rows,
                   float (&s)[F::SCORES], float (&u)[F::SCORES], float (&o)[F::OUTPUTS],
                   float (&e)[F::OUTPUTS])
{
    int stage = w.count % F::STAGES;
    float factor[2];
    forward_take_turn<F>(w.group);
    mbarrier_wait(F::k_full(stage), w.count / F::STAGES & 1);
    wgmma_fence();
    forward_scores<F>(s, F::Q, w.group, stage);
    if (F::PROBE) {
        mbarrier_wait(F::r_full(), w.turn & 1);
        wgmma_fence();
        forward_scores<F>(u, F::R, w.group, stage);
    }
    forward_pass_turn<F>(w.group);
    wgmma_wait<0>();
    registers_pin(s);
    if (F::PROBE) registers_pin(u);
    forward_release_keys<F>(w, last);
    if (forward_weigh<F>(args, item, key, true, rows, s, factor)) {
        forward_rescale(o, factor);
        if (F::PROBE) forward_rescale(e, factor);
    }
    if constexpr (F::PROBE) {
        forward_weigh_probe<F>(true, rows, s, u, o, e);
    }
    mbarrier_wait(F::v_full(stage), w.count / F::STAGES & 1);
    forward_values_exact<F>(o, s, stage);
    if constexpr (F::PROBE) forward_values_exact<F>(e, u, stage);
    if (forward_leads()) mbarrier_arrive(F::v_empty(stage));
    w.count++;
}

#endif
