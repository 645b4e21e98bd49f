/* bench_case.c: see bench_case.h. */
#include "bench_case.h"

const char *const bench_pass_names[] = {"forward", "backward", "decode"};
const char *const bench_mechanism_names[] = {"softmax", "parallax"};

_Static_assert(sizeof(struct plx_parallax_args) == SLOTS * sizeof(struct plx_tensor),
               "enum bench_slot names every member of the arguments");

struct plx_tensor *bench_slots(struct plx_parallax_args *args)
{
    return &args->q;
}

struct plx_parallax_args bench_args(const struct bench_case *c, plx_pass pass, plx_dtype written)
{
    const struct bench_shape s = c->shape;
    const int64_t time = c->pass == PLX_DECODE ? 1 : s.l, rows[] = {s.b, time, s.hq};
    const struct plx_tensor query = plx_tensor_4d(NULL, c->dtype, s.b, time, s.hq, s.d);
    const struct plx_tensor key = plx_tensor_4d(NULL, c->dtype, s.b, s.l, s.hkv, s.d);
    const struct plx_tensor row = plx_tensor_dense(NULL, PLX_F32, 3, rows);
    struct plx_tensor query_out = query, key_out = key;
    query_out.dtype = key_out.dtype = written;
    struct plx_parallax_args args = {.q = query, .r = query, .k = key, .v = key, .o = query_out};
    if (pass == PLX_DECODE) return args;
    args.lse = args.probe_mean = row;
    args.value_mean = query_out;
    if (pass == PLX_FORWARD) return args;
    args.o = args.value_mean = args.d_o = query;
    args.dq = args.dr = query_out;
    args.dk = args.dv = key_out;
    return args;
}

static struct plx_softmax_args softmax_args(const struct plx_parallax_args *a)
{
    return (struct plx_softmax_args){.q = a->q,
                                     .k = a->k,
                                     .v = a->v,
                                     .o = a->o,
                                     .lse = a->lse,
                                     .d_o = a->d_o,
                                     .dq = a->dq,
                                     .dk = a->dk,
                                     .dv = a->dv};
}

static struct plx_attention attention_of(const struct bench_case *c)
{
    return (struct plx_attention){.causal = c->causal, .deterministic = c->deterministic};
}

plx_status bench_plan(plx_context *context, const struct bench_case *c, plx_pass pass,
                      const struct plx_parallax_args *args, const char **kernel, size_t *bytes)
{
    const struct plx_attention attention = attention_of(c);
    const struct plx_softmax_args plain = softmax_args(args);
    if (c->mechanism == PLX_SOFTMAX) {
        TRY(plx_softmax_kernel(context, &attention, pass, &plain, kernel));
        return plx_softmax_workspace(context, &attention, pass, &plain, bytes);
    }
    TRY(plx_parallax_kernel(context, &attention, pass, args, kernel));
    return plx_parallax_workspace(context, &attention, pass, args, bytes);
}

plx_status bench_call(plx_context *context, const struct bench_case *c, plx_pass pass,
                      const struct plx_parallax_args *args, void *workspace, size_t bytes,
                      plx_stream stream)
{
    static plx_status (*const parallax[])(
        plx_context *, const struct plx_attention *, const struct plx_parallax_args *, void *,
        size_t, plx_stream) = {plx_parallax_forward, plx_parallax_backward, plx_parallax_decode};
    static plx_status (*const softmax[])(
        plx_context *, const struct plx_attention *, const struct plx_softmax_args *, void *,
        size_t, plx_stream) = {plx_softmax_forward, plx_softmax_backward, plx_softmax_decode};
    const struct plx_attention attention = attention_of(c);
    const struct plx_softmax_args plain = softmax_args(args);
    if (c->mechanism == PLX_SOFTMAX)
        return softmax[pass](context, &attention, &plain, workspace, bytes, stream);
    return parallax[pass](context, &attention, args, workspace, bytes, stream);
}

double bench_flops(const struct bench_case *c)
{
    static const double products[2][3] = {{2, 5, 2}, {4, 8, 4}};
    const struct bench_shape s = c->shape;
    const double time = c->pass == PLX_DECODE ? 1 : (double)s.l;
    const double half = c->causal && c->pass != PLX_DECODE ? 0.5 : 1;
    return products[c->mechanism][c->pass] * half * 2 * (double)s.b * (double)s.hq * time *
           (double)s.l * (double)s.d;
}

double bench_bytes(const struct bench_case *c)
{
    const struct bench_shape s = c->shape;
    return 2 * (double)plx_dtype_size(c->dtype) * (double)s.b * (double)s.hkv * (double)s.l *
           (double)s.d;
}
