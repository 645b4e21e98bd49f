/* alphabet.c: see alphabet.h. */
#include "tokenizer/alphabet.h"

enum { ALPHABET_END = 0x144 }; /* all characters lie below: one or two bytes of UTF-8 */

static bool is_visible(int byte)
{
    return (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte != 0xad);
}

/* The hidden bytes in order: 0x00..0x20, 0x7f..0xa0, 0xad. */
static int hidden_byte(int index)
{
    return index <= 0x20 ? index : index <= 0x42 ? index - 0x21 + 0x7f : 0xad;
}

static int hidden_index(int byte)
{
    return byte <= 0x20 ? byte : byte <= 0xa0 ? byte - 0x7f + 0x21 : 0x43;
}

bool alphabet_decode(const char *text, size_t size, char *bytes, size_t *count)
{
    *count = 0;
    for (size_t at = 0; at < size; at++) {
        int code = (unsigned char)text[at];
        if (code >= 0x80) {
            if ((code & 0xe0) != 0xc0 || at + 1 == size) return false;
            code = (code & 0x1f) << 6 | ((unsigned char)text[++at] & 0x3f);
        }
        if (code >= ALPHABET_END || (code < 0x100 && !is_visible(code))) return false;
        bytes[(*count)++] = (char)(code < 0x100 ? code : hidden_byte(code - 0x100));
    }
    return true;
}

size_t alphabet_encode(const char *bytes, size_t size, char *text)
{
    size_t used = 0;
    for (size_t i = 0; i < size; i++) {
        int byte = (unsigned char)bytes[i];
        int code = is_visible(byte) ? byte : 0x100 + hidden_index(byte);
        if (code >= 0x80) text[used++] = (char)(0xc0 | code >> 6);
        text[used++] = (char)(code < 0x80 ? code : 0x80 | (code & 0x3f));
    }
    text[used] = '\0';
    return used;
}
