/* bench_step.h: timing training steps on random tokens, for `parallax bench step`. */
#ifndef CLI_BENCH_STEP_H
#define CLI_BENCH_STEP_H

#include "timed_ops.h"
#include "train_memory.h"

struct step_method {
    int64_t skip;   /* steps before those that are timed: they load kernels and touch memory */
    int64_t repeat; /* steps that are timed */
    bool divide;    /* as many again, with a clock around every operation */
};

struct step_measurement {
    double best, median;        /* seconds a step */
    double phase[TIMED_PHASES]; /* seconds a step, mean; divide only, as total */
    double total;
    int64_t tokens, parameters; /* of a step; of the model */
    double flops_per_token;
    struct train_memory memory; /* planned, and taken */
    char device[128];           /* its name */
};

/* A model of bytes and their end of text where the options give no vocabulary. */
plx_status bench_step_measure(const struct train_options *options, const struct step_method *method,
                              struct step_measurement *measurement, struct error *err);

#endif
