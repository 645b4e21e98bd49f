/* utf8.c: validation of UTF-8; see utf8.h.
 *
 * Source text is mostly ASCII, so eight bytes are tested at once: a word without a high bit and
 * without a zero byte is fine as it is, and everything else goes through the character-by-character
 * path. */
#include "data/utf8.h"

#include <stdint.h>
#include <string.h>

/* True where all eight bytes are 1..127. Subtracting one borrows into the high bit of a byte only
 * if it is zero (or lies above a zero byte), given that no high bit was set before. */
static int ascii_word(const unsigned char *text)
{
    uint64_t word;
    memcpy(&word, text, sizeof word);
    return ((word | (word - UINT64_C(0x0101010101010101))) & UINT64_C(0x8080808080808080)) == 0;
}

/* Length of the character at text (1..4 bytes within size), 0 if it is not well formed or NUL. The
 * second byte's range depends on the first: that is where overlong forms, surrogates and too large
 * values are excluded. */
static size_t character_size(const unsigned char *text, size_t size)
{
    unsigned char lead = text[0];
    if (lead < 0x80) return lead != 0;
    size_t length = lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
    if (lead < 0xc2 || lead > 0xf4 || size < length) return 0;
    unsigned char low = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
    unsigned char high = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
    if (text[1] < low || text[1] > high) return 0;
    for (size_t i = 2; i < length; i++)
        if ((text[i] & 0xc0) != 0x80) return 0;
    return length;
}

size_t utf8_first_bad(const char *text, size_t size)
{
    const unsigned char *bytes = (const unsigned char *)text;
    size_t at = 0;
    while (at < size) {
        while (size - at >= 8 && ascii_word(bytes + at)) at += 8;
        if (at == size) break;
        size_t length = character_size(bytes + at, size - at);
        if (length == 0) return at;
        at += length;
    }
    return size;
}

size_t utf8_first_invalid(const char *text, size_t size)
{
    size_t at = utf8_first_bad(text, size);
    while (at < size && text[at] == '\0') at += 1 + utf8_first_bad(text + at + 1, size - at - 1);
    return at;
}

bool utf8_is_text(const char *text)
{
    size_t size = strlen(text);
    return utf8_first_bad(text, size) == size;
}

size_t utf8_cut(const char *text, size_t limit)
{
    /* A character has at most three continuation bytes; text that is no UTF-8 is cut where asked.
     */
    for (size_t back = 0; back < 4 && back <= limit; back++)
        if (((unsigned char)text[limit - back] & 0xc0) != 0x80) return limit - back;
    return limit;
}

size_t utf8_trim_end(const char *text, size_t size)
{
    size_t length;
    while (size > 0) {
        size_t start = utf8_cut(text, size - 1);
        if (!utf8_is_white(utf8_decode(text + start, &length))) break;
        size = start;
    }
    return size;
}

void utf8_make_printable(char *text)
{
    for (; *text != '\0'; text++)
        if ((unsigned char)*text < 0x20 || *text == 0x7f) *text = '?';
}

struct utf8_quote utf8_quote(const char *text)
{
    struct utf8_quote quoted;
    size_t size = strlen(text), limit = sizeof quoted.text - 1;
    size_t cut = size > limit ? utf8_cut(text, limit) : size;
    memcpy(quoted.text, text, cut);
    quoted.text[cut] = '\0';
    utf8_make_printable(quoted.text);
    return quoted;
}
