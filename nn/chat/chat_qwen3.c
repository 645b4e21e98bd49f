/* chat_qwen3.c: Qwen-3's turns.
 *
 * Every turn is <|im_start|>ROLE, a newline, the content, <|im_end|>, a newline. Tools are listed
 * in the system turn; results of tools that follow each other are one turn of the user. What an
 * assistant thought is kept only in turns behind the last real question, because there it is still
 * at work. */
#include "chat/chat_parts.h"

#include <string.h>

static const char tools_before[] =
    "# Tools\n\nYou may call one or more functions to assist with the user query.\n\nYou are "
    "provided with function signatures within <tools></tools> XML tags:\n<tools>";
static const char tools_behind[] =
    "\n</tools>\n\nFor each function call, return a json object with function name and arguments "
    "within <tool_call></tool_call> XML tags:\n<tool_call>\n{\"name\": <function-name>, "
    "\"arguments\": <args-json-object>}\n</tool_call><|im_end|>\n";

static bool is_role(const json_t *message, const char *role)
{
    return message != NULL && strcmp(message_role(message), role) == 0;
}

/* ---- The system turn ---- */

static plx_status write_system(FILE *out, const struct chat *chat, struct error *err)
{
    const json_t *first = json_array_get(chat->messages, 0), *tool;
    bool system = is_role(first, "system");
    size_t index;
    if (!system && chat->tools == NULL) return PLX_OK;
    fputs("<|im_start|>system\n", out);
    if (system) write_slice(out, message_content(first));
    if (chat->tools == NULL) {
        fputs("<|im_end|>\n", out);
        return PLX_OK;
    }
    fprintf(out, "%s%s", system ? "\n\n" : "", tools_before);
    json_array_foreach(chat->tools, index, tool)
    {
        fputc('\n', out);
        TRY(write_json(out, tool, err));
    }
    fputs(tools_behind, out);
    return PLX_OK;
}

/* The index of the last question that a user asked, rather than a tool's result in his name. */
static size_t last_question(const json_t *messages)
{
    size_t count = json_array_size(messages);
    for (size_t i = count; i-- > 0;) {
        const json_t *message = json_array_get(messages, i);
        struct slice content = message_content(message);
        bool result =
            slice_begins(content, "<tool_response>") && slice_ends(content, "</tool_response>");
        if (is_role(message, "user") && !result) return i;
    }
    return count - 1;
}

/* ---- The assistant's turn ---- */

/* Divides a content at its thought: what stands between the last <think> and the first </think>,
 * and what stands behind the last </think>. */
static void split_thought(struct slice *content, struct slice *thought)
{
    static const char begin[] = "<think>", end[] = "</think>";
    const char *first = memmem(content->text, content->size, end, strlen(end));
    if (first == NULL) return;
    *thought = slice_drop_newlines((struct slice){content->text, (size_t)(first - content->text)});
    for (const char *at;
         (at = memmem(thought->text, thought->size, begin, strlen(begin))) != NULL;) {
        size_t skipped = (size_t)(at - thought->text) + strlen(begin);
        *thought = (struct slice){thought->text + skipped, thought->size - skipped};
    }
    *thought = slice_skip_newlines(*thought);
    for (const char *at = first; at != NULL;) {
        size_t skipped = (size_t)(at - content->text) + strlen(end);
        *content = (struct slice){content->text + skipped, content->size - skipped};
        at = memmem(content->text, content->size, end, strlen(end));
    }
    *content = slice_skip_newlines(*content);
}

static plx_status write_calls(FILE *out, const json_t *calls, bool after_text, struct error *err)
{
    size_t index;
    const json_t *call;
    json_array_foreach(calls, index, call)
    {
        const json_t *inner = json_object_get(call, "function");
        if (inner == NULL) inner = call;
        const json_t *arguments = json_object_get(inner, "arguments");
        fprintf(out, "%s<tool_call>\n{\"name\": \"%s\", \"arguments\": ",
                index > 0 || after_text ? "\n" : "",
                json_string_value(json_object_get(inner, "name")));
        if (json_is_string(arguments))
            fputs(json_string_value(arguments), out);
        else
            TRY(write_json(out, arguments, err));
        fputs("}\n</tool_call>", out);
    }
    return PLX_OK;
}

static plx_status write_assistant(FILE *out, const json_t *message, bool recent, bool last,
                                  const struct chat_options *options, struct error *err)
{
    struct slice content = message_content(message), thought = {"", 0};
    const json_t *given = json_object_get(message, "reasoning_content");
    if (json_is_string(given))
        thought = (struct slice){json_string_value(given), json_string_length(given)};
    else
        split_thought(&content, &thought);
    fputs("<|im_start|>assistant\n", out);
    TRY(span_open(out, options, err));
    if (recent && (last || thought.size > 0)) {
        fputs("<think>\n", out);
        write_slice(out, slice_drop_newlines(slice_skip_newlines(thought)));
        fputs("\n</think>\n\n", out);
        write_slice(out, slice_skip_newlines(content));
    } else {
        write_slice(out, content);
    }
    TRY(write_calls(out, json_object_get(message, "tool_calls"), content.size > 0, err));
    fputs("<|im_end|>", out);
    span_close(out, options);
    fputc('\n', out);
    return PLX_OK;
}

/* ---- The whole ---- */

static void write_result(FILE *out, const json_t *message, bool first, bool last)
{
    fprintf(out, "%s\n<tool_response>\n", first ? "<|im_start|>user" : "");
    write_slice(out, message_content(message));
    fprintf(out, "\n</tool_response>%s", last ? "<|im_end|>\n" : "");
}

static plx_status write_message(FILE *out, const json_t *messages, size_t index, size_t question,
                                const struct chat_options *options, struct error *err)
{
    const json_t *message = json_array_get(messages, index);
    const json_t *before = index > 0 ? json_array_get(messages, index - 1) : NULL;
    const json_t *behind = json_array_get(messages, index + 1);
    if (is_role(message, "assistant"))
        return write_assistant(out, message, index > question, behind == NULL, options, err);
    if (is_role(message, "tool")) {
        write_result(out, message, !is_role(before, "tool"), !is_role(behind, "tool"));
    } else if (is_role(message, "user") || index > 0) {
        fprintf(out, "<|im_start|>%s\n", message_role(message));
        write_slice(out, message_content(message));
        fputs("<|im_end|>\n", out);
    }
    return PLX_OK;
}

plx_status chat_write_qwen3(FILE *out, const struct chat *chat, const struct chat_options *options,
                            struct error *err)
{
    size_t question = last_question(chat->messages), count = json_array_size(chat->messages);
    TRY(write_system(out, chat, err));
    for (size_t i = 0; i < count; i++)
        TRY(write_message(out, chat->messages, i, question, options, err));
    if (!options->answer) return PLX_OK;
    fputs("<|im_start|>assistant\n", out);
    if (!options->thinking) fputs("<think>\n\n</think>\n\n", out);
    return PLX_OK;
}
