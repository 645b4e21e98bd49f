/* corpus_parts.h: the inside of a corpus, shared by the files that fill it.
 *
 *     corpus.c         documents, reading, splitting, fingerprint
 *     corpus_load.c    paths and folders -> files
 *     corpus_text.c    text and JSONL -> documents
 *     corpus_chat.c    a JSONL line with messages -> a document
 *     shard.c          token shards -> documents, without copying
 *
 * A document is a run of tokens that lies in a block of the store (text) or in a mapped file
 * (shards). Documents are what the corpora of a split divide among them; the store with the memory
 * is shared and counted. */
#ifndef NN_CORPUS_PARTS_H
#define NN_CORPUS_PARTS_H

#include <jansson.h>

#include "data/data.h"
#include "io/file.h"

struct corpus_document {
    const void *tokens; /* [count], of width bytes each, little-endian; in four bytes, ~id is an id
                           that is read but is no target */
    int64_t count;      /* at least 1 */
    int64_t bytes;      /* of source text; -1: unknown */
    uint8_t width;      /* 2 or 4 */
    uint8_t silent;     /* 1: the last token is a separator, which stands for no text */
};

/* Memory that documents point into; grows by blocks, so that pointers stay valid. */
struct corpus_block {
    struct corpus_block *next;
    size_t capacity, used;
    _Alignas(16) unsigned char data[];
};

struct corpus_store {
    int references; /* corpora that use it */
    struct corpus_block *blocks;
    struct file_map *maps;
    int map_count;
};

struct corpus {
    struct corpus_store *store;
    struct corpus_document *documents;
    int64_t count, capacity;
    int64_t tokens;
    int64_t bytes;    /* of documents that know theirs */
    bool bytes_known; /* all of them do */
};

plx_status corpus_create(struct corpus **corpus, struct error *err);
/* Appends a document; count >= 1. */
plx_status corpus_add(struct corpus *corpus, const struct corpus_document *document,
                      struct error *err);
/* Room for bytes more in the store, kept only as far as corpus_keep says; the next take returns
 * what follows. */
plx_status corpus_take(struct corpus *corpus, size_t bytes, void **memory, struct error *err);
void corpus_keep(struct corpus *corpus, size_t bytes);
/* Makes a map live as long as the store. On failure the map is still the caller's. */
plx_status corpus_own_map(struct corpus *corpus, const struct file_map *map, struct error *err);

/* A load in progress. */
struct corpus_reader {
    struct corpus *corpus;
    const struct corpus_options *options;
    int64_t bytes_left;      /* of max_bytes */
    struct encoder *encoder; /* made with the first text */
    void *narrowed;          /* ids of the document at hand, of its width */
    int64_t narrow_count, narrow_capacity;
    uint8_t width; /* of the document at hand: 2 or 4 */
    bool hidden;   /* what is encoded now is no target; only in four bytes */
};
/* Frees what reading needed; the corpus stays. */
void corpus_reader_clear(struct corpus_reader *reader);

/* A document in steps: begin, encode its pieces, end. hides: some of it is no target. silent: its
 * last token stands for no text. A document without tokens adds nothing. */
plx_status corpus_begin(struct corpus_reader *reader, bool hides, struct error *err);
plx_status corpus_encode(struct corpus_reader *reader, const char *text, size_t size, unsigned how,
                         struct error *err);
plx_status corpus_end(struct corpus_reader *reader, int64_t bytes, bool silent, struct error *err);
/* One text as one document, whole or cut where bytes_left ends; text must be UTF-8 without NUL.
 * Empty text adds nothing. */
plx_status corpus_add_text(struct corpus_reader *reader, const char *text, size_t size,
                           struct error *err);
/* Every line of a JSONL file in memory. name is for messages. */
plx_status corpus_add_jsonl(struct corpus_reader *reader, const char *data, size_t size,
                            const char *name, struct error *err);

/* One chat, an object with "messages", as one document. name, of file and line, is for messages. */
plx_status corpus_add_chat(struct corpus_reader *reader, const json_t *object, const char *name,
                           struct error *err);

/* The formats of token shards, told by their first bytes. */
enum shard_format { SHARD_NONE, SHARD_LLMC, SHARD_LLMC_EVAL, SHARD_PLXTOK };
enum shard_format shard_detect(const unsigned char *data, size_t size);
/* Every document of a shard in memory that is aligned to 8 bytes; the documents point into it. */
plx_status corpus_add_shard(struct corpus_reader *reader, const unsigned char *data, size_t size,
                            const char *name, struct error *err);

#endif
