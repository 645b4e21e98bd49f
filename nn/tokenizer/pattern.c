/* pattern.c: from Oniguruma's language to PCRE2's, and matching; see pattern.h. */
#include "tokenizer/pattern.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "data/utf8.h"
#include "tokenizer/scan.h"

const char pattern_gpt2[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
const char pattern_llama3[] =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| "
    "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
const char pattern_qwen[] = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| "
                            "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

/* Unicode's White_Space, which is what Oniguruma's \s means. */
#define SPACE_SET "\\t-\\r\\x{85}\\p{Z}"

/* Bounds on what a hostile expression may cost: its length, the steps of one match, and the memory
 * of one match. */
enum { MAX_EXPRESSION = 8192, MATCH_LIMIT = 10000000, STACK_BYTES = 1 << 20 };

struct pattern {
    pcre2_code *code;
    char *literal; /* instead of code */
    size_t literal_size;
    scan_function *scan; /* tried before code; NULL where the expression is not known */
};

/* ---- Translating ---- */

struct translation {
    const char *next, *end;
    const char *where;
    char *out; /* has room: no part grows by more than sizeof SPACE_SET + 4 for two characters */
    size_t used;
    bool in_set;
    struct error *err;
};

static void put(struct translation *t, const char *text)
{
    size_t size = strlen(text);
    memcpy(t->out + t->used, text, size);
    t->used += size;
}

static void put_character(struct translation *t)
{
    t->out[t->used++] = *t->next++;
}

static plx_status refuse(const struct translation *t, const char *what)
{
    return error_set(t->err, PLX_BAD_DATA,
                     "%s: the expression has %s, which this version does not follow", t->where,
                     what);
}

/* Behind a backslash. \p{...}, \x.., \r and the like mean the same to both; letters that do not,
 * or that name things no tokenizer needs, are refused. */
static plx_status put_escape(struct translation *t)
{
    if (t->next + 1 >= t->end) return refuse(t, "a backslash at its end");
    char letter = t->next[1];
    bool letter_or_digit = (letter >= 'a' && letter <= 'z') || (letter >= 'A' && letter <= 'Z') ||
                           (letter >= '0' && letter <= '9');
    if (letter == 's' || (letter == 'S' && !t->in_set)) {
        put(t, t->in_set ? SPACE_SET : letter == 's' ? "[" SPACE_SET "]" : "[^" SPACE_SET "]");
        t->next += 2;
        return PLX_OK;
    }
    if (letter_or_digit && strchr("pPrntfdDx", letter) == NULL) {
        char what[] = "\\?";
        what[1] = letter;
        return refuse(t, what);
    }
    put_character(t);
    put_character(t);
    const char *brace = t->next < t->end && *t->next == '{' && strchr("pPx", letter) != NULL
                            ? memchr(t->next, '}', (size_t)(t->end - t->next))
                            : NULL;
    while (brace != NULL && t->next <= brace) put_character(t);
    return PLX_OK;
}

static plx_status put_set_part(struct translation *t)
{
    if (t->next[0] == '[') return refuse(t, "a set inside a set");
    if (t->next[0] == '&' && t->next + 1 < t->end && t->next[1] == '&')
        return refuse(t, "an intersection of sets");
    t->in_set = *t->next != ']';
    put_character(t);
    return PLX_OK;
}

/* {n}, {n,} and {n,m}. {,m} and a + behind the braces mean different things to the two. */
static plx_status put_counts(struct translation *t)
{
    const char *brace = memchr(t->next, '}', (size_t)(t->end - t->next));
    if (brace == NULL || t->next[1] < '0' || t->next[1] > '9' ||
        (brace + 1 < t->end && brace[1] == '+'))
        return refuse(t, "braces of a special kind");
    while (t->next <= brace) put_character(t);
    return PLX_OK;
}

/* Of groups only (?:, (?i: and the look-arounds; ^ and $ mean lines to Oniguruma. */
static plx_status put_part(struct translation *t)
{
    static const char *const groups[] = {"(?:", "(?i:", "(?=", "(?!", "(?<=", "(?<!"};
    if (*t->next == '{') return put_counts(t);
    if (*t->next == '^' || *t->next == '$') return refuse(t, "^ or $");
    if (t->next[0] == '(' && t->next + 1 < t->end && t->next[1] == '?') {
        size_t left = (size_t)(t->end - t->next);
        bool known = false;
        for (size_t i = 0; i < sizeof groups / sizeof *groups; i++)
            known = known || (strlen(groups[i]) <= left &&
                              memcmp(t->next, groups[i], strlen(groups[i])) == 0);
        if (!known) return refuse(t, "a group of a special kind");
    }
    if (t->next[0] == '(' && t->next + 1 < t->end && t->next[1] == '*')
        return refuse(t, "a verb in parentheses");
    t->in_set = *t->next == '[';
    put_character(t);
    /* A set may begin with ^, and a ] there would be a member to PCRE2. */
    if (t->in_set && t->next < t->end && *t->next == '^') put_character(t);
    if (t->in_set && t->next < t->end && *t->next == ']') return refuse(t, "an empty set");
    return PLX_OK;
}

static plx_status translate(struct translation *t)
{
    while (t->next < t->end) {
        if (*t->next == '\\')
            TRY(put_escape(t));
        else if (t->in_set)
            TRY(put_set_part(t));
        else
            TRY(put_part(t));
    }
    return PLX_OK;
}

/* ---- Compiling ---- */

static plx_status compile(struct pattern *pattern, const char *expression, size_t size,
                          const char *where, struct error *err)
{
    int code;
    PCRE2_SIZE offset;
    pcre2_compile_context *context = pcre2_compile_context_create(NULL);
    REQUIRE(err, context != NULL, PLX_OUT_OF_MEMORY, "%s: out of memory", where);
    pcre2_set_newline(context, PCRE2_NEWLINE_LF);
    pattern->code =
        pcre2_compile((PCRE2_SPTR)expression, size, PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C,
                      &code, &offset, context);
    pcre2_compile_context_free(context);
    if (pattern->code == NULL) {
        char reason[160] = "";
        pcre2_get_error_message(code, (PCRE2_UCHAR *)reason, sizeof reason);
        return error_set(err, PLX_BAD_DATA, "%s: the expression is wrong: %s", where, reason);
    }
    /* Without the just-in-time compiler matching is slower, and otherwise the same. */
    pcre2_jit_compile(pattern->code, PCRE2_JIT_COMPLETE);
    return PLX_OK;
}

static plx_status translate_and_compile(struct pattern *pattern, const char *expression,
                                        size_t size, const char *where, struct error *err)
{
    REQUIRE(err, size <= MAX_EXPRESSION, PLX_BAD_DATA,
            "%s: the expression has %zu bytes but may have %d", where, size, MAX_EXPRESSION);
    struct translation t = {
        .next = expression, .end = expression + size, .where = where, .err = err};
    t.out = malloc((size + 1) * (sizeof SPACE_SET + 4));
    REQUIRE(err, t.out != NULL, PLX_OUT_OF_MEMORY, "%s: out of memory", where);
    plx_status status = translate(&t);
    if (status == PLX_OK) status = compile(pattern, t.out, t.used, where, err);
    free(t.out);
    return status;
}

plx_status pattern_create(const char *expression, size_t size, const char *where,
                          struct pattern **pattern, struct error *err)
{
    *pattern = calloc(1, sizeof **pattern);
    REQUIRE(err, *pattern != NULL, PLX_OUT_OF_MEMORY, "%s: out of memory", where);
    (*pattern)->scan = scan_find(expression, size);
    plx_status status = translate_and_compile(*pattern, expression, size, where, err);
    if (status != PLX_OK) {
        pattern_destroy(*pattern);
        *pattern = NULL;
    }
    return status;
}

plx_status pattern_create_literal(const char *text, size_t size, struct pattern **pattern,
                                  struct error *err)
{
    *pattern = calloc(1, sizeof **pattern);
    char *literal = malloc(size + 1);
    if (*pattern == NULL || literal == NULL) {
        free(*pattern);
        free(literal);
        *pattern = NULL;
        return error_set(err, PLX_OUT_OF_MEMORY, "cannot allocate a pattern");
    }
    memcpy(literal, text, size);
    (*pattern)->literal = literal;
    (*pattern)->literal_size = size;
    return PLX_OK;
}

void pattern_destroy(struct pattern *pattern)
{
    if (pattern == NULL) return;
    pcre2_code_free(pattern->code);
    free(pattern->literal);
    free(pattern);
}

/* ---- Matching ---- */

struct matcher {
    const struct pattern *pattern;
    scan_function *scan;
    pcre2_match_data *data;
    pcre2_match_context *context;
    pcre2_jit_stack *stack;
};

plx_status matcher_create(const struct pattern *pattern, struct matcher **matcher,
                          struct error *err)
{
    struct matcher *made = calloc(1, sizeof *made);
    *matcher = made;
    REQUIRE(err, made != NULL, PLX_OUT_OF_MEMORY, "cannot allocate a matcher");
    made->pattern = pattern;
    made->scan = pattern->scan;
    if (pattern->code == NULL) return PLX_OK;
    made->data = pcre2_match_data_create(1, NULL);
    made->context = pcre2_match_context_create(NULL);
    made->stack = pcre2_jit_stack_create(32 << 10, STACK_BYTES, NULL);
    if (made->data == NULL || made->context == NULL || made->stack == NULL) {
        matcher_destroy(made);
        *matcher = NULL;
        return error_set(err, PLX_OUT_OF_MEMORY, "cannot allocate a matcher");
    }
    pcre2_set_match_limit(made->context, MATCH_LIMIT);
    pcre2_jit_stack_assign(made->context, NULL, made->stack);
    return PLX_OK;
}

void matcher_destroy(struct matcher *matcher)
{
    if (matcher == NULL) return;
    pcre2_match_data_free(matcher->data);
    pcre2_match_context_free(matcher->context);
    pcre2_jit_stack_free(matcher->stack);
    free(matcher);
}

void matcher_use_expression(struct matcher *matcher)
{
    matcher->scan = NULL;
}

static plx_status match_expression(struct matcher *matcher, const char *text, size_t size,
                                   size_t from, size_t *start, size_t *end, struct error *err)
{
    *start = *end = size;
    while (from < size) {
        int count = pcre2_match(matcher->pattern->code, (PCRE2_SPTR)text, size, from,
                                PCRE2_NO_UTF_CHECK, matcher->data, matcher->context);
        if (count == PCRE2_ERROR_NOMATCH) return PLX_OK;
        if (count < 0) {
            char reason[160] = "";
            pcre2_get_error_message(count, (PCRE2_UCHAR *)reason, sizeof reason);
            return error_set(err, PLX_BAD_DATA,
                             "the tokenizer's expression cannot be matched at byte %zu of %zu: %s",
                             from, size, reason);
        }
        const PCRE2_SIZE *found = pcre2_get_ovector_pointer(matcher->data);
        if (found[1] > found[0]) {
            *start = found[0];
            *end = found[1];
            return PLX_OK;
        }
        from = found[1] + utf8_character_size(text + found[1], size - found[1]);
    }
    return PLX_OK;
}

plx_status matcher_next(struct matcher *matcher, const char *text, size_t size, size_t from,
                        size_t *start, size_t *end, struct error *err)
{
    if (matcher->scan != NULL) {
        *start = from;
        *end = matcher->scan(text, size, from);
        if (*end > from) return PLX_OK;
    }
    const struct pattern *pattern = matcher->pattern;
    if (pattern->literal == NULL)
        return match_expression(matcher, text, size, from, start, end, err);
    const char *found = pattern->literal_size > 0 ? memmem(text + from, size - from,
                                                           pattern->literal, pattern->literal_size)
                                                  : NULL;
    *start = found != NULL ? (size_t)(found - text) : size;
    *end = found != NULL ? *start + pattern->literal_size : size;
    return PLX_OK;
}
