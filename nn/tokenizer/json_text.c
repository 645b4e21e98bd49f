/* json_text.c: see json_text.h. */
#include "tokenizer/json_text.h"

#include <stdlib.h>
#include <string.h>

#include <utf8proc.h>

#include "data/utf8.h"

/* ---- Where parts are: a walk over the text that checks no more than it needs ----------------- */

static const char *skip_space(const char *at, const char *end)
{
    while (at < end && (*at == ' ' || *at == '\n' || *at == '\r' || *at == '\t')) at++;
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

struct json_text json_text_find(const char *json, size_t size, const char *key, char bracket)
{
    const char *end = json + size;
    const char *model = find_member(skip_space(json, end), end, "model");
    const char *value = find_member(model, end, key);
    const char *behind = value != NULL && *value == bracket ? skip_value(value, end) : NULL;
    if (behind == NULL) return (struct json_text){0};
    return (struct json_text){value + 1, behind - 1};
}

char *json_text_without(const char *json, size_t size, struct json_text a, struct json_text b,
                        size_t *rest_size)
{
    const bool in_order = a.at == NULL || (b.at != NULL && a.at < b.at);
    const struct json_text parts[] = {in_order ? a : b, in_order ? b : a};
    char *rest = malloc(size + 1), *to = rest;
    if (rest == NULL) return NULL;
    const char *from = json;
    for (int p = 0; p < 2; p++) {
        if (parts[p].at == NULL) continue;
        memcpy(to, from, (size_t)(parts[p].at - from));
        to += parts[p].at - from;
        for (const char *at = parts[p].at; at < parts[p].end; at++)
            if (*at == '\n') *to++ = '\n';
        from = parts[p].end;
    }
    memcpy(to, from, (size_t)(json + size - from));
    to += json + size - from;
    *to = '\0';
    *rest_size = (size_t)(to - rest);
    return rest;
}

/* ---- What is in them ------------------------------------------------------------------------- */

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

bool json_text_string(struct json_text *text, char *bytes, size_t room, size_t *size)
{
    struct reading reading = {text->at, text->end, bytes, 0, room};
    if (reading.at == reading.end || *reading.at++ != '"') return false;
    while (reading.at < reading.end && *reading.at != '"') {
        const unsigned char byte = (unsigned char)*reading.at++;
        if (byte == '\\') {
            if (!read_escape(&reading)) return false;
            continue;
        }
        if (byte < 0x20 || reading.size == room) return false;
        bytes[reading.size++] = (char)byte;
    }
    if (reading.at == reading.end || utf8_first_bad(bytes, reading.size) < reading.size)
        return false;
    text->at = skip_space(reading.at + 1, text->end);
    *size = reading.size;
    return true;
}

void json_text_space(struct json_text *text)
{
    text->at = skip_space(text->at, text->end);
}

bool json_text_mark(struct json_text *text, char mark)
{
    if (text->at == text->end || *text->at != mark) return false;
    text->at = skip_space(text->at + 1, text->end);
    return true;
}

bool json_text_integer(struct json_text *text, int64_t *value)
{
    const char *at = text->at;
    const bool negative = at < text->end && *at == '-';
    const char *digits = at += negative;
    int64_t magnitude = 0;
    for (; at < text->end && *at >= '0' && *at <= '9' && at - digits < 18; at++)
        magnitude = 10 * magnitude + (*at - '0');
    const int64_t count = at - digits;
    if (count == 0 || (count > 1 && *digits == '0')) return false;
    *value = negative ? -magnitude : magnitude;
    text->at = skip_space(at, text->end);
    return true;
}
