/* A loader that shuffles rows: every token is an input once an epoch, rows are the rows of the
 * epoch's stream, batches do not depend on how many rows they have, and a stream continues from its
 * position. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "data/data.h"
#include "io/file.h"

/* Documents of these many tokens, separators included; token values count up, so a token tells its
 * place. */
static const int64_t lengths[] = {40, 1, 7, 100, 3, 29};
enum { DOCUMENTS = 6, TOKENS = 180, CONTEXT = 16 };

static char folder[64];
static struct corpus *corpus;

static int setup(void **state)
{
    (void)state;
    struct error err = {0};
    snprintf(folder, sizeof folder, "/tmp/parallax-rows.XXXXXX");
    if (!mkdtemp(folder)) return 1;
    char path[96];
    snprintf(path, sizeof path, "%s/a.plxtok", folder);
    struct shard_writer *writer;
    if (shard_writer_create(path, 1000, &writer, &err) != PLX_OK) return 1;
    int32_t next = 0;
    for (int d = 0; d < DOCUMENTS; d++) {
        int32_t ids[100];
        for (int64_t i = 0; i < lengths[d]; i++) ids[i] = next++;
        if (shard_writer_add(writer, ids, lengths[d], -1, &err) != PLX_OK) return 1;
    }
    if (shard_writer_close(writer, true, &err) != PLX_OK) return 1;
    const char *paths[] = {path};
    struct corpus_options options = {
        .paths = paths, .path_count = 1, .vocab_size = 1000, .separator = -1};
    int64_t skipped;
    return corpus_load(&options, &corpus, &skipped, &err) != PLX_OK;
}

static int teardown(void **state)
{
    (void)state;
    struct error err = {0};
    corpus_destroy(corpus);
    return file_remove_tree(folder, &err) != PLX_OK;
}

static struct loader *make(int64_t rows, bool masked, bool loop)
{
    struct loader_options options = {.rows = rows,
                                     .context = CONTEXT,
                                     .seed = 5,
                                     .shuffle = true,
                                     .shuffle_rows = true,
                                     .mask_documents = masked,
                                     .loop = loop};
    struct loader *loader;
    struct error err = {0};
    assert_int_equal(loader_create(corpus, &options, &loader, &err), PLX_OK);
    return loader;
}

static int document_of(int32_t id)
{
    int64_t end = 0;
    for (int d = 0; d < DOCUMENTS; d++) {
        end += lengths[d];
        if (id < end) return d;
    }
    return -1;
}

static bool is_last_of_document(int32_t id)
{
    return id + 1 == TOKENS || document_of(id) != document_of(id + 1);
}

/* Without masking all tokens but the stream's last are inputs once, and a target follows its input
 * in the text or begins another document. */
static void test_every_token_once(void **state)
{
    (void)state;
    for (int64_t rows = 1; rows <= 20; rows++) {
        struct loader *loader = make(rows, false, false);
        int seen[TOKENS] = {0};
        int64_t inputs = 0;
        struct batch batch;
        struct error err = {0};
        for (bool more = true;;) {
            assert_int_equal(loader_next(loader, &batch, &more, &err), PLX_OK);
            if (!more) break;
            assert_true(batch.sequences <= loader_max_sequences(loader));
            for (int64_t n = 0; n < batch.tokens; n++) {
                int32_t id = batch.ids[n], target = batch.targets[n];
                seen[id]++;
                inputs++;
                if (is_last_of_document(id))
                    assert_true(target == 0 || document_of(target - 1) != document_of(target));
                else
                    assert_int_equal(target, id + 1);
            }
        }
        assert_int_equal(inputs, TOKENS - 1);
        for (int id = 0; id < TOKENS; id++) assert_true(seen[id] <= 1);
        assert_int_equal(loader_position(loader).tokens_seen, TOKENS - 1);
        loader_destroy(loader);
    }
}

/* Under masking sequences begin at rows and documents, positions count from there, and nothing is
 * predicted across. */
static void test_masks(void **state)
{
    (void)state;
    struct loader *loader = make(4, true, true);
    struct error err = {0};
    for (int round = 0; round < 30; round++) {
        struct batch batch;
        bool more;
        assert_int_equal(loader_next(loader, &batch, &more, &err), PLX_OK);
        assert_true(more && batch.sequences <= loader_max_sequences(loader));
        assert_int_equal(batch.offsets[0], 0);
        assert_int_equal(batch.offsets[batch.sequences], batch.tokens);
        for (int64_t s = 0; s < batch.sequences; s++) {
            int64_t first = batch.offsets[s], end = batch.offsets[s + 1];
            assert_true(first < end && end - first <= CONTEXT);
            for (int64_t n = first; n < end; n++) {
                assert_int_equal(batch.positions[n], n - first);
                assert_int_equal(document_of(batch.ids[n]), document_of(batch.ids[first]));
                assert_int_equal(batch.targets[n],
                                 is_last_of_document(batch.ids[n]) ? -1 : batch.ids[n] + 1);
            }
        }
    }
    loader_destroy(loader);
}

/* Two batches of two rows are one of four: accumulation equals a larger batch. */
static void test_rows_do_not_depend_on_batches(void **state)
{
    (void)state;
    struct loader *small = make(2, true, true), *large = make(4, true, true);
    struct error err = {0};
    for (int round = 0; round < 40; round++) {
        struct batch four, two;
        bool more;
        assert_int_equal(loader_next(large, &four, &more, &err), PLX_OK);
        int64_t start = 0;
        for (int half = 0; half < 2; half++) {
            assert_int_equal(loader_next(small, &two, &more, &err), PLX_OK);
            size_t bytes = (size_t)two.tokens * sizeof(int32_t);
            assert_true(start + two.tokens <= four.tokens);
            assert_memory_equal(two.ids, four.ids + start, bytes);
            assert_memory_equal(two.targets, four.targets + start, bytes);
            assert_memory_equal(two.positions, four.positions + start, bytes);
            start += two.tokens;
        }
        assert_int_equal(start, four.tokens);
    }
    loader_destroy(small);
    loader_destroy(large);
}

static void test_epochs_differ_and_rows_mix(void **state)
{
    (void)state;
    struct loader *loader = make(1, false, true);
    struct error err = {0};
    int32_t first[2][12];
    int jumps = 0;
    for (int epoch = 0; epoch < 2; epoch++)
        for (int row = 0; row < 12; row++) {
            struct batch batch;
            bool more;
            assert_int_equal(loader_next(loader, &batch, &more, &err), PLX_OK);
            first[epoch][row] = batch.ids[0];
            if (row > 0) jumps += first[epoch][row] != first[epoch][row - 1] + CONTEXT;
        }
    assert_int_equal(loader_position(loader).epoch, 1);
    assert_memory_not_equal(first[0], first[1], sizeof first[0]);
    assert_true(jumps > 12);
    loader_destroy(loader);
}

static void test_resume(void **state)
{
    (void)state;
    struct loader *whole = make(3, true, true), *again = make(3, true, true);
    struct error err = {0};
    for (int round = 0; round < 25; round++) {
        struct batch a, b;
        bool more;
        assert_int_equal(loader_seek(again, loader_position(whole), &err), PLX_OK);
        assert_int_equal(loader_next(whole, &a, &more, &err), PLX_OK);
        assert_int_equal(loader_next(again, &b, &more, &err), PLX_OK);
        assert_int_equal(a.tokens, b.tokens);
        assert_memory_equal(a.ids, b.ids, (size_t)a.tokens * sizeof(int32_t));
        assert_memory_equal(a.targets, b.targets, (size_t)a.tokens * sizeof(int32_t));
    }
    struct loader_position beyond = {.document = 13};
    assert_int_equal(loader_seek(again, beyond, &err), PLX_BAD_DATA);
    error_clear(&err);
    struct loader_position within = {.token = 3};
    assert_int_equal(loader_seek(again, within, &err), PLX_BAD_DATA);
    loader_destroy(whole);
    loader_destroy(again);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_token_once),
        cmocka_unit_test(test_masks),
        cmocka_unit_test(test_rows_do_not_depend_on_batches),
        cmocka_unit_test(test_epochs_differ_and_rows_mix),
        cmocka_unit_test(test_resume),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
