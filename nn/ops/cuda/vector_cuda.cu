/* vector_cuda.cu: kernels over plain lists of numbers; see launch.h. */
#include <cuda_bf16.h>

#include "launch.h"

namespace
{

enum { THREADS = 256 };

template <class T>
__global__ void __launch_bounds__(THREADS) scale_kernel(T *y, int64_t count, float factor)
{
    int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (i < count) y[i] = (T)(factor * (float)y[i]);
}

} // namespace

const char *launch_scale(plx_stream stream, void *y, plx_dtype dtype, int64_t count, double factor)
{
    if (count == 0) return NULL;
    int64_t blocks = (count + THREADS - 1) / THREADS;
    if (dtype == PLX_BF16)
        scale_kernel<<<blocks, THREADS, 0, (cudaStream_t)stream>>>((__nv_bfloat16 *)y, count,
                                                                   (float)factor);
    else
        scale_kernel<<<blocks, THREADS, 0, (cudaStream_t)stream>>>((float *)y, count,
                                                                   (float)factor);
    cudaError_t error = cudaGetLastError();
    return error == cudaSuccess ? NULL : cudaGetErrorString(error);
}
