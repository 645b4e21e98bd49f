/* sample_run.c: the loop that continues prompts, one or several side by side.
 *
 * Every text has a place in the cache while it is in progress. A step takes the next token of all
 * of them, and the prompt of one that has just got its place; where a text ends, its pages go back
 * and the next one that waits takes the place. It gets it when the cache has pages for all that it
 * may become, so that no text runs out of them half-way; until it takes them they serve nobody.
 *
 * Called by cli/cmd_sample.c, and by train.c for the samples it shows. */
#include <stdlib.h>

#include "models/cache_pages.h"
#include "process.h"
#include "sample.h"

/* Stream number of a sampling seed (see rng_make): any constant of its own will do. */
static const uint64_t sample_stream = 0x73616d706c65;

/* The different ids of the text in a place, for the penalty; all NULL without one. */
struct seen {
    uint8_t *is; /* [V]: whether it is among ids */
    int32_t *ids;
    int64_t count;
};

/* A text: waiting, in progress, or over. */
struct text {
    struct sample_request *request;
    int32_t *ids;  /* prompt, then what was drawn */
    int64_t count; /* of ids */
    int64_t pages; /* that it takes when all new tokens are there */
    struct rng rng;
    struct stop_filter stops;
    double begun, prefilled; /* in seconds; 0: not yet */
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
    int32_t *ids;                 /* of one step, place by place */
    struct seen *seen;            /* [side] */
    struct draw_numbers *numbers; /* [side]: of the step's draws, as the next two */
    const int32_t **seen_ids;
    int64_t *seen_counts;
    int32_t *drawn; /* [side]: what follows; negative: a logit is not finite */
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
    for (int64_t s = 0; run->seen != NULL && s < run->side; s++) {
        free(run->seen[s].is);
        free(run->seen[s].ids);
    }
    free(run->seen);
    free(run->numbers);
    free(run->seen_ids);
    free(run->seen_counts);
    free(run->drawn);
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

static bool has_penalty(const struct sampling *run)
{
    return run->options->repetition_penalty != 1.0;
}

static plx_status create_cache(struct sampling *run)
{
    struct model_cache_config config = {.penalising = has_penalty(run)};
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

static plx_status allocate_seen(struct sampling *run, int64_t longest)
{
    const size_t V = (size_t)model_get_config(run->model)->vocab_size;
    const size_t most = (size_t)(longest + run->options->max_tokens);
    for (int64_t s = 0; s < run->side && has_penalty(run); s++) {
        run->seen[s].is = calloc(V, 1);
        run->seen[s].ids = calloc(most, sizeof *run->seen[s].ids);
        REQUIRE(run->err, run->seen[s].is != NULL && run->seen[s].ids != NULL, PLX_OUT_OF_MEMORY,
                "no memory for the ids of %zu tokens", most);
    }
    return PLX_OK;
}

/* Ids of the largest step: all prompts that can begin at once, which are those of the first texts
 * or, later, of any. */
static plx_status allocate(struct sampling *run)
{
    const int64_t V = model_get_config(run->model)->vocab_size;
    const size_t side = (size_t)run->side;
    /* Rows beyond the tokenizer's size only pad the embedding; they have no text and are never
     * drawn. */
    const int64_t known = tokenizer_vocab_size(run->tokenizer);
    int64_t longest = 0;
    for (int64_t t = 0; t < run->count; t++)
        if (run->texts[t].count > longest) longest = run->texts[t].count;
    run->vocab = known < V ? known : V;
    run->at = malloc(side * sizeof *run->at);
    run->counts = calloc(side, sizeof *run->counts);
    run->ids = calloc(side * (size_t)longest, sizeof *run->ids);
    run->numbers = calloc(side, sizeof *run->numbers);
    run->seen = calloc(side, sizeof *run->seen);
    run->seen_ids = calloc(side, sizeof *run->seen_ids);
    run->seen_counts = calloc(side, sizeof *run->seen_counts);
    run->drawn = calloc(side, sizeof *run->drawn);
    REQUIRE(run->err,
            run->at != NULL && run->counts != NULL && run->ids != NULL && run->seen != NULL &&
                run->numbers != NULL && run->seen_ids != NULL && run->seen_counts != NULL &&
                run->drawn != NULL,
            PLX_OUT_OF_MEMORY, "no memory for steps of %lld texts", (long long)run->side);
    for (int64_t s = 0; s < run->side; s++) run->at[s] = -1;
    TRY(allocate_seen(run, longest));
    return create_cache(run);
}

/* ---- Steps ---- */

/* The text in a place. */
static struct text *text_at(const struct sampling *run, int64_t s)
{
    return run->at[s] < 0 ? NULL : &run->texts[run->at[s]];
}

static void see(struct seen *seen, int32_t id)
{
    if (seen->is == NULL || seen->is[id] != 0) return;
    seen->is[id] = 1;
    seen->ids[seen->count++] = id;
}

/* Those of a prompt, and no longer those of the text before it. */
static void see_prompt(struct seen *seen, const struct text *text)
{
    for (int64_t i = 0; i < seen->count; i++) seen->is[seen->ids[i]] = 0;
    seen->count = 0;
    for (int64_t i = 0; i < text->count; i++) see(seen, text->ids[i]);
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
        see_prompt(&run->seen[s], text);
        text->begun = process_seconds();
    }
}

/* What the draw of a place is told: nothing where there is no text or it gets no token. Texts have
 * their own random numbers, so neither their company nor their place matters. */
static void prepare_draw(struct sampling *run, int64_t s)
{
    struct text *text = text_at(run, s);
    run->numbers[s] = (struct draw_numbers){0};
    run->seen_counts[s] = 0;
    if (text == NULL || text->request->report.new_tokens == run->options->max_tokens) return;
    run->numbers[s] = sample_numbers(run->options, &text->rng);
    run->seen_ids[s] = run->seen[s].ids;
    run->seen_counts[s] = run->seen[s].count;
}

/* The last counts[s] ids of every text go through the model, which draws what follows. */
static plx_status feed(struct sampling *run)
{
    const struct model_draws draws = {.vocab = run->vocab,
                                      .numbers = run->numbers,
                                      .penalty = run->options->repetition_penalty,
                                      .seen = run->seen_ids,
                                      .seen_counts = run->seen_counts,
                                      .ids = run->drawn};
    int64_t n = 0;
    for (int64_t s = 0; s < run->side; s++) {
        const struct text *text = text_at(run, s);
        for (int64_t i = run->counts[s]; i > 0; i--) run->ids[n++] = text->ids[text->count - i];
        prepare_draw(run, s);
    }
    plx_status status = model_decode_draw(run->model, run->cache, run->ids, run->counts, &draws);
    REQUIRE(run->err, status == PLX_OK, status, "decoding failed");
    const int64_t taken = model_cache_use(run->cache).taken;
    if (taken > run->report.taken) run->report.taken = taken;
    return PLX_OK;
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
    const int32_t id = run->drawn[s];
    REQUIRE(run->err, id >= 0, PLX_BAD_DATA,
            "after %lld tokens the logit of token %d is not finite", (long long)text->count,
            -1 - id);
    report->ended = ends_text(run, id);
    if (!report->ended) {
        size_t size = 0;
        const char *bytes = tokenizer_token(run->tokenizer, id, &size);
        text->ids[text->count++] = id;
        see(&run->seen[s], id);
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
