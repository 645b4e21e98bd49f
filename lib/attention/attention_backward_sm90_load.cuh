/* attention_backward_sm90_load.cuh: what a block of attention_backward_sm90.cuh, which see first,
 * works on, and the thread that brings it: the own tile once, then walked tiles through a ring of
 * stages, those of queries with their rows of scalars. */
#ifndef PLX_ATTENTION_BACKWARD_SM90_LOAD_CUH
#define PLX_ATTENTION_BACKWARD_SM90_LOAD_CUH

#include "attention/attention_backward_sm90_tile.cuh"

/* ---- What a block works on ---------------------------------------------------------------------
 */

/* Queries of a sequence that see a key of first .. last. */
PTX_INLINE struct forward_span backward_queries(const struct attention_problem &p, int T, int S,
                                                int first, int last)
{
    struct forward_span span = {0, first <= last ? T : 0, 0, 0};
    if (!p.causal) return span;
    span.begin = max(0, first - (S - T));
    if (p.window > 0) {
        int window = (int)(p.window < S + T ? p.window : S + T);
        span.end = min(span.end, last + window - (S - T));
    }
    return span;
}

/* Whether the mask, or an end, comes between own rows and the walked tile. */
PTX_INLINE bool backward_border(const struct backward_sm90_tiles &plain, int tile)
{
    return tile < plain.begin || tile >= plain.end;
}

template <class F>
static __device__ void backward_describe(const struct attention_problem &p,
                                         const struct backward_sm90_plan &plan,
                                         struct backward_item *item)
{
    const struct backward_sm90_grid &grid = F::KEYS ? plan.keys : plan.queries;
    struct backward_sm90_place place = backward_sm90_place(grid, blockIdx.x);
    int heads = (int)(F::KEYS ? p.G : p.H), group = (int)(p.H / p.G);
    bool packed = p.q_offsets.data != NULL;
    int batch = packed ? 0 : place.pair / heads, head = place.pair - batch * heads;
    struct any_tile tile = any_find(p, (int64_t)batch * (packed ? 0 : grid.tiles) + place.tile,
                                    BACKWARD_SM90_TILE, F::KEYS);
    const struct attention_sequence &s = tile.sequence;
    item->used = tile.used;
    item->first = (int)tile.first;
    item->rows = (int)min((int64_t)BACKWARD_SM90_TILE, tile.row_end - tile.first);
    item->T = (int)s.T, item->S = (int)s.S;
    item->q_batch = (int)s.q_batch, item->q_start = (int)s.q_start;
    item->k_batch = (int)s.k_batch, item->k_start = (int)s.k_start;
    item->head = F::KEYS ? head * group : head;
    item->heads = F::KEYS ? group : 1;
    item->kv_head = F::KEYS ? head : head / group;
    item->slot = packed ? (int)(s.q_start / BACKWARD_SM90_SLOT + tile.number) : 0;
    int last = min(item->first + BACKWARD_SM90_TILE, F::KEYS ? item->S : item->T) - 1;
    struct forward_span span = F::KEYS ? backward_queries(p, item->T, item->S, item->first, last)
                                       : forward_keys(p, item->T, item->S, item->first, last);
    item->begin = span.begin / BACKWARD_SM90_SLOT;
    item->end = (span.end + BACKWARD_SM90_SLOT - 1) / BACKWARD_SM90_SLOT;
    if (span.end <= span.begin) item->end = item->begin;
    item->plain =
        backward_sm90_plain(&p, item->T, item->S, item->first, BACKWARD_SM90_TILE, F::KEYS);
    for (int group = 0; group < 2; group++)
        item->group_plain[group] =
            backward_sm90_plain(&p, item->T, item->S, item->first + group * FORWARD_GROUP_ROWS,
                                FORWARD_GROUP_ROWS, F::KEYS);
}

/* The slot of 64 queries in the workspace. */
PTX_INLINE size_t backward_slot(const struct backward_sm90_args &args,
                                const struct backward_item &item, int head, int tile)
{
    size_t pair = (size_t)item.q_batch * (size_t)args.problem.H + (size_t)head;
    return pair * (size_t)args.plan.slots + (size_t)(item.slot + tile);
}

/* ---- The loading thread ------------------------------------------------------------------------
 */

template <class F>
PTX_INLINE void backward_copy_keys(uint32_t target, int part, int box,
                                   const struct backward_item &i,
                                   const struct backward_sm90_args &args, int row, uint32_t barrier)
{
    row += i.k_start;
    forward_copy<F>(target, box, &args.k, i.kv_head, row, i.k_batch, barrier);
    forward_copy<F>(target + part, box, &args.v, i.kv_head, row, i.k_batch, barrier);
}

template <class F>
PTX_INLINE void
backward_copy_queries(uint32_t target, int part, int box, const struct backward_item &i,
                      const struct backward_sm90_args &args, int head, int row, uint32_t barrier)
{
    row += i.q_start;
    forward_copy<F>(target, box, &args.q, head, row, i.q_batch, barrier);
    forward_copy<F>(target + part, box, &args.d_o, head, row, i.q_batch, barrier);
    if (F::PROBE) forward_copy<F>(target + 2 * part, box, &args.r, head, row, i.q_batch, barrier);
}

template <class F> static __device__ void backward_load(const struct backward_sm90_args &args)
{
    const struct backward_item &item = *F::item();
    if (item.begin == item.end) return;
    mbarrier_expect(F::own_full(), F::OWN_PARTS * F::OWN_PART);
    for (int half = 0; half < 2; half++) {
        int row = item.first + half * BACKWARD_SM90_SLOT;
        uint32_t target = F::at(half * F::BOX);
        if (F::KEYS)
            backward_copy_keys<F>(target, F::OWN_PART, F::OWN_BOX, item, args, row, F::own_full());
        else
            backward_copy_queries<F>(target, F::OWN_PART, F::OWN_BOX, item, args, item.head, row,
                                     F::own_full());
    }
    int stage = 0;
    uint32_t parity = 1;
    for (int head = item.head; head < item.head + item.heads; head++)
        for (int tile = item.begin; tile < item.end; tile++) {
            uint32_t full = F::full(stage);
            int row = tile * BACKWARD_SM90_SLOT;
            mbarrier_wait(F::empty(stage), parity);
            mbarrier_expect(full, F::STAGE_BYTES + (F::KEYS ? F::SCALAR_BYTES : 0));
            if (F::KEYS) {
                backward_copy_queries<F>(F::walked(stage), F::PART, F::BOX, item, args, head, row,
                                         full);
                const float *scalars = args.scalars + backward_slot(args, item, head, tile) *
                                                          (F::SCALAR_BYTES / sizeof(float));
                bulk_load(F::at(F::ROWS + stage * F::SCALAR_BYTES), scalars, F::SCALAR_BYTES, full);
            } else {
                backward_copy_keys<F>(F::walked(stage), F::PART, F::BOX, item, args, row, full);
            }
            if (++stage == F::STAGES) stage = 0, parity ^= 1;
        }
}

#endif
