/* Every write-side system call of a short run fails in turn, as on a full disk, a broken one, or in
 * a process that is killed there. The run must end with a sentence, must leave no half-written
 * checkpoint behind that counts as one, and must then resume to the weights of a run that nothing
 * disturbed. */
#include "../train_case.h"

/* Fails call 1, 2, 3, ... of a run until one ends before the fault strikes. */
static void check_fault(enum file_fault fault, const char *name, int64_t stride)
{
    int64_t call = 1, failures = 0;
    for (;; call += stride) {
        struct error err = {0};
        file_fault_after(fault, call);
        plx_status status = run(name, "", &err);
        bool pending = file_fault_pending();
        file_fault_after(FILE_FAULT_NONE, 0);
        if (status != PLX_OK) {
            failures++;
            assert_true(err.text[0]);
        } else {
            assert_int_equal(final_hash(name), final_hash("whole"));
        }
        assert_recovers(name, &err);
        if (pending) break;
    }
    printf("%s: %lld calls, %lld failed runs\n", name, (long long)call - 1, (long long)failures);
    assert_true(call > 20);
    if (fault != FILE_FAULT_SHORT_WRITE && fault != FILE_FAULT_INTERRUPT) assert_true(failures > 5);
}

static void test_no_space(void **state)
{
    (void)state;
    check_fault(FILE_FAULT_NO_SPACE, "no_space", 2);
}

static void test_io_error(void **state)
{
    (void)state;
    check_fault(FILE_FAULT_IO, "io_error", 3);
}

static void test_short_write(void **state)
{
    (void)state;
    check_fault(FILE_FAULT_SHORT_WRITE, "short_write", 3);
}

static void test_interrupt(void **state)
{
    (void)state;
    check_fault(FILE_FAULT_INTERRUPT, "interrupt", 3);
}

static void test_kill(void **state)
{
    (void)state;
    check_fault(FILE_FAULT_KILL, "kill", 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_space),    cmocka_unit_test(test_io_error),
        cmocka_unit_test(test_short_write), cmocka_unit_test(test_interrupt),
        cmocka_unit_test(test_kill),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
