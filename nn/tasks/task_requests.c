/* task_requests.c: from texts to tokens, where harnesses differ in ways that change scores.
 *
 * White space at the end of a context moves to the front of the continuation, because a tokenizer
 * joins it to what follows. The continuation's tokens are those of the whole text behind as many as
 * the context has alone. A text without context follows one token that begins texts. The model
 * reads the last context + 1 tokens but one. */
#include <stdlib.h>
#include <string.h>

#include "data/utf8.h"
#include "tasks/task_parts.h"
#include "tasks/task_text.h"

struct request_builder {
    const struct task_set *set;
    struct encoder *encoder;
    struct requests *requests;
    int32_t prefix;
    int64_t context;
    int64_t document;
};

/* ---- Growing lists ---- */

/* The encoder's sink; user is the requests. */
static plx_status add_ids(void *user, const int32_t *ids, int64_t count, struct error *err)
{
    struct requests *requests = user;
    if (requests->id_capacity - requests->id_count < count) {
        int64_t capacity = 2 * (requests->id_count + count);
        void *grown = realloc(requests->ids, (size_t)capacity * sizeof *requests->ids);
        REQUIRE(err, grown != NULL, PLX_OUT_OF_MEMORY, "no memory for %lld tokens",
                (long long)capacity);
        requests->ids = grown;
        requests->id_capacity = capacity;
    }
    memcpy(requests->ids + requests->id_count, ids, (size_t)count * sizeof *ids);
    requests->id_count += count;
    return PLX_OK;
}

static plx_status add_request(struct requests *requests, const struct request *request,
                              struct error *err)
{
    if (requests->count == requests->capacity) {
        int64_t capacity = 2 * requests->capacity + 64;
        void *grown = realloc(requests->items, (size_t)capacity * sizeof *requests->items);
        REQUIRE(err, grown != NULL, PLX_OUT_OF_MEMORY, "no memory for %lld requests",
                (long long)capacity);
        requests->items = grown;
        requests->capacity = capacity;
    }
    requests->items[requests->count++] = *request;
    return PLX_OK;
}

void requests_clear(struct requests *requests)
{
    free(requests->ids);
    free(requests->items);
    *requests = (struct requests){0};
}

/* ---- Texts ---- */

static plx_status encode(struct request_builder *builder, const char *text, size_t size,
                         struct error *err)
{
    return encoder_encode(builder->encoder, text, size, TOKENIZER_ADDED, add_ids, builder->requests,
                          err);
}

/* Tokens first .. end - 1 of the list, of which the last scored are a continuation; the front of
 * what is too long for the model is left out. */
static plx_status add_span(struct request_builder *builder, int64_t first, int64_t end,
                           int64_t scored, int64_t line, struct error *err)
{
    struct requests *requests = builder->requests;
    REQUIRE(err, scored >= 1 && scored <= builder->context, PLX_BAD_DATA,
            "%s:%lld: a continuation has %lld tokens but must have 1 to %lld, the model's context",
            builder->set->path, (long long)line, (long long)scored, (long long)builder->context);
    if (end - first > builder->context + 1) first = end - builder->context - 1;
    const struct request request = {.first = first,
                                    .length = (int32_t)(end - first - 1),
                                    .scored = (int32_t)scored,
                                    .slot = requests->slots,
                                    .document = builder->document};
    return add_request(requests, &request, err);
}

/* The context's tokens alone, then over them those of the whole text: what of these lies behind the
 * context's is the continuation. */
static plx_status add_pair(struct request_builder *builder, const struct task_choice *choice,
                           int64_t line, struct error *err)
{
    struct requests *requests = builder->requests;
    const size_t size = text_trimmed_size(choice->context);
    const int64_t first = requests->id_count;
    if (size == 0) {
        TRY(add_ids(requests, &builder->prefix, 1, err));
    } else {
        TRY(encode(builder, choice->context, size, err));
    }
    const int64_t middle = requests->id_count, known = size > 0 ? middle - first : 0;
    char *whole = text_format("%s%s", choice->context, choice->continuation);
    REQUIRE(err, whole != NULL, PLX_OUT_OF_MEMORY, "no memory for a text");
    plx_status status = encode(builder, whole, strlen(whole), err);
    free(whole);
    TRY(status);
    const int64_t scored = requests->id_count - middle - known;
    REQUIRE(err, scored >= 1, PLX_BAD_DATA,
            "%s:%lld: the tokenizer has no token for the continuation: %lld for the context and "
            "%lld for the whole text",
            builder->set->path, (long long)line, (long long)known, (long long)(known + scored));
    memmove(requests->ids + middle, requests->ids + middle + known,
            (size_t)scored * sizeof *requests->ids);
    requests->id_count = middle + scored;
    return add_span(builder, first, requests->id_count, scored, line, err);
}

/* Windows that score all tokens once, each behind one token that it does not score; the last is as
 * long as the others, and so scores fewer. */
static plx_status add_windows(struct request_builder *builder, const char *text, int64_t line,
                              struct error *err)
{
    struct requests *requests = builder->requests;
    const int64_t first = requests->id_count;
    TRY(add_ids(requests, &builder->prefix, 1, err));
    TRY(encode(builder, text, strlen(text), err));
    const int64_t end = requests->id_count;
    for (int64_t at = first + 1; at < end; at += builder->context) {
        int64_t scored = end - at < builder->context ? end - at : builder->context;
        TRY(add_span(builder, first, at + scored, scored, line, err));
    }
    return PLX_OK;
}

/* ---- All documents ---- */

static plx_status add_documents(struct request_builder *builder, struct error *err)
{
    const struct task_set *set = builder->set;
    const bool whole_text = set->task->scoring->whole_text;
    for (int64_t d = 0; d < set->count; d++) {
        const struct task_document *document = &set->documents[d];
        builder->document = d;
        for (int c = 0; c < document->count; c++) {
            const struct task_choice *choice = &document->choices[c];
            TRY(whole_text ? add_windows(builder, choice->continuation, document->line, err)
                           : add_pair(builder, choice, document->line, err));
            builder->requests->slots++;
        }
    }
    return PLX_OK;
}

plx_status requests_create(const struct task_set *set, const struct tokenizer *tokenizer,
                           int32_t prefix, int64_t context, struct requests *requests,
                           struct error *err)
{
    struct request_builder builder = {
        .set = set, .requests = requests, .prefix = prefix, .context = context};
    *requests = (struct requests){0};
    TRY(encoder_create(tokenizer, &builder.encoder, err));
    plx_status status = add_documents(&builder, err);
    encoder_destroy(builder.encoder);
    if (status != PLX_OK) requests_clear(requests);
    return status;
}
