/* bench_tensors.h: the tensors that `bench attention` measures with, in memory that is allocated
 * once for a whole list of cases.
 *
 * An input's rows of D numbers repeat a pattern of BENCH_ROWS rows, which a kernel cannot know, so
 * that filling gigabytes takes a few copies on the device and the exact value of every number is at
 * hand on the host. Queries, probes and keys are scaled to a root mean square of 1, as the norms in
 * front of attention do; values and the gradient of the output are normal numbers as drawn. */
#ifndef BENCH_TENSORS_H
#define BENCH_TENSORS_H

#include "bench_case.h"
#include "core/device.h"

enum { BENCH_ROWS = 32749 }; /* prime, so that no stride of a tensor is in step with it */

struct bench_tensors {
    const struct device *device;
    plx_stream stream;
    double probe_offset; /* standard deviations of r.k by which its mean is moved from 0 */
    void *memory[SLOTS];
    size_t bytes[SLOTS];
    void *pages, *lengths; /* of a cache that has them, i32 */
    size_t pages_count, lengths_count;
    void *workspace;
    size_t workspace_bytes;
    float *rows[SLOTS]; /* host copies of the pattern of inputs, [BENCH_ROWS,D], as rounded */
    int64_t d;          /* what the inputs hold now */
    plx_dtype dtype, cache;
};

/* Before allocation: makes room for a case. */
void bench_tensors_reserve(struct bench_tensors *tensors, const struct bench_case *c);
plx_status bench_tensors_allocate(struct bench_tensors *tensors, struct error *err);
void bench_tensors_destroy(struct bench_tensors *tensors);

/* Writes the inputs unless they hold what the case needs already. */
plx_status bench_tensors_fill(struct bench_tensors *tensors, const struct bench_case *c,
                              struct error *err);
/* bench_arguments with data. */
struct bench_arguments bench_tensors_arguments(const struct bench_tensors *tensors,
                                               const struct bench_case *c, plx_pass pass,
                                               plx_dtype written);
/* Makes the workspace at least so large. */
plx_status bench_tensors_workspace(struct bench_tensors *tensors, size_t bytes, struct error *err);
/* Row n of an input, counted over all axes but the last. */
const float *bench_tensors_row(const struct bench_tensors *tensors, enum bench_slot slot,
                               int64_t n);

#endif
