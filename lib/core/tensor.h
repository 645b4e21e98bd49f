/* tensor.h: addressing inside a view, for code that has already been given a checked tensor. */
#ifndef PLX_TENSOR_H
#define PLX_TENSOR_H

#include "core/context.h"

/* Elements from the start of [B,T,H,D] or [B,T,H] to entry (b, t, h). */
static inline int64_t tensor_offset(const struct plx_tensor *tensor, int64_t b, int64_t t,
                                    int64_t h)
{
    return b * tensor->stride[0] + t * tensor->stride[1] + h * tensor->stride[2];
}

/* Address of an element counted from the start of the view. */
static inline void *tensor_at(const struct plx_tensor *tensor, int64_t offset)
{
    return (char *)tensor->data + offset * (int64_t)plx_dtype_size(tensor->dtype);
}

/* Rules of every view: rank 1..4, a dtype, extents and strides not negative and within reach, the
 * last stride 1. The sentence begins with name. */
plx_status tensor_check(plx_context *context, const char *name, const struct plx_tensor *tensor);
/* The rule of a view that is written besides: no two entries share memory through a stride of 0. */
plx_status tensor_check_written(plx_context *context, const char *name,
                                const struct plx_tensor *tensor);

#endif
