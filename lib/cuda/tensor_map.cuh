/* tensor_map.cuh: making a tensor map, which tells Hopper's copy engine how a tensor lies in memory
 * and which box of it a copy moves. A map is made anew for every call and travels as a kernel
 * argument: there is nothing to keep, and a CUDA graph captures it. */
#ifndef PLX_CUDA_TENSOR_MAP_CUH
#define PLX_CUDA_TENSOR_MAP_CUH

#include <cuda.h>

#include "cuda/check.cuh"

/* An axis of the map; the stride is in elements and may be anything where the extent is 1. */
struct tensor_map_axis {
    int64_t extent, stride;
    int box;
};

typedef CUresult (*tensor_map_encode)(CUtensorMap *, CUtensorMapDataType, cuuint32_t, void *,
                                      const cuuint64_t *, const cuuint64_t *, const cuuint32_t *,
                                      const cuuint32_t *, CUtensorMapInterleave, CUtensorMapSwizzle,
                                      CUtensorMapL2promotion, CUtensorMapFloatOOBfill);

/* A map of 16-bit elements from the innermost axis out; boxes have rows of 64 or 128 bytes, whose
 * 16-byte chunks are swizzled among themselves, and zeros beyond the extents. Strides are multiples
 * of 16 bytes. fetch: what the L2 cache reads of the memory around a line that it lacks. */
template <int AXES>
static plx_status tensor_map_make(plx_context *context, CUtensorMap *map, void *data,
                                  CUtensorMapL2promotion fetch,
                                  const struct tensor_map_axis (&axes)[AXES])
{
    cudaDriverEntryPointQueryResult found;
    if (context->encode_map == NULL)
        CHECK_CUDA(context,
                   cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &context->encode_map,
                                                    12000, cudaEnableDefault, &found));
    cuuint64_t extents[AXES], strides[AXES - 1];
    cuuint32_t box[AXES], steps[AXES];
    for (int n = 0; n < AXES; n++) {
        extents[n] = (cuuint64_t)axes[n].extent;
        box[n] = (cuuint32_t)axes[n].box;
        steps[n] = 1;
        if (n > 0) strides[n - 1] = axes[n].extent > 1 ? (cuuint64_t)axes[n].stride * 2 : 16;
    }
    CUtensorMapSwizzle swizzle =
        axes[0].box == 64 ? CU_TENSOR_MAP_SWIZZLE_128B : CU_TENSOR_MAP_SWIZZLE_64B;
    CUresult result = ((tensor_map_encode)context->encode_map)(
        map, CU_TENSOR_MAP_DATA_TYPE_UINT16, AXES, data, extents, strides, box, steps,
        CU_TENSOR_MAP_INTERLEAVE_NONE, swizzle, fetch, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    if (result == CUDA_SUCCESS) return PLX_OK;
    return context_fail(context, PLX_DEVICE_ERROR, "tensor map: driver error %d", (int)result);
}

#endif
