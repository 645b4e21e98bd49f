/* shard_writer.c: writing our own token shards; the layout is in shard_format.h.
 *
 * The file grows by appending under NAME.partial, while the table of documents is kept in memory;
 * closing appends the table and the trailer, makes everything durable and renames. So a file of the
 * final name is always complete. */
#include "data/data.h"
#include "data/shard_format.h"
#include "io/file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

enum { BUFFER_TOKENS = 4096 };

struct shard_writer {
    struct file_writer file;
    char path[4096]; /* the final name */
    struct shard_header header;
    struct shard_row *table; /* [documents + 1] */
    uint64_t documents, capacity;
    bool bytes_unknown;  /* some document did not know its source bytes */
    bool failed;         /* a call failed: the file cannot be finished */
    XXH64_state_t *hash; /* of all that was written */
};

static plx_status append(struct shard_writer *writer, const void *data, size_t bytes,
                         struct error *err)
{
    XXH64_update(writer->hash, data, bytes);
    return file_write(&writer->file, data, bytes, err);
}

static void writer_free(struct shard_writer *writer)
{
    XXH64_freeState(writer->hash);
    free(writer->table);
    free(writer);
}

static plx_status writer_open(struct shard_writer *writer, const char *path, int64_t vocab_size,
                              struct error *err)
{
    char partial[sizeof writer->path];
    int length = snprintf(partial, sizeof partial, "%s.partial", path);
    REQUIRE(err, length > 0 && (size_t)length < sizeof partial, PLX_INVALID_ARGUMENT,
            "the path of the token shard has %d bytes but at most %zu are possible", length,
            sizeof partial - 1);
    strcpy(writer->path, path);
    writer->header = (struct shard_header){.magic = SHARD_MAGIC,
                                           .version = SHARD_VERSION,
                                           .width = vocab_size <= 65536 ? 2 : 4,
                                           .vocab_size = (uint64_t)vocab_size};
    writer->hash = XXH64_createState();
    writer->capacity = 64;
    writer->table = calloc(writer->capacity, sizeof *writer->table);
    REQUIRE(err, writer->hash != NULL && writer->table != NULL, PLX_OUT_OF_MEMORY,
            "%s: cannot allocate a shard writer", path);
    XXH64_reset(writer->hash, 0);
    TRY(file_writer_open(&writer->file, partial, err));
    plx_status status = append(writer, &writer->header, sizeof writer->header, err);
    if (status != PLX_OK) file_writer_abandon(&writer->file);
    return status;
}

plx_status shard_writer_create(const char *path, int64_t vocab_size, struct shard_writer **writer,
                               struct error *err)
{
    *writer = NULL;
    REQUIRE(err, vocab_size > 0 && vocab_size <= INT32_MAX, PLX_INVALID_ARGUMENT,
            "%s: the vocabulary size is %lld but must be 1..%d", path, (long long)vocab_size,
            INT32_MAX);
    struct shard_writer *made = calloc(1, sizeof *made);
    REQUIRE(err, made != NULL, PLX_OUT_OF_MEMORY, "%s: cannot allocate a shard writer", path);
    plx_status status = writer_open(made, path, vocab_size, err);
    if (status != PLX_OK) {
        writer_free(made);
        return status;
    }
    *writer = made;
    return PLX_OK;
}

static plx_status append_tokens(struct shard_writer *writer, const int32_t *ids, int64_t count,
                                struct error *err)
{
    if (writer->header.width == 4) return append(writer, ids, (size_t)count * sizeof *ids, err);
    uint16_t buffer[BUFFER_TOKENS];
    for (int64_t first = 0; first < count; first += BUFFER_TOKENS) {
        int64_t take = count - first < BUFFER_TOKENS ? count - first : BUFFER_TOKENS;
        for (int64_t i = 0; i < take; i++) buffer[i] = (uint16_t)ids[first + i];
        TRY(append(writer, buffer, (size_t)take * sizeof *buffer, err));
    }
    return PLX_OK;
}

static plx_status append_row(struct shard_writer *writer, int64_t count, int64_t source_bytes,
                             struct error *err)
{
    if (writer->documents + 2 > writer->capacity) {
        struct shard_row *table =
            realloc(writer->table, 2 * writer->capacity * sizeof *writer->table);
        REQUIRE(err, table != NULL, PLX_OUT_OF_MEMORY, "%s: cannot allocate the table",
                writer->path);
        writer->table = table;
        writer->capacity *= 2;
    }
    struct shard_row *row = &writer->table[writer->documents++];
    row[1].token = row[0].token + (uint64_t)count;
    row[1].byte = row[0].byte + (uint64_t)(source_bytes > 0 ? source_bytes : 0);
    if (source_bytes < 0) writer->bytes_unknown = true;
    return PLX_OK;
}

plx_status shard_writer_add(struct shard_writer *writer, const int32_t *ids, int64_t count,
                            int64_t source_bytes, struct error *err)
{
    REQUIRE(err, count > 0, PLX_INVALID_ARGUMENT, "%s: document %llu has no tokens", writer->path,
            (unsigned long long)writer->documents);
    for (int64_t i = 0; i < count; i++)
        REQUIRE(err, ids[i] >= 0 && (uint64_t)ids[i] < writer->header.vocab_size,
                PLX_INVALID_ARGUMENT, "%s: document %llu, token %lld: id %d but must be 0..%llu",
                writer->path, (unsigned long long)writer->documents, (long long)i, ids[i],
                (unsigned long long)writer->header.vocab_size - 1);
    plx_status status = append_tokens(writer, ids, count, err);
    if (status == PLX_OK) status = append_row(writer, count, source_bytes, err);
    if (status != PLX_OK) writer->failed = true;
    return status;
}

/* Padding, table and trailer. */
static plx_status append_end(struct shard_writer *writer, struct error *err)
{
    static const unsigned char zeros[8];
    if (writer->bytes_unknown)
        for (uint64_t d = 0; d <= writer->documents; d++) writer->table[d].byte = 0;
    const struct shard_row *last = &writer->table[writer->documents];
    size_t over = (size_t)(last->token * writer->header.width % 8);
    if (over > 0) TRY(append(writer, zeros, 8 - over, err));
    TRY(append(writer, writer->table, (size_t)(writer->documents + 1) * sizeof *last, err));
    struct shard_trailer trailer = {
        .tokens = last->token, .documents = writer->documents, .bytes = last->byte};
    TRY(append(writer, &trailer, offsetof(struct shard_trailer, hash), err));
    trailer.hash = XXH64_digest(writer->hash);
    return file_write(&writer->file, &trailer.hash, sizeof trailer.hash, err);
}

static plx_status writer_finish(struct shard_writer *writer, struct error *err)
{
    REQUIRE(err, !writer->failed, PLX_IO_ERROR, "%s: an earlier write failed", writer->path);
    REQUIRE(err, writer->documents > 0, PLX_INVALID_ARGUMENT, "%s: no documents to write",
            writer->path);
    char partial[sizeof writer->file.path];
    strcpy(partial, writer->file.path);
    TRY(append_end(writer, err));
    TRY(file_writer_close(&writer->file, NULL, err));
    plx_status status = file_rename(partial, writer->path, err);
    if (status != PLX_OK) file_remove_tree(partial, NULL);
    return status;
}

plx_status shard_writer_close(struct shard_writer *writer, bool finish, struct error *err)
{
    plx_status status = finish ? writer_finish(writer, err) : PLX_OK;
    if (!finish || status != PLX_OK) file_writer_abandon(&writer->file);
    writer_free(writer);
    return status;
}
