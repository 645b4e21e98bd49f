/* test_corpus_chat.c: JSONL lines with chat messages: what of them is a target, in the corpus and
 * in the batches of a loader, and lines that are refused. Rendering itself is test_chat_golden.c's
 * subject. */
#include "data_files.h"

#include "chat/chat.h"

/* Hidden and scored text of a document of bytes, in two strings. */
static void read_chat(const struct corpus *corpus, int64_t d, char hidden[512], char scored[512])
{
    int32_t ids[512];
    int64_t count = corpus_document_tokens(corpus, d);
    assert_in_range(count, 1, 511);
    corpus_read(corpus, d, 0, count, ids);
    for (int64_t i = 0; i < count; i++) {
        char **to = ids[i] < 0 ? &hidden : &scored;
        *(*to)++ = (char)(ids[i] < 0 ? ~ids[i] : ids[i]);
    }
    *hidden = *scored = '\0';
}

static struct corpus_options chat_options(const char *const *path, const char *template)
{
    struct corpus_options options = data_options(path, 1);
    assert_ok(chat_template_by_name(template, &options.chat, &err), &err);
    return options;
}

static const char two_turns[] = "{\"messages\": [{\"role\": \"user\", \"content\": \"ab\"}, "
                                "{\"role\": \"assistant\", \"content\": "
                                "\"c\\u00e9\"}, {\"role\": \"user\", \"content\": \"e\"}, "
                                "{\"role\": \"assistant\", \"content\": "
                                "\"f\"}]}\n{\"text\": \"plain\"}\n";

static void only_the_assistants_words_are_targets(void **state)
{
    (void)state;
    static const struct {
        const char *template, *hidden, *scored;
    } rows[] = {
        {"qwen3",
         "<|im_start|>user\nab<|im_end|>\n<|im_start|>assistant\n\n<|im_start|>user\ne<|im_end|>\n"
         "<|im_start|>assistant\n\n",
         "c\xc3\xa9<|im_end|><think>\n\n</think>\n\nf<|im_end|>"},
        {"llama3",
         "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nab<|eot_id|>"
         "<|start_header_id|>assistant<|end_header_id|>\n\n<|start_header_id|>user<|end_header_id|>"
         "\n\ne<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
         "c\xc3\xa9<|eot_id|>f<|eot_id|>"},
    };
    const char *path = io_path("chat.jsonl");
    io_write_text(path, two_turns);
    for (int i = 0; i < 2; i++) {
        struct corpus_options options = chat_options(&path, rows[i].template);
        struct corpus *corpus;
        int64_t skipped;
        char hidden[512], scored[512];
        assert_ok(corpus_load(&options, &corpus, &skipped, &err), &err);
        assert_int_equal(corpus_documents(corpus), 2);
        read_chat(corpus, 0, hidden, scored);
        assert_string_equal(hidden, rows[i].hidden);
        assert_string_equal(scored, rows[i].scored);
        assert_text(corpus, 1, "plain", true);
        assert_int_equal(corpus_bytes(corpus), 0);
        /* A limit of text that ends within the chat leaves it out, and what follows. */
        options.max_bytes = 20;
        corpus_destroy(corpus);
        assert_load_refused(&options, PLX_BAD_DATA, "no text found");
    }
}

/* The batches of an epoch score each of the assistant's bytes once, and show all bytes. */
static void batches_score_what_the_assistant_says(void **state)
{
    (void)state;
    const char *path = io_path("batches.jsonl");
    io_write_text(path, two_turns);
    struct corpus_options options = chat_options(&path, "qwen3");
    struct corpus *corpus;
    int64_t skipped;
    char hidden[512], scored[512];
    assert_ok(corpus_load(&options, &corpus, &skipped, &err), &err);
    read_chat(corpus, 0, hidden, scored);
    /* Of the second document all is scored but its first token, if documents are masked. */
    int64_t counts[2] = {(int64_t)strlen(scored) + 6, (int64_t)strlen(scored) + 5};
    for (int bits = 0; bits < 4; bits++) {
        struct loader_options how = {
            .rows = 2, .context = 16, .shuffle_rows = bits & 1, .mask_documents = bits & 2};
        struct loader *loader;
        assert_ok(loader_create(corpus, &how, &loader, &err), &err);
        int64_t targets = 0, tokens = 0;
        struct batch batch;
        for (bool more = true; more;) {
            assert_ok(loader_next(loader, &batch, &more, &err), &err);
            for (int64_t n = 0; n < batch.tokens; n++) {
                assert_in_range(batch.ids[n], 0, 256);
                assert_in_range(batch.targets[n] + 1, 0, 257);
                targets += batch.targets[n] >= 0;
            }
            tokens += batch.tokens;
        }
        assert_int_equal(tokens, corpus_tokens(corpus) - 1);
        assert_int_equal(targets, counts[how.mask_documents]);
        loader_destroy(loader);
    }
    corpus_destroy(corpus);
}

static void bad_chats_are_named(void **state)
{
    (void)state;
    static const struct {
        const char *template, *line, *says;
    } rows[] = {
        {"qwen3", "{\"messages\": []}", "bad-chat.jsonl:2: must be a list of messages"},
        {"qwen3", "{\"messages\": 5}", "bad-chat.jsonl:2: must be a list of messages"},
        {"qwen3", "{\"messages\": [5]}", "bad-chat.jsonl:2: messages[0].role is no text"},
        {"qwen3", "{\"messages\": [{\"role\": \"user\"}]}",
         "bad-chat.jsonl:2: messages[0].content must be a text"},
        {"qwen3", "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}]}",
         "bad-chat.jsonl:2: the chat has no turn of an assistant"},
        {"llama3", "{\"messages\": [{\"role\": \"tool\", \"content\": \"a\"}]}",
         "bad-chat.jsonl:2: messages[0]: llama3's chat template has no tools"},
    };
    const char *path = io_path("bad-chat.jsonl");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char text[256];
        struct corpus_options options = chat_options(&path, rows[i].template);
        snprintf(text, sizeof text, "{\"text\": \"fine\"}\n%s\n", rows[i].line);
        io_write_text(path, text);
        plx_status expected = i == 5 ? PLX_UNSUPPORTED : PLX_BAD_DATA;
        assert_load_refused(&options, expected, rows[i].says);
    }
    io_write_text(path, two_turns);
    assert_path_refused(path, "bad-chat.jsonl:1: the line is a chat, but no chat template");
    struct corpus_options options = chat_options(&path, "qwen3");
    options.tokenizer = NULL;
    assert_load_refused(&options, PLX_INVALID_ARGUMENT, "without a tokenizer");
}

/* The part of a chat that is left after a split may hold nothing that the assistant says. */
static void a_corpus_without_targets_is_refused(void **state)
{
    (void)state;
    const char *path = io_path("quiet.jsonl");
    io_write_text(path, "{\"messages\": [{\"role\": \"assistant\", \"content\": \"a\"}, {\"role\": "
                        "\"user\", \"content\": \"a long question, which is never answered\"}]}\n");
    struct corpus_options options = chat_options(&path, "llama3");
    struct corpus *corpus, *held_out;
    int64_t skipped;
    struct loader *loader = NULL;
    struct loader_options how = {.rows = 1, .context = 8, .mask_documents = true, .loop = true};
    assert_ok(corpus_load(&options, &corpus, &skipped, &err), &err);
    assert_ok(corpus_split(corpus, 0.2, 1, &held_out, &err), &err);
    assert_ok(loader_create(corpus, &how, &loader, &err), &err);
    loader_destroy(loader);
    assert_refused(loader_create(held_out, &how, &loader, &err), PLX_BAD_DATA,
                   "is said by an assistant", &err);
    corpus_destroy(held_out);
    corpus_destroy(corpus);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_the_assistants_words_are_targets),
        cmocka_unit_test(batches_score_what_the_assistant_says),
        cmocka_unit_test(bad_chats_are_named),
        cmocka_unit_test(a_corpus_without_targets_is_refused),
    };
    return cmocka_run_group_tests_name("chats in a corpus", tests, data_setup, data_teardown);
}
