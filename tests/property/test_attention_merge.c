/* test_attention_merge.c: results over disjoint key ranges join to the result over all keys.
 *
 * The parts come from every forward kernel that takes them, and are joined by plx_*_merge. A part
 * may see no key at all; a large offset common to all keys must cancel; in double the join is exact
 * to the last places. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "compare.h"
#include "law.h"

enum { PARTS = 4 };

static struct test_options options;

static const enum case_tensor outputs[] = {CASE_O, CASE_LSE, CASE_PROBE_MEAN, CASE_VALUE_MEAN};

/* The tensors of one partial result, f32 except in a double row. */
struct part {
    struct test_tensor tensors[4];
};

static struct part part_create(const struct case_data *data, plx_dtype dtype)
{
    struct part part;
    for (int n = 0; n < 4; n++) {
        enum case_tensor tensor = outputs[n];
        part.tensors[n] =
            test_tensor_create(dtype, VIEW_PADDED, data->ranks[tensor], data->shapes[tensor]);
        test_tensor_write(&part.tensors[n], data->values[tensor]);
    }
    return part;
}

static void part_destroy(struct part *part)
{
    for (int n = 0; n < 4; n++) test_tensor_destroy(&part->tensors[n]);
}

static plx_status merge(plx_context *context, plx_mechanism mechanism, const struct part *parts,
                        int count, const struct part *out)
{
    struct plx_parallax_partial full[PARTS + 1];
    struct plx_softmax_partial soft[PARTS + 1];
    for (int s = 0; s <= count; s++) {
        const struct test_tensor *t = s < count ? parts[s].tensors : out->tensors;
        full[s] = (struct plx_parallax_partial){t[0].view, t[1].view, t[2].view, t[3].view};
        soft[s] = (struct plx_softmax_partial){t[0].view, t[1].view};
    }
    if (mechanism == PLX_PARALLAX) return plx_parallax_merge(context, full, count, &full[count]);
    return plx_softmax_merge(context, soft, count, &soft[count]);
}

/* Joins the parts and compares with the whole. */
static void expect_whole(const struct law_row *row, const struct part *parts,
                         struct case_data *whole, const double *limits)
{
    plx_context *context;
    plx_dtype dtype = row->dtype == PLX_F64 ? PLX_F64 : PLX_F32;
    struct case_data joined = case_data_copy(whole);
    struct part out = part_create(&joined, dtype);
    assert_int_equal(plx_context_create(NULL, &context), PLX_OK);
    plx_status status = merge(context, row->mechanism, parts, PARTS, &out);
    assert_string_equal(plx_error(context), "");
    assert_int_equal(status, PLX_OK);
    for (int n = 0; n < 4; n++) {
        if (row->mechanism == PLX_SOFTMAX && n > 1) break;
        assert_true(test_tensor_intact(&out.tensors[n]));
        test_tensor_read(&out.tensors[n], joined.values[outputs[n]]);
        law_expect_near(row, case_tensor_names[outputs[n]], joined.values[outputs[n]],
                        whole->values[outputs[n]], whole->counts[outputs[n]], limits[n]);
    }
    part_destroy(&out);
    case_data_destroy(&joined);
    plx_context_destroy(context);
}

/* Splits the keys of a case at random places (a range may be empty), runs each range and joins. */
static void split_and_join(const struct law_row *row, const struct attention_case *c,
                           struct case_data *whole, struct seeded *random)
{
    int64_t cut[PARTS + 1] = {0, 0, 0, 0, c->S};
    struct part parts[PARTS];
    double limits[4] = {0};
    struct law_limits own = law_limits(row, c, whole);
    if (!law_run(row, c, whole)) return;
    cut[2] = seeded_between(random, 0, c->S);
    cut[1] = seeded_between(random, 0, cut[2]);
    cut[3] = cut[2]; /* an empty range on purpose */
    for (int s = 0; s < PARTS; s++) {
        struct attention_case range = *c;
        range.S = cut[s + 1] - cut[s];
        struct case_data data = case_data_create(&range, row->dtype, 1);
        for (int n = CASE_Q; n <= CASE_V; n++) {
            bool key = n == CASE_K || n == CASE_V;
            for (int64_t b = 0; b < c->B; b++)
                law_copy_rows(whole, b, key ? cut[s] : 0, &data, b, 0, data.shapes[n][1],
                              (enum case_tensor)n);
        }
        struct law_limits piece = law_limits(row, &range, &data);
        law_run(row, &range, &data);
        for (int n = 0; n < 4; n++)
            limits[n] = fmax(limits[n], own.of[outputs[n]] + piece.of[outputs[n]]);
        parts[s] = part_create(&data, row->dtype == PLX_F64 ? PLX_F64 : PLX_F32);
        case_data_destroy(&data);
    }
    expect_whole(row, parts, whole, limits);
    for (int s = 0; s < PARTS; s++) part_destroy(&parts[s]);
}

/* Wide outputs, as a caller who joins parts should ask for. */
static struct attention_case full_case(struct seeded *random)
{
    struct attention_case c = law_case(random, false);
    c.causal = false;
    c.wide = true;
    c.scale = 0.1;
    return c;
}

static void parts_join_to_the_whole(const struct law_row *row, struct seeded *random)
{
    struct attention_case c = full_case(random);
    struct case_data whole = case_data_create(&c, row->dtype, seeded_u64(random));
    split_and_join(row, &c, &whole, random);
    case_data_destroy(&whole);
}

static void offset_parts_join_to_the_whole(const struct law_row *row, struct seeded *random)
{
    struct attention_case c = full_case(random);
    c.values = VALUES_OFFSET;
    struct case_data whole = case_data_create(&c, row->dtype, seeded_u64(random));
    split_and_join(row, &c, &whole, random);
    case_data_destroy(&whole);
}

static void every_row_joins(void **state)
{
    (void)state;
    for (plx_mechanism m = PLX_SOFTMAX; m <= PLX_PARALLAX; m++) {
        law_check(&options, "merge", m, PLX_FORWARD, parts_join_to_the_whole);
        law_check(&options, "merge_offset", m, PLX_FORWARD, offset_parts_join_to_the_whole);
    }
}

/* In double nothing but the formula is left: 1e-12 is thousands of its last places. */
static void the_formula_is_exact(void **state)
{
    (void)state;
    for (plx_mechanism m = PLX_SOFTMAX; m <= PLX_PARALLAX; m++) {
        struct seeded random = seeded_make(options.seed, 5);
        struct attention_case c = full_case(&random);
        struct law_row row = {m, PLX_FORWARD, "reference", PLX_F64, "merge_double", &options};
        struct part parts[PARTS];
        double limits[4] = {1e-12, 1e-12, 1e-12, 1e-12};
        c.S = 40;
        struct case_data whole = case_data_create(&c, PLX_F64, options.seed);
        assert_true(law_run(&row, &c, &whole));
        for (int s = 0; s < PARTS; s++) {
            struct attention_case range = c;
            range.S = 10;
            struct case_data data = case_data_create(&range, PLX_F64, 1);
            for (int n = CASE_Q; n <= CASE_V; n++)
                for (int64_t b = 0; b < c.B; b++)
                    law_copy_rows(&whole, b, n == CASE_K || n == CASE_V ? 10 * s : 0, &data, b, 0,
                                  data.shapes[n][1], (enum case_tensor)n);
            assert_true(law_run(&row, &range, &data));
            parts[s] = part_create(&data, PLX_F64);
            case_data_destroy(&data);
        }
        expect_whole(&row, parts, &whole, limits);
        for (int s = 0; s < PARTS; s++) part_destroy(&parts[s]);
        case_data_destroy(&whole);
        assert_int_equal(law_failures(), 0);
    }
}

/* Rows that saw no key in any part: zero, lse -infinity. */
static void nothing_joined_is_nothing(void **state)
{
    (void)state;
    struct attention_case c = {"none", 1, 3, 0, 2, 1, 70, .causal = false, .wide = true};
    struct law_row row = {PLX_PARALLAX, PLX_FORWARD, "reference", PLX_F32, "merge_none", &options};
    struct case_data data = case_data_create(&c, PLX_F32, 1);
    struct part parts[PARTS];
    double limits[4] = {0};
    assert_true(law_run(&row, &c, &data));
    assert_true(data.values[CASE_LSE][0] == -INFINITY);
    for (int s = 0; s < PARTS; s++) parts[s] = part_create(&data, PLX_F32);
    expect_whole(&row, parts, &data, limits);
    assert_int_equal(law_failures(), 0);
    for (int s = 0; s < PARTS; s++) part_destroy(&parts[s]);
    case_data_destroy(&data);
}

int main(int argc, char **argv)
{
    options = test_options_read(argc, argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_row_joins),
        cmocka_unit_test(the_formula_is_exact),
        cmocka_unit_test(nothing_joined_is_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
