/* device_cuda.c: CUDA's row of device.h, on the runtime interface. Memory comes from the device's
 * pool in stream order, which keeps what it once had: an allocation costs microseconds and never
 * waits for other streams. */
#include "core/device.h"

#include <cuda_runtime_api.h>
#include <stdio.h>
#include <string.h>

/* Leaves the calling function where a CUDA call fails; says which. */
#define CUDA_TRY(err, call)                                                                        \
    do {                                                                                           \
        cudaError_t cuda_error_ = (call);                                                          \
        if (cuda_error_ != cudaSuccess) return cuda_failed((err), #call, cuda_error_);             \
    } while (0)

static plx_status cuda_failed(struct error *err, const char *call, cudaError_t error)
{
    plx_status status = error == cudaErrorMemoryAllocation ? PLX_OUT_OF_MEMORY : PLX_DEVICE_ERROR;
    return error_set(err, status, "cuda: %.*s: %s", (int)strcspn(call, "("), call,
                     cudaGetErrorString(error));
}

static plx_status cuda_count(int index, struct error *err)
{
    int count = 0;
    cudaError_t error = cudaGetDeviceCount(&count);
    bool none = error == cudaErrorNoDevice || error == cudaErrorInsufficientDriver;
    if (error != cudaSuccess && !none) return cuda_failed(err, "cudaGetDeviceCount", error);
    REQUIRE(err, count > 0, PLX_UNSUPPORTED,
            "device: cuda: this machine has no GPU or no driver for it: %s",
            cudaGetErrorString(error));
    REQUIRE(err, index >= 0 && index < count, PLX_INVALID_ARGUMENT,
            "device: GPU %d does not exist; this machine has %d, counted from 0", index, count);
    return PLX_OK;
}

static plx_status cuda_open(int index, struct error *err)
{
    cudaMemPool_t pool;
    uint64_t everything = UINT64_MAX;
    TRY(cuda_count(index, err));
    CUDA_TRY(err, cudaSetDevice(index));
    CUDA_TRY(err, cudaDeviceGetDefaultMemPool(&pool, index));
    CUDA_TRY(err, cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &everything));
    return PLX_OK;
}

static plx_status cuda_describe(int index, struct device_facts *facts, struct error *err)
{
    struct cudaDeviceProp properties;
    int driver = 0;
    *facts = (struct device_facts){.name = "none"};
    TRY(cuda_count(index, err));
    CUDA_TRY(err, cudaGetDeviceProperties(&properties, index));
    CUDA_TRY(err, cudaDriverGetVersion(&driver));
    snprintf(facts->name, sizeof facts->name, "%.127s", properties.name);
    snprintf(facts->details, sizeof facts->details,
             "compute capability %d.%d, driver for CUDA %d.%d", properties.major, properties.minor,
             driver / 1000, driver % 1000 / 10);
    facts->memory_bytes = (int64_t)properties.totalGlobalMem;
    return PLX_OK;
}

/* What the pool holds, whether handed out or kept for the next allocation; the runtime's own share
 * (context, code) is not in it. */
static plx_status cuda_memory(struct device_memory *memory, struct error *err)
{
    int index;
    cudaMemPool_t pool;
    uint64_t held = 0, held_peak = 0, used = 0;
    size_t unclaimed = 0, total = 0;
    CUDA_TRY(err, cudaGetDevice(&index));
    CUDA_TRY(err, cudaDeviceGetDefaultMemPool(&pool, index));
    CUDA_TRY(err, cudaMemPoolGetAttribute(pool, cudaMemPoolAttrReservedMemCurrent, &held));
    CUDA_TRY(err, cudaMemPoolGetAttribute(pool, cudaMemPoolAttrReservedMemHigh, &held_peak));
    CUDA_TRY(err, cudaMemPoolGetAttribute(pool, cudaMemPoolAttrUsedMemCurrent, &used));
    CUDA_TRY(err, cudaMemGetInfo(&unclaimed, &total));
    *memory = (struct device_memory){
        .held = held, .held_peak = held_peak, .available = unclaimed + (size_t)(held - used)};
    return PLX_OK;
}

static plx_status cuda_allocate(void **memory, size_t bytes, plx_stream stream, struct error *err)
{
    *memory = NULL;
    cudaError_t error = cudaMallocAsync(memory, bytes > 0 ? bytes : 1, stream);
    REQUIRE(err, error != cudaErrorMemoryAllocation, PLX_OUT_OF_MEMORY,
            "cuda: %zu bytes of memory are not available", bytes);
    if (error != cudaSuccess) return cuda_failed(err, "cudaMallocAsync", error);
    return PLX_OK;
}

/* A failure here is one of work queued before, which the next waiting call reports. */
static void cuda_release(void *memory, plx_stream stream)
{
    if (memory) cudaFreeAsync(memory, stream);
}

static plx_status cuda_host_allocate(void **memory, size_t bytes, struct error *err)
{
    *memory = NULL;
    cudaError_t error = cudaMallocHost(memory, bytes > 0 ? bytes : 1);
    REQUIRE(err, error != cudaErrorMemoryAllocation, PLX_OUT_OF_MEMORY,
            "cuda: %zu bytes of pinned host memory are not available", bytes);
    if (error != cudaSuccess) return cuda_failed(err, "cudaMallocHost", error);
    return PLX_OK;
}

static void cuda_host_release(void *memory)
{
    if (memory) cudaFreeHost(memory);
}

static plx_status cuda_upload(void *memory, const void *host, size_t bytes, plx_stream stream,
                              struct error *err)
{
    CUDA_TRY(err, cudaMemcpyAsync(memory, host, bytes, cudaMemcpyHostToDevice, stream));
    return PLX_OK;
}

static plx_status cuda_wait(plx_stream stream, struct error *err)
{
    CUDA_TRY(err, cudaStreamSynchronize(stream));
    return PLX_OK;
}

static plx_status cuda_download(void *host, const void *memory, size_t bytes, plx_stream stream,
                                struct error *err)
{
    CUDA_TRY(err, cudaMemcpyAsync(host, memory, bytes, cudaMemcpyDeviceToHost, stream));
    return cuda_wait(stream, err);
}

static plx_status cuda_copy(void *to, const void *from, size_t bytes, plx_stream stream,
                            struct error *err)
{
    CUDA_TRY(err, cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream));
    return PLX_OK;
}

static plx_status cuda_fill(void *memory, int byte, size_t bytes, plx_stream stream,
                            struct error *err)
{
    CUDA_TRY(err, cudaMemsetAsync(memory, byte, bytes, stream));
    return PLX_OK;
}

static plx_status cuda_stream_create(plx_stream *stream, struct error *err)
{
    cudaStream_t created = NULL;
    CUDA_TRY(err, cudaStreamCreateWithFlags(&created, cudaStreamNonBlocking));
    *stream = created;
    return PLX_OK;
}

static void cuda_stream_destroy(plx_stream stream)
{
    if (stream) cudaStreamDestroy(stream);
}

static plx_status cuda_event_create(device_event *event, struct error *err)
{
    cudaEvent_t created = NULL;
    CUDA_TRY(err, cudaEventCreate(&created));
    *event = created;
    return PLX_OK;
}

static void cuda_event_destroy(device_event event)
{
    if (event) cudaEventDestroy(event);
}

static plx_status cuda_event_record(device_event event, plx_stream stream, struct error *err)
{
    CUDA_TRY(err, cudaEventRecord(event, stream));
    return PLX_OK;
}

static plx_status cuda_event_wait(device_event event, plx_stream stream, struct error *err)
{
    CUDA_TRY(err, cudaStreamWaitEvent(stream, event, 0));
    return PLX_OK;
}

static plx_status cuda_event_finish(device_event event, struct error *err)
{
    CUDA_TRY(err, cudaEventSynchronize(event));
    return PLX_OK;
}

static plx_status cuda_event_elapsed(device_event begin, device_event end, double *seconds,
                                     struct error *err)
{
    float milliseconds = 0;
    CUDA_TRY(err, cudaEventSynchronize(end));
    CUDA_TRY(err, cudaEventElapsedTime(&milliseconds, begin, end));
    *seconds = 1e-3 * milliseconds;
    return PLX_OK;
}

static plx_status cuda_capture_begin(plx_stream stream, struct error *err)
{
    CUDA_TRY(err, cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    return PLX_OK;
}

static plx_status cuda_capture_end(plx_stream stream, device_graph *graph, struct error *err)
{
    cudaGraph_t captured = NULL;
    cudaGraphExec_t ready = NULL;
    *graph = NULL;
    CUDA_TRY(err, cudaStreamEndCapture(stream, &captured));
    cudaError_t error = cudaGraphInstantiate(&ready, captured, 0);
    cudaGraphDestroy(captured);
    if (error != cudaSuccess) return cuda_failed(err, "cudaGraphInstantiate", error);
    *graph = ready;
    return PLX_OK;
}

static plx_status cuda_graph_launch(device_graph graph, plx_stream stream, struct error *err)
{
    CUDA_TRY(err, cudaGraphLaunch(graph, stream));
    return PLX_OK;
}

static void cuda_graph_destroy(device_graph graph)
{
    if (graph) cudaGraphExecDestroy(graph);
}

const struct device device_cuda = {
    .name = "cuda",
    .kind = PLX_CUDA,
    .alignment = 256, /* what cuBLASLt asks of its workspace */
    .open = cuda_open,
    .describe = cuda_describe,
    .memory = cuda_memory,
    .allocate = cuda_allocate,
    .release = cuda_release,
    .host_allocate = cuda_host_allocate,
    .host_release = cuda_host_release,
    .upload = cuda_upload,
    .download = cuda_download,
    .copy = cuda_copy,
    .fill = cuda_fill,
    .stream_create = cuda_stream_create,
    .stream_destroy = cuda_stream_destroy,
    .wait = cuda_wait,
    .event_create = cuda_event_create,
    .event_destroy = cuda_event_destroy,
    .event_record = cuda_event_record,
    .event_wait = cuda_event_wait,
    .event_finish = cuda_event_finish,
    .event_elapsed = cuda_event_elapsed,
    .capture_begin = cuda_capture_begin,
    .capture_end = cuda_capture_end,
    .graph_launch = cuda_graph_launch,
    .graph_destroy = cuda_graph_destroy,
};
