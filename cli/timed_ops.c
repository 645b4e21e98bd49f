/* timed_ops.c: see timed_ops.h. One process times one thing at a time, so the books are static. */
#include "timed_ops.h"

#include <stddef.h>

#include "ops/ops_watched.h"
#include "process.h"

static double booked[TIMED_PHASES], started;
static bool in_optimiser;

void timed_ops_start(void)
{
    for (int phase = 0; phase < TIMED_PHASES; phase++) booked[phase] = 0;
    in_optimiser = false;
}

void timed_ops_optimiser(bool begins)
{
    in_optimiser = begins;
}

double timed_ops_seconds(enum timed_phase phase)
{
    return booked[phase];
}

static enum timed_phase phase_of(size_t member)
{
    const bool product = member == offsetof(struct ops, gemm) ||
                         member == offsetof(struct ops, project) ||
                         member == offsetof(struct ops, project_all) ||
                         member == offsetof(struct ops, orthogonalise);
    if (in_optimiser) return product ? TIMED_OPTIMISER_GEMM : TIMED_OPTIMISER_OTHER;
    if (product) return TIMED_GEMM;
    return member >= offsetof(struct ops, attend_forward) ? TIMED_ATTENTION : TIMED_OTHER;
}

static void start_clock(struct backend *be, size_t member)
{
    (void)be, (void)member;
    started = process_seconds();
}

/* What an operation queued is part of its time. One that is made of others goes on after each of
 * them. */
static void stop_clock(struct backend *be, size_t member)
{
    be->device->wait(be->stream, NULL);
    const double now = process_seconds();
    booked[phase_of(member)] += now - started;
    started = now;
}

const struct ops *timed_ops(const struct ops *inner)
{
    static struct ops_watch watch = {.before = start_clock, .after = stop_clock};
    watch.inner = inner;
    return ops_watched(&watch);
}
