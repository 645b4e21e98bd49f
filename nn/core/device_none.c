/* device_none.c: CUDA's row of device.h in a build without CUDA: it cannot be opened, and nothing
 * else of it may be called before that. */
#include "core/device.h"

static plx_status none_open(int index, struct error *err)
{
    (void)index;
    return error_set(err, PLX_INVALID_ARGUMENT, "device: cuda: this build has no CUDA");
}

static plx_status none_describe(int index, struct device_facts *facts, struct error *err)
{
    *facts = (struct device_facts){.name = "none"};
    return none_open(index, err);
}

const struct device device_cuda = {.name = "cuda",
                                   .kind = PLX_CUDA,
                                   .alignment = 256,
                                   .open = none_open,
                                   .describe = none_describe};
