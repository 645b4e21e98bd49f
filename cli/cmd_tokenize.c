/* cmd_tokenize.c: `parallax tokenize`: text to token ids and back. */
#include "cli.h"

#include <ctype.h>
#include <jansson.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "data/utf8.h"
#include "model_run.h"
#include "process.h"
#include "text_input.h"
#include "utf8_stream.h"

struct tokenize_values {
    char *file;
    bool decode, count, json, stats;
    bool added, frame, special, raw;
};

/* group, key, type, field, default, value's name or choices, smallest, largest, unrecorded, help */
static const struct option_row rows[] = {
    {"Input", "file", OPTION_STRING, offsetof(struct tokenize_values, file), NULL, "FILE", 0, 0,
     false, "read the text, or with --decode the ids, from a file"},
    {NULL, "added", OPTION_BOOL, offsetof(struct tokenize_values, added), "true", NULL, 0, 0, false,
     "names of added tokens in the text, such as <|im_end|>, become their ids"},
    {NULL, "frame", OPTION_BOOL, offsetof(struct tokenize_values, frame), "true", NULL, 0, 0, false,
     "put the tokens around it that the tokenizer asks for (Llama's begin of text)"},
    {"Output", "decode", OPTION_BOOL, offsetof(struct tokenize_values, decode), "false", NULL, 0, 0,
     false, "from ids, separated by white space or commas, to text"},
    {NULL, "special", OPTION_BOOL, offsetof(struct tokenize_values, special), "true", NULL, 0, 0,
     false, "write the names of special tokens when decoding"},
    {NULL, "raw", OPTION_BOOL, offsetof(struct tokenize_values, raw), "false", NULL, 0, 0, false,
     "write decoded bytes as they are; otherwise invalid UTF-8 becomes U+FFFD"},
    {NULL, "count", OPTION_BOOL, offsetof(struct tokenize_values, count), "false", NULL, 0, 0,
     false, "print only how many ids there are"},
    {NULL, "json", OPTION_BOOL, offsetof(struct tokenize_values, json), "false", NULL, 0, 0, false,
     "print one JSON object: count and ids, or text"},
    {NULL, "stats", OPTION_BOOL, offsetof(struct tokenize_values, stats), "false", NULL, 0, 0,
     false, "print counts and speed on stderr"},
};

static const struct option_table *tokenize_table(void)
{
    static const struct option_table table = {rows, COUNT_OF(rows)};
    return &table;
}

/* ---- To ids ---- */

struct printer {
    bool silent;
    const char *between, *next; /* what separates ids, and what stands before the next one */
    int64_t count;
};

static plx_status print_ids(void *user, const int32_t *ids, int64_t count, struct error *err)
{
    (void)err;
    struct printer *printer = user;
    printer->count += count;
    if (printer->silent) return PLX_OK;
    for (int64_t i = 0; i < count; i++) {
        printf("%s%d", printer->next, ids[i]);
        printer->next = printer->between;
    }
    return PLX_OK;
}

static void print_stats(size_t bytes, int64_t tokens, double seconds)
{
    fprintf(stderr, "%zu bytes, %lld tokens, %.4f s, %.1f MB/s\n", bytes, (long long)tokens,
            seconds, (double)bytes / seconds / 1e6);
}

static plx_status encode_text(const struct tokenizer *tokenizer,
                              const struct tokenize_values *values, const char *text, size_t size,
                              struct error *err)
{
    unsigned how = (values->added ? TOKENIZER_ADDED : 0) | (values->frame ? TOKENIZER_FRAME : 0);
    struct printer printer = {.silent = values->count, .between = " ", .next = ""};
    if (values->json) {
        printer.between = ",";
        printf("{");
        if (!values->count) printf("\"ids\":[");
    }
    struct encoder *encoder;
    TRY(encoder_create(tokenizer, &encoder, err));
    double start = process_seconds();
    plx_status status = encoder_encode(encoder, text, size, how, print_ids, &printer, err);
    double seconds = process_seconds() - start;
    encoder_destroy(encoder);
    if (status != PLX_OK) return status;
    if (values->json)
        printf("%s\"count\":%lld}\n", values->count ? "" : "],", (long long)printer.count);
    else if (values->count)
        printf("%lld\n", (long long)printer.count);
    else
        printf("\n");
    if (values->stats) print_stats(size, printer.count, seconds);
    return PLX_OK;
}

/* ---- To text ---- */

/* The next id of a list, skipping what may stand between: white space, commas, brackets. *at is
 * moved behind it; false at the end. */
static bool next_id(const char **at, const char *end, int64_t vocab, int32_t *id,
                    plx_status *status, struct error *err)
{
    while (*at < end && (isspace((unsigned char)**at) || strchr(",[]", **at) != NULL)) ++*at;
    if (*at == end) return false;
    char *behind;
    long long number = strtoll(*at, &behind, 10);
    if (behind == *at)
        *status = error_set(err, PLX_INVALID_ARGUMENT, "the ids: there is no number at \"%s\"",
                            utf8_quote(*at).text);
    else if (number < 0 || number >= vocab)
        *status =
            error_set(err, PLX_INVALID_ARGUMENT, "the ids: %lld is not in the vocabulary of %lld",
                      number, (long long)vocab);
    *at = behind;
    *id = (int32_t)number;
    return *status == PLX_OK;
}

static plx_status decode_to(FILE *file, const struct tokenizer *tokenizer,
                            const struct tokenize_values *values, const char *text, size_t size,
                            struct error *err)
{
    struct utf8_stream stream = {.file = file};
    plx_status status = PLX_OK;
    struct token_decoder decoder = {tokenizer, values->special, false};
    int32_t id;
    for (const char *at = text, *end = text + size;
         next_id(&at, end, tokenizer_vocab_size(tokenizer), &id, &status, err);) {
        size_t bytes;
        const char *token = token_decoder_next(&decoder, id, &bytes);
        if (values->raw)
            fwrite(token, 1, bytes, file);
        else
            utf8_stream_write(&stream, token, bytes);
    }
    utf8_stream_end(&stream);
    return status;
}

static plx_status decode_ids(const struct tokenizer *tokenizer,
                             const struct tokenize_values *values, const char *text, size_t size,
                             struct error *err)
{
    REQUIRE(err, !(values->json && values->raw), PLX_INVALID_ARGUMENT,
            "--raw: JSON cannot hold bytes that are no text");
    char *decoded = NULL;
    size_t length = 0;
    FILE *memory = open_memstream(&decoded, &length);
    REQUIRE(err, memory != NULL, PLX_OUT_OF_MEMORY, "no memory for the text");
    plx_status status = decode_to(memory, tokenizer, values, text, size, err);
    bool complete = fclose(memory) == 0;
    if (status == PLX_OK && !complete)
        status = error_set(err, PLX_OUT_OF_MEMORY, "no memory for the text");
    if (status == PLX_OK && values->json) {
        json_t *object = json_pack("{s:s%}", "text", decoded, length);
        if (json_dumpf(object, stdout, JSON_COMPACT) != 0)
            status = error_set(err, PLX_OUT_OF_MEMORY, "no memory for the text");
        json_decref(object);
        printf("\n");
    } else if (status == PLX_OK) {
        fwrite(decoded, 1, length, stdout);
        if (!values->raw) printf("\n");
    }
    free(decoded);
    return status;
}

/* ---- The command ---- */

static plx_status run_tokenize(const struct option_settings *settings,
                               const struct tokenize_values *values, struct error *err)
{
    struct tokenizer *tokenizer;
    TRY(model_run_open_tokenizer(settings->positionals[0], &tokenizer, err));
    const char *word = settings->positional_count > 1 ? settings->positionals[1] : NULL;
    char *text = NULL;
    size_t size;
    plx_status status = text_input_read(word, values->file, &text, &size, err);
    if (status == PLX_OK)
        status = values->decode ? decode_ids(tokenizer, values, text, size, err)
                                : encode_text(tokenizer, values, text, size, err);
    free(text);
    tokenizer_destroy(tokenizer);
    return status;
}

static plx_status tokenize(const struct option_settings *settings, struct error *err)
{
    struct tokenize_values values = {0};
    plx_status status = options_read(tokenize_table(), settings, &values, err);
    if (status == PLX_OK) status = run_tokenize(settings, &values, err);
    options_clear(tokenize_table(), &values);
    return status;
}

const struct command command_tokenize = {
    .name = "tokenize",
    .summary = "turn text into token ids, or ids into text",
    .usage = "TOKENIZER [TEXT|-] [OPTION...]",
    .explanation =
        "Prints the ids of a text, which is the argument, a file, or standard input. TOKENIZER is "
        "a model folder, a\n"
        "run folder, a tokenizer.json of Hugging Face (byte-level BPE: GPT-2, Qwen, Llama-3 and "
        "their like), or a\n"
        "tokenizer.model of SentencePiece.",
    .examples = {"parallax tokenize run \"Once upon a time\"",
                 "parallax tokenize tokenizer.json --file book.txt --count --stats"},
    .table = tokenize_table,
    .min_words = 1,
    .max_words = 2,
    .run = tokenize,
};
