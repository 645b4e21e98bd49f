/* test_loader.c: batches against examples written out by hand, and the rules of the stream: what is
 * scored, where positions restart, how a stream ends, loops, shuffles and resumes. Random corpora
 * are the business of property/test_loader_laws.c. */
#include "data_files.h"

#include "data/corpus_parts.h"

/* A corpus of documents whose tokens count upwards from 10 d + 1: document 0 is 1 2 3, document 1
 * is 11 12, ... */
static int32_t counted_ids[64][8];

static struct corpus *counted_corpus(const int *lengths, int count)
{
    struct corpus *corpus;
    assert_ok(corpus_create(&corpus, &err), &err);
    for (int d = 0; d < count; d++) {
        for (int i = 0; i < lengths[d]; i++) counted_ids[d][i] = 10 * d + i + 1;
        struct corpus_document document = {
            .tokens = counted_ids[d], .count = lengths[d], .bytes = lengths[d], .width = 4};
        assert_ok(corpus_add(corpus, &document, &err), &err);
    }
    return corpus;
}

static struct loader *create_loader(const struct corpus *corpus,
                                    const struct loader_options *options)
{
    struct loader *loader;
    assert_ok(loader_create(corpus, options, &loader, &err), &err);
    return loader;
}

/* The next batch is exactly this one. Lists of tokens entries; offsets has sequences + 1. */
struct expected {
    int tokens, sequences;
    int32_t ids[16], targets[16], positions[16], offsets[17];
};

static void assert_next(struct loader *loader, const struct expected *expected)
{
    struct batch batch;
    bool more;
    assert_ok(loader_next(loader, &batch, &more, &err), &err);
    assert_true(more);
    assert_int_equal(batch.tokens, expected->tokens);
    assert_int_equal(batch.sequences, expected->sequences);
    size_t size = (size_t)expected->tokens * sizeof(int32_t);
    assert_memory_equal(batch.ids, expected->ids, size);
    assert_memory_equal(batch.targets, expected->targets, size);
    assert_memory_equal(batch.positions, expected->positions, size);
    assert_memory_equal(batch.offsets, expected->offsets,
                        (size_t)(expected->sequences + 1) * sizeof(int32_t));
    assert_true(batch.sequences <= loader_max_sequences(loader));
}

static void assert_end(struct loader *loader)
{
    for (int again = 0; again < 2; again++) {
        struct batch batch;
        bool more = true;
        assert_ok(loader_next(loader, &batch, &more, &err), &err);
        assert_false(more);
        assert_int_equal(batch.tokens, 0);
        assert_int_equal(batch.sequences, 0);
    }
}

/* Documents 1 2 3 | 11 12 | 21 22 23 24, two rows of three tokens, each document apart. The stream
 * is 1 2 3 11 12 21 22 23 24; the last row has only two inputs left. */
static void documents_are_packed_apart(void **state)
{
    (void)state;
    struct corpus *corpus = counted_corpus((int[]){3, 2, 4}, 3);
    struct loader_options options = {.rows = 2, .context = 3, .mask_documents = true};
    struct loader *loader = create_loader(corpus, &options);
    assert_next(
        loader,
        &(struct expected){
            6, 3, {1, 2, 3, 11, 12, 21}, {2, 3, -1, 12, -1, 22}, {0, 1, 2, 0, 1, 0}, {0, 3, 5, 6}});
    /* Document 2 goes on in a new row: its positions restart. */
    assert_next(loader, &(struct expected){2, 1, {22, 23}, {23, 24}, {0, 1}, {0, 2}});
    assert_end(loader);
    loader_destroy(loader);
    corpus_destroy(corpus);
}

static void documents_run_on_without_the_mask(void **state)
{
    (void)state;
    struct corpus *corpus = counted_corpus((int[]){3, 2, 4}, 3);
    struct loader_options options = {.rows = 2, .context = 3};
    struct loader *loader = create_loader(corpus, &options);
    assert_int_equal(loader_max_sequences(loader), 2);
    assert_next(
        loader,
        &(struct expected){
            6, 2, {1, 2, 3, 11, 12, 21}, {2, 3, 11, 12, 21, 22}, {0, 1, 2, 0, 1, 2}, {0, 3, 6}});
    assert_next(loader, &(struct expected){2, 1, {22, 23}, {23, 24}, {0, 1}, {0, 2}});
    assert_end(loader);
    loader_destroy(loader);
    corpus_destroy(corpus);
}

/* A row border in the middle of a document, and a document border in the middle of a row. */
static void borders_of_rows_and_documents_meet(void **state)
{
    (void)state;
    struct corpus *corpus = counted_corpus((int[]){5, 1, 1, 3}, 4);
    struct loader_options options = {.rows = 2, .context = 4, .mask_documents = true};
    struct loader *loader = create_loader(corpus, &options);
    assert_next(loader, &(struct expected){8,
                                           5,
                                           {1, 2, 3, 4, 5, 11, 21, 31},
                                           {2, 3, 4, 5, -1, -1, -1, 32},
                                           {0, 1, 2, 3, 0, 0, 0, 0},
                                           {0, 4, 5, 6, 7, 8}});
    assert_next(loader, &(struct expected){1, 1, {32}, {33}, {0}, {0, 1}});
    assert_end(loader);
    loader_destroy(loader);
    corpus_destroy(corpus);
}

/* Over the end of an epoch the stream goes on with the same documents: 1 2 3 | 11 12 | 1 2 3 | 11
 * 12 | ... */
static void looping_runs_into_the_next_epoch(void **state)
{
    (void)state;
    struct corpus *corpus = counted_corpus((int[]){3, 2}, 2);
    struct loader_options options = {.rows = 1, .context = 4, .mask_documents = true, .loop = true};
    struct loader *loader = create_loader(corpus, &options);
    assert_next(loader,
                &(struct expected){4, 2, {1, 2, 3, 11}, {2, 3, -1, 12}, {0, 1, 2, 0}, {0, 3, 4}});
    struct loader_position at = loader_position(loader);
    assert_int_equal(at.epoch, 0);
    assert_int_equal(at.document, 1);
    assert_int_equal(at.token, 1);
    assert_int_equal(at.tokens_seen, 4);
    assert_next(loader,
                &(struct expected){4, 2, {12, 1, 2, 3}, {-1, 2, 3, -1}, {0, 0, 1, 2}, {0, 1, 4}});
    at = loader_position(loader);
    assert_int_equal(at.epoch, 1);
    assert_int_equal(at.document, 1);
    assert_int_equal(at.token, 0);
    assert_next(loader,
                &(struct expected){4, 2, {11, 12, 1, 2}, {12, -1, 2, 3}, {0, 1, 0, 1}, {0, 2, 4}});
    loader_destroy(loader);
    corpus_destroy(corpus);
}

/* One document of two tokens fills any batch: several epochs in one. */
static void a_corpus_may_be_smaller_than_a_batch(void **state)
{
    (void)state;
    struct corpus *corpus = counted_corpus((int[]){2}, 1);
    struct loader_options options = {.rows = 2, .context = 3, .loop = true};
    struct loader *loader = create_loader(corpus, &options);
    struct expected expected = {
        6, 2, {1, 2, 1, 2, 1, 2}, {2, 1, 2, 1, 2, 1}, {0, 1, 2, 0, 1, 2}, {0, 3, 6}};
    for (int i = 0; i < 5; i++) assert_next(loader, &expected);
    assert_int_equal(loader_position(loader).epoch, 15);
    assert_int_equal(loader_position(loader).tokens_seen, 30);
    loader_destroy(loader);

    options = (struct loader_options){.rows = 2, .context = 3, .mask_documents = true};
    loader = create_loader(corpus, &options);
    assert_next(loader, &(struct expected){1, 1, {1}, {2}, {0}, {0, 1}});
    assert_end(loader);
    loader_destroy(loader);
    corpus_destroy(corpus);
}

static void a_row_may_be_one_token(void **state)
{
    (void)state;
    struct corpus *corpus = counted_corpus((int[]){2, 2}, 2);
    struct loader_options options = {.rows = 3, .context = 1, .mask_documents = true};
    struct loader *loader = create_loader(corpus, &options);
    assert_int_equal(loader_max_sequences(loader), 3);
    assert_next(loader, &(struct expected){3, 3, {1, 2, 11}, {2, -1, 12}, {0, 0, 0}, {0, 1, 2, 3}});
    assert_end(loader);
    loader_destroy(loader);

    options = (struct loader_options){.rows = 1, .context = 1};
    loader = create_loader(corpus, &options);
    assert_next(loader, &(struct expected){1, 1, {1}, {2}, {0}, {0, 1}});
    assert_next(loader, &(struct expected){1, 1, {2}, {11}, {0}, {0, 1}});
    assert_next(loader, &(struct expected){1, 1, {11}, {12}, {0}, {0, 1}});
    assert_end(loader);
    loader_destroy(loader);
    corpus_destroy(corpus);
}

/* From a text file to a batch: the separator ends its document. */
static void the_separator_belongs_to_its_document(void **state)
{
    (void)state;
    const char *path = io_path("two.jsonl");
    io_write_text(path, "{\"text\": \"ab\"}\n{\"text\": \"c\"}\n");
    struct corpus *corpus = load_path(path);
    struct loader_options options = {.rows = 1, .context = 8, .mask_documents = true};
    struct loader *loader = create_loader(corpus, &options);
    assert_next(loader,
                &(struct expected){
                    4, 2, {'a', 'b', 256, 'c'}, {'b', 256, -1, 256}, {0, 1, 2, 0}, {0, 3, 4}});
    assert_end(loader);
    loader_destroy(loader);
    corpus_destroy(corpus);
}

enum { MANY = 40 };

static struct corpus *many_documents(void)
{
    int lengths[MANY];
    for (int d = 0; d < MANY; d++) lengths[d] = 1 + d % 5;
    return counted_corpus(lengths, MANY);
}

/* The documents in the order of one epoch, told by their first tokens. */
static void read_order(const struct corpus *corpus, uint64_t seed, bool shuffle, int64_t epoch,
                       int32_t order[MANY])
{
    struct loader_options options = {.rows = 1, .context = 4096, .seed = seed, .shuffle = shuffle};
    struct loader *loader = create_loader(corpus, &options);
    assert_ok(loader_seek(loader, (struct loader_position){.epoch = epoch}, &err), &err);
    struct batch batch;
    bool more;
    assert_ok(loader_next(loader, &batch, &more, &err), &err);
    int count = 0;
    for (int64_t i = 0; i < batch.tokens; i++)
        if (batch.ids[i] % 10 == 1) order[count++] = batch.ids[i];
    /* The very last token is no input; it is a document where that has one token. */
    int32_t last = batch.targets[batch.tokens - 1];
    if (last % 10 == 1) order[count++] = last;
    assert_int_equal(count, MANY);
    loader_destroy(loader);
}

static void the_order_follows_from_seed_and_epoch(void **state)
{
    (void)state;
    struct corpus *corpus = many_documents();
    int32_t plain[MANY], one[MANY], again[MANY], next[MANY], two[MANY];
    read_order(corpus, 1, false, 3, plain);
    for (int d = 0; d < MANY; d++) assert_int_equal(plain[d], 10 * d + 1);
    read_order(corpus, 1, true, 0, one);
    read_order(corpus, 1, true, 0, again);
    read_order(corpus, 1, true, 1, next);
    read_order(corpus, 2, true, 0, two);
    assert_memory_equal(one, again, sizeof one);
    assert_memory_not_equal(one, plain, sizeof one);
    assert_memory_not_equal(one, next, sizeof one);
    assert_memory_not_equal(one, two, sizeof one);
    assert_memory_not_equal(next, two, sizeof one);
    bool seen[MANY] = {false};
    for (int d = 0; d < MANY; d++) {
        assert_false(seen[one[d] / 10]);
        seen[one[d] / 10] = true;
    }
    corpus_destroy(corpus);
}

/* Over many epochs, each of the six orders of three documents comes about equally often: 100 of
 * 600, with a standard deviation of 9. */
static void every_order_is_as_likely(void **state)
{
    (void)state;
    struct corpus *corpus = counted_corpus((int[]){1, 1, 1}, 3);
    struct loader_options options = {.rows = 1, .context = 2, .seed = 7, .shuffle = true};
    struct loader *loader = create_loader(corpus, &options);
    int counts[3][3] = {{0}};
    for (int64_t epoch = 0; epoch < 600; epoch++) {
        struct batch batch;
        bool more;
        assert_ok(loader_seek(loader, (struct loader_position){.epoch = epoch}, &err), &err);
        assert_ok(loader_next(loader, &batch, &more, &err), &err);
        counts[batch.ids[0] / 10][batch.ids[1] / 10]++;
    }
    for (int first = 0; first < 3; first++)
        for (int second = 0; second < 3; second++)
            if (first != second) assert_in_range(counts[first][second], 60, 140);
    loader_destroy(loader);
    corpus_destroy(corpus);
}

static void impossible_loaders_are_refused(void **state)
{
    (void)state;
    struct corpus *corpus = counted_corpus((int[]){1, 1}, 2),
                  *single = counted_corpus((int[]){1}, 1);
    static const struct {
        struct loader_options options;
        const char *says;
    } rows[] = {
        {{.rows = 0, .context = 4}, "the batch has 0 rows"},
        {{.rows = -1, .context = 4}, "the batch has -1 rows"},
        {{.rows = 4, .context = 0}, "the context is 0 tokens"},
        {{.rows = 65536, .context = 65536}, "has more than 2147483647 tokens"},
        {{.rows = INT64_MAX, .context = INT64_MAX}, "has more than 2147483647 tokens"},
        {{.rows = 1, .context = 4, .mask_documents = true, .loop = true},
         "every one of the 2 documents has a single token"},
    };
    struct loader *loader;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        plx_status status = loader_create(corpus, &rows[i].options, &loader, &err);
        assert_null(loader);
        assert_int_not_equal(status, PLX_OK);
        assert_refused(status, err.status, rows[i].says, &err);
    }
    struct loader_options options = {.rows = 1, .context = 4};
    assert_refused(loader_create(single, &options, &loader, &err), PLX_BAD_DATA,
                   "has 1 tokens but at least 2", &err);
    corpus_destroy(single);
    corpus_destroy(corpus);
}

static void impossible_positions_are_refused(void **state)
{
    (void)state;
    struct corpus *corpus = counted_corpus((int[]){3, 2}, 2);
    struct loader_options options = {.rows = 1, .context = 2, .loop = true};
    struct loader *loader = create_loader(corpus, &options);
    static const struct {
        struct loader_position position;
        const char *says;
    } rows[] = {
        {{-1, 0, 0, 0}, "epoch -1"},
        {{INT64_MAX, 0, 0, 0}, "epoch 9223372036854775807"},
        {{0, 0, 0, -5}, "-5 tokens seen"},
        {{0, 2, 0, 0}, "document 2 but the text has 2"},
        {{0, -1, 0, 0}, "document -1 but the text has 2"},
        {{7, 1, 2, 0}, "token 2 but document 1 of epoch 7 has 2"},
        {{0, 0, -1, 0}, "token -1 but document 0"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        assert_refused(loader_seek(loader, rows[i].position, &err), PLX_BAD_DATA, rows[i].says,
                       &err);
    /* A refused seek moves nothing. */
    assert_next(loader, &(struct expected){2, 1, {1, 2}, {2, 3}, {0, 1}, {0, 2}});
    loader_destroy(loader);
    corpus_destroy(corpus);
}

/* The end of a stream is a position like any other: seeking there ends at once. */
static void the_end_can_be_saved(void **state)
{
    (void)state;
    struct corpus *corpus = counted_corpus((int[]){3, 2}, 2);
    struct loader_options options = {.rows = 2, .context = 4};
    struct loader *loader = create_loader(corpus, &options),
                  *other = create_loader(corpus, &options);
    assert_next(loader,
                &(struct expected){4, 1, {1, 2, 3, 11}, {2, 3, 11, 12}, {0, 1, 2, 3}, {0, 4}});
    assert_end(loader);
    assert_ok(loader_seek(other, loader_position(loader), &err), &err);
    assert_end(other);
    assert_int_equal(loader_position(other).tokens_seen, 4);
    loader_destroy(loader);
    loader_destroy(other);
    corpus_destroy(corpus);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(documents_are_packed_apart),
        cmocka_unit_test(documents_run_on_without_the_mask),
        cmocka_unit_test(borders_of_rows_and_documents_meet),
        cmocka_unit_test(looping_runs_into_the_next_epoch),
        cmocka_unit_test(a_corpus_may_be_smaller_than_a_batch),
        cmocka_unit_test(a_row_may_be_one_token),
        cmocka_unit_test(the_separator_belongs_to_its_document),
        cmocka_unit_test(the_order_follows_from_seed_and_epoch),
        cmocka_unit_test(every_order_is_as_likely),
        cmocka_unit_test(impossible_loaders_are_refused),
        cmocka_unit_test(impossible_positions_are_refused),
        cmocka_unit_test(the_end_can_be_saved),
    };
    return cmocka_run_group_tests(tests, data_setup, data_teardown);
}
