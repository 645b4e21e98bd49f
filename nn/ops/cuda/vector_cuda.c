/* vector_cuda.c: operations of ops_cuda over plain lists of numbers: checks, then launches. */
#include "ops/check.h"
#include "ops/cuda/cuda_state.h"
#include "ops/cuda/launch.h"

static size_t bytes_of(const struct plx_tensor *tensor)
{
    return (size_t)plx_tensor_count(tensor) * plx_dtype_size(tensor->dtype);
}

plx_status cuda_zero(struct backend *be, const struct plx_tensor *y)
{
    TRY(check_zero(be, y));
    size_t bytes = bytes_of(y);
    return bytes > 0 ? be->device->fill(y->data, 0, bytes, be->stream, be->err) : PLX_OK;
}

/* One f32 and the other bf16, in groups of eight on addresses of 16. */
static bool is_cast(const struct plx_tensor *y, const struct plx_tensor *x)
{
    bool types = (y->dtype == PLX_BF16 && x->dtype == PLX_F32) ||
                 (y->dtype == PLX_F32 && x->dtype == PLX_BF16);
    return types && plx_tensor_count(y) % 8 == 0 && (uintptr_t)y->data % 16 == 0 &&
           (uintptr_t)x->data % 16 == 0;
}

plx_status cuda_copy(struct backend *be, const struct plx_tensor *y, const struct plx_tensor *x)
{
    TRY(check_copy(be, y, x));
    bool dense = check_is_dense(y) && check_is_dense(x);
    if (plx_tensor_count(y) == 0) return PLX_OK;
    if (dense && y->dtype == x->dtype)
        return be->device->copy(y->data, x->data, bytes_of(y), be->stream, be->err);
    if (dense && is_cast(y, x))
        return cuda_launched(
            be, "copy",
            launch_cast(be->stream, y->dtype, y->data, x->data, plx_tensor_count(y) / 8));
    return cuda_launched(be, "copy", launch_copy(be->stream, y, x));
}

plx_status cuda_add(struct backend *be, const struct plx_tensor *y, const struct plx_tensor *a,
                    const struct plx_tensor *b)
{
    TRY(check_add(be, y, a, b));
    return cuda_launched(
        be, "add",
        launch_add(be->stream, y->dtype, y->data, a->data, b->data, plx_tensor_count(y)));
}

plx_status cuda_sum(struct backend *be, const struct plx_tensor *sum, const struct plx_tensor *x)
{
    TRY(check_sum(be, sum, x));
    return cuda_launched(be, "sum",
                         launch_sum(be->stream, x->dtype, sum->data, x->data, plx_tensor_count(x)));
}
