/* cmd_tokenizer_check.c: `parallax tokenizer check`: compares a tokenizer with recorded results of
 * another implementation. */
#include "cli.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "io/file.h"
#include "io/jsonl.h"
#include "model_run.h"

enum { SHOWN = 10 };

struct tokenizer_check_values {
    bool added, frame, special;
};

/* group, key, type, field, default, value's name or choices, smallest, largest, unrecorded, help */
static const struct option_row rows[] = {
    {"Comparison", "added", OPTION_BOOL, offsetof(struct tokenizer_check_values, added), "true",
     NULL, 0, 0, false, "names of added tokens in the text become their ids"},
    {NULL, "frame", OPTION_BOOL, offsetof(struct tokenizer_check_values, frame), "true", NULL, 0, 0,
     false, "put the tokens around it that the tokenizer asks for"},
    {NULL, "special", OPTION_BOOL, offsetof(struct tokenizer_check_values, special), "true", NULL,
     0, 0, false, "the recorded decoded text has the names of special tokens"},
};

static const struct option_table *tokenizer_check_table(void)
{
    static const struct option_table table = {rows, COUNT_OF(rows)};
    return &table;
}

/* One line of the file: {"text": .., "ids": [..], "decoded": ..}; decoded may be absent. */
struct check_case {
    const struct tokenizer *tokenizer;
    struct encoder *encoder;
    const struct tokenizer_check_values *values;
    const json_t *text, *ids, *decoded;
    int64_t count;     /* ids that were found */
    int64_t first_bad; /* the first that differs, -1: none */
    int32_t found;
    struct token_decoder decoder;
    FILE *back; /* the ids' text */
};

static plx_status compare_ids(void *user, const int32_t *ids, int64_t count, struct error *err)
{
    (void)err;
    struct check_case *check = user;
    for (int64_t i = 0; i < count; i++, check->count++) {
        const json_t *wanted = json_array_get(check->ids, (size_t)check->count);
        size_t size;
        const char *token = token_decoder_next(&check->decoder, ids[i], &size);
        fwrite(token, 1, size, check->back);
        if (check->first_bad >= 0 || (wanted != NULL && json_integer_value(wanted) == ids[i]))
            continue;
        check->first_bad = check->count;
        check->found = ids[i];
    }
    return PLX_OK;
}

static plx_status encode_case(struct check_case *check, char **back, size_t *back_size,
                              struct error *err)
{
    unsigned how =
        (check->values->added ? TOKENIZER_ADDED : 0) | (check->values->frame ? TOKENIZER_FRAME : 0);
    check->back = open_memstream(back, back_size);
    REQUIRE(err, check->back != NULL, PLX_OUT_OF_MEMORY, "no memory for a text");
    plx_status status =
        encoder_encode(check->encoder, json_string_value(check->text),
                       json_string_length(check->text), how, compare_ids, check, err);
    bool complete = fclose(check->back) == 0;
    REQUIRE(err, status != PLX_OK || complete, PLX_OUT_OF_MEMORY, "no memory for a text");
    return status;
}

/* Prints what differs; true where nothing does. */
static bool report_case(const struct check_case *check, const char *back, size_t back_size,
                        const char *name, long long line, bool shown)
{
    int64_t wanted = (int64_t)json_array_size(check->ids);
    if (check->first_bad >= 0 && check->first_bad < wanted) {
        if (shown)
            printf("%s:%lld: token %lld is %d but must be %lld\n", name, line,
                   (long long)check->first_bad, check->found,
                   (long long)json_integer_value(
                       json_array_get(check->ids, (size_t)check->first_bad)));
        return false;
    }
    if (check->count != wanted) {
        if (shown)
            printf("%s:%lld: has %lld tokens but must have %lld\n", name, line,
                   (long long)check->count, (long long)wanted);
        return false;
    }
    if (check->decoded == NULL || (json_string_length(check->decoded) == back_size &&
                                   memcmp(json_string_value(check->decoded), back, back_size) == 0))
        return true;
    if (shown) printf("%s:%lld: decodes to another text\n", name, line);
    return false;
}

static plx_status check_line(struct check_case *check, const json_t *object, const char *name,
                             long long line, int64_t *differ, struct error *err)
{
    check->text = json_object_get(object, "text");
    check->ids = json_object_get(object, "ids");
    check->decoded = json_object_get(object, "decoded");
    check->count = 0;
    check->first_bad = -1;
    check->decoder = (struct token_decoder){check->tokenizer, check->values->special, false};
    REQUIRE(err,
            json_is_string(check->text) && json_is_array(check->ids) &&
                (check->decoded == NULL || json_is_string(check->decoded)),
            PLX_BAD_DATA, "%s:%lld: must be an object with a text \"text\" and a list \"ids\"",
            name, line);
    char *back = NULL;
    size_t back_size = 0;
    plx_status status = encode_case(check, &back, &back_size, err);
    if (status == PLX_OK && !report_case(check, back, back_size, name, line, *differ < SHOWN))
        ++*differ;
    free(back);
    return status;
}

static plx_status check_cases(struct check_case *check, const char *text, size_t size,
                              const char *name, struct error *err)
{
    int64_t cases = 0, differ = 0;
    struct jsonl lines = {.data = text, .size = size, .name = name, .may_hold_nul = true};
    for (;;) {
        json_t *object;
        TRY(jsonl_next(&lines, &object, err));
        if (object == NULL) break;
        plx_status status = check_line(check, object, name, lines.line, &differ, err);
        json_decref(object);
        TRY(status);
        cases++;
    }
    printf("%lld cases, %lld differ\n", (long long)cases, (long long)differ);
    REQUIRE(err, differ == 0, PLX_BAD_DATA, "%s: %lld of %lld cases differ", name,
            (long long)differ, (long long)cases);
    REQUIRE(err, cases > 0, PLX_BAD_DATA, "%s: holds no cases", name);
    return PLX_OK;
}

static plx_status run_check(const struct option_settings *settings,
                            const struct tokenizer_check_values *values, struct error *err)
{
    struct tokenizer *tokenizer;
    const char *name = settings->positionals[1];
    TRY(model_run_open_tokenizer(settings->positionals[0], &tokenizer, err));
    struct check_case check = {.tokenizer = tokenizer, .values = values};
    char *text = NULL;
    size_t size;
    plx_status status = encoder_create(tokenizer, &check.encoder, err);
    if (status == PLX_OK) status = file_read_all(name, (size_t)1 << 30, &text, &size, err);
    if (status == PLX_OK) status = check_cases(&check, text, size, name, err);
    free(text);
    encoder_destroy(check.encoder);
    tokenizer_destroy(tokenizer);
    return status;
}

static plx_status tokenizer_check(const struct option_settings *settings, struct error *err)
{
    struct tokenizer_check_values values = {0};
    plx_status status = options_read(tokenizer_check_table(), settings, &values, err);
    if (status == PLX_OK) status = run_check(settings, &values, err);
    options_clear(tokenizer_check_table(), &values);
    return status;
}

const struct command command_tokenizer_check = {
    .name = "tokenizer check",
    .summary = "compare a tokenizer with recorded results of another implementation",
    .usage = "TOKENIZER CASES.jsonl [OPTION...]",
    .explanation =
        "Every line of CASES.jsonl is an object with \"text\", the \"ids\" that the other "
        "implementation got, and the\n"
        "text that it \"decoded\" from them, which may be absent. Prints the first ten lines that "
        "differ, and fails where\n"
        "one does.",
    .examples = {"parallax tokenizer check Qwen3-0.6B cases.jsonl",
                 "parallax tokenizer check tokenizer.model cases.jsonl --no-frame"},
    .table = tokenizer_check_table,
    .min_words = 2,
    .max_words = 2,
    .run = tokenizer_check,
};
