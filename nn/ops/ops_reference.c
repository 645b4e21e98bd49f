/* ops_reference.c: the table ops_ref: check, then the reference mathematics in the tensors' dtype.
 *
 * The mathematics is in ops_ref.c; attention is the library's reference kernel, which the backend's
 * context is told to use (backend.c). */
#include "ops/attend.h"
#include "ops/check.h"
#include "ops/clip_host.h"
#include "ops/orthogonalise.h"
#include "ops/ref_table.h"
#include "ops/scratch.h"

#include <string.h>

static const struct ref_table *reference_of(const struct plx_tensor *tensor)
{
    return tensor->dtype == PLX_F64 ? &ref_table_double : &ref_table_float;
}

static plx_status reference_create(struct backend *be)
{
    bool same = be->storage == PLX_F32 && (be->compute == PLX_F32 || be->compute == PLX_BF16);
    bool exact = be->storage == PLX_F64 && be->compute == PLX_F64;
    REQUIRE(be->err, same || exact, PLX_UNSUPPORTED,
            "the reference operations have no %s products over %s storage; they have f64 over f64, "
            "and f32 or bf16 over f32",
            plx_dtype_name(be->compute), plx_dtype_name(be->storage));
    return PLX_OK;
}

static void reference_destroy(struct backend *be)
{
    (void)be;
}

static plx_status reference_zero(struct backend *be, const struct plx_tensor *y)
{
    TRY(check_zero(be, y));
    size_t bytes = (size_t)plx_tensor_count(y) * plx_dtype_size(y->dtype);
    if (bytes > 0) memset(y->data, 0, bytes);
    return PLX_OK;
}

static plx_status reference_copy(struct backend *be, const struct plx_tensor *y,
                                 const struct plx_tensor *x)
{
    TRY(check_copy(be, y, x));
    plx_status status = plx_convert(be->context, x, y);
    REQUIRE(be->err, status == PLX_OK, status, "copy: %s", plx_error(be->context));
    return PLX_OK;
}

static plx_status reference_add(struct backend *be, const struct plx_tensor *y,
                                const struct plx_tensor *a, const struct plx_tensor *b)
{
    TRY(check_add(be, y, a, b));
    reference_of(y)->add(y, a, b);
    return PLX_OK;
}

static plx_status reference_sum(struct backend *be, const struct plx_tensor *sum,
                                const struct plx_tensor *x)
{
    TRY(check_sum(be, sum, x));
    *(double *)sum->data += reference_of(x)->sum(x);
    return PLX_OK;
}

static plx_status reference_sum_squares(struct backend *be, const struct plx_tensor *sums,
                                        const struct plx_tensor *const *xs)
{
    TRY(check_sum_squares(be, sums, xs));
    double *out = sums->data;
    for (int64_t i = 0; i < sums->shape[0]; i++)
        out[i] = xs[i] != NULL ? reference_of(xs[i])->sum_squares(xs[i]) : 0.0;
    return PLX_OK;
}

static plx_status reference_gemm(struct backend *be, const struct gemm *gemm)
{
    TRY(check_gemm(be, gemm));
    reference_of(gemm->c)->gemm(gemm, be->compute == PLX_BF16);
    return PLX_OK;
}

static plx_status reference_quantise(struct backend *be, const struct plx_tensor *x,
                                     const struct quantised *rows, const struct quantised *columns)
{
    TRY(check_quantise(be, x, rows, columns));
    reference_of(x)->quantise(x, rows, columns);
    return PLX_OK;
}

static plx_status reference_rmsnorm(struct backend *be, const struct plx_tensor *y,
                                    const struct plx_tensor *rstd, const struct plx_tensor *x,
                                    const struct plx_tensor *gain, double eps)
{
    TRY(check_rmsnorm(be, y, rstd, x, gain));
    reference_of(y)->rmsnorm(y, rstd, x, gain, eps);
    return PLX_OK;
}

static plx_status
reference_rmsnorm_backward(struct backend *be, const struct plx_tensor *dx,
                           const struct plx_tensor *dgain, const struct plx_tensor *dy,
                           const struct plx_tensor *x, const struct plx_tensor *gain,
                           const struct plx_tensor *rstd, const struct plx_tensor *residual)
{
    TRY(check_rmsnorm_backward(be, dx, dgain, dy, x, gain, rstd, residual));
    reference_of(x)->rmsnorm_backward(dx, dgain, dy, x, gain, rstd, residual);
    return PLX_OK;
}

static plx_status reference_project(struct backend *be, const struct plx_tensor *y,
                                    const struct plx_tensor *x, const struct packed *weight,
                                    const struct plx_tensor *residual)
{
    TRY(check_project(be, y, x, weight, residual));
    reference_of(y)->project(y, x, weight, residual);
    return PLX_OK;
}

static plx_status reference_unpack(struct backend *be, const struct plx_tensor *y,
                                   const struct packed *table, const struct plx_tensor *ids)
{
    TRY(check_unpack(be, y, table, ids));
    TRY(check_ids(be, "unpack", ids, table->rows, false));
    reference_of(y)->unpack(y, table, ids);
    return PLX_OK;
}

static plx_status reference_bias(struct backend *be, const struct plx_tensor *y,
                                 const struct plx_tensor *x, const struct plx_tensor *bias)
{
    TRY(check_bias(be, y, x, bias));
    reference_of(y)->bias(y, x, bias);
    return PLX_OK;
}

static plx_status reference_bias_backward(struct backend *be, const struct plx_tensor *dbias,
                                          const struct plx_tensor *dy)
{
    TRY(check_bias_backward(be, dbias, dy));
    reference_of(dy)->bias_backward(dbias, dy);
    return PLX_OK;
}

static plx_status reference_rope(struct backend *be, const struct plx_tensor *y,
                                 const struct plx_tensor *x, const struct plx_tensor *positions,
                                 const struct rope *rope, bool inverse)
{
    TRY(check_rope(be, y, x, positions));
    reference_of(y)->rope(y, x, positions, rope, inverse);
    return PLX_OK;
}

static plx_status reference_norm_rope(struct backend *be, const struct plx_tensor *y,
                                      const struct plx_tensor *rstd, const struct plx_tensor *x,
                                      const struct plx_tensor *gain, double eps,
                                      const struct plx_tensor *positions, const struct rope *rope)
{
    TRY(reference_rmsnorm(be, y, rstd, x, gain, eps));
    return reference_rope(be, y, y, positions, rope, false);
}

static plx_status reference_norm_rope_backward(
    struct backend *be, const struct plx_tensor *dx, const struct plx_tensor *dgain,
    const struct plx_tensor *dy, const struct plx_tensor *x, const struct plx_tensor *gain,
    const struct plx_tensor *rstd, const struct plx_tensor *positions, const struct rope *rope)
{
    TRY(reference_rope(be, dx, dy, positions, rope, true));
    return reference_rmsnorm_backward(be, dx, dgain, dx, x, gain, rstd, NULL);
}

static plx_status reference_swiglu(struct backend *be, const struct plx_tensor *y,
                                   const struct plx_tensor *gate, const struct plx_tensor *up)
{
    TRY(check_swiglu(be, y, gate, up));
    reference_of(y)->swiglu(y, gate, up);
    return PLX_OK;
}

static plx_status reference_swiglu_backward(struct backend *be, const struct plx_tensor *dgate,
                                            const struct plx_tensor *dup,
                                            const struct plx_tensor *product,
                                            const struct plx_tensor *dy,
                                            const struct plx_tensor *gate,
                                            const struct plx_tensor *up)
{
    TRY(check_swiglu_backward(be, dgate, dup, product, dy, gate, up));
    reference_of(dy)->swiglu_backward(dgate, dup, product, dy, gate, up);
    return PLX_OK;
}

static plx_status reference_gate(struct backend *be, const struct plx_tensor *y,
                                 const struct plx_tensor *x, const struct plx_tensor *z)
{
    TRY(check_gate(be, y, x, z));
    reference_of(y)->gate(y, x, z);
    return PLX_OK;
}

static plx_status reference_gate_backward(struct backend *be, const struct plx_tensor *dx,
                                          const struct plx_tensor *dz, const struct plx_tensor *dy,
                                          const struct plx_tensor *x, const struct plx_tensor *z)
{
    TRY(check_gate_backward(be, dx, dz, dy, x, z));
    reference_of(x)->gate_backward(dx, dz, dy, x, z);
    return PLX_OK;
}

static plx_status reference_embed(struct backend *be, const struct plx_tensor *y,
                                  const struct plx_tensor *table, const struct plx_tensor *ids)
{
    TRY(check_embed(be, "embed", y, table, be->activation, ids));
    TRY(check_ids(be, "embed", ids, table->shape[0], false));
    reference_of(y)->embed(y, table, ids);
    return PLX_OK;
}

static plx_status reference_embed_backward(struct backend *be, const struct plx_tensor *dtable,
                                           const struct plx_tensor *dy,
                                           const struct plx_tensor *ids)
{
    TRY(check_embed(be, "embed_backward", dy, dtable, be->storage, ids));
    TRY(check_ids(be, "embed_backward", ids, dtable->shape[0], false));
    reference_of(dy)->embed_backward(dtable, dy, ids);
    return PLX_OK;
}

static plx_status reference_cross_entropy(struct backend *be, const struct plx_tensor *losses,
                                          const struct plx_tensor *dlogits,
                                          const struct plx_tensor *logits,
                                          const struct plx_tensor *targets,
                                          const struct plx_tensor *scale)
{
    TRY(check_cross_entropy(be, losses, dlogits, logits, targets, scale));
    TRY(check_ids(be, "cross_entropy", targets, logits->shape[1], true));
    reference_of(logits)->cross_entropy(losses, dlogits, logits, targets,
                                        dlogits->data != NULL ? *(const double *)scale->data : 0.0);
    return PLX_OK;
}

static plx_status reference_clip(struct backend *be, const struct clip *clip)
{
    TRY(check_clip(be, clip));
    clip_host(clip);
    return PLX_OK;
}

static plx_status reference_argmax(struct backend *be, const struct plx_tensor *ids,
                                   const struct plx_tensor *x)
{
    TRY(check_argmax(be, ids, x));
    reference_of(x)->argmax(ids, x);
    return PLX_OK;
}

static plx_status reference_penalise(struct backend *be, const struct plx_tensor *x,
                                     const struct plx_tensor *seen, const struct plx_tensor *counts,
                                     double penalty)
{
    TRY(check_penalise(be, x, seen, counts));
    reference_of(x)->penalise(x, seen, counts, penalty);
    return PLX_OK;
}

static size_t reference_draw_scratch(const struct backend *be, const struct plx_tensor *x)
{
    (void)be;
    return (size_t)x->shape[1] * sizeof(struct draw_ref_token);
}

static plx_status reference_draw(struct backend *be, const struct plx_tensor *ids,
                                 const struct plx_tensor *x, const struct plx_tensor *numbers)
{
    TRY(check_draw(be, ids, x, numbers));
    size_t mark = arena_mark(&be->scratch);
    void *tokens;
    plx_status status = scratch_push(be, "draw", reference_draw_scratch(be, x), &tokens);
    if (status == PLX_OK) reference_of(x)->draw(ids, x, numbers->data, tokens);
    arena_release(&be->scratch, mark);
    return status;
}

static plx_status reference_adamw(struct backend *be, const struct adamw_update *update)
{
    TRY(check_adamw(be, update));
    if (update_is_void(update->factor)) return PLX_OK;
    for (int i = 0; i < update->count; i++)
        reference_of(update->items[i].value)->adamw(update, &update->items[i]);
    return PLX_OK;
}

static plx_status reference_momentum(struct backend *be, const struct muon_update *update)
{
    TRY(check_momentum(be, update));
    if (update_is_void(update->factor)) return PLX_OK;
    for (int i = 0; i < update->count; i++) reference_of(update->directions)->momentum(update, i);
    return PLX_OK;
}

static plx_status reference_normalise(struct backend *be, const struct plx_tensor *y,
                                      const struct plx_tensor *x, double factor, double eps)
{
    TRY(check_normalise(be, y, x));
    reference_of(y)->normalise(y, x, factor, eps);
    return PLX_OK;
}

static plx_status reference_apply(struct backend *be, const struct muon_update *update)
{
    TRY(check_apply(be, update));
    if (update_is_void(update->factor)) return PLX_OK;
    for (int i = 0; i < update->count; i++) reference_of(update->directions)->apply(update, i);
    return PLX_OK;
}

static const struct ops_scratch reference_scratch = {.draw = reference_draw_scratch};

const struct ops ops_ref = {
    .name = "ref",
    .device = &device_cpu,
    .scratch = &reference_scratch,
    .create = reference_create,
    .destroy = reference_destroy,
    .zero = reference_zero,
    .copy = reference_copy,
    .add = reference_add,
    .sum = reference_sum,
    .sum_squares = reference_sum_squares,
    .gemm = reference_gemm,
    .quantise = reference_quantise,
    .rmsnorm = reference_rmsnorm,
    .rmsnorm_backward = reference_rmsnorm_backward,
    .project = reference_project,
    .unpack = reference_unpack,
    .bias = reference_bias,
    .bias_backward = reference_bias_backward,
    .rope = reference_rope,
    .norm_rope = reference_norm_rope,
    .norm_rope_backward = reference_norm_rope_backward,
    .swiglu = reference_swiglu,
    .swiglu_backward = reference_swiglu_backward,
    .gate = reference_gate,
    .gate_backward = reference_gate_backward,
    .embed = reference_embed,
    .embed_backward = reference_embed_backward,
    .cross_entropy = reference_cross_entropy,
    .argmax = reference_argmax,
    .penalise = reference_penalise,
    .draw = reference_draw,
    .clip = reference_clip,
    .adamw = reference_adamw,
    .momentum = reference_momentum,
    .normalise = reference_normalise,
    .orthogonalise = orthogonalise_by_products,
    .apply = reference_apply,
    .attend_forward = attend_forward,
    .attend_backward = attend_backward,
    .attend_append = attend_append,
    .attend_decode = attend_decode,
};
