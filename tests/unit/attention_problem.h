/* attention_problem.h: problems that plans are tested with, whose tensors have shapes and no data.
 */
#ifndef TEST_ATTENTION_PROBLEM_H
#define TEST_ATTENTION_PROBLEM_H

#include "attention/attention.h"

static inline struct attention_problem problem_of(plx_dtype dtype, int64_t B, int64_t T, int64_t S,
                                                  int64_t H, int64_t G, int64_t D, bool probe)
{
    struct attention_problem p = {.probe = probe,
                                  .B = B,
                                  .T = T,
                                  .S = S,
                                  .H = H,
                                  .G = G,
                                  .D = D,
                                  .sequences = B,
                                  .scale = 1,
                                  .dtype = dtype,
                                  .kv_dtype = dtype};
    p.q = p.o = plx_tensor_4d(NULL, dtype, B, T, H, D);
    if (probe) p.r = p.value_mean = p.q;
    p.k = p.v = plx_tensor_4d(NULL, dtype, B, S, G, D);
    return p;
}

/* What the kernels of Hopper are written for: causal and in bf16. */
static inline struct attention_problem sm90_problem(int64_t B, int64_t T, int64_t S, int64_t H,
                                                    int64_t G, int64_t D, bool probe)
{
    struct attention_problem p = problem_of(PLX_BF16, B, T, S, H, G, D, probe);
    p.causal = true;
    return p;
}

#endif
