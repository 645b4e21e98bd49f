/* vocab.h: the tokens and merges of a vocabulary, as one block of memory without pointers, so that
 * the same bytes serve as built, or mapped from the cache.
 *
 * The block: struct vocab_header, then spans [tokens], merges [merge_slots], lookup [lookup_slots],
 * the tokens' bytes, and the rules (JSON text without the large parts). merges and lookup are
 * open-addressing tables whose sizes are powers of two and at most half full. */
#ifndef NN_TOKENIZER_VOCAB_H
#define NN_TOKENIZER_VOCAB_H

#include "core/error.h"

/* Larger ids are refused: the tables have a row for every id, and no real vocabulary comes near. */
enum { VOCAB_MAX_TOKENS = 1 << 20, VOCAB_MAX_TEXT = 64 << 20 };

struct vocab_span {
    uint32_t start, size; /* start UINT32_MAX: there is no token of this id */
};

/* left and right, side by side, become id; the lowest rank goes first. left -1: an empty slot. */
struct vocab_merge {
    int32_t left, right, rank, id;
};

struct vocab_header {
    char magic[8];
    uint64_t source_hash, source_size; /* of the tokenizer.json */
    uint64_t block_hash;               /* XXH3 of everything but this */
    uint32_t tokens, merge_slots, lookup_slots, text_bytes, rules_bytes, merge_count;
    int32_t byte_id[256]; /* the token of each byte, or -1 */
};

struct vocab {
    struct vocab_header *header; /* begins the block */
    size_t block_size;
    bool mapped; /* the block is a map of a file; otherwise malloc'd */
    const struct vocab_span *spans;
    const struct vocab_merge *merges;
    const int32_t *lookup; /* ids, -1: empty */
    const char *text, *rules;
};

/* ---- Using ---- */
/* Checks everything that using the vocabulary relies on: sizes, offsets, ids, an empty slot in each
 * table. False: not such a block. On success the block belongs to vocab. */
bool vocab_open(void *block, size_t size, bool mapped, struct vocab *vocab);
void vocab_close(struct vocab *vocab);
static inline int64_t vocab_tokens(const struct vocab *vocab)
{
    return vocab->header->tokens;
}
/* The token whose bytes these are, -1: none. */
int32_t vocab_find(const struct vocab *vocab, const char *bytes, size_t size);
/* The rule for two neighbours, NULL: they stay apart. */
const struct vocab_merge *vocab_find_merge(const struct vocab *vocab, int32_t left, int32_t right);
static inline const char *vocab_text(const struct vocab *vocab, int32_t id, size_t *size)
{
    struct vocab_span span = vocab->spans[id];
    *size = span.start == UINT32_MAX ? 0 : span.size;
    return span.start == UINT32_MAX ? "" : vocab->text + span.start;
}

/* ---- Building ---- */
struct vocab_builder {
    struct vocab_span *spans; /* [capacity] */
    bool *found;              /* [capacity]: vocab_find may return it */
    int64_t tokens, capacity;
    char *text;
    size_t text_bytes, text_capacity;
    int32_t *lookup;
    uint32_t lookup_slots;
    struct vocab_merge *merges; /* in the order of adding */
    int64_t merge_count, merge_capacity;
    int32_t byte_id[256]; /* where bytes_given; otherwise the tokens of one byte are meant */
    bool bytes_given;
};

void vocab_builder_clear(struct vocab_builder *builder);
/* Adds token id (below VOCAB_MAX_TOKENS). *fresh is false, and nothing changes, where the id is
 * taken. */
plx_status vocab_add(struct vocab_builder *builder, int32_t id, const char *bytes, size_t size,
                     bool findable, bool *fresh, struct error *err);
/* Makes the lookup table; after it no token can be added, and vocab_builder_find works. */
plx_status vocab_index(struct vocab_builder *builder, struct error *err);
int32_t vocab_builder_find(const struct vocab_builder *builder, const char *bytes, size_t size);
/* Of two rules for the same neighbours the later one counts, as in Hugging Face's. */
plx_status vocab_add_merge(struct vocab_builder *builder, int32_t left, int32_t right, int32_t rank,
                           int32_t id, struct error *err);
/* The block, opened. rules: text to keep with it. source: what it was made from. */
plx_status vocab_build(struct vocab_builder *builder, const char *rules, const char *source,
                       size_t source_size, struct vocab *vocab, struct error *err);
uint64_t vocab_source_hash(const char *source, size_t size);

#endif
