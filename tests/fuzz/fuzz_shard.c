/* fuzz_shard.c: any bytes as a token shard, as they are and once more with the hash of our own
 * format made right, because no fuzzer finds a hash and everything behind it would stay untested.
 * What is accepted must consist of documents within the memory, with ids of the vocabulary. */
#include "data/corpus_parts.h"

#include <xxhash.h>

#include "fuzz.h"

enum { VOCAB = 50304 };

static void check_corpus(const struct corpus *corpus)
{
    int64_t tokens = 0;
    for (int64_t d = 0; d < corpus_documents(corpus); d++) {
        int64_t count = corpus_document_tokens(corpus, d);
        check(count >= 1);
        for (int64_t i = 0; i < count; i++) {
            int32_t id;
            corpus_read(corpus, d, i, 1, &id);
            check(id >= 0 && id < VOCAB);
        }
        tokens += count;
    }
    check(tokens == corpus_tokens(corpus) && corpus_bytes(corpus) >= 0);
}

static void read_shard(const unsigned char *data, size_t size)
{
    struct error err = {0};
    struct corpus_options options = {.vocab_size = VOCAB, .separator = 256};
    struct corpus_reader reader = {.options = &options, .bytes_left = INT64_MAX};
    check(corpus_create(&reader.corpus, &err) == PLX_OK);
    plx_status status = corpus_add_shard(&reader, data, size, "fuzz", &err);
    check_outcome(status, &err);
    if (status == PLX_OK) check_corpus(reader.corpus);
    corpus_destroy(reader.corpus);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    /* A copy of exactly this size, so that reading past the end is seen, and aligned as a map is.
     */
    unsigned char *copy = malloc(size > 0 ? size : 1);
    check(copy != NULL);
    if (size > 0) memcpy(copy, data, size);
    read_shard(copy, size);
    if (size >= 16) {
        uint64_t hash = XXH64(copy, size - sizeof hash, 0);
        memcpy(copy + size - sizeof hash, &hash, sizeof hash);
        read_shard(copy, size);
    }
    free(copy);
    return 0;
}
