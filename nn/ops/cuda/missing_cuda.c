/* missing_cuda.c: the operations that ops_cuda has no kernel for yet say so. */
#include "ops/cuda/cuda_state.h"

#pragma GCC diagnostic ignored "-Wunused-parameter"

#define MISSING(op, ...)                                                                           \
    plx_status cuda_##op(struct backend *be, __VA_ARGS__)                                          \
    {                                                                                              \
        return error_set(be->err, PLX_UNSUPPORTED, "the cuda operations have no %s yet", #op);     \
    }
typedef const struct plx_tensor *tensor;

MISSING(gemm, const struct gemm *gemm)
MISSING(sum_squares, tensor x, double *sum)
MISSING(adamw, const struct adamw_update *update)
MISSING(momentum, tensor u, tensor m, tensor g, double mu, bool nesterov, bool ema)
MISSING(apply, tensor w, tensor u, double decay, double rate)
