/* attention_forward_sm90_shape.cuh: what the warpgroups of attention_forward_sm90.cuh, which see
 * first, agree on: sizes and addresses of an instance, items, turns, and the two kinds of products
 * of a tile.
 *
 * Fragments: thread t of the warpgroup holds rows g = t % 32 / 4 + 16 (t / 32) and g + 8, of every
 * eight columns the two from 2 (t % 4). Element 4x + y of an accumulator is column 8x + 2 (t % 4) +
 * y % 2 of row g + 8 (y / 2). Pairs of it, packed to bf16, are the left operand of a next product.
 */
#ifndef PLX_ATTENTION_FORWARD_SM90_SHAPE_CUH
#define PLX_ATTENTION_FORWARD_SM90_SHAPE_CUH

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
    unsigned long long *taken; /* counts the items that blocks have taken beside their first */
    CUtensorMap q, r, k, v;    /* k, v: the last axis is the batch, or the pages */
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
    static constexpr int ORDER = BARRIERS + 64 + 32 * STAGES;
    /* The plan gives 512 bytes beside the tiles; a block may have 227 KB. */
    static_assert(KEYS % FORWARD_PAGE_BOX == 0, "a key tile is no whole number of boxes");
    static_assert(ORDER + 8 <= ITEMS + 512 && ITEMS + 512 <= 232448,
                  "the tiles do not fit shared memory");

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
    /* Numbers of two items, on their way from one loading thread to the other. */
    static __device__ __forceinline__ int *order(void)
    {
        return (int *)(bytes() + ORDER);
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
    static __device__ __forceinline__ uint32_t order_full(int slot)
    {
        return at(BARRIERS + 32 + 8 * slot);
    }
    static __device__ __forceinline__ uint32_t order_empty(int slot)
    {
        return at(BARRIERS + 48 + 8 * slot);
    }
    static __device__ __forceinline__ uint32_t k_full(int stage)
    {
        return at(BARRIERS + 64 + 8 * stage);
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

#endif
