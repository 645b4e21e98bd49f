/* threads.h: the one parallel loop of the CPU kernels; OpenMP stays inside.
 *
 * Iterations are handed out one by one in order, so a kernel puts its largest tasks first. Which
 * thread runs which iteration is not determined; kernels stay deterministic because an iteration
 * writes only what belongs to it and its work depends on its index alone. `thread` picks a piece of
 * scratch. */
#ifndef PLX_THREADS_H
#define PLX_THREADS_H

#include <stdint.h>

typedef void (*threads_task)(void *job, int64_t index, int thread);

#ifdef _OPENMP
#include <omp.h>
#endif

/* Runs task(job, index, thread) for 0 <= index < count with 0 <= thread < threads. */
static inline void threads_for(int threads, int64_t count, threads_task task, void *job)
{
    if (threads > count) threads = (int)count;
    if (threads <= 1) {
        for (int64_t index = 0; index < count; index++) task(job, index, 0);
        return;
    }
#ifdef _OPENMP
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads)
#endif
    for (int64_t index = 0; index < count; index++) {
#ifdef _OPENMP
        task(job, index, omp_get_thread_num());
#else
        task(job, index, 0);
#endif
    }
}

#endif
