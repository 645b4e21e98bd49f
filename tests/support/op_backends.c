/* op_backends.c: see op_backends.h. */
#include "op_backends.h"

#include <stdio.h>

static struct op_backend *used;
static int used_count;

void op_backends_use(struct op_backend *backends, int count)
{
    used = backends;
    used_count = count;
}

int op_backends_create(void **state)
{
    (void)state;
    for (int b = 0; b < used_count; b++) {
        struct op_backend *row = &used[b];
        if (backend_create(&row->be, &row->config, &row->err) == PLX_OK) continue;
        fprintf(stderr, "%s: %s\n", row->name, row->err.text);
        return -1;
    }
    return 0;
}

int op_backends_destroy(void **state)
{
    (void)state;
    for (int b = 0; b < used_count; b++) backend_destroy(&used[b].be);
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
