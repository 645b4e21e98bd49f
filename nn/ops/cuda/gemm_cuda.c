/* gemm_cuda.c: matrix products of ops_cuda, by cuBLASLt but for those of a few rows (gemv_cuda.c).
 * No other file knows that library.
 *
 * It is loaded when the first backend is created, not linked: it has half a gigabyte, and a program
 * that runs on the CPU does without. It counts columns first, so a row-major c = a b is asked for
 * as c' = b' a': operands change places, and a row's stride is its leading dimension.
 *
 * A product's descriptors and algorithm are a plan, found once for a shape and kept. The algorithm
 * is the first that cuBLASLt's heuristic names, which depends on the shape, the strides, the
 * alignment and the library alone; those that add parts of a sum in less than float are not
 * allowed. Large products then try what else it names, and take the fastest of those that give the
 * same bits: so a run can be repeated bit for bit though times vary. The workspace is a block of
 * be->scratch. Sums are in float; products of f32 are true f32, never TF32. */
#include "ops/check.h"
#include "ops/cuda/cuda_state.h"
#include "ops/cuda/launch.h"
#include "ops/gemm_slice.h"
#include "ops/scratch.h"

#include <dlfcn.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <cublasLt.h>
#include <cuda_runtime_api.h>

/* A power of two, far more than the shapes of a model; a full table starts over. */
enum { GEMM_PLANS = 512 };
/* What NVIDIA recommends for Hopper. */
enum { GEMM_WORKSPACE = 32 << 20 };
/* Algorithms tried, how often each is timed, and the operations from which that is worth it: what
 * the GPU does in 25 microseconds. */
enum { GEMM_TRIED = 8, GEMM_TIMED = 3 };
static const double GEMM_LARGE = 0x1p34;

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

/* Their names, in the same order. */
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

/* One operand as it lies in memory. */
struct gemm_layout {
    int64_t rows, columns, stride, batch_stride;
};

/* Everything a plan depends on. Compared as bytes: it has no padding. */
struct gemm_key {
    struct gemm_layout a, b, c, add;
    int64_t batch;
    int32_t in, out; /* dtypes of a and b, and of c */
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

static plx_status gemm_failed(const struct gemm_library *library, struct error *err,
                              cublasStatus_t status, const char *what)
{
    return error_set(err, PLX_DEVICE_ERROR, "gemm: cuBLASLt %s: %s", what,
                     library->call.status_string(status));
}

plx_status gemm_library_create(struct gemm_library **library, struct error *err)
{
    *library = calloc(1, sizeof **library);
    REQUIRE(err, *library != NULL, PLX_OUT_OF_MEMORY,
            "cannot allocate the table of matrix products");
    plx_status status = gemm_load(*library, err);
    if (status == PLX_OK) {
        cublasStatus_t result = (*library)->call.create(&(*library)->handle);
        if (result != CUBLAS_STATUS_SUCCESS)
            status = gemm_failed(*library, err, result, "cannot start");
    }
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

/* Up to most algorithms, the heuristic's favourite first. */
static cublasStatus_t gemm_algorithms(const struct gemm_library *library,
                                      const struct gemm_plan *plan,
                                      cublasLtMatmulHeuristicResult_t *algorithms, int most,
                                      int *found)
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

static plx_status gemm_plan_of(struct gemm_library *library, const struct gemm_key *key,
                               struct gemm_plan **found, struct error *err)
{
    struct gemm_plan *place = gemm_place(library, key);
    *found = place;
    if (place->product != NULL) return PLX_OK;
    if (2 * library->count >= GEMM_PLANS) {
        gemm_forget_plans(library);
        *found = place = gemm_place(library, key);
    }
    struct gemm_plan plan = {.key = *key};
    cublasStatus_t status = gemm_describe(&library->call, &plan);
    THEN(status, gemm_choose(library, &plan));
    if (status != CUBLAS_STATUS_SUCCESS) {
        gemm_plan_destroy(library, &plan);
        return gemm_failed(library, err, status, "has no such product");
    }
    *place = plan;
    library->count++;
    return PLX_OK;
}

/* ---- Products -------------------------------------------------------------------------------- */

static struct gemm_layout gemm_layout_of(const struct plx_tensor *tensor)
{
    int row = tensor->rank - 2;
    int64_t rows = tensor->shape[row], columns = tensor->shape[row + 1];
    /* The stride of a single row means nothing, but must not be shorter than the row. */
    return (struct gemm_layout){.rows = rows,
                                .columns = columns,
                                .stride = rows == 1 ? columns : tensor->stride[row],
                                .batch_stride = row == 1 ? tensor->stride[0] : 0};
}

static uint32_t gemm_alignment(const struct plx_tensor *tensor)
{
    uintptr_t address = (uintptr_t)tensor->data | 16;
    return (uint32_t)(address & -address);
}

static struct gemm_key gemm_key_of(const struct gemm *gemm, const struct plx_tensor *add)
{
    return (struct gemm_key){
        .a = gemm_layout_of(gemm->a),
        .b = gemm_layout_of(gemm->b),
        .c = gemm_layout_of(gemm->c),
        .add = gemm_layout_of(add),
        .batch = gemm_count(gemm),
        .in = (int32_t)gemm->a->dtype,
        .out = (int32_t)gemm->c->dtype,
        .transpose_a = gemm->transpose_a,
        .transpose_b = gemm->transpose_b,
        .alignments = {gemm_alignment(gemm->a), gemm_alignment(gemm->b), gemm_alignment(gemm->c),
                       gemm_alignment(add)},
    };
}

plx_status cuda_gemm_scratch(struct backend *be, const struct gemm *gemm, size_t *bytes)
{
    (void)be, (void)gemm;
    *bytes = GEMM_WORKSPACE;
    return PLX_OK;
}

/* One product and what its algorithm works with. */
struct gemm_call {
    const struct gemm *gemm;
    const struct plx_tensor *add; /* c where there is no other */
    void *workspace;
};

static plx_status gemm_queue(struct backend *be, const struct gemm_call *product,
                             const struct gemm_plan *plan, const cublasLtMatmulAlgo_t *algorithm)
{
    struct gemm_library *library = ((struct cuda_state *)be->ops_state)->products;
    const struct gemm *gemm = product->gemm;
    float alpha = (float)gemm->alpha, beta = (float)gemm->beta;
    cublasStatus_t status = library->call.matmul(
        library->handle, plan->product, &alpha, gemm->b->data, plan->b, gemm->a->data, plan->a,
        &beta, product->add->data, plan->add, gemm->c->data, plan->c, algorithm, product->workspace,
        GEMM_WORKSPACE, be->stream);
    return status == CUBLAS_STATUS_SUCCESS ? PLX_OK
                                           : gemm_failed(library, be->err, status, "failed");
}

/* ---- Trying algorithms ----------------------------------------------------------------------- */

/* A number that differs where the bits of c do. */
static plx_status gemm_bits(struct backend *be, const struct gemm_call *product, uint64_t *bits)
{
    const struct plx_tensor *c = product->gemm->c;
    size_t bytes = (size_t)plx_tensor_count(c) * plx_dtype_size(c->dtype);
    TRY(be->device->fill(product->workspace, 0, sizeof *bits, be->stream, be->err));
    TRY(cuda_launched(be, "gemm", launch_checksum(be->stream, product->workspace, c->data, bytes)));
    return be->device->download(bits, product->workspace, sizeof *bits, be->stream, be->err);
}

static plx_status gemm_seconds(struct backend *be, const struct gemm_call *product,
                               const struct gemm_plan *plan, const cublasLtMatmulAlgo_t *algorithm,
                               const device_event ends[2], double *seconds)
{
    TRY(be->device->event_record(ends[0], be->stream, be->err));
    for (int i = 0; i < GEMM_TIMED; i++) TRY(gemm_queue(be, product, plan, algorithm));
    TRY(be->device->event_record(ends[1], be->stream, be->err));
    return be->device->event_elapsed(ends[0], ends[1], seconds, be->err);
}

static plx_status gemm_try(struct backend *be, const struct gemm_call *product,
                           struct gemm_plan *plan, const device_event ends[2])
{
    struct gemm_library *library = ((struct cuda_state *)be->ops_state)->products;
    cublasLtMatmulHeuristicResult_t algorithms[GEMM_TRIED];
    int found;
    cublasStatus_t result = gemm_algorithms(library, plan, algorithms, GEMM_TRIED, &found);
    if (result != CUBLAS_STATUS_SUCCESS)
        return gemm_failed(library, be->err, result, "has no such product");
    uint64_t expected = 0, bits;
    double least = INFINITY, seconds;
    for (int i = 0; i < found; i++) {
        TRY(gemm_queue(be, product, plan, &algorithms[i].algo));
        TRY(gemm_bits(be, product, &bits));
        if (i == 0) expected = bits;
        if (bits != expected) continue;
        TRY(gemm_seconds(be, product, plan, &algorithms[i].algo, ends, &seconds));
        if (seconds < least) plan->algorithm = algorithms[i].algo;
        least = fmin(least, seconds);
    }
    return PLX_OK;
}

/* Only what can be computed over and over is tried: not while a graph is captured, and not where c
 * is added to in place. */
static bool gemm_may_try(const struct backend *be, const struct gemm_call *product)
{
    const struct gemm *gemm = product->gemm;
    int row = gemm->a->rank - 2;
    enum cudaStreamCaptureStatus capture = cudaStreamCaptureStatusActive;
    if (gemm->beta != 0 && product->add == gemm->c) return false;
    if (!check_is_dense(gemm->c)) return false;
    double inner = (double)gemm->a->shape[row + !gemm->transpose_a];
    if (2 * inner * (double)plx_tensor_count(gemm->c) < GEMM_LARGE) return false;
    cudaError_t error = cudaStreamIsCapturing(be->stream, &capture);
    return error == cudaSuccess && capture == cudaStreamCaptureStatusNone;
}

static plx_status gemm_tune(struct backend *be, const struct gemm_call *product,
                            struct gemm_plan *plan)
{
    device_event ends[2] = {NULL, NULL};
    plan->tried = true;
    plx_status status = be->device->event_create(&ends[0], be->err);
    if (status == PLX_OK) status = be->device->event_create(&ends[1], be->err);
    if (status == PLX_OK) status = gemm_try(be, product, plan, ends);
    for (int i = 0; i < 2; i++)
        if (ends[i] != NULL) be->device->event_destroy(ends[i]);
    return status;
}

static plx_status gemm_run(struct backend *be, const struct gemm *gemm, void *workspace)
{
    const bool apart = gemm->add != NULL && gemm->beta != 0;
    const struct gemm_call product = {gemm, apart ? gemm->add : gemm->c, workspace};
    struct gemm_key key = gemm_key_of(gemm, product.add);
    struct gemm_plan *plan;
    TRY(gemm_plan_of(((struct cuda_state *)be->ops_state)->products, &key, &plan, be->err));
    if (!plan->tried && gemm_may_try(be, &product)) TRY(gemm_tune(be, &product, plan));
    return gemm_queue(be, &product, plan, &plan->algorithm);
}

plx_status cuda_gemm(struct backend *be, const struct gemm *gemm)
{
    TRY(check_gemm(be, gemm));
    int row = gemm->a->rank - 2;
    REQUIRE(be->err, gemm->a->shape[row + !gemm->transpose_a] > 0, PLX_UNSUPPORTED,
            "gemm: the cuda operations have no products over nothing");
    size_t mark = arena_mark(&be->scratch);
    void *workspace;
    struct gemv few;
    plx_status status = scratch_push(be, "gemm", GEMM_WORKSPACE, &workspace);
    if (status == PLX_OK && cuda_gemv_takes(gemm, &few))
        status = cuda_launched(be, "gemm", launch_gemv(be->stream, &few));
    else if (status == PLX_OK && plx_tensor_count(gemm->c) > 0)
        status = gemm_run(be, gemm, workspace);
    arena_release(&be->scratch, mark);
    return status;
}
