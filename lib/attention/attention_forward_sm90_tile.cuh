/* attention_forward_sm90_tile.cuh: one key tile in the hands of a computing warpgroup of
 * attention_forward_sm90.cuh, which see first: from scores to weights, from one tile to the next,
 * and the slow step for rows with few keys. */
#ifndef PLX_ATTENTION_FORWARD_SM90_TILE_CUH
#define PLX_ATTENTION_FORWARD_SM90_TILE_CUH

#include "attention/attention_forward_sm90_shape.cuh"

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
        factor[r] = follows ? power_of_two(rows.maximum[r] - top[r]) : 1.0f;
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
        scores[n] = power_of_two(fmaf(scores[n], log2_scale, -origin[r]));
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

/* u becomes W = P (U - c) and joins the sums, a tile at a time: equal terms added one by one to a
 * large sum would all be rounded the same way. */
template <int N>
PTX_INLINE void forward_probe_weights(const float (&weights)[N], float (&u)[N],
                                      struct forward_rows &rows)
{
    float sum[2] = {0.0f, 0.0f};
#pragma unroll
    for (int n = 0; n < N; n++) {
        int r = n / 2 % 2;
        u[n] = weights[n] * (u[n] - rows.shift[r]);
        sum[r] += u[n];
    }
#pragma unroll
    for (int r = 0; r < 2; r++) rows.probe_sum[r] += sum[r];
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

/* Issues S and U of the tile that count names. */
template <class F>
PTX_INLINE void forward_issue(const struct forward_worker &w, float (&s)[F::SCORES],
                              float (&u)[F::SCORES])
{
    int stage = w.count % F::STAGES;
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
}

/* Issues S and U of the first tile that the rows see, and makes S weights. */
template <class F>
PTX_INLINE void forward_begin(const struct forward_worker &w, const struct forward_sm90_args &args,
                              const struct forward_item &item, int key, bool border,
                              struct forward_rows &rows, float (&s)[F::SCORES],
                              float (&u)[F::SCORES])
{
    float factor[2];
    forward_issue<F>(w, s, u);
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
    forward_issue<F>(w, s, u);
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
