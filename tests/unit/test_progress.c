/* How counts, durations, sizes and steps are shown to people. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>

#include "progress.h"

static void test_counts(void **state)
{
    (void)state;
    char text[32];
    assert_string_equal(format_count(0, text), "0");
    assert_string_equal(format_count(999, text), "999");
    assert_string_equal(format_count(1000, text), "1,000");
    assert_string_equal(format_count(1234567, text), "1,234,567");
    assert_string_equal(format_count(-1234, text), "-1,234");
    assert_string_equal(format_count(-123, text), "-123");
    assert_string_equal(format_count(INT64_MIN, text), "-9,223,372,036,854,775,808");
}

static void test_durations(void **state)
{
    (void)state;
    char text[32];
    assert_string_equal(format_duration(0, text), "0.0s");
    assert_string_equal(format_duration(9.94, text), "9.9s");
    assert_string_equal(format_duration(9.96, text), "10s");
    assert_string_equal(format_duration(59.6, text), "1m00s");
    assert_string_equal(format_duration(94, text), "1m34s");
    assert_string_equal(format_duration(3600, text), "1h00m");
    assert_string_equal(format_duration(86399, text), "23h59m");
    assert_string_equal(format_duration(NAN, text), "?");
    assert_string_equal(format_duration(INFINITY, text), "?");
    assert_string_equal(format_duration(-1, text), "?");
}

static void test_bytes(void **state)
{
    (void)state;
    char text[32];
    assert_string_equal(format_bytes(0, text), "0.0 MiB");
    assert_string_equal(format_bytes((size_t)5 << 20, text), "5.0 MiB");
    assert_string_equal(format_bytes((size_t)3 << 29, text), "1.50 GiB");
}

static void test_steps(void **state)
{
    (void)state;
    char line[512];
    struct train_progress step = {.step = 7,
                                  .steps = 2000,
                                  .loss = 2.34567,
                                  .val_loss = NAN,
                                  .val_bits_per_byte = NAN,
                                  .grad_norm = 0.51234,
                                  .lr = 5e-3,
                                  .seconds = 2,
                                  .data_seconds = 0.003,
                                  .seconds_left = 94,
                                  .tokens_per_second = 62000,
                                  .device_tokens_per_second = 62000,
                                  .device_tflops = 389.2,
                                  .mfu = NAN,
                                  .memory_now = (size_t)3 << 29,
                                  .memory_peak = (size_t)2 << 30};
    format_step(&step, line, sizeof line);
    assert_string_equal(line,
                        "step    7/2000  loss 2.3457  62,000 tokens/s  1m34s left  norm 0.512 "
                        " lr 5.00e-03  389.2 TFLOP/s  1.50 GiB, peak 2.00 GiB  data 0.1 %");
    step.val_loss = 2.4;
    step.val_bits_per_byte = 3.4625;
    step.mfu = 0.39333;
    step.device_tokens_per_second = 31000;
    format_step(&step, line, sizeof line);
    assert_string_equal(line,
                        "step    7/2000  loss 2.3457  held-out 2.4000 (3.462 bits/byte)  62,000 "
                        "tokens/s (31,000 a device)  1m34s left  norm 0.512  lr 5.00e-03  389.2 "
                        "TFLOP/s  MFU 39.3 %  1.50 GiB, peak 2.00 GiB  data 0.1 %");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_counts),
        cmocka_unit_test(test_durations),
        cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_steps),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
