/* fields.c: typed access to JSON objects; see fields.h. */
#include "io/fields.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DOCUMENT_LIMIT ((size_t)64 << 20)
enum { VALUE_TEXT = 64 };

/* jansson has no reason to give where memory runs out, except inside a token, which it takes for a
 * bad one. */
static plx_status parse_once(const char *json, size_t size, const char *where, json_t **root,
                             struct error *err)
{
    json_error_t problem;
    *root = json_loadb(json, size, JSON_REJECT_DUPLICATES, &problem);
    REQUIRE(err, *root != NULL || problem.text[0] != '\0', PLX_OUT_OF_MEMORY, "%s: out of memory",
            where);
    REQUIRE(err, *root != NULL, PLX_BAD_DATA, "%s: line %d, column %d: %s", where, problem.line,
            problem.column, problem.text);
    return PLX_OK;
}

/* Parsed twice: where jansson's buffer for a token cannot grow, it drops a character and goes on.
 */
plx_status fields_parse_value(const char *json, size_t size, const char *where, json_t **root,
                              struct error *err)
{
    json_t *parsed, *again;
    *root = NULL;
    REQUIRE(err, size <= DOCUMENT_LIMIT, PLX_BAD_DATA,
            "%s: has %zu bytes, more than the %zu allowed", where, size, DOCUMENT_LIMIT);
    TRY(parse_once(json, size, where, &parsed, err));
    plx_status status = parse_once(json, size, where, &again, err);
    if (status == PLX_OK && !json_equal(parsed, again))
        status = error_set(err, PLX_OUT_OF_MEMORY, "%s: out of memory", where);
    json_decref(again);
    if (status == PLX_OK)
        *root = parsed;
    else
        json_decref(parsed);
    return status;
}

plx_status fields_parse(const char *json, size_t size, const char *where, json_t **root,
                        struct error *err)
{
    TRY(fields_parse_value(json, size, where, root, err));
    if (json_is_object(*root)) return PLX_OK;
    json_decref(*root);
    *root = NULL;
    return error_set(err, PLX_BAD_DATA, "%s: is not a JSON object", where);
}

/* json_dumps would drop a member's name where its buffer cannot grow, and report success; so the
 * text is measured first and then printed into memory of that size. */
char *fields_print(const json_t *value, size_t flags)
{
    size_t size = json_dumpb(value, NULL, 0, flags);
    char *text = size > 0 ? malloc(size + 1) : NULL;
    if (text == NULL) return NULL;
    bool whole = json_dumpb(value, text, size, flags) == size;
    text[size] = '\0';
    if (whole) return text;
    free(text);
    return NULL;
}

/* jansson prints all numbers with the same count of digits; 17 are enough for any. */
char *fields_format(const json_t *root, int indent)
{
    size_t layout = indent > 0 ? JSON_INDENT(indent) : JSON_COMPACT;
    for (int digits = 1; digits <= 17; digits++) {
        char *text = fields_print(root, layout | JSON_REAL_PRECISION(digits));
        json_t *back = text != NULL ? json_loads(text, 0, NULL) : NULL;
        bool same = back != NULL && json_equal(root, back), failed = back == NULL;
        json_decref(back);
        if (same) return text;
        free(text);
        if (failed) return NULL;
    }
    return NULL;
}

json_t *fields_get(const struct fields *fields, const char *key)
{
    json_t *value = json_object_get(fields->object, key);
    return json_is_null(value) ? NULL : value;
}

plx_status fields_require(const struct fields *fields, const char *key)
{
    REQUIRE(fields->err, fields_get(fields, key) != NULL, PLX_BAD_DATA, "%s: %s is missing",
            fields->where, key);
    return PLX_OK;
}

plx_status fields_refuse(const struct fields *fields, const char *key, const json_t *value,
                         const char *wanted)
{
    char text[VALUE_TEXT];
    char *dump = fields_print(value, JSON_ENCODE_ANY | JSON_COMPACT | JSON_REAL_PRECISION(10));
    int length = snprintf(text, sizeof text, "%s", dump != NULL ? dump : "something");
    if (length >= (int)sizeof text) memcpy(text + sizeof text - 4, "...", 4);
    free(dump);
    return error_set(fields->err, PLX_BAD_DATA, "%s: %s is %s but must be %s", fields->where, key,
                     text, wanted);
}

plx_status fields_integer(const struct fields *fields, const char *key, int64_t min, int64_t max,
                          int64_t *value)
{
    const json_t *found = fields_get(fields, key);
    if (found == NULL) return PLX_OK;
    int64_t number = json_integer_value(found);
    if (!json_is_integer(found) || number < min || number > max) {
        char wanted[80];
        snprintf(wanted, sizeof wanted, "a whole number from %" PRId64 " to %" PRId64, min, max);
        return fields_refuse(fields, key, found, wanted);
    }
    *value = number;
    return PLX_OK;
}

plx_status fields_real(const struct fields *fields, const char *key, double *value)
{
    const json_t *found = fields_get(fields, key);
    if (found == NULL) return PLX_OK;
    if (!json_is_number(found)) return fields_refuse(fields, key, found, "a number");
    *value = json_number_value(found);
    return PLX_OK;
}

plx_status fields_bool(const struct fields *fields, const char *key, bool *value)
{
    const json_t *found = fields_get(fields, key);
    if (found == NULL) return PLX_OK;
    if (!json_is_boolean(found)) return fields_refuse(fields, key, found, "true or false");
    *value = json_is_true(found);
    return PLX_OK;
}

plx_status fields_text(const struct fields *fields, const char *key, const char **value)
{
    const json_t *found = fields_get(fields, key);
    if (found == NULL) return PLX_OK;
    if (!json_is_string(found)) return fields_refuse(fields, key, found, "a text");
    *value = json_string_value(found);
    return PLX_OK;
}

plx_status fields_word(const struct fields *fields, const char *key, uint64_t *value)
{
    const json_t *found = fields_get(fields, key);
    if (found == NULL) return PLX_OK;
    const char *text = json_string_value(found);
    uint64_t word = 0;
    bool good = text != NULL && *text != '\0';
    for (; good && *text != '\0'; text++)
        good = *text >= '0' && *text <= '9' && !__builtin_mul_overflow(word, 10, &word) &&
               !__builtin_add_overflow(word, (uint64_t)(*text - '0'), &word);
    if (!good) return fields_refuse(fields, key, found, "a text of digits below 2^64");
    *value = word;
    return PLX_OK;
}
