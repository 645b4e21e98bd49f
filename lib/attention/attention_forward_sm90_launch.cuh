/* attention_forward_sm90_launch.cuh: from a checked problem to a launch of the forward kernels for
 * Hopper, and the functions of the rows that stand for them in the tables of parallax.c and
 * softmax.c.
 *
 * Tensor maps, which tell the copy engine how a tensor lies in memory, are made anew for every call
 * and travel as kernel arguments: there is nothing to keep, and a CUDA graph captures them. */
#ifndef PLX_ATTENTION_FORWARD_SM90_LAUNCH_CUH
#define PLX_ATTENTION_FORWARD_SM90_LAUNCH_CUH

#include "attention/attention_forward_sm90.cuh"

#include "cuda/check.cuh"

typedef CUresult (*tensor_map_encode)(CUtensorMap *, CUtensorMapDataType, cuuint32_t, void *,
                                      const cuuint64_t *, const cuuint64_t *, const cuuint32_t *,
                                      const cuuint32_t *, CUtensorMapInterleave, CUtensorMapSwizzle,
                                      CUtensorMapL2promotion, CUtensorMapFloatOOBfill);

static const char *forward_sm90_row_refuse(const void *problem, const plx_context *context)
{
    if (context->device != PLX_CUDA) return "it runs on CUDA devices";
    if (context->capability != 90) return "it needs a Hopper GPU";
    return forward_sm90_refuse((const struct attention_problem *)problem);
}

static size_t forward_sm90_workspace(const void *problem)
{
    (void)problem;
    return 0;
}

/* Boxes of 64 channels x rows of [batch, time, heads, channels]; beyond its extents it reads zeros.
 */
static plx_status forward_sm90_map(plx_context *context, tensor_map_encode encode, CUtensorMap *map,
                                   const struct plx_tensor *t, int rows)
{
    if (plx_tensor_count(t) == 0) return PLX_OK; /* nothing will be copied */
    cuuint64_t extents[4] = {(cuuint64_t)t->shape[3], (cuuint64_t)t->shape[2],
                             (cuuint64_t)t->shape[1], (cuuint64_t)t->shape[0]};
    cuuint64_t strides[3];
    for (int n = 0; n < 3; n++) {
        int axis = 2 - n;
        /* The stride of an axis of extent 1 may be anything; the row is a valid one. */
        int64_t stride = t->shape[axis] > 1 ? t->stride[axis] : t->shape[3];
        strides[n] = (cuuint64_t)stride * plx_dtype_size(t->dtype);
    }
    cuuint32_t box[4] = {FORWARD_BOX, 1, (cuuint32_t)rows, 1}, steps[4] = {1, 1, 1, 1};
    CUtensorMapDataType type =
        t->dtype == PLX_F16 ? CU_TENSOR_MAP_DATA_TYPE_FLOAT16 : CU_TENSOR_MAP_DATA_TYPE_BFLOAT16;
    CUresult result = encode(map, type, 4, t->data, extents, strides, box, steps,
                             CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                             CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    if (result == CUDA_SUCCESS) return PLX_OK;
    return context_fail(context, PLX_DEVICE_ERROR, "tensor map: driver error %d", (int)result);
}

template <class F>
static plx_status forward_sm90_maps(plx_context *context, struct forward_sm90_args *args)
{
    const struct attention_problem *p = &args->problem;
    void *entry = NULL;
    cudaDriverEntryPointQueryResult found;
    CHECK_CUDA(context, cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &entry, 12000,
                                                         cudaEnableDefault, &found));
    tensor_map_encode encode = (tensor_map_encode)entry;
    TRY(forward_sm90_map(context, encode, &args->q, &p->q, F::ROWS));
    if (F::PROBE) TRY(forward_sm90_map(context, encode, &args->r, &p->r, F::ROWS));
    TRY(forward_sm90_map(context, encode, &args->k, &p->k, F::KEYS));
    return forward_sm90_map(context, encode, &args->v, &p->v, F::KEYS);
}

template <class F>
static plx_status forward_sm90_launch(plx_context *context, struct forward_sm90_args *args,
                                      cudaStream_t stream)
{
    int processors = 0;
    CHECK_CUDA(context, cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount,
                                               context->device_index));
    args->plan = forward_sm90_plan(&args->problem, {F::ROWS, F::KEYS, F::STAGES}, processors);
    TRY(forward_sm90_maps<F>(context, args));
    int shared = args->plan.shared_bytes;
    CHECK_CUDA(context, cudaFuncSetAttribute(forward_sm90_kernel<F>,
                                             cudaFuncAttributeMaxDynamicSharedMemorySize, shared));
    forward_sm90_kernel<F><<<args->plan.grid, F::THREADS, shared, stream>>>(*args);
    CHECK_CUDA(context, cudaGetLastError());
    return PLX_OK;
}

/* WIDE and NARROW: the instances for 128 and 64 channels, of any format. */
template <template <int> class WIDE, template <int> class NARROW>
static plx_status forward_sm90_run(plx_context *context, const void *problem, void *workspace,
                                   plx_stream stream)
{
    (void)workspace;
    struct forward_sm90_args args = {};
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
