/* options_write.c: the other direction of options.c: help text, the JSON object that checkpoints
 * record, and comparing two sets of values. */
#include "options.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "data/utf8.h"
#include "io/fields.h"
#include "train.h"

static const void *field(const struct option_row *row, const void *values)
{
    return (const char *)values + row->offset;
}

static json_t *format_value(const struct option_row *row, const void *values)
{
    switch (row->type) {
    case OPTION_STRING:
        return json_string(*(char *const *)field(row, values));
    case OPTION_BOOL:
        return json_boolean(*(const bool *)field(row, values));
    case OPTION_INT:
        return json_integer(*(const int64_t *)field(row, values));
    case OPTION_REAL: {
        double value = *(const double *)field(row, values);
        return isnan(value) ? json_null() : json_real(value);
    }
    case OPTION_LIST: {
        const struct text_list *list = field(row, values);
        json_t *array = json_array();
        for (int i = 0; i < list->count; i++) {
            if (json_array_append_new(array, json_string(list->items[i])) == 0) continue;
            json_decref(array);
            return NULL;
        }
        return array;
    }
    }
    return NULL;
}

static plx_status check_text(const struct option_row *row, const void *values, struct error *err)
{
    const struct text_list one = {(char **)(uintptr_t)field(row, values), 1};
    const struct text_list *list = row->type == OPTION_LIST ? field(row, values) : &one;
    bool texts = row->type == OPTION_LIST || row->type == OPTION_STRING;
    char flag[80];
    for (int i = 0; texts && i < list->count; i++)
        REQUIRE(err, utf8_is_text(list->items[i]), PLX_INVALID_ARGUMENT,
                "%s: the value is not UTF-8 text", option_flag(row->key, flag, sizeof flag));
    return PLX_OK;
}

static plx_status add_row(json_t *object, const struct option_row *row, const void *values,
                          struct error *err)
{
    TRY(check_text(row, values, err));
    REQUIRE(err, json_object_set_new(object, row->key, format_value(row, values)) == 0,
            PLX_OUT_OF_MEMORY, "no memory for the options");
    return PLX_OK;
}

plx_status options_format(const struct option_table *table, const void *values, char **json,
                          struct error *err)
{
    json_t *object = json_object();
    plx_status status = PLX_OK;
    for (int i = 0; status == PLX_OK && i < table->count; i++)
        if (!table->rows[i].unrecorded) status = add_row(object, &table->rows[i], values, err);
    *json = NULL;
    if (status == PLX_OK)
        *json =
            fields_print(object, JSON_PRESERVE_ORDER | JSON_INDENT(2) | JSON_REAL_PRECISION(17));
    json_decref(object);
    TRY(status);
    REQUIRE(err, *json, PLX_OUT_OF_MEMORY, "no memory for the options");
    return PLX_OK;
}

static bool lists_equal(const struct text_list *a, const struct text_list *b)
{
    if (a->count != b->count) return false;
    for (int i = 0; i < a->count; i++)
        if (strcmp(a->items[i], b->items[i]) != 0) return false;
    return true;
}

bool option_equal(const struct option_row *row, const void *a, const void *b)
{
    switch (row->type) {
    case OPTION_STRING:
        return strcmp(*(char *const *)field(row, a), *(char *const *)field(row, b)) == 0;
    case OPTION_BOOL:
        return *(const bool *)field(row, a) == *(const bool *)field(row, b);
    case OPTION_INT:
        return *(const int64_t *)field(row, a) == *(const int64_t *)field(row, b);
    case OPTION_REAL: {
        double x = *(const double *)field(row, a), y = *(const double *)field(row, b);
        return x == y || (isnan(x) && isnan(y));
    }
    case OPTION_LIST:
        return lists_equal(field(row, a), field(row, b));
    }
    return false;
}

void option_print(const struct option_row *row, const void *values, char *text, size_t size)
{
    json_t *value = format_value(row, values);
    char *printed = value ? fields_print(value, JSON_ENCODE_ANY | JSON_REAL_PRECISION(9)) : NULL;
    snprintf(text, size, "%s", printed ? printed : "?");
    free(printed);
    json_decref(value);
}

/* Width of the first column of the help text, and of a line. */
enum { HELP_COLUMN = 34, HELP_WIDTH = 100 };

/* Prints words from column HELP_COLUMN on, wrapped. */
static void print_wrapped(FILE *file, const char *text)
{
    int column = HELP_COLUMN;
    for (;;) {
        int length = (int)strcspn(text, " ");
        bool first = column == HELP_COLUMN;
        if (!first && column + 1 + length > HELP_WIDTH) {
            fprintf(file, "\n%*s", HELP_COLUMN, "");
            column = HELP_COLUMN;
            first = true;
        }
        fprintf(file, "%s%.*s", first ? "" : " ", length, text);
        column += length + !first;
        text += length;
        if (!*text) break;
        text++;
    }
    fputc('\n', file);
}

static void print_row(const struct option_row *row, FILE *file)
{
    char flag[80], left[160], help[768];
    bool on = row->type == OPTION_BOOL && strcmp(row->fallback, "true") == 0;
    bool choices = option_has_choices(row);
    if (row->type == OPTION_BOOL)
        snprintf(left, sizeof left, "  --%s%s", on ? "[no-]" : "",
                 option_flag(row->key, flag, sizeof flag) + 2);
    else
        snprintf(left, sizeof left, "  %s %s", option_flag(row->key, flag, sizeof flag),
                 choices ? "NAME" : row->values);
    snprintf(help, sizeof help, "%s", row->help);
    size_t used = strlen(help);
    if (choices) used += (size_t)snprintf(help + used, sizeof help - used, ": %s", row->values);
    if (row->type == OPTION_BOOL)
        snprintf(help + used, sizeof help - used, on ? " [on]" : " [off]");
    else if (row->fallback && row->fallback[0])
        snprintf(help + used, sizeof help - used, " [%s]", row->fallback);
    int printed = fprintf(file, "%s", left);
    if (printed > HELP_COLUMN - 2)
        fprintf(file, "\n%*s", HELP_COLUMN, "");
    else
        fprintf(file, "%*s", HELP_COLUMN - printed, "");
    print_wrapped(file, help);
}

void options_print_help(const struct option_table *table, FILE *file)
{
    for (int i = 0; i < table->count; i++) {
        if (table->rows[i].group) fprintf(file, "\n%s\n", table->rows[i].group);
        print_row(&table->rows[i], file);
    }
    fprintf(file, "\nCommon\n");
    print_row(
        &(struct option_row){
            .key = "config",
            .values = "FILE",
            .help = "JSON object of options; a key is a flag's name with _ for -, and a flag "
                    "given as well wins"},
        file);
    print_row(&(struct option_row){.key = "help", .values = "", .help = "print this page"}, file);
}
