/* schedule.c: the learning rate's factor for every step, as a pure function of the step's index.
 *
 * With S steps, Wm of warm-up and Dc = round(S ratio) of decay (cut to S - Wm where both do not
 * fit), the stable stage has St = S + 1 - Wm - Dc steps and step s = 0, 1, ... gets
 *
 *     (s + 1) / Wm                             s < Wm
 *     1                                        s < Wm + St
 *     min + (1 - min) f(p), p = (s + 1 - Wm - St) / Dc     otherwise
 *
 * with f(p) = 1 - p, 1 - sqrt(p) or (1 + cos(pi p)) / 2. This is torchtitan's warm-up, stable,
 * decay schedule: the first update already has a rate above zero, the last stable step overlaps the
 * decay's start, and the last step is one short of min. The cosine schedule is the same with
 * everything after the warm-up decaying. Since nothing is stored, a run resumes or branches from
 * the step alone.
 *
 * Weight-decay annealing (arXiv 2605.29157): factor (1 - p)^gamma over the same decay stage. */
#include "optim/optim.h"

#include <math.h>

#define PI 3.14159265358979323846

static int64_t schedule_decay_steps(const struct schedule_config *config)
{
    int64_t room = config->steps > config->warmup ? config->steps - config->warmup : 0;
    int64_t decay = 0;
    switch (config->kind) {
    case SCHEDULE_CONSTANT:
        decay = 0;
        break;
    case SCHEDULE_COSINE:
        decay = room;
        break;
    /* rint: halves go to even, as in Python's round. */
    case SCHEDULE_WSD:
        decay = (int64_t)rint((double)config->steps * fmin(fmax(config->decay_ratio, 0.0), 1.0));
        break;
    }
    return decay < room ? decay : room;
}

/* p above: 0 before the decay stage, 1 at its end and for ever after. */
static double schedule_progress(const struct schedule_config *config, int64_t step)
{
    int64_t decay = schedule_decay_steps(config);
    int64_t done = step - (config->steps - decay);
    if (decay == 0 || done <= 0) return 0.0;
    return done < decay ? (double)done / (double)decay : 1.0;
}

static double schedule_fall(enum decay_shape shape, double progress)
{
    switch (shape) {
    case DECAY_LINEAR:
        return 1.0 - progress;
    case DECAY_SQRT:
        return 1.0 - sqrt(progress);
    case DECAY_COSINE:
        return 0.5 * (1.0 + cos(PI * progress));
    }
    return 1.0;
}

double schedule_lr(const struct schedule_config *config, int64_t step)
{
    if (step < config->warmup) return (double)(step + 1) / (double)config->warmup;
    double progress = schedule_progress(config, step);
    if (progress == 0.0) return 1.0; /* exactly, which min + (1 - min) need not be */
    enum decay_shape shape = config->kind == SCHEDULE_COSINE ? DECAY_COSINE : config->shape;
    double fall = schedule_fall(shape, progress);
    return config->min_factor + (1.0 - config->min_factor) * fall;
}

double schedule_weight_decay(const struct schedule_config *config, int64_t step)
{
    if (config->weight_decay_gamma <= 0.0 || step < config->warmup) return 1.0;
    return pow(1.0 - schedule_progress(config, step), config->weight_decay_gamma);
}
