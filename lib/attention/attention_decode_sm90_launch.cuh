/* attention_decode_sm90_launch.cuh: from a checked problem to the launch of the Hopper decode
 * kernel, and what it takes. Nothing waits for the device, and all that is kept lies in the
 * caller's workspace: calls may run on several streams, each with its own, and be captured in a
 * CUDA graph; lengths and pages are read by the kernel, so they may change between replays. */
#ifndef PLX_ATTENTION_DECODE_SM90_LAUNCH_CUH
#define PLX_ATTENTION_DECODE_SM90_LAUNCH_CUH

#include "attention/attention_decode_sm90.cuh"
#include "cuda/launch.cuh"
#include "cuda/tensor_map.cuh"

#include <string.h>

/* True where all rows of 16-bit elements begin at multiples of so many bytes. */
static bool decode_rows_lie_on(const struct plx_tensor *tensor, int bytes)
{
    bool all = (uintptr_t)tensor->data % (uintptr_t)bytes == 0;
    for (int axis = 0; axis < 3; axis++)
        all = all && (tensor->shape[axis] <= 1 || tensor->stride[axis] * 2 % bytes == 0);
    return all;
}

/* True where boxes can be copied, and the kernels that do can read the queries, two numbers at a
 * time: those of f8e4m3 tiles read any, since no others bring such tiles. */
static bool decode_aligned(const struct attention_problem *p)
{
    if (((uintptr_t)p->k.data | (uintptr_t)p->v.data) % 16 != 0) return false;
    return p->kv_dtype == PLX_F8E4M3 ||
           (decode_rows_lie_on(&p->q, 4) && decode_rows_lie_on(&p->r, 4));
}

/* Only copies of boxes bring f8e4m3 tiles. */
static bool decode_takes_f8(const struct attention_problem *p)
{
    return p->G > 0 && decode_aligned(p) && decode_plan_make(p, true).box > 0;
}

static const char *decode_sm90_refuse(const void *problem, const plx_context *context)
{
    const struct attention_problem *p = (const struct attention_problem *)problem;
    if (context->device != PLX_CUDA) return "it runs on CUDA devices";
    if (context->capability < 90) return "it needs a GPU of compute capability 9.0";
    if (p->dtype != PLX_BF16 && p->dtype != PLX_F16) return "it takes bf16 and f16 only";
    if (p->D != 64 && p->D != 128) return "it takes 64 or 128 head channels";
    if (p->kv_dtype == PLX_F8E4M3 && !decode_takes_f8(p))
        return "it takes f8e4m3 keys in rows on multiples of 16 bytes and in pages of multiples of "
               "16";
    if (p->q_offsets.rank != 0) return "it takes no packed batches";
    if (p->H > 0 && p->T * (p->H / p->G) > DECODE_MAX_ROWS)
        return "it takes at most 64 query tokens times query heads a key/value head";
    return decode_plan_refuse(p);
}

static size_t decode_sm90_workspace(const void *problem)
{
    const struct attention_problem *p = (const struct attention_problem *)problem;
    struct decode_plan plan = decode_plan_make(p, true), other = decode_plan_make(p, false);
    size_t bytes = plan.counters + plan.partials, least = other.counters + other.partials;
    return bytes > least ? bytes : least;
}

/* ---- Arguments ------------------------------------------------------------------------------- */

static struct decode_view decode_view_of(const struct plx_tensor *tensor)
{
    struct decode_view view = {tensor->data, tensor->stride[0], tensor->stride[1],
                               tensor->stride[2], tensor->dtype == PLX_F32};
    return view;
}

static struct decode_arguments decode_arguments_of(const struct attention_problem *p,
                                                   const struct decode_plan *plan, char *workspace)
{
    struct decode_arguments a = {};
    a.q = decode_view_of(&p->q), a.r = decode_view_of(&p->r);
    a.k = decode_view_of(&p->k), a.v = decode_view_of(&p->v);
    a.o = decode_view_of(&p->o), a.lse = decode_view_of(&p->lse);
    a.probe_mean = decode_view_of(&p->probe_mean), a.value_mean = decode_view_of(&p->value_mean);
    a.q_lengths = (const int32_t *)p->q_lengths.data;
    a.k_lengths = (const int32_t *)p->k_lengths.data;
    a.pages = (const int32_t *)p->k_pages.data;
    a.page = decode_divisor_of(p->page > 0 ? (int)p->page : INT32_MAX);
    a.table = p->k_pages.stride[0];
    a.chunks = decode_rows_lie_on(&p->k, 16) && decode_rows_lie_on(&p->v, 16);
    a.B = (int)p->B, a.T = (int)p->T, a.S = (int)p->S, a.G = (int)p->G;
    a.group = (int)(p->H / p->G), a.rows = (int)p->T * a.group;
    a.by_group = decode_divisor_of(a.group), a.by_row_blocks = decode_divisor_of(plan->row_blocks);
    a.by_parts = decode_divisor_of(plan->parts);
    a.parts = plan->parts, a.cluster = plan->cluster, a.cut = plan->cut;
    a.stay = plan->stay;
    a.causal = p->causal, a.window = p->window;
    a.scale = (float)(p->scale * 1.4426950408889634);
    a.masked = a.scale < 0 ? INFINITY : -INFINITY;
    a.k_scales = (const float *)p->k_scales.data;
    a.v_scales = (const float *)p->v_scales.data;
    a.counters = (unsigned long long *)workspace;
    a.partials = workspace + plan->counters;
    return a;
}

/* Boxes of some keys of one or two heads of [batch or page, key, head, channel], 128 bytes of each
 * by 128, or its 64. The engine is told of elements of two bytes, whatever they are. The L2 cache
 * fetches 128 bytes at a time: with 256, three quarters of the cache cross between its halves
 * instead of one half, and memory as fast as an H200's waits for that. */
static plx_status decode_map(plx_context *context, CUtensorMap *map, const struct plx_tensor *t,
                             int keys, int heads)
{
    int64_t each = t->dtype == PLX_F8E4M3 ? 2 : 1, head = t->shape[3] / each;
    int64_t row = head < 64 ? head : 64, boxes = head / row;
    const struct tensor_map_axis of_row = {row, 1, (int)row}, of_boxes = {boxes, row, (int)boxes},
                                 of_keys = {t->shape[1], t->stride[1] / each, keys},
                                 of_heads = {t->shape[2], t->stride[2] / each, heads},
                                 of_blocks = {t->shape[0], t->stride[0] / each, 1};
    const struct tensor_map_axis single[] = {of_row, of_keys, of_heads, of_blocks};
    const struct tensor_map_axis several[] = {of_row, of_keys, of_boxes, of_heads, of_blocks};
    const CUtensorMapL2promotion fetch = CU_TENSOR_MAP_L2_PROMOTION_L2_128B;
    if (boxes == 1) return tensor_map_make(context, map, t->data, fetch, single);
    return tensor_map_make(context, map, t->data, fetch, several);
}

/* ---- The launch ------------------------------------------------------------------------------ */

template <class E, class KIND, bool PROBE>
static plx_status decode_sm90_launch(plx_context *context, const struct attention_problem *p,
                                     const struct decode_plan *plan, char *workspace,
                                     plx_stream stream)
{
    struct decode_arguments arguments = decode_arguments_of(p, plan, workspace);
    arguments.step = KIND::UNIT % arguments.page.divisor;
    struct decode_maps maps = {};
    int bytes = (int)sizeof(struct decode_shared<KIND>);
    if (KIND::FEED == DECODE_BOXES) {
        TRY(decode_map(context, &maps.k, &p->k, plan->box, plan->heads));
        TRY(decode_map(context, &maps.v, &p->v, plan->box, plan->heads));
    }
    TRY(kernel_allow(context, (const void *)decode_sm90_kernel<E, KIND, PROBE>, bytes));
    /* Dependent launch: our blocks may take their places while the launch before us drains. */
    cudaLaunchAttribute attributes[2] = {};
    attributes[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes[0].val.programmaticStreamSerializationAllowed = 1;
    attributes[1].id = cudaLaunchAttributeClusterDimension;
    attributes[1].val.clusterDim.x = attributes[1].val.clusterDim.z = 1;
    attributes[1].val.clusterDim.y = 1u << plan->cluster;
    cudaLaunchConfig_t config = {};
    config.gridDim =
        dim3((unsigned)plan->pairs, (unsigned)plan->parts, plan->list ? 1u : (unsigned)p->B);
    config.blockDim = dim3(KIND::THREADS);
    config.dynamicSmemBytes = (size_t)bytes;
    config.stream = (cudaStream_t)stream;
    config.attrs = attributes;
    config.numAttrs = plan->cluster > 0 ? 2 : 1;
    CHECK_CUDA(context,
               cudaLaunchKernelEx(&config, decode_sm90_kernel<E, KIND, PROBE>, arguments, maps));
    return PLX_OK;
}

/* A cache of 16-bit elements, or of 8: the launch for how a plan cuts it. */
template <class E, bool PROBE, int D, int HEADS, int SIZE, enum decode_way WAY, bool SPLIT = false>
static plx_status decode_sm90_cut(plx_context *context, const struct attention_problem *p,
                                  const struct decode_plan *plan, char *workspace,
                                  plx_stream stream)
{
    typedef decode_kind<D, HEADS, SIZE, DECODE_BOXES, WAY, DECODE_WARPS, 1, SPLIT> narrow;
    typedef decode_kind<D, HEADS, SIZE, DECODE_BOXES, WAY, DECODE_WIDE_WARPS, 1, SPLIT> wide;
    typedef decode_kind<D, HEADS, SIZE, DECODE_BOXES, WAY, DECODE_WARPS, DECODE_MOST_DEEP, SPLIT>
        deep;
    if constexpr (HEADS == 1 && SIZE == 2 && (D == 64 || WAY != DECODE_LIST))
        if (plan->deep == DECODE_MOST_DEEP)
            return decode_sm90_launch<E, deep, PROBE>(context, p, plan, workspace, stream);
    if constexpr (HEADS == 1 && WAY != DECODE_LIST)
        if (plan->warps == DECODE_WIDE_WARPS)
            return decode_sm90_launch<E, wide, PROBE>(context, p, plan, workspace, stream);
    return decode_sm90_launch<E, narrow, PROBE>(context, p, plan, workspace, stream);
}

template <class E, bool PROBE, int D, int HEADS, int SIZE>
static plx_status decode_sm90_boxes(plx_context *context, const struct attention_problem *p,
                                    const struct decode_plan *plan, char *workspace,
                                    plx_stream stream)
{
    constexpr bool MAY_SPLIT = HEADS == 1 && DECODE_KEYS(D * SIZE) > DECODE_MIN_BOX;
    bool looks = p->q_lengths.rank > 0 || p->k_lengths.rank > 0 || p->page > 0;
    bool split = plan->box < DECODE_KEYS(D * HEADS * SIZE);
    auto *launch = decode_sm90_cut<E, PROBE, D, HEADS, SIZE, DECODE_EVEN>;
    if (looks) launch = decode_sm90_cut<E, PROBE, D, HEADS, SIZE, DECODE_EVEN_LOOKS>;
    if (plan->list) launch = decode_sm90_cut<E, PROBE, D, HEADS, SIZE, DECODE_LIST>;
    if constexpr (MAY_SPLIT) {
        if (split && !plan->list)
            launch = decode_sm90_cut<E, PROBE, D, HEADS, SIZE, DECODE_EVEN_LOOKS, true>;
        if (split && plan->list)
            launch = decode_sm90_cut<E, PROBE, D, HEADS, SIZE, DECODE_LIST, true>;
    }
    return launch(context, p, plan, workspace, stream);
}

template <class E, bool PROBE>
static plx_status decode_sm90_feed(plx_context *context, const struct attention_problem *p,
                                   const struct decode_plan *plan, char *workspace,
                                   plx_stream stream)
{
    typedef decode_kind<128, 1, 2, DECODE_CHUNKS, DECODE_LIST, DECODE_WARPS> chunks;
    typedef decode_kind<64, 1, 2, DECODE_CHUNKS, DECODE_LIST, DECODE_WARPS> chunks_64;
    if (p->kv_dtype == PLX_F8E4M3 && p->D == 128)
        return decode_sm90_boxes<E, PROBE, 128, 1, 1>(context, p, plan, workspace, stream);
    if (p->kv_dtype == PLX_F8E4M3 && plan->heads == 2)
        return decode_sm90_boxes<E, PROBE, 64, 2, 1>(context, p, plan, workspace, stream);
    if (p->kv_dtype == PLX_F8E4M3)
        return decode_sm90_boxes<E, PROBE, 64, 1, 1>(context, p, plan, workspace, stream);
    if (plan->box == 0 && p->D == 128)
        return decode_sm90_launch<E, chunks, PROBE>(context, p, plan, workspace, stream);
    if (plan->box == 0)
        return decode_sm90_launch<E, chunks_64, PROBE>(context, p, plan, workspace, stream);
    if (p->D == 128)
        return decode_sm90_boxes<E, PROBE, 128, 1, 2>(context, p, plan, workspace, stream);
    if (plan->heads == 2)
        return decode_sm90_boxes<E, PROBE, 64, 2, 2>(context, p, plan, workspace, stream);
    return decode_sm90_boxes<E, PROBE, 64, 1, 2>(context, p, plan, workspace, stream);
}

template <bool PROBE>
static plx_status decode_sm90_run(plx_context *context, const void *problem, void *workspace,
                                  plx_stream stream)
{
    const struct attention_problem *p = (const struct attention_problem *)problem;
    if (p->B * p->T * p->H == 0) return PLX_OK;
    struct decode_plan plan = decode_plan_make(p, decode_aligned(p));
    char *scratch = (char *)workspace;
    if (p->dtype == PLX_F16)
        return decode_sm90_feed<decode_f16, PROBE>(context, p, &plan, scratch, stream);
    return decode_sm90_feed<decode_bf16, PROBE>(context, p, &plan, scratch, stream);
}

#endif
