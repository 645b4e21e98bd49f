/* sm90_problem.h: problems that the plans of the Hopper kernels are tested with. */
#ifndef TEST_SM90_PROBLEM_H
#define TEST_SM90_PROBLEM_H

#include "attention/attention.h"

/* Causal and in bf16, with tensors that have shapes and no data. */
static inline struct attention_problem problem_of(int64_t B, int64_t T, int64_t S, int64_t H,
                                                  int64_t G, int64_t D, bool probe)
{
    const int64_t query[] = {B, T, H, D}, key[] = {B, S, G, D};
    struct attention_problem p = {.probe = probe,
                                  .B = B,
                                  .T = T,
                                  .S = S,
                                  .H = H,
                                  .G = G,
                                  .D = D,
                                  .sequences = B,
                                  .causal = true,
                                  .scale = 1,
                                  .dtype = PLX_BF16,
                                  .kv_dtype = PLX_BF16};
    p.q = p.o = plx_tensor_dense(NULL, PLX_BF16, 4, query);
    if (probe) p.r = p.value_mean = p.q;
    p.k = p.v = plx_tensor_dense(NULL, PLX_BF16, 4, key);
    return p;
}

#endif
