/* fuzz_tokenizer.c: any bytes as tokenizer.json. What is accepted must encode every byte to an id
 * of its own, within the vocabulary, whose text is that byte again. */
#include "data/data.h"

#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct error err = {0};
    struct tokenizer *tokenizer;
    plx_status status = tokenizer_parse((const char *)data, size, "fuzz", &tokenizer, &err);
    check_outcome(status, &err);
    check((status == PLX_OK) == (tokenizer != NULL));
    if (status != PLX_OK) return 0;
    char text[256];
    int32_t ids[256];
    int64_t count;
    for (int i = 0; i < 256; i++) text[i] = (char)i;
    check(tokenizer_encode(tokenizer, text, 256, ids, 256, &count, &err) == PLX_OK && count == 256);
    for (int i = 0; i < 256; i++) {
        size_t bytes;
        check(ids[i] >= 0 && ids[i] < tokenizer_vocab_size(tokenizer));
        const char *token = tokenizer_token(tokenizer, ids[i], &bytes);
        check(bytes == 1 && token[0] == text[i]);
    }
    check(tokenizer_end_of_text(tokenizer) < tokenizer_vocab_size(tokenizer));
    tokenizer_destroy(tokenizer);
    return 0;
}
