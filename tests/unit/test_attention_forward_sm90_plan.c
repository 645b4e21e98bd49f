/* test_attention_forward_sm90_plan.c: the launch plan of the forward kernels for Hopper, which
 * needs no GPU: every tile has exactly one place, heavy tiles come first, blocks get even work,
 * shared memory is counted in full, and problems that the kernels cannot read are refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "attention/attention_forward_sm90_plan.h"
#include "sm90_problem.h"

enum { PROCESSORS = 132 };

static const struct forward_sm90_tiles sizes = {.rows = 128, .keys = 64, .stages = 4};
static const struct forward_sm90_tiles tall = {.rows = 192, .keys = 64, .stages = 4};

static void pack(struct attention_problem *p, int64_t sequences)
{
    const int64_t entries = sequences + 1;
    p->q_offsets = plx_tensor_dense(NULL, PLX_I32, 1, &entries);
    p->sequences = sequences;
}

/* Every tile of every pair has exactly one place; a block's rounds end for good. */
static void check_places(const struct forward_sm90_plan *plan)
{
    unsigned char *met = calloc((size_t)plan->items, 1);
    int found = 0;
    assert_non_null(met);
    for (int block = 0; block < plan->grid; block++) {
        struct forward_sm90_place place;
        int round = 0;
        for (; forward_sm90_place(plan, block, round, &place); round++) {
            assert_in_range(place.tile, 0, plan->tiles - 1);
            assert_in_range(place.pair, 0, plan->pairs - 1);
            assert_int_equal(met[place.pair * plan->tiles + place.tile]++, 0);
            found++;
        }
        for (int n = 1; n < 3; n++)
            assert_false(forward_sm90_place(plan, block, round + n, &place));
    }
    assert_int_equal(found, plan->items);
    free(met);
}

static void every_tile_has_one_place(void **state)
{
    static const int64_t times[] = {1, 127, 128, 129, 1000, 4096, 16384},
                         heads[] = {1, 2, 3, 16, 40};
    static const int64_t batches[] = {1, 3, 8}, ratios[] = {1, 2};
    (void)state;
    for (int n = 0; n < 7 * 5 * 3 * 2 * 2; n++) {
        int64_t H = heads[n / 7 % 5], G = H % ratios[n / 105 % 2] ? H : H / ratios[n / 105 % 2];
        int64_t T = times[n % 7], B = batches[n / 35 % 3];
        struct attention_problem p = problem_of(B, T, T, H, G, n % 2 ? 64 : 128, n / 210);
        assert_null(forward_sm90_refuse(&p));
        struct forward_sm90_tiles which = n % 3 ? sizes : tall;
        struct forward_sm90_plan plan = forward_sm90_plan(&p, which, PROCESSORS);
        assert_int_equal(plan.tiles, (T + which.rows - 1) / which.rows);
        assert_int_equal(plan.pairs, B * H);
        assert_in_range(plan.section, 1, plan.pairs);
        check_places(&plan);
    }
}

static void packed_sequences_have_slots(void **state)
{
    (void)state;
    struct attention_problem p = problem_of(1, 1000, 1000, 4, 2, 64, true);
    pack(&p, 7);
    struct forward_sm90_plan plan = forward_sm90_plan(&p, sizes, PROCESSORS);
    assert_int_equal(plan.tiles, 1000 / 128 + 7);
    assert_int_equal(plan.pairs, 4);
    check_places(&plan);
}

static void shared_memory_holds_all_tiles(void **state)
{
    (void)state;
    for (int probe = 0; probe < 2; probe++) {
        for (int64_t D = 64; D <= 128; D += 64) {
            struct attention_problem p = problem_of(1, 4096, 4096, 1, 1, D, probe);
            struct forward_sm90_plan plan = forward_sm90_plan(&p, sizes, PROCESSORS);
            int tiles = (int)D * 2 * ((probe + 1) * sizes.rows + 2 * sizes.stages * sizes.keys);
            assert_in_range(plan.shared_bytes, tiles + 256, tiles + 1024);
        }
    }
}

/* Under a causal mask a tile's work is its distance from the start. */
static void causal_work_is_even(void **state)
{
    static const int64_t lengths[] = {4096, 16384}, batches[] = {4, 1};
    (void)state;
    for (int n = 0; n < 2; n++) {
        struct attention_problem p =
            problem_of(batches[n], lengths[n], lengths[n], 16, 16, 128, true);
        struct forward_sm90_plan plan = forward_sm90_plan(&p, sizes, PROCESSORS);
        int64_t total = 0, most = 0;
        for (int block = 0; block < plan.grid; block++) {
            struct forward_sm90_place place;
            int64_t work = 0;
            for (int round = 0; forward_sm90_place(&plan, block, round, &place); round++)
                work += place.tile + 1;
            total += work;
            most = work > most ? work : most;
        }
        /* At most 6 % above the mean. */
        assert_true(most * plan.grid * 100 <= total * 106);
    }
}

static void what_copies_cannot_express_is_refused(void **state)
{
    (void)state;
    struct attention_problem good = problem_of(2, 100, 100, 4, 2, 64, true), p = good;
    assert_null(forward_sm90_refuse(&p));
    p.dtype = PLX_F32, assert_non_null(forward_sm90_refuse(&p)), p = good;
    p.dtype = p.kv_dtype = PLX_F16, assert_null(forward_sm90_refuse(&p)), p = good;
    p.kv_dtype = PLX_F8E4M3, assert_non_null(forward_sm90_refuse(&p)), p = good;
    p.page = 16, assert_non_null(forward_sm90_refuse(&p)), p = good;
    p.page = 96, assert_null(forward_sm90_refuse(&p)), p = good;
    p.D = 96, assert_non_null(forward_sm90_refuse(&p)), p = good;
    p.scale = -1, assert_non_null(forward_sm90_refuse(&p)), p = good;
    p.k.stride[1] += 4, assert_non_null(forward_sm90_refuse(&p)), p = good;
    p.k.stride[0] = 0, assert_non_null(forward_sm90_refuse(&p)), p = good;
    p.v.data = (void *)(uintptr_t)8, assert_non_null(forward_sm90_refuse(&p)), p = good;
    p.r.stride[2] += 2, assert_non_null(forward_sm90_refuse(&p)), p = good;
    p.o.stride[2] += 4, assert_non_null(forward_sm90_refuse(&p)), p = good;
    /* Rows on multiples of 16 bytes, wherever they are. */
    p.k.stride[1] += 8, assert_null(forward_sm90_refuse(&p)), p = good;
    p.v.data = (void *)(uintptr_t)48, assert_null(forward_sm90_refuse(&p)), p = good;
    /* An axis of extent 1 has no stride. */
    p = problem_of(1, 100, 100, 4, 2, 64, true);
    p.k.stride[0] = 0, assert_null(forward_sm90_refuse(&p));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_tile_has_one_place),
        cmocka_unit_test(packed_sequences_have_slots),
        cmocka_unit_test(shared_memory_holds_all_tiles),
        cmocka_unit_test(causal_work_is_even),
        cmocka_unit_test(what_copies_cannot_express_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
