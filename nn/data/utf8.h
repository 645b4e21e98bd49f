/* utf8.h: what counts as text, and how foreign text may appear in messages. */
#ifndef NN_UTF8_H
#define NN_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Offset of the first byte that is NUL or not part of well-formed UTF-8 (RFC 3629: no overlong
 * forms, no surrogates, nothing above U+10FFFF); size where there is none. */
size_t utf8_first_bad(const char *text, size_t size);
/* The same, but NUL is a character like any other. */
size_t utf8_first_invalid(const char *text, size_t size);
/* Whether a terminated text is well-formed to its end. */
bool utf8_is_text(const char *text);
/* The largest cut <= limit that does not divide a character; limit < size. */
size_t utf8_cut(const char *text, size_t limit);

/* Bytes of the character at text, which is well-formed; at most size, at least 1 where size is. */
static inline size_t utf8_character_size(const char *text, size_t size)
{
    unsigned char lead = (unsigned char)*text;
    size_t length = lead < 0xc0 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
    return length < size ? length : size;
}

/* Code point of the character at text, which is well-formed; *size is its bytes. */
static inline uint32_t utf8_decode(const char *text, size_t *size)
{
    const unsigned char *t = (const unsigned char *)text;
    if (t[0] < 0x80) {
        *size = 1;
        return t[0];
    }
    if (t[0] < 0xe0) {
        *size = 2;
        return (t[0] & 0x1fu) << 6 | (t[1] & 0x3fu);
    }
    if (t[0] < 0xf0) {
        *size = 3;
        return (t[0] & 0x0fu) << 12 | (t[1] & 0x3fu) << 6 | (t[2] & 0x3fu);
    }
    *size = 4;
    return (t[0] & 0x07u) << 18 | (t[1] & 0x3fu) << 12 | (t[2] & 0x3fu) << 6 | (t[3] & 0x3fu);
}

/* What Python's str.strip and the \s of its expressions take for white space, which the files and
 * templates of its world are written for. */
static inline bool utf8_is_white(uint32_t code)
{
    return (code >= 0x09 && code <= 0x0d) || (code >= 0x1c && code <= 0x20) || code == 0x85 ||
           code == 0xa0 || code == 0x1680 || (code >= 0x2000 && code <= 0x200a) || code == 0x2028 ||
           code == 0x2029 || code == 0x202f || code == 0x205f || code == 0x3000;
}

/* Bytes of well-formed text that are left without the white space it ends with. */
size_t utf8_trim_end(const char *text, size_t size);

/* Replaces control bytes in place, so that quoting a file's content cannot steer a terminal. */
void utf8_make_printable(char *text);
/* At most 64 bytes of a string from a file, safe to print. */
struct utf8_quote {
    char text[65];
};
struct utf8_quote utf8_quote(const char *text);

#endif
