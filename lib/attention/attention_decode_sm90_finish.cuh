/* attention_decode_sm90_finish.cuh: from the sums of warps to results: where blocks, clusters and
 * the blocks of a pair meet. */
#ifndef PLX_ATTENTION_DECODE_SM90_FINISH_CUH
#define PLX_ATTENTION_DECODE_SM90_FINISH_CUH

#include <type_traits>

#include "attention/attention_decode_sm90_join.cuh"
#include "attention/attention_decode_sm90_walk.cuh"

template <class KIND> struct decode_shared {
    unsigned char ring[KIND::WARPS][KIND::STAGES][DECODE_TILE_BYTES];
    uint64_t full[KIND::WARPS][KIND::STAGES];
    /* Of a list; each warp's own. */
    struct decode_cursor next[KIND::WARPS];
    bool last;
    /* Of a cluster. */
    uint64_t brought;
    struct decode_brought<KIND::D> rows[KIND::JOINS ? KIND::HEADS * DECODE_ROWS : 1];
    /* Of a list. */
    struct decode_left<KIND::D, KIND::LIST ? KIND::ROWS : 1> left[KIND::WARPS][KIND::HEADS];
};

template <class KIND>
static __device__ __forceinline__ float decode_value_scale(const struct decode_arguments &p,
                                                           int head)
{
    if (!KIND::F8 || p.v_scales == NULL) return 1.0f;
    return p.v_scales[decode_kv_head<KIND::HEADS>(p) + head];
}

/* Where a result belongs: outputs, or a slot of the workspace. */
struct decode_target {
    int batch, slot;
    bool whole;
};

/* A channel of a row: a result, or a part of one. */
template <class E, class KIND, bool PROBE>
static __device__ __forceinline__ void
decode_finish_channel(const struct decode_arguments &p, const struct decode_target &target,
                      int head, int row, int d, const struct decode_channels<1> &x)
{
    if (target.whole) {
        decode_write<E, PROBE>(p, target.batch, decode_row_of<KIND>(p, head, row), d, x);
        return;
    }
    struct decode_partial<KIND::D> *to = decode_part<KIND>(p, target.slot, head, row);
    to->a[0][d] = x.a1[0];
    if (PROBE) to->a[1][d] = x.a2[0];
    if (d == 0) to->state = x.state;
}

/* Joins the warps of the block, which leave their sums at `left`, `apart` bytes apart. */
template <class E, class KIND, bool PROBE>
static __device__ __forceinline__ void
decode_finish_block(const struct decode_arguments &p, const struct decode_target &target,
                    unsigned char *left, int apart, struct decode_shared<KIND> *shared,
                    const struct decode_results<KIND> &sums)
{
    constexpr int D = KIND::D, HEADS = KIND::HEADS, ROWS = KIND::ROWS;
    typedef struct decode_left<D, ROWS> left_rows;
    typedef typename std::conditional<KIND::F8, decode_f16, E>::type product;
    int rows = decode_rows_of<KIND>(p);
    for (int first = 0; first < rows; first += ROWS) {
        int here = min(ROWS, rows - first);
        if (first > 0) __syncthreads(); /* the rows before have been read */
#pragma unroll
        for (int set = 0; set < KIND::SETS; set++) {
            int head = set / KIND::DEEP;
            decode_leave<product, KIND, PROBE>(
                (left_rows *)(left + threadIdx.x / 32 * apart) + head, sums.of[set],
                decode_value_scale<KIND>(p, head), set % KIND::DEEP, first, here);
        }
        __syncthreads();
        for (int i = threadIdx.x; i < HEADS * here * D; i += KIND::THREADS) {
            int place = i / D, d = i % D, head = HEADS > 1 && place >= here;
            int row = place - head * here;
            struct decode_channels<1> x =
                decode_join_warps<KIND, PROBE>(left + head * sizeof(left_rows), apart, row, d);
            if (KIND::JOINS && p.cluster > 0)
                decode_bring<KIND>(p, &shared->rows[place], &shared->brought, d, x);
            else
                decode_finish_channel<E, KIND, PROBE>(p, target, head, first + row, d, x);
        }
    }
}

/* Joins the blocks of the cluster: the channels that are this block's. */
template <class E, class KIND, bool PROBE>
static __device__ __forceinline__ void decode_finish_cluster(const struct decode_arguments &p,
                                                             const struct decode_target &target,
                                                             struct decode_shared<KIND> *shared)
{
    int rows = decode_rows_of<KIND>(p), blocks = 1 << p.cluster,
        shift = decode_own_channels<KIND>(p);
    int lane = threadIdx.x & (blocks - 1), first = decode_rank(p) << shift;
    mbarrier_wait_cluster(shared_address(&shared->brought), 0);
    for (int i = threadIdx.x >> p.cluster; i < KIND::HEADS * rows << shift;
         i += KIND::THREADS >> p.cluster) {
        int place = i >> shift, own = i - (place << shift);
        int head = KIND::HEADS > 1 && place >= rows;
        const struct decode_brought<KIND::D> *from = &shared->rows[place];
        float2 a = from->a[(own << p.cluster) + lane];
        struct decode_channels<1> x = {
            from->state[lane], {a.x},
            {
                a.y
            }
        };
        x = decode_join_lanes<PROBE>(x, blocks);
        if (lane == 0)
            decode_finish_channel<E, KIND, PROBE>(p, target, head, place - head * rows, first + own,
                                                  x);
    }
}

/* Joins the clusters of a pair, if this block is the last of theirs. */
template <class E, class KIND, bool PROBE>
static __device__ __forceinline__ void
decode_finish_pair(const struct decode_arguments &p, int batch, const struct decode_parts &parts,
                   unsigned long long *counter, unsigned long long seen, bool *last)
{
    constexpr int D = KIND::D, HEADS = KIND::HEADS;
    __syncthreads(); /* all have written */
    unsigned arrivals = parts.count << p.cluster;
    if (threadIdx.x == 0) *last = counter_draw(counter, seen, arrivals) == arrivals - 1;
    __syncthreads();
    if (!*last) return;
    int rows = decode_rows_of<KIND>(p), joining = 0;
    while (1 << joining < min(parts.count, DECODE_JOINING)) joining++;
    int lanes = 1 << joining, lane = threadIdx.x & (lanes - 1), step = KIND::THREADS >> joining;
    int i = threadIdx.x >> joining, items = HEADS * rows * (D / 4);
    struct decode_channels<4> x, next = decode_part_of<KIND, PROBE>(p, parts, joining, i, rows);
    for (; i < items; i += step) {
        x = next;
        if (i + step < items) next = decode_part_of<KIND, PROBE>(p, parts, joining, i + step, rows);
        struct decode_item item = decode_item_of<KIND>(i, rows);
        x = decode_join_parts<KIND, PROBE>(p, parts, joining, item, x);
        struct decode_row row = decode_row_of<KIND>(p, item.head, item.row);
#pragma unroll 1
        for (int n = lane; n < 4; n += lanes)
            decode_write<E, PROBE>(
                p, batch, row, item.d + n,
                {x.state, {decode_one_of(x.a1, n)}, {PROBE ? decode_one_of(x.a2, n) : 0.0f}});
    }
}

/* That of this block's pair. */
static __device__ __forceinline__ unsigned long long *
decode_counter(const struct decode_arguments &p, int batch)
{
    return p.counters + (int64_t)batch * gridDim.x + blockIdx.x;
}

/* From a warp's sums to results; seen: what the counter of the pair has held in this launch. */
template <class E, class KIND, bool PROBE>
static __device__ __forceinline__ void
decode_finish(const struct decode_arguments &p, int batch, const struct decode_parts &parts,
              unsigned long long seen, struct decode_shared<KIND> *shared,
              struct decode_results<KIND> &sums)
{
    unsigned char *left = KIND::LIST ? (unsigned char *)shared->left : shared->ring[0][0];
    constexpr int APART = KIND::LIST ? sizeof shared->left[0] : sizeof shared->ring[0];
    const struct decode_target target = {batch, parts.own, !KIND::SHARES || parts.count == 1};
    decode_total<KIND>(sums);
    decode_finish_block<E, KIND, PROBE>(p, target, left, APART, shared, sums);
    if (KIND::JOINS && p.cluster > 0) decode_finish_cluster<E, KIND, PROBE>(p, target, shared);
    if (!target.whole)
        decode_finish_pair<E, KIND, PROBE>(p, batch, parts, decode_counter(p, batch), seen,
                                           &shared->last);
}

#endif
