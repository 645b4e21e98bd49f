/* utf8_stream.h: bytes that arrive one token at a time, as valid UTF-8: a sequence is held back
 * until it is complete, and what can never become one is replaced by U+FFFD. */
#ifndef CLI_UTF8_STREAM_H
#define CLI_UTF8_STREAM_H

#include <stdio.h>

struct utf8_stream {
    FILE *file;
    unsigned char held[4];
    int held_count;
};

void utf8_stream_write(struct utf8_stream *stream, const char *bytes, size_t size);
/* Writes what is still held back, as U+FFFD. */
void utf8_stream_end(struct utf8_stream *stream);

#endif
