/* test_attention_forward_sm90_plan.c: the launch plan of the forward kernels for Hopper, which
 * needs no GPU: every tile has exactly one place, heavy tiles come first, blocks get even work,
 * sections fit the cache, shared memory is counted in full, and problems that the kernels cannot
 * read are refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "attention/attention_forward_sm90_plan.h"
#include "attention_problem.h"

enum { PROCESSORS = 132 };

static const struct forward_sm90_tiles sizes = {.rows = 128, .keys = 64, .stages = 4};
static const struct forward_sm90_tiles tall = {.rows = 192, .keys = 64, .stages = 4};

static void pack(struct attention_problem *p, int64_t sequences)
{
    const int64_t entries = sequences + 1;
    p->q_offsets = plx_tensor_dense(NULL, PLX_I32, 1, &entries);
    p->sequences = sequences;
}

/* Every tile of every pair has exactly one place. Pairs are met section by section, as many in each
 * as in any other or one more, and in each the tiles from the last to the first. */
static void check_places(const struct forward_sm90_plan *plan)
{
    unsigned char *met = calloc((size_t)plan->items, 1);
    int tile = 0, first = 0, width = 0, section = -1;
    assert_non_null(met);
    assert_int_equal(plan->items, plan->tiles * plan->pairs);
    for (int item = 0; item < plan->items; item++) {
        struct forward_sm90_place place = forward_sm90_place(plan, item);
        assert_in_range(place.tile, 0, plan->tiles - 1);
        assert_in_range(place.pair, 0, plan->pairs - 1);
        assert_int_equal(met[place.pair * plan->tiles + place.tile]++, 0);
        if (item == 0 || place.pair >= first + width) {
            section++;
            first += width;
            width = plan->pairs / plan->sections + (section < plan->pairs % plan->sections);
            tile = plan->tiles - 1;
        }
        assert_in_range(place.pair, first, first + width - 1);
        assert_true(place.tile == tile || place.tile == tile - 1);
        tile = place.tile;
    }
    assert_int_equal(first + width, plan->pairs);
    assert_int_equal(section + 1, plan->sections);
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
        struct attention_problem p = sm90_problem(B, T, T, H, G, n % 2 ? 64 : 128, n / 210);
        assert_null(forward_sm90_refuse(&p));
        struct forward_sm90_tiles which = n % 3 ? sizes : tall;
        struct forward_sm90_plan plan = forward_sm90_plan(&p, which, PROCESSORS);
        assert_int_equal(plan.tiles, (T + which.rows - 1) / which.rows);
        assert_int_equal(plan.pairs, B * H);
        assert_in_range(plan.sections, 1, plan.pairs);
        check_places(&plan);
    }
}

static void packed_sequences_have_slots(void **state)
{
    (void)state;
    struct attention_problem p = sm90_problem(1, 1000, 1000, 4, 2, 64, true);
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
            struct attention_problem p = sm90_problem(1, 4096, 4096, 1, 1, D, probe);
            struct forward_sm90_plan plan = forward_sm90_plan(&p, sizes, PROCESSORS);
            int tiles = (int)D * 2 * ((probe + 1) * sizes.rows + 2 * sizes.stages * sizes.keys);
            assert_in_range(plan.shared_bytes, tiles + 256, tiles + 1024);
        }
    }
}

/* The block that has done least. */
static int idlest(const int64_t *work, int blocks)
{
    int least = 0;
    for (int block = 1; block < blocks; block++)
        if (work[block] < work[least]) least = block;
    return least;
}

/* Under a causal mask a tile's work is its distance from the start, and the next item goes to
 * the block that is done first. */
static void causal_work_is_even(void **state)
{
    static const int64_t lengths[] = {1024, 4096, 16384}, batches[] = {16, 4, 1};
    (void)state;
    for (int n = 0; n < 3 * 3; n++) {
        int64_t T = lengths[n % 3], B = batches[n % 3], G = n / 3 == 2 ? 1 : 16 >> n / 3;
        struct attention_problem p = sm90_problem(B, T, T, 16, G, 128, true);
        struct forward_sm90_plan plan = forward_sm90_plan(&p, sizes, PROCESSORS);
        int64_t work[PROCESSORS] = {0}, total = 0, most = 0;
        for (int item = 0; item < plan.items; item++) {
            int64_t more = forward_sm90_place(&plan, item).tile + 1;
            int block = idlest(work, PROCESSORS);
            total += more;
            work[block] += more;
            most = work[block] > most ? work[block] : most;
        }
        /* At most 3 % above the mean. */
        assert_true(most * PROCESSORS * 100 <= total * 103);
    }
}

/* Keys and values of a section are at most 16 MiB, unless one head has more. */
static void sections_fit_the_cache(void **state)
{
    static const int expected[][4] = {/* T, B, G, sections of 16 query heads a sequence */
                                      {16384, 1, 16, 8},  {16384, 1, 8, 4}, {4096, 4, 16, 8},
                                      {65536, 1, 16, 16}, {1024, 1, 16, 1}, {16384, 1, 1, 1}};
    (void)state;
    for (int n = 0; n < 6; n++) {
        const int *x = expected[n];
        struct attention_problem p = sm90_problem(x[1], x[0], x[0], 16, x[2], 128, true);
        assert_int_equal(forward_sm90_plan(&p, sizes, PROCESSORS).sections, x[3]);
    }
}

static void what_copies_cannot_express_is_refused(void **state)
{
    (void)state;
    struct attention_problem good = sm90_problem(2, 100, 100, 4, 2, 64, true), p = good;
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
    p = sm90_problem(1, 100, 100, 4, 2, 64, true);
    p.k.stride[0] = 0, assert_null(forward_sm90_refuse(&p));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_tile_has_one_place),
        cmocka_unit_test(packed_sequences_have_slots),
        cmocka_unit_test(shared_memory_holds_all_tiles),
        cmocka_unit_test(causal_work_is_even),
        cmocka_unit_test(sections_fit_the_cache),
        cmocka_unit_test(what_copies_cannot_express_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
