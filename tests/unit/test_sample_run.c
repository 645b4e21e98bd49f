/* test_sample_run.c: continuing texts with a small random model: what is drawn is what the full
 * forward pass says, where it stops, and what is refused. The model's vocabulary is larger than the
 * tokenizer's. */
#include "../model_case.h"

#include "sample.h"

enum { VOCAB = 272, BYTE_VOCAB = 257, END_OF_TEXT = 256, CONTEXT = 48 };

struct fixture {
    struct case_model m;
    struct tokenizer *tokenizer;
};

/* What arrived at the sink; it stops the run after limit calls. */
struct received {
    char bytes[CONTEXT + 1];
    size_t size;
    int64_t calls, limit;
};

static bool receive(void *user, const char *bytes, size_t size)
{
    struct received *received = user;
    assert_true(received->size + size <= CONTEXT);
    memcpy(received->bytes + received->size, bytes, size);
    received->size += size;
    received->calls++;
    return received->limit == 0 || received->calls < received->limit;
}

static void open_fixture_of(struct fixture *f, const struct ops *ops, plx_dtype storage,
                            int64_t end_of_text, int64_t context)
{
    struct model_config config = case_config(2, "parallax");
    config.vocab_size = VOCAB;
    config.max_position = context;
    config.bos_id = -1;
    config.end_count = end_of_text >= 0;
    config.end_ids[0] = end_of_text;
    config.layer[1].window = 7;
    f->m = (struct case_model){0};
    /* One thread: at these sizes two would mostly wait for each other. */
    const struct backend_config backend = {
        .ops = ops, .storage = storage, .compute = storage, .threads = 1};
    CASE_OK(&f->m, backend_create(&f->m.be, &backend, &f->m.err));
    CASE_OK(&f->m, model_create(&f->m.be, &config, &f->m.model));
    CASE_OK(&f->m, model_init(f->m.model, 5));
    case_perturb_gains(f->m.model, 5);
    /* Rows of padding that would win every draw if they took part. */
    struct param *table = param_find(model_params(f->m.model), "model.embed_tokens.weight");
    assert_non_null(table);
    for (int64_t e = BYTE_VOCAB * 32; e < VOCAB * 32; e++)
        case_set(&table->value, e, 40.0 * case_get(&table->value, e));
    CASE_OK(&f->m, tokenizer_create_bytes(&f->tokenizer, &f->m.err));
}

static void open_fixture(struct fixture *f, const struct ops *ops, plx_dtype storage,
                         int64_t end_of_text)
{
    open_fixture_of(f, ops, storage, end_of_text, CONTEXT);
}

static void close_fixture(struct fixture *f)
{
    tokenizer_destroy(f->tokenizer);
    case_close(&f->m);
}

static struct sample_options greedy_options(int64_t max_tokens)
{
    struct sample_options options = sample_options_default();
    options.temperature = 0.0;
    options.max_tokens = max_tokens;
    options.ignore_end = true;
    return options;
}

static plx_status run(struct fixture *f, const char *prompt, const struct sample_options *options,
                      struct received *received, struct sample_report *report)
{
    return sample_run(f->m.model, f->tokenizer, prompt, strlen(prompt), options, receive, received,
                      report, &f->m.err);
}

/* Logits after ids by the full forward pass, without a cache. */
static void full_logits(struct fixture *f, const int32_t *ids, int64_t count, float *logits)
{
    int32_t positions[CONTEXT], offsets[2] = {0, (int32_t)count};
    for (int64_t i = 0; i < count; i++) positions[i] = (int32_t)i;
    struct batch batch = {
        .tokens = count, .sequences = 1, .ids = ids, .positions = positions, .offsets = offsets};
    struct model_memory memory;
    CASE_OK(&f->m, model_reserve(f->m.model, count, 1, false, RECOMPUTE_NONE, &memory));
    struct plx_tensor all = case_tensor(f->m.be.storage, 2, (int64_t[]){count, VOCAB});
    CASE_OK(&f->m, model_logits(f->m.model, &batch, &all));
    for (int64_t v = 0; v < VOCAB; v++) logits[v] = (float)case_get(&all, (count - 1) * VOCAB + v);
    free(all.data);
}

/* The greedy continuation by repeated full passes; returns how often padding would have won. */
static int naive_greedy(struct fixture *f, int32_t *ids, int64_t count, int64_t new_tokens)
{
    int padding_ahead = 0;
    for (int64_t n = 0; n < new_tokens; n++) {
        float logits[VOCAB];
        full_logits(f, ids, count, logits);
        int32_t best = 0, best_of_all = 0;
        for (int32_t v = 1; v < VOCAB; v++) {
            if (v < BYTE_VOCAB && logits[v] > logits[best]) best = v;
            if (logits[v] > logits[best_of_all]) best_of_all = v;
        }
        padding_ahead += best_of_all >= BYTE_VOCAB;
        ids[count++] = best;
    }
    return padding_ahead;
}

static void assert_bytes(const struct received *received, const int32_t *ids, int64_t count)
{
    size_t size = 0;
    for (int64_t i = 0; i < count; i++) {
        if (ids[i] == END_OF_TEXT) continue; /* has no bytes */
        assert_true(size < received->size);
        assert_int_equal((unsigned char)received->bytes[size++], ids[i]);
    }
    assert_int_equal(received->size, size);
    assert_int_equal(received->calls, count);
}

static void greedy_equals_the_full_forward_pass(void **unused)
{
    (void)unused;
    const struct {
        const struct ops *ops;
        plx_dtype storage;
    } backends[] = {{&ops_ref, PLX_F64}, {&ops_ref, PLX_F32}, {&ops_cpu, PLX_F32}};
    for (size_t b = 0; b < sizeof backends / sizeof *backends; b++) {
        struct fixture f;
        open_fixture(&f, backends[b].ops, backends[b].storage, -1);
        const char *prompt = "Parallax, that is";
        int64_t length = (int64_t)strlen(prompt), fresh = CONTEXT - length;
        int32_t ids[CONTEXT];
        for (int64_t i = 0; i < length; i++) ids[i] = (unsigned char)prompt[i];
        assert_true(naive_greedy(&f, ids, length, fresh) > fresh / 2);
        struct sample_options options = greedy_options(fresh);
        struct received received = {.limit = 0};
        struct sample_report report;
        CASE_OK(&f.m, run(&f, prompt, &options, &received, &report));
        assert_bytes(&received, ids + length, fresh);
        assert_int_equal(report.prompt_tokens, length);
        assert_int_equal(report.new_tokens, fresh);
        assert_false(report.ended);
        assert_int_equal(f.m.be.scratch.used, 0);
        close_fixture(&f);
    }
}

static void an_empty_prompt_starts_from_end_of_text(void **unused)
{
    (void)unused;
    struct fixture f;
    open_fixture(&f, &ops_ref, PLX_F64, -1);
    int32_t ids[CONTEXT] = {END_OF_TEXT};
    naive_greedy(&f, ids, 1, 6);
    struct sample_options options = greedy_options(6);
    struct received received = {.limit = 0};
    struct sample_report report;
    CASE_OK(&f.m, run(&f, "", &options, &received, &report));
    assert_bytes(&received, ids + 1, 6);
    assert_int_equal(report.prompt_tokens, 1);
    close_fixture(&f);
}

/* With the greedy continuation's fourth token as the model's end, three come out. */
static void an_end_token_stops_and_is_not_printed(void **unused)
{
    (void)unused;
    struct fixture f;
    open_fixture(&f, &ops_ref, PLX_F64, -1);
    int32_t ids[CONTEXT] = {'a', 'b'};
    naive_greedy(&f, ids, 2, 4);
    int64_t before = 0;
    while (ids[2 + before] != ids[5]) before++; /* the token may occur earlier */
    close_fixture(&f);

    open_fixture(&f, &ops_ref, PLX_F64, ids[5]);
    struct sample_options options = greedy_options(10);
    options.ignore_end = false;
    struct received received = {.limit = 0};
    struct sample_report report;
    CASE_OK(&f.m, run(&f, "ab", &options, &received, &report));
    assert_true(report.ended);
    assert_int_equal(report.new_tokens, before);
    assert_bytes(&received, ids + 2, before);

    options.ignore_end = true;
    received = (struct received){.limit = 0};
    CASE_OK(&f.m, run(&f, "ab", &options, &received, &report));
    assert_false(report.ended);
    assert_int_equal(report.new_tokens, 10);
    close_fixture(&f);
}

/* So does the token that ends a turn of a chat. */
static void a_stop_token_ends_the_text(void **unused)
{
    (void)unused;
    struct fixture f;
    open_fixture(&f, &ops_ref, PLX_F64, -1);
    int32_t ids[CONTEXT] = {'a', 'b'};
    naive_greedy(&f, ids, 2, 4);
    int64_t before = 0;
    while (ids[2 + before] != ids[5]) before++;
    struct sample_options options = greedy_options(10);
    options.ignore_end = false;
    options.stop_id = ids[5];
    struct received received = {.limit = 0};
    struct sample_report report;
    CASE_OK(&f.m, run(&f, "ab", &options, &received, &report));
    assert_true(report.ended);
    assert_int_equal(report.new_tokens, before);
    close_fixture(&f);
}

/* The tokenizer's own end of text counts too, whatever the configuration says. */
static void the_tokenizers_end_of_text_stops(void **unused)
{
    (void)unused;
    struct fixture f;
    open_fixture(&f, &ops_ref, PLX_F64, -1);
    struct param *table = param_find(model_params(f.m.model), "model.embed_tokens.weight");
    int32_t ids[CONTEXT] = {'a', 'b'};
    naive_greedy(&f, ids, 2, 1);
    /* Twice the row of the likeliest token is likelier still, as its logit is positive. */
    for (int64_t e = 0; e < 32; e++)
        case_set(&table->value, END_OF_TEXT * 32 + e,
                 2.0 * case_get(&table->value, (int64_t)ids[2] * 32 + e));
    struct sample_options options = greedy_options(5);
    options.ignore_end = false;
    struct received received = {.limit = 0};
    struct sample_report report;
    CASE_OK(&f.m, run(&f, "ab", &options, &received, &report));
    assert_true(report.ended);
    assert_int_equal(report.new_tokens, 0);
    assert_int_equal(received.calls, 0);
    close_fixture(&f);
}

static void seeds_decide_the_text(void **unused)
{
    (void)unused;
    struct fixture f;
    open_fixture(&f, &ops_ref, PLX_F32, -1);
    struct sample_options options = greedy_options(24);
    options.temperature = 1.0;
    options.top_p = 0.99;
    options.repetition_penalty = 1.1;
    struct received first = {.limit = 0}, second = {.limit = 0}, other = {.limit = 0};
    struct sample_report report;
    options.seed = 1;
    CASE_OK(&f.m, run(&f, "seed", &options, &first, &report));
    CASE_OK(&f.m, run(&f, "seed", &options, &second, &report));
    options.seed = 2;
    CASE_OK(&f.m, run(&f, "seed", &options, &other, &report));
    assert_int_equal(first.size, second.size);
    assert_memory_equal(first.bytes, second.bytes, first.size);
    assert_true(first.size != other.size || memcmp(first.bytes, other.bytes, first.size) != 0);
    close_fixture(&f);
}

static void the_sink_may_stop(void **unused)
{
    (void)unused;
    struct fixture f;
    open_fixture(&f, &ops_ref, PLX_F32, -1);
    struct sample_options options = greedy_options(20);
    struct received received = {.limit = 3};
    struct sample_report report;
    CASE_OK(&f.m, run(&f, "stop", &options, &received, &report));
    assert_int_equal(received.calls, 3);
    assert_int_equal(report.new_tokens, 3);
    assert_false(report.ended);
    options.max_tokens = 0;
    received = (struct received){.limit = 0};
    CASE_OK(&f.m, run(&f, "stop", &options, &received, &report));
    assert_int_equal(received.calls, 0);
    assert_int_equal(report.prompt_tokens, 4);
    close_fixture(&f);
}

static void prompts_beyond_the_context_are_refused_with_both_numbers(void **unused)
{
    (void)unused;
    static const struct {
        int64_t prompt, fresh;
        plx_status status;
        const char *first, *second;
    } cases[] = {
        {CONTEXT, 0, PLX_OK, "", ""},
        {CONTEXT - 5, 5, PLX_OK, "", ""},
        {CONTEXT + 1, 0, PLX_INVALID_ARGUMENT, "the prompt has 49 tokens", "48"},
        {CONTEXT - 5, 6, PLX_INVALID_ARGUMENT, "43", "6"},
        {CONTEXT, INT64_MAX, PLX_INVALID_ARGUMENT, "48", "9223372036854775807"},
    };
    struct fixture f;
    open_fixture(&f, &ops_ref, PLX_F32, -1);
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        char prompt[CONTEXT + 2] = {0};
        memset(prompt, 'x', (size_t)cases[c].prompt);
        struct sample_options options = greedy_options(cases[c].fresh);
        struct received received = {.limit = 0};
        struct sample_report report;
        error_clear(&f.m.err);
        assert_int_equal(run(&f, prompt, &options, &received, &report), cases[c].status);
        assert_non_null(strstr(f.m.err.text, cases[c].first));
        assert_non_null(strstr(f.m.err.text, cases[c].second));
        if (cases[c].status != PLX_OK) assert_int_equal(received.calls, 0);
    }
    close_fixture(&f);
}

static void logits_that_are_not_finite_are_refused(void **unused)
{
    (void)unused;
    struct fixture f;
    open_fixture(&f, &ops_ref, PLX_F32, -1);
    struct param *table = param_find(model_params(f.m.model), "model.embed_tokens.weight");
    struct sample_options options = greedy_options(4);
    struct received received = {.limit = 0};
    struct sample_report report;
    /* A row of padding is never looked at; row 200 is, but nothing else reads it. */
    case_set(&table->value, 260 * 32, NAN);
    CASE_OK(&f.m, run(&f, "nan", &options, &received, &report));
    case_set(&table->value, 200 * 32, NAN);
    assert_int_equal(run(&f, "nan", &options, &received, &report), PLX_BAD_DATA);
    assert_non_null(strstr(f.m.err.text, "token 200"));
    close_fixture(&f);
}

static void options_are_checked_first(void **unused)
{
    (void)unused;
    struct fixture f;
    open_fixture(&f, &ops_ref, PLX_F32, -1);
    struct sample_options options = greedy_options(4);
    options.top_p = 2.0;
    struct received received = {.limit = 0};
    struct sample_report report;
    assert_int_equal(run(&f, "x", &options, &received, &report), PLX_INVALID_ARGUMENT);
    assert_non_null(strstr(f.m.err.text, "top-p"));
    close_fixture(&f);
}

/* ---- Several texts ---- */

/* Prompts of all lengths, one of them twice, one empty: each goes on as it would alone. Bits of the
 * reference do not depend on company; the fast table's texts are compared too, whose logits do. */
static void texts_go_on_as_alone(void **unused)
{
    (void)unused;
    static const char *const prompts[] = {"Parallax, that is", "ab", "",
                                          "a longer one, of 28 bytes.", "ab"};
    enum { TEXTS = 5, FRESH = 14 };
    const struct {
        const struct ops *ops;
        plx_dtype storage;
    } backends[] = {{&ops_ref, PLX_F64}, {&ops_ref, PLX_F32}, {&ops_cpu, PLX_F32}};
    for (int b = 0; b < 3; b++)
        for (int greedy = 0; greedy < 2; greedy++) {
            struct fixture f;
            struct sample_request texts[TEXTS];
            struct received together[TEXTS] = {0}, alone[TEXTS] = {0};
            struct sample_options options = greedy_options(FRESH);
            open_fixture(&f, backends[b].ops, backends[b].storage, 17);
            options.temperature = greedy ? 0 : 1.5;
            options.ignore_end = false;
            options.seed = 11;
            for (int t = 0; t < TEXTS; t++)
                texts[t] = (struct sample_request){.prompt = prompts[t],
                                                   .size = strlen(prompts[t]),
                                                   .sink = receive,
                                                   .user = &together[t]};
            together[3].limit = 3; /* this one wants no more than three tokens */
            CASE_OK(&f.m,
                    sample_requests(f.m.model, f.tokenizer, texts, TEXTS, &options, &f.m.err));
            for (int t = 0; t < TEXTS; t++) {
                struct sample_report report;
                alone[t].limit = together[t].limit;
                CASE_OK(&f.m, run(&f, prompts[t], &options, &alone[t], &report));
                options.seed++;
                assert_int_equal(alone[t].size, together[t].size);
                assert_memory_equal(alone[t].bytes, together[t].bytes, alone[t].size);
                assert_int_equal(report.new_tokens, texts[t].report.new_tokens);
                assert_int_equal(report.prompt_tokens, texts[t].report.prompt_tokens);
                assert_int_equal(report.ended, texts[t].report.ended);
            }
            assert_int_equal(f.m.be.scratch.used, 0);
            close_fixture(&f);
        }
}

/* Requests that are told of in their order, whenever each ends. */
struct told {
    struct received received;
    int number, *next;
};

static bool receive_told(void *user, const char *bytes, size_t size)
{
    return receive(&((struct told *)user)->received, bytes, size);
}

static plx_status tell(struct sample_request *request, struct error *err)
{
    struct told *told = request->user;
    assert_int_equal(told->number, *told->next);
    return ++*told->next < 100 ? PLX_OK : error_set(err, PLX_IO_ERROR, "nobody listens");
}

/* Few side by side, or little room in the cache, change when a text goes on, not how. */
static void texts_follow_each_other(void **unused)
{
    (void)unused;
    static const char *const prompts[] = {
        "Parallax", "ab", "a longer one, 30 bytes, almost", "", "seed", "c", "the last of seven"};
    enum { TEXTS = 7, FRESH = 14 };
    static const struct {
        int64_t side, cache_tokens, pages;
    } cases[] = {{0, 0, 7}, {7, 0, 7}, {3, 0, 3}, {1, 0, 1}, {3, 130, 2}, {7, 64, 1}, {9, 9999, 7}};
    struct fixture f;
    struct told alone[TEXTS] = {0};
    open_fixture(&f, &ops_ref, PLX_F64, 17);
    struct sample_options options = greedy_options(FRESH);
    options.temperature = 1.5;
    options.ignore_end = false;
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        struct sample_request texts[TEXTS];
        struct told told[TEXTS] = {0};
        int next = 0;
        options.side = cases[c].side;
        options.cache_tokens = cases[c].cache_tokens;
        for (int t = 0; t < TEXTS; t++) {
            told[t].number = t;
            told[t].next = &next;
            texts[t] = (struct sample_request){.prompt = prompts[t],
                                               .size = strlen(prompts[t]),
                                               .sink = receive_told,
                                               .user = &told[t],
                                               .done = tell};
        }
        CASE_OK(&f.m, sample_requests(f.m.model, f.tokenizer, texts, TEXTS, &options, &f.m.err));
        assert_int_equal(next, TEXTS);
        for (int t = 0; t < TEXTS; t++) {
            if (c == 0) alone[t] = told[t];
            assert_int_equal(alone[t].received.size, told[t].received.size);
            assert_memory_equal(alone[t].received.bytes, told[t].received.bytes,
                                told[t].received.size);
        }
        const struct sample_cache *cache = &texts[TEXTS - 1].report.cache;
        assert_int_equal(cache->page, 64);
        assert_int_equal(cache->pages, cases[c].pages);
        assert_int_equal(cache->taken, cases[c].pages);
        assert_true(cache->apart >= cache->pages && cache->bytes > 0);
    }
    close_fixture(&f);
}

/* Prompts of very different lengths share a pool that is smaller than the longest times all. */
static void a_pool_is_as_large_as_its_texts(void **unused)
{
    (void)unused;
    char prompts[4][200] = {{0}};
    static const int lengths[4] = {190, 3, 60, 10};
    struct fixture f;
    struct sample_request texts[4];
    struct received received[4] = {0};
    open_fixture_of(&f, &ops_ref, PLX_F32, -1, 256);
    struct sample_options options = greedy_options(4);
    for (int t = 0; t < 4; t++) {
        memset(prompts[t], 'a' + t, (size_t)lengths[t]);
        texts[t] = (struct sample_request){.prompt = prompts[t],
                                           .size = strlen(prompts[t]),
                                           .sink = receive,
                                           .user = &received[t]};
    }
    CASE_OK(&f.m, sample_requests(f.m.model, f.tokenizer, texts, 4, &options, &f.m.err));
    assert_int_equal(texts[0].report.cache.pages, 4 + 1 + 1 + 1);
    assert_int_equal(texts[0].report.cache.apart, 4 * 4);
    options.cache_tokens = 255;
    assert_int_equal(sample_requests(f.m.model, f.tokenizer, texts, 4, &options, &f.m.err),
                     PLX_INVALID_ARGUMENT);
    assert_string_equal(f.m.err.text,
                        "--cache-tokens: 255 tokens are 3 pages of 64, but prompt 1 of 190 tokens "
                        "may take 4 with 4 new ones");
    error_clear(&f.m.err);
    options.cache_tokens = -1;
    assert_int_equal(sample_requests(f.m.model, f.tokenizer, texts, 4, &options, &f.m.err),
                     PLX_INVALID_ARGUMENT);
    close_fixture(&f);
}

/* Enough texts that several threads draw. */
static void threads_draw_what_one_draws(void **unused)
{
    (void)unused;
    enum { TEXTS = 256, FRESH = 5 };
    static struct received received[2][TEXTS];
    struct fixture f;
    open_fixture(&f, &ops_ref, PLX_F32, 17);
    struct sample_options options = greedy_options(FRESH);
    options.temperature = 1.5;
    options.repetition_penalty = 1.2;
    for (int i = 0; i < 2; i++) {
        struct sample_request texts[TEXTS];
        f.m.be.threads = i == 0 ? 1 : 3;
        options.top_p = 0.9;
        for (int t = 0; t < TEXTS; t++)
            texts[t] = (struct sample_request){
                .prompt = "a text", .size = 6, .sink = receive, .user = &received[i][t]};
        CASE_OK(&f.m, sample_requests(f.m.model, f.tokenizer, texts, TEXTS, &options, &f.m.err));
    }
    for (int t = 0; t < TEXTS; t++) {
        assert_int_equal(received[0][t].calls, FRESH);
        assert_int_equal(received[0][t].size, received[1][t].size);
        assert_memory_equal(received[0][t].bytes, received[1][t].bytes, received[0][t].size);
    }
    close_fixture(&f);
}

/* ---- Stop strings ---- */

/* Bytes come out as early as they are decided, wherever tokens cut them. */
static void stop_strings_are_found_across_tokens(void **unused)
{
    (void)unused;
    static const struct {
        const char *strings[3], *text, *out;
        bool found;
    } cases[] = {
        {{"end"}, "the end of it", "the ", true},
        {{"end"}, "the en", "the en", false},
        {{"end"}, "e en eend", "e en e", true},
        {{"aab"}, "aaaab", "aa", true},
        {{"abcd", "bc"}, "abcd", "a", true},
        {{"bc", "abc"}, "xabc", "x", true},
        {{"abcd", "x"}, "abcx", "abc", true},
        {{"abab", "bb"}, "ababab", "", true},
        {{"\n\n", "User:"}, "a\nb\nUser: c", "a\nb\n", true},
        {{"ab"}, "", "", false},
    };
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++)
        for (size_t step = 1; step <= 5; step++) {
            struct error err = {0};
            struct stop_filter filter;
            struct received received = {.limit = 0};
            int count = 0;
            while (count < 3 && cases[c].strings[count] != NULL) count++;
            assert_int_equal(stop_filter_open(&filter, cases[c].strings, count, &err), PLX_OK);
            const size_t size = strlen(cases[c].text);
            for (size_t at = 0; at < size; at += step) {
                size_t some = size - at < step ? size - at : step;
                if (!stop_filter_write(&filter, cases[c].text + at, some, receive, &received))
                    break;
                /* What is held back is shorter than the longest string. */
                assert_true(at + some - received.size < 5);
            }
            assert_int_equal(filter.found, cases[c].found);
            stop_filter_end(&filter, receive, &received);
            assert_string_equal(received.bytes, cases[c].out);
            stop_filter_close(&filter);
        }
}

/* A string out of the greedy continuation itself ends it where it begins. */
static void a_stop_string_ends_the_text(void **unused)
{
    (void)unused;
    struct fixture f;
    open_fixture(&f, &ops_ref, PLX_F32, -1);
    struct sample_options options = greedy_options(20);
    struct received whole = {.limit = 0}, cut = {.limit = 0}, limited = {.limit = 0};
    struct sample_report report;
    CASE_OK(&f.m, run(&f, "stop", &options, &whole, &report));
    assert_false(report.stopped);
    char stop[3] = {whole.bytes[9], whole.bytes[10], 0};
    const char *const stops[] = {"never to be seen", stop};
    const char *found = strstr(whole.bytes, stop);
    options.stops = stops;
    options.stop_count = 2;
    CASE_OK(&f.m, run(&f, "stop", &options, &cut, &report));
    assert_true(report.stopped && !report.ended);
    assert_int_equal(cut.size, found - whole.bytes);
    assert_memory_equal(cut.bytes, whole.bytes, cut.size);
    /* Cut off inside the string, its beginning is text after all. */
    options.max_tokens = report.new_tokens - 1;
    CASE_OK(&f.m, run(&f, "stop", &options, &limited, &report));
    assert_false(report.stopped);
    assert_int_equal(limited.size, cut.size + 1);
    options.stops = (const char *const[]){""};
    options.stop_count = 1;
    assert_int_equal(run(&f, "stop", &options, &limited, &report), PLX_INVALID_ARGUMENT);
    close_fixture(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(greedy_equals_the_full_forward_pass),
        cmocka_unit_test(an_empty_prompt_starts_from_end_of_text),
        cmocka_unit_test(an_end_token_stops_and_is_not_printed),
        cmocka_unit_test(a_stop_token_ends_the_text),
        cmocka_unit_test(the_tokenizers_end_of_text_stops),
        cmocka_unit_test(seeds_decide_the_text),
        cmocka_unit_test(the_sink_may_stop),
        cmocka_unit_test(prompts_beyond_the_context_are_refused_with_both_numbers),
        cmocka_unit_test(logits_that_are_not_finite_are_refused),
        cmocka_unit_test(options_are_checked_first),
        cmocka_unit_test(texts_go_on_as_alone),
        cmocka_unit_test(texts_follow_each_other),
        cmocka_unit_test(a_pool_is_as_large_as_its_texts),
        cmocka_unit_test(threads_draw_what_one_draws),
        cmocka_unit_test(stop_strings_are_found_across_tokens),
        cmocka_unit_test(a_stop_string_ends_the_text),
    };
    return cmocka_run_group_tests_name("sample_run", tests, NULL, NULL);
}
