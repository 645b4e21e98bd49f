/* Every write-side system call of a short run fails in turn, as on a full disk, a broken one, or in
 * a process that is killed there. The run must end with a sentence, must leave no half-written
 * checkpoint behind that counts as one, and must then resume to the weights of a run that nothing
 * disturbed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"
#include "io/file.h"
#include "train.h"

static char work[256];

/* A run of six steps that checkpoints every two, small enough to be repeated a hundred times. */
static void make_options(struct train_options *options, const char *name)
{
    static const char settings[] = "{\"hidden_size\": 16, \"intermediate_size\": 16, \"layers\": "
                                   "1, \"heads\": 1, \"kv_heads\": 1, "
                                   "\"head_dim\": 8, \"context\": 16, \"batch\": 2, \"threads\": "
                                   "1, \"steps\": 6, \"checkpoint_every\": 2, "
                                   "\"keep\": 2, \"val_fraction\": 0, \"vocab_size\": 0}";
    struct error err = {0};
    memset(options, 0, sizeof *options);
    assert_int_equal(options_set_defaults(train_option_table(), options, &err), PLX_OK);
    assert_int_equal(options_set_json(train_option_table(), settings, strlen(settings), "settings",
                                      options, &err),
                     PLX_OK);
    char path[512];
    snprintf(path, sizeof path, "%s/text.txt", work);
    options->data.items = malloc(sizeof *options->data.items);
    options->data.items[0] = strdup(path);
    options->data.count = 1;
    snprintf(path, sizeof path, "%s/%s", work, name);
    free(options->out);
    options->out = strdup(path);
}

/* Runs, or resumes where the folder holds something; the status, and the sentence in *err. */
static plx_status run(const char *name, const char *resume, struct error *err)
{
    struct train_options options;
    make_options(&options, name);
    char checkpoint[4096], *json = NULL;
    struct train_result result;
    plx_status status =
        train_find_checkpoint(options.out, resume, NULL, checkpoint, sizeof checkpoint, err);
    if (status == PLX_OK) {
        free(options.resume);
        options.resume = strdup(checkpoint);
        status = options_format(train_option_table(), &options, &json, err);
    }
    if (status == PLX_OK) status = train_run(&options, json, NULL, &result, err);
    free(json);
    options_clear(train_option_table(), &options);
    return status;
}

static uint64_t final_hash(const char *name)
{
    char path[512];
    uint64_t hash;
    size_t bytes;
    struct error err = {0};
    snprintf(path, sizeof path, "%s/%s/checkpoints/step-00000006/model.safetensors", work, name);
    assert_int_equal(file_hash(path, &hash, &bytes, &err), PLX_OK);
    return hash;
}

static int setup(void **state)
{
    (void)state;
    /* Thousands of fsyncs: in memory where there is such a folder. The runs take 100 KB. */
    const char *folder = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
    snprintf(work, sizeof work, "%s/parallax-faults.XXXXXX", folder);
    if (!mkdtemp(work)) return 1;
    char path[512], text[600];
    for (size_t i = 0; i < sizeof text; i++) text[i] = (char)('a' + i * i % 23);
    snprintf(path, sizeof path, "%s/text.txt", work);
    struct error err = {0};
    if (file_replace(path, text, sizeof text, &err) != PLX_OK) return 1;
    return run("whole", "", &err) != PLX_OK;
}

static int teardown(void **state)
{
    (void)state;
    struct error err = {0};
    return file_remove_tree(work, &err) != PLX_OK;
}

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
            struct error again = {0};
            if (run(name, "auto", &again) != PLX_OK)
                fail_msg("after a failure of call %lld (%s) resuming fails: %s", (long long)call,
                         err.text, again.text);
        }
        assert_int_equal(final_hash(name), final_hash("whole"));
        char path[512];
        snprintf(path, sizeof path, "%s/%s", work, name);
        assert_int_equal(file_remove_tree(path, &err), PLX_OK);
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
