/* chat_messages.c: reading and checking messages, and the pieces of text that templates are made
 * of; see chat.h and chat_parts.h. */
#include "chat/chat_parts.h"

#include <stdlib.h>
#include <string.h>

#include "data/utf8.h"
#include "io/fields.h"

/* ---- Checking ---- */

static bool is_text_or_absent(const json_t *value)
{
    return value == NULL || json_is_null(value) || json_is_string(value);
}

/* {"function": {"name", "arguments"}} or the inner object itself. */
static plx_status check_calls(const json_t *calls, const char *name, size_t index,
                              struct error *err)
{
    size_t at;
    const json_t *call;
    if (calls == NULL || json_is_null(calls)) return PLX_OK;
    REQUIRE(err, json_is_array(calls), PLX_BAD_DATA, "%s: messages[%zu].tool_calls must be a list",
            name, index);
    json_array_foreach(calls, at, call)
    {
        const json_t *inner = json_object_get(call, "function");
        if (inner == NULL) inner = call;
        REQUIRE(err,
                json_is_string(json_object_get(inner, "name")) &&
                    json_object_get(inner, "arguments") != NULL,
                PLX_BAD_DATA, "%s: messages[%zu].tool_calls[%zu] must have a name and arguments",
                name, index, at);
    }
    return PLX_OK;
}

static plx_status check_message(const json_t *message, const char *name, size_t index,
                                struct error *err)
{
    static const char *const roles[] = {"system", "user", "assistant", "tool"};
    const char *role = json_string_value(json_object_get(message, "role"));
    bool known = false;
    for (size_t i = 0; role != NULL && i < sizeof roles / sizeof *roles; i++)
        known = known || strcmp(role, roles[i]) == 0;
    REQUIRE(err, known, PLX_BAD_DATA,
            "%s: messages[%zu].role is %s but must be system, user, assistant or tool", name, index,
            role != NULL ? utf8_quote(role).text : "no text");
    const json_t *content = json_object_get(message, "content");
    const json_t *calls = json_object_get(message, "tool_calls");
    bool assistant = strcmp(role, "assistant") == 0;
    bool called = assistant && json_array_size(calls) > 0;
    REQUIRE(err, json_is_string(content) || (called && is_text_or_absent(content)), PLX_BAD_DATA,
            "%s: messages[%zu].content must be a text", name, index);
    REQUIRE(err, is_text_or_absent(json_object_get(message, "reasoning_content")), PLX_BAD_DATA,
            "%s: messages[%zu].reasoning_content must be a text", name, index);
    REQUIRE(err, assistant || calls == NULL, PLX_BAD_DATA,
            "%s: messages[%zu].tool_calls: only an assistant calls tools", name, index);
    return check_calls(calls, name, index, err);
}

static plx_status check_chat(const struct chat *chat, const char *name, struct error *err)
{
    size_t index;
    const json_t *message;
    REQUIRE(err, json_is_array(chat->messages) && json_array_size(chat->messages) > 0, PLX_BAD_DATA,
            "%s: must be a list of messages that is not empty, or an object with such \"messages\"",
            name);
    json_array_foreach(chat->messages, index, message)
        TRY(check_message(message, name, index, err));
    REQUIRE(err, chat->tools == NULL || json_is_array(chat->tools), PLX_BAD_DATA,
            "%s: tools must be a list", name);
    return PLX_OK;
}

plx_status chat_read(const json_t *root, const char *name, struct chat *chat, struct error *err)
{
    const json_t *tools = json_object_get(root, "tools");
    bool none = tools == NULL || json_is_null(tools) ||
                (json_is_array(tools) && json_array_size(tools) == 0);
    const json_t *messages = json_is_array(root) ? root : json_object_get(root, "messages");
    *chat = (struct chat){.messages = json_incref((json_t *)(uintptr_t)messages),
                          .tools = none ? NULL : json_incref((json_t *)(uintptr_t)tools)};
    return check_chat(chat, name, err);
}

plx_status chat_parse(const char *json, size_t size, const char *name, struct chat *chat,
                      struct error *err)
{
    *chat = (struct chat){0};
    json_t *root;
    TRY(fields_parse_value(json, size, name, &root, err));
    plx_status status = chat_read(root, name, chat, err);
    json_decref(root);
    return status;
}

plx_status chat_add(struct chat *chat, const char *role, const char *content, struct error *err)
{
    if (chat->messages == NULL) chat->messages = json_array();
    json_t *message = json_pack("{s:s, s:s}", "role", role, "content", content);
    REQUIRE(err, message != NULL, PLX_BAD_DATA, "a message of the %s is not UTF-8 text", role);
    REQUIRE(err, json_array_append_new(chat->messages, message) == 0, PLX_OUT_OF_MEMORY,
            "no memory for a message");
    return PLX_OK;
}

void chat_clear(struct chat *chat)
{
    json_decref(chat->messages);
    json_decref(chat->tools);
    *chat = (struct chat){0};
}

/* ---- Pieces of text ---- */

const char *message_role(const json_t *message)
{
    return json_string_value(json_object_get(message, "role"));
}

struct slice message_content(const json_t *message)
{
    const json_t *content = json_object_get(message, "content");
    const char *text = json_string_value(content);
    return (struct slice){text != NULL ? text : "", json_string_length(content)};
}

bool slice_begins(struct slice slice, const char *text)
{
    size_t size = strlen(text);
    return size <= slice.size && memcmp(slice.text, text, size) == 0;
}

bool slice_ends(struct slice slice, const char *text)
{
    size_t size = strlen(text);
    return size <= slice.size && memcmp(slice.text + slice.size - size, text, size) == 0;
}

struct slice slice_skip_newlines(struct slice slice)
{
    while (slice.size > 0 && *slice.text == '\n') {
        slice.text++;
        slice.size--;
    }
    return slice;
}

struct slice slice_drop_newlines(struct slice slice)
{
    while (slice.size > 0 && slice.text[slice.size - 1] == '\n') slice.size--;
    return slice;
}

struct slice slice_trim(struct slice slice)
{
    size_t length;
    while (slice.size > 0 && utf8_is_white(utf8_decode(slice.text, &length))) {
        slice.text += length;
        slice.size -= length;
    }
    slice.size = utf8_trim_end(slice.text, slice.size);
    return slice;
}

plx_status span_open(FILE *out, const struct chat_options *options, struct error *err)
{
    struct chat_spans *spans = options->spans;
    if (spans == NULL) return PLX_OK;
    struct chat_span *items = realloc(spans->items, (spans->count + 1) * sizeof *items);
    REQUIRE(err, items != NULL, PLX_OUT_OF_MEMORY, "no memory for a chat");
    spans->items = items;
    items[spans->count++].first = (size_t)ftell(out);
    return PLX_OK;
}

void span_close(FILE *out, const struct chat_options *options)
{
    struct chat_spans *spans = options->spans;
    if (spans != NULL) spans->items[spans->count - 1].end = (size_t)ftell(out);
}

/* Numbers get the fewest digits that read back the same. */
plx_status write_json(FILE *out, const json_t *value, struct error *err)
{
    for (int digits = 1; digits <= 17; digits++) {
        char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_REAL_PRECISION(digits));
        json_t *back = text != NULL ? json_loads(text, JSON_DECODE_ANY, NULL) : NULL;
        bool same = back != NULL && json_equal(value, back);
        if (same) fputs(text, out);
        json_decref(back);
        free(text);
        if (same) return PLX_OK;
    }
    return error_set(err, PLX_OUT_OF_MEMORY, "no memory for a chat");
}
