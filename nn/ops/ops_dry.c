/* ops_dry.c: the table whose operations compute nothing.
 *
 * A forward and backward run with it on measuring arenas is how memory is sized: shapes are
 * checked, data is never touched, and operations that need scratch push and release the block that
 * the real ones would (scratch.h, attend.c), so that the arena's peak is exactly what they will
 * use. */
#include "ops/attend.h"
#include "ops/check.h"
#include "ops/orthogonalise.h"
#include "ops/scratch.h"

/* A block, and another on top of it. */
static plx_status dry_count_both(struct backend *be, const char *op, size_t first, size_t second)
{
    size_t mark = arena_mark(&be->scratch);
    void *block;
    plx_status status = scratch_push(be, op, first, &block);
    if (status == PLX_OK) status = scratch_push(be, op, second, &block);
    arena_release(&be->scratch, mark);
    return status;
}

static plx_status dry_count(struct backend *be, const char *op, size_t bytes)
{
    return dry_count_both(be, op, bytes, 0);
}

/* The same where the size depends on one tensor. */
static plx_status dry_count_of(struct backend *be, const char *op,
                               size_t (*bytes)(const struct plx_tensor *x),
                               const struct plx_tensor *x)
{
    return dry_count(be, op, bytes != NULL ? bytes(x) : 0);
}

static plx_status dry_create(struct backend *be)
{
    (void)be;
    return PLX_OK;
}

static void dry_destroy(struct backend *be)
{
    (void)be;
}

static plx_status dry_zero(struct backend *be, const struct plx_tensor *y)
{
    return check_zero(be, y);
}

static plx_status dry_copy(struct backend *be, const struct plx_tensor *y,
                           const struct plx_tensor *x)
{
    return check_copy(be, y, x);
}

static plx_status dry_add(struct backend *be, const struct plx_tensor *y,
                          const struct plx_tensor *a, const struct plx_tensor *b)
{
    return check_add(be, y, a, b);
}

static plx_status dry_sum(struct backend *be, const struct plx_tensor *sum,
                          const struct plx_tensor *x)
{
    return check_sum(be, sum, x);
}

static plx_status dry_sum_squares(struct backend *be, const struct plx_tensor *sums,
                                  const struct plx_tensor *const *xs)
{
    const struct ops_scratch *scratch = be->counted->scratch;
    TRY(check_sum_squares(be, sums, xs));
    return dry_count(be, "sum_squares",
                     scratch->sum_squares != NULL ? scratch->sum_squares(sums, xs) : 0);
}

static plx_status dry_gemm(struct backend *be, const struct gemm *gemm)
{
    TRY(check_gemm(be, gemm));
    size_t first = 0, second = 0;
    const struct ops_scratch *scratch = be->counted->scratch;
    if (scratch->gemm != NULL) TRY(scratch->gemm(be, gemm, &first, &second));
    return dry_count_both(be, "gemm", first, second);
}

static plx_status dry_quantise(struct backend *be, const struct plx_tensor *x,
                               const struct quantised *rows, const struct quantised *columns)
{
    const struct ops_scratch *scratch = be->counted->scratch;
    TRY(check_quantise(be, x, rows, columns));
    return dry_count(be, "quantise", scratch->quantise != NULL ? scratch->quantise(x, columns) : 0);
}

static plx_status dry_rmsnorm(struct backend *be, const struct plx_tensor *y,
                              const struct plx_tensor *rstd, const struct plx_tensor *x,
                              const struct plx_tensor *gain, double eps)
{
    (void)eps;
    return check_rmsnorm(be, y, rstd, x, gain);
}

static plx_status dry_rmsnorm_backward(struct backend *be, const struct plx_tensor *dx,
                                       const struct plx_tensor *dgain, const struct plx_tensor *dy,
                                       const struct plx_tensor *x, const struct plx_tensor *gain,
                                       const struct plx_tensor *rstd,
                                       const struct plx_tensor *residual)
{
    TRY(check_rmsnorm_backward(be, dx, dgain, dy, x, gain, rstd, residual));
    return dry_count_of(be, "rmsnorm_backward", be->counted->scratch->rmsnorm_backward, x);
}

static plx_status dry_project(struct backend *be, const struct plx_tensor *y,
                              const struct plx_tensor *x, const struct packed *weight,
                              const struct plx_tensor *residual)
{
    TRY(check_project(be, y, x, weight, residual));
    if (be->counted->scratch->project == NULL) return PLX_OK;
    size_t first, second;
    TRY(be->counted->scratch->project(be, y, x, weight, &first, &second));
    return dry_count_both(be, "project", first, second);
}

static plx_status dry_unpack(struct backend *be, const struct plx_tensor *y,
                             const struct packed *table, const struct plx_tensor *ids)
{
    return check_unpack(be, y, table, ids);
}

static plx_status dry_bias(struct backend *be, const struct plx_tensor *y,
                           const struct plx_tensor *x, const struct plx_tensor *bias)
{
    return check_bias(be, y, x, bias);
}

static plx_status dry_bias_backward(struct backend *be, const struct plx_tensor *dbias,
                                    const struct plx_tensor *dy)
{
    TRY(check_bias_backward(be, dbias, dy));
    return dry_count_of(be, "bias_backward", be->counted->scratch->bias_backward, dy);
}

static plx_status dry_rope(struct backend *be, const struct plx_tensor *y,
                           const struct plx_tensor *x, const struct plx_tensor *positions,
                           const struct rope *rope, bool inverse)
{
    (void)rope, (void)inverse;
    TRY(check_rope(be, y, x, positions));
    return dry_count_of(be, "rope", be->counted->scratch->rope, x);
}

static plx_status dry_norm_rope(struct backend *be, const struct plx_tensor *y,
                                const struct plx_tensor *rstd, const struct plx_tensor *x,
                                const struct plx_tensor *gain, double eps,
                                const struct plx_tensor *positions, const struct rope *rope)
{
    TRY(dry_rmsnorm(be, y, rstd, x, gain, eps));
    return dry_rope(be, y, y, positions, rope, false);
}

static plx_status dry_norm_rope_backward(
    struct backend *be, const struct plx_tensor *dx, const struct plx_tensor *dgain,
    const struct plx_tensor *dy, const struct plx_tensor *x, const struct plx_tensor *gain,
    const struct plx_tensor *rstd, const struct plx_tensor *positions, const struct rope *rope)
{
    TRY(dry_rope(be, dx, dy, positions, rope, true));
    return dry_rmsnorm_backward(be, dx, dgain, dx, x, gain, rstd, NULL);
}

static plx_status dry_swiglu(struct backend *be, const struct plx_tensor *y,
                             const struct plx_tensor *gate, const struct plx_tensor *up)
{
    return check_swiglu(be, y, gate, up);
}

static plx_status dry_swiglu_backward(struct backend *be, const struct plx_tensor *dgate,
                                      const struct plx_tensor *dup,
                                      const struct plx_tensor *product, const struct plx_tensor *dy,
                                      const struct plx_tensor *gate, const struct plx_tensor *up)
{
    return check_swiglu_backward(be, dgate, dup, product, dy, gate, up);
}

static plx_status dry_gate(struct backend *be, const struct plx_tensor *y,
                           const struct plx_tensor *x, const struct plx_tensor *z)
{
    return check_gate(be, y, x, z);
}

static plx_status dry_gate_backward(struct backend *be, const struct plx_tensor *dx,
                                    const struct plx_tensor *dz, const struct plx_tensor *dy,
                                    const struct plx_tensor *x, const struct plx_tensor *z)
{
    return check_gate_backward(be, dx, dz, dy, x, z);
}

static plx_status dry_embed(struct backend *be, const struct plx_tensor *y,
                            const struct plx_tensor *table, const struct plx_tensor *ids)
{
    return check_embed(be, "embed", y, table, be->activation, ids);
}

static plx_status dry_embed_backward(struct backend *be, const struct plx_tensor *dtable,
                                     const struct plx_tensor *dy, const struct plx_tensor *ids)
{
    TRY(check_embed(be, "embed_backward", dy, dtable, be->storage, ids));
    const struct ops_scratch *scratch = be->counted->scratch;
    size_t bytes = scratch->embed_backward != NULL ? scratch->embed_backward(dtable, ids) : 0;
    return dry_count(be, "embed_backward", bytes);
}

static plx_status dry_cross_entropy(struct backend *be, const struct plx_tensor *losses,
                                    const struct plx_tensor *dlogits,
                                    const struct plx_tensor *logits,
                                    const struct plx_tensor *targets,
                                    const struct plx_tensor *scale)
{
    return check_cross_entropy(be, losses, dlogits, logits, targets, scale);
}

static plx_status dry_clip(struct backend *be, const struct clip *clip)
{
    return check_clip(be, clip);
}

static plx_status dry_argmax(struct backend *be, const struct plx_tensor *ids,
                             const struct plx_tensor *x)
{
    return check_argmax(be, ids, x);
}

static plx_status dry_penalise(struct backend *be, const struct plx_tensor *x,
                               const struct plx_tensor *seen, const struct plx_tensor *counts,
                               double penalty)
{
    (void)penalty;
    return check_penalise(be, x, seen, counts);
}

static plx_status dry_draw(struct backend *be, const struct plx_tensor *ids,
                           const struct plx_tensor *x, const struct plx_tensor *numbers)
{
    const struct ops_scratch *scratch = be->counted->scratch;
    TRY(check_draw(be, ids, x, numbers));
    return dry_count(be, "draw", scratch->draw != NULL ? scratch->draw(be, x) : 0);
}

static plx_status dry_adamw(struct backend *be, const struct adamw_update *update)
{
    return check_adamw(be, update);
}

static plx_status dry_momentum(struct backend *be, const struct muon_update *update)
{
    return check_momentum(be, update);
}

static plx_status dry_normalise(struct backend *be, const struct plx_tensor *y,
                                const struct plx_tensor *x, double factor, double eps)
{
    (void)factor, (void)eps;
    TRY(check_normalise(be, y, x));
    return dry_count_of(be, "normalise", be->counted->scratch->normalise, x);
}

/* In the table's own way where it has one for the call. */
static plx_status dry_orthogonalise(struct backend *be, const struct orthogonalise *call)
{
    const struct ops_scratch *scratch = be->counted->scratch;
    size_t first, second;
    TRY(check_orthogonalise(be, call));
    if (scratch->orthogonalise == NULL || !scratch->orthogonalise(call, &first, &second))
        return orthogonalise_by_products(be, call);
    return dry_count_both(be, "orthogonalise", first, second);
}

static plx_status dry_apply(struct backend *be, const struct muon_update *update)
{
    return check_apply(be, update);
}

const struct ops ops_dry = {
    .name = "dry",
    .create = dry_create,
    .destroy = dry_destroy,
    .zero = dry_zero,
    .copy = dry_copy,
    .add = dry_add,
    .sum = dry_sum,
    .sum_squares = dry_sum_squares,
    .gemm = dry_gemm,
    .quantise = dry_quantise,
    .rmsnorm = dry_rmsnorm,
    .rmsnorm_backward = dry_rmsnorm_backward,
    .project = dry_project,
    .unpack = dry_unpack,
    .bias = dry_bias,
    .bias_backward = dry_bias_backward,
    .rope = dry_rope,
    .norm_rope = dry_norm_rope,
    .norm_rope_backward = dry_norm_rope_backward,
    .swiglu = dry_swiglu,
    .swiglu_backward = dry_swiglu_backward,
    .gate = dry_gate,
    .gate_backward = dry_gate_backward,
    .embed = dry_embed,
    .embed_backward = dry_embed_backward,
    .cross_entropy = dry_cross_entropy,
    .argmax = dry_argmax,
    .penalise = dry_penalise,
    .draw = dry_draw,
    .clip = dry_clip,
    .adamw = dry_adamw,
    .momentum = dry_momentum,
    .normalise = dry_normalise,
    .orthogonalise = dry_orthogonalise,
    .apply = dry_apply,
    .attend_forward = attend_forward,
    .attend_backward = attend_backward,
    .attend_append = attend_append,
    .attend_decode = attend_decode,
};
