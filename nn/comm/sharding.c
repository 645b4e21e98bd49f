/* sharding.c: see sharding.h. */
#include "comm/sharding.h"

#include <stdlib.h>

/* ---- Owners ---- */

static int least_loaded(const double *loads, int ranks)
{
    int least = 0;
    for (int r = 1; r < ranks; r++)
        if (loads[r] < loads[least]) least = r;
    return least;
}

/* The most costly parameter without an owner; -1: all have one. */
static int next_to_deal(const struct sharding *sharding, const double *costs)
{
    int next = -1;
    for (int i = 0; i < sharding->params->count; i++)
        if (sharding->owners[i] < 0 && (next < 0 || costs[i] > costs[next])) next = i;
    return next;
}

static plx_status deal_out(struct sharding *sharding, const struct optim_config *config)
{
    const struct param_list *params = sharding->params;
    const int ranks = comm_size(sharding->comm);
    double *loads = calloc((size_t)ranks + (size_t)params->count, sizeof *loads);
    sharding->owners = malloc((size_t)params->count * sizeof *sharding->owners);
    if (loads == NULL || sharding->owners == NULL) {
        free(loads);
        return error_set(sharding->be->err, PLX_OUT_OF_MEMORY,
                         "no memory for the owners of %d parameters", params->count);
    }
    double *costs = loads + ranks;
    for (int i = 0; i < params->count; i++) {
        costs[i] = params->items[i].frozen ? 0 : optim_cost(config, &params->items[i]);
        sharding->owners[i] = -1;
    }
    for (int i; (i = next_to_deal(sharding, costs)) >= 0;) {
        int owner = least_loaded(loads, ranks);
        loads[owner] += costs[i];
        sharding->owners[i] = owner;
        params->items[i].remote = owner != comm_rank(sharding->comm);
    }
    free(loads);
    return PLX_OK;
}

plx_status sharding_create(struct sharding *sharding, struct comm *comm, struct backend *be,
                           struct param_list *params, const struct optim_config *config)
{
    *sharding = (struct sharding){.comm = comm, .be = be, .params = params};
    if (comm == NULL) return PLX_OK;
    TRY(deal_out(sharding, config));
    TRY(be->device->stream_create(&sharding->stream, be->err));
    TRY(be->device->event_create(&sharding->begin, be->err));
    return be->device->event_create(&sharding->end, be->err);
}

void sharding_destroy(struct sharding *sharding)
{
    if (sharding->comm == NULL) return;
    const struct device *device = sharding->be->device;
    if (sharding->stream != NULL) device->stream_destroy(sharding->stream);
    if (sharding->begin != NULL) device->event_destroy(sharding->begin);
    if (sharding->end != NULL) device->event_destroy(sharding->end);
    free(sharding->owners);
    *sharding = (struct sharding){0};
}

/* ---- Exchanges ---- */

/* The exchange stream waits for what the backend has queued so far. */
static plx_status fork_exchange(const struct sharding *sharding)
{
    const struct backend *be = sharding->be;
    TRY(be->device->event_record(sharding->begin, be->stream, be->err));
    return be->device->event_wait(sharding->begin, sharding->stream, be->err);
}

/* And the backend's stream for what is queued on it. */
static plx_status join_exchange(const struct sharding *sharding)
{
    const struct backend *be = sharding->be;
    TRY(be->device->event_record(sharding->end, sharding->stream, be->err));
    return be->device->event_wait(sharding->end, be->stream, be->err);
}

/* One exchange of every parameter first .. first + count - 1 that is trained, queued as one. */
typedef plx_status (*exchange)(const struct sharding *sharding, const struct param *param,
                               int owner);

static plx_status exchange_all(const struct sharding *sharding, int first, int count, exchange of)
{
    const struct comm_ops *ops = sharding->comm->ops;
    TRY(fork_exchange(sharding));
    TRY(ops->group_begin(sharding->comm));
    for (int i = first; i < first + count; i++)
        if (!sharding->params->items[i].frozen)
            TRY(of(sharding, &sharding->params->items[i], sharding->owners[i]));
    return ops->group_end(sharding->comm);
}

static plx_status reduce_grad(const struct sharding *sharding, const struct param *param, int owner)
{
    return sharding->comm->ops->reduce(sharding->comm, &param->grad, owner, sharding->stream);
}

plx_status sharding_reduce(void *sharding, int first, int count)
{
    TRY(exchange_all(sharding, first, count, reduce_grad));
    return first == 0 ? join_exchange(sharding) : PLX_OK;
}

static plx_status spread_active(const struct sharding *sharding, const struct param *param,
                                int owner)
{
    return sharding->comm->ops->broadcast(sharding->comm, &param->active, owner, sharding->stream);
}

/* Values that are not what forward reads, which owners alone have brought up to date. */
static plx_status spread_value(const struct sharding *sharding, const struct param *param,
                               int owner)
{
    if (param->active.data == param->value.data) return PLX_OK;
    return sharding->comm->ops->broadcast(sharding->comm, &param->value, owner, sharding->stream);
}

static plx_status sum_squares(struct sharding *sharding, const struct plx_tensor *squares)
{
    TRY(fork_exchange(sharding));
    TRY(sharding->comm->ops->all_reduce(sharding->comm, squares, sharding->stream));
    return join_exchange(sharding);
}

plx_status sharding_step(struct sharding *sharding, struct optim *optim)
{
    TRY(optim_measure(optim));
    if (sharding->comm == NULL) return optim_update(optim);
    TRY(sum_squares(sharding, optim_squares(optim)));
    TRY(optim_update(optim));
    TRY(exchange_all(sharding, 0, sharding->params->count, spread_active));
    TRY(join_exchange(sharding));
    return backend_requantise(sharding->be, sharding->params, true);
}

/* ---- For a checkpoint ---- */

static size_t state_bytes(const struct optim_tensor *state)
{
    return (size_t)plx_tensor_count(&state->tensor) * plx_dtype_size(state->tensor.dtype);
}

/* One state goes from its owner's device by the hosts into what rank 0 has borrowed for it. */
static plx_status collect_state(const struct sharding *sharding, const struct optim_tensor *state,
                                void *memory)
{
    const struct backend *be = sharding->be;
    const int owner = sharding->owners[state->param];
    const size_t bytes = state_bytes(state);
    if (owner == 0) return PLX_OK;
    if (comm_rank(sharding->comm) == owner)
        TRY(be->device->download(memory, state->tensor.data, bytes, be->stream, be->err));
    void *data = comm_rank(sharding->comm) == 0 ? state->tensor.data : memory;
    return comm_give(sharding->comm, owner, data, bytes);
}

static plx_status collect_states(const struct sharding *sharding, struct optim *optim)
{
    struct optim_tensor state;
    size_t largest = 0;
    if (comm_rank(sharding->comm) == 0) TRY(optim_borrow(optim));
    for (int i = 0; optim_state(optim, i, &state); i++)
        if (state_bytes(&state) > largest) largest = state_bytes(&state);
    void *memory = malloc(largest + 1);
    REQUIRE(sharding->be->err, memory != NULL, PLX_OUT_OF_MEMORY,
            "no memory for %zu bytes of optimiser state on the host", largest);
    plx_status status = PLX_OK;
    for (int i = 0; status == PLX_OK && optim_state(optim, i, &state); i++)
        status = collect_state(sharding, &state, memory);
    free(memory);
    return status;
}

plx_status sharding_collect(struct sharding *sharding, struct optim *optim)
{
    if (sharding->comm == NULL) return PLX_OK;
    TRY(exchange_all(sharding, 0, sharding->params->count, spread_value));
    TRY(join_exchange(sharding));
    TRY(collect_states(sharding, optim));
    return sharding->be->device->wait(sharding->be->stream, sharding->be->err);
}
