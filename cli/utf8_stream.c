/* utf8_stream.c: see utf8_stream.h. The accepted sequences are those of RFC 3629: no overlong
 * forms, no surrogates, nothing above U+10FFFF. */
#include "utf8_stream.h"

#include <stdbool.h>
#include <string.h>

static const char replacement[] = "\xef\xbf\xbd";

/* Length of the sequence that a first byte announces; 0 where none begins with it. */
static int sequence_length(unsigned char first)
{
    if (first < 0x80) return 1;
    if (first >= 0xc2 && first <= 0xdf) return 2;
    if (first >= 0xe0 && first <= 0xef) return 3;
    if (first >= 0xf0 && first <= 0xf4) return 4;
    return 0;
}

/* Whether byte may stand at position index (1..3) after first. */
static bool continues(unsigned char first, int index, unsigned char byte)
{
    unsigned char low = 0x80, high = 0xbf;
    if (index == 1) {
        if (first == 0xe0) low = 0xa0;
        if (first == 0xed) high = 0x9f;
        if (first == 0xf0) low = 0x90;
        if (first == 0xf4) high = 0x8f;
    }
    return byte >= low && byte <= high;
}

static void put_byte(struct utf8_stream *stream, unsigned char byte)
{
    if (stream->held_count > 0) {
        if (continues(stream->held[0], stream->held_count, byte)) {
            stream->held[stream->held_count++] = byte;
            if (stream->held_count == sequence_length(stream->held[0])) {
                fwrite(stream->held, 1, (size_t)stream->held_count, stream->file);
                stream->held_count = 0;
            }
            return;
        }
        utf8_stream_end(stream);
    }
    int length = sequence_length(byte);
    if (length == 1) {
        fputc(byte, stream->file);
    } else if (length == 0) {
        fputs(replacement, stream->file);
    } else {
        stream->held[0] = byte;
        stream->held_count = 1;
    }
}

void utf8_stream_write(struct utf8_stream *stream, const char *bytes, size_t size)
{
    for (size_t i = 0; i < size; i++) put_byte(stream, (unsigned char)bytes[i]);
    fflush(stream->file);
}

void utf8_stream_end(struct utf8_stream *stream)
{
    if (stream->held_count > 0) fputs(replacement, stream->file);
    stream->held_count = 0;
    fflush(stream->file);
}
