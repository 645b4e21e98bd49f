/* fuzz_pieces.c: any bytes as a SentencePiece model. What is accepted must encode a text to ids
 * within the vocabulary, to the same ones twice, and decode them. */
#include "tokenizer/parts.h"
#include "fuzz.h"

/* Depends on every byte that the ids decode to. */
static uint64_t decoded_sum(const struct tokenizer *tokenizer, const int32_t *ids, int64_t count)
{
    struct token_decoder decoder = {tokenizer, true, false};
    uint64_t sum = 0;
    for (int64_t i = 0; i < count; i++) {
        size_t length;
        check(ids[i] >= 0 && ids[i] < tokenizer_vocab_size(tokenizer));
        const char *token = token_decoder_next(&decoder, ids[i], &length);
        for (size_t at = 0; at < length; at++) sum = 31 * sum + (unsigned char)token[at];
    }
    return sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char text[] = " the  cat ab\xc3\xa9 \xe2\x96\x81<s>\xe4\xb8\x80\n</s>aaa ";
    enum { SIZE = sizeof text - 1, ROOM = 2 * SIZE };
    struct error err = {0};
    struct tokenizer *tokenizer;
    plx_status status = tokenizer_parse_pieces((const char *)data, size, "fuzz", &tokenizer, &err);
    check_outcome(status, &err);
    check((status == PLX_OK) == (tokenizer != NULL));
    if (status != PLX_OK) return 0;
    int32_t ids[2][ROOM];
    int64_t count[2];
    uint64_t sums[2] = {0, 0};
    for (int i = 0; i < 2; i++) {
        check(tokenizer_encode_as(tokenizer, text, SIZE, TOKENIZER_ADDED | TOKENIZER_FRAME, ids[i],
                                  ROOM, &count[i], &err) == PLX_OK);
        sums[i] = decoded_sum(tokenizer, ids[i], count[i]);
    }
    check(count[0] == count[1] && memcmp(ids[0], ids[1], (size_t)count[0] * sizeof **ids) == 0);
    check(sums[0] == sums[1]);
    tokenizer_destroy(tokenizer);
    return 0;
}
