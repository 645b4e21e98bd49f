/* test_gpu_draw.c: the laws of draw_laws.h on a GPU, whose ids are also those of the CPU. Without a
 * GPU the program says "skipped, no GPU" and exits with 77. */
#include <stdio.h>

#include "../draw_laws.h"
#include "device_memory.h"

static struct test_options options;

enum { ORACLE, CPU, CUDA, BACKENDS };

static struct op_backend backends[BACKENDS] = {
    [ORACLE] = {.name = "ref f64", .config = {&ops_ref, PLX_F64, PLX_F64, 1, NULL, 0}},
    [CPU] = {.name = "cpu", .config = {&ops_cpu, PLX_F32, PLX_F32, 0, NULL, 0}},
    [CUDA] = {.name = "cuda", .config = {.ops = &ops_cuda, .storage = PLX_F32, .compute = PLX_F32}},
};

static void ids_are_the_references(void **state)
{
    (void)state;
    draws_are_the_references(&backends[ORACLE], &backends[CUDA], options.seed);
}

static void ids_are_the_cpus(void **state)
{
    (void)state;
    draws_are_the_same(&backends[CPU], &backends[CUDA], options.seed);
}

static void frequencies_are_the_distributions(void **state)
{
    (void)state;
    draws_have_the_right_frequencies(&backends[CUDA]);
}

int main(int argc, char **argv)
{
    if (!device_ready()) return 77;
    options = test_options_read(argc, argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids_are_the_references),
        cmocka_unit_test(ids_are_the_cpus),
        cmocka_unit_test(frequencies_are_the_distributions),
    };
    op_backends_use(backends, BACKENDS);
    return cmocka_run_group_tests(tests, op_backends_create, op_backends_destroy);
}
