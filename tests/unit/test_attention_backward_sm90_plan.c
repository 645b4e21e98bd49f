/* test_attention_backward_sm90_plan.c: the launch plan of the backward kernels for Hopper, which
 * needs no GPU: every tile has exactly one block, heavy tiles come first within a section, blocks
 * that the hardware hands out in order finish together, the workspace holds what the kernels index,
 * tiles without a mask are those that are seen whole, and problems that the kernels cannot read are
 * refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "attention/attention_backward_sm90_plan.h"
#include "attention_problem.h"

enum { PROCESSORS = 132 };

static struct attention_problem backward_of(int64_t B, int64_t T, int64_t S, int64_t H, int64_t G,
                                            int64_t D, bool probe)
{
    struct attention_problem p = sm90_problem(B, T, S, H, G, D, probe);
    p.pass = PLX_BACKWARD;
    p.d_o = p.dq = p.q;
    p.dr = p.r;
    p.dk = p.dv = p.k;
    return p;
}

static void pack(struct attention_problem *p, int64_t sequences)
{
    const int64_t entries = sequences + 1;
    p->q_offsets = plx_tensor_dense(NULL, PLX_I32, 1, &entries);
    p->sequences = sequences;
}

/* Every tile of every pair has exactly one block; within a section heavier ones come first. */
static void check_places(struct backward_sm90_grid grid)
{
    int blocks = grid.tiles * grid.pairs, before = 0, section = -1;
    unsigned char *met = calloc((size_t)blocks, 1);
    assert_non_null(met);
    for (int block = 0; block < blocks; block++) {
        struct backward_sm90_place place = backward_sm90_place(grid, block);
        assert_in_range(place.tile, 0, grid.tiles - 1);
        assert_in_range(place.pair, 0, grid.pairs - 1);
        assert_int_equal(met[place.pair * grid.tiles + place.tile]++, 0);
        int order = grid.rising ? place.tile : grid.tiles - 1 - place.tile;
        if (place.pair / grid.section == section) assert_true(order >= before);
        before = order, section = place.pair / grid.section;
    }
    free(met);
}

static void every_tile_has_one_block(void **state)
{
    static const int64_t times[] = {1, 63, 128, 129, 1000, 4096}, heads[] = {1, 2, 3, 16, 40};
    (void)state;
    for (int n = 0; n < 6 * 5 * 2 * 2 * 2; n++) {
        int64_t H = heads[n / 6 % 5], G = n / 30 % 2 && H % 2 == 0 ? H / 2 : H, T = times[n % 6];
        struct attention_problem p =
            backward_of(n / 60 % 2 ? 3 : 1, T, T + 5, H, G, n % 2 ? 64 : 128, n / 120);
        assert_null(backward_sm90_refuse(&p));
        struct backward_sm90_plan plan = backward_sm90_plan(&p);
        assert_int_equal(plan.keys.tiles, (T + 5 + 127) / 128);
        assert_int_equal(plan.keys.pairs, p.B * G);
        assert_int_equal(plan.queries.tiles, (T + 127) / 128);
        assert_int_equal(plan.queries.pairs, p.B * H);
        assert_int_equal(plan.slots, (T + 63) / 64);
        check_places(plan.keys);
        check_places(plan.queries);
    }
}

static void packed_sequences_have_slots(void **state)
{
    (void)state;
    struct attention_problem p = backward_of(1, 1000, 1000, 4, 2, 64, true);
    pack(&p, 7);
    struct backward_sm90_plan plan = backward_sm90_plan(&p);
    assert_int_equal(plan.slots, 1000 / 64 + 7);
    assert_int_equal(plan.keys.tiles, 1000 / 128 + 7);
    assert_int_equal(plan.keys.pairs, 2);
    assert_int_equal(plan.queries.pairs, 4);
    check_places(plan.keys);
    check_places(plan.queries);
}

/* Deterministic: the scalars of every row, and nothing else; fused: f32 sums of dq and dr too. */
static void the_workspace_is_what_kernels_index(void **state)
{
    (void)state;
    for (int probe = 0; probe < 2; probe++) {
        struct attention_problem p = backward_of(2, 100, 9000, 4, 2, 128, probe);
        size_t rows = 2 * 4 * 128, scalars = probe ? 4 : 2;
        p.deterministic = true;
        assert_int_equal(backward_sm90_plan(&p).bytes, rows * scalars * 4);
        p.deterministic = false;
        assert_int_equal(backward_sm90_plan(&p).bytes,
                         rows * (scalars + 128 * (size_t)(probe + 1)) * 4);
    }
}

/* Which scheme was faster on an H200: parallax/NOTES.md, "Hopper backward". */
static void measured_shapes_get_the_faster_scheme(void **state)
{
    static const struct {
        int64_t B, T, H, G, D;
        bool parallax, softmax; /* fused */
    } cases[] = {{4, 4096, 16, 16, 128, true, true}, {16, 1024, 16, 16, 128, false, true},
                 {8, 2048, 16, 16, 128, true, true}, {16, 1024, 16, 8, 128, false, true},
                 {4, 4096, 16, 8, 128, true, true},  {4, 4096, 16, 4, 128, false, true},
                 {2, 8192, 16, 8, 128, true, true},  {1, 16384, 16, 16, 128, true, true},
                 {1, 16384, 16, 8, 128, true, true}, {16, 1024, 16, 16, 64, true, true},
                 {4, 4096, 16, 16, 64, true, true},  {4, 4096, 16, 8, 64, true, true},
                 {1, 16384, 16, 8, 64, true, true},  {32, 512, 16, 8, 64, true, true},
                 {8, 2048, 16, 8, 128, true, true},  {32, 512, 16, 16, 128, false, false},
                 {1, 16384, 16, 4, 128, true, true}, {4, 4096, 16, 4, 64, true, true},
                 {64, 256, 16, 16, 64, false, true}};
    (void)state;
    for (size_t n = 0; n < sizeof cases / sizeof cases[0]; n++)
        for (int probe = 0; probe < 2; probe++) {
            struct attention_problem p = backward_of(cases[n].B, cases[n].T, cases[n].T, cases[n].H,
                                                     cases[n].G, cases[n].D, probe);
            assert_int_equal(backward_sm90_plan(&p).fused,
                             probe ? cases[n].parallax : cases[n].softmax);
            p.deterministic = true;
            assert_false(backward_sm90_plan(&p).fused);
        }
    /* What counts is what queries see: not the packed length, nor what lies before a window. */
    struct attention_problem p = backward_of(1, 16384, 16384, 16, 16, 128, true);
    p.window = 512;
    assert_false(backward_sm90_plan(&p).fused);
    p.window = 0;
    pack(&p, 16);
    assert_false(backward_sm90_plan(&p).fused);
    pack(&p, 4);
    assert_true(backward_sm90_plan(&p).fused);
    p = backward_of(1, 64, 1200, 2, 2, 128, true);
    assert_true(backward_sm90_plan(&p).fused);
}

/* When blocks are handed out in order to whichever multiprocessor is free, the last one finishes
 * at most 6 % after the mean; a causal tile's work is what it walks over. */
static void causal_work_is_even(void **state)
{
    static const int64_t lengths[] = {4096, 16384}, batches[] = {4, 1};
    (void)state;
    for (int n = 0; n < 4; n++) {
        int64_t T = lengths[n / 2];
        struct attention_problem p = backward_of(batches[n / 2], T, T, 16, 16, 128, true);
        struct backward_sm90_plan plan = backward_sm90_plan(&p);
        struct backward_sm90_grid grid = n % 2 ? plan.keys : plan.queries;
        int64_t busy[PROCESSORS] = {0}, total = 0, most = 0;
        for (int block = 0; block < grid.tiles * grid.pairs; block++) {
            int tile = backward_sm90_place(grid, block).tile, free = 0;
            int64_t work = grid.rising ? grid.tiles - tile : tile + 1;
            for (int m = 1; m < PROCESSORS; m++)
                if (busy[m] < busy[free]) free = m;
            busy[free] += work, total += work;
            most = busy[free] > most ? busy[free] : most;
        }
        assert_true(most * PROCESSORS * 100 <= total * 106);
    }
}

/* Whether every query of the tile, if the rows are keys, sees all of them, or every own query that
 * exists the whole tile. */
static bool sees_all(const struct attention_problem *p, int T, int S, int first, int count,
                     bool keys, int tile)
{
    int key = keys ? first : tile * BACKWARD_SM90_SLOT,
        query = keys ? tile * BACKWARD_SM90_SLOT : first;
    int queries = keys ? BACKWARD_SM90_SLOT : count,
        end = key + (keys ? count : BACKWARD_SM90_SLOT);
    if (end > S || (keys && query + queries > T)) return false;
    for (int i = query; i < query + queries && i < T; i++) {
        struct attention_range range = attention_keys(p, T, S, i);
        if (range.first > key || range.end < end) return false;
    }
    return true;
}

static void plain_tiles_are_seen_whole(void **state)
{
    static const int times[] = {1, 63, 64, 130, 257}, windows[] = {0, 1, 64, 100, 200, 1000};
    (void)state;
    for (int n = 0; n < 5 * 5 * 6 * 2 * 2 * 2; n++) {
        int T = times[n % 5], S = times[n / 5 % 5], count = n / 150 % 2 ? 128 : 64;
        bool keys = n / 300 % 2;
        struct attention_problem p = backward_of(1, T, S, 1, 1, 64, true);
        p.window = windows[n / 25 % 6], p.causal = n / 600 || p.window > 0;
        for (int first = 0; first < (keys ? S : T); first += 64) {
            struct backward_sm90_tiles plain = backward_sm90_plain(&p, T, S, first, count, keys);
            for (int tile = 0; tile * BACKWARD_SM90_SLOT < (keys ? T : S); tile++) {
                bool inside = tile >= plain.begin && tile < plain.end;
                bool whole = sees_all(&p, T, S, first, count, keys, tile);
                if (inside) assert_true(whole);
                /* Own queries behind the last may cost a mask that is not needed. */
                if (whole && (keys || first + count <= T)) assert_true(inside);
            }
        }
    }
}

static void what_copies_cannot_express_is_refused(void **state)
{
    (void)state;
    struct attention_problem good = backward_of(2, 100, 100, 4, 2, 64, true), p = good;
    assert_null(backward_sm90_refuse(&p));
    p.dtype = PLX_F32, assert_non_null(backward_sm90_refuse(&p)), p = good;
    p.d_o.dtype = PLX_F32, assert_non_null(backward_sm90_refuse(&p)), p = good;
    p.dtype = PLX_F16, assert_non_null(backward_sm90_refuse(&p)); /* beside a d_o of bf16 */
    p.d_o.dtype = PLX_F16, assert_null(backward_sm90_refuse(&p)), p = good;
    p.D = 96, assert_non_null(backward_sm90_refuse(&p)), p = good;
    p.S = 0, assert_non_null(backward_sm90_refuse(&p)), p = good;
    p.k.stride[1] += 4, assert_non_null(backward_sm90_refuse(&p)), p = good;
    p.d_o.stride[0] = 0, assert_non_null(backward_sm90_refuse(&p)), p = good;
    p.v.data = (void *)(uintptr_t)8, assert_non_null(backward_sm90_refuse(&p)), p = good;
    p.value_mean.stride[2] += 2, assert_non_null(backward_sm90_refuse(&p)), p = good;
    p.dr.stride[2] += 4, assert_non_null(backward_sm90_refuse(&p)), p = good;
    /* Rows on multiples of 16 bytes, wherever they are. */
    p.k.stride[1] += 8, assert_null(backward_sm90_refuse(&p)), p = good;
    p.dk.data = (void *)(uintptr_t)48, assert_null(backward_sm90_refuse(&p));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_tile_has_one_block),
        cmocka_unit_test(packed_sequences_have_slots),
        cmocka_unit_test(the_workspace_is_what_kernels_index),
        cmocka_unit_test(measured_shapes_get_the_faster_scheme),
        cmocka_unit_test(causal_work_is_even),
        cmocka_unit_test(plain_tiles_are_seen_whole),
        cmocka_unit_test(what_copies_cannot_express_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
