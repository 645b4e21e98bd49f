/* token_cases.h: a tokenizer against what another implementation recorded: a file of JSON lines
 * with a "text", its "ids", and what these were "decoded" to. */
#ifndef TEST_TOKEN_CASES_H
#define TEST_TOKEN_CASES_H

#include "../unit/io_files.h"

#include <jansson.h>

#include "tokenizer/tokenizer.h"

/* How the other implementation was called. */
struct token_style {
    int flags;     /* of tokenizer_encode_as */
    bool specials; /* decoded with the names of special tokens */
};

static inline int64_t token_encode(const struct tokenizer *tokenizer, struct token_style style,
                                   const char *text, size_t size, int32_t *ids, int64_t capacity)
{
    int64_t count;
    struct error err = {0};
    assert_ok(tokenizer_encode_as(tokenizer, text, size, style.flags, ids, capacity, &count, &err),
              &err);
    return count;
}

static inline size_t token_decode(const struct tokenizer *tokenizer, struct token_style style,
                                  const int32_t *ids, int64_t count, char *text)
{
    struct token_decoder decoder = {tokenizer, style.specials, false};
    size_t used = 0, size;
    for (int64_t i = 0; i < count; i++) {
        const char *token = token_decoder_next(&decoder, ids[i], &size);
        memcpy(text + used, token, size);
        used += size;
    }
    return used;
}

static inline void assert_token_case(const struct tokenizer *tokenizer, struct token_style style,
                                     const json_t *row)
{
    const json_t *text = json_object_get(row, "text"), *ids = json_object_get(row, "ids");
    const json_t *decoded = json_object_get(row, "decoded");
    size_t size = json_string_length(text);
    int64_t capacity = (int64_t)(3 * size + 16);
    int32_t *found = malloc((size_t)capacity * sizeof *found);
    char *back = malloc(64 * size + 1024);
    int64_t count = token_encode(tokenizer, style, json_string_value(text), size, found, capacity);
    assert_int_equal(count, json_array_size(ids));
    for (int64_t i = 0; i < count; i++)
        assert_int_equal(found[i], json_integer_value(json_array_get(ids, (size_t)i)));
    assert_int_equal(token_decode(tokenizer, style, found, count, back),
                     json_string_length(decoded));
    assert_memory_equal(back, json_string_value(decoded), json_string_length(decoded));
    free(back);
    free(found);
}

/* Every line of the file; how many there are. */
static inline int assert_token_cases(const struct tokenizer *tokenizer, struct token_style style,
                                     const char *path)
{
    char *line = NULL;
    size_t capacity = 0;
    int cases = 0;
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    for (; getline(&line, &capacity, file) > 0; cases++) {
        json_t *row = json_loads(line, JSON_ALLOW_NUL, NULL);
        assert_non_null(row);
        assert_token_case(tokenizer, style, row);
        json_decref(row);
    }
    free(line);
    fclose(file);
    return cases;
}

#endif
