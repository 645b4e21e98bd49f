/* vocab_block.h: how the block of a vocabulary is laid out, for the two files that make and check
 * it. */
#ifndef NN_TOKENIZER_VOCAB_BLOCK_H
#define NN_TOKENIZER_VOCAB_BLOCK_H

#include "tokenizer/vocab.h"

/* The last character is the version of the layout and of what the rules may say. */
#define VOCAB_MAGIC "PLXVOC1"
enum { VOCAB_MAX_SLOTS = 1 << 25 };

size_t vocab_block_size(const struct vocab_header *header);
/* Sets the pointers behind the header. */
void vocab_place(struct vocab *vocab);
uint64_t vocab_block_hash(const struct vocab_header *header, size_t block_size);

/* Slots of a table of so many entries: a power of two, at least half of them empty. */
uint32_t vocab_slots(int64_t count);
/* Where the search for a text or for two neighbours begins. */
uint32_t vocab_text_slot(const char *bytes, size_t size, uint32_t slots);
static inline uint32_t vocab_merge_slot(int32_t left, int32_t right, uint32_t slots)
{
    uint64_t key = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    key *= UINT64_C(0x9e3779b97f4a7c15);
    return (uint32_t)(key >> 32) & (slots - 1);
}

#endif
