/* attention_any_launch.cuh: from a checked problem to launches of the simple CUDA kernels, and the
 * rows that stand for them in the tables of parallax.c and softmax.c.
 *
 * Nothing here waits for the device or allocates: launches go to the caller's stream, and what the
 * kernels keep between each other lies in the caller's workspace, so calls can be captured in a
 * CUDA graph. */
#ifndef PLX_ATTENTION_ANY_LAUNCH_CUH
#define PLX_ATTENTION_ANY_LAUNCH_CUH

#include "attention/attention_any_backward.cuh"
#include "attention/attention_any_forward.cuh"
#include "cuda/launch.cuh"

static const char *any_refuse(const void *problem, const plx_context *context)
{
    const struct attention_problem *p = (const struct attention_problem *)problem;
    if (context->device != PLX_CUDA) return "it runs on CUDA devices";
    if (p->D > ANY_MAX_D) return "it takes at most 256 head channels";
    if (p->dtype == PLX_F64) return "it takes no f64";
    return NULL;
}

/* Keys are split until about two blocks a multiprocessor of the largest GPUs have work, but not
 * below 128 keys a split. A function of shapes alone, so that equal calls give equal bits on every
 * card. */
static int any_splits(const struct attention_problem *p)
{
    if (p->pass != PLX_DECODE) return 1;
    int64_t blocks = any_slots(p, p->T, ANY_QUERIES) * p->H;
    int64_t wanted = blocks > 0 ? (264 + blocks - 1) / blocks : 1, most = p->S / 128;
    int64_t splits = wanted < most ? wanted : most;
    return splits < 1 ? 1 : splits > 256 ? 256 : (int)splits;
}

static size_t any_align(size_t bytes)
{
    return (bytes + 63) / 64 * 64;
}

/* Carves the partial results of a split decode; with a NULL base only measures. */
template <bool PROBE>
static size_t any_carve(const struct attention_problem *p, char *base,
                        struct any_partials *partials)
{
    int splits = any_splits(p);
    *partials = {splits, NULL, NULL, NULL, NULL};
    if (splits == 1) return 0;
    size_t rows = any_align((size_t)splits * p->B * p->T * p->H * sizeof(float)), used = 0;
    partials->lse = (float *)(base + used), used += rows;
    partials->t = (float *)(base + used), used += PROBE ? rows : 0;
    partials->o = (float *)(base + used), used += rows * p->D;
    partials->mean = (float *)(base + used), used += PROBE ? rows * p->D : 0;
    return used;
}

template <bool PROBE> static size_t any_forward_workspace(const void *problem)
{
    struct any_partials partials;
    return any_carve<PROBE>((const struct attention_problem *)problem, NULL, &partials);
}

/* Bytes of shared memory for so many rows. */
static int any_shared(int rows, int64_t channels)
{
    return rows * ((int)channels + 1) * (int)sizeof(float);
}

/* Lets a kernel have what its widest problem needs: always the same number, because other threads
 * may be between this and their launch of the same kernel. */
template <class KERNEL> static plx_status any_allow(plx_context *context, KERNEL *kernel, int rows)
{
    return kernel_allow(context, (const void *)kernel, any_shared(rows, ANY_MAX_D));
}

template <bool PROBE>
static plx_status any_forward_run(plx_context *context, const void *problem, void *workspace,
                                  plx_stream stream)
{
    const struct attention_problem *p = (const struct attention_problem *)problem;
    cudaStream_t queue = (cudaStream_t)stream;
    struct any_partials partials;
    any_carve<PROBE>(p, (char *)workspace, &partials);
    int rows = (PROBE ? 2 : 1) * ANY_QUERIES + ANY_KEYS;
    int shared = any_shared(rows, p->D);
    TRY(any_allow(context, any_forward_kernel<PROBE>, rows));
    if (any_slots(p, p->T, ANY_QUERIES) * p->H * p->D == 0) return PLX_OK;
    dim3 grid((unsigned)any_slots(p, p->T, ANY_QUERIES), (unsigned)p->H, (unsigned)partials.splits);
    any_forward_kernel<PROBE><<<grid, ANY_THREADS, shared, queue>>>(*p, partials);
    CHECK_CUDA(context, cudaGetLastError());
    if (partials.splits == 1) return PLX_OK;
    int64_t merged = p->B * p->T * p->H;
    unsigned blocks = (unsigned)((merged + ANY_WARPS - 1) / ANY_WARPS);
    any_merge_kernel<PROBE><<<blocks, ANY_THREADS, 0, queue>>>(*p, partials);
    CHECK_CUDA(context, cudaGetLastError());
    return PLX_OK;
}

template <bool PROBE> static size_t any_backward_workspace(const void *problem)
{
    const struct attention_problem *p = (const struct attention_problem *)problem;
    return (PROBE ? 2 : 1) * any_align((size_t)(p->B * p->T * p->H) * sizeof(float));
}

template <bool PROBE>
static plx_status any_backward_run(plx_context *context, const void *problem, void *workspace,
                                   plx_stream stream)
{
    const struct attention_problem *p = (const struct attention_problem *)problem;
    cudaStream_t queue = (cudaStream_t)stream;
    size_t stride = any_align((size_t)(p->B * p->T * p->H) * sizeof(float));
    struct any_rows rows = {(float *)workspace,
                            PROBE ? (float *)((char *)workspace + stride) : NULL};
    if (p->S == 0) rows = {NULL, NULL}; /* an empty call has no workspace */
    int shared_rows = (PROBE ? 3 : 2) * ANY_BACK_QUERIES + 2 * ANY_KEYS;
    int shared = any_shared(shared_rows, p->D);
    TRY(any_allow(context, any_backward_query_kernel<PROBE>, shared_rows));
    TRY(any_allow(context, any_backward_key_kernel<PROBE>, shared_rows));
    int64_t query_slots = any_slots(p, p->T, ANY_BACK_QUERIES),
            key_slots = any_slots(p, p->S, ANY_KEYS);
    if (query_slots * p->H * p->D > 0) {
        dim3 grid((unsigned)query_slots, (unsigned)p->H);
        any_backward_query_kernel<PROBE><<<grid, ANY_THREADS, shared, queue>>>(*p, rows);
        CHECK_CUDA(context, cudaGetLastError());
    }
    if (key_slots * p->G * p->D > 0) {
        dim3 grid((unsigned)key_slots, (unsigned)p->G);
        any_backward_key_kernel<PROBE><<<grid, ANY_THREADS, shared, queue>>>(*p, rows);
        CHECK_CUDA(context, cudaGetLastError());
    }
    return PLX_OK;
}

#endif
