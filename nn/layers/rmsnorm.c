/* rmsnorm.c: y = gain * x / sqrt(mean(x^2) + eps), over rows of the gain's width.
 *
 * The same layer norms the residual stream (rows are tokens) and heads (rows are the heads of all
 * tokens, which share one gain). rstd, the reciprocal root, is what forward leaves for backward
 * besides x. */
#include "layers/layers.h"
#include "layers/view.h"

bool rmsnorm_create(struct rmsnorm *norm, struct param_list *params, plx_dtype dtype, int64_t width,
                    double eps, enum param_init init, const char *prefix, const char *name)
{
    norm->width = width;
    norm->eps = eps;
    norm->gain =
        param_add(params, dtype, 1, &width, init, 0, PARAM_NORM, "%s.%s.weight", prefix, name);
    return norm->gain >= 0;
}

plx_status rmsnorm_forward(struct backend *be, const struct rmsnorm *norm,
                           const struct param_list *params, const struct plx_tensor *x,
                           const struct plx_tensor *y, const struct plx_tensor *rstd)
{
    int64_t rows = plx_tensor_count(x) / norm->width;
    struct plx_tensor input = view_matrix(x, rows), output = view_matrix(y, rows);
    return be->ops->rmsnorm(be, &output, rstd, &input, &params->items[norm->gain].value, norm->eps);
}

plx_status rmsnorm_backward(struct backend *be, const struct rmsnorm *norm,
                            const struct param_list *params, const struct plx_tensor *dy,
                            const struct plx_tensor *x, const struct plx_tensor *rstd,
                            const struct plx_tensor *residual, const struct plx_tensor *dx)
{
    int64_t rows = plx_tensor_count(x) / norm->width;
    const struct param *gain = &params->items[norm->gain];
    struct plx_tensor input = view_matrix(x, rows), d_output = view_matrix(dy, rows),
                      d_input = view_matrix(dx, rows), straight;
    if (residual != NULL) straight = view_matrix(residual, rows);
    return be->ops->rmsnorm_backward(be, &d_input, &gain->grad, &d_output, &input, &gain->value,
                                     rstd, residual != NULL ? &straight : NULL);
}
