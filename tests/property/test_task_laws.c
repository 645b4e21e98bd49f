/* test_task_laws.c: what must hold for the scores of any model: they are those of a request alone,
 * whatever shares its batch, and white space at the end of a context belongs to the continuation.
 */
#include "../model_laws.h"

#include "tasks/task_parts.h"

enum { DOCUMENTS = 23, CONTEXT = 48, END = 256 };

/* ---- Random documents ---- */

/* Letters at random; now and then a space. */
static void random_text(struct rng *rng, uint64_t least, uint64_t most, char *text)
{
    uint64_t size = least + rng_below(rng, most - least + 1);
    for (uint64_t i = 0; i < size; i++)
        text[i] = rng_below(rng, 6) == 0 ? ' ' : (char)('a' + rng_below(rng, 3));
    text[size] = '\0';
}

/* Contexts of up to 60 bytes, longer than the model reads, and two to five choices, half of them of
 * two tokens, so that many requests read the same. */
static void random_set(struct rng *rng, const char *ending, struct task_set *set)
{
    char *json = NULL, context[64], choice[32];
    size_t size = 0;
    FILE *out = open_memstream(&json, &size);
    assert_non_null(out);
    for (int d = 0; d < DOCUMENTS; d++) {
        random_text(rng, 0, 60, context);
        fprintf(out, "{\"query\": \"%sx%s\", \"gold\": 1, \"choices\": [", context, ending);
        for (uint64_t c = 0, count = 2 + rng_below(rng, 4); c < count; c++) {
            random_text(rng, 1, rng_below(rng, 2) == 0 ? 1 : 30, choice);
            fprintf(out, "%s\"%s\"", c > 0 ? ", " : "", choice);
        }
        fprintf(out, "]}\n");
    }
    assert_int_equal(fclose(out), 0);
    struct error err = {0};
    if (task_parse(NULL, json, size, "set.jsonl", 0, set, &err) != PLX_OK) fail_msg("%s", err.text);
    free(json);
}

/* ---- Scores ---- */

/* malloc'd, of every choice of every document. */
static struct score *scores_of(struct case_model *m, const struct task_set *set, int64_t rows,
                               int64_t *slots)
{
    struct requests requests;
    struct tokenizer *tokenizer;
    int64_t tokens;
    CASE_OK(m, tokenizer_create_bytes(&tokenizer, &m->err));
    CASE_OK(m, requests_create(set, tokenizer, END, CONTEXT, &requests, &m->err));
    struct score *scores = calloc((size_t)requests.slots, sizeof *scores);
    assert_non_null(scores);
    CASE_OK(m, requests_run(m->model, &requests, rows, NULL, NULL, &tokens, scores, &m->err));
    *slots = requests.slots;
    requests_clear(&requests);
    tokenizer_destroy(tokenizer);
    return scores;
}

/* Every choice in a batch of its own. */
static struct score *scores_alone(struct case_model *m, const struct task_set *set, int64_t slots)
{
    struct score *scores = calloc((size_t)slots, sizeof *scores);
    int64_t slot = 0, one;
    assert_non_null(scores);
    for (int64_t d = 0; d < set->count; d++)
        for (int c = 0; c < set->documents[d].count; c++) {
            struct task_document document = set->documents[d];
            struct task_set single = *set;
            document.choices += c;
            document.count = 1;
            single.documents = &document;
            single.count = 1;
            struct score *score = scores_of(m, &single, 1, &one);
            assert_int_equal(one, 1);
            scores[slot++] = *score;
            free(score);
        }
    assert_int_equal(slot, slots);
    return scores;
}

static void assert_same(const struct score *a, const struct score *b, int64_t slots, double bound)
{
    for (int64_t s = 0; s < slots; s++)
        if (!(fabs(a[s].logprob - b[s].logprob) <= bound * fmax(1, fabs(b[s].logprob))))
            fail_msg("choice %lld: %.17g and %.17g", (long long)s, a[s].logprob, b[s].logprob);
}

/* ---- Laws ---- */

/* The definition gives the same bits in any company; fast products differ by rounding, within what
 * test_model_laws.c allows decoding. */
static const struct {
    const struct ops *ops;
    plx_dtype storage;
    double bound;
} tables[] = {{&ops_ref, PLX_F64, 0}, {&ops_cpu, PLX_F32, 2e-5}};

static void open_model(struct case_model *m, const struct setup *setup, int table, uint64_t seed)
{
    struct model_config config = setup_config(setup);
    config.vocab_size = END + 1;
    case_open(m, &config, tables[table].ops, tables[table].storage, seed);
}

static void test_company(void **state)
{
    const uint64_t seed = case_seed("company");
    static const int64_t rows[] = {1, 3, 200};
    for (int table = 0; table < 2; table++) {
        struct rng rng = rng_make(seed, 3);
        struct case_model m;
        struct task_set set;
        int64_t slots;
        open_model(&m, *state, table, seed);
        random_set(&rng, "", &set);
        struct score *first = scores_of(&m, &set, 8, &slots);
        struct score *alone = scores_alone(&m, &set, slots);
        assert_same(first, alone, slots, tables[table].bound);
        for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
            struct score *other = scores_of(&m, &set, rows[r], &slots);
            assert_same(other, alone, slots, tables[table].bound);
            free(other);
        }
        free(first);
        free(alone);
        task_set_clear(&set);
        case_close(&m);
    }
}

/* "context " + choice is "context" + " choice": with the space moved the texts are the same, so
 * where the delimiter is empty both score the same. */
static void test_trailing_space(void **state)
{
    const uint64_t seed = case_seed("trailing space");
    struct rng rng = rng_make(seed, 4), again = rng;
    struct case_model m;
    struct task_set plain, spaced;
    int64_t slots;
    open_model(&m, *state, 0, seed);
    random_set(&rng, "", &plain);
    random_set(&again, " ", &spaced);
    for (int64_t d = 0; d < spaced.count; d++)
        for (int c = 0; c < spaced.documents[d].count; c++) {
            char *continuation = spaced.documents[d].choices[c].continuation;
            memmove(continuation, continuation + 1, strlen(continuation));
        }
    struct score *a = scores_of(&m, &plain, 4, &slots), *b = scores_of(&m, &spaced, 4, &slots);
    assert_same(a, b, slots, 0);
    free(a);
    free(b);
    task_set_clear(&plain);
    task_set_clear(&spaced);
    case_close(&m);
}

/* What choices have in common, their context and the space behind it, goes through the model once;
 * of each choice then all but its last token. Two documents with one context are two. */
static void test_contexts_are_read_once(void **state)
{
    static const char json[] =
        "{\"query\": \"one two three\", \"gold\": 0, \"choices\": [\"abc\", \"defgh\", \"i\"]}\n"
        "{\"query\": \"one two three\", \"gold\": 0, \"choices\": [\"abc\", \"abd\"]}\n"
        "{\"query\": \"alone\", \"gold\": 0, \"choices\": [\"only\"]}\n";
    const int64_t expected = (13 + 1 + 2 + 4 + 0) + (13 + 1 + 2) + (5 + 1 + 3);
    struct case_model m;
    struct task_set set;
    struct requests requests;
    struct tokenizer *tokenizer;
    struct score scores[6];
    int64_t tokens;
    open_model(&m, *state, 0, case_seed("contexts"));
    if (task_parse(NULL, json, sizeof json - 1, "set.jsonl", 0, &set, &m.err) != PLX_OK)
        fail_msg("%s", m.err.text);
    CASE_OK(&m, tokenizer_create_bytes(&tokenizer, &m.err));
    CASE_OK(&m, requests_create(&set, tokenizer, END, CONTEXT, &requests, &m.err));
    assert_int_equal(requests.slots, 6);
    CASE_OK(&m, requests_run(m.model, &requests, 8, NULL, NULL, &tokens, scores, &m.err));
    assert_int_equal(tokens, expected);
    requests_clear(&requests);
    tokenizer_destroy(tokenizer);
    task_set_clear(&set);
    case_close(&m);
}

/* Keys that would read another place than a token of the batch are refused, and so is all but
 * scoring. */
static void test_wrong_keys_are_refused(void **state)
{
    static const int32_t ids[5] = {1, 2, 3, 4, 5}, positions[5] = {0, 1, 2, 2, 3},
                         offsets[3] = {0, 3, 5}, right[7] = {0, 1, 2, 0, 1, 3, 4},
                         key_offsets[3] = {0, 3, 7};
    struct wrong {
        int32_t place, token, end; /* keys[place] = token; the last offset */
        int64_t reserved;
    };
    static const struct wrong wrongs[] = {{3, 5, 7, 7}, {3, -1, 7, 7}, {5, 4, 7, 7}, {2, 1, 7, 7},
                                          {0, 0, 4, 7}, {0, 0, 7, 6},  {0, 0, 7, 0}};
    const struct score_query query = {4, 7};
    struct score score;
    struct case_model m;
    open_model(&m, *state, 0, 1);
    for (size_t w = 0; w <= sizeof wrongs / sizeof *wrongs; w++) {
        const bool sound = w == sizeof wrongs / sizeof *wrongs;
        int32_t keys[7], ends[3] = {key_offsets[0], key_offsets[1], 7};
        memcpy(keys, right, sizeof keys);
        if (!sound) keys[wrongs[w].place] = wrongs[w].token;
        if (!sound) ends[2] = wrongs[w].end;
        const struct batch batch = {5, 2, ids, ids, positions, offsets, keys, ends, false};
        CASE_OK(&m, model_reserve(m.model, 5, 2, false, RECOMPUTE_NONE, NULL));
        const int64_t reserved = sound ? 7 : wrongs[w].reserved;
        if (reserved > 0) CASE_OK(&m, model_reserve_keys(m.model, reserved));
        plx_status status = model_score(m.model, &batch, &query, 1, &score);
        assert_int_equal(status, sound ? PLX_OK : PLX_INVALID_ARGUMENT);
        error_clear(&m.err);
        if (!sound) continue;
        struct model_loss loss;
        assert_int_equal(model_loss(m.model, &batch, &loss), PLX_INVALID_ARGUMENT);
        assert_non_null(strstr(m.err.text, "share tokens"));
    }
    case_close(&m);
}

int main(void)
{
    static const struct law laws[] = {
        {"scores are those of a request alone", test_company},
        {"a context's last space belongs to the continuation", test_trailing_space},
        {"contexts are read once", test_contexts_are_read_once},
        {"wrong keys are refused", test_wrong_keys_are_refused}};
    enum { LAWS = sizeof laws / sizeof laws[0] };
    static struct law_tests all;
    law_tests_fill(&all, laws, LAWS);
    return _cmocka_run_group_tests("laws of tasks", all.tests, LAWS * SETUPS, NULL, NULL);
}
