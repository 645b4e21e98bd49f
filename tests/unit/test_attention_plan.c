/* test_attention_plan.c: the plans of the tiled kernels: pieces do not overlap, sizes follow the
 * shapes and nothing else, and scratch stays modest. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "attention/attention_plan.h"
#include "attention_problem.h"

static const struct attention_isa isas[] = {{16, 6}, {4, 4}};

typedef struct attention_plan (*planner)(const struct attention_problem *, struct attention_isa);
static const planner planners[] = {attention_plan_forward, attention_plan_backward,
                                   attention_plan_decode};

static struct attention_problem cpu_problem(int64_t B, int64_t T, int64_t S, int64_t H, int64_t G,
                                            int64_t D, bool probe)
{
    struct attention_problem p = problem_of(PLX_F32, B, T, S, H, G, D, probe);
    p.threads = 2;
    return p;
}

static const int64_t channels[] = {1, 16, 17, 64, 80, 128, 129, 200, 256};
static const int64_t groups[] = {1, 2, 3, 8, 96, 128};
static const int64_t times[] = {1, 2, 63, 64, 4096};

enum { CHANNELS = 9, GROUPS = 6, TIMES = 5 };

/* Checks that hold for any plan. */
static void check_plan(const struct attention_plan *plan, const struct attention_problem *p,
                       struct attention_isa isa)
{
    size_t end = 0;
    for (int n = 0; n < ATTENTION_PIECES; n++) {
        assert_true(plan->offset[n] >= end);
        assert_int_equal(plan->offset[n] % 16, 0);
        end = plan->offset[n] + plan->piece[n];
    }
    assert_true(end * sizeof(float) <= plan->thread_bytes);
    assert_int_equal(plan->thread_bytes % 64, 0);
    assert_int_equal(plan->shared_bytes % 64, 0);
    assert_int_equal(plan->bytes, plan->shared_bytes + (size_t)p->threads * plan->thread_bytes);
    assert_true(plan->depth >= p->D && plan->depth < p->D + isa.width);
    assert_int_equal(plan->depth % isa.width, 0);
    assert_int_equal(plan->keys % isa.width, 0);
    assert_int_equal(plan->row_block % 2, 0);
    assert_true(plan->queries >= 1);
    assert_int_equal(plan->rows % plan->row_block, 0);
}

static void every_plan_is_consistent(void **state)
{
    (void)state;
    for (int n = 0; n < CHANNELS * GROUPS * TIMES * 2; n++) {
        int64_t D = channels[n % CHANNELS], group = groups[n / CHANNELS % GROUPS];
        int64_t T = times[n / CHANNELS / GROUPS % TIMES];
        struct attention_problem p =
            cpu_problem(2, T, 1000, 2 * group, 2, D, n / CHANNELS / GROUPS / TIMES != 0);
        for (int pass = 0; pass < 3; pass++)
            for (int isa = 0; isa < 2; isa++) {
                struct attention_plan plan = planners[pass](&p, isas[isa]);
                check_plan(&plan, &p, isas[isa]);
                if (pass != PLX_BACKWARD) assert_true(plan.rows >= plan.group * plan.queries);
                if (pass == PLX_DECODE) assert_true(plan.rows == plan.row_block);
            }
    }
}

/* Only the total may depend on the threads; nothing that decides how a row is computed may depend
 * on the batch, the lengths of the sequences or the number of heads at the same group. */
static void cutting_depends_on_channels_and_group_only(void **state)
{
    (void)state;
    for (int pass = 0; pass < 3; pass++) {
        struct attention_problem p = cpu_problem(1, 4096, 4096, 8, 2, 64, true);
        struct attention_problem q = cpu_problem(7, 4096, 9000, 32, 8, 64, true);
        q.threads = 64;
        struct attention_plan a = planners[pass](&p, isas[0]), b = planners[pass](&q, isas[0]);
        assert_int_equal(a.queries, b.queries);
        assert_int_equal(a.row_block, b.row_block);
        assert_int_equal(a.keys, b.keys);
        assert_int_equal(a.thread_bytes, b.thread_bytes);
        assert_memory_equal(a.offset, b.offset, sizeof a.offset);
    }
}

static void scratch_of_a_thread_fits_the_second_level_cache(void **state)
{
    (void)state;
    for (int pass = 0; pass < 3; pass++)
        for (int n = 0; n < CHANNELS; n++) {
            struct attention_problem p = cpu_problem(1, 4096, 4096, 8, 2, channels[n], true);
            struct attention_plan plan = planners[pass](&p, isas[0]);
            assert_true(plan.thread_bytes <= 1024 * 1024);
        }
}

/* Forward needs nothing that grows with the lengths; backward four scalars a row and, for gradients
 * that are not f32, f32 copies of them; decode its partial results. */
static void shared_scratch_follows_its_formula(void **state)
{
    (void)state;
    struct attention_problem p = cpu_problem(3, 500, 700, 8, 2, 64, true);
    assert_int_equal(attention_plan_forward(&p, isas[0]).shared_bytes, 0);
    assert_int_equal(attention_plan_backward(&p, isas[0]).shared_bytes, 3 * 500 * 8 * 4 * 4);
    p.dq = p.dr = plx_tensor_4d(NULL, PLX_BF16, 3, 500, 8, 64);
    p.dk = plx_tensor_4d(NULL, PLX_BF16, 3, 700, 2, 64);
    p.dv = plx_tensor_4d(NULL, PLX_F32, 3, 700, 2, 64);
    assert_int_equal(attention_plan_backward(&p, isas[0]).shared_bytes,
                     3 * 500 * 8 * 4 * 4 + 2 * 3 * 500 * 8 * 64 * 4 + 3 * 700 * 2 * 64 * 4);

    struct attention_problem one = cpu_problem(3, 1, 32768, 8, 2, 64, true);
    struct attention_plan plan = attention_plan_decode(&one, isas[0]);
    assert_int_equal(plan.splits, 32);
    assert_int_equal(attention_plan_partial(&plan, true), 2 * 16 + 2 + 2 * 64);
    assert_int_equal(plan.shared_bytes, 32 * 3 * 8 * (2 * 16 + 2 + 2 * 64) * 4);
}

static void splits_grow_with_the_keys_up_to_their_limit(void **state)
{
    (void)state;
    struct attention_problem p = cpu_problem(1, 1, 1 << 20, 8, 8, 128, true);
    struct attention_plan plan = attention_plan_decode(&p, isas[0]);
    int64_t before = 1;
    assert_int_equal(attention_plan_splits(&plan, 0), 1);
    assert_int_equal(attention_plan_splits(&plan, 511), 1);
    assert_int_equal(attention_plan_splits(&plan, 512), 2);
    assert_int_equal(attention_plan_splits(&plan, 1 << 20), 32);
    for (int64_t keys = 0; keys < 20000; keys += 37) {
        int64_t splits = attention_plan_splits(&plan, keys);
        assert_true(splits >= before && splits <= plan.splits);
        before = splits;
    }
    p.T = 512;
    assert_int_equal(attention_plan_decode(&p, isas[0]).splits, 1);
    assert_int_equal(attention_plan_decode(&p, isas[0]).shared_bytes, 0);
}

static void print_names_what_it_holds(void **state)
{
    (void)state;
    char text[2048] = {0};
    struct attention_problem p = cpu_problem(1, 4096, 4096, 4, 4, 128, true);
    struct attention_plan plan = attention_plan_backward(&p, isas[0]);
    FILE *file = fmemopen(text, sizeof text - 1, "w");
    assert_non_null(file);
    attention_plan_print(&plan, file);
    fclose(file);
    assert_non_null(strstr(text, "128 keys"));
    assert_non_null(strstr(text, "gradients"));
    assert_non_null(strstr(text, "in all"));
    assert_null(strstr(text, "states"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_plan_is_consistent),
        cmocka_unit_test(cutting_depends_on_channels_and_group_only),
        cmocka_unit_test(scratch_of_a_thread_fits_the_second_level_cache),
        cmocka_unit_test(shared_scratch_follows_its_formula),
        cmocka_unit_test(splits_grow_with_the_keys_up_to_their_limit),
        cmocka_unit_test(print_names_what_it_holds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
