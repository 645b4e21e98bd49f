/* cmd_bench_attention.c: `parallax bench attention`: which cases bench_attention.c times. */
#include "cli.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "bench_attention.h"
#include "bench_grid.h"
#include "train.h"

/* More shapes than this in one table is a script's work. */
enum { SHAPES_MAX = 1024 };

struct bench_attention_values {
    char *device, *pass, *mechanism, *dtype, *cache, *mask;
    struct text_list shapes;
    char *grid, *kernel, *peer, *json;
    int64_t page, tokens, repeat, threads;
    double probe_offset, seconds;
    bool cold, deterministic, lengths, list_shapes, plan;
};

#define FIELD(name) offsetof(struct bench_attention_values, name)

/* group, key, type, field, default, value's name or choices, smallest, largest, unrecorded, help */
static const struct option_row rows[] = {
    {"Cases", "device", OPTION_STRING, FIELD(device), "cpu", "cpu|cuda", 0, 0, false,
     "where the kernels run"},
    {NULL, "pass", OPTION_STRING, FIELD(pass), "both", "both|forward|backward|decode", 0, 0, false,
     "both is forward and backward"},
    {NULL, "mechanism", OPTION_STRING, FIELD(mechanism), "both", "both|parallax|softmax", 0, 0,
     false, "the mechanism"},
    {NULL, "dtype", OPTION_STRING, FIELD(dtype), "auto", "auto|f32|bf16|f16", 0, 0, false,
     "of queries, keys and values; auto: f32, on CUDA bf16"},
    {NULL, "mask", OPTION_STRING, FIELD(mask), "auto", "auto|both|causal|full", 0, 0, false,
     "auto: both, on CUDA causal; decode is always causal"},
    {NULL, "shapes", OPTION_LIST, FIELD(shapes), NULL, "B,H,G,L,D...", 0, 0, false,
     "sequences, query heads, key/value heads, length, channels [the device's list]"},
    {NULL, "grid", OPTION_STRING, FIELD(grid), "none", "none|216", 0, 0, false,
     "216: 1..2048 heads x 128..32768 keys x 64, 128 channels instead"},
    {NULL, "list_shapes", OPTION_BOOL, FIELD(list_shapes), "false", NULL, 0, 0, false,
     "print the shapes, as --shapes takes them, and stop"},
    {NULL, "cold", OPTION_BOOL, FIELD(cold), "false", NULL, 0, 0, false,
     "empty the caches before every call"},
    {NULL, "page", OPTION_INT, FIELD(page), "0", "KEYS", 0, 1 << 20, false,
     "keys a page of decode's cache; 0: contiguous"},
    {NULL, "lengths", OPTION_BOOL, FIELD(lengths), "false", NULL, 0, 0, false,
     "let decode read the length of every sequence, as it does with pages"},
    {NULL, "cache", OPTION_STRING, FIELD(cache), "auto", "auto|f8e4m3", 0, 0, false,
     "of decode's keys and values; auto: the dtype"},
    {NULL, "tokens", OPTION_INT, FIELD(tokens), "1", "N", 1, 4096, false,
     "queries a sequence in decode"},
    {NULL, "deterministic", OPTION_BOOL, FIELD(deterministic), "false", NULL, 0, 0, false,
     "ask backward for the same bits on every run"},
    {NULL, "probe_offset", OPTION_REAL, FIELD(probe_offset), "0", "X", 0, 1000, false,
     "move r.k by X of its standard deviations"},
    {"Measuring", "kernel", OPTION_STRING, FIELD(kernel), NULL, "NAME", 0, 0, false,
     "force a kernel (parallax info lists them)"},
    {NULL, "peer", OPTION_STRING, FIELD(peer), NULL, "NAME", 0, 0, false,
     "kernel to time beside it, or FILE.jsonl of peer_attention.py; none [portable, on CUDA none]"},
    {NULL, "repeat", OPTION_INT, FIELD(repeat), "0", "N", 0, 1000, false,
     "samples at least; 0: the device's, 3 or 20"},
    {NULL, "seconds", OPTION_REAL, FIELD(seconds), "0", "X", 0, 3600, false,
     "timed seconds at least; 0: the device's, 1 or none"},
    {NULL, "threads", OPTION_INT, FIELD(threads), "0", "N", 0, 4096, false, "CPU threads; 0: all"},
    {NULL, "json", OPTION_STRING, FIELD(json), NULL, "FILE", 0, 0, false,
     "one JSON object a line into FILE too; -: to standard output instead of the table"},
    {NULL, "plan", OPTION_BOOL, FIELD(plan), "false", NULL, 0, 0, false,
     "print the kernel and workspace of each case and time nothing"},
};

static const struct option_table *bench_attention_table(void)
{
    static const struct option_table table = {rows, COUNT_OF(rows)};
    return &table;
}

/* "1,4,4,4096,64": five positive numbers, query heads a multiple of key/value heads. */
static plx_status parse_shape(const char *text, struct bench_shape *shape, struct error *err)
{
    int64_t *fields[] = {&shape->b, &shape->hq, &shape->hkv, &shape->l, &shape->d};
    const char *next = text;
    bool good = true;
    for (int i = 0; good && i < COUNT_OF(fields); i++) {
        char *end;
        *fields[i] = strtoll(next, &end, 10);
        good = end != next && *fields[i] > 0 && *fields[i] <= 1 << 24 &&
               *end == (i + 1 < COUNT_OF(fields) ? ',' : 0);
        next = end + 1;
    }
    REQUIRE(err, good, PLX_INVALID_ARGUMENT,
            "--shapes: \"%s\" is not five positive numbers like 1,4,4,4096,64", text);
    REQUIRE(err, shape->hq % shape->hkv == 0, PLX_INVALID_ARGUMENT,
            "--shapes: \"%s\": %lld key/value heads do not divide %lld query heads", text,
            (long long)shape->hkv, (long long)shape->hq);
    return PLX_OK;
}

static plx_status read_shapes(const struct bench_attention_values *values,
                              struct bench_shape shapes[SHAPES_MAX], int *count, struct error *err)
{
    const bool grid = strcmp(values->grid, "216") == 0;
    *count = values->shapes.count;
    REQUIRE(err, !grid || *count == 0, PLX_INVALID_ARGUMENT,
            "--grid: %s gives the shapes, and so do the %d of --shapes", values->grid, *count);
    REQUIRE(err, *count <= SHAPES_MAX, PLX_INVALID_ARGUMENT, "--shapes: %d shapes are more than %d",
            *count, SHAPES_MAX);
    for (int i = 0; i < *count; i++) TRY(parse_shape(values->shapes.items[i], &shapes[i], err));
    if (grid) *count = bench_grid(shapes);
    return PLX_OK;
}

static plx_status list_shapes(const struct bench_shape *shapes, int count, struct error *err)
{
    REQUIRE(err, count > 0, PLX_INVALID_ARGUMENT,
            "--list-shapes: needs --grid or --shapes to say which");
    for (int i = 0; i < count; i++)
        printf("%lld,%lld,%lld,%lld,%lld\n", (long long)shapes[i].b, (long long)shapes[i].hq,
               (long long)shapes[i].hkv, (long long)shapes[i].l, (long long)shapes[i].d);
    return PLX_OK;
}

/* The index of a word in a list, or -1. */
static int word_index(const char *word, const char *const *words, int count)
{
    for (int i = 0; i < count; i++)
        if (strcmp(word, words[i]) == 0) return i;
    return -1;
}

/* The lists of the options from the words of the values; a word that names no entry leaves a list
 * to its default. */
static void set_cases(const struct bench_attention_values *values,
                      struct bench_attention_options *options)
{
    static const char *const pass_words[] = {"forward", "backward", "decode"};
    static const plx_pass passes[] = {PLX_FORWARD, PLX_BACKWARD, PLX_DECODE};
    static const char *const mechanism_words[] = {"parallax", "softmax"};
    static const plx_mechanism mechanisms[] = {PLX_PARALLAX, PLX_SOFTMAX};
    static const char *const dtype_words[] = {"f32", "bf16", "f16"};
    static const plx_dtype dtypes[] = {PLX_F32, PLX_BF16, PLX_F16};
    const int pass = word_index(values->pass, pass_words, COUNT_OF(pass_words));
    const int mechanism = word_index(values->mechanism, mechanism_words, COUNT_OF(mechanism_words));
    const int dtype = word_index(values->dtype, dtype_words, COUNT_OF(dtype_words));
    if (pass >= 0) options->passes = &passes[pass], options->pass_count = 1;
    if (mechanism >= 0) options->mechanisms = &mechanisms[mechanism], options->mechanism_count = 1;
    if (dtype >= 0) options->dtypes = &dtypes[dtype], options->dtype_count = 1;
    options->causal = strcmp(values->mask, "causal") == 0 || strcmp(values->mask, "both") == 0;
    options->full = strcmp(values->mask, "full") == 0 || strcmp(values->mask, "both") == 0;
}

/* Runs with the JSON lines going where --json says. */
static plx_status run_to(const struct bench_attention_options *options, const char *json,
                         struct error *err)
{
    if (!json[0]) return bench_attention(options, NULL, stdout, err);
    if (strcmp(json, "-") == 0) return bench_attention(options, stdout, NULL, err);
    FILE *file = fopen(json, "w");
    REQUIRE(err, file, PLX_IO_ERROR, "--json: %s: cannot be written: %s", json, strerror(errno));
    plx_status status = bench_attention(options, file, stdout, err);
    const bool lost = ferror(file) != 0;
    if ((fclose(file) != 0 || lost) && status == PLX_OK)
        status = error_set(err, PLX_IO_ERROR, "--json: %s: cannot be written: %s", json,
                           strerror(errno));
    return status;
}

static plx_status run_cases(const struct bench_attention_values *values, struct error *err)
{
    struct bench_shape shapes[SHAPES_MAX];
    struct bench_attention_options options = {
        .device = values->device,
        .shapes = shapes,
        .cold = values->cold,
        .deterministic = values->deterministic,
        .page = values->page,
        .lengths = values->lengths,
        .tokens = values->tokens,
        .f8 = strcmp(values->cache, "f8e4m3") == 0,
        .probe_offset = values->probe_offset,
        .threads = (int)values->threads,
        .kernel = values->kernel[0] ? values->kernel : NULL,
        .peer = values->peer[0] ? values->peer : NULL,
        .repetitions = (int)values->repeat,
        .seconds = values->seconds,
        .plan = values->plan,
    };
    TRY(read_shapes(values, shapes, &options.shape_count, err));
    if (values->list_shapes) return list_shapes(shapes, options.shape_count, err);
    set_cases(values, &options);
    return run_to(&options, values->json, err);
}

/* An option that says something of one pass is no use to the others. */
static plx_status check_pass(const struct option_settings *settings, const char *pass,
                             struct error *err)
{
    static const char *const of_decode[] = {"page", "lengths", "cache", "tokens"};
    const bool decodes = strcmp(pass, "decode") == 0, backward = strcmp(pass, "backward") == 0;
    for (int i = 0; i < COUNT_OF(of_decode); i++)
        REQUIRE(err, decodes || !option_is_set(settings, of_decode[i]), PLX_INVALID_ARGUMENT,
                "--%s: is for --pass decode, but the pass is %s", of_decode[i], pass);
    REQUIRE(err, backward || strcmp(pass, "both") == 0 || !option_is_set(settings, "deterministic"),
            PLX_INVALID_ARGUMENT, "--deterministic: is for --pass backward, but the pass is %s",
            pass);
    return PLX_OK;
}

static plx_status bench(const struct option_settings *settings, struct error *err)
{
    struct bench_attention_values values = {0};
    plx_status status = options_read(bench_attention_table(), settings, &values, err);
    if (status == PLX_OK) status = check_pass(settings, values.pass, err);
    if (status == PLX_OK) status = run_cases(&values, err);
    options_clear(bench_attention_table(), &values);
    return status;
}

const struct command command_bench_attention = {
    .name = "bench attention",
    .summary = "time the attention kernels against what the machine can do",
    .usage = "[OPTION...]",
    .explanation =
        "Times forward, backward or decode of Parallax and softmax attention, compares a few rows "
        "with exact values,\nand states the share of the limit: on the CPU the f32 multiply-adds "
        "that it reaches in registers and the rate\nat which it reads memory, on a GPU those of "
        "its data sheet. Parallax counts as four products forward and eight\nbackward, softmax as "
        "two and five. Times on a GPU are medians: for decode of a graph of 20 calls, else of 5\n"
        "calls back to back between two events, and with cold caches of one call.",
    .examples =
        {"parallax bench attention --pass forward --mask causal",
         "parallax bench attention --device cuda --pass decode --grid 216 --json grid.jsonl"},
    .table = bench_attention_table,
    .max_words = 0,
    .run = bench,
};
