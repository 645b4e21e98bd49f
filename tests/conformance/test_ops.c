/* test_ops.c: every operation of every table against ops_ref in double.
 *
 * Each row of op_cases.h runs at many sizes. The tolerance is compare.h's: at most twice the error
 * of ops_ref in float (rounding operands where the product does), plus a floor. Each run (op_run.h)
 * is repeated at another alignment and with other numbers of threads, and must give the same bits.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "op_backends.h"
#include "op_cases.h"
#include "op_run.h"

static struct test_options options;

/* ---- Backends -------------------------------------------------------------------------------- */

enum {
    ORACLE,
    NAIVE,
    NAIVE_BF16,
    KERNELS,
    PORTABLE = KERNELS,
    BEST,
    BEST_2,
    BEST_3,
    BF16,
    BACKENDS
};

static struct op_backend backends[BACKENDS] = {
    [ORACLE] = {.name = "ref f64", .config = {&ops_ref, PLX_F64, PLX_F64, 1, NULL, 0}},
    [NAIVE] = {.name = "ref f32", .config = {&ops_ref, PLX_F32, PLX_F32, 1, NULL, 0}},
    [NAIVE_BF16] = {.name = "ref bf16", .config = {&ops_ref, PLX_F32, PLX_BF16, 1, NULL, 0}},
    [PORTABLE] = {.name = "cpu portable", .config = {&ops_cpu, PLX_F32, PLX_F32, 1, NULL, ~0u}},
    [BEST] = {.name = "cpu", .config = {&ops_cpu, PLX_F32, PLX_F32, 1, NULL, 0}},
    [BEST_2] = {.name = "cpu, 2 threads", .config = {&ops_cpu, PLX_F32, PLX_F32, 2, NULL, 0}},
    [BEST_3] = {.name = "cpu, 3 threads", .config = {&ops_cpu, PLX_F32, PLX_F32, 3, NULL, 0}},
    [BF16] = {.name = "cpu bf16", .config = {&ops_cpu, PLX_F32, PLX_BF16, 2, NULL, 0}},
};

static const struct {
    int naive;        /* whose error is the yardstick */
    int same_bits_as; /* -1: nobody's; does not bind products */
} yardsticks[BACKENDS] = {
    [PORTABLE] = {NAIVE, -1}, [BEST] = {NAIVE, -1},      [BEST_2] = {NAIVE, BEST},
    [BEST_3] = {NAIVE, BEST}, [BF16] = {NAIVE_BF16, -1},
};

/* ---- Cases ----------------------------------------------------------------------------------- */

static struct op_result run_on(const struct op_run *run, int b, enum op_placement placement)
{
    return op_run_on(run, &backends[b].be, backends[b].name, placement);
}

static void same_bits(const struct op_run *run, int b, const struct op_result *one,
                      const struct op_result *other, const char *what)
{
    op_run_same_bits(run, backends[b].name, one, other, what);
}

static void check_kernel(const struct op_run *run, int b, const struct op_result results[BACKENDS],
                         const struct op_yardstick *yardstick)
{
    op_run_compare(run, &backends[b].be, backends[b].name, &results[b], yardstick);
    struct op_result again = run_on(run, b, PLACE_ODD);
    same_bits(run, b, &again, &results[b], "a second run differs");
    op_result_destroy(&again);
    again = run_on(run, b, PLACE_ALIGNED);
    same_bits(run, b, &again, &results[b], "another alignment gives another result");
    op_result_destroy(&again);
    int like = yardsticks[b].same_bits_as;
    if (like >= 0 && !run->c->product)
        same_bits(run, b, &results[like], &results[b], "the number of threads changes the result");
    if (!run->c->strided) return;
    again = run_on(run, b, PLACE_PADDED);
    op_run_compare(run, &backends[b].be, backends[b].name, &again, yardstick);
    op_result_destroy(&again);
}

/* The backends that are worth a case: products do not depend on our instruction sets, and the
 * number of threads matters to the rest only where it is large (threads_change_nothing). */
static bool is_worth(int b, const struct op_case *c)
{
    if (b < KERNELS) return b != NAIVE_BF16 || c->product;
    if (c->product) return b == BEST || b == BEST_2 || b == BF16;
    return b == PORTABLE || b == BEST || (b == BEST_2 && c->attention);
}

static bool is_threaded(int b, const struct op_case *c)
{
    (void)c;
    return b == NAIVE || b == BEST || b == BEST_2 || b == BEST_3;
}

static void check_case(const struct op_case *c, int64_t n, int64_t e, bool wild,
                       bool (*chosen)(int b, const struct op_case *c))
{
    struct op_run run = op_run_create(c, (int)(c - op_cases), &options, n, e, wild);
    struct op_yardstick of_naive[KERNELS] = {0};
    struct op_result results[BACKENDS] = {0};
    for (int b = NAIVE; b < KERNELS; b++)
        if (chosen(b, c))
            of_naive[b] = op_yardstick_create(&run, &backends[ORACLE].be, &backends[b].be, PLX_F32);
    for (int b = KERNELS; b < BACKENDS; b++) {
        if (!chosen(b, c)) continue;
        results[b] = run_on(&run, b, PLACE_ODD);
        check_kernel(&run, b, results, &of_naive[yardsticks[b].naive]);
    }
    for (int b = NAIVE; b < KERNELS; b++) op_yardstick_destroy(&of_naive[b]);
    for (int b = 0; b < BACKENDS; b++) op_result_destroy(&results[b]);
    op_run_destroy(&run);
}

/* ---- Tests ----------------------------------------------------------------------------------- */

static const int64_t sizes[] = {1, 2, 3, 17, 63, 64, 65, 257};
enum { SIZES = sizeof sizes / sizeof *sizes };

/* Each new shape of a product is compiled first, so products see every size three times in either
 * place rather than every pair. Attention has a conformance test of its own and is here for its
 * arguments and its workspace; with a single key its gradients are zero by cancellation, which no
 * ratio of errors can judge. */
static bool is_case_size(const struct op_case *c, int i, int j)
{
    if (c->product) return j == i || j == (i + 3) % SIZES || j == (i + 6) % SIZES;
    if (c->attention) return (sizes[i] == 17 || sizes[i] == 65) && j > 0 && j < 6;
    return true;
}

static void every_operation_matches_the_oracle(void **state)
{
    (void)state;
    for (int k = 0; k < OP_CASES; k++) {
        const struct op_case *c = &op_cases[k];
        if (!test_options_match(&options, c->name)) continue;
        for (int i = 0; i < SIZES; i++)
            for (int j = 0; j < SIZES; j++)
                if (is_case_size(c, i, j)) check_case(c, sizes[i], sizes[j], false, is_worth);
        check_case(c, 0, 3, false, is_worth);
    }
    assert_int_equal(op_run_failures(), 0);
}

/* Large enough that several threads take part. */
static void threads_change_nothing(void **state)
{
    (void)state;
    for (int k = 0; k < OP_CASES; k++) {
        const struct op_case *c = &op_cases[k];
        if (!test_options_match(&options, c->name) || c->product || c->attention) continue;
        check_case(c, 700, 193, false, is_threaded);
        check_case(c, 33000, 3, false, is_threaded);
    }
    assert_int_equal(op_run_failures(), 0);
}

/* NaN spreads as in the reference, and huge arguments neither overflow nor lose their sign. */
static void extreme_values_behave_as_in_the_oracle(void **state)
{
    (void)state;
    for (int k = 0; k < OP_CASES; k++) {
        const struct op_case *c = &op_cases[k];
        if (!test_options_match(&options, c->name) || c->product || c->attention) continue;
        check_case(c, 17, 64, true, is_worth);
        check_case(c, 65, 17, true, is_worth);
    }
    assert_int_equal(op_run_failures(), 0);
}

static bool has_function(const struct ops *ops, size_t member)
{
    void *function;
    memcpy(&function, (const char *)ops + member, sizeof function);
    return function != NULL;
}

static void no_table_misses_a_function_and_no_function_a_case(void **state)
{
    (void)state;
    static const struct ops *const tables[] = {&ops_ref, &ops_cpu, &ops_dry};
    for (size_t member = offsetof(struct ops, create); member < sizeof(struct ops);
         member += sizeof(void (*)(void))) {
        for (size_t t = 0; t < sizeof tables / sizeof *tables; t++)
            if (!has_function(tables[t], member))
                fail_msg("ops_%s misses the function at offset %zu", tables[t]->name, member);
        bool covered = member < offsetof(struct ops, zero);
        for (int k = 0; k < OP_CASES; k++) covered |= op_cases[k].member == member;
        if (!covered) fail_msg("op_cases has no row for the member at offset %zu", member);
    }
}

int main(int argc, char **argv)
{
    options = test_options_read(argc, argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_table_misses_a_function_and_no_function_a_case),
        cmocka_unit_test(every_operation_matches_the_oracle),
        cmocka_unit_test(threads_change_nothing),
        cmocka_unit_test(extreme_values_behave_as_in_the_oracle),
    };
    op_backends_use(backends, BACKENDS);
    return cmocka_run_group_tests(tests, op_backends_create, op_backends_destroy);
}
