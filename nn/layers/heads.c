/* heads.c: how a token becomes queries, probes and keys: out = rope(gate(norm(x W^T + b))).
 *
 * Each step but the projection is optional. The gate is a Parallax option: z = x W_g^T has one
 * number a head, and the head is multiplied by sigmoid(z) after the norm, so that a head can switch
 * its probe off token by token; rotary positions come last because a rotation commutes with the
 * scalar gate and keys are cached rotated.
 *
 * Backward undoes the steps in reverse. It works on dout in place where it can: the caller's
 * gradient of the mixer's input has no other reader. */
#include "layers/layers.h"
#include "layers/view.h"

void heads_carve(const struct heads *heads, int64_t tokens, enum record_parts parts,
                 struct arena *arena, struct heads_record *record)
{
    const int64_t shape[3] = {tokens, heads->heads, heads->channels};
    const int64_t rows = tokens * heads->heads;
    const plx_dtype dtype = heads->precision.activation;
    if (parts & RECORD_KEPT) {
        *record = (struct heads_record){.raw = arena_tensor(arena, dtype, 3, shape)};
        if (heads->has_norm) record->rstd = arena_tensor(arena, heads->precision.storage, 1, &rows);
        if (heads->gate >= 0) record->z = arena_tensor(arena, dtype, 2, shape);
    }
    if (parts & RECORD_CHEAP) {
        record->normed = record->raw;
        if (heads->has_norm) record->normed = arena_tensor(arena, dtype, 3, shape);
        record->out = record->normed;
        if (heads->gate >= 0) record->out = arena_tensor(arena, dtype, 3, shape);
    }
}

/* Norm and rotary positions are one operation where no gate comes between them. */
static bool is_joined(const struct heads *heads)
{
    return heads->has_norm && heads->has_rope && heads->gate < 0;
}

/* From raw and z to out. */
static plx_status finish(struct backend *be, const struct heads *heads,
                         const struct param_list *params, const struct plx_tensor *positions,
                         const struct heads_record *record)
{
    if (heads->has_norm)
        TRY(rmsnorm_forward(be, &heads->norm, params, &record->raw, &record->normed,
                            &record->rstd));
    if (heads->gate >= 0) TRY(be->ops->gate(be, &record->out, &record->normed, &record->z));
    if (!heads->has_rope) return PLX_OK;
    return be->ops->rope(be, &record->out, &record->out, positions, &heads->rope, false);
}

/* The same of those that are joined, which belong to one layer: their eps and rope are one. */
static plx_status finish_joined(struct backend *be, const struct heads_pass *passes, int count,
                                const struct param_list *params, const struct plx_tensor *positions)
{
    struct turned_heads turned[NORM_ROPE_MOST];
    struct norm_rope call = {.heads = turned, .positions = positions};
    for (int i = 0; i < count; i++) {
        const struct heads *heads = passes[i].heads;
        const struct heads_record *record = passes[i].record;
        if (!is_joined(heads)) continue;
        call.eps = heads->norm.eps;
        call.rope = &heads->rope;
        turned[call.count++] = (struct turned_heads){&record->out, &record->rstd, &record->raw,
                                                     &params->items[heads->norm.gain].value};
    }
    return call.count > 0 ? be->ops->norm_rope(be, &call) : PLX_OK;
}

int heads_projections(const struct heads *heads, const struct heads_record *record,
                      struct projection projections[2])
{
    projections[0] = (struct projection){.weight = heads->weight, .y = &record->raw};
    if (heads->gate < 0) return 1;
    projections[1] = (struct projection){.weight = heads->gate, .y = &record->z};
    return 2;
}

plx_status heads_forward(struct backend *be, const struct heads_pass *passes, int count,
                         const struct param_list *params, const struct plx_tensor *positions)
{
    for (int i = 0; i < count; i++)
        TRY(bias_forward(be, passes[i].heads->bias, params, &passes[i].record->raw));
    for (int i = 0; i < count; i++)
        if (!is_joined(passes[i].heads))
            TRY(finish(be, passes[i].heads, params, positions, passes[i].record));
    return finish_joined(be, passes, count, params, positions);
}

/* Without norm and gate out is raw, which was rotated in place and is there. */
plx_status heads_recompute(struct backend *be, const struct heads_pass *passes, int count,
                           const struct param_list *params, const struct plx_tensor *positions)
{
    for (int i = 0; i < count; i++) {
        const struct heads *heads = passes[i].heads;
        if (!is_joined(heads) && (heads->has_norm || heads->gate >= 0))
            TRY(finish(be, heads, params, positions, passes[i].record));
    }
    return finish_joined(be, passes, count, params, positions);
}

/* Gradient of the gate's input, and what flows into x through W_g. */
static plx_status gate_backward(struct backend *be, const struct heads *heads,
                                const struct param_list *params, const struct plx_tensor *x,
                                const struct heads_record *record, const struct plx_tensor *dout,
                                const struct plx_tensor *dnormed, const struct plx_tensor *dx,
                                bool accumulate)
{
    struct plx_tensor dz =
        arena_tensor(&be->scratch, heads->precision.activation, 2, record->z.shape);
    TRY(be->ops->gate_backward(be, dnormed, &dz, dout, &record->normed, &record->z));
    return linear_backward(be, heads->gate, params, &dz, x, dx, accumulate);
}

/* Gradient of what the norm reads: in place of dout. */
static plx_status joined_backward(struct backend *be, const struct heads *heads,
                                  const struct param_list *params,
                                  const struct plx_tensor *positions,
                                  const struct heads_record *record, const struct plx_tensor *dout)
{
    const struct param *gain = &params->items[heads->norm.gain];
    return be->ops->norm_rope_backward(be, dout, &gain->grad, dout, &record->raw, &gain->value,
                                       &record->rstd, positions, &heads->rope);
}

/* The same step by step, in scratch; *accumulate becomes true where dx was written. */
static plx_status steps_backward(struct backend *be, const struct heads *heads,
                                 const struct param_list *params,
                                 const struct plx_tensor *positions, const struct plx_tensor *x,
                                 const struct heads_record *record, const struct plx_tensor *dout,
                                 const struct plx_tensor *dx, bool *accumulate,
                                 struct plx_tensor *draw)
{
    struct plx_tensor dnormed = *dout;
    if (heads->has_rope) TRY(be->ops->rope(be, dout, dout, positions, &heads->rope, true));
    if (heads->gate >= 0) {
        dnormed = arena_tensor(&be->scratch, heads->precision.activation, 3, dout->shape);
        TRY(gate_backward(be, heads, params, x, record, dout, &dnormed, dx, *accumulate));
        *accumulate = true;
    }
    *draw = dnormed;
    if (!heads->has_norm) return PLX_OK;
    *draw = arena_tensor(&be->scratch, heads->precision.activation, 3, dout->shape);
    return rmsnorm_backward(be, &heads->norm, params, &dnormed, &record->raw, &record->rstd, NULL,
                            draw);
}

plx_status heads_backward(struct backend *be, const struct heads *heads,
                          const struct param_list *params, const struct plx_tensor *positions,
                          const struct plx_tensor *x, const struct heads_record *record,
                          const struct plx_tensor *dout, const struct plx_tensor *dx,
                          bool accumulate)
{
    size_t mark = arena_mark(&be->scratch);
    struct plx_tensor draw = *dout;
    if (is_joined(heads))
        TRY(joined_backward(be, heads, params, positions, record, dout));
    else
        TRY(steps_backward(be, heads, params, positions, x, record, dout, dx, &accumulate, &draw));
    TRY(bias_backward(be, heads->bias, params, &draw));
    TRY(linear_backward(be, heads->weight, params, &draw, x, dx, accumulate));
    arena_release(&be->scratch, mark);
    return PLX_OK;
}
