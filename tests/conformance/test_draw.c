/* test_draw.c: the laws of draw_laws.h on the CPU: the baseline's loops, the best ones, and several
 * threads. */
#include <float.h>

#include "../draw_laws.h"

static struct test_options options;

enum { ORACLE, PORTABLE, BEST, THREADS, BACKENDS };

static struct op_backend backends[BACKENDS] = {
    [ORACLE] = {.name = "ref f64", .config = {&ops_ref, PLX_F64, PLX_F64, 1, NULL, 0}},
    [PORTABLE] = {.name = "cpu portable", .config = {&ops_cpu, PLX_F32, PLX_F32, 1, NULL, ~0u}},
    [BEST] = {.name = "cpu", .config = {&ops_cpu, PLX_F32, PLX_F32, 1, NULL, 0}},
    [THREADS] = {.name = "cpu, 3 threads", .config = {&ops_cpu, PLX_F32, PLX_F32, 3, NULL, 0}},
};

static void ids_are_the_references(void **state)
{
    (void)state;
    draws_are_the_references(&backends[ORACLE], &backends[BEST], options.seed);
}

static void backends_agree(void **state)
{
    (void)state;
    draws_are_the_same(&backends[BEST], &backends[PORTABLE], options.seed);
    draws_are_the_same(&backends[BEST], &backends[THREADS], options.seed);
}

static void frequencies_are_the_distributions(void **state)
{
    (void)state;
    for (int b = 0; b < BACKENDS; b++) draws_have_the_right_frequencies(&backends[b]);
}

/* The bound that draw_laws.h builds on: 2^-29 of the weight, and a unit. */
static void weights_are_as_exact_as_promised(void **state)
{
    (void)state;
    struct seeded random = seeded_make(options.seed, 1);
    for (int i = 0; i < 300000; i++) {
        const float logit = -(float)(50 * seeded_uniform(&random) * seeded_uniform(&random));
        const double temperature = 0.1 + 2 * seeded_uniform(&random);
        const double exact = exp(logit / temperature) * 0x1p42;
        const double off = fabs((double)draw_weight(logit, 0, draw_rate(temperature)) - exact);
        if (off > 0x1p-29 * exact + 1)
            fail_msg("exp(%g / %g) is off by %g of %g", logit, temperature, off, exact);
    }
    assert_true(draw_weight(1.5f, 1.5f, draw_rate(0.3)) == (uint64_t)1 << DRAW_BITS);
    assert_true(draw_weight(-FLT_MAX, FLT_MAX, draw_rate(1e-300)) == 0);
}

int main(int argc, char **argv)
{
    options = test_options_read(argc, argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(weights_are_as_exact_as_promised),
        cmocka_unit_test(ids_are_the_references),
        cmocka_unit_test(backends_agree),
        cmocka_unit_test(frequencies_are_the_distributions),
    };
    op_backends_use(backends, BACKENDS);
    return cmocka_run_group_tests(tests, op_backends_create, op_backends_destroy);
}
