/* sharding.h: how ranks share the work of a step behind the gradients: every parameter has one rank
 * that owns it (ZeRO's first stage).
 *
 *     backward      a block's gradients go to their owners, which receive the sum over ranks, while
 *                   earlier blocks are still at work: on a stream of its own, in the order in which
 *                   the model tells of them
 *     norm          every owner knows the squares of what it owns; their list, zero elsewhere, is
 *                   added up over ranks, so all have the same norm, bit for bit that of one rank
 *     update        owners update what they own, and alone have its optimiser state
 *     spread        what forward reads goes from the owners to all: the values, or, where products
 *                   read copies in another dtype, these copies alone
 *     collect       before a checkpoint: what spread left out, values in the storage dtype and
 *                   optimiser states, for rank 0 to write
 *
 * A parameter is never cut, so that Muon's owner has the whole matrix. Owners are dealt out by the
 * time of an update, the largest first, each to the rank that has least. */
#ifndef NN_SHARDING_H
#define NN_SHARDING_H

#include "comm/comm.h"
#include "optim/optim.h"

/* With comm NULL there is one rank, which owns everything, and every function does nothing. */
struct sharding {
    struct comm *comm;
    struct backend *be;
    struct param_list *params;
    int *owners;             /* [params], a rank each */
    plx_stream stream;       /* what ranks exchange is queued here */
    device_event begin, end; /* of an exchange, on the backend's stream and on that one */
};

/* Marks the parameters of others as remote, so it comes before optim_create. */
plx_status sharding_create(struct sharding *sharding, struct comm *comm, struct backend *be,
                           struct param_list *params, const struct optim_config *config);
void sharding_destroy(struct sharding *sharding);

/* A model_gradients_queued: begins to send these gradients to their owners. With the first
 * parameters', which come last, what is queued from then on waits for all of them. */
plx_status sharding_reduce(void *sharding, int first, int count);
/* The update of a step that optim_begin has begun, between the ranks' gradients and the weights all
 * of them read. */
plx_status sharding_step(struct sharding *sharding, struct optim *optim);
/* Makes rank 0's values whole, and on it borrows and fills the states of the others, which
 * optim_return releases. When it returns, this rank waits for no other one any more. */
plx_status sharding_collect(struct sharding *sharding, struct optim *optim);

#endif
