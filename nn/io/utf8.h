/* utf8.h: whether bytes are UTF-8: no overlong forms, no surrogates, nothing above U+10FFFF. */
#ifndef NN_UTF8_H
#define NN_UTF8_H

#include <stddef.h>

/* How many leading bytes form whole, valid characters; size where all of the text does. */
size_t utf8_valid_bytes(const char *text, size_t size);

#endif
