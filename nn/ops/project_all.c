/* project_all.c: see project_all.h. */
#include "ops/project_all.h"

#include "ops/check.h"

/* y = swiglu of the products with both items. */
static plx_status gated_by_parts(struct backend *be, const struct plx_tensor *x,
                                 const struct projected *items)
{
    const struct plx_tensor *y = items[0].y;
    const struct plx_tensor gate = arena_tensor(&be->scratch, be->activation, 2, y->shape),
                            up = arena_tensor(&be->scratch, be->activation, 2, y->shape);
    TRY(be->ops->project(be, &gate, x, items[0].weight, NULL));
    TRY(be->ops->project(be, &up, x, items[1].weight, NULL));
    return be->ops->swiglu(be, y, &gate, &up);
}

static plx_status all_by_parts(struct backend *be, const struct project_all *call)
{
    struct plx_tensor x = *call->x;
    if (call->gain != NULL) {
        const struct plx_tensor rstd = arena_tensor(&be->scratch, be->storage, 1, x.shape);
        x = arena_tensor(&be->scratch, be->activation, 2, x.shape);
        TRY(be->ops->rmsnorm(be, &x, &rstd, call->x, call->gain, call->eps));
    }
    if (call->gated) return gated_by_parts(be, &x, call->items);
    for (int i = 0; i < call->count; i++)
        TRY(be->ops->project(be, call->items[i].y, &x, call->items[i].weight,
                             call->items[i].residual));
    return PLX_OK;
}

plx_status project_all_by_parts(struct backend *be, const struct project_all *call)
{
    TRY(check_project_all(be, call));
    const size_t mark = arena_mark(&be->scratch);
    plx_status status = all_by_parts(be, call);
    arena_release(&be->scratch, mark);
    return status;
}
