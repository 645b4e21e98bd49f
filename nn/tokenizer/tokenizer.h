/* tokenizer.h: text <-> token ids.
 *
 * A tokenizer comes from Hugging Face's tokenizer.json (byte-level BPE: GPT-2, Qwen, Llama-3 and
 * their like) or from SentencePiece's tokenizer.model (BPE and unigram: Llama-2 and its like). It
 * is never changed once made, so threads share it; each encodes through an encoder of its own. */
#ifndef NN_TOKENIZER_H
#define NN_TOKENIZER_H

#include "core/error.h"

struct tokenizer;

/* Bytes 0..255 are ids 0..255, <|endoftext|> is 256; vocabulary size 257. */
plx_status tokenizer_create_bytes(struct tokenizer **tokenizer, struct error *err);
/* tokenizer.json or tokenizer.model, told apart by content. What this version cannot follow exactly
 * is refused by name. A large one is compiled into the cache folder once, so that the next load
 * takes milliseconds. */
plx_status tokenizer_load(const char *path, struct tokenizer **tokenizer, struct error *err);
/* tokenizer.json of a folder, or tokenizer.model where that is absent or (as in Llama-2's folders)
 * follows rules of SentencePiece; *tokenizer is NULL where it holds neither. */
plx_status tokenizer_load_folder(const char *folder, struct tokenizer **tokenizer,
                                 struct error *err);
/* tokenizer.json from memory (size bytes, need not end in NUL), never cached; name is for messages.
 */
plx_status tokenizer_parse(const char *json, size_t size, const char *name,
                           struct tokenizer **tokenizer, struct error *err);
/* What its file is called in a model folder: tokenizer.json or tokenizer.model. */
const char *tokenizer_file_name(const struct tokenizer *tokenizer);
/* Writes the very file that the tokenizer came from. */
plx_status tokenizer_save(const struct tokenizer *tokenizer, const char *path, struct error *err);
void tokenizer_destroy(struct tokenizer *tokenizer);

int64_t tokenizer_vocab_size(const struct tokenizer *tokenizer);  /* largest id + 1 */
int32_t tokenizer_end_of_text(const struct tokenizer *tokenizer); /* -1: none */
/* Id of an added token such as <|im_end|>; -1 where there is none of that name. */
int32_t tokenizer_added_id(const struct tokenizer *tokenizer, const char *content);
/* Bytes of one id, not terminated; 0 bytes for ids without text (specials, out of range). */
const char *tokenizer_token(const struct tokenizer *tokenizer, int32_t id, size_t *size);
/* From the ids of a whole text to that text: as tokenizer_token, but for the space that encoding
 * put before it. */
struct token_decoder {
    const struct tokenizer *tokenizer;
    bool specials; /* with the names of special tokens */
    bool inside;   /* false at first: no text has come yet */
};
const char *token_decoder_next(struct token_decoder *decoder, int32_t id, size_t *size);

/* How text becomes ids; flags. */
enum {
    TOKENIZER_PLAIN = 0, /* text stays text: "<|endoftext|>" in it is thirteen characters */
    TOKENIZER_ADDED = 1, /* names of added tokens in the text become their ids */
    TOKENIZER_FRAME = 2  /* the post-processor's tokens stand around it (Llama's begin of text) */
};

/* What one thread encodes with: scratch memory, and a memory of the words it met. */
struct encoder;
plx_status encoder_create(const struct tokenizer *tokenizer, struct encoder **encoder,
                          struct error *err);
void encoder_destroy(struct encoder *encoder);
/* Hands all ids of a text to sink, a few thousand at a time; sink's failure ends the call. Text
 * that is not UTF-8 is refused, with the offset, unless the vocabulary takes any bytes. */
typedef plx_status (*encoder_sink)(void *user, const int32_t *ids, int64_t count,
                                   struct error *err);
plx_status encoder_encode(struct encoder *encoder, const char *text, size_t size, unsigned how,
                          encoder_sink sink, void *user, struct error *err);

/* Ids of size bytes of text; ids has room for capacity. *count is how many there are, even where
 * capacity is less (then PLX_WORKSPACE_TOO_SMALL, and nothing is to be read from ids). */
plx_status tokenizer_encode_as(const struct tokenizer *tokenizer, const char *text, size_t size,
                               unsigned how, int32_t *ids, int64_t capacity, int64_t *count,
                               struct error *err);
/* TOKENIZER_PLAIN. */
plx_status tokenizer_encode(const struct tokenizer *tokenizer, const char *text, size_t size,
                            int32_t *ids, int64_t capacity, int64_t *count, struct error *err);

#endif
