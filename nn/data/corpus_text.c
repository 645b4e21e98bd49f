/* corpus_text.c: text and JSONL into documents; see corpus_parts.h.
 *
 * A text's ids come from the encoder some thousands at a time and are narrowed into a buffer that
 * the reader keeps, then copied into the store, because only then their number is known. */
#include "data/corpus_parts.h"
#include "data/utf8.h"
#include "io/jsonl.h"

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
    if (token_width(reader->options->tokenizer) == 2) {
        uint16_t *tokens = (uint16_t *)reader->narrowed + reader->narrow_count;
        for (int64_t i = 0; i < count; i++) tokens[i] = (uint16_t)ids[i];
    } else {
        memcpy((int32_t *)reader->narrowed + reader->narrow_count, ids,
               (size_t)count * sizeof *ids);
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

plx_status corpus_add_text(struct corpus_reader *reader, const char *text, size_t size,
                           struct error *err)
{
    const struct corpus_options *options = reader->options;
    REQUIRE(err, options->tokenizer != NULL, PLX_INVALID_ARGUMENT,
            "text cannot be read without a tokenizer");
    bool whole = (int64_t)size <= reader->bytes_left;
    if (!whole) size = utf8_cut(text, (size_t)reader->bytes_left);
    reader->bytes_left = whole ? reader->bytes_left - (int64_t)size : 0;
    if (size == 0) return PLX_OK;

    if (reader->encoder == NULL) TRY(encoder_create(options->tokenizer, &reader->encoder, err));
    reader->narrow_count = 0;
    TRY(encoder_encode(reader->encoder, text, size, TOKENIZER_PLAIN, narrow, reader, err));
    /* A document that is cut short has no end, so it gets no separator either. */
    bool separated = whole && options->separator >= 0;
    if (separated) TRY(narrow(reader, &options->separator, 1, err));
    struct corpus_document document = {.bytes = (int64_t)size,
                                       .width = token_width(options->tokenizer),
                                       .count = reader->narrow_count,
                                       .silent = separated};
    if (document.count == 0) return PLX_OK;
    size_t bytes = (size_t)document.count * document.width;
    void *tokens;
    TRY(corpus_take(reader->corpus, bytes, &tokens, err));
    memcpy(tokens, reader->narrowed, bytes);
    document.tokens = tokens;
    corpus_keep(reader->corpus, bytes);
    return corpus_add(reader->corpus, &document, err);
}

/* ---- JSONL ---- */

static plx_status add_object(struct corpus_reader *reader, const json_t *object, const char *name,
                             long long number, struct error *err)
{
    const char *field = reader->options->jsonl_field;
    if (field == NULL) field = "text";
    const json_t *text = json_object_get(object, field);
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
