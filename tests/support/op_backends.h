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

/* The backends that the program's tests run on; they outlive it. */
void op_backends_use(struct op_backend *backends, int count);
/* A group's set-up and tear-down: all of them, or a line that says why not. */
int op_backends_create(void **state);
int op_backends_destroy(void **state);
/* Whether there is a GPU with 8-bit products, which no other than a Hopper and no old cuBLASLt has;
 * says on stdout why not. */
bool op_backend_has_fp8(void);

#endif
