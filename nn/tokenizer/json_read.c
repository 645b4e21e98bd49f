/* json_read.c: tokenizer.json in the layout of Hugging Face's tokenizers: its vocabulary and
 * merges, which make up nearly all of it. The rest is json_rules.c. */
#include "tokenizer/alphabet.h"
#include "tokenizer/json_merges.h"
#include "tokenizer/json_vocab.h"
#include "tokenizer/parts.h"

#include <stdlib.h>
#include <string.h>

#include "data/utf8.h"
#include "io/fields.h"
#include "io/file.h"

/* A file of at least CACHED_BYTES takes long enough to read that a compiled form is kept. */
enum { MAX_FILE_BYTES = 64 << 20, CACHED_BYTES = 1 << 18 };

/* ---- Tokens ---- */

static plx_status check_id(const char *token, int64_t id, const char *name, struct error *err)
{
    REQUIRE(err, id >= 0 && id < VOCAB_MAX_TOKENS, PLX_BAD_DATA,
            "%s: model.vocab: the id of '%s' is %lld but must be 0..%d", name,
            utf8_quote(token).text, (long long)id, VOCAB_MAX_TOKENS - 1);
    return PLX_OK;
}

/* The bytes of a key that is written in the alphabet; any other key, such as an added token's, is
 * its own bytes, and no text is merged into it. */
static plx_status add_token(struct vocab_builder *builder, const struct vocab_row *row,
                            const char *name, struct error *err)
{
    char bytes[JSON_MAX_KEY];
    size_t size = row->size;
    bool fresh;
    TRY(check_id(row->key, row->id, name, err));
    const bool mapped = size > 0 && alphabet_decode(row->key, size, bytes, &size);
    const int32_t id = (int32_t)row->id;
    TRY(vocab_add(builder, id, mapped ? bytes : row->key, mapped ? size : row->size, mapped, &fresh,
                  err));
    REQUIRE(err, fresh, PLX_BAD_DATA, "%s: two tokens have the id %d", name, id);
    return PLX_OK;
}

/* What keeps a vocabulary from being read from the text; vocab is its tree. */
static plx_status refuse_vocab(json_t *vocab, const char *name, struct error *err)
{
    const char *key;
    json_t *value;
    REQUIRE(err, json_is_object(vocab), PLX_BAD_DATA, "%s: model.vocab must be an object", name);
    json_object_foreach(vocab, key, value)
    {
        REQUIRE(err, json_is_integer(value), PLX_BAD_DATA,
                "%s: model.vocab: the id of '%s' is not an integer", name, utf8_quote(key).text);
        TRY(check_id(key, json_integer_value(value), name, err));
        REQUIRE(err, strlen(key) <= JSON_MAX_KEY, PLX_BAD_DATA,
                "%s: model.vocab: the token '%s...' has %zu bytes but may have %d", name,
                utf8_quote(key).text, strlen(key), JSON_MAX_KEY);
    }
    return error_set(err, PLX_BAD_DATA,
                     "%s: model.vocab may have at most %d tokens, and its name no escape sequence",
                     name, VOCAB_MAX_TOKENS);
}

static plx_status add_tokens(const struct vocab_rows *rows, const char *name,
                             struct vocab_builder *builder, struct error *err)
{
    for (int64_t i = 0; i < rows->count; i++) TRY(add_token(builder, &rows->rows[i], name, err));
    TRY(vocab_index(builder, err));
    for (int byte = 0; byte < 256; byte++) {
        char single = (char)byte;
        REQUIRE(err, vocab_builder_find(builder, &single, 1) >= 0, PLX_BAD_DATA,
                "%s: model.vocab has no token for byte 0x%02x", name, (unsigned)byte);
    }
    return PLX_OK;
}

/* A token that is in both lists must have one id, and an id one token. */
static plx_status check_added(const struct vocab_rows *rows, const struct vocab_builder *builder,
                              const struct rules *rules, const char *name, struct error *err)
{
    for (int i = 0; i < rules->added_count; i++) {
        const struct added_token *added = &rules->added[i];
        const struct vocab_row *row = vocab_rows_find(rows, added->content, added->size);
        REQUIRE(err, row == NULL || row->id == added->id, PLX_BAD_DATA,
                "%s: the id of '%s' is %lld in model.vocab but %d in added_tokens", name,
                utf8_quote(added->content).text, (long long)row->id, added->id);
        bool taken = row == NULL && added->id < builder->tokens &&
                     builder->spans[added->id].start != UINT32_MAX;
        REQUIRE(err, !taken, PLX_BAD_DATA, "%s: two tokens have the id %d", name, added->id);
    }
    return PLX_OK;
}

/* ---- Merges ---- */

/* The token of left or right, or of both together. */
static int32_t find_token(const struct vocab_builder *builder, const char *a, size_t a_size,
                          const char *b, size_t b_size)
{
    char bytes[2 * JSON_MAX_KEY];
    size_t first, second;
    if (a_size > JSON_MAX_KEY || b_size > JSON_MAX_KEY ||
        !alphabet_decode(a, a_size, bytes, &first) ||
        !alphabet_decode(b, b_size, bytes + first, &second))
        return -1;
    return vocab_builder_find(builder, bytes, first + second);
}

static plx_status add_merge(const struct merge_halves *h, size_t index, const char *name,
                            struct vocab_builder *builder, struct error *err)
{
    int32_t left = find_token(builder, h->left, h->left_size, "", 0);
    int32_t right = find_token(builder, h->right, h->right_size, "", 0);
    int32_t both = find_token(builder, h->left, h->left_size, h->right, h->right_size);
    const char *missing = left < 0 ? "left half" : right < 0 ? "right half" : "result";
    REQUIRE(err, left >= 0 && right >= 0 && both >= 0, PLX_BAD_DATA,
            "%s: model.merges[%zu]: the %s is not in model.vocab", name, index, missing);
    return vocab_add_merge(builder, left, right, (int32_t)index, both, err);
}

static plx_status read_merges(struct json_text merges, const char *name,
                              struct vocab_builder *builder, struct error *err)
{
    REQUIRE(err, merges.at != NULL, PLX_BAD_DATA, "%s: model.merges must be an array", name);
    for (size_t index = 0;; index++) {
        struct merge_halves halves;
        enum merges_state state = merges_next(&merges, &halves);
        if (state == MERGES_END) return PLX_OK;
        REQUIRE(err, index < VOCAB_MAX_TOKENS - 1, PLX_BAD_DATA,
                "%s: model.merges has more than the %d entries it may have", name,
                VOCAB_MAX_TOKENS - 1);
        REQUIRE(
            err, state == MERGES_ROW && halves.left_size > 0 && halves.right_size > 0, PLX_BAD_DATA,
            "%s: model.merges[%zu] must be \"left right\" or a list of two strings", name, index);
        TRY(add_merge(&halves, index, name, builder, err));
    }
}

/* ---- The whole ---- */

/* The file without its large parts, as text to keep with the vocabulary. */
static char *rules_text(const json_t *root)
{
    static const char *const kept[] = {"added_tokens", "normalizer", "pre_tokenizer",
                                       "post_processor", "decoder"};
    json_t *copy = json_object(), *model = json_copy(json_object_get(root, "model"));
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++) {
        json_t *part = json_object_get(root, kept[i]);
        if (part != NULL) json_object_set(copy, kept[i], part);
    }
    json_object_del(model, "vocab");
    bool complete = json_object_set_new(copy, "model", model) == 0;
    char *text = complete ? fields_print(copy, JSON_COMPACT) : NULL;
    json_decref(copy);
    return text;
}

/* What is read from the text, and the text that is left. */
struct parts {
    struct vocab_rows tokens;
    struct json_text merges;
    char *rest;
    size_t rest_size;
};

static void clear_parts(struct parts *parts)
{
    vocab_rows_clear(&parts->tokens);
    free(parts->rest);
}

static plx_status cut_parts(const char *json, size_t size, struct parts *parts, struct error *err)
{
    struct json_text tokens = json_text_find(json, size, "vocab", '{');
    *parts = (struct parts){.merges = json_text_find(json, size, "merges", '[')};
    TRY(vocab_rows_read(tokens, &parts->tokens, err));
    if (parts->tokens.rows == NULL) tokens.at = NULL;
    parts->rest = json_text_without(json, size, tokens, parts->merges, &parts->rest_size);
    REQUIRE(err, parts->rest != NULL, PLX_OUT_OF_MEMORY, "no memory for %zu bytes of JSON", size);
    return PLX_OK;
}

static plx_status read_root(const json_t *root, const struct parts *parts, const char *json,
                            size_t size, const char *name, struct rules *rules, struct vocab *vocab,
                            struct error *err)
{
    const struct vocab_rows *tokens = &parts->tokens;
    TRY(rules_read(root, name, rules, err));
    if (tokens->rows == NULL)
        return refuse_vocab(json_object_get(json_object_get(root, "model"), "vocab"), name, err);
    struct vocab_builder builder = {0};
    plx_status status = add_tokens(tokens, name, &builder, err);
    if (status == PLX_OK) status = check_added(tokens, &builder, rules, name, err);
    if (status == PLX_OK) status = read_merges(parts->merges, name, &builder, err);
    char *text = status == PLX_OK ? rules_text(root) : NULL;
    if (status == PLX_OK)
        status = text != NULL ? vocab_build(&builder, text, json, size, vocab, err)
                              : error_set(err, PLX_OUT_OF_MEMORY, "%s: out of memory", name);
    free(text);
    vocab_builder_clear(&builder);
    return status;
}

plx_status tokenizer_parse(const char *json, size_t size, const char *name,
                           struct tokenizer **tokenizer, struct error *err)
{
    *tokenizer = NULL;
    json_t *root = NULL;
    struct parts parts;
    struct rules rules = {0};
    struct vocab vocab = {0};
    plx_status status = cut_parts(json, size, &parts, err);
    if (status == PLX_OK) status = fields_parse(parts.rest, parts.rest_size, name, &root, err);
    if (status == PLX_OK) status = read_root(root, &parts, json, size, name, &rules, &vocab, err);
    json_decref(root);
    clear_parts(&parts);
    if (status == PLX_OK)
        return tokenizer_assemble(&vocab, &rules, json, size, name, tokenizer, err);
    rules_clear(&rules);
    return status;
}

/* A vocabulary from the cache brings its rules along as text. */
static plx_status assemble_cached(struct vocab *vocab, const char *json, size_t size,
                                  const char *name, struct tokenizer **tokenizer)
{
    json_t *root = NULL;
    struct rules rules = {0};
    plx_status status = fields_parse(vocab->rules, vocab->header->rules_bytes, name, &root, NULL);
    if (status == PLX_OK) status = rules_read(root, name, &rules, NULL);
    json_decref(root);
    if (status == PLX_OK)
        return tokenizer_assemble(vocab, &rules, json, size, name, tokenizer, NULL);
    rules_clear(&rules);
    vocab_close(vocab);
    return status;
}

static bool is_json(const char *text, size_t size)
{
    size_t at = 0;
    while (at < size && strchr(" \t\r\n", text[at]) != NULL) at++;
    return at < size && (text[at] == '{' || text[at] == '[');
}

static plx_status load_text(const char *json, size_t size, const char *path,
                            struct tokenizer **tokenizer, struct error *err)
{
    if (!is_json(json, size)) return tokenizer_parse_pieces(json, size, path, tokenizer, err);
    struct vocab vocab;
    bool large = size >= CACHED_BYTES;
    if (large && cache_find(json, size, &vocab) &&
        assemble_cached(&vocab, json, size, path, tokenizer) == PLX_OK)
        return PLX_OK;
    TRY(tokenizer_parse(json, size, path, tokenizer, err));
    if (large) cache_store(&(*tokenizer)->vocab);
    return PLX_OK;
}

plx_status tokenizer_load(const char *path, struct tokenizer **tokenizer, struct error *err)
{
    *tokenizer = NULL;
    char *text;
    size_t size;
    TRY(file_read_all(path, MAX_FILE_BYTES, &text, &size, err));
    plx_status status = load_text(text, size, path, tokenizer, err);
    free(text);
    return status;
}

static plx_status check_added_row(const json_t *row, const char *path,
                                  const struct tokenizer *pieces, struct error *err)
{
    const char *content = json_string_value(json_object_get(row, "content"));
    const json_t *id = json_object_get(row, "id");
    REQUIRE(err, content != NULL && json_is_integer(id), PLX_BAD_DATA,
            "%s: an added token has no text content or no whole id", path);
    json_int_t number = json_integer_value(id);
    bool named = tokenizer_added_id(pieces, content) == number;
    bool unknown = number == pieces->rules.unknown_id;
    size_t size = 0;
    const char *text = number >= 0 && number < vocab_tokens(&pieces->vocab)
                           ? vocab_text(&pieces->vocab, (int32_t)number, &size)
                           : "";
    bool piece = size == strlen(content) && memcmp(text, content, size) == 0;
    REQUIRE(err, named || unknown || piece, PLX_BAD_DATA,
            "%s: the added token '%s' (%lld) is not in the tokenizer.model beside it, and the "
            "file's other rules are not followed by this version",
            path, utf8_quote(content).text, (long long)number);
    return PLX_OK;
}

plx_status json_check_added(const char *path, const struct tokenizer *pieces, struct error *err)
{
    char *text;
    size_t size, index;
    json_t *root = NULL;
    const json_t *row;
    TRY(file_read_all(path, MAX_FILE_BYTES, &text, &size, err));
    plx_status status = fields_parse(text, size, path, &root, err);
    free(text);
    json_array_foreach(json_object_get(root, "added_tokens"), index, row)
    {
        if (status == PLX_OK) status = check_added_row(row, path, pieces, err);
    }
    json_decref(root);
    return status;
}
