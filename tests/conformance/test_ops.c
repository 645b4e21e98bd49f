/* test_ops.c: every operation of every table against ops_ref in double.
 *
 * Each row of op_cases.h runs at many sizes. The tolerance is compare.h's: at most twice the error
 * of ops_ref in float (rounding operands where the product does), plus a floor. Each run has NaN in
 * outputs, red zones around every buffer, exactly as much scratch as a dry run measured, and inputs
 * that must be unchanged afterwards; it is repeated at another alignment and with other numbers of
 * threads, and must give the same bits. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "compare.h"
#include "guarded.h"
#include "op_cases.h"
#include "seeded.h"

static struct test_options options;
static int failures;

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

static const struct {
    const char *name;
    struct backend_config config;
    int naive;        /* whose error is the yardstick */
    int same_bits_as; /* -1: nobody's; does not bind products */
} backends[BACKENDS] = {
    [ORACLE] = {"ref f64", {&ops_ref, PLX_F64, PLX_F64, 1, NULL, 0}, ORACLE, -1},
    [NAIVE] = {"ref f32", {&ops_ref, PLX_F32, PLX_F32, 1, NULL, 0}, NAIVE, -1},
    [NAIVE_BF16] = {"ref bf16", {&ops_ref, PLX_F32, PLX_BF16, 1, NULL, 0}, NAIVE, -1},
    [PORTABLE] = {"cpu portable", {&ops_cpu, PLX_F32, PLX_F32, 1, NULL, ~0u}, NAIVE, -1},
    [BEST] = {"cpu", {&ops_cpu, PLX_F32, PLX_F32, 1, NULL, 0}, NAIVE, -1},
    [BEST_2] = {"cpu, 2 threads", {&ops_cpu, PLX_F32, PLX_F32, 2, NULL, 0}, NAIVE, BEST},
    [BEST_3] = {"cpu, 3 threads", {&ops_cpu, PLX_F32, PLX_F32, 3, NULL, 0}, NAIVE, BEST},
    [BF16] = {"cpu bf16", {&ops_cpu, PLX_F32, PLX_BF16, 2, NULL, 0}, NAIVE_BF16, -1},
};

static struct backend bes[BACKENDS];
static struct error errors[BACKENDS];

static int create_backends(void **state)
{
    (void)state;
    for (int b = 0; b < BACKENDS; b++)
        if (backend_create(&bes[b], &backends[b].config, &errors[b]) != PLX_OK) {
            print_error("%s: %s\n", backends[b].name, errors[b].text);
            return -1;
        }
    return 0;
}

static int destroy_backends(void **state)
{
    (void)state;
    for (int b = 0; b < BACKENDS; b++) backend_destroy(&bes[b]);
    return 0;
}

/* ---- One run --------------------------------------------------------------------------------- */

/* A case at one size: operands, and their values before and after. */
struct run {
    const struct op_case *c;
    int64_t n, e;
    bool wild;
    struct operand operands[OPERANDS];
    double *before[OPERANDS];
};

struct result {
    double *values[OPERANDS];
};

static int64_t operand_count(const struct operand *operand)
{
    int64_t count = 1;
    for (int axis = 0; axis < operand->rank; axis++) count *= operand->shape[axis];
    return operand->rank > 0 ? count : 0;
}

static bool is_integer(const struct operand *operand)
{
    return operand->values >= FILL_IDS;
}

static void complain(const struct run *run, const char *backend, const char *what)
{
    print_error("%s at n %lld, e %lld%s on %s: %s\n    repeat: %s --only %s --seed %llu\n",
                run->c->name, (long long)run->n, (long long)run->e, run->wild ? ", wild" : "",
                backend, what, options.program, run->c->name, (unsigned long long)options.seed);
    failures++;
}

static double draw(struct seeded *random, const struct operand *operand, bool wild)
{
    double normal = seeded_normal(random);
    switch (operand->values) {
    case FILL_NORMAL:
        break;
    case FILL_SQUARES:
        return (float)(normal * normal);
    case FILL_IDS:
        return (double)seeded_between(random, 0, operand->bound - 1);
    case FILL_TARGETS:
        return (double)seeded_between(random, -1, operand->bound - 1);
    case FILL_POSITIONS:
        return (double)seeded_between(random, 0, 40000);
    case FILL_LENGTH:
        return (double)operand->bound;
    }
    int64_t kind = wild ? seeded_between(random, 0, 63) : 0;
    if (kind == 1) return NAN;
    if (kind == 2) return normal > 0 ? 1e4 : -1e4;
    if (kind == 3) return normal > 0 ? 88.0 : -88.0;
    if (kind == 4) return 0.0;
    return (float)(kind > 4 && kind < 20 ? 10 * normal : normal);
}

static struct run run_create(const struct op_case *c, int64_t n, int64_t e, bool wild)
{
    struct run run = {.c = c, .n = n, .e = e, .wild = wild};
    struct seeded random =
        seeded_make(options.seed, (uint64_t)((c - op_cases) * 1000000 + n * 1000 + e));
    c->operands(run.operands, n, e);
    for (int i = 0; i < OPERANDS; i++) {
        int64_t count = operand_count(&run.operands[i]);
        run.before[i] = malloc((size_t)(count + 1) * sizeof(double));
        assert_non_null(run.before[i]);
        for (int64_t j = 0; j < count; j++)
            run.before[i][j] = draw(&random, &run.operands[i], wild);
    }
    return run;
}

static void run_destroy(struct run *run)
{
    for (int i = 0; i < OPERANDS; i++) free(run->before[i]);
}

static void result_destroy(struct result *result)
{
    for (int i = 0; i < OPERANDS; i++) free(result->values[i]);
}

/* What a dry run says the call needs: the same views, without memory. */
static size_t measured_scratch(struct backend *be, const struct run *run,
                               const struct plx_tensor *views)
{
    struct backend dry = backend_dry(be);
    struct plx_tensor empty[OPERANDS];
    memcpy(empty, views, sizeof empty);
    for (int i = 0; i < OPERANDS; i++) empty[i].data = NULL;
    if (run->c->run(&dry, empty) != PLX_OK) complain(run, "dry", be->err->text);
    if (dry.scratch.used != 0) complain(run, "dry", "scratch is not as it was");
    return dry.scratch.peak;
}

enum placement { PLACE_ODD, PLACE_ALIGNED, PLACE_PADDED };

static struct test_tensor place_operand(const struct run *run, int i, plx_dtype storage,
                                        enum placement placement)
{
    const struct operand *operand = &run->operands[i];
    plx_dtype dtype = is_integer(operand) ? PLX_I32 : storage;
    enum view_kind kind = placement == PLACE_PADDED ? VIEW_PADDED : VIEW_DENSE;
    struct test_tensor tensor = test_tensor_create(dtype, kind, operand->rank, operand->shape);
    if (placement == PLACE_ALIGNED) {
        size_t bytes = tensor.memory.bytes;
        guarded_destroy(&tensor.memory);
        tensor.memory = guarded_create(bytes, 64);
        tensor.view.data = tensor.memory.data;
    }
    if (operand->role != ROLE_OUT) test_tensor_write(&tensor, run->before[i]);
    return tensor;
}

/* Inputs must be as they were (NaN compares as bits). */
static bool unchanged(const struct run *run, int i, const double *after)
{
    const struct operand *operand = &run->operands[i];
    if (operand->role != ROLE_IN) return true;
    for (int64_t j = 0; j < operand_count(operand); j++) {
        double was = run->before[i][j];
        if (was != after[j] && !(isnan(was) && isnan(after[j]))) return false;
    }
    return true;
}

static struct result run_on(const struct run *run, int b, enum placement placement)
{
    struct backend *be = &bes[b];
    const char *name = backends[b].name;
    struct test_tensor tensors[OPERANDS] = {0};
    struct plx_tensor views[OPERANDS] = {0};
    for (int i = 0; i < OPERANDS && run->operands[i].rank > 0; i++) {
        tensors[i] = place_operand(run, i, be->storage, placement);
        views[i] = tensors[i].view;
    }
    size_t needed = measured_scratch(be, run, views);
    assert_int_equal(backend_reserve(be, needed), PLX_OK);
    be->scratch.peak = 0;
    if (run->c->run(be, views) != PLX_OK) complain(run, name, be->err->text);
    error_clear(be->err);
    if (be->scratch.used != 0) complain(run, name, "scratch is not as it was");
    if (be->scratch.peak != needed) {
        char text[128];
        snprintf(text, sizeof text, "used %zu bytes of scratch, but a dry run measured %zu",
                 be->scratch.peak, needed);
        complain(run, name, text);
    }
    struct result result = {0};
    for (int i = 0; i < OPERANDS && run->operands[i].rank > 0; i++) {
        size_t count = (size_t)operand_count(&run->operands[i]);
        result.values[i] = malloc((count + 1) * sizeof(double));
        assert_non_null(result.values[i]);
        test_tensor_read(&tensors[i], result.values[i]);
        if (!test_tensor_intact(&tensors[i])) complain(run, name, "a red zone or gap was written");
        if (!unchanged(run, i, result.values[i])) complain(run, name, "an input was changed");
        test_tensor_destroy(&tensors[i]);
    }
    return result;
}

/* ---- Comparisons ----------------------------------------------------------------------------- */

static bool is_output(const struct operand *operand)
{
    return operand->rank > 0 && operand->role != ROLE_IN;
}

static void compare_results(const struct run *run, int b, const struct result *got,
                            const struct result *naive, const struct result *oracle)
{
    for (int i = 0; i < OPERANDS; i++) {
        const struct operand *operand = &run->operands[i];
        if (!is_output(operand)) continue;
        int64_t count = operand_count(operand);
        struct comparison error = compare_values(got->values[i], oracle->values[i], count);
        struct comparison allowed = compare_values(naive->values[i], oracle->values[i], count);
        if (compare_within(&error, &allowed, PLX_F32, NULL)) continue;
        char text[512];
        int used =
            snprintf(text, sizeof text, "operand %d, naive max abs %.3g: ", i, allowed.max_abs);
        compare_describe(text + used, sizeof text - (size_t)used, &error, got->values[i],
                         oracle->values[i], operand->rank, operand->shape);
        complain(run, backends[b].name, text);
    }
}

static void same_bits(const struct run *run, int b, const struct result *one,
                      const struct result *other, const char *what)
{
    for (int i = 0; i < OPERANDS; i++) {
        size_t bytes = (size_t)operand_count(&run->operands[i]) * sizeof(double);
        if (is_output(&run->operands[i]) && memcmp(one->values[i], other->values[i], bytes) != 0)
            complain(run, backends[b].name, what);
    }
}

static void check_kernel(const struct run *run, int b, const struct result results[BACKENDS])
{
    const struct result *naive = &results[backends[b].naive];
    compare_results(run, b, &results[b], naive, &results[ORACLE]);
    struct result again = run_on(run, b, PLACE_ODD);
    same_bits(run, b, &again, &results[b], "a second run differs");
    result_destroy(&again);
    again = run_on(run, b, PLACE_ALIGNED);
    same_bits(run, b, &again, &results[b], "another alignment gives another result");
    result_destroy(&again);
    int like = backends[b].same_bits_as;
    if (like >= 0 && !run->c->product)
        same_bits(run, b, &results[like], &results[b], "the number of threads changes the result");
    if (!run->c->product) return;
    again = run_on(run, b, PLACE_PADDED);
    compare_results(run, b, &again, naive, &results[ORACLE]);
    result_destroy(&again);
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
    return b == ORACLE || b == NAIVE || b == BEST || b == BEST_2 || b == BEST_3;
}

static void check_case(const struct op_case *c, int64_t n, int64_t e, bool wild,
                       bool (*chosen)(int b, const struct op_case *c))
{
    struct run run = run_create(c, n, e, wild);
    struct result results[BACKENDS] = {0};
    for (int b = 0; b < BACKENDS; b++) {
        if (!chosen(b, c)) continue;
        results[b] = run_on(&run, b, PLACE_ODD);
        if (b >= KERNELS) check_kernel(&run, b, results);
    }
    for (int b = 0; b < BACKENDS; b++) result_destroy(&results[b]);
    run_destroy(&run);
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
    failures = 0;
    for (int k = 0; k < OP_CASES; k++) {
        const struct op_case *c = &op_cases[k];
        if (!test_options_match(&options, c->name)) continue;
        for (int i = 0; i < SIZES; i++)
            for (int j = 0; j < SIZES; j++)
                if (is_case_size(c, i, j)) check_case(c, sizes[i], sizes[j], false, is_worth);
        check_case(c, 0, 3, false, is_worth);
    }
    assert_int_equal(failures, 0);
}

/* Large enough that several threads take part. */
static void threads_change_nothing(void **state)
{
    (void)state;
    failures = 0;
    for (int k = 0; k < OP_CASES; k++) {
        const struct op_case *c = &op_cases[k];
        if (!test_options_match(&options, c->name) || c->product || c->attention) continue;
        check_case(c, 700, 193, false, is_threaded);
        check_case(c, 33000, 3, false, is_threaded);
    }
    assert_int_equal(failures, 0);
}

/* NaN spreads as in the reference, and huge arguments neither overflow nor lose their sign. */
static void extreme_values_behave_as_in_the_oracle(void **state)
{
    (void)state;
    failures = 0;
    for (int k = 0; k < OP_CASES; k++) {
        const struct op_case *c = &op_cases[k];
        if (!test_options_match(&options, c->name) || c->product || c->attention) continue;
        check_case(c, 17, 64, true, is_worth);
        check_case(c, 65, 17, true, is_worth);
    }
    assert_int_equal(failures, 0);
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
        /* Packed weights are no tensors, so their two operations are in test_packed.c. */
        bool covered = member < offsetof(struct ops, zero) ||
                       member == offsetof(struct ops, project) ||
                       member == offsetof(struct ops, unpack);
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
    return cmocka_run_group_tests(tests, create_backends, destroy_backends);
}
