/* op_cases_attend.h: operands and calls of attention, for op_cases.h. */
#ifndef TEST_OP_CASES_ATTEND_H
#define TEST_OP_CASES_ATTEND_H

#include "op_operands.h"

enum {
    AT_Q,
    AT_R,
    AT_K,
    AT_V,
    AT_O,
    AT_LSE,
    AT_PROBE_MEAN,
    AT_VALUE_MEAN,
    AT_D_O,
    AT_DQ,
    AT_DR,
    AT_DK,
    AT_DV
};

static void operands_attend(struct operand *o, int64_t n, int64_t e)
{
    for (int i = AT_Q; i <= AT_R; i++) o[i] = sequence(ROLE_IN, n, 4, e);
    for (int i = AT_K; i <= AT_V; i++) o[i] = sequence(ROLE_IN, n, 2, e);
    o[AT_O] = o[AT_VALUE_MEAN] = sequence(ROLE_OUT, n, 4, e);
    o[AT_LSE] = o[AT_PROBE_MEAN] = stored(heads(ROLE_OUT, 2, n, 4));
}

static void operands_attend_backward(struct operand *o, int64_t n, int64_t e)
{
    operands_attend(o, n, e);
    o[AT_D_O] = sequence(ROLE_IN, n, 4, e);
    for (int i = AT_DQ; i <= AT_DR; i++) o[i] = sequence(ROLE_OUT, n, 4, e);
    for (int i = AT_DK; i <= AT_DV; i++) o[i] = sequence(ROLE_OUT, n, 2, e);
}

static struct plx_parallax_args attend_args(const struct plx_tensor *v)
{
    return (struct plx_parallax_args){.q = v[AT_Q],
                                      .r = v[AT_R],
                                      .k = v[AT_K],
                                      .v = v[AT_V],
                                      .o = v[AT_O],
                                      .lse = v[AT_LSE],
                                      .probe_mean = v[AT_PROBE_MEAN],
                                      .value_mean = v[AT_VALUE_MEAN]};
}

static plx_status run_attend_forward(struct backend *be, const struct plx_tensor *v)
{
    struct plx_attention attention = {.causal = true};
    struct plx_parallax_args args = attend_args(v);
    struct attend attend = {PLX_PARALLAX, &attention, &args};
    return be->ops->attend_forward(be, &attend);
}

static plx_status run_attend_backward(struct backend *be, const struct plx_tensor *v)
{
    struct plx_attention attention = {.causal = true};
    struct plx_parallax_args args = attend_args(v);
    struct attend attend = {PLX_PARALLAX, &attention, &args};
    TRY(be->ops->attend_forward(be, &attend));
    args.d_o = v[AT_D_O];
    args.dq = v[AT_DQ];
    args.dr = v[AT_DR];
    args.dk = v[AT_DK];
    args.dv = v[AT_DV];
    return be->ops->attend_backward(be, &attend);
}

/* One new token against a cache of n + 3 places of which n are filled. */
enum { DECODE_Q, DECODE_R, DECODE_K, DECODE_V, DECODE_O, DECODE_LENGTHS };

static void operands_attend_decode(struct operand *o, int64_t n, int64_t e)
{
    for (int i = DECODE_Q; i <= DECODE_R; i++) o[i] = sequence(ROLE_IN, 1, 4, e);
    for (int i = DECODE_K; i <= DECODE_V; i++) o[i] = sequence(ROLE_IN, n + 3, 2, e);
    o[DECODE_O] = sequence(ROLE_OUT, 1, 4, e);
    o[DECODE_LENGTHS] = integers(FILL_LENGTH, 2, n);
}

static plx_status decode(struct backend *be, const struct plx_tensor *v, plx_mechanism mechanism)
{
    struct plx_attention attention = {.causal = true, .k_lengths = v[DECODE_LENGTHS]};
    struct plx_parallax_args args = {
        .q = v[DECODE_Q], .k = v[DECODE_K], .v = v[DECODE_V], .o = v[DECODE_O]};
    if (mechanism == PLX_PARALLAX) args.r = v[DECODE_R];
    struct attend attend = {mechanism, &attention, &args};
    return be->ops->attend_decode(be, &attend);
}

static plx_status run_decode_softmax(struct backend *be, const struct plx_tensor *v)
{
    return decode(be, v, PLX_SOFTMAX);
}

static plx_status run_decode_parallax(struct backend *be, const struct plx_tensor *v)
{
    return decode(be, v, PLX_PARALLAX);
}

/* Two new rows of either sequence. */
static void operands_append(struct operand *o, int64_t n, int64_t e)
{
    o[0] = o[1] = sequence(ROLE_BOTH, n + 3, 2, e);
    o[2] = o[3] = sequence(ROLE_IN, 2, 2, e);
    o[4] = integers(FILL_LENGTH, 2, n);
}

static plx_status run_append(struct backend *be, const struct plx_tensor *v)
{
    const struct plx_attention attention = {.k_lengths = v[4]};
    const struct plx_cache_append_args args = {
        .k_cache = v[0], .v_cache = v[1], .k = v[2], .v = v[3]};
    return be->ops->attend_append(be, &(struct append){&attention, &args});
}

#endif
