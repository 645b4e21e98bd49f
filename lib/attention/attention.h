/* attention.h: what softmax attention and Parallax share: the problem, its masks, its checks.
 *
 * The public verbs of a mechanism turn their arguments into one struct attention_problem, check it
 * once here, and hand it to the rows of their tables. A row never sees a public argument struct and
 * never checks again. Softmax attention is the problem whose probe is false: r, dr, probe_mean and
 * value_mean are absent, and kernels skip the second branch.
 *
 * A batch is always a list of sequences, whatever its layout (dense, ragged, packed): kernels loop
 * over attention_sequence(problem, n). */
#ifndef PLX_ATTENTION_H
#define PLX_ATTENTION_H

#include "core/dispatch.h"

struct attention_problem {
    plx_pass pass;
    bool probe;               /* Parallax, not softmax */
    int64_t B, T, S, H, G, D; /* extents of q and k as passed */
    int64_t sequences;        /* B, or N of packed offsets */
    bool causal;
    int64_t window;     /* 0: unlimited */
    double scale;       /* resolved: never 0 by default */
    plx_dtype dtype;    /* of q, r, and of k and v that are no f8e4m3 cache */
    plx_dtype kv_dtype; /* of k, v */
    int threads;
    bool deterministic;
    struct plx_tensor q_lengths, k_lengths, q_offsets, k_offsets; /* absent: data NULL */
    int32_t page;                         /* rows of a page; 0: k and v are [B,S,G,D] */
    int64_t pages;                        /* N of the pools where they are paged */
    struct plx_tensor k_pages;            /* [B,P]; S is P * page */
    struct plx_tensor k_scales, v_scales; /* [G]; absent: data NULL, and 1 */
    struct plx_tensor q, r, k, v;
    struct plx_tensor o, lse, probe_mean, value_mean; /* the last three may be absent: rank 0 */
    struct plx_tensor d_o, dq, dr, dk, dv;
};

/* One sequence: queries are rows q_start .. q_start + T - 1 of batch entry q_batch, keys likewise.
 */
struct attention_sequence {
    int64_t q_batch, q_start, T;
    int64_t k_batch, k_start, S;
};

struct attention_sequence attention_sequence(const struct attention_problem *problem, int64_t n);

/* Keys that query i of a sequence sees: first <= j < end, end <= first where it sees none. */
struct attention_range {
    int64_t first, end;
};

/* Compiled for the device too where nvcc reads this header. */
#ifdef __CUDACC__
#define ATTENTION_INLINE static inline __host__ __device__
#else
#define ATTENTION_INLINE static inline
#endif

ATTENTION_INLINE struct attention_range attention_keys(const struct attention_problem *problem,
                                                       int64_t T, int64_t S, int64_t i)
{
    struct attention_range keys = {0, S};
    if (problem->causal) {
        int64_t position = S - T + i;
        keys.end = position + 1 < 0 ? 0 : position + 1;
        if (problem->window > 0 && position + 1 - problem->window > 0)
            keys.first = position + 1 - problem->window;
    }
    return keys;
}

/* Elements from the start of k or v to the row of key j of a sequence, which is found through the
 * page table where there is one. */
ATTENTION_INLINE int64_t attention_key_offset(const struct attention_problem *problem,
                                              const struct plx_tensor *tensor,
                                              const struct attention_sequence *sequence, int64_t j,
                                              int64_t g)
{
    int64_t b = sequence->k_batch, row = sequence->k_start + j;
    if (problem->page > 0) {
        const int32_t *table = (const int32_t *)problem->k_pages.data;
        int32_t key = (int32_t)j; /* S of a paged cache fits it */
        b = table[b * problem->k_pages.stride[0] + key / problem->page];
        row = key % problem->page;
    }
    return b * tensor->stride[0] + row * tensor->stride[1] + g * tensor->stride[2];
}

/* True where keys and values are neither pages nor f8e4m3: tensors like any other. */
ATTENTION_INLINE bool attention_keys_are_plain(const struct attention_problem *problem)
{
    return problem->page == 0 && problem->kv_dtype != PLX_F8E4M3;
}

/* True where the call has nothing to compute: no query, no key, or no head at all. */
static inline bool attention_is_empty(const struct attention_problem *p)
{
    return p->B == 0 || p->T == 0 || p->S == 0 || p->H == 0;
}

/* Checks dtypes, ranks, shapes, strides, devices and (unless shapes_only) pointers, and fills in
 * extents, scale, dtypes and threads. Sets the context's error on failure. The
 * pass, the probe and the tensors of *problem are set by the caller before; those that the pass
 * does not look at, and optional ones that are absent, come back with rank 0 and data NULL. */
plx_status attention_check(plx_context *context, const struct plx_attention *attention,
                           struct attention_problem *problem, bool shapes_only);

/* Checks what lengths, offsets and page tables contain, wherever they lie; waits for the stream on
 * a GPU. */
plx_status attention_check_lists(plx_context *context, const struct attention_problem *problem,
                                 plx_stream stream);

/* The ordered rows of a pass, which is one. */
typedef struct kernel_table (*attention_table)(plx_pass pass);

/* The verbs of both mechanisms, for a problem of which pass, probe and tensors are set.
 *
 * To run is to check, to check the lists (on a GPU only where the context asks for it), to choose,
 * to check the workspace, to clear and to launch. Clearing means: what lies behind q_lengths and
 * k_lengths in the outputs is written here (zero; lse -infinity), and a call without any query or
 * without any key never reaches a kernel. So a kernel writes the rows of its sequences and nothing
 * else; single sequences may still have T == 0 or S == 0, and their rows must be written as rows
 * that see no key. */
plx_status attention_run(plx_context *context, const struct plx_attention *attention,
                         attention_table table, struct attention_problem *problem, void *workspace,
                         size_t workspace_bytes, plx_stream stream);
/* *bytes becomes the scratch that the kernel needs. */
plx_status attention_workspace(plx_context *context, const struct plx_attention *attention,
                               attention_table table, struct attention_problem *problem,
                               size_t *bytes);
/* *name becomes the kernel that would run. */
plx_status attention_kernel(plx_context *context, const struct plx_attention *attention,
                            attention_table table, struct attention_problem *problem,
                            const char **name);

/* Refusals that both mechanisms share. The reference takes every problem on the CPU. */
const char *attention_refuse_none(const void *problem, const plx_context *context);
/* Tile kernels of AMX are not written yet; their row explains that. */
const char *attention_refuse_amx(const void *problem, const plx_context *context);

#endif
