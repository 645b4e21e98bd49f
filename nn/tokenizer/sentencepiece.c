/* sentencepiece.c: tokenizer.model of SentencePiece, BPE and unigram.
 *
 * A piece writes a space as U+2581. Here that character and the space are one and the same, the
 * space, in pieces and in text, which is what SentencePiece makes of them too. BPE pieces have
 * scores instead of merges: of all neighbours that together are a piece, those of the highest score
 * go first. So every way to divide a piece into two others is a merge, whose rank is the order of
 * the scores. */
#include "tokenizer/protobuf.h"
#include "tokenizer/parts.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/utf8.h"

/* A piece of n bytes costs n look-ups of up to n bytes, so its length is bounded. */
enum { MAX_PIECE = 256, MAX_PIECES = 1 << 20 };

enum piece_type {
    PIECE_NORMAL = 1,
    PIECE_UNKNOWN,
    PIECE_CONTROL,
    PIECE_USER_DEFINED,
    PIECE_UNUSED,
    PIECE_BYTE
};

enum model_type { MODEL_UNIGRAM = 1, MODEL_BPE = 2 };

struct piece {
    const char *text;
    size_t size;
    float score;
    uint64_t type;
};

/* What the file says. */
struct model {
    const char *name; /* for messages */
    struct piece *pieces;
    int64_t count, capacity;
    uint64_t type;
    const unsigned char *trainer, *normalizer;
    size_t trainer_size, normalizer_size;
    bool byte_fallback;
    char unknown_surface[64]; /* what <unk> decodes to */
    struct error *err;
};

#define REFUSE(model, ...) return error_set((model)->err, PLX_BAD_DATA, __VA_ARGS__)

/* ---- The file ---- */

static plx_status read_piece(struct model *model, const struct protobuf_field *message)
{
    struct piece piece = {.text = "", .type = PIECE_NORMAL};
    struct protobuf fields = protobuf_open(message->bytes, message->size);
    struct protobuf_field field;
    while (protobuf_next(&fields, &field)) {
        if (field.number == 1 && field.type == PROTOBUF_BYTES) {
            piece.text = (const char *)field.bytes;
            piece.size = field.size;
        } else if (field.number == 2 && field.type == PROTOBUF_FIXED32) {
            piece.score = protobuf_float(&field);
        } else if (field.number == 3 && field.type == PROTOBUF_VARINT) {
            piece.type = field.value;
        }
    }
    long long id = (long long)model->count;
    if (fields.failed) REFUSE(model, "%s: piece %lld is damaged", model->name, id);
    if (piece.size == 0 || piece.size > MAX_PIECE)
        REFUSE(model, "%s: piece %lld has %zu bytes but must have 1..%d", model->name, id,
               piece.size, MAX_PIECE);
    if (utf8_first_bad(piece.text, piece.size) < piece.size)
        REFUSE(model, "%s: piece %lld is not UTF-8 text", model->name, id);
    if (piece.type < PIECE_NORMAL || piece.type > PIECE_BYTE || piece.type == PIECE_UNUSED)
        REFUSE(model, "%s: piece %lld has the type %llu, which this version does not follow",
               model->name, id, (unsigned long long)piece.type);
    if (!isfinite(piece.score))
        REFUSE(model, "%s: piece %lld has the score %g", model->name, id, (double)piece.score);
    model->pieces[model->count++] = piece;
    return PLX_OK;
}

static plx_status add_piece(struct model *model, const struct protobuf_field *message)
{
    if (model->count == MAX_PIECES)
        REFUSE(model, "%s: has more than %d pieces", model->name, MAX_PIECES);
    if (model->count == model->capacity) {
        int64_t capacity = 2 * model->capacity + 1024;
        struct piece *pieces = realloc(model->pieces, (size_t)capacity * sizeof *pieces);
        REQUIRE(model->err, pieces != NULL, PLX_OUT_OF_MEMORY, "%s: out of memory", model->name);
        model->pieces = pieces;
        model->capacity = capacity;
    }
    return read_piece(model, message);
}

static plx_status read_file(struct model *model, const char *bytes, size_t size)
{
    struct protobuf fields = protobuf_open((const unsigned char *)bytes, size);
    struct protobuf_field field;
    while (protobuf_next(&fields, &field)) {
        if (field.type != PROTOBUF_BYTES) continue;
        if (field.number == 1) TRY(add_piece(model, &field));
        if (field.number == 2) {
            model->trainer = field.bytes;
            model->trainer_size = field.size;
        }
        if (field.number == 3) {
            model->normalizer = field.bytes;
            model->normalizer_size = field.size;
        }
    }
    if (fields.failed)
        REFUSE(model, "%s: is neither JSON nor a sound SentencePiece model", model->name);
    if (model->count == 0) REFUSE(model, "%s: holds no pieces", model->name);
    return PLX_OK;
}

static plx_status read_trainer(struct model *model)
{
    struct protobuf fields = protobuf_open(model->trainer, model->trainer_size);
    struct protobuf_field field;
    model->type = MODEL_UNIGRAM;
    strcpy(model->unknown_surface, " \u2047 ");
    while (protobuf_next(&fields, &field)) {
        if (field.type == PROTOBUF_BYTES && field.number == 44) {
            if (field.size >= sizeof model->unknown_surface)
                REFUSE(model, "%s: unk_surface has %zu bytes but may have %zu", model->name,
                       field.size, sizeof model->unknown_surface - 1);
            memcpy(model->unknown_surface, field.bytes, field.size);
            model->unknown_surface[field.size] = '\0';
        }
        if (field.type != PROTOBUF_VARINT) continue;
        if (field.number == 3) model->type = field.value;
        if (field.number == 35) model->byte_fallback = field.value != 0;
        if (field.number == 24 && field.value != 0)
            REFUSE(model, "%s: treat_whitespace_as_suffix is not followed by this version",
                   model->name);
    }
    if (fields.failed) REFUSE(model, "%s: the trainer's part is damaged", model->name);
    if (model->type != MODEL_UNIGRAM && model->type != MODEL_BPE)
        REFUSE(model, "%s: model_type is %llu but must be 1 (unigram) or 2 (BPE)", model->name,
               (unsigned long long)model->type);
    return PLX_OK;
}

static plx_status read_normalizer(struct model *model, struct rules *rules)
{
    struct protobuf fields = protobuf_open(model->normalizer, model->normalizer_size);
    struct protobuf_field field;
    char rule[65] = "without a name";
    size_t map_bytes = 0;
    bool escapes = true;
    rules->dummy_prefix = rules->trims_spaces = true;
    while (protobuf_next(&fields, &field)) {
        if (field.type == PROTOBUF_BYTES && field.number == 1 && field.size > 0)
            snprintf(rule, sizeof rule, "%.*s", (int)(field.size < 64 ? field.size : 64),
                     (const char *)field.bytes);
        if (field.type == PROTOBUF_BYTES && field.number == 2) map_bytes = field.size;
        if (field.type != PROTOBUF_VARINT) continue;
        if (field.number == 3) rules->dummy_prefix = field.value != 0;
        if (field.number == 4) rules->trims_spaces = field.value != 0;
        if (field.number == 5) escapes = field.value != 0;
    }
    utf8_make_printable(rule);
    if (fields.failed) REFUSE(model, "%s: the normaliser's part is damaged", model->name);
    if (map_bytes > 0)
        REFUSE(model, "%s: the normaliser is %s but must be identity", model->name, rule);
    if (!escapes)
        REFUSE(model, "%s: escape_whitespaces is off, which this version does not follow",
               model->name);
    return PLX_OK;
}

/* ---- Tokens ---- */

/* The text with U+2581 as a space; out has room for size. */
static size_t with_spaces(const char *text, size_t size, char *out)
{
    size_t used = 0;
    for (size_t at = 0; at < size;) {
        bool space = size - at >= 3 && memcmp(text + at, "\u2581", 3) == 0;
        out[used++] = space ? ' ' : text[at];
        at += space ? 3 : 1;
    }
    return used;
}

/* "<0x41>" -> 0x41; -1: not such a name. */
static int byte_of_name(const struct piece *piece)
{
    unsigned value;
    char name[8] = "";
    if (piece->size != 6) return -1;
    memcpy(name, piece->text, 6);
    int used = 0;
    bool good = sscanf(name, "<0x%2X>%n", &value, &used) == 1 && used == 6;
    return good ? (int)value : -1;
}

static plx_status add_name(struct model *model, struct rules *rules, int32_t id, const char *text,
                           size_t size, bool special)
{
    if (rules->added_count == TOKENIZER_MAX_ADDED)
        REFUSE(model, "%s: has more than %d control pieces", model->name, TOKENIZER_MAX_ADDED);
    struct added_token *items =
        realloc(rules->added, (size_t)(rules->added_count + 1) * sizeof *items);
    REQUIRE(model->err, items != NULL, PLX_OUT_OF_MEMORY, "%s: out of memory", model->name);
    rules->added = items;
    char *content = strndup(text, size);
    REQUIRE(model->err, content != NULL, PLX_OUT_OF_MEMORY, "%s: out of memory", model->name);
    rules->added[rules->added_count++] = (struct added_token){
        .id = id, .content = content, .size = size, .special = special, .normalized = !special};
    return PLX_OK;
}

static plx_status add_token(struct model *model, struct rules *rules, struct vocab_builder *builder,
                            int32_t id)
{
    const struct piece *piece = &model->pieces[id];
    char text[MAX_PIECE];
    size_t size = with_spaces(piece->text, piece->size, text);
    bool fresh;
    if (piece->type == PIECE_BYTE) {
        int byte = byte_of_name(piece);
        if (byte < 0 || builder->byte_id[byte] >= 0)
            REFUSE(model, "%s: piece %d is of type BYTE but its name '%.*s' is none, or is twice",
                   model->name, id, (int)piece->size, piece->text);
        builder->byte_id[byte] = id;
        char single = (char)byte;
        return vocab_add(builder, id, &single, 1, false, &fresh, model->err);
    }
    if (piece->type == PIECE_UNKNOWN) {
        if (rules->unknown_id >= 0) REFUSE(model, "%s: has two unknown pieces", model->name);
        rules->unknown_id = id;
        return vocab_add(builder, id, model->unknown_surface, strlen(model->unknown_surface), false,
                         &fresh, model->err);
    }
    if (piece->type == PIECE_CONTROL)
        return add_name(model, rules, id, piece->text, piece->size, true);
    if (piece->type == PIECE_USER_DEFINED) TRY(add_name(model, rules, id, text, size, false));
    return vocab_add(builder, id, text, size, piece->type == PIECE_NORMAL, &fresh, model->err);
}

static plx_status add_tokens(struct model *model, struct rules *rules,
                             struct vocab_builder *builder)
{
    rules->unknown_id = -1;
    for (int byte = 0; byte < 256; byte++) builder->byte_id[byte] = -1;
    builder->bytes_given = true;
    for (int32_t id = 0; id < model->count; id++) TRY(add_token(model, rules, builder, id));
    TRY(vocab_index(builder, model->err));
    for (int32_t id = 0; id < builder->tokens; id++) {
        struct vocab_span span = builder->spans[id];
        if (!builder->found[id]) continue;
        int32_t other = vocab_builder_find(builder, builder->text + span.start, span.size);
        if (other != id) REFUSE(model, "%s: pieces %d and %d are equal", model->name, other, id);
    }
    for (int byte = 0; byte < 256 && model->byte_fallback; byte++)
        if (builder->byte_id[byte] < 0)
            REFUSE(model, "%s: byte_fallback is on but there is no piece <0x%02X>", model->name,
                   (unsigned)byte);
    if (rules->unknown_id < 0) REFUSE(model, "%s: has no unknown piece", model->name);
    return PLX_OK;
}

/* ---- Merges ---- */

static int compare_scores(const void *left, const void *right)
{
    float a = *(const float *)left, b = *(const float *)right;
    return a > b ? -1 : a < b;
}

/* The number of different higher scores. */
static int32_t rank_of(const float *sorted, int64_t count, float score)
{
    int64_t low = 0, high = count;
    while (low < high) {
        int64_t middle = (low + high) / 2;
        if (sorted[middle] > score)
            low = middle + 1;
        else
            high = middle;
    }
    return (int32_t)low;
}

/* Every character of a piece is a piece, so that SentencePiece, which looks at texts, and the
 * table, which looks at ids, merge the same. */
static plx_status add_merges(struct model *model, struct vocab_builder *builder, int32_t id,
                             int32_t rank)
{
    struct vocab_span span = builder->spans[id];
    const char *text = builder->text + span.start;
    size_t first = utf8_character_size(text, span.size);
    for (size_t cut = first; cut < span.size;) {
        size_t length = utf8_character_size(text + cut, span.size - cut);
        if (vocab_builder_find(builder, text + cut, length) < 0 ||
            vocab_builder_find(builder, text, first) < 0)
            REFUSE(model, "%s: piece %d has a character that is no piece", model->name, id);
        int32_t left = vocab_builder_find(builder, text, cut);
        int32_t right = vocab_builder_find(builder, text + cut, span.size - cut);
        if (left >= 0 && right >= 0)
            TRY(vocab_add_merge(builder, left, right, rank, id, model->err));
        cut += length;
    }
    return PLX_OK;
}

static plx_status add_all_merges(struct model *model, struct vocab_builder *builder)
{
    float *sorted = malloc((size_t)model->count * sizeof *sorted);
    REQUIRE(model->err, sorted != NULL, PLX_OUT_OF_MEMORY, "%s: out of memory", model->name);
    for (int64_t i = 0; i < model->count; i++) sorted[i] = model->pieces[i].score;
    qsort(sorted, (size_t)model->count, sizeof *sorted, compare_scores);
    plx_status status = PLX_OK;
    for (int32_t id = 0; id < builder->tokens && status == PLX_OK; id++)
        if (builder->found[id])
            status = add_merges(model, builder, id,
                                rank_of(sorted, model->count, model->pieces[id].score));
    free(sorted);
    return status;
}

/* ---- The whole ---- */

/* Where no piece has a space behind another character, text may be cut before such spaces. */
static bool splits_at_spaces(const struct vocab_builder *builder)
{
    for (int64_t id = 0; id < builder->tokens; id++) {
        struct vocab_span span = builder->spans[id];
        const char *text = builder->text + span.start;
        for (uint32_t i = 1; builder->found[id] && i < span.size; i++)
            if (text[i] == ' ' && text[i - 1] != ' ') return false;
    }
    return true;
}

static plx_status make_scores(struct model *model, const struct vocab_builder *builder,
                              struct rules *rules)
{
    rules->scores = calloc((size_t)model->count, sizeof *rules->scores);
    REQUIRE(model->err, rules->scores != NULL, PLX_OUT_OF_MEMORY, "%s: out of memory", model->name);
    float lowest = INFINITY;
    for (int64_t id = 0; id < model->count; id++) {
        rules->scores[id] = model->pieces[id].score;
        bool normal = id < builder->tokens && builder->found[id];
        if (normal && rules->scores[id] < lowest) lowest = rules->scores[id];
        if (normal && (int)builder->spans[id].size > rules->longest_piece)
            rules->longest_piece = (int)builder->spans[id].size;
    }
    if (rules->longest_piece == 0) REFUSE(model, "%s: has no normal pieces", model->name);
    /* SentencePiece's constant: what a character that is no piece costs more than the worst one. */
    rules->unknown_score = lowest - 10.0f;
    return PLX_OK;
}

/* Llama's begin of text; SentencePiece itself adds none. */
static void frame_begin(struct rules *rules)
{
    for (int i = 0; i < rules->added_count; i++)
        if (strcmp(rules->added[i].content, "<s>") == 0)
            rules->before[rules->before_count++] = rules->added[i].id;
}

static plx_status make_parts(struct model *model, const char *bytes, size_t size,
                             struct rules *rules, struct vocab *vocab)
{
    struct vocab_builder builder = {0};
    plx_status status = add_tokens(model, rules, &builder);
    rules->kind = model->type == MODEL_BPE ? RULES_PIECES : RULES_UNIGRAM;
    rules->byte_fallback = model->byte_fallback;
    if (status == PLX_OK && model->type == MODEL_BPE) status = add_all_merges(model, &builder);
    if (status == PLX_OK) status = make_scores(model, &builder, rules);
    if (status == PLX_OK) {
        rules->splits_at_spaces = model->type == MODEL_BPE && splits_at_spaces(&builder);
        frame_begin(rules);
        status = vocab_build(&builder, "", bytes, size, vocab, model->err);
    }
    vocab_builder_clear(&builder);
    return status;
}

plx_status tokenizer_parse_pieces(const char *bytes, size_t size, const char *name,
                                  struct tokenizer **tokenizer, struct error *err)
{
    const unsigned char *none = (const unsigned char *)"";
    struct model model = {.name = name, .trainer = none, .normalizer = none, .err = err};
    struct rules rules = {0};
    struct vocab vocab = {0};
    *tokenizer = NULL;
    plx_status status = read_file(&model, bytes, size);
    if (status == PLX_OK) status = read_trainer(&model);
    if (status == PLX_OK) status = read_normalizer(&model, &rules);
    if (status == PLX_OK) status = make_parts(&model, bytes, size, &rules, &vocab);
    free(model.pieces);
    if (status == PLX_OK)
        return tokenizer_assemble(&vocab, &rules, bytes, size, name, tokenizer, err);
    rules_clear(&rules);
    return status;
}
