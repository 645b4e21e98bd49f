/* test_attention_algebra.c: the laws of the mechanism itself, over every kernel row.
 *
 * A zero probe is softmax attention; the output is affine in the probe and linear in the values;
 * weights sum to one; a vector added to every key changes nothing; backward is linear in the
 * gradient. Changes of the inputs are chosen so that they are exact in bf16 as well, so only the
 * computation is judged. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "law.h"

static struct test_options options;

static void scale_values(struct case_data *data, enum case_tensor tensor, double factor)
{
    for (int64_t n = 0; n < data->counts[tensor]; n++) data->values[tensor][n] *= factor;
}

/* Multiples of 1/4 in -2..2: sums of a few are exact in bf16. */
static void make_coarse(struct case_data *data, enum case_tensor tensor, struct seeded *random)
{
    for (int64_t n = 0; n < data->counts[tensor]; n++)
        data->values[tensor][n] = 0.25 * (double)seeded_between(random, -8, 8);
}

static struct case_data draw(const struct attention_case *c, const struct law_row *row,
                             struct seeded *random)
{
    return case_data_create(c, row->dtype, seeded_u64(random));
}

/* ---- The probe ----------------------------------------------------------------------------- */

static void zero_probe_is_softmax(const struct law_row *row, struct seeded *random)
{
    static const enum case_tensor shared[] = {CASE_O, CASE_LSE, CASE_DQ, CASE_DK, CASE_DV};
    struct attention_case c = law_case(random, false);
    struct case_data with = draw(&c, row, random), without = case_data_copy(&with);
    scale_values(&with, CASE_R, 0);
    if (law_run(row, &c, &with)) {
        if (!law_run_as(row, PLX_SOFTMAX, row->pass, 0, &c, &without)) {
            case_data_destroy(&without);
            without = case_data_copy(&with);
            without.values[CASE_O][0] = NAN; /* the softmax row of this name must take it too */
        }
        for (int n = 0; n < 5; n++)
            if (case_writes(PLX_SOFTMAX, row->pass, shared[n]))
                law_expect_same(row, case_tensor_names[shared[n]], with.values[shared[n]],
                                without.values[shared[n]], with.counts[shared[n]]);
        if (row->pass != PLX_BACKWARD)
            law_expect_same(row, "value_mean", with.values[CASE_VALUE_MEAN], without.values[CASE_O],
                            with.counts[CASE_O]);
    }
    case_data_destroy(&with);
    case_data_destroy(&without);
}

/* o(r) + o(-r) = 2 o(0), and o(2r) - o(0) = 2 (o(r) - o(0)). */
static void affine_in_the_probe(const struct law_row *row, struct seeded *random)
{
    static const double factors[] = {1, -1, 0, 2};
    struct attention_case c = law_case(random, false);
    struct case_data data[4];
    double limits[4];
    bool ran = true;
    data[0] = draw(&c, row, random);
    for (int n = 1; n < 4; n++) data[n] = case_data_copy(&data[0]);
    for (int n = 0; n < 4; n++) {
        scale_values(&data[n], CASE_R, factors[n]);
        limits[n] = law_limits(row, &c, &data[n]).of[CASE_O];
        ran = ran && law_run(row, &c, &data[n]);
    }
    const double *plus = data[0].values[CASE_O], *minus = data[1].values[CASE_O];
    double *zero = data[2].values[CASE_O], *twice = data[3].values[CASE_O];
    for (int64_t n = 0; ran && n < data[0].counts[CASE_O]; n++) {
        double sum = plus[n] + minus[n], two = 2 * zero[n];
        double jump = twice[n] - 2 * plus[n], back = -zero[n];
        law_expect_near(row, "o(r) + o(-r)", &sum, &two, 1, limits[0] + limits[1] + 2 * limits[2]);
        law_expect_near(row, "o(2r) - 2 o(r)", &jump, &back, 1,
                        limits[3] + 2 * limits[0] + limits[2]);
    }
    for (int n = 0; n < 4; n++) case_data_destroy(&data[n]);
}

/* ---- The values ---------------------------------------------------------------------------- */

static void constant_values_come_back(const struct law_row *row, struct seeded *random)
{
    struct attention_case c = law_case(random, true);
    struct case_data data = draw(&c, row, random);
    for (int64_t n = 0; n < data.counts[CASE_V]; n++)
        data.values[CASE_V][n] = data.values[CASE_V][n % c.D];
    double limit = law_limits(row, &c, &data).of[CASE_O];
    if (law_run(row, &c, &data))
        for (int64_t n = 0; n < data.counts[CASE_O]; n += c.D)
            law_expect_near(row, "o", data.values[CASE_O] + n, data.values[CASE_V], c.D, limit);
    case_data_destroy(&data);
}

/* Doubling and negating is exact in binary, so the outputs do the same to the bit; sums are near.
 * Below 2^-14 an f16 loses places and doubling is not exact, so f16 inputs have f32 outputs here.
 */
static void linear_in_the_values(const struct law_row *row, struct seeded *random)
{
    struct attention_case c = law_case(random, false);
    c.wide = row->dtype == PLX_F16;
    struct case_data one = draw(&c, row, random), two = case_data_copy(&one);
    make_coarse(&one, CASE_V, random);
    make_coarse(&two, CASE_V, random);
    struct case_data sum = case_data_copy(&one), scaled = case_data_copy(&one);
    for (int64_t n = 0; n < sum.counts[CASE_V]; n++) sum.values[CASE_V][n] += two.values[CASE_V][n];
    scale_values(&scaled, CASE_V, -2);
    double limit = law_limits(row, &c, &one).of[CASE_O] + law_limits(row, &c, &two).of[CASE_O] +
                   law_limits(row, &c, &sum).of[CASE_O];
    if (law_run(row, &c, &one) && law_run(row, &c, &two) && law_run(row, &c, &sum) &&
        law_run(row, &c, &scaled)) {
        scale_values(&scaled, CASE_O, -0.5);
        law_expect_same(row, "o(-2v) / -2", scaled.values[CASE_O], one.values[CASE_O],
                        one.counts[CASE_O]);
        for (int64_t n = 0; n < one.counts[CASE_O]; n++)
            two.values[CASE_O][n] += one.values[CASE_O][n];
        law_expect_near(row, "o(v + w)", sum.values[CASE_O], two.values[CASE_O], one.counts[CASE_O],
                        limit);
    }
    case_data_destroy(&one);
    case_data_destroy(&two);
    case_data_destroy(&sum);
    case_data_destroy(&scaled);
}

static void first_row_is_its_value(const struct law_row *row, struct seeded *random)
{
    struct attention_case c = law_case(random, true);
    struct case_data data = draw(&c, row, random);
    double limit = law_limits(row, &c, &data).of[CASE_O];
    if (law_run(row, &c, &data))
        for (int64_t b = 0; b < c.B; b++)
            for (int64_t h = 0; h < c.H; h++)
                law_expect_near(row, "o[0]", data.values[CASE_O] + (b * c.T * c.H + h) * c.D,
                                data.values[CASE_V] + (b * c.S * c.G + h / (c.H / c.G)) * c.D, c.D,
                                limit);
    case_data_destroy(&data);
}

/* ---- The keys ------------------------------------------------------------------------------ */

/* Keys are multiples of 1/4 up to 2, which every dtype still holds exactly with its offset added.
 */
static void add_to_keys(const struct attention_case *c, const struct law_row *row,
                        struct case_data *data)
{
    double size = row->dtype == PLX_BF16 ? 16 : row->dtype == PLX_F16 ? 256 : 1000;
    for (int64_t n = 0; n < data->counts[CASE_K]; n++)
        data->values[CASE_K][n] += size * (n % c->D % 3 == 1 ? -1 : 1);
}

static void key_offset_changes_nothing(const struct law_row *row, struct seeded *random)
{
    struct attention_case c = law_case(random, false);
    /* Not a power of two: the naive implementation too must round when it scales large logits. */
    c.scale = 0.1;
    struct case_data here = draw(&c, row, random);
    make_coarse(&here, CASE_K, random);
    struct case_data there = case_data_copy(&here);
    add_to_keys(&c, row, &there);
    struct law_limits a = law_limits(row, &c, &here), b = law_limits(row, &c, &there);
    if (law_run(row, &c, &here) && law_run(row, &c, &there)) {
        for (int n = 0; n < CASE_TENSORS; n++) {
            bool same = n == CASE_O || n == CASE_VALUE_MEAN || n == CASE_DK || n == CASE_DV;
            if (same && case_writes(row->mechanism, row->pass, (enum case_tensor)n))
                law_expect_near(row, case_tensor_names[n], there.values[n], here.values[n],
                                here.counts[n], a.of[n] + b.of[n]);
        }
    }
    case_data_destroy(&here);
    case_data_destroy(&there);
}

static void key_gradients_sum_to_zero(const struct law_row *row, struct seeded *random)
{
    struct attention_case c = law_case(random, false);
    struct case_data data = draw(&c, row, random);
    double limit = law_limits(row, &c, &data).of[CASE_DK] * (double)c.S, zero = 0;
    if (law_run(row, &c, &data)) {
        for (int64_t channel = 0; channel < c.B * c.G * c.D; channel++) {
            int64_t b = channel / (c.G * c.D), inner = channel % (c.G * c.D);
            double sum = 0;
            for (int64_t j = 0; j < c.S; j++)
                sum += data.values[CASE_DK][(b * c.S + j) * c.G * c.D + inner];
            law_expect_near(row, "sum of dk", &sum, &zero, 1, limit);
        }
    }
    case_data_destroy(&data);
}

/* ---- The gradient -------------------------------------------------------------------------- */

static void linear_in_the_gradient(const struct law_row *row, struct seeded *random)
{
    struct attention_case c = law_case(random, false);
    c.wide = row->dtype == PLX_F16;
    struct case_data one = draw(&c, row, random), two = case_data_copy(&one);
    make_coarse(&one, CASE_D_O, random);
    make_coarse(&two, CASE_D_O, random);
    struct case_data sum = case_data_copy(&one), scaled = case_data_copy(&one);
    for (int64_t n = 0; n < sum.counts[CASE_D_O]; n++)
        sum.values[CASE_D_O][n] += two.values[CASE_D_O][n];
    scale_values(&scaled, CASE_D_O, -2);
    struct law_limits a = law_limits(row, &c, &one), b = law_limits(row, &c, &two),
                      both = law_limits(row, &c, &sum);
    if (law_run(row, &c, &one) && law_run(row, &c, &two) && law_run(row, &c, &sum) &&
        law_run(row, &c, &scaled)) {
        for (int n = CASE_DQ; n <= CASE_DV; n++) {
            if (!case_writes(row->mechanism, row->pass, (enum case_tensor)n)) continue;
            scale_values(&scaled, (enum case_tensor)n, -0.5);
            law_expect_same(row, case_tensor_names[n], scaled.values[n], one.values[n],
                            one.counts[n]);
            for (int64_t i = 0; i < one.counts[n]; i++) two.values[n][i] += one.values[n][i];
            law_expect_near(row, case_tensor_names[n], sum.values[n], two.values[n], one.counts[n],
                            a.of[n] + b.of[n] + both.of[n]);
        }
    }
    case_data_destroy(&one);
    case_data_destroy(&two);
    case_data_destroy(&sum);
    case_data_destroy(&scaled);
}

/* ---- The list ------------------------------------------------------------------------------ */

static void laws_of_the_forward(void **state)
{
    (void)state;
    for (plx_pass pass = PLX_FORWARD; pass <= PLX_DECODE; pass += PLX_DECODE - PLX_FORWARD) {
        law_check(&options, "zero_probe", PLX_PARALLAX, pass, zero_probe_is_softmax);
        law_check(&options, "affine_in_r", PLX_PARALLAX, pass, affine_in_the_probe);
        for (plx_mechanism m = PLX_SOFTMAX; m <= PLX_PARALLAX; m++) {
            law_check(&options, "constant_v", m, pass, constant_values_come_back);
            law_check(&options, "linear_in_v", m, pass, linear_in_the_values);
            law_check(&options, "first_row", m, pass, first_row_is_its_value);
            law_check(&options, "key_offset", m, pass, key_offset_changes_nothing);
        }
    }
}

static void laws_of_the_backward(void **state)
{
    (void)state;
    law_check(&options, "zero_probe", PLX_PARALLAX, PLX_BACKWARD, zero_probe_is_softmax);
    for (plx_mechanism m = PLX_SOFTMAX; m <= PLX_PARALLAX; m++) {
        law_check(&options, "key_offset", m, PLX_BACKWARD, key_offset_changes_nothing);
        law_check(&options, "sum_dk", m, PLX_BACKWARD, key_gradients_sum_to_zero);
        law_check(&options, "linear_in_d_o", m, PLX_BACKWARD, linear_in_the_gradient);
    }
}

int main(int argc, char **argv)
{
    options = test_options_read(argc, argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(laws_of_the_forward),
        cmocka_unit_test(laws_of_the_backward),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
