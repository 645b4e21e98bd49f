/* tokenizer_json.c: tokenizer.json in the layout of Hugging Face's tokenizers.
 *
 * The model is BPE without merges over the byte alphabet that GPT-2 introduced: a byte that is a
 * visible character of Latin-1 (0x21..0x7e, 0xa1..0xac, 0xae..0xff) is written as that character,
 * and the remaining 68 as U+0100, U+0101, ... in the order of their values. With merges absent and
 * a ByteLevel pre-tokeniser that adds no space, where it splits the text makes no difference, so
 * its regular expression may be on or off.
 *
 * The reader accepts what encodes as tokenizer.c does and refuses everything else by name, because
 * a vocabulary that is read approximately trains a model that nobody else can use. */
#include "data/tokenizer_parts.h"
#include "data/utf8.h"
#include "io/file.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#define ONLY "this version reads byte-level vocabularies without merges"

/* Added tokens are searched one by one, so their number is bounded; real vocabularies have up to
 * some hundreds. */
enum { MAX_FILE_BYTES = 64 << 20, MAX_ADDED = 4096 };

/* ---- The byte alphabet ---- */

static bool is_visible(int byte)
{
    return (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte != 0xad);
}

/* Code point of every byte. All lie below U+0144, so each is one or two bytes of UTF-8. */
static void make_alphabet(int code[256])
{
    int next = 256;
    for (int byte = 0; byte < 256; byte++) code[byte] = is_visible(byte) ? byte : next++;
}

static void write_symbol(int code, char symbol[3])
{
    if (code < 0x80) {
        symbol[0] = (char)code;
        symbol[1] = '\0';
        return;
    }
    symbol[0] = (char)(0xc0 | code >> 6);
    symbol[1] = (char)(0x80 | (code & 0x3f));
    symbol[2] = '\0';
}

/* The byte that a key of the vocabulary stands for, -1 if it is no single symbol of the alphabet.
 */
static int symbol_byte(const char *key, const int code[256])
{
    for (int byte = 0; byte < 256; byte++) {
        char symbol[3];
        write_symbol(code[byte], symbol);
        if (strcmp(key, symbol) == 0) return byte;
    }
    return -1;
}

/* ---- Reading ---- */

/* At most 64 bytes of a string from the file, safe to print. */
struct quote {
    char text[65];
};

static struct quote quote(const char *text)
{
    struct quote quoted;
    size_t size = strlen(text), limit = sizeof quoted.text - 1;
    size_t cut = size > limit ? utf8_cut(text, limit) : size;
    memcpy(quoted.text, text, cut);
    quoted.text[cut] = '\0';
    utf8_make_printable(quoted.text);
    return quoted;
}

/* "type" of a component; "null" where it is absent or null, "?" where it is no object with a type.
 */
static const char *component_type(const json_t *root, const char *key)
{
    const json_t *part = json_object_get(root, key);
    if (part == NULL || json_is_null(part)) return "null";
    const char *type = json_string_value(json_object_get(part, "type"));
    return type != NULL ? type : "?";
}

static plx_status read_components(const json_t *root, const char *name, struct error *err)
{
    REQUIRE(err, json_is_object(root), PLX_BAD_DATA, "%s: not a JSON object", name);
    const char *type = component_type(root, "normalizer");
    REQUIRE(err, strcmp(type, "null") == 0, PLX_BAD_DATA,
            "%s: normalizer is %s but must be null; " ONLY, name, quote(type).text);
    type = component_type(root, "pre_tokenizer");
    REQUIRE(err, strcmp(type, "ByteLevel") == 0, PLX_BAD_DATA,
            "%s: pre_tokenizer is %s but must be ByteLevel; " ONLY, name, quote(type).text);
    const json_t *pre = json_object_get(root, "pre_tokenizer");
    REQUIRE(err, json_is_false(json_object_get(pre, "add_prefix_space")), PLX_BAD_DATA,
            "%s: pre_tokenizer.add_prefix_space must be false; " ONLY, name);
    type = component_type(root, "decoder");
    REQUIRE(err, strcmp(type, "ByteLevel") == 0, PLX_BAD_DATA,
            "%s: decoder is %s but must be ByteLevel; " ONLY, name, quote(type).text);
    type = component_type(root, "post_processor");
    REQUIRE(err, strcmp(type, "null") == 0 || strcmp(type, "ByteLevel") == 0, PLX_BAD_DATA,
            "%s: post_processor is %s but must be null or ByteLevel; " ONLY, name,
            quote(type).text);
    type = component_type(root, "model");
    REQUIRE(err, strcmp(type, "BPE") == 0, PLX_BAD_DATA, "%s: model is %s but must be BPE; " ONLY,
            name, quote(type).text);
    return PLX_OK;
}

static bool is_absent_or_empty(const json_t *value)
{
    return value == NULL || json_is_null(value) ||
           (json_is_string(value) && json_string_length(value) == 0);
}

static plx_status read_model_rules(const json_t *model, const char *name, struct error *err)
{
    const json_t *merges = json_object_get(model, "merges");
    REQUIRE(err, json_is_array(merges), PLX_BAD_DATA, "%s: model.merges must be an array", name);
    REQUIRE(err, json_array_size(merges) == 0, PLX_BAD_DATA,
            "%s: model.merges has %zu entries but must be empty; " ONLY, name,
            json_array_size(merges));
    static const char *const affixes[] = {"continuing_subword_prefix", "end_of_word_suffix"};
    for (int i = 0; i < 2; i++)
        REQUIRE(err, is_absent_or_empty(json_object_get(model, affixes[i])), PLX_BAD_DATA,
                "%s: model.%s must be null; " ONLY, name, affixes[i]);
    return PLX_OK;
}

/* id of a token, checked. where is "model.vocab" or "added_tokens". */
static plx_status read_id(const json_t *value, const char *where, const char *token,
                          const char *name, int32_t *id, struct error *err)
{
    REQUIRE(err, json_is_integer(value), PLX_BAD_DATA, "%s: %s: the id of '%s' is not an integer",
            name, where, quote(token).text);
    json_int_t number = json_integer_value(value);
    REQUIRE(err, number >= 0 && number < TOKENIZER_MAX_VOCAB, PLX_BAD_DATA,
            "%s: %s: the id of '%s' is %lld but must be 0..%d", name, where, quote(token).text,
            (long long)number, TOKENIZER_MAX_VOCAB - 1);
    *id = (int32_t)number;
    return PLX_OK;
}

static bool flag(const json_t *row, const char *key)
{
    return json_is_true(json_object_get(row, key));
}

static const struct added_token *find_added(const struct tokenizer *tokenizer, const char *content)
{
    for (int64_t i = 0; i < tokenizer->added_count; i++)
        if (strcmp(tokenizer->added[i].content, content) == 0) return &tokenizer->added[i];
    return NULL;
}

static plx_status read_added(const json_t *root, const char *name, struct tokenizer *tokenizer,
                             struct error *err)
{
    const json_t *rows = json_object_get(root, "added_tokens"), *row;
    if (rows == NULL || json_is_null(rows)) return PLX_OK;
    REQUIRE(err, json_is_array(rows), PLX_BAD_DATA, "%s: added_tokens must be an array", name);
    REQUIRE(err, json_array_size(rows) <= MAX_ADDED, PLX_BAD_DATA,
            "%s: added_tokens has %zu entries but at most %d are allowed", name,
            json_array_size(rows), MAX_ADDED);
    size_t index;
    json_array_foreach(rows, index, row)
    {
        const json_t *content = json_object_get(row, "content");
        REQUIRE(err, json_is_string(content) && json_string_length(content) > 0, PLX_BAD_DATA,
                "%s: added_tokens[%zu].content must be a string that is not empty", name, index);
        struct added_token added = {.content = (char *)json_string_value(content),
                                    .size = json_string_length(content),
                                    .special = flag(row, "special"),
                                    .single_word = flag(row, "single_word"),
                                    .lstrip = flag(row, "lstrip"),
                                    .rstrip = flag(row, "rstrip"),
                                    .normalized = flag(row, "normalized")};
        REQUIRE(err, find_added(tokenizer, added.content) == NULL, PLX_BAD_DATA,
                "%s: added_tokens has '%s' twice", name, quote(added.content).text);
        TRY(read_id(json_object_get(row, "id"), "added_tokens", added.content, name, &added.id,
                    err));
        TRY(tokenizer_add(tokenizer, &added, err));
    }
    return PLX_OK;
}

/* Keys are the 256 byte symbols; GPT-2's files list added tokens among them too, with the same id.
 */
static plx_status read_vocab(const json_t *model, const char *name, struct tokenizer *tokenizer,
                             struct error *err)
{
    json_t *vocab = json_object_get(model, "vocab"), *value;
    REQUIRE(err, json_is_object(vocab), PLX_BAD_DATA, "%s: model.vocab must be an object", name);
    int code[256];
    make_alphabet(code);
    const char *key;
    json_object_foreach(vocab, key, value)
    {
        int32_t id;
        TRY(read_id(value, "model.vocab", key, name, &id, err));
        int byte = symbol_byte(key, code);
        if (byte >= 0) {
            tokenizer->byte_id[byte] = id;
            continue;
        }
        const struct added_token *added = find_added(tokenizer, key);
        REQUIRE(err, added != NULL, PLX_BAD_DATA,
                "%s: model.vocab: '%s' stands for no single byte and is no added token; " ONLY,
                name, quote(key).text);
        REQUIRE(err, added->id == id, PLX_BAD_DATA,
                "%s: the id of '%s' is %d in model.vocab but %d in added_tokens", name,
                quote(key).text, id, added->id);
    }
    for (int byte = 0; byte < 256; byte++)
        REQUIRE(err, tokenizer->byte_id[byte] >= 0, PLX_BAD_DATA,
                "%s: model.vocab has no token for byte 0x%02x; " ONLY, name, (unsigned)byte);
    return PLX_OK;
}

static plx_status check_unique(const struct tokenizer *tokenizer, const char *name,
                               struct error *err)
{
    unsigned char *seen = calloc(TOKENIZER_MAX_VOCAB, 1);
    REQUIRE(err, seen != NULL, PLX_OUT_OF_MEMORY, "%s: out of memory", name);
    int32_t twice = -1;
    for (int byte = 0; byte < 256; byte++)
        if (seen[tokenizer->byte_id[byte]]++ != 0) twice = tokenizer->byte_id[byte];
    for (int64_t i = 0; i < tokenizer->added_count && twice < 0; i++)
        if (seen[tokenizer->added[i].id]++ != 0) twice = tokenizer->added[i].id;
    free(seen);
    REQUIRE(err, twice < 0, PLX_BAD_DATA, "%s: two tokens have the id %d", name, twice);
    return PLX_OK;
}

static plx_status read_root(const json_t *root, const char *name, struct tokenizer *tokenizer,
                            struct error *err)
{
    TRY(read_components(root, name, err));
    const json_t *model = json_object_get(root, "model");
    TRY(read_model_rules(model, name, err));
    TRY(read_added(root, name, tokenizer, err));
    TRY(read_vocab(model, name, tokenizer, err));
    TRY(check_unique(tokenizer, name, err));
    return tokenizer_complete(tokenizer, err);
}

plx_status tokenizer_parse(const char *json, size_t size, const char *name,
                           struct tokenizer **tokenizer, struct error *err)
{
    *tokenizer = NULL;
    json_error_t reason;
    json_t *root = json_loadb(json, size, JSON_REJECT_DUPLICATES, &reason);
    if (root == NULL) {
        utf8_make_printable(reason.text);
        return error_set(err, PLX_BAD_DATA, "%s:%d: not valid JSON: %s", name, reason.line,
                         reason.text);
    }
    struct tokenizer *made = NULL;
    plx_status status = tokenizer_create_empty(&made, err);
    if (status == PLX_OK) status = read_root(root, name, made, err);
    json_decref(root);
    if (status != PLX_OK) {
        tokenizer_destroy(made);
        return status;
    }
    *tokenizer = made;
    return PLX_OK;
}

plx_status tokenizer_load(const char *path, struct tokenizer **tokenizer, struct error *err)
{
    *tokenizer = NULL;
    char *text;
    size_t size;
    TRY(file_read_all(path, MAX_FILE_BYTES, &text, &size, err));
    plx_status status = tokenizer_parse(text, size, path, tokenizer, err);
    free(text);
    return status;
}

/* ---- Writing ---- */

/* The formatting functions return NULL when out of memory: a vocabulary with a gap must never be
 * saved. */

static json_t *complete_or_null(json_t *value, bool complete)
{
    if (complete) return value;
    json_decref(value);
    return NULL;
}

/* The vocabulary in the order of ids, as people expect to read it. */
static json_t *format_vocab(const struct tokenizer *tokenizer)
{
    int code[256];
    make_alphabet(code);
    json_t *vocab = json_object();
    bool complete = vocab != NULL;
    for (int64_t id = 0; id < tokenizer->vocab_size && complete; id++) {
        const char *text = tokenizer->entries[id].text;
        bool is_byte = text >= tokenizer->bytes && text < tokenizer->bytes + 256;
        if (!is_byte) continue;
        char symbol[3];
        write_symbol(code[(unsigned char)*text], symbol);
        complete = json_object_set_new(vocab, symbol, json_integer(id)) == 0;
    }
    return complete_or_null(vocab, complete);
}

static json_t *format_added(const struct tokenizer *tokenizer)
{
    json_t *rows = json_array();
    bool complete = rows != NULL;
    for (int64_t i = 0; i < tokenizer->added_count && complete; i++) {
        const struct added_token *a = &tokenizer->added[i];
        json_t *row =
            json_pack("{s:i, s:s, s:b, s:b, s:b, s:b, s:b}", "id", (int)a->id, "content",
                      a->content, "single_word", a->single_word, "lstrip", a->lstrip, "rstrip",
                      a->rstrip, "normalized", a->normalized, "special", a->special);
        complete = json_array_append_new(rows, row) == 0;
    }
    return complete_or_null(rows, complete);
}

static json_t *format_byte_level(void)
{
    return json_pack("{s:s, s:b, s:b, s:b}", "type", "ByteLevel", "add_prefix_space", 0,
                     "trim_offsets", 1, "use_regex", 0);
}

/* json_pack fails where one of the parts it takes over is NULL, and releases the others. */
static json_t *format_root(const struct tokenizer *tokenizer)
{
    json_t *model = json_pack("{s:s, s:n, s:n, s:n, s:n, s:b, s:b, s:b, s:o, s:[]}", "type", "BPE",
                              "dropout", "unk_token", "continuing_subword_prefix",
                              "end_of_word_suffix", "fuse_unk", 0, "byte_fallback", 0,
                              "ignore_merges", 0, "vocab", format_vocab(tokenizer), "merges");
    return json_pack("{s:s, s:n, s:n, s:o, s:n, s:o, s:n, s:o, s:o}", "version", "1.0",
                     "truncation", "padding", "added_tokens", format_added(tokenizer), "normalizer",
                     "pre_tokenizer", format_byte_level(), "post_processor", "decoder",
                     format_byte_level(), "model", model);
}

/* The text of a JSON value into malloc'd memory of exactly its size. json_dumps instead grows its
 * buffer, and where that fails in the middle it may leave out a part and succeed. */
static char *dump_text(const json_t *root, size_t *size)
{
    *size = json_dumpb(root, NULL, 0, JSON_INDENT(2));
    char *text = *size > 0 ? malloc(*size) : NULL;
    if (text != NULL && json_dumpb(root, text, *size, JSON_INDENT(2)) == *size) return text;
    free(text);
    return NULL;
}

plx_status tokenizer_save(const struct tokenizer *tokenizer, const char *path, struct error *err)
{
    json_t *root = format_root(tokenizer);
    size_t size = 0;
    char *text = root != NULL ? dump_text(root, &size) : NULL;
    json_decref(root);
    REQUIRE(err, text != NULL, PLX_OUT_OF_MEMORY, "%s: cannot format the tokenizer", path);
    plx_status status = file_replace(path, text, size, err);
    free(text);
    return status;
}
