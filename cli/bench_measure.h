/* bench_measure.h: one kernel on one case: its time and its error. */
#ifndef BENCH_MEASURE_H
#define BENCH_MEASURE_H

#include "bench_tensors.h"

/* How calls become samples of time. */
struct bench_method {
    int graph_calls;     /* of decode in one graph, where the device has graphs */
    int calls;           /* of the other passes between two events; with cold caches always one */
    int samples;         /* at least */
    double seconds;      /* and at least so long */
    double most_seconds; /* but no longer than this after three samples */
    void *flush;         /* memory larger than the caches, for cold cases */
    size_t flush_bytes;
};

/* Kernel and workspace of a case, nothing run; kernel NULL: the library's choice. */
plx_status bench_measure_plan(const struct bench_tensors *tensors, const struct bench_case *c,
                              const char *kernel, int threads, struct bench_result *result,
                              struct error *err);
/* Fills the inputs, compares the outputs of a call with the exact values, and times calls. What
 * backward reads comes from a forward of the same kernel, or where it has none from the library's
 * choice. */
plx_status bench_measure(struct bench_tensors *tensors, const struct bench_case *c,
                         const char *kernel, int threads, const struct bench_method *method,
                         struct bench_result *result, struct error *err);

#endif
