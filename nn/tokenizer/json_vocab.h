/* json_vocab.h: the vocabulary of a tokenizer.json, read from its text. */
#ifndef NN_TOKENIZER_JSON_VOCAB_H
#define NN_TOKENIZER_JSON_VOCAB_H

#include "tokenizer/json_text.h"

/* A token as it is written in the file, and its id, which may be any number. */
struct vocab_row {
    const char *key; /* terminated; no NUL inside */
    size_t size;
    int64_t id;
};

struct vocab_rows {
    struct vocab_row *rows; /* in the order of the file; NULL: the text is not so plain */
    int64_t count;
    char *text; /* of the keys */
    int32_t *lookup;
    uint32_t slots; /* a power of two */
};

/* Reads an object of integers. Whatever else there is in it, a key twice or too long, or a
 * vocabulary that is absent, leaves rows NULL: then the tree of the file has to say what is wrong
 * with it. Fails only when out of memory. */
plx_status vocab_rows_read(struct json_text text, struct vocab_rows *rows, struct error *err);
void vocab_rows_clear(struct vocab_rows *rows);
/* NULL where absent. */
const struct vocab_row *vocab_rows_find(const struct vocab_rows *rows, const char *key,
                                        size_t size);

#endif
