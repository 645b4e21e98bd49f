/* launch.h: the kernels of ops_cuda as plain C functions.
 *
 * Each queues its kernels on the stream of the current GPU and returns NULL, or CUDA's sentence
 * where that failed; arguments were checked by the caller. Activations have the dtype `active`
 * (f32 or bf16), statistics, gains and gradients of parameters are f32. Every pointer is one of
 * the GPU's. */
#ifndef NN_OPS_CUDA_LAUNCH_H
#define NN_OPS_CUDA_LAUNCH_H

#include "parallax/parallax.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- vector_cuda.cu ---- */
/* y = factor y, of count elements. */
const char *launch_scale(plx_stream stream, void *y, plx_dtype dtype, int64_t count, double factor);

#ifdef __cplusplus
}
#endif

#endif
