/* context.c: creating and destroying contexts, and the text of the last failure.
 *
 * A context is one small allocation: the resolved configuration, the processor's features and the
 * error text. It is the only thing the library allocates and the only thing it frees. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/context.h"
#include "cuda/device.h"

plx_status plx_context_create(const struct plx_context_config *config, plx_context **context)
{
    static const struct plx_context_config defaults;
    if (!context) return PLX_INVALID_ARGUMENT;
    *context = NULL;
    if (!config) config = &defaults;
    if (config->threads < 0) return PLX_INVALID_ARGUMENT;
    if (config->device != PLX_CPU && config->device != PLX_CUDA) return PLX_INVALID_ARGUMENT;
    if (config->device_index < 0) return PLX_INVALID_ARGUMENT;
    struct cuda_device device = {0, 0};
    if (config->device == PLX_CUDA) TRY(cuda_device_open(config->device_index, &device));

    plx_context *created = calloc(1, sizeof *created);
    if (!created) return PLX_OUT_OF_MEMORY;
    if (config->kernel && strlen(config->kernel) >= sizeof created->kernel) {
        free(created);
        return PLX_INVALID_ARGUMENT;
    }
    created->device = config->device;
    created->device_index = config->device_index;
    created->capability = device.capability;
    created->processors = device.processors;
    created->validate = config->validate;
    created->threads = config->threads > 0 ? config->threads : cpu_threads();
    created->features = cpu_features() & ~config->disabled_features;
    if (config->kernel) strcpy(created->kernel, config->kernel);
    *context = created;
    return PLX_OK;
}

void plx_context_destroy(plx_context *context)
{
    free(context);
}

const char *plx_error(const plx_context *context)
{
    return context ? context->error : "the context is NULL";
}

uint32_t plx_context_features(const plx_context *context)
{
    return context ? context->features : 0;
}

int plx_context_threads(const plx_context *context)
{
    return context ? context->threads : 0;
}

void context_begin(plx_context *context)
{
    context->error[0] = '\0';
}

plx_status context_fail(plx_context *context, plx_status status, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(context->error, sizeof context->error, format, arguments);
    va_end(arguments);
    return status;
}
