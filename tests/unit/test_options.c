/* The option table: order of sources, every refusal by its sentence, and that what is recorded can
 * be read back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "train.h"

/* ---- A small table ---- */

struct values {
    char *name, *free_text;
    bool on, off;
    int64_t count;
    double share, open;
    struct text_list paths;
};

static const struct option_row rows[] = {
    {"Group", "name", OPTION_STRING, offsetof(struct values, name), "alpha", "alpha|beta", 0, 0,
     false, "a name"},
    {NULL, "free_text", OPTION_STRING, offsetof(struct values, free_text), NULL, "TEXT", 0, 0,
     false, "a text"},
    {NULL, "on", OPTION_BOOL, offsetof(struct values, on), "true", NULL, 0, 0, false, "on"},
    {NULL, "off", OPTION_BOOL, offsetof(struct values, off), "false", NULL, 0, 0, false, "off"},
    {NULL, "count", OPTION_INT, offsetof(struct values, count), "3", "N", 1, 10, false, "a number"},
    {NULL, "share", OPTION_REAL, offsetof(struct values, share), "0.5", "X", 0, 1, true, "a share"},
    {NULL, "open", OPTION_REAL, offsetof(struct values, open), NULL, "X", 0, 10, false,
     "left open"},
    {NULL, "paths", OPTION_LIST, offsetof(struct values, paths), NULL, "PATH...", 0, 0, false,
     "paths"},
};
static const struct option_table table = {rows, COUNT_OF(rows)};

/* Reads a command line (NULL at its end) on top of a configuration text (may be NULL). */
static plx_status read_all(const char *config, char **argv, struct values *values,
                           struct error *err)
{
    int argc = 0;
    while (argv[argc]) argc++;
    memset(values, 0, sizeof *values);
    struct option_settings settings;
    plx_status status = options_scan(&table, argc, argv, &settings, err);
    if (status == PLX_OK) status = options_set_defaults(&table, values, err);
    if (status == PLX_OK && config)
        status = options_set_json(&table, config, strlen(config), "config.json", values, err);
    if (status == PLX_OK) status = options_set_flags(&table, &settings, values, err);
    option_settings_clear(&settings);
    return status;
}

static void test_defaults(void **state)
{
    (void)state;
    struct values values;
    struct error err = {0};
    char *argv[] = {"test", NULL};
    assert_int_equal(read_all(NULL, argv, &values, &err), PLX_OK);
    assert_string_equal(values.name, "alpha");
    assert_string_equal(values.free_text, "");
    assert_true(values.on);
    assert_false(values.off);
    assert_int_equal(values.count, 3);
    assert_true(values.share == 0.5);
    assert_true(isnan(values.open));
    assert_int_equal(values.paths.count, 0);
    options_clear(&table, &values);
}

static void test_order(void **state)
{
    (void)state;
    struct values values;
    struct error err = {0};
    char *argv[] = {"test", "--count", "7", "--no-on",     "--off", "--name=beta", "--paths", "x",
                    "y",    "--paths", "z", "--free-text", "-5",    NULL};
    const char *config = "{\"count\": 5, \"share\": 0.25, \"paths\": [\"a\", \"b\"], \"open\": 2, "
                         "\"free_text\": \"c\"}";
    assert_int_equal(read_all(config, argv, &values, &err), PLX_OK);
    assert_int_equal(values.count, 7);
    assert_true(values.share == 0.25);
    assert_true(values.open == 2);
    assert_false(values.on);
    assert_true(values.off);
    assert_string_equal(values.name, "beta");
    assert_string_equal(values.free_text, "-5");
    assert_int_equal(values.paths.count, 3);
    assert_string_equal(values.paths.items[0], "x");
    assert_string_equal(values.paths.items[2], "z");
    options_clear(&table, &values);
}

static void test_words(void **state)
{
    (void)state;
    char *argv[] = {"test", "one", "--off", "two", "-", "--", "--count", NULL};
    struct option_settings settings;
    struct error err = {0};
    assert_int_equal(options_scan(&table, 7, argv, &settings, &err), PLX_OK);
    assert_int_equal(settings.positional_count, 4);
    assert_string_equal(settings.positionals[1], "two");
    assert_string_equal(settings.positionals[2], "-");
    assert_string_equal(settings.positionals[3], "--count");
    assert_true(option_is_set(&settings, "off"));
    assert_false(option_is_set(&settings, "count"));
    option_settings_clear(&settings);
}

static void test_refusals(void **state)
{
    (void)state;
    static const struct {
        const char *config, *flag, *value, *sentence;
    } cases[] = {
        {NULL, "--coutn", "3", "--coutn: there is no such option; the nearest is --count"},
        {NULL, "--no-count", NULL, "--no-count: there is no such option; the nearest is --count"},
        {NULL, "-c", NULL, "-c: there is no such option; options start with two dashes"},
        {NULL, "--count", NULL, "--count: needs a value"},
        {NULL, "--count", "many", "--count: \"many\" is not a whole number"},
        {NULL, "--count", "3.5", "--count: \"3.5\" is not a whole number"},
        {NULL, "--count", "99999999999999999999",
         "--count: \"99999999999999999999\" is not a whole number"},
        {NULL, "--count", "0", "--count: 0 is less than the smallest allowed, 1"},
        {NULL, "--count", "11", "--count: 11 is more than the largest allowed, 10"},
        {NULL, "--share", "1.5", "--share: 1.5 is more than the largest allowed, 1"},
        {NULL, "--share", "x", "--share: \"x\" is not a number"},
        {NULL, "--share", "nan", "--share: the value must be finite"},
        {NULL, "--name", "gamma", "--name: \"gamma\" is not one of alpha|beta"},
        {NULL, "--name", "alp", "--name: \"alp\" is not one of alpha|beta"},
        {NULL, "--on=maybe", NULL, "--on: \"maybe\" is neither true nor false"},
        {"{\"cuont\": 1}", NULL, NULL,
         "config.json: there is no option \"cuont\"; the nearest is \"count\""},
        {"{\"count\": \"1\"}", NULL, NULL,
         "config.json: count: is a string but must be a whole number"},
        {"{\"count\": 1.5}", NULL, NULL,
         "config.json: count: is a number but must be a whole number"},
        {"{\"count\": 12}", NULL, NULL,
         "config.json: count: 12 is more than the largest allowed, 10"},
        {"{\"on\": 1}", NULL, NULL, "config.json: on: is a whole number but must be true or false"},
        {"{\"name\": null}", NULL, NULL, "config.json: name: is null but must be a string"},
        {"{\"name\": \"gamma\"}", NULL, NULL,
         "config.json: name: \"gamma\" is not one of alpha|beta"},
        {"{\"paths\": [\"a\", 2]}", NULL, NULL,
         "config.json: paths[1]: is a whole number but must be a string"},
        {"{\"paths\": {}}", NULL, NULL,
         "config.json: paths: is an object but must be a string or a list of strings"},
        {"[]", NULL, NULL, "config.json: is a list but must be an object of options"},
    };
    for (int i = 0; i < COUNT_OF(cases); i++) {
        char *argv[] = {"test", (char *)cases[i].flag, (char *)cases[i].value, NULL};
        struct values values;
        struct error err = {0};
        assert_int_equal(read_all(cases[i].config, argv, &values, &err), PLX_INVALID_ARGUMENT);
        assert_string_equal(err.text, cases[i].sentence);
        options_clear(&table, &values);
    }
}

static void test_bad_json(void **state)
{
    (void)state;
    static const char *const texts[] = {"",
                                        "{",
                                        "{\"count\": }",
                                        "{\"count\": 1, \"count\": 2}",
                                        "{} x",
                                        "{\"free_text\": \"\xff\"}"};
    for (int i = 0; i < COUNT_OF(texts); i++) {
        char *argv[] = {"test", NULL};
        struct values values;
        struct error err = {0};
        assert_int_equal(read_all(texts[i], argv, &values, &err), PLX_INVALID_ARGUMENT);
        assert_non_null(strstr(err.text, "config.json: line 1: "));
        options_clear(&table, &values);
    }
}

static void test_record(void **state)
{
    (void)state;
    struct values values, again;
    struct error err = {0};
    char *argv[] = {"test",    "--count", "7",           "--paths", "p", "q",
                    "--share", "0.1",     "--free-text", "a \"b\"", NULL};
    assert_int_equal(read_all("{\"open\": 0.1}", argv, &values, &err), PLX_OK);
    char *json;
    assert_int_equal(options_format(&table, &values, &json, &err), PLX_OK);
    assert_null(strstr(json, "share")); /* unrecorded */
    char *nothing[] = {"test", NULL};
    assert_int_equal(read_all(json, nothing, &again, &err), PLX_OK);
    for (int i = 0; i < table.count; i++)
        assert_int_equal(option_equal(&rows[i], &values, &again), !rows[i].unrecorded);
    free(json);
    options_clear(&table, &values);
    options_clear(&table, &again);
}

static void test_nearest(void **state)
{
    (void)state;
    const char *const words[] = {"train", "sample", "eval", NULL};
    assert_string_equal(nearest_word("trian", words), "train");
    assert_string_equal(nearest_word("evla", words), "eval");
    assert_string_equal(nearest_word("", words), "eval");
    char long_word[300];
    memset(long_word, 'a', sizeof long_word - 1);
    long_word[sizeof long_word - 1] = 0;
    assert_non_null(nearest_word(long_word, words));
}

/* ---- The tables of the commands ---- */

static void check_table(const struct option_table *checked)
{
    for (int i = 0; i < checked->count; i++) {
        const struct option_row *row = &checked->rows[i];
        assert_true(row->help && row->help[0]);
        assert_true(row->type != OPTION_BOOL || row->fallback);
        assert_true(row->type == OPTION_BOOL || row->values);
        assert_true(strspn(row->key, "abcdefghijklmnopqrstuvwxyz_0123456789") == strlen(row->key));
        assert_true(strncmp(row->key, "no_", 3) != 0);
        for (int j = 0; j < i; j++) assert_string_not_equal(checked->rows[j].key, row->key);
    }
}

static void test_command_tables(void **state)
{
    (void)state;
    const struct command *const commands[] = {&command_train, &command_sample,
                                              &command_eval,  &command_bench_step,
                                              &command_info,  &command_parity};
    for (int i = 0; i < COUNT_OF(commands); i++) check_table(commands[i]->table());
}

/* What a checkpoint records of a run is read back to the same options, left-open reals included. */
static void test_train_record(void **state)
{
    (void)state;
    const struct option_table *train = train_option_table();
    struct train_options options = {0}, again = {0};
    struct error err = {0};
    assert_int_equal(options_set_defaults(train, &options, &err), PLX_OK);
    options.min_lr = 0.1;
    options.seed = 1234567890123456789;
    char *json;
    assert_int_equal(options_format(train, &options, &json, &err), PLX_OK);
    assert_int_equal(options_set_defaults(train, &again, &err), PLX_OK);
    assert_int_equal(options_set_json(train, "{\"lr\": 1}", 9, "x", &again, &err), PLX_OK);
    if (options_set_json(train, json, strlen(json), "record", &again, &err) != PLX_OK)
        fail_msg("%s", err.text);
    assert_true(isnan(again.lr));
    for (int i = 0; i < train->count; i++)
        assert_true(option_equal(&train->rows[i], &options, &again));
    free(json);
    options_clear(train, &options);
    options_clear(train, &again);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),     cmocka_unit_test(test_order),
        cmocka_unit_test(test_words),        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_bad_json),     cmocka_unit_test(test_record),
        cmocka_unit_test(test_nearest),      cmocka_unit_test(test_command_tables),
        cmocka_unit_test(test_train_record),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
