/* op_backends.h: the backends that cases of operations run on. */
#ifndef TEST_OP_BACKENDS_H
#define TEST_OP_BACKENDS_H

#include "op_run.h"

struct op_backend {
    const char *name;
    struct backend_config config;
    struct backend be;
    struct error err;
};

/* All of count, or a line that says why not: what cmocka's set-up of a group returns. */
int op_backends_create(struct op_backend *backends, int count);
int op_backends_destroy(struct op_backend *backends, int count);
/* Whether there is a GPU with 8-bit products, which no other than a Hopper and no old cuBLASLt has;
 * says on stdout why not. */
bool op_backend_has_fp8(void);

#endif
