/* train_case.h: a short training run that the tests of failures repeat hundreds of times, in a
 * folder of their own. */
#ifndef TESTS_TRAIN_CASE_H
#define TESTS_TRAIN_CASE_H

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

/* The folder of the test: its text, and the runs. */
static char work[256];

/* A run of six steps that checkpoints every two, small enough to be repeated a hundred times. */
static inline void make_options(struct train_options *options, const char *name)
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
static inline plx_status run_with(struct train_options *options, const char *resume,
                                  struct error *err)
{
    char checkpoint[4096], *json = NULL;
    struct train_result result;
    TRY(train_find_checkpoint(options->out, resume, NULL, checkpoint, sizeof checkpoint, err));
    free(options->resume);
    options->resume = strdup(checkpoint);
    REQUIRE(err, options->resume != NULL, PLX_OUT_OF_MEMORY, "no memory for the options");
    TRY(options_format(train_option_table(), options, &json, err));
    plx_status status = train_run(options, json, NULL, NULL, &result, err);
    free(json);
    return status;
}

static inline plx_status run(const char *name, const char *resume, struct error *err)
{
    struct train_options options;
    make_options(&options, name);
    plx_status status = run_with(&options, resume, err);
    options_clear(train_option_table(), &options);
    return status;
}

static inline uint64_t final_hash(const char *name)
{
    char path[512];
    uint64_t hash;
    size_t bytes;
    struct error err = {0};
    snprintf(path, sizeof path, "%s/%s/checkpoints/step-00000006/model.safetensors", work, name);
    assert_int_equal(file_hash(path, &hash, &bytes, &err), PLX_OK);
    return hash;
}

static inline int setup(void **state)
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

static inline int teardown(void **state)
{
    (void)state;
    struct error err = {0};
    return file_remove_tree(work, &err) != PLX_OK;
}

/* Resumes a run that failed, or runs it anew; it must end with the weights of one that nothing
 * disturbed. Then its folder goes. */
static inline void assert_recovers(const char *name, const struct error *failure)
{
    struct error err = {0};
    if (run(name, "auto", &err) != PLX_OK)
        fail_msg("after \"%s\" resuming fails: %s", failure->text, err.text);
    assert_int_equal(final_hash(name), final_hash("whole"));
    char path[512];
    snprintf(path, sizeof path, "%s/%s", work, name);
    assert_int_equal(file_remove_tree(path, &err), PLX_OK);
}

#endif
