/* vocab.c: looking up tokens and merges, and opening a block that may come from a hostile file; see
 * vocab.h. Building one is vocab_build.c. */
#include "tokenizer/vocab.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "tokenizer/vocab_block.h"

uint64_t vocab_source_hash(const char *source, size_t size)
{
    return XXH3_64bits(source, size);
}

uint32_t vocab_text_slot(const char *bytes, size_t size, uint32_t slots)
{
    return (uint32_t)XXH3_64bits(bytes, size) & (slots - 1);
}

uint64_t vocab_block_hash(const struct vocab_header *header, size_t block_size)
{
    struct vocab_header plain = *header;
    plain.block_hash = 0;
    return XXH3_64bits_withSeed(header + 1, block_size - sizeof plain,
                                XXH3_64bits(&plain, sizeof plain));
}

int32_t vocab_find(const struct vocab *vocab, const char *bytes, size_t size)
{
    uint32_t slots = vocab->header->lookup_slots;
    uint32_t slot = vocab_text_slot(bytes, size, slots);
    for (;; slot = (slot + 1) & (slots - 1)) {
        int32_t id = vocab->lookup[slot];
        if (id < 0) return -1;
        struct vocab_span span = vocab->spans[id];
        if (span.size == size && memcmp(vocab->text + span.start, bytes, size) == 0) return id;
    }
}

const struct vocab_merge *vocab_find_merge(const struct vocab *vocab, int32_t left, int32_t right)
{
    uint32_t slots = vocab->header->merge_slots;
    uint32_t slot = vocab_merge_slot(left, right, slots);
    for (;; slot = (slot + 1) & (slots - 1)) {
        const struct vocab_merge *merge = &vocab->merges[slot];
        if (merge->left == left && merge->right == right) return merge;
        if (merge->left < 0) return NULL;
    }
}

/* ---- Opening ---- */

static bool is_power_of_two(uint32_t value)
{
    return value != 0 && (value & (value - 1)) == 0;
}

size_t vocab_block_size(const struct vocab_header *header)
{
    return sizeof *header + header->tokens * sizeof(struct vocab_span) +
           header->merge_slots * sizeof(struct vocab_merge) +
           header->lookup_slots * sizeof(int32_t) + (size_t)header->text_bytes +
           header->rules_bytes;
}

void vocab_place(struct vocab *vocab)
{
    const struct vocab_header *header = vocab->header;
    vocab->spans = (const struct vocab_span *)(header + 1);
    vocab->merges = (const struct vocab_merge *)(vocab->spans + header->tokens);
    vocab->lookup = (const int32_t *)(vocab->merges + header->merge_slots);
    vocab->text = (const char *)(vocab->lookup + header->lookup_slots);
    vocab->rules = vocab->text + header->text_bytes;
}

static bool check_header(const struct vocab_header *header, size_t size)
{
    return memcmp(header->magic, VOCAB_MAGIC, sizeof header->magic) == 0 && header->tokens > 0 &&
           header->tokens <= VOCAB_MAX_TOKENS && header->text_bytes <= VOCAB_MAX_TEXT &&
           header->rules_bytes <= VOCAB_MAX_TEXT && is_power_of_two(header->merge_slots) &&
           is_power_of_two(header->lookup_slots) && header->merge_slots <= VOCAB_MAX_SLOTS &&
           header->lookup_slots <= VOCAB_MAX_SLOTS && vocab_block_size(header) == size;
}

static bool is_id(const struct vocab *vocab, int32_t id)
{
    return id >= 0 && (uint32_t)id < vocab->header->tokens;
}

static bool check_tables(const struct vocab *vocab)
{
    const struct vocab_header *header = vocab->header;
    uint32_t used = 0;
    for (uint32_t i = 0; i < header->tokens; i++) {
        struct vocab_span span = vocab->spans[i];
        if (span.start == UINT32_MAX) continue;
        if (span.start > header->text_bytes || span.size > header->text_bytes - span.start)
            return false;
    }
    for (uint32_t i = 0; i < header->merge_slots; i++) {
        const struct vocab_merge *merge = &vocab->merges[i];
        if (merge->left < 0) continue;
        used++;
        if (!is_id(vocab, merge->left) || !is_id(vocab, merge->right) || !is_id(vocab, merge->id))
            return false;
    }
    if (used == header->merge_slots || used != header->merge_count) return false;
    used = 0;
    for (uint32_t i = 0; i < header->lookup_slots; i++) {
        int32_t id = vocab->lookup[i];
        if (id < 0) continue;
        used++;
        if (!is_id(vocab, id) || vocab->spans[id].start == UINT32_MAX) return false;
    }
    if (used == header->lookup_slots) return false;
    for (int byte = 0; byte < 256; byte++)
        if (header->byte_id[byte] >= 0 && !is_id(vocab, header->byte_id[byte])) return false;
    return true;
}

bool vocab_open(void *block, size_t size, bool mapped, struct vocab *vocab)
{
    *vocab = (struct vocab){.header = block, .block_size = size, .mapped = mapped};
    if (size < sizeof *vocab->header || !check_header(vocab->header, size)) return false;
    vocab_place(vocab);
    return vocab_block_hash(vocab->header, size) == vocab->header->block_hash &&
           check_tables(vocab);
}

void vocab_close(struct vocab *vocab)
{
    if (vocab->mapped)
        munmap(vocab->header, vocab->block_size);
    else
        free(vocab->header);
    *vocab = (struct vocab){0};
}
