/* alphabet.h: the printable characters that byte-level vocabularies write bytes as, GPT-2's: a byte
 * that is a visible character of Latin-1 (0x21..0x7e, 0xa1..0xac, 0xae..0xff) is written as that
 * character, and the remaining 68 as U+0100, U+0101, ... in the order of their values. */
#ifndef NN_TOKENIZER_ALPHABET_H
#define NN_TOKENIZER_ALPHABET_H

#include <stdbool.h>
#include <stddef.h>

/* Replaces a text of the alphabet by the bytes that it stands for; bytes has room for size. Returns
 * false, with bytes undefined, where a character is none of the alphabet. */
bool alphabet_decode(const char *text, size_t size, char *bytes, size_t *count);
/* The text of size bytes; text has room for 2 * size + 1 and gets a NUL. */
size_t alphabet_encode(const char *bytes, size_t size, char *text);

#endif
