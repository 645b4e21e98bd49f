/* chat.h: from messages to the text that a chat model was trained on.
 *
 * Model folders describe that text by a program in Jinja. The programs of a few families are known
 * here by what is distinctive in them, and their text is made by code; any other is refused. */
#ifndef NN_CHAT_H
#define NN_CHAT_H

#include <jansson.h>

#include "core/error.h"

/* A family: a row of a table in chat.c. */
struct chat_template;

/* By name: "qwen3", "llama3". */
plx_status chat_template_by_name(const char *name, const struct chat_template **found,
                                 struct error *err);
/* By the program's text. where is for messages. */
plx_status chat_template_by_text(const char *text, const char *where,
                                 const struct chat_template **found, struct error *err);
/* Of a model folder: chat_template.jinja, or "chat_template" of tokenizer_config.json. */
plx_status chat_template_of_folder(const char *folder, const struct chat_template **found,
                                   struct error *err);
const char *chat_template_name(const struct chat_template *chat);
/* The token that ends a turn, such as "<|im_end|>". */
const char *chat_template_stop(const struct chat_template *chat);

struct chat {
    json_t *messages; /* a list of {"role": .., "content": ..}, checked */
    json_t *tools;    /* a list that is not empty, or NULL */
};
/* A list of messages, or an object with "messages" and maybe "tools". name is for messages. The
 * caller clears chat, also after a failure. */
plx_status chat_read(const json_t *root, const char *name, struct chat *chat, struct error *err);
/* The same from text. */
plx_status chat_parse(const char *json, size_t size, const char *name, struct chat *chat,
                      struct error *err);
/* Appends a message. */
plx_status chat_add(struct chat *chat, const char *role, const char *content, struct error *err);
void chat_clear(struct chat *chat);

/* Where in a rendered text an assistant speaks: from behind the header of his turn to behind the
 * token that ends it. */
struct chat_span {
    size_t first, end;
};
struct chat_spans {
    struct chat_span *items; /* the caller frees them */
    size_t count;
};

struct chat_options {
    bool thinking; /* false: the answer begins with an empty thought, where the family thinks */
    bool answer;   /* ends with the beginning of the assistant's turn */
    struct chat_spans *spans; /* filled where given; begins empty */
};
/* malloc'd text, with a NUL behind it. */
plx_status chat_render(const struct chat_template *chat_template, const struct chat *chat,
                       const struct chat_options *options, char **text, size_t *size,
                       struct error *err);

#endif
