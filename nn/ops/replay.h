/* replay.h: work that is queued again and again, as a graph. Where hundreds of short operations
 * follow one another the host takes longer to launch them than a GPU takes to run them; a graph is
 * launched as a whole. It holds every address and every argument of what it was made of, so all
 * that changes between two runs must be numbers in the device's memory. */
#ifndef NN_OPS_REPLAY_H
#define NN_OPS_REPLAY_H

#include "op.h"

/* One such piece of work. Zero-initialised: not yet run. */
struct replay {
    bool prepared;       /* it has run once, so what operations prepare for new shapes is there */
    device_graph graph;  /* NULL: none is captured */
    const void *scratch; /* where the backend's free part of it began then */
};

typedef plx_status (*replay_work)(void *user);

/* Queues the work on the backend's stream: as it is the first time and where the device has no
 * graphs, then as a graph, which is captured anew where scratch has moved. */
plx_status replay_run(struct replay *replay, struct backend *be, replay_work work, void *user);
/* Whether there is a graph that the next run would replace. */
bool replay_is_stale(const struct replay *replay, const struct backend *be);
/* Drops the graph; the next run captures another. */
void replay_forget(struct replay *replay, const struct backend *be);

#endif
