/* check.h: argument checks shared by the tables.
 *
 * Layers compute every shape from the model's configuration, so a mismatch is a mistake in this
 * program, not in its input: PLX_INTERNAL, with a sentence that names the operation, the arguments
 * and both shapes. The dry table checks too, so most mistakes show before any memory is allocated;
 * only what depends on the contents of a tensor (token ids) waits for the real call. Pointers are
 * looked at nowhere else here. */
#ifndef NN_OPS_CHECK_H
#define NN_OPS_CHECK_H

#include "op.h"
#include "ops/draw.h"

/* Row-major without gaps. */
bool check_is_dense(const struct plx_tensor *tensor);

plx_status check_zero(struct backend *be, const struct plx_tensor *y);
plx_status check_copy(struct backend *be, const struct plx_tensor *y, const struct plx_tensor *x);
plx_status check_add(struct backend *be, const struct plx_tensor *y, const struct plx_tensor *a,
                     const struct plx_tensor *b);
plx_status check_sum(struct backend *be, const struct plx_tensor *sum, const struct plx_tensor *x);
plx_status check_sum_squares(struct backend *be, const struct plx_tensor *sums,
                             const struct plx_tensor *const *xs);
plx_status check_gemm(struct backend *be, const struct gemm *gemm);
plx_status check_quantise(struct backend *be, const struct plx_tensor *x,
                          const struct quantised *rows, const struct quantised *columns);
plx_status check_rmsnorm(struct backend *be, const struct plx_tensor *y,
                         const struct plx_tensor *rstd, const struct plx_tensor *x,
                         const struct plx_tensor *gain);
plx_status check_rmsnorm_backward(struct backend *be, const struct plx_tensor *dx,
                                  const struct plx_tensor *dgain, const struct plx_tensor *dy,
                                  const struct plx_tensor *x, const struct plx_tensor *gain,
                                  const struct plx_tensor *rstd, const struct plx_tensor *residual);
plx_status check_project(struct backend *be, const struct plx_tensor *y, const struct plx_tensor *x,
                         const struct packed *weight, const struct plx_tensor *residual);
plx_status check_unpack(struct backend *be, const struct plx_tensor *y, const struct packed *table,
                        const struct plx_tensor *ids);
plx_status check_bias(struct backend *be, const struct plx_tensor *y, const struct plx_tensor *x,
                      const struct plx_tensor *bias);
plx_status check_bias_backward(struct backend *be, const struct plx_tensor *dbias,
                               const struct plx_tensor *dy);
plx_status check_rope(struct backend *be, const struct plx_tensor *y, const struct plx_tensor *x,
                      const struct plx_tensor *positions);
plx_status check_swiglu(struct backend *be, const struct plx_tensor *y,
                        const struct plx_tensor *gate, const struct plx_tensor *up);
plx_status check_swiglu_backward(struct backend *be, const struct plx_tensor *dgate,
                                 const struct plx_tensor *dup, const struct plx_tensor *product,
                                 const struct plx_tensor *dy, const struct plx_tensor *gate,
                                 const struct plx_tensor *up);
plx_status check_gate(struct backend *be, const struct plx_tensor *y, const struct plx_tensor *x,
                      const struct plx_tensor *z);
plx_status check_gate_backward(struct backend *be, const struct plx_tensor *dx,
                               const struct plx_tensor *dz, const struct plx_tensor *dy,
                               const struct plx_tensor *x, const struct plx_tensor *z);
/* embed and embed_backward: rows [N,E] against table [V,E] of a dtype. */
plx_status check_embed(struct backend *be, const char *op, const struct plx_tensor *rows,
                       const struct plx_tensor *table, plx_dtype dtype,
                       const struct plx_tensor *ids);
plx_status check_cross_entropy(struct backend *be, const struct plx_tensor *losses,
                               const struct plx_tensor *dlogits, const struct plx_tensor *logits,
                               const struct plx_tensor *targets, const struct plx_tensor *scale);
plx_status check_clip(struct backend *be, const struct clip *clip);
plx_status check_argmax(struct backend *be, const struct plx_tensor *ids,
                        const struct plx_tensor *x);
plx_status check_penalise(struct backend *be, const struct plx_tensor *x,
                          const struct plx_tensor *seen, const struct plx_tensor *counts);
plx_status check_draw(struct backend *be, const struct plx_tensor *ids, const struct plx_tensor *x,
                      const struct plx_tensor *numbers);
plx_status check_adamw(struct backend *be, const struct adamw_update *update);
plx_status check_momentum(struct backend *be, const struct muon_update *update);
plx_status check_normalise(struct backend *be, const struct plx_tensor *y,
                           const struct plx_tensor *x);
plx_status check_orthogonalise(struct backend *be, const struct orthogonalise *call);
plx_status check_apply(struct backend *be, const struct muon_update *update);

/* Contents: every id is below bound, and not negative unless allow_negative. PLX_INVALID_ARGUMENT.
 */
plx_status check_ids(struct backend *be, const char *op, const struct plx_tensor *ids,
                     int64_t bound, bool allow_negative);

#endif
