/* corpus_text.c: text and JSONL into documents; see corpus_parts.h.
 *
 * A text is encoded in pieces through a small buffer and narrowed into the store, so that loading
 * needs no memory beyond the tokens themselves. Pieces may be cut anywhere because a token of this
 * version is one byte. */
#include "data/corpus_parts.h"
#include "data/utf8.h"

#include <jansson.h>
#include <string.h>

enum { PIECE_TOKENS = 4096 };

/* Two bytes hold every id of a vocabulary of up to 65,536. */
static uint8_t token_width(const struct tokenizer *tokenizer)
{
    return tokenizer_vocab_size(tokenizer) <= 65536 ? 2 : 4;
}

static void narrow(const int32_t *ids, int64_t count, int width, void *tokens, int64_t at)
{
    if (width == 2)
        for (int64_t i = 0; i < count; i++) ((uint16_t *)tokens)[at + i] = (uint16_t)ids[i];
    else
        memcpy((int32_t *)tokens + at, ids, (size_t)count * sizeof *ids);
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

    /* A document that is cut short has no end, so it gets no separator either. */
    bool separated = whole && options->separator >= 0;
    struct corpus_document document = {
        .bytes = (int64_t)size, .width = token_width(options->tokenizer), .silent = separated};
    void *tokens;
    TRY(corpus_take(reader->corpus, (size + 1) * document.width, &tokens, err));
    int32_t ids[PIECE_TOKENS];
    for (size_t at = 0; at < size; at += PIECE_TOKENS) {
        int64_t count;
        size_t take = size - at < PIECE_TOKENS ? size - at : PIECE_TOKENS;
        TRY(tokenizer_encode(options->tokenizer, text + at, take, ids, PIECE_TOKENS, &count, err));
        narrow(ids, count, document.width, tokens, document.count);
        document.count += count;
    }
    if (separated) narrow(&options->separator, 1, document.width, tokens, document.count++);
    document.tokens = tokens;
    corpus_keep(reader->corpus, (size_t)document.count * document.width);
    return corpus_add(reader->corpus, &document, err);
}

/* ---- JSONL ---- */

static bool is_blank(const char *line, size_t size)
{
    for (size_t i = 0; i < size; i++)
        if (line[i] != ' ' && line[i] != '\t' && line[i] != '\r') return false;
    return true;
}

static plx_status add_line(struct corpus_reader *reader, const char *line, size_t size,
                           const char *name, long long number, struct error *err)
{
    json_error_t reason;
    json_t *object = json_loadb(line, size, JSON_REJECT_DUPLICATES, &reason);
    REQUIRE(err, object != NULL || reason.text[0] != '\0', PLX_OUT_OF_MEMORY,
            "%s:%lld: out of memory", name, number);
    REQUIRE(err, object != NULL, PLX_BAD_DATA, "%s:%lld: not valid JSON at byte %d: %s", name,
            number, reason.position, reason.text);
    const char *field = reader->options->jsonl_field;
    if (field == NULL) field = "text";
    const json_t *text = json_object_get(object, field);
    plx_status status = PLX_OK;
    if (!json_is_object(object))
        status = error_set(err, PLX_BAD_DATA, "%s:%lld: the line is not an object", name, number);
    else if (text == NULL)
        status = error_set(err, PLX_BAD_DATA, "%s:%lld: the object has no field \"%s\"", name,
                           number, field);
    else if (!json_is_string(text))
        status = error_set(err, PLX_BAD_DATA, "%s:%lld: field \"%s\" is not a string", name, number,
                           field);
    else
        status = corpus_add_text(reader, json_string_value(text), json_string_length(text), err);
    json_decref(object);
    return status;
}

plx_status corpus_add_jsonl(struct corpus_reader *reader, const char *data, size_t size,
                            const char *name, struct error *err)
{
    long long number = 1;
    for (size_t at = 0; at < size && reader->bytes_left > 0; number++) {
        const char *end = memchr(data + at, '\n', size - at);
        size_t length = end != NULL ? (size_t)(end - (data + at)) : size - at;
        if (!is_blank(data + at, length))
            TRY(add_line(reader, data + at, length, name, number, err));
        at += length + 1;
    }
    return PLX_OK;
}
