/* encoder.c: text -> ids; see tokenizer.h.
 *
 *     text -> names of added tokens and what is between -> normalised -> again names and between
 *          -> pre-tokenisers, one after the other, each cutting finer -> words -> merges -> ids
 *
 * Most words of a text have occurred before, so short words are looked up by their bytes in a table
 * that holds their ids. */
#include "tokenizer/bpe.h"
#include "tokenizer/normalize.h"
#include "tokenizer/parts.h"
#include "tokenizer/pieces.h"

#include <stdlib.h>
#include <string.h>

#include "data/utf8.h"

enum { WORD_SLOTS = 1 << 15, WORD_BYTES = 16, WORD_IDS = 10, OUT_IDS = 4096 };

/* A word of up to 16 bytes and its ids; size 0: empty. One line of the processor's cache. */
struct word_slot {
    uint64_t head, tail;
    uint8_t size, count;
    int32_t ids[WORD_IDS];
};

struct encoder {
    const struct tokenizer *tokenizer;
    struct matcher *matchers[TOKENIZER_MAX_STEPS];
    struct text_buffer normalized, prefixed;
    struct bpe_scratch scratch;
    struct word_slot *words;
    int32_t *long_ids; /* of a word that is too long for the stack */
    size_t long_capacity;
    bool after_unknown; /* the last id stands for an unknown character */
    int32_t out[OUT_IDS];
    int64_t out_count;
    encoder_sink sink;
    void *user;
    struct error *err;
};

static plx_status create_parts(struct encoder *encoder, struct error *err)
{
    const struct rules *rules = &encoder->tokenizer->rules;
    encoder->words = calloc(WORD_SLOTS, sizeof *encoder->words);
    REQUIRE(err, encoder->words != NULL, PLX_OUT_OF_MEMORY, "cannot allocate an encoder");
    for (int i = 0; i < rules->step_count; i++)
        if (rules->steps[i].pattern != NULL)
            TRY(matcher_create(rules->steps[i].pattern, &encoder->matchers[i], err));
    return PLX_OK;
}

plx_status encoder_create(const struct tokenizer *tokenizer, struct encoder **encoder,
                          struct error *err)
{
    *encoder = calloc(1, sizeof **encoder);
    REQUIRE(err, *encoder != NULL, PLX_OUT_OF_MEMORY, "cannot allocate an encoder");
    (*encoder)->tokenizer = tokenizer;
    plx_status status = create_parts(*encoder, err);
    if (status != PLX_OK) {
        encoder_destroy(*encoder);
        *encoder = NULL;
    }
    return status;
}

void encoder_destroy(struct encoder *encoder)
{
    if (encoder == NULL) return;
    for (int i = 0; i < TOKENIZER_MAX_STEPS; i++) matcher_destroy(encoder->matchers[i]);
    text_clear(&encoder->normalized);
    text_clear(&encoder->prefixed);
    bpe_scratch_clear(&encoder->scratch);
    free(encoder->words);
    free(encoder->long_ids);
    free(encoder);
}

/* ---- Ids ---- */

static plx_status flush(struct encoder *encoder)
{
    int64_t count = encoder->out_count;
    encoder->out_count = 0;
    return count > 0 ? encoder->sink(encoder->user, encoder->out, count, encoder->err) : PLX_OK;
}

/* Neighbouring unknown characters are one unknown piece. */
static plx_status put_pieces(struct encoder *encoder, const int32_t *ids, int64_t count)
{
    int32_t unknown = encoder->tokenizer->rules.unknown_id;
    for (int64_t i = 0; i < count; i++) {
        bool again = ids[i] == unknown && encoder->after_unknown;
        encoder->after_unknown = ids[i] == unknown;
        if (again) continue;
        if (encoder->out_count == OUT_IDS) TRY(flush(encoder));
        encoder->out[encoder->out_count++] = ids[i];
    }
    return PLX_OK;
}

static plx_status put_ids(struct encoder *encoder, const int32_t *ids, int64_t count)
{
    if (encoder->tokenizer->rules.kind != RULES_BYTES) return put_pieces(encoder, ids, count);
    while (count > 0) {
        if (encoder->out_count == OUT_IDS) TRY(flush(encoder));
        int64_t room = OUT_IDS - encoder->out_count, taken = count < room ? count : room;
        memcpy(encoder->out + encoder->out_count, ids, (size_t)taken * sizeof *ids);
        encoder->out_count += taken;
        ids += taken;
        count -= taken;
    }
    return PLX_OK;
}

/* ---- Words ---- */

/* With its size, the two determine a word of 1 to 16 bytes. */
static inline void word_key(const char *word, size_t size, uint64_t *head, uint64_t *tail)
{
    uint32_t first, last;
    *head = *tail = 0;
    if (size >= 8) {
        memcpy(head, word, 8);
        memcpy(tail, word + size - 8, 8);
    } else if (size >= 4) {
        memcpy(&first, word, 4);
        memcpy(&last, word + size - 4, 4);
        *head = (uint64_t)last << 32 | first;
    } else {
        const unsigned char *bytes = (const unsigned char *)word;
        *head = bytes[0] | bytes[size / 2] << 8 | bytes[size - 1] << 16;
    }
}

static inline struct word_slot *word_slot(const struct encoder *encoder, uint64_t head,
                                          uint64_t tail, size_t size)
{
    uint64_t hash = head * UINT64_C(0x9e3779b97f4a7c15) ^ tail * UINT64_C(0xc2b2ae3d27d4eb4f);
    hash = (hash ^ hash >> 29) * UINT64_C(0x165667b19e3779f9) + size;
    return &encoder->words[(hash >> 40) % WORD_SLOTS];
}

/* ids has room for size. */
static int64_t merge_word(struct encoder *encoder, const char *word, size_t size, int32_t *ids)
{
    const struct tokenizer *tokenizer = encoder->tokenizer;
    const struct vocab *vocab = &tokenizer->vocab;
    if (tokenizer->rules.kind == RULES_UNIGRAM)
        return pieces_likeliest(tokenizer, &encoder->scratch, word, size, ids);
    if (tokenizer->rules.ignore_merges && (ids[0] = vocab_find(vocab, word, size)) >= 0) return 1;
    int64_t count = (int64_t)size;
    if (tokenizer->rules.kind == RULES_PIECES)
        count = pieces_of_characters(tokenizer, word, size, ids);
    else
        for (size_t i = 0; i < size; i++) ids[i] = vocab->header->byte_id[(unsigned char)word[i]];
    return bpe_merge(vocab, &encoder->scratch, ids, count);
}

static plx_status out_of_memory(struct encoder *encoder, size_t size)
{
    return error_set(encoder->err, PLX_OUT_OF_MEMORY, "no memory for a word of %zu bytes", size);
}

static plx_status encode_short_word(struct encoder *encoder, const char *word, size_t size)
{
    uint64_t head, tail;
    word_key(word, size, &head, &tail);
    struct word_slot *slot = word_slot(encoder, head, tail, size);
    if (slot->size == size && slot->head == head && slot->tail == tail)
        return put_ids(encoder, slot->ids, slot->count);
    int32_t ids[WORD_BYTES];
    int64_t count = merge_word(encoder, word, size, ids);
    if (count <= WORD_IDS) {
        *slot = (struct word_slot){head, tail, (uint8_t)size, (uint8_t)count, {0}};
        memcpy(slot->ids, ids, (size_t)count * sizeof *ids);
    }
    return put_ids(encoder, ids, count);
}

static plx_status encode_long_word(struct encoder *encoder, const char *word, size_t size)
{
    if (size > encoder->long_capacity) {
        free(encoder->long_ids);
        encoder->long_ids = malloc(size * sizeof *encoder->long_ids);
        encoder->long_capacity = encoder->long_ids != NULL ? size : 0;
        if (encoder->long_ids == NULL) return out_of_memory(encoder, size);
    }
    int64_t count = merge_word(encoder, word, size, encoder->long_ids);
    return count >= 0 ? put_ids(encoder, encoder->long_ids, count) : out_of_memory(encoder, size);
}

/* Where nothing is ever merged, a text of any length is encoded byte by byte. */
static plx_status encode_bytes(struct encoder *encoder, const char *text, size_t size)
{
    const int32_t *byte_id = encoder->tokenizer->vocab.header->byte_id;
    for (size_t i = 0; i < size; i++) {
        if (encoder->out_count == OUT_IDS) TRY(flush(encoder));
        encoder->out[encoder->out_count++] = byte_id[(unsigned char)text[i]];
    }
    return PLX_OK;
}

static plx_status encode_word(struct encoder *encoder, const char *word, size_t size)
{
    if (size <= WORD_BYTES) return encode_short_word(encoder, word, size);
    const struct tokenizer *tokenizer = encoder->tokenizer;
    if (tokenizer->rules.kind == RULES_BYTES && tokenizer->vocab.header->merge_count == 0 &&
        !tokenizer->rules.ignore_merges)
        return encode_bytes(encoder, word, size);
    return encode_long_word(encoder, word, size);
}

/* ---- Pre-tokenisers ---- */

static plx_status encode_piece(struct encoder *encoder, int step, const char *text, size_t size);

/* A stretch of text between two cuts. */
struct piece {
    size_t start, end;
    bool matched;
};

/* Whether a piece joins the one before it. */
static bool joins(enum split_behaviour behaviour, bool before, bool matched)
{
    if (behaviour == SPLIT_CONTIGUOUS) return before == matched;
    if (behaviour == SPLIT_MERGED_WITH_PREVIOUS) return matched && !before;
    return behaviour == SPLIT_MERGED_WITH_NEXT && before && !matched;
}

static plx_status emit(struct encoder *encoder, int step, const char *text, struct piece piece)
{
    const struct split_step *rule = &encoder->tokenizer->rules.steps[step];
    if (piece.end == piece.start || (piece.matched && rule->behaviour == SPLIT_REMOVED))
        return PLX_OK;
    return encode_piece(encoder, step + 1, text + piece.start, piece.end - piece.start);
}

/* Keeps one piece back until it is known whether the next one joins it. */
static plx_status add_piece(struct encoder *encoder, int step, const char *text,
                            struct piece *pending, struct piece piece)
{
    const struct split_step *rule = &encoder->tokenizer->rules.steps[step];
    if (piece.end == piece.start) return PLX_OK;
    piece.matched = piece.matched != rule->invert;
    if (pending->end > pending->start && joins(rule->behaviour, pending->matched, piece.matched)) {
        pending->end = piece.end;
        pending->matched = piece.matched;
        return PLX_OK;
    }
    struct piece done = *pending;
    *pending = piece;
    return emit(encoder, step, text, done);
}

static plx_status split_piece(struct encoder *encoder, int step, const char *text, size_t size)
{
    struct piece pending = {0};
    size_t start, end;
    for (size_t at = 0; at < size; at = end) {
        TRY(matcher_next(encoder->matchers[step], text, size, at, &start, &end, encoder->err));
        TRY(add_piece(encoder, step, text, &pending, (struct piece){at, start, false}));
        TRY(add_piece(encoder, step, text, &pending, (struct piece){start, end, true}));
    }
    return emit(encoder, step, text, pending);
}

/* A text with a space before it. Only the last step adds one, so one buffer will do. */
static plx_status prefix_space(struct encoder *encoder, const char **text, size_t *size)
{
    if (**text == ' ') return PLX_OK;
    encoder->prefixed.size = 0;
    TRY(text_append(&encoder->prefixed, " ", 1, encoder->err));
    TRY(text_append(&encoder->prefixed, *text, *size, encoder->err));
    *text = encoder->prefixed.data;
    *size = encoder->prefixed.size;
    return PLX_OK;
}

static plx_status encode_piece(struct encoder *encoder, int step, const char *text, size_t size)
{
    const struct rules *rules = &encoder->tokenizer->rules;
    if (step == rules->step_count) return encode_word(encoder, text, size);
    if (rules->steps[step].prefix_space) TRY(prefix_space(encoder, &text, &size));
    if (rules->steps[step].pattern == NULL) return encode_piece(encoder, step + 1, text, size);
    return split_piece(encoder, step, text, size);
}

/* ---- SentencePiece's words ---- */

/* Each with the spaces before it, where pieces allow that. */
static plx_status encode_spaced(struct encoder *encoder, const char *text, size_t size)
{
    encoder->after_unknown = false;
    if (!encoder->tokenizer->rules.splits_at_spaces) return encode_word(encoder, text, size);
    for (size_t at = 0, end; at < size; at = end) {
        end = at;
        while (end < size && text[end] == ' ') end++;
        const char *space = memchr(text + end, ' ', size - end);
        end = space != NULL ? (size_t)(space - text) : size;
        TRY(encode_word(encoder, text + at, end - at));
    }
    return PLX_OK;
}

/* ---- Added tokens ---- */

/* What becomes of the text between names. */
typedef plx_status (*between)(struct encoder *encoder, const char *text, size_t size, bool names);

static plx_status split_names(struct encoder *encoder, const struct added_finder *finder,
                              const char *text, size_t size, bool names, between then)
{
    const struct rules *rules = &encoder->tokenizer->rules;
    size_t at = 0, start, end;
    int token;
    while (names && (token = added_find(finder, rules, text, size, at, &start, &end)) >= 0) {
        if (start > at) TRY(then(encoder, text + at, start - at, names));
        TRY(put_ids(encoder, &rules->added[token].id, 1));
        at = end;
    }
    return at < size ? then(encoder, text + at, size - at, names) : PLX_OK;
}

static plx_status encode_between(struct encoder *encoder, const char *text, size_t size, bool names)
{
    (void)names;
    if (encoder->tokenizer->rules.kind != RULES_BYTES) return encode_spaced(encoder, text, size);
    return encode_piece(encoder, 0, text, size);
}

static plx_status normalize_between(struct encoder *encoder, const char *text, size_t size,
                                    bool names)
{
    const struct rules *rules = &encoder->tokenizer->rules;
    if (rules->nfc)
        TRY(normalize_nfc(text, size, &encoder->normalized, &text, &size, encoder->err));
    if (rules->kind != RULES_BYTES)
        TRY(pieces_normalize(rules, text, size, &encoder->normalized, &text, &size, encoder->err));
    /* SentencePiece looks for its user-defined pieces in any case. */
    return split_names(encoder, &encoder->tokenizer->normalized_names, text, size,
                       names || rules->kind != RULES_BYTES, encode_between);
}

/* ---- The whole ---- */

static plx_status check_text(const struct encoder *encoder, const char *text, size_t size,
                             bool names)
{
    const struct rules *rules = &encoder->tokenizer->rules;
    names = names && encoder->tokenizer->names_need_characters;
    bool bytes = rules->kind == RULES_BYTES && rules->step_count == 0 && !rules->nfc;
    if (bytes && !names) return PLX_OK;
    size_t bad = utf8_first_invalid(text, size);
    REQUIRE(encoder->err, bad == size, PLX_BAD_DATA,
            "the text is not UTF-8: byte 0x%02x at offset %zu", (unsigned char)text[bad], bad);
    return PLX_OK;
}

plx_status encoder_encode(struct encoder *encoder, const char *text, size_t size, unsigned how,
                          encoder_sink sink, void *user, struct error *err)
{
    const struct rules *rules = &encoder->tokenizer->rules;
    bool names = (how & TOKENIZER_ADDED) != 0, frame = (how & TOKENIZER_FRAME) != 0;
    encoder->sink = sink;
    encoder->user = user;
    encoder->err = err;
    encoder->out_count = 0;
    TRY(check_text(encoder, text, size, names));
    if (frame) TRY(put_ids(encoder, rules->before, rules->before_count));
    TRY(split_names(encoder, &encoder->tokenizer->names, text, size, names, normalize_between));
    if (frame) TRY(put_ids(encoder, rules->after, rules->after_count));
    return flush(encoder);
}
