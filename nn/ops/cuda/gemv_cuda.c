/* gemv_cuda.c: which products of ops_cuda are those of a few rows with a weight, that generation
 * makes: they cost reading the weight, and cuBLASLt's tiles leave most of a GPU idle over them. */
#include "ops/check.h"
#include "ops/cuda/cuda_state.h"

bool cuda_gemv_takes(const struct gemm *gemm, struct gemv *call)
{
    const struct plx_tensor *x = gemm->a, *weight = gemm->b, *y = gemm->c, *add = gemm->add;
    const bool adds = gemm->beta != 0;
    if (x->rank != 2 || gemm->transpose_a || !gemm->transpose_b) return false;
    if (gemm->alpha != 1 || (adds && gemm->beta != 1)) return false;
    if (add == NULL) add = y;
    if (!check_is_dense(x) || !check_is_dense(weight) || !check_is_dense(y)) return false;
    if (adds && !check_is_dense(add)) return false;
    if (x->shape[0] > INT32_MAX) return false;
    *call = (struct gemv){.y = y->data,
                          .x = x->data,
                          .weight = weight->data,
                          .add = adds ? add->data : NULL,
                          .in = x->dtype,
                          .out = y->dtype,
                          .constant = gemm->weight,
                          .rows = (int)x->shape[0],
                          .N = weight->shape[0],
                          .K = weight->shape[1]};
    return launch_gemv_serves(call);
}
