/* vocab_build.c: collects tokens and merges and lays them out as one block; see vocab.h. */
#include "tokenizer/vocab_block.h"

#include <stdlib.h>
#include <string.h>

static plx_status out_of_memory(struct error *err)
{
    return error_set(err, PLX_OUT_OF_MEMORY, "cannot allocate a vocabulary");
}

uint32_t vocab_slots(int64_t count)
{
    uint32_t slots = 4;
    while (slots < 2 * count) slots *= 2;
    return slots;
}

void vocab_builder_clear(struct vocab_builder *builder)
{
    free(builder->spans);
    free(builder->found);
    free(builder->text);
    free(builder->lookup);
    free(builder->merges);
    *builder = (struct vocab_builder){0};
}

static plx_status grow_tokens(struct vocab_builder *builder, int64_t needed, struct error *err)
{
    int64_t capacity = builder->capacity > 0 ? builder->capacity : 1024;
    while (capacity < needed) capacity *= 2;
    if (capacity == builder->capacity) return PLX_OK;
    struct vocab_span *spans = realloc(builder->spans, (size_t)capacity * sizeof *spans);
    if (spans != NULL) builder->spans = spans;
    bool *found = realloc(builder->found, (size_t)capacity * sizeof *found);
    if (found != NULL) builder->found = found;
    if (spans == NULL || found == NULL) return out_of_memory(err);
    for (int64_t i = builder->capacity; i < capacity; i++) {
        spans[i] = (struct vocab_span){UINT32_MAX, 0};
        found[i] = false;
    }
    builder->capacity = capacity;
    return PLX_OK;
}

static plx_status grow_text(struct vocab_builder *builder, size_t size, struct error *err)
{
    REQUIRE(err, size <= VOCAB_MAX_TEXT - builder->text_bytes, PLX_BAD_DATA,
            "the tokens have more than %d bytes", VOCAB_MAX_TEXT);
    bool fits = builder->text_bytes + size <= builder->text_capacity;
    if (builder->text != NULL && fits) return PLX_OK;
    size_t capacity = 2 * (builder->text_bytes + size) + 4096;
    char *text = realloc(builder->text, capacity);
    if (text == NULL) return out_of_memory(err);
    builder->text = text;
    builder->text_capacity = capacity;
    return PLX_OK;
}

plx_status vocab_add(struct vocab_builder *builder, int32_t id, const char *bytes, size_t size,
                     bool findable, bool *fresh, struct error *err)
{
    TRY(grow_tokens(builder, (int64_t)id + 1, err));
    *fresh = builder->spans[id].start == UINT32_MAX;
    if (!*fresh) return PLX_OK;
    TRY(grow_text(builder, size, err));
    memcpy(builder->text + builder->text_bytes, bytes, size);
    builder->spans[id] = (struct vocab_span){(uint32_t)builder->text_bytes, (uint32_t)size};
    builder->found[id] = findable;
    builder->text_bytes += size;
    if (id >= builder->tokens) builder->tokens = (int64_t)id + 1;
    return PLX_OK;
}

/* ---- Looking up while building ---- */

static bool has_text(const struct vocab_builder *builder, int32_t id, const char *bytes,
                     size_t size)
{
    struct vocab_span span = builder->spans[id];
    return span.size == size && memcmp(builder->text + span.start, bytes, size) == 0;
}

/* The slot that holds the text, or the empty one where it belongs. */
static uint32_t find_slot(const struct vocab_builder *builder, const char *bytes, size_t size)
{
    uint32_t slots = builder->lookup_slots, slot = vocab_text_slot(bytes, size, slots);
    while (builder->lookup[slot] >= 0 && !has_text(builder, builder->lookup[slot], bytes, size))
        slot = (slot + 1) & (slots - 1);
    return slot;
}

plx_status vocab_index(struct vocab_builder *builder, struct error *err)
{
    builder->lookup_slots = vocab_slots(builder->tokens);
    builder->lookup = malloc(builder->lookup_slots * sizeof *builder->lookup);
    if (builder->lookup == NULL) return out_of_memory(err);
    memset(builder->lookup, -1, builder->lookup_slots * sizeof *builder->lookup);
    for (int32_t id = 0; id < builder->tokens; id++) {
        struct vocab_span span = builder->spans[id];
        if (!builder->found[id]) continue;
        uint32_t slot = find_slot(builder, builder->text + span.start, span.size);
        if (builder->lookup[slot] < 0) builder->lookup[slot] = id;
    }
    return PLX_OK;
}

int32_t vocab_builder_find(const struct vocab_builder *builder, const char *bytes, size_t size)
{
    return builder->lookup[find_slot(builder, bytes, size)];
}

plx_status vocab_add_merge(struct vocab_builder *builder, int32_t left, int32_t right, int32_t rank,
                           int32_t id, struct error *err)
{
    if (builder->merge_count == builder->merge_capacity) {
        int64_t capacity = 2 * builder->merge_capacity + 1024;
        struct vocab_merge *merges = realloc(builder->merges, (size_t)capacity * sizeof *merges);
        if (merges == NULL) return out_of_memory(err);
        builder->merges = merges;
        builder->merge_capacity = capacity;
    }
    builder->merges[builder->merge_count++] = (struct vocab_merge){left, right, rank, id};
    return PLX_OK;
}

/* ---- The block ---- */

static uint32_t fill_merges(const struct vocab_builder *builder, struct vocab_merge *table,
                            uint32_t slots)
{
    uint32_t used = 0;
    memset(table, -1, slots * sizeof *table);
    for (int64_t i = 0; i < builder->merge_count; i++) {
        const struct vocab_merge *merge = &builder->merges[i];
        uint32_t slot = vocab_merge_slot(merge->left, merge->right, slots);
        while (table[slot].left >= 0 &&
               (table[slot].left != merge->left || table[slot].right != merge->right))
            slot = (slot + 1) & (slots - 1);
        used += table[slot].left < 0;
        table[slot] = *merge;
    }
    return used;
}

static void fill_block(const struct vocab_builder *builder, const char *rules, struct vocab *vocab)
{
    struct vocab_header *header = vocab->header;
    vocab_place(vocab);
    memcpy((void *)vocab->spans, builder->spans, header->tokens * sizeof *vocab->spans);
    header->merge_count =
        fill_merges(builder, (struct vocab_merge *)vocab->merges, header->merge_slots);
    memcpy((void *)vocab->lookup, builder->lookup, header->lookup_slots * sizeof *vocab->lookup);
    if (header->text_bytes > 0) memcpy((char *)vocab->text, builder->text, header->text_bytes);
    memcpy((char *)vocab->rules, rules, header->rules_bytes);
    for (int byte = 0; byte < 256; byte++) {
        char single = (char)byte;
        header->byte_id[byte] =
            builder->bytes_given ? builder->byte_id[byte] : vocab_builder_find(builder, &single, 1);
    }
    header->block_hash = vocab_block_hash(header, vocab->block_size);
}

plx_status vocab_build(struct vocab_builder *builder, const char *rules, const char *source,
                       size_t source_size, struct vocab *vocab, struct error *err)
{
    struct vocab_header header = {.magic = VOCAB_MAGIC,
                                  .source_hash = vocab_source_hash(source, source_size),
                                  .source_size = source_size,
                                  .tokens = (uint32_t)builder->tokens,
                                  .merge_slots = vocab_slots(builder->merge_count),
                                  .lookup_slots = builder->lookup_slots,
                                  .text_bytes = (uint32_t)builder->text_bytes,
                                  .rules_bytes = (uint32_t)strlen(rules)};
    *vocab = (struct vocab){.block_size = vocab_block_size(&header)};
    vocab->header = malloc(vocab->block_size);
    if (vocab->header == NULL) return out_of_memory(err);
    *vocab->header = header;
    fill_block(builder, rules, vocab);
    return PLX_OK;
}
