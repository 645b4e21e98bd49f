/* normalize.h: Unicode's normalisation form C, by utf8proc where the text needs work at all. */
#ifndef NN_TOKENIZER_NORMALIZE_H
#define NN_TOKENIZER_NORMALIZE_H

#include "core/error.h"

/* Text that grows; data has capacity bytes. */
struct text_buffer {
    char *data;
    size_t size, capacity;
};
plx_status text_append(struct text_buffer *buffer, const char *text, size_t size,
                       struct error *err);
void text_clear(struct text_buffer *buffer);

/* NFC of text, which is UTF-8. Where that is the text itself, *result is text and buffer is left
 * alone; otherwise it lies in buffer, whose content is replaced. */
plx_status normalize_nfc(const char *text, size_t size, struct text_buffer *buffer,
                         const char **result, size_t *result_size, struct error *err);

#endif
