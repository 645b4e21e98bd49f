/* softmax.c: the public verbs of softmax attention: arguments, problem, table, run. No mathematics.
 *
 * The tables below are the coverage matrix of the CPU: rows in order of preference, the reference
 * last. A new kernel is one line in them (softmax_impl.h says where its row is declared). Next:
 * softmax_ref.c (the definition), attention/attention.c (what the verbs share). */
#include "softmax/softmax_impl.h"

#include "core/context.h"

/* ---- Rows ---------------------------------------------------------------------------------- */

static size_t reference_workspace(const void *problem)
{
    const struct attention_problem *p = problem;
    return p->dtype == PLX_F64 ? softmax_ref_workspace_double(p) : softmax_ref_workspace_float(p);
}

static plx_status reference_forward(plx_context *context, const void *problem, void *workspace,
                                    plx_stream stream)
{
    const struct attention_problem *p = problem;
    (void)context;
    (void)stream;
    if (p->dtype == PLX_F64)
        softmax_ref_forward_double(p, workspace);
    else
        softmax_ref_forward_float(p, workspace);
    return PLX_OK;
}

static plx_status reference_backward(plx_context *context, const void *problem, void *workspace,
                                     plx_stream stream)
{
    const struct attention_problem *p = problem;
    (void)context;
    (void)stream;
    if (p->dtype == PLX_F64)
        softmax_ref_backward_double(p, workspace);
    else
        softmax_ref_backward_float(p, workspace);
    return PLX_OK;
}

static const struct kernel_row amx_bf16 = {.name = "amx_bf16", .refuse = attention_refuse_amx};
static const struct kernel_row forward_reference = {"reference", attention_refuse_none,
                                                    reference_workspace, reference_forward};
static const struct kernel_row backward_reference = {"reference", attention_refuse_none,
                                                     reference_workspace, reference_backward};

static const struct kernel_row *const forward_rows[] = {
    &softmax_forward_sm90,       &softmax_forward_any,         &amx_bf16,
#ifdef __x86_64__
    &softmax_forward_avx512_f32, &softmax_forward_avx512_bf16, &softmax_forward_avx512_f16,
#endif
    &softmax_forward_portable,   &forward_reference,
};
static const struct kernel_row *const backward_rows[] = {
    &softmax_backward_sm90,       &softmax_backward_any,         &amx_bf16,
#ifdef __x86_64__
    &softmax_backward_avx512_f32, &softmax_backward_avx512_bf16, &softmax_backward_avx512_f16,
#endif
    &softmax_backward_portable,   &backward_reference,
};
static const struct kernel_row *const decode_rows[] = {
    &softmax_decode_sm90,       &softmax_forward_any,        &amx_bf16,
#ifdef __x86_64__
    &softmax_decode_avx512_f32, &softmax_decode_avx512_bf16, &softmax_decode_avx512_f16,
#endif
    &softmax_decode_portable,   &forward_reference,
};

struct kernel_table softmax_table(plx_pass pass)
{
    static const struct kernel_table tables[] = {
        [PLX_FORWARD] = {forward_rows, sizeof forward_rows / sizeof forward_rows[0]},
        [PLX_BACKWARD] = {backward_rows, sizeof backward_rows / sizeof backward_rows[0]},
        [PLX_DECODE] = {decode_rows, sizeof decode_rows / sizeof decode_rows[0]},
    };
    return tables[pass];
}

/* ---- Verbs --------------------------------------------------------------------------------- */

/* What every verb begins with. */
static plx_status softmax_problem(plx_context *context, plx_pass pass,
                                  const struct plx_softmax_args *args,
                                  struct attention_problem *problem)
{
    if (!context) return PLX_INVALID_ARGUMENT;
    context_begin(context);
    CHECK(context, args, PLX_INVALID_ARGUMENT, "args: is NULL");
    *problem = (struct attention_problem){
        .pass = pass,
        .probe = false,
        .q = args->q,
        .k = args->k,
        .v = args->v,
        .o = args->o,
        .lse = args->lse,
        .d_o = args->d_o,
        .dq = args->dq,
        .dk = args->dk,
        .dv = args->dv,
    };
    return PLX_OK;
}

static plx_status softmax_run(plx_context *context, const struct plx_attention *attention,
                              plx_pass pass, const struct plx_softmax_args *args, void *workspace,
                              size_t workspace_bytes, plx_stream stream)
{
    struct attention_problem problem;
    TRY(softmax_problem(context, pass, args, &problem));
    return attention_run(context, attention, softmax_table, &problem, workspace, workspace_bytes,
                         stream);
}

plx_status plx_softmax_forward(plx_context *context, const struct plx_attention *attention,
                               const struct plx_softmax_args *args, void *workspace,
                               size_t workspace_bytes, plx_stream stream)
{
    return softmax_run(context, attention, PLX_FORWARD, args, workspace, workspace_bytes, stream);
}

plx_status plx_softmax_backward(plx_context *context, const struct plx_attention *attention,
                                const struct plx_softmax_args *args, void *workspace,
                                size_t workspace_bytes, plx_stream stream)
{
    return softmax_run(context, attention, PLX_BACKWARD, args, workspace, workspace_bytes, stream);
}

plx_status plx_softmax_decode(plx_context *context, const struct plx_attention *attention,
                              const struct plx_softmax_args *args, void *workspace,
                              size_t workspace_bytes, plx_stream stream)
{
    return softmax_run(context, attention, PLX_DECODE, args, workspace, workspace_bytes, stream);
}

plx_status plx_softmax_workspace(plx_context *context, const struct plx_attention *attention,
                                 plx_pass pass, const struct plx_softmax_args *args, size_t *bytes)
{
    struct attention_problem problem;
    TRY(softmax_problem(context, pass, args, &problem));
    return attention_workspace(context, attention, softmax_table, &problem, bytes);
}

plx_status plx_softmax_kernel(plx_context *context, const struct plx_attention *attention,
                              plx_pass pass, const struct plx_softmax_args *args, const char **name)
{
    struct attention_problem problem;
    TRY(softmax_problem(context, pass, args, &problem));
    return attention_kernel(context, attention, softmax_table, &problem, name);
}
