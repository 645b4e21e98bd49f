/* update_cpu.c: ops_cpu's operations of the optimisers, as vector_cpu.c has those on whole tensors.
 *
 * A list of parameters is updated one parameter after another. */
#include "ops/check.h"
#include "ops/clip_host.h"
#include "ops/cpu_state.h"
#include "ops/rounding.h"

/* At most SUMS partial sums whatever the size, added in order at the end. */
static double vector_squares(const struct backend *be, const float *in, int64_t count)
{
    enum { SUMS = 256 };
    const struct rows *rows = cpu_rows(be);
    int64_t share = (vector_blocks(count) + SUMS - 1) / SUMS * VECTOR_BLOCK;
    int64_t parts = share > 0 ? (count + share - 1) / share : 0;
    double sums[SUMS];
#pragma omp parallel for num_threads(cpu_threads(be, count)) schedule(static)
    for (int64_t p = 0; p < parts; p++) {
        int64_t left = count - p * share;
        sums[p] = rows->sum_squares(in + p * share, left < share ? left : share);
    }
    double total = 0.0;
    for (int64_t p = 0; p < parts; p++) total += sums[p];
    return total;
}

plx_status cpu_sum_squares(struct backend *be, const struct plx_tensor *sums,
                           const struct plx_tensor *const *xs)
{
    TRY(check_sum_squares(be, sums, xs));
    double *out = sums->data;
    for (int64_t i = 0; i < sums->shape[0]; i++)
        out[i] = xs[i] != NULL ? vector_squares(be, xs[i]->data, plx_tensor_count(xs[i])) : 0.0;
    return PLX_OK;
}

plx_status cpu_clip(struct backend *be, const struct clip *clip)
{
    TRY(check_clip(be, clip));
    clip_host(clip);
    return PLX_OK;
}

static void adamw_item(const struct backend *be, const struct adamw_update *update,
                       const struct update_item *item)
{
    const struct step_numbers *numbers = update->numbers->data;
    const double lr = numbers->lr * item->lr, decay = numbers->weight_decay * item->weight_decay;
    struct rows_adamw factors = {
        .factor = (float)*(const double *)update->factor->data,
        .beta1 = (float)update->beta1,
        .rest1 = (float)(1.0 - update->beta1),
        .beta2 = (float)update->beta2,
        .rest2 = (float)(1.0 - update->beta2),
        .keep = (float)(1.0 - lr * decay),
        .rate = (float)(lr / numbers->bias1),
        .root = (float)(1.0 / sqrt(numbers->bias2)),
        .eps = (float)update->eps,
    };
    const struct rows *rows = cpu_rows(be);
    const bool rounds = item->m->dtype == PLX_BF16;
    const uint32_t key = rounding_key(numbers->step, item->number);
    int64_t count = plx_tensor_count(item->value);
    float *w = item->value->data;
    void *m = item->m->data, *v = item->v->data;
    const float *g = item->grad->data;
#pragma omp parallel for num_threads(cpu_threads(be, count)) schedule(static)
    for (int64_t i = 0; i < vector_blocks(count); i++) {
        const int64_t at = i * VECTOR_BLOCK, length = vector_length(count, i);
        const struct rows_rounding rounding = {key, (uint32_t)at};
        if (rounds)
            rows->adamw_bf16(w + at, (uint16_t *)m + at, (uint16_t *)v + at, g + at, &factors,
                             &rounding, length);
        else
            rows->adamw(w + at, (float *)m + at, (float *)v + at, g + at, &factors, length);
    }
}

plx_status cpu_adamw(struct backend *be, const struct adamw_update *update)
{
    TRY(check_adamw(be, update));
    if (update_is_void(update->factor)) return PLX_OK;
    for (int i = 0; i < update->count; i++) adamw_item(be, update, &update->items[i]);
    return PLX_OK;
}

static void momentum_item(const struct backend *be, const struct muon_update *update, int index)
{
    const struct update_item *item = &update->items[index];
    const struct rows_momentum factors = {
        .factor = (float)*(const double *)update->factor->data,
        .keep = (float)update->momentum,
        .take = (float)(update->ema ? 1.0 - update->momentum : 1.0),
        .nesterov = update->nesterov,
    };
    const struct rows *rows = cpu_rows(be);
    const struct step_numbers *numbers = update->numbers->data;
    const bool rounds = item->m->dtype == PLX_BF16;
    const uint32_t key = rounding_key(numbers->step, item->number);
    int64_t count = plx_tensor_count(item->value);
    float *direction = (float *)update->directions->data + index * count;
    void *moment = item->m->data;
    const float *gradient = item->grad->data;
#pragma omp parallel for num_threads(cpu_threads(be, count)) schedule(static)
    for (int64_t i = 0; i < vector_blocks(count); i++) {
        const int64_t at = i * VECTOR_BLOCK, length = vector_length(count, i);
        const struct rows_rounding rounding = {key, (uint32_t)at};
        if (rounds)
            rows->momentum_bf16(direction + at, (uint16_t *)moment + at, gradient + at, &factors,
                                &rounding, length);
        else
            rows->momentum(direction + at, (float *)moment + at, gradient + at, &factors, length);
    }
}

plx_status cpu_momentum(struct backend *be, const struct muon_update *update)
{
    TRY(check_momentum(be, update));
    if (update_is_void(update->factor)) return PLX_OK;
    for (int i = 0; i < update->count; i++) momentum_item(be, update, i);
    return PLX_OK;
}

plx_status cpu_normalise(struct backend *be, const struct plx_tensor *y, const struct plx_tensor *x,
                         double factor, double eps)
{
    TRY(check_normalise(be, y, x));
    const struct rows *rows = cpu_rows(be);
    int64_t count = x->shape[1] * x->shape[2];
    for (int64_t n = 0; n < x->shape[0]; n++) {
        const float *in = (const float *)x->data + n * count;
        float *out = (float *)y->data + n * count;
        float rate = (float)(1.0 / (factor * sqrt(vector_squares(be, in, count)) + eps));
#pragma omp parallel for num_threads(cpu_threads(be, count)) schedule(static)
        for (int64_t i = 0; i < vector_blocks(count); i++)
            rows->scale(out + i * VECTOR_BLOCK, in + i * VECTOR_BLOCK, rate,
                        vector_length(count, i));
    }
    return PLX_OK;
}

static void apply_item(const struct backend *be, const struct muon_update *update, int index)
{
    const struct update_item *item = &update->items[index];
    const struct rows *rows = cpu_rows(be);
    int64_t count = plx_tensor_count(item->value);
    float *weight = item->value->data;
    const float *direction = (const float *)update->directions->data + index * count;
    const struct step_numbers *numbers = update->numbers->data;
    const double lr = numbers->lr * item->lr, decay = numbers->weight_decay * item->weight_decay;
    float keep = (float)(1.0 - lr * decay), rate = (float)(lr * update->scale);
#pragma omp parallel for num_threads(cpu_threads(be, count)) schedule(static)
    for (int64_t i = 0; i < vector_blocks(count); i++) {
        int64_t at = i * VECTOR_BLOCK;
        rows->apply(weight + at, direction + at, keep, rate, vector_length(count, i));
    }
}

plx_status cpu_apply(struct backend *be, const struct muon_update *update)
{
    TRY(check_apply(be, update));
    if (update_is_void(update->factor)) return PLX_OK;
    for (int i = 0; i < update->count; i++) apply_item(be, update, i);
    return PLX_OK;
}
