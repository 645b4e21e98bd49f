/* test_train_windows.c: a run that reads the numbers of several steps at once, as one on a GPU
 * does, reports what a run that reads every step reports: the same losses and norms a step, the
 * same weights, and the same first step of a run that diverges. Here on the CPU, where the number
 * of steps that are read together is wrapped. */
#include "../train_case.h"

#include "train_readings.h"

static int depth = 1;

int __wrap_train_readings_depth(const struct device *device, int64_t log_every);
int __wrap_train_readings_depth(const struct device *device, int64_t log_every)
{
    (void)device;
    (void)log_every;
    return depth;
}

/* Trains without checkpoints but the last. */
static plx_status run_steps(const char *name, int64_t log_every, double lr, struct error *err)
{
    struct train_options options;
    make_options(&options, name);
    options.log_every = log_every;
    options.checkpoint_every = 0;
    if (lr > 0) options.lr = lr;
    plx_status status = run_with(&options, "", err);
    options_clear(train_option_table(), &options);
    return status;
}

/* The steps of a run's log without what depends on time, in malloc'd memory. */
static char *log_steps(const char *name)
{
    char path[512], *text;
    size_t size, used = 0;
    struct error err = {0};
    snprintf(path, sizeof path, "%s/%s/log.jsonl", work, name);
    assert_int_equal(file_read_all(path, (size_t)1 << 20, &text, &size, &err), PLX_OK);
    char *steps = calloc(1, size + 1);
    assert_non_null(steps);
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
        char *end = strstr(line, ",\"seconds\"");
        if (!strstr(line, "\"kind\":\"step\"")) continue;
        assert_non_null(end);
        used += (size_t)snprintf(steps + used, size + 1 - used, "%.*s\n", (int)(end - line), line);
    }
    free(text);
    return steps;
}

static void windows_change_nothing(void **state)
{
    (void)state;
    static const int depths[] = {2, 4, 6, 100};
    struct error err = {0};
    depth = 1;
    assert_int_equal(run_steps("single", 1, 0, &err), PLX_OK);
    char *single = log_steps("single");
    assert_non_null(strstr(single, "\"step\":6,"));
    for (int i = 0; i < 4; i++) {
        char name[32];
        snprintf(name, sizeof name, "window%d", depths[i]);
        depth = depths[i];
        if (run_steps(name, depths[i], 0, &err) != PLX_OK) fail_msg("%s", err.text);
        char *window = log_steps(name);
        assert_string_equal(window, single);
        assert_int_equal(final_hash(name), final_hash("single"));
        free(window);
    }
    free(single);
}

/* A rate that overflows: the sentence names the step that a run reading every step names. */
static void the_first_bad_step_is_named(void **state)
{
    (void)state;
    static const double rates[] = {1e4, 1e10, 1e30};
    for (int i = 0; i < 3; i++) {
        struct error single = {0}, window = {0};
        char name[32];
        depth = 1;
        snprintf(name, sizeof name, "bad%d", i);
        plx_status expected = run_steps(name, 1, rates[i], &single);
        depth = 6;
        snprintf(name, sizeof name, "badwindow%d", i);
        assert_int_equal(run_steps(name, 6, rates[i], &window), expected);
        assert_string_equal(window.text, single.text);
        if (i < 2) continue;
        assert_int_equal(expected, PLX_BAD_DATA);
        assert_non_null(strstr(window.text, "no checkpoint had been written"));
        print_message("%s\n", window.text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(windows_change_nothing),
        cmocka_unit_test(the_first_bad_step_is_named),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
