/* corpus.c: a list of documents, each a run of tokens; see data.h.
 *
 * Tokens are kept in two bytes where every id fits and in four otherwise, and are widened when
 * read. The store that holds them is shared by the two corpora of a split. Filling a corpus is the
 * work of corpus_load.c. */
#include "data/corpus_parts.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
/* For the size of the hash state, so that hashing cannot fail. */
#define XXH_STATIC_LINKING_ONLY
#include <xxhash.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "shards are read in place");

/* Blocks of this size hold many small files; larger documents get a block of their own. */
enum { BLOCK_BYTES = 4 << 20, FINGERPRINT_TOKENS = 4096 };

/* The stream of rng_make that split draws from. Epochs of the loader use the small numbers. */
static const uint64_t SPLIT_STREAM = UINT64_C(0x73706c6974000000);

/* With fewer documents, moving whole ones would miss the fraction by too much. */
static const int64_t SPLIT_DOCUMENTS = 20;

/* ---- Lifetime and filling ---- */

static plx_status corpus_create_on(struct corpus_store *store, struct corpus **corpus,
                                   struct error *err)
{
    *corpus = calloc(1, sizeof **corpus);
    REQUIRE(err, *corpus != NULL, PLX_OUT_OF_MEMORY, "cannot allocate a corpus");
    (*corpus)->store = store;
    (*corpus)->bytes_known = true;
    store->references++;
    return PLX_OK;
}

plx_status corpus_create(struct corpus **corpus, struct error *err)
{
    *corpus = NULL;
    struct corpus_store *store = calloc(1, sizeof *store);
    REQUIRE(err, store != NULL, PLX_OUT_OF_MEMORY, "cannot allocate a corpus");
    plx_status status = corpus_create_on(store, corpus, err);
    if (status != PLX_OK) free(store);
    return status;
}

static void store_release(struct corpus_store *store)
{
    if (--store->references > 0) return;
    while (store->blocks != NULL) {
        struct corpus_block *next = store->blocks->next;
        free(store->blocks);
        store->blocks = next;
    }
    for (int i = 0; i < store->map_count; i++) file_unmap(&store->maps[i]);
    free(store->maps);
    free(store);
}

void corpus_destroy(struct corpus *corpus)
{
    if (corpus == NULL) return;
    store_release(corpus->store);
    free(corpus->documents);
    free(corpus);
}

plx_status corpus_add(struct corpus *corpus, const struct corpus_document *document,
                      struct error *err)
{
    if (corpus->count == corpus->capacity) {
        int64_t capacity = corpus->capacity > 0 ? 2 * corpus->capacity : 64;
        struct corpus_document *documents =
            realloc(corpus->documents, (size_t)capacity * sizeof *documents);
        REQUIRE(err, documents != NULL, PLX_OUT_OF_MEMORY, "cannot allocate %lld documents",
                (long long)capacity);
        corpus->documents = documents;
        corpus->capacity = capacity;
    }
    corpus->documents[corpus->count++] = *document;
    corpus->tokens += document->count;
    if (document->bytes >= 0)
        corpus->bytes += document->bytes;
    else
        corpus->bytes_known = false;
    return PLX_OK;
}

plx_status corpus_take(struct corpus *corpus, size_t bytes, void **memory, struct error *err)
{
    struct corpus_store *store = corpus->store;
    struct corpus_block *block = store->blocks;
    if (block == NULL || block->capacity - block->used < bytes) {
        size_t capacity = bytes > BLOCK_BYTES ? bytes : BLOCK_BYTES;
        block = capacity < SIZE_MAX / 2 ? malloc(sizeof *block + capacity) : NULL;
        REQUIRE(err, block != NULL, PLX_OUT_OF_MEMORY, "cannot allocate %zu bytes for tokens",
                capacity);
        block->next = store->blocks;
        block->capacity = capacity;
        block->used = 0;
        store->blocks = block;
    }
    *memory = block->data + block->used;
    return PLX_OK;
}

void corpus_keep(struct corpus *corpus, size_t bytes)
{
    struct corpus_block *block = corpus->store->blocks;
    /* Four-byte tokens must stay aligned behind an odd number of two-byte ones. */
    size_t rounded = (bytes + 3) / 4 * 4, room = block->capacity - block->used;
    block->used += rounded < room ? rounded : room;
}

plx_status corpus_own_map(struct corpus *corpus, const struct file_map *map, struct error *err)
{
    struct corpus_store *store = corpus->store;
    struct file_map *maps = realloc(store->maps, (size_t)(store->map_count + 1) * sizeof *maps);
    REQUIRE(err, maps != NULL, PLX_OUT_OF_MEMORY, "cannot allocate the list of shards");
    store->maps = maps;
    maps[store->map_count++] = *map;
    return PLX_OK;
}

/* ---- Reading ---- */

int64_t corpus_documents(const struct corpus *corpus)
{
    return corpus->count;
}

int64_t corpus_tokens(const struct corpus *corpus)
{
    return corpus->tokens;
}

int64_t corpus_bytes(const struct corpus *corpus)
{
    return corpus->bytes_known ? corpus->bytes : 0;
}

int64_t corpus_document_tokens(const struct corpus *corpus, int64_t document)
{
    return corpus->documents[document].count;
}

void corpus_read(const struct corpus *corpus, int64_t document, int64_t first, int64_t count,
                 int32_t *ids)
{
    const struct corpus_document *run = &corpus->documents[document];
    if (run->width == 2) {
        const uint16_t *tokens = (const uint16_t *)run->tokens + first;
        for (int64_t i = 0; i < count; i++) ids[i] = tokens[i];
    } else {
        /* Ids below 2^31, or their complements, were checked when the document was added. */
        memcpy(ids, (const int32_t *)run->tokens + first, (size_t)count * sizeof *ids);
    }
}

uint64_t corpus_fingerprint(const struct corpus *corpus)
{
    /* Ids are hashed in four bytes, so the same tokens give the same hash from text and from
     * shards; lengths are hashed too, so that moving a border between documents shows. */
    XXH64_state_t state;
    XXH64_reset(&state, 0);
    int32_t ids[FINGERPRINT_TOKENS];
    for (int64_t d = 0; d < corpus->count; d++) {
        int64_t count = corpus->documents[d].count;
        XXH64_update(&state, &count, sizeof count);
        for (int64_t first = 0; first < count; first += FINGERPRINT_TOKENS) {
            int64_t take = count - first < FINGERPRINT_TOKENS ? count - first : FINGERPRINT_TOKENS;
            corpus_read(corpus, d, first, take, ids);
            XXH64_update(&state, ids, (size_t)take * sizeof *ids);
        }
    }
    return XXH64_digest(&state);
}

/* ---- Splitting ---- */

/* Marks count of the documents, chosen by seed. */
static plx_status choose_documents(int64_t documents, int64_t count, uint64_t seed,
                                   unsigned char *chosen, struct error *err)
{
    int64_t *order = malloc((size_t)documents * sizeof *order);
    REQUIRE(err, order != NULL, PLX_OUT_OF_MEMORY, "cannot allocate the order of %lld documents",
            (long long)documents);
    struct rng rng = rng_make(seed, SPLIT_STREAM);
    for (int64_t i = 0; i < documents; i++) order[i] = i;
    for (int64_t i = 0; i < count; i++) {
        int64_t j = i + (int64_t)rng_below(&rng, (uint64_t)(documents - i)), swap = order[i];
        order[i] = order[j];
        order[j] = swap;
        chosen[order[i]] = 1;
    }
    free(order);
    return PLX_OK;
}

static plx_status split_documents(const struct corpus *corpus, double fraction, uint64_t seed,
                                  struct corpus *head, struct corpus *tail, struct error *err)
{
    int64_t count = (int64_t)floor(fraction * (double)corpus->count + 0.5);
    if (count < 1) count = 1;
    if (count > corpus->count - 1) count = corpus->count - 1;
    unsigned char *chosen = calloc((size_t)corpus->count, 1);
    REQUIRE(err, chosen != NULL, PLX_OUT_OF_MEMORY, "cannot allocate the choice of documents");
    plx_status status = choose_documents(corpus->count, count, seed, chosen, err);
    for (int64_t d = 0; d < corpus->count && status == PLX_OK; d++)
        status = corpus_add(chosen[d] ? tail : head, &corpus->documents[d], err);
    free(chosen);
    return status;
}

/* The last count tokens of a document go to tail. Its bytes are divided as its tokens with text
 * are, which is exact where a token is a byte. */
static plx_status split_document(const struct corpus_document *whole, int64_t count,
                                 struct corpus *head, struct corpus *tail, struct error *err)
{
    struct corpus_document first = *whole, last = *whole;
    first.count = whole->count - count;
    last.count = count;
    last.tokens = (const unsigned char *)whole->tokens + first.count * whole->width;
    if (count > 0) first.silent = 0;
    if (count > 0 && whole->bytes >= 0) {
        int64_t with_text = whole->count - whole->silent;
        double share = (double)first.count / (double)(with_text > 0 ? with_text : 1);
        first.bytes = (int64_t)floor(share * (double)whole->bytes + 0.5);
        if (first.bytes > whole->bytes) first.bytes = whole->bytes;
        last.bytes = whole->bytes - first.bytes;
    }
    TRY(corpus_add(head, &first, err));
    return count > 0 ? corpus_add(tail, &last, err) : PLX_OK;
}

static plx_status split_tails(const struct corpus *corpus, double fraction, struct corpus *head,
                              struct corpus *tail, struct error *err)
{
    for (int64_t d = 0; d < corpus->count; d++) {
        const struct corpus_document *document = &corpus->documents[d];
        int64_t count = (int64_t)floor(fraction * (double)document->count);
        TRY(split_document(document, count, head, tail, err));
    }
    REQUIRE(err, tail->tokens > 0, PLX_INVALID_ARGUMENT,
            "a fraction of %g of %lld documents with %lld tokens leaves nothing to hold out",
            fraction, (long long)corpus->count, (long long)corpus->tokens);
    return PLX_OK;
}

/* The split's first part replaces the content of corpus; what it held is freed. */
static void replace_content(struct corpus *corpus, struct corpus *head)
{
    struct corpus old = *corpus;
    *corpus = *head;
    *head = old;
    corpus_destroy(head);
}

plx_status corpus_split(struct corpus *corpus, double fraction, uint64_t seed,
                        struct corpus **held_out, struct error *err)
{
    *held_out = NULL;
    REQUIRE(err, fraction > 0 && fraction < 1, PLX_INVALID_ARGUMENT,
            "the fraction to hold out is %g but must lie between 0 and 1", fraction);
    struct corpus *head = NULL, *tail = NULL;
    plx_status status = corpus_create_on(corpus->store, &head, err);
    if (status == PLX_OK) status = corpus_create_on(corpus->store, &tail, err);
    if (status == PLX_OK)
        status = corpus->count >= SPLIT_DOCUMENTS
                     ? split_documents(corpus, fraction, seed, head, tail, err)
                     : split_tails(corpus, fraction, head, tail, err);
    if (status != PLX_OK) {
        corpus_destroy(tail);
        corpus_destroy(head);
        return status;
    }
    replace_content(corpus, head);
    *held_out = tail;
    return PLX_OK;
}
