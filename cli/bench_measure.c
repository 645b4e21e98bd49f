/* bench_measure.c: see bench_measure.h.
 *
 * Two runs on outputs filled with NaN come before any timing: one with outputs in f32, which shows
 * the kernel's own error, and one in the case's dtype, of which the share of numbers is taken that
 * are the exact ones correctly rounded. */
#include "bench_measure.h"

#include <stdlib.h>
#include <string.h>

#include "bench_exact.h"

enum { MOST_SAMPLES = 1000, WARM_UP = 2 };

/* A case on its way: the context of its kernel and the arguments of the next call. */
struct run {
    struct bench_tensors *tensors;
    const struct bench_case *c;
    plx_context *context;
    struct bench_arguments args;
    size_t workspace_bytes;
};

static plx_status explain(const struct run *run, plx_status status, struct error *err)
{
    if (status == PLX_OK) return PLX_OK;
    return error_set(err, status, "bench: %s: %s", bench_pass_names[run->c->pass],
                     plx_error(run->context));
}

static plx_status context_create(const struct bench_tensors *tensors, const char *kernel,
                                 int threads, plx_context **context, struct error *err)
{
    const struct plx_context_config config = {
        .device = tensors->device->kind, .threads = threads, .kernel = kernel};
    plx_status status = plx_context_create(&config, context);
    REQUIRE(err, status == PLX_OK, status, "bench: no context for kernel \"%s\" and %d threads: %s",
            kernel ? kernel : "", threads, plx_status_text(status));
    return PLX_OK;
}

static plx_status call(struct run *run, struct error *err)
{
    const struct bench_tensors *x = run->tensors;
    return explain(run,
                   bench_call(run->context, run->c, run->c->pass, &run->args, x->workspace,
                              run->workspace_bytes, x->stream),
                   err);
}

/* ---- Outputs ---- */

/* Arguments whose outputs have a dtype and hold NaN, and a workspace for them. */
static plx_status prepare(struct run *run, plx_dtype written, const char **kernel,
                          struct error *err)
{
    struct bench_tensors *x = run->tensors;
    const enum bench_slot first = run->c->pass == PLX_BACKWARD ? SLOT_DQ : SLOT_O;
    run->args = bench_tensors_arguments(x, run->c, run->c->pass, written);
    TRY(explain(
        run,
        bench_plan(run->context, run->c, run->c->pass, &run->args, kernel, &run->workspace_bytes),
        err));
    TRY(bench_tensors_workspace(x, run->workspace_bytes, err));
    for (int n = first; n < SLOTS; n++)
        if (n != SLOT_D_O && bench_slots(&run->args)[n].rank > 0)
            TRY(x->device->fill(x->memory[n], 0xff, x->bytes[n], x->stream, err));
    return PLX_OK;
}

static bool has_forward(const struct bench_case *c, const char *kernel)
{
    const char *name;
    for (int n = 0; (name = plx_kernel_name(c->mechanism, PLX_FORWARD, n)); n++)
        if (strcmp(name, kernel) == 0) return true;
    return false;
}

/* What backward reads. */
static plx_status run_forward(struct bench_tensors *tensors, const struct bench_case *c,
                              const char *kernel, int threads, struct error *err)
{
    const char *same = kernel && has_forward(c, kernel) ? kernel : NULL, *name;
    struct bench_arguments args = bench_tensors_arguments(tensors, c, PLX_FORWARD, c->dtype);
    plx_context *context;
    size_t bytes = 0;
    TRY(context_create(tensors, same, threads, &context, err));
    plx_status status = bench_plan(context, c, PLX_FORWARD, &args, &name, &bytes);
    if (status == PLX_OK) status = bench_tensors_workspace(tensors, bytes, err);
    if (status == PLX_OK)
        status =
            bench_call(context, c, PLX_FORWARD, &args, tensors->workspace, bytes, tensors->stream);
    if (status != PLX_OK) error_set(err, status, "bench: forward: %s", plx_error(context));
    plx_context_destroy(context);
    TRY(status);
    return tensors->device->wait(tensors->stream, err);
}

static plx_status compare(struct run *run, const struct bench_exact *exact,
                          struct bench_result *result, struct error *err)
{
    double error_of_rounded, equal_of_wide;
    TRY(prepare(run, PLX_F32, &result->kernel, err));
    TRY(call(run, err));
    TRY(bench_exact_compare(run->tensors, &run->args, exact, &result->error, &equal_of_wide, err));
    TRY(prepare(run, run->c->dtype, &result->kernel, err));
    TRY(call(run, err));
    return bench_exact_compare(run->tensors, &run->args, exact, &error_of_rounded, &result->equal,
                               err);
}

/* ---- Time ---- */

struct clock {
    device_event begin, end;
    device_graph graph; /* NULL: calls are made one by one */
    int calls;          /* between the events */
};

static void clock_destroy(const struct device *device, struct clock *clock)
{
    if (clock->graph) device->graph_destroy(clock->graph);
    if (clock->begin) device->event_destroy(clock->begin);
    if (clock->end) device->event_destroy(clock->end);
}

static plx_status capture(struct run *run, struct clock *clock, struct error *err)
{
    const struct bench_tensors *x = run->tensors;
    plx_status status = PLX_OK;
    TRY(x->device->capture_begin(x->stream, err));
    for (int n = 0; status == PLX_OK && n < clock->calls; n++) status = call(run, err);
    plx_status ended = x->device->capture_end(x->stream, &clock->graph, err);
    return status != PLX_OK ? status : ended;
}

static plx_status clock_create(struct run *run, const struct bench_method *method,
                               struct clock *clock, struct error *err)
{
    const struct device *device = run->tensors->device;
    TRY(device->event_create(&clock->begin, err));
    TRY(device->event_create(&clock->end, err));
    const bool graph = device->capture_begin && run->c->pass == PLX_DECODE;
    clock->calls = run->c->cold ? 1 : graph ? method->graph_calls : method->calls;
    return graph ? capture(run, clock, err) : PLX_OK;
}

static plx_status sample(struct run *run, const struct bench_method *method,
                         const struct clock *clock, double *seconds, struct error *err)
{
    const struct bench_tensors *x = run->tensors;
    if (run->c->cold) TRY(x->device->fill(method->flush, 0, method->flush_bytes, x->stream, err));
    TRY(x->device->event_record(clock->begin, x->stream, err));
    if (clock->graph) TRY(x->device->graph_launch(clock->graph, x->stream, err));
    for (int n = 0; !clock->graph && n < clock->calls; n++) TRY(call(run, err));
    TRY(x->device->event_record(clock->end, x->stream, err));
    TRY(x->device->event_elapsed(clock->begin, clock->end, seconds, err));
    return PLX_OK;
}

static int by_size(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static plx_status time_samples(struct run *run, const struct bench_method *method,
                               const struct clock *clock, struct bench_result *result,
                               struct error *err)
{
    double times[MOST_SAMPLES], total = 0, last;
    int count = 0;
    for (int n = 0; n < WARM_UP; n++) TRY(sample(run, method, clock, &last, err));
    while (count < MOST_SAMPLES && (count < method->samples || total < method->seconds) &&
           (count < 3 || total < method->most_seconds)) {
        TRY(sample(run, method, clock, &times[count], err));
        total += times[count++];
    }
    qsort(times, (size_t)count, sizeof *times, by_size);
    result->best = times[0] / clock->calls;
    result->median = times[count / 2] / clock->calls;
    return PLX_OK;
}

static plx_status time_calls(struct run *run, const struct bench_method *method,
                             struct bench_result *result, struct error *err)
{
    struct clock clock = {0};
    plx_status status = clock_create(run, method, &clock, err);
    if (status == PLX_OK) status = time_samples(run, method, &clock, result, err);
    clock_destroy(run->tensors->device, &clock);
    return status;
}

/* ---- Both ---- */

plx_status bench_measure_plan(const struct bench_tensors *tensors, const struct bench_case *c,
                              const char *kernel, int threads, struct bench_result *result,
                              struct error *err)
{
    struct run run = {.c = c, .args = bench_arguments(c, c->pass, c->dtype)};
    const plx_device kind = tensors->device->kind;
    for (int n = 0; n < SLOTS; n++) bench_slots(&run.args)[n].device = kind;
    run.args.attention.k_pages.device = run.args.attention.k_lengths.device = kind;
    TRY(context_create(tensors, kernel, threads, &run.context, err));
    plx_status status =
        bench_plan(run.context, c, c->pass, &run.args, &result->kernel, &result->workspace_bytes);
    explain(&run, status, err);
    plx_context_destroy(run.context);
    return status;
}

plx_status bench_measure(struct bench_tensors *tensors, const struct bench_case *c,
                         const char *kernel, int threads, const struct bench_method *method,
                         struct bench_result *result, struct error *err)
{
    struct bench_exact exact;
    struct run run = {.tensors = tensors, .c = c};
    TRY(bench_tensors_fill(tensors, c, err));
    TRY(bench_exact_create(tensors, c, &exact, err));
    if (c->pass == PLX_BACKWARD) TRY(run_forward(tensors, c, kernel, threads, err));
    TRY(context_create(tensors, kernel, threads, &run.context, err));
    plx_status status = compare(&run, &exact, result, err);
    if (status == PLX_OK) status = time_calls(&run, method, result, err);
    plx_context_destroy(run.context);
    result->workspace_bytes = run.workspace_bytes;
    return status;
}
