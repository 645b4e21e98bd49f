/* task_text.c: see task_text.h.
 *
 * The edits are those of lm-evaluation-harness's tasks, in its order, because scores are compared
 * with numbers that were made after them. */
#include "tasks/task_text.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "data/utf8.h"

char *text_format(const char *format, ...)
{
    char *text = NULL;
    va_list arguments;
    va_start(arguments, format);
    int length = vasprintf(&text, format, arguments);
    va_end(arguments);
    return length < 0 ? NULL : text;
}

size_t text_leading_white(const char *text)
{
    size_t at = 0, length;
    while (text[at] != '\0' && utf8_is_white(utf8_decode(text + at, &length))) at += length;
    return at;
}

size_t text_trimmed_size(const char *text)
{
    return utf8_trim_end(text, strlen(text));
}

size_t text_characters(const char *text)
{
    size_t count = 0;
    for (; *text != '\0'; text++) count += ((unsigned char)*text & 0xc0) != 0x80;
    return count;
}

size_t text_words(const char *text)
{
    size_t words = 1;
    bool inside = false;
    while (*text != '\0') {
        size_t length;
        bool white = utf8_is_white(utf8_decode(text, &length));
        words += white && !inside;
        inside = white;
        text += length;
    }
    return words;
}

/* The first character through one function and the others through another; NULL: as they are. */
static char *map_characters(const char *text, utf8proc_int32_t (*first)(utf8proc_int32_t),
                            utf8proc_int32_t (*others)(utf8proc_int32_t))
{
    char *out = malloc(4 * strlen(text) + 1);
    size_t size = 0, length;
    if (out == NULL) return NULL;
    for (const char *at = text; *at != '\0'; at += length) {
        utf8proc_int32_t code = (utf8proc_int32_t)utf8_decode(at, &length);
        utf8proc_int32_t (*map)(utf8proc_int32_t) = at == text ? first : others;
        if (map != NULL) code = map(code);
        size += (size_t)utf8proc_encode_char(code, (utf8proc_uint8_t *)out + size);
    }
    out[size] = '\0';
    return out;
}

char *text_capitalize(const char *text)
{
    return map_characters(text, utf8proc_totitle, utf8proc_tolower);
}

char *text_lower_first(const char *text)
{
    return map_characters(text, utf8proc_tolower, NULL);
}

/* ---- Edits in a chain: each takes the text over, and passes NULL on ---- */

static char *replace(char *text, const char *from, const char *to)
{
    if (text == NULL) return NULL;
    size_t from_size = strlen(from), to_size = strlen(to), count = 0;
    for (const char *at = text; (at = strstr(at, from)) != NULL; at += from_size) count++;
    char *out = malloc(strlen(text) + count * to_size + 1), *end = out;
    const char *at = text;
    for (const char *found; out != NULL && (found = strstr(at, from)) != NULL;) {
        end = mempcpy(mempcpy(end, at, (size_t)(found - at)), to, to_size);
        at = found + from_size;
    }
    if (out != NULL) strcpy(end, at);
    free(text);
    return out;
}

static char *strip(const char *text)
{
    size_t start = text_leading_white(text);
    return strndup(text + start, text_trimmed_size(text + start));
}

/* Deletes every [..] that lies within a line, from each bracket to the nearest that closes. */
static char *delete_brackets(char *text)
{
    if (text == NULL) return NULL;
    char *out = text;
    const char *at = text;
    while (*at != '\0') {
        const char *close = *at == '[' ? at + strcspn(at, "]\n") : at;
        if (*at == '[' && *close == ']')
            at = close + 1;
        else
            *out++ = *at++;
    }
    *out = '\0';
    return text;
}

/* Takes the white space away that stands inside a pair of marks, which may be the same mark twice.
 */
static char *tighten(char *text, char open, char close)
{
    if (text == NULL) return NULL;
    char *out = text;
    const char *at = text, *end;
    while (*at != '\0') {
        if (*at != open || (end = strchr(at + 1, close)) == NULL) {
            *out++ = *at++;
            continue;
        }
        const char *inner = at + 1 + text_leading_white(at + 1);
        size_t size = utf8_trim_end(inner, (size_t)(end - inner));
        *out++ = open;
        memmove(out, inner, size);
        out += size;
        *out++ = close;
        at = end + 1;
    }
    *out = '\0';
    return text;
}

char *text_clean_hellaswag(const char *text)
{
    return replace(delete_brackets(replace(strip(text), " [title]", ". ")), "  ", " ");
}

char *text_detokenize_wikitext(const char *text)
{
    static const char *const before[][2] = {
        {"s '", "s'"}, {" @-@ ", "-"}, {" @,@ ", ","}, {" @.@ ", "."}, {" : ", ": "},
        {" ; ", "; "}, {" . ", ". "},  {" ! ", "! "},  {" ? ", "? "},  {" , ", ", "},
    };
    static const char pairs[][2] = {{'(', ')'}, {'[', ']'}, {'{', '}'}, {'"', '"'}, {'\'', '\''}};
    static const char *const after[][2] = {
        {"= = = =", "===="}, {"= = =", "==="}, {"= =", "=="},  {" \u00b0 ", "\u00b0"},
        {" \n", "\n"},       {"\n ", "\n"},    {" N ", " 1 "}, {" 's", "'s"},
    };
    char *out = strdup(text);
    for (size_t i = 0; i < sizeof before / sizeof *before; i++)
        out = replace(out, before[i][0], before[i][1]);
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++)
        out = tighten(out, pairs[i][0], pairs[i][1]);
    for (size_t i = 0; i < sizeof after / sizeof *after; i++)
        out = replace(out, after[i][0], after[i][1]);
    return out;
}
