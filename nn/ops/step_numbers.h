/* step_numbers.h: what an optimiser's step is told that differs from one step to the next. It lies
 * on the device and is brought there by one upload, so that all else of a step is the same work
 * over and over (replay.h). For C and CUDA. */
#ifndef NN_OPS_STEP_NUMBERS_H
#define NN_OPS_STEP_NUMBERS_H

/* Doubles all, as a tensor of f64 [STEP_NUMBERS]. */
struct step_numbers {
    double step;             /* counted from 1 */
    double lr, weight_decay; /* of the schedule; a parameter takes a share of each */
    double bias1, bias2;     /* 1 - beta^step of Adam's two betas */
};
enum { STEP_NUMBERS = sizeof(struct step_numbers) / sizeof(double) };

#endif
