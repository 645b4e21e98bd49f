/* attention_merge.c: see attention_merge.h. */
#include "attention/attention_merge.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#include "core/dtype.h"

plx_status attention_merge_check(plx_context *context, int index, const char *member,
                                 const struct plx_tensor *tensor, int rank,
                                 const struct plx_tensor *like)
{
    char name[64];
    if (index < 0)
        snprintf(name, sizeof name, "out.%s", member);
    else
        snprintf(name, sizeof name, "parts[%d].%s", index, member);
    TRY(tensor_check(context, name, tensor));
    CHECK(context, tensor->rank == rank, PLX_INVALID_ARGUMENT, "%s: rank is %d but must be %d",
          name, tensor->rank, rank);
    bool full = tensor->dtype == PLX_F32 || tensor->dtype == PLX_F64;
    bool half = tensor->dtype == PLX_BF16 || tensor->dtype == PLX_F16;
    CHECK(context, full || (half && rank == 4), PLX_INVALID_ARGUMENT,
          "%s: dtype %s is not one of %s", name, plx_dtype_name(tensor->dtype),
          rank == 4 ? "f32, bf16, f16, f64" : "f32, f64");
    for (int axis = 0; axis < rank; axis++)
        CHECK(context, tensor->shape[axis] == like->shape[axis], PLX_INVALID_ARGUMENT,
              "%s: extent %" PRId64 " of axis %d differs from the %" PRId64 " of parts[0].o", name,
              tensor->shape[axis], axis, like->shape[axis]);
    if (index < 0) TRY(tensor_check_written(context, name, tensor));
    CHECK(context, tensor->data || plx_tensor_count(tensor) == 0, PLX_INVALID_ARGUMENT,
          "%s: data is NULL", name);
    return PLX_OK;
}

double attention_merge_get(const struct plx_tensor *tensor, int64_t offset)
{
    return dtype_load(tensor->data, tensor->dtype, offset);
}

void attention_merge_set(const struct plx_tensor *tensor, int64_t offset, double value)
{
    dtype_store(tensor->data, tensor->dtype, offset, value);
}

double attention_merge_lse(double a, double b)
{
    double larger = a > b ? a : b, smaller = a > b ? b : a;
    if (smaller == -INFINITY) return larger;
    return larger + log1p(exp(smaller - larger));
}
