/* launch.cuh: what a kernel needs before its first launch. Asking the driver costs about as much as
 * a launch, so a context remembers what it has asked for. */
#ifndef PLX_CUDA_LAUNCH_CUH
#define PLX_CUDA_LAUNCH_CUH

#include "cuda/check.cuh"

/* Allows a kernel so many bytes of dynamic shared memory, always the same number, and clusters of
 * more than eight blocks. */
static plx_status kernel_allow(plx_context *context, const void *kernel, int shared_bytes)
{
    for (int n = 0; n < context->allowed_count; n++)
        if (context->allowed[n] == kernel) return PLX_OK;
    CHECK_CUDA(context, cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                             shared_bytes));
    if (context->capability >= 90)
        CHECK_CUDA(context, cudaFuncSetAttribute(
                                kernel, cudaFuncAttributeNonPortableClusterSizeAllowed, 1));
    if (context->allowed_count < CONTEXT_KERNELS)
        context->allowed[context->allowed_count++] = kernel;
    return PLX_OK;
}

#endif
