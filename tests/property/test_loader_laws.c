/* test_loader_laws.c: laws that hold for every corpus and every shape of batch, on random ones.
 *
 * Every token of a random corpus has an id of its own, counting up through the documents, so an id
 * tells its document and place, and any stream can be checked without knowing the order of
 * documents:
 *
 *   - well formed: offsets, positions and targets of every batch follow the rules of data.h,
 * naively evaluated
 *   - an epoch is a permutation of whole documents, and its order does not depend on the shape of
 * batches
 *   - every token is scored exactly once an epoch, except documents' first under mask_documents
 *   - seeking to any batch's position gives the uninterrupted stream from there on
 *
 * Each case prints its seed on failure; --seed N runs the cases from N on. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "data/corpus_parts.h"
#include "seeded.h"

enum { CASES = 2000, MAX_DOCUMENTS = 40, MAX_LENGTH = 30, MAX_TOKENS = MAX_DOCUMENTS * MAX_LENGTH };

static struct error err;

static void assert_ok(plx_status status)
{
    if (status != PLX_OK) print_error("%s\n", err.text);
    assert_int_equal(status, PLX_OK);
}

/* ---- Random corpora ---- */

struct random_case {
    uint64_t seed;
    struct corpus *corpus;
    struct loader_options options;
    int64_t documents, tokens;
    int64_t first[MAX_DOCUMENTS + 1]; /* id of every document's first token */
    int64_t document_of[MAX_TOKENS];
    union {
        uint16_t narrow[MAX_TOKENS];
        uint32_t wide[MAX_TOKENS];
    } ids;
};

static bool begins_document(const struct random_case *c, int64_t id)
{
    return c->first[c->document_of[id]] == id;
}

/* Lengths are small or large by turns, so that documents of one token and documents over several
 * rows both occur. */
static void add_documents(struct random_case *c, struct rng *rng)
{
    uint8_t width = rng_below(rng, 2) == 0 ? 2 : 4;
    uint64_t longest = rng_below(rng, 3) == 0 ? 2 : MAX_LENGTH;
    c->tokens = 0;
    for (int64_t d = 0; d < c->documents; d++) {
        int64_t count = 1 + (int64_t)rng_below(rng, longest);
        if (d == 0 && count == 1) count = 2; /* something to predict */
        c->first[d] = c->tokens;
        for (int64_t i = 0; i < count; i++, c->tokens++) {
            if (width == 2)
                c->ids.narrow[c->tokens] = (uint16_t)c->tokens;
            else
                c->ids.wide[c->tokens] = (uint32_t)c->tokens;
            c->document_of[c->tokens] = d;
        }
        struct corpus_document document = {.tokens = (unsigned char *)&c->ids + c->first[d] * width,
                                           .count = count,
                                           .bytes = -1,
                                           .width = width};
        assert_ok(corpus_add(c->corpus, &document, &err));
    }
    c->first[c->documents] = c->tokens;
}

static struct random_case *case_create(uint64_t seed)
{
    struct random_case *c = calloc(1, sizeof *c);
    assert_non_null(c);
    struct rng rng = rng_make(seed, 0x6c617773);
    c->seed = seed;
    assert_ok(corpus_create(&c->corpus, &err));
    c->documents = 1 + (int64_t)rng_below(&rng, rng_below(&rng, 2) == 0 ? 4 : MAX_DOCUMENTS);
    add_documents(c, &rng);
    uint64_t widest = rng_below(&rng, 2) == 0 ? 6 : 50;
    c->options = (struct loader_options){.rows = 1 + (int64_t)rng_below(&rng, 5),
                                         .context = 1 + (int64_t)rng_below(&rng, widest),
                                         .seed = rng_u64(&rng),
                                         .shuffle = rng_below(&rng, 4) > 0,
                                         .mask_documents = rng_below(&rng, 2) == 0,
                                         .loop = rng_below(&rng, 2) == 0};
    return c;
}

static void case_destroy(struct random_case *c)
{
    corpus_destroy(c->corpus);
    free(c);
}

static struct loader *create_loader(const struct random_case *c,
                                    const struct loader_options *options)
{
    struct loader *loader;
    assert_ok(loader_create(c->corpus, options, &loader, &err));
    return loader;
}

static bool next(struct loader *loader, struct batch *batch)
{
    bool more;
    assert_ok(loader_next(loader, batch, &more, &err));
    return more;
}

/* ---- Laws ---- */

/* The token after id in the stream is follower: the same document's next, or some document's first.
 */
static void check_target(const struct random_case *c, int32_t id, int32_t target, int32_t follower)
{
    bool ends = id + 1 == c->tokens || begins_document(c, id + 1);
    if (!ends)
        assert_int_equal(target, id + 1);
    else if (c->options.mask_documents)
        assert_int_equal(target, -1);
    else
        assert_true(begins_document(c, target));
    if (follower >= 0 && target >= 0) assert_int_equal(target, follower);
}

static void check_batch(const struct random_case *c, const struct loader *loader,
                        const struct batch *batch)
{
    int64_t sequence = -1;
    assert_in_range(batch->tokens, 1, c->options.rows * c->options.context);
    assert_in_range(batch->sequences, 1, loader_max_sequences(loader));
    for (int64_t i = 0; i < batch->tokens; i++) {
        bool starts = i % c->options.context == 0 ||
                      (c->options.mask_documents && begins_document(c, batch->ids[i]));
        if (starts) assert_int_equal(batch->offsets[++sequence], i);
        assert_in_range(sequence, 0, batch->sequences - 1);
        assert_int_equal(batch->positions[i], i - batch->offsets[sequence]);
        assert_in_range(batch->ids[i], 0, c->tokens - 1);
        check_target(c, batch->ids[i], batch->targets[i],
                     i + 1 < batch->tokens ? batch->ids[i + 1] : -1);
    }
    assert_int_equal(sequence, batch->sequences - 1);
    assert_int_equal(batch->offsets[batch->sequences], batch->tokens);
}

static void batches_are_well_formed(const struct random_case *c)
{
    struct loader *loader = create_loader(c, &c->options);
    struct batch batch;
    int64_t seen = 0;
    int32_t promised = -1; /* the last target of the batch before */
    for (int i = 0; i < 60 && next(loader, &batch); i++) {
        check_batch(c, loader, &batch);
        if (promised >= 0) assert_int_equal(batch.ids[0], promised);
        promised = batch.targets[batch.tokens - 1];
        seen += batch.tokens;
        assert_int_equal(loader_position(loader).tokens_seen, seen);
    }
    /* Without a loop, everything but the very last token was an input. */
    if (!next(loader, &batch)) assert_int_equal(seen, c->tokens - 1);
    loader_destroy(loader);
}

/* Inputs of the stream, as many as wanted or as there are. */
static int64_t read_inputs(const struct random_case *c, const struct loader_options *options,
                           int64_t wanted, int32_t *inputs)
{
    struct loader *loader = create_loader(c, options);
    struct batch batch;
    int64_t count = 0;
    while (count < wanted && next(loader, &batch))
        for (int64_t i = 0; i < batch.tokens && count < wanted; i++) inputs[count++] = batch.ids[i];
    loader_destroy(loader);
    return count;
}

static void epochs_are_permutations_of_documents(const struct random_case *c)
{
    enum { EPOCHS = 3 };
    static int32_t inputs[EPOCHS * MAX_TOKENS], others[EPOCHS * MAX_TOKENS];
    struct loader_options options = c->options;
    options.loop = true;
    int64_t count = read_inputs(c, &options, EPOCHS * c->tokens, inputs);
    assert_int_equal(count, EPOCHS * c->tokens);
    for (int64_t epoch = 0; epoch < EPOCHS; epoch++) {
        const int32_t *stream = inputs + epoch * c->tokens;
        bool seen[MAX_DOCUMENTS] = {false};
        for (int64_t at = 0, d; at < c->tokens; at += c->first[d + 1] - c->first[d]) {
            d = c->document_of[stream[at]];
            assert_false(seen[d]);
            seen[d] = true;
            for (int64_t i = c->first[d]; i < c->first[d + 1]; i++)
                assert_int_equal(stream[at + i - c->first[d]], i);
        }
    }
    options.rows = 1 + (int64_t)(c->seed % 7);
    options.context = 1 + (int64_t)(c->seed % 11);
    options.mask_documents = !options.mask_documents;
    assert_int_equal(read_inputs(c, &options, EPOCHS * c->tokens, others), count);
    assert_memory_equal(inputs, others, (size_t)count * sizeof *inputs);
}

static void tokens_are_scored_once_an_epoch(const struct random_case *c)
{
    int scored[MAX_TOKENS] = {0};
    struct loader_options options = c->options;
    options.loop = false;
    struct loader *loader = create_loader(c, &options);
    struct batch batch;
    int64_t unscored_firsts = 0;
    while (next(loader, &batch))
        for (int64_t i = 0; i < batch.tokens; i++)
            if (batch.targets[i] >= 0) scored[batch.targets[i]]++;
    for (int64_t id = 0; id < c->tokens; id++) {
        bool first = begins_document(c, id);
        if (first && scored[id] == 0)
            unscored_firsts++;
        else
            assert_int_equal(scored[id], 1);
    }
    assert_int_equal(unscored_firsts, options.mask_documents ? c->documents : 1);
    loader_destroy(loader);
}

static void assert_same_batch(const struct batch *left, const struct batch *right)
{
    assert_int_equal(left->tokens, right->tokens);
    assert_int_equal(left->sequences, right->sequences);
    size_t size = (size_t)left->tokens * sizeof(int32_t);
    assert_memory_equal(left->ids, right->ids, size);
    assert_memory_equal(left->targets, right->targets, size);
    assert_memory_equal(left->positions, right->positions, size);
    assert_memory_equal(left->offsets, right->offsets,
                        (size_t)(left->sequences + 1) * sizeof(int32_t));
}

/* At every batch, a fresh loader is sent to the position and both go on for two batches. */
static void seeking_continues_the_stream(const struct random_case *c)
{
    struct loader *whole = create_loader(c, &c->options), *ahead = create_loader(c, &c->options);
    struct batch left, right;
    for (int i = 0; i < 12; i++) {
        struct loader_position at = loader_position(whole);
        struct loader *fresh = create_loader(c, &c->options);
        assert_ok(loader_seek(fresh, at, &err));
        assert_ok(loader_seek(ahead, at, &err));
        bool more = next(ahead, &left);
        assert_int_equal(next(fresh, &right), more);
        if (more) assert_same_batch(&left, &right);
        assert_int_equal(next(whole, &left), more);
        if (more) assert_same_batch(&left, &right);
        struct loader_position after = loader_position(whole), other = loader_position(fresh);
        assert_memory_equal(&after, &other, sizeof after);
        if (more && next(ahead, &left)) {
            assert_true(next(fresh, &right));
            assert_same_batch(&left, &right);
        }
        loader_destroy(fresh);
    }
    loader_destroy(ahead);
    loader_destroy(whole);
}

/* ---- Running ---- */

static uint64_t first_seed;
static uint64_t running_seed;
static bool running;

static void run(void (*law)(const struct random_case *))
{
    for (uint64_t i = 0; i < CASES; i++) {
        running = true;
        running_seed = first_seed + i;
        struct random_case *c = case_create(running_seed);
        law(c);
        case_destroy(c);
    }
    running = false;
}

/* After a failed law, says how to see it again. */
static int report(void **state)
{
    (void)state;
    if (running) print_error("to repeat: --seed %llu\n", (unsigned long long)running_seed);
    running = false;
    return 0;
}

static void test_well_formed(void **state)
{
    (void)state;
    run(batches_are_well_formed);
}

static void test_permutations(void **state)
{
    (void)state;
    run(epochs_are_permutations_of_documents);
}

static void test_scored_once(void **state)
{
    (void)state;
    run(tokens_are_scored_once_an_epoch);
}

static void test_seeking(void **state)
{
    (void)state;
    run(seeking_continues_the_stream);
}

int main(int argc, char **argv)
{
    first_seed = test_options_read(argc, argv).seed;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_well_formed, report),
        cmocka_unit_test_teardown(test_permutations, report),
        cmocka_unit_test_teardown(test_scored_once, report),
        cmocka_unit_test_teardown(test_seeking, report),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
