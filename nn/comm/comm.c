/* comm.c: meeting, agreeing, and numbers of the host; see comm.h. */
#include "comm/comm.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

/* Ranks load their program from a network at their own pace; five minutes are torch's choice too
 * for a first meeting. */
#define MEETING_SECONDS 300
/* For a rank that declines: ranks are started together. */
#define DECLINING_SECONDS 10

static double meeting_seconds(void)
{
    const char *text = getenv("PARALLAX_MEETING_SECONDS");
    double seconds = text != NULL ? atof(text) : 0;
    return seconds >= 1 ? seconds : MEETING_SECONDS;
}

plx_status comm_open(struct comm **comm, struct error *err)
{
    struct place place;
    *comm = NULL;
    TRY(place_read(&place, err));
    if (place.size == 1) return PLX_OK;
    struct comm *made = calloc(1, sizeof *made);
    REQUIRE(err, made != NULL, PLX_OUT_OF_MEMORY, "no memory for the ranks");
    *made = (struct comm){
        .rank = place.rank, .size = place.size, .local_rank = place.local_rank, .err = err};
    plx_status status = hub_open(&made->hub, &place, meeting_seconds(), err);
    if (status == PLX_OK)
        *comm = made;
    else
        free(made);
    return status;
}

void comm_decline(void)
{
    struct error unheard = {0};
    struct place place;
    struct hub hub;
    const double seconds = fmin(meeting_seconds(), DECLINING_SECONDS);
    if (place_read(&place, &unheard) != PLX_OK || place.size == 1) return;
    if (hub_open(&hub, &place, seconds, &unheard) == PLX_OK) hub_close(&hub);
}

plx_status comm_watch(struct comm *comm, double grace, hub_end end, void *user)
{
    return comm != NULL ? hub_watch_open(&comm->watch, &comm->hub, grace, end, user, comm->err)
                        : PLX_OK;
}

plx_status comm_attach(struct comm *comm, plx_device device)
{
    static const struct comm_ops *const rows[] = {&comm_cpu, &comm_nccl};
    if (comm == NULL) return PLX_OK;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (rows[i]->device != device) continue;
        TRY(rows[i]->open(comm));
        comm->ops = rows[i];
        return PLX_OK;
    }
    return error_set(comm->err, PLX_INTERNAL, "no ranks can share tensors of device kind %d",
                     (int)device);
}

void comm_abandon(struct comm *comm)
{
    if (comm == NULL) return;
    hub_watch_fail(comm->watch, comm->hub.lost, comm->err);
    if (comm->ops == NULL) return;
    comm->ops->close(comm, false);
    comm->ops = NULL;
}

void comm_close(struct comm *comm, bool orderly)
{
    if (comm == NULL) return;
    /* Ranks leave the barrier one by one, and the others' connections end. */
    hub_watch_close(comm->watch);
    orderly = orderly && comm_barrier(comm) == PLX_OK;
    if (comm->ops != NULL) comm->ops->close(comm, orderly);
    hub_close(&comm->hub);
    free(comm);
}

int comm_rank(const struct comm *comm)
{
    return comm != NULL ? comm->rank : 0;
}

int comm_size(const struct comm *comm)
{
    return comm != NULL ? comm->size : 1;
}

int comm_device_index(const struct comm *comm, plx_device kind)
{
    return comm != NULL && kind != PLX_CPU ? comm->local_rank : 0;
}

bool comm_lost(const struct comm *comm)
{
    return comm != NULL && comm->hub.lost;
}

void comm_hold(struct comm *comm)
{
    if (comm != NULL) hub_watch_hold(comm->watch);
}

void comm_release(struct comm *comm)
{
    if (comm != NULL) hub_watch_release(comm->watch);
}

void comm_loss_ends_with(struct comm *comm, const char *clause)
{
    if (comm != NULL) hub_watch_loss_ends_with(comm->watch, clause);
}

plx_status comm_sum(struct comm *comm, double *values, int count)
{
    return comm != NULL ? hub_sum(&comm->hub, values, count) : PLX_OK;
}

plx_status comm_barrier(struct comm *comm)
{
    double nothing = 0;
    return comm_sum(comm, &nothing, 1);
}

plx_status comm_agree(struct comm *comm, const char *what, uint64_t value)
{
    if (comm == NULL) return PLX_OK;
    uint64_t first = value;
    TRY(hub_broadcast(&comm->hub, 0, HUB_BYTES, &first, sizeof first));
    double different = first != value;
    TRY(comm_sum(comm, &different, 1));
    REQUIRE(comm->err, different == 0, PLX_INVALID_ARGUMENT,
            "%s: %.0f of %d ranks differ from rank 0; rank %d has %016" PRIx64
            ", rank 0 %016" PRIx64,
            what, different, comm->size, comm->rank, value, first);
    return PLX_OK;
}

plx_status comm_give(struct comm *comm, int owner, void *data, size_t bytes)
{
    if (comm == NULL || owner == 0) return PLX_OK;
    if (comm->rank == owner) return hub_send(&comm->hub, 0, HUB_BYTES, data, bytes);
    return comm->rank == 0 ? hub_receive(&comm->hub, owner, HUB_BYTES, data, bytes) : PLX_OK;
}
