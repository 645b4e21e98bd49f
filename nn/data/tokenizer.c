/* tokenizer.c: text to token ids and back; see data.h.
 *
 * A vocabulary of this version has one token for each of the 256 bytes, at any id, and any number
 * of added tokens such as <|endoftext|>. So encoding is a table look-up, every byte string can be
 * encoded, and decoding gives the very same bytes. Added tokens are never looked for in text: a
 * document that contains the characters
 * "<|endoftext|>" stays text and cannot end itself.
 *
 * Reading and writing tokenizer.json is tokenizer_json.c. */
#include "data/tokenizer_parts.h"

#include <stdlib.h>
#include <string.h>

plx_status tokenizer_create_empty(struct tokenizer **tokenizer, struct error *err)
{
    *tokenizer = calloc(1, sizeof **tokenizer);
    REQUIRE(err, *tokenizer != NULL, PLX_OUT_OF_MEMORY, "cannot allocate a tokenizer");
    for (int byte = 0; byte < 256; byte++) (*tokenizer)->byte_id[byte] = -1;
    (*tokenizer)->end_of_text = -1;
    return PLX_OK;
}

plx_status tokenizer_add(struct tokenizer *tokenizer, const struct added_token *added,
                         struct error *err)
{
    struct added_token *items =
        realloc(tokenizer->added, (size_t)(tokenizer->added_count + 1) * sizeof *items);
    REQUIRE(err, items != NULL, PLX_OUT_OF_MEMORY, "cannot allocate a tokenizer");
    tokenizer->added = items;
    struct added_token *slot = &items[tokenizer->added_count];
    *slot = *added;
    slot->content = malloc(added->size + 1);
    REQUIRE(err, slot->content != NULL, PLX_OUT_OF_MEMORY, "cannot allocate a tokenizer");
    memcpy(slot->content, added->content, added->size);
    slot->content[added->size] = '\0';
    tokenizer->added_count++;
    return PLX_OK;
}

plx_status tokenizer_complete(struct tokenizer *tokenizer, struct error *err)
{
    int64_t size = 0;
    for (int byte = 0; byte < 256; byte++)
        if (tokenizer->byte_id[byte] >= size) size = (int64_t)tokenizer->byte_id[byte] + 1;
    for (int64_t i = 0; i < tokenizer->added_count; i++)
        if (tokenizer->added[i].id >= size) size = (int64_t)tokenizer->added[i].id + 1;
    tokenizer->vocab_size = size;
    tokenizer->entries = calloc((size_t)size, sizeof *tokenizer->entries);
    REQUIRE(err, tokenizer->entries != NULL, PLX_OUT_OF_MEMORY,
            "cannot allocate a vocabulary of %lld tokens", (long long)size);
    for (int byte = 0; byte < 256; byte++) {
        tokenizer->bytes[byte] = (char)byte;
        tokenizer->entries[tokenizer->byte_id[byte]] =
            (struct token_text){&tokenizer->bytes[byte], 1};
    }
    for (int64_t i = 0; i < tokenizer->added_count; i++) {
        const struct added_token *added = &tokenizer->added[i];
        if (!added->special)
            tokenizer->entries[added->id] = (struct token_text){added->content, added->size};
        if (strcmp(added->content, TOKENIZER_END_OF_TEXT) == 0) tokenizer->end_of_text = added->id;
    }
    return PLX_OK;
}

static plx_status fill_bytes(struct tokenizer *tokenizer, struct error *err)
{
    for (int byte = 0; byte < 256; byte++) tokenizer->byte_id[byte] = byte;
    char name[] = TOKENIZER_END_OF_TEXT;
    struct added_token end = {.id = 256, .content = name, .size = sizeof name - 1, .special = true};
    TRY(tokenizer_add(tokenizer, &end, err));
    return tokenizer_complete(tokenizer, err);
}

plx_status tokenizer_create_bytes(struct tokenizer **tokenizer, struct error *err)
{
    plx_status status = tokenizer_create_empty(tokenizer, err);
    if (status == PLX_OK) status = fill_bytes(*tokenizer, err);
    if (status != PLX_OK) {
        tokenizer_destroy(*tokenizer);
        *tokenizer = NULL;
    }
    return status;
}

void tokenizer_destroy(struct tokenizer *tokenizer)
{
    if (tokenizer == NULL) return;
    for (int64_t i = 0; i < tokenizer->added_count; i++) free(tokenizer->added[i].content);
    free(tokenizer->added);
    free(tokenizer->entries);
    free(tokenizer);
}

int64_t tokenizer_vocab_size(const struct tokenizer *tokenizer)
{
    return tokenizer->vocab_size;
}

int32_t tokenizer_end_of_text(const struct tokenizer *tokenizer)
{
    return tokenizer->end_of_text;
}

plx_status tokenizer_encode(const struct tokenizer *tokenizer, const char *text, size_t size,
                            int32_t *ids, int64_t capacity, int64_t *count, struct error *err)
{
    *count = (int64_t)size;
    REQUIRE(err, (int64_t)size <= capacity, PLX_WORKSPACE_TOO_SMALL,
            "the text has %lld tokens but there is room for %lld", (long long)size,
            (long long)capacity);
    for (size_t i = 0; i < size; i++) ids[i] = tokenizer->byte_id[(unsigned char)text[i]];
    return PLX_OK;
}

const char *tokenizer_token(const struct tokenizer *tokenizer, int32_t id, size_t *size)
{
    bool known = id >= 0 && id < tokenizer->vocab_size && tokenizer->entries[id].size > 0;
    *size = known ? tokenizer->entries[id].size : 0;
    return known ? tokenizer->entries[id].text : "";
}
