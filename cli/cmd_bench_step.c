/* cmd_bench_step.c: `parallax bench step`: times one training step of a small model on random
 * tokens, says where the time goes, and compares with the same step by the portable kernels. Two
 * limits are stated with the result: matrix products and attention take at least half of the step,
 * and the portable step is at least three times slower. Or, with --goals, the steps of larger
 * models that the project's goals are about (bench_step_goals.c). */
#include "cli.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench_step_goals.h"
#include "io/fields.h"
#include "model_run.h"
#include "process.h"
#include "progress.h"

/* The limits the project sets itself for the demo's step on two AVX-512 cores. */
#define LEAST_SHARE   0.5
#define LEAST_SPEEDUP 3.0

struct bench_step_values {
    struct train_options train; /* first: the rows of train's table hold offsets into it */
    int64_t repeat, skip;
    char *goals;
    bool peer, json;
};

/* group, key, type, field, default, value's name or choices, smallest, largest, unrecorded, help */
static const struct option_row own_rows[] = {
    {"Measuring", "repeat", OPTION_INT, offsetof(struct bench_step_values, repeat), "5", "N", 1,
     100000, false, "timed steps [with --goals 41]"},
    {NULL, "skip", OPTION_INT, offsetof(struct bench_step_values, skip), "1", "N", 0, 100000, false,
     "steps before those that are timed [with --goals 19]"},
    {NULL, "goals", OPTION_STRING, offsetof(struct bench_step_values, goals), NULL, "NAME", 0, 0,
     false,
     "instead of the model of the options those of the goals for one H200: all, parallax-adamw, "
     "parallax-muon, softmax-adamw, parallax-1.7b or parallax-selective"},
    {NULL, "peer", OPTION_BOOL, offsetof(struct bench_step_values, peer), "true", NULL, 0, 0, false,
     "time the portable kernels as well"},
    {NULL, "json", OPTION_BOOL, offsetof(struct bench_step_values, json), "false", NULL, 0, 0,
     false, "print one JSON object a line instead of the table"},
};

/* Rows of train's table that make no sense for a step on random tokens. */
static bool is_foreign(const struct option_row *row, const char *group)
{
    static const char *const running[] = {"device",      "dtype",   "kernel",
                                          "cuda_graphs", "threads", "vocab_size"};
    if (strcmp(group, "Model") == 0 || strcmp(group, "Optimisation") == 0) return false;
    for (int i = 0; i < COUNT_OF(running); i++)
        if (strcmp(row->key, running[i]) == 0) return false;
    return true;
}

/* Own rows, then train's; rows that are not offered keep their defaults through train_option_table.
 */
static const struct option_table *bench_step_table(void)
{
    static struct option_row rows[128];
    static struct option_table table;
    if (table.count > 0) return &table;
    int count = 0;
    for (int i = 0; i < COUNT_OF(own_rows); i++) rows[count++] = own_rows[i];
    const struct option_table *train = train_option_table();
    const char *group = "", *printed = "";
    for (int i = 0; i < train->count; i++) {
        if (train->rows[i].group) group = train->rows[i].group;
        if (is_foreign(&train->rows[i], group)) continue;
        rows[count] = train->rows[i];
        rows[count++].group = strcmp(printed, group) == 0 ? NULL : group;
        printed = group;
    }
    table = (struct option_table){rows, count};
    return &table;
}

static struct step_method method_of(const struct bench_step_values *values)
{
    return (struct step_method){.skip = values->skip, .repeat = values->repeat, .divide = true};
}

/* What a child process sends back. */
struct answer {
    plx_status status;
    struct error err;
    struct step_measurement measurement;
};

/* What the peer trains with: SSE 4.1 has no bf16 products, so its products are in f32 always. */
static struct train_options portable_options(const struct bench_step_values *values)
{
    static char f32[] = "f32";
    struct train_options options = values->train;
    options.portable = true;
    options.dtype = f32;
    return options;
}

/* Measures the portable kernels in a child, because oneDNN decides once in a process which
 * instructions it takes. Must come before this process's first parallel region: threads do not
 * survive a fork. */
static plx_status measure_portable(const struct bench_step_values *values,
                                   struct step_measurement *measurement, struct error *err)
{
    int ends[2];
    REQUIRE(err, pipe(ends) == 0, PLX_IO_ERROR, "a pipe cannot be made: %s", strerror(errno));
    pid_t child = fork();
    REQUIRE(err, child >= 0, PLX_IO_ERROR, "a process cannot be started: %s", strerror(errno));
    struct answer answer = {0};
    if (child == 0) {
        const struct train_options portable = portable_options(values);
        const struct step_method method = method_of(values);
        model_run_hold_portable();
        answer.status = bench_step_measure(&portable, &method, &answer.measurement, &answer.err);
        ssize_t sent = write(ends[1], &answer, sizeof answer); /* fits into a pipe: never partial */
        _exit(sent == (ssize_t)sizeof answer ? 0 : 1);
    }
    close(ends[1]);
    ssize_t received = read(ends[0], &answer, sizeof answer);
    close(ends[0]);
    waitpid(child, NULL, 0);
    REQUIRE(err, received == (ssize_t)sizeof answer, PLX_INTERNAL,
            "the process that timed the portable kernels ended without an answer");
    if (answer.status != PLX_OK) return error_set(err, answer.status, "%s", answer.err.text);
    *measurement = answer.measurement;
    return PLX_OK;
}

/* ---- Reporting ---- */

static const char *const phase_names[TIMED_PHASES] = {"gemm", "attention", "other",
                                                      "optimiser_gemm", "optimiser_other"};

/* Share of the step in matrix products and attention, Muon's products included. */
static double kernel_share(const struct step_measurement *measurement)
{
    return (measurement->phase[TIMED_GEMM] + measurement->phase[TIMED_ATTENTION] +
            measurement->phase[TIMED_OPTIMISER_GEMM]) /
           measurement->total;
}

static double tokens_per_second(const struct step_measurement *measurement)
{
    return (double)measurement->tokens / measurement->best;
}

static void print_json(const char *kernels, const struct step_measurement *measurement,
                       const struct train_options *options)
{
    json_t *object =
        json_pack("{s:s, s:s, s:s, s:s, s:I, s:I, s:f, s:f, s:f, s:f}", "bench", "step", "kernels",
                  kernels, "mixer", options->mixer, "dtype", options->dtype, "parameters",
                  (json_int_t)measurement->parameters, "tokens", (json_int_t)measurement->tokens,
                  "best_seconds", measurement->best, "median_seconds", measurement->median,
                  "tokens_per_second", tokens_per_second(measurement), "kernel_share",
                  kernel_share(measurement));
    if (!object) return;
    for (int phase = 0; phase < TIMED_PHASES; phase++)
        json_object_set_new(object, phase_names[phase],
                            json_real(measurement->phase[phase] / measurement->total));
    json_object_set_new(object, "activation_bytes",
                        json_integer((json_int_t)measurement->memory.model.activations));
    json_object_set_new(object, "build", json_string(plx_build()));
    char *text = fields_print(object, JSON_COMPACT | JSON_REAL_PRECISION(6));
    if (text) printf("%s\n", text);
    free(text);
    json_decref(object);
}

static void print_row(const char *kernels, const struct step_measurement *measurement)
{
    char rate[32];
    printf("%-10s %12s %10.1f %10.1f", kernels,
           format_count(llround(tokens_per_second(measurement)), rate), 1000 * measurement->best,
           1000 * measurement->median);
    double known = 0;
    for (int phase = 0; phase < TIMED_PHASES; phase++) {
        printf(" %7.1f %%", 100 * measurement->phase[phase] / measurement->total);
        known += measurement->phase[phase];
    }
    printf(" %7.1f %%\n", 100 * (1 - known / measurement->total));
}

static void print_limit(const char *what, double value, double least, const char *unit)
{
    printf("%-64s %6.1f %s   at least %.1f: %s\n", what, value, unit, least,
           value >= least ? "kept" : "MISSED");
}

/* The portable kernels are the CPU's. */
static plx_status drop_peer(struct bench_step_values *values, struct error *err)
{
    struct backend_config config;
    TRY(train_backend_config(&values->train, &config, err));
    values->peer = values->peer && config.ops->device == &device_cpu;
    return PLX_OK;
}

static plx_status report(struct bench_step_values *values, struct error *err)
{
    struct step_measurement fast, portable = {0};
    TRY(train_settle_dtype(&values->train, err));
    TRY(drop_peer(values, err));
    if (values->peer) TRY(measure_portable(values, &portable, err));
    const struct step_method method = method_of(values);
    TRY(bench_step_measure(&values->train, &method, &fast, err));
    if (values->json) {
        print_json("fast", &fast, &values->train);
        const struct train_options options = portable_options(values);
        if (values->peer) print_json("portable", &portable, &options);
        return PLX_OK;
    }
    char count[32], tokens[32];
    printf("%s\nstep of %s parameters on %s tokens, mixer %s, products in %s\n\n", plx_build(),
           format_count(fast.parameters, count), format_count(fast.tokens, tokens),
           values->train.mixer, values->train.dtype);
    printf("%-10s %12s %10s %10s %9s %9s %9s %9s %9s %9s\n", "kernels", "tokens/s", "best ms",
           "median ms", "gemm", "attention", "other", "opt gemm", "opt other", "outside");
    print_row("fast", &fast);
    if (values->peer) print_row("portable", &portable);
    printf("%s\n", values->peer
                       ? "portable: portable kernels, and oneDNN held to SSE 4.1, products in f32\n"
                       : "");
    print_limit("share of the step in matrix products and attention", 100 * kernel_share(&fast),
                100 * LEAST_SHARE, "%");
    if (values->peer)
        print_limit("tokens/s as a multiple of the portable kernels'",
                    tokens_per_second(&fast) / tokens_per_second(&portable), LEAST_SPEEDUP, "x");
    return PLX_OK;
}

/* The goals are stated for the median of steps 20 to 60. */
static plx_status run(const struct option_settings *settings, struct bench_step_values *values,
                      struct error *err)
{
    if (values->goals[0] == 0) return report(values, err);
    const struct step_method method = {.skip = option_is_set(settings, "skip") ? values->skip : 19,
                                       .repeat =
                                           option_is_set(settings, "repeat") ? values->repeat : 41};
    return bench_step_goals(&values->train, values->goals, &method, values->json, err);
}

static plx_status bench_step(const struct option_settings *settings, struct error *err)
{
    struct bench_step_values values = {0};
    plx_status status = options_set_defaults(train_option_table(), &values.train, err);
    if (status == PLX_OK) status = options_read(bench_step_table(), settings, &values, err);
    if (status == PLX_OK) status = run(settings, &values, err);
    free(values.goals);
    options_clear(train_option_table(), &values.train);
    return status;
}

const struct command command_bench_step = {
    .name = "bench step",
    .summary = "time a training step and say where its time goes",
    .usage = "[OPTION...]",
    .explanation =
        "Times one training step (forward, backward, optimiser) of a model on random tokens: "
        "tokens/s, and the share\n"
        "of matrix products, attention, the model's other operations and the optimiser. Then the "
        "same with the\n"
        "portable kernels, as the peer to compare with. The defaults are those of parallax train.",
    .examples = {"parallax bench step --repeat 10",
                 "parallax bench step --device cuda --goals all"},
    .table = bench_step_table,
    .max_words = 0,
    .run = bench_step,
};
