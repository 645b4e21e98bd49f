/* comm_nccl_none.c: NCCL's row of comm.h in a build without it: opening says so. */
#include "comm/comm.h"

static plx_status none_open(struct comm *comm)
{
    return error_set(comm->err, PLX_UNSUPPORTED,
                     "this build has no NCCL, so it trains on one GPU: nccl.h was not found beside "
                     "CUDA's headers");
}

const struct comm_ops comm_nccl = {.name = "nccl", .device = PLX_CUDA, .open = none_open};
