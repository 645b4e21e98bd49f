/* json_rules.c: the parts of tokenizer.json that say what happens around the merges: added tokens,
 * normaliser, pre-tokeniser, post-processor, decoder, flags of the model.
 *
 * What encodes exactly as in Hugging Face's tokenizers is read, and everything else is refused by
 * name, because a vocabulary that is read approximately trains a model that nobody else can use. */
#include "tokenizer/parts.h"

#include <stdlib.h>
#include <string.h>

#include "data/utf8.h"

/* "type" of a component; "null" where it is absent or null, "?" where it is no object with a type.
 */
static const char *type_of(const json_t *part)
{
    if (part == NULL || json_is_null(part)) return "null";
    const char *type = json_string_value(json_object_get(part, "type"));
    return type != NULL ? type : "?";
}

static bool is_type(const json_t *part, const char *type)
{
    return strcmp(type_of(part), type) == 0;
}

/* The parts that a component stands for: those of a Sequence, or the component itself. where is
 * its key in the file, list the key of a Sequence's parts. */
struct parts {
    const json_t *list, *single;
    size_t count;
};

static plx_status open_parts(const json_t *part, const char *list, const char *where,
                             const char *name, struct parts *parts, struct error *err)
{
    *parts = (struct parts){.single = part, .count = is_type(part, "null") ? 0 : 1};
    if (!is_type(part, "Sequence")) return PLX_OK;
    parts->list = json_object_get(part, list);
    REQUIRE(err, json_is_array(parts->list), PLX_BAD_DATA, "%s: %s.%s must be an array", name,
            where, list);
    parts->count = json_array_size(parts->list);
    return PLX_OK;
}

static const json_t *part_at(const struct parts *parts, size_t index)
{
    return parts->list != NULL ? json_array_get(parts->list, index) : parts->single;
}

/* A member that is true or false; absent is fallback. */
static plx_status read_flag(const json_t *part, const char *key, bool fallback, const char *where,
                            const char *name, bool *value, struct error *err)
{
    const json_t *found = json_object_get(part, key);
    *value = found == NULL ? fallback : json_is_true(found);
    REQUIRE(err, found == NULL || json_is_boolean(found), PLX_BAD_DATA,
            "%s: %s.%s must be true or false", name, where, key);
    return PLX_OK;
}

/* ---- Normaliser ---- */

static plx_status read_normalizer(const json_t *root, const char *name, struct rules *rules,
                                  struct error *err)
{
    struct parts parts;
    TRY(open_parts(json_object_get(root, "normalizer"), "normalizers", "normalizer", name, &parts,
                   err));
    for (size_t i = 0; i < parts.count; i++) {
        const json_t *part = part_at(&parts, i);
        REQUIRE(err, is_type(part, "NFC"), PLX_BAD_DATA,
                "%s: normalizer is %s but must be NFC or null", name,
                utf8_quote(type_of(part)).text);
        rules->nfc = true;
    }
    return PLX_OK;
}

/* ---- Pre-tokeniser ---- */

static plx_status read_behaviour(const json_t *part, const char *name,
                                 enum split_behaviour *behaviour, struct error *err)
{
    static const char *const names[] = {
        [SPLIT_ISOLATED] = "Isolated",
        [SPLIT_REMOVED] = "Removed",
        [SPLIT_MERGED_WITH_PREVIOUS] = "MergedWithPrevious",
        [SPLIT_MERGED_WITH_NEXT] = "MergedWithNext",
        [SPLIT_CONTIGUOUS] = "Contiguous",
    };
    const char *word = json_string_value(json_object_get(part, "behavior"));
    for (int i = 0; word != NULL && i < (int)(sizeof names / sizeof *names); i++)
        if (strcmp(word, names[i]) == 0) {
            *behaviour = (enum split_behaviour)i;
            return PLX_OK;
        }
    return error_set(err, PLX_BAD_DATA,
                     "%s: pre_tokenizer: Split.behavior is %s but must be Isolated, Removed, "
                     "MergedWithPrevious, MergedWithNext or Contiguous",
                     name, word != NULL ? utf8_quote(word).text : "no text");
}

static plx_status read_split(const json_t *part, const char *name, struct rules *rules,
                             struct error *err)
{
    struct split_step *step = &rules->steps[rules->step_count++];
    TRY(read_behaviour(part, name, &step->behaviour, err));
    TRY(read_flag(part, "invert", false, "pre_tokenizer", name, &step->invert, err));
    const json_t *pattern = json_object_get(part, "pattern");
    const json_t *text = json_object_get(pattern, "Regex");
    if (json_is_string(text))
        return pattern_create(json_string_value(text), json_string_length(text), name,
                              &step->pattern, err);
    text = json_object_get(pattern, "String");
    REQUIRE(err, json_is_string(text), PLX_BAD_DATA,
            "%s: pre_tokenizer: Split.pattern must have a text Regex or String", name);
    return pattern_create_literal(json_string_value(text), json_string_length(text), &step->pattern,
                                  err);
}

static plx_status read_digits(const json_t *part, const char *name, struct rules *rules,
                              struct error *err)
{
    struct split_step *step = &rules->steps[rules->step_count++];
    bool single;
    TRY(read_flag(part, "individual_digits", false, "pre_tokenizer", name, &single, err));
    step->behaviour = single ? SPLIT_ISOLATED : SPLIT_CONTIGUOUS;
    return pattern_create("\\p{N}", 5, name, &step->pattern, err);
}

static plx_status read_byte_level(const json_t *part, const char *name, struct rules *rules,
                                  struct error *err)
{
    bool prefix_space, split;
    TRY(read_flag(part, "add_prefix_space", true, "pre_tokenizer", name, &prefix_space, err));
    TRY(read_flag(part, "use_regex", true, "pre_tokenizer", name, &split, err));
    if (!prefix_space && !split) return PLX_OK;
    struct split_step *step = &rules->steps[rules->step_count++];
    step->prefix_space = prefix_space;
    step->behaviour = SPLIT_ISOLATED;
    if (!split) return PLX_OK;
    return pattern_create(pattern_gpt2, strlen(pattern_gpt2), name, &step->pattern, err);
}

static plx_status read_pre_tokenizer(const json_t *root, const char *name, struct rules *rules,
                                     struct error *err)
{
    static const struct {
        const char *type;
        plx_status (*read)(const json_t *, const char *, struct rules *, struct error *);
    } readers[] = {{"Split", read_split}, {"Digits", read_digits}, {"ByteLevel", read_byte_level}};
    struct parts parts;
    TRY(open_parts(json_object_get(root, "pre_tokenizer"), "pretokenizers", "pre_tokenizer", name,
                   &parts, err));
    const json_t *last = parts.count > 0 ? part_at(&parts, parts.count - 1) : NULL;
    REQUIRE(err, is_type(last, "ByteLevel"), PLX_BAD_DATA,
            "%s: pre_tokenizer is %s but must be, or end in, ByteLevel", name,
            utf8_quote(type_of(last)).text);
    REQUIRE(err, parts.count <= TOKENIZER_MAX_STEPS, PLX_BAD_DATA,
            "%s: pre_tokenizer has %zu steps but may have %d", name, parts.count,
            TOKENIZER_MAX_STEPS);
    for (size_t i = 0; i < parts.count; i++) {
        const json_t *part = part_at(&parts, i);
        size_t row = 0;
        while (row < 3 && !is_type(part, readers[row].type)) row++;
        /* Behind a ByteLevel the pieces are written in the alphabet, where others mean nothing. */
        bool early = row == 2 && i + 1 < parts.count;
        REQUIRE(err, row < 3 && !early, PLX_BAD_DATA,
                "%s: pre_tokenizer has %s at %zu but may have Split and Digits before a ByteLevel",
                name, utf8_quote(type_of(part)).text, i);
        TRY(readers[row].read(part, name, rules, err));
    }
    return PLX_OK;
}

/* ---- Added tokens ---- */

static plx_status read_id(const json_t *value, const char *token, const char *name, int32_t *id,
                          struct error *err)
{
    REQUIRE(err, json_is_integer(value), PLX_BAD_DATA,
            "%s: added_tokens: the id of '%s' is not an integer", name, utf8_quote(token).text);
    json_int_t number = json_integer_value(value);
    REQUIRE(err, number >= 0 && number < VOCAB_MAX_TOKENS, PLX_BAD_DATA,
            "%s: added_tokens: the id of '%s' is %lld but must be 0..%d", name,
            utf8_quote(token).text, (long long)number, VOCAB_MAX_TOKENS - 1);
    *id = (int32_t)number;
    return PLX_OK;
}

static plx_status check_added(const struct rules *rules, const struct added_token *added,
                              const char *name, struct error *err)
{
    for (int i = 0; i < rules->added_count; i++) {
        const struct added_token *other = &rules->added[i];
        REQUIRE(err, strcmp(other->content, added->content) != 0, PLX_BAD_DATA,
                "%s: added_tokens has '%s' twice", name, utf8_quote(added->content).text);
        REQUIRE(err, other->id != added->id, PLX_BAD_DATA, "%s: two tokens have the id %d", name,
                added->id);
    }
    return PLX_OK;
}

static plx_status read_added_row(const json_t *row, size_t index, const char *name,
                                 struct rules *rules, struct error *err)
{
    const json_t *content = json_object_get(row, "content");
    REQUIRE(err, json_is_string(content) && json_string_length(content) > 0, PLX_BAD_DATA,
            "%s: added_tokens[%zu].content must be a string that is not empty", name, index);
    struct added_token added = {.content = (char *)json_string_value(content),
                                .size = json_string_length(content)};
    static const char *const keys[] = {"special", "single_word", "lstrip", "rstrip", "normalized"};
    bool *const flags[] = {&added.special, &added.single_word, &added.lstrip, &added.rstrip,
                           &added.normalized};
    for (int i = 0; i < 5; i++)
        TRY(read_flag(row, keys[i], false, "added_tokens", name, flags[i], err));
    TRY(read_id(json_object_get(row, "id"), added.content, name, &added.id, err));
    TRY(check_added(rules, &added, name, err));
    added.content = strdup(added.content);
    REQUIRE(err, added.content != NULL, PLX_OUT_OF_MEMORY, "%s: out of memory", name);
    rules->added[rules->added_count++] = added;
    return PLX_OK;
}

static plx_status read_added(const json_t *root, const char *name, struct rules *rules,
                             struct error *err)
{
    const json_t *rows = json_object_get(root, "added_tokens"), *row;
    if (rows == NULL || json_is_null(rows)) return PLX_OK;
    REQUIRE(err, json_is_array(rows), PLX_BAD_DATA, "%s: added_tokens must be an array", name);
    REQUIRE(err, json_array_size(rows) <= TOKENIZER_MAX_ADDED, PLX_BAD_DATA,
            "%s: added_tokens has %zu entries but at most %d are allowed", name,
            json_array_size(rows), TOKENIZER_MAX_ADDED);
    rules->added = calloc(json_array_size(rows) + 1, sizeof *rules->added);
    REQUIRE(err, rules->added != NULL, PLX_OUT_OF_MEMORY, "%s: out of memory", name);
    size_t index;
    json_array_foreach(rows, index, row) TRY(read_added_row(row, index, name, rules, err));
    return PLX_OK;
}

/* ---- Post-processor and decoder ---- */

static plx_status read_frame_token(const json_t *item, const char *name, struct rules *rules,
                                   bool after, struct error *err)
{
    const char *token = json_string_value(json_object_get(item, "id"));
    int32_t *ids = after ? rules->after : rules->before;
    int *count = after ? &rules->after_count : &rules->before_count;
    REQUIRE(err, token != NULL && *count < TOKENIZER_MAX_FRAME, PLX_BAD_DATA,
            "%s: post_processor.single must name at most %d special tokens on a side", name,
            TOKENIZER_MAX_FRAME);
    for (int i = 0; i < rules->added_count; i++)
        if (strcmp(rules->added[i].content, token) == 0) {
            ids[(*count)++] = rules->added[i].id;
            return PLX_OK;
        }
    return error_set(err, PLX_BAD_DATA, "%s: post_processor.single names '%s', no added token",
                     name, utf8_quote(token).text);
}

/* "single": special tokens, one Sequence, special tokens. */
static plx_status read_template(const json_t *part, const char *name, struct rules *rules,
                                struct error *err)
{
    const json_t *single = json_object_get(part, "single"), *row;
    bool after = false;
    size_t index;
    REQUIRE(err, json_is_array(single), PLX_BAD_DATA, "%s: post_processor.single must be an array",
            name);
    json_array_foreach(single, index, row)
    {
        const json_t *special = json_object_get(row, "SpecialToken");
        bool sequence = json_is_object(json_object_get(row, "Sequence"));
        REQUIRE(err, json_is_object(special) || (sequence && !after), PLX_BAD_DATA,
                "%s: post_processor.single[%zu] must be a SpecialToken or the one Sequence", name,
                index);
        after = after || sequence;
        if (!sequence) TRY(read_frame_token(special, name, rules, after, err));
    }
    REQUIRE(err, after, PLX_BAD_DATA, "%s: post_processor.single has no Sequence", name);
    return PLX_OK;
}

static plx_status read_post_processor(const json_t *root, const char *name, struct rules *rules,
                                      struct error *err)
{
    struct parts parts;
    TRY(open_parts(json_object_get(root, "post_processor"), "processors", "post_processor", name,
                   &parts, err));
    for (size_t i = 0; i < parts.count; i++) {
        const json_t *part = part_at(&parts, i);
        if (is_type(part, "ByteLevel")) continue; /* moves offsets only */
        bool second = rules->before_count > 0 || rules->after_count > 0;
        REQUIRE(err, is_type(part, "TemplateProcessing") && !second, PLX_BAD_DATA,
                "%s: post_processor is %s but must be null, ByteLevel or one TemplateProcessing",
                name, utf8_quote(type_of(part)).text);
        TRY(read_template(part, name, rules, err));
    }
    return PLX_OK;
}

static plx_status read_decoder(const json_t *root, const char *name, struct error *err)
{
    struct parts parts;
    TRY(open_parts(json_object_get(root, "decoder"), "decoders", "decoder", name, &parts, err));
    const json_t *part = parts.count > 0 ? part_at(&parts, 0) : NULL;
    REQUIRE(err, parts.count == 1 && is_type(part, "ByteLevel"), PLX_BAD_DATA,
            "%s: decoder is %s but must be ByteLevel", name, utf8_quote(type_of(part)).text);
    return PLX_OK;
}

/* ---- The model's flags ---- */

static bool is_absent_or_empty(const json_t *value)
{
    return value == NULL || json_is_null(value) ||
           (json_is_string(value) && json_string_length(value) == 0);
}

static plx_status read_model_flags(const json_t *root, const char *name, struct rules *rules,
                                   struct error *err)
{
    const json_t *model = json_object_get(root, "model");
    /* Old files have no type; only BPE's have merges. */
    bool bpe =
        is_type(model, "BPE") || (is_type(model, "?") && json_object_get(model, "merges") != NULL &&
                                  json_object_get(model, "type") == NULL);
    REQUIRE(err, bpe, PLX_BAD_DATA, "%s: model is %s but must be BPE", name,
            utf8_quote(type_of(model)).text);
    static const char *const affixes[] = {"continuing_subword_prefix", "end_of_word_suffix"};
    for (int i = 0; i < 2; i++)
        REQUIRE(err, is_absent_or_empty(json_object_get(model, affixes[i])), PLX_BAD_DATA,
                "%s: model.%s must be null", name, affixes[i]);
    const json_t *dropout = json_object_get(model, "dropout");
    REQUIRE(err,
            dropout == NULL || json_is_null(dropout) ||
                (json_is_number(dropout) && json_number_value(dropout) == 0.0),
            PLX_BAD_DATA, "%s: model.dropout must be null", name);
    return read_flag(model, "ignore_merges", false, "model", name, &rules->ignore_merges, err);
}

plx_status rules_read(const json_t *root, const char *name, struct rules *rules, struct error *err)
{
    *rules = (struct rules){0};
    REQUIRE(err, json_is_object(root), PLX_BAD_DATA, "%s: not a JSON object", name);
    TRY(read_normalizer(root, name, rules, err));
    TRY(read_pre_tokenizer(root, name, rules, err));
    TRY(read_decoder(root, name, err));
    TRY(read_model_flags(root, name, rules, err));
    TRY(read_added(root, name, rules, err));
    return read_post_processor(root, name, rules, err);
}

void rules_clear(struct rules *rules)
{
    for (int i = 0; i < rules->step_count; i++) pattern_destroy(rules->steps[i].pattern);
    for (int i = 0; i < rules->added_count; i++) free(rules->added[i].content);
    free(rules->added);
    free(rules->scores);
    *rules = (struct rules){0};
}
