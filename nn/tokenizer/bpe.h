/* bpe.h: merging the tokens of one word, lowest rank first, of equal ranks the leftmost. */
#ifndef NN_TOKENIZER_BPE_H
#define NN_TOKENIZER_BPE_H

#include "tokenizer/vocab.h"

/* Memory for long words, kept between calls; all zero at first. */
struct bpe_scratch {
    void *memory;
    size_t bytes;
};
void bpe_scratch_clear(struct bpe_scratch *scratch);
/* At least so many bytes, NULL when out of memory. What was there before is lost. */
void *bpe_scratch_reserve(struct bpe_scratch *scratch, size_t bytes);

/* Merges ids[0, count) in place and returns how many are left, -1 when out of memory. */
int64_t bpe_merge(const struct vocab *vocab, struct bpe_scratch *scratch, int32_t *ids,
                  int64_t count);

#endif
