/* attention_decode_sm90_launch.cuh: from a checked problem to the launch of the Hopper decode
 * kernel, and what it takes. No workspace, and nothing waits for the device: calls may run on
 * several streams and be captured in a CUDA graph; lengths are read by the kernel, so they may
 * change between replays. */
#ifndef PLX_ATTENTION_DECODE_SM90_LAUNCH_CUH
#define PLX_ATTENTION_DECODE_SM90_LAUNCH_CUH

#include "attention/attention_decode_sm90.cuh"
#include "cuda/check.cuh"

#include <string.h>

static bool decode_rows_aligned(const struct plx_tensor *tensor)
{
    return (uintptr_t)tensor->data % 16 == 0 && tensor->stride[0] % 8 == 0 &&
           tensor->stride[1] % 8 == 0 && tensor->stride[2] % 8 == 0;
}

static const char *decode_sm90_refuse(const void *problem, const plx_context *context)
{
    const struct attention_problem *p = (const struct attention_problem *)problem;
    if (context->device != PLX_CUDA) return "it runs on CUDA devices";
    if (context->capability < 90) return "it needs a GPU of compute capability 9.0";
    /* NOTES.md says which repairs have not run on a card; until they have, nobody gets this kernel
     * without asking for it. */
    if (strcmp(context->kernel, "cuda_sm90") != 0)
        return "its present build has yet to pass the GPU tests; ask for it by name";
    if (p->dtype != PLX_BF16) return "it takes bf16 only";
    if (!attention_keys_are_plain(p)) return "it takes neither pages nor f8e4m3 keys";
    if (p->D != 64 && p->D != 128) return "it takes 64 or 128 head channels";
    if (p->q_offsets.rank != 0) return "it takes no packed batches";
    if (p->H > 0 && p->T * (p->H / p->G) > DECODE_MAX_ROWS)
        return "it takes at most 64 query tokens times query heads a key/value head";
    if (p->B > 65535 || p->G * (DECODE_MAX_ROWS / DECODE_ROWS) > 65535)
        return "it takes at most 65535 sequences and 8191 key/value heads";
    return NULL;
}

static size_t decode_sm90_workspace(const void *problem)
{
    (void)problem;
    return 0;
}

static struct decode_view decode_view_of(const struct plx_tensor *tensor)
{
    struct decode_view view = {tensor->data, tensor->stride[0], tensor->stride[1],
                               tensor->stride[2], tensor->dtype == PLX_F32};
    return view;
}

static struct decode_arguments decode_arguments_of(const struct attention_problem *p,
                                                   const struct decode_plan *plan)
{
    struct decode_arguments a = {};
    a.q = decode_view_of(&p->q), a.r = decode_view_of(&p->r);
    a.k = decode_view_of(&p->k), a.v = decode_view_of(&p->v);
    a.o = decode_view_of(&p->o), a.lse = decode_view_of(&p->lse);
    a.probe_mean = decode_view_of(&p->probe_mean), a.value_mean = decode_view_of(&p->value_mean);
    a.q_lengths = (const int32_t *)p->q_lengths.data;
    a.k_lengths = (const int32_t *)p->k_lengths.data;
    a.T = (int)p->T, a.S = (int)p->S, a.group = (int)(p->H / p->G);
    a.rows = plan->rows, a.row_blocks = plan->row_blocks;
    a.causal = p->causal, a.window = p->window;
    a.aligned = decode_rows_aligned(&p->k) && decode_rows_aligned(&p->v);
    a.scale = (float)(p->scale * 1.4426950408889634);
    return a;
}

template <int D, bool PROBE>
static plx_status decode_sm90_launch(plx_context *context, const struct attention_problem *p,
                                     const struct decode_plan *plan, plx_stream stream)
{
    struct decode_arguments arguments = decode_arguments_of(p, plan);
    CHECK_CUDA(context, cudaFuncSetAttribute(decode_sm90_kernel<D, PROBE>,
                                             cudaFuncAttributeMaxDynamicSharedMemorySize,
                                             plan->shared_bytes));
    CHECK_CUDA(context, cudaFuncSetAttribute(decode_sm90_kernel<D, PROBE>,
                                             cudaFuncAttributeNonPortableClusterSizeAllowed, 1));
    /* Dependent launch: our blocks may take their places while the launch before us drains. */
    cudaLaunchAttribute attributes[2] = {};
    attributes[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes[0].val.programmaticStreamSerializationAllowed = 1;
    attributes[1].id = cudaLaunchAttributeClusterDimension;
    attributes[1].val.clusterDim.x = (unsigned)plan->cluster;
    attributes[1].val.clusterDim.y = attributes[1].val.clusterDim.z = 1;
    cudaLaunchConfig_t config = {};
    config.gridDim =
        dim3((unsigned)plan->cluster, (unsigned)(p->G * plan->row_blocks), (unsigned)p->B);
    config.blockDim = dim3(DECODE_WARPS * 32);
    config.dynamicSmemBytes = (size_t)plan->shared_bytes;
    config.stream = (cudaStream_t)stream;
    config.attrs = attributes;
    config.numAttrs = plan->cluster > 1 ? 2 : 1;
    CHECK_CUDA(context, cudaLaunchKernelEx(&config, decode_sm90_kernel<D, PROBE>, arguments));
    return PLX_OK;
}

template <bool PROBE>
static plx_status decode_sm90_run(plx_context *context, const void *problem, void *workspace,
                                  plx_stream stream)
{
    const struct attention_problem *p = (const struct attention_problem *)problem;
    (void)workspace;
    if (p->B * p->T * p->H * p->D == 0) return PLX_OK;
    struct decode_plan plan = decode_plan_make(p);
    if (p->D == 128) return decode_sm90_launch<128, PROBE>(context, p, &plan, stream);
    return decode_sm90_launch<64, PROBE>(context, p, &plan, stream);
}

#endif
