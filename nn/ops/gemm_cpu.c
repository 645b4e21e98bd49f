/* gemm_cpu.c: matrix products of ops_cpu, by oneDNN 2.6. No other file knows that library.
 *
 * A product is oneDNN's matmul primitive, which is compiled for its shape, strides, factors and
 * number of threads: a plan. Plans are kept, as training repeats a few dozen shapes for ever.
 * Operands are used where they lie or first copied ("packed") into a layout that the primitive asks
 * for:
 *
 *     f32   a lies; b is packed where it is transposed (forward products, whose b is a weight) and
 * enough rows of a share the cost bf16  both are packed, as they must be rounded anyway
 *
 * NOTES.md has the measurements behind this. Packed operands and the primitive's own scratch are
 * one block of be->scratch. Sums are in float in both cases, in an order that depends on the plan
 * only. */
#include "ops/cpu_state.h"
#include "ops/gemm_slice.h"
#include "ops/scratch.h"

#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include <dnnl.h>
#include <dnnl_debug.h>

/* Far more than the shapes of a model (about 10 products a kind of layer, each with a few factors
 * and two sizes of the last batch); the least recently used plan makes room. */
enum { GEMM_PLANS = 256 };
/* Rows of a below which packing b costs more than it saves (NOTES.md). */
enum { GEMM_PACK_ROWS = 1024 };

/* Everything a plan depends on. Compared as bytes: it has no padding. */
struct gemm_key {
    int64_t M, N, K;
    int64_t a_stride, b_stride, c_stride;
    double alpha, beta;
    int32_t transpose_a, transpose_b, bf16, threads;
};

/* An operand: where it lies, and where it is packed to unless reorder is NULL. */
struct gemm_operand {
    dnnl_memory_t given, packed;
    dnnl_primitive_t reorder;
    size_t packed_bytes;
};

struct gemm_plan {
    struct gemm_key key;
    int64_t last_use;
    struct gemm_operand a, b;
    dnnl_memory_t c, scratchpad;
    dnnl_primitive_t product;
    size_t scratchpad_bytes;
};

struct gemm_cache {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    int64_t uses;
    int count;
    struct gemm_plan plans[GEMM_PLANS];
};

/* ---- Plans ----------------------------------------------------------------------------------- */

static void gemm_operand_destroy(struct gemm_operand *operand)
{
    if (operand->reorder != NULL) dnnl_primitive_destroy(operand->reorder);
    if (operand->packed != NULL) dnnl_memory_destroy(operand->packed);
    if (operand->given != NULL) dnnl_memory_destroy(operand->given);
}

static void gemm_plan_destroy(struct gemm_plan *plan)
{
    gemm_operand_destroy(&plan->a);
    gemm_operand_destroy(&plan->b);
    if (plan->c != NULL) dnnl_memory_destroy(plan->c);
    if (plan->scratchpad != NULL) dnnl_memory_destroy(plan->scratchpad);
    if (plan->product != NULL) dnnl_primitive_destroy(plan->product);
    *plan = (struct gemm_plan){0};
}

/* A matrix of rows x columns whose transpose may be what is stored. */
static dnnl_status_t gemm_given_layout(dnnl_memory_desc_t *layout, int64_t rows, int64_t columns,
                                       bool transposed, int64_t stride)
{
    dnnl_dims_t extents = {rows, columns};
    dnnl_dims_t strides = {transposed ? 1 : stride, transposed ? stride : 1};
    return dnnl_memory_desc_init_by_strides(layout, 2, extents, dnnl_f32, strides);
}

/* Whatever layout the primitive likes best, in the product's dtype. */
static dnnl_status_t gemm_any_layout(dnnl_memory_desc_t *layout, int64_t rows, int64_t columns,
                                     bool bf16)
{
    dnnl_dims_t extents = {rows, columns};
    return dnnl_memory_desc_init_by_tag(layout, 2, extents, bf16 ? dnnl_bf16 : dnnl_f32,
                                        dnnl_format_tag_any);
}

/* alpha as a scale of the product, beta as a scaled sum with what c holds. */
static dnnl_status_t gemm_attributes(const struct gemm_key *key, dnnl_primitive_attr_t attributes)
{
    dnnl_status_t status =
        dnnl_primitive_attr_set_scratchpad_mode(attributes, dnnl_scratchpad_mode_user);
    float alpha = (float)key->alpha;
    if (status == dnnl_success && alpha != 1.0f)
        status = dnnl_primitive_attr_set_output_scales(attributes, 1, 0, &alpha);
    if (status != dnnl_success || key->beta == 0.0) return status;
    dnnl_post_ops_t sum;
    status = dnnl_post_ops_create(&sum);
    if (status != dnnl_success) return status;
    status = dnnl_post_ops_append_sum(sum, (float)key->beta);
    if (status == dnnl_success) status = dnnl_primitive_attr_set_post_ops(attributes, sum);
    dnnl_post_ops_destroy(sum);
    return status;
}

static dnnl_status_t gemm_memory(struct gemm_cache *cache, const dnnl_memory_desc_t *layout,
                                 dnnl_memory_t *memory)
{
    return dnnl_memory_create(memory, layout, cache->engine, DNNL_MEMORY_NONE);
}

/* Builds the operand's memories, and the reorder where the product wants another layout than given.
 */
static dnnl_status_t gemm_operand_build(struct gemm_cache *cache, struct gemm_operand *operand,
                                        const dnnl_memory_desc_t *given,
                                        const dnnl_memory_desc_t *wanted)
{
    dnnl_status_t status = gemm_memory(cache, given, &operand->given);
    if (status != dnnl_success || dnnl_memory_desc_equal(given, wanted)) return status;
    status = gemm_memory(cache, wanted, &operand->packed);
    if (status != dnnl_success) return status;
    operand->packed_bytes = dnnl_memory_desc_get_size(wanted);
    dnnl_primitive_desc_t description;
    status = dnnl_reorder_primitive_desc_create(&description, given, cache->engine, wanted,
                                                cache->engine, NULL);
    if (status != dnnl_success) return status;
    status = dnnl_primitive_create(&operand->reorder, description);
    dnnl_primitive_desc_destroy(description);
    return status;
}

/* Describes the product and lets oneDNN choose layouts where it may. given has the layouts of a, b
 * and c. */
static dnnl_status_t gemm_describe(struct gemm_cache *cache, const struct gemm_key *key,
                                   const dnnl_memory_desc_t given[3],
                                   dnnl_primitive_desc_t *description)
{
    dnnl_memory_desc_t a = given[0], b = given[1];
    bool pack_b = key->bf16 || (key->transpose_b && key->M >= GEMM_PACK_ROWS);
    dnnl_status_t status = dnnl_success;
    if (key->bf16) status = gemm_any_layout(&a, key->M, key->K, true);
    if (status == dnnl_success && pack_b)
        status = gemm_any_layout(&b, key->K, key->N, key->bf16 != 0);
    dnnl_matmul_desc_t product;
    if (status == dnnl_success) status = dnnl_matmul_desc_init(&product, &a, &b, NULL, &given[2]);
    if (status != dnnl_success) return status;
    dnnl_primitive_attr_t attributes;
    status = dnnl_primitive_attr_create(&attributes);
    if (status != dnnl_success) return status;
    status = gemm_attributes(key, attributes);
    if (status == dnnl_success)
        status = dnnl_primitive_desc_create(description, &product, attributes, cache->engine, NULL);
    dnnl_primitive_attr_destroy(attributes);
    return status;
}

static dnnl_status_t gemm_plan_build(struct gemm_cache *cache, struct gemm_plan *plan)
{
    const struct gemm_key *key = &plan->key;
    dnnl_memory_desc_t given[3];
    dnnl_status_t status =
        gemm_given_layout(&given[0], key->M, key->K, key->transpose_a, key->a_stride);
    if (status == dnnl_success)
        status = gemm_given_layout(&given[1], key->K, key->N, key->transpose_b, key->b_stride);
    if (status == dnnl_success)
        status = gemm_given_layout(&given[2], key->M, key->N, false, key->c_stride);
    dnnl_primitive_desc_t description;
    if (status == dnnl_success) status = gemm_describe(cache, key, given, &description);
    if (status != dnnl_success) return status;

    const dnnl_memory_desc_t *scratchpad =
        dnnl_primitive_desc_query_md(description, dnnl_query_scratchpad_md, 0);
    plan->scratchpad_bytes = dnnl_memory_desc_get_size(scratchpad);
    status = gemm_memory(cache, scratchpad, &plan->scratchpad);
    if (status == dnnl_success)
        status =
            gemm_operand_build(cache, &plan->a, &given[0],
                               dnnl_primitive_desc_query_md(description, dnnl_query_src_md, 0));
    if (status == dnnl_success)
        status =
            gemm_operand_build(cache, &plan->b, &given[1],
                               dnnl_primitive_desc_query_md(description, dnnl_query_weights_md, 0));
    if (status == dnnl_success) status = gemm_memory(cache, &given[2], &plan->c);
    if (status == dnnl_success) status = dnnl_primitive_create(&plan->product, description);
    dnnl_primitive_desc_destroy(description);
    return status;
}

/* ---- The cache ------------------------------------------------------------------------------- */

plx_status gemm_cache_create(struct gemm_cache **cache, struct error *err)
{
    *cache = calloc(1, sizeof **cache);
    REQUIRE(err, *cache != NULL, PLX_OUT_OF_MEMORY, "cannot allocate the table of matrix products");
    dnnl_status_t status = dnnl_engine_create(&(*cache)->engine, dnnl_cpu, 0);
    if (status == dnnl_success)
        status = dnnl_stream_create(&(*cache)->stream, (*cache)->engine, dnnl_stream_default_flags);
    if (status == dnnl_success) return PLX_OK;
    gemm_cache_destroy(*cache);
    *cache = NULL;
    return error_set(err, PLX_INTERNAL, "oneDNN cannot start: %s", dnnl_status2str(status));
}

void gemm_cache_destroy(struct gemm_cache *cache)
{
    if (cache == NULL) return;
    for (int i = 0; i < cache->count; i++) gemm_plan_destroy(&cache->plans[i]);
    if (cache->stream != NULL) dnnl_stream_destroy(cache->stream);
    if (cache->engine != NULL) dnnl_engine_destroy(cache->engine);
    free(cache);
}

/* A free row, or the one unused for longest, emptied. */
static struct gemm_plan *gemm_cache_row(struct gemm_cache *cache)
{
    if (cache->count < GEMM_PLANS) return &cache->plans[cache->count++];
    struct gemm_plan *oldest = &cache->plans[0];
    for (int i = 1; i < GEMM_PLANS; i++)
        if (cache->plans[i].last_use < oldest->last_use) oldest = &cache->plans[i];
    gemm_plan_destroy(oldest);
    return oldest;
}

/* oneDNN takes its number of threads from OpenMP, both when a plan is built and when it runs. */
static dnnl_status_t gemm_cache_find(struct gemm_cache *cache, const struct gemm_key *key,
                                     struct gemm_plan **found)
{
    cache->uses++;
    for (int i = 0; i < cache->count; i++) {
        if (memcmp(&cache->plans[i].key, key, sizeof *key) != 0) continue;
        cache->plans[i].last_use = cache->uses;
        *found = &cache->plans[i];
        return dnnl_success;
    }
    struct gemm_plan plan = {.key = *key, .last_use = cache->uses};
    int threads = omp_get_max_threads();
    omp_set_num_threads(key->threads);
    dnnl_status_t status = gemm_plan_build(cache, &plan);
    omp_set_num_threads(threads);
    if (status != dnnl_success) {
        gemm_plan_destroy(&plan);
        return status;
    }
    *found = gemm_cache_row(cache);
    **found = plan;
    return dnnl_success;
}

plx_status gemm_supported(struct gemm_cache *cache, plx_dtype compute, struct error *err)
{
    struct gemm_key key = {.M = 16, .N = 16, .K = 16, .alpha = 1.0, .threads = 1};
    key.a_stride = key.b_stride = key.c_stride = 16;
    key.bf16 = compute == PLX_BF16;
    struct gemm_plan *plan;
    dnnl_status_t status = gemm_cache_find(cache, &key, &plan);
    REQUIRE(err, status == dnnl_success, PLX_UNSUPPORTED,
            "oneDNN has no %s matrix products on this processor: %s", plx_dtype_name(compute),
            dnnl_status2str(status));
    return PLX_OK;
}

/* ---- Products -------------------------------------------------------------------------------- */

static int64_t gemm_row_stride(const struct plx_tensor *matrix)
{
    /* The stride of a single row means nothing, but oneDNN refuses one shorter than the row. */
    return matrix->shape[0] == 1 ? matrix->shape[1] : matrix->stride[0];
}

static struct gemm_key gemm_key_of(const struct backend *be, const struct gemm *gemm)
{
    return (struct gemm_key){
        .M = gemm->c->shape[0],
        .N = gemm->c->shape[1],
        .K = gemm->a->shape[gemm->transpose_a ? 0 : 1],
        .a_stride = gemm_row_stride(gemm->a),
        .b_stride = gemm_row_stride(gemm->b),
        .c_stride = gemm_row_stride(gemm->c),
        .alpha = gemm->alpha,
        .beta = gemm->beta,
        .transpose_a = gemm->transpose_a,
        .transpose_b = gemm->transpose_b,
        .bf16 = be->compute == PLX_BF16,
        .threads = be->threads,
    };
}

/* NULL with PLX_OK where there is nothing to multiply. */
static plx_status gemm_plan_of(struct backend *be, const struct gemm *gemm, struct gemm_plan **plan)
{
    struct gemm_cache *cache = ((struct cpu_state *)be->ops_state)->gemms;
    struct gemm_key key = gemm_key_of(be, gemm);
    *plan = NULL;
    if (key.M == 0 || key.N == 0 || key.K == 0) return PLX_OK;
    dnnl_status_t status = gemm_cache_find(cache, &key, plan);
    REQUIRE(be->err, status == dnnl_success,
            status == dnnl_out_of_memory ? PLX_OUT_OF_MEMORY : PLX_INTERNAL,
            "gemm: oneDNN cannot multiply %lldx%lld by %lldx%lld: %s", (long long)key.M,
            (long long)key.K, (long long)key.K, (long long)key.N, dnnl_status2str(status));
    return PLX_OK;
}

static size_t gemm_aligned(size_t bytes)
{
    return (bytes + 63) / 64 * 64;
}

static size_t gemm_plan_scratch(const struct gemm_plan *plan)
{
    return gemm_aligned(plan->a.packed_bytes) + gemm_aligned(plan->b.packed_bytes) +
           gemm_aligned(plan->scratchpad_bytes);
}

plx_status gemm_scratch(struct backend *be, const struct gemm *gemm, size_t *bytes)
{
    struct gemm_slice slice;
    struct gemm first = gemm_slice(gemm, 0, &slice);
    struct gemm_plan *plan;
    TRY(gemm_plan_of(be, &first, &plan));
    *bytes = plan != NULL ? gemm_plan_scratch(plan) : 0;
    return PLX_OK;
}

/* Packs an operand if the plan does, and says which memory the product reads. */
static dnnl_status_t gemm_operand_ready(struct gemm_cache *cache, struct gemm_operand *operand,
                                        void *data, unsigned char **scratch, dnnl_memory_t *ready)
{
    dnnl_status_t status = dnnl_memory_set_data_handle(operand->given, data);
    *ready = operand->given;
    if (status != dnnl_success || operand->reorder == NULL) return status;
    status = dnnl_memory_set_data_handle(operand->packed, *scratch);
    *scratch += gemm_aligned(operand->packed_bytes);
    *ready = operand->packed;
    if (status != dnnl_success) return status;
    dnnl_exec_arg_t arguments[] = {{DNNL_ARG_FROM, operand->given}, {DNNL_ARG_TO, operand->packed}};
    return dnnl_primitive_execute(operand->reorder, cache->stream, 2, arguments);
}

static dnnl_status_t gemm_plan_run(struct gemm_cache *cache, struct gemm_plan *plan,
                                   const struct gemm *gemm, unsigned char *scratch)
{
    dnnl_memory_t a, b;
    dnnl_status_t status = gemm_operand_ready(cache, &plan->a, gemm->a->data, &scratch, &a);
    if (status == dnnl_success)
        status = gemm_operand_ready(cache, &plan->b, gemm->b->data, &scratch, &b);
    if (status == dnnl_success) status = dnnl_memory_set_data_handle(plan->c, gemm->c->data);
    if (status == dnnl_success && plan->scratchpad_bytes > 0)
        status = dnnl_memory_set_data_handle(plan->scratchpad, scratch);
    if (status != dnnl_success) return status;
    dnnl_exec_arg_t arguments[] = {{DNNL_ARG_SRC, a},
                                   {DNNL_ARG_WEIGHTS, b},
                                   {DNNL_ARG_DST, plan->c},
                                   {DNNL_ARG_SCRATCHPAD, plan->scratchpad}};
    status = dnnl_primitive_execute(plan->product, cache->stream, 4, arguments);
    return status == dnnl_success ? dnnl_stream_wait(cache->stream) : status;
}

/* c = beta c, which is all that is left of a product over nothing. */
static void gemm_no_product(const struct gemm *gemm)
{
    const struct plx_tensor *c = gemm->c;
    for (int64_t m = 0; m < c->shape[0]; m++) {
        float *row = (float *)c->data + m * c->stride[0];
        for (int64_t n = 0; n < c->shape[1]; n++)
            row[n] = gemm->beta == 0.0 ? 0.0f : (float)gemm->beta * row[n];
    }
}

/* A product of rank 2. What is added waits in c, where oneDNN adds to it. */
static plx_status gemm_product(struct backend *be, const struct gemm *gemm)
{
    bool adds = gemm->add != NULL && gemm->add->data != gemm->c->data && gemm->beta != 0.0;
    if (adds) TRY(cpu_copy(be, gemm->c, gemm->add));
    struct gemm_plan *plan;
    TRY(gemm_plan_of(be, gemm, &plan));
    if (plan == NULL) {
        gemm_no_product(gemm);
        return PLX_OK;
    }
    struct gemm_cache *cache = ((struct cpu_state *)be->ops_state)->gemms;
    size_t mark = arena_mark(&be->scratch);
    void *scratch;
    plx_status status = scratch_push(be, "gemm", gemm_plan_scratch(plan), &scratch);
    if (status == PLX_OK) {
        int threads = omp_get_max_threads();
        omp_set_num_threads(be->threads);
        dnnl_status_t result = gemm_plan_run(cache, plan, gemm, scratch);
        omp_set_num_threads(threads);
        if (result != dnnl_success)
            status = error_set(be->err, PLX_INTERNAL, "gemm: oneDNN failed: %s",
                               dnnl_status2str(result));
    }
    arena_release(&be->scratch, mark);
    return status;
}

plx_status gemm_products(struct backend *be, const struct gemm *gemm)
{
    for (int64_t i = 0; i < gemm_count(gemm); i++) {
        struct gemm_slice slice;
        struct gemm product = gemm_slice(gemm, i, &slice);
        TRY(gemm_product(be, &product));
    }
    return PLX_OK;
}
