/* test_schedule.c: the schedules of nn/optim/schedule.c against the 20-step table of torchtitan's
 * formula, and at their edges: no warm-up, no decay, everything decay, steps beyond the end. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>

#include "optim/optim.h"

static struct schedule_config twenty_steps(enum decay_shape shape, double min_factor)
{
    return (struct schedule_config){.kind = SCHEDULE_WSD,
                                    .shape = shape,
                                    .steps = 20,
                                    .warmup = 4,
                                    .decay_ratio = 0.3,
                                    .min_factor = min_factor};
}

static void assert_near(double actual, double expected, double tolerance, int64_t step)
{
    if (fabs(actual - expected) <= tolerance) return;
    print_error("step %lld: %.9f instead of %.9f\n", (long long)step, actual, expected);
    fail();
}

static void wsd_follows_the_table(void **unused)
{
    (void)unused;
    static const struct {
        enum decay_shape shape;
        double min_factor;
        double decay[5];
    } rows[] = {
        {DECAY_LINEAR, 0.0, {0.833333, 0.666667, 0.5, 0.333333, 0.166667}},
        {DECAY_SQRT, 0.0, {0.591752, 0.422650, 0.292893, 0.183503, 0.087129}},
        {DECAY_COSINE, 0.0, {0.933013, 0.75, 0.5, 0.25, 0.066987}},
        {DECAY_LINEAR, 0.1, {0.85, 0.7, 0.55, 0.4, 0.25}},
    };
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
        struct schedule_config config = twenty_steps(rows[r].shape, rows[r].min_factor);
        for (int64_t s = 0; s < 20; s++) {
            double expected = s < 4 ? 0.25 * (double)(s + 1) : s < 15 ? 1.0 : rows[r].decay[s - 15];
            assert_near(schedule_lr(&config, s), expected, s < 15 ? 0.0 : 1e-6, s);
            assert_true(schedule_weight_decay(&config, s) == 1.0);
        }
    }
}

static void wsd_ends_at_its_minimum(void **unused)
{
    (void)unused;
    for (int shape = DECAY_LINEAR; shape <= DECAY_COSINE; shape++) {
        struct schedule_config config = twenty_steps((enum decay_shape)shape, 0.25);
        assert_near(schedule_lr(&config, 20), 0.25, 1e-15, 20);
        assert_near(schedule_lr(&config, 1000), 0.25, 1e-15, 1000);
        config.min_factor = 1.0;
        for (int64_t s = 4; s < 20; s++) assert_near(schedule_lr(&config, s), 1.0, 0.0, s);
    }
}

static void wsd_without_warmup_starts_at_the_peak(void **unused)
{
    (void)unused;
    struct schedule_config config = twenty_steps(DECAY_LINEAR, 0.0);
    config.warmup = 0;
    for (int64_t s = 0; s < 20; s++)
        assert_near(schedule_lr(&config, s), s < 15 ? 1.0 : (double)(20 - s) / 6.0, 1e-15, s);
}

static void wsd_without_decay_stays(void **unused)
{
    (void)unused;
    struct schedule_config config = twenty_steps(DECAY_SQRT, 0.0);
    config.decay_ratio = 0.0;
    config.weight_decay_gamma = 1.0;
    for (int64_t s = 4; s < 30; s++) {
        assert_near(schedule_lr(&config, s), 1.0, 0.0, s);
        assert_near(schedule_weight_decay(&config, s), 1.0, 0.0, s);
    }
}

/* Warm-up and decay that do not both fit: the decay is cut to what the warm-up leaves. */
static void wsd_ratio_one_decays_right_after_warmup(void **unused)
{
    (void)unused;
    struct schedule_config config = twenty_steps(DECAY_LINEAR, 0.0);
    config.decay_ratio = 1.0;
    for (int64_t s = 0; s < 20; s++) {
        double expected = s < 4 ? 0.25 * (double)(s + 1) : (double)(20 - s) / 16.0;
        assert_near(schedule_lr(&config, s), expected, 1e-15, s);
    }
    config.warmup = 0;
    for (int64_t s = 0; s < 20; s++)
        assert_near(schedule_lr(&config, s), (double)(20 - s) / 20.0, 1e-15, s);
}

static void warmup_beyond_the_end_only_rises(void **unused)
{
    (void)unused;
    struct schedule_config config = twenty_steps(DECAY_LINEAR, 0.0);
    config.warmup = 40;
    for (int64_t s = 0; s < 20; s++)
        assert_near(schedule_lr(&config, s), (double)(s + 1) / 40.0, 0.0, s);
}

/* 10 * 0.25 = 2.5 and 10 * 0.35 = 3.5 round to the even 2 and 4, as in Python. */
static void decay_steps_round_halves_to_even(void **unused)
{
    (void)unused;
    struct schedule_config config = {.kind = SCHEDULE_WSD, .steps = 10, .decay_ratio = 0.25};
    assert_near(schedule_lr(&config, 8), 1.0, 0.0, 8);
    assert_near(schedule_lr(&config, 9), 0.5, 0.0, 9);
    config.decay_ratio = 0.35;
    assert_near(schedule_lr(&config, 6), 1.0, 0.0, 6);
    assert_near(schedule_lr(&config, 7), 0.75, 0.0, 7);
}

static void cosine_falls_from_the_end_of_warmup(void **unused)
{
    (void)unused;
    struct schedule_config config = {.kind = SCHEDULE_COSINE,
                                     .shape = DECAY_LINEAR, /* of WSD; the cosine ignores it */
                                     .steps = 100,
                                     .warmup = 10,
                                     .decay_ratio = 0.2,
                                     .min_factor = 0.1};
    for (int64_t s = 0; s < 10; s++)
        assert_near(schedule_lr(&config, s), (double)(s + 1) / 10.0, 0.0, s);
    assert_near(schedule_lr(&config, 10), 1.0, 0.0, 10);
    assert_near(schedule_lr(&config, 55), 0.55, 1e-15, 55);
    assert_near(schedule_lr(&config, 40), 0.1 + 0.9 * 0.75, 1e-12, 40);
    assert_near(schedule_lr(&config, 100), 0.1, 1e-15, 100);
    for (int64_t s = 11; s < 100; s++)
        assert_true(schedule_lr(&config, s) < schedule_lr(&config, s - 1));
}

static void constant_is_constant_after_warmup(void **unused)
{
    (void)unused;
    struct schedule_config config = {.kind = SCHEDULE_CONSTANT,
                                     .steps = 20,
                                     .warmup = 2,
                                     .decay_ratio = 0.5,
                                     .weight_decay_gamma = 2.0};
    assert_near(schedule_lr(&config, 0), 0.5, 0.0, 0);
    for (int64_t s = 1; s < 40; s++) assert_near(schedule_lr(&config, s), 1.0, 0.0, s);
    for (int64_t s = 0; s < 40; s++) assert_near(schedule_weight_decay(&config, s), 1.0, 0.0, s);
}

static void weight_decay_anneals_over_the_decay_stage(void **unused)
{
    (void)unused;
    static const double gammas[] = {0.5, 1.0, 2.0};
    for (size_t g = 0; g < 3; g++) {
        /* A square-root rate with a floor: the annealing follows neither. */
        struct schedule_config config = twenty_steps(DECAY_SQRT, 0.3);
        config.weight_decay_gamma = gammas[g];
        for (int64_t s = 0; s < 22; s++) {
            double left = s < 15 ? 1.0 : s < 20 ? (double)(20 - s) / 6.0 : 0.0;
            assert_near(schedule_weight_decay(&config, s), pow(left, gammas[g]), 1e-14, s);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(wsd_follows_the_table),
        cmocka_unit_test(wsd_ends_at_its_minimum),
        cmocka_unit_test(wsd_without_warmup_starts_at_the_peak),
        cmocka_unit_test(wsd_without_decay_stays),
        cmocka_unit_test(wsd_ratio_one_decays_right_after_warmup),
        cmocka_unit_test(warmup_beyond_the_end_only_rises),
        cmocka_unit_test(decay_steps_round_halves_to_even),
        cmocka_unit_test(cosine_falls_from_the_end_of_warmup),
        cmocka_unit_test(constant_is_constant_after_warmup),
        cmocka_unit_test(weight_decay_anneals_over_the_decay_stage),
    };
    return cmocka_run_group_tests_name("schedule", tests, NULL, NULL);
}
