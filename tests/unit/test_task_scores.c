/* test_task_scores.c: from documents to figures, with a model whose logits are known.
 *
 * The toy's blocks add nothing, so each token's log-probability is what the head says, whatever
 * stands before it. How texts are split into tokens, cut and counted is checked on the requests. */
#include "../model_case.h"

#include "tasks/task_parts.h"

enum { VOCAB = 257, END = 256 };

struct toy {
    struct case_model m;
    struct tokenizer *tokenizer;
};

/* Log-probabilities of some bytes; all other tokens share the rest. */
static void toy_open(struct toy *toy, const char *bytes, const double *logprobs)
{
    struct model_config config = case_config(1, "softmax");
    config.vocab_size = VOCAB;
    config.tie_embeddings = false;
    config.norm_eps = 1e-30;
    case_open(&toy->m, &config, &ops_ref, PLX_F64, 1);
    double rest = 1, logits[VOCAB];
    const int known = (int)strlen(bytes);
    for (int i = 0; i < known; i++) rest -= exp(logprobs[i]);
    assert_true(rest > 0);
    for (int v = 0; v < VOCAB; v++) logits[v] = log(rest / (VOCAB - known));
    for (int i = 0; i < known; i++) logits[(unsigned char)bytes[i]] = logprobs[i];
    struct param_list *params = model_params(toy->m.model);
    for (int p = 0; p < params->count; p++) {
        const struct plx_tensor *value = &params->items[p].value;
        const bool table = strstr(params->items[p].name, "embed_tokens") != NULL,
                   head = strstr(params->items[p].name, "lm_head") != NULL;
        const int64_t E = config.hidden_size;
        for (int64_t i = 0; value->rank == 2 && i < plx_tensor_count(value); i++)
            case_set(value, i, table && i % E == 0 ? 1 : 0);
        for (int64_t v = 0; head && v < VOCAB; v++)
            case_set(value, v * E, logits[v] / sqrt((double)E));
        for (int64_t i = 0; value->rank == 1 && i < plx_tensor_count(value); i++)
            case_set(value, i, 1);
    }
    CASE_OK(&toy->m, tokenizer_create_bytes(&toy->tokenizer, &toy->m.err));
}

static void toy_close(struct toy *toy)
{
    tokenizer_destroy(toy->tokenizer);
    case_close(&toy->m);
}

static void parse(const char *name, const char *text, struct task_set *set)
{
    struct error err = {0};
    if (task_parse(name, text, strlen(text), "set.jsonl", 0, set, &err) != PLX_OK)
        fail_msg("%s", err.text);
}

static void toy_run(struct toy *toy, const char *name, const char *text, struct task_result *result)
{
    struct task_set set;
    const struct task_options options = {.rows = 2};
    parse(name, text, &set);
    CASE_OK(&toy->m, task_run(toy->m.model, toy->tokenizer, &set, &options, NULL, NULL, result,
                              &toy->m.err));
    task_set_clear(&set);
}

static void assert_metric(const struct task_result *result, int index, const char *name,
                          double value, double error)
{
    struct task_value found;
    assert_true(task_metric(result, index, &found));
    assert_string_equal(found.name, name);
    assert_true(fabs(found.value - value) <= 1e-12 * fmax(1, fabs(value)));
    assert_true(isnan(error) ? isnan(found.error)
                             : fabs(found.error - error) <= 1e-12 * fmax(1, error));
}

/* ---- Choices ---- */

/* -2 and -3 for "a" and "bcd": the sum picks the first, by character the second wins. */
static void test_given_scores(void **state)
{
    (void)state;
    struct task_set set;
    struct task_result result;
    struct error err = {0};
    const struct score scores[] = {{-2, false}, {-3, false}, {-3, false}, {-3, false}};
    parse(NULL,
          "{\"query\": \"q\", \"choices\": [\"a\", \"bcd\"], \"gold\": 0}\n"
          "{\"query\": \"q\", \"choices\": [\"\u00e4\u00e4\", \"abc\"], \"gold\": 0}",
          &set);
    assert_int_equal(task_result_make(set.task, "x", 0, 2, &result, &err), PLX_OK);
    task_result_fill(&set, scores, &result);
    assert_true(result.values[0][0] == 1 && result.values[1][0] == 0 && result.values[2][0] == 0);
    /* Equal sums: the lower index. Three characters against two, but three bytes against four. */
    assert_true(result.values[0][1] == 1 && result.values[1][1] == 0 && result.values[2][1] == 1);
    assert_metric(&result, 1, "acc_norm", 0, 0);
    assert_metric(&result, 2, "acc_bytes", 0.5, 0.5);
    task_result_clear(&result);
    task_set_clear(&set);
}

static void test_choices(void **state)
{
    (void)state;
    struct toy toy;
    struct task_result result;
    toy_open(&toy, " abcd", (const double[]){-1, -3, -5. / 3, -5. / 3, -5. / 3});
    toy_run(&toy, NULL,
            "{\"query\": \"q\", \"choices\": [\"a\", \"bcd\"], \"gold\": 0}\n"
            "{\"query\": \"\", \"choices\": [\"a\", \"bcd\"], \"gold\": 1}\n"
            "{\"query\": \"long query \", \"choices\": [\"a\", \"bcd\"], \"gold\": 0}",
            &result);
    /* -4 against -6, and by character -4 against -2. */
    assert_metric(&result, 0, "acc", 2. / 3, 1. / 3);
    assert_metric(&result, 1, "acc_norm", 1. / 3, 1. / 3);
    assert_metric(&result, 2, "acc_bytes", 1. / 3, 1. / 3);
    task_result_clear(&result);
    toy_close(&toy);
}

/* ---- Last words and whole texts ---- */

static void test_last_word(void **state)
{
    (void)state;
    struct toy toy;
    struct task_result result;
    toy_open(&toy, " a", (const double[]){-0.9, -0.9});
    /* Of the two likeliest tokens the space has the lower id, so it alone is greedy. */
    toy_run(&toy, NULL,
            "{\"context\": \"x\", \"continuation\": \"a\"}\n"
            "{\"context\": \"x\", \"continuation\": \" \"}",
            &result);
    assert_true(result.values[0][0] == 0 && result.values[0][1] == 1);
    task_result_clear(&result);
    toy_run(&toy, "lambada", "{\"text\": \"x a\"}\n{\"text\": \"x aa\"}", &result);
    /* Means of -1.8 and -2.7; the standard error of that mean, times the perplexity. */
    assert_metric(&result, 1, "perplexity", exp(2.25), 0.45 * exp(2.25));
    task_result_clear(&result);
    toy_close(&toy);
}

/* Every token costs the same, so a page's figures are counts. */
static void test_whole_text(void **state)
{
    (void)state;
    struct toy toy;
    struct task_result result;
    char page[256];
    const double cost = -log(0.5);
    toy_open(&toy, "a", &(const double){-cost});
    memset(page, 'a', sizeof page); /* four windows of 64 tokens and some */
    memcpy(page, "{\"page\": \"", 10);
    memcpy(page + 10 + 200, "\"}", 3);
    toy_run(&toy, NULL, page, &result);
    /* All windows but the first read the same tokens, so these are read once. */
    assert_int_equal(result.tokens, 64 * 2);
    assert_metric(&result, 0, "word_perplexity", exp(200 * cost), NAN);
    assert_metric(&result, 1, "byte_perplexity", 2, NAN);
    assert_metric(&result, 2, "bits_per_byte", 1, NAN);
    task_result_clear(&result);
    toy_close(&toy);
}

/* ---- Requests ---- */

static void make_requests(const char *name, const char *text, int64_t context,
                          struct requests *requests)
{
    struct task_set set;
    struct tokenizer *tokenizer;
    struct error err = {0};
    parse(name, text, &set);
    assert_int_equal(tokenizer_create_bytes(&tokenizer, &err), PLX_OK);
    if (requests_create(&set, tokenizer, END, context, requests, &err) != PLX_OK)
        fail_msg("%s", err.text);
    tokenizer_destroy(tokenizer);
    task_set_clear(&set);
}

/* Expected tokens as bytes; '^' is the token that texts begin with. */
static void assert_request(const struct requests *requests, int64_t r, const char *tokens,
                           int scored)
{
    const struct request *request = &requests->items[r];
    assert_int_equal(request->length + 1, strlen(tokens));
    assert_int_equal(request->scored, scored);
    for (int i = 0; tokens[i] != '\0'; i++)
        assert_int_equal(requests->ids[request->first + i], tokens[i] == '^' ? END : tokens[i]);
}

static void test_split(void **state)
{
    (void)state;
    struct requests requests;
    make_requests(NULL,
                  "{\"context\": \"ab\", \"continuation\": \"cd\"}\n"
                  "{\"context\": \"ab \\n\", \"continuation\": \"cd\"}\n"
                  "{\"context\": \"\", \"continuation\": \"cd\"}\n"
                  "{\"context\": \"  \", \"continuation\": \"cd\"}\n"
                  "{\"context\": \"abcdefgh\", \"continuation\": \"ij\"}",
                  6, &requests);
    assert_request(&requests, 0, "ab cd", 3);
    assert_request(&requests, 1, "ab \n cd", 5);
    assert_request(&requests, 2, "^ cd", 3);
    assert_request(&requests, 3, "^   cd", 5);
    assert_request(&requests, 4, "efgh ij", 3);
    requests_clear(&requests);
}

static void test_windows(void **state)
{
    (void)state;
    struct requests requests;
    make_requests(NULL, "{\"page\": \"abcdefghij\"}\n{\"page\": \"abcd\"}", 4, &requests);
    assert_int_equal(requests.count, 4);
    assert_request(&requests, 0, "^abcd", 4);
    assert_request(&requests, 1, "defgh", 4);
    assert_request(&requests, 2, "fghij", 2);
    assert_request(&requests, 3, "^abcd", 4);
    assert_true(requests.items[2].slot == 0 && requests.items[3].slot == 1);
    requests_clear(&requests);
}

static void test_refused_length(void **state)
{
    (void)state;
    struct task_set set;
    struct tokenizer *tokenizer;
    struct requests requests;
    struct error err = {0};
    parse(NULL, "{\"context\": \"a\", \"continuation\": \"bcde\"}", &set);
    assert_int_equal(tokenizer_create_bytes(&tokenizer, &err), PLX_OK);
    assert_int_equal(requests_create(&set, tokenizer, END, 4, &requests, &err), PLX_BAD_DATA);
    assert_non_null(
        strstr(err.text, "set.jsonl:1: a continuation has 5 tokens but must have 1 to 4"));
    tokenizer_destroy(tokenizer);
    task_set_clear(&set);
}

/* ---- Results of two models ---- */

static void make_result(const char *task, const double *values, int64_t count,
                        struct task_result *result)
{
    struct error err = {0};
    assert_int_equal(task_result_make(task_find(task), "x.jsonl", 7, count, result, &err), PLX_OK);
    memcpy(result->values[0], values, (size_t)count * sizeof *values);
}

/* a alone is right on five documents, b alone on one: P = 2 (1 + 6) / 2^6. */
static void test_compare(void **state)
{
    (void)state;
    const double right[] = {1, 1, 1, 1, 1, 0, 1, 0}, other[] = {0, 0, 0, 0, 0, 1, 1, 0};
    struct task_result a, b;
    struct task_difference difference;
    struct error err = {0};
    make_result("copa", right, 8, &a);
    make_result("copa", other, 8, &b);
    assert_int_equal(task_compare(&a, &b, 0, &difference, &err), PLX_OK);
    assert_true(fabs(difference.p - 14. / 64) < 1e-12);
    assert_true(difference.a == 0.75 && difference.b == 0.25);
    /* Differences are five of 1, one of -1, two of 0, their mean 1/2: squares sum to 4. */
    assert_true(fabs(difference.error - sqrt(4. / 7 / 8)) < 1e-12);
    assert_int_equal(task_compare(&a, &a, 0, &difference, &err), PLX_OK);
    assert_true(difference.p == 1 && difference.error == 0);
    b.hash = 8;
    assert_int_equal(task_compare(&a, &b, 0, &difference, &err), PLX_INVALID_ARGUMENT);
    assert_non_null(strstr(err.text, "were not the same file"));
    task_result_clear(&a);
    task_result_clear(&b);
}

/* What is written reads back as the same; damaged copies are refused. */
static void test_json(void **state)
{
    (void)state;
    static const struct {
        const char *key, *value, *sentence;
    } damages[] = {{"task", "\"none\"", "x: there is no task \"none\""},
                   {"task", "null", "x: task is missing"},
                   {"documents", "4", "x: acc has 3 values but there are 4 documents"},
                   {"documents", "-1", "x: documents is -1 but must be"},
                   {"xxh64", "12", "x: xxh64 is 12 but must be"},
                   {"values", "3", "x: acc has 0 values"},
                   {"values", "{\"acc\": [0, 1, 0.5]}", "x: acc of document 2 is no 0 or 1"},
                   {"values", "{\"acc\": [0, 1, \"a\"]}", "x: acc of document 2 is no 0 or 1"}};
    struct task_result result, back;
    struct error err = {0};
    make_result("copa", (const double[]){1, 0, 1}, 3, &result);
    json_t *object = task_result_write(&result);
    assert_int_equal(task_result_read(object, "x", &back, &err), PLX_OK);
    assert_true(back.hash == 7 && back.task == result.task && back.documents == 3);
    assert_memory_equal(back.values[0], result.values[0], 3 * sizeof(double));
    task_result_clear(&back);
    for (size_t i = 0; i < sizeof damages / sizeof *damages; i++) {
        json_t *copy = json_copy(object);
        json_object_set_new(copy, damages[i].key,
                            json_loads(damages[i].value, JSON_DECODE_ANY, NULL));
        assert_int_equal(task_result_read(copy, "x", &back, &err), PLX_BAD_DATA);
        if (strstr(err.text, damages[i].sentence) == NULL)
            fail_msg("\"%s\" is not in \"%s\"", damages[i].sentence, err.text);
        error_clear(&err);
        json_decref(copy);
    }
    json_decref(object);
    task_result_clear(&result);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_given_scores),
                                       cmocka_unit_test(test_choices),
                                       cmocka_unit_test(test_last_word),
                                       cmocka_unit_test(test_whole_text),
                                       cmocka_unit_test(test_split),
                                       cmocka_unit_test(test_windows),
                                       cmocka_unit_test(test_refused_length),
                                       cmocka_unit_test(test_compare),
                                       cmocka_unit_test(test_json)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
