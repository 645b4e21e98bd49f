/* test_train_scarce.c: memory runs out at every allocation of a short run in turn, once or for
 * good. The run must end with a sentence that says so, must leave nothing allocated and no
 * half-written checkpoint that counts as one, and must then resume to the weights of a run that
 * nothing disturbed. usage: test_train_scarce [STRIDE] */
#include "../train_case.h"

#include <errno.h>
#include <jansson.h>

#include "scarce.h"

/* Whether a run left exactly what one with enough memory leaves: the files of its last checkpoint,
 * and the options at the head of its log. */
static bool is_whole(const char *name)
{
    static const char *const files[] = {"config.json", "model.safetensors", "tokenizer.json",
                                        "optimizer.safetensors", "state.json"};
    for (int i = 0; i < 5; i++) {
        struct error err = {0};
        char path[2][512];
        uint64_t hash[2];
        size_t bytes;
        for (int run = 0; run < 2; run++) {
            snprintf(path[run], sizeof path[run], "%s/%s/checkpoints/step-00000006/%s", work,
                     run ? "whole" : name, files[i]);
            if (file_hash(path[run], &hash[run], &bytes, &err) != PLX_OK) return false;
        }
        if (hash[0] != hash[1]) return false;
    }
    return true;
}

static bool same_head(const char *name)
{
    char path[512], line[2][8192] = {"", ""};
    for (int run = 0; run < 2; run++) {
        snprintf(path, sizeof path, "%s/%s/log.jsonl", work, run ? "whole" : name);
        FILE *file = fopen(path, "r");
        if (file == NULL || fgets(line[run], sizeof line[run], file) == NULL) return false;
        fclose(file);
    }
    return strcmp(line[0], line[1]) == 0;
}

/* Whether a failure is said to be one of memory: by its status, or in the system's words. */
static bool says_memory(plx_status status, const struct error *err)
{
    return status == PLX_OUT_OF_MEMORY || strstr(err->text, strerror(ENOMEM)) != NULL;
}

/* jansson takes an allocation that fails inside a token for a bad token, so that parsing a document
 * that the program itself has printed may be refused with another status. */
static bool blames_own_document(const struct error *err)
{
    static const char *const documents[] = {"the run's options: ", "the byte tokenizer: "};
    for (size_t i = 0; i < sizeof documents / sizeof *documents; i++)
        if (strncmp(err->text, documents[i], strlen(documents[i])) == 0) return true;
    return false;
}

/* What is wrong with the end of a run, or NULL. */
static const char *complaint(bool struck, plx_status status, const struct error *err, int64_t left,
                             const char *name)
{
    const bool says = says_memory(status, err) || blames_own_document(err);
    if (left != 0) return "blocks are left over";
    if (!struck && status != PLX_OK) return "it fails with all memory that it wants";
    if (status == PLX_OK && !is_whole(name)) return "it ends well, but its checkpoint differs";
    if (status == PLX_OK && !same_head(name)) return "it ends well, but its log differs";
    if (status != PLX_OK && !says) return "the status is another";
    if (status != PLX_OK && err->text[0] == '\0') return "there is no sentence";
    return NULL;
}

/* One in so many allocations is tried; the long tier tries all. */
static int64_t stride = 11;

static void check_run(bool lasting, const char *name)
{
    int64_t count = 1;
    int wrong = 0;
    for (bool struck = true; struck; count += stride) {
        struct error err = {0};
        struct train_options options;
        const int64_t live = scarce_live();
        make_options(&options, name);
        scarce_after(count, lasting);
        plx_status status = run_with(&options, "", &err);
        struck = scarce_struck();
        scarce_after(0, false);
        options_clear(train_option_table(), &options);
        const int64_t left = scarce_live() - live;
        const char *reason = complaint(struck, status, &err, left, name);
        if (reason != NULL) {
            wrong++;
            print_error("allocation %lld: %s (%s, \"%s\", %lld blocks)\n", (long long)count, reason,
                        plx_status_name(status), err.text, (long long)left);
        }
        assert_recovers(name, &err);
    }
    printf("%s: of %lld allocations, one in %lld failed\n", name, (long long)(count - stride),
           (long long)stride);
    assert_true(count > 50);
    assert_int_equal(wrong, 0);
}

static void test_once(void **state)
{
    (void)state;
    check_run(false, "once");
}

static void test_for_good(void **state)
{
    (void)state;
    check_run(true, "for_good");
}

/* jansson's own way to memory. */
static struct {
    json_malloc_t allocate;
    json_free_t release;
} own;

/* A run that has ended is resumed, which reads everything and computes nothing; where memory runs
 * out, the run must still stand as it is. jansson's own allocations are spared, because its reader
 * stops the process by an assertion where one of them fails. */
static void test_reading(void **state)
{
    (void)state;
    struct error err = {0};
    assert_int_equal(run("read", "", &err), PLX_OK);
    json_set_alloc_funcs(own.allocate, own.release);
    int64_t count = 1;
    for (bool struck = true; struck; count++) {
        struct train_options options;
        const int64_t live = scarce_live();
        error_clear(&err);
        make_options(&options, "read");
        scarce_after(count, count % 2 == 0);
        plx_status status = run_with(&options, "auto", &err);
        struck = scarce_struck();
        scarce_after(0, false);
        options_clear(train_option_table(), &options);
        if (scarce_live() != live || (status != PLX_OK) != (err.text[0] != '\0') ||
            struck != says_memory(status, &err))
            fail_msg("allocation %lld: %s, \"%s\", %lld blocks are left over", (long long)count,
                     plx_status_name(status), err.text, (long long)(scarce_live() - live));
        assert_true(is_whole("read"));
    }
    json_set_alloc_funcs(malloc, free);
    printf("reading: each of %lld allocations failed\n", (long long)count - 2);
    assert_recovers("read", &err);
}

int main(int argc, char **argv)
{
    if (argc > 1) stride = strtoll(argv[1], NULL, 10);
    json_get_alloc_funcs(&own.allocate, &own.release);
    json_set_alloc_funcs(malloc, free); /* wrapped here, as everywhere in this program */
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_once), cmocka_unit_test(test_for_good),
                                       cmocka_unit_test(test_reading)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
