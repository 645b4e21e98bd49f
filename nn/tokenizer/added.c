/* added.c: see added.h. */
#include "tokenizer/added.h"

#include <stdlib.h>
#include <string.h>

#include <utf8proc.h>

#include "data/utf8.h"
#include "tokenizer/normalize.h"
#include "tokenizer/parts.h"

/* ---- The names ---- */

static int compare_names(const void *left, const void *right)
{
    const struct added_name *a = left, *b = right;
    int first = (unsigned char)a->text[0] - (unsigned char)b->text[0];
    if (first != 0) return first;
    if (a->size != b->size) return a->size > b->size ? -1 : 1;
    return a->token - b->token;
}

static plx_status copy_name(const struct added_token *added, bool nfc, struct added_name *name,
                            struct error *err)
{
    struct text_buffer buffer = {0};
    const char *text = added->content;
    size_t size = added->size;
    if (nfc) TRY(normalize_nfc(text, size, &buffer, &text, &size, err));
    name->text = malloc(size);
    name->size = size;
    if (name->text != NULL) memcpy(name->text, text, size);
    text_clear(&buffer);
    REQUIRE(err, name->text != NULL, PLX_OUT_OF_MEMORY, "cannot allocate the added tokens");
    return PLX_OK;
}

plx_status added_finder_make(struct added_finder *finder, const struct rules *rules,
                             bool normalized, struct error *err)
{
    *finder = (struct added_finder){0};
    finder->names = calloc((size_t)rules->added_count + 1, sizeof *finder->names);
    REQUIRE(err, finder->names != NULL, PLX_OUT_OF_MEMORY, "cannot allocate the added tokens");
    for (int i = 0; i < rules->added_count; i++) {
        if (rules->added[i].normalized != normalized) continue;
        struct added_name *name = &finder->names[finder->count];
        TRY(copy_name(&rules->added[i], normalized && rules->nfc, name, err));
        name->token = i;
        finder->count++;
    }
    qsort(finder->names, (size_t)finder->count, sizeof *finder->names, compare_names);
    for (int i = 0; i < finder->count; i++)
        finder->first[(unsigned char)finder->names[i].text[0] + 1]++;
    for (int byte = 0; byte < 256; byte++) finder->first[byte + 1] += finder->first[byte];
    return PLX_OK;
}

void added_finder_clear(struct added_finder *finder)
{
    for (int i = 0; i < finder->count; i++) free(finder->names[i].text);
    free(finder->names);
    *finder = (struct added_finder){0};
}

/* ---- What stands beside a name ---- */

/* Where the character that ends at at begins. */
static size_t previous_start(const char *text, size_t at)
{
    do at--;
    while (at > 0 && ((unsigned char)text[at] & 0xc0) == 0x80);
    return at;
}

static bool is_space(uint32_t code)
{
    if (code < 0x80) return code == ' ' || (code >= '\t' && code <= '\r');
    utf8proc_category_t category = utf8proc_category((utf8proc_int32_t)code);
    return code == 0x85 || (category >= UTF8PROC_CATEGORY_ZS && category <= UTF8PROC_CATEGORY_ZP);
}

/* Unicode's word characters: alphabetic, marks, decimal digits, connectors, joiners. Alphabetic
 * symbols, which no category tells, are the circled and squared letters. */
static bool is_word(uint32_t code)
{
    utf8proc_category_t category = utf8proc_category((utf8proc_int32_t)code);
    bool symbol = (code >= 0x24b6 && code <= 0x24e9) || (code >= 0x1f130 && code <= 0x1f149) ||
                  (code >= 0x1f150 && code <= 0x1f169) || (code >= 0x1f170 && code <= 0x1f189);
    return (category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_NL) ||
           category == UTF8PROC_CATEGORY_PC || code == 0x200c || code == 0x200d || symbol;
}

static bool stands_alone(const char *text, size_t size, size_t start, size_t end)
{
    size_t length;
    return (start == 0 || !is_word(utf8_decode(text + previous_start(text, start), &length))) &&
           (end == size || !is_word(utf8_decode(text + end, &length)));
}

static size_t take_space_before(const char *text, size_t from, size_t start)
{
    size_t length;
    while (start > from) {
        size_t before = previous_start(text, start);
        if (!is_space(utf8_decode(text + before, &length))) break;
        start = before;
    }
    return start;
}

static size_t take_space_behind(const char *text, size_t size, size_t end)
{
    size_t length;
    while (end < size && is_space(utf8_decode(text + end, &length))) end += length;
    return end;
}

/* ---- Finding ---- */

static const struct added_name *name_at(const struct added_finder *finder, const char *text,
                                        size_t size, size_t at)
{
    int byte = (unsigned char)text[at];
    for (int i = finder->first[byte]; i < finder->first[byte + 1]; i++) {
        const struct added_name *name = &finder->names[i];
        if (name->size <= size - at && memcmp(text + at, name->text, name->size) == 0) return name;
    }
    return NULL;
}

int added_find(const struct added_finder *finder, const struct rules *rules, const char *text,
               size_t size, size_t from, size_t *start, size_t *end)
{
    for (size_t at = from; finder->count > 0 && at < size; at++) {
        const struct added_name *name = name_at(finder, text, size, at);
        if (name == NULL) continue;
        const struct added_token *added = &rules->added[name->token];
        *start = at;
        *end = at + name->size;
        if (added->single_word && !stands_alone(text, size, *start, *end)) {
            at = *end - 1;
            continue;
        }
        if (added->lstrip) *start = take_space_before(text, from, *start);
        if (added->rstrip) *end = take_space_behind(text, size, *end);
        return name->token;
    }
    return -1;
}
