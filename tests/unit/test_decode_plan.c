/* test_decode_plan.c: how the Hopper decode kernel cuts its problems; needs no GPU.
 *
 * Whatever the shape, a plan must be one that the hardware can launch, and its parts must cover
 * every unit of every sequence once; for the shapes that were measured it must be the fastest that
 * was found (parallax/NOTES-decode.md). */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include "attention/attention_decode_plan.h"
#include "attention_problem.h"

static struct attention_problem problem(int64_t B, int64_t T, int64_t H, int64_t G, int64_t S,
                                        int64_t D)
{
    struct attention_problem p = sm90_problem(B, T, S, H, G, D, false);
    p.pass = PLX_DECODE;
    return p;
}

static struct attention_problem of_cache(struct attention_problem p, plx_dtype dtype)
{
    p.kv_dtype = p.k.dtype = p.v.dtype = dtype;
    return p;
}

static struct decode_plan plan_of(int64_t B, int64_t H, int64_t G, int64_t S, int64_t D)
{
    struct attention_problem p = problem(B, 1, H, G, S, D);
    return decode_plan_make(&p, true);
}

/* On an H100 and an H200: parallax/NOTES-decode.md. */
static void measured_shapes_get_the_fastest_plan(void **state)
{
    (void)state;
    const struct {
        int64_t B, H, G, S, D;
        int warps, heads, parts, cluster;
    } cases[] = {{1, 8, 8, 128, 128, 8, 1, 1, 0},    {1, 8, 8, 256, 128, 4, 1, 4, 2},
                 {4, 8, 8, 256, 128, 4, 1, 2, 1},    {1, 8, 8, 512, 128, 4, 1, 8, 3},
                 {2, 8, 8, 512, 128, 4, 1, 4, 2},    {4, 8, 8, 512, 128, 8, 1, 2, 1},
                 {8, 8, 8, 512, 128, 4, 1, 2, 1},    {16, 8, 8, 256, 128, 4, 1, 1, 0},
                 {16, 8, 8, 512, 128, 4, 1, 1, 0},   {1, 4, 4, 1024, 128, 4, 1, 16, 4},
                 {1, 8, 8, 1024, 128, 4, 1, 8, 3},   {2, 8, 8, 2048, 128, 4, 1, 4, 2},
                 {1, 8, 8, 4096, 128, 4, 1, 8, 3},   {1, 8, 8, 8192, 128, 8, 1, 16, 0},
                 {1, 8, 8, 16384, 128, 8, 1, 16, 0}, {1, 8, 8, 32768, 128, 8, 1, 8, 0},
                 {1, 1, 1, 4096, 128, 4, 1, 16, 4},  {1, 1, 1, 8192, 128, 8, 1, 64, 3},
                 {1, 1, 1, 32768, 128, 8, 1, 64, 3}, {1, 2, 2, 8192, 128, 8, 1, 16, 4},
                 {1, 2, 2, 32768, 128, 8, 1, 32, 1}, {1, 4, 4, 16384, 128, 8, 1, 32, 1},
                 {4, 8, 8, 4096, 128, 8, 1, 2, 1},   {4, 8, 8, 8192, 128, 8, 1, 2, 1},
                 {8, 8, 8, 2048, 128, 8, 1, 1, 0},   {32, 8, 8, 512, 128, 4, 1, 1, 0},
                 {32, 8, 8, 16384, 128, 4, 1, 1, 0}, {1, 8, 8, 128, 64, 4, 1, 1, 0},
                 {1, 8, 8, 256, 64, 8, 1, 1, 0},     {1, 8, 8, 512, 64, 4, 1, 4, 2},
                 {1, 8, 8, 2048, 64, 4, 1, 8, 3},    {2, 8, 8, 16384, 64, 8, 1, 8, 0},
                 {2, 8, 8, 32768, 64, 8, 1, 4, 0},   {4, 8, 8, 1024, 64, 8, 1, 2, 1},
                 {4, 8, 8, 4096, 64, 8, 1, 4, 0},    {16, 8, 8, 4096, 64, 4, 2, 2, 1},
                 {32, 8, 8, 1024, 64, 4, 1, 1, 0},   {32, 8, 8, 4096, 64, 4, 2, 1, 0},
                 {8, 8, 8, 16384, 64, 8, 1, 1, 0},   {8, 8, 8, 256, 128, 8, 1, 1, 0},
                 {8, 8, 8, 512, 64, 8, 1, 1, 0},     {1, 4, 4, 8192, 128, 4, 1, 16, 4},
                 {4, 8, 8, 128, 128, 8, 1, 1, 0},    {16, 8, 8, 1024, 64, 4, 1, 1, 0}};
    for (size_t n = 0; n < sizeof cases / sizeof cases[0]; n++) {
        struct decode_plan plan =
            plan_of(cases[n].B, cases[n].H, cases[n].G, cases[n].S, cases[n].D);
        assert_false(plan.list);
        assert_int_equal(plan.warps, cases[n].warps);
        assert_int_equal(plan.heads, cases[n].heads);
        assert_int_equal(plan.parts, cases[n].parts);
        assert_int_equal(plan.cluster, cases[n].cluster);
    }
}

static void uneven_work_becomes_a_list(void **state)
{
    (void)state;
    assert_true(plan_of(40, 8, 8, 4096, 128).list); /* 320 pairs in two rounds of 264 */
    struct attention_problem p = problem(32, 1, 8, 8, 8192, 128);
    assert_false(decode_plan_make(&p, true).list);
    p.k_lengths.rank = 1;
    struct decode_plan plan = decode_plan_make(&p, true);
    assert_true(plan.list);
    assert_int_equal(plan.parts, 32); /* room for 33, but sequences of one length stay whole */
    p.S = 4096;                       /* even the longest is soon done */
    assert_false(decode_plan_make(&p, true).list);
}

/* One round of blocks that crowds some multiprocessors, of a cache that is large enough. */
static void lopsided_work_becomes_a_list(void **state)
{
    (void)state;
    const struct {
        int64_t B, S;
        bool list, f8;
    } cases[] = {{8, 4096, false, false},   {9, 4096, true, false},  {9, 2048, false, false},
                 {9, 16384, true, true},    {13, 4096, true, false}, {14, 4096, false, false},
                 {16, 16384, false, false}, {17, 4096, true, false}, {17, 1024, false, false},
                 {20, 16384, true, true},   {29, 4096, true, false}, {30, 4096, false, false},
                 {32, 16384, false, false}};
    for (size_t n = 0; n < sizeof cases / sizeof cases[0]; n++) {
        struct attention_problem p = problem(cases[n].B, 1, 8, 8, cases[n].S, 128);
        assert_int_equal(decode_plan_make(&p, true).list, cases[n].list);
        p = of_cache(p, PLX_F8E4M3);
        assert_int_equal(decode_plan_make(&p, true).list, cases[n].f8);
    }
    /* More rows are more to join. */
    for (int64_t S = 4096; S <= 16384; S *= 4) {
        struct attention_problem few = problem(9, 4, 8, 8, S, 128),
                                 many = problem(17, 4, 8, 8, S, 128);
        assert_int_equal(decode_plan_make(&few, true).list, S == 16384);
        assert_true(decode_plan_make(&many, true).list);
    }
}

/* Where a block finds its keys without the length, there is less to compute behind it. */
static void a_short_sequence_is_cut_whatever_its_length(void **state)
{
    (void)state;
    struct attention_problem p = problem(1, 1, 8, 8, 1024, 128);
    p.k_lengths.rank = 1;
    struct decode_plan plan = decode_plan_make(&p, true);
    assert_false(plan.list);
    assert_int_equal(plan.cut.each, 2);
    assert_int_equal(plan.cut.longer, 0);
    p.window = 1000; /* the first key depends on the length */
    assert_int_equal(decode_plan_make(&p, true).cut.each, 0);
    p.window = 0, p.S = 32768; /* most blocks would have nothing to do if it were short */
    assert_int_equal(decode_plan_make(&p, true).cut.each, 0);
}

/* Of f8e4m3, where bf16 has blocks of eight warps: parallax/NOTES-decode.md. */
static void some_pairs_of_f8_get_narrow_blocks(void **state)
{
    (void)state;
    const struct {
        int64_t B, G, S;
        int parallax, softmax; /* warps */
    } cases[] = {{8, 8, 4096, 4, 8},  {4, 8, 8192, 4, 8},  {5, 8, 8192, 4, 4},
                 {3, 8, 12000, 4, 4}, {2, 8, 16384, 8, 8}, {8, 8, 16384, 8, 8}};
    for (size_t n = 0; n < sizeof cases / sizeof cases[0]; n++) {
        struct attention_problem p =
            problem(cases[n].B, 1, cases[n].G, cases[n].G, cases[n].S, 128);
        assert_int_equal(decode_plan_make(&p, true).warps, 8);
        p = of_cache(p, PLX_F8E4M3);
        assert_int_equal(decode_plan_make(&p, true).warps, cases[n].softmax);
        p.probe = true;
        assert_int_equal(decode_plan_make(&p, true).warps, cases[n].parallax);
    }
}

static void two_heads_of_64_channels_share_a_block(void **state)
{
    (void)state;
    const struct {
        int64_t B, H, G, S, D;
        int32_t page;
        int heads, f8;
    } cases[] = {{32, 8, 8, 4096, 64, 0, 2, 2},   {32, 8, 8, 1024, 64, 0, 1, 1},
                 {1, 8, 8, 4096, 64, 0, 1, 1},    {64, 8, 8, 128, 64, 0, 2, 2},
                 {8, 8, 8, 32768, 64, 16, 2, 1},  {32, 8, 8, 4096, 64, 8, 1, 1},
                 {32, 8, 8, 4096, 64, 48, 2, 1},  {32, 8, 8, 4096, 64, 32, 2, 2},
                 {32, 32, 8, 4096, 64, 64, 2, 2}, {32, 9, 9, 4096, 64, 0, 1, 1},
                 {32, 8, 8, 4096, 128, 0, 1, 1}};
    for (size_t n = 0; n < sizeof cases / sizeof cases[0]; n++) {
        struct attention_problem p =
            problem(cases[n].B, 1, cases[n].H, cases[n].G, cases[n].S, cases[n].D);
        p.page = cases[n].page;
        assert_int_equal(decode_plan_make(&p, true).heads, cases[n].heads);
        assert_int_equal(decode_plan_make(&p, false).heads, 1);
        p = of_cache(p, PLX_F8E4M3); /* its tiles of two heads are one box, or none */
        assert_int_equal(decode_plan_make(&p, true).heads, cases[n].f8);
    }
}

static int box(plx_dtype dtype, int64_t D, int32_t page, int64_t stride)
{
    struct attention_problem p = of_cache(problem(2, 1, 8, 8, 19200, D), dtype);
    p.page = page;
    p.k.stride[1] = stride ? stride : p.k.stride[1];
    return decode_plan_make(&p, true).box;
}

static void boxes_lie_in_one_page(void **state)
{
    (void)state;
    const struct {
        int64_t D;
        int32_t page;
        int box, f8;
    } cases[] = {{128, 0, 16, 32}, {64, 0, 32, 64},   {128, 16, 16, 16},  {64, 16, 16, 16},
                 {64, 32, 32, 16}, {64, 48, 16, 16},  {64, 64, 32, 64},   {64, 96, 32, 16},
                 {128, 100, 0, 0}, {64, 100, 0, 0},   {64, 1, 0, 0},      {128, 8, 0, 0},
                 {64, 24, 0, 0},   {128, 32, 16, 32}, {128, 256, 16, 32}, {64, 256, 32, 64}};
    for (size_t n = 0; n < sizeof cases / sizeof cases[0]; n++) {
        assert_int_equal(box(PLX_BF16, cases[n].D, cases[n].page, 0), cases[n].box);
        assert_int_equal(box(PLX_F8E4M3, cases[n].D, cases[n].page, 0), cases[n].f8);
    }
    /* Rows on multiples of 16 bytes, or not. */
    assert_int_equal(box(PLX_BF16, 128, 0, 1032), 16);
    assert_int_equal(box(PLX_BF16, 128, 0, 1028), 0);
    assert_int_equal(box(PLX_F8E4M3, 64, 0, 528), 64);
    assert_int_equal(box(PLX_F8E4M3, 64, 0, 520), 0);
    struct attention_problem p = problem(1, 1, 8, 8, 512, 128);
    assert_int_equal(decode_plan_make(&p, false).box, 0);
    assert_true(decode_plan_make(&p, false).list);
}

static void rows_make_blocks_of_eight(void **state)
{
    (void)state;
    const struct {
        int64_t T, H, G;
        int blocks;
    } cases[] = {{1, 8, 8, 1},  {1, 16, 2, 1}, {1, 18, 2, 2},
                 {4, 32, 4, 4}, {8, 8, 8, 1},  {8, 64, 8, 8}};
    for (size_t n = 0; n < sizeof cases / sizeof cases[0]; n++) {
        struct attention_problem p = problem(2, cases[n].T, cases[n].H, cases[n].G, 4096, 128);
        struct decode_plan plan = decode_plan_make(&p, true);
        assert_int_equal(plan.row_blocks, cases[n].blocks);
        assert_int_equal(plan.pairs, cases[n].G * cases[n].blocks);
    }
}

static int deep_of(int64_t B, int64_t T, int64_t H, int64_t G, int64_t S)
{
    struct attention_problem p = problem(B, T, H, G, S, 128);
    return decode_plan_make(&p, true).deep;
}

/* Of rows that are more than eight, where blocks are many. */
static void many_blocks_keep_two_sets_of_rows(void **state)
{
    (void)state;
    const struct {
        int64_t B, T, H, G, D;
        int32_t page;
        int deep, blocks;
    } cases[] = {
        {32, 4, 32, 8, 128, 0, 2, 1}, {32, 8, 32, 8, 128, 0, 2, 2}, {32, 5, 32, 8, 128, 0, 1, 3},
        {16, 5, 32, 8, 128, 0, 2, 2}, {32, 5, 32, 8, 64, 0, 2, 2},  {16, 4, 32, 8, 128, 0, 2, 1},
        {8, 4, 32, 8, 128, 0, 1, 2},  {16, 8, 32, 8, 128, 0, 2, 2}, {8, 8, 32, 8, 128, 0, 1, 4},
        {32, 8, 8, 8, 128, 0, 1, 1},  {32, 1, 64, 4, 64, 0, 2, 1},  {32, 4, 32, 8, 64, 16, 2, 1},
        {40, 4, 32, 8, 128, 0, 1, 2}, {40, 4, 32, 8, 64, 0, 2, 1},  {32, 4, 32, 8, 128, 100, 1, 2}};
    for (size_t n = 0; n < sizeof cases / sizeof cases[0]; n++) {
        struct attention_problem p =
            problem(cases[n].B, cases[n].T, cases[n].H, cases[n].G, 4096, cases[n].D);
        p.page = cases[n].page;
        struct decode_plan plan = decode_plan_make(&p, true);
        assert_int_equal(plan.deep, cases[n].deep);
        assert_int_equal(plan.row_blocks, cases[n].blocks);
        assert_int_equal(plan.list, cases[n].B == 40 || plan.box == 0);
        assert_int_equal(decode_plan_make(&p, false).deep, 1);
        p = of_cache(p, PLX_F8E4M3);
        assert_int_equal(decode_plan_make(&p, true).deep, 1);
    }
    assert_int_equal(deep_of(16, 4, 32, 8, 1024), 2);
    assert_int_equal(deep_of(16, 4, 32, 8, 1000), 1);
    assert_int_equal(deep_of(17, 4, 32, 8, 64), 2);
    assert_int_equal(deep_of(17, 4, 32, 8, 48), 1);
    /* What has lengths is a list where it may be long, which only blocks of 64 channels cut. */
    for (int64_t S = 4096; S <= 8192; S *= 2)
        for (int64_t D = 64; D <= 128; D *= 2) {
            struct attention_problem p = problem(32, 4, 32, 8, S, D);
            p.k_lengths.rank = 1;
            assert_int_equal(decode_plan_make(&p, true).deep, D == 64 || S == 4096 ? 2 : 1);
        }
}

static void cuts_cover_every_unit_once(void **state)
{
    (void)state;
    for (int units = 1; units < 200; units++)
        for (int parts = 1; parts <= units; parts++) {
            struct decode_cut cut = decode_cut_of(units, parts);
            assert_int_equal(decode_cut_begin(cut, 0), 0);
            assert_int_equal(decode_cut_begin(cut, parts), units);
            for (int part = 0; part < parts; part++) {
                int begin = decode_cut_begin(cut, part), end = decode_cut_begin(cut, part + 1);
                assert_in_range(end - begin, units / parts, (units + parts - 1) / parts);
                assert_int_equal(decode_cut_owner(cut, begin), part);
                assert_int_equal(decode_cut_owner(cut, end - 1), part);
            }
        }
}

static void units_hold_the_keys_that_are_seen(void **state)
{
    (void)state;
    for (int T = 0; T < 4; T++)
        for (int S = 0; S < 300; S++)
            for (int window = 0; window < 200; window += 9) {
                struct decode_keys keys = decode_keys_of(T, S, window, 64);
                int first = window > 0 && S - T + 1 > window ? S - T + 1 - window : 0;
                assert_true(keys.units >= 1);
                assert_int_equal(keys.end, T > 0 ? S : 0);
                assert_int_equal(keys.first, first < keys.end ? first : keys.end);
                assert_true((keys.first / 64 + keys.units) * 64 >= keys.end);
                if (keys.units > 1) assert_true((keys.first / 64 + keys.units - 1) * 64 < keys.end);
            }
}

static void pages_are_found_by_a_product(void **state)
{
    (void)state;
    for (int divisor = 1; divisor < 5000; divisor += divisor < 300 ? 1 : 97) {
        struct decode_divisor by = decode_divisor_of(divisor);
        for (int64_t n = 0; n <= INT32_MAX; n = n < 3000 ? n + 1 : n * 2 - n % 7)
            for (int64_t m = n / divisor * divisor - 1; m <= n / divisor * divisor + 1; m++)
                if (m >= 0 && m <= INT32_MAX)
                    assert_int_equal(decode_divide(by, (int)m), m / divisor);
        assert_int_equal(decode_divide(by, INT32_MAX), INT32_MAX / divisor);
    }
}

/* Of 32 sequences of 8 heads of 128 channels. */
static void check_stay(int64_t S, double least, double most)
{
    struct attention_problem p = problem(32, 1, 8, 8, S, 128);
    const double bytes = 4.0 * 32 * 8 * 128 * (double)S;
    double stays = decode_plan_make(&p, true).stay / 4294967295.0 * bytes / 1048576;
    assert_true(stays > least && stays < most);
    p.page = 16, p.k_lengths.rank = 1;
    assert_true(decode_plan_make(&p, true).stay == decode_plan_make(&p, false).stay);
}

/* Whatever the cache, about as many bytes stay as the second cache holds beside its other lines. */
static void a_share_of_a_large_cache_stays(void **state)
{
    (void)state;
    assert_true(plan_of(32, 8, 8, 224, 128).stay == UINT32_MAX);    /* 28 MiB: all of it */
    assert_true(plan_of(32, 256, 8, 4096, 128).stay == UINT32_MAX); /* read by two blocks of rows */
    for (int64_t S = 240; S < 512; S += 16) check_stay(S, 23.9, 24.1);
    for (int64_t S = 512; S <= 32768; S *= 2) check_stay(S, 17.9, 18.1);
}

static void check_plan(plx_dtype dtype, int64_t B, int64_t G, int64_t group, int64_t S, int64_t D)
{
    struct attention_problem p = of_cache(problem(B, 1, G * group, G, S, D), dtype);
    struct decode_plan plan = decode_plan_make(&p, true);
    int unit = plan.warps * DECODE_KEYS((int)plx_dtype_size(dtype) * plan.heads * (int)D);
    struct decode_keys keys = decode_keys_of(1, (int)S, 0, unit);
    const int clusters = plan.parts >> plan.cluster;
    assert_true(plan.warps == DECODE_WARPS || (plan.warps == DECODE_WIDE_WARPS && !plan.list));
    assert_int_equal(G % plan.heads, 0);
    assert_true(plan.heads == 1 || plan.warps == DECODE_WARPS); /* of two there is no wide kernel */
    assert_int_equal(plan.pairs, G / plan.heads * plan.row_blocks);
    if (plan.deep > 1) { /* it has no wide kernel, nor one of two heads, and shares in lists only */
        assert_true(plan.warps == DECODE_WARPS && plan.heads == 1 && plan.box > 0);
        assert_true(plan.list ? p.D == 64 : plan.parts == 1);
    }
    assert_true(plan.parts >= 1 && plan.parts <= 65535);
    assert_true(plan.cluster >= 0 && plan.cluster <= DECODE_MAX_CLUSTER);
    assert_int_equal(clusters << plan.cluster, plan.parts);
    assert_true(!plan.list || plan.cluster == 0);
    /* Blocks that have nothing to do are fewer than those that have. */
    assert_true(plan.list || plan.parts < 2 * keys.units);
    assert_int_equal(plan.counters % 256, 0);
    if (!plan.list) assert_int_equal(decode_cut_begin(plan.cut, plan.parts), keys.units);
    if (plan.list || clusters > 1) assert_true(plan.counters >= (size_t)(B * plan.pairs * 8));
}

static void every_plan_can_be_launched(void **state)
{
    (void)state;
    for (int64_t B = 1; B <= 256; B *= 2)
        for (int64_t G = 1; G <= 16; G++)
            for (int64_t group = 1; group <= 16; group++)
                for (int64_t S = 1; S <= 1 << 22; S = S < 200 ? S + 7 : S * 4)
                    for (int64_t D = 64; D <= 128; D *= 2) {
                        check_plan(PLX_BF16, B, G, group, S, D);
                        check_plan(PLX_F8E4M3, B, G, group, S, D);
                    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(measured_shapes_get_the_fastest_plan),
        cmocka_unit_test(uneven_work_becomes_a_list),
        cmocka_unit_test(lopsided_work_becomes_a_list),
        cmocka_unit_test(a_short_sequence_is_cut_whatever_its_length),
        cmocka_unit_test(some_pairs_of_f8_get_narrow_blocks),
        cmocka_unit_test(two_heads_of_64_channels_share_a_block),
        cmocka_unit_test(boxes_lie_in_one_page),
        cmocka_unit_test(rows_make_blocks_of_eight),
        cmocka_unit_test(many_blocks_keep_two_sets_of_rows),
        cmocka_unit_test(cuts_cover_every_unit_once),
        cmocka_unit_test(units_hold_the_keys_that_are_seen),
        cmocka_unit_test(pages_are_found_by_a_product),
        cmocka_unit_test(a_share_of_a_large_cache_stays),
        cmocka_unit_test(every_plan_can_be_launched),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
