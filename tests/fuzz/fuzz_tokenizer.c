/* fuzz_tokenizer.c: any bytes as tokenizer.json. What is accepted must encode a text to ids within
 * the vocabulary whose texts, where nothing normalises, removes or adds, are that text again, and
 * must read the same from its compiled form. */
#include "tokenizer/parts.h"

#include "fuzz.h"

/* Whether the rules leave every byte of a text where it is. */
static bool is_lossless(const struct rules *rules)
{
    bool lossless = !rules->nfc;
    for (int i = 0; i < rules->step_count; i++)
        lossless =
            lossless && !rules->steps[i].prefix_space && rules->steps[i].behaviour != SPLIT_REMOVED;
    return lossless;
}

static void check_encoding(const struct tokenizer *tokenizer)
{
    static const char text[] = "I'm  caf\xc3\xa9, \xe4\xb8\x80\xe4\xba\x8c 123!\r\n\n <a> ab abc "
                               "<|endoftext|> the the\t";
    enum { SIZE = sizeof text - 1, ROOM = 8 * SIZE };
    int32_t ids[ROOM];
    int64_t count;
    struct error err = {0};
    /* An expression may be too hard to match; then there is a sentence. */
    plx_status status = tokenizer_encode(tokenizer, text, SIZE, ids, ROOM, &count, &err);
    check((status == PLX_OK) == (err.text[0] == '\0'));
    if (status != PLX_OK) return;
    char back[SIZE + 1];
    size_t used = 0, bytes;
    for (int64_t i = 0; i < count; i++) {
        check(ids[i] >= 0 && ids[i] < tokenizer_vocab_size(tokenizer));
        const char *token = vocab_text(&tokenizer->vocab, ids[i], &bytes);
        if (used + bytes <= SIZE) memcpy(back + used, token, bytes);
        used += bytes;
    }
    if (is_lossless(&tokenizer->rules)) check(used == SIZE && memcmp(back, text, SIZE) == 0);
    tokenizer_encode_as(tokenizer, text, SIZE, TOKENIZER_ADDED | TOKENIZER_FRAME, ids, ROOM, &count,
                        NULL);
}

static void check_compiled(const struct tokenizer *tokenizer)
{
    const struct vocab *vocab = &tokenizer->vocab;
    void *block = malloc(vocab->block_size);
    struct vocab again;
    check(block != NULL);
    memcpy(block, vocab->header, vocab->block_size);
    check(vocab_open(block, vocab->block_size, false, &again));
    vocab_close(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct error err = {0};
    struct tokenizer *tokenizer;
    plx_status status = tokenizer_parse((const char *)data, size, "fuzz", &tokenizer, &err);
    check_outcome(status, &err);
    check((status == PLX_OK) == (tokenizer != NULL));
    if (status != PLX_OK) return 0;
    check_encoding(tokenizer);
    check_compiled(tokenizer);
    check(tokenizer_end_of_text(tokenizer) < tokenizer_vocab_size(tokenizer));
    tokenizer_destroy(tokenizer);
    return 0;
}
