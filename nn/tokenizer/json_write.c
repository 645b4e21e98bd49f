/* json_write.c: a byte-level BPE vocabulary as tokenizer.json, which Hugging Face's tokenizers
 * load. */
#include "tokenizer/alphabet.h"
#include "tokenizer/parts.h"

#include <stdlib.h>
#include <string.h>

#include "io/fields.h"
#include "io/file.h"

/* The formatting functions return NULL when out of memory: a vocabulary with a gap must never be
 * saved. */
static json_t *complete_or_null(json_t *value, bool complete)
{
    if (complete) return value;
    json_decref(value);
    return NULL;
}

/* Every token in the alphabet: bytes, then merges, each the text of its halves. */
struct symbols {
    char **texts;
    int64_t count;
};

static void clear_symbols(struct symbols *symbols)
{
    for (int64_t i = 0; i < symbols->count; i++) free(symbols->texts[i]);
    free(symbols->texts);
}

static bool make_symbols(const struct merge_pair *merges, int64_t count, struct symbols *symbols)
{
    *symbols = (struct symbols){.texts = calloc((size_t)count + 256, sizeof(char *))};
    if (symbols->texts == NULL) return false;
    for (int64_t i = 0; i < count + 256; i++) {
        char byte = (char)i;
        const char *left = i >= 256 ? symbols->texts[merges[i - 256].left] : "";
        const char *right = i >= 256 ? symbols->texts[merges[i - 256].right] : "";
        char *text = malloc(strlen(left) + strlen(right) + 3);
        if (text == NULL) return false;
        if (i < 256)
            alphabet_encode(&byte, 1, text);
        else
            strcpy(stpcpy(text, left), right);
        symbols->texts[symbols->count++] = text;
    }
    return true;
}

static json_t *format_vocab(const struct symbols *symbols)
{
    json_t *vocab = json_object();
    bool complete = vocab != NULL;
    for (int64_t i = 0; i < symbols->count && complete; i++)
        complete = json_object_set_new(vocab, symbols->texts[i], json_integer(i)) == 0;
    return complete_or_null(vocab, complete);
}

static json_t *format_merges(const struct symbols *symbols, const struct merge_pair *merges)
{
    json_t *rows = json_array();
    bool complete = rows != NULL;
    for (int64_t i = 0; i < symbols->count - 256 && complete; i++)
        complete = json_array_append_new(rows, json_pack("[s, s]", symbols->texts[merges[i].left],
                                                         symbols->texts[merges[i].right])) == 0;
    return complete_or_null(rows, complete);
}

static json_t *format_specials(const char *const *specials, int count, int64_t first)
{
    json_t *rows = json_array();
    bool complete = rows != NULL;
    for (int i = 0; i < count && complete; i++) {
        json_t *row = json_pack("{s:I, s:s, s:b, s:b, s:b, s:b, s:b}", "id",
                                (json_int_t)(first + i), "content", specials[i], "single_word", 0,
                                "lstrip", 0, "rstrip", 0, "normalized", 0, "special", 1);
        complete = json_array_append_new(rows, row) == 0;
    }
    return complete_or_null(rows, complete);
}

static json_t *format_byte_level(void)
{
    return json_pack("{s:s, s:b, s:b, s:b}", "type", "ByteLevel", "add_prefix_space", 0,
                     "trim_offsets", 1, "use_regex", 0);
}

static json_t *format_pre_tokenizer(const char *pattern)
{
    if (pattern == NULL) return format_byte_level();
    json_t *split = json_pack("{s:s, s:{s:s}, s:s, s:b}", "type", "Split", "pattern", "Regex",
                              pattern, "behavior", "Isolated", "invert", 0);
    return json_pack("{s:s, s:[o, o]}", "type", "Sequence", "pretokenizers", split,
                     format_byte_level());
}

/* json_pack fails where one of the parts it takes over is NULL, and releases the others. */
static json_t *format_root(const struct symbols *symbols, const struct merge_pair *merges,
                           json_t *specials, const char *pattern)
{
    json_t *model =
        json_pack("{s:s, s:n, s:n, s:n, s:n, s:b, s:b, s:b, s:o, s:o}", "type", "BPE", "dropout",
                  "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk", 0,
                  "byte_fallback", 0, "ignore_merges", 0, "vocab", format_vocab(symbols), "merges",
                  format_merges(symbols, merges));
    return json_pack("{s:s, s:n, s:n, s:o, s:n, s:o, s:n, s:o, s:o}", "version", "1.0",
                     "truncation", "padding", "added_tokens", specials, "normalizer",
                     "pre_tokenizer", format_pre_tokenizer(pattern), "post_processor", "decoder",
                     format_byte_level(), "model", model);
}

plx_status tokenizer_format(const struct merge_pair *merges, int64_t merge_count,
                            const char *const *specials, int special_count, const char *pattern,
                            char **json, size_t *size, struct error *err)
{
    struct symbols symbols;
    json_t *root = NULL;
    if (make_symbols(merges, merge_count, &symbols))
        root = format_root(&symbols, merges,
                           format_specials(specials, special_count, symbols.count), pattern);
    clear_symbols(&symbols);
    *json = root != NULL ? fields_print(root, JSON_INDENT(2)) : NULL;
    *size = *json != NULL ? strlen(*json) : 0;
    json_decref(root);
    REQUIRE(err, *json != NULL, PLX_OUT_OF_MEMORY, "cannot format a tokenizer");
    return PLX_OK;
}

plx_status tokenizer_create_bytes(struct tokenizer **tokenizer, struct error *err)
{
    static const char *const specials[] = {TOKENIZER_END_OF_TEXT};
    char *json;
    size_t size;
    *tokenizer = NULL;
    TRY(tokenizer_format(NULL, 0, specials, 1, NULL, &json, &size, err));
    plx_status status = tokenizer_parse(json, size, "the byte tokenizer", tokenizer, err);
    free(json);
    return status;
}

plx_status tokenizer_save(const struct tokenizer *tokenizer, const char *path, struct error *err)
{
    return file_replace(path, tokenizer->source, tokenizer->source_size, err);
}
