/* json_merges.c: see json_merges.h. */
#include "tokenizer/json_merges.h"

#include <stdlib.h>
#include <string.h>

#include <utf8proc.h>

#include "data/utf8.h"

/* ---- Where they are: a walk over the text that checks no more than it needs -------------------
 */

static const char *skip_space(const char *at, const char *end)
{
    while (at < end && memchr(" \t\r\n", *at, 4) != NULL) at++;
    return at;
}

/* Behind the string that begins at its quote; NULL where it does not end. */
static const char *skip_string(const char *at, const char *end)
{
    for (at++; at < end && *at != '"'; at++)
        if (*at == '\\') at++;
    return at < end ? at + 1 : NULL;
}

/* Behind a value: a string, a number or word, or all up to the bracket that closes the first. */
static const char *skip_value(const char *at, const char *end)
{
    int64_t depth = 0;
    do {
        if (at >= end) return NULL;
        if (*at == '"') {
            at = skip_string(at, end);
            if (at == NULL) return NULL;
            continue;
        }
        depth += (*at == '{' || *at == '[') - (*at == '}' || *at == ']');
        at++;
    } while (depth > 0 || (at < end && memchr(",]} \t\r\n", *at, 7) == NULL));
    return depth == 0 ? at : NULL;
}

/* The value of a member of the object that begins at its bracket; NULL where there is none. */
static const char *find_member(const char *object, const char *end, const char *key)
{
    const size_t length = strlen(key);
    if (object == NULL || object >= end || *object != '{') return NULL;
    const char *at = skip_space(object + 1, end);
    while (at < end && *at == '"') {
        const char *name = at + 1;
        at = skip_string(at, end);
        if (at == NULL) return NULL;
        const bool found = (size_t)(at - 1 - name) == length && memcmp(name, key, length) == 0;
        at = skip_space(at, end);
        if (at == end || *at != ':') return NULL;
        at = skip_space(at + 1, end);
        if (found) return at < end ? at : NULL;
        at = skip_value(at, end);
        if (at == NULL) return NULL;
        at = skip_space(at, end);
        if (at == end || *at != ',') return NULL;
        at = skip_space(at + 1, end);
    }
    return NULL;
}

/* The text with first .. end - 1 reduced to its line breaks. */
static char *without(const char *json, size_t size, const char *first, const char *end,
                     size_t *rest_size)
{
    char *rest = malloc(size + 1), *to = rest;
    if (rest == NULL) return NULL;
    memcpy(to, json, (size_t)(first - json));
    to += first - json;
    for (const char *at = first; at < end; at++)
        if (*at == '\n') *to++ = '\n';
    memcpy(to, end, size - (size_t)(end - json));
    to += size - (size_t)(end - json);
    *to = '\0';
    *rest_size = (size_t)(to - rest);
    return rest;
}

plx_status merges_cut(const char *json, size_t size, struct merges_text *merges, char **rest,
                      size_t *rest_size, struct error *err)
{
    const char *end = json + size;
    const char *model = find_member(skip_space(json, end), end, "model");
    const char *rows = find_member(model, end, "merges");
    const char *behind = rows != NULL && *rows == '[' ? skip_value(rows, end) : NULL;
    *merges = (struct merges_text){0};
    if (behind != NULL) *merges = (struct merges_text){rows + 1, behind - 1};
    *rest = behind != NULL ? without(json, size, rows + 1, behind - 1, rest_size)
                           : without(json, size, end, end, rest_size);
    REQUIRE(err, *rest != NULL, PLX_OUT_OF_MEMORY, "no memory for %zu bytes of JSON", size);
    return PLX_OK;
}

/* ---- What they are -----------------------------------------------------------------------------
 */

/* A string being read: where its bytes go, and how many there is room for. */
struct reading {
    const char *at, *end;
    char *text;
    size_t size, room;
};

static bool read_hex(struct reading *reading, uint32_t *code)
{
    *code = 0;
    if (reading->end - reading->at < 4) return false;
    for (int i = 0; i < 4; i++) {
        static const char digits[] = "0123456789abcdef";
        const char *digit = memchr(digits, *reading->at++ | 0x20, 16);
        if (digit == NULL) return false;
        *code = *code << 4 | (uint32_t)(digit - digits);
    }
    return true;
}

/* Behind "\u"; two halves of a surrogate pair make one character. */
static bool read_unicode(struct reading *reading)
{
    uint32_t code, low;
    if (!read_hex(reading, &code) || code == 0 || reading->room - reading->size < 4) return false;
    if (code >= 0xdc00 && code < 0xe000) return false;
    if (code >= 0xd800 && code < 0xdc00) {
        if (reading->end - reading->at < 2 || memcmp(reading->at, "\\u", 2) != 0) return false;
        reading->at += 2;
        if (!read_hex(reading, &low) || low < 0xdc00 || low >= 0xe000) return false;
        code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
    }
    reading->size += (size_t)utf8proc_encode_char((utf8proc_int32_t)code,
                                                  (unsigned char *)reading->text + reading->size);
    return true;
}

static bool read_escape(struct reading *reading)
{
    static const char names[] = "\"\\/bfnrt", bytes[] = "\"\\/\b\f\n\r\t";
    if (reading->at == reading->end) return false;
    const char name = *reading->at++;
    if (name == 'u') return read_unicode(reading);
    const char *found = memchr(names, name, sizeof names - 1);
    if (found == NULL || reading->size == reading->room) return false;
    reading->text[reading->size++] = bytes[found - names];
    return true;
}

/* The string at its quote into text. */
static bool read_string(struct merges_text *merges, char *text, size_t room, size_t *size)
{
    struct reading reading = {merges->at, merges->end, text, 0, room};
    if (reading.at == reading.end || *reading.at++ != '"') return false;
    while (reading.at < reading.end && *reading.at != '"') {
        const unsigned char byte = (unsigned char)*reading.at++;
        if (byte == '\\') {
            if (!read_escape(&reading)) return false;
            continue;
        }
        if (byte < 0x20 || reading.size == room) return false;
        text[reading.size++] = (char)byte;
    }
    if (reading.at == reading.end || utf8_first_bad(text, reading.size) < reading.size)
        return false;
    merges->at = skip_space(reading.at + 1, merges->end);
    *size = reading.size;
    return true;
}

static bool read_mark(struct merges_text *merges, char mark)
{
    if (merges->at == merges->end || *merges->at != mark) return false;
    merges->at = skip_space(merges->at + 1, merges->end);
    return true;
}

static bool read_pair(struct merges_text *merges, struct merge_halves *halves)
{
    char *right = halves->text + JSON_MAX_KEY + 1;
    halves->left = halves->text;
    halves->right = right;
    return read_mark(merges, '[') &&
           read_string(merges, halves->text, JSON_MAX_KEY, &halves->left_size) &&
           read_mark(merges, ',') &&
           read_string(merges, right, JSON_MAX_KEY, &halves->right_size) && read_mark(merges, ']');
}

static bool read_line(struct merges_text *merges, struct merge_halves *halves)
{
    size_t size;
    if (!read_string(merges, halves->text, sizeof halves->text, &size)) return false;
    const char *space = memchr(halves->text, ' ', size);
    if (space == NULL) return false;
    halves->left = halves->text;
    halves->left_size = (size_t)(space - halves->text);
    halves->right = space + 1;
    halves->right_size = size - halves->left_size - 1;
    return memchr(halves->right, ' ', halves->right_size) == NULL;
}

enum merges_state merges_next(struct merges_text *merges, struct merge_halves *halves)
{
    merges->at = skip_space(merges->at, merges->end);
    if (merges->at == merges->end) return MERGES_END;
    const bool sound = *merges->at == '[' ? read_pair(merges, halves) : read_line(merges, halves);
    if (!sound) return MERGES_WRONG;
    if (merges->at == merges->end) return MERGES_ROW;
    /* A comma must have a row behind it. */
    return read_mark(merges, ',') && merges->at < merges->end ? MERGES_ROW : MERGES_WRONG;
}
