/* chat_parts.h: what the families share. */
#ifndef NN_CHAT_PARTS_H
#define NN_CHAT_PARTS_H

#include <stdio.h>

#include "chat/chat.h"

/* A text within another; not terminated. */
struct slice {
    const char *text;
    size_t size;
};

/* "role" and "content" of a message that chat_parse let pass; absent content is empty. */
const char *message_role(const json_t *message);
struct slice message_content(const json_t *message);
bool slice_begins(struct slice slice, const char *text);
bool slice_ends(struct slice slice, const char *text);
/* Without the newlines it begins with, or ends with. */
struct slice slice_skip_newlines(struct slice slice);
struct slice slice_drop_newlines(struct slice slice);
/* Without Unicode's white space on both sides. */
struct slice slice_trim(struct slice slice);
static inline void write_slice(FILE *out, struct slice slice)
{
    fwrite(slice.text, 1, slice.size, out);
}
/* A JSON value on one line, with a space behind each comma and colon, as templates print it. */
plx_status write_json(FILE *out, const json_t *value, struct error *err);

/* Notes that the assistant begins to speak at what is written next, and that he ended before it. */
plx_status span_open(FILE *out, const struct chat_options *options, struct error *err);
void span_close(FILE *out, const struct chat_options *options);

plx_status chat_write_qwen3(FILE *out, const struct chat *chat, const struct chat_options *options,
                            struct error *err);
plx_status chat_write_llama3(FILE *out, const struct chat *chat, const struct chat_options *options,
                             struct error *err);

#endif
