/* train_step.c: see train_step.h. */
#include "train_step.h"

struct train_step train_step_make(struct model *model, struct sharding *sharding,
                                  struct optim *optim, bool graphs)
{
    const bool replaying = graphs && model_backend(model)->device->capture_begin != NULL;
    return (struct train_step){
        .model = model, .sharding = sharding, .optim = optim, .replaying = replaying};
}

void train_step_forget(struct train_step *step)
{
    if (step->model == NULL) return;
    model_forget_graphs(step->model);
    replay_forget(&step->update, model_backend(step->model));
}

plx_status train_step_begin(struct train_step *step, bool alike)
{
    model_replay(step->model, step->replaying && alike);
    return model_zero_grads(step->model);
}

/* The exchange of gradients begins while earlier blocks are still at work, and what is queued next
 * waits for its end. */
plx_status train_step_add(struct train_step *step, const struct batch *batch, double scale,
                          bool last)
{
    const bool exchanged = last && step->sharding->comm != NULL;
    model_tell_gradients(step->model, exchanged ? sharding_reduce : NULL, step->sharding);
    return model_loss_backward(step->model, batch, scale, NULL);
}

static plx_status update(void *user)
{
    struct train_step *step = user;
    return sharding_step(step->sharding, step->optim);
}

plx_status train_step_update(struct train_step *step, double lr_factor, double decay_factor)
{
    TRY(optim_begin(step->optim, lr_factor, decay_factor));
    if (!step->replaying) return update(step);
    return replay_run(&step->update, model_backend(step->model), update, step);
}

bool train_step_is_stale(const struct train_step *step)
{
    return replay_is_stale(&step->update, model_backend(step->model));
}

int64_t train_step_sequences(int64_t count)
{
    int64_t unit = 1;
    while (count > 8 * unit) unit *= 2;
    return (count + unit - 1) / unit * unit;
}
