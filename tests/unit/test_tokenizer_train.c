/* test_tokenizer_train.c: learnt merges against the definition: count all pairs of all words anew
 * before every merge, take the most frequent, of equals the one with the lower ids. */
#include "io_files.h"

#include "core/random.h"
#include "tokenizer/parts.h"
#include "tokenizer/train.h"

static struct error err;

enum { TEXT = 3000, MERGES = 120, TOKENS = 256 + MERGES };

/* Words of a small alphabet, so that pairs repeat and overlap ("aaa"). */
static void make_text(struct rng *rng, char *text)
{
    for (int i = 0; i < TEXT; i++)
        text[i] = rng_below(rng, 6) == 0 ? ' ' : (char)('a' + rng_below(rng, 3));
    text[TEXT - 1] = 'a'; /* white space at the end is no word */
}

/* Merges by the definition; spaces begin words and every word is its own. */
static int learn_by_definition(const char *text, struct merge_pair *merges, int min_count)
{
    static int32_t ids[TEXT];
    static bool first[TEXT];
    static int counts[TOKENS][TOKENS];
    int size = TEXT, made = 0;
    for (int i = 0; i < TEXT; i++) {
        ids[i] = (unsigned char)text[i];
        first[i] = text[i] == ' ' && (i == 0 || text[i - 1] != ' ');
    }
    for (; made < MERGES; made++) {
        memset(counts, 0, sizeof counts);
        struct merge_pair best = {0, 0};
        for (int i = 0; i + 1 < size; i++)
            if (!first[i + 1]) counts[ids[i]][ids[i + 1]]++;
        for (int32_t a = 0; a < TOKENS; a++)
            for (int32_t b = 0; b < TOKENS; b++)
                if (counts[a][b] > counts[best.left][best.right]) best = (struct merge_pair){a, b};
        if (counts[best.left][best.right] < min_count) break;
        int used = 0;
        for (int i = 0; i < size; i++) {
            bool both =
                i + 1 < size && !first[i + 1] && ids[i] == best.left && ids[i + 1] == best.right;
            first[used] = first[i];
            ids[used++] = both ? 256 + made : ids[i];
            i += both;
        }
        size = used;
        merges[made] = best;
    }
    return made;
}

/* tokenizer.json of what the trainer learns; the caller frees it. */
static char *learn(const char *const *texts, const size_t *sizes, int count, int64_t merges,
                   int64_t min_count, const char *const *specials, int special_count, int64_t *made)
{
    struct bpe_trainer *trainer;
    struct bpe_training training = {.merges = merges, .min_count = min_count};
    char *json;
    size_t size;
    assert_ok(bpe_trainer_create(NULL, &trainer, &err), &err);
    for (int i = 0; i < count; i++)
        assert_ok(bpe_trainer_add(trainer, texts[i], sizes[i], &err), &err);
    assert_ok(bpe_trainer_run(trainer, &training, made, &err), &err);
    assert_ok(bpe_trainer_format(trainer, specials, special_count, &json, &size, &err), &err);
    bpe_trainer_destroy(trainer);
    return json;
}

static void merges_follow_the_definition(void **state)
{
    (void)state;
    struct rng rng = rng_make(1, 0);
    static char text[TEXT];
    for (int round = 0; round < 5; round++) {
        struct merge_pair merges[MERGES];
        make_text(&rng, text);
        int64_t made;
        const char *texts[] = {text};
        size_t sizes[] = {TEXT}, size;
        char *json = learn(texts, sizes, 1, MERGES, 2 + round, NULL, 0, &made), *expected;
        int wanted = learn_by_definition(text, merges, 2 + round);
        assert_int_equal(made, wanted);
        assert_ok(tokenizer_format(merges, wanted, NULL, 0, NULL, &expected, &size, &err), &err);
        assert_string_equal(json, expected);
        free(expected);
        free(json);
    }
}

static void what_was_learnt_encodes(void **state)
{
    (void)state;
    static const char *const specials[] = {"<|endoftext|>", "<|im_end|>"};
    const char *texts[] = {"low low low lower lowest", " newer newer wider", ""};
    size_t sizes[] = {24, 18, 0};
    int64_t made, count;
    char *json = learn(texts, sizes, 3, 1000, 2, specials, 2, &made);
    struct tokenizer *tokenizer;
    assert_ok(tokenizer_parse(json, strlen(json), "learnt", &tokenizer, &err), &err);
    assert_int_equal(tokenizer_vocab_size(tokenizer), 256 + made + 2);
    assert_int_equal(tokenizer_end_of_text(tokenizer), 256 + made);
    assert_int_equal(tokenizer_added_id(tokenizer, "<|im_end|>"), 257 + made);
    int32_t ids[8];
    assert_ok(tokenizer_encode(tokenizer, " low", 4, ids, 8, &count, &err), &err);
    assert_int_equal(count, 1);
    tokenizer_destroy(tokenizer);
    free(json);
}

static void little_text_gives_few_merges(void **state)
{
    (void)state;
    int64_t made;
    const char *texts[] = {"abc"};
    size_t sizes[] = {3};
    free(learn(texts, sizes, 1, 100, 2, NULL, 0, &made));
    assert_int_equal(made, 0);
    free(learn(texts, sizes, 1, 100, 1, NULL, 0, &made));
    assert_int_equal(made, 2);
    free(learn(texts, sizes, 0, 100, 1, NULL, 0, &made));
    assert_int_equal(made, 0);
}

/* A word without end would be visited for each of its merges. */
static void overlong_words_are_not_counted(void **state)
{
    (void)state;
    static char text[257 + 1 + 256];
    memset(text, 'x', sizeof text);
    text[257] = ' ';
    struct bpe_trainer *trainer;
    assert_ok(bpe_trainer_create("x+", &trainer, &err), &err);
    assert_ok(bpe_trainer_add(trainer, text, 257, &err), &err);
    assert_int_equal(bpe_trainer_words(trainer), 0);
    assert_ok(bpe_trainer_add(trainer, text + 257, 257, &err), &err);
    assert_int_equal(bpe_trainer_words(trainer), 1);
    bpe_trainer_destroy(trainer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(merges_follow_the_definition),
        cmocka_unit_test(what_was_learnt_encodes),
        cmocka_unit_test(little_text_gives_few_merges),
        cmocka_unit_test(overlong_words_are_not_counted),
    };
    return cmocka_run_group_tests_name("training a tokenizer", tests, NULL, NULL);
}
