/* test_corpus.c: text, folders and JSONL into documents; limits, splitting and the fingerprint.
 * Token shards have a test of their own, test_shard.c. */
#include "data_files.h"

#include <math.h>
#include <sys/stat.h>
#include <unistd.h>

static void a_text_is_a_document(void **state)
{
    (void)state;
    const char *path = io_path("a.txt");
    io_write_text(path, "h\xc3\xa9llo\n");
    struct corpus *corpus = load_path(path);
    assert_int_equal(corpus_documents(corpus), 1);
    assert_int_equal(corpus_tokens(corpus), 8);
    assert_int_equal(corpus_bytes(corpus), 7);
    assert_text(corpus, 0, "h\xc3\xa9llo\n", true);
    int32_t ids[3];
    corpus_read(corpus, 0, 5, 3, ids);
    assert_int_equal(ids[0], 'o');
    assert_int_equal(ids[1], '\n');
    assert_int_equal(ids[2], 256);
    corpus_destroy(corpus);
}

static void no_separator_appends_nothing(void **state)
{
    (void)state;
    const char *path = io_path("plain.c");
    io_write_text(path, "int x;");
    struct corpus_options options = data_options(&path, 1);
    options.separator = -1;
    struct corpus *corpus;
    int64_t skipped;
    assert_ok(corpus_load(&options, &corpus, &skipped, &err), &err);
    assert_text(corpus, 0, "int x;", false);
    corpus_destroy(corpus);
}

/* Longer than a piece of encoding, a block of the store, and both together. */
static void large_texts_survive(void **state)
{
    (void)state;
    const size_t sizes[] = {4095, 4096, 4097, 3000000, 5000001};
    const char *paths[5];
    char name[32];
    for (int i = 0; i < 5; i++) {
        char *text = malloc(sizes[i]);
        for (size_t at = 0; at < sizes[i]; at++) text[at] = (char)(1 + (at * 7 + (size_t)i) % 127);
        snprintf(name, sizeof name, "large-%d.txt", i);
        paths[i] = io_path(name);
        io_write(paths[i], text, sizes[i]);
        free(text);
    }
    struct corpus_options options = data_options(paths, 5);
    struct corpus *corpus;
    int64_t skipped;
    assert_ok(corpus_load(&options, &corpus, &skipped, &err), &err);
    assert_int_equal(corpus_documents(corpus), 5);
    for (int i = 0; i < 5; i++) {
        int64_t count = (int64_t)sizes[i] + 1;
        assert_int_equal(corpus_document_tokens(corpus, i), count);
        int32_t *ids = malloc((size_t)count * sizeof *ids);
        corpus_read(corpus, i, 0, count, ids);
        for (int64_t at = 0; at < count - 1; at++)
            if (ids[at] != 1 + (at * 7 + i) % 127) fail_msg("document %d, token %d", i, (int)at);
        assert_int_equal(ids[count - 1], 256);
        free(ids);
    }
    corpus_destroy(corpus);
}

static void what_is_not_text_is_refused_by_offset(void **state)
{
    (void)state;
    const char *path = io_path("nul.txt");
    io_write(path, "abc\0def", 7);
    assert_path_refused(path, "byte 0x00 at offset 3 is NUL");
    path = io_path("latin.txt");
    io_write(path, "caf\xe9 au lait", 12);
    assert_path_refused(path, "byte 0xe9 at offset 3 is not well-formed UTF-8");
    path = io_path("cut.txt");
    io_write(path, "0123456789abcdef\xe2\x82", 18);
    assert_path_refused(path, "offset 16");
}

static void unreadable_paths_are_refused(void **state)
{
    (void)state;
    const char *path = io_path("absent");
    struct corpus_options options = data_options(&path, 1);
    assert_load_refused(&options, PLX_IO_ERROR, "absent: cannot read: No such file");
    path = io_path("pipe");
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_load_refused(&options, PLX_IO_ERROR, "pipe: is a device, pipe or socket");
    path = "";
    assert_load_refused(&options, PLX_INVALID_ARGUMENT, "data path 1 has 0 bytes");
    char *large = malloc(5000);
    memset(large, 'x', 4999);
    large[4999] = '\0';
    path = large;
    assert_load_refused(&options, PLX_INVALID_ARGUMENT, "data path 1 has 4999 bytes");
    free(large);
}

static void empty_results_name_the_paths(void **state)
{
    (void)state;
    const char *paths[2] = {io_path("empty.txt"), io_path("empty-folder")};
    io_write_text(paths[0], "");
    assert_int_equal(mkdir(paths[1], 0700), 0);
    struct corpus_options options = data_options(paths, 2);
    assert_load_refused(&options, PLX_BAD_DATA, "empty.txt, ");
    assert_load_refused(&options, PLX_BAD_DATA, "empty-folder (0 files skipped");
    io_write(io_path("empty-folder/binary"), "\0\0", 2);
    assert_load_refused(&options, PLX_BAD_DATA, "(1 files skipped");
    const char *many[200];
    for (int i = 0; i < 200; i++) many[i] = paths[0];
    options = data_options(many, 200);
    assert_load_refused(&options, PLX_BAD_DATA, " more (0 files skipped");
}

static void impossible_options_are_refused(void **state)
{
    (void)state;
    const char *path = io_path("good.txt");
    io_write_text(path, "good");
    struct corpus_options options = data_options(&path, 0);
    assert_load_refused(&options, PLX_INVALID_ARGUMENT, "no file or folder named");
    options = data_options(&path, 1);
    options.vocab_size = 0;
    assert_load_refused(&options, PLX_INVALID_ARGUMENT, "vocabulary size is 0");
    options.vocab_size = INT64_C(1) << 32;
    assert_load_refused(&options, PLX_INVALID_ARGUMENT, "vocabulary size is 4294967296");
    options.vocab_size = 256;
    options.separator = -1;
    assert_load_refused(&options, PLX_INVALID_ARGUMENT, "has 257 ids but the model's");
    options = data_options(&path, 1);
    options.separator = 50304;
    assert_load_refused(&options, PLX_INVALID_ARGUMENT, "separator is id 50304");
    options.separator = -2;
    assert_load_refused(&options, PLX_INVALID_ARGUMENT, "separator is id -2");
    options = data_options(&path, 1);
    options.max_bytes = -1;
    assert_load_refused(&options, PLX_INVALID_ARGUMENT, "limit of text is -1");
    options = data_options(&path, 1);
    options.tokenizer = NULL;
    assert_load_refused(&options, PLX_INVALID_ARGUMENT, "without a tokenizer");
}

/* Order, hidden entries, binaries, pipes, loops, dangling and doubled links, in one tree:
 *
 *     tree/.hidden  B.txt  a.txt  b/{inner.txt, up -> ..}  b.txt  binary  c -> a.txt  d -> nowhere
 *          e -> ../outside.txt  f -> ../outside.txt  pipe  self -> self  word.bin */
static void folders_are_walked_in_order_once(void **state)
{
    (void)state;
    assert_int_equal(mkdir(io_path("tree"), 0700), 0);
    assert_int_equal(mkdir(io_path("tree/b"), 0700), 0);
    assert_int_equal(mkdir(io_path("tree/.git"), 0700), 0);
    io_write_text(io_path("outside.txt"), "outside");
    io_write_text(io_path("tree/.hidden"), "hidden");
    io_write_text(io_path("tree/.git/config"), "hidden");
    io_write_text(io_path("tree/B.txt"), "B");
    io_write_text(io_path("tree/a.txt"), "a");
    io_write_text(io_path("tree/b/inner.txt"), "inner");
    io_write_text(io_path("tree/b.txt"), "b");
    io_write(io_path("tree/binary"),
             "\x7f"
             "ELF\0",
             5);
    io_write(io_path("tree/word.bin"), "some program's data", 19);
    assert_int_equal(symlink("..", io_path("tree/b/up")), 0);
    assert_int_equal(symlink("a.txt", io_path("tree/c")), 0);
    assert_int_equal(symlink("nowhere", io_path("tree/d")), 0);
    assert_int_equal(symlink("../outside.txt", io_path("tree/e")), 0);
    assert_int_equal(symlink("../outside.txt", io_path("tree/f")), 0);
    assert_int_equal(symlink("self", io_path("tree/self")), 0);
    assert_int_equal(mkfifo(io_path("tree/pipe"), 0600), 0);

    const char *paths[] = {io_path("tree/"), io_path("tree/a.txt")};
    struct corpus_options options = data_options(paths, 2);
    struct corpus *corpus;
    int64_t skipped;
    assert_ok(corpus_load(&options, &corpus, &skipped, &err), &err);
    static const char *const expected[] = {"B", "a", "inner", "b", "outside"};
    assert_int_equal(corpus_documents(corpus), 5);
    for (int d = 0; d < 5; d++) assert_text(corpus, d, expected[d], true);
    assert_int_equal(skipped, 5); /* binary, d, pipe, self, word.bin */
    corpus_destroy(corpus);
}

/* More files than the first table of identities holds; half of them are links to the other half. */
static void many_files_are_read_once(void **state)
{
    (void)state;
    assert_int_equal(mkdir(io_path("many"), 0700), 0);
    char name[64], target[64];
    for (int i = 0; i < 600; i++) {
        snprintf(name, sizeof name, "many/%03d", i);
        snprintf(target, sizeof target, "%03d", i / 2 * 2);
        if (i % 2 == 0)
            io_write_text(io_path(name), target);
        else
            assert_int_equal(symlink(target, io_path(name)), 0);
    }
    struct corpus *corpus = load_path(io_path("many"));
    assert_int_equal(corpus_documents(corpus), 300);
    for (int d = 0; d < 300; d++) {
        snprintf(target, sizeof target, "%03d", 2 * d);
        assert_text(corpus, d, target, true);
    }
    corpus_destroy(corpus);
}

/* A chain of folders as deep as a path can name is refused, and not by a crash. */
static void too_deep_a_folder_is_refused(void **state)
{
    (void)state;
    char here[4096], name[251];
    memset(name, 'n', 250);
    name[250] = '\0';
    assert_non_null(getcwd(here, sizeof here));
    const char *path = io_path("deep");
    assert_int_equal(mkdir(path, 0700), 0);
    assert_int_equal(chdir(path), 0);
    for (int i = 0; i < 20; i++) {
        assert_int_equal(mkdir(name, 0700), 0);
        assert_int_equal(chdir(name), 0);
    }
    assert_int_equal(chdir(here), 0);
    struct corpus_options options = data_options(&path, 1);
    assert_load_refused(&options, PLX_BAD_DATA, "the path is longer than 4095 bytes");
}

static void jsonl_lines_are_documents(void **state)
{
    (void)state;
    const char *path = io_path("good.jsonl");
    io_write_text(path, "{\"text\": \"one\", \"id\": 7}\n"
                        "\n"
                        "  {\"id\": [1, {}], \"text\": \"t\\u00e9\\n\"}  \r\n"
                        "{\"text\": \"\"}\n"
                        "{\"text\": \"last\"}");
    struct corpus *corpus = load_path(path);
    assert_int_equal(corpus_documents(corpus), 3);
    assert_text(corpus, 0, "one", true);
    assert_text(corpus, 1, "t\xc3\xa9\n", true);
    assert_text(corpus, 2, "last", true);
    assert_int_equal(corpus_bytes(corpus), 3 + 4 + 4);
    corpus_destroy(corpus);
}

static void jsonl_field_can_be_named(void **state)
{
    (void)state;
    const char *path = io_path("field.jsonl");
    io_write_text(path, "{\"text\": \"no\", \"content\": \"yes\"}\n");
    struct corpus_options options = data_options(&path, 1);
    options.jsonl_field = "content";
    struct corpus *corpus;
    int64_t skipped;
    assert_ok(corpus_load(&options, &corpus, &skipped, &err), &err);
    assert_text(corpus, 0, "yes", true);
    corpus_destroy(corpus);
    options.jsonl_field = "body";
    assert_load_refused(&options, PLX_BAD_DATA, "field.jsonl:1: the object has no field \"body\"");
}

static void bad_jsonl_lines_are_named(void **state)
{
    (void)state;
    static const struct {
        const char *line, *says;
    } rows[] = {
        {"{\"text\": 5}", "bad.jsonl:3: field \"text\" is not a string"},
        {"{\"text\": null}", "bad.jsonl:3: field \"text\" is not a string"},
        {"{\"txt\": \"a\"}", "bad.jsonl:3: the object has no field \"text\""},
        {"[\"text\"]", "bad.jsonl:3: the line is not an object"},
        {"plain words", "bad.jsonl:3: not valid JSON at byte"},
        {"{\"text\": \"a\"", "bad.jsonl:3: not valid JSON at byte 12"},
        {"{\"text\": \"a\"} {\"text\": \"b\"}", "bad.jsonl:3: not valid JSON at byte"},
        {"{\"text\": \"a\", \"text\": \"b\"}", "duplicate object key"},
        {"{\"text\": \"\xff\"}", "bad.jsonl:3: not valid JSON"},
        {"{\"text\": \"a\\u0000\"}", "bad.jsonl:3: not valid JSON"},
        {"{\"text\": \"\\ud800\"}", "bad.jsonl:3: not valid JSON"},
    };
    const char *path = io_path("bad.jsonl");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char text[256];
        snprintf(text, sizeof text, "{\"text\": \"fine\"}\n\n%s\n{\"text\": \"fine\"}\n",
                 rows[i].line);
        io_write_text(path, text);
        assert_path_refused(path, rows[i].says);
    }
    /* In a folder as well: the name says that it was meant to be read. */
    assert_int_equal(mkdir(io_path("with-jsonl"), 0700), 0);
    io_write_text(io_path("with-jsonl/x.jsonl"), "{}\n");
    assert_path_refused(io_path("with-jsonl"), "x.jsonl:1: the object has no field");
    /* A NUL byte between lines, and a line nested beyond what any text needs. */
    io_write(path, "{\"text\": \"a\"}\n\0\n", 16);
    assert_path_refused(path, "bad.jsonl:2: not valid JSON");
    char *deep = malloc(100001);
    memset(deep, '[', 100000);
    deep[100000] = '\0';
    io_write_text(path, deep);
    free(deep);
    assert_path_refused(path, "bad.jsonl:1: not valid JSON");
}

static struct corpus *load_limited(const char *const *paths, int count, int64_t max_bytes)
{
    struct corpus_options options = data_options(paths, count);
    options.max_bytes = max_bytes;
    struct corpus *corpus;
    int64_t skipped;
    assert_ok(corpus_load(&options, &corpus, &skipped, &err), &err);
    return corpus;
}

static void the_limit_cuts_at_a_character(void **state)
{
    (void)state;
    const char *paths[] = {io_path("first.txt"), io_path("second.txt"), io_path("third.jsonl")};
    io_write_text(paths[0], "abc");
    io_write_text(paths[1], "d\xe2\x82\xac"
                            "e");
    io_write_text(paths[2], "{\"text\": \"xyz\"}\n{\"text\": \"more\"}\nnot looked at\n");
    static const struct {
        int64_t limit, documents, tokens;
        const char *last;
        bool separated;
    } rows[] = {
        {1, 1, 1, "a", false},
        {3, 1, 4, "abc", true},
        {4, 2, 5, "d", false},
        {5, 2, 5, "d", false},
        {6, 2, 5, "d", false},
        {7, 2, 8, "d\xe2\x82\xac", false},
        {8, 2, 10,
         "d\xe2\x82\xac"
         "e",
         true},
        {10, 3, 12, "xy", false},
        {11, 3, 14, "xyz", true},
        {13, 4, 16, "mo", false},
        {15, 4, 19, "more", true},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct corpus *corpus = load_limited(paths, 3, rows[i].limit);
        assert_int_equal(corpus_documents(corpus), rows[i].documents);
        assert_int_equal(corpus_tokens(corpus), rows[i].tokens);
        assert_text(corpus, rows[i].documents - 1, rows[i].last, rows[i].separated);
        corpus_destroy(corpus);
    }
}

/* What is no text stays refused when only a part of it is looked at; what lies behind the limit
 * does not matter. */
static void the_limit_does_not_make_text(void **state)
{
    (void)state;
    const char *path = io_path("limited.dat");
    io_write(path, "ab\x80\x80\x80\x80\x80\x80", 8);
    struct corpus_options options = data_options(&path, 1);
    options.max_bytes = 7;
    assert_load_refused(&options, PLX_BAD_DATA, "byte 0x80 at offset 2");
    struct corpus *corpus = load_limited(&path, 1, 1);
    assert_text(corpus, 0, "a", false);
    corpus_destroy(corpus);
}

/* Marks the first byte of every document, which the tests make unique. */
static void mark_documents(const struct corpus *corpus, unsigned char *seen, unsigned char mark)
{
    for (int64_t d = 0; d < corpus_documents(corpus); d++) {
        int32_t first;
        corpus_read(corpus, d, 0, 1, &first);
        assert_int_equal(seen[first], 0);
        seen[first] = mark;
    }
}

static struct corpus *forty_documents(void)
{
    char text[40 * 32], *end = text;
    for (int i = 0; i < 40; i++) end += sprintf(end, "{\"text\": \"%c document\"}\n", '0' + i);
    const char *path = io_path("forty.jsonl");
    io_write_text(path, text);
    return load_path(path);
}

static void splitting_divides_documents(void **state)
{
    (void)state;
    unsigned char seen[2][256] = {{0}};
    for (int run = 0; run < 3; run++) {
        struct corpus *corpus = forty_documents(), *held_out;
        int64_t tokens = corpus_tokens(corpus), bytes = corpus_bytes(corpus);
        uint64_t seed = run < 2 ? 5 : 6;
        assert_ok(corpus_split(corpus, 0.25, seed, &held_out, &err), &err);
        assert_int_equal(corpus_documents(corpus), 30);
        assert_int_equal(corpus_documents(held_out), 10);
        assert_int_equal(corpus_tokens(corpus) + corpus_tokens(held_out), tokens);
        assert_int_equal(corpus_bytes(corpus) + corpus_bytes(held_out), bytes);
        unsigned char now[256] = {0};
        mark_documents(corpus, now, 1);
        mark_documents(held_out, now, 2);
        if (run == 0) memcpy(seen[0], now, 256);
        if (run == 1) assert_memory_equal(seen[0], now, 256);
        if (run == 2) assert_memory_not_equal(seen[0], now, 256);
        /* Either may go first: the memory is shared. */
        corpus_destroy(run == 0 ? corpus : held_out);
        assert_int_not_equal(corpus_fingerprint(run == 0 ? held_out : corpus), 0);
        corpus_destroy(run == 0 ? held_out : corpus);
    }
}

static void splitting_keeps_at_least_one_document_each(void **state)
{
    (void)state;
    const double fractions[] = {0.001, 0.999};
    for (int i = 0; i < 2; i++) {
        struct corpus *corpus = forty_documents(), *held_out;
        assert_ok(corpus_split(corpus, fractions[i], 1, &held_out, &err), &err);
        assert_int_equal(corpus_documents(corpus), i == 0 ? 39 : 1);
        assert_int_equal(corpus_documents(held_out), i == 0 ? 1 : 39);
        corpus_destroy(corpus);
        corpus_destroy(held_out);
    }
}

static void few_documents_split_at_their_tails(void **state)
{
    (void)state;
    const char *path = io_path("few.jsonl");
    io_write_text(path, "{\"text\": \"0123456789ABCDEFGHI\"}\n{\"text\": \"abc\"}\n");
    struct corpus *corpus = load_path(path), *held_out;
    assert_ok(corpus_split(corpus, 0.3, 1, &held_out, &err), &err);
    /* 20 tokens with the separator, of which 6 are held out; and 4, of which 1. */
    assert_int_equal(corpus_documents(corpus), 2);
    assert_text(corpus, 0, "0123456789ABCD", false);
    assert_text(corpus, 1, "abc", false);
    assert_int_equal(corpus_documents(held_out), 2);
    assert_text(held_out, 0, "EFGHI", true);
    const int32_t separator = 256;
    assert_document(held_out, 1, &separator, 1);
    assert_int_equal(corpus_bytes(corpus), 14 + 3);
    assert_int_equal(corpus_bytes(held_out), 5);
    corpus_destroy(held_out);
    /* What remains lost its separators, and is divided again: 14 tokens into 7 and 7, 3 into 2
     * and 1. */
    assert_ok(corpus_split(corpus, 0.5, 1, &held_out, &err), &err);
    assert_text(corpus, 0, "0123456", false);
    assert_text(held_out, 0, "789ABCD", false);
    assert_int_equal(corpus_bytes(corpus), 7 + 2);
    assert_int_equal(corpus_bytes(held_out), 7 + 1);
    corpus_destroy(corpus);
    corpus_destroy(held_out);
}

static void impossible_splits_leave_the_corpus_alone(void **state)
{
    (void)state;
    const char *path = io_path("short.txt");
    io_write_text(path, "abc");
    struct corpus *corpus = load_path(path), *held_out = corpus;
    const double fractions[] = {0, 1, -0.5, 1.5, (double)NAN};
    for (int i = 0; i < 5; i++) {
        assert_refused(corpus_split(corpus, fractions[i], 1, &held_out, &err), PLX_INVALID_ARGUMENT,
                       "must lie between 0 and 1", &err);
        assert_null(held_out);
    }
    assert_refused(corpus_split(corpus, 0.1, 1, &held_out, &err), PLX_INVALID_ARGUMENT,
                   "leaves nothing to hold out", &err);
    assert_text(corpus, 0, "abc", true);
    assert_int_equal(corpus_bytes(corpus), 3);
    corpus_destroy(corpus);
}

/* Without separators, so that only the borders tell "ab", "c" from "a", "bc". */
static uint64_t fingerprint_of(const char *jsonl)
{
    const char *path = io_path("print.jsonl");
    io_write_text(path, jsonl);
    struct corpus_options options = data_options(&path, 1);
    options.separator = -1;
    struct corpus *corpus;
    int64_t skipped;
    assert_ok(corpus_load(&options, &corpus, &skipped, &err), &err);
    uint64_t hash = corpus_fingerprint(corpus);
    corpus_destroy(corpus);
    return hash;
}

static void the_fingerprint_is_of_the_tokens(void **state)
{
    (void)state;
    uint64_t hash = fingerprint_of("{\"text\": \"ab\"}\n{\"text\": \"c\"}\n");
    assert_true(hash == fingerprint_of("{\"x\": 1, \"text\": \"ab\"}\n{\"text\": \"c\"}\n"));
    assert_true(hash != fingerprint_of("{\"text\": \"ab\"}\n{\"text\": \"d\"}\n"));
    assert_true(hash != fingerprint_of("{\"text\": \"c\"}\n{\"text\": \"ab\"}\n"));
    assert_true(hash != fingerprint_of("{\"text\": \"a\"}\n{\"text\": \"bc\"}\n"));
    assert_true(hash != fingerprint_of("{\"text\": \"ab\"}\n"));
}

/* Ids of a vocabulary beyond 65,536 take four bytes; nothing else may change. */
static void large_vocabularies_keep_their_ids(void **state)
{
    (void)state;
    const char *json_path = io_path("large.json"), *path = io_path("large.txt");
    assert_ok(tokenizer_save(bytes_tokenizer, json_path, &err), &err);
    char *text, *at;
    size_t size;
    assert_ok(file_read_all(json_path, 1 << 20, &text, &size, &err), &err);
    at = strstr(text, "\"id\": 256");
    assert_non_null(at);
    char *json = malloc(size + 2);
    snprintf(json, size + 2, "%.*s\"id\":70000%s", (int)(at - text), text, at + 9);
    struct tokenizer *tokenizer;
    assert_ok(tokenizer_parse(json, strlen(json), "large", &tokenizer, &err), &err);
    io_write_text(path, "large");
    struct corpus_options options = data_options(&path, 1);
    options.tokenizer = tokenizer;
    options.vocab_size = 100000;
    options.separator = 70000;
    struct corpus *corpus;
    int64_t skipped;
    assert_ok(corpus_load(&options, &corpus, &skipped, &err), &err);
    const int32_t expected[] = {'l', 'a', 'r', 'g', 'e', 70000};
    assert_document(corpus, 0, expected, 6);
    corpus_destroy(corpus);
    tokenizer_destroy(tokenizer);
    free(json);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_text_is_a_document),
        cmocka_unit_test(no_separator_appends_nothing),
        cmocka_unit_test(large_texts_survive),
        cmocka_unit_test(what_is_not_text_is_refused_by_offset),
        cmocka_unit_test(unreadable_paths_are_refused),
        cmocka_unit_test(empty_results_name_the_paths),
        cmocka_unit_test(impossible_options_are_refused),
        cmocka_unit_test(folders_are_walked_in_order_once),
        cmocka_unit_test(many_files_are_read_once),
        cmocka_unit_test(too_deep_a_folder_is_refused),
        cmocka_unit_test(jsonl_lines_are_documents),
        cmocka_unit_test(jsonl_field_can_be_named),
        cmocka_unit_test(bad_jsonl_lines_are_named),
        cmocka_unit_test(the_limit_cuts_at_a_character),
        cmocka_unit_test(the_limit_does_not_make_text),
        cmocka_unit_test(splitting_divides_documents),
        cmocka_unit_test(splitting_keeps_at_least_one_document_each),
        cmocka_unit_test(few_documents_split_at_their_tails),
        cmocka_unit_test(impossible_splits_leave_the_corpus_alone),
        cmocka_unit_test(the_fingerprint_is_of_the_tokens),
        cmocka_unit_test(large_vocabularies_keep_their_ids),
    };
    return cmocka_run_group_tests(tests, data_setup, data_teardown);
}
