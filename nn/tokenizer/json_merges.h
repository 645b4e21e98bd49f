/* json_merges.h: the merges of a tokenizer.json, read from its text.
 *
 * They make up two thirds of the file, and as a tree of JSON values most of the time that reading
 * it takes. So they are cut out of the text before the rest becomes a tree, and read row by row. */
#ifndef NN_TOKENIZER_JSON_MERGES_H
#define NN_TOKENIZER_JSON_MERGES_H

#include <stdbool.h>

#include "core/error.h"

/* Most bytes of a token as it is written in the file. */
enum { JSON_MAX_KEY = 4096 };

/* What is left of the rows. */
struct merges_text {
    const char *at, *end; /* at NULL: the file has no array model.merges */
};

/* Finds the array, and makes *rest (malloc'd, with a NUL behind it), the text with an empty one in
 * its place and every line where it was. What is no JSON may stay whole: the rest is parsed anyway.
 */
plx_status merges_cut(const char *json, size_t size, struct merges_text *merges, char **rest,
                      size_t *rest_size, struct error *err);

/* The two halves of a row, as they are in the file: "left right", or ["left", "right"]. */
struct merge_halves {
    const char *left, *right;
    size_t left_size, right_size;
    char text[2 * JSON_MAX_KEY + 2];
};
enum merges_state { MERGES_ROW, MERGES_END, MERGES_WRONG };
/* MERGES_WRONG: what stands there is no such row, or no JSON. */
enum merges_state merges_next(struct merges_text *merges, struct merge_halves *halves);

#endif
