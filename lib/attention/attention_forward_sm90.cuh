/* attention_forward_sm90.cuh: forward of Parallax and of softmax attention on Hopper, bf16 and f16.
 *
 * A block is one loading and two or three computing warpgroups. Two threads of the first have the
 * copy engine bring data: one takes items in the order of the plan (attention_forward_sm90_plan.h)
 * and brings key and value tiles, from the last to the first, through a ring of stages; the other
 * describes each item in shared memory and brings its queries and probes. The others compute 64
 * query rows each against all tiles that any of their rows sees:
 *
 *     S = Q K'   U = R K'   P = exp2(S - max)   W = P (U - c)   O += P V   E += W V
 *
 * with the identities of parallax/NOTES.md: o = O/l (1 + sum W / l) - E/l, where l sums P. c is the
 * mean of U over a tile that outweighs all before it, at first the first that a row sees. P and W
 * are rounded for their products; sums are of unrounded values. Rows with few keys, where rounding
 * does not average, take a slow path with unrounded products.
 *
 * A warpgroup's order is S of the next tile, O += P V, E += W V of this one, exponentials of the
 * next while these run, U of the next, W of the next while that runs. Warpgroups take turns in
 * issuing the first three (ORDER barriers).
 *
 * A tile may reach past the end of its sequence: into zeros where the tensor ends, otherwise into
 * memory that may hold NaN, or, of a paged cache, into what the stage held before. Scores there are
 * masked, and as 0 * NaN is NaN, U becomes 0 where P is, and the rows of V are overwritten with
 * zeros in shared memory. */
#ifndef PLX_ATTENTION_FORWARD_SM90_CUH
#define PLX_ATTENTION_FORWARD_SM90_CUH

#include "attention/attention_forward_sm90_tile.cuh"
#include "cuda/counter.cuh"

/* ---- The loading threads -----------------------------------------------------------------------
 */

/* Describes the item at a place; false for a slot without a tile. */
static __device__ bool forward_describe(const struct attention_problem &p,
                                        struct forward_sm90_place place, int rows, int keys,
                                        struct forward_item *item, int *k_batch, int *k_start)
{
    bool packed = p.q_offsets.data != NULL;
    int batch = packed ? 0 : place.pair / (int)p.H;
    int tiles = packed ? 0 : (int)((p.T + rows - 1) / rows);
    struct any_tile tile = any_find(p, (int64_t)batch * tiles + place.tile, rows, false);
    if (!tile.used) return false;
    item->last = false;
    item->batch = (int)tile.sequence.q_batch, item->start = (int)tile.sequence.q_start;
    item->head = place.pair - batch * (int)p.H;
    item->first = (int)tile.first;
    item->rows = (int)min((int64_t)rows, tile.row_end - tile.first);
    item->T = (int)tile.sequence.T, item->S = (int)tile.sequence.S;
    int last = min(item->first + rows, item->T) - 1;
    struct forward_span span = forward_keys(p, item->T, item->S, item->first, last);
    item->begin = span.begin / keys;
    item->end = span.end > span.begin ? (span.end + keys - 1) / keys : item->begin;
    *k_batch = (int)tile.sequence.k_batch, *k_start = (int)tile.sequence.k_start;
    item->dirty = item->end > item->begin && item->end * keys > item->S &&
                  (*k_start + item->S < p.S || p.page > 0);
    return true;
}

/* The rows of a map's box and all CHANNELS of a head, as boxes of 64 channels. */
template <class F>
PTX_INLINE void forward_copy(uint32_t target, int box_bytes, const CUtensorMap *map, int head,
                             int row, int batch, uint32_t barrier)
{
#pragma unroll
    for (int box = 0; box < F::BOXES; box++)
        tma_load(target + box * box_bytes, map, box * FORWARD_BOX, head, row, batch, barrier);
}

/* Hands an item to the computing warpgroups and brings its queries and probes, each as soon as
 * those of the item before are done with. */
template <class F>
static __device__ __forceinline__ void forward_load_rows(const struct forward_sm90_args &args,
                                                         const struct forward_item &item,
                                                         unsigned turn)
{
    bool empty = item.end == item.begin;
    int row = item.start + item.first;
    mbarrier_wait(F::q_empty(), ~turn & 1);
    F::items()[turn & 1] = item;
    mbarrier_expect(F::q_full(), empty ? 0 : F::ROWS_BYTES);
    if (!empty)
        forward_copy<F>(F::at(F::Q), F::ROWS_BOX_BYTES, &args.q, item.head, row, item.batch,
                        F::q_full());
    if (!F::PROBE) return;
    mbarrier_wait(F::r_empty(), ~turn & 1);
    mbarrier_expect(F::r_full(), empty ? 0 : F::ROWS_BYTES);
    if (!empty)
        forward_copy<F>(F::at(F::R), F::ROWS_BOX_BYTES, &args.r, item.head, row, item.batch,
                        F::r_full());
}

/* The tile of keys or values that begins at `key` of a sequence of `end`: one copy of all of it, or
 * one of every box that lies in a page and holds a key. */
template <class F>
PTX_INLINE void forward_copy_keys(const struct attention_problem &p, uint32_t target,
                                  const CUtensorMap *map, int head, int key, int end, int batch,
                                  uint32_t barrier)
{
    if (p.page == 0) {
        mbarrier_expect(barrier, F::KEYS_BYTES);
        forward_copy<F>(target, F::KEYS_BOX_BYTES, map, head, key, batch, barrier);
        return;
    }
    const int32_t *table = (const int32_t *)p.k_pages.data + batch * p.k_pages.stride[0];
    int boxes = (min(F::KEYS, end - key) + FORWARD_PAGE_BOX - 1) / FORWARD_PAGE_BOX;
    mbarrier_expect(barrier, boxes * FORWARD_PAGE_BOX * F::CHANNELS * 2);
    for (int box = 0; box < boxes; box++, key += FORWARD_PAGE_BOX) {
        int entry = key / p.page;
        forward_copy<F>(target + box * FORWARD_PAGE_BOX * 128, F::KEYS_BOX_BYTES, map, head,
                        key - entry * p.page, table[entry], barrier);
    }
}

/* Keys and values of an item, as far ahead as the ring allows. */
template <class F>
static __device__ __forceinline__ void forward_load_keys(const struct forward_sm90_args &args,
                                                         const struct forward_item &item,
                                                         int k_batch, int k_start, unsigned *count)
{
    int kv_head = item.head / (int)(args.problem.H / args.problem.G);
    for (int tile = item.end - 1; tile >= item.begin; tile--, ++*count) {
        int stage = *count % F::STAGES, parity = ~(*count / F::STAGES) & 1;
        int key = k_start + tile * F::KEYS;
        mbarrier_wait(F::k_empty(stage), parity);
        forward_copy_keys<F>(args.problem, F::keys(stage), &args.k, kv_head, key, item.S, k_batch,
                             F::k_full(stage));
        mbarrier_wait(F::v_empty(stage), parity);
        forward_copy_keys<F>(args.problem, F::values(stage), &args.v, kv_head, key, item.S, k_batch,
                             F::v_full(stage));
    }
}

/* The block's next item, or a number past the last. */
static __device__ __forceinline__ int forward_next_item(const struct forward_sm90_args &args)
{
    int items = args.plan.items, grid = args.plan.grid;
    if (items == grid) return items;
    return grid + (int)counter_draw(args.taken, counter_look(args.taken), items);
}

/* Takes items, hands their numbers to the thread that brings rows, and brings keys and values. */
template <class F> static __device__ void forward_bring_keys(const struct forward_sm90_args &args)
{
    unsigned count = 0;
    int number = blockIdx.x;
    for (unsigned turn = 0;; turn++, number = forward_next_item(args)) {
        mbarrier_wait(F::order_empty(turn & 1), ~(turn >> 1) & 1);
        F::order()[turn & 1] = number;
        mbarrier_arrive(F::order_full(turn & 1));
        if (number >= args.plan.items) return;
        struct forward_item item;
        int k_batch, k_start;
        if (forward_describe(args.problem, forward_sm90_place(&args.plan, number), F::ROWS, F::KEYS,
                             &item, &k_batch, &k_start))
            forward_load_keys<F>(args, item, k_batch, k_start, &count);
    }
}

/* Brings the rows of the items that the other thread takes, so that neither waits for what the
 * other waits for. */
template <class F> static __device__ void forward_bring_rows(const struct forward_sm90_args &args)
{
    unsigned turn = 0;
    for (unsigned met = 0;; met++) {
        mbarrier_wait(F::order_full(met & 1), met >> 1 & 1);
        int number = F::order()[met & 1];
        mbarrier_arrive(F::order_empty(met & 1));
        if (number >= args.plan.items) break;
        struct forward_item item;
        int k_batch, k_start;
        if (forward_describe(args.problem, forward_sm90_place(&args.plan, number), F::ROWS, F::KEYS,
                             &item, &k_batch, &k_start))
            forward_load_rows<F>(args, item, turn++);
    }
    mbarrier_wait(F::q_empty(), ~turn & 1);
    F::items()[turn & 1].last = true;
    mbarrier_arrive(F::q_full());
}

/* ---- The computing warpgroups ------------------------------------------------------------------
 */

/* Rows of the item's last value tile that lie behind the sequence become zero; both warpgroups do
 * it together and meet before either reads the tile. */
template <class F>
static __device__ void forward_clean(const struct forward_worker &w,
                                     const struct forward_item &item)
{
    int stage = w.count % F::STAGES, dirty = item.S - (item.end - 1) * F::KEYS;
    mbarrier_wait(F::v_full(stage), w.count / F::STAGES & 1);
    uint32_t tile = F::values(stage);
    int thread = threadIdx.x - FORWARD_GROUP, chunks = F::KEYS * 8;
    for (int n = dirty * 8 + thread; n < chunks; n += F::GROUPS * FORWARD_GROUP)
#pragma unroll
        for (int box = 0; box < F::BOXES; box++)
            shared_clear(tile + box * F::KEYS_BOX_BYTES + n * 16);
    proxy_fence();
    barrier_sync(FORWARD_TAIL, F::GROUPS * FORWARD_GROUP);
}

/* Tiles that only the other warpgroup's rows see: turns pass and stages are given back, after the
 * turn, which all warps take together: none may still wait for a stage that is given back. */
template <class F> static __device__ void forward_skip(struct forward_worker &w, int tiles)
{
    for (int n = 0; n < tiles; n++, w.count++) {
        int stage = w.count % F::STAGES, parity = w.count / F::STAGES & 1;
        mbarrier_wait(F::k_full(stage), parity);
        mbarrier_wait(F::v_full(stage), parity);
        forward_take_turn<F>(w.group);
        forward_pass_turn<F>(w.group);
        if (forward_leads()) mbarrier_arrive(F::k_empty(stage));
        if (forward_leads()) mbarrier_arrive(F::v_empty(stage));
    }
}

/* The key tiles of an item that the rows see. */
template <class F>
static __device__ __forceinline__ void
forward_walk_seen(struct forward_worker &w, const struct forward_sm90_args &args,
                  const struct forward_item &item, const struct forward_span &span,
                  struct forward_rows &rows, float (&s)[F::SCORES], float (&u)[F::SCORES],
                  float (&o)[F::OUTPUTS], float (&e)[F::OUTPUTS])
{
    struct forward_packed<F> packed;
    int tile = (span.end + F::KEYS - 1) / F::KEYS - 1, begin = span.begin / F::KEYS;
    int key = tile * F::KEYS;
    bool border = key + F::KEYS > span.all_end || key < span.all_begin;
    forward_begin<F>(w, args, item, key, border, rows, s, u);
    for (;; tile--) {
        forward_combine<F>(w, border, tile == begin, rows, s, u, packed, o, e);
        if (tile == begin) break;
        key -= F::KEYS;
        border = key + F::KEYS > span.all_end || key < span.all_begin;
        forward_burst<F>(w, args, item, key, border, rows, packed, s, u, o, e);
    }
    forward_take_turn<F>(w.group);
    forward_accumulate<F>(w, packed, o, e);
    forward_pass_turn<F>(w.group);
    forward_accumulated<F>(w, packed, o, e);
    w.count++;
}

/* All key tiles of an item. */
template <class F>
static __device__ __forceinline__ void
forward_walk(struct forward_worker &w, const struct forward_sm90_args &args,
             const struct forward_item &item, struct forward_rows &rows, float (&o)[F::OUTPUTS],
             float (&e)[F::OUTPUTS])
{
    const struct attention_problem &p = args.problem;
    int first = item.first + w.group * FORWARD_GROUP_ROWS;
    struct forward_span span =
        forward_keys(p, item.T, item.S, first, min(first + FORWARD_GROUP_ROWS, item.T) - 1);
    int end = (span.end + F::KEYS - 1) / F::KEYS, begin = span.begin / F::KEYS;
    if (item.end == item.begin || span.end <= span.begin) {
        if (item.end > item.begin) {
            /* As many turns as the other warpgroup takes. */
            forward_take_turn<F>(w.group);
            forward_pass_turn<F>(w.group);
            forward_skip<F>(w, item.end - item.begin);
        }
        /* Probes that nobody reads are waited for too: given back before the loading thread has
         * looked for those of the item before, they would let it miss a phase, and wait forever. */
        if (F::PROBE) mbarrier_wait(F::r_full(), w.turn & 1);
        /* No product keeps the warps together: none may still wait for what is given back now, and
         * all have left the item before, whose description the loading thread may then replace. */
        barrier_sync(FORWARD_MEET + w.group, FORWARD_GROUP);
        if (forward_leads()) mbarrier_arrive(F::q_empty());
        if (F::PROBE && forward_leads()) mbarrier_arrive(F::r_empty());
        return;
    }
    float s[F::SCORES], u[F::SCORES];
    forward_skip<F>(w, item.end - end);
    if (span.least < FORWARD_FEW) {
        for (int tile = end - 1; tile >= begin; tile--)
            forward_step_exact<F>(w, args, item, tile * F::KEYS, tile == begin, rows, s, u, o, e);
        forward_take_turn<F>(w.group);
        forward_pass_turn<F>(w.group);
    } else {
        forward_walk_seen<F>(w, args, item, span, rows, s, u, o, e);
    }
    forward_skip<F>(w, begin - item.begin);
}

/* Word x of lane t goes to lane x as word t, within every four lanes. */
PTX_INLINE void quad_transpose(uint32_t (&words)[4])
{
    bool odd = threadIdx.x & 1, high = threadIdx.x & 2;
    uint32_t a = __shfl_xor_sync(0xffffffffu, odd ? words[0] : words[1], 1);
    uint32_t b = __shfl_xor_sync(0xffffffffu, odd ? words[2] : words[3], 1);
    if (odd)
        words[0] = a, words[2] = b;
    else
        words[1] = a, words[3] = b;
    a = __shfl_xor_sync(0xffffffffu, high ? words[0] : words[2], 2);
    b = __shfl_xor_sync(0xffffffffu, high ? words[1] : words[3], 2);
    if (high)
        words[0] = a, words[1] = b;
    else
        words[2] = a, words[3] = b;
}

/* One row of an output, of which this lane computed values 4x + 2 half and the next of every eight
 * channels; afterwards it holds eight channels in a row of every 32, and stores them where it may.
 */
template <int N>
static __device__ __forceinline__ void forward_store(const struct plx_tensor &tensor,
                                                     int64_t offset, const float (&values)[N],
                                                     int half, bool write)
{
    int lane = threadIdx.x % 4;
#pragma unroll
    for (int x = 0; x < N / 4; x += 4) {
        int64_t place = offset + 8 * (x + lane);
        uint32_t low[4], high[4];
#pragma unroll
        for (int n = 0; n < 4; n++) {
            low[n] = __float_as_uint(values[4 * (x + n) + 2 * half]);
            high[n] = __float_as_uint(values[4 * (x + n) + 2 * half + 1]);
        }
        if (tensor.dtype != PLX_F32) {
#pragma unroll
            for (int n = 0; n < 4; n++) {
                float a = __uint_as_float(low[n]), b = __uint_as_float(high[n]);
                low[n] = tensor.dtype == PLX_F16 ? pair_pack<WGMMA_F16>(a, b) : pack_bf16(a, b);
            }
            quad_transpose(low);
            if (write)
                ((uint4 *)tensor.data)[place / 8] = make_uint4(low[0], low[1], low[2], low[3]);
        } else {
            quad_transpose(low);
            quad_transpose(high);
            uint4 *target = (uint4 *)tensor.data + place / 4;
            if (write) target[0] = make_uint4(low[0], high[0], low[1], high[1]);
            if (write) target[1] = make_uint4(low[2], high[2], low[3], high[3]);
        }
    }
}

/* Divides by the sums and writes the rows of a finished item. */
template <class F>
static __device__ __forceinline__ void
forward_finish(const struct attention_problem &p, const struct forward_item &item,
               const struct forward_rows &rows, float (&o)[F::OUTPUTS], float (&e)[F::OUTPUTS])
{
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float sum = quad_sum(rows.sum[half]);
        float probe = F::PROBE ? quad_sum(rows.probe_sum[half]) : 0.0f;
        int row = item.first + forward_row() + 8 * half;
        /* Not "> 0": the sum of a row with a NaN score is NaN and must stay it. */
        bool seen = row < item.T && sum != 0.0f, write = row < item.first + item.rows;
        float inverse = 1.0f / sum, factor = 1.0f + probe * inverse;
#pragma unroll
        for (int n = 0; n < F::OUTPUTS; n++) {
            if (n / 2 % 2 != half) continue;
            o[n] = seen ? o[n] * inverse : 0.0f;
            if (F::PROBE) e[n] = seen ? o[n] * factor - e[n] * inverse : 0.0f;
        }
        int64_t time = item.start + row;
        if (F::PROBE) {
            forward_store(p.o, element_row(p.o, item.batch, time, item.head), e, half, write);
            if (p.value_mean.data != NULL)
                forward_store(p.value_mean, element_row(p.value_mean, item.batch, time, item.head),
                              o, half, write);
        } else {
            forward_store(p.o, element_row(p.o, item.batch, time, item.head), o, half, write);
        }
        if (!write || threadIdx.x % 4 != 0) continue;
        if (p.lse.data != NULL)
            ((float *)p.lse.data)[element_row(p.lse, item.batch, time, item.head)] =
                seen ? (rows.maximum[half] + log2f(sum)) * 0.6931471805599453f : -INFINITY;
        if (F::PROBE && p.probe_mean.data != NULL)
            ((float *)p.probe_mean.data)[element_row(p.probe_mean, item.batch, time, item.head)] =
                seen ? rows.shift[half] + probe * inverse : 0.0f;
    }
}

template <class F> static __device__ void forward_compute(const struct forward_sm90_args &args)
{
    /* The same in every lane, and known to be: it selects barriers and addresses. */
    struct forward_worker w = {__shfl_sync(0xffffffffu, (int)threadIdx.x / FORWARD_GROUP - 1, 0), 0,
                               0};
    if (w.group == F::GROUPS - 1)
        forward_pass_turn<F>(w.group); /* the first turn is warpgroup 0's */
    for (;; w.turn++) {
        mbarrier_wait(F::q_full(), w.turn & 1);
        const struct forward_item &item = F::items()[w.turn & 1];
        if (item.last) break;
        float o[F::OUTPUTS], e[F::OUTPUTS];
#pragma unroll
        for (int n = 0; n < F::OUTPUTS; n++) o[n] = e[n] = 0.0f;
        struct forward_rows rows = {{-INFINITY, -INFINITY}};
        if (item.dirty) forward_clean<F>(w, item);
        forward_walk<F>(w, args, item, rows, o, e);
        forward_finish<F>(args.problem, item, rows, o, e);
    }
    if (w.group == 0) forward_take_turn<F>(w.group); /* leaves no barrier half full */
}

/* ---- The kernel --------------------------------------------------------------------------------
 */

template <class F>
__global__ void __launch_bounds__(F::THREADS, 1)
    forward_sm90_kernel(const __grid_constant__ struct forward_sm90_args args)
{
    if (threadIdx.x == 0) {
        if (F::at(0) % 1024 != 0) __trap(); /* the swizzle is a function of address bits */
        mbarrier_init(F::q_full(), 1);
        mbarrier_init(F::q_empty(), F::GROUPS);
        mbarrier_init(F::r_full(), 1);
        mbarrier_init(F::r_empty(), F::GROUPS);
        for (int slot = 0; slot < 2; slot++) {
            mbarrier_init(F::order_full(slot), 1);
            mbarrier_init(F::order_empty(slot), 1);
        }
        for (int stage = 0; stage < F::STAGES; stage++) {
            mbarrier_init(F::k_full(stage), 1);
            mbarrier_init(F::v_full(stage), 1);
            mbarrier_init(F::k_empty(stage), F::GROUPS);
            mbarrier_init(F::v_empty(stage), F::GROUPS);
        }
        mbarrier_init_fence();
    }
    __syncthreads(); /* barriers exist before anyone uses them */
    if (threadIdx.x < FORWARD_GROUP) {
        registers_shrink<F::LOAD_REGISTERS>();
        if (threadIdx.x == 0) forward_bring_rows<F>(args);
        if (threadIdx.x == 32) forward_bring_keys<F>(args);
    } else {
        registers_grow<F::REGISTERS>();
        forward_compute<F>(args);
    }
}

#endif
