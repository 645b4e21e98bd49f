/* update_cuda.c: operations of the optimisers on the GPU: checks, and lists of parameters cut into
 * what a launch takes. */
#include "ops/check.h"
#include "ops/cuda/cuda_state.h"
#include "ops/cuda/launch_update.h"
#include "ops/scratch.h"

/* ---- Sums of squares ------------------------------------------------------------------------- */

size_t cuda_sum_squares_scratch(const struct plx_tensor *sums, const struct plx_tensor *const *xs)
{
    int64_t partials = 0;
    for (int64_t i = 0; i < sums->shape[0]; i++)
        if (xs[i] != NULL) partials += squares_partials(plx_tensor_count(xs[i]));
    return (size_t)partials * sizeof(double);
}

static plx_status queue_squares(struct backend *be, const struct plx_tensor *sums,
                                const struct plx_tensor *const *xs, double *partials)
{
    int64_t count = sums->shape[0];
    for (int64_t begin = 0; begin < count; begin += UPDATE_LIST) {
        struct update_list list = {.size = 0};
        for (int64_t i = begin; i < count && i < begin + UPDATE_LIST; i++) {
            struct update_entry *entry = &list.entries[list.size++];
            entry->grad = xs[i] != NULL ? xs[i]->data : NULL;
            entry->count = xs[i] != NULL ? plx_tensor_count(xs[i]) : 0;
        }
        double *totals = (double *)sums->data + begin;
        TRY(cuda_launched(be, "sum_squares", launch_squares(be->stream, &list, totals, partials)));
    }
    return PLX_OK;
}

plx_status cuda_sum_squares(struct backend *be, const struct plx_tensor *sums,
                            const struct plx_tensor *const *xs)
{
    TRY(check_sum_squares(be, sums, xs));
    size_t mark = arena_mark(&be->scratch);
    void *partials;
    plx_status status =
        scratch_push(be, "sum_squares", cuda_sum_squares_scratch(sums, xs), &partials);
    if (status == PLX_OK) status = queue_squares(be, sums, xs, partials);
    arena_release(&be->scratch, mark);
    return status;
}

plx_status cuda_clip(struct backend *be, const struct clip *clip)
{
    TRY(check_clip(be, clip));
    return cuda_launched(be, "clip",
                         launch_clip(be->stream, clip->state->data, clip->squares->data,
                                     plx_tensor_count(clip->squares), clip->limit,
                                     clip->numbers->data));
}

/* ---- Lists ----------------------------------------------------------------------------------- */

/* The next parameters of an update from begin on. */
static struct update_list update_list_of(const struct update_item *items, int count, int begin)
{
    struct update_list list = {.size = 0};
    for (int i = begin; i < count && i < begin + UPDATE_LIST; i++) {
        const struct update_item *item = &items[i];
        bool copied = item->active->data != item->value->data;
        list.entries[list.size++] = (struct update_entry){
            .value = item->value->data,
            .active = copied ? item->active->data : NULL,
            .grad = item->grad->data,
            .m = item->m->data,
            .v = item->v != NULL ? item->v->data : NULL,
            .lr = (float)item->lr,
            .weight_decay = (float)item->weight_decay,
            .number = item->number,
            .count = plx_tensor_count(item->value),
        };
    }
    return list;
}

/* Copies that updates write are in bf16. */
static plx_status check_copies(struct backend *be, const char *op, const struct update_item *items,
                               int count)
{
    for (int i = 0; i < count; i++) {
        const struct plx_tensor *active = items[i].active;
        bool copied = active->data != items[i].value->data;
        REQUIRE(be->err, !copied || active->dtype == PLX_BF16, PLX_INTERNAL,
                "%s: active is a copy in %s but must be in bf16", op,
                plx_dtype_name(active->dtype));
    }
    return PLX_OK;
}

plx_status cuda_adamw(struct backend *be, const struct adamw_update *update)
{
    TRY(check_adamw(be, update));
    TRY(check_copies(be, "adamw", update->items, update->count));
    const struct adamw_factors factors = {
        .beta1 = (float)update->beta1,
        .rest1 = (float)(1.0 - update->beta1),
        .beta2 = (float)update->beta2,
        .rest2 = (float)(1.0 - update->beta2),
        .eps = (float)update->eps,
    };
    for (int begin = 0; begin < update->count; begin += UPDATE_LIST) {
        struct update_list list = update_list_of(update->items, update->count, begin);
        TRY(cuda_launched(be, "adamw",
                          launch_adamw(be->stream, update->items[begin].m->dtype, &list, &factors,
                                       update->factor->data, update->numbers->data)));
    }
    return PLX_OK;
}

/* ---- Muon ------------------------------------------------------------------------------------ */

/* Directions of the items from begin on. */
static void *directions_from(const struct muon_update *update, int begin)
{
    const struct plx_tensor *directions = update->directions;
    size_t size = plx_dtype_size(directions->dtype) * (size_t)directions->stride[0];
    return (char *)directions->data + (size_t)begin * size;
}

plx_status cuda_momentum(struct backend *be, const struct muon_update *update)
{
    TRY(check_momentum(be, update));
    const struct momentum_factors by = {
        .keep = (float)update->momentum,
        .take = (float)(update->ema ? 1.0 - update->momentum : 1.0),
        .nesterov = update->nesterov,
    };
    for (int begin = 0; begin < update->count; begin += UPDATE_LIST) {
        struct update_list list = update_list_of(update->items, update->count, begin);
        TRY(cuda_launched(be, "momentum",
                          launch_momentum(be->stream, update->directions->dtype,
                                          update->items[begin].m->dtype, &list,
                                          directions_from(update, begin), &by, update->factor->data,
                                          update->numbers->data)));
    }
    return PLX_OK;
}

size_t cuda_normalise_scratch(const struct plx_tensor *x)
{
    int64_t partials = x->shape[0] * squares_partials(x->shape[1] * x->shape[2]);
    return (size_t)partials * sizeof(double);
}

plx_status cuda_normalise(struct backend *be, const struct plx_tensor *y,
                          const struct plx_tensor *x, double factor, double eps)
{
    TRY(check_normalise(be, y, x));
    size_t mark = arena_mark(&be->scratch);
    void *partials;
    plx_status status = scratch_push(be, "normalise", cuda_normalise_scratch(x), &partials);
    if (status == PLX_OK)
        status = cuda_launched(be, "normalise",
                               launch_normalise(be->stream, x->dtype, y->data, x->data, x->shape[0],
                                                x->shape[1] * x->shape[2], factor, eps, partials));
    arena_release(&be->scratch, mark);
    return status;
}

plx_status cuda_apply(struct backend *be, const struct muon_update *update)
{
    TRY(check_apply(be, update));
    TRY(check_copies(be, "apply", update->items, update->count));
    for (int begin = 0; begin < update->count; begin += UPDATE_LIST) {
        struct update_list list = update_list_of(update->items, update->count, begin);
        TRY(cuda_launched(be, "apply",
                          launch_apply(be->stream, update->directions->dtype, &list,
                                       directions_from(update, begin), update->scale,
                                       update->factor->data, update->numbers->data)));
    }
    return PLX_OK;
}
