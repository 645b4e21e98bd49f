/* test_attention_gradcheck.c: the gradients of both references against finite differences in
 * double.
 *
 * With L = <d_o, o(q, r, k, v)>, on small shapes every coordinate x of every input is moved by h =
 * 1e-5 both ways: (L(x + h) - L(x - h)) / 2h must equal what backward says, to 1e-6 of the size of
 * that gradient. On larger shapes one random direction u through all inputs at once: the derivative
 * of L along u must equal <gradient, u>. This is the root of the chain of trust. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "attention_case.h"

static struct test_options options;

static const double step = 1e-5, tolerance = 1e-6;

static const int32_t small_q[] = {3, 0, 5}, small_k[] = {4, 2, 5};
static const int32_t pack_q[] = {0, 3, 3, 4, 7}, pack_k[] = {0, 2, 5, 9, 11};
static const int32_t large_q[] = {0, 9, 9, 40, 61};

static const struct attention_case small_cases[] = {
    {"causal", 1, 5, 5, 1, 1, 4, .causal = true},
    {"full", 2, 4, 4, 2, 1, 3, .causal = false},
    {"scale", 1, 4, 4, 1, 1, 3, .causal = true, .scale = 0.9},
    {"window", 1, 7, 7, 1, 1, 3, .causal = true, .window = 3},
    {"window_T_less", 1, 4, 8, 2, 1, 3, .causal = true, .window = 3},
    {"window_T_more", 1, 7, 4, 2, 1, 3, .causal = true, .window = 2},
    {"T_less", 1, 3, 6, 1, 1, 4, .causal = true},
    {"T_less_full", 1, 3, 6, 1, 1, 4, .causal = false},
    {"T_more", 1, 6, 3, 1, 1, 4, .causal = true},
    {"T_more_full", 1, 6, 3, 1, 1, 4, .causal = false},
    {"gqa", 2, 4, 4, 6, 2, 2, .causal = true},
    {"mqa", 1, 4, 5, 3, 1, 2, .causal = false},
    {"ragged", 3, 5, 5, 2, 1, 3, .causal = true, .q_lengths = small_q, .k_lengths = small_k},
    {"ragged_keys", 3, 3, 5, 1, 1, 3, .causal = false, .k_lengths = small_k},
    {"packed", 1, 7, 7, 2, 1, 3, .causal = true, .q_offsets = pack_q, .sequences = 4},
    {"packed_full", 1, 7, 7, 2, 2, 3, .causal = false, .q_offsets = pack_q, .sequences = 4},
    {"packed_window", 1, 7, 7, 1, 1, 3, .causal = true, .window = 2, .q_offsets = pack_q,
     .sequences = 4},
    {"packed_keys", 1, 7, 11, 2, 1, 3, .causal = true, .q_offsets = pack_q, .k_offsets = pack_k,
     .sequences = 4},
    {"padded", 1, 4, 4, 2, 1, 3, .causal = true, .view = VIEW_PADDED},
};

static const struct attention_case large_cases[] = {
    {"large_causal", 2, 61, 61, 4, 2, 16, .causal = true},
    {"large_full", 1, 50, 70, 3, 1, 64, .causal = false},
    {"large_window", 1, 120, 120, 2, 1, 32, .causal = true, .window = 17},
    {"large_T_more", 1, 90, 30, 2, 2, 16, .causal = true},
    {"large_packed", 1, 61, 61, 4, 1, 16, .causal = true, .q_offsets = large_q, .sequences = 4},
};

static const enum case_tensor inputs[] = {CASE_Q, CASE_R, CASE_K, CASE_V};
static const enum case_tensor gradients[] = {CASE_DQ, CASE_DR, CASE_DK, CASE_DV};

static void run(const struct attention_case *c, plx_mechanism mechanism, plx_pass pass,
                struct case_data *data)
{
    char message[512] = "";
    struct case_call call = {.mechanism = mechanism,
                             .pass = pass,
                             .kernel = "reference",
                             .dtype = PLX_F64,
                             .threads = 1};
    if (case_run(c, &call, data, message, sizeof message) != CASE_DONE)
        fail_msg("%s: %s", c->name, message);
}

/* L of the inputs in data; o is overwritten. d_o behind a length is NaN and counts nothing. */
static double loss(const struct attention_case *c, plx_mechanism mechanism, struct case_data *data)
{
    double sum = 0;
    run(c, mechanism, PLX_FORWARD, data);
    for (int64_t n = 0; n < data->counts[CASE_O]; n++)
        if (!isnan(data->values[CASE_D_O][n]))
            sum += data->values[CASE_D_O][n] * data->values[CASE_O][n];
    return sum;
}

static double root_mean_square(const double *values, int64_t count)
{
    double sum = 0;
    for (int64_t n = 0; n < count; n++) sum += values[n] * values[n];
    return count > 0 ? sqrt(sum / (double)count) : 0;
}

/* All coordinates of one input. */
static void check_coordinates(const struct attention_case *c, plx_mechanism mechanism, int which,
                              const struct case_data *analytic, struct case_data *work)
{
    enum case_tensor input = inputs[which], gradient = gradients[which];
    double *x = work->values[input];
    const double *dx = analytic->values[gradient];
    double size = root_mean_square(dx, analytic->counts[gradient]);
    for (int64_t n = 0; n < work->counts[input]; n++) {
        double here = x[n];
        if (isnan(here)) {
            if (dx[n] != 0)
                fail_msg("%s: %s[%lld] is %g behind a length", c->name, case_tensor_names[gradient],
                         (long long)n, dx[n]);
            continue;
        }
        x[n] = here + step;
        double above = loss(c, mechanism, work);
        x[n] = here - step;
        double below = loss(c, mechanism, work);
        x[n] = here;
        double numeric = (above - below) / (2 * step);
        if (!(fabs(numeric - dx[n]) <= tolerance * fmax(fabs(numeric), size)))
            fail_msg("%s %s: %s[%lld] is %.12g but finite differences say %.12g (seed %llu)",
                     mechanism == PLX_PARALLAX ? "parallax" : "softmax", c->name,
                     case_tensor_names[gradient], (long long)n, dx[n], numeric,
                     (unsigned long long)options.seed);
    }
}

static void check_small(plx_mechanism mechanism)
{
    for (size_t n = 0; n < sizeof small_cases / sizeof small_cases[0]; n++) {
        const struct attention_case *c = &small_cases[n];
        if (!test_options_match(&options, c->name)) continue;
        struct case_data data = case_data_create(c, PLX_F64, options.seed + n);
        struct case_data work = case_data_copy(&data);
        run(c, mechanism, PLX_FORWARD, &data);
        run(c, mechanism, PLX_BACKWARD, &data);
        for (int which = 0; which < 4; which++)
            if (case_uses(mechanism, PLX_FORWARD, inputs[which]))
                check_coordinates(c, mechanism, which, &data, &work);
        case_data_destroy(&data);
        case_data_destroy(&work);
    }
}

/* Moves every input of work to where + amount * direction. */
static void move(const struct case_data *where, const struct case_data *direction, double amount,
                 struct case_data *work)
{
    for (int which = 0; which < 4; which++) {
        enum case_tensor input = inputs[which];
        for (int64_t n = 0; n < work->counts[input]; n++)
            work->values[input][n] = where->values[input][n] + amount * direction->values[input][n];
    }
}

static void check_large(plx_mechanism mechanism)
{
    for (size_t n = 0; n < sizeof large_cases / sizeof large_cases[0]; n++) {
        const struct attention_case *c = &large_cases[n];
        if (!test_options_match(&options, c->name)) continue;
        struct case_data data = case_data_create(c, PLX_F64, options.seed + 100 + n);
        struct case_data direction = case_data_create(c, PLX_F64, options.seed + 200 + n);
        struct case_data work = case_data_copy(&data);
        run(c, mechanism, PLX_FORWARD, &data);
        run(c, mechanism, PLX_BACKWARD, &data);
        double inner = 0, size = 0;
        for (int which = 0; which < 4; which++) {
            if (!case_uses(mechanism, PLX_FORWARD, inputs[which])) continue;
            const double *u = direction.values[inputs[which]];
            const double *dx = data.values[gradients[which]];
            for (int64_t i = 0; i < data.counts[inputs[which]]; i++) {
                inner += dx[i] * u[i];
                size += dx[i] * u[i] * dx[i] * u[i];
            }
        }
        move(&data, &direction, step, &work);
        double above = loss(c, mechanism, &work);
        move(&data, &direction, -step, &work);
        double below = loss(c, mechanism, &work);
        double numeric = (above - below) / (2 * step);
        if (!(fabs(numeric - inner) <= tolerance * fmax(fabs(inner), sqrt(size))))
            fail_msg("%s: <gradient, u> is %.12g but the derivative along u is %.12g (seed %llu)",
                     c->name, inner, numeric, (unsigned long long)options.seed);
        case_data_destroy(&data);
        case_data_destroy(&direction);
        case_data_destroy(&work);
    }
}

static void softmax_gradients_equal_differences(void **state)
{
    (void)state;
    check_small(PLX_SOFTMAX);
}

static void parallax_gradients_equal_differences(void **state)
{
    (void)state;
    check_small(PLX_PARALLAX);
}

static void softmax_backward_is_the_adjoint(void **state)
{
    (void)state;
    check_large(PLX_SOFTMAX);
}

static void parallax_backward_is_the_adjoint(void **state)
{
    (void)state;
    check_large(PLX_PARALLAX);
}

int main(int argc, char **argv)
{
    options = test_options_read(argc, argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(softmax_gradients_equal_differences),
        cmocka_unit_test(parallax_gradients_equal_differences),
        cmocka_unit_test(softmax_backward_is_the_adjoint),
        cmocka_unit_test(parallax_backward_is_the_adjoint),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
