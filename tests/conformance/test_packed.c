/* test_packed.c: packed weights: what packing costs in accuracy, products with them against the
 * double-precision definition by the rule of compare.h, and a model that holds its weights so. */
#include "../model_case.h"
#include "../unit/io_files.h"

#include "compare.h"
#include "convert/convert.h"
#include "core/packed.h"
#include "io/model_file.h"

static const enum packing kinds[] = {PACKING_BF16, PACKING_INT8};

static struct packed make_packed(enum packing kind, int64_t rows, int64_t columns)
{
    struct packed packed = {.kind = kind, .rows = rows, .columns = columns};
    packed.data = malloc(packed_data_bytes(&packed) + 1);
    packed.scale = malloc(packed_scale_bytes(&packed) + 1);
    assert_true(packed.data != NULL && packed.scale != NULL);
    return packed;
}

static void free_packed(struct packed *packed)
{
    free(packed->data);
    free(packed->scale);
}

/* ---- Packing --------------------------------------------------------------------------------- */

/* bf16 is off by at most half a unit of 8 bits and keeps what has no more; int8 by half a scale. */
static void packing_rounds_as_stated(void **state)
{
    (void)state;
    enum { R = 37, K = 53 };
    float values[R * K], back[R * K];
    struct rng rng = rng_make(case_seed("packing"), 1);
    for (int k = 0; k < 2; k++) {
        struct packed packed = make_packed(kinds[k], R, K);
        for (int i = 0; i < R * K; i++)
            values[i] = (float)(rng_normal(&rng) * exp2((double)(i / K) - 20));
        packed_store(&packed, 0, 20, values);
        packed_store(&packed, 20, R - 20, values + 20 * K);
        packed_load(&packed, 0, R, back);
        for (int r = 0; r < R; r++) {
            float largest = 0;
            for (int i = r * K; i < (r + 1) * K; i++) largest = fmaxf(largest, fabsf(values[i]));
            for (int i = r * K; i < (r + 1) * K; i++) {
                double bound = kinds[k] == PACKING_INT8 ? largest / 254 * 1.00001
                                                        : fabs((double)values[i]) / 256;
                assert_true(fabs((double)back[i] - (double)values[i]) <= bound);
            }
        }
        packed_store(&packed, 0, R, back); /* what came out goes in again unchanged */
        packed_load(&packed, 0, R, values);
        for (int i = 0; i < R * K; i++)
            assert_true(fabsf(values[i] - back[i]) <= fabsf(back[i]) * 1e-6f);
        free_packed(&packed);
    }
}

static void unusual_rows_are_packed_too(void **state)
{
    (void)state;
    enum { R = 4, K = 3 };
    const float values[R * K] = {0, -0.0f, 0, NAN, 1, 2, INFINITY, 1, 2, 1e-44f, 0, 0};
    float back[R * K];
    for (int k = 0; k < 2; k++) {
        struct packed packed = make_packed(kinds[k], R, K);
        packed_store(&packed, 0, R, values);
        packed_load(&packed, 0, R, back);
        for (int i = 0; i < K; i++) assert_true(back[i] == 0);
        assert_true(isnan(back[3]));
        assert_false(isfinite(back[6]));
        assert_true(fabsf(back[9]) <= 0x1p-100f);
        free_packed(&packed);
    }
}

/* ---- Products -------------------------------------------------------------------------------- */

struct shape {
    int64_t M, N, K;
};

/* One row, a few, as many as make tiles worth while; sizes that fill no vector, block or tile. */
static const struct shape shapes[] = {{1, 1, 1},    {1, 16, 64},   {1, 33, 1000}, {3, 17, 63},
                                      {5, 130, 65}, {23, 40, 129}, {24, 40, 129}, {70, 1030, 48},
                                      {1, 0, 5},    {0, 4, 5},     {30, 512, 96}, {2, 33, 3000},
                                      {2, 17, 639}};

static void project_on(const struct backend_config *config, const struct shape *shape,
                       const struct packed *packed, const float *x, double *got)
{
    struct error err = {0};
    struct backend be;
    const int64_t xs[2] = {shape->M, shape->K}, ys[2] = {shape->M, shape->N};
    assert_ok(backend_create(&be, config, &err), &err);
    struct plx_tensor in = case_tensor(config->storage, 2, xs),
                      out = case_tensor(config->storage, 2, ys);
    for (int64_t i = 0; i < shape->M * shape->K; i++) case_set(&in, i, x[i]);
    struct backend dry = backend_dry(&be);
    struct plx_tensor none_in = in, none_out = out;
    none_in.data = none_out.data = NULL;
    assert_ok(dry.ops->project(&dry, &none_out, &none_in, packed, NULL), &err);
    assert_ok(backend_reserve(&be, dry.scratch.peak), &err);
    assert_ok(be.ops->project(&be, &out, &in, packed, NULL), &err);
    assert_int_equal(be.scratch.used, 0);
    assert_true(be.scratch.peak <= dry.scratch.peak);
    for (int64_t i = 0; i < shape->M * shape->N; i++) got[i] = case_get(&out, i);
    free(in.data);
    free(out.data);
    backend_destroy(&be);
}

static void check_shape(const struct shape *shape, enum packing kind, struct rng *rng)
{
    static const struct backend_config
        oracle = {.ops = &ops_ref, .storage = PLX_F64, .compute = PLX_F64},
        naive = {.ops = &ops_ref, .storage = PLX_F32},
        fast[] = {{.ops = &ops_cpu, .threads = 2},
                  {.ops = &ops_cpu, .threads = 1},
                  {.ops = &ops_cpu, .threads = 1, .disabled_features = PLX_FEATURE_AVX512_VNNI},
                  {.ops = &ops_cpu, .threads = 1, .disabled_features = ~0u}};
    const int64_t count = shape->M * shape->N;
    struct packed packed = make_packed(kind, shape->N, shape->K);
    float *w = malloc((size_t)(shape->N * shape->K + 1) * sizeof *w),
          *x = malloc((size_t)(shape->M * shape->K + 1) * sizeof *x);
    double *values = malloc((size_t)(6 * count + 1) * sizeof *values);
    for (int64_t i = 0; i < shape->N * shape->K; i++) w[i] = (float)rng_normal(rng);
    for (int64_t i = 0; i < shape->M * shape->K; i++) x[i] = (float)rng_normal(rng);
    /* In every other row one number is far above the rest, as in the activations of large models.
     */
    for (int64_t m = 1; m < shape->M; m += 2)
        x[m * shape->K + (int64_t)rng_below(rng, (uint64_t)shape->K)] *= 300;
    packed_store(&packed, 0, shape->N, w);
    project_on(&oracle, shape, &packed, x, values);
    project_on(&naive, shape, &packed, x, values + count);
    struct comparison reference = compare_values(values + count, values, count);
    for (int f = 0; f < 4; f++) {
        double *got = values + (2 + f) * count;
        project_on(&fast[f], shape, &packed, x, got);
        struct comparison kernel = compare_values(got, values, count);
        if (!compare_within(&kernel, &reference, PLX_F32, NULL))
            fail_msg("%s [%lld,%lld,%lld], variant %d: max abs %g, naive %g", packing_name(kind),
                     (long long)shape->M, (long long)shape->N, (long long)shape->K, f,
                     kernel.max_abs, reference.max_abs);
    }
    /* The number of threads changes no bit. */
    if (shape->M < 24)
        assert_memory_equal(values + 2 * count, values + 3 * count, (size_t)count * 8);
    free(w);
    free(x);
    free(values);
    free_packed(&packed);
}

static void products_follow_the_rule(void **state)
{
    (void)state;
    struct rng rng = rng_make(case_seed("products"), 2);
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
        for (int k = 0; k < 2; k++) check_shape(&shapes[s], kinds[k], &rng);
}

/* So many columns that sums of whole numbers have to be put down on the way; with all numbers at
 * the ends of their ranges those are as large as they get, and the products are known. */
static void long_rows_overflow_nothing(void **state)
{
    (void)state;
    enum { K = (1 << 17) + 70, N = 2 };
    static const struct backend_config fast[] = {
        {.ops = &ops_cpu, .threads = 1},
        {.ops = &ops_cpu, .threads = 1, .disabled_features = PLX_FEATURE_AVX512_VNNI},
        {.ops = &ops_cpu, .threads = 1, .disabled_features = ~0u}};
    const struct shape shape = {1, N, K};
    float *w = malloc(N * K * sizeof *w), *x = malloc(K * sizeof *x);
    for (int i = 0; i < N * K; i++) w[i] = i < K ? 1 : -1;
    for (int p = 0; p < 2; p++) {
        struct packed packed = make_packed(kinds[p], N, K);
        packed_store(&packed, 0, N, w);
        for (int f = 0; f < 3; f++)
            for (int sign = -1; sign <= 1; sign += 2) {
                double got[N];
                for (int k = 0; k < K; k++) x[k] = (float)sign;
                project_on(&fast[f], &shape, &packed, x, got);
                for (int n = 0; n < N; n++)
                    assert_true(fabs(got[n] / (n == 0 ? sign * K : -sign * K) - 1) < 1e-6);
            }
        free_packed(&packed);
    }
    free(w);
    free(x);
}

/* What is not finite makes the row's products NaN or infinite, and nothing makes nothing. */
static void unusual_rows_of_x_are_no_accident(void **state)
{
    (void)state;
    enum { K = 70, N = 3 };
    static const float odd[] = {NAN, INFINITY, -INFINITY, 0, 1e-40f};
    float w[N * K], x[K];
    struct rng rng = rng_make(case_seed("unusual"), 4);
    for (int i = 0; i < N * K; i++) w[i] = 1 + (float)rng_uniform(&rng);
    for (int p = 0; p < 2; p++)
        for (size_t o = 0; o < sizeof odd / sizeof *odd; o++) {
            static const struct backend_config fast = {.ops = &ops_cpu, .threads = 1};
            const struct shape shape = {1, N, K};
            struct packed packed = make_packed(kinds[p], N, K);
            double got[N];
            packed_store(&packed, 0, N, w);
            for (int k = 0; k < K; k++) x[k] = odd[o] == odd[o] && odd[o] < 1 ? odd[o] : 1;
            x[K - 1] = odd[o];
            project_on(&fast, &shape, &packed, x, got);
            for (int n = 0; n < N; n++)
                assert_true(isfinite(odd[o]) ? fabs(got[n]) < 1e-35 : !isfinite(got[n]));
            free_packed(&packed);
        }
}

static void tables_are_unpacked_by_id(void **state)
{
    (void)state;
    enum { V = 9, E = 70, N = 4 };
    int32_t ids[N] = {8, 0, 3, 3};
    float table[V * E], out[N * E], row[E];
    struct error err = {0};
    struct backend be;
    struct rng rng = rng_make(case_seed("tables"), 3);
    for (int i = 0; i < V * E; i++) table[i] = (float)rng_normal(&rng);
    struct plx_tensor at = plx_tensor_dense(ids, PLX_I32, 1, (const int64_t[]){N});
    struct plx_tensor y = plx_tensor_dense(out, PLX_F32, 2, (const int64_t[]){N, E});
    static const struct ops *const tables[] = {&ops_ref, &ops_cpu};
    for (int t = 0; t < 4; t++) {
        struct packed packed = make_packed(kinds[t / 2], V, E);
        packed_store(&packed, 0, V, table);
        assert_ok(backend_create(&be, &(struct backend_config){.ops = tables[t % 2]}, &err), &err);
        assert_ok(be.ops->unpack(&be, &y, &packed, &at), &err);
        for (int n = 0; n < N; n++) {
            packed_load(&packed, ids[n], 1, row);
            assert_memory_equal(out + n * E, row, sizeof row);
        }
        ids[1] = V;
        assert_refused(be.ops->unpack(&be, &y, &packed, &at), PLX_INVALID_ARGUMENT, "9", &err);
        ids[1] = 0;
        backend_destroy(&be);
        free_packed(&packed);
    }
}

/* ---- Models ---------------------------------------------------------------------------------- */

static void logits_of(const char *folder, enum packing packing, float *logits, int64_t vocab)
{
    struct case_model m = {0};
    const struct backend_config backend = {.ops = &ops_cpu, .packing = packing, .threads = 1};
    const int32_t ids[5] = {3, 1, 4, 1, 5};
    struct model_cache *cache;
    struct plx_tensor out = plx_tensor_dense(logits, PLX_F32, 2, (const int64_t[]){1, vocab});
    CASE_OK(&m, backend_create(&m.be, &backend, &m.err));
    CASE_OK(&m, model_open(&m.be, folder, &m.model, &m.err));
    CASE_OK(&m, model_cache_create(
                    m.model, &(struct model_cache_config){.sequences = 1, .capacity = 8}, &cache));
    CASE_OK(&m, model_decode(m.model, cache, ids, &(int64_t){4}, &out));
    CASE_OK(&m, model_decode(m.model, cache, ids + 4, &(int64_t){1}, &out));
    model_cache_destroy(cache);
    if (packing != PACKING_NONE)
        assert_refused(model_reserve(m.model, 4, 1, true, RECOMPUTE_NONE, NULL),
                       PLX_INVALID_ARGUMENT, "packed in", &m.err);
    case_close(&m);
}

/* bf16 weights of a bf16 checkpoint are the same weights; int8 is near. */
static void packed_models_decode(void **state)
{
    (void)state;
    enum { V = 61 };
    float exact[V], bf16[V], int8[V], largest = 0, worst_bf16 = 0, worst_int8 = 0;
    struct error err = {0};
    struct convert_report report;
    struct model_config config = case_config(2, "parallax");
    config.family = FAMILY_OURS;
    config.tie_embeddings = true;
    const char *folder = io_path("model");
    assert_ok(convert_init(&config, folder, &(struct convert_options){.dtype = "BF16", .seed = 9},
                           &report, &err),
              &err);
    logits_of(folder, PACKING_NONE, exact, V);
    logits_of(folder, PACKING_BF16, bf16, V);
    logits_of(folder, PACKING_INT8, int8, V);
    for (int v = 0; v < V; v++) {
        largest = fmaxf(largest, fabsf(exact[v]));
        worst_bf16 = fmaxf(worst_bf16, fabsf(bf16[v] - exact[v]));
        worst_int8 = fmaxf(worst_int8, fabsf(int8[v] - exact[v]));
    }
    print_message("of the largest logit: bf16 %.2g, int8 %.2g\n", worst_bf16 / largest,
                  worst_int8 / largest);
    assert_true(worst_bf16 <= 1e-5f * largest);
    assert_true(worst_int8 > worst_bf16 && worst_int8 <= 0.1f * largest);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(packing_rounds_as_stated),
        cmocka_unit_test(unusual_rows_are_packed_too),
        cmocka_unit_test(products_follow_the_rule),
        cmocka_unit_test(long_rows_overflow_nothing),
        cmocka_unit_test(unusual_rows_of_x_are_no_accident),
        cmocka_unit_test(tables_are_unpacked_by_id),
        cmocka_unit_test(packed_models_decode),
    };
    return cmocka_run_group_tests_name("packed weights", tests, io_folder_make, io_folder_remove);
}
