/* chat.c: the families, and finding a folder's; see chat.h. */
#include "chat/chat_parts.h"

#include <stdlib.h>
#include <string.h>

#include "data/utf8.h"
#include "io/fields.h"
#include "io/file.h"

enum { MAX_MARKS = 5, MAX_TEMPLATE_BYTES = 1 << 20, MAX_CONFIG_BYTES = 16 << 20 };

/* A program is of the family if it has all marks and none of what only its relatives have. */
struct chat_template {
    const char *name, *stop;
    const char *marks[MAX_MARKS], *foreign[MAX_MARKS];
    plx_status (*write)(FILE *out, const struct chat *chat, const struct chat_options *options,
                        struct error *err);
};

static const struct chat_template templates[] = {
    {.name = "qwen3",
     .stop = "<|im_end|>",
     .marks = {"<|im_start|>", "ns.last_query_index", "reasoning_content.strip(",
               "enable_thinking is false", "<tool_response>"},
     .foreign = {"preserve_thinking", "raise_exception", "<function=", "render_content"},
     .write = chat_write_qwen3},
    {.name = "llama3",
     .stop = "<|eot_id|>",
     .marks = {"<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "loop_messages", "trim"},
     .foreign = {"Cutting Knowledge Date", "raise_exception", "tools", "<|python_tag|>"},
     .write = chat_write_llama3},
};
enum { TEMPLATE_COUNT = sizeof templates / sizeof *templates };

const char *chat_template_name(const struct chat_template *chat)
{
    return chat->name;
}

const char *chat_template_stop(const struct chat_template *chat)
{
    return chat->stop;
}

/* ---- Finding ---- */

plx_status chat_template_by_name(const char *name, const struct chat_template **found,
                                 struct error *err)
{
    *found = NULL;
    for (int i = 0; i < TEMPLATE_COUNT; i++)
        if (strcmp(templates[i].name, name) == 0) *found = &templates[i];
    REQUIRE(err, *found != NULL, PLX_INVALID_ARGUMENT,
            "the chat template \"%s\" is not known; qwen3 and llama3 are", utf8_quote(name).text);
    return PLX_OK;
}

static bool fits(const struct chat_template *family, const char *text)
{
    bool fit = true;
    for (int i = 0; i < MAX_MARKS; i++) {
        fit = fit && (family->marks[i] == NULL || strstr(text, family->marks[i]) != NULL);
        fit = fit && (family->foreign[i] == NULL || strstr(text, family->foreign[i]) == NULL);
    }
    return fit;
}

plx_status chat_template_by_text(const char *text, const char *where,
                                 const struct chat_template **found, struct error *err)
{
    *found = NULL;
    for (int i = 0; i < TEMPLATE_COUNT; i++)
        if (fits(&templates[i], text)) *found = &templates[i];
    REQUIRE(err, *found != NULL, PLX_UNSUPPORTED,
            "%s: the chat template that begins with '%s' is not known; qwen3's and llama3's are",
            where, utf8_quote(text).text);
    return PLX_OK;
}

/* The text in tokenizer_config.json: "chat_template" itself, or of its list the one named
 * "default". NULL: there is none. */
static const char *configured_text(const json_t *root)
{
    const json_t *value = json_object_get(root, "chat_template"), *row;
    size_t index;
    json_array_foreach(value, index, row)
    {
        const char *name = json_string_value(json_object_get(row, "name"));
        if (name != NULL && strcmp(name, "default") == 0)
            return json_string_value(json_object_get(row, "template"));
    }
    return json_string_value(value);
}

static plx_status find_configured(const char *path, const struct chat_template **found,
                                  struct error *err)
{
    char *text;
    size_t size;
    json_t *root;
    TRY(file_read_all(path, MAX_CONFIG_BYTES, &text, &size, err));
    plx_status status = fields_parse(text, size, path, &root, err);
    free(text);
    TRY(status);
    const char *program = configured_text(root);
    status = program != NULL ? chat_template_by_text(program, path, found, err)
                             : error_set(err, PLX_BAD_DATA, "%s: has no text chat_template", path);
    json_decref(root);
    return status;
}

plx_status chat_template_of_folder(const char *folder, const struct chat_template **found,
                                   struct error *err)
{
    char path[4096 + 32], *text;
    size_t size;
    *found = NULL;
    REQUIRE(err, strlen(folder) < 4096, PLX_INVALID_ARGUMENT, "%.200s...: the path is too long",
            folder);
    snprintf(path, sizeof path, "%s/chat_template.jinja", folder);
    if (file_exists(path)) {
        TRY(file_read_all(path, MAX_TEMPLATE_BYTES, &text, &size, err));
        plx_status status = chat_template_by_text(text, path, found, err);
        free(text);
        return status;
    }
    snprintf(path, sizeof path, "%s/tokenizer_config.json", folder);
    REQUIRE(err, file_exists(path), PLX_IO_ERROR,
            "%s: holds neither chat_template.jinja nor tokenizer_config.json; --chat-template "
            "names one",
            folder);
    return find_configured(path, found, err);
}

/* ---- Rendering ---- */

plx_status chat_render(const struct chat_template *chat_template, const struct chat *chat,
                       const struct chat_options *options, char **text, size_t *size,
                       struct error *err)
{
    *text = NULL;
    *size = 0;
    FILE *out = open_memstream(text, size);
    REQUIRE(err, out != NULL, PLX_OUT_OF_MEMORY, "no memory for a chat");
    plx_status status = chat_template->write(out, chat, options, err);
    bool complete = !ferror(out);
    complete = fclose(out) == 0 && complete;
    if (status == PLX_OK && !complete)
        status = error_set(err, PLX_OUT_OF_MEMORY, "no memory for a chat");
    if (status == PLX_OK) return PLX_OK;
    free(*text);
    *text = NULL;
    return status;
}
