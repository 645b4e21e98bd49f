/* op_operands.h: what the rows of op_cases.h are written with: operands of usual shapes, and
 * numbers of double on a backend's device. */
#ifndef TEST_OP_OPERANDS_H
#define TEST_OP_OPERANDS_H

#include "op_run.h"

static inline struct operand vector(enum operand_role role, int64_t n)
{
    return (struct operand){.role = role, .rank = 1, .shape = {n}};
}

static inline struct operand matrix(enum operand_role role, int64_t rows, int64_t columns)
{
    return (struct operand){.role = role, .rank = 2, .shape = {rows, columns}};
}

/* Of the storage dtype where activations have another: gains, statistics, gradients of parameters.
 */
static inline struct operand stored(struct operand operand)
{
    operand.stored = true;
    return operand;
}

static inline struct operand heads(enum operand_role role, int64_t n, int64_t h, int64_t d)
{
    return (struct operand){.role = role, .rank = 3, .shape = {n, h, d}};
}

static inline struct operand integers(enum operand_values values, int64_t n, int64_t bound)
{
    return (struct operand){.values = values, .rank = 1, .shape = {n}, .bound = bound};
}

static inline struct operand sequence(enum operand_role role, int64_t t, int64_t h, int64_t d)
{
    return (struct operand){.role = role, .rank = 4, .shape = {2, t, h, d}};
}

static void one_out(struct operand *o, int64_t n, int64_t e)
{
    o[0] = matrix(ROLE_OUT, n, e);
}

static void out_in(struct operand *o, int64_t n, int64_t e)
{
    o[0] = matrix(ROLE_OUT, n, e);
    o[1] = matrix(ROLE_IN, n, e);
}

static void out_in_in(struct operand *o, int64_t n, int64_t e)
{
    out_in(o, n, e);
    o[2] = matrix(ROLE_IN, n, e);
}

static void both_in(struct operand *o, int64_t n, int64_t e)
{
    o[0] = matrix(ROLE_BOTH, n, e);
    o[1] = matrix(ROLE_IN, n, e);
}

/* Numbers of double on the backend's device, whatever the dtype of the operands. */
static plx_status doubles_create(struct backend *be, int64_t count, const double *values,
                                 struct plx_tensor *numbers)
{
    void *memory;
    size_t bytes = (size_t)count * sizeof(double);
    TRY(be->device->allocate(&memory, bytes, be->stream, be->err));
    *numbers = plx_tensor_dense(memory, PLX_F64, 1, &count);
    numbers->device = be->device->kind;
    return be->device->upload(memory, values, bytes, be->stream, be->err);
}

/* Copies them into an operand, unless this is a dry run, and frees them. */
static plx_status doubles_finish(struct backend *be, struct plx_tensor *numbers,
                                 const struct plx_tensor *operand)
{
    plx_status status = operand->data != NULL ? be->ops->copy(be, operand, numbers) : PLX_OK;
    be->device->release(numbers->data, be->stream);
    return status;
}

#endif
