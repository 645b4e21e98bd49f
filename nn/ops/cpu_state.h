/* cpu_state.h: what ops_cpu keeps in be->ops_state, and the operations its table is put together
 * from. */
#ifndef NN_OPS_CPU_STATE_H
#define NN_OPS_CPU_STATE_H

#include "op.h"
#include "ops/rows.h"

struct gemm_cache;

struct cpu_state {
    const struct rows *rows;  /* of the best instruction set the context permits */
    struct gemm_cache *gemms; /* gemm_cpu.c's */
};

static inline const struct rows *cpu_rows(const struct backend *be)
{
    return ((const struct cpu_state *)be->ops_state)->rows;
}

/* 32 KiB of floats: long enough to hide a call, short enough that all operands of a block share a
 * cache. Arrays are cut into blocks of this many elements and blocks are shared among threads, so
 * that borders do not depend on the number of threads. */
enum { VECTOR_BLOCK = 8192 };

static inline int64_t vector_blocks(int64_t count)
{
    return (count + VECTOR_BLOCK - 1) / VECTOR_BLOCK;
}

static inline int64_t vector_length(int64_t count, int64_t block)
{
    int64_t left = count - block * VECTOR_BLOCK;
    return left < VECTOR_BLOCK ? left : VECTOR_BLOCK;
}

/* Threads worth starting for so many elements of cheap work: below this, waking them costs more. */
static inline int cpu_threads(const struct backend *be, int64_t elements)
{
    return elements < 32768 ? 1 : be->threads;
}

/* ---- vector_cpu.c ---- */
plx_status cpu_zero(struct backend *be, const struct plx_tensor *y);
plx_status cpu_copy(struct backend *be, const struct plx_tensor *y, const struct plx_tensor *x);
plx_status cpu_add(struct backend *be, const struct plx_tensor *y, const struct plx_tensor *a,
                   const struct plx_tensor *b);
plx_status cpu_sum(struct backend *be, const struct plx_tensor *sum, const struct plx_tensor *x);

/* ---- update_cpu.c ---- */
plx_status cpu_sum_squares(struct backend *be, const struct plx_tensor *sums,
                           const struct plx_tensor *const *xs);
plx_status cpu_clip(struct backend *be, const struct clip *clip);
plx_status cpu_adamw(struct backend *be, const struct adamw_update *update);
plx_status cpu_momentum(struct backend *be, const struct muon_update *update);
plx_status cpu_normalise(struct backend *be, const struct plx_tensor *y, const struct plx_tensor *x,
                         double factor, double eps);
plx_status cpu_apply(struct backend *be, const struct muon_update *update);

/* ---- gemm_cpu.c ---- */
plx_status gemm_cache_create(struct gemm_cache **cache, struct error *err);
void gemm_cache_destroy(struct gemm_cache *cache);
/* Whether this processor has products of this dtype: PLX_UNSUPPORTED if not. */
plx_status gemm_supported(struct gemm_cache *cache, plx_dtype compute, struct error *err);
/* Bytes of scratch; finds or builds the plan that the product will use. */
plx_status gemm_scratch(struct backend *be, const struct gemm *gemm, size_t *bytes);
/* Any product but those of quantised matrices, checked already. */
plx_status gemm_products(struct backend *be, const struct gemm *gemm);

/* ---- quantise_cpu.c ---- */
plx_status cpu_gemm_scratch(struct backend *be, const struct gemm *gemm, size_t *first,
                            size_t *second);
plx_status cpu_gemm(struct backend *be, const struct gemm *gemm);
plx_status cpu_quantise(struct backend *be, const struct plx_tensor *x,
                        const struct quantised *rows, const struct quantised *columns);

/* ---- project_cpu.c ---- */
plx_status project_scratch(struct backend *be, const struct plx_tensor *y,
                           const struct plx_tensor *x, const struct packed *weight, size_t *block,
                           size_t *product);
plx_status cpu_project(struct backend *be, const struct plx_tensor *y, const struct plx_tensor *x,
                       const struct packed *weight, const struct plx_tensor *residual);
plx_status cpu_unpack(struct backend *be, const struct plx_tensor *y, const struct packed *table,
                      const struct plx_tensor *ids);

/* ---- layer_cpu.c ---- */
plx_status cpu_rmsnorm(struct backend *be, const struct plx_tensor *y,
                       const struct plx_tensor *rstd, const struct plx_tensor *x,
                       const struct plx_tensor *gain, double eps);
plx_status cpu_rmsnorm_backward(struct backend *be, const struct plx_tensor *dx,
                                const struct plx_tensor *dgain, const struct plx_tensor *dy,
                                const struct plx_tensor *x, const struct plx_tensor *gain,
                                const struct plx_tensor *rstd, const struct plx_tensor *residual);
plx_status cpu_bias(struct backend *be, const struct plx_tensor *y, const struct plx_tensor *x,
                    const struct plx_tensor *bias);
plx_status cpu_bias_backward(struct backend *be, const struct plx_tensor *dbias,
                             const struct plx_tensor *dy);
plx_status cpu_rope(struct backend *be, const struct plx_tensor *y, const struct plx_tensor *x,
                    const struct plx_tensor *positions, const struct rope *rope, bool inverse);
plx_status cpu_norm_rope(struct backend *be, const struct plx_tensor *y,
                         const struct plx_tensor *rstd, const struct plx_tensor *x,
                         const struct plx_tensor *gain, double eps,
                         const struct plx_tensor *positions, const struct rope *rope);
plx_status cpu_norm_rope_backward(struct backend *be, const struct plx_tensor *dx,
                                  const struct plx_tensor *dgain, const struct plx_tensor *dy,
                                  const struct plx_tensor *x, const struct plx_tensor *gain,
                                  const struct plx_tensor *rstd, const struct plx_tensor *positions,
                                  const struct rope *rope);
plx_status cpu_swiglu(struct backend *be, const struct plx_tensor *y, const struct plx_tensor *gate,
                      const struct plx_tensor *up);
plx_status cpu_swiglu_backward(struct backend *be, const struct plx_tensor *dgate,
                               const struct plx_tensor *dup, const struct plx_tensor *product,
                               const struct plx_tensor *dy, const struct plx_tensor *gate,
                               const struct plx_tensor *up);
plx_status cpu_gate(struct backend *be, const struct plx_tensor *y, const struct plx_tensor *x,
                    const struct plx_tensor *z);
plx_status cpu_gate_backward(struct backend *be, const struct plx_tensor *dx,
                             const struct plx_tensor *dz, const struct plx_tensor *dy,
                             const struct plx_tensor *x, const struct plx_tensor *z);
plx_status cpu_embed(struct backend *be, const struct plx_tensor *y, const struct plx_tensor *table,
                     const struct plx_tensor *ids);
plx_status cpu_embed_backward(struct backend *be, const struct plx_tensor *dtable,
                              const struct plx_tensor *dy, const struct plx_tensor *ids);
plx_status cpu_cross_entropy(struct backend *be, const struct plx_tensor *losses,
                             const struct plx_tensor *dlogits, const struct plx_tensor *logits,
                             const struct plx_tensor *targets, const struct plx_tensor *scale);
plx_status cpu_argmax(struct backend *be, const struct plx_tensor *ids, const struct plx_tensor *x);

/* ---- draw_cpu.c ---- */
plx_status cpu_penalise(struct backend *be, const struct plx_tensor *x,
                        const struct plx_tensor *seen, const struct plx_tensor *counts,
                        double penalty);
size_t cpu_draw_scratch(const struct backend *be, const struct plx_tensor *x);
plx_status cpu_draw(struct backend *be, const struct plx_tensor *ids, const struct plx_tensor *x,
                    const struct plx_tensor *numbers);

#endif
