/* test_tokenizer_split.c: what happens before the merges: the scanner against the expressions that
 * it stands for, both on random Unicode; what becomes of expressions written for Oniguruma; normal
 * form C against utf8proc's own. */
#include "io_files.h"

#include <utf8proc.h>

#include "core/random.h"
#include "data/utf8.h"
#include "tokenizer/alphabet.h"
#include "tokenizer/normalize.h"
#include "tokenizer/pattern.h"

static struct error err;

/* ---- Random text ---- */

static uint32_t random_code(struct rng *rng)
{
    static const uint32_t special[] = {'\'', 's',    'S',    0x17f,  't',    'l',    ' ',
                                       ' ',  '\n',   '\r',   '\t',   '1',    '.',    0x85,
                                       0xa0, 0x180e, 0x2003, 0x2028, 0x3000, 0x200b, 0xfeff};
    static const uint32_t blocks[][2] = {{0x20, 0x7f},      {0x20, 0x7f},       {0x80, 0x250},
                                         {0x300, 0x370},    {0x370, 0x3000},    {0x3000, 0xd800},
                                         {0xe000, 0x10000}, {0x10000, 0x20000}, {0x1100, 0x1200},
                                         {0xac00, 0xd7a4},  {0x900, 0xe00},     {0x1d100, 0x1d200},
                                         {0x2f800, 0x2fa20}};
    if (rng_below(rng, 3) == 0) return special[rng_below(rng, sizeof special / sizeof *special)];
    const uint32_t *block = blocks[rng_below(rng, sizeof blocks / sizeof *blocks)];
    uint32_t code = block[0] + (uint32_t)rng_below(rng, block[1] - block[0]);
    /* utf8proc 2.8 loses this character behind a Hangul syllable; in pieces it is kept. */
    return code == 0x11a7 ? 0x11a8 : code;
}

/* Characters that PCRE2's Unicode does not know yet may be known to utf8proc's, and then the two
 * differ rightly. */
static bool is_known_to_both(uint32_t code)
{
    static struct matcher *unassigned;
    static struct pattern *pattern;
    if (unassigned == NULL) {
        assert_ok(pattern_create("\\p{Cn}", 6, "test", &pattern, &err), &err);
        assert_ok(matcher_create(pattern, &unassigned, &err), &err);
    }
    char text[4];
    size_t start, end,
        size = (size_t)utf8proc_encode_char((utf8proc_int32_t)code, (utf8proc_uint8_t *)text);
    assert_ok(matcher_next(unassigned, text, size, 0, &start, &end, &err), &err);
    return start == size;
}

/* Up to 40 characters; text has room. */
static size_t random_text(struct rng *rng, char *text)
{
    size_t size = 0, count = 1 + rng_below(rng, 40);
    while (count > 0) {
        uint32_t code = random_code(rng);
        if (!is_known_to_both(code)) continue;
        size +=
            (size_t)utf8proc_encode_char((utf8proc_int32_t)code, (utf8proc_uint8_t *)text + size);
        count--;
    }
    return size;
}

/* ---- The scanner ---- */

static void compare_on(struct matcher *scanner, struct matcher *expression, const char *text,
                       size_t size)
{
    size_t start[2], end[2];
    for (size_t at = 0; at < size; at = end[0]) {
        assert_ok(matcher_next(scanner, text, size, at, &start[0], &end[0], &err), &err);
        assert_ok(matcher_next(expression, text, size, at, &start[1], &end[1], &err), &err);
        if (start[0] != start[1] || end[0] != end[1])
            print_error("at %zu of '%.*s'\n", at, (int)size, text);
        assert_int_equal(start[0], start[1]);
        assert_int_equal(end[0], end[1]);
        assert_true(end[0] > at);
    }
}

static void scanners_equal_their_expressions(void **state)
{
    const char *expression = *state;
    struct pattern *pattern;
    struct matcher *scanner, *engine;
    assert_ok(pattern_create(expression, strlen(expression), "test", &pattern, &err), &err);
    assert_ok(matcher_create(pattern, &scanner, &err), &err);
    assert_ok(matcher_create(pattern, &engine, &err), &err);
    matcher_use_expression(engine);
    struct rng rng = rng_make(1, 0);
    char text[256];
    for (int i = 0; i < 60000; i++) {
        size_t size = random_text(&rng, text);
        compare_on(scanner, engine, text, size);
    }
    /* Every character there is, alone, behind a letter and before one. */
    for (uint32_t code = 0; code < 0x110000; code++) {
        if ((code >= 0xd800 && code < 0xe000) || !is_known_to_both(code)) continue;
        text[0] = 'x';
        size_t size =
            1 + (size_t)utf8proc_encode_char((utf8proc_int32_t)code, (utf8proc_uint8_t *)text + 1);
        text[size++] = 'y';
        compare_on(scanner, engine, text, size);
    }
    matcher_destroy(engine);
    matcher_destroy(scanner);
    pattern_destroy(pattern);
}

/* ---- Expressions ---- */

/* All matches of an expression, joined by '|'. */
static const char *matches(const char *expression, const char *text)
{
    static char joined[512];
    struct pattern *pattern;
    struct matcher *matcher;
    size_t start, end, size = strlen(text), used = 0;
    assert_ok(pattern_create(expression, strlen(expression), "test", &pattern, &err), &err);
    assert_ok(matcher_create(pattern, &matcher, &err), &err);
    joined[0] = '\0';
    for (size_t at = 0; at < size; at = end) {
        assert_ok(matcher_next(matcher, text, size, at, &start, &end, &err), &err);
        if (end > start)
            used += (size_t)sprintf(joined + used, "%s%.*s", used > 0 ? "|" : "",
                                    (int)(end - start), text + start);
    }
    matcher_destroy(matcher);
    pattern_destroy(pattern);
    return joined;
}

static void expressions_match_as_oniguruma_does(void **state)
{
    (void)state;
    assert_string_equal(matches("\\s+", "a \u180e\u3000b"), " |\u3000"); /* U+180E is none */
    assert_string_equal(matches("[^\\s]+", "a\u180eb c"), "a\u180eb|c");
    assert_string_equal(matches("\\S", "a \u2028b"), "a|b");
    assert_string_equal(matches("\\p{N}{1,3}", "12345\u0661"), "123|45\u0661");
    assert_string_equal(matches("(?i:'s)", "'S's'\u017f"), "'S|'s|'\u017f");
    assert_string_equal(matches("x*", "axxb"), "xx"); /* empty matches are no pieces */
    assert_string_equal(matches("[\u4e00-\u9fa5]+", "a\u4e00\u4e8cb"), "\u4e00\u4e8c");
    assert_string_equal(matches("[\\[\\]]+", "a[]b"), "[]");
    assert_string_equal(matches(pattern_qwen, "I'm 1234"), "I|'m| |1|2|3|4");
    assert_string_equal(matches(pattern_qwen, "a\n\n  b"), "a|\n\n| | b");
    assert_string_equal(matches(pattern_llama3, "I'M 12345"), "I|'M| |123|45");
    assert_string_equal(matches(pattern_gpt2, "I'm  12 ok."), "I|'m| | 12| ok|.");
}

static void foreign_expressions_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *expression, *says;
    } rows[] = {
        {"\\w+", "has \\w"},
        {"\\bx", "has \\b"},
        {"\\h", "has \\h"},
        {"\\R", "has \\R"},
        {"(a)\\1", "has \\1"},
        {"[a[b]]", "a set inside a set"},
        {"[a&&b]", "an intersection"},
        {"[\\S]", "has \\S"},
        {"^a", "^ or $"},
        {"a$", "^ or $"},
        {"a{,3}", "braces"},
        {"a{1,3}+", "braces"},
        {"a{", "braces"},
        {"(?<n>a)", "a group of a special kind"},
        {"(?x) a", "a group of a special kind"},
        {"(*VERB)", "a verb"},
        {"(a", "the expression is wrong: missing closing parenthesis"},
        {"[]a]", "an empty set"},
        {"[a", "the expression is wrong"},
        {"a\\", "a backslash at its end"},
        {"\\p{Nonsense}", "the expression is wrong"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct pattern *pattern = (struct pattern *)&rows;
        plx_status status =
            pattern_create(rows[i].expression, strlen(rows[i].expression), "FILE", &pattern, &err);
        assert_null(pattern);
        assert_refused(status, PLX_BAD_DATA, rows[i].says, &err);
    }
    char *large = malloc(9001);
    memset(large, 'a', 9000);
    struct pattern *pattern;
    assert_refused(pattern_create(large, 9000, "FILE", &pattern, &err), PLX_BAD_DATA,
                   "has 9000 bytes but may have 8192", &err);
    free(large);
}

/* An expression that tries every division of its text must end with a sentence, not run on. */
static void an_endless_expression_is_stopped(void **state)
{
    (void)state;
    const char *expression = "(?:a+)+b";
    char text[4096];
    memset(text, 'a', sizeof text);
    struct pattern *pattern;
    struct matcher *matcher;
    size_t start, end;
    assert_ok(pattern_create(expression, strlen(expression), "test", &pattern, &err), &err);
    assert_ok(matcher_create(pattern, &matcher, &err), &err);
    text[sizeof text - 1] = 'c';
    plx_status status = matcher_next(matcher, text, sizeof text, 0, &start, &end, &err);
    /* Matchers may also prove at once that no b follows. */
    if (status != PLX_OK) assert_refused(status, PLX_BAD_DATA, "cannot be matched at byte 0", &err);
    matcher_destroy(matcher);
    pattern_destroy(pattern);
}

/* ---- The alphabet ---- */

static void the_alphabet_goes_both_ways(void **state)
{
    (void)state;
    for (int byte = 0; byte < 256; byte++) {
        char single = (char)byte, text[3], back[2];
        size_t count, size = alphabet_encode(&single, 1, text);
        assert_true(alphabet_decode(text, size, back, &count));
        assert_int_equal(count, 1);
        assert_int_equal(back[0], single);
    }
    static const char *const foreign[] = {" ", "\n", "\u0144", "\u4e00", "\u00ad", "\x7f", "\xc4"};
    for (size_t i = 0; i < sizeof foreign / sizeof *foreign; i++) {
        char back[8];
        size_t count;
        assert_false(alphabet_decode(foreign[i], strlen(foreign[i]), back, &count));
    }
}

/* ---- Normalising ---- */

static void assert_normalized(const char *text, size_t size)
{
    struct text_buffer buffer = {0};
    const char *found;
    size_t found_size;
    utf8proc_uint8_t *expected;
    utf8proc_ssize_t length = utf8proc_map((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)size,
                                           &expected, UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    assert_true(length >= 0);
    assert_ok(normalize_nfc(text, size, &buffer, &found, &found_size, &err), &err);
    if (found_size != (size_t)length) print_error("in '%.*s'\n", (int)size, text);
    assert_int_equal(found_size, length);
    assert_memory_equal(found, expected, found_size);
    free(expected);
    text_clear(&buffer);
}

static void pieces_normalise_like_the_whole(void **state)
{
    (void)state;
    struct rng rng = rng_make(2, 0);
    char text[512];
    for (int i = 0; i < 60000; i++) assert_normalized(text, random_text(&rng, text));
    for (uint32_t code = 1; code < 0x110000; code++) { /* alone, and between what may combine */
        if (code >= 0xd800 && code < 0xe000) continue;
        size_t size = 0;
        const uint32_t around[] = {'a', code, 0x323, code, 0x301, code, 0x1175, 0x11a8};
        for (int i = 0; i < 8; i++)
            size += (size_t)utf8proc_encode_char((utf8proc_int32_t)around[i],
                                                 (utf8proc_uint8_t *)text + size);
        assert_normalized(text, size);
        size = (size_t)utf8proc_encode_char((utf8proc_int32_t)code, (utf8proc_uint8_t *)text);
        assert_normalized(text, size);
    }
}

static void normal_text_is_not_copied(void **state)
{
    (void)state;
    const char *text = "plain, caf\u00e9, \u201cquoted\u201d \u2014 \u4e00\u4e8c \U0001f999";
    struct text_buffer buffer = {0};
    const char *found;
    size_t size;
    assert_ok(normalize_nfc(text, strlen(text), &buffer, &found, &size, &err), &err);
    assert_ptr_equal(found, text);
    assert_null(buffer.data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        {"gpt-2's expression", scanners_equal_their_expressions, NULL, NULL, (void *)pattern_gpt2},
        {"llama-3's expression", scanners_equal_their_expressions, NULL, NULL,
         (void *)pattern_llama3},
        {"qwen's expression", scanners_equal_their_expressions, NULL, NULL, (void *)pattern_qwen},
        cmocka_unit_test(expressions_match_as_oniguruma_does),
        cmocka_unit_test(foreign_expressions_are_refused),
        cmocka_unit_test(an_endless_expression_is_stopped),
        cmocka_unit_test(the_alphabet_goes_both_ways),
        cmocka_unit_test(pieces_normalise_like_the_whole),
        cmocka_unit_test(normal_text_is_not_copied),
    };
    return cmocka_run_group_tests_name("before the merges", tests, NULL, NULL);
}
