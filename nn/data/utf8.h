/* utf8.h: what counts as text, and how foreign text may appear in messages. */
#ifndef NN_UTF8_H
#define NN_UTF8_H

#include <stdbool.h>
#include <stddef.h>

/* Offset of the first byte that is NUL or not part of well-formed UTF-8 (RFC 3629: no overlong
 * forms, no surrogates, nothing above U+10FFFF); size where there is none. */
size_t utf8_first_bad(const char *text, size_t size);
/* Whether a terminated text is well-formed to its end. */
bool utf8_is_text(const char *text);
/* The largest cut <= limit that does not divide a character; limit < size. */
size_t utf8_cut(const char *text, size_t limit);
/* Replaces control bytes in place, so that quoting a file's content cannot steer a terminal. */
void utf8_make_printable(char *text);

#endif
