/* attention_backward_sm90_launch.cuh: from a checked problem to launches of the backward kernels
 * for Hopper, and the functions of the rows that stand for them in the tables of parallax.c and
 * softmax.c. Nothing is kept between calls, so that a CUDA graph can capture them. */
#ifndef PLX_ATTENTION_BACKWARD_SM90_LAUNCH_CUH
#define PLX_ATTENTION_BACKWARD_SM90_LAUNCH_CUH

#include "attention/attention_backward_sm90.cuh"
#include "attention/attention_backward_sm90_rows.cuh"
#include "attention/attention_forward_sm90_launch.cuh"

static const char *backward_sm90_row_refuse(const void *problem, const plx_context *context)
{
    if (context->device != PLX_CUDA) return "it runs on CUDA devices";
    if (context->capability != 90) return "it needs a Hopper GPU";
    return backward_sm90_refuse((const struct attention_problem *)problem);
}

static size_t backward_sm90_workspace(const void *problem)
{
    return backward_sm90_plan((const struct attention_problem *)problem).bytes;
}

static plx_status backward_sm90_maps(plx_context *context, struct backward_sm90_args *args)
{
    const struct attention_problem *p = &args->problem;
    const struct plx_tensor *tensors[] = {&p->q, &p->k, &p->v, &p->d_o, &p->r};
    CUtensorMap *maps[] = {&args->q, &args->k, &args->v, &args->d_o, &args->r};
    for (int n = 0; n < (p->probe ? 5 : 4); n++)
        TRY(forward_sm90_map(context, maps[n], tensors[n], BACKWARD_SM90_SLOT));
    return PLX_OK;
}

template <class F>
static plx_status backward_sm90_launch(plx_context *context, const struct backward_sm90_args &args,
                                       cudaStream_t stream)
{
    static_assert(F::BYTES <= 232448, "a block has no more shared memory");
    const struct backward_sm90_grid &grid = F::KEYS ? args.plan.keys : args.plan.queries;
    TRY(kernel_allow(context, (const void *)backward_sm90_kernel<F>, (int)F::BYTES));
    backward_sm90_kernel<F>
        <<<(unsigned)(grid.tiles * grid.pairs), BACKWARD_THREADS, F::BYTES, stream>>>(args);
    CHECK_CUDA(context, cudaGetLastError());
    return PLX_OK;
}

/* The kernels of one number of channels and format, in order. */
template <int CHANNELS, bool PROBE, int FORMAT>
static plx_status backward_sm90_sequence(plx_context *context,
                                         const struct backward_sm90_args &args, cudaStream_t stream)
{
    typedef backward_shape<CHANNELS, PROBE, true, true, 2, FORMAT> fused;
    typedef backward_shape<CHANNELS, PROBE, true, false, 2, FORMAT> keys;
    typedef backward_shape<CHANNELS, PROBE, false, false, 3, FORMAT> queries;
    const struct attention_problem *p = &args.problem;
    dim3 slots((unsigned)any_slots(p, p->T, BACKWARD_SM90_SLOT), (unsigned)p->H);
    backward_sm90_before<CHANNELS, PROBE, FORMAT>
        <<<slots, BACKWARD_ROWS_THREADS, 0, stream>>>(args);
    CHECK_CUDA(context, cudaGetLastError());
    if (!args.plan.fused) {
        TRY(backward_sm90_launch<keys>(context, args, stream));
        return backward_sm90_launch<queries>(context, args, stream);
    }
    TRY(backward_sm90_launch<fused>(context, args, stream));
    slots.z = PROBE ? 2 : 1;
    backward_sm90_after<CHANNELS, PROBE, FORMAT><<<slots, FORWARD_GROUP, 0, stream>>>(args);
    CHECK_CUDA(context, cudaGetLastError());
    return PLX_OK;
}

template <int CHANNELS, bool PROBE>
static plx_status backward_sm90_format(plx_context *context, const struct backward_sm90_args &args,
                                       cudaStream_t stream)
{
    if (args.problem.dtype == PLX_F16)
        return backward_sm90_sequence<CHANNELS, PROBE, WGMMA_F16>(context, args, stream);
    return backward_sm90_sequence<CHANNELS, PROBE, WGMMA_BF16>(context, args, stream);
}

template <bool PROBE>
static plx_status backward_sm90_run(plx_context *context, const void *problem, void *workspace,
                                    plx_stream stream)
{
    struct backward_sm90_args args = {};
    args.problem = *(const struct attention_problem *)problem;
    args.plan = backward_sm90_plan(&args.problem);
    args.scale = (float)args.problem.scale;
    args.log2_scale = (float)(args.problem.scale * 1.4426950408889634);
    args.scalars = (float *)workspace;
    args.sums[0] = args.scalars + (size_t)args.plan.slots * args.plan.pairs * args.plan.scalars *
                                      BACKWARD_SM90_SLOT;
    args.sums[1] = args.sums[0] + args.plan.sums;
    TRY(backward_sm90_maps(context, &args));
    if (args.problem.D == 128)
        return backward_sm90_format<128, PROBE>(context, args, (cudaStream_t)stream);
    return backward_sm90_format<64, PROBE>(context, args, (cudaStream_t)stream);
}

#endif
