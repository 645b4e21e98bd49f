/* test_gpu_optim.c: whole optimiser steps on a GPU against ops_ref in double, over more parameters
 * than a launch takes and of shapes that no vector fits.
 *
 * The tolerance is compare.h's. The yardstick of Muon with bf16 directions is the reference in
 * float with every product and direction rounded to bf16 as it is written. A gradient that is not
 * finite must leave every bit where it is. Without a GPU the program says "skipped, no GPU" and
 * exits with 77. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../rounded_ops.h"
#include "compare.h"
#include "core/transfer.h"
#include "device_memory.h"
#include "ops/gemm_slice.h"
#include "optim/optim.h"

/* ---- Backends ---- */

static plx_status rounded_momentum(struct backend *be, const struct muon_update *update)
{
    TRY(ops_ref.momentum(be, update));
    rounded_tensor(update->directions);
    return PLX_OK;
}

static plx_status rounded_normalise(struct backend *be, const struct plx_tensor *y,
                                    const struct plx_tensor *x, double factor, double eps)
{
    TRY(ops_ref.normalise(be, y, x, factor, eps));
    rounded_tensor(y);
    return PLX_OK;
}

/* One row of a matrix, or one column, as a matrix. */
static void keep_line(struct plx_tensor *matrix, int axis, int64_t index)
{
    const int64_t offset = index * matrix->stride[axis];
    if (matrix->data)
        matrix->data = (char *)matrix->data + offset * (int64_t)plx_dtype_size(matrix->dtype);
    matrix->shape[axis] = 1;
}

/* The reference's products, which take nearly all of the time, a row at a time by several threads:
 * every number is what it would be. */
static plx_status threaded_product(struct backend *be, const struct gemm *gemm)
{
    const int64_t rows = gemm->c->shape[gemm->c->rank - 2], count = gemm_count(gemm) * rows;
    plx_status status = PLX_OK;
#pragma omp parallel for schedule(static)
    for (int64_t n = 0; n < count; n++) {
        struct gemm_slice slice;
        struct gemm product = gemm_slice(gemm, n / rows, &slice);
        keep_line(&slice.a, gemm->transpose_a ? 1 : 0, n % rows);
        keep_line(&slice.c, 0, n % rows);
        if (gemm->add) keep_line(&slice.add, 0, n % rows);
        const plx_status one = ops_ref.gemm(be, &product);
        if (one == PLX_OK) continue;
#pragma omp atomic write
        status = one;
    }
    return status;
}

static const struct ops *threaded_reference(void)
{
    static struct ops table;
    table = ops_ref;
    table.gemm = threaded_product;
    return &table;
}

/* Unlike a model's gradients, every product of Muon's is in bf16. */
static plx_status rounded_product(struct backend *be, const struct gemm *gemm)
{
    TRY(threaded_product(be, gemm));
    rounded_tensor(gemm->c);
    return PLX_OK;
}

static const struct ops *rounded_updates(void)
{
    static struct ops table;
    table = ops_ref;
    table.momentum = rounded_momentum;
    table.normalise = rounded_normalise;
    table.gemm = rounded_product;
    return &table;
}

enum { EXACT, NAIVE_F32, NAIVE_BF16, GPU_F32, GPU_BF16, BACKENDS };

static struct backend_config backend_of(int which)
{
    const struct backend_config configs[BACKENDS] = {
        [EXACT] = {.ops = threaded_reference(),
                   .storage = PLX_F64,
                   .compute = PLX_F64,
                   .threads = 1},
        [NAIVE_F32] = {.ops = threaded_reference(), .threads = 1},
        [NAIVE_BF16] = {.ops = rounded_updates(), .compute = PLX_BF16, .threads = 1},
        [GPU_F32] = {.ops = &ops_cuda},
        [GPU_BF16] = {.ops = &ops_cuda, .compute = PLX_BF16, .bf16_activations = true}};
    return configs[which];
}

/* ---- A parameter list on one of them ---- */

static const struct {
    enum param_group group;
    int rank;
    int64_t shape[2];
    int count;
} kinds[] = {
    {PARAM_EMBEDDING, 2, {301, 96}, 1}, {PARAM_NORM, 1, {96, 0}, 3},
    {PARAM_MATRIX, 2, {8, 12}, 131},    {PARAM_MATRIX, 2, {7, 5}, 67},
    {PARAM_MATRIX, 2, {130, 66}, 2},    {PARAM_MATRIX, 2, {66, 130}, 2},
    {PARAM_BIAS, 1, {4099, 0}, 2},      {PARAM_MATRIX, 2, {256, 128}, 1},
    {PARAM_MATRIX, 2, {136, 264}, 1},   {PARAM_MATRIX, 2, {264, 136}, 2},
    {PARAM_MATRIX, 2, {128, 128}, 1},   {PARAM_MATRIX, 2, {72, 200}, 5},
};
enum { KINDS = sizeof kinds / sizeof *kinds };

struct side {
    struct error err;
    struct backend be;
    struct param_list params;
    struct arena values, grads;
    struct optim *optim;
};

static void must(struct side *side, plx_status status)
{
    if (status != PLX_OK) fail_msg("%s", side->err.text);
}

/* Fills a tensor with the floats of a stream, on any device and in any dtype of numbers. */
static void fill(struct side *side, const struct plx_tensor *tensor, uint64_t stream, double size)
{
    struct rng rng = rng_make(17, stream);
    int64_t count = plx_tensor_count(tensor);
    void *host = malloc((size_t)count * sizeof(double));
    assert_non_null(host);
    for (int64_t i = 0; i < count; i++) {
        float value = (float)(size * rng_normal(&rng));
        if (tensor->dtype == PLX_F64)
            ((double *)host)[i] = value;
        else
            ((float *)host)[i] = value;
    }
    must(side, transfer_upload(side->be.device, side->be.stream, tensor, host, &side->err));
    free(host);
}

static void fill_grads(struct side *side, int step)
{
    for (int i = 0; i < side->params.count; i++)
        fill(side, &side->params.items[i].grad, (uint64_t)(1000 * step + i), 0.01);
}

static void carve(struct side *side)
{
    param_list_carve_values(&side->params, &side->values);
    param_list_carve_active(&side->params, backend_precision(&side->be), &side->values);
    param_list_carve_grads(&side->params, &side->grads);
}

/* halved: states in bf16, but for the exact ones. */
static void side_open(struct side *side, int which, const char *optimizer, bool halved)
{
    *side = (struct side){.optim = NULL};
    const struct backend_config config = backend_of(which);
    must(side, backend_create(&side->be, &config, &side->err));
    struct backend *be = &side->be;
    for (int k = 0; k < KINDS; k++)
        for (int i = 0; i < kinds[k].count; i++)
            assert_true(param_add(&side->params, be->storage, kinds[k].rank, kinds[k].shape,
                                  PARAM_INIT_ZERO, 0, kinds[k].group, "p.%d.%d", k, i) >= 0);
    side->values = side->grads = arena_measuring(be->device);
    carve(side);
    size_t values = side->values.peak, grads = side->grads.peak;
    must(side, arena_create(&side->values, be->device, be->stream, values, &side->err));
    must(side, arena_create(&side->grads, be->device, be->stream, grads, &side->err));
    carve(side);
    for (int i = 0; i < side->params.count; i++)
        fill(side, &side->params.items[i].value, (uint64_t)i, 0.02);
    struct optim_config optim = optim_config_default(optimizer);
    optim.lr = 0.02;
    optim.clip = 0.5;
    optim.bf16_moments = halved && which != EXACT;
    must(side, optim_create(be, &optim, &side->params, &side->optim));
    must(side, backend_refresh(be, &side->params));
}

static void side_close(struct side *side)
{
    optim_destroy(side->optim);
    param_list_destroy(&side->params);
    arena_destroy(&side->values);
    arena_destroy(&side->grads);
    backend_destroy(&side->be);
}

/* A tensor as the device holds it. */
static void *bytes_of(struct side *side, const struct plx_tensor *tensor)
{
    void *host = malloc((size_t)plx_tensor_count(tensor) * plx_dtype_size(tensor->dtype) + 1);
    assert_non_null(host);
    must(side, transfer_download(side->be.device, side->be.stream, tensor, host, &side->err));
    return host;
}

static double *numbers_of(struct side *side, const struct plx_tensor *tensor)
{
    int64_t count = plx_tensor_count(tensor);
    void *host = bytes_of(side, tensor);
    double *numbers = malloc((size_t)(count + 1) * sizeof *numbers);
    assert_non_null(numbers);
    for (int64_t i = 0; i < count; i++)
        numbers[i] = tensor->dtype == PLX_F64 ? ((double *)host)[i] : ((float *)host)[i];
    free(host);
    return numbers;
}

/* ---- Steps ---- */

enum { STEPS = 3 };

static void run(struct side *side, int which, const char *optimizer, bool halved)
{
    struct optim_report report;
    side_open(side, which, optimizer, halved);
    for (int step = 1; step <= STEPS; step++) {
        fill_grads(side, step);
        must(side, optim_step(side->optim, 1.0, 1.0));
    }
    must(side, optim_read_report(side->optim, &report));
    assert_true(report.grad_norm > 1.0); /* so that the gradients were scaled */
    assert_int_equal(side->be.scratch.used, 0);
    assert_false(arena_overflowed(&side->be.scratch));
}

/* What the steps added to the parameters of a kind, which is what may be wrong: all of them behind
 * each other, since the largest error of one small matrix is a matter of luck. */
static double *change_of(struct side *side, int kind, int64_t *count)
{
    double *all = NULL;
    char prefix[16];
    snprintf(prefix, sizeof prefix, "p.%d.", kind);
    *count = 0;
    for (int row = 0; row < side->params.count; row++) {
        const struct param *param = &side->params.items[row];
        if (strncmp(param->name, prefix, strlen(prefix)) != 0) continue;
        int64_t size = plx_tensor_count(&param->value);
        double *numbers = numbers_of(side, &param->value);
        struct rng rng = rng_make(17, (uint64_t)row);
        all = realloc(all, (size_t)(*count + size) * sizeof *all);
        assert_non_null(all);
        for (int64_t i = 0; i < size; i++)
            all[*count + i] = numbers[i] - (float)(0.02 * rng_normal(&rng));
        *count += size;
        free(numbers);
    }
    return all;
}

static void compare_kind(struct side *gpu, struct side *naive, struct side *exact, int kind,
                         const char *what)
{
    int64_t count;
    double *got = change_of(gpu, kind, &count), *naively = change_of(naive, kind, &count),
           *expected = change_of(exact, kind, &count);
    struct comparison error = compare_values(got, expected, count);
    struct comparison allowed = compare_values(naively, expected, count);
    /* The change is a difference of weights, whose last place is larger than its own. */
    allowed.max_abs += 0x1p-24 * 0.1;
    allowed.rms += 0x1p-24 * 0.02;
    if (!compare_within(&error, &allowed, PLX_F32, NULL)) {
        char text[512];
        compare_describe(text, sizeof text, &error, got, expected, 1, &count);
        fail_msg("%s, kind %d: %s; naive max abs %.3g", what, kind, text, allowed.max_abs);
    }
    free(got), free(naively), free(expected);
}

/* Copies in bf16 must be the values, rounded. */
static void check_copies(struct side *gpu)
{
    for (int row = 0; row < gpu->params.count; row++) {
        const struct param *param = &gpu->params.items[row];
        if (param->active.data == param->value.data) continue;
        uint16_t *copy = bytes_of(gpu, &param->active);
        float *value = bytes_of(gpu, &param->value);
        struct plx_tensor view = plx_tensor_dense(value, PLX_F32, 2, param->value.shape);
        rounded_tensor(&view);
        for (int64_t i = 0; i < plx_tensor_count(&view); i++) {
            uint32_t bits;
            memcpy(&bits, &value[i], sizeof bits);
            assert_int_equal(bits >> 16, copy[i]);
        }
        free(copy), free(value);
    }
}

static void steps_follow_the_reference(void **state)
{
    (void)state;
    static const char *const optimizers[] = {"adamw", "muon"};
    for (int n = 0; n < 2; n++) {
        struct side exact;
        run(&exact, EXACT, optimizers[n], false);
        for (int i = 0; i < 4; i++) {
            const bool rounds = i % 2 == 1, halved = i >= 2;
            struct side gpu, naive;
            run(&gpu, rounds ? GPU_BF16 : GPU_F32, optimizers[n], halved);
            run(&naive, rounds ? NAIVE_BF16 : NAIVE_F32, optimizers[n], halved);
            for (int kind = 0; kind < KINDS; kind++)
                compare_kind(&gpu, &naive, &exact, kind, optimizers[n]);
            check_copies(&gpu);
            side_close(&gpu), side_close(&naive);
        }
        side_close(&exact);
    }
}

/* ---- Gradients that are not finite ---- */

/* Values, copies and state, one behind the other. */
struct snapshot {
    unsigned char *bytes;
    size_t size;
};

static void snapshot_add(struct snapshot *snapshot, struct side *side,
                         const struct plx_tensor *tensor)
{
    size_t size = (size_t)plx_tensor_count(tensor) * plx_dtype_size(tensor->dtype);
    void *bytes = bytes_of(side, tensor);
    snapshot->bytes = realloc(snapshot->bytes, snapshot->size + size);
    assert_non_null(snapshot->bytes);
    memcpy(snapshot->bytes + snapshot->size, bytes, size);
    snapshot->size += size;
    free(bytes);
}

static struct snapshot snapshot_take(struct side *side)
{
    struct snapshot snapshot = {NULL, 0};
    struct optim_tensor state;
    for (int i = 0; i < side->params.count; i++) {
        snapshot_add(&snapshot, side, &side->params.items[i].value);
        snapshot_add(&snapshot, side, &side->params.items[i].active);
    }
    for (int i = 0; optim_state(side->optim, i, &state); i++)
        snapshot_add(&snapshot, side, &state.tensor);
    return snapshot;
}

static void bad_gradients_change_no_bit(void **state)
{
    (void)state;
    static const char *const optimizers[] = {"adamw", "muon"};
    enum { ROW = 70 };
    for (int i = 0; i < 4; i++) {
        struct side gpu;
        run(&gpu, GPU_BF16, optimizers[i % 2], i >= 2);
        struct snapshot before = snapshot_take(&gpu);
        fill(&gpu, &gpu.params.items[ROW].grad, 0, INFINITY);
        must(&gpu, optim_step(gpu.optim, 1.0, 1.0));
        fill_grads(&gpu, STEPS + 1);
        must(&gpu, optim_step(gpu.optim, 1.0, 1.0));
        struct snapshot after = snapshot_take(&gpu);
        assert_int_equal(before.size, after.size);
        assert_memory_equal(before.bytes, after.bytes, before.size);
        struct optim_report report;
        assert_int_equal(optim_read_report(gpu.optim, &report), PLX_BAD_DATA);
        assert_int_equal(report.bad_step, STEPS + 1);
        assert_false(isfinite(report.grad_norm));
        assert_non_null(strstr(gpu.err.text, gpu.params.items[ROW].name));
        assert_int_equal(optim_steps(gpu.optim), STEPS);
        free(before.bytes), free(after.bytes);
        side_close(&gpu);
    }
}

/* The same steps twice, on memory of their own. */
static void steps_repeat_bit_for_bit(void **state)
{
    (void)state;
    static const char *const optimizers[] = {"adamw", "muon"};
    for (int i = 0; i < 4; i++) {
        struct side first, second;
        run(&first, GPU_BF16, optimizers[i % 2], i >= 2);
        run(&second, GPU_BF16, optimizers[i % 2], i >= 2);
        struct snapshot a = snapshot_take(&first), b = snapshot_take(&second);
        assert_int_equal(a.size, b.size);
        assert_memory_equal(a.bytes, b.bytes, a.size);
        free(a.bytes), free(b.bytes);
        side_close(&first), side_close(&second);
    }
}

/* ---- Matrices that are hard to orthogonalise ---- */

/* Values [count], rounded to bf16: independent numbers, times a scale that falls over the rows and
 * one that falls over the columns, or beside a product of two vectors that outweighs them. */
struct hard_case {
    const char *name;
    int64_t matrices, rows, columns;
    double row_scale, column_scale; /* of the last against the first */
    double noise;                   /* beside the product; 0: no product */
    struct muon_iteration iteration;
};

static const struct hard_case hard_cases[] = {
    {"plain", 2, 128, 320, 1, 1, 0, {MUON_QUINTIC, 5}},
    {"plain, tall", 2, 320, 128, 1, 1, 0, {MUON_POLAR_EXPRESS, 5}},
    {"square", 2, 256, 256, 1, 1, 0, {MUON_POLAR_MODDED, 5}},
    {"ragged", 1, 200, 136, 1, 1, 0, {MUON_OPT, 5}},
    {"narrow", 2, 8, 72, 1, 1, 0, {MUON_QUINTIC, 5}},
    {"small", 1, 128, 192, 1e-4, 1, 0, {MUON_POLAR_EXPRESS, 5}},
    {"graded", 1, 136, 192, 1e-2, 1e-2, 0, {MUON_QUINTIC, 5}},
    {"graded, tall", 1, 192, 136, 1e-3, 1e-3, 0, {MUON_POLAR_EXPRESS, 5}},
    {"nearly of rank 1", 1, 128, 192, 1, 1, 1e-2, {MUON_QUINTIC, 5}},
    {"nearly of rank 1, tall", 1, 192, 128, 1, 1, 1e-2, {MUON_POLAR_EXPRESS, 5}},
    {"two steps", 1, 128, 192, 1, 1e-2, 0, {MUON_POLAR_EXPRESS, 2}},
    {"three steps", 1, 192, 128, 1, 1e-2, 0, {MUON_POLAR_EXPRESS, 3}},
    {"one step", 1, 128, 192, 1, 1, 0, {MUON_QUINTIC, 1}},
    {"ten steps", 1, 128, 136, 1e-2, 1, 0, {MUON_QUINTIC, 10}},
};

static float *hard_values(const struct hard_case *c, uint64_t seed)
{
    const int64_t A = c->rows, B = c->columns, count = c->matrices * A * B;
    float *values = malloc((size_t)count * sizeof *values);
    assert_non_null(values);
    struct rng rng = rng_make(23, seed), vectors = rng_make(29, seed);
    double *left = malloc((size_t)(A + B) * sizeof *left), *right = left + A;
    assert_non_null(left);
    for (int64_t i = 0; i < A + B; i++) left[i] = rng_normal(&vectors);
    for (int64_t i = 0; i < count; i++) {
        const int64_t row = i / B % A, column = i % B;
        const double scale = pow(c->row_scale, (double)row / (double)A) *
                             pow(c->column_scale, (double)column / (double)B);
        const double own = scale * rng_normal(&rng);
        values[i] = (float)(c->noise > 0 ? left[row] * right[column] + c->noise * own : own);
    }
    free(left);
    struct plx_tensor view = plx_tensor_dense(values, PLX_F32, 1, &count);
    rounded_tensor(&view);
    return values;
}

/* Those values, orthogonalised by one of the backends. */
static double *hard_result(const struct hard_case *c, struct side *side, const float *values)
{
    const struct backend *be = &side->be;
    const int64_t shape[3] = {c->matrices, c->rows, c->columns};
    struct plx_tensor x = plx_tensor_dense(NULL, be->activation, 3, shape);
    const int64_t count = plx_tensor_count(&x);
    struct arena arena;
    must(side, arena_create(&arena, be->device, be->stream, (size_t)count * 8 + 256, &side->err));
    x = arena_tensor(&arena, be->activation, 3, shape);
    double *result = malloc((size_t)count * sizeof *result);
    assert_non_null(result);
    for (int64_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, &values[i], sizeof bits);
        if (x.dtype == PLX_F64)
            result[i] = values[i];
        else if (x.dtype == PLX_F32)
            ((float *)result)[i] = values[i];
        else
            ((uint16_t *)result)[i] = (uint16_t)(bits >> 16);
    }
    must(side, transfer_upload(be->device, be->stream, &x, result, &side->err));
    struct backend dry = backend_dry(be);
    must(side, muon_orthogonalise(&dry, &c->iteration, &x, &x));
    must(side, backend_reserve(&side->be, dry.scratch.peak));
    must(side, muon_orthogonalise(&side->be, &c->iteration, &x, &x));
    assert_int_equal(be->scratch.used, 0);
    must(side, transfer_download(be->device, be->stream, &x, result, &side->err));
    for (int64_t i = count - 1; i >= 0; i--) {
        uint32_t bits = (uint32_t)((uint16_t *)result)[i] << 16;
        float narrow = ((float *)result)[i];
        if (x.dtype == PLX_BF16) memcpy(&narrow, &bits, sizeof narrow);
        if (x.dtype != PLX_F64) result[i] = narrow;
    }
    arena_destroy(&arena);
    return result;
}

static void hard_matrices_follow_the_reference(void **state)
{
    (void)state;
    struct side exactly = {.optim = NULL}, naively = exactly, gpu = exactly;
    const struct backend_config configs[] = {backend_of(EXACT), backend_of(NAIVE_BF16),
                                             backend_of(GPU_BF16)};
    must(&exactly, backend_create(&exactly.be, &configs[0], &exactly.err));
    must(&naively, backend_create(&naively.be, &configs[1], &naively.err));
    must(&gpu, backend_create(&gpu.be, &configs[2], &gpu.err));
    for (size_t i = 0; i < sizeof hard_cases / sizeof *hard_cases; i++) {
        const struct hard_case *c = &hard_cases[i];
        const int64_t shape[3] = {c->matrices, c->rows, c->columns};
        const int64_t count = shape[0] * shape[1] * shape[2];
        float *values = hard_values(c, i);
        double *exact = hard_result(c, &exactly, values), *naive = hard_result(c, &naively, values);
        double *got = hard_result(c, &gpu, values), *again = hard_result(c, &gpu, values);
        assert_memory_equal(got, again, (size_t)count * sizeof *got);
        struct comparison error = compare_values(got, exact, count);
        struct comparison allowed = compare_values(naive, exact, count);
        if (!compare_within(&error, &allowed, PLX_BF16, NULL)) {
            char text[512];
            compare_describe(text, sizeof text, &error, got, exact, 3, shape);
            fail_msg("%s: %s; naive max abs %.3g, rms ratio %.3g", c->name, text, allowed.max_abs,
                     allowed.rms_ratio);
        }
        free(values), free(exact), free(naive), free(got), free(again);
    }
    backend_destroy(&exactly.be), backend_destroy(&naively.be), backend_destroy(&gpu.be);
}

int main(void)
{
    if (!device_ready()) return 77;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(steps_follow_the_reference),
        cmocka_unit_test(bad_gradients_change_no_bit),
        cmocka_unit_test(steps_repeat_bit_for_bit),
        cmocka_unit_test(hard_matrices_follow_the_reference),
    };
    return cmocka_run_group_tests_name("optimisers on a GPU", tests, NULL, NULL);
}
