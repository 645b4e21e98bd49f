/* train_meter.h: what a run measures of itself: rates, model FLOPs utilisation, memory, waiting for
 * data. Internal to train_*.c and run_log.c. */
#ifndef NN_TRAIN_METER_H
#define NN_TRAIN_METER_H

#include "flops.h"
#include "op.h"
#include "train.h"

struct train_meter {
    const struct device *device;
    char device_name[128];
    int devices; /* that share the tokens of a step */
    int64_t context;
    struct flops flops;    /* of a token */
    double peak_tflops;    /* of one device; NaN where it is not known */
    char peak_source[192]; /* where the peak comes from, or why there is none */
    double start;          /* of this process's part of the run */
    double step_seconds;   /* sum over steps, without evaluation and checkpoints */
    int64_t steps;         /* of this process */
    int64_t first_tokens;  /* of the run: before this process's first step */
    int64_t last_tokens;   /* of the run: before the running step */
};

plx_status train_meter_create(struct train_meter *meter, const struct train_options *options,
                              int devices, const struct backend *be,
                              const struct model_config *config, const struct param_list *params);
/* Starts the clock of a run that has seen so many tokens. */
void train_meter_start(struct train_meter *meter, int64_t tokens);
/* After a step: fills everything in progress that is a rate, a time or memory, from its step,
 * steps, tokens, seconds and data_seconds. */
plx_status train_meter_step(struct train_meter *meter, struct train_progress *progress,
                            struct error *err);
/* Tokens a second over all steps so far; NaN before the first. */
double train_meter_rate(const struct train_meter *meter);

#endif
