/* cuda_state.h: what ops_cuda keeps in be->ops_state, and the operations its table is put together
 * from. Host code only: what it asks of the GPU stands in launch.h. */
#ifndef NN_OPS_CUDA_STATE_H
#define NN_OPS_CUDA_STATE_H

#include "op.h"
#include "ops/cuda/launch.h"

struct gemm_library;

struct cuda_state {
    struct gemm_library *products; /* gemm_cuda.c's: cuBLASLt and the plans of products so far */
};

/* NULL, or CUDA's sentence about the launches of an operation: PLX_DEVICE_ERROR. */
plx_status cuda_launched(struct backend *be, const char *op, const char *failure);

/* ---- vector_cuda.c ---- */
plx_status cuda_zero(struct backend *be, const struct plx_tensor *y);
plx_status cuda_copy(struct backend *be, const struct plx_tensor *y, const struct plx_tensor *x);
plx_status cuda_add(struct backend *be, const struct plx_tensor *y, const struct plx_tensor *a,
                    const struct plx_tensor *b);
plx_status cuda_sum(struct backend *be, const struct plx_tensor *sum, const struct plx_tensor *x);

/* ---- gemm_cuda.c ---- */
/* Loads cuBLASLt: PLX_UNSUPPORTED where it is not installed. */
plx_status gemm_library_create(struct gemm_library **library, struct error *err);
void gemm_library_destroy(struct gemm_library *library);
plx_status cuda_gemm_scratch(struct backend *be, const struct gemm *gemm, size_t *first,
                             size_t *second);
plx_status cuda_gemm(struct backend *be, const struct gemm *gemm);
/* Whether this GPU and its cuBLASLt multiply quantised matrices: PLX_UNSUPPORTED if not. */
plx_status cuda_gemm_has_fp8(struct backend *be);

/* ---- quantise_cuda.c ---- */
size_t cuda_quantise_scratch(const struct plx_tensor *x, const struct quantised *columns);
plx_status cuda_quantise(struct backend *be, const struct plx_tensor *x,
                         const struct quantised *rows, const struct quantised *columns);

/* ---- gemv_cuda.c ---- */
/* Whether launch_gemv computes the product, and then its arguments. */
bool cuda_gemv_takes(const struct gemm *gemm, struct gemv *call);

/* ---- update_cuda.c ---- */
plx_status cuda_sum_squares(struct backend *be, const struct plx_tensor *sums,
                            const struct plx_tensor *const *xs);
plx_status cuda_clip(struct backend *be, const struct clip *clip);
plx_status cuda_adamw(struct backend *be, const struct adamw_update *update);
plx_status cuda_momentum(struct backend *be, const struct muon_update *update);
plx_status cuda_normalise(struct backend *be, const struct plx_tensor *y,
                          const struct plx_tensor *x, double factor, double eps);
plx_status cuda_apply(struct backend *be, const struct muon_update *update);
size_t cuda_sum_squares_scratch(const struct plx_tensor *sums, const struct plx_tensor *const *xs);
size_t cuda_normalise_scratch(const struct plx_tensor *x);

/* ---- orthogonalise_cuda.c ---- */
plx_status cuda_orthogonalise(struct backend *be, const struct orthogonalise *call);
bool cuda_orthogonalise_scratch(const struct orthogonalise *call, size_t *first, size_t *second);

/* ---- packed_cuda.c ---- */
plx_status cuda_project_scratch(struct backend *be, const struct plx_tensor *y,
                                const struct plx_tensor *x, const struct packed *weight,
                                size_t *block, size_t *product);
plx_status cuda_project(struct backend *be, const struct plx_tensor *y, const struct plx_tensor *x,
                        const struct packed *weight, const struct plx_tensor *residual);
plx_status cuda_unpack(struct backend *be, const struct plx_tensor *y, const struct packed *table,
                       const struct plx_tensor *ids);

/* ---- layer_cuda.c ---- */
size_t cuda_row_partials(const struct plx_tensor *x);
size_t cuda_embed_backward_scratch(const struct plx_tensor *dtable, const struct plx_tensor *ids);
plx_status cuda_rmsnorm(struct backend *be, const struct plx_tensor *y,
                        const struct plx_tensor *rstd, const struct plx_tensor *x,
                        const struct plx_tensor *gain, double eps);
plx_status cuda_rmsnorm_backward(struct backend *be, const struct plx_tensor *dx,
                                 const struct plx_tensor *dgain, const struct plx_tensor *dy,
                                 const struct plx_tensor *x, const struct plx_tensor *gain,
                                 const struct plx_tensor *rstd, const struct plx_tensor *residual);
plx_status cuda_bias(struct backend *be, const struct plx_tensor *y, const struct plx_tensor *x,
                     const struct plx_tensor *bias);
plx_status cuda_bias_backward(struct backend *be, const struct plx_tensor *dbias,
                              const struct plx_tensor *dy);
plx_status cuda_rope(struct backend *be, const struct plx_tensor *y, const struct plx_tensor *x,
                     const struct plx_tensor *positions, const struct rope *rope, bool inverse);
plx_status cuda_norm_rope(struct backend *be, const struct plx_tensor *y,
                          const struct plx_tensor *rstd, const struct plx_tensor *x,
                          const struct plx_tensor *gain, double eps,
                          const struct plx_tensor *positions, const struct rope *rope);
plx_status cuda_norm_rope_backward(struct backend *be, const struct plx_tensor *dx,
                                   const struct plx_tensor *dgain, const struct plx_tensor *dy,
                                   const struct plx_tensor *x, const struct plx_tensor *gain,
                                   const struct plx_tensor *rstd,
                                   const struct plx_tensor *positions, const struct rope *rope);
plx_status cuda_swiglu(struct backend *be, const struct plx_tensor *y,
                       const struct plx_tensor *gate, const struct plx_tensor *up);
plx_status cuda_swiglu_backward(struct backend *be, const struct plx_tensor *dgate,
                                const struct plx_tensor *dup, const struct plx_tensor *product,
                                const struct plx_tensor *dy, const struct plx_tensor *gate,
                                const struct plx_tensor *up);
plx_status cuda_gate(struct backend *be, const struct plx_tensor *y, const struct plx_tensor *x,
                     const struct plx_tensor *z);
plx_status cuda_gate_backward(struct backend *be, const struct plx_tensor *dx,
                              const struct plx_tensor *dz, const struct plx_tensor *dy,
                              const struct plx_tensor *x, const struct plx_tensor *z);
plx_status cuda_embed(struct backend *be, const struct plx_tensor *y,
                      const struct plx_tensor *table, const struct plx_tensor *ids);
plx_status cuda_embed_backward(struct backend *be, const struct plx_tensor *dtable,
                               const struct plx_tensor *dy, const struct plx_tensor *ids);
plx_status cuda_cross_entropy(struct backend *be, const struct plx_tensor *losses,
                              const struct plx_tensor *dlogits, const struct plx_tensor *logits,
                              const struct plx_tensor *targets, const struct plx_tensor *scale);
plx_status cuda_argmax(struct backend *be, const struct plx_tensor *ids,
                       const struct plx_tensor *x);
plx_status cuda_penalise(struct backend *be, const struct plx_tensor *x,
                         const struct plx_tensor *seen, const struct plx_tensor *counts,
                         double penalty);
plx_status cuda_draw(struct backend *be, const struct plx_tensor *ids, const struct plx_tensor *x,
                     const struct plx_tensor *numbers);

#endif
