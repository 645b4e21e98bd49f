/* test_chat_golden.c: chats against what Jinja makes of the families' own templates
 * (chat/README.md), which templates are known, and every way in which messages can be wrong. */
#include "../unit/io_files.h"

#include "chat/chat.h"

static struct error err;

#define FOLDER SOURCE_FOLDER "/tests/golden/chat/"

/* ---- Recordings ---- */

/* Every assistant's turn is a span that begins behind its header and ends with the turn. */
static void assert_spans(const struct chat_template *family, const struct chat *chat,
                         const char *text, const struct chat_spans *spans)
{
    const char *stop = chat_template_stop(family);
    size_t index, turns = 0, at = 0;
    const json_t *message;
    json_array_foreach(chat->messages, index, message) turns +=
        strcmp(json_string_value(json_object_get(message, "role")), "assistant") == 0;
    assert_int_equal(spans->count, turns);
    for (size_t i = 0; i < spans->count; i++) {
        const struct chat_span *span = &spans->items[i];
        assert_true(at < span->first && span->first + strlen(stop) <= span->end);
        assert_true(span->end <= strlen(text));
        const char *said = strstr(text + at, "assistant");
        bool header = said != NULL && said < text + span->first;
        assert_true(header && text[span->first - 1] == '\n');
        assert_memory_equal(text + span->end - strlen(stop), stop, strlen(stop));
        at = span->end;
    }
}

static void assert_case(const struct chat_template *family, const json_t *row, int line)
{
    char *json = json_dumps(json_object_get(row, "chat"), 0), *text;
    const json_t *expected = json_object_get(row, "text");
    struct chat chat;
    struct chat_spans spans = {0};
    struct chat_options options = {.thinking = json_is_true(json_object_get(row, "thinking")),
                                   .answer = json_is_true(json_object_get(row, "answer")),
                                   .spans = &spans};
    size_t size;
    assert_ok(chat_parse(json, strlen(json), "case", &chat, &err), &err);
    assert_ok(chat_render(family, &chat, &options, &text, &size, &err), &err);
    if (strcmp(text, json_string_value(expected)) != 0)
        print_error("case %d:\n%s\nbut must be\n%s\n", line, text, json_string_value(expected));
    assert_string_equal(text, json_string_value(expected));
    assert_spans(family, &chat, text, &spans);
    free(spans.items);
    assert_int_equal(size, json_string_length(expected));
    free(text);
    free(json);
    chat_clear(&chat);
}

static void recordings_are_met(void **state)
{
    char path[1024], *line = NULL;
    size_t capacity = 0;
    int cases = 0;
    const struct chat_template *family;
    assert_ok(chat_template_by_name(*state, &family, &err), &err);
    snprintf(path, sizeof path, FOLDER "%s.cases.jsonl", (const char *)*state);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    while (getline(&line, &capacity, file) > 0) {
        json_t *row = json_loads(line, 0, NULL);
        assert_non_null(row);
        assert_case(family, row, ++cases);
        json_decref(row);
    }
    assert_in_range(cases, 40, 100000);
    free(line);
    fclose(file);
}

/* ---- One by one, by the rules ---- */

static void assert_renders(const char *name, const char *json, bool thinking, const char *expected)
{
    const struct chat_template *family;
    struct chat chat;
    struct chat_options options = {.thinking = thinking, .answer = true};
    char *text;
    size_t size;
    assert_ok(chat_template_by_name(name, &family, &err), &err);
    assert_ok(chat_parse(json, strlen(json), "messages", &chat, &err), &err);
    assert_ok(chat_render(family, &chat, &options, &text, &size, &err), &err);
    assert_string_equal(text, expected);
    free(text);
    chat_clear(&chat);
}

static void qwen3_follows_the_rules(void **state)
{
    (void)state;
    assert_renders("qwen3", "[{\"role\": \"user\", \"content\": \"Hi\"}]", true,
                   "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
    assert_renders(
        "qwen3", "[{\"role\": \"user\", \"content\": \"Hi\"}]", false,
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n");
    /* A thought before the last question is dropped, one behind it is kept. */
    assert_renders(
        "qwen3",
        "[{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"assistant\", "
        "\"content\": \"<think>\\nold\\n</think>\\n\\nb\"}, {\"role\": \"user\", "
        "\"content\": \"c\"}, {\"role\": \"assistant\", \"content\": "
        "\"<think>\\nnew\\n</think>\\n\\nd\"}, {\"role\": \"tool\", \"content\": \"1\"}, "
        "{\"role\": \"tool\", \"content\": \"2\"}]",
        true,
        "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n"
        "<|im_start|>user\nc<|im_end|>\n<|im_start|>assistant\n<think>\nnew\n</think>\n"
        "\nd<|im_end|>\n<|im_start|>user\n<tool_response>\n1\n</tool_response>\n"
        "<tool_response>\n2\n</tool_response><|im_end|>\n<|im_start|>assistant\n");
}

static void llama3_follows_the_rules(void **state)
{
    (void)state;
    assert_renders("llama3",
                   "[{\"role\": \"system\", \"content\": \" Be brief.\\n\"}, {\"role\": \"user\", "
                   "\"content\": \"Hi\"}]",
                   true,
                   "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe brief."
                   "<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
                   "<|start_header_id|>assistant<|end_header_id|>\n\n");
}

static void llama3_has_no_tools(void **state)
{
    (void)state;
    static const char *const chats[] = {
        "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}], \"tools\": [{}]}",
        "[{\"role\": \"tool\", \"content\": \"a\"}]",
        "[{\"role\": \"assistant\", \"tool_calls\": [{\"name\": \"f\", \"arguments\": {}}]}]"};
    const struct chat_template *family;
    assert_ok(chat_template_by_name("llama3", &family, &err), &err);
    for (int i = 0; i < 3; i++) {
        struct chat chat;
        struct chat_options options = {.thinking = true, .answer = true};
        char *text;
        size_t size;
        assert_ok(chat_parse(chats[i], strlen(chats[i]), "messages", &chat, &err), &err);
        assert_refused(chat_render(family, &chat, &options, &text, &size, &err), PLX_UNSUPPORTED,
                       "llama3's chat template has no tools", &err);
        assert_null(text);
        chat_clear(&chat);
    }
}

/* ---- Which templates are known ---- */

#define QWEN3_MARKS                                                                                \
    "<|im_start|> ns.last_query_index reasoning_content.strip( enable_thinking is false "          \
    "<tool_response>"

static void assert_unknown(const char *text)
{
    const struct chat_template *family = (const void *)text;
    assert_refused(chat_template_by_text(text, "FILE", &family, &err), PLX_UNSUPPORTED,
                   "is not known; qwen3's and llama3's are", &err);
    assert_null(family);
}

static void unknown_templates_are_named_and_refused(void **state)
{
    (void)state;
    const struct chat_template *family;
    assert_ok(chat_template_by_text(QWEN3_MARKS, "FILE", &family, &err), &err);
    assert_string_equal(chat_template_name(family), "qwen3");
    assert_string_equal(chat_template_stop(family), "<|im_end|>");
    assert_unknown("");
    assert_unknown("{{ messages }}");
    assert_unknown(QWEN3_MARKS " preserve_thinking");
    assert_unknown("<|im_start|> ns.last_query_index");
    assert_refused(chat_template_by_name("chatml", &family, &err), PLX_INVALID_ARGUMENT,
                   "the chat template \"chatml\" is not known", &err);
    plx_status status = chat_template_by_text("\x1b[2J{% if", "FILE", &family, &err);
    assert_refused(status, PLX_UNSUPPORTED, "FILE: the chat template that begins with '?[2J{% if'",
                   &err);
}

static void folders_tell_their_template(void **state)
{
    (void)state;
    const struct chat_template *family;
    const char *config = io_path("tokenizer_config.json");
    assert_refused(chat_template_of_folder(io_folder, &family, &err), PLX_IO_ERROR,
                   "holds neither chat_template.jinja nor tokenizer_config.json", &err);
    io_write_text(config, "{\"chat_template\": \"" QWEN3_MARKS "\"}");
    assert_ok(chat_template_of_folder(io_folder, &family, &err), &err);
    io_write_text(config,
                  "{\"chat_template\": [{\"name\": \"rag\", \"template\": \"x\"}, {\"name\": "
                  "\"default\", \"template\": \"" QWEN3_MARKS "\"}]}");
    assert_ok(chat_template_of_folder(io_folder, &family, &err), &err);
    static const char *const bad[][2] = {
        {"{}", "has no text chat_template"},
        {"{\"chat_template\": 7}", "has no text chat_template"},
        {"{\"chat_template\": [{\"name\": \"rag\", \"template\": \"x\"}]}",
         "has no text chat_template"},
        {"[", "line 1, column 1: "},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        io_write_text(config, bad[i][0]);
        assert_refused(chat_template_of_folder(io_folder, &family, &err), PLX_BAD_DATA, bad[i][1],
                       &err);
    }
    io_write_text(io_path("chat_template.jinja"), QWEN3_MARKS); /* which goes first */
    assert_ok(chat_template_of_folder(io_folder, &family, &err), &err);
}

/* ---- Messages that are wrong ---- */

static void wrong_messages_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *json, *says;
    } rows[] = {
        {"", "FILE: line 1, column 0: "},
        {"[{\"role\": \"user\", \"content\": \"a\"}", "expected near end of file"},
        {"[{\"role\": \"user\", \"role\": \"user\", \"content\": \"a\"}]", "duplicate object key"},
        {"[{\"role\": \"user\", \"content\": \"a\\u0000\"}]", "\\u0000 is not allowed"},
        {"[]", "must be a list of messages that is not empty"},
        {"{}", "must be a list of messages that is not empty"},
        {"{\"messages\": {}}", "must be a list of messages that is not empty"},
        {"{\"messages\": []}", "must be a list of messages that is not empty"},
        {"[7]", "messages[0].role is no text but must be system, user, assistant or tool"},
        {"[{\"role\": \"human\", \"content\": \"a\"}]", "messages[0].role is human"},
        {"[{\"role\": \"user\"}]", "messages[0].content must be a text"},
        {"[{\"role\": \"user\", \"content\": [{\"type\": \"text\"}]}]", "content must be a text"},
        {"[{\"role\": \"assistant\", \"content\": null}]", "content must be a text"},
        {"[{\"role\": \"assistant\", \"content\": \"\", \"reasoning_content\": 5}]",
         "messages[0].reasoning_content must be a text"},
        {"[{\"role\": \"user\", \"content\": \"\", \"tool_calls\": []}]",
         "messages[0].tool_calls: only an assistant calls tools"},
        {"[{\"role\": \"assistant\", \"content\": \"\", \"tool_calls\": {}}]",
         "messages[0].tool_calls must be a list"},
        {"[{\"role\": \"assistant\", \"tool_calls\": [{}]}]",
         "messages[0].tool_calls[0] must have a name and arguments"},
        {"[{\"role\": \"assistant\", \"tool_calls\": [{\"function\": {\"name\": 3, \"arguments\": "
         "{}}}]}]",
         "must have a name and arguments"},
        {"{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}], \"tools\": 3}",
         "tools must be a list"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct chat chat;
        plx_status status = chat_parse(rows[i].json, strlen(rows[i].json), "FILE", &chat, &err);
        assert_non_null(strstr(err.text, "FILE"));
        assert_refused(status, PLX_BAD_DATA, rows[i].says, &err);
        chat_clear(&chat);
    }
    struct chat chat = {0};
    assert_refused(chat_add(&chat, "user", "a\xff", &err), PLX_BAD_DATA, "is not UTF-8", &err);
    chat_clear(&chat);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        {"qwen3", recordings_are_met, NULL, NULL, (void *)"qwen3"},
        {"llama3", recordings_are_met, NULL, NULL, (void *)"llama3"},
        cmocka_unit_test(qwen3_follows_the_rules),
        cmocka_unit_test(llama3_follows_the_rules),
        cmocka_unit_test(llama3_has_no_tools),
        cmocka_unit_test(unknown_templates_are_named_and_refused),
        cmocka_unit_test(folders_tell_their_template),
        cmocka_unit_test(wrong_messages_are_refused),
    };
    return cmocka_run_group_tests_name("chats", tests, io_folder_make, io_folder_remove);
}
