/* linear.c: y = x W^T and its gradients, dx = dy W and dW += dy^T x.
 *
 * Weights are [out,in], as checkpoints store them, so the forward product transposes its second
 * operand and nothing is ever copied. Biases come behind as layers of their own: Qwen-2 alone has
 * any. */
#include "layers/layers.h"
#include "layers/view.h"

int linear_add(struct param_list *params, plx_dtype dtype, int64_t out, int64_t in, double std,
               enum param_group group, const char *prefix, const char *name)
{
    return param_add(params, dtype, 2, (int64_t[]){out, in},
                     std > 0 ? PARAM_INIT_NORMAL : PARAM_INIT_ZERO, std, group, "%s.%s.weight",
                     prefix, name);
}

plx_status linear_forward(struct backend *be, int weight, const struct param_list *params,
                          const struct plx_tensor *x, const struct plx_tensor *y)
{
    return linear_residual(be, weight, params, x, NULL, y);
}

plx_status linear_residual(struct backend *be, int weight, const struct param_list *params,
                           const struct plx_tensor *x, const struct plx_tensor *residual,
                           const struct plx_tensor *y)
{
    int64_t N = x->shape[0];
    struct plx_tensor a = view_matrix(x, N), c = view_matrix(y, N);
    const struct packed *packed = &params->items[weight].packed;
    if (packed->kind != PACKING_NONE) {
        TRY(be->ops->project(be, &c, &a, packed));
        return residual != NULL ? be->ops->add(be, y, residual, y) : PLX_OK;
    }
    const struct gemm product = {.a = &a,
                                 .b = &params->items[weight].active,
                                 .c = &c,
                                 .transpose_b = true,
                                 .alpha = 1,
                                 .beta = residual != NULL ? 1 : 0,
                                 .add = residual};
    return be->ops->gemm(be, &product);
}

plx_status linear_backward(struct backend *be, int weight, const struct param_list *params,
                           const struct plx_tensor *dy, const struct plx_tensor *x,
                           const struct plx_tensor *dx, bool accumulate)
{
    int64_t N = x->shape[0];
    struct plx_tensor input = view_matrix(x, N), d_output = view_matrix(dy, N),
                      d_input = view_matrix(dx, N);
    const struct gemm weight_gradient = {.a = &d_output,
                                         .b = &input,
                                         .c = &params->items[weight].grad,
                                         .transpose_a = true,
                                         .alpha = 1,
                                         .beta = 1};
    if (!params->items[weight].frozen) TRY(be->ops->gemm(be, &weight_gradient));
    const struct gemm input_gradient = {.a = &d_output,
                                        .b = &params->items[weight].active,
                                        .c = &d_input,
                                        .alpha = 1,
                                        .beta = accumulate ? 1 : 0};
    return be->ops->gemm(be, &input_gradient);
}

int bias_add(struct param_list *params, plx_dtype dtype, int64_t out, const char *prefix,
             const char *name)
{
    return param_add(params, dtype, 1, &out, PARAM_INIT_ZERO, 0, PARAM_BIAS, "%s.%s.bias", prefix,
                     name);
}

plx_status bias_forward(struct backend *be, int bias, const struct param_list *params,
                        const struct plx_tensor *y)
{
    if (bias < 0) return PLX_OK;
    struct plx_tensor rows = view_matrix(y, y->shape[0]);
    return be->ops->bias(be, &rows, &rows, &params->items[bias].value);
}

plx_status bias_backward(struct backend *be, int bias, const struct param_list *params,
                         const struct plx_tensor *dy)
{
    if (bias < 0) return PLX_OK;
    struct plx_tensor rows = view_matrix(dy, dy->shape[0]);
    return be->ops->bias_backward(be, &params->items[bias].grad, &rows);
}
