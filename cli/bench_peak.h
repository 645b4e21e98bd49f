/* bench_peak.h: the two limits that a benchmark is compared with, measured in the same process on
 * the same threads: multiply-adds in registers, and reading memory that no cache holds. */
#ifndef BENCH_PEAK_H
#define BENCH_PEAK_H

#include <stdint.h>

/* One thread's work: independent chains of f32 multiply-adds in registers. Returns a number that
 * depends on all of them. */
struct bench_chains {
    const char *name;
    uint32_t needs; /* plx_feature bits */
    double flops;   /* of one round */
    float (*run)(int64_t rounds);
};

extern const struct bench_chains bench_chains_portable;
#ifdef __x86_64__
extern const struct bench_chains bench_chains_avx512;
#endif

/* GFLOP/s of f32 multiply-adds that `threads` threads reach together with the best instructions
 * among `features` (plx_feature bits); the best of several short trials. */
double bench_peak_gflops(int threads, uint32_t features);
/* GB/s of reading `bytes` of memory, every byte once a trial; the best of several. 0 where the
 * memory cannot be had. */
double bench_peak_read(int threads, int64_t bytes);

/* Seconds of a monotonic clock. */
double bench_now(void);

#endif
