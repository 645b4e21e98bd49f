/* protobuf.h: reading the wire format of protocol buffers, as far as SentencePiece's files use it.
 * The bytes may be hostile: lengths are checked against what is left, and a varint of more than ten
 * bytes is an error. */
#ifndef NN_TOKENIZER_PROTOBUF_H
#define NN_TOKENIZER_PROTOBUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct protobuf {
    const unsigned char *next, *end;
    bool failed; /* what was read last is no field */
};

struct protobuf_field {
    uint32_t number;
    enum protobuf_type {
        PROTOBUF_VARINT = 0,
        PROTOBUF_FIXED64 = 1,
        PROTOBUF_BYTES = 2,
        PROTOBUF_FIXED32 = 5
    } type;
    uint64_t value;             /* of numbers */
    const unsigned char *bytes; /* of texts and messages */
    size_t size;
};

/* The next field of a message; false at its end, and where it is damaged (failed says so). */
bool protobuf_next(struct protobuf *message, struct protobuf_field *field);
static inline struct protobuf protobuf_open(const unsigned char *bytes, size_t size)
{
    return (struct protobuf){bytes, bytes + size, false};
}
/* The bits of a FIXED32 as a float. */
float protobuf_float(const struct protobuf_field *field);

#endif
