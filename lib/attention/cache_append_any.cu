/* cache_append_any.cu: appending to a cache on any GPU: one launch for the keys, the values, and
 * the queries and probes that turn with them; one warp a row. It neither waits nor allocates, so it
 * can be captured with the decode that follows it. */
#include "cuda/check.cuh"
#include "cuda/element.cuh"
#include "cuda/instructions.cuh"

extern "C" {
#include "attention/cache_append.h"
#include "cuda/device.h"
}

enum { APPEND_THREADS = 128, APPEND_WARPS = 4 };

/* One row of D elements by one warp. The products are rounded one by one, as the CPU does, so that
 * both fill a cache with the same bits. */
static __device__ void append_row(const struct plx_tensor &from, int64_t source,
                                  const struct plx_tensor &to, int64_t target, int D,
                                  const float *cosine, const float *sine, float scale)
{
    int half = D / 2;
    for (int d = threadIdx.x % 32; cosine == NULL && d < D; d += 32)
        element_store(to, target + d, __fdiv_rn(element_load(from, source + d), scale));
    for (int d = threadIdx.x % 32; cosine != NULL && d < half; d += 32) {
        float x = element_load(from, source + d), y = element_load(from, source + half + d);
        float c = cosine[d], s = sine[d];
        float first = __fsub_rn(__fmul_rn(x, c), __fmul_rn(y, s));
        float second = __fadd_rn(__fmul_rn(y, c), __fmul_rn(x, s));
        element_store(to, target + d, __fdiv_rn(first, scale));
        element_store(to, target + half + d, __fdiv_rn(second, scale));
    }
}

/* The same of elements that stay what they are, 16 bytes at once; false where that cannot be. */
static __device__ bool append_copy(const struct plx_tensor &from, int64_t source,
                                   const struct plx_tensor &to, int64_t target, int D)
{
    int64_t size = from.dtype == PLX_F32 ? 4 : 2;
    const char *in = (const char *)from.data + source * size;
    char *out = (char *)to.data + target * size;
    if (from.dtype != to.dtype || (D * size | (uintptr_t)in | (uintptr_t)out) % 16 != 0)
        return false;
    for (int i = threadIdx.x % 32; i < D * size / 16; i += 32)
        ((uint4 *)out)[i] = ((const uint4 *)in)[i];
    return true;
}

static __device__ float append_scale(const struct plx_tensor &scales, int64_t g)
{
    return scales.data != NULL ? ((const float *)scales.data)[g] : 1.0f;
}

/* Rows of a token in order: G keys, G values, then the heads of q and of r where they are given. */
__global__ void __launch_bounds__(APPEND_THREADS)
    append_kernel(const __grid_constant__ struct cache_append a, int rows)
{
    const struct attention_problem &cache = a.cache;
    int64_t warp = (int64_t)blockIdx.x * APPEND_WARPS + threadIdx.x / 32;
    dependency_release();
    int64_t token = warp / rows, row = warp - token * rows, b = token / cache.T;
    int64_t t = token - b * cache.T;
    /* Divisions take as long as a look at memory: they are done while the launch before us drains.
     */
    computed_here(row), computed_here(b), computed_here(t);
    dependency_wait();
    if (warp >= cache.B * cache.T * rows) return;
    int64_t key = cache_append_key(&a, b, t);
    int G = (int)cache.G, D = (int)cache.D, H = (int)a.q.shape[2];
    bool has_place = key >= 0 && key < cache.S;
    const float *cosine = NULL, *sine = NULL;
    if (a.cosines.rank != 0) {
        int64_t position = key < 0 || cache.S == 0 ? 0 : has_place ? key : cache.S - 1;
        cosine = (const float *)a.cosines.data + position * a.cosines.stride[0];
        sine = (const float *)a.sines.data + position * a.sines.stride[0];
    }
    if (row < 2 * G) {
        if (!has_place) return;
        bool is_key = row < G;
        int64_t g = row % G;
        const struct plx_tensor &from = is_key ? a.k : a.v, &to = is_key ? cache.k : cache.v;
        const struct plx_tensor &scales = is_key ? cache.k_scales : cache.v_scales;
        struct attention_sequence sequence = {0, 0, 0, b, 0, cache.S};
        int64_t source = element_row(from, b, t, g);
        int64_t target = attention_key_offset(&cache, &to, &sequence, key, g);
        if (!is_key) cosine = NULL;
        if (cosine == NULL && scales.data == NULL && append_copy(from, source, to, target, D))
            return;
        append_row(from, source, to, target, D, cosine, sine, append_scale(scales, g));
        return;
    }
    bool is_query = row < 2 * G + H;
    int64_t h = is_query ? row - 2 * G : row - 2 * G - H;
    const struct plx_tensor &from = is_query ? a.q : a.r;
    const struct plx_tensor &to = is_query ? a.q_rotated : a.r_rotated;
    append_row(from, element_row(from, b, t, h), to, element_row(to, b, t, h), D, cosine, sine,
               1.0f);
}

static plx_status append_launch(plx_context *context, const struct cache_append *append,
                                cudaStream_t stream)
{
    const struct attention_problem *cache = &append->cache;
    int64_t rows = 2 * cache->G + (append->q.rank ? append->q.shape[2] : 0) +
                   (append->r.rank ? append->r.shape[2] : 0);
    int64_t blocks = (cache->B * cache->T * rows + APPEND_WARPS - 1) / APPEND_WARPS;
    if (blocks == 0) return PLX_OK;
    CHECK(context, blocks <= INT32_MAX, PLX_UNSUPPORTED,
          "k: %lld rows are more than one launch takes", (long long)(cache->B * cache->T * rows));
    /* Where GPUs can, our blocks take their places while the launch before us drains. */
    cudaLaunchAttribute overlap = {};
    overlap.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    overlap.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3((unsigned)blocks);
    config.blockDim = dim3(APPEND_THREADS);
    config.stream = stream;
    config.attrs = &overlap;
    config.numAttrs = context->capability >= 90 ? 1 : 0;
    CHECK_CUDA(context, cudaLaunchKernelEx(&config, append_kernel, *append, (int)rows));
    return PLX_OK;
}

plx_status cache_append_cuda(plx_context *context, const struct cache_append *append,
                             plx_stream stream)
{
    int previous;
    TRY(cuda_device_enter(context, &previous));
    plx_status status = append_launch(context, append, (cudaStream_t)stream);
    cuda_device_leave(previous);
    return status;
}
