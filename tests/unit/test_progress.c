/* How counts, durations and sizes are shown to people. */
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_counts),
        cmocka_unit_test(test_durations),
        cmocka_unit_test(test_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
