/* ref_table.h: the reference mathematics, once in float and once in double.
 *
 * ops_ref.c is compiled twice and exports one of these tables each time; ops_reference.c checks the
 * arguments of an operation and calls the table of the tensors' dtype. Members mean what the
 * operation of the same name in op.h means, and never fail. */
#ifndef NN_OPS_REF_TABLE_H
#define NN_OPS_REF_TABLE_H

#include "op.h"
#include "ops/draw_ref.h"

struct ref_table {
    void (*add)(const struct plx_tensor *y, const struct plx_tensor *a, const struct plx_tensor *b);
    double (*sum)(const struct plx_tensor *x);
    double (*sum_squares)(const struct plx_tensor *x);
    /* round_operands: every element of a and b is first rounded to bf16, as a bf16 product sees it.
     */
    void (*gemm)(const struct gemm *gemm, bool round_operands);
    void (*quantise)(const struct plx_tensor *x, const struct quantised *rows,
                     const struct quantised *columns);
    void (*rmsnorm)(const struct plx_tensor *y, const struct plx_tensor *rstd,
                    const struct plx_tensor *x, const struct plx_tensor *gain, double eps);
    void (*rmsnorm_backward)(const struct plx_tensor *dx, const struct plx_tensor *dgain,
                             const struct plx_tensor *dy, const struct plx_tensor *x,
                             const struct plx_tensor *gain, const struct plx_tensor *rstd,
                             const struct plx_tensor *residual);
    void (*project)(const struct plx_tensor *y, const struct plx_tensor *x,
                    const struct packed *weight, const struct plx_tensor *residual);
    void (*unpack)(const struct plx_tensor *y, const struct packed *table,
                   const struct plx_tensor *ids);
    void (*bias)(const struct plx_tensor *y, const struct plx_tensor *x,
                 const struct plx_tensor *bias);
    void (*bias_backward)(const struct plx_tensor *dbias, const struct plx_tensor *dy);
    void (*rope)(const struct plx_tensor *y, const struct plx_tensor *x,
                 const struct plx_tensor *positions, const struct rope *rope, bool inverse);
    void (*swiglu)(const struct plx_tensor *y, const struct plx_tensor *gate,
                   const struct plx_tensor *up);
    void (*swiglu_backward)(const struct plx_tensor *dgate, const struct plx_tensor *dup,
                            const struct plx_tensor *product, const struct plx_tensor *dy,
                            const struct plx_tensor *gate, const struct plx_tensor *up);
    void (*gate)(const struct plx_tensor *y, const struct plx_tensor *x,
                 const struct plx_tensor *z);
    void (*gate_backward)(const struct plx_tensor *dx, const struct plx_tensor *dz,
                          const struct plx_tensor *dy, const struct plx_tensor *x,
                          const struct plx_tensor *z);
    void (*embed)(const struct plx_tensor *y, const struct plx_tensor *table,
                  const struct plx_tensor *ids);
    void (*embed_backward)(const struct plx_tensor *dtable, const struct plx_tensor *dy,
                           const struct plx_tensor *ids);
    void (*cross_entropy)(const struct plx_tensor *losses, const struct plx_tensor *dlogits,
                          const struct plx_tensor *logits, const struct plx_tensor *targets,
                          double scale);
    void (*argmax)(const struct plx_tensor *ids, const struct plx_tensor *x);
    void (*penalise)(const struct plx_tensor *x, const struct plx_tensor *seen,
                     const struct plx_tensor *counts, double penalty);
    /* tokens: V to work with. */
    void (*draw)(const struct plx_tensor *ids, const struct plx_tensor *x,
                 const struct draw_numbers *numbers, struct draw_ref_token *tokens);
    void (*adamw)(const struct adamw_update *update, const struct update_item *item);
    /* Of the matrix with this index in the update. */
    void (*momentum)(const struct muon_update *update, int index);
    void (*normalise)(const struct plx_tensor *y, const struct plx_tensor *x, double factor,
                      double eps);
    void (*apply)(const struct muon_update *update, int index);
};

extern const struct ref_table ref_table_float, ref_table_double;

#endif
