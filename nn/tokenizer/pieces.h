/* pieces.h: what SentencePiece does to text: spaces, characters to pieces, the likeliest division.
 */
#ifndef NN_TOKENIZER_PIECES_H
#define NN_TOKENIZER_PIECES_H

#include "tokenizer/bpe.h"
#include "tokenizer/normalize.h"
#include "tokenizer/parts.h"

/* The text with its spaces as the rules ask, U+2581 being one too; in buffer. */
plx_status pieces_normalize(const struct rules *rules, const char *text, size_t size,
                            struct text_buffer *buffer, const char **result, size_t *result_size,
                            struct error *err);
/* One id a character, or its bytes where it is no piece; returns their number. ids has room for
 * size. */
int64_t pieces_of_characters(const struct tokenizer *tokenizer, const char *text, size_t size,
                             int32_t *ids);
/* The division of highest total score; -1 when out of memory. ids has room for size. */
int64_t pieces_likeliest(const struct tokenizer *tokenizer, struct bpe_scratch *scratch,
                         const char *text, size_t size, int32_t *ids);

#endif
