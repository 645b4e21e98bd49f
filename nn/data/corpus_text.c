/* corpus_text.c: text and JSONL into documents; see corpus_parts.h. Chats are corpus_chat.c's.
 *
 * A text's ids come from the encoder some thousands at a time and are narrowed into a buffer that
 * the reader keeps, then copied into the store, because only then their number is known. */
#include "data/corpus_parts.h"
#include "data/utf8.h"
#include "io/jsonl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Two bytes hold every id of a vocabulary of up to 65,536. */
static uint8_t token_width(const struct tokenizer *tokenizer)
{
    return tokenizer_vocab_size(tokenizer) <= 65536 ? 2 : 4;
}

/* The encoder's sink; user is the reader. */
static plx_status narrow(void *user, const int32_t *ids, int64_t count, struct error *err)
{
    struct corpus_reader *reader = user;
    int64_t needed = reader->narrow_count + count;
    if (needed > reader->narrow_capacity) {
        int64_t capacity = 2 * needed;
        void *narrowed = realloc(reader->narrowed, (size_t)capacity * sizeof *ids);
        REQUIRE(err, narrowed != NULL, PLX_OUT_OF_MEMORY, "no memory for a document of %lld tokens",
                (long long)needed);
        reader->narrowed = narrowed;
        reader->narrow_capacity = capacity;
    }
    if (reader->width == 2) {
        uint16_t *tokens = (uint16_t *)reader->narrowed + reader->narrow_count;
        for (int64_t i = 0; i < count; i++) tokens[i] = (uint16_t)ids[i];
    } else {
        int32_t *tokens = (int32_t *)reader->narrowed + reader->narrow_count;
        for (int64_t i = 0; i < count; i++) tokens[i] = reader->hidden ? ~ids[i] : ids[i];
    }
    reader->narrow_count = needed;
    return PLX_OK;
}

void corpus_reader_clear(struct corpus_reader *reader)
{
    encoder_destroy(reader->encoder);
    free(reader->narrowed);
    reader->encoder = NULL;
    reader->narrowed = NULL;
    reader->narrow_capacity = 0;
}

plx_status corpus_begin(struct corpus_reader *reader, bool hides, struct error *err)
{
    const struct tokenizer *tokenizer = reader->options->tokenizer;
    REQUIRE(err, tokenizer != NULL, PLX_INVALID_ARGUMENT,
            "text cannot be read without a tokenizer");
    if (reader->encoder == NULL) TRY(encoder_create(tokenizer, &reader->encoder, err));
    reader->narrow_count = 0;
    reader->width = hides ? sizeof(int32_t) : token_width(tokenizer);
    return PLX_OK;
}

plx_status corpus_encode(struct corpus_reader *reader, const char *text, size_t size, unsigned how,
                         struct error *err)
{
    return encoder_encode(reader->encoder, text, size, how, narrow, reader, err);
}

plx_status corpus_end(struct corpus_reader *reader, int64_t bytes, bool silent, struct error *err)
{
    struct corpus_document document = {
        .bytes = bytes, .width = reader->width, .count = reader->narrow_count, .silent = silent};
    if (document.count == 0) return PLX_OK;
    size_t size = (size_t)document.count * document.width;
    void *tokens;
    TRY(corpus_take(reader->corpus, size, &tokens, err));
    memcpy(tokens, reader->narrowed, size);
    document.tokens = tokens;
    corpus_keep(reader->corpus, size);
    return corpus_add(reader->corpus, &document, err);
}

plx_status corpus_add_text(struct corpus_reader *reader, const char *text, size_t size,
                           struct error *err)
{
    const struct corpus_options *options = reader->options;
    bool whole = (int64_t)size <= reader->bytes_left;
    if (!whole) size = utf8_cut(text, (size_t)reader->bytes_left);
    reader->bytes_left = whole ? reader->bytes_left - (int64_t)size : 0;
    if (size == 0) return PLX_OK;

    TRY(corpus_begin(reader, false, err));
    TRY(corpus_encode(reader, text, size, TOKENIZER_PLAIN, err));
    /* A document that is cut short has no end, so it gets no separator either. */
    bool separated = whole && options->separator >= 0;
    if (separated) TRY(narrow(reader, &options->separator, 1, err));
    return corpus_end(reader, (int64_t)size, separated, err);
}

/* ---- JSONL ---- */

static plx_status add_object(struct corpus_reader *reader, const json_t *object, const char *name,
                             long long number, struct error *err)
{
    const char *field = reader->options->jsonl_field;
    if (field == NULL) field = "text";
    const json_t *text = json_object_get(object, field);
    bool chat = json_object_get(object, "messages") != NULL;
    if (chat && reader->options->chat != NULL) {
        char where[4096 + 32];
        snprintf(where, sizeof where, "%s:%lld", name, number);
        return corpus_add_chat(reader, object, where, err);
    }
    REQUIRE(err, text != NULL || !chat, PLX_BAD_DATA,
            "%s:%lld: the line is a chat, but no chat template is known", name, number);
    REQUIRE(err, text != NULL, PLX_BAD_DATA, "%s:%lld: the object has no field \"%s\"", name,
            number, field);
    REQUIRE(err, json_is_string(text), PLX_BAD_DATA, "%s:%lld: field \"%s\" is not a string", name,
            number, field);
    return corpus_add_text(reader, json_string_value(text), json_string_length(text), err);
}

plx_status corpus_add_jsonl(struct corpus_reader *reader, const char *data, size_t size,
                            const char *name, struct error *err)
{
    struct jsonl lines = {.data = data, .size = size, .name = name};
    while (reader->bytes_left > 0) {
        json_t *object;
        TRY(jsonl_next(&lines, &object, err));
        if (object == NULL) return PLX_OK;
        plx_status status = add_object(reader, object, name, lines.line, err);
        json_decref(object);
        TRY(status);
    }
    return PLX_OK;
}
