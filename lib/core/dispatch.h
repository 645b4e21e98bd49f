/* dispatch.h: choosing one implementation from an ordered table.
 *
 * Each mechanism keeps, for every pass, a const array of rows in order of preference; the reference
 * is last and accepts everything on the CPU. A row says in words why it refuses a problem, so that
 * the choice can be explained as well as made. Next: attention/attention.h (the problem),
 * parallax/parallax.c (a table). */
#ifndef PLX_DISPATCH_H
#define PLX_DISPATCH_H

#include "parallax/parallax.h"

struct kernel_row {
    const char *name;
    /* NULL where the row can run the problem in this context; otherwise the reason, static storage.
     */
    const char *(*refuse)(const void *problem, const plx_context *context);
    /* Bytes of scratch; a pure function of the problem. */
    size_t (*workspace)(const void *problem);
    plx_status (*run)(plx_context *context, const void *problem, void *workspace,
                      plx_stream stream);
};

struct kernel_table {
    const struct kernel_row *const *rows;
    int count;
};

/* The first row that accepts the problem, the forced one where one is, or NULL. */
const struct kernel_row *dispatch_find(const plx_context *context, struct kernel_table table,
                                       const void *problem);
/* The same as *row. On failure sets the context's error: which kernel
 * was asked for, and the reason of the last row that refused. */
plx_status dispatch_choose(plx_context *context, struct kernel_table table, const void *problem,
                           const struct kernel_row **row);

#endif
