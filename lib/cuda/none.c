/* none.c: the answers of a build without CUDA, and the rows of its kernels, which refuse. Compiled
 * only where no CUDA compiler was found. */
#include "attention/cache_append.h"
#include "cuda/device.h"
#include "parallax/parallax_impl.h"
#include "softmax/softmax_impl.h"

plx_status cuda_device_open(int index, struct cuda_device *device)
{
    (void)index;
    (void)device;
    return PLX_UNSUPPORTED;
}

plx_status cuda_device_enter(plx_context *context, int *previous)
{
    *previous = 0;
    return context_fail(context, PLX_UNSUPPORTED, "device: this build has no CUDA");
}

void cuda_device_leave(int previous)
{
    (void)previous;
}

plx_status cuda_device_read(plx_context *context, void *host, const void *device, size_t bytes,
                            plx_stream stream)
{
    (void)host;
    (void)device;
    (void)bytes;
    (void)stream;
    return context_fail(context, PLX_UNSUPPORTED, "device: this build has no CUDA");
}

plx_status cache_append_cuda(plx_context *context, const struct cache_append *append,
                             plx_stream stream)
{
    (void)append;
    (void)stream;
    return context_fail(context, PLX_UNSUPPORTED, "device: this build has no CUDA");
}

static const char *none_refuse(const void *problem, const plx_context *context)
{
    (void)problem;
    (void)context;
    return "this build has no CUDA";
}

#define NONE_ROW                                                                                   \
    {                                                                                              \
        .name = "cuda_any", .refuse = none_refuse                                                  \
    }
#define NONE_ROW_SM90                                                                              \
    {                                                                                              \
        .name = "cuda_sm90", .refuse = none_refuse                                                 \
    }
const struct kernel_row parallax_forward_any = NONE_ROW, parallax_backward_any = NONE_ROW;
const struct kernel_row softmax_forward_any = NONE_ROW, softmax_backward_any = NONE_ROW;
const struct kernel_row parallax_forward_sm90 = NONE_ROW_SM90, softmax_forward_sm90 = NONE_ROW_SM90;
const struct kernel_row parallax_decode_sm90 = NONE_ROW_SM90, softmax_decode_sm90 = NONE_ROW_SM90;
const struct kernel_row parallax_backward_sm90 = NONE_ROW_SM90;
const struct kernel_row softmax_backward_sm90 = NONE_ROW_SM90;
