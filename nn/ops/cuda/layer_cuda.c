/* layer_cuda.c: operations of ops_cuda on rows, heads and tokens: checks, scratch, then launches.
 * Ids and targets are the GPU's and not looked at here: batches are checked before they are
 * uploaded. */
#include "ops/check.h"
#include "ops/cuda/cuda_state.h"
#include "ops/cuda/launch.h"
#include "ops/scratch.h"

/* ---- Norms and biases ------------------------------------------------------------------------ */

static int64_t row_count(const struct plx_tensor *x)
{
    int64_t E = x->shape[x->rank - 1];
    return E > 0 ? plx_tensor_count(x) / E : 0;
}

size_t cuda_row_partials(const struct plx_tensor *x)
{
    return (size_t)(norm_partial_rows(row_count(x)) * x->shape[x->rank - 1]) * sizeof(float);
}

plx_status cuda_rmsnorm(struct backend *be, const struct plx_tensor *y,
                        const struct plx_tensor *rstd, const struct plx_tensor *x,
                        const struct plx_tensor *gain, double eps)
{
    TRY(check_rmsnorm(be, y, rstd, x, gain));
    return cuda_launched(be, "rmsnorm",
                         launch_rmsnorm(be->stream, x->dtype, y->data, rstd->data, x->data,
                                        gain->data, row_count(x), gain->shape[0], eps));
}

plx_status cuda_rmsnorm_backward(struct backend *be, const struct plx_tensor *dx,
                                 const struct plx_tensor *dgain, const struct plx_tensor *dy,
                                 const struct plx_tensor *x, const struct plx_tensor *gain,
                                 const struct plx_tensor *rstd, const struct plx_tensor *residual)
{
    TRY(check_rmsnorm_backward(be, dx, dgain, dy, x, gain, rstd, residual));
    size_t mark = arena_mark(&be->scratch);
    void *partials;
    plx_status status = scratch_push(be, "rmsnorm_backward", cuda_row_partials(x), &partials);
    if (status == PLX_OK)
        status = cuda_launched(be, "rmsnorm_backward",
                               launch_rmsnorm_backward(be->stream, x->dtype, dx->data, dgain->data,
                                                       dy->data, x->data, gain->data, rstd->data,
                                                       residual != NULL ? residual->data : NULL,
                                                       row_count(x), gain->shape[0], partials));
    arena_release(&be->scratch, mark);
    return status;
}

plx_status cuda_bias(struct backend *be, const struct plx_tensor *y, const struct plx_tensor *x,
                     const struct plx_tensor *bias)
{
    TRY(check_bias(be, y, x, bias));
    return cuda_launched(
        be, "bias",
        launch_bias(be->stream, x->dtype, y->data, x->data, bias->data, x->shape[0], x->shape[1]));
}

plx_status cuda_bias_backward(struct backend *be, const struct plx_tensor *dbias,
                              const struct plx_tensor *dy)
{
    TRY(check_bias_backward(be, dbias, dy));
    size_t mark = arena_mark(&be->scratch);
    void *partials;
    plx_status status = scratch_push(be, "bias_backward", cuda_row_partials(dy), &partials);
    if (status == PLX_OK)
        status = cuda_launched(be, "bias_backward",
                               launch_bias_backward(be->stream, dy->dtype, dbias->data, dy->data,
                                                    dy->shape[0], dy->shape[1], partials));
    arena_release(&be->scratch, mark);
    return status;
}

/* ---- Rotary positions ------------------------------------------------------------------------ */

static struct rope_shape shape_of(const struct plx_tensor *x)
{
    return (struct rope_shape){x->shape[0], (int)x->shape[1], (int)x->shape[2]};
}

static plx_status turns_of(struct backend *be, const struct rope *rope, int64_t D,
                           struct rope_turns *turns)
{
    const double pi = 3.14159265358979323846;
    REQUIRE(be->err, D / 2 <= ROPE_PAIRS, PLX_UNSUPPORTED,
            "rope: heads have %lld channels; the cuda operations have at most %d", (long long)D,
            2 * ROPE_PAIRS);
    for (int64_t pair = 0; pair < D / 2; pair++)
        turns->of[pair] = rope_frequency(rope, pair, D) / pi;
    return PLX_OK;
}

plx_status cuda_rope(struct backend *be, const struct plx_tensor *y, const struct plx_tensor *x,
                     const struct plx_tensor *positions, const struct rope *rope, bool inverse)
{
    struct rope_turns turns;
    TRY(check_rope(be, y, x, positions));
    TRY(turns_of(be, rope, x->shape[2], &turns));
    return cuda_launched(be, "rope",
                         launch_rope(be->stream, x->dtype, y->data, x->data, positions->data,
                                     &turns, inverse, shape_of(x)));
}

plx_status cuda_norm_rope(struct backend *be, const struct plx_tensor *y,
                          const struct plx_tensor *rstd, const struct plx_tensor *x,
                          const struct plx_tensor *gain, double eps,
                          const struct plx_tensor *positions, const struct rope *rope)
{
    struct rope_turns turns;
    TRY(check_rmsnorm(be, y, rstd, x, gain));
    TRY(check_rope(be, y, x, positions));
    TRY(turns_of(be, rope, x->shape[2], &turns));
    return cuda_launched(be, "norm_rope",
                         launch_norm_rope(be->stream, x->dtype, y->data, rstd->data, x->data,
                                          gain->data, eps, positions->data, &turns, shape_of(x)));
}

plx_status cuda_norm_rope_backward(struct backend *be, const struct plx_tensor *dx,
                                   const struct plx_tensor *dgain, const struct plx_tensor *dy,
                                   const struct plx_tensor *x, const struct plx_tensor *gain,
                                   const struct plx_tensor *rstd,
                                   const struct plx_tensor *positions, const struct rope *rope)
{
    struct rope_turns turns;
    TRY(check_rmsnorm_backward(be, dx, dgain, dy, x, gain, rstd, NULL));
    TRY(check_rope(be, dx, dy, positions));
    TRY(turns_of(be, rope, x->shape[2], &turns));
    size_t mark = arena_mark(&be->scratch);
    void *partials;
    plx_status status = scratch_push(be, "norm_rope_backward", cuda_row_partials(x), &partials);
    if (status == PLX_OK)
        status = cuda_launched(be, "norm_rope_backward",
                               launch_norm_rope_backward(be->stream, x->dtype, dx->data,
                                                         dgain->data, dy->data, x->data, gain->data,
                                                         rstd->data, positions->data, &turns,
                                                         shape_of(x), partials));
    arena_release(&be->scratch, mark);
    return status;
}

/* ---- Gates ----------------------------------------------------------------------------------- */

plx_status cuda_swiglu(struct backend *be, const struct plx_tensor *y,
                       const struct plx_tensor *gate, const struct plx_tensor *up)
{
    TRY(check_swiglu(be, y, gate, up));
    return cuda_launched(
        be, "swiglu",
        launch_swiglu(be->stream, y->dtype, y->data, gate->data, up->data, plx_tensor_count(y)));
}

plx_status cuda_swiglu_backward(struct backend *be, const struct plx_tensor *dgate,
                                const struct plx_tensor *dup, const struct plx_tensor *product,
                                const struct plx_tensor *dy, const struct plx_tensor *gate,
                                const struct plx_tensor *up)
{
    TRY(check_swiglu_backward(be, dgate, dup, product, dy, gate, up));
    return cuda_launched(be, "swiglu_backward",
                         launch_swiglu_backward(be->stream, dy->dtype, dgate->data, dup->data,
                                                product->data, dy->data, gate->data, up->data,
                                                plx_tensor_count(dy)));
}

plx_status cuda_gate(struct backend *be, const struct plx_tensor *y, const struct plx_tensor *x,
                     const struct plx_tensor *z)
{
    TRY(check_gate(be, y, x, z));
    return cuda_launched(be, "gate",
                         launch_gate(be->stream, x->dtype, y->data, x->data, z->data,
                                     plx_tensor_count(z), x->shape[2]));
}

plx_status cuda_gate_backward(struct backend *be, const struct plx_tensor *dx,
                              const struct plx_tensor *dz, const struct plx_tensor *dy,
                              const struct plx_tensor *x, const struct plx_tensor *z)
{
    TRY(check_gate_backward(be, dx, dz, dy, x, z));
    return cuda_launched(be, "gate_backward",
                         launch_gate_backward(be->stream, x->dtype, dx->data, dz->data, dy->data,
                                              x->data, z->data, plx_tensor_count(z), x->shape[2]));
}

/* ---- Embedding and loss ---------------------------------------------------------------------- */

plx_status cuda_embed(struct backend *be, const struct plx_tensor *y,
                      const struct plx_tensor *table, const struct plx_tensor *ids)
{
    TRY(check_embed(be, "embed", y, table, be->activation, ids));
    return cuda_launched(be, "embed",
                         launch_embed(be->stream, y->dtype, y->data, table->data, ids->data,
                                      plx_tensor_count(ids), table->shape[0], table->shape[1]));
}

size_t cuda_embed_backward_scratch(const struct plx_tensor *dtable, const struct plx_tensor *ids)
{
    return embed_backward_bytes(plx_tensor_count(ids), dtable->shape[1]);
}

plx_status cuda_embed_backward(struct backend *be, const struct plx_tensor *dtable,
                               const struct plx_tensor *dy, const struct plx_tensor *ids)
{
    TRY(check_embed(be, "embed_backward", dy, dtable, be->storage, ids));
    size_t mark = arena_mark(&be->scratch);
    void *block;
    plx_status status =
        scratch_push(be, "embed_backward", cuda_embed_backward_scratch(dtable, ids), &block);
    if (status == PLX_OK)
        status = cuda_launched(be, "embed_backward",
                               launch_embed_backward(be->stream, dy->dtype, dtable->data, dy->data,
                                                     ids->data, plx_tensor_count(ids),
                                                     dtable->shape[0], dtable->shape[1], block));
    arena_release(&be->scratch, mark);
    return status;
}

plx_status cuda_cross_entropy(struct backend *be, const struct plx_tensor *losses,
                              const struct plx_tensor *dlogits, const struct plx_tensor *logits,
                              const struct plx_tensor *targets, const struct plx_tensor *scale)
{
    TRY(check_cross_entropy(be, losses, dlogits, logits, targets, scale));
    const double *factor = dlogits->data != NULL ? scale->data : NULL;
    return cuda_launched(be, "cross_entropy",
                         launch_cross_entropy(be->stream, logits->dtype, losses->data,
                                              dlogits->data, logits->data, targets->data, factor,
                                              logits->shape[0], logits->shape[1]));
}

plx_status cuda_argmax(struct backend *be, const struct plx_tensor *ids, const struct plx_tensor *x)
{
    TRY(check_argmax(be, ids, x));
    return cuda_launched(be, "argmax",
                         launch_argmax(be->stream, ids->data, x->data, x->shape[0], x->shape[1]));
}

plx_status cuda_penalise(struct backend *be, const struct plx_tensor *x,
                         const struct plx_tensor *seen, const struct plx_tensor *counts,
                         double penalty)
{
    TRY(check_penalise(be, x, seen, counts));
    const struct penalise_call call = {.x = x->data,
                                       .N = x->shape[0],
                                       .V = x->shape[1],
                                       .stride = x->stride[0],
                                       .L = seen->shape[1],
                                       .seen = seen->data,
                                       .counts = counts->data,
                                       .penalty = penalty};
    return cuda_launched(be, "penalise", launch_penalise(be->stream, &call));
}

plx_status cuda_draw(struct backend *be, const struct plx_tensor *ids, const struct plx_tensor *x,
                     const struct plx_tensor *numbers)
{
    TRY(check_draw(be, ids, x, numbers));
    const struct draw_call call = {.ids = ids->data,
                                   .numbers = numbers->data,
                                   .x = x->data,
                                   .N = x->shape[0],
                                   .V = x->shape[1],
                                   .stride = x->stride[0]};
    return cuda_launched(be, "draw", launch_draw(be->stream, &call));
}
