/* memory_cuda.c: device_memory.h on CUDA. Memory comes from the driver's pool in stream order: a
 * test makes a million small allocations, and the pool is what keeps that in minutes while the
 * memory checker still sees the bounds of each. */
#include "device/device_memory.h"

#include <cuda_runtime_api.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

static const char *announced = "nothing";

static void check(cudaError_t error, const char *what)
{
    if (error == cudaSuccess) return;
    fprintf(stderr, "FAILED %s: %s: %s\n", announced, what, cudaGetErrorString(error));
    abort();
}

bool device_present(void)
{
    int count = 0;
    return cudaGetDeviceCount(&count) == cudaSuccess && count > 0;
}

void device_describe(char *text, size_t size)
{
    struct cudaDeviceProp properties;
    int driver = 0;
    check(cudaGetDeviceProperties(&properties, 0), "properties");
    check(cudaDriverGetVersion(&driver), "driver");
    snprintf(text, size, "%s, compute capability %d.%d, CUDA driver %d.%d", properties.name,
             properties.major, properties.minor, driver / 1000, driver % 1000 / 10);
    cudaMemPool_t pool;
    uint64_t keep = UINT64_MAX;
    check(cudaDeviceGetDefaultMemPool(&pool, 0), "pool");
    check(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &keep), "pool");
}

void device_announce(const char *call)
{
    announced = call;
}

void *device_upload(const void *bytes, size_t count)
{
    void *memory = NULL;
    check(cudaMallocAsync(&memory, count > 0 ? count : 1, NULL), "allocation");
    check(cudaMemcpyAsync(memory, bytes, count, cudaMemcpyHostToDevice, NULL), "upload");
    return memory;
}

void device_download(void *bytes, const void *memory, size_t count)
{
    check(cudaMemcpyAsync(bytes, memory, count, cudaMemcpyDeviceToHost, NULL), "download");
    check(cudaStreamSynchronize(NULL), "the kernel before the download");
}

void device_free(void *memory)
{
    if (memory) check(cudaFreeAsync(memory, NULL), "free");
}
