/* test_tensorboard.c: what nn/io/tensorboard.c writes, read back by a reader of its own: records
 * with their checksums, events with their fields. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "io/file.h"
#include "io/tensorboard.h"
#include "tokenizer/protobuf.h"

/* ---- A reader of TFRecord files, by a table where the writer goes bit by bit ---- */

static uint32_t reader_crc(const unsigned char *bytes, size_t size)
{
    static uint32_t table[256];
    for (uint32_t i = 0; table[255] == 0 && i < 256; i++) {
        table[i] = i;
        for (int bit = 0; bit < 8; bit++)
            table[i] = table[i] & 1 ? table[i] >> 1 ^ 0x82f63b78u : table[i] >> 1;
    }
    uint32_t crc = 0xffffffffu;
    for (size_t i = 0; i < size; i++) crc = table[(crc ^ bytes[i]) & 0xff] ^ crc >> 8;
    return crc ^ 0xffffffffu;
}

static uint64_t little_endian(const unsigned char *bytes, int count)
{
    uint64_t value = 0;
    for (int i = count - 1; i >= 0; i--) value = value << 8 | bytes[i];
    return value;
}

/* Undoes the mask instead of applying it. */
static uint32_t unmasked(const unsigned char *bytes)
{
    uint32_t rotated = (uint32_t)little_endian(bytes, 4) - 0xa282ead8u;
    return rotated >> 17 | rotated << 15;
}

/* The next record's event; false at the end of the file, a failed test where anything is wrong. */
static bool next_event(const struct file_map *map, size_t *at, struct protobuf *event)
{
    if (*at == map->size) return false;
    const unsigned char *record = map->data + *at;
    assert_true(map->size - *at >= 16);
    uint64_t length = little_endian(record, 8);
    assert_int_equal(unmasked(record + 8), reader_crc(record, 8));
    assert_true(length <= map->size - *at - 16);
    assert_int_equal(unmasked(record + 12 + length), reader_crc(record + 12, length));
    *event = protobuf_open(record + 12, length);
    *at += 16 + length;
    return true;
}

/* ---- The only file of a folder ---- */

static char folder[] = "/tmp/parallax-tensorboard.XXXXXX";

static void map_only_file(struct file_map *map)
{
    char path[512] = "";
    struct error err = {0};
    DIR *listing = opendir(folder);
    assert_non_null(listing);
    for (struct dirent *entry; (entry = readdir(listing));) {
        if (entry->d_name[0] == '.') continue;
        assert_string_equal(path, "");
        assert_non_null(strstr(entry->d_name, "tfevents")); /* what TensorBoard looks for */
        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
    }
    closedir(listing);
    assert_int_equal(file_map(path, map, &err), PLX_OK);
}

/* Wall time and step stand before what an event holds, which is its last field. */
static struct protobuf_field event_content(struct protobuf *event, uint64_t step)
{
    struct protobuf_field field;
    double wall_time;
    assert_true(protobuf_next(event, &field));
    assert_int_equal(field.number, 1);
    assert_int_equal(field.type, PROTOBUF_FIXED64);
    memcpy(&wall_time, &field.value, sizeof wall_time);
    assert_true(fabs(wall_time - (double)time(NULL)) < 60);
    assert_true(protobuf_next(event, &field));
    assert_int_equal(field.number, 2);
    assert_int_equal(field.type, PROTOBUF_VARINT);
    assert_true(field.value == step);
    assert_true(protobuf_next(event, &field));
    assert_false(protobuf_next(event, &(struct protobuf_field){0}));
    assert_false(event->failed);
    return field;
}

static void assert_scalar(struct protobuf *summary, const char *tag, float value)
{
    struct protobuf_field field;
    assert_true(protobuf_next(summary, &field));
    assert_int_equal(field.number, 1);
    struct protobuf scalar = protobuf_open(field.bytes, field.size);
    assert_true(protobuf_next(&scalar, &field));
    assert_int_equal(field.number, 1);
    assert_int_equal(field.size, strlen(tag));
    assert_memory_equal(field.bytes, tag, field.size);
    assert_true(protobuf_next(&scalar, &field));
    assert_int_equal(field.number, 2);
    assert_int_equal(field.type, PROTOBUF_FIXED32);
    assert_true(protobuf_float(&field) == value);
    assert_false(protobuf_next(&scalar, &field));
}

/* ---- Tests ---- */

static void the_checksum_is_castagnoli(void **state)
{
    (void)state;
    assert_int_equal(reader_crc((const unsigned char *)"123456789", 9), 0xe3069283u);
}

static void scalars_come_back(void **state)
{
    (void)state;
    struct tensorboard board;
    struct error err = {0};
    const struct tensorboard_scalar scalars[] = {
        {"loss/train", 2.5}, {"loss/val", NAN}, {"speed/tokens_per_second", 123456789}};
    const int64_t late = 3000000000; /* a varint of five bytes */
    assert_int_equal(tensorboard_open(&board, folder, 41, &err), PLX_OK);
    assert_int_equal(tensorboard_write(&board, 41, scalars, 3, &err), PLX_OK);
    assert_int_equal(tensorboard_write(&board, late, scalars, 1, &err), PLX_OK);
    tensorboard_close(&board);

    struct file_map map;
    size_t at = 0;
    struct protobuf event;
    map_only_file(&map);
    assert_true(next_event(&map, &at, &event));
    struct protobuf_field content = event_content(&event, 0);
    assert_int_equal(content.number, 3);
    assert_int_equal(content.size, 13);
    assert_memory_equal(content.bytes, "brain.Event:2", 13);
    assert_true(next_event(&map, &at, &event));
    content = event_content(&event, 41);
    assert_int_equal(content.number, 7); /* START: forget the steps from 41 on */
    assert_int_equal(content.size, 2);
    assert_memory_equal(content.bytes, "\x08\x01", 2);
    assert_true(next_event(&map, &at, &event));
    content = event_content(&event, 41);
    assert_int_equal(content.number, 5);
    struct protobuf summary = protobuf_open(content.bytes, content.size);
    assert_scalar(&summary, "loss/train", 2.5f);
    assert_scalar(&summary, "speed/tokens_per_second", 123456789.0f);
    assert_false(protobuf_next(&summary, &content));
    assert_true(next_event(&map, &at, &event));
    content = event_content(&event, (uint64_t)late);
    summary = protobuf_open(content.bytes, content.size);
    assert_scalar(&summary, "loss/train", 2.5f);
    assert_false(next_event(&map, &at, &event));
    file_unmap(&map);
}

/* What would not fit is refused, and the file stays whole. */
static void long_events_are_refused(void **state)
{
    (void)state;
    char tag[5000];
    memset(tag, 'x', sizeof tag - 1);
    tag[sizeof tag - 1] = 0;
    struct tensorboard board;
    struct error err = {0};
    const struct tensorboard_scalar scalar = {tag, 1};
    assert_int_equal(tensorboard_open(&board, folder, 1, &err), PLX_OK);
    assert_int_equal(tensorboard_write(&board, 1, &scalar, 1, &err), PLX_INTERNAL);
    tensorboard_close(&board);
    struct file_map map;
    size_t at = 0;
    struct protobuf event;
    map_only_file(&map);
    while (next_event(&map, &at, &event)) continue;
    file_unmap(&map);
}

static int setup(void **state)
{
    (void)state;
    memcpy(strchr(folder, '.'), ".XXXXXX", 8);
    return mkdtemp(folder) == NULL;
}

static int teardown(void **state)
{
    (void)state;
    struct error err = {0};
    return file_remove_tree(folder, &err) != PLX_OK;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_checksum_is_castagnoli),
        cmocka_unit_test_setup_teardown(scalars_come_back, setup, teardown),
        cmocka_unit_test_setup_teardown(long_events_are_refused, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
