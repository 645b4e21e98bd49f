/* bench_step.c: see bench_step.h. A step here is train.c's without files: every micro-batch is the
 * same random tokens, and the loss is read once, at the end of the step. */
#include "bench_step.h"

#include <stdio.h>
#include <stdlib.h>

#include "flops.h"
#include "process.h"
#include "train_step.h"

enum { BYTES_AND_END = 257 };

/* What a step needs besides the options. */
struct step {
    struct backend backend;
    struct train_parts parts;
    struct train_step queue;
    int32_t *numbers;
    struct batch batch;
};

static plx_status make_batch(struct step *step, const struct train_options *options, int64_t vocab,
                             struct error *err)
{
    int64_t tokens = options->batch * options->context;
    step->numbers = malloc((size_t)(3 * tokens + options->batch + 1) * sizeof *step->numbers);
    REQUIRE(err, step->numbers, PLX_OUT_OF_MEMORY, "no memory for %lld tokens", (long long)tokens);
    int32_t *ids = step->numbers, *targets = ids + tokens, *positions = targets + tokens;
    int32_t *offsets = positions + tokens;
    struct rng rng = rng_make((uint64_t)options->seed, 0);
    for (int64_t n = 0; n < tokens; n++) {
        ids[n] = (int32_t)rng_below(&rng, (uint64_t)vocab);
        targets[n] = (int32_t)rng_below(&rng, (uint64_t)vocab);
        positions[n] = (int32_t)(n % options->context);
    }
    for (int64_t row = 0; row <= options->batch; row++)
        offsets[row] = (int32_t)(row * options->context);
    step->batch = (struct batch){.tokens = tokens,
                                 .sequences = options->batch,
                                 .ids = ids,
                                 .targets = targets,
                                 .positions = positions,
                                 .offsets = offsets};
    return PLX_OK;
}

static plx_status describe(struct step *step, const struct train_options *options,
                           const struct model_config *config, struct step_measurement *measurement)
{
    struct backend *be = &step->backend;
    const struct param_list *params = model_params(step->parts.model);
    struct device_facts facts;
    TRY(be->device->describe(be->device_index, &facts, be->err));
    snprintf(measurement->device, sizeof measurement->device, "%s", facts.name);
    measurement->tokens = step->batch.tokens * options->accumulate;
    measurement->parameters = param_list_elements(params);
    measurement->flops_per_token = flops_per_token(config, params, options->context).total;
    return PLX_OK;
}

/* As train_session.c does it: planned, compared with what is free, taken. */
static plx_status build_parts(struct step *step, const struct train_options *options,
                              const struct model_config *config,
                              struct step_measurement *measurement)
{
    struct backend *be = &step->backend;
    struct train_shape shape;
    struct train_memory taken;
    struct device_memory device;
    TRY(train_shape_make(options, config, step->batch.sequences, &shape, be->err));
    TRY(train_memory_measure(be, options, NULL, &shape, &measurement->memory));
    TRY(be->device->memory(&device, be->err));
    TRY(train_memory_check(be, options, NULL, &shape, &measurement->memory, device.available));
    TRY(backend_reserve(be, measurement->memory.scratch));
    TRY(train_parts_create(be, options, NULL, &shape, &step->parts, &taken));
    step->queue = train_step_make(step->parts.model, &step->parts.sharding, step->parts.optim,
                                  options->cuda_graphs);
    return model_init(step->parts.model, (uint64_t)options->seed);
}

static plx_status open_step(struct step *step, const struct train_options *options,
                            struct step_measurement *measurement, struct error *err)
{
    struct model_config config;
    struct backend_config backend;
    int64_t vocab = options->vocab_size > 0 ? options->vocab_size : BYTES_AND_END;
    TRY(train_model_config(options, vocab, -1, &config, err));
    TRY(train_backend_config(options, &backend, err));
    TRY(make_batch(step, options, vocab, err));
    TRY(backend_create(&step->backend, &backend, err));
    TRY(build_parts(step, options, &config, measurement));
    return describe(step, options, &config, measurement);
}

static void close_step(struct step *step)
{
    train_step_forget(&step->queue);
    train_parts_destroy(&step->parts);
    backend_destroy(&step->backend);
    free(step->numbers);
}

static plx_status run_step(struct step *step, const struct train_options *options)
{
    const double scale = 1.0 / (double)(step->batch.tokens * options->accumulate);
    const int64_t last = options->accumulate - 1;
    TRY(train_step_begin(&step->queue, true));
    for (int64_t i = 0; i <= last; i++)
        TRY(train_step_add(&step->queue, &step->batch, scale, i == last));
    timed_ops_optimiser(true);
    plx_status status = train_step_update(&step->queue, 1, 1);
    timed_ops_optimiser(false);
    double loss;
    return status == PLX_OK ? model_loss_read(step->parts.model, &loss) : status;
}

static int compare_seconds(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Steps as they run in training, one by one. */
static plx_status time_steps(struct step *step, const struct train_options *options,
                             const struct step_method *method, struct step_measurement *measurement,
                             struct error *err)
{
    double *seconds = calloc((size_t)method->repeat, sizeof *seconds);
    REQUIRE(err, seconds, PLX_OUT_OF_MEMORY, "no memory for %lld timings",
            (long long)method->repeat);
    plx_status status = PLX_OK;
    for (int64_t i = 0; status == PLX_OK && i < method->skip; i++) status = run_step(step, options);
    for (int64_t i = 0; status == PLX_OK && i < method->repeat; i++) {
        double start = process_seconds();
        status = run_step(step, options);
        seconds[i] = process_seconds() - start;
    }
    qsort(seconds, (size_t)method->repeat, sizeof *seconds, compare_seconds);
    measurement->best = seconds[0];
    measurement->median = seconds[method->repeat / 2];
    free(seconds);
    return status;
}

/* As many steps again, with a clock around every operation, each launched by itself. */
static plx_status divide_steps(struct step *step, const struct train_options *options,
                               const struct step_method *method,
                               struct step_measurement *measurement)
{
    const double share = 1.0 / (double)method->repeat;
    plx_status status = PLX_OK;
    train_step_forget(&step->queue);
    step->queue =
        train_step_make(step->parts.model, &step->parts.sharding, step->parts.optim, false);
    step->backend.ops = timed_ops(step->backend.ops);
    timed_ops_start();
    double start = process_seconds();
    for (int64_t i = 0; status == PLX_OK && i < method->repeat; i++)
        status = run_step(step, options);
    measurement->total = share * (process_seconds() - start);
    for (int phase = 0; phase < TIMED_PHASES; phase++)
        measurement->phase[phase] = share * timed_ops_seconds((enum timed_phase)phase);
    return status;
}

plx_status bench_step_measure(const struct train_options *options, const struct step_method *method,
                              struct step_measurement *measurement, struct error *err)
{
    *measurement = (struct step_measurement){0};
    struct step step = {0};
    plx_status status = open_step(&step, options, measurement, err);
    if (status == PLX_OK) status = time_steps(&step, options, method, measurement, err);
    if (status == PLX_OK && method->divide)
        status = divide_steps(&step, options, method, measurement);
    close_step(&step);
    return status;
}
