/* bench_case.c: see bench_case.h. */
#include "bench_case.h"

const char *const bench_pass_names[] = {"forward", "backward", "decode"};
const char *const bench_mechanism_names[] = {"softmax", "parallax"};

_Static_assert(sizeof(struct plx_parallax_args) == SLOTS * sizeof(struct plx_tensor),
               "enum bench_slot names every member of the arguments");

struct plx_tensor *bench_slots(struct bench_arguments *args)
{
    return &args->tensors.q;
}

int64_t bench_time(const struct bench_case *c)
{
    return c->pass == PLX_DECODE ? c->tokens : c->shape.l;
}

/* ---- Lengths and pages ---- */

bool bench_lengths(const struct bench_case *c)
{
    return c->lengths || c->page > 0;
}

int64_t bench_pages(const struct bench_case *c)
{
    return c->page > 0 ? (c->shape.l + c->page - 1) / c->page : 0;
}

/* A prime that is larger than any number of pages here has no factor in common with it. */
int64_t bench_page(const struct bench_case *c, int64_t n)
{
    const int64_t step = 1000000007, all = c->shape.b * bench_pages(c);
    return n * (step % all) % all;
}

int64_t bench_key_row(const struct bench_case *c, int64_t b, int64_t j, int64_t g)
{
    const int64_t place =
        c->page > 0 ? bench_page(c, b * bench_pages(c) + j / c->page) * c->page + j % c->page
                    : b * c->shape.l + j;
    return place * c->shape.hkv + g;
}

/* ---- Calls ---- */

static struct plx_tensor key_tensor(const struct bench_case *c, plx_dtype dtype)
{
    const struct bench_shape s = c->shape;
    if (c->page > 0) return plx_tensor_4d(NULL, dtype, s.b * bench_pages(c), c->page, s.hkv, s.d);
    return plx_tensor_4d(NULL, dtype, s.b, s.l, s.hkv, s.d);
}

struct bench_arguments bench_arguments(const struct bench_case *c, plx_pass pass, plx_dtype written)
{
    const struct bench_shape s = c->shape;
    const int64_t time = bench_time(c), rows[] = {s.b, time, s.hq};
    const int64_t pages[] = {s.b, bench_pages(c)};
    const struct plx_tensor query = plx_tensor_4d(NULL, c->dtype, s.b, time, s.hq, s.d);
    const struct plx_tensor query_out = plx_tensor_4d(NULL, written, s.b, time, s.hq, s.d);
    const struct plx_tensor key = key_tensor(c, c->cache), key_out = key_tensor(c, written);
    const struct plx_tensor row = plx_tensor_dense(NULL, PLX_F32, 3, rows);
    struct bench_arguments args = {
        .attention = {.causal = c->causal, .deterministic = c->deterministic},
        .tensors = {.q = query, .r = query, .k = key, .v = key, .o = query_out}};
    if (c->page > 0) args.attention.k_pages = plx_tensor_dense(NULL, PLX_I32, 2, pages);
    if (bench_lengths(c)) args.attention.k_lengths = plx_tensor_dense(NULL, PLX_I32, 1, pages);
    if (pass == PLX_DECODE) return args;
    struct plx_parallax_args *t = &args.tensors;
    t->lse = t->probe_mean = row;
    t->value_mean = query_out;
    if (pass == PLX_FORWARD) return args;
    t->o = t->value_mean = t->d_o = query;
    t->dq = t->dr = query_out;
    t->dk = t->dv = key_out;
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

plx_status bench_plan(plx_context *context, const struct bench_case *c, plx_pass pass,
                      const struct bench_arguments *args, const char **kernel, size_t *bytes)
{
    const struct plx_softmax_args plain = softmax_args(&args->tensors);
    if (c->mechanism == PLX_SOFTMAX) {
        TRY(plx_softmax_kernel(context, &args->attention, pass, &plain, kernel));
        return plx_softmax_workspace(context, &args->attention, pass, &plain, bytes);
    }
    TRY(plx_parallax_kernel(context, &args->attention, pass, &args->tensors, kernel));
    return plx_parallax_workspace(context, &args->attention, pass, &args->tensors, bytes);
}

plx_status bench_call(plx_context *context, const struct bench_case *c, plx_pass pass,
                      const struct bench_arguments *args, void *workspace, size_t bytes,
                      plx_stream stream)
{
    static plx_status (*const parallax[])(
        plx_context *, const struct plx_attention *, const struct plx_parallax_args *, void *,
        size_t, plx_stream) = {plx_parallax_forward, plx_parallax_backward, plx_parallax_decode};
    static plx_status (*const softmax[])(
        plx_context *, const struct plx_attention *, const struct plx_softmax_args *, void *,
        size_t, plx_stream) = {plx_softmax_forward, plx_softmax_backward, plx_softmax_decode};
    const struct plx_softmax_args plain = softmax_args(&args->tensors);
    if (c->mechanism == PLX_SOFTMAX)
        return softmax[pass](context, &args->attention, &plain, workspace, bytes, stream);
    return parallax[pass](context, &args->attention, &args->tensors, workspace, bytes, stream);
}

double bench_flops(const struct bench_case *c)
{
    static const double products[2][3] = {{2, 5, 2}, {4, 8, 4}};
    const struct bench_shape s = c->shape;
    const double time = (double)bench_time(c);
    const double half = c->causal && c->pass != PLX_DECODE ? 0.5 : 1;
    return products[c->mechanism][c->pass] * half * 2 * (double)s.b * (double)s.hq * time *
           (double)s.l * (double)s.d;
}

double bench_bytes(const struct bench_case *c)
{
    const struct bench_shape s = c->shape;
    return 2 * (double)plx_dtype_size(c->cache) * (double)s.b * (double)s.hkv * (double)s.l *
           (double)s.d;
}
