/* test_train_step.c: what a step of training rests on: batches of documents come in few shapes, and
 * what is staged arrives, in order, as it was when it was sent. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "core/staging.h"
#include "train_step.h"

static void numbers_of_sequences_are_few(void **state)
{
    (void)state;
    int64_t last = 0, different = 0;
    for (int64_t count = 1; count <= 1024; count++) {
        const int64_t filled = train_step_sequences(count);
        assert_true(filled >= count && filled >= last);
        assert_true(4 * filled <= 5 * count);
        different += filled != last;
        last = filled;
    }
    assert_int_equal(last, 1024);
    assert_int_equal(different, 8 + 4 * 7);
}

static void what_is_sent_arrives(void **state)
{
    (void)state;
    enum { COPIES = 3 * STAGING_PLACES + 1, BYTES = 64 };
    struct error err = {0};
    struct staging staging;
    unsigned char arrived[COPIES][BYTES];
    assert_int_equal(staging_create(&staging, &device_cpu, NULL, BYTES, &err), PLX_OK);
    for (int c = 0; c < COPIES; c++) {
        void *memory;
        memset(arrived[c], 0xee, BYTES);
        assert_int_equal(staging_open(&staging, &memory, &err), PLX_OK);
        memset(memory, c, BYTES);
        assert_int_equal(staging_send(&staging, arrived[c], (size_t)(c % BYTES), &err), PLX_OK);
    }
    for (int c = 0; c < COPIES; c++)
        for (int i = 0; i < BYTES; i++) assert_int_equal(arrived[c][i], i < c ? c : 0xee);
    staging_destroy(&staging);
    staging_destroy(&staging);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_of_sequences_are_few),
        cmocka_unit_test(what_is_sent_arrives),
    };
    return cmocka_run_group_tests_name("steps of training", tests, NULL, NULL);
}
