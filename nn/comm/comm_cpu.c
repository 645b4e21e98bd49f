/* comm_cpu.c: tensors of ranks on the CPU, through the hub; see comm.h. Rank 0 adds the others'
 * tensors to its own in the order of ranks, a piece at a time. */
#include "comm/comm.h"

enum { PIECE = 8192 }; /* elements */

static plx_status cpu_open(struct comm *comm)
{
    (void)comm;
    return PLX_OK;
}

static void cpu_close(struct comm *comm, bool orderly)
{
    (void)comm, (void)orderly;
}

static size_t tensor_bytes(const struct plx_tensor *y)
{
    return (size_t)plx_tensor_count(y) * plx_dtype_size(y->dtype);
}

static void add(plx_dtype dtype, void *y, const void *x, int64_t count)
{
    for (int64_t i = 0; dtype == PLX_F32 && i < count; i++)
        ((float *)y)[i] += ((const float *)x)[i];
    for (int64_t i = 0; dtype == PLX_F64 && i < count; i++)
        ((double *)y)[i] += ((const double *)x)[i];
}

static plx_status receive_sum(struct comm *comm, int from, const struct plx_tensor *y)
{
    double piece[PIECE];
    const int64_t total = plx_tensor_count(y);
    const size_t size = plx_dtype_size(y->dtype);
    TRY(hub_receive_head(&comm->hub, from, HUB_TENSOR, tensor_bytes(y)));
    for (int64_t first = 0; first < total; first += PIECE) {
        int64_t count = total - first < PIECE ? total - first : PIECE;
        TRY(hub_receive_piece(&comm->hub, from, piece, (size_t)count * size));
        add(y->dtype, (char *)y->data + (size_t)first * size, piece, count);
    }
    return PLX_OK;
}

/* The sum of all ranks' y on rank 0. */
static plx_status sum_on_hub(struct comm *comm, const struct plx_tensor *y)
{
    REQUIRE(comm->err, y->dtype == PLX_F32 || y->dtype == PLX_F64, PLX_UNSUPPORTED,
            "ranks on the CPU add f32 and f64, not %s", plx_dtype_name(y->dtype));
    if (comm->rank > 0) return hub_send(&comm->hub, 0, HUB_TENSOR, y->data, tensor_bytes(y));
    for (int r = 1; r < comm->size; r++) TRY(receive_sum(comm, r, y));
    return PLX_OK;
}

static plx_status cpu_broadcast(struct comm *comm, const struct plx_tensor *y, int owner,
                                plx_stream stream)
{
    (void)stream;
    return hub_broadcast(&comm->hub, owner, HUB_TENSOR, y->data, tensor_bytes(y));
}

static plx_status cpu_all_reduce(struct comm *comm, const struct plx_tensor *y, plx_stream stream)
{
    TRY(sum_on_hub(comm, y));
    return cpu_broadcast(comm, y, 0, stream);
}

static plx_status cpu_reduce(struct comm *comm, const struct plx_tensor *y, int owner,
                             plx_stream stream)
{
    (void)stream;
    TRY(sum_on_hub(comm, y));
    if (owner == 0) return PLX_OK;
    if (comm->rank == 0) return hub_send(&comm->hub, owner, HUB_TENSOR, y->data, tensor_bytes(y));
    return comm->rank == owner ? hub_receive(&comm->hub, 0, HUB_TENSOR, y->data, tensor_bytes(y))
                               : PLX_OK;
}

static plx_status cpu_group(struct comm *comm)
{
    (void)comm;
    return PLX_OK;
}

const struct comm_ops comm_cpu = {
    .name = "sockets",
    .device = PLX_CPU,
    .open = cpu_open,
    .close = cpu_close,
    .all_reduce = cpu_all_reduce,
    .reduce = cpu_reduce,
    .broadcast = cpu_broadcast,
    .group_begin = cpu_group,
    .group_end = cpu_group,
};
