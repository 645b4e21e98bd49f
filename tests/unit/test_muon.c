/* test_muon.c: the Newton-Schulz iteration of nn/optim/muon.c: published golden values, the laws it
 * obeys, and lower precisions against double. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "optim/optim.h"

struct setting {
    const char *name;
    const struct ops *ops;
    plx_dtype storage, compute;
    double tolerance; /* of the laws, whose results are of size 1 */
};

static const struct setting settings[] = {
    {"reference f64", &ops_ref, PLX_F64, PLX_F64, 1e-12},
    {"reference f32", &ops_ref, PLX_F32, PLX_F32, 2e-5},
    {"cpu f32", &ops_cpu, PLX_F32, PLX_F32, 2e-5},
};
enum { SETTINGS = sizeof settings / sizeof *settings };

static struct error failure;

static struct backend backend_of(const struct setting *setting)
{
    struct backend_config config = {.ops = setting->ops,
                                    .storage = setting->storage,
                                    .compute = setting->compute,
                                    .threads = 2};
    struct backend be;
    error_clear(&failure);
    if (backend_create(&be, &config, &failure) != PLX_OK) fail_msg("%s", failure.text);
    return be;
}

static struct plx_tensor matrix_of(const struct backend *be, int64_t rows, int64_t columns,
                                   const double *values)
{
    int64_t shape[3] = {1, rows, columns};
    void *data = malloc((size_t)(rows * columns) * plx_dtype_size(be->storage));
    for (int64_t i = 0; i < rows * columns; i++) {
        if (be->storage == PLX_F64)
            ((double *)data)[i] = values[i];
        else
            ((float *)data)[i] = (float)values[i];
    }
    return plx_tensor_dense(data, be->storage, 3, shape);
}

static double element(const struct plx_tensor *matrix, int64_t i)
{
    return matrix->dtype == PLX_F64 ? ((const double *)matrix->data)[i]
                                    : ((const float *)matrix->data)[i];
}

/* NS of values [rows,columns] into result, out of place; the input must come back unchanged. */
static void orthogonalise(const struct setting *setting, struct muon_iteration iteration,
                          int64_t rows, int64_t columns, const double *values, double *result)
{
    struct backend be = backend_of(setting);
    struct plx_tensor x = matrix_of(&be, rows, columns, values);
    struct plx_tensor y = matrix_of(&be, rows, columns, values);
    struct plx_tensor kept = matrix_of(&be, rows, columns, values);
    size_t bytes = (size_t)(rows * columns) * plx_dtype_size(be.storage);
    memset(y.data, 0xff, bytes);

    struct backend dry = backend_dry(&be);
    assert_int_equal(muon_orthogonalise(&dry, &iteration, &x, &y), PLX_OK);
    assert_int_equal(backend_reserve(&be, dry.scratch.peak), PLX_OK);
    if (muon_orthogonalise(&be, &iteration, &x, &y) != PLX_OK) fail_msg("%s", failure.text);
    assert_int_equal(be.scratch.used, 0);
    assert_false(arena_overflowed(&be.scratch));
    assert_memory_equal(x.data, kept.data, bytes);
    assert_int_equal(muon_orthogonalise(&be, &iteration, &x, &x), PLX_OK);
    assert_memory_equal(x.data, y.data, bytes);

    for (int64_t i = 0; i < rows * columns; i++) result[i] = element(&y, i);
    free(x.data), free(y.data), free(kept.data);
    backend_destroy(&be);
}

static void assert_close(const char *what, const double *actual, const double *expected,
                         int64_t count, double tolerance)
{
    for (int64_t i = 0; i < count; i++)
        if (!(fabs(actual[i] - expected[i]) <= tolerance))
            fail_msg("%s: element %lld is %.12g instead of %.12g", what, (long long)i, actual[i],
                     expected[i]);
}

static double *normal_matrix(int64_t count, uint64_t seed, double length)
{
    double *values = malloc((size_t)count * sizeof *values);
    struct rng rng = rng_make(seed, 0);
    for (int64_t i = 0; i < count; i++) values[i] = length * rng_normal(&rng);
    return values;
}

static const struct muon_iteration quintic = {MUON_QUINTIC, 5};

/* ---- Golden values ---- */

static void quintic_gives_the_golden_matrix(void **unused)
{
    (void)unused;
    static const double x[6] = {1, 2, 3, 0.5, -1, 0.25};
    static const double expected[6] = {0.221361762, 0.367059594,  0.616795330,
                                       0.459050225, -0.766772590, 0.324105025};
    for (int s = 0; s < SETTINGS; s++) {
        double y[6];
        orthogonalise(&settings[s], quintic, 2, 3, x, y);
        assert_close(settings[s].name, y, expected, 6, fmax(settings[s].tolerance, 1e-8));
    }
}

/* What five steps make of one singular value. The matrix is diag(s, sqrt(1 - s^2)), of Frobenius
 * norm 1, times a million, so that the epsilon of the normaliser does not show. */
static void scalars_follow_the_table(void **unused)
{
    (void)unused;
    static const double starts[5] = {1e-3, 0.01, 0.1, 0.5, 1.0};
    static const struct {
        enum muon_coefficients coefficients;
        double ends[5];
    } rows[] = {
        {MUON_QUINTIC, {0.470544, 0.698917, 0.712120, 0.765439, 0.696436}},
        {MUON_OPT, {0.474982, 1.018025, 1.019050, 0.985869, 0.978346}},
        {MUON_POLAR_EXPRESS, {0.846177, 1.066000, 0.874932, 0.934331, 1.028751}},
        {MUON_POLAR_MODDED, {0.846647, 0.996775, 1.016459, 1.086403, 0.903537}},
    };
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++)
        for (int i = 0; i < 5; i++) {
            double s = starts[i];
            double x[4] = {1e6 * s, 0, 0, 1e6 * sqrt(1 - s * s)}, y[4];
            orthogonalise(&settings[0], (struct muon_iteration){rows[r].coefficients, 5}, 2, 2, x,
                          y);
            assert_close("scalar table", y, &rows[r].ends[i], 1, 5e-7);
            assert_true(y[1] == 0.0 && y[2] == 0.0);
        }
}

/* Steps six to nine of the paper's list, from its published triples by a script of a few lines: the
 * safety factor ends before the eighth. */
static void polar_express_follows_its_whole_list(void **unused)
{
    (void)unused;
    static const double starts[5] = {1e-3, 0.01, 0.1, 0.5, 1.0};
    static const struct {
        int steps;
        double ends[5];
    } rows[] = {
        {6, {0.994406733, 0.998853916, 0.997907608, 1.001062667, 0.999581303}},
        {7, {0.999990946, 0.999996696, 0.999995779, 0.999998302, 0.999997304}},
        {8, {1.000000000, 1.000000000, 1.000000000, 1.000000000, 1.000000000}},
        {9, {1.000000000, 1.000000000, 1.000000000, 1.000000000, 1.000000000}},
    };
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++)
        for (int i = 0; i < 5; i++) {
            double s = starts[i];
            double x[4] = {1e6 * s, 0, 0, 1e6 * sqrt(1 - s * s)}, y[4];
            struct muon_iteration iteration = {MUON_POLAR_EXPRESS, rows[r].steps};
            orthogonalise(&settings[0], iteration, 2, 2, x, y);
            assert_close("long list", y, &rows[r].ends[i], 1, 1e-9);
        }
}

static double polynomial(double a, double b, double c, double x)
{
    return a * x + b * x * x * x + c * x * x * x * x * x;
}

/* A set's value after more steps than it has triples is the last triple applied again. */
static void steps_beyond_the_list_repeat_the_last_triple(void **unused)
{
    (void)unused;
    static const struct {
        enum muon_coefficients coefficients;
        int count;
        double last[3];
    } rows[] = {
        {MUON_QUINTIC, 1, {3.4445, -4.7750, 2.0315}},
        {MUON_OPT, 5, {2.8366, -3.0525, 1.2012}},
        {MUON_POLAR_EXPRESS, 8, {1.875, -1.25, 0.375}},
        {MUON_POLAR_MODDED, 5, {2.3465413258596377, -1.7097828382687081, 0.42323551169305323}},
    };
    static const double x[4] = {3e5, 0, 0, 8e5};
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++)
        for (int more = 0; more < 4; more++) {
            double y[4], next[4];
            struct muon_iteration iteration = {rows[r].coefficients, rows[r].count + more};
            orthogonalise(&settings[0], iteration, 2, 2, x, y);
            iteration.steps++;
            orthogonalise(&settings[0], iteration, 2, 2, x, next);
            const double *last = rows[r].last;
            double expected = polynomial(last[0], last[1], last[2], y[0]);
            assert_close("repeated triple", &next[0], &expected, 1, 1e-13);
        }
}

/* The paper's list ends in the iteration that converges to 1 for every singular value. */
static void polar_express_converges(void **unused)
{
    (void)unused;
    double *x = normal_matrix(12 * 7, 3, 1.0), y[12 * 7];
    orthogonalise(&settings[0], (struct muon_iteration){MUON_POLAR_EXPRESS, 14}, 12, 7, x, y);
    for (int i = 0; i < 7; i++)
        for (int j = 0; j < 7; j++) {
            double product = 0.0, expected = i == j ? 1.0 : 0.0;
            for (int k = 0; k < 12; k++) product += y[k * 7 + i] * y[k * 7 + j];
            assert_close("Y'Y", &product, &expected, 1, 1e-12);
        }
    free(x);
}

/* ---- Laws ---- */

static void no_steps_only_normalise(void **unused)
{
    (void)unused;
    static const double x[4] = {3e6, 0, 0, 4e6}, expected[4] = {0.6, 0, 0, 0.8};
    for (int c = MUON_QUINTIC; c <= MUON_OPT; c++) {
        double y[4], factor = c == MUON_POLAR_MODDED ? 1.02 : 1.0;
        orthogonalise(&settings[0], (struct muon_iteration){(enum muon_coefficients)c, 0}, 2, 2, x,
                      y);
        for (int i = 0; i < 4; i++) y[i] *= factor;
        assert_close("normalised", y, expected, 4, 1e-12);
    }
}

/* The epsilon is part of the normaliser: a matrix as short as it is halved. */
static void epsilon_is_added_to_the_norm(void **unused)
{
    (void)unused;
    static const double x[2] = {0.6e-7, 0.8e-7}, expected[2] = {0.3, 0.4};
    double y[2];
    orthogonalise(&settings[0], (struct muon_iteration){MUON_QUINTIC, 0}, 1, 2, x, y);
    assert_close("epsilon", y, expected, 2, 1e-12);
    static const double longer[2] = {1.02e-6 * 0.6 / 1.02, 1.02e-6 * 0.8 / 1.02};
    static const double modded[2] = {0.6 / 2.02, 0.8 / 2.02};
    orthogonalise(&settings[0], (struct muon_iteration){MUON_POLAR_MODDED, 0}, 1, 2, longer, y);
    assert_close("epsilon of modded", y, modded, 2, 1e-12);
}

static void length_does_not_matter(void **unused)
{
    (void)unused;
    enum { ROWS = 9, COLUMNS = 14, COUNT = ROWS * COLUMNS };
    double *x = normal_matrix(COUNT, 11, 1e4), scaled[COUNT], first[COUNT], second[COUNT];
    for (int s = 0; s < SETTINGS; s++)
        for (int c = MUON_QUINTIC; c <= MUON_OPT; c++) {
            struct muon_iteration iteration = {(enum muon_coefficients)c, 5};
            for (int i = 0; i < COUNT; i++) scaled[i] = 3e5 * x[i];
            orthogonalise(&settings[s], iteration, ROWS, COLUMNS, x, first);
            orthogonalise(&settings[s], iteration, ROWS, COLUMNS, scaled, second);
            /* 1e-6 / 1e4 of relative length is what the largest epsilon leaves here. */
            assert_close(settings[s].name, second, first, COUNT, settings[s].tolerance + 1e-9);
        }
    free(x);
}

static void transposition_commutes(void **unused)
{
    (void)unused;
    enum { ROWS = 8, COLUMNS = 21, COUNT = ROWS * COLUMNS };
    double *x = normal_matrix(COUNT, 12, 1.0), turned[COUNT], wide[COUNT], tall[COUNT], back[COUNT];
    for (int i = 0; i < ROWS; i++)
        for (int j = 0; j < COLUMNS; j++) turned[j * ROWS + i] = x[i * COLUMNS + j];
    for (int s = 0; s < SETTINGS; s++)
        for (int c = MUON_QUINTIC; c <= MUON_OPT; c++) {
            struct muon_iteration iteration = {(enum muon_coefficients)c, 5};
            orthogonalise(&settings[s], iteration, ROWS, COLUMNS, x, wide);
            orthogonalise(&settings[s], iteration, COLUMNS, ROWS, turned, tall);
            for (int i = 0; i < ROWS; i++)
                for (int j = 0; j < COLUMNS; j++) back[i * COLUMNS + j] = tall[j * ROWS + i];
            assert_close(settings[s].name, back, wide, COUNT, settings[s].tolerance);
        }
    free(x);
}

/* Columns made orthonormal by Gram-Schmidt, twice, which is enough. [n,n] */
static double *orthonormal(int n, uint64_t seed)
{
    double *q = normal_matrix((int64_t)n * n, seed, 1.0);
    for (int j = 0; j < n; j++) {
        for (int pass = 0; pass < 2; pass++)
            for (int k = 0; k < j; k++) {
                double dot = 0.0;
                for (int i = 0; i < n; i++) dot += q[i * n + k] * q[i * n + j];
                for (int i = 0; i < n; i++) q[i * n + j] -= dot * q[i * n + k];
            }
        double norm = 0.0;
        for (int i = 0; i < n; i++) norm += q[i * n + j] * q[i * n + j];
        for (int i = 0; i < n; i++) q[i * n + j] /= sqrt(norm);
    }
    return q;
}

/* X = U diag(s) V': NS(X) must be U diag(p(s)) V' with p iterated on each value by itself. */
static void singular_vectors_stay(void **unused)
{
    (void)unused;
    enum { N = 10 };
    double *u = orthonormal(N, 21), *v = orthonormal(N, 22), x[N * N] = {0}, y[N * N];
    double values[N], norm = 0.0, expected[N * N] = {0};
    for (int k = 0; k < N; k++) {
        values[k] = pow(0.6, k);
        norm += values[k] * values[k];
    }
    for (int k = 0; k < N; k++) {
        double value = values[k] / (sqrt(norm) + 1e-7);
        for (int step = 0; step < 5; step++) value = polynomial(3.4445, -4.7750, 2.0315, value);
        for (int i = 0; i < N; i++)
            for (int j = 0; j < N; j++) {
                x[i * N + j] += u[i * N + k] * values[k] * v[j * N + k];
                expected[i * N + j] += u[i * N + k] * value * v[j * N + k];
            }
    }
    for (int s = 0; s < SETTINGS; s++) {
        orthogonalise(&settings[s], quintic, N, N, x, y);
        assert_close(settings[s].name, y, expected, N * N, settings[s].tolerance);
    }
    free(u), free(v);
}

static void zero_stays_zero(void **unused)
{
    (void)unused;
    static const double x[15] = {0};
    for (int s = 0; s < SETTINGS; s++)
        for (int c = MUON_QUINTIC; c <= MUON_OPT; c++) {
            double y[15];
            orthogonalise(&settings[s], (struct muon_iteration){(enum muon_coefficients)c, 5}, 3, 5,
                          x, y);
            assert_close(settings[s].name, y, x, 15, 0.0);
        }
}

static void a_row_and_a_column_are_only_normalised_by_the_polynomial(void **unused)
{
    (void)unused;
    double *x = normal_matrix(7, 5, 100.0), y[7], expected[7], norm = 0.0;
    for (int i = 0; i < 7; i++) norm += x[i] * x[i];
    for (int i = 0; i < 7; i++) expected[i] = 0.696436 * x[i] / sqrt(norm);
    orthogonalise(&settings[0], quintic, 1, 7, x, y);
    assert_close("row", y, expected, 7, 1e-6);
    orthogonalise(&settings[0], quintic, 7, 1, x, y);
    assert_close("column", y, expected, 7, 1e-6);
    free(x);
}

/* Every matrix of a batch as it comes out alone, bit for bit. */
static void a_batch_is_its_matrices(void **unused)
{
    (void)unused;
    enum { COUNT = 3, MOST = 9 * 14 };
    static const int64_t shapes[3][2] = {{9, 14}, {14, 9}, {8, 8}};
    for (int s = 0; s < SETTINGS; s++)
        for (int i = 0; i < 6; i++) {
            const int64_t *shape = shapes[i / 2], size = shape[0] * shape[1];
            struct muon_iteration iteration = {MUON_QUINTIC, 4 + i % 2};
            double *values = normal_matrix(COUNT * size, 51, 3.0), alone[MOST];
            struct backend be = backend_of(&settings[s]);
            struct plx_tensor x = matrix_of(&be, COUNT * shape[0], shape[1], values);
            x = plx_tensor_dense(x.data, x.dtype, 3, (int64_t[]){COUNT, shape[0], shape[1]});
            assert_int_equal(backend_reserve(&be, 1 << 20), PLX_OK);
            assert_int_equal(muon_orthogonalise(&be, &iteration, &x, &x), PLX_OK);
            for (int n = 0; n < COUNT; n++) {
                orthogonalise(&settings[s], iteration, shape[0], shape[1], values + n * size,
                              alone);
                for (int64_t e = 0; e < size; e++)
                    assert_true(element(&x, n * size + e) == alone[e]);
            }
            free(values), free(x.data);
            backend_destroy(&be);
        }
}

/* ---- Precision ---- */

static void float_agrees_with_double(void **unused)
{
    (void)unused;
    enum { ROWS = 96, COLUMNS = 160, COUNT = ROWS * COLUMNS };
    double *x = normal_matrix(COUNT, 31, 0.02);
    double *exact = malloc(COUNT * sizeof *exact), *y = malloc(COUNT * sizeof *y);
    orthogonalise(&settings[0], quintic, ROWS, COLUMNS, x, exact);
    for (int s = 1; s < SETTINGS; s++) {
        orthogonalise(&settings[s], quintic, ROWS, COLUMNS, x, y);
        assert_close(settings[s].name, y, exact, COUNT, 1e-5);
    }
    free(x), free(exact), free(y);
}

static void products_in_bf16_stay_near(void **unused)
{
    (void)unused;
    enum { N = 1024, COUNT = N * N };
    /* The oracle at this size is the f32 backend, which float_agrees_with_double holds against
     * double. */
    const struct setting rounded = {"cpu bf16", &ops_cpu, PLX_F32, PLX_BF16, 0.0};
    double *x = normal_matrix(COUNT, 41, 1.0);
    double *exact = malloc(COUNT * sizeof *exact), *y = malloc(COUNT * sizeof *y);
    orthogonalise(&settings[2], quintic, N, N, x, exact);
    orthogonalise(&rounded, quintic, N, N, x, y);
    assert_close("bf16 against f32", y, exact, COUNT, 0.03);
    double largest = 0.0;
    for (int i = 0; i < COUNT; i++) largest = fmax(largest, fabs(y[i] - exact[i]));
    print_message("largest difference %.5f\n", largest);
    assert_true(largest > 0.0); /* the products really were rounded */
    free(x), free(exact), free(y);
}

/* ---- Scale ---- */

static void scale_variants(void **unused)
{
    (void)unused;
    static const struct {
        enum muon_scale scale;
        double tall, wide, square; /* [32,8], [8,32], [16,16] */
    } rows[] = {
        {MUON_SCALE_KELLER, 2.0, 1.0, 1.0},
        {MUON_SCALE_MATCH_RMS, 1.13137084989847604, 1.13137084989847604, 0.8},
        {MUON_SCALE_SPECTRAL_UNCLAMPED, 2.0, 0.5, 1.0},
        {MUON_SCALE_MAX, 5.65685424949238020, 5.65685424949238020, 4.0},
        {MUON_SCALE_NONE, 1.0, 1.0, 1.0},
    };
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
        double actual[3] = {muon_scale_factor(rows[r].scale, 32, 8),
                            muon_scale_factor(rows[r].scale, 8, 32),
                            muon_scale_factor(rows[r].scale, 16, 16)};
        double expected[3] = {rows[r].tall, rows[r].wide, rows[r].square};
        assert_close("scale", actual, expected, 3, 1e-15);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(quintic_gives_the_golden_matrix),
        cmocka_unit_test(scalars_follow_the_table),
        cmocka_unit_test(polar_express_follows_its_whole_list),
        cmocka_unit_test(steps_beyond_the_list_repeat_the_last_triple),
        cmocka_unit_test(polar_express_converges),
        cmocka_unit_test(no_steps_only_normalise),
        cmocka_unit_test(epsilon_is_added_to_the_norm),
        cmocka_unit_test(length_does_not_matter),
        cmocka_unit_test(transposition_commutes),
        cmocka_unit_test(singular_vectors_stay),
        cmocka_unit_test(zero_stays_zero),
        cmocka_unit_test(a_row_and_a_column_are_only_normalised_by_the_polynomial),
        cmocka_unit_test(a_batch_is_its_matrices),
        cmocka_unit_test(float_agrees_with_double),
        cmocka_unit_test(products_in_bf16_stay_near),
        cmocka_unit_test(scale_variants),
    };
    return cmocka_run_group_tests_name("muon", tests, NULL, NULL);
}
