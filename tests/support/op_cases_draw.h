/* op_cases_draw.h: rows of op_cases.h: choosing tokens. */
#ifndef TEST_OP_CASES_DRAW_H
#define TEST_OP_CASES_DRAW_H

#include <math.h>
#include <stdlib.h>

#include "op_operands.h"
#include "ops/draw.h"

/* Logits, and the odd ids of each row with one outside of it, from the last to the first. */
static void operands_penalise(struct operand *o, int64_t n, int64_t e)
{
    o[0] = stored(matrix(ROLE_BOTH, n, e));
    o[1] = integers(FILL_LENGTH, n, e / 2 + 1);
}

static plx_status run_penalise(struct backend *be, const struct plx_tensor *v)
{
    const int64_t N = v[0].shape[0], L = v[0].shape[1] / 2 + 1, shape[2] = {N, L};
    int32_t *ids = calloc((size_t)(N * L + 1), sizeof *ids);
    REQUIRE(be->err, ids != NULL, PLX_OUT_OF_MEMORY, "no memory for %lld ids", (long long)(N * L));
    for (int64_t i = 0; i < N * L; i++) ids[i] = (int32_t)(2 * (L - 1 - i % L) + 1);
    struct plx_tensor seen = plx_tensor_dense(NULL, PLX_I32, 2, shape);
    const size_t bytes = (size_t)(N * L) * sizeof *ids;
    seen.device = be->device->kind;
    plx_status status = be->device->allocate(&seen.data, bytes + 1, be->stream, be->err);
    if (status == PLX_OK) status = be->device->upload(seen.data, ids, bytes, be->stream, be->err);
    if (status == PLX_OK) status = be->ops->penalise(be, &v[0], &seen, &v[1], 1.7);
    if (status == PLX_OK) status = be->device->wait(be->stream, be->err);
    be->device->release(seen.data, be->stream);
    free(ids);
    return status;
}

static void operands_draw(struct operand *o, int64_t n, int64_t e)
{
    o[0] = integers(FILL_IDS, n, e);
    o[0].role = ROLE_OUT;
    o[1] = stored(matrix(ROLE_IN, n, e));
}

/* A few of each kind of filter, in all combinations; and greedy. */
static struct draw_numbers draw_numbers_of_row(int64_t n, int64_t e)
{
    static const double temperatures[] = {1.0, 0.3, 2.5, 0.8, 1e-300, 0.0, 30.0};
    const double ks[] = {0, 1, (double)(e / 3 + 1), (double)(e + 5)};
    static const double ps[] = {1.0, 0.9, 0.35}, floors[] = {-INFINITY, -1.5};
    return (struct draw_numbers){.uniform = fmod(0.6180339887498949 * (double)(n + 1), 1.0),
                                 .temperature = temperatures[n % 7],
                                 .top_k = ks[n % 4],
                                 .top_p = ps[n / 4 % 3],
                                 .floor = floors[n / 12 % 2]};
}

/* Draws as make says. */
static plx_status draw_rows(struct backend *be, const struct plx_tensor *v,
                            struct draw_numbers (*make)(int64_t n, int64_t e))
{
    const int64_t N = v[1].shape[0];
    struct draw_numbers *numbers = calloc((size_t)(N + 1), sizeof *numbers);
    REQUIRE(be->err, numbers != NULL, PLX_OUT_OF_MEMORY, "no memory for %lld rows", (long long)N);
    for (int64_t n = 0; n < N; n++) numbers[n] = make(n, v[1].shape[1]);
    struct plx_tensor told;
    plx_status status = doubles_create(be, N * DRAW_NUMBERS, (const double *)numbers, &told);
    if (status == PLX_OK) status = be->ops->draw(be, &v[0], &v[1], &told);
    if (status == PLX_OK) status = be->device->wait(be->stream, be->err);
    be->device->release(told.data, be->stream);
    free(numbers);
    return status;
}

static plx_status run_draw(struct backend *be, const struct plx_tensor *v)
{
    return draw_rows(be, v, draw_numbers_of_row);
}

static struct draw_numbers draw_numbers_plain(int64_t n, int64_t e)
{
    struct draw_numbers numbers = draw_numbers_of_row(n, e);
    numbers.top_k = 0;
    numbers.top_p = 1;
    numbers.floor = -INFINITY;
    return numbers;
}

static plx_status run_draw_plain(struct backend *be, const struct plx_tensor *v)
{
    return draw_rows(be, v, draw_numbers_plain);
}

#endif
