/* loader.c: a corpus as an endless, resumable stream of batches; see data.h.
 *
 * The stream is the documents of epoch 0 in their order, then those of epoch 1, and so on; the
 * order of an epoch follows from seed and epoch alone. A batch of N inputs reads N + 1 tokens of
 * it: tokens 0 .. N - 1 are the inputs, tokens 1 .. N the targets, and the last one is read again
 * as the first input of the next batch. So the whole state is the position of the next input, and
 * nothing is lost or scored twice at the border of rows or batches. */
#include "data/data.h"

#include <stdlib.h>
#include <string.h>

struct loader {
    const struct corpus *corpus;
    struct loader_options options;
    struct loader_position at; /* the next input */
    int64_t *order;            /* [documents], of the epoch below */
    int64_t order_epoch;
    int64_t shortest;        /* tokens of the shortest document */
    int32_t *stream;         /* [N + 1] */
    unsigned char *is_first; /* [N + 1]: the token begins a document */
    int32_t *targets;        /* [N] */
    int32_t *positions;      /* [N] */
    int32_t *offsets;        /* [N + 1] */
};

/* ---- Creation ---- */

/* Refuses what could never score a token: then training would turn in place. */
static plx_status loader_check(const struct corpus *corpus, const struct loader_options *options,
                               struct error *err)
{
    REQUIRE(err, options->rows > 0, PLX_INVALID_ARGUMENT, "the batch has %lld rows",
            (long long)options->rows);
    REQUIRE(err, options->context > 0, PLX_INVALID_ARGUMENT, "the context is %lld tokens",
            (long long)options->context);
    REQUIRE(err, options->rows < INT32_MAX / options->context, PLX_INVALID_ARGUMENT,
            "a batch of %lld rows of %lld tokens has more than %d tokens", (long long)options->rows,
            (long long)options->context, INT32_MAX);
    int64_t tokens = corpus_tokens(corpus), documents = corpus_documents(corpus);
    REQUIRE(err, tokens >= 2, PLX_BAD_DATA,
            "the text has %lld tokens but at least 2 are needed to predict one", (long long)tokens);
    REQUIRE(err, !options->mask_documents || tokens > documents, PLX_BAD_DATA,
            "every one of the %lld documents has a single token: with document masking there is "
            "nothing to predict",
            (long long)documents);
    return PLX_OK;
}

static plx_status loader_allocate(struct loader *loader, struct error *err)
{
    size_t tokens = (size_t)(loader->options.rows * loader->options.context);
    size_t documents = (size_t)corpus_documents(loader->corpus);
    loader->order = malloc(documents * sizeof *loader->order);
    loader->stream = malloc((tokens + 1) * sizeof *loader->stream);
    loader->is_first = malloc(tokens + 1);
    loader->targets = malloc(tokens * sizeof *loader->targets);
    loader->positions = malloc(tokens * sizeof *loader->positions);
    loader->offsets = malloc((tokens + 1) * sizeof *loader->offsets);
    REQUIRE(err,
            loader->order != NULL && loader->stream != NULL && loader->is_first != NULL &&
                loader->targets != NULL && loader->positions != NULL && loader->offsets != NULL,
            PLX_OUT_OF_MEMORY, "cannot allocate a batch of %zu tokens from %zu documents", tokens,
            documents);
    return PLX_OK;
}

static int64_t shortest_document(const struct corpus *corpus)
{
    int64_t shortest = INT64_MAX;
    for (int64_t d = 0; d < corpus_documents(corpus); d++) {
        int64_t count = corpus_document_tokens(corpus, d);
        if (count < shortest) shortest = count;
    }
    return shortest;
}

plx_status loader_create(const struct corpus *corpus, const struct loader_options *options,
                         struct loader **loader, struct error *err)
{
    *loader = NULL;
    TRY(loader_check(corpus, options, err));
    struct loader *made = calloc(1, sizeof *made);
    REQUIRE(err, made != NULL, PLX_OUT_OF_MEMORY, "cannot allocate a loader");
    made->corpus = corpus;
    made->options = *options;
    made->order_epoch = -1;
    made->shortest = shortest_document(corpus);
    plx_status status = loader_allocate(made, err);
    if (status != PLX_OK) {
        loader_destroy(made);
        return status;
    }
    *loader = made;
    return PLX_OK;
}

void loader_destroy(struct loader *loader)
{
    if (loader == NULL) return;
    free(loader->order);
    free(loader->stream);
    free(loader->is_first);
    free(loader->targets);
    free(loader->positions);
    free(loader->offsets);
    free(loader);
}

/* ---- The stream ---- */

/* The order of an epoch: as in the corpus, or a Fisher-Yates shuffle of it. */
static void loader_set_order(struct loader *loader, int64_t epoch)
{
    if (loader->order_epoch == epoch) return;
    loader->order_epoch = epoch;
    int64_t documents = corpus_documents(loader->corpus);
    for (int64_t i = 0; i < documents; i++) loader->order[i] = i;
    if (!loader->options.shuffle) return;
    struct rng rng = rng_make(loader->options.seed, (uint64_t)epoch);
    for (int64_t i = documents - 1; i > 0; i--) {
        int64_t j = (int64_t)rng_below(&rng, (uint64_t)i + 1), swap = loader->order[i];
        loader->order[i] = loader->order[j];
        loader->order[j] = swap;
    }
}

/* Reads up to wanted tokens from loader->at on; returns how many there were. *last becomes the
 * position of the last one. */
static int64_t loader_read(struct loader *loader, int64_t wanted, struct loader_position *last)
{
    struct loader_position next = loader->at;
    int64_t filled = 0;
    while (filled < wanted) {
        if (next.document == corpus_documents(loader->corpus)) {
            if (!loader->options.loop) break;
            next.document = 0;
            next.epoch++;
        }
        loader_set_order(loader, next.epoch);
        int64_t document = loader->order[next.document];
        int64_t left = corpus_document_tokens(loader->corpus, document) - next.token;
        int64_t take = left < wanted - filled ? left : wanted - filled;
        corpus_read(loader->corpus, document, next.token, take, loader->stream + filled);
        memset(loader->is_first + filled, 0, (size_t)take);
        loader->is_first[filled] = next.token == 0;
        filled += take;
        *last = next;
        last->token += take - 1;
        next.document++;
        next.token = 0;
    }
    return filled;
}

/* Targets, positions and offsets of the first tokens inputs of the stream; returns the number of
 * sequences. */
static int64_t loader_mark(struct loader *loader, int64_t tokens)
{
    bool masked = loader->options.mask_documents;
    int64_t sequences = 0, column = 0;
    for (int64_t i = 0; i < tokens; i++) {
        bool row_starts = column == 0;
        if (row_starts || (masked && loader->is_first[i]))
            loader->offsets[sequences++] = (int32_t)i;
        loader->positions[i] = (int32_t)(i - loader->offsets[sequences - 1]);
        loader->targets[i] = masked && loader->is_first[i + 1] ? -1 : loader->stream[i + 1];
        column = column + 1 < loader->options.context ? column + 1 : 0;
    }
    loader->offsets[sequences] = (int32_t)tokens;
    return sequences;
}

plx_status loader_next(struct loader *loader, struct batch *batch, bool *more, struct error *err)
{
    (void)err;
    struct loader_position last;
    int64_t read = loader_read(loader, loader->options.rows * loader->options.context + 1, &last);
    *batch = (struct batch){0};
    *more = read > 1;
    if (!*more) return PLX_OK;
    batch->tokens = read - 1;
    batch->sequences = loader_mark(loader, read - 1);
    batch->ids = loader->stream;
    batch->targets = loader->targets;
    batch->positions = loader->positions;
    batch->offsets = loader->offsets;
    last.tokens_seen = loader->at.tokens_seen + read - 1;
    loader->at = last;
    return PLX_OK;
}

/* ---- Position ---- */

struct loader_position loader_position(const struct loader *loader)
{
    return loader->at;
}

plx_status loader_seek(struct loader *loader, struct loader_position position, struct error *err)
{
    /* Far above any run, and far below where adding to it would overflow. */
    const int64_t limit = INT64_C(1) << 62;
    int64_t documents = corpus_documents(loader->corpus);
    REQUIRE(err,
            position.epoch >= 0 && position.epoch < limit && position.tokens_seen >= 0 &&
                position.tokens_seen < limit,
            PLX_BAD_DATA, "data position: epoch %lld and %lld tokens seen are impossible",
            (long long)position.epoch, (long long)position.tokens_seen);
    REQUIRE(err, position.document >= 0 && position.document < documents, PLX_BAD_DATA,
            "data position: document %lld but the text has %lld", (long long)position.document,
            (long long)documents);
    loader_set_order(loader, position.epoch);
    int64_t tokens = corpus_document_tokens(loader->corpus, loader->order[position.document]);
    REQUIRE(err, position.token >= 0 && position.token < tokens, PLX_BAD_DATA,
            "data position: token %lld but document %lld of epoch %lld has %lld",
            (long long)position.token, (long long)position.document, (long long)position.epoch,
            (long long)tokens);
    loader->at = position;
    return PLX_OK;
}

int64_t loader_max_sequences(const struct loader *loader)
{
    /* A row of T tokens holds one token of the first and one of the last document it touches, and
     * whole documents between them. */
    int64_t rows = loader->options.rows, context = loader->options.context;
    if (!loader->options.mask_documents) return rows;
    int64_t in_row = context < 2 ? context : 2 + (context - 2) / loader->shortest;
    return rows * in_row;
}
