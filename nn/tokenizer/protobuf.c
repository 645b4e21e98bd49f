/* protobuf.c: see protobuf.h. */
#include "tokenizer/protobuf.h"

#include <string.h>

static bool read_varint(struct protobuf *message, uint64_t *value)
{
    *value = 0;
    for (int shift = 0; shift < 70; shift += 7) {
        if (message->next == message->end) return false;
        unsigned char byte = *message->next++;
        if (shift == 63 && byte > 1) return false; /* more than 64 bits */
        *value |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80) return true;
    }
    return false;
}

static bool read_fixed(struct protobuf *message, size_t size, uint64_t *value)
{
    if ((size_t)(message->end - message->next) < size) return false;
    *value = 0;
    for (size_t i = 0; i < size; i++) *value |= (uint64_t)message->next[i] << (8 * i);
    message->next += size;
    return true;
}

static bool read_bytes(struct protobuf *message, struct protobuf_field *field)
{
    uint64_t size;
    if (!read_varint(message, &size) || size > (uint64_t)(message->end - message->next))
        return false;
    field->bytes = message->next;
    field->size = (size_t)size;
    message->next += size;
    return true;
}

static bool read_value(struct protobuf *message, struct protobuf_field *field)
{
    switch (field->type) {
    case PROTOBUF_VARINT:
        return read_varint(message, &field->value);
    case PROTOBUF_FIXED64:
        return read_fixed(message, 8, &field->value);
    case PROTOBUF_BYTES:
        return read_bytes(message, field);
    case PROTOBUF_FIXED32:
        return read_fixed(message, 4, &field->value);
    }
    return false; /* groups, which are long out of use, and types that do not exist */
}

bool protobuf_next(struct protobuf *message, struct protobuf_field *field)
{
    uint64_t key;
    *field = (struct protobuf_field){0};
    if (message->next == message->end) return false;
    bool good = read_varint(message, &key) && key >> 3 > 0 && key >> 3 <= UINT32_MAX;
    if (good) {
        field->number = (uint32_t)(key >> 3);
        field->type = (enum protobuf_type)(key & 7);
        good = read_value(message, field);
    }
    message->failed = !good;
    return good;
}

float protobuf_float(const struct protobuf_field *field)
{
    uint32_t bits = (uint32_t)field->value;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}
