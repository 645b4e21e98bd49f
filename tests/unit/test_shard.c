/* test_shard.c: token shards: the .bin files of llm.c and modded-nanogpt, and our own .plxtok with
 * its writer, each with every kind of damage. */
#include "data_files.h"

#include "data/shard_format.h"

#include <sys/stat.h>
#include <xxhash.h>

/* ---- llm.c ---- */

static void bin_shards_are_read(void **state)
{
    (void)state;
    const uint16_t narrow[] = {5, 50303, 0};
    const uint32_t wide[] = {5, 50303, 0};
    const int32_t expected[] = {5, 50303, 0};
    for (int i = 0; i < 2; i++) {
        const char *path = io_path(i == 0 ? "gpt2.bin" : "llama3.bin");
        if (i == 0)
            write_bin(path, 20240520, 1, 3, narrow, sizeof narrow);
        else
            write_bin(path, 20240801, 7, 3, wide, sizeof wide);
        struct corpus *corpus = load_path(path);
        assert_int_equal(corpus_documents(corpus), 1);
        assert_document(corpus, 0, expected, 3);
        assert_int_equal(corpus_bytes(corpus), 0);
        corpus_destroy(corpus);
    }
}

/* Shards need no tokenizer, and beside a shard the bytes of text are no longer the whole. */
static void bytes_are_unknown_beside_a_shard(void **state)
{
    (void)state;
    const uint16_t tokens[] = {1, 2};
    const char *paths[] = {io_path("two.bin"), io_path("two.txt")};
    write_bin(paths[0], 20240520, 1, 2, tokens, sizeof tokens);
    io_write_text(paths[1], "xy");
    struct corpus_options options = data_options(paths, 2);
    struct corpus *corpus;
    int64_t skipped;
    assert_ok(corpus_load(&options, &corpus, &skipped, &err), &err);
    assert_int_equal(corpus_tokens(corpus), 5);
    assert_int_equal(corpus_bytes(corpus), 0);
    corpus_destroy(corpus);
    options.path_count = 1;
    options.tokenizer = NULL;
    assert_ok(corpus_load(&options, &corpus, &skipped, &err), &err);
    corpus_destroy(corpus);
}

/* 256 is the separator. Each row: the shard, and the lengths of its documents. */
static void bin_documents_begin_or_end_at_the_separator(void **state)
{
    (void)state;
    static const struct {
        uint16_t tokens[8];
        int count;
        int lengths[5];
        int separator;
    } rows[] = {
        {{256, 1, 2, 256, 3}, 5, {3, 2}, 256},       /* as llm.c writes */
        {{1, 2, 256, 3, 256, 4}, 6, {2, 2, 2}, 256}, /* continues a document of the shard before */
        {{1, 2, 256, 3, 256}, 5, {3, 2}, 256},       /* separators end documents */
        {{256, 1, 256}, 3, {2, 1}, 256},             /* the last document begins at the end */
        {{256, 256, 256}, 3, {1, 1, 1}, 256},        /* empty documents */
        {{256}, 1, {1}, 256},
        {{1, 2, 3}, 3, {3}, 256},
        {{1, 256, 2, 256}, 4, {4}, -1},
    };
    const char *path = io_path("cut.bin");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        write_bin(path, 20240520, 1, rows[i].count, rows[i].tokens,
                  (size_t)rows[i].count * sizeof(uint16_t));
        struct corpus_options options = data_options(&path, 1);
        options.separator = rows[i].separator;
        struct corpus *corpus;
        int64_t skipped;
        assert_ok(corpus_load(&options, &corpus, &skipped, &err), &err);
        int64_t document = 0, at = 0;
        for (; document < 5 && rows[i].lengths[document] > 0; document++) {
            int32_t ids[8];
            for (int t = 0; t < rows[i].lengths[document]; t++) ids[t] = rows[i].tokens[at++];
            assert_document(corpus, document, ids, rows[i].lengths[document]);
        }
        assert_int_equal(at, rows[i].count);
        assert_int_equal(corpus_documents(corpus), document);
        corpus_destroy(corpus);
    }
}

static void damaged_bin_shards_are_refused(void **state)
{
    (void)state;
    static const uint16_t tokens[] = {1, 2, 3};
    static const struct {
        int32_t magic, version, count;
        size_t size; /* bytes of tokens in the file */
        const char *says;
    } rows[] = {
        {20240520, 1, 3, 5, "has 1029 bytes but 3 tokens of 2 bytes and the header make 1030"},
        {20240520, 1, 4, 6, "has 1030 bytes but 4 tokens of 2 bytes and the header make 1032"},
        {20240520, 1, 2, 6, "has 1030 bytes but 2 tokens of 2 bytes and the header make 1028"},
        {20240520, 1, -1, 6, "the header says -1 tokens"},
        {20240520, 1, INT32_MIN, 6, "the header says -2147483648 tokens"},
        {20240520, 1, INT32_MAX, 6, "has 1030 bytes but 2147483647 tokens of 2"},
        {20240520, 2, 3, 6, "version is 2 but a shard of magic 20240520 must have 1"},
        {20240520, 7, 3, 6, "version is 7 but a shard of magic 20240520 must have 1"},
        {20240801, 1, 3, 6, "version is 1 but a shard of magic 20240801 must have 7"},
        {20240801, 7, 3, 6, "has 1030 bytes but 3 tokens of 4 bytes and the header make 1036"},
        {20240522, 1, 3, 6, "is an llm.c evaluation set (magic 20240522)"},
        {20240326, 1, 3, 6, "is no token shard"},
        {0, 1, 3, 6, "is no token shard"},
    };
    const char *path = io_path("damaged.bin");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        write_bin(path, rows[i].magic, rows[i].version, rows[i].count, tokens, rows[i].size);
        assert_path_refused(path, rows[i].says);
    }
    int32_t header[3] = {20240520, 1, 0};
    io_write(path, header, sizeof header);
    assert_path_refused(path, "has 12 bytes but its header alone has 1024");
    io_write(path, header, 3);
    assert_path_refused(path, "is no token shard");
    io_write(path, header, 0);
    assert_path_refused(path, "is no token shard");
    write_bin(path, 20240520, 1, 0, tokens, 0);
    assert_path_refused(path, "no text found in");
}

static void ids_beyond_the_vocabulary_are_named(void **state)
{
    (void)state;
    const uint16_t narrow[] = {1, 2, 50304, 3, 60000};
    const uint32_t wide[] = {1, 0x80000000u};
    const char *path = io_path("ids.bin");
    write_bin(path, 20240520, 1, 5, narrow, sizeof narrow);
    assert_path_refused(path, "token 2 has the id 50304 but the vocabulary has 50304");
    write_bin(path, 20240801, 7, 2, wide, sizeof wide);
    assert_path_refused(path, "token 1 has the id 2147483648 but the vocabulary has 50304");
}

/* What is no shard is passed over in a folder; what is one but damaged is not. */
static void folders_pass_over_foreign_bins_only(void **state)
{
    (void)state;
    const uint16_t tokens[] = {1, 2};
    assert_int_equal(mkdir(io_path("bins"), 0700), 0);
    io_write_text(io_path("bins/other.bin"), "firmware");
    io_write_text(io_path("bins/other.plxtok"), "something");
    write_bin(io_path("bins/train.bin"), 20240520, 1, 2, tokens, sizeof tokens);
    const char *path = io_path("bins");
    struct corpus_options options = data_options(&path, 1);
    struct corpus *corpus;
    int64_t skipped;
    assert_ok(corpus_load(&options, &corpus, &skipped, &err), &err);
    assert_int_equal(corpus_tokens(corpus), 2);
    assert_int_equal(skipped, 2);
    corpus_destroy(corpus);
    write_bin(io_path("bins/val.bin"), 20240520, 1, 3, tokens, sizeof tokens);
    assert_path_refused(path, "val.bin: has 1028 bytes");
    write_bin(io_path("bins/val.bin"), 20240522, 1, 3, tokens, sizeof tokens);
    assert_path_refused(path, "val.bin: is an llm.c evaluation set");
}

/* ---- Ours ---- */

static const int32_t first_ids[] = {7, 50303, 0, 256}, second_ids[] = {9},
                     third_ids[] = {1, 2, 256};

/* Three documents of 4, 1 and 3 tokens and 30, 0 and 12 bytes. */
static void write_plxtok(const char *path, int64_t vocab_size, bool bytes_known)
{
    struct shard_writer *writer;
    int64_t unknown = bytes_known ? 0 : -1;
    assert_ok(shard_writer_create(path, vocab_size, &writer, &err), &err);
    assert_ok(shard_writer_add(writer, first_ids, 4, 30, &err), &err);
    assert_ok(shard_writer_add(writer, second_ids, 1, unknown, &err), &err);
    assert_ok(shard_writer_add(writer, third_ids, 3, 12, &err), &err);
    assert_false(file_exists(path));
    assert_ok(shard_writer_close(writer, true, &err), &err);
    assert_true(file_exists(path));
}

static void own_shards_round_trip(void **state)
{
    (void)state;
    const char *path = io_path("own.plxtok");
    for (int wide = 0; wide < 2; wide++) {
        for (int known = 0; known < 2; known++) {
            write_plxtok(path, wide ? 65537 : 50304, known);
            struct corpus_options options = data_options(&path, 1);
            options.vocab_size = 70000;
            struct corpus *corpus;
            int64_t skipped;
            assert_ok(corpus_load(&options, &corpus, &skipped, &err), &err);
            assert_int_equal(corpus_documents(corpus), 3);
            assert_document(corpus, 0, first_ids, 4);
            assert_document(corpus, 1, second_ids, 1);
            assert_document(corpus, 2, third_ids, 3);
            assert_int_equal(corpus_bytes(corpus), known ? 42 : 0);
            corpus_destroy(corpus);
            assert_int_equal(remove(path), 0);
        }
    }
}

/* A shard made of a text corpus is that corpus: tokens, documents, bytes, and their division by a
 * split. */
static void a_shard_of_a_text_equals_it(void **state)
{
    (void)state;
    const char *text_path = io_path("text.jsonl"), *path = io_path("text.plxtok");
    io_write_text(text_path, "{\"text\": \"some words\"}\n{\"text\": \"and more of them\"}\n");
    struct corpus *text = load_path(text_path), *held[2];
    struct shard_writer *writer;
    assert_ok(shard_writer_create(path, 257, &writer, &err), &err);
    for (int64_t d = 0; d < 2; d++) {
        int32_t ids[32];
        int64_t count = corpus_document_tokens(text, d);
        corpus_read(text, d, 0, count, ids);
        assert_ok(shard_writer_add(writer, ids, count, count - 1, &err), &err);
    }
    assert_ok(shard_writer_close(writer, true, &err), &err);
    struct corpus *shard = load_path(path);
    assert_true(corpus_fingerprint(text) == corpus_fingerprint(shard));
    assert_int_equal(corpus_bytes(text), corpus_bytes(shard));
    assert_ok(corpus_split(text, 0.4, 3, &held[0], &err), &err);
    assert_ok(corpus_split(shard, 0.4, 3, &held[1], &err), &err);
    assert_true(corpus_fingerprint(held[0]) == corpus_fingerprint(held[1]));
    assert_int_equal(corpus_bytes(held[0]), corpus_bytes(held[1]));
    corpus_destroy(text);
    corpus_destroy(shard);
    corpus_destroy(held[0]);
    corpus_destroy(held[1]);
}

static void the_layout_is_as_documented(void **state)
{
    (void)state;
    const char *path = io_path("layout.plxtok");
    write_plxtok(path, 50304, true);
    char *data;
    size_t size;
    assert_ok(file_read_all(path, 4096, &data, &size, &err), &err);
    static const unsigned char header[32] = {'P', 'L', 'X', 'T', 'O',  'K',  '1', 0, 1, 0, 0, 0,
                                             2,   0,   0,   0,   0x80, 0xc4, 0,   0, 0, 0, 0, 0};
    static const unsigned char tokens[16] = {7, 0, 0x7f, 0xc4, 0, 0, 0, 1, 9, 0, 1, 0, 2, 0, 0, 1};
    static const uint64_t rest[] = {0, 0, 4, 30, 5, 30, 8, 42, 8, 3, 42};
    assert_int_equal(size, 32 + 16 + 4 * 16 + 32);
    assert_memory_equal(data, header, 32);
    assert_memory_equal(data + 32, tokens, 16);
    assert_memory_equal(data + 48, rest, sizeof rest);
    uint64_t hash;
    memcpy(&hash, data + size - 8, 8);
    assert_true(hash == XXH64(data, size - 8, 0));
    free(data);
}

/* Whatever single byte changes, whatever is cut off or added: the file is refused. */
static void every_damage_is_noticed(void **state)
{
    (void)state;
    const char *good = io_path("good.plxtok"), *path = io_path("bad.plxtok");
    write_plxtok(good, 50304, true);
    char *data;
    size_t size;
    assert_ok(file_read_all(good, 4096, &data, &size, &err), &err);
    for (size_t at = 0; at < size; at++) {
        data[at] ^= 0x10;
        io_write(path, data, size);
        assert_path_refused(path, "");
        data[at] ^= 0x10;
    }
    for (size_t shorter = 0; shorter < size; shorter++) {
        io_write(path, data, shorter);
        assert_path_refused(path, shorter < 8 ? "is no token shard" : "damaged");
    }
    char longer[512] = {0};
    memcpy(longer, data, size);
    io_write(path, longer, size + 8);
    assert_path_refused(path, "");
    free(data);
}

/* Writes a shard of two documents in which some fields were replaced, with the right hash: what a
 * hostile writer could make. */
struct forged {
    struct shard_header header;
    uint16_t tokens[4];
    struct shard_row table[3];
    struct shard_trailer trailer;
};

static struct forged forge(void)
{
    struct forged file = {
        {SHARD_MAGIC, 1, 2, 300, 0}, {1, 2, 3, 256}, {{0, 0}, {1, 5}, {4, 9}}, {4, 2, 9, 0}};
    return file;
}

static void assert_forged_refused(struct forged *file, const char *says)
{
    const char *path = io_path("forged.plxtok");
    file->trailer.hash = XXH64(file, sizeof *file - 8, 0);
    io_write(path, file, sizeof *file);
    assert_path_refused(path, says);
}

static void forged_shards_are_refused(void **state)
{
    (void)state;
    struct forged file = forge();
    const char *path = io_path("forged.plxtok");
    file.trailer.hash = XXH64(&file, sizeof file - 8, 0);
    io_write(path, &file, sizeof file);
    corpus_destroy(load_path(path)); /* unchanged, it is fine */

    file = forge(), file.header.version = 2;
    assert_forged_refused(&file, "version is 2 but this program reads 1");
    file = forge(), file.header.width = 4;
    assert_forged_refused(&file, "token width is 4 but must be 2 for a vocabulary of 300 tokens");
    file = forge(), file.header.width = 0x20000000;
    assert_forged_refused(&file, "token width is 536870912");
    file = forge(), file.header.reserved = 1;
    assert_forged_refused(&file, "reserved field is 1");
    file = forge(), file.header.vocab_size = 50305;
    assert_forged_refused(&file, "a vocabulary of 50305 tokens but the model's has 50304");
    file = forge(), file.header.vocab_size = 256;
    assert_forged_refused(&file, "token 3 has the id 256 but the vocabulary has 256");
    file = forge(), file.header.vocab_size = 0;
    assert_forged_refused(&file, "token 0 has the id 1 but the vocabulary has 0");
    file = forge(), file.trailer.tokens = UINT64_MAX;
    assert_forged_refused(&file, "do not hold the 18446744073709551615 tokens");
    file = forge(), file.trailer.documents = UINT64_C(1) << 60;
    assert_forged_refused(&file, "do not hold the 4 tokens and 1152921504606846976 documents");
    /* Counts whose sizes wrap around to the right sum. */
    file = forge(), file.trailer.documents = (UINT64_C(1) << 60) + 2;
    assert_forged_refused(&file, "do not hold the 4 tokens and 1152921504606846978 documents");
    file = forge(), file.trailer.tokens = (UINT64_C(1) << 63) + 4;
    assert_forged_refused(&file, "do not hold the 9223372036854775812 tokens");
    file = forge(), file.trailer.tokens = 5;
    assert_forged_refused(&file, "do not hold the 5 tokens");
    file = forge(), file.trailer.tokens = 3; /* the same size after padding */
    assert_forged_refused(&file, "document 1 has the tokens 1 to 4 of 3");
    file = forge(), file.table[0].token = 1;
    assert_forged_refused(&file, "document 0 begins at token 1");
    file = forge(), file.table[1].token = 0;
    assert_forged_refused(&file, "document 0 has the tokens 0 to 0 of 4");
    file = forge(), file.table[1].token = 5;
    assert_forged_refused(&file, "document 0 has the tokens 0 to 5 of 4");
    file = forge(), file.table[2].token = 3;
    assert_forged_refused(&file, "ends at token 3, byte 9 but the file states 4 and 9");
    file = forge(), file.table[1].byte = 10;
    assert_forged_refused(&file, "document 1 has the source bytes 10 to 9");
    file = forge(), file.table[2].byte = file.trailer.bytes = UINT64_MAX;
    assert_forged_refused(&file, "has the source bytes 5 to 18446744073709551615");
    file = forge(), file.trailer.bytes = 8;
    assert_forged_refused(&file, "byte 9 but the file states 4 and 8");
}

/* More documents than the table first holds, and one longer than the buffer that narrows ids. */
static void large_shards_round_trip(void **state)
{
    (void)state;
    const char *path = io_path("large.plxtok");
    static int32_t ids[10000], found[10000];
    struct shard_writer *writer;
    assert_ok(shard_writer_create(path, 50304, &writer, &err), &err);
    for (int i = 0; i < 10000; i++) ids[i] = (i * 37) % 50304;
    for (int d = 0; d < 200; d++)
        assert_ok(shard_writer_add(writer, ids + d, d == 77 ? 9000 : 1 + d % 3, d, &err), &err);
    assert_ok(shard_writer_close(writer, true, &err), &err);
    struct corpus *corpus = load_path(path);
    assert_int_equal(corpus_documents(corpus), 200);
    assert_int_equal(corpus_bytes(corpus), 199 * 200 / 2);
    for (int d = 0; d < 200; d++) {
        int64_t count = d == 77 ? 9000 : 1 + d % 3;
        assert_int_equal(corpus_document_tokens(corpus, d), count);
        corpus_read(corpus, d, 0, count, found);
        assert_memory_equal(found, ids + d, (size_t)count * sizeof *ids);
    }
    corpus_destroy(corpus);
}

static void the_writer_refuses_bad_documents(void **state)
{
    (void)state;
    struct shard_writer *writer;
    const char *path = io_path("refused.plxtok");
    assert_refused(shard_writer_create(path, 0, &writer, &err), PLX_INVALID_ARGUMENT,
                   "vocabulary size is 0", &err);
    assert_null(writer);
    assert_ok(shard_writer_create(path, 10, &writer, &err), &err);
    const int32_t ids[] = {1, 10}, negative[] = {-1};
    assert_refused(shard_writer_add(writer, ids, 2, 0, &err), PLX_INVALID_ARGUMENT,
                   "document 0, token 1: id 10 but must be 0..9", &err);
    assert_refused(shard_writer_add(writer, negative, 1, 0, &err), PLX_INVALID_ARGUMENT,
                   "id -1 but must be", &err);
    assert_refused(shard_writer_add(writer, ids, 0, 0, &err), PLX_INVALID_ARGUMENT,
                   "document 0 has no tokens", &err);
    assert_refused(shard_writer_close(writer, true, &err), PLX_INVALID_ARGUMENT,
                   "no documents to write", &err);
    assert_false(file_exists(path));
    assert_false(file_exists(io_path("refused.plxtok.partial")));
    assert_refused(shard_writer_create(io_path("no/such/folder.plxtok"), 10, &writer, &err),
                   PLX_IO_ERROR, "folder.plxtok", &err);
}

static void discarding_leaves_nothing(void **state)
{
    (void)state;
    struct shard_writer *writer;
    const char *path = io_path("discarded.plxtok");
    assert_ok(shard_writer_create(path, 300, &writer, &err), &err);
    assert_ok(shard_writer_add(writer, third_ids, 3, 3, &err), &err);
    assert_ok(shard_writer_close(writer, false, &err), &err);
    assert_false(file_exists(path));
    assert_false(file_exists(io_path("discarded.plxtok.partial")));
}

/* A full disk at each write-side call in turn: an error and no file, or success and a whole one. */
static void a_full_disk_leaves_nothing_half_written(void **state)
{
    (void)state;
    char path[512], partial[512];
    snprintf(path, sizeof path, "%s", io_path("full.plxtok"));
    snprintf(partial, sizeof partial, "%s", io_path("full.plxtok.partial"));
    const enum file_fault faults[] = {FILE_FAULT_NO_SPACE, FILE_FAULT_IO};
    int failures = 0;
    for (int at = 1; at <= 18; at++) {
        struct shard_writer *writer;
        remove(path);
        file_fault_after(faults[at % 2], at);
        plx_status status = shard_writer_create(path, 300, &writer, &err);
        if (status == PLX_OK) {
            status = shard_writer_add(writer, first_ids + 3, 1, 0, &err);
            if (status == PLX_OK) status = shard_writer_add(writer, third_ids, 3, 3, &err);
            plx_status closed = shard_writer_close(writer, true, &err);
            if (status == PLX_OK) status = closed;
            assert_int_equal(status == PLX_OK, closed == PLX_OK);
        }
        file_fault_after(FILE_FAULT_NONE, 0);
        if (status != PLX_OK) {
            failures++;
            assert_int_equal(status, PLX_IO_ERROR);
            assert_non_null(strstr(err.text, io_folder)); /* the file, or its folder */
            error_clear(&err);
        } else {
            corpus_destroy(load_path(path));
        }
        assert_false(file_exists(partial));
    }
    assert_in_range(failures, 9, 17);
}

static void short_writes_are_completed(void **state)
{
    (void)state;
    const char *path = io_path("slow.plxtok");
    for (int at = 1; at <= 6; at++) {
        file_fault_after(FILE_FAULT_SHORT_WRITE, at);
        remove(path);
        write_plxtok(path, 50304, true);
        file_fault_after(FILE_FAULT_NONE, 0);
        struct corpus *corpus = load_path(path);
        assert_int_equal(corpus_tokens(corpus), 8);
        corpus_destroy(corpus);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bin_shards_are_read),
        cmocka_unit_test(bytes_are_unknown_beside_a_shard),
        cmocka_unit_test(bin_documents_begin_or_end_at_the_separator),
        cmocka_unit_test(damaged_bin_shards_are_refused),
        cmocka_unit_test(ids_beyond_the_vocabulary_are_named),
        cmocka_unit_test(folders_pass_over_foreign_bins_only),
        cmocka_unit_test(own_shards_round_trip),
        cmocka_unit_test(a_shard_of_a_text_equals_it),
        cmocka_unit_test(the_layout_is_as_documented),
        cmocka_unit_test(every_damage_is_noticed),
        cmocka_unit_test(forged_shards_are_refused),
        cmocka_unit_test(large_shards_round_trip),
        cmocka_unit_test(the_writer_refuses_bad_documents),
        cmocka_unit_test(discarding_leaves_nothing),
        cmocka_unit_test(a_full_disk_leaves_nothing_half_written),
        cmocka_unit_test(short_writes_are_completed),
    };
    return cmocka_run_group_tests(tests, data_setup, data_teardown);
}
