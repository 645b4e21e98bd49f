/* pieces.c: see pieces.h. */
#include "tokenizer/pieces.h"

#include <stdlib.h>
#include <string.h>

#include "data/utf8.h"

/* ---- Spaces ---- */

plx_status pieces_normalize(const struct rules *rules, const char *text, size_t size,
                            struct text_buffer *buffer, const char **result, size_t *result_size,
                            struct error *err)
{
    size_t at = 0;
    bool after_space = rules->trims_spaces;
    buffer->size = 0;
    while (rules->trims_spaces && at < size && text[at] == ' ') at++;
    if (rules->dummy_prefix && at < size) TRY(text_append(buffer, " ", 1, err));
    while (at < size) {
        bool symbol = size - at >= 3 && memcmp(text + at, "\u2581", 3) == 0;
        bool space = text[at] == ' ';
        size_t length = symbol ? 3 : 1;
        if (!(space && after_space)) TRY(text_append(buffer, symbol ? " " : text + at, 1, err));
        after_space = space && rules->trims_spaces;
        at += length;
    }
    while (rules->trims_spaces && buffer->size > 0 && buffer->data[buffer->size - 1] == ' ')
        buffer->size--;
    *result = buffer->data;
    *result_size = buffer->size;
    return PLX_OK;
}

/* ---- Characters ---- */

/* What a character that is no piece becomes. */
static int64_t put_unknown(const struct tokenizer *tokenizer, const char *text, size_t size,
                           int32_t *ids)
{
    if (!tokenizer->rules.byte_fallback) {
        ids[0] = tokenizer->rules.unknown_id;
        return 1;
    }
    for (size_t i = 0; i < size; i++)
        ids[i] = tokenizer->vocab.header->byte_id[(unsigned char)text[i]];
    return (int64_t)size;
}

int64_t pieces_of_characters(const struct tokenizer *tokenizer, const char *text, size_t size,
                             int32_t *ids)
{
    int64_t count = 0;
    for (size_t at = 0; at < size;) {
        size_t length = utf8_character_size(text + at, size - at);
        int32_t id = vocab_find(&tokenizer->vocab, text + at, length);
        if (id >= 0)
            ids[count++] = id;
        else
            count += put_unknown(tokenizer, text + at, length, ids + count);
        at += length;
    }
    return count;
}

/* ---- The likeliest division ---- */

/* The best way to reach a place: the piece that ends there (-1: a character that is none), where it
 * begins, and the score so far. Scores are added as floats, as SentencePiece does. */
struct arrival {
    int32_t id;
    float score;
    uint32_t start; /* UINT32_MAX: not reached yet */
};

static void arrive(struct arrival *place, float score, size_t start, int32_t id)
{
    if (place->start == UINT32_MAX || score > place->score)
        *place = (struct arrival){id, score, (uint32_t)start};
}

static void leave(const struct tokenizer *tokenizer, const char *text, size_t size, size_t from,
                  struct arrival *places)
{
    const struct rules *rules = &tokenizer->rules;
    size_t first = utf8_character_size(text + from, size - from);
    bool known = false;
    for (size_t end = from + first; end <= size && end - from <= (size_t)rules->longest_piece;) {
        int32_t id = vocab_find(&tokenizer->vocab, text + from, end - from);
        if (id >= 0) arrive(&places[end], rules->scores[id] + places[from].score, from, id);
        known = known || (id >= 0 && end == from + first);
        if (end == size) break;
        end += utf8_character_size(text + end, size - end);
    }
    if (!known) arrive(&places[from + first], rules->unknown_score + places[from].score, from, -1);
}

/* The pieces from the last to the first, then turned around; the bytes of an unknown character are
 * written backwards for that. */
static int64_t collect(const struct tokenizer *tokenizer, const char *text, size_t size,
                       const struct arrival *places, int32_t *ids)
{
    int64_t count = 0;
    for (size_t end = size; end > 0; end = places[end].start) {
        size_t start = places[end].start;
        if (places[end].id >= 0) {
            ids[count++] = places[end].id;
            continue;
        }
        int32_t unknown[4];
        int64_t made = put_unknown(tokenizer, text + start, end - start, unknown);
        while (made > 0) ids[count++] = unknown[--made];
    }
    for (int64_t i = 0, j = count - 1; i < j; i++, j--) {
        int32_t id = ids[i];
        ids[i] = ids[j];
        ids[j] = id;
    }
    return count;
}

int64_t pieces_likeliest(const struct tokenizer *tokenizer, struct bpe_scratch *scratch,
                         const char *text, size_t size, int32_t *ids)
{
    struct arrival *places;
    if (size >= UINT32_MAX ||
        (places = bpe_scratch_reserve(scratch, (size + 1) * sizeof *places)) == NULL)
        return -1;
    for (size_t i = 1; i <= size; i++) places[i].start = UINT32_MAX;
    places[0] = (struct arrival){-1, 0.0f, 0};
    for (size_t at = 0; at < size; at += utf8_character_size(text + at, size - at))
        leave(tokenizer, text, size, at, places);
    return collect(tokenizer, text, size, places, ids);
}
