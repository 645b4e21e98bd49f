/* attention_forward_sm90_launch.cuh: from a checked problem to a launch of the forward kernels for
 * Hopper, and the functions of the rows that stand for them in the tables of parallax.c and
 * softmax.c. */
#ifndef PLX_ATTENTION_FORWARD_SM90_LAUNCH_CUH
#define PLX_ATTENTION_FORWARD_SM90_LAUNCH_CUH

#include "attention/attention_forward_sm90.cuh"

#include "cuda/launch.cuh"
#include "cuda/tensor_map.cuh"

static const char *forward_sm90_row_refuse(const void *problem, const plx_context *context)
{
    if (context->device != PLX_CUDA) return "it runs on CUDA devices";
    if (context->capability != 90) return "it needs a Hopper GPU";
    return forward_sm90_refuse((const struct attention_problem *)problem);
}

/* The counter from which blocks draw items. */
static size_t forward_sm90_workspace(const void *problem)
{
    (void)problem;
    return sizeof(unsigned long long);
}

/* Boxes of 64 channels x rows of [batch, time, heads, channels]. */
static plx_status forward_sm90_map(plx_context *context, CUtensorMap *map,
                                   const struct plx_tensor *t, int rows)
{
    if (plx_tensor_count(t) == 0) return PLX_OK; /* nothing will be copied */
    const struct tensor_map_axis axes[] = {{t->shape[3], 1, FORWARD_BOX},
                                           {t->shape[2], t->stride[2], 1},
                                           {t->shape[1], t->stride[1], rows},
                                           {t->shape[0], t->stride[0], 1}};
    return tensor_map_make(context, map, t->data, CU_TENSOR_MAP_L2_PROMOTION_L2_256B, axes);
}

template <class F>
static plx_status forward_sm90_maps(plx_context *context, struct forward_sm90_args *args)
{
    const struct attention_problem *p = &args->problem;
    TRY(forward_sm90_map(context, &args->q, &p->q, F::ROWS));
    if (F::PROBE) TRY(forward_sm90_map(context, &args->r, &p->r, F::ROWS));
    const int keys = p->page > 0 ? FORWARD_PAGE_BOX : F::KEYS;
    TRY(forward_sm90_map(context, &args->k, &p->k, keys));
    return forward_sm90_map(context, &args->v, &p->v, keys);
}

template <class F>
static plx_status forward_sm90_launch(plx_context *context, struct forward_sm90_args *args,
                                      cudaStream_t stream)
{
    args->plan =
        forward_sm90_plan(&args->problem, {F::ROWS, F::KEYS, F::STAGES}, context->processors);
    TRY(forward_sm90_maps<F>(context, args));
    int shared = args->plan.shared_bytes;
    TRY(kernel_allow(context, (const void *)forward_sm90_kernel<F>, shared));
    forward_sm90_kernel<F><<<args->plan.grid, F::THREADS, shared, stream>>>(*args);
    CHECK_CUDA(context, cudaGetLastError());
    return PLX_OK;
}

/* WIDE and NARROW: the instances for 128 and 64 channels, of any format. */
template <template <int> class WIDE, template <int> class NARROW>
static plx_status forward_sm90_run(plx_context *context, const void *problem, void *workspace,
                                   plx_stream stream)
{
    struct forward_sm90_args args = {};
    args.taken = (unsigned long long *)workspace;
    args.problem = *(const struct attention_problem *)problem;
    const struct attention_problem *p = &args.problem;
    if (p->B == 0 || p->T == 0 || p->H == 0) return PLX_OK;
    args.log2_scale = (float)(p->scale * 1.4426950408889634);
    cudaStream_t queue = (cudaStream_t)stream;
    if (p->dtype == PLX_F16)
        return p->D == 128 ? forward_sm90_launch<WIDE<WGMMA_F16>>(context, &args, queue)
                           : forward_sm90_launch<NARROW<WGMMA_F16>>(context, &args, queue);
    return p->D == 128 ? forward_sm90_launch<WIDE<WGMMA_BF16>>(context, &args, queue)
                       : forward_sm90_launch<NARROW<WGMMA_BF16>>(context, &args, queue);
}

#endif
