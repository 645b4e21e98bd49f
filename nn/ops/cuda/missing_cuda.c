/* missing_cuda.c: the operations that ops_cuda has no kernel for yet say so. */
#include "ops/cuda/cuda_state.h"

#pragma GCC diagnostic ignored "-Wunused-parameter"

#define MISSING(op, ...)                                                                           \
    plx_status cuda_##op(struct backend *be, __VA_ARGS__)                                          \
    {                                                                                              \
        return error_set(be->err, PLX_UNSUPPORTED, "the cuda operations have no %s yet", #op);     \
    }
typedef const struct plx_tensor *tensor;

MISSING(copy, tensor y, tensor x)
MISSING(add, tensor y, tensor a, tensor b)
MISSING(sum, tensor sum, tensor x)
MISSING(gemm, const struct gemm *gemm)
MISSING(sum_squares, tensor x, double *sum)
MISSING(adamw, const struct adamw_update *update)
MISSING(momentum, tensor u, tensor m, tensor g, double mu, bool nesterov, bool ema)
MISSING(apply, tensor w, tensor u, double decay, double rate)
MISSING(project, tensor y, tensor x, const struct packed *weight)
MISSING(unpack, tensor y, const struct packed *table, tensor ids)
MISSING(rmsnorm, tensor y, tensor rstd, tensor x, tensor gain, double eps)
MISSING(rmsnorm_backward, tensor dx, tensor dgain, tensor dy, tensor x, tensor gain, tensor rstd)
MISSING(bias, tensor y, tensor x, tensor bias)
MISSING(bias_backward, tensor dbias, tensor dy)
MISSING(rope, tensor y, tensor x, tensor positions, const struct rope *rope, bool inverse)
MISSING(swiglu, tensor y, tensor gate, tensor up)
MISSING(swiglu_backward, tensor dgate, tensor dup, tensor dy, tensor gate, tensor up)
MISSING(gate, tensor y, tensor x, tensor z)
MISSING(gate_backward, tensor dx, tensor dz, tensor dy, tensor x, tensor z)
MISSING(embed, tensor y, tensor table, tensor ids)
MISSING(embed_backward, tensor dtable, tensor dy, tensor ids)
MISSING(cross_entropy, tensor losses, tensor dlogits, tensor logits, tensor targets, double scale)
