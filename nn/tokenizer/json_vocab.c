/* json_vocab.c: see json_vocab.h. */
#include "tokenizer/json_vocab.h"

#include <stdlib.h>
#include <string.h>

#include "tokenizer/vocab_block.h"

void vocab_rows_clear(struct vocab_rows *rows)
{
    free(rows->rows);
    free(rows->text);
    free(rows->lookup);
    *rows = (struct vocab_rows){0};
}

/* ---- Looking up ---- */

/* The slot that holds the key, or the empty one where it belongs. */
static uint32_t find_slot(const struct vocab_rows *rows, const char *key, size_t size)
{
    uint32_t slot = vocab_text_slot(key, size, rows->slots);
    for (; rows->lookup[slot] >= 0; slot = (slot + 1) & (rows->slots - 1)) {
        const struct vocab_row *row = &rows->rows[rows->lookup[slot]];
        if (row->size == size && memcmp(row->key, key, size) == 0) break;
    }
    return slot;
}

const struct vocab_row *vocab_rows_find(const struct vocab_rows *rows, const char *key, size_t size)
{
    const int32_t index = rows->lookup[find_slot(rows, key, size)];
    return index >= 0 ? &rows->rows[index] : NULL;
}

/* Fills the table; *twice tells of equal keys. */
static bool index_rows(struct vocab_rows *rows, bool *twice)
{
    rows->slots = vocab_slots(rows->count);
    rows->lookup = malloc(rows->slots * sizeof *rows->lookup);
    if (rows->lookup == NULL) return false;
    memset(rows->lookup, -1, rows->slots * sizeof *rows->lookup);
    for (int64_t i = 0; i < rows->count; i++) {
        const uint32_t slot = find_slot(rows, rows->rows[i].key, rows->rows[i].size);
        *twice = *twice || rows->lookup[slot] >= 0;
        rows->lookup[slot] = (int32_t)i;
    }
    return true;
}

/* ---- Reading ---- */

static bool grow(struct vocab_rows *rows, int64_t *capacity)
{
    if (rows->count < *capacity) return true;
    *capacity = 2 * *capacity + 1024;
    struct vocab_row *larger = realloc(rows->rows, (size_t)*capacity * sizeof *larger);
    if (larger != NULL) rows->rows = larger;
    return larger != NULL;
}

/* The next row, whose key goes to the end of the text. */
static bool read_row(struct json_text *text, struct vocab_row *row, char *key)
{
    *row = (struct vocab_row){.key = key};
    if (!json_text_string(text, key, JSON_MAX_KEY, &row->size)) return false;
    key[row->size] = '\0';
    return json_text_mark(text, ':') && json_text_integer(text, &row->id);
}

/* False when out of memory; *plain tells whether everything was a row. */
static bool read_rows(struct json_text text, struct vocab_rows *rows, bool *plain)
{
    int64_t capacity = 0;
    char *key = rows->text;
    json_text_space(&text);
    *plain = true;
    if (!grow(rows, &capacity)) return false;
    while (text.at < text.end && *plain) {
        if (!grow(rows, &capacity)) return false;
        struct vocab_row *row = &rows->rows[rows->count++];
        *plain = rows->count <= VOCAB_MAX_TOKENS && read_row(&text, row, key);
        key += row->size + 1;
        /* A comma must have a row behind it. */
        if (*plain && text.at < text.end) *plain = json_text_mark(&text, ',') && text.at < text.end;
    }
    return true;
}

plx_status vocab_rows_read(struct json_text text, struct vocab_rows *rows, struct error *err)
{
    *rows = (struct vocab_rows){0};
    if (text.at == NULL) return PLX_OK;
    /* A key is no longer than it is in the file, where it has quotes for its NUL. */
    const size_t size = (size_t)(text.end - text.at) + JSON_MAX_KEY + 1;
    bool plain = false, twice = false;
    rows->text = malloc(size);
    bool enough = rows->text != NULL && read_rows(text, rows, &plain);
    if (enough && plain) enough = index_rows(rows, &twice);
    if (!enough || !plain || twice) vocab_rows_clear(rows);
    REQUIRE(err, enough, PLX_OUT_OF_MEMORY, "no memory for a vocabulary of %zu bytes", size);
    return PLX_OK;
}
