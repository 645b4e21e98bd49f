/* mlp.c: the feed-forward layer SwiGLU, y = W_down (silu(W_gate x) * W_up x).
 *
 * Kept for backward: both projections, 2 F numbers a token. Their product is made again by the pass
 * that reads them both anyway, once its gradient is there. */
#include "layers/layers.h"

bool mlp_create(struct mlp *mlp, struct param_list *params, struct precision precision,
                int64_t width, int64_t inner, double std, const char *prefix)
{
    const plx_dtype dtype = precision.storage;
    mlp->width = width;
    mlp->inner = inner;
    mlp->precision = precision;
    mlp->gate = linear_add(params, dtype, inner, width, std, PARAM_MATRIX, prefix, "gate_proj");
    mlp->up = linear_add(params, dtype, inner, width, std, PARAM_MATRIX, prefix, "up_proj");
    mlp->down = linear_add(params, dtype, width, inner, std, PARAM_MATRIX, prefix, "down_proj");
    return mlp->gate >= 0 && mlp->up >= 0 && mlp->down >= 0;
}

void mlp_carve(const struct mlp *mlp, int64_t tokens, struct arena *arena,
               struct mlp_record *record)
{
    const int64_t shape[2] = {tokens, mlp->inner};
    record->gate = arena_tensor(arena, mlp->precision.activation, 2, shape);
    record->up = arena_tensor(arena, mlp->precision.activation, 2, shape);
}

plx_status mlp_forward(struct backend *be, const struct mlp *mlp, const struct param_list *params,
                       const struct plx_tensor *x, const struct mlp_record *record,
                       const struct plx_tensor *residual, const struct plx_tensor *y)
{
    const struct projection projections[2] = {{.weight = mlp->gate, .y = &record->gate},
                                              {.weight = mlp->up, .y = &record->up}};
    TRY(linear_project(be, params, NULL, x, projections, 2));
    if (y == NULL) return PLX_OK;
    size_t mark = arena_mark(&be->scratch);
    struct plx_tensor product =
        arena_tensor(&be->scratch, mlp->precision.activation, 2, record->gate.shape);
    TRY(be->ops->swiglu(be, &product, &record->gate, &record->up));
    TRY(linear_residual(be, mlp->down, params, &product, residual, y));
    arena_release(&be->scratch, mark);
    return PLX_OK;
}

plx_status mlp_decode(struct backend *be, const struct mlp *mlp, const struct param_list *params,
                      const struct rmsnorm *norm, const struct plx_tensor *x,
                      const struct plx_tensor *y)
{
    const int64_t shape[2] = {x->shape[0], mlp->inner};
    size_t mark = arena_mark(&be->scratch);
    struct plx_tensor product = arena_tensor(&be->scratch, mlp->precision.activation, 2, shape);
    TRY(linear_gated(be, mlp->gate, mlp->up, params, norm, x, &product));
    TRY(linear_residual(be, mlp->down, params, &product, x, y));
    arena_release(&be->scratch, mark);
    return PLX_OK;
}

plx_status mlp_backward(struct backend *be, const struct mlp *mlp, const struct param_list *params,
                        const struct plx_tensor *dy, const struct plx_tensor *x,
                        const struct mlp_record *record, const struct plx_tensor *dx)
{
    size_t mark = arena_mark(&be->scratch);
    const int64_t *shape = record->gate.shape; /* [N,F] */
    struct plx_tensor dproduct = arena_tensor(&be->scratch, mlp->precision.activation, 2, shape),
                      dgate = arena_tensor(&be->scratch, mlp->precision.activation, 2, shape),
                      dup = arena_tensor(&be->scratch, mlp->precision.activation, 2, shape);
    /* The product comes where its gradient was. */
    struct plx_tensor product = dproduct;
    TRY(linear_input(be, mlp->down, params, dy, &dproduct, false));
    TRY(be->ops->swiglu_backward(be, &dgate, &dup, &product, &dproduct, &record->gate,
                                 &record->up));
    TRY(linear_gradient(be, mlp->down, params, dy, &product));
    TRY(linear_backward(be, mlp->gate, params, &dgate, x, dx, false));
    TRY(linear_backward(be, mlp->up, params, &dup, x, dx, true));
    arena_release(&be->scratch, mark);
    return PLX_OK;
}
