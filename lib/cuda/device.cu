/* device.cu: the answers of a build with CUDA; see device.h. */
#include <cuda_runtime.h>

extern "C" {
#include "cuda/device.h"
}

plx_status cuda_device_open(int index)
{
    int count = 0, major = 0;
    if (cudaGetDeviceCount(&count) != cudaSuccess) return PLX_DEVICE_ERROR;
    if (index < 0 || index >= count) return PLX_INVALID_ARGUMENT;
    if (cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, index) != cudaSuccess)
        return PLX_DEVICE_ERROR;
    return major >= 8 ? PLX_OK : PLX_UNSUPPORTED;
}
