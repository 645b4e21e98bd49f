/* op_cases.h: one row an operation: its operands at a given size, and the call. test_ops.c and
 * test_gpu_ops.c run every row on every backend. A new member of struct ops needs a row here;
 * test_ops.c fails until it has one. */
#ifndef TEST_OP_CASES_H
#define TEST_OP_CASES_H

#include <math.h>
#include <stddef.h>

#include "op_cases_attend.h"
#include "op_cases_draw.h"
#include "op_cases_packed.h"
#include "op_cases_quantised.h"
#include "op_cases_update.h"
#include "op_operands.h"

/* ---- Vectors --------------------------------------------------------------------------------- */

static plx_status run_zero(struct backend *be, const struct plx_tensor *v)
{
    return be->ops->zero(be, &v[0]);
}

/* The refresh of weights that products read, and back. */
static void operands_copy_to(struct operand *o, int64_t n, int64_t e)
{
    out_in(o, n, e);
    o[0].stored = true;
}

static void operands_copy_from(struct operand *o, int64_t n, int64_t e)
{
    out_in(o, n, e);
    o[1].stored = true;
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

static void operands_sum(struct operand *o, int64_t n, int64_t e)
{
    o[0] = stored(vector(ROLE_OUT, 1));
    o[1] = stored(matrix(ROLE_IN, n, e));
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
    o[0] = stored(vector(ROLE_OUT, 3));
    o[1] = stored(matrix(ROLE_IN, n, e));
    o[2] = stored(vector(ROLE_IN, e));
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
    struct gemm gemm = {.a = &v[1],
                        .b = &v[2],
                        .c = &v[0],
                        .transpose_a = transpose_a,
                        .transpose_b = transpose_b,
                        .alpha = alpha,
                        .beta = beta};
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
    o[0].stored = true;
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
    struct gemm gemm = {.a = &v[1], .b = &v[1], .c = &v[0], .transpose_b = true, .alpha = 2.0};
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
    struct gemm gemm = {.a = &v[1],
                        .b = &v[2],
                        .c = &v[0],
                        .transpose_a = true,
                        .alpha = 1.0,
                        .beta = 3.4,
                        .add = &v[3]};
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
    struct gemm gemm = {.a = &v[1],
                        .b = &v[2],
                        .c = &v[0],
                        .transpose_b = true,
                        .alpha = -0.7,
                        .beta = 1.5,
                        .add = &v[3]};
    return be->ops->gemm(be, &gemm);
}

/* At most eight rows with a weight whose rows are a multiple of 16 bytes, long ones among them. */
static void operands_few(struct operand *o, int64_t n, int64_t e)
{
    o[0] = matrix(ROLE_OUT, n % 8 + 1, e);
    o[1] = matrix(ROLE_IN, n % 8 + 1, 24 * (n + 1));
    o[2] = matrix(ROLE_IN, e, 24 * (n + 1));
}

/* As generation's head has it: from activations to the storage dtype. */
static void operands_few_stored(struct operand *o, int64_t n, int64_t e)
{
    operands_few(o, n, e);
    o[0] = stored(o[0]);
}

static void operands_few_add(struct operand *o, int64_t n, int64_t e)
{
    operands_few(o, n, e);
    o[3] = matrix(ROLE_IN, n % 8 + 1, e);
}

static plx_status run_few_add(struct backend *be, const struct plx_tensor *v)
{
    struct gemm gemm = {.a = &v[1],
                        .b = &v[2],
                        .c = &v[0],
                        .transpose_b = true,
                        .alpha = 1.0,
                        .beta = 1.0,
                        .add = &v[3]};
    return be->ops->gemm(be, &gemm);
}

/* ---- Layers ---------------------------------------------------------------------------------- */

static void operands_rmsnorm(struct operand *o, int64_t n, int64_t e)
{
    o[0] = matrix(ROLE_OUT, n, e);
    o[1] = stored(vector(ROLE_OUT, n));
    o[2] = matrix(ROLE_IN, n, e);
    o[3] = stored(vector(ROLE_IN, e));
}

static plx_status run_rmsnorm(struct backend *be, const struct plx_tensor *v)
{
    return be->ops->rmsnorm(be, &v[0], &v[1], &v[2], &v[3], 1e-6);
}

static void operands_rmsnorm_backward(struct operand *o, int64_t n, int64_t e)
{
    o[0] = matrix(ROLE_OUT, n, e);
    o[1] = stored(vector(ROLE_BOTH, e));
    o[2] = matrix(ROLE_IN, n, e);
    o[3] = matrix(ROLE_IN, n, e);
    o[4] = stored(vector(ROLE_IN, e));
    o[5] = stored(vector(ROLE_IN, n));
    o[5].values = FILL_SQUARES;
}

static plx_status run_rmsnorm_backward(struct backend *be, const struct plx_tensor *v)
{
    return be->ops->rmsnorm_backward(be, &v[0], &v[1], &v[2], &v[3], &v[4], &v[5], NULL);
}

static void operands_rmsnorm_residual(struct operand *o, int64_t n, int64_t e)
{
    operands_rmsnorm_backward(o, n, e);
    o[6] = matrix(ROLE_IN, n, e);
}

static plx_status run_rmsnorm_residual(struct backend *be, const struct plx_tensor *v)
{
    return be->ops->rmsnorm_backward(be, &v[0], &v[1], &v[2], &v[3], &v[4], &v[5], &v[6]);
}

/* As a block has it: the gradient of the residual stream is added to where it is. */
static void operands_rmsnorm_to_residual(struct operand *o, int64_t n, int64_t e)
{
    operands_rmsnorm_backward(o, n, e);
    o[0].role = ROLE_BOTH;
}

static plx_status run_rmsnorm_to_residual(struct backend *be, const struct plx_tensor *v)
{
    return be->ops->rmsnorm_backward(be, &v[0], &v[1], &v[2], &v[3], &v[4], &v[5], &v[0]);
}

static void operands_bias(struct operand *o, int64_t n, int64_t e)
{
    o[0] = matrix(ROLE_OUT, n, e);
    o[1] = matrix(ROLE_IN, n, e);
    o[2] = stored(vector(ROLE_IN, e));
}

static plx_status run_bias(struct backend *be, const struct plx_tensor *v)
{
    return be->ops->bias(be, &v[0], &v[1], &v[2]);
}

static void operands_bias_in_place(struct operand *o, int64_t n, int64_t e)
{
    o[0] = matrix(ROLE_BOTH, n, e);
    o[1] = stored(vector(ROLE_IN, e));
}

static plx_status run_bias_in_place(struct backend *be, const struct plx_tensor *v)
{
    return be->ops->bias(be, &v[0], &v[0], &v[1]);
}

static void operands_bias_backward(struct operand *o, int64_t n, int64_t e)
{
    o[0] = stored(vector(ROLE_BOTH, e));
    o[1] = matrix(ROLE_IN, n, e);
}

static plx_status run_bias_backward(struct backend *be, const struct plx_tensor *v)
{
    return be->ops->bias_backward(be, &v[0], &v[1]);
}

/* Few heads, or those of a model where the shape is meant for timing. */
static inline int64_t head_count(int64_t n)
{
    return n < 20000 ? 3 : 16;
}

static void operands_rope(struct operand *o, int64_t n, int64_t e)
{
    o[0] = heads(ROLE_OUT, n, head_count(n), 2 * e);
    o[1] = heads(ROLE_IN, n, head_count(n), 2 * e);
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
    o[0] = heads(ROLE_BOTH, n, head_count(n), 2 * e);
    o[1] = integers(FILL_POSITIONS, n, 0);
}

static plx_status run_rope_in_place(struct backend *be, const struct plx_tensor *v)
{
    return be->ops->rope(be, &v[0], &v[0], &v[1], &(struct rope){.theta = 1e4}, true);
}

/* Channels as a head of 2 e has them. */
static void operands_norm_rope(struct operand *o, int64_t n, int64_t e)
{
    o[0] = heads(ROLE_OUT, n, head_count(n), 2 * e);
    o[1] = stored(vector(ROLE_OUT, head_count(n) * n));
    o[2] = heads(ROLE_IN, n, head_count(n), 2 * e);
    o[3] = stored(vector(ROLE_IN, 2 * e));
    o[4] = integers(FILL_POSITIONS, n, 0);
}

static plx_status run_norm_rope(struct backend *be, const struct plx_tensor *v)
{
    return be->ops->norm_rope(be, &v[0], &v[1], &v[2], &v[3], 1e-6, &v[4],
                              &(struct rope){.theta = 1e6});
}

static void operands_norm_rope_backward(struct operand *o, int64_t n, int64_t e)
{
    o[0] = heads(ROLE_OUT, n, head_count(n), 2 * e);
    o[1] = stored(vector(ROLE_BOTH, 2 * e));
    o[2] = heads(ROLE_IN, n, head_count(n), 2 * e);
    o[3] = heads(ROLE_IN, n, head_count(n), 2 * e);
    o[4] = stored(vector(ROLE_IN, 2 * e));
    o[5] = stored(vector(ROLE_IN, head_count(n) * n));
    o[5].values = FILL_SQUARES;
    o[6] = integers(FILL_POSITIONS, n, 0);
}

static plx_status run_norm_rope_backward(struct backend *be, const struct plx_tensor *v)
{
    return be->ops->norm_rope_backward(be, &v[0], &v[1], &v[2], &v[3], &v[4], &v[5], &v[6],
                                       &(struct rope){.theta = 1e6});
}

static void operands_norm_rope_in_place(struct operand *o, int64_t n, int64_t e)
{
    operands_norm_rope_backward(o, n, e);
    o[0].role = ROLE_BOTH;
    o[2] = o[3];
    o[3] = o[4];
    o[4] = o[5];
    o[5] = o[6];
    o[6] = (struct operand){0};
}

static plx_status run_norm_rope_in_place(struct backend *be, const struct plx_tensor *v)
{
    return be->ops->norm_rope_backward(be, &v[0], &v[1], &v[0], &v[2], &v[3], &v[4], &v[5],
                                       &(struct rope){.theta = 1e6});
}

static plx_status run_swiglu(struct backend *be, const struct plx_tensor *v)
{
    return be->ops->swiglu(be, &v[0], &v[1], &v[2]);
}

static void operands_swiglu_backward(struct operand *o, int64_t n, int64_t e)
{
    for (int i = 0; i < 6; i++) o[i] = matrix(i < 3 ? ROLE_OUT : ROLE_IN, n, e);
}

static plx_status run_swiglu_backward(struct backend *be, const struct plx_tensor *v)
{
    return be->ops->swiglu_backward(be, &v[0], &v[1], &v[2], &v[3], &v[4], &v[5]);
}

static void operands_swiglu_in_place(struct operand *o, int64_t n, int64_t e)
{
    for (int i = 0; i < 5; i++) o[i] = matrix(i < 2 ? ROLE_OUT : ROLE_IN, n, e);
    o[2].role = ROLE_BOTH;
}

static plx_status run_swiglu_in_place(struct backend *be, const struct plx_tensor *v)
{
    return be->ops->swiglu_backward(be, &v[0], &v[1], &v[2], &v[2], &v[3], &v[4]);
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

/* Rows of the table: few, so that ids repeat, or those of a large vocabulary. */
static inline int64_t table_rows(int64_t n)
{
    return n < 20000 ? 19 : 151936;
}

static void operands_embed(struct operand *o, int64_t n, int64_t e)
{
    o[0] = matrix(ROLE_OUT, n, e);
    o[1] = matrix(ROLE_IN, table_rows(n), e);
    o[2] = integers(FILL_IDS, n, table_rows(n));
}

static plx_status run_embed(struct backend *be, const struct plx_tensor *v)
{
    return be->ops->embed(be, &v[0], &v[1], &v[2]);
}

static void operands_embed_backward(struct operand *o, int64_t n, int64_t e)
{
    o[0] = stored(matrix(ROLE_BOTH, table_rows(n), e));
    o[1] = matrix(ROLE_IN, n, e);
    o[2] = integers(FILL_IDS, n, table_rows(n));
}

static plx_status run_embed_backward(struct backend *be, const struct plx_tensor *v)
{
    return be->ops->embed_backward(be, &v[0], &v[1], &v[2]);
}

static void operands_loss(struct operand *o, int64_t n, int64_t e)
{
    o[0] = stored(vector(ROLE_OUT, n));
    o[1] = matrix(ROLE_IN, n, e);
    o[2] = integers(FILL_TARGETS, n, e);
}

static void operands_loss_stored(struct operand *o, int64_t n, int64_t e)
{
    operands_loss(o, n, e);
    o[1].stored = true;
}

static plx_status run_loss(struct backend *be, const struct plx_tensor *v)
{
    struct plx_tensor absent = {0};
    return be->ops->cross_entropy(be, &v[0], &absent, &v[1], &v[2], NULL);
}

static void operands_loss_gradient(struct operand *o, int64_t n, int64_t e)
{
    operands_loss(o, n, e);
    o[3] = matrix(ROLE_OUT, n, e);
}

/* The loss and 0.37 times its gradient. */
static plx_status loss_gradient(struct backend *be, const struct plx_tensor *v,
                                const struct plx_tensor *dlogits)
{
    struct plx_tensor scale;
    TRY(doubles_create(be, 1, (double[1]){0.37}, &scale));
    plx_status status = be->ops->cross_entropy(be, &v[0], dlogits, &v[1], &v[2], &scale);
    be->device->release(scale.data, be->stream);
    return status;
}

static plx_status run_loss_gradient(struct backend *be, const struct plx_tensor *v)
{
    return loss_gradient(be, v, &v[3]);
}

static void operands_loss_in_place(struct operand *o, int64_t n, int64_t e)
{
    operands_loss(o, n, e);
    o[1].role = ROLE_BOTH;
}

static plx_status run_loss_in_place(struct backend *be, const struct plx_tensor *v)
{
    return loss_gradient(be, v, &v[1]);
}

static void operands_argmax(struct operand *o, int64_t n, int64_t e)
{
    o[0] = integers(FILL_IDS, n, e);
    o[0].role = ROLE_OUT;
    o[1] = stored(matrix(ROLE_IN, n, e));
}

static plx_status run_argmax(struct backend *be, const struct plx_tensor *v)
{
    return be->ops->argmax(be, &v[0], &v[1]);
}

/* ---- The table ------------------------------------------------------------------------------- */

static const struct op_case op_cases[] = {
    {"zero", offsetof(struct ops, zero), one_out, run_zero, false, false, false},
    {"copy", offsetof(struct ops, copy), out_in, run_copy, false, false, true},
    {"copy/to-stored", offsetof(struct ops, copy), operands_copy_to, run_copy, false, false, true},
    {"copy/from-stored", offsetof(struct ops, copy), operands_copy_from, run_copy, false, false,
     true},
    {"add", offsetof(struct ops, add), out_in_in, run_add, false, false, false},
    {"add/in-place", offsetof(struct ops, add), both_in, run_add_in_place, false, false, false},
    {"add/to-second", offsetof(struct ops, add), both_in, run_add_to_second, false, false, false},
    {"sum", offsetof(struct ops, sum), operands_sum, run_sum, false, false, false},
    {"sum_squares", offsetof(struct ops, sum_squares), operands_sum_squares, run_sum_squares, false,
     false, false},
    {"gemm/nn", offsetof(struct ops, gemm), operands_nn, run_nn, true, false, true},
    {"gemm/nt", offsetof(struct ops, gemm), operands_nt, run_nt, true, false, true},
    {"gemm/tn", offsetof(struct ops, gemm), operands_tn, run_tn_accumulate, true, false, true},
    {"gemm/tt", offsetof(struct ops, gemm), operands_tt, run_tt_factors, true, false, true},
    {"gemm/square", offsetof(struct ops, gemm), operands_square, run_square, true, false, true},
    {"gemm/batch", offsetof(struct ops, gemm), operands_batch, run_batch, true, false, true},
    {"gemm/few", offsetof(struct ops, gemm), operands_few, run_nt, true, false, true},
    {"gemm/few-stored", offsetof(struct ops, gemm), operands_few_stored, run_nt, true, false, true},
    {"gemm/few-add", offsetof(struct ops, gemm), operands_few_add, run_few_add, true, false, true},
    {"gemm/add", offsetof(struct ops, gemm), operands_add, run_product_add, true, false, true},
    {"gemm/quantised", offsetof(struct ops, gemm), operands_quantised_forward,
     run_quantised_forward, true, false, false},
    {"gemm/quantised-to", offsetof(struct ops, gemm), operands_quantised_backward,
     run_quantised_backward, true, false, false},
    {"quantise/rows", offsetof(struct ops, quantise), operands_quantise_rows, run_quantise_rows,
     false, false, false},
    {"quantise/both", offsetof(struct ops, quantise), operands_quantise_both, run_quantise_both,
     false, false, false},
    {"rmsnorm", offsetof(struct ops, rmsnorm), operands_rmsnorm, run_rmsnorm, false, false, false},
    {"rmsnorm_backward", offsetof(struct ops, rmsnorm_backward), operands_rmsnorm_backward,
     run_rmsnorm_backward, false, false, false},
    {"rmsnorm_backward/residual", offsetof(struct ops, rmsnorm_backward), operands_rmsnorm_residual,
     run_rmsnorm_residual, false, false, false},
    {"rmsnorm_backward/in-place", offsetof(struct ops, rmsnorm_backward),
     operands_rmsnorm_to_residual, run_rmsnorm_to_residual, false, false, false},
    {"project/bf16", offsetof(struct ops, project), operands_project, run_project_bf16, false,
     false, false},
    {"project/int8", offsetof(struct ops, project), operands_project, run_project_int8, false,
     false, false},
    {"project/bf16-stored", offsetof(struct ops, project), operands_project_stored,
     run_project_bf16, false, false, false},
    {"project/int8-stored", offsetof(struct ops, project), operands_project_stored,
     run_project_int8, false, false, false},
    {"project/bf16-add", offsetof(struct ops, project), operands_project_add, run_project_bf16_add,
     false, false, false},
    {"project/int8-add", offsetof(struct ops, project), operands_project_add, run_project_int8_add,
     false, false, false},
    {"unpack/bf16", offsetof(struct ops, unpack), operands_unpack, run_unpack_bf16, false, false,
     false},
    {"unpack/int8", offsetof(struct ops, unpack), operands_unpack, run_unpack_int8, false, false,
     false},
    {"bias", offsetof(struct ops, bias), operands_bias, run_bias, false, false, false},
    {"bias/in-place", offsetof(struct ops, bias), operands_bias_in_place, run_bias_in_place, false,
     false, false},
    {"bias_backward", offsetof(struct ops, bias_backward), operands_bias_backward,
     run_bias_backward, false, false, false},
    {"rope", offsetof(struct ops, rope), operands_rope, run_rope, false, false, false},
    {"rope/in-place", offsetof(struct ops, rope), operands_rope_in_place, run_rope_in_place, false,
     false, false},
    {"norm_rope", offsetof(struct ops, norm_rope), operands_norm_rope, run_norm_rope, false, false,
     false},
    {"norm_rope_backward", offsetof(struct ops, norm_rope_backward), operands_norm_rope_backward,
     run_norm_rope_backward, false, false, false},
    {"norm_rope_backward/in-place", offsetof(struct ops, norm_rope_backward),
     operands_norm_rope_in_place, run_norm_rope_in_place, false, false, false},
    {"swiglu", offsetof(struct ops, swiglu), out_in_in, run_swiglu, false, false, false},
    {"swiglu_backward", offsetof(struct ops, swiglu_backward), operands_swiglu_backward,
     run_swiglu_backward, false, false, false},
    {"swiglu_backward/in-place", offsetof(struct ops, swiglu_backward), operands_swiglu_in_place,
     run_swiglu_in_place, false, false, false},
    {"gate", offsetof(struct ops, gate), operands_gate, run_gate, false, false, false},
    {"gate_backward", offsetof(struct ops, gate_backward), operands_gate_backward,
     run_gate_backward, false, false, false},
    {"embed", offsetof(struct ops, embed), operands_embed, run_embed, false, false, false},
    {"embed_backward", offsetof(struct ops, embed_backward), operands_embed_backward,
     run_embed_backward, false, false, false},
    {"cross_entropy", offsetof(struct ops, cross_entropy), operands_loss, run_loss, false, false,
     false},
    {"cross_entropy/stored", offsetof(struct ops, cross_entropy), operands_loss_stored, run_loss,
     false, false, false},
    {"cross_entropy/gradient", offsetof(struct ops, cross_entropy), operands_loss_gradient,
     run_loss_gradient, false, false, false},
    {"cross_entropy/in-place", offsetof(struct ops, cross_entropy), operands_loss_in_place,
     run_loss_in_place, false, false, false},
    {"argmax", offsetof(struct ops, argmax), operands_argmax, run_argmax, false, false, false},
    {"penalise", offsetof(struct ops, penalise), operands_penalise, run_penalise, false, false,
     true},
    {"draw", offsetof(struct ops, draw), operands_draw, run_draw, false, false, true},
    {"draw/plain", offsetof(struct ops, draw), operands_draw, run_draw_plain, false, false, true},
    {"clip", offsetof(struct ops, clip), operands_clip, run_clip, false, false, false},
    {"clip/none", offsetof(struct ops, clip), operands_clip, run_clip_none, false, false, false},
    {"clip/bad", offsetof(struct ops, clip), operands_clip, run_clip_bad, false, false, false},
    {"adamw/first", offsetof(struct ops, adamw), operands_adamw, run_adamw_first, false, false,
     false},
    {"adamw/later", offsetof(struct ops, adamw), operands_adamw, run_adamw_later, false, false,
     false},
    {"adamw/void", offsetof(struct ops, adamw), operands_adamw, run_adamw_void, false, false,
     false},
    {"adamw/bf16-first", offsetof(struct ops, adamw), operands_adamw_halved, run_adamw_first, false,
     false, false},
    {"adamw/bf16-later", offsetof(struct ops, adamw), operands_adamw_halved, run_adamw_later, false,
     false, false},
    {"adamw/bf16-void", offsetof(struct ops, adamw), operands_adamw_halved, run_adamw_void, false,
     false, false},
    {"momentum", offsetof(struct ops, momentum), operands_muon, run_momentum, false, false, false},
    {"momentum/nesterov", offsetof(struct ops, momentum), operands_muon, run_momentum_nesterov,
     false, false, false},
    {"momentum/ema", offsetof(struct ops, momentum), operands_muon, run_momentum_ema, false, false,
     false},
    {"momentum/void", offsetof(struct ops, momentum), operands_muon, run_momentum_void, false,
     false, false},
    {"momentum/bf16", offsetof(struct ops, momentum), operands_muon_halved, run_momentum, false,
     false, false},
    {"momentum/bf16-ema", offsetof(struct ops, momentum), operands_muon_halved, run_momentum_ema,
     false, false, false},
    {"momentum/bf16-void", offsetof(struct ops, momentum), operands_muon_halved, run_momentum_void,
     false, false, false},
    {"normalise", offsetof(struct ops, normalise), operands_normalise, run_normalise, false, false,
     false},
    {"normalise/in-place", offsetof(struct ops, normalise), operands_normalise_in_place,
     run_normalise_in_place, false, false, false},
    {"orthogonalise/no-step", offsetof(struct ops, orthogonalise), operands_normalise,
     run_orthogonalise, false, false, false},
    {"apply", offsetof(struct ops, apply), operands_apply, run_apply, false, false, false},
    {"apply/void", offsetof(struct ops, apply), operands_apply, run_apply_void, false, false,
     false},
    {"attend_forward", offsetof(struct ops, attend_forward), operands_attend, run_attend_forward,
     false, true, false},
    {"attend_backward", offsetof(struct ops, attend_backward), operands_attend_backward,
     run_attend_backward, false, true, false},
    {"attend_append", offsetof(struct ops, attend_append), operands_append, run_append, false, true,
     false},
    {"attend_decode/softmax", offsetof(struct ops, attend_decode), operands_attend_decode,
     run_decode_softmax, false, true, false},
    {"attend_decode/parallax", offsetof(struct ops, attend_decode), operands_attend_decode,
     run_decode_parallax, false, true, false},
};

enum { OP_CASES = sizeof op_cases / sizeof *op_cases };

#endif
