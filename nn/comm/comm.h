/* comm.h: what the ranks of one run do together: sums, broadcasts, agreement.
 *
 * Every rank makes the same calls in the same order. Tensors go by one of two rows of a table:
 * NCCL's, queued on a stream of the backend's device, or that of the CPU, which sends them through
 * the hub (hub.h) and adds them in the order of ranks: slow, the same bits in every run, and there
 * so that training on several ranks can be proven where there is no GPU. Numbers of the host always
 * go through the hub.
 *
 * A NULL comm is a run of one rank: every function takes it and does what one rank needs. */
#ifndef NN_COMM_H
#define NN_COMM_H

#include "comm/hub_watch.h"

struct comm;

struct comm_ops {
    const char *name;
    plx_device device; /* of the tensors */
    /* Called after the ranks have met; the device of this process is open already. */
    plx_status (*open)(struct comm *comm);
    /* orderly is false where a failure ends the run: others may never answer. */
    void (*close)(struct comm *comm, bool orderly);

    /* y becomes the sum of all ranks' y: on every rank, or on the owner alone, and elsewhere y is
     * left with anything. Dense; f32 or f64. */
    plx_status (*all_reduce)(struct comm *comm, const struct plx_tensor *y, plx_stream stream);
    plx_status (*reduce)(struct comm *comm, const struct plx_tensor *y, int owner,
                         plx_stream stream);
    /* y becomes the owner's y. Dense; any dtype. */
    plx_status (*broadcast)(struct comm *comm, const struct plx_tensor *y, int owner,
                            plx_stream stream);
    /* Calls between the two may be queued as one; they take effect at the end. */
    plx_status (*group_begin)(struct comm *comm);
    plx_status (*group_end)(struct comm *comm);
};

/* In a build without NCCL comm_nccl's open says so and fails. */
extern const struct comm_ops comm_cpu, comm_nccl;

struct comm {
    const struct comm_ops *ops; /* NULL until comm_attach */
    int rank, size, local_rank;
    struct hub hub;
    struct hub_watch *watch; /* NULL until comm_watch */
    void *state;             /* the row's */
    struct error *err;
};

/* Meets the other ranks of this process's place (place.h): *comm is NULL where there are none. */
plx_status comm_open(struct comm **comm, struct error *err);
/* A process that will not be the rank it was started as, because it refuses its command line, comes
 * to the meeting and leaves it, so that the others end soon instead of awaiting it. */
void comm_decline(void);
/* From here to comm_close a rank that has lost another one, or has called comm_abandon, and then
 * does not end within so many seconds, wherever it waits, is ended by `end` (hub_watch.h). */
plx_status comm_watch(struct comm *comm, double grace, hub_end end, void *user);
/* Chooses the row for tensors on a kind of device. */
plx_status comm_attach(struct comm *comm, plx_device device);
/* Ends the exchange of tensors where a failure ends the run, whose sentence is set already: what
 * the device still waits for from other ranks may never come. */
void comm_abandon(struct comm *comm);
/* Orderly: waits for all ranks first, so that none loses another one early. */
void comm_close(struct comm *comm, bool orderly);

int comm_rank(const struct comm *comm);
int comm_size(const struct comm *comm);
/* Which device of a kind this rank takes: every rank of a machine another GPU; the CPU is one. */
int comm_device_index(const struct comm *comm, plx_device kind);
/* Whether a call failed because another rank has ended. */
bool comm_lost(const struct comm *comm);

/* What lies between the two is finished though another rank be lost; it waits for none. */
void comm_hold(struct comm *comm);
void comm_release(struct comm *comm);
/* Within a hold: what the sentence about a lost rank ends with from here on. */
void comm_loss_ends_with(struct comm *comm, const char *clause);

/* ---- Numbers of the host ---- */

/* Sums over ranks, in their order, in place: the same bits on every rank. */
plx_status comm_sum(struct comm *comm, double *values, int count);
plx_status comm_barrier(struct comm *comm);
/* Fails on every rank unless all give the same value; what says of what, "the training data". */
plx_status comm_agree(struct comm *comm, const char *what, uint64_t value);
/* The owner's bytes on the host, to rank 0. */
plx_status comm_give(struct comm *comm, int owner, void *data, size_t bytes);

#endif
