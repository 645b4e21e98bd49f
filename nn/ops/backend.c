/* backend.c: creating what a layer runs on; see op.h. */
#include "op.h"

/* The reference operations come with the reference kernel: nothing fast may be in the oracle. */
static const char *backend_kernel(const struct backend_config *config)
{
    if (config->kernel != NULL || config->ops != &ops_ref) return config->kernel;
    return "reference";
}

plx_status backend_create(struct backend *be, const struct backend_config *config,
                          struct error *err)
{
    *be = (struct backend){.ops = config->ops,
                           .storage = config->storage,
                           .compute = config->compute,
                           .packing = config->packing,
                           .err = err};
    struct plx_context_config context = {.threads = config->threads,
                                         .kernel = backend_kernel(config),
                                         .disabled_features = config->disabled_features};
    plx_status status = plx_context_create(&context, &be->context);
    if (status == PLX_OK) {
        be->threads = plx_context_threads(be->context);
        status = be->ops->create(be);
    } else {
        error_set(err, status, "cannot create a context with %d threads: %s", config->threads,
                  plx_status_text(status));
    }
    if (status != PLX_OK) {
        plx_context_destroy(be->context);
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
    *be = (struct backend){0};
}

plx_status backend_reserve(struct backend *be, size_t bytes)
{
    REQUIRE(be->err, be->scratch.used == 0, PLX_INTERNAL,
            "scratch cannot grow to %zu bytes while %zu are in use", bytes, be->scratch.used);
    if (be->scratch.base != NULL && be->scratch.capacity >= bytes) return PLX_OK;
    struct arena larger;
    plx_status status = arena_create(&larger, bytes, be->err);
    if (status != PLX_OK) return status;
    arena_destroy(&be->scratch);
    be->scratch = larger;
    return PLX_OK;
}

struct backend backend_dry(const struct backend *be)
{
    struct backend dry = *be;
    dry.ops = &ops_dry;
    dry.scratch = arena_measuring();
    return dry;
}
