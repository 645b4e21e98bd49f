/* added.h: finding the names of added tokens in text. */
#ifndef NN_TOKENIZER_ADDED_H
#define NN_TOKENIZER_ADDED_H

#include "core/error.h"

struct rules;

/* The names that are looked for at the same stage, by first byte and falling length. */
struct added_finder {
    struct added_name {
        char *text;
        size_t size;
        int token; /* index into rules->added */
    } * names;
    int count;
    int first[257]; /* names of first byte b: [first[b], first[b + 1]) */
};

/* Those with, or those without, the flag normalized; nfc: normalise the names too. */
plx_status added_finder_make(struct added_finder *finder, const struct rules *rules,
                             bool normalized, struct error *err);
void added_finder_clear(struct added_finder *finder);

/* The first name at or behind from, by Hugging Face's rules: of names at one place the longest, one
 * that must stand alone passed over where it does not, white space taken along on sides that ask
 * for it, though never before from. Returns the token's index, -1 where there is none. */
int added_find(const struct added_finder *finder, const struct rules *rules, const char *text,
               size_t size, size_t from, size_t *start, size_t *end);

#endif
