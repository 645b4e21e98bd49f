/* sample_run.c: the loop that continues prompts, one or several side by side.
 *
 * Every text has a place in the cache while it is in progress. A step takes the next token of all
 * of them, and the prompt of one that has just got its place; where a text ends, its pages go back
 * and the next one that waits takes the place. It gets it when the cache has pages for all that it
 * may become, so that no text runs out of them half-way; until it takes them they serve nobody.
 *
 * Called by cli/cmd_sample.c, and by train.c for the samples it shows. */
#include <math.h>
#include <omp.h>
#include <stdlib.h>

#include "models/cache_pages.h"
#include "process.h"
#include "sample.h"

/* Stream number of a sampling seed (see rng_make): any constant of its own will do. */
static const uint64_t sample_stream = 0x73616d706c65;

/* A text: waiting, in progress, or over. */
struct text {
    struct sample_request *request;
    int32_t *ids;  /* prompt, then what was drawn */
    int64_t count; /* of ids */
    int64_t pages; /* that it takes when all new tokens are there */
    struct rng rng;
    struct stop_filter stops;
    double begun, prefilled; /* in seconds; 0: not yet */
    int32_t drawn;           /* the token that follows; negative: a logit is not finite */
    bool over;
};

/* What a run holds; released as a whole by run_release. */
struct sampling {
    struct model *model;
    const struct tokenizer *tokenizer;
    const struct sample_options *options;
    struct error *err;
    struct text *texts;
    int64_t count;    /* of texts */
    int64_t waiting;  /* the first that has not begun */
    int64_t told;     /* the first that `done` has not been called for */
    int64_t vocab;    /* ids that may be drawn */
    int64_t side;     /* places in the cache, and of the next lists */
    int64_t *at;      /* [side]: the text in each place; -1: none */
    int64_t *counts;  /* [side]: how many ids of each make the next step */
    int64_t reserved; /* pages that the texts in progress may take */
    struct model_cache *cache;
    struct sample_cache report;
    int32_t *ids;                  /* of one step, place by place */
    struct plx_tensor logits;      /* [side,V] in the storage dtype */
    int threads;                   /* that draw from them, each with a row of the next two */
    float *rows;                   /* [threads, vocab] logits of one text */
    struct sample_candidate *work; /* [threads, vocab] */
};

static void run_release(struct sampling *run)
{
    for (int64_t t = 0; run->texts != NULL && t < run->count; t++) {
        stop_filter_close(&run->texts[t].stops);
        free(run->texts[t].ids);
    }
    model_cache_destroy(run->cache);
    free(run->texts);
    free(run->at);
    free(run->counts);
    free(run->ids);
    model_backend(run->model)->device->host_release(run->logits.data);
    free(run->rows);
    free(run->work);
}

/* ---- Before the first token ---- */

/* How many ids the prompt has; none where it is empty. */
static plx_status count_prompt(const struct sampling *run, const struct sample_request *request,
                               unsigned how, int64_t *count)
{
    *count = 0;
    if (request->size > 0) {
        struct error reason = {0};
        plx_status status = tokenizer_encode_as(run->tokenizer, request->prompt, request->size, how,
                                                NULL, 0, count, &reason);
        if (status != PLX_OK && status != PLX_WORKSPACE_TOO_SMALL)
            return error_set(run->err, status, "%s", reason.text);
    }
    REQUIRE(run->err, *count > 0 || tokenizer_end_of_text(run->tokenizer) >= 0,
            PLX_INVALID_ARGUMENT,
            "the prompt is empty and the tokenizer has no end of text to start from");
    return PLX_OK;
}

/* The prompt's ids, with room for max_tokens more. */
static plx_status encode(const struct sampling *run, struct text *text)
{
    const struct sample_request *request = text->request;
    const unsigned how = run->options->framed ? SAMPLE_FRAMED : SAMPLE_ENCODING;
    const int64_t max_tokens = run->options->max_tokens;
    const int64_t context = model_get_config(run->model)->max_position;
    int64_t count;
    TRY(count_prompt(run, request, how, &count));
    const int64_t length = count > 0 ? count : 1;
    REQUIRE(run->err, length <= context, PLX_INVALID_ARGUMENT,
            "the prompt has %lld tokens but the model's context is %lld", (long long)length,
            (long long)context);
    REQUIRE(run->err, max_tokens <= context - length, PLX_INVALID_ARGUMENT,
            "the prompt's %lld tokens and %lld new ones are more than the model's context of %lld",
            (long long)length, (long long)max_tokens, (long long)context);
    text->ids = malloc((size_t)(length + max_tokens) * sizeof *text->ids);
    REQUIRE(run->err, text->ids != NULL, PLX_OUT_OF_MEMORY, "no memory for %lld tokens",
            (long long)(length + max_tokens));
    text->ids[0] = tokenizer_end_of_text(run->tokenizer);
    text->count = length;
    if (count == 0) return PLX_OK;
    return tokenizer_encode_as(run->tokenizer, request->prompt, request->size, how, text->ids,
                               length, &count, run->err);
}

static plx_status check_ids(const struct sampling *run, const struct text *text)
{
    const int64_t V = model_get_config(run->model)->vocab_size;
    for (int64_t i = 0; i < text->count; i++)
        REQUIRE(run->err, text->ids[i] >= 0 && text->ids[i] < V, PLX_INVALID_ARGUMENT,
                "token %d of the prompt is not in the model's vocabulary of %lld", text->ids[i],
                (long long)V);
    return PLX_OK;
}

static plx_status open_texts(struct sampling *run, struct sample_request *requests)
{
    const struct sample_options *options = run->options;
    run->texts = calloc((size_t)run->count, sizeof *run->texts);
    REQUIRE(run->err, run->texts != NULL, PLX_OUT_OF_MEMORY, "no memory for %lld texts",
            (long long)run->count);
    for (int64_t t = 0; t < run->count; t++) {
        struct text *text = &run->texts[t];
        text->request = &requests[t];
        text->rng = rng_make(options->seed + (uint64_t)t, sample_stream);
        TRY(encode(run, text));
        TRY(check_ids(run, text));
        TRY(stop_filter_open(&text->stops, options->stops, options->stop_count, run->err));
        requests[t].report.prompt_tokens = text->count;
    }
    return PLX_OK;
}

static int more_pages_first(const void *left, const void *right)
{
    const int64_t a = *(const int64_t *)left, b = *(const int64_t *)right;
    return (a < b) - (a > b);
}

/* The pages that no choice of texts side by side exceeds: those of the largest. */
static plx_status most_pages(const struct sampling *run, int64_t *pages)
{
    int64_t *needs = malloc((size_t)run->count * sizeof *needs);
    REQUIRE(run->err, needs != NULL, PLX_OUT_OF_MEMORY, "no memory for %lld texts",
            (long long)run->count);
    for (int64_t t = 0; t < run->count; t++) needs[t] = run->texts[t].pages;
    qsort(needs, (size_t)run->count, sizeof *needs, more_pages_first);
    *pages = 0;
    for (int64_t i = 0; i < run->side; i++) *pages += needs[i];
    free(needs);
    return PLX_OK;
}

/* A pool for the texts that are side by side, or of --cache-tokens, which must hold each alone. */
static plx_status size_cache(struct sampling *run, struct model_cache_config *config)
{
    const int64_t max_tokens = run->options->max_tokens, limit = run->options->cache_tokens;
    config->sequences = run->side;
    config->page = MODEL_CACHE_PAGE;
    for (int64_t t = 0; t < run->count; t++) {
        struct text *text = &run->texts[t];
        const int64_t tokens = text->count + max_tokens;
        text->pages = cache_pages_for(tokens, config->page);
        if (tokens > config->capacity) config->capacity = tokens;
        REQUIRE(
            run->err, limit == 0 || text->pages <= limit / config->page, PLX_INVALID_ARGUMENT,
            "--cache-tokens: %lld tokens are %lld pages of %lld, but prompt %lld of %lld tokens "
            "may take %lld with %lld new ones",
            (long long)limit, (long long)(limit / config->page), (long long)config->page,
            (long long)t + 1, (long long)text->count, (long long)text->pages,
            (long long)max_tokens);
    }
    TRY(most_pages(run, &config->pages));
    if (limit > 0 && limit / config->page < config->pages) config->pages = limit / config->page;
    return PLX_OK;
}

static plx_status create_cache(struct sampling *run)
{
    struct model_cache_config config = {0};
    TRY(size_cache(run, &config));
    plx_status status = model_cache_create(run->model, &config, &run->cache);
    REQUIRE(run->err, status == PLX_OK, status, "cannot create the key-value cache");
    const struct model_cache_use use = model_cache_use(run->cache);
    run->report =
        (struct sample_cache){.bytes = use.bytes,
                              .page = use.page,
                              .pages = use.pages,
                              .apart = run->side * cache_pages_for(config.capacity, use.page)};
    return PLX_OK;
}

/* Small vocabularies are not worth a second thread. */
static int draw_threads(const struct sampling *run)
{
    const int64_t threads = model_backend(run->model)->threads;
    if (run->side * run->vocab < 1 << 16) return 1;
    return (int)(threads < run->side ? threads : run->side);
}

/* Ids of the largest step: all prompts that can begin at once, which are those of the first texts
 * or, later, of any. */
static plx_status allocate(struct sampling *run)
{
    const int64_t V = model_get_config(run->model)->vocab_size;
    const struct device *device = model_backend(run->model)->device;
    const plx_dtype dtype = model_backend(run->model)->storage;
    const int64_t side = run->side, shape[2] = {side, V};
    /* Rows beyond the tokenizer's size only pad the embedding; they have no text and are never
     * drawn. */
    const int64_t known = tokenizer_vocab_size(run->tokenizer);
    int64_t longest = 0;
    for (int64_t t = 0; t < run->count; t++)
        if (run->texts[t].count > longest) longest = run->texts[t].count;
    run->vocab = known < V ? known : V;
    run->at = malloc((size_t)side * sizeof *run->at);
    run->counts = calloc((size_t)side, sizeof *run->counts);
    run->ids = calloc((size_t)(side * longest), sizeof *run->ids);
    run->logits = plx_tensor_dense(NULL, dtype, 2, shape);
    TRY(device->host_allocate(&run->logits.data, (size_t)(side * V) * plx_dtype_size(dtype),
                              run->err));
    run->threads = draw_threads(run);
    run->rows = calloc((size_t)(run->threads * run->vocab), sizeof *run->rows);
    run->work = calloc((size_t)(run->threads * run->vocab), sizeof *run->work);
    REQUIRE(run->err,
            run->at != NULL && run->counts != NULL && run->ids != NULL && run->rows != NULL &&
                run->work != NULL,
            PLX_OUT_OF_MEMORY, "no memory for the logits of %lld tokens", (long long)V);
    for (int64_t s = 0; s < side; s++) run->at[s] = -1;
    return create_cache(run);
}

/* ---- Steps ---- */

/* The text in a place. */
static struct text *text_at(const struct sampling *run, int64_t s)
{
    return run->at[s] < 0 ? NULL : &run->texts[run->at[s]];
}

/* Gives free places to texts that wait, in their order, while the cache has pages for them. */
static void begin_texts(struct sampling *run)
{
    for (int64_t s = 0; s < run->side && run->waiting < run->count; s++) {
        struct text *text = &run->texts[run->waiting];
        if (run->at[s] >= 0) continue;
        if (text->pages > run->report.pages - run->reserved) return;
        run->reserved += text->pages;
        run->counts[s] = text->count;
        run->at[s] = run->waiting++;
        text->begun = process_seconds();
    }
}

/* The last counts[s] ids of every text go through the model. */
static plx_status feed(struct sampling *run)
{
    int64_t n = 0;
    for (int64_t s = 0; s < run->side; s++) {
        const struct text *text = text_at(run, s);
        for (int64_t i = run->counts[s]; i > 0; i--) run->ids[n++] = text->ids[text->count - i];
    }
    plx_status status = model_decode(run->model, run->cache, run->ids, run->counts, &run->logits);
    REQUIRE(run->err, status == PLX_OK, status, "decoding failed");
    const int64_t taken = model_cache_use(run->cache).taken;
    if (taken > run->report.taken) run->report.taken = taken;
    return PLX_OK;
}

static double logit_at(const struct sampling *run, int64_t s, int64_t i)
{
    const int64_t at = s * run->logits.shape[1] + i;
    return run->logits.dtype == PLX_F64 ? ((const double *)run->logits.data)[at]
                                        : (double)((const float *)run->logits.data)[at];
}

/* Copies the logits of a text; false where one is not finite. */
static bool read_logits(const struct sampling *run, int64_t s, float *row)
{
    float odd = 0; /* becomes NaN where a number is not finite */
#pragma omp simd reduction(+ : odd)
    for (int64_t i = 0; i < run->vocab; i++) {
        row[i] = (float)logit_at(run, s, i);
        odd += row[i] - row[i];
    }
    return odd == 0;
}

/* Draws the token that follows each text in progress. Texts have their own random numbers, so it
 * does not matter which thread draws for which. */
static void draw_all(const struct sampling *run)
{
#pragma omp parallel for num_threads(run->threads) schedule(dynamic)
    for (int64_t s = 0; s < run->side; s++) {
        struct text *text = text_at(run, s);
        float *row = run->rows + omp_get_thread_num() * run->vocab;
        struct sample_candidate *work = run->work + omp_get_thread_num() * run->vocab;
        if (text == NULL || text->request->report.new_tokens == run->options->max_tokens) continue;
        text->drawn = read_logits(run, s, row)
                          ? sample_token(row, run->vocab, text->ids, text->count, run->options,
                                         &text->rng, work)
                          : -1;
    }
}

/* Refuses logits that no distribution can be made of, naming the token. */
static plx_status refuse_logits(const struct sampling *run, int64_t s)
{
    int64_t i = 0;
    while (isfinite((float)logit_at(run, s, i))) i++;
    return error_set(run->err, PLX_BAD_DATA,
                     "after %lld tokens the logit of token %lld is not finite (%g)",
                     (long long)text_at(run, s)->count, (long long)i, logit_at(run, s, i));
}

static bool ends_text(const struct sampling *run, int32_t id)
{
    const int32_t end = tokenizer_end_of_text(run->tokenizer), stop = run->options->stop_id;
    if (run->options->ignore_end) return false;
    return (end >= 0 && id == end) || (stop > 0 && id == stop) ||
           model_config_ends(model_get_config(run->model), id);
}

/* Takes the token that was drawn for the text in a place and hands its bytes on. */
static plx_status take(struct sampling *run, int64_t s)
{
    struct text *text = text_at(run, s);
    struct sample_report *report = &text->request->report;
    text->over = report->new_tokens == run->options->max_tokens;
    if (text->over) return PLX_OK;
    if (text->drawn < 0) return refuse_logits(run, s);
    const int32_t id = text->drawn;
    report->ended = ends_text(run, id);
    if (!report->ended) {
        size_t size = 0;
        const char *bytes = tokenizer_token(run->tokenizer, id, &size);
        text->ids[text->count++] = id;
        report->new_tokens++;
        text->over =
            !stop_filter_write(&text->stops, bytes, size, text->request->sink, text->request->user);
    }
    report->stopped = text->stops.found;
    text->over = text->over || report->ended || report->new_tokens == run->options->max_tokens;
    return PLX_OK;
}

/* The text in a place is over: what was held back is handed on, and the place is free. */
static void end_text(struct sampling *run, int64_t s)
{
    struct text *text = text_at(run, s);
    struct sample_request *request = text->request;
    stop_filter_end(&text->stops, request->sink, request->user);
    request->report.prefill_seconds = text->prefilled - text->begun;
    request->report.decode_seconds = process_seconds() - text->prefilled;
    model_cache_end(run->cache, s);
    run->reserved -= text->pages;
    run->counts[s] = 0;
    run->at[s] = -1;
}

static plx_status tell(struct sampling *run)
{
    for (; run->told < run->waiting && run->texts[run->told].over; run->told++) {
        struct sample_request *request = run->texts[run->told].request;
        request->report.cache = run->report;
        if (request->done != NULL) TRY(request->done(request, run->err));
    }
    return PLX_OK;
}

/* The model's answer to what was fed: a token for every text, or its end. */
static plx_status advance(struct sampling *run)
{
    const double now = process_seconds();
    draw_all(run);
    for (int64_t s = 0; s < run->side; s++) {
        struct text *text = text_at(run, s);
        if (text == NULL) continue;
        if (text->prefilled == 0) text->prefilled = now;
        run->counts[s] = 1;
        TRY(take(run, s));
        if (text->over) end_text(run, s);
    }
    return tell(run);
}

static plx_status run_all(struct sampling *run, struct sample_request *requests)
{
    TRY(open_texts(run, requests));
    TRY(allocate(run));
    while (run->told < run->count) {
        begin_texts(run);
        TRY(feed(run));
        TRY(advance(run));
    }
    return PLX_OK;
}

plx_status sample_requests(struct model *model, const struct tokenizer *tokenizer,
                           struct sample_request *requests, int64_t count,
                           const struct sample_options *options, struct error *err)
{
    struct sampling run = {.model = model,
                           .tokenizer = tokenizer,
                           .options = options,
                           .err = err,
                           .count = count,
                           .side = count};
    if (options->side > 0 && options->side < count) run.side = options->side;
    for (int64_t s = 0; s < count; s++) requests[s].report = (struct sample_report){0};
    TRY(sample_options_check(options, err));
    if (count == 0) return PLX_OK;
    plx_status status = run_all(&run, requests);
    run_release(&run);
    return status;
}

plx_status sample_run(struct model *model, const struct tokenizer *tokenizer, const char *prompt,
                      size_t prompt_size, const struct sample_options *options, text_sink sink,
                      void *user, struct sample_report *report, struct error *err)
{
    struct sample_request request = {
        .prompt = prompt, .size = prompt_size, .sink = sink, .user = user};
    plx_status status = sample_requests(model, tokenizer, &request, 1, options, err);
    *report = request.report;
    return status;
}
