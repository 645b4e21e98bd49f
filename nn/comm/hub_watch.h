/* hub_watch.h: a thread that ends a rank which has lost another one and does not end by itself.
 *
 * A rank learns of a loss where it next speaks through the hub (hub.h). One that waits for its
 * device, on which NCCL waits for the rank that is gone, never speaks again. So the thread polls
 * the same connections for their end and nothing else: what is said on them neither wakes it nor is
 * read by it, and every HUB_LOOK_SECONDS it looks for machines that have fallen silent.
 *
 * Once a rank is lost, or this one says that it has failed, the process has some seconds of grace
 * to end by itself. Then the thread calls `end`, and what waits on the device ends with the
 * process.
 *
 * Every function but hub_watch_open takes NULL, and does nothing then. */
#ifndef NN_HUB_WATCH_H
#define NN_HUB_WATCH_H

#include "comm/hub.h"

struct hub_watch;

/* Must end the process: with err's status and sentence, which is only the consequence of another
 * rank's end where lost is set. It runs on the thread that watches. */
typedef void (*hub_end)(void *user, bool lost, const struct error *err);

plx_status hub_watch_open(struct hub_watch **watch, const struct hub *hub, double grace,
                          hub_end end, void *user, struct error *err);
/* From here on nothing ends the process; comes before hub_close. */
void hub_watch_close(struct hub_watch *watch);

/* This rank has failed and is about to end; its sentence is the one to end with, and the grace
 * begins anew. */
void hub_watch_fail(struct hub_watch *watch, bool lost, const struct error *cause);
/* What lies between the two is never cut off, so it must not wait for other ranks. */
void hub_watch_hold(struct hub_watch *watch);
void hub_watch_release(struct hub_watch *watch);
/* What the sentence about a lost rank ends with from here on; within a hold. */
void hub_watch_loss_ends_with(struct hub_watch *watch, const char *clause);

#endif
