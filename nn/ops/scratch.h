/* scratch.h: what the operations of a table need from be->scratch.
 *
 * Each operation that needs scratch takes blocks whose sizes are a pure function of its arguments,
 * declared here, and a table points to those of its own. The real operation pushes the block and
 * the dry one, which finds the size in the table that it counts for, pushes and releases it, so a
 * measured size cannot disagree with the use. Attention's workspace is asked of the library
 * (attend.c) by every table. */
#ifndef NN_OPS_SCRATCH_H
#define NN_OPS_SCRATCH_H

#include "op.h"

/* Bytes of an operation's block; a member is NULL where the operation needs none. */
struct ops_scratch {
    /* The second block is pushed on top of the first, here and below. */
    plx_status (*gemm)(struct backend *be, const struct gemm *gemm, size_t *first, size_t *second);
    size_t (*quantise)(const struct plx_tensor *x, const struct quantised *columns);
    size_t (*rmsnorm_backward)(const struct plx_tensor *x);
    size_t (*bias_backward)(const struct plx_tensor *dy);
    size_t (*rope)(const struct plx_tensor *x);
    size_t (*sum_squares)(const struct plx_tensor *sums, const struct plx_tensor *const *xs);
    size_t (*normalise)(const struct plx_tensor *x);
    /* False where the call is made by products, which count for themselves. */
    bool (*orthogonalise)(const struct orthogonalise *call, size_t *first, size_t *second);
    size_t (*embed_backward)(const struct plx_tensor *dtable, const struct plx_tensor *ids);
    plx_status (*project)(struct backend *be, const struct plx_tensor *y,
                          const struct plx_tensor *x, const struct packed *weight, size_t *first,
                          size_t *second);
    size_t (*draw)(const struct backend *be, const struct plx_tensor *x);
};

extern const struct ops_scratch ops_cpu_scratch;

/* Rows that one partial sum covers, whatever the number of threads. */
enum { SCRATCH_PARTIAL_ROWS = 64 };

/* ops_cpu's partial sums over the rows of x, of rmsnorm_backward and bias_backward. */
size_t scratch_row_partials(const struct plx_tensor *x);
size_t scratch_rope(const struct plx_tensor *x);

/* Pushes a block, or nothing (*block NULL) for no bytes. A scratch arena too small for it is a
 * mistake of the plan: PLX_INTERNAL, and *block is NULL. While measuring *block is NULL and the
 * result PLX_OK. Release with arena_release either way. */
plx_status scratch_push(struct backend *be, const char *op, size_t bytes, void **block);

#endif
