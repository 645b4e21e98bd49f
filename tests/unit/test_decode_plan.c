/* test_decode_plan.c: how the Hopper decode kernel cuts its problems; needs no GPU.
 *
 * Whatever the shape, a plan must be one that the hardware can launch; for the shapes that were
 * measured it must be the fastest that was found (parallax/NOTES.md, "Hopper decode"). */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include "attention/attention_decode_plan.h"

static struct attention_problem problem(int64_t B, int64_t T, int64_t H, int64_t G, int64_t S,
                                        int64_t D)
{
    return (struct attention_problem){.pass = PLX_DECODE,
                                      .B = B,
                                      .T = T,
                                      .S = S,
                                      .H = H,
                                      .G = G,
                                      .D = D,
                                      .sequences = B,
                                      .causal = true,
                                      .dtype = PLX_BF16};
}

static int cluster(int64_t B, int64_t T, int64_t H, int64_t G, int64_t S, int64_t D)
{
    struct attention_problem p = problem(B, T, H, G, S, D);
    return decode_plan_make(&p).cluster;
}

static void measured_shapes_get_the_fastest_cluster(void **state)
{
    (void)state;
    assert_int_equal(cluster(1, 1, 8, 8, 512, 128), 8);
    assert_int_equal(cluster(1, 1, 8, 8, 16384, 128), 8);
    assert_int_equal(cluster(8, 1, 16, 8, 4096, 128), 2);
    assert_int_equal(cluster(32, 1, 8, 8, 512, 128), 1);
    assert_int_equal(cluster(32, 1, 8, 8, 16384, 128), 1);
    assert_int_equal(cluster(64, 1, 32, 8, 4096, 128), 1);
    assert_int_equal(cluster(32, 1, 8, 8, 4096, 64), 1);
}

static void short_caches_do_not_split(void **state)
{
    (void)state;
    assert_int_equal(cluster(1, 1, 1, 1, 1, 128), 1);
    assert_int_equal(cluster(1, 1, 1, 1, 64, 128), 1);
    assert_int_equal(cluster(1, 1, 1, 1, 65, 128), 2);
    struct attention_problem p = problem(1, 1, 1, 1, 100000, 128);
    p.window = 30;
    assert_int_equal(decode_plan_make(&p).cluster, 1);
}

static void rows_make_blocks_of_eight(void **state)
{
    (void)state;
    const struct {
        int64_t T, H, G;
        int rows, blocks;
    } cases[] = {{1, 8, 8, 1, 1},   {1, 16, 2, 8, 1}, {1, 18, 2, 9, 2},
                 {4, 32, 4, 32, 4}, {8, 8, 8, 8, 1},  {8, 64, 8, 64, 8}};
    for (size_t n = 0; n < sizeof cases / sizeof cases[0]; n++) {
        struct attention_problem p = problem(2, cases[n].T, cases[n].H, cases[n].G, 4096, 128);
        struct decode_plan plan = decode_plan_make(&p);
        assert_int_equal(plan.rows, cases[n].rows);
        assert_int_equal(plan.row_blocks, cases[n].blocks);
    }
}

/* A block may have 227 KiB, a multiprocessor has 228; what all blocks at once need must be there.
 */
static void every_plan_can_be_launched(void **state)
{
    (void)state;
    for (int64_t B = 1; B <= 256; B *= 2)
        for (int64_t G = 1; G <= 16; G *= 2)
            for (int64_t group = 1; group <= 16; group++)
                for (int64_t S = 1; S <= 65536; S *= 4)
                    for (int64_t D = 64; D <= 128; D *= 2) {
                        struct attention_problem p = problem(B, 1, G * group, G, S, D);
                        struct decode_plan plan = decode_plan_make(&p);
                        int64_t blocks = B * G * plan.row_blocks * plan.cluster;
                        assert_true(plan.cluster >= 1 && plan.cluster <= DECODE_MAX_CLUSTER);
                        assert_int_equal(plan.cluster & (plan.cluster - 1), 0);
                        assert_true(plan.shared_bytes <= 227 * 1024);
                        assert_int_equal(plan.shared_bytes % 16, 0);
                        assert_true(plan.cluster == 1 || blocks <= 132);
                        if (blocks <= 264)
                            assert_true(2 * (plan.shared_bytes + 1024) <= 228 * 1024);
                        assert_true(plan.row_blocks * DECODE_ROWS >= plan.rows);
                    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(measured_shapes_get_the_fastest_cluster),
        cmocka_unit_test(short_caches_do_not_split),
        cmocka_unit_test(rows_make_blocks_of_eight),
        cmocka_unit_test(every_plan_can_be_launched),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
