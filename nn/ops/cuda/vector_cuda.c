/* vector_cuda.c: operations of ops_cuda over plain lists of numbers: checks, then launches. */
#include "ops/check.h"
#include "ops/cuda/cuda_state.h"
#include "ops/cuda/launch.h"

plx_status cuda_zero(struct backend *be, const struct plx_tensor *y)
{
    TRY(check_zero(be, y));
    size_t bytes = (size_t)plx_tensor_count(y) * plx_dtype_size(y->dtype);
    return bytes > 0 ? be->device->fill(y->data, 0, bytes, be->stream, be->err) : PLX_OK;
}

plx_status cuda_scale(struct backend *be, const struct plx_tensor *y, double factor)
{
    TRY(check_one(be, "scale", y));
    return cuda_launched(be, "scale",
                         launch_scale(be->stream, y->data, y->dtype, plx_tensor_count(y), factor));
}
