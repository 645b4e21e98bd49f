/* test_attention_golden.c: both references against published numbers in double.
 *
 * T = 5, D = 4, one head, scale 0.5, causal; inputs are sines and cosines of n = 4 t + d. The
 * printed numbers have nine decimals, so half a unit of the last one is what can be asked. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <math.h>

#include "attention_case.h"

static const struct attention_case golden = {
    .name = "golden", .B = 1, .T = 5, .S = 5, .H = 1, .G = 1, .D = 4, .causal = true, .scale = 0.5};

static struct case_data golden_data(void)
{
    struct case_data data = case_data_create(&golden, PLX_F64, 1);
    for (int n = 0; n < 20; n++) {
        data.values[CASE_Q][n] = sin(0.3 * n + 0.1);
        data.values[CASE_K][n] = cos(0.5 * n + 0.2);
        data.values[CASE_V][n] = sin(0.7 * n + 0.3);
        data.values[CASE_R][n] = 0.5 * cos(0.9 * n + 0.4);
        data.values[CASE_D_O][n] = cos(0.4 * n + 0.6);
    }
    return data;
}

static void run(const struct attention_case *c, plx_mechanism mechanism, plx_pass pass,
                struct case_data *data)
{
    char message[512] = "";
    struct case_call call = {
        .mechanism = mechanism, .pass = pass, .kernel = "reference", .dtype = PLX_F64};
    if (case_run(c, &call, data, message, sizeof message) != CASE_DONE) fail_msg("%s", message);
}

/* One row of four numbers and the sum of the whole tensor. */
static void expect(const double *values, int row, const double numbers[4], double sum)
{
    double total = 0;
    for (int n = 0; n < 20; n++) total += values[n];
    for (int d = 0; d < 4; d++)
        if (!(fabs(values[4 * row + d] - numbers[d]) <= 0.51e-9))
            fail_msg("row %d, channel %d is %.10f but must be %.9f", row, d, values[4 * row + d],
                     numbers[d]);
    if (!(fabs(total - sum) <= 0.51e-9)) fail_msg("the sum is %.10f but must be %.9f", total, sum);
}

static void forward_equals_the_golden_row(void **state)
{
    (void)state;
    for (plx_pass pass = PLX_FORWARD; pass <= PLX_DECODE; pass += PLX_DECODE - PLX_FORWARD) {
        struct case_data data = golden_data();
        run(&golden, PLX_PARALLAX, pass, &data);
        expect(data.values[CASE_O], 4,
               (double[]){-0.225021479, -0.145442504, 0.002540353, 0.149328443}, 4.693338345);
        case_data_destroy(&data);
    }
}

static void window_of_three_equals_the_golden_row(void **state)
{
    (void)state;
    struct attention_case window = golden;
    window.window = 3;
    struct case_data data = golden_data();
    run(&window, PLX_PARALLAX, PLX_FORWARD, &data);
    expect(data.values[CASE_O], 4, (double[]){-0.448798610, -0.094961348, 0.303537719, 0.559278254},
           5.247104834);
    case_data_destroy(&data);
}

static void backward_equals_the_golden_rows(void **state)
{
    (void)state;
    struct case_data data = golden_data();
    run(&golden, PLX_PARALLAX, PLX_FORWARD, &data);
    run(&golden, PLX_PARALLAX, PLX_BACKWARD, &data);
    expect(data.values[CASE_DQ], 1,
           (double[]){-0.389057917, -0.413947281, -0.337487914, -0.178399735}, -0.323041984);
    expect(data.values[CASE_DR], 1, (double[]){0.522545135, 0.555974133, 0.453281272, 0.239609348},
           -1.588391129);
    expect(data.values[CASE_DK], 1, (double[]){0.505621091, 0.725371735, 0.609907144, 0.255380940},
           0);
    expect(data.values[CASE_DV], 1, (double[]){0.811245038, 0.944476994, 0.928596799, 0.766111588},
           1.170740758);
    case_data_destroy(&data);
}

/* Softmax attention of the second row worked out by hand: two keys, a logistic weight. */
static void softmax_row_equals_the_logistic_mean(void **state)
{
    (void)state;
    struct case_data data = golden_data();
    run(&golden, PLX_SOFTMAX, PLX_FORWARD, &data);
    const double *q = data.values[CASE_Q] + 4, *k = data.values[CASE_K];
    const double *v = data.values[CASE_V];
    double difference = 0;
    for (int d = 0; d < 4; d++) difference += 0.5 * q[d] * (k[4 + d] - k[d]);
    double weight = 1 / (1 + exp(-difference));
    for (int d = 0; d < 4; d++) {
        double mean = (1 - weight) * v[d] + weight * v[4 + d];
        assert_true(fabs(data.values[CASE_O][4 + d] - mean) < 1e-14);
    }
    case_data_destroy(&data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(forward_equals_the_golden_row),
        cmocka_unit_test(window_of_three_equals_the_golden_row),
        cmocka_unit_test(backward_equals_the_golden_rows),
        cmocka_unit_test(softmax_row_equals_the_logistic_mean),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
