/* op_backends.c: see op_backends.h. */
#include "op_backends.h"

#include <stdio.h>

int op_backends_create(struct op_backend *backends, int count)
{
    for (int b = 0; b < count; b++) {
        struct op_backend *row = &backends[b];
        if (backend_create(&row->be, &row->config, &row->err) == PLX_OK) continue;
        fprintf(stderr, "%s: %s\n", row->name, row->err.text);
        return -1;
    }
    return 0;
}

int op_backends_destroy(struct op_backend *backends, int count)
{
    for (int b = 0; b < count; b++) backend_destroy(&backends[b].be);
    return 0;
}

bool op_backend_has_fp8(void)
{
    const struct backend_config config = {
        .ops = &ops_cuda, .compute = PLX_BF16, .bf16_activations = true, .fp8_linear = true};
    struct error err = {0};
    struct backend be;
    if (backend_create(&be, &config, &err) != PLX_OK) {
        printf("skipped, fp8: %s\n", err.text);
        return false;
    }
    backend_destroy(&be);
    return true;
}
