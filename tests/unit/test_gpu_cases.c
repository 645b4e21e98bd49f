/* test_gpu_cases.c: the cases that a GPU's kernels are sanitized with reach every instance that the
 * plans for Hopper choose, and every way through one that a plan decides on; and enough of the
 * drawn ones reach what needs many keys or many rows. A plan that changes so that an instance is no
 * longer reached fails here, where no GPU is needed. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include "attention/attention_backward_sm90_plan.h"
#include "attention/attention_decode_plan.h"
#include "attention/attention_forward_sm90_plan.h"
#include "drawn_case.h"
#include "sanitize_cases.h"

/* The problem of a case as a kernel sees it, in bf16, with keys that lie as the case says. */
struct planned {
    struct attention_problem problem;
    struct test_tensor keys;
};

static struct planned planned_of(const struct attention_case *c, plx_pass pass, bool probe)
{
    const int64_t entries = c->page > 0 ? (c->S + c->page - 1) / c->page : 0;
    const int64_t queries[] = {c->B, c->T, c->H, c->D}, keys[] = {c->B, c->S, c->G, c->D};
    const int64_t pages[] = {c->B * entries, c->page, c->G, c->D}, offsets = c->sequences + 1;
    const plx_dtype cached = c->f8 ? PLX_F8E4M3 : PLX_BF16;
    struct planned planned = {
        .keys = test_tensor_create(cached, c->view, 4, c->page > 0 ? pages : keys)};
    struct attention_problem *p = &planned.problem;
    *p = (struct attention_problem){.pass = pass,
                                    .probe = probe,
                                    .B = c->B,
                                    .T = c->T,
                                    .S = c->page > 0 ? entries * c->page : c->S,
                                    .H = c->H,
                                    .G = c->G,
                                    .D = c->D,
                                    .sequences = c->q_offsets ? c->sequences : c->B,
                                    .causal = c->causal,
                                    .window = c->window,
                                    .dtype = PLX_BF16,
                                    .kv_dtype = cached,
                                    .page = (int32_t)c->page,
                                    .k = planned.keys.view,
                                    .v = planned.keys.view};
    p->q = plx_tensor_dense(NULL, PLX_BF16, 4, queries);
    if (c->q_offsets) p->q_offsets = plx_tensor_dense(NULL, PLX_I32, 1, &offsets);
    if (c->k_lengths || c->page > 0) p->k_lengths = plx_tensor_dense(NULL, PLX_I32, 1, &c->B);
    return planned;
}

static bool runs(const struct sanitize_case *s, plx_pass pass)
{
    return s->tuned && s->first <= pass && pass <= s->last && case_has_pass(&s->c, pass);
}

/* ---- Decode ---------------------------------------------------------------------------------- */

struct decode_instance {
    int64_t D;
    bool f8, boxes, list;
    int heads, warps, deep;
};

static bool is_of(const struct decode_instance *instance, const struct attention_case *c,
                  const struct decode_plan *plan)
{
    return instance->D == c->D && instance->f8 == c->f8 && instance->boxes == (plan->box > 0) &&
           instance->list == plan->list && instance->heads == plan->heads &&
           instance->warps == plan->warps && instance->deep == plan->deep;
}

static struct decode_plan decode_of(const struct attention_case *c)
{
    struct planned planned = planned_of(c, PLX_DECODE, true);
    const bool aligned = (uintptr_t)planned.keys.view.data % 16 == 0;
    struct decode_plan plan = decode_plan_make(&planned.problem, aligned);
    assert_null(decode_plan_refuse(&planned.problem));
    test_tensor_destroy(&planned.keys);
    return plan;
}

/* The instances that attention_decode_sm90_launch.cuh names. */
static void every_decode_instance_is_reached(void **state)
{
    static const struct decode_instance instances[] = {
        {128, false, true, false, 1, 4, 1}, {128, false, true, false, 1, 8, 1},
        {128, false, true, true, 1, 4, 1},  {128, false, false, true, 1, 4, 1},
        {128, true, true, false, 1, 4, 1},  {128, true, true, false, 1, 8, 1},
        {128, true, true, true, 1, 4, 1},   {64, false, true, false, 1, 4, 1},
        {64, false, true, false, 1, 8, 1},  {64, false, true, true, 1, 4, 1},
        {64, false, false, true, 1, 4, 1},  {64, false, true, false, 2, 4, 1},
        {64, false, true, true, 2, 4, 1},   {64, true, true, false, 1, 4, 1},
        {64, true, true, false, 1, 8, 1},   {64, true, true, true, 1, 4, 1},
        {64, true, true, false, 2, 4, 1},   {64, true, true, true, 2, 4, 1},
        {128, false, true, false, 1, 4, 2}, {64, false, true, false, 1, 4, 2},
        {64, false, true, true, 1, 4, 2}};
    enum { INSTANCES = sizeof instances / sizeof instances[0] };
    int met[INSTANCES] = {0};
    (void)state;
    for (int n = 0; n < sanitize_case_count; n++) {
        if (!runs(&sanitize_cases[n], PLX_DECODE)) continue;
        struct decode_plan plan = decode_of(&sanitize_cases[n].c);
        int matches = 0;
        for (int i = 0; i < INSTANCES; i++)
            if (is_of(&instances[i], &sanitize_cases[n].c, &plan)) met[i]++, matches++;
        if (matches != 1) fail_msg("%s: is of no instance", sanitize_cases[n].c.name);
    }
    for (int i = 0; i < INSTANCES; i++)
        if (met[i] == 0) fail_msg("instance %d is not reached", i);
}

/* Joined in one cluster; by several through the workspace; tiles that two boxes bring, or four. */
static void every_way_of_decode_is_reached(void **state)
{
    int joined = 0, through = 0, boxes[2] = {0};
    (void)state;
    for (int n = 0; n < sanitize_case_count; n++) {
        const struct attention_case *c = &sanitize_cases[n].c;
        if (!runs(&sanitize_cases[n], PLX_DECODE)) continue;
        struct decode_plan plan = decode_of(c);
        const bool cluster = plan.cluster > 0;
        joined += cluster && plan.parts >> plan.cluster == 1;
        through += cluster && plan.parts >> plan.cluster > 1;
        boxes[c->f8] += c->page == DECODE_MIN_BOX && plan.box == DECODE_MIN_BOX && c->D == 64;
    }
    assert_true(joined > 0 && through > 0 && boxes[0] > 0 && boxes[1] > 0);
}

/* ---- Forward and backward -------------------------------------------------------------------- */

/* Of each mechanism and width: both schemes of backward, and rings that go around: the two kernels
 * walk over slots of queries in two stages, and of keys in three. */
static void every_backward_instance_is_reached(void **state)
{
    (void)state;
    for (int kind = 0; kind < 4; kind++) {
        int fused = 0, around = 0;
        for (int n = 0; n < sanitize_case_count; n++) {
            const struct attention_case *c = &sanitize_cases[n].c;
            if (!runs(&sanitize_cases[n], PLX_BACKWARD) || c->D != (kind / 2 ? 128 : 64)) continue;
            struct planned planned = planned_of(c, PLX_BACKWARD, kind % 2);
            const bool wide = c->T > 2 * BACKWARD_SM90_SLOT && c->S > 3 * BACKWARD_SM90_SLOT;
            const bool merged = backward_sm90_plan(&planned.problem).fused;
            fused += merged && wide, around += wide;
            planned.problem.deterministic = true;
            assert_false(backward_sm90_plan(&planned.problem).fused);
            test_tensor_destroy(&planned.keys);
        }
        if (fused == 0 || around == 0)
            fail_msg("%s of %d channels: fused %d, more tiles than stages %d",
                     kind % 2 ? "parallax" : "softmax", kind / 2 ? 128 : 64, fused, around);
    }
}

/* Of each width: keys in a row and in pages, and in a row more tiles than any ring has stages. */
static void every_forward_instance_is_reached(void **state)
{
    enum { MOST_STAGES = 5, MOST_KEYS = 128 };
    (void)state;
    for (int64_t D = 64; D <= 128; D += 64) {
        int paged = 0, plain = 0;
        for (int n = 0; n < sanitize_case_count; n++) {
            const struct attention_case *c = &sanitize_cases[n].c;
            if (!runs(&sanitize_cases[n], PLX_FORWARD) || c->D != D) continue;
            paged += c->page > 0 && c->page % FORWARD_PAGE_BOX == 0;
            plain += c->page == 0 && c->S > MOST_STAGES * MOST_KEYS;
        }
        assert_true(paged > 0 && plain > 0);
    }
}

/* ---- Drawn cases ----------------------------------------------------------------------------- */

/* Of each mechanism and width, of ratios of heads up to three and of packed batches: enough that
 * backward takes in one kernel. Every case is also run in two, as a deterministic call. */
static void drawn_cases_reach_the_fused_backward(void **state)
{
    enum { DRAWN = 600, PACKED = 3, WAYS, LEAST = 5 };
    int fused[WAYS][2][2] = {0};
    (void)state;
    for (int n = 0; n < DRAWN; n++) {
        struct seeded random = seeded_make(1, (uint64_t)n);
        struct drawn_case d;
        drawn_tiles(&random, n, &d);
        const int64_t ratio = d.c.H / d.c.G, wide = d.c.D == 128;
        for (int probe = 0; probe < 2; probe++) {
            struct planned planned = planned_of(&d.c, PLX_BACKWARD, probe);
            const bool met = backward_sm90_plan(&planned.problem).fused;
            if (ratio <= PACKED) fused[ratio - 1][wide][probe] += met;
            if (d.c.q_offsets) fused[PACKED][wide][probe] += met;
            test_tensor_destroy(&planned.keys);
        }
    }
    for (int way = 0; way < WAYS; way++)
        for (int n = 0; n < 4; n++)
            if (fused[way][n / 2][n % 2] < LEAST)
                fail_msg("%s of %d channels, %s %d: %d in one kernel",
                         n % 2 ? "parallax" : "softmax", n / 2 ? 128 : 64,
                         way == PACKED ? "packed" : "ratio", way + 1, fused[way][n / 2][n % 2]);
}

/* Of each width enough whose blocks keep two sets of rows, with pages and without. */
static void drawn_cases_reach_two_sets_of_rows(void **state)
{
    enum { DRAWN = 900, LEAST = 5 };
    int deep[2] = {0}, paged = 0;
    (void)state;
    for (int n = 0; n < DRAWN; n++) {
        struct seeded random = seeded_make(1, (uint64_t)n);
        struct drawn_case d;
        drawn_decode(&random, n, &d);
        if (decode_of(&d.c).deep == 1) continue;
        deep[d.c.D == 128]++;
        paged += d.c.page > 0;
    }
    if (deep[0] < LEAST || deep[1] < LEAST || paged == 0)
        fail_msg("%d of 64 channels, %d of 128, %d with pages", deep[0], deep[1], paged);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_decode_instance_is_reached),
        cmocka_unit_test(every_way_of_decode_is_reached),
        cmocka_unit_test(every_backward_instance_is_reached),
        cmocka_unit_test(every_forward_instance_is_reached),
        cmocka_unit_test(drawn_cases_reach_the_fused_backward),
        cmocka_unit_test(drawn_cases_reach_two_sets_of_rows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
