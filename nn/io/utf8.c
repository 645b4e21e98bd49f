/* utf8.c: the table of well-formed byte sequences of the Unicode standard (chapter 3, table 3-7) as
 * code.
 *
 * The second byte carries what makes a sequence overlong, a surrogate or too large; every later
 * byte is 80..BF. */
#include "io/utf8.h"

/* Length of the sequence that a first byte starts, and the range of its second byte; 0: cannot
 * start one. */
static size_t sequence_of(unsigned char first, unsigned char *low, unsigned char *high)
{
    *low = 0x80;
    *high = 0xbf;
    if (first < 0x80) return 1;
    if (first < 0xc2 || first > 0xf4) return 0;
    if (first < 0xe0) return 2;
    if (first == 0xe0) *low = 0xa0;
    if (first == 0xed) *high = 0x9f;
    if (first < 0xf0) return 3;
    if (first == 0xf0) *low = 0x90;
    if (first == 0xf4) *high = 0x8f;
    return 4;
}

size_t utf8_valid_bytes(const char *text, size_t size)
{
    const unsigned char *bytes = (const unsigned char *)text;
    size_t at = 0;
    while (at < size) {
        unsigned char low, high;
        size_t length = sequence_of(bytes[at], &low, &high);
        if (length == 0 || length > size - at) return at;
        if (length > 1 && (bytes[at + 1] < low || bytes[at + 1] > high)) return at;
        for (size_t i = 2; i < length; i++)
            if ((bytes[at + i] & 0xc0) != 0x80) return at;
        at += length;
    }
    return at;
}
