/* train_readings.h: the losses and gradient norms of steps, from the device to the host.
 *
 * A step leaves its two numbers in a row of a tensor on the device, queued like all its work; the
 * host reads the rows of several steps at once. So it need not wait in every step, and no step's
 * numbers are lost. Internal to train_*.c. */
#ifndef NN_TRAIN_READINGS_H
#define NN_TRAIN_READINGS_H

#include "comm/comm.h"
#include "optim/optim.h"
#include "train.h"

struct train_readings {
    struct backend *be;
    struct arena arena;
    struct plx_tensor rows;       /* f64 [depth, 2] on the device: sum of losses, gradient norm */
    struct train_progress *steps; /* [depth] what the host knew of them as they were queued */
    double *host, *losses;        /* [depth, 2], [depth] */
    int64_t *scored;              /* [depth] tokens that have a target, of all ranks */
    int depth, count;             /* rows there are, and how many hold steps not yet read */
    double began;                 /* process_seconds as the first of them was begun */
};

/* Steps that are read together: one where the host computes, log_every (within reason) on a GPU. */
int train_readings_depth(const struct device *device, int64_t log_every);
plx_status train_readings_create(struct train_readings *readings, struct backend *be, int depth);
void train_readings_destroy(struct train_readings *readings);
/* After a step is queued, update included. There must be a row left. */
plx_status train_readings_add(struct train_readings *readings, struct model *model,
                              const struct optim *optim, const struct train_progress *step,
                              int64_t scored);
/* Waits for the device and fills loss, grad_norm and seconds (equal shares of the time since began)
 * of steps[0 .. count - 1]; numbers that are not finite are the caller's business, who sets count
 * back to 0. Losses are summed over ranks, all of which call. */
plx_status train_readings_read(struct train_readings *readings, struct comm *comm);

#endif
