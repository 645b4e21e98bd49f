/* cmd_bench_attention.c: `parallax bench attention`: which cases bench_attention.c times. */
#include "cli.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "bench_attention.h"
#include "train.h"

/* More shapes than this in one table is a script's work. */
enum { SHAPES_MAX = 64 };

struct bench_attention_values {
    char *pass, *mechanism, *dtype, *mask;
    struct text_list shape;
    char *kernel, *peer;
    int64_t repeat, threads;
    double seconds;
    bool json;
};

/* group, key, type, field, default, value's name or choices, smallest, largest, unrecorded, help */
static const struct option_row rows[] = {
    {"Cases", "pass", OPTION_STRING, offsetof(struct bench_attention_values, pass), "both",
     "both|forward|backward|decode", 0, 0, false, "both is forward and backward"},
    {NULL, "mechanism", OPTION_STRING, offsetof(struct bench_attention_values, mechanism), "both",
     "both|parallax|softmax", 0, 0, false, "the mechanism"},
    {NULL, "dtype", OPTION_STRING, offsetof(struct bench_attention_values, dtype), "f32",
     "f32|bf16", 0, 0, false, "of queries, keys and values"},
    {NULL, "mask", OPTION_STRING, offsetof(struct bench_attention_values, mask), "both",
     "both|causal|full", 0, 0, false, "decode is always causal"},
    {NULL, "shape", OPTION_LIST, offsetof(struct bench_attention_values, shape), NULL,
     "B,H,G,L,D...", 0, 0, false,
     "sequences, query heads, key/value heads, length, channels [1,4,4,4096,64 1,4,4,4096,128; "
     "decode 1,8,1,32768,128]"},
    {"Measuring", "kernel", OPTION_STRING, offsetof(struct bench_attention_values, kernel), NULL,
     "NAME", 0, 0, false, "force a kernel (parallax info lists them)"},
    {NULL, "peer", OPTION_STRING, offsetof(struct bench_attention_values, peer), "portable", "NAME",
     0, 0, false, "kernel to time beside it; none: no peer"},
    {NULL, "repeat", OPTION_INT, offsetof(struct bench_attention_values, repeat), "3", "N", 1,
     1000000, false, "timed calls at least"},
    {NULL, "seconds", OPTION_REAL, offsetof(struct bench_attention_values, seconds), "1", "X",
     0.001, 3600, false, "timed seconds at least"},
    {NULL, "threads", OPTION_INT, offsetof(struct bench_attention_values, threads), "0", "N", 0,
     4096, false, "CPU threads; 0: all"},
    {NULL, "json", OPTION_BOOL, offsetof(struct bench_attention_values, json), "false", NULL, 0, 0,
     false, "print one JSON object a line instead of the table"},
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
            "--shape: \"%s\" is not five positive numbers like 1,4,4,4096,64", text);
    REQUIRE(err, shape->hq % shape->hkv == 0, PLX_INVALID_ARGUMENT,
            "--shape: \"%s\": %lld key/value heads do not divide %lld query heads", text,
            (long long)shape->hkv, (long long)shape->hq);
    return PLX_OK;
}

static plx_status run_cases(const struct bench_attention_values *values, struct error *err)
{
    static const plx_pass passes[] = {PLX_FORWARD, PLX_BACKWARD, PLX_DECODE};
    static const plx_mechanism mechanisms[] = {PLX_PARALLAX, PLX_SOFTMAX};
    struct bench_shape shapes[SHAPES_MAX];
    REQUIRE(err, values->shape.count <= SHAPES_MAX, PLX_INVALID_ARGUMENT,
            "--shape: %d shapes are more than %d", values->shape.count, SHAPES_MAX);
    for (int i = 0; i < values->shape.count; i++)
        TRY(parse_shape(values->shape.items[i], &shapes[i], err));
    const char *pass = values->pass, *mechanism = values->mechanism, *mask = values->mask;
    plx_dtype dtype = strcmp(values->dtype, "bf16") == 0 ? PLX_BF16 : PLX_F32;
    struct bench_attention_options options = {
        .passes = passes,
        .pass_count = 2,
        .mechanisms = mechanisms,
        .mechanism_count = 2,
        .dtypes = &dtype,
        .dtype_count = 1,
        .shapes = shapes,
        .shape_count = values->shape.count,
        .causal = strcmp(mask, "full") != 0,
        .full = strcmp(mask, "causal") != 0,
        .threads = (int)values->threads,
        .kernel = values->kernel[0] ? values->kernel : NULL,
        .peer = values->peer[0] && strcmp(values->peer, "none") != 0 ? values->peer : NULL,
        .repetitions = (int)values->repeat,
        .seconds = values->seconds,
    };
    if (strcmp(pass, "both") != 0) {
        options.passes = &passes[strcmp(pass, "forward") == 0    ? 0
                                 : strcmp(pass, "backward") == 0 ? 1
                                                                 : 2];
        options.pass_count = 1;
    }
    if (strcmp(mechanism, "both") != 0) {
        options.mechanisms = &mechanisms[strcmp(mechanism, "softmax") == 0];
        options.mechanism_count = 1;
    }
    return bench_attention(&options, values->json ? stdout : NULL, values->json ? NULL : stdout,
                           err);
}

static plx_status bench(const struct option_settings *settings, struct error *err)
{
    struct bench_attention_values values = {0};
    plx_status status = options_read(bench_attention_table(), settings, &values, err);
    if (status == PLX_OK) status = run_cases(&values, err);
    options_clear(bench_attention_table(), &values);
    return status;
}

const struct command command_bench_attention = {
    .name = "bench attention",
    .summary = "time the attention kernels against what the machine can do",
    .usage = "[OPTION...]",
    .explanation =
        "Times forward, backward or decode of Parallax and softmax attention and states the "
        "share of the limit:\nthe f32 multiply-adds that this machine reaches in registers, "
        "or for decode the rate at which it reads\nmemory. Parallax counts as four products "
        "forward and eight backward, softmax as two and five.",
    .examples =
        {"parallax bench attention --pass forward --mask causal",
         "parallax bench attention --pass decode --shape 1,8,2,16384,64 --dtype bf16 --json"},
    .table = bench_attention_table,
    .max_words = 0,
    .run = bench,
};
