/* packed_cuda.c: operations of ops_cuda on packed weights: checks, then launches. */
#include "ops/check.h"
#include "ops/cuda/cuda_state.h"
#include "ops/cuda/launch.h"

static const float *scale_of(const struct packed *packed)
{
    return packed->kind == PACKING_INT8 ? packed->scale : NULL;
}

plx_status cuda_project(struct backend *be, const struct plx_tensor *y, const struct plx_tensor *x,
                        const struct packed *weight)
{
    TRY(check_project(be, y, x, weight));
    return cuda_launched(be, "project",
                         launch_project(be->stream, x->dtype, y->data, x->data, weight->data,
                                        scale_of(weight), x->shape[0], weight->rows,
                                        weight->columns));
}

plx_status cuda_unpack(struct backend *be, const struct plx_tensor *y, const struct packed *table,
                       const struct plx_tensor *ids)
{
    TRY(check_unpack(be, y, table, ids));
    return cuda_launched(be, "unpack",
                         launch_unpack(be->stream, y->dtype, y->data, table->data, scale_of(table),
                                       ids->data, plx_tensor_count(ids), table->rows,
                                       table->columns));
}
