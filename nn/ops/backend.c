/* backend.c: creating what a layer runs on; see op.h. */
#include "op.h"

/* The reference operations come with the reference kernel: nothing fast may be in the oracle. */
static const char *backend_kernel(const struct backend_config *config)
{
    if (config->kernel != NULL || config->ops != &ops_ref) return config->kernel;
    return "reference";
}

static plx_status create_context(struct backend *be, const struct plx_context_config *config)
{
    plx_status status = plx_context_create(config, &be->context);
    REQUIRE(be->err, status == PLX_OK, status, "cannot create a context with %d threads: %s",
            config->threads, plx_status_text(status));
    be->threads = plx_context_threads(be->context);
    return PLX_OK;
}

plx_status backend_create(struct backend *be, const struct backend_config *config,
                          struct error *err)
{
    *be = (struct backend){.ops = config->ops,
                           .device = config->ops->device,
                           .scratch = {.device = config->ops->device},
                           .device_index = config->device_index,
                           .storage = config->storage,
                           .activation = config->bf16_activations ? PLX_BF16 : config->storage,
                           .compute = config->compute,
                           .fp8_linear = config->fp8_linear,
                           .deterministic = config->deterministic,
                           .packing = config->packing,
                           .err = err};
    struct plx_context_config context = {.device = be->device->kind,
                                         .device_index = config->device_index,
                                         .threads = config->threads,
                                         .kernel = backend_kernel(config),
                                         .disabled_features = config->disabled_features};
    plx_status status = be->device->open(config->device_index, err);
    if (status == PLX_OK) status = be->device->stream_create(&be->stream, err);
    if (status == PLX_OK) status = create_context(be, &context);
    if (status == PLX_OK) status = be->ops->create(be);
    if (status != PLX_OK) {
        plx_context_destroy(be->context);
        if (be->stream != NULL) be->device->stream_destroy(be->stream);
        *be = (struct backend){0};
    }
    return status;
}

void backend_destroy(struct backend *be)
{
    if (be->ops == NULL) return;
    be->ops->destroy(be);
    arena_destroy(&be->scratch);
    plx_context_destroy(be->context);
    if (be->stream != NULL) be->device->stream_destroy(be->stream);
    *be = (struct backend){0};
}

plx_status backend_arena(const struct backend *be, size_t bytes, struct arena *arena)
{
    if (be->ops != &ops_dry) return arena_create(arena, be->device, be->stream, bytes, be->err);
    *arena = arena_measuring(be->device);
    return PLX_OK;
}

plx_status backend_reserve(struct backend *be, size_t bytes)
{
    REQUIRE(be->err, be->scratch.used == 0, PLX_INTERNAL,
            "scratch cannot grow to %zu bytes while %zu are in use", bytes, be->scratch.used);
    if (be->ops == &ops_dry) {
        if (be->scratch.peak < bytes) be->scratch.peak = bytes;
        return PLX_OK;
    }
    if (be->scratch.base != NULL && be->scratch.capacity >= bytes) return PLX_OK;
    struct arena larger;
    TRY(arena_create(&larger, be->device, be->stream, bytes, be->err));
    arena_destroy(&be->scratch);
    be->scratch = larger;
    return PLX_OK;
}

struct backend backend_dry(const struct backend *be)
{
    struct backend dry = *be;
    if (be->ops != &ops_dry) dry.counted = be->ops;
    dry.ops = &ops_dry;
    dry.scratch = arena_measuring(be->device);
    return dry;
}

struct precision backend_precision(const struct backend *be)
{
    return (struct precision){
        .storage = be->storage, .activation = be->activation, .fp8_linear = be->fp8_linear};
}

static plx_status quantise(struct backend *be, const struct param *param)
{
    if (param->rows.values.rank == 0) return PLX_OK;
    return be->ops->quantise(be, &param->value, &param->rows, &param->columns);
}

plx_status backend_refresh(struct backend *be, const struct param_list *params)
{
    for (int i = 0; i < params->count; i++) {
        const struct param *param = &params->items[i];
        if (param->active.data != param->value.data)
            TRY(be->ops->copy(be, &param->active, &param->value));
        TRY(quantise(be, param));
    }
    return PLX_OK;
}

plx_status backend_requantise(struct backend *be, const struct param_list *params, bool remote)
{
    for (int i = 0; i < params->count; i++) {
        const struct param *param = &params->items[i];
        if (!param->frozen && param->remote == remote) TRY(quantise(be, param));
    }
    return PLX_OK;
}
