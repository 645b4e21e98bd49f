/* test_tokenizer_bpe.c: merges against the definition (of all neighbours the lowest rank, leftmost,
 * until none is left), added tokens, the frame, and the compiled form in the cache folder.
 *
 * Vocabularies are made here: random merges over a few letters give words whose merges overlap in
 * every way. */
#include "io_files.h"

#include "core/random.h"
#include "tokenizer/parts.h"
#include "tokenizer/vocab_block.h"

static struct error err;

enum { MERGES = 400, LETTERS = 4, LONGEST = 3000 };

struct random_vocab {
    struct merge_pair merges[MERGES];
    struct tokenizer *tokenizer;
    char *json;
    size_t size;
};

/* Texts of the tokens, to keep new ones apart: a token is the text of its merge's halves. */
static bool is_new_text(char texts[][64], int count, const char *text)
{
    for (int i = 0; i < count; i++)
        if (strcmp(texts[i], text) == 0) return false;
    return true;
}

static void make_vocab(struct random_vocab *vocab, struct rng *rng, const char *pattern)
{
    static char texts[256 + MERGES][64];
    int count = 0;
    memset(texts, 0, sizeof texts);
    for (int i = 0; i < 256; i++) texts[i][0] = i == 0 ? 1 : (char)i;
    while (count < MERGES) {
        int known = LETTERS + count;
        int32_t pick[2];
        char text[128];
        for (int i = 0; i < 2; i++) {
            int index = (int)rng_below(rng, (uint64_t)known);
            pick[i] = index < LETTERS ? 'a' + index : 256 + index - LETTERS;
        }
        snprintf(text, sizeof text, "%s%s", texts[pick[0]], texts[pick[1]]);
        if (strlen(text) > 12 || !is_new_text(texts, 256 + count, text)) continue;
        strcpy(texts[256 + count], text);
        vocab->merges[count++] = (struct merge_pair){pick[0], pick[1]};
    }
    static const char *const specials[] = {"<|endoftext|>"};
    assert_ok(tokenizer_format(vocab->merges, MERGES, specials, 1, pattern, &vocab->json,
                               &vocab->size, &err),
              &err);
    assert_ok(tokenizer_parse(vocab->json, vocab->size, "made", &vocab->tokenizer, &err), &err);
}

static void clear_vocab(struct random_vocab *vocab)
{
    tokenizer_destroy(vocab->tokenizer);
    free(vocab->json);
}

static int64_t merge_by_definition(const struct random_vocab *vocab, const char *text, size_t size,
                                   int32_t *ids)
{
    int64_t count = (int64_t)size;
    for (size_t i = 0; i < size; i++) ids[i] = (unsigned char)text[i];
    for (int rank = 0; rank < MERGES; rank++) {
        struct merge_pair pair = vocab->merges[rank];
        for (int64_t i = 0; i + 1 < count; i++) {
            if (ids[i] != pair.left || ids[i + 1] != pair.right) continue;
            ids[i] = 256 + rank;
            memmove(ids + i + 1, ids + i + 2, (size_t)(count - i - 2) * sizeof *ids);
            count--;
            /* A merge may make neighbours of a lower rank possible. */
            rank = -1;
            break;
        }
    }
    return count;
}

static void assert_merged(const struct random_vocab *vocab, const char *text, size_t size)
{
    static int32_t expected[LONGEST], found[LONGEST];
    int64_t count, wanted = merge_by_definition(vocab, text, size, expected);
    assert_ok(tokenizer_encode(vocab->tokenizer, text, size, found, LONGEST, &count, &err), &err);
    assert_int_equal(count, wanted);
    assert_memory_equal(found, expected, (size_t)count * sizeof *found);
}

static void merges_follow_the_definition(void **state)
{
    (void)state;
    struct rng rng = rng_make(1, 0);
    for (int round = 0; round < 6; round++) {
        struct random_vocab vocab;
        make_vocab(&vocab, &rng, NULL);
        for (int i = 0; i < 400; i++) {
            char text[120];
            size_t size = 1 + rng_below(&rng, i % 2 ? 16 : sizeof text - 1);
            for (size_t at = 0; at < size; at++) text[at] = (char)('a' + rng_below(&rng, LETTERS));
            assert_merged(&vocab, text, size);
        }
        clear_vocab(&vocab);
    }
}

static void long_words_follow_the_definition(void **state)
{
    (void)state;
    struct rng rng = rng_make(2, 0);
    struct random_vocab vocab;
    make_vocab(&vocab, &rng, NULL);
    static char text[LONGEST];
    for (int kind = 0; kind < 3; kind++) {
        for (int i = 0; i < LONGEST; i++)
            text[i] = kind == 0 ? 'a' : (char)('a' + rng_below(&rng, kind == 1 ? 2 : LETTERS));
        assert_merged(&vocab, text, LONGEST);
    }
    clear_vocab(&vocab);
}

/* Linear or nearly so: a quadratic method would need minutes here. */
static void a_megabyte_without_a_space_ends(void **state)
{
    (void)state;
    struct rng rng = rng_make(3, 0);
    struct random_vocab vocab;
    make_vocab(&vocab, &rng, pattern_qwen);
    size_t size = 1 << 20;
    char *text = malloc(size);
    int32_t *ids = malloc(size * sizeof *ids);
    for (size_t i = 0; i < size; i++) text[i] = (char)('a' + rng_below(&rng, LETTERS));
    int64_t count, bytes = 0;
    assert_ok(tokenizer_encode(vocab.tokenizer, text, size, ids, (int64_t)size, &count, &err),
              &err);
    for (int64_t i = 0; i < count; i++) {
        size_t length;
        const char *token = tokenizer_token(vocab.tokenizer, ids[i], &length);
        assert_memory_equal(token, text + bytes, length);
        bytes += (int64_t)length;
    }
    assert_int_equal(bytes, size);
    free(ids);
    free(text);
    clear_vocab(&vocab);
}

/* ---- Added tokens ---- */

/* The byte tokenizer with these rows of added_tokens, ids from 256 on. */
static struct tokenizer *with_added(const char *rows, const char *post_processor)
{
    static const char *const none[] = {"x"};
    char *json, *text;
    size_t size;
    assert_ok(tokenizer_format(NULL, 0, none, 0, NULL, &json, &size, &err), &err);
    json_t *root = json_loadb(json, size, 0, NULL);
    json_object_set_new(root, "added_tokens", json_loads(rows, 0, NULL));
    json_object_set_new(root, "post_processor", json_loads(post_processor, JSON_DECODE_ANY, NULL));
    text = json_dumps(root, 0);
    struct tokenizer *tokenizer;
    assert_ok(tokenizer_parse(text, strlen(text), "added", &tokenizer, &err), &err);
    json_decref(root);
    free(text);
    free(json);
    return tokenizer;
}

/* ids ends with -1. */
static void assert_ids(const struct tokenizer *tokenizer, const char *text, unsigned how,
                       const int32_t *expected)
{
    int32_t found[64];
    int64_t count, wanted = 0;
    while (expected[wanted] >= 0) wanted++;
    assert_ok(tokenizer_encode_as(tokenizer, text, strlen(text), how, found, 64, &count, &err),
              &err);
    assert_int_equal(count, wanted);
    for (int64_t i = 0; i < count; i++) assert_int_equal(found[i], expected[i]);
}

static void added_tokens_are_found_as_their_flags_say(void **state)
{
    (void)state;
    struct tokenizer *tokenizer =
        with_added("[{\"id\": 256, \"content\": \"<a>\"}, {\"id\": 257, \"content\": \"<a>b\"},"
                   " {\"id\": 258, \"content\": \"one\", \"single_word\": true},"
                   " {\"id\": 259, \"content\": \"<l>\", \"lstrip\": true},"
                   " {\"id\": 260, \"content\": \"<r>\", \"rstrip\": true}]",
                   "null");
    static const struct {
        const char *text;
        int32_t ids[16];
    } rows[] = {
        {"x<a>y", {'x', 256, 'y', -1}},
        {"<a>b<a>", {257, 256, -1}}, /* the longest */
        {"one", {258, -1}},
        {"one,one", {258, ',', 258, -1}},
        {"tone", {'t', 'o', 'n', 'e', -1}},
        {"one1", {'o', 'n', 'e', '1', -1}},
        {"\u00e9one", {0xc3, 0xa9, 'o', 'n', 'e', -1}}, /* a letter beyond ASCII touches it */
        {"\u3000one\u2028", {0xe3, 0x80, 0x80, 258, 0xe2, 0x80, 0xa8, -1}},
        {"a \t<l> b", {'a', 259, ' ', 'b', -1}},
        {"a <r> \n b", {'a', ' ', 260, 'b', -1}},
        {"<r> <l>", {260, 259, -1}}, /* white space goes to the first that asks */
        {"<", {'<', -1}},
        {"<a", {'<', 'a', -1}},
        {"", {-1}},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        assert_ids(tokenizer, rows[i].text, TOKENIZER_ADDED, rows[i].ids);
    const int32_t plain[] = {'<', 'a', '>', -1};
    assert_ids(tokenizer, "<a>", TOKENIZER_PLAIN, plain);
    tokenizer_destroy(tokenizer);
}

static void the_frame_stands_around_the_text(void **state)
{
    (void)state;
    struct tokenizer *tokenizer = with_added(
        "[{\"id\": 256, \"content\": \"<s>\"}, {\"id\": 257, \"content\": \"</s>\"}]",
        "{\"type\": \"Sequence\", \"processors\": [{\"type\": \"ByteLevel\"}, {\"type\": "
        "\"TemplateProcessing\", \"single\": [{\"SpecialToken\": {\"id\": \"<s>\"}}, "
        "{\"Sequence\": "
        "{\"id\": \"A\"}}, {\"SpecialToken\": {\"id\": \"</s>\"}}]}]}");
    const int32_t framed[] = {256, 'a', 257, -1}, plain[] = {'a', -1}, empty[] = {256, 257, -1};
    assert_ids(tokenizer, "a", TOKENIZER_FRAME, framed);
    assert_ids(tokenizer, "a", TOKENIZER_ADDED, plain);
    assert_ids(tokenizer, "", TOKENIZER_FRAME, empty);
    assert_int_equal(tokenizer_added_id(tokenizer, "</s>"), 257);
    assert_int_equal(tokenizer_added_id(tokenizer, "</t>"), -1);
    assert_int_equal(tokenizer_end_of_text(tokenizer), 257);
    tokenizer_destroy(tokenizer);
}

static void what_is_not_utf8_is_refused_by_offset(void **state)
{
    (void)state;
    struct rng rng = rng_make(4, 0);
    struct random_vocab vocab;
    make_vocab(&vocab, &rng, pattern_gpt2);
    int32_t ids[16];
    int64_t count;
    assert_refused(tokenizer_encode(vocab.tokenizer, "ab\xff", 3, ids, 16, &count, &err),
                   PLX_BAD_DATA, "not UTF-8: byte 0xff at offset 2", &err);
    assert_ok(tokenizer_encode(vocab.tokenizer, "a\0b", 3, ids, 16, &count, &err), &err);
    assert_int_equal(count, 3);
    assert_refused(tokenizer_encode(vocab.tokenizer, "\0\0\xc3", 3, ids, 16, &count, &err),
                   PLX_BAD_DATA, "byte 0xc3 at offset 2", &err);
    clear_vocab(&vocab);
}

/* ---- The compiled form ---- */

static void assert_same(const struct tokenizer *left, const struct tokenizer *right)
{
    const char *text = "the cat <|endoftext|> abcd abdcabcdabcadbcadb 12";
    int32_t a[64], b[64];
    int64_t a_count, b_count;
    assert_int_equal(tokenizer_vocab_size(left), tokenizer_vocab_size(right));
    assert_ok(tokenizer_encode_as(left, text, strlen(text), 3, a, 64, &a_count, &err), &err);
    assert_ok(tokenizer_encode_as(right, text, strlen(text), 3, b, 64, &b_count, &err), &err);
    assert_int_equal(a_count, b_count);
    assert_memory_equal(a, b, (size_t)a_count * sizeof *a);
}

/* The one file of the cache folder. */
static const char *compiled_path(const struct random_vocab *vocab)
{
    static char path[256];
    snprintf(path, sizeof path, "%s/parallax/%016llx.vocab", io_folder,
             (unsigned long long)vocab_source_hash(vocab->json, vocab->size));
    return path;
}

static void set_cache(const char *folder)
{
    char path[4096];
    if (folder[0] != '/') {
        assert_non_null(getcwd(path, sizeof path - 128));
        snprintf(path + strlen(path), 128, "/%s", folder);
        folder = path;
    }
    setenv("XDG_CACHE_HOME", folder, 1);
}

static void damaged_compiled_forms_are_passed_over(void **state)
{
    (void)state;
    struct rng rng = rng_make(5, 0);
    struct random_vocab vocab;
    make_vocab(&vocab, &rng, pattern_qwen);
    set_cache(io_folder);
    cache_store(&vocab.tokenizer->vocab);
    char *good;
    size_t size;
    assert_ok(file_read_all(compiled_path(&vocab), 1 << 26, &good, &size, &err), &err);
    struct vocab found;
    assert_true(cache_find(vocab.json, vocab.size, &found));
    vocab_close(&found);
    assert_false(cache_find(vocab.json, vocab.size - 1, &found)); /* another source */
    for (int i = 0; i < 600; i++) {
        char *bad = malloc(size);
        size_t cut = size;
        memcpy(bad, good, size);
        if (i % 8 == 0) {
            cut = (size_t)rng_below(&rng, size);
        } else { /* the header, often, and anything else */
            size_t at = (size_t)rng_below(&rng, i % 2 ? 1200 : size);
            bad[at] = (char)(bad[at] ^ (1 << rng_below(&rng, 8)));
        }
        io_write(compiled_path(&vocab), bad, cut);
        assert_false(cache_find(vocab.json, vocab.size, &found));
        free(bad);
    }
    free(good);
    clear_vocab(&vocab);
}

/* With the hash made right again, the checks of the tables alone must hold. */
static void hostile_compiled_forms_are_passed_over(void **state)
{
    (void)state;
    struct rng rng = rng_make(6, 0);
    struct random_vocab vocab;
    make_vocab(&vocab, &rng, NULL);
    const struct vocab *good = &vocab.tokenizer->vocab;
    int opened = 0;
    for (int i = 0; i < 2000; i++) {
        struct vocab bad;
        struct vocab_header *block = malloc(good->block_size);
        memcpy(block, good->header, good->block_size);
        size_t at = (size_t)rng_below(&rng, good->block_size - 4);
        int32_t values[] = {-1, INT32_MAX, (int32_t)rng_u64(&rng), 1 << 20};
        memcpy((char *)block + at / 4 * 4, &values[i % 4], 4);
        block->block_hash = vocab_block_hash(block, good->block_size);
        if (vocab_open(block, good->block_size, false, &bad)) {
            for (int byte = 0; byte < 256; byte++) {
                char text[3] = {(char)byte, 'a', 'b'};
                vocab_find(&bad, text, 3);
                vocab_find_merge(&bad, byte, 'a');
            }
            opened++;
        }
        free(block);
    }
    assert_in_range(opened, 1, 1999); /* a changed text or rank is no damage that could be seen */
    clear_vocab(&vocab);
}

static void large_files_are_compiled_once(void **state)
{
    (void)state;
    struct rng rng = rng_make(7, 0);
    struct random_vocab vocab;
    make_vocab(&vocab, &rng, pattern_llama3);
    set_cache(io_folder);
    /* Spaces make the file as large as those that are worth it. */
    size_t size = vocab.size + (1 << 18);
    char *json = malloc(size);
    memset(json, ' ', size);
    memcpy(json, vocab.json, vocab.size);
    const char *path = io_path("large.json");
    io_write(path, json, size);
    free(vocab.json);
    vocab.json = json;
    vocab.size = size;
    struct tokenizer *first, *second;
    assert_ok(tokenizer_load(path, &first, &err), &err);
    assert_false(first->vocab.mapped);
    assert_ok(tokenizer_load(path, &second, &err), &err);
    assert_true(second->vocab.mapped);
    assert_same(first, vocab.tokenizer);
    assert_same(first, second);
    tokenizer_destroy(second);
    /* A folder that cannot be made costs time, not the tokenizer. */
    setenv("XDG_CACHE_HOME", "/dev/null", 1);
    assert_ok(tokenizer_load(path, &second, &err), &err);
    assert_false(second->vocab.mapped);
    assert_same(first, second);
    tokenizer_destroy(second);
    tokenizer_destroy(first);
    clear_vocab(&vocab);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(merges_follow_the_definition),
        cmocka_unit_test(long_words_follow_the_definition),
        cmocka_unit_test(a_megabyte_without_a_space_ends),
        cmocka_unit_test(added_tokens_are_found_as_their_flags_say),
        cmocka_unit_test(the_frame_stands_around_the_text),
        cmocka_unit_test(what_is_not_utf8_is_refused_by_offset),
        cmocka_unit_test(damaged_compiled_forms_are_passed_over),
        cmocka_unit_test(hostile_compiled_forms_are_passed_over),
        cmocka_unit_test(large_files_are_compiled_once),
    };
    return cmocka_run_group_tests_name("byte pair encoding", tests, io_folder_make,
                                       io_folder_remove);
}
