/* bench_step_goals.h: the training steps that the project's goals for one H200 are about. */
#ifndef CLI_BENCH_STEP_GOALS_H
#define CLI_BENCH_STEP_GOALS_H

#include "bench_step.h"

/* Times the goal of a name, or all, and prints a table, or one JSON object a line. options say how
 * to compute (device, dtype, recomputation); their model, batch and optimiser are replaced. */
plx_status bench_step_goals(struct train_options *options, const char *name,
                            const struct step_method *method, bool json, struct error *err);

#endif
