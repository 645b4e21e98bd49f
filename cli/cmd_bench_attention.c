/* cmd_bench_attention.c: `parallax bench attention`: the attention kernels against the limits of
 * the machine. This file turns options into lists; bench_attention.c measures. */
#include "cli.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "bench_attention.h"
#include "train.h"

struct bench_attention_values {
    struct text_list passes, mechanisms, dtypes, shapes;
    char *mask, *kernel, *peer, *json;
    int64_t threads, repeat;
    double seconds;
};

#define FIELD(member) offsetof(struct bench_attention_values, member)

/* group, key, type, field, default, value's name or choices, smallest, largest, unrecorded, help */
static const struct option_row rows[] = {
    {"Cases", "pass", OPTION_LIST, FIELD(passes), NULL, "NAME...", 0, 0, false,
     "forward, backward, decode: each is timed [forward backward]"},
    {NULL, "mechanism", OPTION_LIST, FIELD(mechanisms), NULL, "NAME...", 0, 0, false,
     "parallax, softmax [both]"},
    {NULL, "dtype", OPTION_LIST, FIELD(dtypes), NULL, "NAME...", 0, 0, false,
     "f32, bf16: of the tensors [f32]"},
    {NULL, "shapes", OPTION_LIST, FIELD(shapes), NULL, "B,HQ,HKV,L,D...", 0, 0, false,
     "sequences, query heads, key/value heads, length, channels [1,4,4,4096,64 and 128]"},
    {NULL, "mask", OPTION_STRING, FIELD(mask), "both", "causal|full|both", 0, 0, false,
     "which keys a query sees"},
    {"Measuring", "kernel", OPTION_STRING, FIELD(kernel), NULL, "NAME", 0, 0, false,
     "force a kernel (parallax info lists them)"},
    {NULL, "peer", OPTION_STRING, FIELD(peer), NULL, "NAME", 0, 0, false,
     "another kernel to time beside it, such as portable"},
    {NULL, "threads", OPTION_INT, FIELD(threads), "0", "N", 0, 4096, false, "CPU threads; 0: all"},
    {NULL, "repeat", OPTION_INT, FIELD(repeat), "3", "N", 1, 100000, false,
     "timed calls of a case, at least"},
    {NULL, "seconds", OPTION_REAL, FIELD(seconds), "1", "X", 0, 3600, false,
     "seconds of a case, at least"},
    {"Output", "json", OPTION_STRING, FIELD(json), NULL, "FILE", 0, 0, false,
     "write one JSON object a case to this file as well; -: to standard output, without the table"},
};

static const struct option_table *bench_attention_table(void)
{
    static const struct option_table table = {rows, COUNT_OF(rows)};
    return &table;
}

/* ---- From words to lists ------------------------------------------------------------------- */

enum { MAX_CASES = 64 };

/* Position of every word of a list among the names, which end with NULL. */
static plx_status read_names(const struct text_list *list, const char *flag,
                             const char *const *names, int *found, struct error *err)
{
    REQUIRE(err, list->count <= MAX_CASES, PLX_INVALID_ARGUMENT, "%s: %d words are more than %d",
            flag, list->count, MAX_CASES);
    for (int i = 0; i < list->count; i++) {
        found[i] = 0;
        while (names[found[i]] && strcmp(names[found[i]], list->items[i]) != 0) found[i]++;
        REQUIRE(err, names[found[i]], PLX_INVALID_ARGUMENT,
                "%s: \"%s\" is not known; the nearest is \"%s\"", flag, list->items[i],
                nearest_word(list->items[i], names));
    }
    return PLX_OK;
}

static plx_status read_shape(const char *text, struct bench_shape *shape, struct error *err)
{
    long long n[5];
    int end = 0;
    int count = sscanf(text, "%lld,%lld,%lld,%lld,%lld%n", &n[0], &n[1], &n[2], &n[3], &n[4], &end);
    REQUIRE(err, count == 5 && text[end] == 0, PLX_INVALID_ARGUMENT,
            "--shapes: \"%s\" is not five numbers B,HQ,HKV,L,D", text);
    for (int i = 0; i < 5; i++)
        REQUIRE(err, n[i] > 0 && n[i] <= 1 << 24, PLX_INVALID_ARGUMENT,
                "--shapes: %lld in \"%s\" is not from 1 to %d", n[i], text, 1 << 24);
    REQUIRE(err, n[1] % n[2] == 0, PLX_INVALID_ARGUMENT,
            "--shapes: %lld key/value heads do not divide %lld query heads in \"%s\"", n[2], n[1],
            text);
    *shape = (struct bench_shape){n[0], n[1], n[2], n[3], n[4]};
    return PLX_OK;
}

/* What the lists of the options point to. */
struct bench_lists {
    plx_pass passes[MAX_CASES];
    plx_mechanism mechanisms[MAX_CASES];
    plx_dtype dtypes[MAX_CASES];
    struct bench_shape shapes[MAX_CASES];
};

static plx_status read_lists(const struct bench_attention_values *values, struct bench_lists *lists,
                             struct error *err)
{
    static const char *const passes[] = {"forward", "backward", "decode", NULL};
    static const char *const mechanisms[] = {"softmax", "parallax", NULL};
    static const char *const dtypes[] = {"f32", "bf16", NULL};
    int found[MAX_CASES];
    TRY(read_names(&values->passes, "--pass", passes, found, err));
    for (int i = 0; i < values->passes.count; i++) lists->passes[i] = (plx_pass)found[i];
    TRY(read_names(&values->mechanisms, "--mechanism", mechanisms, found, err));
    for (int i = 0; i < values->mechanisms.count; i++)
        lists->mechanisms[i] = (plx_mechanism)found[i];
    TRY(read_names(&values->dtypes, "--dtype", dtypes, found, err));
    for (int i = 0; i < values->dtypes.count; i++) lists->dtypes[i] = (plx_dtype)found[i];
    REQUIRE(err, values->shapes.count <= MAX_CASES, PLX_INVALID_ARGUMENT,
            "--shapes: %d shapes are more than %d", values->shapes.count, MAX_CASES);
    for (int i = 0; i < values->shapes.count; i++)
        TRY(read_shape(values->shapes.items[i], &lists->shapes[i], err));
    return PLX_OK;
}

static const char *or_null(const char *text)
{
    return text[0] ? text : NULL;
}

static plx_status measure(const struct bench_attention_values *values, FILE *json, FILE *table,
                          struct error *err)
{
    struct bench_lists lists;
    TRY(read_lists(values, &lists, err));
    bool both = strcmp(values->mask, "both") == 0;
    struct bench_attention_options options = {
        .passes = lists.passes,
        .pass_count = values->passes.count,
        .mechanisms = lists.mechanisms,
        .mechanism_count = values->mechanisms.count,
        .dtypes = lists.dtypes,
        .dtype_count = values->dtypes.count,
        .shapes = lists.shapes,
        .shape_count = values->shapes.count,
        .causal = both || strcmp(values->mask, "causal") == 0,
        .full = both || strcmp(values->mask, "full") == 0,
        .threads = (int)values->threads,
        .kernel = or_null(values->kernel),
        .peer = or_null(values->peer),
        .repetitions = (int)values->repeat,
        .seconds = values->seconds,
    };
    return bench_attention(&options, json, table, err);
}

static plx_status run_values(const struct bench_attention_values *values, struct error *err)
{
    if (strcmp(values->json, "-") == 0) return measure(values, stdout, NULL, err);
    if (values->json[0] == 0) return measure(values, NULL, stdout, err);
    FILE *json = fopen(values->json, "w");
    REQUIRE(err, json, PLX_IO_ERROR, "%s: cannot be written: %m", values->json);
    plx_status status = measure(values, json, stdout, err);
    bool written = !ferror(json);
    written = fclose(json) == 0 && written;
    if (status == PLX_OK && !written)
        return error_set(err, PLX_IO_ERROR, "%s: cannot be written: %m", values->json);
    return status;
}

static plx_status run(const struct option_settings *settings, struct error *err)
{
    struct bench_attention_values values = {0};
    plx_status status = options_read(bench_attention_table(), settings, &values, err);
    if (status == PLX_OK) status = run_values(&values, err);
    options_clear(bench_attention_table(), &values);
    return status;
}

const struct command command_bench_attention = {
    .name = "bench attention",
    .summary = "time the attention kernels against the machine's limits",
    .usage = "[OPTION...]",
    .explanation =
        "Measures what the processor can do (f32 multiply-adds in registers, rate of reading\n"
        "memory), then times attention passes and prints each as a share of that limit. Every\n"
        "combination of the listed passes, mechanisms, dtypes, shapes and masks is a case. "
        "Parallax\n"
        "counts 4 products forward and 8 backward, softmax attention 2 and 5, half of them under "
        "a\n"
        "causal mask; decode counts the bytes of keys and values once.",
    .examples = {"parallax bench attention --pass forward --shapes 1,4,4,4096,128 --peer portable",
                 "parallax bench attention --pass decode --json decode.jsonl"},
    .table = bench_attention_table,
    .min_words = 0,
    .max_words = 0,
    .run = run,
};
