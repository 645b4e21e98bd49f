/* rounded_ops.h: the naive bf16 model: the reference operations in f32 with every activation and
 * every gradient of one rounded to bf16 as it is written. What it gets wrong is the measure of what
 * a fast bf16 model may. */
#ifndef TESTS_ROUNDED_OPS_H
#define TESTS_ROUNDED_OPS_H

#include "core/dtype.h"
#include "op.h"

/* To the nearest, ties to even; absent tensors stay absent. */
static inline void rounded_tensor(const struct plx_tensor *tensor)
{
    float *values = tensor->data;
    for (int64_t i = 0; values != NULL && i < plx_tensor_count(tensor); i++)
        values[i] = dtype_bf16_to_f32(dtype_f32_to_bf16(values[i]));
}

typedef const struct plx_tensor *rounded_view;

#define ROUNDED(op, arguments, first, second, ...)                                                 \
    static inline plx_status rounded_##op(struct backend *be, __VA_ARGS__)                         \
    {                                                                                              \
        TRY(ops_ref.op arguments);                                                                 \
        rounded_tensor(first);                                                                     \
        if ((second) != NULL) rounded_tensor(second);                                              \
        return PLX_OK;                                                                             \
    }
#define ROUNDED_NONE ((rounded_view)NULL)

ROUNDED(add, (be, y, a, b), y, ROUNDED_NONE, rounded_view y, rounded_view a, rounded_view b)
ROUNDED(rmsnorm, (be, y, rstd, x, gain, eps), y, ROUNDED_NONE, rounded_view y, rounded_view rstd,
        rounded_view x, rounded_view gain, double eps)
ROUNDED(rmsnorm_backward, (be, dx, dgain, dy, x, gain, rstd, residual), dx, ROUNDED_NONE,
        rounded_view dx, rounded_view dgain, rounded_view dy, rounded_view x, rounded_view gain,
        rounded_view rstd, rounded_view residual)
ROUNDED(bias, (be, y, x, b), y, ROUNDED_NONE, rounded_view y, rounded_view x, rounded_view b)
ROUNDED(rope, (be, y, x, positions, how, inverse), y, ROUNDED_NONE, rounded_view y, rounded_view x,
        rounded_view positions, const struct rope *how, bool inverse)

/* One after the other: the naive model stores what is between them. */
static inline plx_status rounded_norm_rope(struct backend *be, const struct norm_rope *call)
{
    for (int i = 0; i < call->count; i++) {
        const struct turned_heads *heads = &call->heads[i];
        TRY(rounded_rmsnorm(be, heads->y, heads->rstd, heads->x, heads->gain, call->eps));
        TRY(rounded_rope(be, heads->y, heads->y, call->positions, call->rope, false));
    }
    return PLX_OK;
}

static inline plx_status rounded_norm_rope_backward(struct backend *be, rounded_view dx,
                                                    rounded_view dgain, rounded_view dy,
                                                    rounded_view x, rounded_view gain,
                                                    rounded_view rstd, rounded_view positions,
                                                    const struct rope *how)
{
    TRY(rounded_rope(be, dx, dy, positions, how, true));
    return rounded_rmsnorm_backward(be, dx, dgain, dx, x, gain, rstd, NULL);
}

ROUNDED(swiglu, (be, y, gate, up), y, ROUNDED_NONE, rounded_view y, rounded_view gate,
        rounded_view up)

static inline plx_status rounded_swiglu_backward(struct backend *be, rounded_view dgate,
                                                 rounded_view dup, rounded_view product,
                                                 rounded_view dy, rounded_view gate,
                                                 rounded_view up)
{
    TRY(ops_ref.swiglu_backward(be, dgate, dup, product, dy, gate, up));
    rounded_tensor(dgate);
    rounded_tensor(dup);
    rounded_tensor(product);
    return PLX_OK;
}

ROUNDED(gate, (be, y, x, z), y, ROUNDED_NONE, rounded_view y, rounded_view x, rounded_view z)
ROUNDED(gate_backward, (be, dx, dz, dy, x, z), dx, dz, rounded_view dx, rounded_view dz,
        rounded_view dy, rounded_view x, rounded_view z)
ROUNDED(embed, (be, y, table, ids), y, ROUNDED_NONE, rounded_view y, rounded_view table,
        rounded_view ids)
ROUNDED(project, (be, y, x, weight, residual), y, ROUNDED_NONE, rounded_view y, rounded_view x,
        const struct packed *weight, rounded_view residual)
ROUNDED(unpack, (be, y, table, ids), y, ROUNDED_NONE, rounded_view y, const struct packed *table,
        rounded_view ids)
ROUNDED(cross_entropy, (be, losses, dlogits, logits, targets, scale), dlogits, ROUNDED_NONE,
        rounded_view losses, rounded_view dlogits, rounded_view logits, rounded_view targets,
        rounded_view scale)

/* Gradients of weights are the products that transpose their first operand; they stay f32. */
static inline plx_status rounded_gemm(struct backend *be, const struct gemm *gemm)
{
    TRY(ops_ref.gemm(be, gemm));
    if (!gemm->transpose_a) rounded_tensor(gemm->c);
    return PLX_OK;
}

static inline plx_status rounded_attend_forward(struct backend *be, const struct attend *attend)
{
    TRY(ops_ref.attend_forward(be, attend));
    rounded_tensor(&attend->args->o);
    rounded_tensor(&attend->args->value_mean);
    return PLX_OK;
}

static inline plx_status rounded_attend_backward(struct backend *be, const struct attend *attend)
{
    const struct plx_parallax_args *args = attend->args;
    TRY(ops_ref.attend_backward(be, attend));
    rounded_tensor(&args->dq);
    rounded_tensor(&args->dr);
    rounded_tensor(&args->dk);
    rounded_tensor(&args->dv);
    return PLX_OK;
}

static inline plx_status rounded_attend_decode(struct backend *be, const struct attend *attend)
{
    TRY(ops_ref.attend_decode(be, attend));
    rounded_tensor(&attend->args->o);
    return PLX_OK;
}

/* Products round their operands too where the backend computes in bf16, as it should. */
static inline const struct ops *rounded_ops(void)
{
    static struct ops table;
    table = ops_ref;
    table.name = "rounded";
    table.add = rounded_add;
    table.gemm = rounded_gemm;
    table.project = rounded_project;
    table.unpack = rounded_unpack;
    table.rmsnorm = rounded_rmsnorm;
    table.rmsnorm_backward = rounded_rmsnorm_backward;
    table.bias = rounded_bias;
    table.rope = rounded_rope;
    table.norm_rope = rounded_norm_rope;
    table.norm_rope_backward = rounded_norm_rope_backward;
    table.swiglu = rounded_swiglu;
    table.swiglu_backward = rounded_swiglu_backward;
    table.gate = rounded_gate;
    table.gate_backward = rounded_gate_backward;
    table.embed = rounded_embed;
    table.cross_entropy = rounded_cross_entropy;
    table.attend_forward = rounded_attend_forward;
    table.attend_backward = rounded_attend_backward;
    table.attend_decode = rounded_attend_decode;
    return &table;
}

#endif
