/* json_merges.c: see json_merges.h. */
#include "tokenizer/json_merges.h"

#include <string.h>

static bool read_pair(struct json_text *merges, struct merge_halves *halves)
{
    char *right = halves->text + JSON_MAX_KEY + 1;
    halves->left = halves->text;
    halves->right = right;
    return json_text_mark(merges, '[') &&
           json_text_string(merges, halves->text, JSON_MAX_KEY, &halves->left_size) &&
           json_text_mark(merges, ',') &&
           json_text_string(merges, right, JSON_MAX_KEY, &halves->right_size) &&
           json_text_mark(merges, ']');
}

static bool read_line(struct json_text *merges, struct merge_halves *halves)
{
    size_t size;
    if (!json_text_string(merges, halves->text, sizeof halves->text, &size)) return false;
    const char *space = memchr(halves->text, ' ', size);
    if (space == NULL) return false;
    halves->left = halves->text;
    halves->left_size = (size_t)(space - halves->text);
    halves->right = space + 1;
    halves->right_size = size - halves->left_size - 1;
    return memchr(halves->right, ' ', halves->right_size) == NULL;
}

enum merges_state merges_next(struct json_text *merges, struct merge_halves *halves)
{
    json_text_space(merges);
    if (merges->at == merges->end) return MERGES_END;
    const bool sound = *merges->at == '[' ? read_pair(merges, halves) : read_line(merges, halves);
    if (!sound) return MERGES_WRONG;
    if (merges->at == merges->end) return MERGES_ROW;
    /* A comma must have a row behind it. */
    return json_text_mark(merges, ',') && merges->at < merges->end ? MERGES_ROW : MERGES_WRONG;
}
