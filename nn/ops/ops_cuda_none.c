/* ops_cuda_none.c: the table ops_cuda of a build without CUDA: it cannot be created. */
#include "op.h"

static plx_status none_create(struct backend *be)
{
    return error_set(be->err, PLX_UNSUPPORTED, "the cuda operations: this build has no CUDA");
}

static void none_destroy(struct backend *be)
{
    (void)be;
}

const struct ops ops_cuda = {
    .name = "cuda", .device = &device_cuda, .create = none_create, .destroy = none_destroy};
