/* comm_nccl.c: NCCL's row of comm.h.
 *
 * libnccl.so.2 is loaded when a run has several GPUs, so that the program starts where it is
 * absent. Only types come from nccl.h; the functions called are those of the table below, all of
 * them in every NCCL since 2.4. NVLink multicast (NCCL_NVLS_ENABLE) is off unless the environment
 * says otherwise: what it gains is small here, and where several guests share a host's GPUs it may
 * disturb the others. */
#include "comm/comm.h"

#include <dlfcn.h>
#include <nccl.h>
#include <stdlib.h>

struct nccl_api {
    ncclResult_t (*get_version)(int *version);
    ncclResult_t (*get_unique_id)(ncclUniqueId *id);
    ncclResult_t (*comm_init_rank)(ncclComm_t *comm, int ranks, ncclUniqueId id, int rank);
    ncclResult_t (*comm_destroy)(ncclComm_t comm);
    ncclResult_t (*comm_abort)(ncclComm_t comm);
    const char *(*error_string)(ncclResult_t result);
    ncclResult_t (*all_reduce)(const void *send, void *receive, size_t count, ncclDataType_t type,
                               ncclRedOp_t op, ncclComm_t comm, cudaStream_t stream);
    ncclResult_t (*reduce)(const void *send, void *receive, size_t count, ncclDataType_t type,
                           ncclRedOp_t op, int root, ncclComm_t comm, cudaStream_t stream);
    ncclResult_t (*broadcast)(const void *send, void *receive, size_t count, ncclDataType_t type,
                              int root, ncclComm_t comm, cudaStream_t stream);
    ncclResult_t (*group_start)(void);
    ncclResult_t (*group_end)(void);
};

/* Names of the functions, in the order of struct nccl_api. */
static const char *const nccl_names[] = {
    "ncclGetVersion", "ncclGetUniqueId",    "ncclCommInitRank", "ncclCommDestroy",
    "ncclCommAbort",  "ncclGetErrorString", "ncclAllReduce",    "ncclReduce",
    "ncclBroadcast",  "ncclGroupStart",     "ncclGroupEnd",
};
enum { NCCL_FUNCTIONS = sizeof nccl_names / sizeof *nccl_names };
_Static_assert(sizeof(struct nccl_api) == NCCL_FUNCTIONS * sizeof(void *),
               "every function of the table has a name");

/* The header's own prototypes must be those of the table. */
_Static_assert(__builtin_types_compatible_p(__typeof__(&ncclReduce),
                                            __typeof__(((struct nccl_api *)0)->reduce)) &&
                   __builtin_types_compatible_p(__typeof__(&ncclAllReduce),
                                                __typeof__(((struct nccl_api *)0)->all_reduce)) &&
                   __builtin_types_compatible_p(__typeof__(&ncclBroadcast),
                                                __typeof__(((struct nccl_api *)0)->broadcast)) &&
                   __builtin_types_compatible_p(__typeof__(&ncclCommInitRank),
                                                __typeof__(((struct nccl_api *)0)->comm_init_rank)),
               "nccl.h has other prototypes than this file expects");

struct nccl {
    void *library;
    struct nccl_api api;
    ncclComm_t comm;
};

static plx_status nccl_check(struct comm *comm, const char *call, ncclResult_t result)
{
    const struct nccl *nccl = comm->state;
    /* A rank that died shows as a remote error or a closed connection, whatever came first. */
    if (result == ncclRemoteError) comm->hub.lost = true;
    REQUIRE(comm->err, result == ncclSuccess, PLX_DEVICE_ERROR, "nccl: %s: %s", call,
            nccl->api.error_string(result));
    return PLX_OK;
}

/* ---- Opening ---- */

static plx_status nccl_load(struct comm *comm, struct nccl *nccl)
{
    nccl->library = dlopen("libnccl.so.2", RTLD_NOW | RTLD_LOCAL);
    REQUIRE(comm->err, nccl->library != NULL, PLX_UNSUPPORTED,
            "several GPUs need NCCL, and libnccl.so.2 cannot be loaded (is its folder in "
            "LD_LIBRARY_PATH?): %s",
            dlerror());
    void **functions = (void **)&nccl->api;
    for (int i = 0; i < NCCL_FUNCTIONS; i++) {
        functions[i] = dlsym(nccl->library, nccl_names[i]);
        REQUIRE(comm->err, functions[i] != NULL, PLX_UNSUPPORTED,
                "libnccl.so.2 is not one that this program knows: it has no %s", nccl_names[i]);
    }
    return PLX_OK;
}

static plx_status nccl_connect(struct comm *comm, struct nccl *nccl)
{
    ncclUniqueId id = {{0}};
    if (setenv("NCCL_NVLS_ENABLE", "0", 0) != 0)
        return error_set(comm->err, PLX_OUT_OF_MEMORY, "no memory for NCCL_NVLS_ENABLE");
    if (comm->rank == 0) TRY(nccl_check(comm, "ncclGetUniqueId", nccl->api.get_unique_id(&id)));
    TRY(hub_broadcast(&comm->hub, 0, HUB_BYTES, &id, sizeof id));
    return nccl_check(comm, "ncclCommInitRank",
                      nccl->api.comm_init_rank(&nccl->comm, comm->size, id, comm->rank));
}

static void nccl_close(struct comm *comm, bool orderly)
{
    struct nccl *nccl = comm->state;
    if (nccl == NULL) return;
    if (nccl->comm != NULL && orderly) nccl->api.comm_destroy(nccl->comm);
    if (nccl->comm != NULL && !orderly) nccl->api.comm_abort(nccl->comm);
    if (nccl->library != NULL) dlclose(nccl->library);
    free(nccl);
    comm->state = NULL;
}

static plx_status nccl_open(struct comm *comm)
{
    struct nccl *nccl = calloc(1, sizeof *nccl);
    REQUIRE(comm->err, nccl != NULL, PLX_OUT_OF_MEMORY, "no memory for NCCL");
    comm->state = nccl;
    plx_status status = nccl_load(comm, nccl);
    /* A rank without NCCL would leave the others waiting for it inside ncclCommInitRank. */
    double without = status != PLX_OK;
    plx_status told = comm_sum(comm, &without, 1);
    if (status == PLX_OK) status = told;
    if (status == PLX_OK && without > 0)
        status = error_set(comm->err, PLX_UNSUPPORTED, "%.0f of %d ranks cannot load NCCL", without,
                           comm->size);
    if (status == PLX_OK) status = nccl_connect(comm, nccl);
    if (status != PLX_OK) nccl_close(comm, false);
    return status;
}

/* ---- Tensors ---- */

static plx_status nccl_dtype(struct comm *comm, const struct plx_tensor *y, ncclDataType_t *type)
{
    static const struct {
        plx_dtype dtype;
        ncclDataType_t type;
    } types[] = {{PLX_F32, ncclFloat32},
                 {PLX_F64, ncclFloat64},
                 {PLX_BF16, ncclBfloat16},
                 {PLX_I32, ncclInt32}};
    *type = ncclNumTypes;
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        if (types[i].dtype != y->dtype) continue;
        *type = types[i].type;
        return PLX_OK;
    }
    return error_set(comm->err, PLX_UNSUPPORTED, "ranks cannot share tensors of dtype %s",
                     plx_dtype_name(y->dtype));
}

static plx_status nccl_all_reduce(struct comm *comm, const struct plx_tensor *y, plx_stream stream)
{
    const struct nccl *nccl = comm->state;
    ncclDataType_t type;
    TRY(nccl_dtype(comm, y, &type));
    return nccl_check(comm, "ncclAllReduce",
                      nccl->api.all_reduce(y->data, y->data, (size_t)plx_tensor_count(y), type,
                                           ncclSum, nccl->comm, stream));
}

static plx_status nccl_reduce(struct comm *comm, const struct plx_tensor *y, int owner,
                              plx_stream stream)
{
    const struct nccl *nccl = comm->state;
    ncclDataType_t type;
    TRY(nccl_dtype(comm, y, &type));
    return nccl_check(comm, "ncclReduce",
                      nccl->api.reduce(y->data, y->data, (size_t)plx_tensor_count(y), type, ncclSum,
                                       owner, nccl->comm, stream));
}

static plx_status nccl_broadcast(struct comm *comm, const struct plx_tensor *y, int owner,
                                 plx_stream stream)
{
    const struct nccl *nccl = comm->state;
    ncclDataType_t type;
    TRY(nccl_dtype(comm, y, &type));
    return nccl_check(comm, "ncclBroadcast",
                      nccl->api.broadcast(y->data, y->data, (size_t)plx_tensor_count(y), type,
                                          owner, nccl->comm, stream));
}

static plx_status nccl_group_begin(struct comm *comm)
{
    const struct nccl *nccl = comm->state;
    return nccl_check(comm, "ncclGroupStart", nccl->api.group_start());
}

static plx_status nccl_group_end(struct comm *comm)
{
    const struct nccl *nccl = comm->state;
    return nccl_check(comm, "ncclGroupEnd", nccl->api.group_end());
}

const struct comm_ops comm_nccl = {
    .name = "nccl",
    .device = PLX_CUDA,
    .open = nccl_open,
    .close = nccl_close,
    .all_reduce = nccl_all_reduce,
    .reduce = nccl_reduce,
    .broadcast = nccl_broadcast,
    .group_begin = nccl_group_begin,
    .group_end = nccl_group_end,
};
