/* corpus_chat.c: chats into documents whose only targets are what the assistant says; see
 * corpus_parts.h.
 *
 * A chat is rendered by its template and encoded in pieces, cut where the assistant begins to speak
 * and where he ends. That is how the text is met in use: the prompt is encoded alone, and what
 * follows are the model's own tokens. */
#include "chat/chat.h"
#include "data/corpus_parts.h"

#include <stdlib.h>

static plx_status encode_piece(struct corpus_reader *reader, const char *text, size_t first,
                               size_t end, bool hidden, struct error *err)
{
    reader->hidden = hidden;
    return corpus_encode(reader, text + first, end - first, TOKENIZER_ADDED, err);
}

static plx_status encode_chat(struct corpus_reader *reader, const char *text, size_t size,
                              const struct chat_spans *spans, struct error *err)
{
    size_t at = 0;
    for (size_t i = 0; i < spans->count; i++) {
        const struct chat_span *said = &spans->items[i];
        TRY(encode_piece(reader, text, at, said->first, true, err));
        TRY(encode_piece(reader, text, said->first, said->end, false, err));
        at = said->end;
    }
    return encode_piece(reader, text, at, size, true, err);
}

/* A chat is never cut: one that exceeds the limit of text ends the reading. Its bytes count as
 * unknown, because the scored tokens stand for a part of them only. */
static plx_status add_rendered(struct corpus_reader *reader, const char *text, size_t size,
                               const struct chat_spans *spans, const char *name, struct error *err)
{
    REQUIRE(err, spans->count > 0, PLX_BAD_DATA,
            "%s: the chat has no turn of an assistant to learn from", name);
    bool whole = (int64_t)size <= reader->bytes_left;
    reader->bytes_left = whole ? reader->bytes_left - (int64_t)size : 0;
    if (!whole) return PLX_OK;
    TRY(corpus_begin(reader, true, err));
    plx_status status = encode_chat(reader, text, size, spans, err);
    reader->hidden = false;
    if (status != PLX_OK) return status;
    return corpus_end(reader, -1, false, err);
}

plx_status corpus_add_chat(struct corpus_reader *reader, const json_t *object, const char *name,
                           struct error *err)
{
    struct chat chat;
    struct chat_spans spans = {0};
    struct error reason = {0};
    char *text = NULL;
    size_t size;
    plx_status status = chat_read(object, name, &chat, err);
    if (status == PLX_OK) {
        status = chat_render(reader->options->chat, &chat, &(struct chat_options){.spans = &spans},
                             &text, &size, &reason);
        if (status != PLX_OK) error_set(err, status, "%s: %s", name, reason.text);
    }
    if (status == PLX_OK) status = add_rendered(reader, text, size, &spans, name, err);
    free(text);
    free(spans.items);
    chat_clear(&chat);
    return status;
}
