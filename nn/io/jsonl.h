/* jsonl.h: the lines of a JSONL file, one object each, whoever wrote them.
 *
 *     struct jsonl lines = {.data = text, .size = size, .name = "cases.jsonl"};
 *     json_t *object;
 *     for (;;) {
 *         TRY(jsonl_next(&lines, &object, err));
 *         if (object == NULL) break;
 *         ... lines.line is its number ...
 *         json_decref(object);
 *     }
 */
#ifndef NN_JSONL_H
#define NN_JSONL_H

#include <jansson.h>

#include "core/error.h"

struct jsonl {
    const char *data;
    size_t size;
    const char *name;  /* of the file, for messages */
    bool may_hold_nul; /* texts with U+0000 are read; otherwise they are refused */
    size_t at;         /* where the next line begins */
    long long line;    /* number of the line that was read last, from 1 */
};

/* The object of the next line that is not blank, which the caller json_decrefs; NULL at the end.
 * What is no object, repeats a key or is not UTF-8 is refused with file and line. */
plx_status jsonl_next(struct jsonl *lines, json_t **object, struct error *err);

#endif
