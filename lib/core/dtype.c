/* dtype.c: sizes and names of element types, and the conversion of whole views. */
#include "core/dtype.h"

#include <inttypes.h>

#include "core/tensor.h"

static const struct {
    const char *name;
    size_t size;
} dtypes[] = {
    [PLX_F32] = {"f32", 4}, [PLX_BF16] = {"bf16", 2}, [PLX_F64] = {"f64", 8},
    [PLX_I32] = {"i32", 4}, [PLX_F16] = {"f16", 2},   [PLX_F8E4M3] = {"f8e4m3", 1},
};

static bool dtype_exists(plx_dtype dtype)
{
    return (size_t)dtype < sizeof dtypes / sizeof dtypes[0];
}

size_t plx_dtype_size(plx_dtype dtype)
{
    return dtype_exists(dtype) ? dtypes[dtype].size : 0;
}

const char *plx_dtype_name(plx_dtype dtype)
{
    return dtype_exists(dtype) ? dtypes[dtype].name : "unknown";
}

/* One run of count elements; each step is exact or rounds once. */
static void dtype_convert_run(const void *src, plx_dtype from, int64_t src_step, void *dst,
                              plx_dtype to, int64_t dst_step, int64_t count)
{
    for (int64_t n = 0; n < count; n++)
        dtype_store(dst, to, n * dst_step, dtype_load(src, from, n * src_step));
}

static plx_status dtype_check_pair(plx_context *context, const struct plx_tensor *src,
                                   const struct plx_tensor *dst)
{
    TRY(tensor_check(context, "src", src));
    TRY(tensor_check(context, "dst", dst));
    CHECK(context, dtype_is_float(src->dtype) && dtype_is_float(dst->dtype), PLX_INVALID_ARGUMENT,
          "src: %s to %s is not a conversion between floating-point dtypes",
          plx_dtype_name(src->dtype), plx_dtype_name(dst->dtype));
    CHECK(context, src->rank == dst->rank, PLX_INVALID_ARGUMENT,
          "dst: rank %d differs from the rank %d of src", dst->rank, src->rank);
    for (int axis = 0; axis < src->rank; axis++)
        CHECK(context, src->shape[axis] == dst->shape[axis], PLX_INVALID_ARGUMENT,
              "dst: extent %" PRId64 " of axis %d differs from the %" PRId64 " of src",
              dst->shape[axis], axis, src->shape[axis]);
    TRY(tensor_check_written(context, "dst", dst));
    bool pointers = plx_tensor_count(src) == 0 || (src->data && dst->data);
    CHECK(context, pointers, PLX_INVALID_ARGUMENT, "%s: data is NULL", src->data ? "dst" : "src");
    return PLX_OK;
}

plx_status plx_convert(plx_context *context, const struct plx_tensor *src,
                       const struct plx_tensor *dst)
{
    if (!context) return PLX_INVALID_ARGUMENT;
    context_begin(context);
    CHECK(context, src && dst, PLX_INVALID_ARGUMENT, "%s: is NULL", src ? "dst" : "src");
    TRY(dtype_check_pair(context, src, dst));
    /* Leading axes are padded with extent 1 so that every rank takes the same loops. */
    int64_t shape[PLX_MAX_RANK] = {1, 1, 1, 1}, from[PLX_MAX_RANK] = {0}, to[PLX_MAX_RANK] = {0};
    for (int axis = 0; axis < src->rank; axis++) {
        int padded = PLX_MAX_RANK - src->rank + axis;
        shape[padded] = src->shape[axis];
        from[padded] = src->stride[axis];
        to[padded] = dst->stride[axis];
    }
    if (plx_tensor_count(src) == 0) return PLX_OK;
    for (int64_t a = 0; a < shape[0]; a++)
        for (int64_t b = 0; b < shape[1]; b++)
            for (int64_t c = 0; c < shape[2]; c++)
                dtype_convert_run(
                    tensor_at(src, a * from[0] + b * from[1] + c * from[2]), src->dtype, from[3],
                    tensor_at(dst, a * to[0] + b * to[1] + c * to[2]), dst->dtype, to[3], shape[3]);
    return PLX_OK;
}
