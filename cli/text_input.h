/* text_input.h: a text that a command takes as an argument, from a file, or from standard input. */
#ifndef CLI_TEXT_INPUT_H
#define CLI_TEXT_INPUT_H

#include "core/error.h"

/* From word, unless it is NULL or "-"; from file, unless that is ""; else from standard input, if
 * word is "-" or no terminal is there; else the empty text. Both word and file are refused, and so
 * is more than 1 GiB. The caller frees *text, which has a NUL behind it. */
plx_status text_input_read(const char *word, const char *file, char **text, size_t *size,
                           struct error *err);

#endif
