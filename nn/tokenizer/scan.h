/* scan.h: what the best known expressions match, found without an expression engine: several times
 * faster, and equal to it (test_tokenizer_pattern.c compares them on random Unicode). */
#ifndef NN_TOKENIZER_SCAN_H
#define NN_TOKENIZER_SCAN_H

#include <stddef.h>

/* The end of the match that begins at from, which is below size: these expressions match
 * everywhere. from itself where the expression must decide. */
typedef size_t scan_function(const char *text, size_t size, size_t from);

/* The scanner of an expression, NULL where there is none. */
scan_function *scan_find(const char *expression, size_t size);

#endif
