/* device.h: what the portable part of the library asks of CUDA. device.cu answers in a build with
 * CUDA, none.c in one without: no #ifdef stands anywhere else. */
#ifndef PLX_CUDA_DEVICE_H
#define PLX_CUDA_DEVICE_H

#include "core/context.h"

struct cuda_device {
    int capability; /* 90 for compute capability 9.0 */
    int processors; /* multiprocessors */
};

/* Checks that the GPU exists and is at least sm_80, and says what it is. PLX_UNSUPPORTED in a build
 * without CUDA and on a machine without a GPU or its driver, PLX_INVALID_ARGUMENT for an index that
 * does not exist, PLX_DEVICE_ERROR where the driver fails. */
plx_status cuda_device_open(int index, struct cuda_device *device);

/* Launches go to the current GPU of the host thread: enter makes the context's GPU current and
 * leave restores the one before, so that a caller with several GPUs notices nothing. */
plx_status cuda_device_enter(plx_context *context, int *previous);
void cuda_device_leave(int previous);

/* Copies bytes from the context's GPU to the host, after everything that was launched to the stream
 * before, and waits for them. PLX_INVALID_ARGUMENT on a stream that is being captured, where
 * nothing can be waited for. */
plx_status cuda_device_read(plx_context *context, void *host, const void *device, size_t bytes,
                            plx_stream stream);

#endif
