/* gemm_cuda.c: matrix products of ops_cuda, by cuBLASLt (gemm_library.h) but for those of a few
 * rows (gemv_cuda.c).
 *
 * A product's algorithm is the first that cuBLASLt's heuristic names, which depends on the shape,
 * the strides, the alignment and the library alone; those that add parts of a sum in less than
 * float are not allowed. Large products then try what else it names, and take the fastest of those
 * that give the same bits: so a run can be repeated bit for bit though times vary. The workspace is
 * a block of be->scratch. Sums are in float; products of f32 are true f32, never TF32. */
#include "ops/check.h"
#include "ops/cuda/cuda_state.h"
#include "ops/cuda/gemm_library.h"
#include "ops/cuda/launch.h"
#include "ops/gemm_slice.h"
#include "ops/scratch.h"

#include <math.h>

#include <cuda_runtime_api.h>

/* Algorithms tried, how often each is timed, and the operations from which that is worth it: what
 * the GPU does in 25 microseconds. */
enum { GEMM_TRIED = 8, GEMM_TIMED = 3 };
static const double GEMM_LARGE = 0x1p34;

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

plx_status cuda_gemm_scratch(struct backend *be, const struct gemm *gemm, size_t *first,
                             size_t *second)
{
    (void)be, (void)gemm;
    *first = GEMM_WORKSPACE;
    *second = 0;
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
    struct gemm_scales scales = {NULL, NULL};
    struct gemm_plan *plan;
    if (gemm->a_scale != NULL)
        scales = (struct gemm_scales){gemm->a_scale->data, gemm->b_scale->data};
    TRY(gemm_plan_of(((struct cuda_state *)be->ops_state)->products, &key, &scales, &plan,
                     be->err));
    if (!plan->tried && gemm_may_try(be, &product)) TRY(gemm_tune(be, &product, plan));
    return gemm_queue(be, &product, plan, &plan->algorithm);
}

/* ---- Products of 8-bit operands -------------------------------------------------------------- */

/* The library is asked for the plan of a small product; nothing is computed. */
static plx_status find_fp8(struct backend *be, void *memory)
{
    struct gemm_library *library = ((struct cuda_state *)be->ops_state)->products;
    const int64_t shape[2] = {128, 128};
    const struct plx_tensor in = plx_tensor_dense(memory, PLX_F8E4M3, 2, shape),
                            out = plx_tensor_dense(memory, be->activation, 2, shape);
    const struct gemm gemm = {.a = &in, .b = &in, .c = &out, .transpose_b = true};
    const struct gemm_key key = gemm_key_of(&gemm, &out);
    const struct gemm_scales scales = {memory, memory};
    struct gemm_plan *plan;
    return gemm_plan_of(library, &key, &scales, &plan, NULL);
}

plx_status cuda_gemm_has_fp8(struct backend *be)
{
    struct device_facts facts;
    void *memory;
    TRY(be->device->describe(be->device_index, &facts, be->err));
    TRY(be->device->allocate(&memory, sizeof(float), be->stream, be->err));
    plx_status status = find_fp8(be, memory);
    be->device->release(memory, be->stream);
    REQUIRE(be->err, status == PLX_OK, PLX_UNSUPPORTED,
            "--dtype fp8: %s (%s) and the cuBLASLt that is installed have no products of f8e4m3 "
            "with a factor a row; these take a Hopper GPU and cuBLASLt 12.9 or later",
            facts.name, facts.details);
    return PLX_OK;
}

/* Rows first .. first + count - 1 of a matrix. */
static struct plx_tensor rows_of(const struct plx_tensor *matrix, int64_t first, int64_t count)
{
    struct plx_tensor rows = *matrix;
    rows.shape[0] = count;
    rows.data =
        (char *)matrix->data + (size_t)(first * matrix->stride[0]) * plx_dtype_size(matrix->dtype);
    return rows;
}

static plx_status gemm_few_rows(struct backend *be, const struct gemm *gemm, int64_t first,
                                int64_t count)
{
    const struct plx_tensor *add = gemm->add != NULL ? gemm->add : gemm->c;
    const struct quantised_few few = {.c = rows_of(gemm->c, first, count).data,
                                      .a = rows_of(gemm->a, first, count).data,
                                      .b = gemm->b->data,
                                      .add = rows_of(add, first, count).data,
                                      .a_scale = (const float *)gemm->a_scale->data + first,
                                      .b_scale = gemm->b_scale->data,
                                      .N = gemm->b->shape[0],
                                      .K = gemm->b->shape[1],
                                      .c_stride = gemm->c->stride[0],
                                      .add_stride = add->stride[0],
                                      .rows = (int)count,
                                      .alpha = (float)gemm->alpha,
                                      .beta = (float)gemm->beta};
    return cuda_launched(be, "gemm", launch_quantised_few(be->stream, gemm->c->dtype, &few));
}

/* cuBLASLt wants multiples of 16 rows, and c on addresses of 16; a kernel does what is left. */
static plx_status gemm_quantised(struct backend *be, const struct gemm *gemm, void *workspace)
{
    const struct plx_tensor *place = gemm->add != NULL ? gemm->add : gemm->c;
    const bool aligned = gemm_alignment(gemm->c) == 16 && gemm_alignment(place) == 16;
    const int64_t M = gemm->a->shape[0], most = aligned ? M - M % QUANTISED_UNIT : 0;
    for (int64_t first = most; first < M; first += QUANTISED_UNIT - 1) {
        const int64_t left = M - first;
        TRY(gemm_few_rows(be, gemm, first, left < QUANTISED_UNIT ? left : QUANTISED_UNIT - 1));
    }
    if (most == 0) return PLX_OK;
    const struct plx_tensor a = rows_of(gemm->a, 0, most), c = rows_of(gemm->c, 0, most),
                            add = rows_of(place, 0, most);
    struct gemm product = *gemm;
    product.a = &a;
    product.c = &c;
    product.add = gemm->add != NULL ? &add : NULL;
    return gemm_run(be, &product, workspace);
}

/* ---- The operation --------------------------------------------------------------------------- */

static plx_status gemm_dispatch(struct backend *be, const struct gemm *gemm, void *workspace)
{
    struct gemv few;
    if (plx_tensor_count(gemm->c) == 0) return PLX_OK;
    if (gemm->a_scale != NULL) return gemm_quantised(be, gemm, workspace);
    if (cuda_gemv_takes(gemm, &few))
        return cuda_launched(be, "gemm", launch_gemv(be->stream, &few));
    return gemm_run(be, gemm, workspace);
}

plx_status cuda_gemm(struct backend *be, const struct gemm *gemm)
{
    TRY(check_gemm(be, gemm));
    int row = gemm->a->rank - 2;
    REQUIRE(be->err, gemm->a->shape[row + !gemm->transpose_a] > 0, PLX_UNSUPPORTED,
            "gemm: the cuda operations have no products over nothing");
    size_t mark = arena_mark(&be->scratch);
    void *workspace;
    plx_status status = scratch_push(be, "gemm", GEMM_WORKSPACE, &workspace);
    if (status == PLX_OK) status = gemm_dispatch(be, gemm, workspace);
    arena_release(&be->scratch, mark);
    return status;
}
