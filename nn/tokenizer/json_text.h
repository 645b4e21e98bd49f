/* json_text.h: the large parts of a tokenizer.json, found and read in its text.
 *
 * Vocabulary and merges make up nearly all of the file, and as trees of JSON values most of the
 * time that reading it takes. So they are read from the text row by row, and cut out of it before
 * the rest becomes a tree. What a row may look like is as strict as JSON. */
#ifndef NN_TOKENIZER_JSON_TEXT_H
#define NN_TOKENIZER_JSON_TEXT_H

#include <stdbool.h>

#include "core/error.h"

/* Most bytes of a token as it is written in the file. */
enum { JSON_MAX_KEY = 4096 };

/* What is left of the inside of an object or array. */
struct json_text {
    const char *at, *end; /* at NULL: the file has no such part */
};

/* The inside of the value of model.KEY where it begins with bracket; at NULL otherwise. */
struct json_text json_text_find(const char *json, size_t size, const char *key, char bracket);
/* The text (malloc'd, with a NUL behind it) without the inside of parts, any of which may be
 * absent, but with every line where it was; NULL when out of memory. */
char *json_text_without(const char *json, size_t size, struct json_text a, struct json_text b,
                        size_t *rest_size);

/* Readers of what comes next, which take the white space behind it too; false where it is something
 * else or no JSON. */
void json_text_space(struct json_text *text);
bool json_text_mark(struct json_text *text, char mark);
bool json_text_string(struct json_text *text, char *bytes, size_t room, size_t *size);
/* Of more than 18 digits the first 18, so that what comes next is no mark. */
bool json_text_integer(struct json_text *text, int64_t *value);

#endif
