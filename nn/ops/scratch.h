/* scratch.h: what the operations of ops_cpu need from be->scratch.
 *
 * Each operation that needs scratch takes one block whose size is a pure function of its arguments,
 * declared here. The real operation pushes that block and the dry one pushes and releases it, so a
 * measured size cannot disagree with the use. ops_ref keeps no state and needs no scratch;
 * attention's workspace is asked of the library (attend.c) by every table. */
#ifndef NN_OPS_SCRATCH_H
#define NN_OPS_SCRATCH_H

#include "op.h"

/* Rows that one partial sum covers, whatever the number of threads. */
enum { SCRATCH_PARTIAL_ROWS = 64 };

/* Partial sums over the rows of x, of rmsnorm_backward and bias_backward. */
size_t scratch_row_partials(const struct plx_tensor *x);
size_t scratch_rope(const struct plx_tensor *x);

/* Pushes a block, or nothing (*block NULL) for no bytes. A scratch arena too small for it is a
 * mistake of the plan: PLX_INTERNAL, and *block is NULL. While measuring *block is NULL and the
 * result PLX_OK. Release with arena_release either way. */
plx_status scratch_push(struct backend *be, const char *op, size_t bytes, void **block);

#endif
