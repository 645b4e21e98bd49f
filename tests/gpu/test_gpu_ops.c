/* test_gpu_ops.c: every operation of ops_cuda against ops_ref in double, with activations in f32
 * and in bf16.
 *
 * The cases are those of the CPU (op_cases.h), at its sizes and at some that fill the vectors and
 * teams of the kernels. The tolerance is compare.h's; what ops_ref in float gets wrong is measured
 * on the very numbers, rounded as activations are. Each case runs twice and must give the same
 * bits, and a third time on addresses that are a multiple of 64. With --sanitize it is named and
 * runs once, at a few sizes, for tools that slow everything down. With --time realistic shapes are
 * timed instead. Without a GPU the program says "skipped, no GPU" and exits with 77. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "device_memory.h"
#include "op_backends.h"
#include "op_cases.h"
#include "op_run.h"
#include "op_times.h"

static struct test_options options;

enum { ORACLE, NAIVE, CUDA_F32, CUDA_BF16, BACKENDS };

static struct op_backend backends[BACKENDS] = {
    [ORACLE] = {.name = "ref f64", .config = {&ops_ref, PLX_F64, PLX_F64, 1, NULL, 0}},
    [NAIVE] = {.name = "ref f32", .config = {&ops_ref, PLX_F32, PLX_F32, 1, NULL, 0}},
    [CUDA_F32] = {.name = "cuda f32",
                  .config = {.ops = &ops_cuda, .storage = PLX_F32, .compute = PLX_F32}},
    [CUDA_BF16] = {.name = "cuda bf16",
                   .config = {.ops = &ops_cuda,
                              .storage = PLX_F32,
                              .compute = PLX_BF16,
                              .bf16_activations = true}},
};

/* ---- Cases ----------------------------------------------------------------------------------- */

static struct op_result run_on(const struct op_run *run, int b, enum op_placement placement)
{
    return op_run_on(run, &backends[b].be, backends[b].name, placement);
}

static void check_second_run(const struct op_run *run, int b, enum op_placement placement,
                             const struct op_result *first)
{
    struct op_result second = run_on(run, b, placement);
    op_run_same_bits(run, backends[b].name, first, &second, "a second run differs");
    op_result_destroy(&second);
}

static void check_case_on(const struct op_case *c, int b, int64_t n, int64_t e, bool wild)
{
    const char *name = backends[b].name;
    if (options.sanitize) printf("  %s %lld %lld %s\n", c->name, (long long)n, (long long)e, name);
    const plx_dtype activation = backends[b].be.activation;
    struct op_run run = op_run_create(c, (int)(c - op_cases), &options, n, e, wild);
    op_run_round(&run, activation);
    struct op_yardstick yardstick =
        op_yardstick_create(&run, &backends[ORACLE].be, &backends[NAIVE].be, activation);
    for (enum op_placement placement = PLACE_ODD; placement <= PLACE_ALIGNED; placement++) {
        struct op_result first = run_on(&run, b, placement);
        op_run_compare(&run, &backends[b].be, name, &first, &yardstick);
        if (!options.sanitize) check_second_run(&run, b, placement, &first);
        op_result_destroy(&first);
    }
    if (c->strided) {
        struct op_result padded = run_on(&run, b, PLACE_PADDED);
        op_run_compare(&run, &backends[b].be, name, &padded, &yardstick);
        op_result_destroy(&padded);
    }
    op_yardstick_destroy(&yardstick);
    op_run_destroy(&run);
}

static bool is_quantised(const struct op_case *c)
{
    return strstr(c->name, "quantise") != NULL;
}

static bool has_fp8;

static bool is_chosen(const struct op_case *c)
{
    return test_options_match(&options, c->name) && (has_fp8 || !is_quantised(c));
}

/* Attention's backward in bf16 reads what its forward rounded, which only test_gpu_conformance
 * knows how to judge. Sums of 8-bit products are not as exact as a float: nothing but bf16 reads
 * them. */
static void check_case(const struct op_case *c, int64_t n, int64_t e, bool wild)
{
    bool backward = c->member == offsetof(struct ops, attend_backward);
    bool exact = !is_quantised(c) || (!c->product && n <= FOLD && e <= FOLD);
    if (exact) check_case_on(c, CUDA_F32, n, e, wild);
    if (!backward) check_case_on(c, CUDA_BF16, n, e, wild);
}

/* Beside bf16 activations a weight of bf16 is a matrix like any other: a product by cuBLASLt, whose
 * long sums test_gpu_model judges. */
static void check_long_case(const struct op_case *c, int64_t n, int64_t e)
{
    if (strncmp(c->name, "project/bf16", 12) == 0)
        check_case_on(c, CUDA_F32, n, e, false);
    else
        check_case(c, n, e, false);
}

/* Several products in parts are those of one weight each, which have these sizes themselves. */
static bool is_in_parts(const struct op_case *c)
{
    return c->member == offsetof(struct ops, project_all) && strstr(c->name, "few") == NULL;
}

/* ---- Tests ----------------------------------------------------------------------------------- */

static const int64_t sizes[] = {1, 2, 3, 17, 63, 64, 65, 257};
enum { SIZES = sizeof sizes / sizeof *sizes };

/* Every size three times in either place; attention as in test_ops.c. With --sanitize a few sizes:
 * ends that no vector fits, none, and several blocks. */
static bool is_case_size(const struct op_case *c, int i, int j)
{
    const bool few = sizes[i] == 17 || (!c->attention && (sizes[i] == 64 || sizes[i] == 257));
    if (options.sanitize) return i == j && few;
    if (c->attention) return (sizes[i] == 17 || sizes[i] == 65) && j > 0 && j < 6;
    return j == i || j == (i + 3) % SIZES || j == (i + 6) % SIZES;
}

static void every_operation_matches_the_oracle(void **state)
{
    (void)state;
    for (int k = 0; k < OP_CASES; k++) {
        const struct op_case *c = &op_cases[k];
        if (!is_chosen(c)) continue;
        for (int i = 0; i < SIZES; i++)
            for (int j = 0; j < SIZES; j++)
                if (is_case_size(c, i, j)) check_case(c, sizes[i], sizes[j], false);
        check_case(c, 0, 3, false);
    }
    assert_int_equal(op_run_failures(), 0);
}

/* Rows of a head, of a model's width, of several blocks' teams, and longer than a block holds; and
 * more rows than there are blocks. */
static void sizes_of_the_kernels_match_too(void **state)
{
    (void)state;
    static const int64_t large[][2] = {{300, 32},  {300, 128}, {130, 504}, {70, 1024},
                                       {19, 2560}, {7, 8192},  {3, 16384}, {3, 16392},
                                       {3, 40000}, {20011, 8}, {4500, 64}};
    static const int64_t few[][2] = {{2, 1024}, {2, 8192}, {2, 16392}};
    const int64_t(*const rows)[2] = options.sanitize ? few : large;
    const size_t count = options.sanitize ? sizeof few / sizeof *few : sizeof large / sizeof *large;
    for (int k = 0; k < OP_CASES; k++) {
        const struct op_case *c = &op_cases[k];
        bool rope = strstr(c->name, "rope") != NULL;
        if (!is_chosen(c) || c->product || c->attention || is_in_parts(c)) continue;
        for (size_t i = 0; i < count; i++)
            if (!rope || rows[i][1] <= 128) check_long_case(c, rows[i][0], rows[i][1]);
    }
    assert_int_equal(op_run_failures(), 0);
}

/* NaN spreads as in the reference, and huge arguments neither overflow nor lose their sign. */
static void extreme_values_behave_as_in_the_oracle(void **state)
{
    (void)state;
    for (int k = 0; k < OP_CASES; k++) {
        const struct op_case *c = &op_cases[k];
        if (!is_chosen(c) || c->product || c->attention) continue;
        check_case(c, 17, 64, true);
        check_case(c, 65, 17, true);
        if (strncmp(c->name, "cross_entropy", 13) == 0)
            check_case(c, 5, 1032, true); /* a block's */
    }
    assert_int_equal(op_run_failures(), 0);
}

int main(int argc, char **argv)
{
    if (!device_ready()) return 77;
    if (argc == 2 && strcmp(argv[1], "--time") == 0) return op_times_print();
    options = test_options_read(argc, argv);
    has_fp8 = op_backend_has_fp8();
    const struct CMUnitTest few[] = {
        cmocka_unit_test(every_operation_matches_the_oracle),
        cmocka_unit_test(sizes_of_the_kernels_match_too),
    };
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_operation_matches_the_oracle),
        cmocka_unit_test(sizes_of_the_kernels_match_too),
        cmocka_unit_test(extreme_values_behave_as_in_the_oracle),
    };
    op_backends_use(backends, BACKENDS);
    return options.sanitize
               ? cmocka_run_group_tests(few, op_backends_create, op_backends_destroy)
               : cmocka_run_group_tests(tests, op_backends_create, op_backends_destroy);
}
