/* tokenizer_parts.h: the inside of a tokenizer, shared by tokenizer.c and tokenizer_json.c only. */
#ifndef NN_TOKENIZER_PARTS_H
#define NN_TOKENIZER_PARTS_H

#include "data/data.h"

#define TOKENIZER_END_OF_TEXT "<|endoftext|>"

/* Larger ids are refused: the table below has a row for every id, and no real vocabulary comes
 * near. */
enum { TOKENIZER_MAX_VOCAB = 1 << 20 };

/* A row of "added_tokens". The flags other than special steer how other programs find the token in
 * text; they are kept so that saving gives back what was read. */
struct added_token {
    int32_t id;
    char *content; /* terminated; no NUL inside */
    size_t size;
    bool special, single_word, lstrip, rstrip, normalized;
};

struct token_text {
    const char *text;
    size_t size;
};

struct tokenizer {
    int32_t byte_id[256]; /* id of every byte */
    char bytes[256];      /* what the entries of bytes point to */
    int32_t end_of_text;
    int64_t vocab_size;         /* largest id + 1 */
    struct token_text *entries; /* [vocab_size]; size 0: no text */
    struct added_token *added;
    int64_t added_count;
};

/* No byte has an id yet. The steps are: create_empty, set byte_id and add, complete. */
plx_status tokenizer_create_empty(struct tokenizer **tokenizer, struct error *err);
/* Appends a copy of added. */
plx_status tokenizer_add(struct tokenizer *tokenizer, const struct added_token *added,
                         struct error *err);
/* Builds the table of texts once every id is known and checked. */
plx_status tokenizer_complete(struct tokenizer *tokenizer, struct error *err);

#endif
