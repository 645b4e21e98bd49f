/* device.cu: the answers of a build with CUDA; see device.h. */
#include <cuda_runtime.h>

extern "C" {
#include "cuda/device.h"
}
#include "cuda/check.cuh"

plx_status cuda_device_open(int index, struct cuda_device *device)
{
    int count = 0, major = 0, minor = 0, processors = 0;
    cudaError_t error = cudaGetDeviceCount(&count);
    if (error == cudaErrorNoDevice || error == cudaErrorInsufficientDriver) return PLX_UNSUPPORTED;
    if (error != cudaSuccess) return PLX_DEVICE_ERROR;
    if (index >= count) return PLX_INVALID_ARGUMENT;
    if (cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, index) != cudaSuccess ||
        cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, index) != cudaSuccess ||
        cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, index) != cudaSuccess)
        return PLX_DEVICE_ERROR;
    *device = {10 * major + minor, processors};
    return major >= 8 ? PLX_OK : PLX_UNSUPPORTED;
}

plx_status cuda_device_enter(plx_context *context, int *previous)
{
    cudaError_t error = cudaGetDevice(previous);
    if (error == cudaSuccess && *previous != context->device_index)
        error = cudaSetDevice(context->device_index);
    if (error == cudaSuccess) return PLX_OK;
    return context_fail(context, PLX_DEVICE_ERROR, "device %d: %s", context->device_index,
                        cudaGetErrorString(error));
}

void cuda_device_leave(int previous)
{
    int current;
    if (cudaGetDevice(&current) == cudaSuccess && current != previous) cudaSetDevice(previous);
}

static plx_status device_read(plx_context *context, void *host, const void *device, size_t bytes,
                              cudaStream_t stream)
{
    cudaStreamCaptureStatus capture;
    CHECK_CUDA(context, cudaStreamIsCapturing(stream, &capture));
    CHECK(context, capture == cudaStreamCaptureStatusNone, PLX_INVALID_ARGUMENT,
          "validate: a call on a stream that is being captured cannot wait for its lists");
    CHECK_CUDA(context, cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, stream));
    CHECK_CUDA(context, cudaStreamSynchronize(stream));
    return PLX_OK;
}

plx_status cuda_device_read(plx_context *context, void *host, const void *device, size_t bytes,
                            plx_stream stream)
{
    int previous;
    TRY(cuda_device_enter(context, &previous));
    plx_status status = device_read(context, host, device, bytes, (cudaStream_t)stream);
    cuda_device_leave(previous);
    return status;
}
