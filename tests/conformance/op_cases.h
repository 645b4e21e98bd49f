/* op_cases.h: one row an operation: its operands at a given size, and the call. test_ops.c runs
 * every row on every backend. A new member of struct ops needs a row here; test_ops.c fails until
 * it has one. */
#ifndef TEST_OP_CASES_H
#define TEST_OP_CASES_H

#include <math.h>
#include <stddef.h>

#include "op.h"

enum { OPERANDS = 13 };

enum operand_role {
    ROLE_IN,  /* must not change */
    ROLE_OUT, /* NaN before, overwritten */
    ROLE_BOTH /* read and written: accumulated into, or in place */
};

enum operand_values {
    FILL_NORMAL,
    FILL_SQUARES,   /* not negative, like second moments */
    FILL_IDS,       /* i32 in 0 .. bound - 1 */
    FILL_TARGETS,   /* i32 in -1 .. bound - 1 */
    FILL_POSITIONS, /* i32 in 0 .. 40000 */
    FILL_LENGTH     /* i32, all equal to bound */
};

struct operand {
    enum operand_role role;
    enum operand_values values;
    int rank;
    int64_t shape[PLX_MAX_RANK];
    int64_t bound;
};

/* A row at sizes n and e. */
typedef void (*op_operands)(struct operand *operands, int64_t n, int64_t e);
/* views[i] is operand i in memory, or with data NULL in a dry run. */
typedef plx_status (*op_run)(struct backend *be, const struct plx_tensor *views);

struct op_case {
    const char *name;
    size_t member; /* offset in struct ops of what the row covers */
    op_operands operands;
    op_run run;
    bool product; /* a matrix product: rounding of operands applies, and rows may be padded */
    bool attention;
};

/* ---- Operands -------------------------------------------------------------------------------- */

static inline struct operand vector(enum operand_role role, int64_t n)
{
    return (struct operand){.role = role, .rank = 1, .shape = {n}};
}

static inline struct operand matrix(enum operand_role role, int64_t rows, int64_t columns)
{
    return (struct operand){.role = role, .rank = 2, .shape = {rows, columns}};
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

/* ---- Vectors --------------------------------------------------------------------------------- */

static plx_status run_zero(struct backend *be, const struct plx_tensor *v)
{
    return be->ops->zero(be, &v[0]);
}

static plx_status run_copy(struct backend *be, const struct plx_tensor *v)
{
    return be->ops->copy(be, &v[0], &v[1]);
}

static plx_status run_add(struct backend *be, const struct plx_tensor *v)
{
    return be->ops->add(be, &v[0], &v[1], &v[2]);
}

static plx_status run_add_in_place(struct backend *be, const struct plx_tensor *v)
{
    return be->ops->add(be, &v[0], &v[0], &v[1]);
}

static plx_status run_add_to_second(struct backend *be, const struct plx_tensor *v)
{
    return be->ops->add(be, &v[0], &v[1], &v[0]);
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

static void operands_sum(struct operand *o, int64_t n, int64_t e)
{
    o[0] = vector(ROLE_OUT, 1);
    o[1] = matrix(ROLE_IN, n, e);
}

static plx_status run_sum(struct backend *be, const struct plx_tensor *v)
{
    struct plx_tensor total;
    TRY(doubles_create(be, 1, (double[]){0.25}, &total));
    TRY(be->ops->sum(be, &total, &v[1]));
    return doubles_finish(be, &total, &v[0]);
}

/* Two tensors, and none between them. */
static void operands_sum_squares(struct operand *o, int64_t n, int64_t e)
{
    o[0] = vector(ROLE_OUT, 3);
    o[1] = matrix(ROLE_IN, n, e);
    o[2] = vector(ROLE_IN, e);
}

static plx_status run_sum_squares(struct backend *be, const struct plx_tensor *v)
{
    const struct plx_tensor *const xs[3] = {&v[1], NULL, &v[2]};
    struct plx_tensor sums;
    TRY(doubles_create(be, 3, (double[]){NAN, NAN, NAN}, &sums));
    TRY(be->ops->sum_squares(be, &sums, xs));
    return doubles_finish(be, &sums, &v[0]);
}

/* ---- Products -------------------------------------------------------------------------------- */

/* The third extent is neither of the two given and odd half of the time. */
static int64_t inner(int64_t n, int64_t e)
{
    return (n + e) / 2 + 1;
}

static plx_status multiply(struct backend *be, const struct plx_tensor *v, bool transpose_a,
                           bool transpose_b, double alpha, double beta)
{
    struct gemm gemm = {&v[1], &v[2], &v[0], transpose_a, transpose_b, alpha, beta, NULL};
    return be->ops->gemm(be, &gemm);
}

static void operands_nn(struct operand *o, int64_t n, int64_t e)
{
    o[0] = matrix(ROLE_OUT, n, e);
    o[1] = matrix(ROLE_IN, n, inner(n, e));
    o[2] = matrix(ROLE_IN, inner(n, e), e);
}

static plx_status run_nn(struct backend *be, const struct plx_tensor *v)
{
    return multiply(be, v, false, false, 1.0, 0.0);
}

static void operands_nt(struct operand *o, int64_t n, int64_t e)
{
    operands_nn(o, n, e);
    o[2] = matrix(ROLE_IN, e, inner(n, e));
}

static plx_status run_nt(struct backend *be, const struct plx_tensor *v)
{
    return multiply(be, v, false, true, 1.0, 0.0);
}

static void operands_tn(struct operand *o, int64_t n, int64_t e)
{
    operands_nn(o, n, e);
    o[0].role = ROLE_BOTH;
    o[1] = matrix(ROLE_IN, inner(n, e), n);
}

static plx_status run_tn_accumulate(struct backend *be, const struct plx_tensor *v)
{
    return multiply(be, v, true, false, 1.0, 1.0);
}

static void operands_tt(struct operand *o, int64_t n, int64_t e)
{
    operands_tn(o, n, e);
    o[2] = matrix(ROLE_IN, e, inner(n, e));
}

static plx_status run_tt_factors(struct backend *be, const struct plx_tensor *v)
{
    return multiply(be, v, true, true, -0.7, 0.3);
}

/* x x^T, as Newton-Schulz iterations have it. */
static void operands_square(struct operand *o, int64_t n, int64_t e)
{
    o[0] = matrix(ROLE_OUT, n, n);
    o[1] = matrix(ROLE_IN, n, e);
}

static plx_status run_square(struct backend *be, const struct plx_tensor *v)
{
    struct gemm gemm = {&v[1], &v[1], &v[0], false, true, 2.0, 0.0, NULL};
    return be->ops->gemm(be, &gemm);
}

/* Three products at once, what is added in a place of its own. */
static void operands_batch(struct operand *o, int64_t n, int64_t e)
{
    o[0] = heads(ROLE_OUT, 3, n, e);
    o[1] = heads(ROLE_IN, 3, inner(n, e), n);
    o[2] = heads(ROLE_IN, 3, inner(n, e), e);
    o[3] = heads(ROLE_IN, 3, n, e);
}

static plx_status run_batch(struct backend *be, const struct plx_tensor *v)
{
    struct gemm gemm = {&v[1], &v[2], &v[0], true, false, 1.0, 3.4, &v[3]};
    return be->ops->gemm(be, &gemm);
}

/* A matrix of its own place is added to a product of two. */
static void operands_add(struct operand *o, int64_t n, int64_t e)
{
    operands_nt(o, n, e);
    o[3] = matrix(ROLE_IN, n, e);
}

static plx_status run_product_add(struct backend *be, const struct plx_tensor *v)
{
    struct gemm gemm = {&v[1], &v[2], &v[0], false, true, -0.7, 1.5, &v[3]};
    return be->ops->gemm(be, &gemm);
}

/* ---- Layers ---------------------------------------------------------------------------------- */

static void operands_rmsnorm(struct operand *o, int64_t n, int64_t e)
{
    o[0] = matrix(ROLE_OUT, n, e);
    o[1] = vector(ROLE_OUT, n);
    o[2] = matrix(ROLE_IN, n, e);
    o[3] = vector(ROLE_IN, e);
}

static plx_status run_rmsnorm(struct backend *be, const struct plx_tensor *v)
{
    return be->ops->rmsnorm(be, &v[0], &v[1], &v[2], &v[3], 1e-6);
}

static void operands_rmsnorm_backward(struct operand *o, int64_t n, int64_t e)
{
    o[0] = matrix(ROLE_OUT, n, e);
    o[1] = vector(ROLE_BOTH, e);
    o[2] = matrix(ROLE_IN, n, e);
    o[3] = matrix(ROLE_IN, n, e);
    o[4] = vector(ROLE_IN, e);
    o[5] = vector(ROLE_IN, n);
    o[5].values = FILL_SQUARES;
}

static plx_status run_rmsnorm_backward(struct backend *be, const struct plx_tensor *v)
{
    return be->ops->rmsnorm_backward(be, &v[0], &v[1], &v[2], &v[3], &v[4], &v[5]);
}

static void operands_bias(struct operand *o, int64_t n, int64_t e)
{
    o[0] = matrix(ROLE_OUT, n, e);
    o[1] = matrix(ROLE_IN, n, e);
    o[2] = vector(ROLE_IN, e);
}

static plx_status run_bias(struct backend *be, const struct plx_tensor *v)
{
    return be->ops->bias(be, &v[0], &v[1], &v[2]);
}

static void operands_bias_in_place(struct operand *o, int64_t n, int64_t e)
{
    o[0] = matrix(ROLE_BOTH, n, e);
    o[1] = vector(ROLE_IN, e);
}

static plx_status run_bias_in_place(struct backend *be, const struct plx_tensor *v)
{
    return be->ops->bias(be, &v[0], &v[0], &v[1]);
}

static void operands_bias_backward(struct operand *o, int64_t n, int64_t e)
{
    o[0] = vector(ROLE_BOTH, e);
    o[1] = matrix(ROLE_IN, n, e);
}

static plx_status run_bias_backward(struct backend *be, const struct plx_tensor *v)
{
    return be->ops->bias_backward(be, &v[0], &v[1]);
}

static void operands_rope(struct operand *o, int64_t n, int64_t e)
{
    o[0] = heads(ROLE_OUT, n, 3, 2 * e);
    o[1] = heads(ROLE_IN, n, 3, 2 * e);
    o[2] = integers(FILL_POSITIONS, n, 0);
}

static plx_status run_rope(struct backend *be, const struct plx_tensor *v)
{
    const struct rope stretched = {.theta = 1e6,
                                   .factor = 8,
                                   .low_freq_factor = 1,
                                   .high_freq_factor = 4,
                                   .original_positions = 64};
    return be->ops->rope(be, &v[0], &v[1], &v[2], &stretched, false);
}

static void operands_rope_in_place(struct operand *o, int64_t n, int64_t e)
{
    o[0] = heads(ROLE_BOTH, n, 3, 2 * e);
    o[1] = integers(FILL_POSITIONS, n, 0);
}

static plx_status run_rope_in_place(struct backend *be, const struct plx_tensor *v)
{
    return be->ops->rope(be, &v[0], &v[0], &v[1], &(struct rope){.theta = 1e4}, true);
}

static plx_status run_swiglu(struct backend *be, const struct plx_tensor *v)
{
    return be->ops->swiglu(be, &v[0], &v[1], &v[2]);
}

static void operands_swiglu_backward(struct operand *o, int64_t n, int64_t e)
{
    for (int i = 0; i < 5; i++) o[i] = matrix(i < 2 ? ROLE_OUT : ROLE_IN, n, e);
}

static plx_status run_swiglu_backward(struct backend *be, const struct plx_tensor *v)
{
    return be->ops->swiglu_backward(be, &v[0], &v[1], &v[2], &v[3], &v[4]);
}

static void operands_gate(struct operand *o, int64_t n, int64_t e)
{
    o[0] = heads(ROLE_OUT, n, 3, e);
    o[1] = heads(ROLE_IN, n, 3, e);
    o[2] = matrix(ROLE_IN, n, 3);
}

static plx_status run_gate(struct backend *be, const struct plx_tensor *v)
{
    return be->ops->gate(be, &v[0], &v[1], &v[2]);
}

static void operands_gate_backward(struct operand *o, int64_t n, int64_t e)
{
    o[0] = heads(ROLE_OUT, n, 3, e);
    o[1] = matrix(ROLE_OUT, n, 3);
    o[2] = heads(ROLE_IN, n, 3, e);
    o[3] = heads(ROLE_IN, n, 3, e);
    o[4] = matrix(ROLE_IN, n, 3);
}

static plx_status run_gate_backward(struct backend *be, const struct plx_tensor *v)
{
    return be->ops->gate_backward(be, &v[0], &v[1], &v[2], &v[3], &v[4]);
}

/* A table of 19 rows, so that ids repeat. */
static void operands_embed(struct operand *o, int64_t n, int64_t e)
{
    o[0] = matrix(ROLE_OUT, n, e);
    o[1] = matrix(ROLE_IN, 19, e);
    o[2] = integers(FILL_IDS, n, 19);
}

static plx_status run_embed(struct backend *be, const struct plx_tensor *v)
{
    return be->ops->embed(be, &v[0], &v[1], &v[2]);
}

static void operands_embed_backward(struct operand *o, int64_t n, int64_t e)
{
    o[0] = matrix(ROLE_BOTH, 19, e);
    o[1] = matrix(ROLE_IN, n, e);
    o[2] = integers(FILL_IDS, n, 19);
}

static plx_status run_embed_backward(struct backend *be, const struct plx_tensor *v)
{
    return be->ops->embed_backward(be, &v[0], &v[1], &v[2]);
}

static void operands_loss(struct operand *o, int64_t n, int64_t e)
{
    o[0] = vector(ROLE_OUT, n);
    o[1] = matrix(ROLE_IN, n, e);
    o[2] = integers(FILL_TARGETS, n, e);
}

static plx_status run_loss(struct backend *be, const struct plx_tensor *v)
{
    struct plx_tensor absent = {0};
    return be->ops->cross_entropy(be, &v[0], &absent, &v[1], &v[2], 1.0);
}

static void operands_loss_gradient(struct operand *o, int64_t n, int64_t e)
{
    operands_loss(o, n, e);
    o[3] = matrix(ROLE_OUT, n, e);
}

static plx_status run_loss_gradient(struct backend *be, const struct plx_tensor *v)
{
    return be->ops->cross_entropy(be, &v[0], &v[3], &v[1], &v[2], 0.37);
}

static void operands_loss_in_place(struct operand *o, int64_t n, int64_t e)
{
    operands_loss(o, n, e);
    o[1].role = ROLE_BOTH;
}

static plx_status run_loss_in_place(struct backend *be, const struct plx_tensor *v)
{
    return be->ops->cross_entropy(be, &v[0], &v[1], &v[1], &v[2], 0.37);
}

static void operands_argmax(struct operand *o, int64_t n, int64_t e)
{
    o[0] = integers(FILL_IDS, n, e);
    o[0].role = ROLE_OUT;
    o[1] = matrix(ROLE_IN, n, e);
}

static plx_status run_argmax(struct backend *be, const struct plx_tensor *v)
{
    return be->ops->argmax(be, &v[0], &v[1]);
}

/* ---- Updates --------------------------------------------------------------------------------- */

/* The state after two steps, the second of which follows a bad one where the numbers say so. */
static plx_status clip(struct backend *be, const struct plx_tensor *v, const double *squares,
                       double limit)
{
    struct plx_tensor numbers, state;
    TRY(doubles_create(be, 5, squares, &numbers));
    TRY(doubles_create(be, CLIP_STATE, (double[CLIP_STATE]){0}, &state));
    struct clip arguments = {&numbers, &state, limit, 7};
    TRY(be->ops->clip(be, &arguments));
    be->device->release(numbers.data, be->stream);
    TRY(doubles_create(be, 5, (double[5]){1.0, 2.0, 3.0, 1.0, 2.0}, &numbers));
    arguments.step = 8;
    TRY(be->ops->clip(be, &arguments));
    be->device->release(numbers.data, be->stream);
    return doubles_finish(be, &state, &v[0]);
}

static void operands_clip(struct operand *o, int64_t n, int64_t e)
{
    (void)n, (void)e;
    o[0] = vector(ROLE_OUT, CLIP_STATE);
}

static plx_status run_clip(struct backend *be, const struct plx_tensor *v)
{
    return clip(be, v, (double[5]){4.0, 0.0, 5.0, 1.0, 6.0}, 1.5);
}

static plx_status run_clip_none(struct backend *be, const struct plx_tensor *v)
{
    return clip(be, v, (double[5]){4.0, 0.0, 5.0, 1.0, 6.0}, 0.0);
}

static plx_status run_clip_bad(struct backend *be, const struct plx_tensor *v)
{
    return clip(be, v, (double[5]){4.0, 0.0, NAN, 1.0, INFINITY}, 1.5);
}

/* Two parameters [n,e] and [e]: value, m, v and gradient of each. */
static void operands_adamw(struct operand *o, int64_t n, int64_t e)
{
    for (int i = 0; i < 8; i++) o[i] = i < 4 ? matrix(ROLE_BOTH, n, e) : vector(ROLE_BOTH, e);
    for (int i = 0; i < 8; i += 4) {
        o[i + 2].values = FILL_SQUARES;
        o[i + 3].role = ROLE_IN;
    }
}

static plx_status adamw(struct backend *be, const struct plx_tensor *v, int64_t step, double factor)
{
    const struct update_item items[2] = {
        {&v[0], &v[0], &v[3], &v[1], &v[2], .lr = 3e-2, .weight_decay = 0.1},
        {&v[4], &v[4], &v[7], &v[5], &v[6], .lr = 1e-2, .weight_decay = 0.0}};
    struct plx_tensor number;
    TRY(doubles_create(be, 1, &factor, &number));
    struct adamw_update update = {.items = items,
                                  .count = 2,
                                  .factor = &number,
                                  .beta1 = 0.9,
                                  .beta2 = 0.95,
                                  .eps = 1e-8,
                                  .step = step};
    plx_status status = be->ops->adamw(be, &update);
    be->device->release(number.data, be->stream);
    return status;
}

static plx_status run_adamw_first(struct backend *be, const struct plx_tensor *v)
{
    return adamw(be, v, 1, 1.0);
}

static plx_status run_adamw_later(struct backend *be, const struct plx_tensor *v)
{
    return adamw(be, v, 1000, 0.37);
}

static plx_status run_adamw_void(struct backend *be, const struct plx_tensor *v)
{
    return adamw(be, v, 1000, 0.0);
}

/* Two matrices: directions, then value, m and gradient of each. */
static void operands_muon(struct operand *o, int64_t n, int64_t e)
{
    o[0] = heads(ROLE_OUT, 2, n, e);
    for (int i = 1; i < 7; i++) o[i] = matrix(ROLE_BOTH, n, e);
    o[3].role = o[6].role = ROLE_IN;
}

static plx_status muon(struct backend *be, const struct plx_tensor *v,
                       plx_status (*op)(struct backend *be, const struct muon_update *update),
                       bool nesterov, bool ema, double factor)
{
    const struct update_item items[2] = {
        {&v[1], &v[1], &v[3], &v[2], .lr = 3e-2, .weight_decay = 0.1},
        {&v[4], &v[4], &v[6], &v[5], .lr = 1e-2, .weight_decay = 0.2}};
    struct plx_tensor number;
    TRY(doubles_create(be, 1, &factor, &number));
    struct muon_update update = {.items = items,
                                 .count = 2,
                                 .factor = &number,
                                 .directions = &v[0],
                                 .momentum = 0.95,
                                 .nesterov = nesterov,
                                 .ema = ema,
                                 .scale = 1.7};
    plx_status status = op(be, &update);
    be->device->release(number.data, be->stream);
    return status;
}

static plx_status run_momentum(struct backend *be, const struct plx_tensor *v)
{
    return muon(be, v, be->ops->momentum, false, false, 1.0);
}

static plx_status run_momentum_nesterov(struct backend *be, const struct plx_tensor *v)
{
    return muon(be, v, be->ops->momentum, true, false, 0.37);
}

static plx_status run_momentum_ema(struct backend *be, const struct plx_tensor *v)
{
    return muon(be, v, be->ops->momentum, true, true, 0.37);
}

static plx_status run_momentum_void(struct backend *be, const struct plx_tensor *v)
{
    return muon(be, v, be->ops->momentum, true, true, 0.0);
}

static void operands_apply(struct operand *o, int64_t n, int64_t e)
{
    operands_muon(o, n, e);
    o[0].role = ROLE_IN;
}

static plx_status run_apply(struct backend *be, const struct plx_tensor *v)
{
    return muon(be, v, be->ops->apply, true, true, 0.37);
}

static plx_status run_apply_void(struct backend *be, const struct plx_tensor *v)
{
    return muon(be, v, be->ops->apply, true, true, 0.0);
}

static void operands_normalise(struct operand *o, int64_t n, int64_t e)
{
    o[0] = heads(ROLE_OUT, 3, n, e);
    o[1] = heads(ROLE_IN, 3, n, e);
}

static plx_status run_normalise(struct backend *be, const struct plx_tensor *v)
{
    return be->ops->normalise(be, &v[0], &v[1], 1.02, 1e-3);
}

static void operands_normalise_in_place(struct operand *o, int64_t n, int64_t e)
{
    o[0] = heads(ROLE_BOTH, 3, n, e);
}

static plx_status run_normalise_in_place(struct backend *be, const struct plx_tensor *v)
{
    return be->ops->normalise(be, &v[0], &v[0], 1.0, 1e-7);
}

/* ---- Attention ------------------------------------------------------------------------------- */

enum {
    AT_Q,
    AT_R,
    AT_K,
    AT_V,
    AT_O,
    AT_LSE,
    AT_PROBE_MEAN,
    AT_VALUE_MEAN,
    AT_D_O,
    AT_DQ,
    AT_DR,
    AT_DK,
    AT_DV
};

static void operands_attend(struct operand *o, int64_t n, int64_t e)
{
    for (int i = AT_Q; i <= AT_R; i++) o[i] = sequence(ROLE_IN, n, 4, e);
    for (int i = AT_K; i <= AT_V; i++) o[i] = sequence(ROLE_IN, n, 2, e);
    o[AT_O] = o[AT_VALUE_MEAN] = sequence(ROLE_OUT, n, 4, e);
    o[AT_LSE] = o[AT_PROBE_MEAN] = heads(ROLE_OUT, 2, n, 4);
}

static void operands_attend_backward(struct operand *o, int64_t n, int64_t e)
{
    operands_attend(o, n, e);
    o[AT_D_O] = sequence(ROLE_IN, n, 4, e);
    for (int i = AT_DQ; i <= AT_DR; i++) o[i] = sequence(ROLE_OUT, n, 4, e);
    for (int i = AT_DK; i <= AT_DV; i++) o[i] = sequence(ROLE_OUT, n, 2, e);
}

static struct plx_parallax_args attend_args(const struct plx_tensor *v)
{
    return (struct plx_parallax_args){.q = v[AT_Q],
                                      .r = v[AT_R],
                                      .k = v[AT_K],
                                      .v = v[AT_V],
                                      .o = v[AT_O],
                                      .lse = v[AT_LSE],
                                      .probe_mean = v[AT_PROBE_MEAN],
                                      .value_mean = v[AT_VALUE_MEAN]};
}

static plx_status run_attend_forward(struct backend *be, const struct plx_tensor *v)
{
    struct plx_attention attention = {.causal = true};
    struct plx_parallax_args args = attend_args(v);
    struct attend attend = {PLX_PARALLAX, &attention, &args};
    return be->ops->attend_forward(be, &attend);
}

static plx_status run_attend_backward(struct backend *be, const struct plx_tensor *v)
{
    struct plx_attention attention = {.causal = true};
    struct plx_parallax_args args = attend_args(v);
    struct attend attend = {PLX_PARALLAX, &attention, &args};
    TRY(be->ops->attend_forward(be, &attend));
    args.d_o = v[AT_D_O];
    args.dq = v[AT_DQ];
    args.dr = v[AT_DR];
    args.dk = v[AT_DK];
    args.dv = v[AT_DV];
    return be->ops->attend_backward(be, &attend);
}

/* One new token against a cache of n + 3 places of which n are filled. */
enum { DECODE_Q, DECODE_R, DECODE_K, DECODE_V, DECODE_O, DECODE_LENGTHS };

static void operands_attend_decode(struct operand *o, int64_t n, int64_t e)
{
    for (int i = DECODE_Q; i <= DECODE_R; i++) o[i] = sequence(ROLE_IN, 1, 4, e);
    for (int i = DECODE_K; i <= DECODE_V; i++) o[i] = sequence(ROLE_IN, n + 3, 2, e);
    o[DECODE_O] = sequence(ROLE_OUT, 1, 4, e);
    o[DECODE_LENGTHS] = integers(FILL_LENGTH, 2, n);
}

static plx_status decode(struct backend *be, const struct plx_tensor *v, plx_mechanism mechanism)
{
    struct plx_attention attention = {.causal = true, .k_lengths = v[DECODE_LENGTHS]};
    struct plx_parallax_args args = {
        .q = v[DECODE_Q], .k = v[DECODE_K], .v = v[DECODE_V], .o = v[DECODE_O]};
    if (mechanism == PLX_PARALLAX) args.r = v[DECODE_R];
    struct attend attend = {mechanism, &attention, &args};
    return be->ops->attend_decode(be, &attend);
}

static plx_status run_decode_softmax(struct backend *be, const struct plx_tensor *v)
{
    return decode(be, v, PLX_SOFTMAX);
}

static plx_status run_decode_parallax(struct backend *be, const struct plx_tensor *v)
{
    return decode(be, v, PLX_PARALLAX);
}

/* Two new rows of either sequence. */
static void operands_append(struct operand *o, int64_t n, int64_t e)
{
    o[0] = o[1] = sequence(ROLE_BOTH, n + 3, 2, e);
    o[2] = o[3] = sequence(ROLE_IN, 2, 2, e);
    o[4] = integers(FILL_LENGTH, 2, n);
}

static plx_status run_append(struct backend *be, const struct plx_tensor *v)
{
    const struct plx_attention attention = {.k_lengths = v[4]};
    const struct plx_cache_append_args args = {
        .k_cache = v[0], .v_cache = v[1], .k = v[2], .v = v[3]};
    return be->ops->attend_append(be, &(struct append){&attention, &args});
}

/* ---- The table ------------------------------------------------------------------------------- */

static const struct op_case op_cases[] = {
    {"zero", offsetof(struct ops, zero), one_out, run_zero, false, false},
    {"copy", offsetof(struct ops, copy), out_in, run_copy, false, false},
    {"add", offsetof(struct ops, add), out_in_in, run_add, false, false},
    {"add/in-place", offsetof(struct ops, add), both_in, run_add_in_place, false, false},
    {"add/to-second", offsetof(struct ops, add), both_in, run_add_to_second, false, false},
    {"sum", offsetof(struct ops, sum), operands_sum, run_sum, false, false},
    {"sum_squares", offsetof(struct ops, sum_squares), operands_sum_squares, run_sum_squares, false,
     false},
    {"gemm/nn", offsetof(struct ops, gemm), operands_nn, run_nn, true, false},
    {"gemm/nt", offsetof(struct ops, gemm), operands_nt, run_nt, true, false},
    {"gemm/tn", offsetof(struct ops, gemm), operands_tn, run_tn_accumulate, true, false},
    {"gemm/tt", offsetof(struct ops, gemm), operands_tt, run_tt_factors, true, false},
    {"gemm/square", offsetof(struct ops, gemm), operands_square, run_square, true, false},
    {"gemm/batch", offsetof(struct ops, gemm), operands_batch, run_batch, true, false},
    {"gemm/add", offsetof(struct ops, gemm), operands_add, run_product_add, true, false},
    {"rmsnorm", offsetof(struct ops, rmsnorm), operands_rmsnorm, run_rmsnorm, false, false},
    {"rmsnorm_backward", offsetof(struct ops, rmsnorm_backward), operands_rmsnorm_backward,
     run_rmsnorm_backward, false, false},
    {"bias", offsetof(struct ops, bias), operands_bias, run_bias, false, false},
    {"bias/in-place", offsetof(struct ops, bias), operands_bias_in_place, run_bias_in_place, false,
     false},
    {"bias_backward", offsetof(struct ops, bias_backward), operands_bias_backward,
     run_bias_backward, false, false},
    {"rope", offsetof(struct ops, rope), operands_rope, run_rope, false, false},
    {"rope/in-place", offsetof(struct ops, rope), operands_rope_in_place, run_rope_in_place, false,
     false},
    {"swiglu", offsetof(struct ops, swiglu), out_in_in, run_swiglu, false, false},
    {"swiglu_backward", offsetof(struct ops, swiglu_backward), operands_swiglu_backward,
     run_swiglu_backward, false, false},
    {"gate", offsetof(struct ops, gate), operands_gate, run_gate, false, false},
    {"gate_backward", offsetof(struct ops, gate_backward), operands_gate_backward,
     run_gate_backward, false, false},
    {"embed", offsetof(struct ops, embed), operands_embed, run_embed, false, false},
    {"embed_backward", offsetof(struct ops, embed_backward), operands_embed_backward,
     run_embed_backward, false, false},
    {"cross_entropy", offsetof(struct ops, cross_entropy), operands_loss, run_loss, false, false},
    {"cross_entropy/gradient", offsetof(struct ops, cross_entropy), operands_loss_gradient,
     run_loss_gradient, false, false},
    {"cross_entropy/in-place", offsetof(struct ops, cross_entropy), operands_loss_in_place,
     run_loss_in_place, false, false},
    {"argmax", offsetof(struct ops, argmax), operands_argmax, run_argmax, false, false},
    {"clip", offsetof(struct ops, clip), operands_clip, run_clip, false, false},
    {"clip/none", offsetof(struct ops, clip), operands_clip, run_clip_none, false, false},
    {"clip/bad", offsetof(struct ops, clip), operands_clip, run_clip_bad, false, false},
    {"adamw/first", offsetof(struct ops, adamw), operands_adamw, run_adamw_first, false, false},
    {"adamw/later", offsetof(struct ops, adamw), operands_adamw, run_adamw_later, false, false},
    {"adamw/void", offsetof(struct ops, adamw), operands_adamw, run_adamw_void, false, false},
    {"momentum", offsetof(struct ops, momentum), operands_muon, run_momentum, false, false},
    {"momentum/nesterov", offsetof(struct ops, momentum), operands_muon, run_momentum_nesterov,
     false, false},
    {"momentum/ema", offsetof(struct ops, momentum), operands_muon, run_momentum_ema, false, false},
    {"momentum/void", offsetof(struct ops, momentum), operands_muon, run_momentum_void, false,
     false},
    {"normalise", offsetof(struct ops, normalise), operands_normalise, run_normalise, false, false},
    {"normalise/in-place", offsetof(struct ops, normalise), operands_normalise_in_place,
     run_normalise_in_place, false, false},
    {"apply", offsetof(struct ops, apply), operands_apply, run_apply, false, false},
    {"apply/void", offsetof(struct ops, apply), operands_apply, run_apply_void, false, false},
    {"attend_forward", offsetof(struct ops, attend_forward), operands_attend, run_attend_forward,
     false, true},
    {"attend_backward", offsetof(struct ops, attend_backward), operands_attend_backward,
     run_attend_backward, false, true},
    {"attend_append", offsetof(struct ops, attend_append), operands_append, run_append, false, true},
    {"attend_decode/softmax", offsetof(struct ops, attend_decode), operands_attend_decode,
     run_decode_softmax, false, true},
    {"attend_decode/parallax", offsetof(struct ops, attend_decode), operands_attend_decode,
     run_decode_parallax, false, true},
};

enum { OP_CASES = sizeof op_cases / sizeof *op_cases };

#endif
