/* normalize.c: see normalize.h.
 *
 * Composition never reaches across a character that is a starter and no second half of any pair. So
 * text is cut before each such character, and only pieces of several characters, or of one that
 * decomposes, are given to utf8proc; of most texts none is. Everything below U+0300 begins a piece
 * and is its own composed form. */
#include "tokenizer/normalize.h"

#include <stdlib.h>
#include <string.h>

#include <utf8proc.h>

#include "data/utf8.h"

enum { FIRST_COMBINING = 0x300, FIRST_COMBINING_LEAD = 0xcc };

plx_status text_append(struct text_buffer *buffer, const char *text, size_t size, struct error *err)
{
    if (buffer->size + size > buffer->capacity) {
        size_t capacity = 2 * (buffer->size + size) + 256;
        char *data = realloc(buffer->data, capacity);
        REQUIRE(err, data != NULL, PLX_OUT_OF_MEMORY, "cannot allocate %zu bytes of text",
                capacity);
        buffer->data = data;
        buffer->capacity = capacity;
    }
    if (size > 0) memcpy(buffer->data + buffer->size, text, size);
    buffer->size += size;
    return PLX_OK;
}

void text_clear(struct text_buffer *buffer)
{
    free(buffer->data);
    *buffer = (struct text_buffer){0};
}

/* Second halves of pairs are marks, but for Hangul's vowels and final consonants and the vowels of
 * Kirat Rai. */
static bool is_second_letter(uint32_t code)
{
    return (code >= 0x1161 && code <= 0x1175) || (code >= 0x11a8 && code <= 0x11c2) ||
           (code >= 0x16d63 && code <= 0x16d6a);
}

static bool begins_piece(uint32_t code)
{
    if (code < FIRST_COMBINING) return true;
    const utf8proc_property_t *property = utf8proc_get_property((utf8proc_int32_t)code);
    bool mark =
        property->category >= UTF8PROC_CATEGORY_MN && property->category <= UTF8PROC_CATEGORY_ME;
    return property->combining_class == 0 && !mark && !is_second_letter(code);
}

/* Whether the character alone may have another composed form. Compatibility decompositions, which
 * NFC leaves alone, have a type. */
static bool decomposes(uint32_t code)
{
    if (code < FIRST_COMBINING) return false;
    const utf8proc_property_t *property = utf8proc_get_property((utf8proc_int32_t)code);
    return property->decomp_seqindex != UINT16_MAX && property->decomp_type == 0;
}

/* The end of the piece that begins at at; *work says whether it may have to change. */
static size_t piece_end(const char *text, size_t size, size_t at, bool *work)
{
    size_t length;
    *work = decomposes(utf8_decode(text + at, &length));
    at += length;
    while (at < size && (unsigned char)text[at] >= FIRST_COMBINING_LEAD &&
           !begins_piece(utf8_decode(text + at, &length))) {
        *work = true;
        at += length;
    }
    return at;
}

static plx_status append_composed(struct text_buffer *buffer, const char *piece, size_t size,
                                  struct error *err)
{
    utf8proc_uint8_t *composed = NULL;
    utf8proc_ssize_t length = utf8proc_map((const utf8proc_uint8_t *)piece, (utf8proc_ssize_t)size,
                                           &composed, UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    REQUIRE(err, length >= 0, PLX_OUT_OF_MEMORY, "cannot normalise %zu bytes of text: %s", size,
            utf8proc_errmsg(length));
    plx_status status = text_append(buffer, (const char *)composed, (size_t)length, err);
    free(composed);
    return status;
}

/* The first piece at or behind at that may have to change; size where there is none. */
static size_t find_work(const char *text, size_t size, size_t at, size_t *end)
{
    while (at < size) {
        /* ASCII and Latin before a character of the same kind need no closer look. */
        size_t length = utf8_character_size(text + at, size - at);
        unsigned char lead = (unsigned char)text[at];
        unsigned char next = at + length < size ? (unsigned char)text[at + length] : 0;
        if (lead < FIRST_COMBINING_LEAD && next < FIRST_COMBINING_LEAD) {
            at += length;
            continue;
        }
        bool work;
        *end = piece_end(text, size, at, &work);
        if (work) return at;
        at = *end;
    }
    return size;
}

plx_status normalize_nfc(const char *text, size_t size, struct text_buffer *buffer,
                         const char **result, size_t *result_size, struct error *err)
{
    size_t end = 0, copied = 0, at = find_work(text, size, 0, &end);
    *result = text;
    *result_size = size;
    if (at == size) return PLX_OK;
    buffer->size = 0;
    while (at < size) {
        TRY(text_append(buffer, text + copied, at - copied, err));
        TRY(append_composed(buffer, text + at, end - at, err));
        copied = end;
        at = find_work(text, size, copied, &end);
    }
    TRY(text_append(buffer, text + copied, size - copied, err));
    *result = buffer->data;
    *result_size = buffer->size;
    return PLX_OK;
}
