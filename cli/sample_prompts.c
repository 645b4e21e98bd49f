/* sample_prompts.c: see sample_prompts.h. */
#include "sample_prompts.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/jsonl.h"
#include "process.h"
#include "text_input.h"
#include "utf8_stream.h"

/* ---- Prompts ---- */

static plx_status add_prompt(struct prompts *prompts, const char *text, size_t size,
                             struct error *err)
{
    const size_t count = (size_t)prompts->count;
    char **items = realloc(prompts->items, (count + 1) * sizeof *items);
    if (items != NULL) prompts->items = items;
    size_t *sizes = realloc(prompts->sizes, (count + 1) * sizeof *sizes);
    if (sizes != NULL) prompts->sizes = sizes;
    char *copy = malloc(size + 1);
    if (items == NULL || sizes == NULL || copy == NULL) {
        free(copy);
        return error_set(err, PLX_OUT_OF_MEMORY, "no memory for %zu prompts", count + 1);
    }
    memcpy(copy, text, size);
    copy[size] = '\0';
    prompts->items[count] = copy;
    prompts->sizes[count] = size;
    prompts->count++;
    return PLX_OK;
}

static plx_status add_lines(const char *text, size_t size, struct prompts *prompts,
                            struct error *err)
{
    for (size_t at = 0; at < size;) {
        const char *end = memchr(text + at, '\n', size - at);
        const size_t length = end != NULL ? (size_t)(end - text) - at : size - at;
        if (length > 0) TRY(add_prompt(prompts, text + at, length, err));
        at += length + 1;
    }
    return PLX_OK;
}

static plx_status add_object(const json_t *object, const struct jsonl *lines,
                             struct prompts *prompts, struct error *err)
{
    const json_t *prompt = json_object_get(object, "prompt");
    REQUIRE(err, json_is_string(prompt), PLX_BAD_DATA, "%s:%lld: has no text \"prompt\"",
            lines->name, lines->line);
    return add_prompt(prompts, json_string_value(prompt), json_string_length(prompt), err);
}

static plx_status add_objects(const char *text, size_t size, const char *path,
                              struct prompts *prompts, struct error *err)
{
    struct jsonl lines = {.data = text, .size = size, .name = path};
    for (;;) {
        json_t *object;
        TRY(jsonl_next(&lines, &object, err));
        if (object == NULL) return PLX_OK;
        plx_status status = add_object(object, &lines, prompts, err);
        json_decref(object);
        TRY(status);
    }
}

plx_status prompts_read(const char *path, struct prompts *prompts, struct error *err)
{
    static const char end[] = ".jsonl";
    const size_t length = strlen(path), tail = sizeof end - 1;
    char *text;
    size_t size;
    *prompts = (struct prompts){0};
    TRY(text_input_read(NULL, path, &text, &size, err));
    plx_status status = length > tail && strcmp(path + length - tail, end) == 0
                            ? add_objects(text, size, path, prompts, err)
                            : add_lines(text, size, prompts, err);
    free(text);
    TRY(status);
    REQUIRE(err, prompts->count > 0, PLX_BAD_DATA, "%s: holds no prompt", path);
    return PLX_OK;
}

void prompts_clear(struct prompts *prompts)
{
    for (int64_t i = 0; i < prompts->count; i++) free(prompts->items[i]);
    free(prompts->items);
    free(prompts->sizes);
    *prompts = (struct prompts){0};
}

/* ---- Answers ---- */

void print_cache_use(const struct sample_cache *cache)
{
    const double page = (double)cache->bytes / (double)cache->pages * 1e-6;
    fprintf(
        stderr,
        "cache: %lld pages of %lld tokens, %.1f MB, %lld of them taken at most; %.1f MB if each "
        "text had room for the longest\n",
        (long long)cache->pages, (long long)cache->page, page * (double)cache->pages,
        (long long)cache->taken, page * (double)cache->apart);
}

/* A text that grows in memory as valid UTF-8. The stream knows where it is, so it must not move. */
struct answer {
    char *text;
    size_t size;
    struct utf8_stream stream;
};

static bool add_bytes(void *user, const char *bytes, size_t size)
{
    struct answer *answer = user;
    utf8_stream_write(&answer->stream, bytes, size);
    return !ferror(answer->stream.file);
}

static plx_status answer_open(struct answer *answer, struct error *err)
{
    *answer = (struct answer){0};
    answer->stream.file = open_memstream(&answer->text, &answer->size);
    REQUIRE(err, answer->stream.file != NULL, PLX_OUT_OF_MEMORY, "no memory for an answer");
    return PLX_OK;
}

/* Its text as JSON; NULL where memory ran out. The answer is gone. */
static json_t *answer_close(struct answer *answer)
{
    if (answer->stream.file == NULL) return NULL;
    utf8_stream_end(&answer->stream);
    bool complete = !ferror(answer->stream.file);
    complete = fclose(answer->stream.file) == 0 && complete;
    json_t *text = complete ? json_stringn(answer->text, answer->size) : NULL;
    free(answer->text);
    *answer = (struct answer){0};
    return text;
}

static json_t *printable(const char *text, size_t size)
{
    struct answer copy;
    if (answer_open(&copy, NULL) != PLX_OK) return NULL;
    add_bytes(&copy, text, size);
    return answer_close(&copy);
}

/* Called when the text is over, in the order of the prompts. */
static plx_status print_answer(struct sample_request *text, struct error *err)
{
    const struct sample_report *report = &text->report;
    json_t *object =
        json_pack("{s:o, s:o, s:I, s:b, s:b}", "prompt", printable(text->prompt, text->size),
                  "text", answer_close(text->user), "new_tokens", (json_int_t)report->new_tokens,
                  "ended", (int)report->ended, "stopped", (int)report->stopped);
    REQUIRE(err, object != NULL, PLX_OUT_OF_MEMORY, "no memory for an answer");
    int failed = json_dumpf(object, stdout, JSON_COMPACT);
    json_decref(object);
    REQUIRE(err, failed == 0 && putchar('\n') != EOF && fflush(stdout) == 0, PLX_IO_ERROR,
            "standard output cannot be written");
    return PLX_OK;
}

static plx_status open_texts(const struct prompts *prompts, struct sample_request *texts,
                             struct answer *answers, struct error *err)
{
    for (int64_t i = 0; i < prompts->count; i++) {
        TRY(answer_open(&answers[i], err));
        texts[i] = (struct sample_request){.prompt = prompts->items[i],
                                           .size = prompts->sizes[i],
                                           .sink = add_bytes,
                                           .user = &answers[i],
                                           .done = print_answer};
    }
    return PLX_OK;
}

static void print_totals(const struct sample_request *texts, int64_t count, double seconds)
{
    int64_t prompt_tokens = 0, new_tokens = 0;
    for (int64_t i = 0; i < count; i++) {
        prompt_tokens += texts[i].report.prompt_tokens;
        new_tokens += texts[i].report.new_tokens;
    }
    fprintf(stderr, "%lld texts in %.3f s: %lld prompt tokens, %lld new tokens (%.0f tokens/s)\n",
            (long long)count, seconds, (long long)prompt_tokens, (long long)new_tokens,
            (double)new_tokens / seconds);
    print_cache_use(&texts[count - 1].report.cache);
}

plx_status prompts_sample(const struct model_run *run, const struct prompts *prompts,
                          const struct sample_options *options, bool stats, struct error *err)
{
    const int64_t count = prompts->count;
    struct sample_request *texts = calloc((size_t)count, sizeof *texts);
    struct answer *answers = calloc((size_t)count, sizeof *answers);
    plx_status status =
        texts != NULL && answers != NULL
            ? open_texts(prompts, texts, answers, err)
            : error_set(err, PLX_OUT_OF_MEMORY, "no memory for %lld texts", (long long)count);
    const double start = process_seconds();
    if (status == PLX_OK)
        status = sample_requests(run->model, run->tokenizer, texts, count, options, err);
    if (status == PLX_OK && stats) print_totals(texts, count, process_seconds() - start);
    for (int64_t i = 0; answers != NULL && i < count; i++) json_decref(answer_close(&answers[i]));
    free(answers);
    free(texts);
    return status;
}
