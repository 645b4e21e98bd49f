/* train_step.h: one step of training as it is queued on a device, for the loop (train.c) and for
 * `parallax bench step`.
 *
 *     train_step_begin      gradients are zero
 *     train_step_add        once for every micro-batch: gradients of its loss are added
 *     train_step_update     ranks exchange what they have, and the optimiser changes the weights
 *
 * Nothing here waits for the device. All that differs between steps are numbers that are brought to
 * it: batches, the weight of a token, rates. So where a device has graphs, the work of a
 * micro-batch and that of the update are captured the second time they come and launched as a whole
 * from then on, exchanges between ranks included. */
#ifndef NN_TRAIN_STEP_H
#define NN_TRAIN_STEP_H

#include "comm/sharding.h"
#include "model.h"
#include "ops/replay.h"

struct train_step {
    struct model *model;
    struct sharding *sharding;
    struct optim *optim;
    bool replaying;
    struct replay update;
};

/* The parts must outlive it. graphs false: everything is launched one by one, with the same bits.
 */
struct train_step train_step_make(struct model *model, struct sharding *sharding,
                                  struct optim *optim, bool graphs);
/* Drops the graphs, which must be gone before the ranks' connection is; new ones take their place
 * if it goes on. */
void train_step_forget(struct train_step *step);
/* alike: the micro-batches of the step, on all ranks, are of one shape; otherwise they are launched
 * one operation after another on all of them. */
plx_status train_step_begin(struct train_step *step, bool alike);
/* Gradients of scale times the sum of losses; last: the gradients are complete. */
plx_status train_step_add(struct train_step *step, const struct batch *batch, double scale,
                          bool last);
/* Rates are factors of the optimiser's configuration. */
plx_status train_step_update(struct train_step *step, double lr_factor, double decay_factor);
/* Whether what graphs hold has moved on this rank. Several ranks capture together or not at all, so
 * all of them must forget their graphs where one is stale. */
bool train_step_is_stale(const struct train_step *step);

/* ---- Batches of one kind ---- */

/* The number of sequences, at least count, to which batches are filled up with empty ones, so that
 * few shapes come again and again: a multiple of an eighth of the power of two above it. */
int64_t train_step_sequences(int64_t count);

#endif
