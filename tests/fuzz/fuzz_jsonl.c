/* fuzz_jsonl.c: any bytes as a JSONL file, with the limit of text taken from the first of them, and
 * by the last of them with or without a chat template. What is accepted must give the same
 * documents again, within the limit. */
#include "chat/chat.h"
#include "data/corpus_parts.h"

#include "fuzz.h"

static struct corpus *read_lines(const struct corpus_options *options, const uint8_t *data,
                                 size_t size, int64_t limit)
{
    struct error err = {0};
    struct corpus_reader reader = {.options = options, .bytes_left = limit};
    check(corpus_create(&reader.corpus, &err) == PLX_OK);
    plx_status status = corpus_add_jsonl(&reader, (const char *)data, size, "fuzz", &err);
    corpus_reader_clear(&reader);
    check_outcome(status, &err);
    if (status == PLX_OK) return reader.corpus;
    corpus_destroy(reader.corpus);
    return NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0) return 0;
    struct tokenizer *tokenizer;
    check(tokenizer_create_bytes(&tokenizer, NULL) == PLX_OK);
    struct corpus_options options = {.vocab_size = 257, .separator = 256, .tokenizer = tokenizer};
    if (data[size - 1] == '\n')
        check(chat_template_by_name("qwen3", &options.chat, NULL) == PLX_OK);
    /* From '{', the usual first byte, on: no limit. */
    int64_t limit = data[0] < '{' ? 1 + data[0] % 16 : INT64_MAX;
    struct corpus *corpus = read_lines(&options, data, size, limit);
    if (corpus != NULL) {
        check(corpus_bytes(corpus) <= limit);
        /* The bytes of chats are unknown, and then those of the whole. */
        check(corpus_bytes(corpus) == 0 ||
              corpus_tokens(corpus) <= corpus_bytes(corpus) + corpus_documents(corpus));
        struct corpus *again = read_lines(&options, data, size, limit);
        check(again != NULL && corpus_fingerprint(again) == corpus_fingerprint(corpus));
        corpus_destroy(again);
    }
    corpus_destroy(corpus);
    tokenizer_destroy(tokenizer);
    return 0;
}
