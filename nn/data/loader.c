/* loader.c: a corpus as an endless, resumable stream of batches; see data.h.
 *
 * The stream is the documents of epoch 0 in their order, then those of epoch 1, and so on; the
 * order of an epoch follows from seed and epoch alone. A batch of N inputs reads N + 1 tokens of
 * it: tokens 0 .. N - 1 are the inputs, tokens 1 .. N the targets, and the last one is read again
 * as the first input of the next batch. So the whole state is the position of the next input, and
 * nothing is lost or scored twice at the border of rows or batches.
 *
 * With shuffle_rows every epoch ends with its last token; its stream is cut into rows (each reads
 * one token beyond its end as its last target), which come in an order of their own. Long documents
 * would otherwise fill whole batches, whose tokens then teach the same thing. The position is the
 * row: its index in the epoch's order stands in place of the document. */
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
    int64_t rows_in_epoch;   /* shuffle_rows: how many rows the corpus gives */
    int64_t *row_order;      /* [rows_in_epoch], of order_epoch */
    int64_t *starts;         /* [documents + 1]: where documents begin in the epoch's stream */
    int32_t *row;            /* [context + 1] */
};

/* ---- Creation ---- */

/* A token of the corpus as an input, and as a target. */
static int32_t as_input(int32_t token)
{
    return token < 0 ? ~token : token;
}

static int32_t as_target(int32_t token)
{
    return token < 0 ? -1 : token;
}

/* Whether some token is a target; the first of a document is none where documents are masked. */
static bool has_target(const struct corpus *corpus, bool masked)
{
    int32_t ids[1024];
    for (int64_t d = 0; d < corpus_documents(corpus); d++) {
        int64_t count = corpus_document_tokens(corpus, d);
        for (int64_t first = masked; first < count; first += 1024) {
            int64_t taken = count - first < 1024 ? count - first : 1024;
            corpus_read(corpus, d, first, taken, ids);
            for (int64_t i = 0; i < taken; i++)
                if (ids[i] >= 0) return true;
        }
    }
    return false;
}

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
    REQUIRE(err, has_target(corpus, options->mask_documents), PLX_BAD_DATA,
            "none of the %lld tokens of the %lld documents is said by an assistant: there is "
            "nothing to predict",
            (long long)tokens, (long long)documents);
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

static plx_status loader_allocate_rows(struct loader *loader, struct error *err)
{
    size_t context = (size_t)loader->options.context, rows = (size_t)loader->rows_in_epoch;
    size_t documents = (size_t)corpus_documents(loader->corpus);
    loader->row_order = malloc(rows * sizeof *loader->row_order);
    loader->starts = malloc((documents + 1) * sizeof *loader->starts);
    loader->row = malloc((context + 1) * sizeof *loader->row);
    REQUIRE(err, loader->row_order != NULL && loader->starts != NULL && loader->row != NULL,
            PLX_OUT_OF_MEMORY, "cannot allocate the order of %zu rows", rows);
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
    made->rows_in_epoch = (corpus_tokens(corpus) - 2) / options->context + 1;
    plx_status status = loader_allocate(made, err);
    if (status == PLX_OK && options->shuffle_rows) status = loader_allocate_rows(made, err);
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
    free(loader->row_order);
    free(loader->starts);
    free(loader->row);
    free(loader);
}

/* ---- The stream ---- */

/* Fisher-Yates. */
static void loader_shuffle(int64_t *items, int64_t count, struct rng *rng)
{
    for (int64_t i = count - 1; i > 0; i--) {
        int64_t j = (int64_t)rng_below(rng, (uint64_t)i + 1), swap = items[i];
        items[i] = items[j];
        items[j] = swap;
    }
}

/* The order of an epoch: as in the corpus, or a shuffle of it; then that of its rows. */
static void loader_set_order(struct loader *loader, int64_t epoch)
{
    if (loader->order_epoch == epoch) return;
    loader->order_epoch = epoch;
    int64_t documents = corpus_documents(loader->corpus);
    for (int64_t i = 0; i < documents; i++) loader->order[i] = i;
    struct rng rng = rng_make(loader->options.seed, (uint64_t)epoch);
    if (loader->options.shuffle) loader_shuffle(loader->order, documents, &rng);
    if (!loader->options.shuffle_rows) return;
    for (int64_t i = 0; i < loader->rows_in_epoch; i++) loader->row_order[i] = i;
    loader_shuffle(loader->row_order, loader->rows_in_epoch, &rng);
    loader->starts[0] = 0;
    for (int64_t i = 0; i < documents; i++)
        loader->starts[i + 1] =
            loader->starts[i] + corpus_document_tokens(loader->corpus, loader->order[i]);
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
        bool crosses = masked && loader->is_first[i + 1];
        loader->targets[i] = crosses ? -1 : as_target(loader->stream[i + 1]);
        loader->stream[i] = as_input(loader->stream[i]);
        column = column + 1 < loader->options.context ? column + 1 : 0;
    }
    loader->offsets[sequences] = (int32_t)tokens;
    return sequences;
}

static void loader_next_in_order(struct loader *loader, struct batch *batch)
{
    struct loader_position last;
    int64_t read = loader_read(loader, loader->options.rows * loader->options.context + 1, &last);
    if (read < 2) return;
    batch->tokens = read - 1;
    batch->sequences = loader_mark(loader, read - 1);
    last.tokens_seen = loader->at.tokens_seen + read - 1;
    loader->at = last;
}

/* ---- Shuffled rows ---- */

/* The document (index in the epoch's order) that holds a token of the epoch's stream. */
static int64_t loader_document_at(const struct loader *loader, int64_t token)
{
    int64_t low = 0, high = corpus_documents(loader->corpus) - 1;
    while (low < high) {
        int64_t middle = low + (high - low + 1) / 2;
        if (loader->starts[middle] <= token)
            low = middle;
        else
            high = middle - 1;
    }
    return low;
}

/* Reads one row into loader->row, with the target of its last token, and marks where documents
 * begin; returns the inputs, which are fewer than the context in the last row of the stream. */
static int64_t loader_read_row(struct loader *loader, int64_t row)
{
    int64_t context = loader->options.context, first = row * context;
    int64_t left = corpus_tokens(loader->corpus) - 1 - first;
    int64_t tokens = left < context ? left : context;
    int64_t document = loader_document_at(loader, first);
    for (int64_t filled = 0; filled < tokens + 1; document++) {
        int64_t within = first + filled - loader->starts[document];
        int64_t rest = loader->starts[document + 1] - first - filled;
        int64_t take = rest < tokens + 1 - filled ? rest : tokens + 1 - filled;
        corpus_read(loader->corpus, loader->order[document], within, take, loader->row + filled);
        memset(loader->is_first + filled, 0, (size_t)take);
        loader->is_first[filled] = within == 0;
        filled += take;
    }
    return tokens;
}

/* Appends the row that was read to the batch. */
static void loader_add_row(struct loader *loader, int64_t tokens, struct batch *batch)
{
    bool masked = loader->options.mask_documents;
    for (int64_t i = 0; i < tokens; i++) {
        int64_t n = batch->tokens + i;
        if (i == 0 || (masked && loader->is_first[i]))
            loader->offsets[batch->sequences++] = (int32_t)n;
        loader->stream[n] = as_input(loader->row[i]);
        loader->positions[n] = (int32_t)(n - loader->offsets[batch->sequences - 1]);
        bool crosses = masked && loader->is_first[i + 1];
        loader->targets[n] = crosses ? -1 : as_target(loader->row[i + 1]);
    }
    batch->tokens += tokens;
}

static void loader_next_rows(struct loader *loader, struct batch *batch)
{
    for (int64_t count = 0; count < loader->options.rows; count++) {
        if (loader->at.document == loader->rows_in_epoch) {
            if (!loader->options.loop) break;
            loader->at.document = 0;
            loader->at.epoch++;
        }
        loader_set_order(loader, loader->at.epoch);
        int64_t tokens = loader_read_row(loader, loader->row_order[loader->at.document]);
        loader_add_row(loader, tokens, batch);
        loader->at.document++;
    }
    loader->offsets[batch->sequences] = (int32_t)batch->tokens;
    loader->at.tokens_seen += batch->tokens;
}

plx_status loader_next(struct loader *loader, struct batch *batch, bool *more, struct error *err)
{
    (void)err;
    *batch = (struct batch){0};
    if (loader->options.shuffle_rows)
        loader_next_rows(loader, batch);
    else
        loader_next_in_order(loader, batch);
    *more = batch->tokens > 0;
    if (!*more) return PLX_OK;
    batch->ids = loader->stream;
    batch->targets = loader->targets;
    batch->positions = loader->positions;
    batch->offsets = loader->offsets;
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
    if (loader->options.shuffle_rows) {
        REQUIRE(err,
                position.document >= 0 && position.document <= loader->rows_in_epoch &&
                    position.token == 0,
                PLX_BAD_DATA, "data position: row %lld but the text gives %lld",
                (long long)position.document, (long long)loader->rows_in_epoch);
        loader->at = position;
        return PLX_OK;
    }
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
