/* op_cases_update.h: operands and calls of the optimisers' operations, for op_cases.h. */
#ifndef TEST_OP_CASES_UPDATE_H
#define TEST_OP_CASES_UPDATE_H

#include <math.h>

#include "op_operands.h"

/* What a step is told, with Adam's betas 0.9 and 0.95. */
static plx_status numbers_create(struct backend *be, int64_t step, struct plx_tensor *numbers)
{
    const struct step_numbers all = {.step = (double)step,
                                     .lr = 0.5,
                                     .weight_decay = 0.2,
                                     .bias1 = 1.0 - pow(0.9, (double)step),
                                     .bias2 = 1.0 - pow(0.95, (double)step)};
    return doubles_create(be, STEP_NUMBERS, &all.step, numbers);
}

static plx_status clip_once(struct backend *be, const struct plx_tensor *state,
                            const double *squares, double limit, int64_t step)
{
    struct plx_tensor sums, numbers;
    TRY(doubles_create(be, 5, squares, &sums));
    TRY(numbers_create(be, step, &numbers));
    const struct clip arguments = {&sums, state, &numbers, limit};
    plx_status status = be->ops->clip(be, &arguments);
    be->device->release(sums.data, be->stream);
    be->device->release(numbers.data, be->stream);
    return status;
}

/* The state after two steps, the second of which follows a bad one where the numbers say so. */
static plx_status clip(struct backend *be, const struct plx_tensor *v, const double *squares,
                       double limit)
{
    struct plx_tensor state;
    TRY(doubles_create(be, CLIP_STATE, (double[CLIP_STATE]){0}, &state));
    TRY(clip_once(be, &state, squares, limit, 7));
    TRY(clip_once(be, &state, (double[5]){1.0, 2.0, 3.0, 1.0, 2.0}, limit, 8));
    return doubles_finish(be, &state, &v[0]);
}

static void operands_clip(struct operand *o, int64_t n, int64_t e)
{
    (void)n, (void)e;
    o[0] = stored(vector(ROLE_OUT, CLIP_STATE));
}

static plx_status run_clip(struct backend *be, const struct plx_tensor *v)
{
    return clip(be, v, (double[5]){4.0, 0.0, 5.0, 1.0, 6.0}, 1.5);
}

static plx_status run_clip_none(struct backend *be, const struct plx_tensor *v)
{
    return clip(be, v, (double[5]){4.0, 0.0, 5.0, 1.0, 6.0}, 0.0);
}

static plx_status run_clip_bad(struct backend *be, const struct plx_tensor *v)
{
    return clip(be, v, (double[5]){4.0, 0.0, NAN, 1.0, INFINITY}, 1.5);
}

/* Two parameters [n,e] and [e]: value, m, v and gradient of each. */
static void operands_adamw(struct operand *o, int64_t n, int64_t e)
{
    for (int i = 0; i < 8; i++)
        o[i] = stored(i < 4 ? matrix(ROLE_BOTH, n, e) : vector(ROLE_BOTH, e));
    for (int i = 0; i < 8; i += 4) {
        o[i + 2].values = FILL_SQUARES;
        o[i + 3].role = ROLE_IN;
    }
}

static void operands_adamw_halved(struct operand *o, int64_t n, int64_t e)
{
    operands_adamw(o, n, e);
    o[1].halved = o[2].halved = o[5].halved = o[6].halved = true;
}

static plx_status adamw(struct backend *be, const struct plx_tensor *v, int64_t step, double factor)
{
    const struct update_item items[2] = {
        {&v[0], &v[0], &v[3], &v[1], &v[2], .lr = 0.06, .weight_decay = 0.5, .number = 7},
        {&v[4], &v[4], &v[7], &v[5], &v[6], .lr = 0.02, .weight_decay = 0.0, .number = 70}};
    struct plx_tensor number, numbers;
    TRY(doubles_create(be, 1, &factor, &number));
    TRY(numbers_create(be, step, &numbers));
    struct adamw_update update = {.items = items,
                                  .count = 2,
                                  .factor = &number,
                                  .numbers = &numbers,
                                  .beta1 = 0.9,
                                  .beta2 = 0.95,
                                  .eps = 1e-8};
    plx_status status = be->ops->adamw(be, &update);
    be->device->release(number.data, be->stream);
    be->device->release(numbers.data, be->stream);
    return status;
}

static plx_status run_adamw_first(struct backend *be, const struct plx_tensor *v)
{
    return adamw(be, v, 1, 1.0);
}

static plx_status run_adamw_later(struct backend *be, const struct plx_tensor *v)
{
    return adamw(be, v, 1000, 0.37);
}

static plx_status run_adamw_void(struct backend *be, const struct plx_tensor *v)
{
    return adamw(be, v, 1000, 0.0);
}

/* Two matrices: directions, then value, m and gradient of each. */
static void operands_muon(struct operand *o, int64_t n, int64_t e)
{
    o[0] = heads(ROLE_OUT, 2, n, e);
    for (int i = 1; i < 7; i++) o[i] = stored(matrix(ROLE_BOTH, n, e));
    o[3].role = o[6].role = ROLE_IN;
}

static void operands_muon_halved(struct operand *o, int64_t n, int64_t e)
{
    operands_muon(o, n, e);
    o[2].halved = o[5].halved = true;
}

static plx_status muon(struct backend *be, const struct plx_tensor *v,
                       plx_status (*op)(struct backend *be, const struct muon_update *update),
                       bool nesterov, bool ema, double factor)
{
    const struct update_item items[2] = {
        {&v[1], &v[1], &v[3], &v[2], .lr = 0.06, .weight_decay = 0.5, .number = 7},
        {&v[4], &v[4], &v[6], &v[5], .lr = 0.02, .weight_decay = 1.0, .number = 70}};
    struct plx_tensor number, numbers;
    TRY(doubles_create(be, 1, &factor, &number));
    TRY(numbers_create(be, 3, &numbers));
    struct muon_update update = {.items = items,
                                 .count = 2,
                                 .factor = &number,
                                 .numbers = &numbers,
                                 .directions = &v[0],
                                 .momentum = 0.95,
                                 .nesterov = nesterov,
                                 .ema = ema,
                                 .scale = 1.7};
    plx_status status = op(be, &update);
    be->device->release(number.data, be->stream);
    be->device->release(numbers.data, be->stream);
    return status;
}

static plx_status run_momentum(struct backend *be, const struct plx_tensor *v)
{
    return muon(be, v, be->ops->momentum, false, false, 1.0);
}

static plx_status run_momentum_nesterov(struct backend *be, const struct plx_tensor *v)
{
    return muon(be, v, be->ops->momentum, true, false, 0.37);
}

static plx_status run_momentum_ema(struct backend *be, const struct plx_tensor *v)
{
    return muon(be, v, be->ops->momentum, true, true, 0.37);
}

static plx_status run_momentum_void(struct backend *be, const struct plx_tensor *v)
{
    return muon(be, v, be->ops->momentum, true, true, 0.0);
}

static void operands_apply(struct operand *o, int64_t n, int64_t e)
{
    operands_muon(o, n, e);
    o[0].role = ROLE_IN;
}

static plx_status run_apply(struct backend *be, const struct plx_tensor *v)
{
    return muon(be, v, be->ops->apply, true, true, 0.37);
}

static plx_status run_apply_void(struct backend *be, const struct plx_tensor *v)
{
    return muon(be, v, be->ops->apply, true, true, 0.0);
}

static void operands_normalise(struct operand *o, int64_t n, int64_t e)
{
    o[0] = heads(ROLE_OUT, 3, n, e);
    o[1] = heads(ROLE_IN, 3, n, e);
}

static plx_status run_normalise(struct backend *be, const struct plx_tensor *v)
{
    return be->ops->normalise(be, &v[0], &v[1], 1.02, 1e-3);
}

static void operands_normalise_in_place(struct operand *o, int64_t n, int64_t e)
{
    o[0] = heads(ROLE_BOTH, 3, n, e);
}

static plx_status run_normalise_in_place(struct backend *be, const struct plx_tensor *v)
{
    return be->ops->normalise(be, &v[0], &v[0], 1.0, 1e-7);
}

/* Steps have tests of their own (test_muon.c, test_gpu_optim.c), whose naive results are rounded
 * after each product. */
static plx_status run_orthogonalise(struct backend *be, const struct plx_tensor *v)
{
    const struct orthogonalise call = {.x = &v[1], .y = &v[0], .factor = 1.02, .eps = 1e-3};
    return be->ops->orthogonalise(be, &call);
}

#endif
