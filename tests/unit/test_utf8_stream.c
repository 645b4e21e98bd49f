/* The output stream of samples: whatever bytes come in whatever pieces, valid UTF-8 goes out. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/random.h"
#include "data/utf8.h"
#include "utf8_stream.h"

/* Streams the bytes in pieces of at most piece bytes and returns what came out (malloc'd). */
static char *stream(const char *bytes, size_t size, size_t piece, size_t *out_size)
{
    char *out = NULL;
    FILE *file = open_memstream(&out, out_size);
    assert_non_null(file);
    struct utf8_stream utf8 = {.file = file};
    for (size_t start = 0; start < size; start += piece)
        utf8_stream_write(&utf8, bytes + start, size - start < piece ? size - start : piece);
    utf8_stream_end(&utf8);
    fclose(file);
    return out;
}

static void check(const char *in, const char *expected)
{
    for (size_t piece = 1; piece <= 8; piece++) {
        size_t size;
        char *out = stream(in, strlen(in), piece, &size);
        assert_string_equal(out, expected);
        free(out);
    }
}

static void test_valid(void **state)
{
    (void)state;
    const char *texts[] = {"",
                           "plain",
                           "\xc3\xa9t\xc3\xa9",
                           "\xe2\x82\xac 5",
                           "\xf0\x9f\x99\x82!",
                           "\xf4\x8f\xbf\xbf"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) check(texts[i], texts[i]);
}

static void test_invalid(void **state)
{
    (void)state;
    check("\x80", "\xef\xbf\xbd");
    check("a\xffz", "a\xef\xbf\xbdz");
    check("\xe2\x82", "\xef\xbf\xbd");             /* cut short at the end */
    check("\xe2\x82z", "\xef\xbf\xbdz");           /* cut short by another character */
    check("\xc3\xc3\xa9", "\xef\xbf\xbd\xc3\xa9"); /* cut short by another sequence */
    check("\xc0\xaf", "\xef\xbf\xbd\xef\xbf\xbd"); /* overlong */
    check("\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"); /* a surrogate */
}

static void test_held_back(void **state)
{
    (void)state;
    char *out = NULL;
    size_t size;
    FILE *file = open_memstream(&out, &size);
    struct utf8_stream utf8 = {.file = file};
    utf8_stream_write(&utf8, "a\xe2\x82", 3);
    assert_string_equal(out, "a");
    utf8_stream_write(&utf8, "\xac", 1);
    assert_string_equal(out, "a\xe2\x82\xac");
    fclose(file);
    free(out);
}

static void test_random_bytes(void **state)
{
    (void)state;
    uint64_t seed = 20261122;
    printf("seed %llu\n", (unsigned long long)seed);
    struct rng rng = rng_make(seed, 0);
    for (int round = 0; round < 2000; round++) {
        char bytes[64];
        size_t size = rng_below(&rng, sizeof bytes), out_size;
        for (size_t i = 0; i < size; i++)
            bytes[i] = (char)(1 + rng_below(&rng, 255)); /* NUL is never text here */
        char *whole = stream(bytes, size, sizeof bytes, &out_size);
        assert_int_equal(utf8_first_bad(whole, out_size), out_size);
        if (utf8_first_bad(bytes, size) == size) {
            assert_int_equal(out_size, size);
            assert_memory_equal(whole, bytes, size);
        }
        size_t pieces_size;
        char *pieces = stream(bytes, size, 1, &pieces_size);
        assert_int_equal(pieces_size, out_size);
        assert_memory_equal(pieces, whole, out_size);
        free(whole);
        free(pieces);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_valid),
        cmocka_unit_test(test_invalid),
        cmocka_unit_test(test_held_back),
        cmocka_unit_test(test_random_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
