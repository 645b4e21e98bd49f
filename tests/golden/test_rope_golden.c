/* test_rope_golden.c: rotary positions against published numbers: Qwen-3's half-split rotation at D
 * = 4, theta = 1e6, position 3, of [1,2,3,4]. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "op.h"

static const double turned[] = {-1.413352521, 1.987991018, -2.828857482, 4.005981991};

static void check_table(const struct ops *ops, plx_dtype dtype, uint32_t disabled, double tolerance)
{
    double wide[] = {1, 2, 3, 4};
    float narrow[] = {1, 2, 3, 4};
    int32_t position = 3;
    void *data = dtype == PLX_F64 ? (void *)wide : (void *)narrow;
    struct plx_tensor x = plx_tensor_dense(data, dtype, 3, (const int64_t[]){1, 1, 4});
    struct plx_tensor at = plx_tensor_dense(&position, PLX_I32, 1, (const int64_t[]){1});

    const struct rope rope = {.theta = 1e6};
    struct error err = {0};
    struct backend be;
    struct backend_config config = {.ops = ops,
                                    .storage = dtype,
                                    .compute = dtype,
                                    .threads = 1,
                                    .disabled_features = disabled};
    assert_int_equal(backend_create(&be, &config, &err), PLX_OK);
    assert_int_equal(backend_reserve(&be, 4096), PLX_OK);
    assert_int_equal(ops->rope(&be, &x, &x, &at, &rope, false), PLX_OK);
    for (int i = 0; i < 4; i++) {
        double got = dtype == PLX_F64 ? wide[i] : narrow[i];
        if (fabs(got - turned[i]) > tolerance)
            fail_msg("%s: channel %d is %.9f but must be %.9f", ops->name, i, got, turned[i]);
    }
    assert_int_equal(ops->rope(&be, &x, &x, &at, &rope, true), PLX_OK);
    for (int i = 0; i < 4; i++) {
        double got = dtype == PLX_F64 ? wide[i] : narrow[i];
        if (fabs(got - (i + 1)) > tolerance)
            fail_msg("%s: channel %d turned back is %.9f but was %d", ops->name, i, got, i + 1);
    }
    backend_destroy(&be);
}

/* Nine decimals are given; a float near 4 has a spacing of 4.8e-7. */
static void every_table_gives_the_published_rotation(void **state)
{
    (void)state;
    check_table(&ops_ref, PLX_F64, 0, 1e-9);
    check_table(&ops_ref, PLX_F32, 0, 5e-7);
    check_table(&ops_cpu, PLX_F32, ~0u, 5e-7);
    check_table(&ops_cpu, PLX_F32, 0, 5e-7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_table_gives_the_published_rotation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
