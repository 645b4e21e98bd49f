/* sanitize_cases.h: attention cases for tools that slow everything down: as small as they can be
 * while they still reach every kernel of the GPU. What each one reaches is proven without a GPU
 * (tests/unit/test_gpu_cases.c). */
#ifndef TEST_SANITIZE_CASES_H
#define TEST_SANITIZE_CASES_H

#include "attention_case.h"

struct sanitize_case {
    struct attention_case c;
    plx_pass first, last;
    bool tuned; /* bf16 and f16 by the kernels for Hopper; otherwise f32 by those for every GPU */
};

extern const struct sanitize_case sanitize_cases[];
extern const int sanitize_case_count;

#endif
