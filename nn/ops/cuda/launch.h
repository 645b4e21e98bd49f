/* launch.h: the kernels of ops_cuda as plain C functions.
 *
 * Each queues its kernels on a stream of the current GPU and returns NULL, or CUDA's sentence where
 * that failed; arguments were checked by the caller. T stands for the dtype of activations (f32 or
 * bf16), which is an argument; gains, statistics and gradients of parameters are float. Every
 * pointer is one of the GPU's. */
#ifndef NN_OPS_CUDA_LAUNCH_H
#define NN_OPS_CUDA_LAUNCH_H

#include <stdbool.h>

#include "parallax/parallax.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- vector_cuda.cu ---- */
/* y = x of equal shapes, of f32, bf16 or f64. */
const char *launch_copy(plx_stream stream, const struct plx_tensor *y, const struct plx_tensor *x);
/* The same of dense tensors, one f32 and the other bf16, on addresses of 16: eight numbers a group.
 */
const char *launch_cast(plx_stream stream, plx_dtype to, void *y, const void *x, int64_t groups);
const char *launch_add(plx_stream stream, plx_dtype T, void *y, const void *a, const void *b,
                       int64_t count);
/* *sum += the sum of x. */
const char *launch_sum(plx_stream stream, plx_dtype T, double *sum, const void *x, int64_t count);

/* ---- checksum_cuda.cu ---- */
/* Adds a checksum of bytes, an even number of them, to *sum. */
const char *launch_checksum(plx_stream stream, uint64_t *sum, const void *data, size_t bytes);

/* ---- norm_cuda.cu ---- */
/* residual may be NULL, and dx may be residual or dy. Rows of partial sums [blocks,E] of float that
 * launch_rmsnorm_backward and launch_bias_backward leave in scratch. */
int64_t norm_partial_rows(int64_t rows);
/* total[e] += the sum of blocks partial rows, in double. */
const char *launch_partials(plx_stream stream, float *total, const float *partials, int64_t blocks,
                            int64_t E);
const char *launch_rmsnorm(plx_stream stream, plx_dtype T, void *y, float *rstd, const void *x,
                           const float *gain, int64_t rows, int64_t E, double eps);
const char *launch_rmsnorm_backward(plx_stream stream, plx_dtype T, void *dx, float *dgain,
                                    const void *dy, const void *x, const float *gain,
                                    const float *rstd, const void *residual, int64_t rows,
                                    int64_t E, float *partials);
const char *launch_bias(plx_stream stream, plx_dtype T, void *y, const void *x, const float *bias,
                        int64_t rows, int64_t E);
const char *launch_bias_backward(plx_stream stream, plx_dtype T, float *dbias, const void *dy,
                                 int64_t rows, int64_t E, float *partials);

/* ---- rope_cuda.cu ---- */
enum { ROPE_PAIRS = 384 };
/* By how many half turns each pair of channels turns from one position to the next. */
struct rope_turns {
    double of[ROPE_PAIRS];
};
/* x [N,H,D]. */
struct rope_shape {
    int64_t N;
    int H, D;
};
const char *launch_rope(plx_stream stream, plx_dtype T, void *y, const void *x,
                        const int32_t *positions, const struct rope_turns *turns, bool inverse,
                        struct rope_shape shape);
const char *launch_norm_rope(plx_stream stream, plx_dtype T, void *y, float *rstd, const void *x,
                             const float *gain, double eps, const int32_t *positions,
                             const struct rope_turns *turns, struct rope_shape shape);
const char *launch_norm_rope_backward(plx_stream stream, plx_dtype T, void *dx, float *dgain,
                                      const void *dy, const void *x, const float *gain,
                                      const float *rstd, const int32_t *positions,
                                      const struct rope_turns *turns, struct rope_shape shape,
                                      float *partials);

/* ---- gate_cuda.cu ---- */
const char *launch_swiglu(plx_stream stream, plx_dtype T, void *y, const void *gate, const void *up,
                          int64_t count);
const char *launch_swiglu_backward(plx_stream stream, plx_dtype T, void *dgate, void *dup,
                                   void *product, const void *dy, const void *gate, const void *up,
                                   int64_t count);
const char *launch_gate(plx_stream stream, plx_dtype T, void *y, const void *x, const void *z,
                        int64_t rows, int64_t D);
const char *launch_gate_backward(plx_stream stream, plx_dtype T, void *dx, void *dz, const void *dy,
                                 const void *x, const void *z, int64_t rows, int64_t D);

/* ---- embed_cuda.cu ---- */
const char *launch_embed(plx_stream stream, plx_dtype T, void *y, const void *table,
                         const int32_t *ids, int64_t N, int64_t V, int64_t E);
/* Bytes of scratch of the next. */
size_t embed_backward_bytes(int64_t N, int64_t E);
const char *launch_embed_backward(plx_stream stream, plx_dtype T, float *dtable, const void *dy,
                                  const int32_t *ids, int64_t N, int64_t V, int64_t E,
                                  void *scratch);

/* ---- loss_cuda.cu ---- */
/* dlogits may be NULL, and then scale too, or logits. */
const char *launch_cross_entropy(plx_stream stream, plx_dtype T, float *losses, void *dlogits,
                                 const void *logits, const int32_t *targets, const double *scale,
                                 int64_t N, int64_t V);

/* The first of the largest numbers of each row of x [N,V], 0 where all are NaN. */
const char *launch_argmax(plx_stream stream, int32_t *ids, const float *x, int64_t N, int64_t V);

/* ---- draw_cuda.cu ---- */
/* Rows of x [N,V] begin `stride` numbers apart. */
struct draw_call {
    int32_t *ids;          /* [N] */
    const double *numbers; /* [N], each a struct draw_numbers */
    const float *x;
    int64_t N, V, stride;
};
const char *launch_draw(plx_stream stream, const struct draw_call *call);
struct penalise_call {
    float *x;
    int64_t N, V, stride, L;
    const int32_t *seen, *counts; /* [N,L], [N] */
    double penalty;
};
const char *launch_penalise(plx_stream stream, const struct penalise_call *call);

/* ---- quantise_cuda.cu ---- */
/* y = x [rows,columns] in f8e4m3, each row divided by its scale; columns a multiple of 16, y on an
 * address of 16. */
const char *launch_quantise_rows(plx_stream stream, plx_dtype T, void *y, float *scale,
                                 const void *x, int64_t rows, int64_t columns);
/* Both ways, and the transpose: extents of x are multiples of 16, largest are rows + columns zeros
 * to work with. */
struct quantise_both {
    void *rows, *columns; /* of f8e4m3, on addresses of 16 */
    float *row_scale, *column_scale;
    const void *x;
    int64_t M, K;
    uint32_t *largest;
};
const char *launch_quantise_both(plx_stream stream, plx_dtype T, const struct quantise_both *call);
/* c = alpha a b^T + beta add of fewer than 16 rows of a, both quantised: a [rows,K], b [N,K] on
 * addresses of 16, c and add [rows,N] of T with a stride. */
struct quantised_few {
    void *c;
    const void *a, *b, *add;
    const float *a_scale, *b_scale;
    int64_t N, K, c_stride, add_stride;
    int rows;
    float alpha, beta;
};
const char *launch_quantised_few(plx_stream stream, plx_dtype T, const struct quantised_few *call);

/* ---- gemv_cuda.cu ---- */
/* y = x weight^T + add, all dense: x [rows,K], weight [N,K], y and add (or NULL) [rows,N]. */
struct gemv {
    void *y;
    const void *x, *weight, *add;
    const float *scale; /* [N]: the weight is int8 times these; NULL: it has the dtype of x */
    plx_dtype in, out;  /* of x, and of y and add */
    bool constant;      /* nothing that is still under way writes the weight */
    int rows;
    int64_t N, K;
};
/* Whether rows are so few, and memory so aligned, that the kernel takes it. */
bool launch_gemv_serves(const struct gemv *call);
const char *launch_gemv(plx_stream stream, const struct gemv *call);

/* ---- project_cuda.cu ---- */
/* The same of an int8 weight and a few rows of bf16, by the tensor cores. */
bool launch_tiles_serves(const struct gemv *call);
const char *launch_tiles(plx_stream stream, const struct gemv *call);

/* ---- packed_cuda.cu ---- */
/* Matrices of bf16 where scale is NULL, otherwise of int8 with a scale a row. The product of any
 * few rows, as in struct gemv. */
const char *launch_project(plx_stream stream, const struct gemv *call);
/* The numbers of a matrix without their scales: T wide[count]. */
const char *launch_widen(plx_stream stream, plx_dtype T, void *wide, const void *packed, bool int8,
                         int64_t count);
/* y[m,n] = scale[n] sums[m,n] + add[m,n] with y and add (or NULL) of dtype T and rows `stride`
 * apart, sums [M,N] dense; scale NULL: 1. */
struct scaled_sums {
    void *y;
    const void *add;
    const float *sums, *scale;
    int64_t M, N, stride;
};
const char *launch_scale(plx_stream stream, plx_dtype T, const struct scaled_sums *call);
const char *launch_unpack(plx_stream stream, plx_dtype T, void *y, const void *table,
                          const float *scale, const int32_t *ids, int64_t N, int64_t V, int64_t E);

#ifdef __cplusplus
}
#endif

#endif
