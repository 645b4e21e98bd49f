/* json_merges.h: the merges of a tokenizer.json, read from its text row by row. */
#ifndef NN_TOKENIZER_JSON_MERGES_H
#define NN_TOKENIZER_JSON_MERGES_H

#include "tokenizer/json_text.h"

/* The two halves of a row, as they are in the file: "left right", or ["left", "right"]. */
struct merge_halves {
    const char *left, *right;
    size_t left_size, right_size;
    char text[2 * JSON_MAX_KEY + 2];
};
enum merges_state { MERGES_ROW, MERGES_END, MERGES_WRONG };
/* MERGES_WRONG: what stands there is no such row, or no JSON. */
enum merges_state merges_next(struct json_text *merges, struct merge_halves *halves);

#endif
