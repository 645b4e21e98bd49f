/* gemm_library.c: loading cuBLASLt and describing products to it; see gemm_library.h. */
#include "ops/cuda/gemm_library.h"

#include "ops/cuda/cuda_state.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

/* Names of the functions, in the order of struct gemm_functions. */
static const char *const gemm_names[] = {
    "cublasLtCreate",
    "cublasLtDestroy",
    "cublasLtGetStatusString",
    "cublasLtMatmul",
    "cublasLtMatmulAlgoGetHeuristic",
    "cublasLtMatmulDescCreate",
    "cublasLtMatmulDescDestroy",
    "cublasLtMatmulDescSetAttribute",
    "cublasLtMatrixLayoutCreate",
    "cublasLtMatrixLayoutDestroy",
    "cublasLtMatrixLayoutSetAttribute",
    "cublasLtMatmulPreferenceCreate",
    "cublasLtMatmulPreferenceDestroy",
    "cublasLtMatmulPreferenceSetAttribute",
};
enum { GEMM_FUNCTIONS = sizeof gemm_names / sizeof *gemm_names };
_Static_assert(sizeof(struct gemm_functions) == GEMM_FUNCTIONS * sizeof(void *),
               "every function of the table has a name");

/* ---- The library ----------------------------------------------------------------------------- */

static const char *const gemm_files[] = {"libcublasLt.so.13", "libcublasLt.so.12",
                                         "/usr/local/cuda/lib64/libcublasLt.so"};
enum { GEMM_FILES = sizeof gemm_files / sizeof *gemm_files };

static plx_status gemm_load(struct gemm_library *library, struct error *err)
{
    /* It stays when it is closed: reading it again for the next backend takes a second. */
    for (int i = 0; i < GEMM_FILES && library->file == NULL; i++)
        library->file = dlopen(gemm_files[i], RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    REQUIRE(err, library->file != NULL, PLX_UNSUPPORTED,
            "device: cuda: cuBLASLt is not installed; looked for %s, %s and %s", gemm_files[0],
            gemm_files[1], gemm_files[2]);
    void **functions = (void **)&library->call;
    for (int i = 0; i < GEMM_FUNCTIONS; i++) {
        functions[i] = dlsym(library->file, gemm_names[i]);
        REQUIRE(err, functions[i] != NULL, PLX_UNSUPPORTED,
                "device: cuda: the installed cuBLASLt is not one that this program knows: it has "
                "no %s",
                gemm_names[i]);
    }
    return PLX_OK;
}

plx_status gemm_failed(const struct gemm_library *library, struct error *err, cublasStatus_t status,
                       const char *what)
{
    return error_set(err, PLX_DEVICE_ERROR, "gemm: cuBLASLt %s: %s", what,
                     library->call.status_string(status));
}

static plx_status gemm_start(struct gemm_library *library, struct error *err)
{
    cublasStatus_t status = library->call.create(&library->handle);
    return status == CUBLAS_STATUS_SUCCESS ? PLX_OK
                                           : gemm_failed(library, err, status, "cannot start");
}

plx_status gemm_library_create(struct gemm_library **library, struct error *err)
{
    *library = calloc(1, sizeof **library);
    REQUIRE(err, *library != NULL, PLX_OUT_OF_MEMORY,
            "cannot allocate the table of matrix products");
    plx_status status = gemm_load(*library, err);
    if (status == PLX_OK) status = gemm_start(*library, err);
    if (status == PLX_OK) return PLX_OK;
    gemm_library_destroy(*library);
    *library = NULL;
    return status;
}

static void gemm_plan_destroy(const struct gemm_library *library, struct gemm_plan *plan)
{
    const struct gemm_functions *call = &library->call;
    if (plan->a != NULL) call->layout_destroy(plan->a);
    if (plan->b != NULL) call->layout_destroy(plan->b);
    if (plan->c != NULL) call->layout_destroy(plan->c);
    if (plan->add != NULL) call->layout_destroy(plan->add);
    if (plan->product != NULL) call->product_destroy(plan->product);
    *plan = (struct gemm_plan){.product = NULL};
}

static void gemm_forget_plans(struct gemm_library *library)
{
    for (int i = 0; i < GEMM_PLANS; i++) gemm_plan_destroy(library, &library->plans[i]);
    library->count = 0;
}

void gemm_library_destroy(struct gemm_library *library)
{
    if (library == NULL) return;
    gemm_forget_plans(library);
    if (library->handle != NULL) library->call.destroy(library->handle);
    if (library->file != NULL) dlclose(library->file);
    free(library);
}

/* ---- Plans ----------------------------------------------------------------------------------- */

static cudaDataType gemm_type(int32_t dtype)
{
    if (dtype == PLX_F8E4M3) return CUDA_R_8F_E4M3;
    return dtype == PLX_BF16 ? CUDA_R_16BF : CUDA_R_32F;
}

/* Goes on with the next call only where all before succeeded. */
#define THEN(status, next)                                                                         \
    do {                                                                                           \
        if ((status) == CUBLAS_STATUS_SUCCESS) (status) = (next);                                  \
    } while (0)

/* A row-major matrix is its transpose counted by columns. */
static cublasStatus_t gemm_layout_create(const struct gemm_functions *call,
                                         cublasLtMatrixLayout_t *made,
                                         const struct gemm_layout *layout, int32_t dtype,
                                         int64_t batch)
{
    int32_t count = (int32_t)batch;
    cublasStatus_t status = call->layout_create(made, gemm_type(dtype), (uint64_t)layout->columns,
                                                (uint64_t)layout->rows, layout->stride);
    THEN(status, call->layout_set(*made, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &count, sizeof count));
    THEN(status, call->layout_set(*made, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET,
                                  &layout->batch_stride, sizeof layout->batch_stride));
    return status;
}

/* Its first operand is our b. */
static cublasStatus_t gemm_point_scales(const struct gemm_functions *call,
                                        const struct gemm_plan *plan,
                                        const struct gemm_scales *scales)
{
    if (plan->key.in != PLX_F8E4M3) return CUBLAS_STATUS_SUCCESS;
    cublasStatus_t status = call->product_set(plan->product, CUBLASLT_MATMUL_DESC_A_SCALE_POINTER,
                                              &scales->b, sizeof scales->b);
    THEN(status, call->product_set(plan->product, CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, &scales->a,
                                   sizeof scales->a));
    return status;
}

/* A factor a row of either operand. Fast accumulation keeps fewer bits of a sum than a float has,
 * which is nothing beside operands of four bits, and takes an eighth to a quarter off the time. */
static cublasStatus_t gemm_describe_scales(const struct gemm_functions *call,
                                           const struct gemm_plan *plan)
{
    const cublasLtMatmulMatrixScale_t mode = CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F;
    const int8_t fast = 1;
    if (plan->key.in != PLX_F8E4M3) return CUBLAS_STATUS_SUCCESS;
    cublasStatus_t status =
        call->product_set(plan->product, CUBLASLT_MATMUL_DESC_A_SCALE_MODE, &mode, sizeof mode);
    THEN(status,
         call->product_set(plan->product, CUBLASLT_MATMUL_DESC_B_SCALE_MODE, &mode, sizeof mode));
    THEN(status,
         call->product_set(plan->product, CUBLASLT_MATMUL_DESC_FAST_ACCUM, &fast, sizeof fast));
    return status;
}

static cublasStatus_t gemm_describe(const struct gemm_functions *call, struct gemm_plan *plan)
{
    const struct gemm_key *key = &plan->key;
    cublasOperation_t first = key->transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N;
    cublasOperation_t second = key->transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N;
    cublasStatus_t status = call->product_create(&plan->product, CUBLAS_COMPUTE_32F, CUDA_R_32F);
    THEN(status,
         call->product_set(plan->product, CUBLASLT_MATMUL_DESC_TRANSA, &first, sizeof first));
    THEN(status,
         call->product_set(plan->product, CUBLASLT_MATMUL_DESC_TRANSB, &second, sizeof second));
    THEN(status, gemm_describe_scales(call, plan));
    THEN(status, gemm_layout_create(call, &plan->a, &key->a, key->in, key->batch));
    THEN(status, gemm_layout_create(call, &plan->b, &key->b, key->in, key->batch));
    THEN(status, gemm_layout_create(call, &plan->c, &key->c, key->out, key->batch));
    THEN(status, gemm_layout_create(call, &plan->add, &key->add, key->out, key->batch));
    return status;
}

/* Partial sums are only allowed in float, in the workspace, and added in a fixed order. */
static cublasStatus_t gemm_prefer(const struct gemm_functions *call, const struct gemm_key *key,
                                  cublasLtMatmulPreference_t preference)
{
    static const cublasLtMatmulPreferenceAttributes_t alignments[4] = {
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES};
    uint64_t workspace = GEMM_WORKSPACE;
    uint32_t schemes = CUBLASLT_REDUCTION_SCHEME_NONE | CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
    cublasStatus_t status = call->preference_set(
        preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof workspace);
    THEN(status, call->preference_set(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
                                      &schemes, sizeof schemes));
    for (int i = 0; i < 4; i++)
        THEN(status, call->preference_set(preference, alignments[i], &key->alignments[i],
                                          sizeof(uint32_t)));
    return status;
}

cublasStatus_t gemm_algorithms(const struct gemm_library *library, const struct gemm_plan *plan,
                               cublasLtMatmulHeuristicResult_t *algorithms, int most, int *found)
{
    const struct gemm_functions *call = &library->call;
    cublasLtMatmulPreference_t preference;
    *found = 0;
    cublasStatus_t status = call->preference_create(&preference);
    if (status != CUBLAS_STATUS_SUCCESS) return status;
    status = gemm_prefer(call, &plan->key, preference);
    THEN(status, call->heuristic(library->handle, plan->product, plan->b, plan->a, plan->add,
                                 plan->c, preference, most, algorithms, found));
    call->preference_destroy(preference);
    if (status == CUBLAS_STATUS_SUCCESS && *found == 0) status = CUBLAS_STATUS_NOT_SUPPORTED;
    return status;
}

static cublasStatus_t gemm_choose(const struct gemm_library *library, struct gemm_plan *plan)
{
    cublasLtMatmulHeuristicResult_t first;
    int found;
    cublasStatus_t status = gemm_algorithms(library, plan, &first, 1, &found);
    if (status == CUBLAS_STATUS_SUCCESS) plan->algorithm = first.algo;
    return status;
}

static uint32_t gemm_hash(const struct gemm_key *key)
{
    const unsigned char *bytes = (const unsigned char *)key;
    uint32_t hash = 2166136261u;
    for (size_t i = 0; i < sizeof *key; i++) hash = (hash ^ bytes[i]) * 16777619u;
    return hash;
}

/* The key's place in the table, or the free one where it belongs. */
static struct gemm_plan *gemm_place(struct gemm_library *library, const struct gemm_key *key)
{
    uint32_t place = gemm_hash(key);
    for (;; place++) {
        struct gemm_plan *plan = &library->plans[place % GEMM_PLANS];
        if (plan->product == NULL || memcmp(&plan->key, key, sizeof *key) == 0) return plan;
    }
}

plx_status gemm_plan_of(struct gemm_library *library, const struct gemm_key *key,
                        const struct gemm_scales *scales, struct gemm_plan **found,
                        struct error *err)
{
    struct gemm_plan *place = gemm_place(library, key);
    cublasStatus_t status;
    *found = place;
    if (place->product != NULL) {
        status = gemm_point_scales(&library->call, place, scales);
        if (status == CUBLAS_STATUS_SUCCESS) return PLX_OK;
        return gemm_failed(library, err, status, "takes no such scales");
    }
    if (2 * library->count >= GEMM_PLANS) {
        gemm_forget_plans(library);
        *found = place = gemm_place(library, key);
    }
    struct gemm_plan plan = {.key = *key};
    status = gemm_describe(&library->call, &plan);
    THEN(status, gemm_point_scales(&library->call, &plan, scales));
    THEN(status, gemm_choose(library, &plan));
    if (status != CUBLAS_STATUS_SUCCESS) {
        gemm_plan_destroy(library, &plan);
        return gemm_failed(library, err, status, "has no such product");
    }
    *place = plan;
    library->count++;
    return PLX_OK;
}
