/* adamw.c: Adam with decoupled weight decay (Loshchilov and Hutter 2019), for all its tensors at
 * once:
 *
 *     w <- w (1 - lr wd)
 *     m <- b1 m + (1 - b1) g         v <- b2 v + (1 - b2) g^2
 *     w <- w - lr (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)
 *
 * The arithmetic is the backend's; this file only states which tensors take part. */
#include "optim/update.h"

static plx_status adamw_step(struct backend *be, const struct update_call *call)
{
    const struct adamw_update update = {
        .items = call->items,
        .count = call->count,
        .factor = call->factor,
        .numbers = call->numbers,
        .beta1 = call->config->beta1,
        .beta2 = call->config->beta2,
        .eps = call->config->eps,
    };
    return be->ops->adamw(be, &update);
}

const struct update_rule adamw_rule = {
    .states = 2,
    .state_names = {"m", "v"},
    .step = adamw_step,
};
