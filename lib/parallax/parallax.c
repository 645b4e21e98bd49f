/* parallax.c: the public verbs of Parallax: arguments, problem, table, run. No mathematics.
 *
 * The tables below are the coverage matrix of the CPU: rows in order of preference, the reference
 * last. A new kernel is one line in them (parallax_impl.h says where its row is declared). Next:
 * parallax_ref.c (the definition), attention/attention.c (what the verbs share). */
#include "parallax/parallax_impl.h"

#include "core/context.h"

/* ---- Rows ---------------------------------------------------------------------------------- */

static size_t reference_workspace(const void *problem)
{
    const struct attention_problem *p = problem;
    return p->dtype == PLX_F64 ? parallax_ref_workspace_double(p) : parallax_ref_workspace_float(p);
}

static plx_status reference_forward(plx_context *context, const void *problem, void *workspace,
                                    plx_stream stream)
{
    const struct attention_problem *p = problem;
    (void)context;
    (void)stream;
    if (p->dtype == PLX_F64)
        parallax_ref_forward_double(p, workspace);
    else
        parallax_ref_forward_float(p, workspace);
    return PLX_OK;
}

static plx_status reference_backward(plx_context *context, const void *problem, void *workspace,
                                     plx_stream stream)
{
    const struct attention_problem *p = problem;
    (void)context;
    (void)stream;
    if (p->dtype == PLX_F64)
        parallax_ref_backward_double(p, workspace);
    else
        parallax_ref_backward_float(p, workspace);
    return PLX_OK;
}

static const struct kernel_row amx_bf16 = {.name = "amx_bf16", .refuse = attention_refuse_amx};
static const struct kernel_row forward_reference = {"reference", attention_refuse_none,
                                                    reference_workspace, reference_forward};
static const struct kernel_row backward_reference = {"reference", attention_refuse_none,
                                                     reference_workspace, reference_backward};

static const struct kernel_row *const forward_rows[] = {
    &parallax_forward_sm90,
    &parallax_forward_any,
    &amx_bf16,
#ifdef __x86_64__
    &parallax_forward_avx512_f32,
    &parallax_forward_avx512_bf16,
    &parallax_forward_avx512_f16,
#endif
    &parallax_forward_portable,
    &forward_reference,
};
static const struct kernel_row *const backward_rows[] = {
    &parallax_backward_sm90,
    &parallax_backward_any,
    &amx_bf16,
#ifdef __x86_64__
    &parallax_backward_avx512_f32,
    &parallax_backward_avx512_bf16,
    &parallax_backward_avx512_f16,
#endif
    &parallax_backward_portable,
    &backward_reference,
};
static const struct kernel_row *const decode_rows[] = {
    &parallax_decode_sm90,       &parallax_forward_any,        &amx_bf16,
#ifdef __x86_64__
    &parallax_decode_avx512_f32, &parallax_decode_avx512_bf16, &parallax_decode_avx512_f16,
#endif
    &parallax_decode_portable,   &forward_reference,
};

struct kernel_table parallax_table(plx_pass pass)
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
static plx_status parallax_problem(plx_context *context, plx_pass pass,
                                   const struct plx_parallax_args *args,
                                   struct attention_problem *problem)
{
    if (!context) return PLX_INVALID_ARGUMENT;
    context_begin(context);
    CHECK(context, args, PLX_INVALID_ARGUMENT, "args: is NULL");
    *problem = (struct attention_problem){
        .pass = pass,
        .probe = true,
        .q = args->q,
        .r = args->r,
        .k = args->k,
        .v = args->v,
        .o = args->o,
        .lse = args->lse,
        .probe_mean = args->probe_mean,
        .value_mean = args->value_mean,
        .d_o = args->d_o,
        .dq = args->dq,
        .dr = args->dr,
        .dk = args->dk,
        .dv = args->dv,
    };
    return PLX_OK;
}

static plx_status parallax_run(plx_context *context, const struct plx_attention *attention,
                               plx_pass pass, const struct plx_parallax_args *args, void *workspace,
                               size_t workspace_bytes, plx_stream stream)
{
    struct attention_problem problem;
    TRY(parallax_problem(context, pass, args, &problem));
    return attention_run(context, attention, parallax_table, &problem, workspace, workspace_bytes,
                         stream);
}

plx_status plx_parallax_forward(plx_context *context, const struct plx_attention *attention,
                                const struct plx_parallax_args *args, void *workspace,
                                size_t workspace_bytes, plx_stream stream)
{
    return parallax_run(context, attention, PLX_FORWARD, args, workspace, workspace_bytes, stream);
}

plx_status plx_parallax_backward(plx_context *context, const struct plx_attention *attention,
                                 const struct plx_parallax_args *args, void *workspace,
                                 size_t workspace_bytes, plx_stream stream)
{
    return parallax_run(context, attention, PLX_BACKWARD, args, workspace, workspace_bytes, stream);
}

plx_status plx_parallax_decode(plx_context *context, const struct plx_attention *attention,
                               const struct plx_parallax_args *args, void *workspace,
                               size_t workspace_bytes, plx_stream stream)
{
    return parallax_run(context, attention, PLX_DECODE, args, workspace, workspace_bytes, stream);
}

plx_status plx_parallax_workspace(plx_context *context, const struct plx_attention *attention,
                                  plx_pass pass, const struct plx_parallax_args *args,
                                  size_t *bytes)
{
    struct attention_problem problem;
    TRY(parallax_problem(context, pass, args, &problem));
    return attention_workspace(context, attention, parallax_table, &problem, bytes);
}

plx_status plx_parallax_kernel(plx_context *context, const struct plx_attention *attention,
                               plx_pass pass, const struct plx_parallax_args *args,
                               const char **name)
{
    struct attention_problem problem;
    TRY(parallax_problem(context, pass, args, &problem));
    return attention_kernel(context, attention, parallax_table, &problem, name);
}
