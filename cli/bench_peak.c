/* bench_peak.c: measuring the limits of bench_peak.h, and the chains of the baseline instruction
 * set. */
#include "bench_peak.h"

#include <omp.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

double bench_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

typedef float quad __attribute__((vector_size(16)));

/* Vectors of 16 bytes, twelve chains; the compiler may not fold what passes through the assembly.
 */
static float chains(int64_t rounds)
{
    quad sum[12], total = {0, 0, 0, 0};
    for (int n = 0; n < 12; n++) sum[n] = total + 0.5f;
    for (int64_t round = 0; round < rounds; round++) {
#pragma GCC unroll 12
        for (int n = 0; n < 12; n++) sum[n] = sum[n] * 0.5f + 0.25f;
        __asm__ volatile("" ::: "memory");
    }
    for (int n = 0; n < 12; n++) total += sum[n];
    return total[0] + total[1] + total[2] + total[3];
}

const struct bench_chains bench_chains_portable = {"portable", 0, 12 * 4 * 2, chains};

static const struct bench_chains *const all_chains[] = {
#ifdef __x86_64__
    &bench_chains_avx512,
#endif
    &bench_chains_portable,
};

enum { TRIALS = 12 };

double bench_peak_gflops(int threads, uint32_t features)
{
    const struct bench_chains *best = NULL;
    for (int n = 0; !best; n++)
        if ((all_chains[n]->needs & features) == all_chains[n]->needs) best = all_chains[n];
    /* About 20 ms a trial at 100 GFLOP/s a thread: long against starting threads, short enough to
     * fall between the disturbances of other programs. */
    const int64_t rounds = (int64_t)(2e9 / best->flops);
    double fastest = 0;
    volatile float sink = 0;
    for (int trial = 0; trial < TRIALS; trial++) {
        double start = bench_now();
#pragma omp parallel num_threads(threads)
        {
            float result = best->run(rounds);
#pragma omp critical
            sink = sink + result;
        }
        double seconds = bench_now() - start;
        double gflops = (double)rounds * best->flops * threads / seconds * 1e-9;
        if (gflops > fastest) fastest = gflops;
    }
    return fastest;
}

static uint64_t sum_words(const uint64_t *words, int64_t count)
{
    uint64_t sum[8] = {0};
    for (int64_t n = 0; n + 8 <= count; n += 8)
        for (int lane = 0; lane < 8; lane++) sum[lane] += words[n + lane];
    return sum[0] + sum[1] + sum[2] + sum[3] + sum[4] + sum[5] + sum[6] + sum[7];
}

double bench_peak_read(int threads, int64_t bytes)
{
    const int64_t share = bytes / threads / 64 * 64;
    unsigned char *memory = aligned_alloc(64, (size_t)(share * threads));
    double fastest = 0;
    uint64_t sink = 0;
    if (!memory) return 0;
    memset(memory, 1, (size_t)(share * threads));
    for (int trial = 0; trial < TRIALS; trial++) {
        double start = bench_now();
#pragma omp parallel num_threads(threads) reduction(+ : sink)
        sink +=
            sum_words((const uint64_t *)(void *)(memory + omp_get_thread_num() * share), share / 8);
        double rate = (double)(share * threads) / (bench_now() - start) * 1e-9;
        if (rate > fastest) fastest = rate;
    }
    free(memory);
    return sink == 0 ? 0 : fastest;
}
