/* element.cuh: reading and writing single elements of a view on the device, whatever its dtype.
 *
 * The dtype is a run-time branch, uniform across the grid: kernels that use it serve every dtype
 * with one instance, which is what a fallback should cost. Tuned kernels do not use this file. */
#ifndef PLX_CUDA_ELEMENT_CUH
#define PLX_CUDA_ELEMENT_CUH

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>
#include <stdint.h>

#include "parallax/parallax.h"

static __device__ __forceinline__ float element_load(const struct plx_tensor &tensor, int64_t index)
{
    if (tensor.dtype == PLX_BF16)
        return __bfloat162float(((const __nv_bfloat16 *)tensor.data)[index]);
    if (tensor.dtype == PLX_F16) return __half2float(((const __half *)tensor.data)[index]);
    if (tensor.dtype == PLX_F8E4M3) return (float)((const __nv_fp8_e4m3 *)tensor.data)[index];
    return ((const float *)tensor.data)[index];
}

static __device__ __forceinline__ void element_store(const struct plx_tensor &tensor, int64_t index,
                                                     float value)
{
    if (tensor.dtype == PLX_BF16)
        ((__nv_bfloat16 *)tensor.data)[index] = __float2bfloat16_rn(value);
    else if (tensor.dtype == PLX_F16)
        ((__half *)tensor.data)[index] = __float2half_rn(value);
    else if (tensor.dtype == PLX_F8E4M3)
        ((__nv_fp8_e4m3 *)tensor.data)[index] = __nv_fp8_e4m3(value);
    else
        ((float *)tensor.data)[index] = value;
}

/* Index of [batch, time, head, 0] or [batch, time, head]. */
static __device__ __forceinline__ int64_t element_row(const struct plx_tensor &tensor,
                                                      int64_t batch, int64_t time, int64_t head)
{
    return batch * tensor.stride[0] + time * tensor.stride[1] + head * tensor.stride[2];
}

static __device__ __forceinline__ float warp_sum(float value)
{
    for (int step = 16; step > 0; step /= 2) value += __shfl_xor_sync(0xffffffffu, value, step);
    return value;
}

static __device__ __forceinline__ float warp_max(float value)
{
    for (int step = 16; step > 0; step /= 2)
        value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, step));
    return value;
}

#endif
