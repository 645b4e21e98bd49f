/* shard_format.h: our own token shard, NAME.plxtok. Little-endian throughout, laid out to be read
 * by map:
 *
 *     header    32 bytes   "PLXTOK1\0", u32 version (1), u32 token width in bytes (2 or 4),
 *                          u64 vocabulary size, u64 reserved (0)
 *     tokens               one id of that width each, then zeros up to a multiple of 8 bytes
 *     table                for every document and once more for the end:
 *                          u64 index of its first token, u64 source bytes before it
 *     trailer   32 bytes   u64 tokens, u64 documents, u64 source bytes,
 *                          u64 XXH64 (seed 0) of everything before this last field
 *
 * The counts stand at the end because a writer that only appends knows them last. The file's size
 * must be exactly what they imply. Width is 2 where the vocabulary size is at most 65,536.
 * Documents are never empty and include the separator that ends them, if any. Source bytes are all
 * 0 where the writer did not know them. */
#ifndef NN_SHARD_FORMAT_H
#define NN_SHARD_FORMAT_H

#include <stdint.h>

#define SHARD_MAGIC "PLXTOK1" /* and its NUL: eight bytes */

enum { SHARD_VERSION = 1 };

struct shard_header {
    char magic[8];
    uint32_t version;
    uint32_t width;
    uint64_t vocab_size;
    uint64_t reserved;
};

struct shard_row {
    uint64_t token, byte;
};

struct shard_trailer {
    uint64_t tokens, documents, bytes;
    uint64_t hash;
};

_Static_assert(sizeof(struct shard_header) == 32 && sizeof(struct shard_row) == 16 &&
                   sizeof(struct shard_trailer) == 32,
               "the structs are the file's layout");
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the file is little-endian");

#endif
