/* data_files.h: what the tests of nn/data share beyond io_files.h: loading with the usual options,
 * writing .bin shards of llm.c, and comparing documents. */
#ifndef TEST_DATA_FILES_H
#define TEST_DATA_FILES_H

#include "io_files.h"

#include "data/data.h"

static struct error err;
static struct tokenizer *bytes_tokenizer;

static inline int data_setup(void **state)
{
    if (tokenizer_create_bytes(&bytes_tokenizer, NULL) != PLX_OK) return -1;
    return io_folder_make(state);
}

static inline int data_teardown(void **state)
{
    tokenizer_destroy(bytes_tokenizer);
    return io_folder_remove(state);
}

static inline struct corpus_options data_options(const char *const *paths, int count)
{
    struct corpus_options options = {.paths = paths,
                                     .path_count = count,
                                     .tokenizer = bytes_tokenizer,
                                     .vocab_size = 50304,
                                     .separator = 256};
    return options;
}

/* Loads one path that must be good. */
static inline struct corpus *load_path(const char *path)
{
    struct corpus_options options = data_options(&path, 1);
    struct corpus *corpus;
    int64_t skipped;
    assert_ok(corpus_load(&options, &corpus, &skipped, &err), &err);
    return corpus;
}

static inline void assert_load_refused(const struct corpus_options *options, plx_status expected,
                                       const char *says)
{
    struct corpus *corpus = (struct corpus *)&err;
    int64_t skipped;
    plx_status status = corpus_load(options, &corpus, &skipped, &err);
    assert_null(corpus);
    assert_refused(status, expected, says, &err);
}

/* The sentence must name the path too. */
static inline void assert_path_refused(const char *path, const char *says)
{
    struct corpus_options options = data_options(&path, 1);
    struct corpus *corpus;
    int64_t skipped;
    plx_status status = corpus_load(&options, &corpus, &skipped, &err);
    if (strstr(err.text, path) == NULL) print_error("'%s' does not name %s\n", err.text, path);
    assert_non_null(strstr(err.text, path));
    assert_refused(status, PLX_BAD_DATA, says, &err);
}

/* Document d holds exactly these ids. */
static inline void assert_document(const struct corpus *corpus, int64_t d, const int32_t *ids,
                                   int64_t count)
{
    int32_t found[512];
    assert_in_range(count, 1, 512);
    assert_int_equal(corpus_document_tokens(corpus, d), count);
    corpus_read(corpus, d, 0, count, found);
    for (int64_t i = 0; i < count; i++) assert_int_equal(found[i], ids[i]);
}

/* Document d holds exactly this text and, where separated, the id 256. */
static inline void assert_text(const struct corpus *corpus, int64_t d, const char *text,
                               bool separated)
{
    int32_t ids[512];
    int64_t count = (int64_t)strlen(text);
    for (int64_t i = 0; i < count; i++) ids[i] = (unsigned char)text[i];
    if (separated) ids[count++] = 256;
    assert_document(corpus, d, ids, count);
}

/* A .bin of llm.c: header of 256 int32 that states tokens, then data of that many bytes. */
static inline void write_bin(const char *path, int32_t magic, int32_t version, int32_t tokens,
                             const void *data, size_t size)
{
    int32_t header[256] = {magic, version, tokens};
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(header, sizeof header, 1, file), 1);
    assert_int_equal(fwrite(data, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
}

#endif
