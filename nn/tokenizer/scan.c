/* scan.c: the alternatives of the known expressions, tried in their order; see scan.h.
 *
 * All of them divide characters into letters (\p{L}), numbers (\p{N}), white space (\s) and the
 * rest, so a scanner looks at one character's kind, and then at how far a run goes. A character
 * that utf8proc's Unicode does not know yet, where PCRE2's may, ends every run, and is then left to
 * the expression. */
#include "tokenizer/scan.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include <utf8proc.h>

#include "data/utf8.h"
#include "tokenizer/pattern.h"

enum kind { OTHER, LETTER, NUMBER, SPACE, NEWLINE, UNKNOWN };

static const uint8_t ascii_kind[128] = {
    ['\t'] = SPACE,         ['\n'] = NEWLINE,       ['\v'] = SPACE,
    ['\f'] = SPACE,         ['\r'] = NEWLINE,       [' '] = SPACE,
    ['0' ... '9'] = NUMBER, ['A' ... 'Z'] = LETTER, ['a' ... 'z'] = LETTER};

static const uint8_t category_kind[] = {
    [UTF8PROC_CATEGORY_LU] = LETTER, [UTF8PROC_CATEGORY_LL] = LETTER,
    [UTF8PROC_CATEGORY_LT] = LETTER, [UTF8PROC_CATEGORY_LM] = LETTER,
    [UTF8PROC_CATEGORY_LO] = LETTER, [UTF8PROC_CATEGORY_ND] = NUMBER,
    [UTF8PROC_CATEGORY_NL] = NUMBER, [UTF8PROC_CATEGORY_NO] = NUMBER,
    [UTF8PROC_CATEGORY_ZS] = SPACE,  [UTF8PROC_CATEGORY_ZL] = SPACE,
    [UTF8PROC_CATEGORY_ZP] = SPACE,  [UTF8PROC_CATEGORY_CO] = OTHER,
    [UTF8PROC_CATEGORY_CN] = UNKNOWN};

/* Kind of the character at text[at]; *next is where it ends. */
static inline enum kind kind_at(const char *text, size_t at, size_t *next)
{
    unsigned char lead = (unsigned char)text[at];
    if (lead < 0x80) {
        *next = at + 1;
        return ascii_kind[lead];
    }
    size_t size;
    uint32_t code = utf8_decode(text + at, &size);
    *next = at + size;
    return code == 0x85 ? SPACE : category_kind[utf8proc_category((utf8proc_int32_t)code)];
}

static inline bool is_white(enum kind kind)
{
    return kind == SPACE || kind == NEWLINE;
}

/* How far characters of one kind go from at on. */
static inline size_t run_end(const char *text, size_t size, size_t at, enum kind kind)
{
    size_t next;
    while (at < size && kind_at(text, at, &next) == kind) at = next;
    return at;
}

/* Bytes of the contraction behind an apostrophe at text[at], the apostrophe included; 0: none. In
 * any case, and then U+017F, the long s, is an s too. */
static size_t contraction(const char *text, size_t size, size_t at, bool fold)
{
    static const char *const endings[] = {"s", "t", "re", "ve", "m", "ll", "d"};
    char low[2] = {0};
    size_t left = size - at - 1;
    for (size_t i = 0; i < 2 && i < left; i++) {
        low[i] = text[at + 1 + i];
        if (fold && low[i] >= 'A' && low[i] <= 'Z') low[i] += 'a' - 'A';
    }
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
        size_t length = strlen(endings[i]);
        if (length <= left && memcmp(low, endings[i], length) == 0) return 1 + length;
    }
    return fold && left >= 2 && memcmp(text + at + 1, "\xc5\xbf", 2) == 0 ? 3 : 0;
}

/* \s+(?!\S)|\s+ : all white space from on, less its last character where text follows and that is
 * not the only one. */
static size_t space_end(const char *text, size_t size, size_t from)
{
    size_t at = from, last = from, next;
    while (at < size && is_white(kind_at(text, at, &next))) {
        last = at;
        at = next;
    }
    return at < size && last > from ? last : at;
}

static size_t find_gpt2(const char *text, size_t size, size_t from)
{
    size_t length, next;
    if (text[from] == '\'' && (length = contraction(text, size, from, false)) > 0)
        return from + length;
    size_t at = text[from] == ' ' && from + 1 < size ? from + 1 : from;
    enum kind kind = kind_at(text, at, &next);
    if (kind < SPACE) return run_end(text, size, next, kind);
    return space_end(text, size, from);
}

/* [^\s\p{L}\p{N}]+[\r\n]* from on. */
static size_t other_end(const char *text, size_t size, size_t from)
{
    return run_end(text, size, run_end(text, size, from, OTHER), NEWLINE);
}

/* \s*[\r\n]+|\s+(?!\S)|\s+ : up to the last newline of the white space, if it has one. */
static size_t newline_or_space_end(const char *text, size_t size, size_t from)
{
    size_t at = from, end = from, next;
    enum kind kind;
    while (at < size && is_white(kind = kind_at(text, at, &next))) {
        at = next;
        if (kind == NEWLINE) end = at;
    }
    return end > from ? end : space_end(text, size, from);
}

/* What Llama-3 and Qwen share; they differ in how many digits make a word. */
static inline size_t find_gpt4(const char *text, size_t size, size_t from, int digits)
{
    size_t length, next, after;
    if (text[from] == '\'' && (length = contraction(text, size, from, true)) > 0)
        return from + length;
    enum kind kind = kind_at(text, from, &next);
    if (kind == LETTER) return run_end(text, size, next, LETTER);
    if (kind == NUMBER) {
        for (int i = 1; i < digits && next < size && kind_at(text, next, &after) == NUMBER; i++)
            next = after;
        return next;
    }
    enum kind second = next < size ? kind_at(text, next, &after) : NUMBER;
    if (second == LETTER && kind != NEWLINE) return run_end(text, size, after, LETTER);
    if (kind == OTHER || (text[from] == ' ' && second == OTHER))
        return other_end(text, size, kind == OTHER ? from : next);
    return newline_or_space_end(text, size, from);
}

/* A match is certain unless it begins with, or ends at, an unknown character. */
static inline size_t certain(const char *text, size_t size, size_t from, size_t end)
{
    size_t next;
    bool unknown = kind_at(text, from, &next) == UNKNOWN ||
                   (end < size && kind_at(text, end, &next) == UNKNOWN);
    return unknown ? from : end;
}

static size_t scan_gpt2(const char *text, size_t size, size_t from)
{
    return certain(text, size, from, find_gpt2(text, size, from));
}

static size_t scan_llama3(const char *text, size_t size, size_t from)
{
    return certain(text, size, from, find_gpt4(text, size, from, 3));
}

static size_t scan_qwen(const char *text, size_t size, size_t from)
{
    return certain(text, size, from, find_gpt4(text, size, from, 1));
}

scan_function *scan_find(const char *expression, size_t size)
{
    static const struct {
        const char *expression;
        scan_function *scan;
    } rows[] = {
        {pattern_gpt2, scan_gpt2}, {pattern_llama3, scan_llama3}, {pattern_qwen, scan_qwen}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (strlen(rows[i].expression) == size && memcmp(rows[i].expression, expression, size) == 0)
            return rows[i].scan;
    return NULL;
}
