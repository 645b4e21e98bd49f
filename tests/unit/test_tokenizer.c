/* test_tokenizer.c: the byte tokenizer, its file in the layout of Hugging Face, and every refusal
 * of the reader. Merges are test_tokenizer_bpe.c, expressions and normalising are
 * test_tokenizer_split.c.
 *
 * Refusals are tested by editing a good file: each row of the table replaces one part of the text
 * that tokenizer_save wrote and names what the sentence must say. */
#include "io_files.h"

#include "data/data.h"
#include "data/utf8.h"

#include <jansson.h>

static struct error err;

static struct tokenizer *create_bytes(void)
{
    struct tokenizer *tokenizer;
    assert_ok(tokenizer_create_bytes(&tokenizer, &err), &err);
    return tokenizer;
}

/* The text that tokenizer_save writes; the caller frees it. */
static char *saved_text(void)
{
    struct tokenizer *tokenizer = create_bytes();
    const char *path = io_path("tokenizer.json");
    assert_ok(tokenizer_save(tokenizer, path, &err), &err);
    tokenizer_destroy(tokenizer);
    char *text;
    size_t size;
    assert_ok(file_read_all(path, 1 << 20, &text, &size, &err), &err);
    return text;
}

/* text with the first occurrence of from replaced; the caller frees it. */
static char *edited(const char *text, const char *from, const char *to)
{
    const char *at = strstr(text, from);
    if (at == NULL) fail_msg("the file has no '%s'", from);
    char *result = malloc(strlen(text) + strlen(to) + 1);
    sprintf(result, "%.*s%s%s", (int)(at - text), text, to, at + strlen(from));
    return result;
}

static void bytes_are_their_own_ids(void **state)
{
    (void)state;
    struct tokenizer *tokenizer = create_bytes();
    assert_int_equal(tokenizer_vocab_size(tokenizer), 257);
    assert_int_equal(tokenizer_end_of_text(tokenizer), 256);
    char text[256];
    int32_t ids[256];
    int64_t count;
    for (int i = 0; i < 256; i++) text[i] = (char)i;
    assert_ok(tokenizer_encode(tokenizer, text, 256, ids, 256, &count, &err), &err);
    assert_int_equal(count, 256);
    for (int i = 0; i < 256; i++) {
        size_t size;
        assert_int_equal(ids[i], i);
        const char *token = tokenizer_token(tokenizer, i, &size);
        assert_int_equal(size, 1);
        assert_int_equal((unsigned char)token[0], i);
    }
    tokenizer_destroy(tokenizer);
}

static void ids_without_text_are_empty(void **state)
{
    (void)state;
    struct tokenizer *tokenizer = create_bytes();
    const int32_t ids[] = {-1, 256, 257, INT32_MAX, INT32_MIN};
    for (int i = 0; i < 5; i++) {
        size_t size = 77;
        assert_non_null(tokenizer_token(tokenizer, ids[i], &size));
        assert_int_equal(size, 0);
    }
    tokenizer_destroy(tokenizer);
}

static void special_text_stays_text(void **state)
{
    (void)state;
    struct tokenizer *tokenizer = create_bytes();
    const char *text = "a<|endoftext|>b";
    int32_t ids[32];
    int64_t count;
    assert_ok(tokenizer_encode(tokenizer, text, strlen(text), ids, 32, &count, &err), &err);
    assert_int_equal(count, strlen(text));
    for (int64_t i = 0; i < count; i++) assert_int_equal(ids[i], text[i]);
    tokenizer_destroy(tokenizer);
}

static void small_room_tells_the_need(void **state)
{
    (void)state;
    struct tokenizer *tokenizer = create_bytes();
    int32_t ids[4];
    int64_t count;
    plx_status status = tokenizer_encode(tokenizer, "hello", 5, ids, 4, &count, &err);
    assert_int_equal(count, 5);
    assert_refused(status, PLX_WORKSPACE_TOO_SMALL, "5 tokens but there is room for 4", &err);
    status = tokenizer_encode(tokenizer, "hi", 2, NULL, 0, &count, &err);
    assert_int_equal(count, 2);
    assert_refused(status, PLX_WORKSPACE_TOO_SMALL, "room for 0", &err);
    assert_ok(tokenizer_encode(tokenizer, "", 0, NULL, 0, &count, &err), &err);
    assert_int_equal(count, 0);
    tokenizer_destroy(tokenizer);
}

/* The alphabet's fixed points and its remapped bytes, as the file must show them. */
static void file_has_the_known_alphabet(void **state)
{
    (void)state;
    char *text = saved_text();
    json_t *root = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(root);
    const json_t *vocab = json_object_get(json_object_get(root, "model"), "vocab");
    assert_int_equal(json_object_size(vocab), 256);
    static const struct {
        const char *symbol;
        int id;
    } rows[] = {{"!", 33},        {"~", 126},       {"A", 65},        {"\"", 34},
                {"\u0120", 32},   {"\u010a", 10},   {"\u0109", 9},    {"\u0100", 0},
                {"\u0121", 127},  {"\u0122", 128},  {"\u0142", 160},  {"\u0143", 173},
                {"\u00a1", 0xa1}, {"\u00ac", 0xac}, {"\u00ae", 0xae}, {"\u00ff", 0xff}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const json_t *id = json_object_get(vocab, rows[i].symbol);
        assert_true(json_is_integer(id));
        assert_int_equal(json_integer_value(id), rows[i].id);
    }
    json_decref(root);
    free(text);
}

static void assert_same_tokens(const struct tokenizer *left, const struct tokenizer *right)
{
    assert_int_equal(tokenizer_vocab_size(left), tokenizer_vocab_size(right));
    assert_int_equal(tokenizer_end_of_text(left), tokenizer_end_of_text(right));
    for (int32_t id = 0; id < tokenizer_vocab_size(left); id++) {
        size_t left_size, right_size;
        const char *left_text = tokenizer_token(left, id, &left_size);
        const char *right_text = tokenizer_token(right, id, &right_size);
        assert_int_equal(left_size, right_size);
        assert_memory_equal(left_text, right_text, left_size);
    }
}

static void saving_and_loading_agree(void **state)
{
    (void)state;
    struct tokenizer *tokenizer = create_bytes(), *loaded;
    const char *path = io_path("round.json");
    assert_ok(tokenizer_save(tokenizer, path, &err), &err);
    assert_ok(tokenizer_load(path, &loaded, &err), &err);
    assert_same_tokens(tokenizer, loaded);
    tokenizer_destroy(loaded);
    tokenizer_destroy(tokenizer);
}

/* Ids in reverse, a hole, two added tokens of which one is ordinary text, and flags that must
 * survive saving. */
static void other_assignments_are_read(void **state)
{
    (void)state;
    char *text = saved_text();
    json_t *root = json_loads(text, 0, NULL), *value;
    json_t *model = json_object_get(root, "model"), *vocab = json_object_get(model, "vocab");
    const char *key;
    json_object_foreach(vocab, key, value) json_integer_set(value, 255 - json_integer_value(value));
    json_object_set_new(vocab, "<tool>",
                        json_integer(300)); /* listed twice, as GPT-2's end of text is */
    json_object_set_new(root, "added_tokens",
                        json_pack("[{s:i, s:s, s:b, s:b}, {s:i, s:s, s:b}]", "id", 300, "content",
                                  "<tool>", "special", 0, "lstrip", 1, "id", 270, "content",
                                  "<|endoftext|>", "special", 1));
    char *json = json_dumps(root, 0);
    struct tokenizer *tokenizer, *again;
    assert_ok(tokenizer_parse(json, strlen(json), "edited", &tokenizer, &err), &err);
    assert_int_equal(tokenizer_vocab_size(tokenizer), 301);
    assert_int_equal(tokenizer_end_of_text(tokenizer), 270);
    int32_t ids[3];
    int64_t count;
    size_t size;
    assert_ok(tokenizer_encode(tokenizer, "\x01 A", 3, ids, 3, &count, &err), &err);
    assert_int_equal(ids[0], 254);
    assert_int_equal(ids[1], 255 - ' ');
    assert_int_equal(ids[2], 255 - 'A');
    assert_string_equal(tokenizer_token(tokenizer, 300, &size), "<tool>");
    assert_int_equal(size, 6);
    tokenizer_token(tokenizer, 290, &size);
    assert_int_equal(size, 0);

    const char *path = io_path("other.json");
    assert_ok(tokenizer_save(tokenizer, path, &err), &err);
    assert_ok(tokenizer_load(path, &again, &err), &err);
    assert_same_tokens(tokenizer, again);
    json_t *saved = json_load_file(path, 0, NULL);
    json_t *row = json_array_get(json_object_get(saved, "added_tokens"), 0);
    assert_true(json_is_true(json_object_get(row, "lstrip")));
    assert_true(json_is_false(json_object_get(row, "special")));
    json_decref(saved);
    tokenizer_destroy(again);
    tokenizer_destroy(tokenizer);
    free(json);
    json_decref(root);
    free(text);
}

static void file_may_lack_end_of_text(void **state)
{
    (void)state;
    char *text = saved_text();
    char *json = edited(text, "<|endoftext|>", "<|other|>");
    struct tokenizer *tokenizer;
    assert_ok(tokenizer_parse(json, strlen(json), "edited", &tokenizer, &err), &err);
    assert_int_equal(tokenizer_end_of_text(tokenizer), -1);
    tokenizer_destroy(tokenizer);
    free(json);
    free(text);
}

static void foreign_files_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *from, *to, *says;
    } rows[] = {
        {"\"merges\": []", "\"merges\": [\"a b\"]",
         "model.merges[0]: the result is not in model.vocab"},
        {"\"merges\": []", "\"merges\": [\"a  b\"]", "model.merges[0] must be \"left right\""},
        {"\"merges\": []", "\"merges\": [\"ab\"]", "model.merges[0] must be \"left right\""},
        {"\"merges\": []", "\"merges\": [\" b\"]", "model.merges[0] must be \"left right\""},
        {"\"merges\": []", "\"merges\": [[\"a\", 7]]", "or a list of two strings"},
        {"\"merges\": []", "\"merges\": [[\"a\"]]", "or a list of two strings"},
        {"\"merges\": []", "\"merges\": [7]", "or a list of two strings"},
        {"\"merges\": []", "\"merges\": [\"a \\u4e00\"]", "the right half is not in model.vocab"},
        {"\"merges\": []", "\"merges\": [\"\\u0061\\u0020b\"]", "the result is not in model.vocab"},
        {"\"merges\": []", "\"merges\": [[\"\\ud83d\\ude00\", \"b\"]]", "the left half is not in"},
        {"\"merges\": []", "\"merges\": [\"\\ud83d b\"]", "model.merges[0] must be \"left right\""},
        {"\"merges\": []", "\"merges\": [\"\\ude00 b\"]", "model.merges[0] must be \"left right\""},
        {"\"merges\": []", "\"merges\": [\"\\u00g1 b\"]", "model.merges[0] must be \"left right\""},
        {"\"merges\": []", "\"merges\": [\"\\x b\"]", "model.merges[0] must be \"left right\""},
        {"\"merges\": []", "\"merges\": [\"\xc3 b\"]", "model.merges[0] must be \"left right\""},
        {"\"merges\": []", "\"merges\": [\"a\tb c\"]", "model.merges[0] must be \"left right\""},
        {"\"merges\": []", "\"merges\": [[\"a\", \"b\"],]", "model.merges[0] must be"},
        {"\"merges\": []", "\"merges\": [[\"a\" \"b\"]]", "model.merges[0] must be"},
        {"\"merges\": []", "\"merges\": [[\"a\", \"b\"] 1]", "model.merges[0] must be"},
        {"\"merges\": []", "\"merges\": [[\"a\", \"b\"]", "unexpected token near '}'"},
        {"\"merges\": []", "\"merges\": [\"a b]", "line "},
        {"\"merges\": []", "\"merges\": [], \"merges\": []", "duplicate"},
        {"\"merges\": []", "\"merges\": {}", "model.merges must be an array"},
        {"\"merges\": []", "\"more\": []", "model.merges must be an array"},
        {"\"type\": \"BPE\"", "\"type\": \"Unigram\"", "model is Unigram but must be BPE"},
        {"\"type\": \"BPE\"", "\"type\": 7", "model is ? but must be BPE"},
        {"\"model\"", "\"mode\"", "model is null but must be BPE"},
        {"\"normalizer\": null", "\"normalizer\": {\"type\": \"NFKC\"}", "normalizer is NFKC"},
        {"\"normalizer\": null", "\"normalizer\": {\"type\": \"Sequence\"}",
         "normalizer.normalizers must be an array"},
        {"\"normalizer\": null",
         "\"normalizer\": {\"type\": \"Sequence\", \"normalizers\": [{\"type\": \"Lowercase\"}]}",
         "normalizer is Lowercase"},
        {"\"normalizer\": null", "\"normalizer\": 5", "normalizer is ?"},
        {"\"pre_tokenizer\"", "\"pre\"", "pre_tokenizer is null but must be, or end in, ByteLevel"},
        {"\"type\": \"ByteLevel\"", "\"type\": \"Metaspace\"", "pre_tokenizer is Metaspace"},
        {"\"add_prefix_space\": false", "\"add_prefix_space\": 1",
         "pre_tokenizer.add_prefix_space must be true or false"},
        {"\"decoder\"", "\"dec\"", "decoder is null but must be ByteLevel"},
        {"\"post_processor\": null", "\"post_processor\": {\"type\": \"TemplateProcessing\"}",
         "post_processor.single must be an array"},
        {"\"post_processor\": null",
         "\"post_processor\": {\"type\": \"TemplateProcessing\", \"single\": []}",
         "post_processor.single has no Sequence"},
        {"\"post_processor\": null",
         "\"post_processor\": {\"type\": \"TemplateProcessing\", \"single\": "
         "[{\"SpecialToken\": {\"id\": \"<s>\"}}]}",
         "post_processor.single names '<s>', no added token"},
        {"\"post_processor\": null",
         "\"post_processor\": {\"type\": \"TemplateProcessing\", \"single\": "
         "[{\"Sequence\": {}}, {\"Sequence\": {}}]}",
         "post_processor.single[1] must be"},
        {"\"post_processor\": null", "\"post_processor\": {\"type\": \"BertProcessing\"}",
         "post_processor is BertProcessing"},
        {"\"dropout\": null", "\"dropout\": 0.1", "model.dropout must be null"},
        {"\"ignore_merges\": false", "\"ignore_merges\": \"no\"",
         "model.ignore_merges must be true or false"},
        {"\"special\": true", "\"special\": 1", "added_tokens.special must be true or false"},
        {"\"end_of_word_suffix\": null", "\"end_of_word_suffix\": \"</w>\"", "end_of_word_suffix"},
        {"\"continuing_subword_prefix\": null", "\"continuing_subword_prefix\": \"##\"",
         "continuing_subword_prefix"},
        {"\"A\": 65", "\"B\": 65", "duplicate object key"},
        {"\"A\": 65,", "", "no token for byte 0x41"},
        {"\"A\": 65", "\"A\": 66", "two tokens have the id 66"},
        {"\"A\": 65", "\"A\": 256", "two tokens have the id 256"},
        {"\"A\": 65", "\"A\": -1", "the id of 'A' is -1"},
        {"\"A\": 65", "\"A\": 1048576", "the id of 'A' is 1048576 but must be 0..1048575"},
        {"\"A\": 65", "\"A\": 65.0", "the id of 'A' is not an integer"},
        {"\"A\": 65", "\"A\": 99999999999999999999", "too big integer"},
        {"\"A\": 65", "\"A\": 1000000000000000000", "the id of 'A' is 1000000000000000000 but"},
        {"\"A\": 65", "\"A\": 6.5e1", "the id of 'A' is not an integer"},
        {"\"A\": 65", "\"A\": \"65\"", "the id of 'A' is not an integer"},
        {"\"A\": 65", "\"A\": [65]", "the id of 'A' is not an integer"},
        {"\"A\": 65", "\"A\": null", "the id of 'A' is not an integer"},
        {"\"A\": 65", "\"A\": -", "invalid token near '-'"},
        {"\"A\": 65", "\"A\": 065", "invalid token near '0'"},
        {"\"A\": 65", "\"A\" 65", "':' expected near '65'"},
        {"\"A\": 65", "\"A\": 65,", "string or '}' expected near ','"},
        {"\"A\": 65", "\"A\": 65 7", "'}' expected near '7'"},
        {"\"A\": 65", "\"A\": 65, \"\\u0041\": 300", "duplicate object key near '\"\\u0041\"'"},
        {"\"A\": 65", "\"A\\ud83d\": 65", "invalid Unicode"},
        {"\"A\": 65", "\"A\tb\": 65", "control character 0x9"},
        {"\"vocab\": {", "\"vocab\": [{", "line "},
        {"\"vocab\": {", "\"vocab\": {}, \"w\": {", "no token for byte 0x00"},
        {"\"vocab\": {", "\"vocab\": 7, \"w\": {", "model.vocab must be an object"},
        {"\"vocab\": {", "\"vocab\": {}, \"vocab\": {", "duplicate object key near '\"vocab\"'"},
        {"\"vocab\": {", "\"vo\\u0063ab\": {", "model.vocab may have at most"},
        {"\"A\": 65", "\"A\": 65, \"<|endoftext|>\": 300", "is 300 in model.vocab but 256"},
        {"\"id\": 256", "\"id\": 2000000", "added_tokens: the id of '<|endoftext|>' is 2000000"},
        {"\"id\": 256", "\"no\": 256", "added_tokens: the id of '<|endoftext|>' is not an integer"},
        {"\"content\": \"<|endoftext|>\"", "\"content\": \"\"", "added_tokens[0].content"},
        {"\"content\": \"<|endoftext|>\"", "\"content\": 4", "added_tokens[0].content"},
        {"\"added_tokens\": [", "\"added_tokens\": [{\"id\": 300, \"content\": \"<|endoftext|>\"},",
         "'<|endoftext|>' twice"},
        {"\"added_tokens\": [", "\"added_tokens\": [{\"id\": 256, \"content\": \"<|b|>\"},",
         "two tokens have the id 256"},
        {"\"added_tokens\": [", "\"added_tokens\": [7,", "added_tokens[0].content"},
        {"\"content\": \"<|endoftext|>\"", "\"content\": \"a\\u0000b\"", "\\u0000 is not allowed"},
        {"\"content\": \"<|endoftext|>\"", "\"content\": \"a\xff\"", "unable to decode byte 0xff"},
    };
    char *text = saved_text();
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char *json = edited(text, rows[i].from, rows[i].to);
        struct tokenizer *tokenizer = (struct tokenizer *)&rows;
        plx_status status = tokenizer_parse(json, strlen(json), "FILE", &tokenizer, &err);
        assert_null(tokenizer);
        assert_non_null(strstr(err.text, "FILE"));
        assert_refused(status, PLX_BAD_DATA, rows[i].says, &err);
        free(json);
    }
    free(text);
}

static void long_tokens_are_refused(void **state)
{
    (void)state;
    char *text = saved_text(), token[5100];
    struct tokenizer *tokenizer;
    snprintf(token, sizeof token, "\"A\": 65, \"%05000d\": 300", 7);
    char *json = edited(text, "\"A\": 65", token);
    assert_refused(tokenizer_parse(json, strlen(json), "FILE", &tokenizer, &err), PLX_BAD_DATA,
                   "00...' has 5000 bytes but may have 4096", &err);
    free(json);
    free(text);
}

static void broken_text_is_refused(void **state)
{
    (void)state;
    char *text = saved_text();
    struct tokenizer *tokenizer;
    for (size_t size = 0; size < strlen(text) - 1; size += 97) {
        plx_status status = tokenizer_parse(text, size, "cut", &tokenizer, &err);
        assert_refused(status, PLX_BAD_DATA, "cut: line ", &err);
    }
    assert_refused(tokenizer_parse("[]", 2, "list", &tokenizer, &err), PLX_BAD_DATA,
                   "not a JSON object", &err);
    assert_refused(tokenizer_load(io_path("absent.json"), &tokenizer, &err), PLX_IO_ERROR,
                   "absent.json", &err);
    free(text);
}

static void too_many_added_tokens_are_refused(void **state)
{
    (void)state;
    char *text = saved_text();
    json_t *root = json_loads(text, 0, NULL), *rows = json_array();
    for (int i = 0; i < 4097; i++) {
        char name[32];
        snprintf(name, sizeof name, "<t%d>", i);
        json_array_append_new(rows, json_pack("{s:i, s:s}", "id", 256 + i, "content", name));
    }
    json_object_set_new(root, "added_tokens", rows);
    char *json = json_dumps(root, 0);
    struct tokenizer *tokenizer;
    assert_refused(tokenizer_parse(json, strlen(json), "many", &tokenizer, &err), PLX_BAD_DATA,
                   "4097 entries but at most 4096", &err);
    free(json);
    json_array_remove(rows, 4096);
    json = json_dumps(root, 0);
    assert_ok(tokenizer_parse(json, strlen(json), "many", &tokenizer, &err), &err);
    assert_int_equal(tokenizer_vocab_size(tokenizer), 256 + 4096);
    tokenizer_destroy(tokenizer);
    free(json);
    json_decref(root);
    free(text);
}

static void messages_hold_no_control_bytes(void **state)
{
    (void)state;
    char *text = saved_text();
    char *json = edited(text, "\"A\": 65", "\"A\": 65, \"\\u001b[2J\": -1");
    struct tokenizer *tokenizer;
    plx_status status = tokenizer_parse(json, strlen(json), "hostile", &tokenizer, &err);
    assert_null(strchr(err.text, 0x1b));
    assert_refused(status, PLX_BAD_DATA, "'?[2J'", &err);
    free(json);
    free(text);
}

static void utf8_is_judged_as_rfc_3629_says(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t size, bad;
    } rows[] = {
        {"", 0, 0},
        {"plain ascii, longer than a word", 31, 31},
        {"sixteen bytes ok", 16, 16},
        {"12345678\0", 9, 8},
        {"1234567\0abcdefgh", 16, 7},
        {"\xc3\xa9", 2, 2},
        {"\xc3", 1, 0},
        {"ab\xc3", 3, 2},
        {"\xc0\x80", 2, 0},
        {"\xc1\xbf", 2, 0},
        {"\xe0\x9f\xbf", 3, 0},
        {"\xe0\xa0\x80", 3, 3},
        {"\xed\x9f\xbf", 3, 3},
        {"\xed\xa0\x80", 3, 0},
        {"\xef\xbf\xbf", 3, 3},
        {"\xf0\x8f\xbf\xbf", 4, 0},
        {"\xf0\x90\x80\x80", 4, 4},
        {"\xf4\x8f\xbf\xbf", 4, 4},
        {"\xf4\x90\x80\x80", 4, 0},
        {"\xf5\x80\x80\x80", 4, 0},
        {"a\x80", 2, 1},
        {"1234567", 7, 7},
        {"12345678abcdefg", 15, 15},
        {"\xe2\x82", 2, 0},
        {"12345678\xe2\x82\xac"
         "12345678\xff",
         20, 19},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        /* Memory of exactly this size, so that a sanitizer sees a byte read too much. */
        char *copy = malloc(rows[i].size > 0 ? rows[i].size : 1);
        memcpy(copy, rows[i].text, rows[i].size);
        assert_int_equal(utf8_first_bad(copy, rows[i].size), rows[i].bad);
        free(copy);
    }
}

static void cuts_spare_characters(void **state)
{
    (void)state;
    const char *text = "a\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80z";
    const size_t cuts[] = {0, 1, 1, 3, 3, 3, 6, 6, 6, 6, 10};
    for (size_t limit = 0; limit < 11; limit++)
        assert_int_equal(utf8_cut(text, limit), cuts[limit]);
    const char *none = "\x80\x80\x80\x80\x80\x80"; /* no character begins here: cut as asked */
    for (size_t limit = 3; limit < 6; limit++) assert_int_equal(utf8_cut(none, limit), limit);
}

/* Every code point, encoded by the rule, is accepted; every surrogate is not. */
static void every_code_point_is_known(void **state)
{
    (void)state;
    for (unsigned code = 1; code < 0x110000; code++) {
        char text[4];
        size_t size = 0;
        if (code < 0x80)
            text[size++] = (char)code;
        else if (code < 0x800)
            text[size++] = (char)(0xc0 | code >> 6);
        else if (code < 0x10000)
            text[size++] = (char)(0xe0 | code >> 12);
        else
            text[size++] = (char)(0xf0 | code >> 18);
        if (code >= 0x10000) text[size++] = (char)(0x80 | (code >> 12 & 0x3f));
        if (code >= 0x800) text[size++] = (char)(0x80 | (code >> 6 & 0x3f));
        if (code >= 0x80) text[size++] = (char)(0x80 | (code & 0x3f));
        bool surrogate = code >= 0xd800 && code < 0xe000;
        assert_int_equal(utf8_first_bad(text, size), surrogate ? 0 : size);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_are_their_own_ids),
        cmocka_unit_test(ids_without_text_are_empty),
        cmocka_unit_test(special_text_stays_text),
        cmocka_unit_test(small_room_tells_the_need),
        cmocka_unit_test(file_has_the_known_alphabet),
        cmocka_unit_test(saving_and_loading_agree),
        cmocka_unit_test(other_assignments_are_read),
        cmocka_unit_test(file_may_lack_end_of_text),
        cmocka_unit_test(foreign_files_are_refused),
        cmocka_unit_test(long_tokens_are_refused),
        cmocka_unit_test(broken_text_is_refused),
        cmocka_unit_test(too_many_added_tokens_are_refused),
        cmocka_unit_test(messages_hold_no_control_bytes),
        cmocka_unit_test(utf8_is_judged_as_rfc_3629_says),
        cmocka_unit_test(cuts_spare_characters),
        cmocka_unit_test(every_code_point_is_known),
    };
    return cmocka_run_group_tests(tests, io_folder_make, io_folder_remove);
}
