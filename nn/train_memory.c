/* train_memory.c: see train_memory.h. Sizes are found by the very code that builds the parts, on a
 * backend whose arenas only count, so what is planned and what is taken cannot disagree; trying
 * another setting is as cheap as asking for the first. */
#include "train_memory.h"

#include <math.h>
#include <stdio.h>

/* Of what is free, the part that a plan may not count on is 1 / SPARE: code that a GPU's runtime
 * loads as it is first called, and what alignment and other processes take. */
enum { SPARE = 64 };

plx_status train_shape_make(const struct train_options *options, const struct model_config *model,
                            int64_t sequences, struct train_shape *shape, struct error *err)
{
    *shape = (struct train_shape){.model = *model, .batch = options->batch, .sequences = sequences};
    TRY(train_optim_config(options, &shape->optim, err));
    return train_recompute(options, &shape->recompute, err);
}

/* ---- Building ---- */

static plx_status build(struct backend *be, const struct train_options *options, struct comm *comm,
                        const struct train_shape *shape, struct train_parts *parts,
                        struct train_memory *memory)
{
    TRY(model_create(be, &shape->model, &parts->model));
    struct param_list *params = model_params(parts->model);
    TRY(train_freeze(options, params, be->err));
    TRY(model_reserve(parts->model, shape->batch * options->context, shape->sequences, true,
                      shape->recompute, &memory->model));
    TRY(sharding_create(&parts->sharding, comm, be, params, &shape->optim));
    TRY(optim_create(be, &shape->optim, params, &parts->optim));
    memory->optimiser = optim_bytes(parts->optim);
    return PLX_OK;
}

plx_status train_parts_create(struct backend *be, const struct train_options *options,
                              struct comm *comm, const struct train_shape *shape,
                              struct train_parts *parts, struct train_memory *memory)
{
    *parts = (struct train_parts){0};
    *memory = (struct train_memory){0};
    plx_status status = build(be, options, comm, shape, parts, memory);
    if (status != PLX_OK) train_parts_destroy(parts);
    return status;
}

void train_parts_destroy(struct train_parts *parts)
{
    optim_destroy(parts->optim);
    sharding_destroy(&parts->sharding);
    model_destroy(parts->model);
    *parts = (struct train_parts){0};
}

plx_status train_memory_measure(const struct backend *be, const struct train_options *options,
                                struct comm *comm, const struct train_shape *shape,
                                struct train_memory *memory)
{
    struct backend dry = backend_dry(be);
    struct train_parts parts;
    TRY(train_parts_create(&dry, options, comm, shape, &parts, memory));
    train_parts_destroy(&parts);
    const struct model_memory *model = &memory->model;
    memory->scratch = dry.scratch.peak;
    memory->total = model->params + model->active + model->grads + model->activations +
                    model->inputs + memory->optimiser + memory->scratch;
    return PLX_OK;
}

/* ---- What would fit ---- */

static bool fits(const struct train_memory *memory, size_t available)
{
    return memory->total <= available - available / SPARE;
}

/* About how much longer a step takes: by a share of its arithmetic for what is computed again, and
 * for every halving of the micro-batch, as products become smaller. Only the order matters. */
static double cost(const struct train_shape *shape, const struct train_shape *asked)
{
    static const double recomputed[] = {
        [RECOMPUTE_NONE] = 0, [RECOMPUTE_SELECTIVE] = 0.03, [RECOMPUTE_FULL] = 0.33};
    return recomputed[shape->recompute] + 0.05 * log2((double)asked->batch / (double)shape->batch);
}

/* The cheapest shape that fits, among stronger recomputation and micro-batches that divide the one
 * asked for; found says whether there is one, and *least is the smallest total met. */
static plx_status find_fit(const struct backend *be, const struct train_options *options,
                           struct comm *comm, const struct train_shape *asked, size_t available,
                           struct train_shape *best, bool *found, size_t *least)
{
    *found = false;
    *least = SIZE_MAX;
    for (int64_t batch = asked->batch; batch >= 1; batch--) {
        if (asked->batch % batch != 0) continue;
        for (int r = (int)asked->recompute; r <= RECOMPUTE_FULL; r++) {
            struct train_shape shape = *asked;
            struct train_memory memory;
            shape.recompute = (enum recompute)r;
            shape.batch = batch;
            if (shape.sequences > batch * options->context)
                shape.sequences = batch * options->context;
            TRY(train_memory_measure(be, options, comm, &shape, &memory));
            if (memory.total < *least) *least = memory.total;
            if (!fits(&memory, available)) continue;
            if (*found && cost(&shape, asked) >= cost(best, asked)) continue;
            *best = shape;
            *found = true;
        }
    }
    return PLX_OK;
}

static double gib(size_t bytes)
{
    return (double)bytes / (1024.0 * 1024.0 * 1024.0);
}

const char *train_memory_text(const struct train_memory *memory, char *text, size_t size)
{
    const struct model_memory *model = &memory->model;
    const double unit = memory->total < ((size_t)1 << 30) ? 1024 : 1;
    snprintf(text, size,
             "%.1f %s: parameters %.1f, copies for products %.1f, gradients %.1f, optimiser %.1f, "
             "activations %.1f, scratch %.1f, batch %.1f",
             unit * gib(memory->total), unit > 1 ? "MiB" : "GiB", unit * gib(model->params),
             unit * gib(model->active), unit * gib(model->grads), unit * gib(memory->optimiser),
             unit * gib(model->activations), unit * gib(memory->scratch),
             unit * gib(model->inputs));
    return text;
}

/* " --recompute full --batch 2 --accumulate 4": what differs from what was asked. */
static void setting_text(const struct train_options *options, const struct train_shape *asked,
                         const struct train_shape *fit, char *text, size_t size)
{
    int used = 0;
    text[0] = 0;
    if (fit->recompute != asked->recompute)
        used = snprintf(text, size, " --recompute %s", train_recompute_name(fit->recompute));
    if (fit->batch != asked->batch)
        snprintf(text + used, size - (size_t)used, " --batch %lld --accumulate %lld",
                 (long long)fit->batch,
                 (long long)(options->accumulate * (asked->batch / fit->batch)));
}

plx_status train_memory_check(const struct backend *be, const struct train_options *options,
                              struct comm *comm, const struct train_shape *shape,
                              const struct train_memory *memory, size_t available)
{
    if (available == 0 || fits(memory, available)) return PLX_OK;
    struct train_shape fit;
    bool found;
    size_t least;
    char need[256], setting[128];
    TRY(find_fit(be, options, comm, shape, available, &fit, &found, &least));
    train_memory_text(memory, need, sizeof need);
    if (!found)
        return error_set(be->err, PLX_OUT_OF_MEMORY,
                         "memory: %.1f GiB are free, but training needs %s; even --recompute full "
                         "--batch 1 needs %.1f GiB, so use a shorter --context or a smaller model",
                         gib(available), need, gib(least));
    setting_text(options, shape, &fit, setting, sizeof setting);
    return error_set(be->err, PLX_OUT_OF_MEMORY,
                     "memory: %.1f GiB are free, but training needs %s; it fits with%s",
                     gib(available), need, setting);
}
