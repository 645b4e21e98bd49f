/* bench_exact.h: exact values of a few rows of a case's outputs, computed in f64 on the host from
 * the inputs as rounded, and how far a call's outputs are from them. */
#ifndef BENCH_EXACT_H
#define BENCH_EXACT_H

#include "bench_tensors.h"

enum { BENCH_MAX_D = 256, BENCH_FIRST_ROWS = 32, BENCH_MAX_SAMPLES = 160 };

struct bench_sample {
    enum bench_slot slot;
    int64_t row; /* counted over all axes but the last */
    double exact[BENCH_MAX_D];
};

struct bench_exact {
    int count;
    struct bench_sample samples[BENCH_MAX_SAMPLES];
};

/* Decode: o of four heads. Forward: o of the first 32 queries, which see few keys and show the
 * rounding of weights most, and of four more of the first and the last head. Backward: dq and dr of
 * such queries, dk and dv of two keys that at most 64 queries see; with the full mask
 * only where all queries are few enough, up to 4096. */
plx_status bench_exact_create(const struct bench_tensors *tensors, const struct bench_case *c,
                              struct bench_exact *exact, struct error *err);

/* Of the outputs in args: the largest error in a tensor over its largest exact value, largest over
 * the tensors; and the share of numbers that are the exact ones rounded to the output's dtype. */
plx_status bench_exact_compare(const struct bench_tensors *tensors,
                               const struct bench_arguments *args, const struct bench_exact *exact,
                               double *error, double *equal, struct error *err);

#endif
