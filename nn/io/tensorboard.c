/* tensorboard.c: see tensorboard.h. There is no C library for event files, and they are simple:
 *
 *     record    u64 length, u32 mask(crc32c(length)), event, u32 mask(crc32c(event))   (TFRecord)
 *     event     protocol buffer: 1 wall_time double, 2 step varint, and one of
 *               3 file_version text, 5 summary, 7 session_log
 *     summary   1 value, repeated: 1 tag text, 2 simple_value float
 *     session   1 status varint: 1 is START
 *
 * All numbers are little-endian. The first event of a file has the version "brain.Event:2"; a START
 * at step N makes a reader drop what it knows of the steps from N on. A record that a killed run
 * cut short is the last of its file, where readers wait for the rest in vain and lose nothing else.
 */
#include "io/tensorboard.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "io/file.h"

/* ---- Protocol buffers ---- */

struct message {
    unsigned char bytes[4096];
    size_t size;
    bool overflowed;
};

enum wire { WIRE_VARINT = 0, WIRE_FIXED64 = 1, WIRE_BYTES = 2, WIRE_FIXED32 = 5 };

static void put(struct message *message, const void *bytes, size_t size)
{
    if (size > sizeof message->bytes - message->size) {
        message->overflowed = true;
        return;
    }
    memcpy(message->bytes + message->size, bytes, size);
    message->size += size;
}

static void put_fixed(struct message *message, uint64_t value, int size)
{
    unsigned char bytes[8];
    for (int i = 0; i < size; i++) bytes[i] = (unsigned char)(value >> 8 * i);
    put(message, bytes, (size_t)size);
}

static void put_varint(struct message *message, uint64_t value)
{
    for (; value >= 0x80; value >>= 7) put_fixed(message, (value & 0x7f) | 0x80, 1);
    put_fixed(message, value, 1);
}

static void put_key(struct message *message, int field, enum wire wire)
{
    put_varint(message, (uint64_t)(field << 3 | wire));
}

static void put_bytes(struct message *message, int field, const void *bytes, size_t size)
{
    put_key(message, field, WIRE_BYTES);
    put_varint(message, size);
    put(message, bytes, size);
}

static void put_double(struct message *message, int field, double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    put_key(message, field, WIRE_FIXED64);
    put_fixed(message, bits, 8);
}

static void put_float(struct message *message, int field, float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    put_key(message, field, WIRE_FIXED32);
    put_fixed(message, bits, 4);
}

/* ---- Records ---- */

/* CRC-32C (Castagnoli), bit by bit: an event has a few hundred bytes. */
static uint32_t crc32c(const unsigned char *bytes, size_t size)
{
    uint32_t crc = ~0u;
    for (size_t i = 0; i < size; i++) {
        crc ^= bytes[i];
        for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
    }
    return ~crc;
}

static uint32_t masked_crc(const unsigned char *bytes, size_t size)
{
    uint32_t crc = crc32c(bytes, size);
    return (crc >> 15 | crc << 17) + 0xa282ead8u;
}

static plx_status write_event(struct tensorboard *board, const struct message *event,
                              struct error *err)
{
    struct message record = {.size = 0};
    put_fixed(&record, event->size, 8);
    put_fixed(&record, masked_crc(record.bytes, 8), 4);
    put(&record, event->bytes, event->size);
    put_fixed(&record, masked_crc(event->bytes, event->size), 4);
    REQUIRE(err, !event->overflowed && !record.overflowed, PLX_INTERNAL,
            "%s: an event is longer than %zu bytes", board->file.path, sizeof record.bytes);
    return append_write(&board->file, record.bytes, record.size, err);
}

static struct message event_begin(int64_t step)
{
    struct message event = {.size = 0};
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    put_double(&event, 1, (double)now.tv_sec + 1e-9 * (double)now.tv_nsec);
    put_key(&event, 2, WIRE_VARINT);
    put_varint(&event, (uint64_t)step);
    return event;
}

/* ---- The verbs of tensorboard.h ---- */

static plx_status write_start(struct tensorboard *board, int64_t first_step, struct error *err)
{
    static const char version[] = "brain.Event:2";
    static const unsigned char start[] = {1 << 3 | WIRE_VARINT, 1};
    struct message event = event_begin(0);
    put_bytes(&event, 3, version, sizeof version - 1);
    TRY(write_event(board, &event, err));
    event = event_begin(first_step);
    put_bytes(&event, 7, start, sizeof start);
    return write_event(board, &event, err);
}

plx_status tensorboard_open(struct tensorboard *board, const char *folder, int64_t first_step,
                            struct error *err)
{
    board->file.descriptor = -1;
    TRY(file_make_folder(folder, err));
    /* TensorBoard reads the files of a folder in the order of their names. */
    int length = snprintf(board->file.path, sizeof board->file.path,
                          "%s/events.out.tfevents.%010lld.%ld.parallax", folder,
                          (long long)time(NULL), (long)getpid());
    REQUIRE(err, length > 0 && (size_t)length < sizeof board->file.path, PLX_INVALID_ARGUMENT,
            "%s: the path is too long", folder);
    TRY(append_open(&board->file, err));
    return write_start(board, first_step, err);
}

plx_status tensorboard_write(struct tensorboard *board, int64_t step,
                             const struct tensorboard_scalar *scalars, int count, struct error *err)
{
    struct message event = event_begin(step), summary = {.size = 0};
    for (int i = 0; i < count; i++) {
        struct message value = {.size = 0};
        if (isnan(scalars[i].value)) continue;
        put_bytes(&value, 1, scalars[i].tag, strlen(scalars[i].tag));
        put_float(&value, 2, (float)scalars[i].value);
        put_bytes(&summary, 1, value.bytes, value.size);
        summary.overflowed |= value.overflowed;
    }
    put_bytes(&event, 5, summary.bytes, summary.size);
    event.overflowed |= summary.overflowed;
    return write_event(board, &event, err);
}

void tensorboard_close(struct tensorboard *board)
{
    append_close(&board->file);
}
