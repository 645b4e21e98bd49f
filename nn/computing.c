/* computing.c: see computing.h. A policy of precision is a row of a table: another device, or
 * another policy, is another row. */
#include "computing.h"

#include <stdio.h>
#include <string.h>

/* The first row of a device is its default. */
static const struct policy {
    const struct ops *ops;
    const char *dtype;
    plx_dtype compute;
    bool bf16_activations, fp8_linear;
} policies[] = {
    {&ops_cpu, "f32", PLX_F32, false, false},   /* all f32 */
    {&ops_cpu, "bf16", PLX_BF16, false, false}, /* operands of products are rounded */
    {&ops_cpu, "fp8", PLX_F32, false, true},    /* those of linear layers are, to 8 bits */
    {&ops_cuda, "bf16", PLX_BF16, true, false}, /* f32 weights are kept, activations are bf16 */
    {&ops_cuda, "f32", PLX_F32, false, false},
    {&ops_cuda, "fp8", PLX_BF16, true, true}, /* bf16, with 8 bits in linear layers */
};

enum { POLICIES = sizeof policies / sizeof *policies };

static plx_status find_policy(const struct device *device, const char *dtype,
                              const struct policy **policy, struct error *err)
{
    for (int p = 0; p < POLICIES; p++) {
        *policy = &policies[p];
        if (policies[p].ops->device != device) continue;
        if (dtype[0] == '\0' || strcmp(dtype, policies[p].dtype) == 0) return PLX_OK;
    }
    return error_set(err, PLX_INVALID_ARGUMENT, "--dtype: \"%s\" is none of f32, bf16, fp8", dtype);
}

/* "" holds matrices as products read them, where that takes less. */
static plx_status find_packing(const char *name, const struct policy *policy, enum packing *packing,
                               struct error *err)
{
    *packing = PACKING_NONE;
    if (name == NULL || strcmp(name, "f32") == 0) return PLX_OK;
    if (name[0] == '\0') {
        if (policy->bf16_activations) *packing = PACKING_BF16;
        return PLX_OK;
    }
    for (int p = 0; p < PACKINGS; p++) {
        *packing = (enum packing)p;
        if (strcmp(name, packing_name(*packing)) == 0) return PLX_OK;
    }
    return error_set(err, PLX_INVALID_ARGUMENT, "--weights: \"%s\" is none of f32, bf16, int8",
                     name);
}

/* What only the CPU has. */
static plx_status check_options(const struct computing *computing, const struct device *device,
                                struct error *err)
{
    REQUIRE(err, device == &device_cpu || !computing->portable, PLX_INVALID_ARGUMENT,
            "--portable: chooses among the CPU's kernels, but --device is %s", device->name);
    return PLX_OK;
}

plx_status computing_config(const struct computing *computing, struct backend_config *config,
                            struct error *err)
{
    const struct device *device;
    const struct policy *policy;
    enum packing packing;
    int index;
    TRY(device_choose(computing->device, &device, &index, err));
    TRY(find_policy(device, computing->dtype, &policy, err));
    TRY(find_packing(computing->weights, policy, &packing, err));
    TRY(check_options(computing, device, err));
    *config = (struct backend_config){.ops = policy->ops,
                                      .storage = PLX_F32,
                                      .compute = policy->compute,
                                      .threads = (int)computing->threads,
                                      .kernel = computing->kernel[0] ? computing->kernel : NULL,
                                      .disabled_features = computing->portable ? UINT32_MAX : 0,
                                      .packing = packing,
                                      .bf16_activations = policy->bf16_activations,
                                      .fp8_linear = policy->fp8_linear,
                                      .deterministic = computing->deterministic,
                                      .device_index = index};
    return PLX_OK;
}

const char *computing_device_name(const struct backend_config *config, char *text, size_t size)
{
    const struct device *device = config->ops->device;
    if (device == &device_cpu)
        snprintf(text, size, "%s", device->name);
    else
        snprintf(text, size, "%s:%d", device->name, config->device_index);
    return text;
}

const char *computing_dtype_name(const struct backend_config *config)
{
    return config->fp8_linear ? "fp8" : plx_dtype_name(config->compute);
}
