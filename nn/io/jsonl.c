/* jsonl.c: see jsonl.h. */
#include "io/jsonl.h"

#include <string.h>

static bool is_blank(const char *line, size_t size)
{
    for (size_t i = 0; i < size; i++)
        if (line[i] != ' ' && line[i] != '\t' && line[i] != '\r') return false;
    return true;
}

static plx_status parse_line(const struct jsonl *lines, const char *line, size_t size,
                             json_t **object, struct error *err)
{
    json_error_t reason;
    const size_t flags = JSON_REJECT_DUPLICATES | (lines->may_hold_nul ? JSON_ALLOW_NUL : 0);
    *object = json_loadb(line, size, flags, &reason);
    REQUIRE(err, *object != NULL || reason.text[0] != '\0', PLX_OUT_OF_MEMORY,
            "%s:%lld: out of memory", lines->name, lines->line);
    REQUIRE(err, *object != NULL, PLX_BAD_DATA, "%s:%lld: not valid JSON at byte %d: %s",
            lines->name, lines->line, reason.position, reason.text);
    if (json_is_object(*object)) return PLX_OK;
    json_decref(*object);
    *object = NULL;
    return error_set(err, PLX_BAD_DATA, "%s:%lld: the line is not an object", lines->name,
                     lines->line);
}

plx_status jsonl_next(struct jsonl *lines, json_t **object, struct error *err)
{
    *object = NULL;
    while (lines->at < lines->size) {
        const char *line = lines->data + lines->at;
        const char *end = memchr(line, '\n', lines->size - lines->at);
        size_t length = end != NULL ? (size_t)(end - line) : lines->size - lines->at;
        lines->at += length + (end != NULL);
        lines->line++;
        if (!is_blank(line, length)) return parse_line(lines, line, length, object, err);
    }
    return PLX_OK;
}
