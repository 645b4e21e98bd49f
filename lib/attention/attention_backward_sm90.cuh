/* attention_backward_sm90.cuh: backward of Parallax and of softmax attention on Hopper.
 *
 * With P from the saved lse, t and value_mean, and rows summed beforehand
 * (attention_backward_sm90_rows.cuh):
 *
 *     S = Q K'   U = R K'   A = dO V'   P = exp(S - lse)   X = 1 + t - U   Y = A - b
 *     W = P X    GU = -P Y  GL = X P Y + P (b - c)
 *     dV = W' dO   dK = scale GL' Q + GU' R   dQ = scale GL K   dR = GU K
 *
 * A block owns 128 rows: keys, and walks over tiles of 64 queries of every head of the group, or
 * queries, and walks over tiles of 64 keys. The first of its three warpgroups loads; each of the
 * others computes 64 own rows. Scores have own rows as rows, so that packed gradients are left
 * operands from registers for every sum that belongs to own rows: dK and dV, or dQ and dR.
 *
 * Deterministic: one kernel of each kind, eleven products, and no addition whose order is left to
 * chance. Fused: only the kernel that owns keys. It also hands GL and GU through shared memory,
 * where one warpgroup computes dQ of the step before and the other dR (without the probe: half of
 * dQ each), to be added to f32 sums in global memory; eight products.
 *
 * Rows behind a sequence may hold NaN, and so may single queries, which must not reach keys they do
 * not see: hidden weights become zero, and rows that could meet them in a product are cleared in
 * shared memory. */
#ifndef PLX_ATTENTION_BACKWARD_SM90_CUH
#define PLX_ATTENTION_BACKWARD_SM90_CUH

#include "attention/attention_backward_sm90_load.cuh"

/* ---- Rows that must not meet -------------------------------------------------------------------
 */

/* Clears a row in one box of each part; four threads share a row. */
PTX_INLINE void backward_clear(uint32_t target, int parts, int part, int boxes, int box, int row)
{
    for (int n = 0; n < parts * boxes; n++) {
        uint32_t place = target + n / boxes * part + n % boxes * box + row * 128;
        place += threadIdx.x % 4 * 32;
        shared_clear(place);
        shared_clear(place + 16);
    }
}

/* Both warpgroups have cleared, and tensor cores will see it. */
PTX_INLINE void backward_cleared(void)
{
    proxy_fence();
    barrier_sync(FORWARD_TAIL, 2 * FORWARD_GROUP);
}

/* Own keys behind their sequence. */
template <class F> static __device__ void backward_clean_own(const struct backward_item &item)
{
    if (item.first + BACKWARD_SM90_TILE <= item.S) return;
    for (int row = (threadIdx.x - FORWARD_GROUP) / 4; row < BACKWARD_SM90_TILE; row += 64)
        if (item.first + row >= item.S)
            backward_clear(F::at(0), F::OWN_PARTS, F::OWN_PART, F::BOXES, F::OWN_BOX, row);
    backward_cleared();
}

/* Walked keys behind their sequence; walked queries that are absent or hold NaN. */
template <class F>
static __device__ void backward_clean(const struct backward_worker &w,
                                      const struct backward_item &item)
{
    int row = (threadIdx.x - FORWARD_GROUP) / 4;
    bool bad = w.tile * BACKWARD_SM90_SLOT + row >= item.S;
    if (F::KEYS) {
        const float *lse = (const float *)(F::bytes() + F::ROWS + w.stage * F::SCALAR_BYTES);
        bad = !(fabsf(lse[row]) < INFINITY);
    }
    if (bad) backward_clear(F::walked(w.stage), F::PARTS, F::PART, F::BOXES, F::BOX, row);
    backward_cleared();
}

/* What this thread's two own rows see of the walked tile. */
template <class F>
PTX_INLINE struct backward_mask backward_sight(const struct attention_problem &p,
                                               const struct backward_item &item, int tile)
{
    struct backward_mask mask;
    int column = tile * BACKWARD_SM90_SLOT + (int)threadIdx.x % 4 * 2;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        int row = item.first + forward_row() + 8 * half;
        struct forward_span span =
            F::KEYS ? backward_queries(p, item.T, item.S, row, row < item.S ? row : -1)
                    : forward_keys(p, item.T, item.S, row, row < item.T ? row : -1);
        mask.begin[half] = span.begin - column;
        mask.size[half] = (unsigned)max(span.end - span.begin, 0);
    }
    return mask;
}

/* ---- The computing warpgroups ------------------------------------------------------------------
 */

/* Where this thread's part of GL goes for both warpgroups to read: rows are queries, with 64 keys
 * of a warpgroup each, swizzled like a box. */
template <class F> PTX_INLINE uint32_t backward_exchange(const struct backward_worker &w)
{
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
    return F::at(F::EXCHANGE + (w.step & 1) * F::EXCHANGE_BYTES) + w.group * F::BOX +
           lane / 16 * 1024 + lane % 8 * 128 + ((2 * warp + lane / 8 % 2) ^ lane % 8) * 16;
}

/* Which share of dQ and dR a warpgroup computes: with the probe one of them; else half of the
 * channels of dQ, or all of it in every other step where halves are too narrow. */
template <class F> struct backward_share {
    static constexpr bool HALVES = !F::PROBE && F::CHANNELS == 128;
    static constexpr bool TURNS = !F::PROBE && F::CHANNELS == 64;
    static constexpr int SUMS = HALVES ? F::SUMS / 2 : F::SUMS;
};

template <class F> PTX_INLINE bool backward_takes(const struct backward_worker &w, int step)
{
    return !backward_share<F>::TURNS || (step & 1) == w.group;
}

/* Issues the products of a step's gradients and the own keys. */
template <class F>
PTX_INLINE void backward_multiply(float (&sums)[backward_share<F>::SUMS],
                                  const struct backward_worker &w, int step)
{
    typedef backward_share<F> share;
    uint32_t left = F::at(F::EXCHANGE + (step & 1) * F::EXCHANGE_BYTES), right = F::at(0);
    if (F::PROBE) left += w.group * F::EXCHANGE_PART;
    if (share::HALVES) right += w.group * F::OWN_BOX;
    uint32_t a = wgmma_place(left), b = wgmma_place(right);
    mbarrier_wait(F::exchange_full(step & 1), step >> 1 & 1);
    wgmma_fence();
#pragma unroll
    for (int n = 0; n < BACKWARD_SM90_TILE / 16; n++) {
        uint64_t from = wgmma_matrix(a, n / 4 * F::BOX + n % 4 * 32, 16, 1024);
        uint64_t to = wgmma_matrix(b, n * 2048, F::OWN_BOX, 1024);
        if (n == 0)
            wgmma_start_product<F::FORMAT>(sums, from, to);
        else
            wgmma_add_product<F::FORMAT>(sums, from, to);
    }
    wgmma_commit();
}

/* The products are finished: gradients of a later step may replace these. */
template <class F>
PTX_INLINE void backward_multiplied(float (&sums)[backward_share<F>::SUMS], int step)
{
    registers_pin(sums);
    if (forward_leads()) mbarrier_arrive(F::exchange_empty(step & 1));
}

/* Adds half of the finished products to the sums of the step's queries. */
template <class F, int HALF>
PTX_INLINE void backward_reduce(const float (&sums)[backward_share<F>::SUMS], float *target)
{
    typedef backward_share<F> share;
#pragma unroll
    for (int n = HALF * share::SUMS / 2; n < (HALF + 1) * share::SUMS / 2; n += 4)
        global_add(target + backward_place(n / 4), sums[n], sums[n + 1], sums[n + 2], sums[n + 3]);
}

/* Hands a warp's finished products to the copy engine, which adds them while the warp goes on. */
template <class F>
PTX_INLINE void backward_stage(const float (&sums)[backward_share<F>::SUMS],
                               const struct backward_worker &w, int step, float *target)
{
    typedef backward_share<F> share;
    static_assert(!F::STAGED || share::SUMS * 128 == F::SHARE_BYTES, "a share is what a warp has");
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4, turn = share::TURNS ? step / 2 : step;
    int place = F::SHARES + (turn % 2 * 8 + w.group * 4 + warp) * F::SHARE_BYTES;
    if (lane == 0) bulk_wait_read<1>(); /* the additions before the last are out of the way */
    __syncwarp();
#pragma unroll
    for (int n = 0; n < share::SUMS; n += 4)
        *(float4 *)(F::bytes() + place + n * 128 + lane * 16) =
            make_float4(sums[n], sums[n + 1], sums[n + 2], sums[n + 3]);
    proxy_fence();
    __syncwarp();
    if (lane != 0) return;
    if (share::HALVES) target += w.group * 4096;
    bulk_add(target + warp * 1024, F::at(place), F::SHARE_BYTES);
    bulk_commit();
}

/* Where the sums of the worker's present step belong. */
template <class F>
PTX_INLINE float *backward_target(const struct backward_worker &w,
                                  const struct backward_sm90_args &args,
                                  const struct backward_item &item)
{
    float *sums = args.sums[F::PROBE ? w.group : 0];
    return sums + backward_slot(args, item, w.head, w.tile) * (BACKWARD_SM90_SLOT * F::CHANNELS);
}

/* Waits for a step's tile and issues S. */
template <class F>
PTX_INLINE void backward_begin(float (&s)[F::SCORES], const struct backward_worker &w,
                               const struct backward_sm90_args &args,
                               const struct backward_item &item)
{
    mbarrier_wait(F::full(w.stage), w.parity);
    if (F::KEYS ? backward_border(item.plain, w.tile) : (w.tile + 1) * BACKWARD_SM90_SLOT > item.S)
        backward_clean<F>(w, item);
    wgmma_fence();
    backward_scores<F>(s, 0, 0, w);
}

/* From S in flight to weights: a is centered, u is still to be waited for. */
template <class F>
static __device__ __forceinline__ void
backward_weigh(struct backward_held<F> &held, float (&s)[F::SCORES], float (&a)[F::SCORES],
               float (&u)[F::SCORES], const struct backward_worker &w,
               const struct backward_sm90_args &args, const struct backward_item &item,
               const float (&own)[F::SCALARS][2])
{
    wgmma_fence();
    backward_scores<F>(a, 1, 1, w);
    if (F::PROBE && !F::NARROW) backward_scores<F>(u, F::OWN_U, F::WALKED_U, w);
    wgmma_wait<F::PROBE && !F::NARROW ? 2 : 1>();
    registers_pin(s);
    backward_weights<F>(s, args.log2_scale, w, own);
    if (backward_border(item.group_plain[w.group], w.tile))
        backward_hide(s, backward_sight<F>(args.problem, item, w.tile));
    backward_hold<F>(held, s);
    if (F::NARROW) {
        registers_pin(held.narrow);
        wgmma_fence();
        backward_scores<F>(u, F::OWN_U, F::WALKED_U, w);
    }
    wgmma_wait<F::PROBE ? 1 : 0>();
    registers_pin(a);
    backward_center<F>(a, w, own);
}

/* first += 16 columns' share of dK or dQ, second of dV or dR. */
template <class F>
PTX_INLINE void backward_accumulate(const struct backward_operands &operands, int n,
                                    const struct backward_worker &w, float (&first)[F::SUMS],
                                    float (&second)[F::SUMS])
{
    wgmma_fence();
    if (F::KEYS) backward_add<F>(second, operands.w, n, 1, w);
    if (F::PROBE && F::KEYS) backward_add<F>(first, operands.u, n, 2, w);
    if (F::PROBE && !F::KEYS) backward_add<F>(second, operands.u, n, 0, w);
    backward_add<F>(first, operands.l, n, 0, w);
    wgmma_commit();
}

/* The products of a step are finished: its tile may be replaced, and its scalars, which every
 * thread has read for itself. The fence is between those reads and the copy engine, which the one
 * of the exchange is too. */
template <class F, int STEPS>
PTX_INLINE void backward_accumulated(struct backward_operands (&operands)[STEPS],
                                     const struct backward_worker &w, float (&first)[F::SUMS],
                                     float (&second)[F::SUMS])
{
    registers_pin(first);
    registers_pin(second);
#pragma unroll
    for (int n = 0; n < STEPS; n++) {
        registers_pin(operands[n].l);
        if (F::KEYS) registers_pin(operands[n].w);
        if (F::PROBE) registers_pin(operands[n].u);
    }
    if (F::KEYS && !F::FUSED) proxy_fence();
    mbarrier_arrive(F::empty(w.stage));
}

/* One step. Sixteen columns at a time, so that the products of some run while the gradients of the
 * next are computed. */
template <class F, int STEPS>
static __device__ __forceinline__ void
backward_step(struct backward_operands (&operands)[STEPS], float (&s)[F::SCORES],
              const struct backward_worker &w, const struct backward_sm90_args &args,
              const struct backward_item &item, const float (&own)[F::SCALARS][2],
              float (&first)[F::SUMS], float (&second)[F::SUMS])
{
    float a[F::SCORES], u[F::SCORES];
    struct backward_held<F> held;
    backward_weigh<F>(held, s, a, u, w, args, item, own);
    uint32_t exchange = F::FUSED ? backward_exchange<F>(w) : 0;
    if (F::FUSED) mbarrier_wait(F::exchange_empty(w.step & 1), ~(w.step >> 1) & 1);
    if (F::PROBE) {
        wgmma_wait<0>();
        registers_pin(u);
    }
#pragma unroll
    for (int n = 0; n < STEPS; n++) {
        backward_gradients<F>(operands[n], n, held, a, u, args.scale, w, own);
        if (F::FUSED) {
            store_matrices<true>(exchange + n * 2048, operands[n].l);
            if (F::PROBE)
                store_matrices<true>(exchange + F::EXCHANGE_PART + n * 2048, operands[n].u);
        }
        backward_accumulate<F>(operands[n], n, w, first, second);
    }
    if (F::FUSED) {
        proxy_fence();
        __syncwarp();
        if (threadIdx.x % 32 == 0) mbarrier_arrive(F::exchange_full(w.step & 1));
    }
}

/* On to the next step; false where there is none. */
template <class F>
PTX_INLINE bool backward_advance(struct backward_worker &w, const struct backward_item &item)
{
    w.step++;
    if (++w.stage == F::STAGES) w.stage = 0, w.parity ^= 1;
    if (++w.tile == item.end) w.tile = item.begin, w.head++;
    return w.head < item.head + item.heads;
}

/* The end of a step: what of its products is still in flight, and of the fused kernel's the share
 * in dq and dr of the step before. S of the next step, if there is one, is in flight already where
 * there are registers for both, and issued here, between the additions, where not. */
template <class F, bool NEXT, int STEPS>
static __device__ __forceinline__ void
backward_end(struct backward_operands (&operands)[STEPS], float (&s)[F::SCORES],
             const struct backward_worker &w, const struct backward_worker &next,
             const struct backward_sm90_args &args, const struct backward_item &item,
             float (&first)[F::SUMS], float (&second)[F::SUMS], float *target)
{
    constexpr int LATER = NEXT && F::EARLY; /* groups in flight behind the step's own */
    if (F::FUSED && w.step > 0 && backward_takes<F>(w, w.step - 1)) {
        float sums[backward_share<F>::SUMS];
        if (!F::EARLY) wgmma_wait<1>(); /* operands make room */
        backward_multiply<F>(sums, w, w.step - 1);
        wgmma_wait<LATER + 1>();
        backward_accumulated<F>(operands, w, first, second);
        constexpr bool AHEAD = NEXT && F::STAGED && !F::EARLY; /* S before the sums are awaited */
        if (AHEAD) backward_begin<F>(s, next, args, item);
        wgmma_wait<AHEAD ? 1 : 0>();
        backward_multiplied<F>(sums, w.step - 1);
        if (!F::STAGED) backward_reduce<F, 0>(sums, target);
        if (NEXT && !F::EARLY && !AHEAD) backward_begin<F>(s, next, args, item);
        if (F::STAGED)
            backward_stage<F>(sums, w, w.step - 1, target);
        else
            backward_reduce<F, 1>(sums, target);
    } else {
        wgmma_wait<LATER>();
        backward_accumulated<F>(operands, w, first, second);
        if (NEXT && !F::EARLY) backward_begin<F>(s, next, args, item);
    }
}

/* All steps. Products are issued before those ahead of them are waited for, so that tensor cores
 * have work. */
template <class F>
static __device__ __forceinline__ void
backward_walk(struct backward_worker &w, const struct backward_sm90_args &args,
              const struct backward_item &item, const float (&own)[F::SCALARS][2],
              float (&first)[F::SUMS], float (&second)[F::SUMS])
{
    struct backward_operands operands[BACKWARD_SM90_SLOT / 16];
    float *target = NULL, s[F::SCORES];
    backward_begin<F>(s, w, args, item);
    for (;;) {
        backward_step<F>(operands, s, w, args, item, own, first, second);
        struct backward_worker next = w;
        if (!backward_advance<F>(next, item)) break;
        if (F::EARLY) backward_begin<F>(s, next, args, item);
        backward_end<F, true>(operands, s, w, next, args, item, first, second, target);
        if (F::FUSED) target = backward_target<F>(w, args, item);
        w = next;
    }
    backward_end<F, false>(operands, s, w, w, args, item, first, second, target);
    if (F::FUSED && backward_takes<F>(w, w.step)) {
        float sums[backward_share<F>::SUMS];
        backward_multiply<F>(sums, w, w.step);
        wgmma_wait<0>();
        backward_multiplied<F>(sums, w.step);
        target = backward_target<F>(w, args, item);
        if (F::STAGED) {
            backward_stage<F>(sums, w, w.step, target);
        } else {
            backward_reduce<F, 0>(sums, target);
            backward_reduce<F, 1>(sums, target);
        }
    }
}

/* A row's sums times factor; zeros for a row that the sequence does not have. */
template <int N>
PTX_INLINE void backward_store(const struct plx_tensor &tensor, int batch, int time, int head,
                               float (&sums)[N], float factor, int half, bool live, bool write)
{
#pragma unroll
    for (int n = 0; n < N; n++)
        if (n / 2 % 2 == half) sums[n] = live ? sums[n] * factor : 0.0f;
    forward_store(tensor, element_row(tensor, batch, time, head), sums, half, write);
}

template <class F>
static __device__ __forceinline__ void
backward_finish(const struct backward_sm90_args &args, const struct backward_item &item,
                float (&first)[F::SUMS], float (&second)[F::SUMS])
{
    const struct attention_problem &p = args.problem;
    float unit = exp2f(-backward_bits(F::FORMAT)), scaled = F::PROBE ? unit : args.scale * unit;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        int row = forward_row() + 8 * half;
        bool write = row < item.rows;
        if (F::KEYS) {
            bool live = item.first + row < item.S;
            int time = item.k_start + item.first + row;
            backward_store(p.dk, item.k_batch, time, item.kv_head, first, scaled, half, live,
                           write);
            backward_store(p.dv, item.k_batch, time, item.kv_head, second,
                           F::PROBE ? -unit / args.scale : unit, half, live, write);
        } else {
            bool live = item.first + row < item.T;
            int time = item.q_start + item.first + row;
            backward_store(p.dq, item.q_batch, time, item.head, first, scaled, half, live, write);
            if (F::PROBE)
                backward_store(p.dr, item.q_batch, time, item.head, second, unit, half, live,
                               write);
        }
    }
}

template <class F> static __device__ void backward_compute(const struct backward_sm90_args &args)
{
    const struct backward_item &item = *F::item();
    /* The same in every lane, and known to be: it selects barriers and addresses. */
    int group = __shfl_sync(0xffffffffu, (int)threadIdx.x / FORWARD_GROUP - 1, 0);
    struct backward_worker w = {group, 0, 0, 0, 0, 0};
    float first[F::SUMS], second[F::SUMS], own[F::SCALARS][2];
#pragma unroll
    for (int n = 0; n < F::SUMS; n++) first[n] = second[n] = 0.0f;
    if (item.begin < item.end) {
        if (!F::KEYS) {
            int tile = item.first / BACKWARD_SM90_SLOT + group, row = forward_row() % 64;
            const float *scalars =
                args.scalars + backward_slot(args, item, item.head, tile) * (F::SCALARS * 64) + row;
            /* A tile of which the sequence has only the first half has no second slot. */
            bool there = tile * BACKWARD_SM90_SLOT < item.T;
#pragma unroll
            for (int n = 0; n < 2 * F::SCALARS; n++)
                own[n / 2][n % 2] =
                    there ? scalars[n / 2 * 64 + n % 2 * 8] : (n < 2 ? INFINITY : 0.0f);
        }
        mbarrier_wait(F::own_full(), 0);
        if constexpr (F::KEYS) backward_clean_own<F>(item);
        w.head = item.head, w.tile = item.begin;
        backward_walk<F>(w, args, item, own, first, second);
    }
    backward_finish<F>(args, item, first, second);
    /* Shared memory stays until the engine has read it. */
    if (F::STAGED && threadIdx.x % 32 == 0) bulk_wait_read<0>();
}

/* ---- The kernel --------------------------------------------------------------------------------
 */

template <class F>
__global__ void __launch_bounds__(BACKWARD_THREADS, 1)
    backward_sm90_kernel(const __grid_constant__ struct backward_sm90_args args)
{
    if (threadIdx.x == 0) {
        if (F::at(0) % 1024 != 0) __trap(); /* the swizzle is a function of address bits */
        backward_describe<F>(args.problem, args.plan, F::item());
        mbarrier_init(F::own_full(), 1);
        for (int n = 0; n < 2; n++) {
            mbarrier_init(F::exchange_full(n), 8);
            mbarrier_init(F::exchange_empty(n), backward_share<F>::TURNS ? 1 : 2);
        }
        for (int stage = 0; stage < F::STAGES; stage++) {
            mbarrier_init(F::full(stage), 1);
            mbarrier_init(F::empty(stage), 2 * FORWARD_GROUP);
        }
        mbarrier_init_fence();
    }
    __syncthreads(); /* barriers and the item exist before anyone uses them */
    if (!F::item()->used) return;
    if (threadIdx.x < FORWARD_GROUP) {
        /* 24 + 2 * 240 registers are the 3 * 168 that the launch gave. */
        registers_shrink<24>();
        if (threadIdx.x == 0) backward_load<F>(args);
    } else {
        registers_grow<240>();
        backward_compute<F>(args);
    }
}

#endif
