/* clip.c: the global gradient norm, and clipping by it.
 *
 * Squares are summed in double inside each tensor by the backend and over tensors in the order of
 * the parameter list, so the norm is the same bits in every run. Nothing is changed unless the
 * whole norm is finite: one NaN in one gradient would otherwise reach every weight through the
 * common factor. Frozen parameters have no part in either. */
#include "optim/update.h"

#include <math.h>

static plx_status clip_norm(struct backend *be, const struct param_list *params, double *norm)
{
    double total = 0.0;
    for (int i = 0; i < params->count; i++) {
        const struct param *param = &params->items[i];
        double sum = 0.0;
        if (param->frozen) continue;
        TRY(be->ops->sum_squares(be, &param->grad, &sum));
        total += sum;
        *norm = sqrt(total);
        REQUIRE(be->err, isfinite(total), PLX_BAD_DATA,
                "%s: the gradient norm is not finite (%g); no parameter was changed", param->name,
                *norm);
    }
    return PLX_OK;
}

plx_status clip_gradients(struct backend *be, struct param_list *params, double clip, double *norm)
{
    *norm = 0.0;
    TRY(clip_norm(be, params, norm));
    if (clip <= 0.0 || *norm <= clip) return PLX_OK;
    for (int i = 0; i < params->count; i++)
        if (!params->items[i].frozen) TRY(be->ops->scale(be, &params->items[i].grad, clip / *norm));
    return PLX_OK;
}
