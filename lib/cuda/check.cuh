/* check.cuh: how CUDA failures leave a function of the library. */
#ifndef PLX_CUDA_CHECK_CUH
#define PLX_CUDA_CHECK_CUH

#include <cuda_runtime.h>

extern "C" {
#include "core/context.h"
}

/* Leaves the calling function with a sentence unless a CUDA call succeeded. */
#define CHECK_CUDA(context, call)                                                                  \
    do {                                                                                           \
        cudaError_t cuda_status_ = (call);                                                         \
        if (cuda_status_ != cudaSuccess)                                                           \
            return context_fail((context), PLX_DEVICE_ERROR, "%s: %s", #call,                      \
                                cudaGetErrorString(cuda_status_));                                 \
    } while (0)

#endif
