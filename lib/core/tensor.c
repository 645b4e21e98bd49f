/* tensor.c: constructing, slicing and checking views. Nothing here touches the elements.
 *
 * Constructors never fail: what cannot be expressed becomes a view of rank 0, which every call
 * refuses with a sentence, so that a caller has one place to look. */
#include "core/tensor.h"

#include <inttypes.h>

struct plx_tensor plx_tensor_dense(void *data, plx_dtype dtype, int rank, const int64_t *shape)
{
    struct plx_tensor tensor = {.data = data, .dtype = dtype, .device = PLX_CPU};
    if (rank < 1 || rank > PLX_MAX_RANK || !shape) return tensor;
    tensor.rank = rank;
    int64_t stride = 1;
    for (int axis = rank - 1; axis >= 0; axis--) {
        tensor.shape[axis] = shape[axis];
        tensor.stride[axis] = stride;
        /* An impossible product leaves a stride that tensor_check refuses. */
        if (__builtin_mul_overflow(stride, shape[axis], &stride)) stride = -1;
    }
    return tensor;
}

struct plx_tensor plx_tensor_4d(void *data, plx_dtype dtype, int64_t batch, int64_t time,
                                int64_t heads, int64_t channels)
{
    return plx_tensor_dense(data, dtype, 4, (const int64_t[]){batch, time, heads, channels});
}

struct plx_tensor plx_tensor_slice(struct plx_tensor tensor, int axis, int64_t start, int64_t count)
{
    bool possible = axis >= 0 && axis < tensor.rank && tensor.rank <= PLX_MAX_RANK && start >= 0 &&
                    count >= 0 && start <= tensor.shape[axis] &&
                    count <= tensor.shape[axis] - start;
    if (!possible) {
        tensor.rank = 0;
        return tensor;
    }
    if (tensor.data) tensor.data = tensor_at(&tensor, start * tensor.stride[axis]);
    tensor.shape[axis] = count;
    return tensor;
}

struct plx_tensor plx_tensor_split_heads(struct plx_tensor tensor, int64_t heads)
{
    int last = tensor.rank - 1;
    if (tensor.rank < 1 || tensor.rank >= PLX_MAX_RANK || heads < 1 ||
        tensor.shape[last] % heads != 0) {
        tensor.rank = 0;
        return tensor;
    }
    int64_t channels = tensor.shape[last] / heads;
    tensor.shape[last] = heads;
    tensor.shape[last + 1] = channels;
    tensor.stride[last + 1] = tensor.stride[last];
    tensor.stride[last] *= channels;
    tensor.rank += 1;
    return tensor;
}

int64_t plx_tensor_count(const struct plx_tensor *tensor)
{
    if (!tensor || tensor->rank < 1 || tensor->rank > PLX_MAX_RANK) return 0;
    int64_t count = 1;
    for (int axis = 0; axis < tensor->rank; axis++) count *= tensor->shape[axis];
    return count;
}

plx_status tensor_check(plx_context *context, const char *name, const struct plx_tensor *tensor)
{
    CHECK(context, tensor->rank >= 1 && tensor->rank <= PLX_MAX_RANK, PLX_INVALID_ARGUMENT,
          "%s: rank %d is not in 1..%d", name, tensor->rank, PLX_MAX_RANK);
    CHECK(context, plx_dtype_size(tensor->dtype) > 0, PLX_INVALID_ARGUMENT,
          "%s: dtype %d is not a dtype", name, (int)tensor->dtype);
    CHECK(context, tensor->device == context->device, PLX_INVALID_ARGUMENT,
          "%s: device %d differs from the device %d of the context", name, (int)tensor->device,
          (int)context->device);
    int64_t reach = (int64_t)plx_dtype_size(tensor->dtype);
    for (int axis = 0; axis < tensor->rank; axis++) {
        int64_t extent = tensor->shape[axis], stride = tensor->stride[axis], span;
        CHECK(context, extent >= 0 && extent <= INT32_MAX, PLX_INVALID_ARGUMENT,
              "%s: extent %" PRId64 " of axis %d is not in 0..%d", name, extent, axis, INT32_MAX);
        CHECK(context, stride >= 0, PLX_INVALID_ARGUMENT,
              "%s: stride %" PRId64 " of axis %d is negative", name, stride, axis);
        bool fits = !__builtin_mul_overflow(extent, stride, &span) &&
                    !__builtin_mul_overflow(span, (int64_t)plx_dtype_size(tensor->dtype), &span) &&
                    !__builtin_add_overflow(reach, span, &reach);
        CHECK(context, fits, PLX_INVALID_ARGUMENT,
              "%s: extent %" PRId64 " with stride %" PRId64 " of axis %d exceeds the address space",
              name, extent, stride, axis);
    }
    int last = tensor->rank - 1;
    CHECK(context, tensor->shape[last] <= 1 || tensor->stride[last] == 1, PLX_INVALID_ARGUMENT,
          "%s: stride %" PRId64 " of the last axis must be 1", name, tensor->stride[last]);
    return PLX_OK;
}

plx_status tensor_check_written(plx_context *context, const char *name,
                                const struct plx_tensor *tensor)
{
    if (plx_tensor_count(tensor) == 0) return PLX_OK;
    for (int axis = 0; axis < tensor->rank; axis++)
        CHECK(context, tensor->shape[axis] <= 1 || tensor->stride[axis] > 0, PLX_INVALID_ARGUMENT,
              "%s: stride 0 of axis %d makes its %" PRId64 " entries share memory", name, axis,
              tensor->shape[axis]);
    return PLX_OK;
}
