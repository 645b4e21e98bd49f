/* train.h: learning the merges of a byte-level BPE vocabulary from text.
 *
 * Words are what a pattern matches; of all neighbours in them the most frequent pair becomes one
 * token, again and again. Of equally frequent pairs the one with the lower ids goes first, so the
 * same text gives the same vocabulary everywhere. */
#ifndef NN_TOKENIZER_TRAIN_H
#define NN_TOKENIZER_TRAIN_H

#include "core/error.h"

struct bpe_trainer;

/* expression: what splits the text; NULL splits nothing but at white space. */
plx_status bpe_trainer_create(const char *expression, struct bpe_trainer **trainer,
                              struct error *err);
void bpe_trainer_destroy(struct bpe_trainer *trainer);
/* Counts the words of a text, which is UTF-8. Words of more than 256 bytes are no words. */
plx_status bpe_trainer_add(struct bpe_trainer *trainer, const char *text, size_t size,
                           struct error *err);
int64_t bpe_trainer_words(const struct bpe_trainer *trainer); /* different ones */

struct bpe_training {
    int64_t merges;    /* at most */
    int64_t min_count; /* a pair that occurs less often is not merged */
    void (*progress)(void *user, int64_t done, int64_t total); /* may be NULL */
    void *user;
};
/* *made says how many merges were learnt; less than asked where no pair is left. */
plx_status bpe_trainer_run(struct bpe_trainer *trainer, const struct bpe_training *training,
                           int64_t *made, struct error *err);
/* tokenizer.json of what was learnt: 256 bytes, the merges, then the special tokens by name;
 * malloc'd. */
plx_status bpe_trainer_format(const struct bpe_trainer *trainer, const char *const *specials,
                              int special_count, char **json, size_t *size, struct error *err);

#endif
