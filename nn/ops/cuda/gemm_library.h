/* gemm_library.h: cuBLASLt as gemm_cuda.c uses it: the library, loaded at run time, and the plans
 * of products, one a shape.
 *
 * It is loaded when a backend is created, not linked: it has half a gigabyte, and a program that
 * runs on the CPU does without. It counts columns first, so a row-major c = a b is asked for as
 * c' = b' a': operands change places, and a row's stride is its leading dimension. */
#ifndef NN_OPS_CUDA_GEMM_LIBRARY_H
#define NN_OPS_CUDA_GEMM_LIBRARY_H

#include "op.h"

#include <cublasLt.h>

/* A power of two, far more than the shapes of a model; a full table starts over. */
enum { GEMM_PLANS = 512 };
/* What NVIDIA recommends for Hopper. */
enum { GEMM_WORKSPACE = 32 << 20 };

/* The functions of the library, with the prototypes of its header. */
struct gemm_functions {
    __typeof__(cublasLtCreate) *create;
    __typeof__(cublasLtDestroy) *destroy;
    __typeof__(cublasLtGetStatusString) *status_string;
    __typeof__(cublasLtMatmul) *matmul;
    __typeof__(cublasLtMatmulAlgoGetHeuristic) *heuristic;
    __typeof__(cublasLtMatmulDescCreate) *product_create;
    __typeof__(cublasLtMatmulDescDestroy) *product_destroy;
    __typeof__(cublasLtMatmulDescSetAttribute) *product_set;
    __typeof__(cublasLtMatrixLayoutCreate) *layout_create;
    __typeof__(cublasLtMatrixLayoutDestroy) *layout_destroy;
    __typeof__(cublasLtMatrixLayoutSetAttribute) *layout_set;
    __typeof__(cublasLtMatmulPreferenceCreate) *preference_create;
    __typeof__(cublasLtMatmulPreferenceDestroy) *preference_destroy;
    __typeof__(cublasLtMatmulPreferenceSetAttribute) *preference_set;
};

/* One operand as it lies in memory. */
struct gemm_layout {
    int64_t rows, columns, stride, batch_stride;
};

/* Everything a plan depends on. Compared as bytes: it has no padding. */
struct gemm_key {
    struct gemm_layout a, b, c, add;
    int64_t batch;
    int32_t in, out; /* dtypes of a and b, and of c; f8e4m3 comes with scales of rows */
    int32_t transpose_a, transpose_b;
    uint32_t alignments[4]; /* of the four addresses, in bytes, up to 16 */
};

struct gemm_plan {
    struct gemm_key key;
    cublasLtMatmulDesc_t product; /* NULL: the place is free */
    cublasLtMatrixLayout_t a, b, c, add;
    cublasLtMatmulAlgo_t algorithm;
    bool tried; /* what else there is */
};

struct gemm_library {
    void *file;
    struct gemm_functions call;
    cublasLtHandle_t handle;
    int count;
    struct gemm_plan plans[GEMM_PLANS];
};

plx_status gemm_failed(const struct gemm_library *library, struct error *err, cublasStatus_t status,
                       const char *what);
/* Of the rows of quantised operands; NULL, NULL for others. */
struct gemm_scales {
    const void *a, *b;
};
/* The plan of a key, made where there is none, and for this call's scales. */
plx_status gemm_plan_of(struct gemm_library *library, const struct gemm_key *key,
                        const struct gemm_scales *scales, struct gemm_plan **found,
                        struct error *err);
/* Up to most algorithms for a plan, the heuristic's favourite first. */
cublasStatus_t gemm_algorithms(const struct gemm_library *library, const struct gemm_plan *plan,
                               cublasLtMatmulHeuristicResult_t *algorithms, int most, int *found);

#endif
