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
    CHECK(context, tensor->dtype != PLX_I32 && (rank == 4 || tensor->dtype != PLX_BF16),
          PLX_INVALID_ARGUMENT, "%s: dtype %s is not one of %s", name,
          plx_dtype_name(tensor->dtype), rank == 4 ? "f32, bf16, f64" : "f32, f64");
    for (int axis = 0; axis < rank; axis++) {
        CHECK(context, tensor->shape[axis] == like->shape[axis], PLX_INVALID_ARGUMENT,
              "%s: extent %" PRId64 " of axis %d differs from the %" PRId64 " of parts[0].o", name,
              tensor->shape[axis], axis, like->shape[axis]);
        CHECK(context,
              index >= 0 || tensor->shape[axis] <= 1 || tensor->stride[axis] > 0 ||
                  plx_tensor_count(tensor) == 0,
              PLX_INVALID_ARGUMENT,
              "%s: stride 0 of axis %d makes its %" PRId64 " entries share memory", name, axis,
              tensor->shape[axis]);
    }
    CHECK(context, tensor->data || plx_tensor_count(tensor) == 0, PLX_INVALID_ARGUMENT,
          "%s: data is NULL", name);
    return PLX_OK;
}

double attention_merge_get(const struct plx_tensor *tensor, int64_t offset)
{
    if (tensor->dtype == PLX_F32) return ((const float *)tensor->data)[offset];
    if (tensor->dtype == PLX_F64) return ((const double *)tensor->data)[offset];
    return dtype_bf16_to_f32(((const uint16_t *)tensor->data)[offset]);
}

void attention_merge_set(const struct plx_tensor *tensor, int64_t offset, double value)
{
    if (tensor->dtype == PLX_F32)
        ((float *)tensor->data)[offset] = (float)value;
    else if (tensor->dtype == PLX_F64)
        ((double *)tensor->data)[offset] = value;
    else
        ((uint16_t *)tensor->data)[offset] = dtype_f64_to_bf16(value);
}

double attention_merge_lse(double a, double b)
{
    double larger = a > b ? a : b, smaller = a > b ? b : a;
    if (smaller == -INFINITY) return larger;
    return larger + log1p(exp(smaller - larger));
}
