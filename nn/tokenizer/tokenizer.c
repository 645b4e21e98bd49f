/* tokenizer.c: a vocabulary and its rules as one thing, and what can be asked of it without
 * encoding; see tokenizer.h. */
#include "tokenizer/parts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/file.h"

/* What ends a text is called so by the families; the first that a vocabulary has is meant. */
static const char *const end_names[] = {TOKENIZER_END_OF_TEXT, "<|end_of_text|>", "</s>", "<|eos|>",
                                        "<eos>"};

static plx_status index_added(struct tokenizer *tokenizer, const char *name, struct error *err)
{
    const struct rules *rules = &tokenizer->rules;
    int64_t size = vocab_tokens(&tokenizer->vocab);
    for (int i = 0; i < rules->added_count; i++)
        if (rules->added[i].id >= size) size = (int64_t)rules->added[i].id + 1;
    tokenizer->vocab_size = size;
    tokenizer->added_of = malloc((size_t)size * sizeof *tokenizer->added_of);
    REQUIRE(err, tokenizer->added_of != NULL, PLX_OUT_OF_MEMORY,
            "%s: cannot allocate a vocabulary of %lld tokens", name, (long long)size);
    memset(tokenizer->added_of, -1, (size_t)size * sizeof *tokenizer->added_of);
    for (int i = 0; i < rules->added_count; i++) {
        const struct added_token *added = &rules->added[i];
        tokenizer->added_of[added->id] = (int16_t)i;
        if (added->single_word || added->lstrip || added->rstrip)
            tokenizer->names_need_characters = true;
    }
    tokenizer->end_of_text = -1;
    for (size_t i = 0; i < sizeof end_names / sizeof *end_names && tokenizer->end_of_text < 0; i++)
        tokenizer->end_of_text = tokenizer_added_id(tokenizer, end_names[i]);
    return PLX_OK;
}

static plx_status fill(struct tokenizer *tokenizer, const char *source, size_t size,
                       const char *name, struct error *err)
{
    for (int byte = 0; byte < 256 && tokenizer->rules.kind == RULES_BYTES; byte++)
        REQUIRE(err, tokenizer->vocab.header->byte_id[byte] >= 0, PLX_BAD_DATA,
                "%s: the vocabulary has no token for byte 0x%02x", name, (unsigned)byte);
    tokenizer->source = malloc(size + 1);
    REQUIRE(err, tokenizer->source != NULL, PLX_OUT_OF_MEMORY, "%s: out of memory", name);
    memcpy(tokenizer->source, source, size);
    tokenizer->source_size = size;
    TRY(added_finder_make(&tokenizer->names, &tokenizer->rules, false, err));
    TRY(added_finder_make(&tokenizer->normalized_names, &tokenizer->rules, true, err));
    return index_added(tokenizer, name, err);
}

plx_status tokenizer_assemble(struct vocab *vocab, struct rules *rules, const char *source,
                              size_t size, const char *name, struct tokenizer **tokenizer,
                              struct error *err)
{
    struct tokenizer *made = calloc(1, sizeof *made);
    *tokenizer = NULL;
    if (made == NULL) {
        vocab_close(vocab);
        rules_clear(rules);
        return error_set(err, PLX_OUT_OF_MEMORY, "%s: out of memory", name);
    }
    made->vocab = *vocab;
    made->rules = *rules;
    plx_status status = fill(made, source, size, name, err);
    if (status != PLX_OK) {
        tokenizer_destroy(made);
        return status;
    }
    *tokenizer = made;
    return PLX_OK;
}

void tokenizer_destroy(struct tokenizer *tokenizer)
{
    if (tokenizer == NULL) return;
    vocab_close(&tokenizer->vocab);
    rules_clear(&tokenizer->rules);
    added_finder_clear(&tokenizer->names);
    added_finder_clear(&tokenizer->normalized_names);
    free(tokenizer->added_of);
    free(tokenizer->source);
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

int32_t tokenizer_added_id(const struct tokenizer *tokenizer, const char *content)
{
    const struct rules *rules = &tokenizer->rules;
    for (int i = 0; i < rules->added_count; i++)
        if (strcmp(rules->added[i].content, content) == 0) return rules->added[i].id;
    return -1;
}

static const char *token_text(const struct tokenizer *tokenizer, int32_t id, bool specials,
                              size_t *size)
{
    *size = 0;
    if (id < 0 || id >= tokenizer->vocab_size) return "";
    if (tokenizer->added_of[id] >= 0) {
        const struct added_token *added = &tokenizer->rules.added[tokenizer->added_of[id]];
        bool shown = specials || !added->special;
        *size = shown ? added->size : 0;
        return shown ? added->content : "";
    }
    return id < vocab_tokens(&tokenizer->vocab) ? vocab_text(&tokenizer->vocab, id, size) : "";
}

const char *tokenizer_token(const struct tokenizer *tokenizer, int32_t id, size_t *size)
{
    return token_text(tokenizer, id, false, size);
}

const char *token_decoder_next(struct token_decoder *decoder, int32_t id, size_t *size)
{
    const struct rules *rules = &decoder->tokenizer->rules;
    const char *text = token_text(decoder->tokenizer, id, decoder->specials, size);
    bool piece = rules->kind != RULES_BYTES && id != rules->unknown_id;
    if (decoder->inside || !piece || *size == 0 || text[0] != ' ' ||
        !(rules->dummy_prefix || rules->trims_spaces)) {
        decoder->inside = decoder->inside || *size > 0;
        return text;
    }
    /* Where spaces are trimmed, a text begins with none; otherwise with one less. */
    *size -= 1;
    decoder->inside = *size > 0 || !rules->trims_spaces;
    return text + 1;
}

/* ---- Files ---- */

const char *tokenizer_file_name(const struct tokenizer *tokenizer)
{
    return tokenizer->rules.kind == RULES_BYTES ? "tokenizer.json" : "tokenizer.model";
}

static plx_status file_in(const char *folder, const char *name, char *path, size_t size,
                          struct error *err)
{
    int length = snprintf(path, size, "%s/%s", folder, name);
    REQUIRE(err, length > 0 && (size_t)length < size, PLX_INVALID_ARGUMENT,
            "%.200s...: the path is too long", folder);
    return PLX_OK;
}

plx_status tokenizer_load_folder(const char *folder, struct tokenizer **tokenizer,
                                 struct error *err)
{
    char json[4096], pieces[4096];
    *tokenizer = NULL;
    TRY(file_in(folder, "tokenizer.json", json, sizeof json, err));
    TRY(file_in(folder, "tokenizer.model", pieces, sizeof pieces, err));
    if (!file_exists(pieces))
        return file_exists(json) ? tokenizer_load(json, tokenizer, err) : PLX_OK;
    if (!file_exists(json)) return tokenizer_load(pieces, tokenizer, err);
    /* Llama-2's folders have both: one as SentencePiece made it, one made from that, whose rules
     * are refused here. The first says all there is, unless tokens were added to the second. */
    if (tokenizer_load(json, tokenizer, NULL) == PLX_OK) return PLX_OK;
    TRY(tokenizer_load(pieces, tokenizer, err));
    plx_status status = json_check_added(json, *tokenizer, err);
    if (status == PLX_OK) return PLX_OK;
    tokenizer_destroy(*tokenizer);
    *tokenizer = NULL;
    return status;
}

/* ---- Encoding in one call ---- */

struct collection {
    int32_t *ids;
    int64_t capacity, count;
};

static plx_status collect(void *user, const int32_t *ids, int64_t count, struct error *err)
{
    (void)err;
    struct collection *all = user;
    int64_t room = all->capacity - all->count;
    int64_t taken = room <= 0 ? 0 : count < room ? count : room;
    if (taken > 0) memcpy(all->ids + all->count, ids, (size_t)taken * sizeof *ids);
    all->count += count;
    return PLX_OK;
}

plx_status tokenizer_encode_as(const struct tokenizer *tokenizer, const char *text, size_t size,
                               unsigned how, int32_t *ids, int64_t capacity, int64_t *count,
                               struct error *err)
{
    *count = 0;
    struct encoder *encoder;
    struct collection all = {ids, capacity, 0};
    TRY(encoder_create(tokenizer, &encoder, err));
    plx_status status = encoder_encode(encoder, text, size, how, collect, &all, err);
    encoder_destroy(encoder);
    if (status != PLX_OK) return status;
    *count = all.count;
    REQUIRE(err, all.count <= capacity, PLX_WORKSPACE_TOO_SMALL,
            "the text has %lld tokens but there is room for %lld", (long long)all.count,
            (long long)capacity);
    return PLX_OK;
}

plx_status tokenizer_encode(const struct tokenizer *tokenizer, const char *text, size_t size,
                            int32_t *ids, int64_t capacity, int64_t *count, struct error *err)
{
    return tokenizer_encode_as(tokenizer, text, size, TOKENIZER_PLAIN, ids, capacity, count, err);
}
