/* options.c: reading flags and configuration files into a command's values, by its table. Writing
 * (help text, recorded JSON, comparison) is in options_write.c. A parser of our own is shorter to
 * read than getopt_long fed from a generated table, and lists and --no- flags come with it. */
#include "options.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "io/file.h"
#include "train.h"

/* A configuration file is small; more than this is some other file. */
#define CONFIG_LIMIT ((size_t)1 << 20)

/* ---- Names ---- */

static int edit_distance(const char *a, const char *b)
{
    int row[128];
    int width = (int)strlen(b);
    if (width > 127) return 1000;
    for (int j = 0; j <= width; j++) row[j] = j;
    for (int i = 0; a[i]; i++) {
        int diagonal = row[0];
        row[0] = i + 1;
        for (int j = 1; j <= width; j++) {
            int replaced = diagonal + (a[i] != b[j - 1]);
            int shorter = (row[j] < row[j - 1] ? row[j] : row[j - 1]) + 1;
            diagonal = row[j];
            row[j] = replaced < shorter ? replaced : shorter;
        }
    }
    return row[width];
}

const char *nearest_word(const char *typed, const char *const *words)
{
    const char *best = "";
    int best_distance = 1000000;
    for (; *words; words++) {
        int distance = edit_distance(typed, *words);
        if (distance < best_distance) {
            best_distance = distance;
            best = *words;
        }
    }
    return best;
}

/* A flag without its dashes as a key: hidden-size -> hidden_size. */
static void flag_to_key(const char *flag, size_t length, char *key, size_t size)
{
    if (length >= size) length = size - 1;
    for (size_t i = 0; i < length; i++) key[i] = flag[i] == '-' ? '_' : flag[i];
    key[length] = 0;
}

const char *option_flag(const char *key, char *flag, size_t size)
{
    snprintf(flag, size, "--%s", key);
    for (char *c = flag; *c; c++)
        if (*c == '_') *c = '-';
    return flag;
}

static const struct option_row *find_row(const struct option_table *table, const char *key)
{
    for (int i = 0; i < table->count; i++)
        if (strcmp(table->rows[i].key, key) == 0) return &table->rows[i];
    return NULL;
}

static const char *nearest_key(const struct option_table *table, const char *typed)
{
    const char *words[256];
    int count = 0;
    for (int i = 0; i < table->count && count < 255; i++) words[count++] = table->rows[i].key;
    words[count] = NULL;
    return nearest_word(typed, words);
}

bool option_has_choices(const struct option_row *row)
{
    if (row->type != OPTION_STRING || !row->values || !strchr(row->values, '|')) return false;
    return strcspn(row->values, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") == strlen(row->values);
}

/* ---- One value from text ---- */

static void *field(const struct option_row *row, void *values)
{
    return (char *)values + row->offset;
}

static bool is_choice(const char *choices, const char *text)
{
    size_t length = strlen(text);
    for (const char *choice = choices; choice; choice = strchr(choice, '|')) {
        choice += *choice == '|';
        if (strcspn(choice, "|") == length && strncmp(choice, text, length) == 0) return true;
    }
    return false;
}

static plx_status set_string(const struct option_row *row, const char *where, const char *text,
                             void *values, struct error *err)
{
    /* What the default leaves open is recorded as an empty text. */
    const bool open = row->fallback == NULL && text[0] == '\0';
    REQUIRE(err, open || !option_has_choices(row) || is_choice(row->values, text),
            PLX_INVALID_ARGUMENT, "%s: \"%s\" is not one of %s", where, text, row->values);
    char *copy = strdup(text);
    REQUIRE(err, copy, PLX_OUT_OF_MEMORY, "%s: no memory", where);
    char **string = field(row, values);
    free(*string);
    *string = copy;
    return PLX_OK;
}

static plx_status check_range(const struct option_row *row, const char *where, double value,
                              struct error *err)
{
    if (row->min == 0 && row->max == 0) return PLX_OK;
    REQUIRE(err, value >= row->min, PLX_INVALID_ARGUMENT,
            "%s: %.10g is less than the smallest allowed, %.10g", where, value, row->min);
    REQUIRE(err, value <= row->max, PLX_INVALID_ARGUMENT,
            "%s: %.10g is more than the largest allowed, %.10g", where, value, row->max);
    return PLX_OK;
}

static plx_status set_int(const struct option_row *row, const char *where, int64_t value,
                          void *values, struct error *err)
{
    TRY(check_range(row, where, (double)value, err));
    *(int64_t *)field(row, values) = value;
    return PLX_OK;
}

static plx_status set_real(const struct option_row *row, const char *where, double value,
                           void *values, struct error *err)
{
    REQUIRE(err, isfinite(value), PLX_INVALID_ARGUMENT, "%s: the value must be finite", where);
    TRY(check_range(row, where, value, err));
    *(double *)field(row, values) = value;
    return PLX_OK;
}

static plx_status add_item(const struct option_row *row, const char *where, const char *text,
                           void *values, struct error *err)
{
    struct text_list *list = field(row, values);
    char **items = realloc(list->items, ((size_t)list->count + 1) * sizeof *items);
    REQUIRE(err, items, PLX_OUT_OF_MEMORY, "%s: no memory", where);
    list->items = items;
    list->items[list->count] = strdup(text);
    REQUIRE(err, list->items[list->count], PLX_OUT_OF_MEMORY, "%s: no memory", where);
    list->count++;
    return PLX_OK;
}

static void clear_list(const struct option_row *row, void *values)
{
    struct text_list *list = field(row, values);
    for (int i = 0; i < list->count; i++) free(list->items[i]);
    free(list->items);
    *list = (struct text_list){0};
}

/* Sets a row's field from what was typed; where is the flag or the row's default. */
static plx_status set_text(const struct option_row *row, const char *where, const char *text,
                           void *values, struct error *err)
{
    char *end;
    errno = 0;
    switch (row->type) {
    case OPTION_STRING:
        return set_string(row, where, text, values, err);
    case OPTION_LIST:
        return add_item(row, where, text, values, err);
    case OPTION_BOOL: {
        bool yes = strcmp(text, "true") == 0;
        REQUIRE(err, yes || strcmp(text, "false") == 0, PLX_INVALID_ARGUMENT,
                "%s: \"%s\" is neither true nor false", where, text);
        *(bool *)field(row, values) = yes;
        return PLX_OK;
    }
    case OPTION_INT: {
        long long value = strtoll(text, &end, 10);
        REQUIRE(err, end != text && *end == 0 && errno == 0, PLX_INVALID_ARGUMENT,
                "%s: \"%s\" is not a whole number", where, text);
        return set_int(row, where, value, values, err);
    }
    case OPTION_REAL: {
        double value = strtod(text, &end);
        REQUIRE(err, end != text && *end == 0, PLX_INVALID_ARGUMENT, "%s: \"%s\" is not a number",
                where, text);
        return set_real(row, where, value, values, err);
    }
    }
    return error_set(err, PLX_INTERNAL, "%s: has a type that no code reads", where);
}

plx_status options_set_defaults(const struct option_table *table, void *values, struct error *err)
{
    for (int i = 0; i < table->count; i++) {
        const struct option_row *row = &table->rows[i];
        if (row->fallback)
            TRY(set_text(row, row->key, row->fallback, values, err));
        else if (row->type == OPTION_STRING)
            TRY(set_string(&(struct option_row){.offset = row->offset}, row->key, "", values, err));
        else if (row->type == OPTION_REAL)
            *(double *)field(row, values) = NAN;
    }
    return PLX_OK;
}

void options_clear(const struct option_table *table, void *values)
{
    for (int i = 0; i < table->count; i++) {
        const struct option_row *row = &table->rows[i];
        if (row->type == OPTION_LIST) clear_list(row, values);
        if (row->type != OPTION_STRING) continue;
        char **string = field(row, values);
        free(*string);
        *string = NULL;
    }
}

/* ---- The command line ---- */

static void add_setting(struct option_settings *settings, const struct option_row *row,
                        const char *text, bool first)
{
    settings->items[settings->count++] =
        (struct option_setting){.row = row, .text = text, .first = first};
}

/* Finds the row of the flag argv[*index] and notes its value; moves *index to the last word used.
 */
static plx_status scan_flag(const struct option_table *table, int argc, char **argv, int *index,
                            struct option_settings *settings, struct error *err)
{
    const char *word = argv[*index] + 2;
    size_t length = strcspn(word, "=");
    const char *text = word[length] == '=' ? word + length + 1 : NULL;
    char key[64];
    flag_to_key(word, length, key, sizeof key);
    const struct option_row *row = find_row(table, key);
    if (row && row->type == OPTION_BOOL) {
        add_setting(settings, row, text ? text : "true", true);
        return PLX_OK;
    }
    if (!row && strncmp(key, "no_", 3) == 0 && !text) {
        const struct option_row *negated = find_row(table, key + 3);
        if (negated && negated->type == OPTION_BOOL) {
            add_setting(settings, negated, "false", true);
            return PLX_OK;
        }
    }
    bool config = strcmp(key, "config") == 0;
    if (!row && !config) {
        char near[80];
        option_flag(nearest_key(table, key), near, sizeof near);
        return error_set(err, PLX_INVALID_ARGUMENT,
                         "--%.*s: there is no such option; the nearest is %s", (int)length, word,
                         near);
    }
    if (!text) {
        REQUIRE(err, *index + 1 < argc, PLX_INVALID_ARGUMENT, "--%s: needs a value", word);
        text = argv[++*index];
    }
    if (config)
        settings->config = text;
    else
        add_setting(settings, row, text, true);
    if (row && row->type == OPTION_LIST)
        while (*index + 1 < argc && argv[*index + 1][0] != '-')
            add_setting(settings, row, argv[++*index], false);
    return PLX_OK;
}

plx_status options_scan(const struct option_table *table, int argc, char **argv,
                        struct option_settings *settings, struct error *err)
{
    *settings = (struct option_settings){.argc = argc, .argv = argv};
    settings->items = calloc((size_t)argc + 1, sizeof *settings->items);
    settings->positionals = calloc((size_t)argc + 1, sizeof *settings->positionals);
    REQUIRE(err, settings->items && settings->positionals, PLX_OUT_OF_MEMORY,
            "no memory for options");
    bool flags = true;
    for (int i = 1; i < argc; i++) {
        const char *word = argv[i];
        if (flags && strcmp(word, "--") == 0)
            flags = false;
        else if (flags && (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0))
            settings->help = true;
        else if (flags && strncmp(word, "--", 2) == 0)
            TRY(scan_flag(table, argc, argv, &i, settings, err));
        else if (flags && word[0] == '-' && word[1])
            return error_set(err, PLX_INVALID_ARGUMENT,
                             "%s: there is no such option; options start with two dashes", word);
        else
            settings->positionals[settings->positional_count++] = word;
    }
    return PLX_OK;
}

void option_settings_clear(struct option_settings *settings)
{
    free(settings->items);
    free(settings->positionals);
    *settings = (struct option_settings){0};
}

bool option_is_set(const struct option_settings *settings, const char *key)
{
    for (int i = 0; i < settings->count; i++)
        if (strcmp(settings->items[i].row->key, key) == 0) return true;
    return false;
}

plx_status options_set_flags(const struct option_table *table,
                             const struct option_settings *settings, void *values,
                             struct error *err)
{
    bool replaced[256] = {
        false}; /* the first use of a list flag replaces what a file said, later ones add */
    for (int i = 0; i < settings->count; i++) {
        const struct option_setting *setting = &settings->items[i];
        const struct option_row *row = setting->row;
        char flag[80];
        option_flag(row->key, flag, sizeof flag);
        if (row->type == OPTION_LIST && !replaced[row - table->rows]) {
            clear_list(row, values);
            replaced[row - table->rows] = true;
        }
        TRY(set_text(row, flag, setting->text, values, err));
    }
    return PLX_OK;
}

/* ---- Configuration files ---- */

static const char *json_kind(const json_t *value)
{
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        return "a list";
    case JSON_STRING:
        return "a string";
    case JSON_INTEGER:
        return "a whole number";
    case JSON_REAL:
        return "a number";
    case JSON_NULL:
        return "null";
    default:
        return "a truth value";
    }
}

static const char *option_kind(enum option_type type)
{
    static const char *const kinds[] = {"a string", "true or false", "a whole number", "a number",
                                        "a string or a list of strings"};
    return kinds[type];
}

static plx_status set_json_list(const struct option_row *row, const char *where,
                                const json_t *value, void *values, struct error *err)
{
    clear_list(row, values);
    size_t index;
    json_t *item;
    json_array_foreach(value, index, item)
    {
        REQUIRE(err, json_is_string(item), PLX_INVALID_ARGUMENT,
                "%s[%zu]: is %s but must be a string", where, index, json_kind(item));
        TRY(add_item(row, where, json_string_value(item), values, err));
    }
    return PLX_OK;
}

static plx_status set_json_value(const struct option_row *row, const char *where,
                                 const json_t *value, void *values, struct error *err)
{
    if (row->type == OPTION_STRING && json_is_string(value))
        return set_string(row, where, json_string_value(value), values, err);
    if (row->type == OPTION_LIST && json_is_array(value))
        return set_json_list(row, where, value, values, err);
    if (row->type == OPTION_LIST && json_is_string(value)) {
        clear_list(row, values);
        return add_item(row, where, json_string_value(value), values, err);
    }
    if (row->type == OPTION_BOOL && json_is_boolean(value)) {
        *(bool *)field(row, values) = json_is_true(value);
        return PLX_OK;
    }
    if (row->type == OPTION_INT && json_is_integer(value))
        return set_int(row, where, json_integer_value(value), values, err);
    if (row->type == OPTION_REAL && json_is_number(value))
        return set_real(row, where, json_number_value(value), values, err);
    if (row->type == OPTION_REAL && json_is_null(value) && !row->fallback) {
        *(double *)field(row, values) = NAN;
        return PLX_OK;
    }
    return error_set(err, PLX_INVALID_ARGUMENT, "%s: is %s but must be %s", where, json_kind(value),
                     option_kind(row->type));
}

static plx_status set_json_object(const struct option_table *table, json_t *object,
                                  const char *name, void *values, struct error *err)
{
    const char *key;
    json_t *value;
    REQUIRE(err, json_is_object(object), PLX_INVALID_ARGUMENT,
            "%s: is %s but must be an object of options", name, json_kind(object));
    json_object_foreach(object, key, value)
    {
        const struct option_row *row = find_row(table, key);
        REQUIRE(err, row, PLX_INVALID_ARGUMENT,
                "%s: there is no option \"%s\"; the nearest is \"%s\"", name, key,
                nearest_key(table, key));
        char where[512];
        snprintf(where, sizeof where, "%s: %s", name, key);
        TRY(set_json_value(row, where, value, values, err));
    }
    return PLX_OK;
}

plx_status options_set_json(const struct option_table *table, const char *json, size_t size,
                            const char *name, void *values, struct error *err)
{
    json_error_t problem;
    json_t *object = json_loadb(json, size, JSON_REJECT_DUPLICATES, &problem);
    REQUIRE(err, object || problem.text[0], PLX_OUT_OF_MEMORY, "%s: no memory", name);
    REQUIRE(err, object, PLX_INVALID_ARGUMENT, "%s: line %d: %s", name, problem.line, problem.text);
    plx_status status = set_json_object(table, object, name, values, err);
    json_decref(object);
    return status;
}

plx_status options_set_file(const struct option_table *table, const char *path, void *values,
                            struct error *err)
{
    char *text;
    size_t size;
    TRY(file_read_all(path, CONFIG_LIMIT, &text, &size, err));
    plx_status status = options_set_json(table, text, size, path, values, err);
    free(text);
    return status;
}

plx_status options_read(const struct option_table *table, const struct option_settings *settings,
                        void *values, struct error *err)
{
    TRY(options_set_defaults(table, values, err));
    if (settings->config) TRY(options_set_file(table, settings->config, values, err));
    return options_set_flags(table, settings, values, err);
}
