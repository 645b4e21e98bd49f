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
MISSING(sum_squares, tensor sums, const struct plx_tensor *const *xs)
MISSING(clip, const struct clip *clip)
MISSING(adamw, const struct adamw_update *update)
MISSING(momentum, const struct muon_update *update)
MISSING(normalise, tensor y, tensor x, double factor, double eps)
MISSING(apply, const struct muon_update *update)
