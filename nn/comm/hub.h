/* hub.h: the ranks of a run, connected by sockets in a star: rank 0 is the hub, and every other
 * rank has one connection, to it.
 *
 * What ranks say to each other on the host goes this way: counts, losses, whether to stop, NCCL's
 * first word, and, where there is no NCCL, tensors. Messages are frames of a head (what it is, how
 * many bytes) and its bytes; both sides know what must come next, and anything else is an error
 * that names both. A connection that ends is a rank that died: `lost` tells, because such a failure
 * is a consequence, and the rank that died knows the cause. All ranks have the same byte order.
 *
 * Meeting: rank 0 listens, the others call until it answers. A caller proves that it belongs to the
 * job by a greeting of fixed size (magic, job, rank, number of ranks); connections that send
 * anything else, or nothing for some seconds, are closed and forgotten. */
#ifndef NN_HUB_H
#define NN_HUB_H

#include <stddef.h>

#include "comm/place.h"

/* A machine whose other end acknowledges nothing for so long is lost. */
#define HUB_SILENCE_SECONDS 60
#define HUB_LOOK_SECONDS    5.0 /* between looks at whether it still does */

struct hub {
    int rank, size;
    int *sockets; /* [size]: of every rank that this one is connected to; -1 otherwise */
    bool lost;    /* a connection broke */
    struct error *err;
};

/* What a frame holds. */
enum hub_frame { HUB_NUMBERS = 1, HUB_TENSOR, HUB_BYTES };

/* Meets the other ranks within so many seconds; err is where later failures go, too. */
plx_status hub_open(struct hub *hub, const struct place *place, double seconds, struct error *err);
void hub_close(struct hub *hub);

plx_status hub_send(struct hub *hub, int to, enum hub_frame frame, const void *data, size_t bytes);
plx_status hub_receive(struct hub *hub, int from, enum hub_frame frame, void *data, size_t bytes);
/* Waits for events of poll, so many seconds at most (INFINITY: no limit). False, with errno, where
 * nothing came: the time is over, or the other machine has fallen silent. */
bool hub_wait(int socket, short events, double seconds);
/* For how many seconds the other machine has acknowledged nothing though it has something to; 0
 * where it has not. */
double hub_silence(int socket);
/* The sentence about a rank that is lost to this one. problem is an errno: ETIMEDOUT where its
 * machine is silent, 0 where it closed the connection. */
plx_status hub_say_lost(const struct hub *hub, int rank, int problem, struct error *err);
/* A frame in pieces: its head, and then all of its bytes in any pieces. */
plx_status hub_receive_head(struct hub *hub, int from, enum hub_frame frame, size_t bytes);
plx_status hub_receive_piece(struct hub *hub, int from, void *data, size_t bytes);

/* values[i] becomes the sum over ranks, added in the order of ranks: the same bits everywhere. */
plx_status hub_sum(struct hub *hub, double *values, int count);
/* The bytes of one rank become those of all. */
plx_status hub_broadcast(struct hub *hub, int owner, enum hub_frame frame, void *data,
                         size_t bytes);

#endif
