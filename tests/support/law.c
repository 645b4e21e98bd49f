/* law.c: see law.h. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include "law.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "compare.h"

enum { LAW_ROUNDS = 3 };

static int failures; /* of the law that is running */

static void law_name(char *text, size_t size, const struct law_row *row)
{
    struct case_call call = {
        .mechanism = row->mechanism, .pass = row->pass, .kernel = row->kernel, .dtype = row->dtype};
    case_call_name(text, size, &call, row->law);
}

static void law_fail(const struct law_row *row, const char *text)
{
    char name[256];
    law_name(name, sizeof name, row);
    failures++;
    print_error("FAILED %s: %s\n    again: %s --seed %llu --only %s\n", name, text,
                row->options->program, (unsigned long long)row->options->seed, name);
}

/* Whether the row takes this dtype on this processor at all; otherwise there is nothing to draw. */
static bool law_applies(const struct law_row *row)
{
    struct attention_case c = {"tiny", 1, 2, 2, 1, 1, 16, .causal = true};
    struct case_data data = case_data_create(&c, row->dtype, 1);
    bool applies = law_run(row, &c, &data);
    case_data_destroy(&data);
    return applies;
}

void law_check(const struct test_options *options, const char *name, plx_mechanism mechanism,
               plx_pass pass, law_function law)
{
    static const plx_dtype dtypes[] = {PLX_F32, PLX_BF16, PLX_F16};
    failures = 0;
    for (int index = 0; plx_kernel_name(mechanism, pass, index); index++) {
        for (int n = 0; n < 3; n++) {
            struct law_row row = {mechanism, pass, plx_kernel_name(mechanism, pass, index),
                                  dtypes[n], name, options};
            char full[256];
            law_name(full, sizeof full, &row);
            if (!test_options_match(options, full) || !law_applies(&row)) continue;
            /* The same shapes and values for every row, so that rows can be compared by eye. */
            struct seeded random = seeded_make(options->seed, 77);
            for (int round = 0; round < LAW_ROUNDS; round++) law(&row, &random);
        }
    }
    assert_int_equal(failures, 0);
}

int law_failures(void)
{
    return failures;
}

struct attention_case law_case(struct seeded *random, bool square)
{
    static const int64_t channels[] = {3, 8, 16, 33, 64, 80};
    struct attention_case c = {.name = "law"};
    c.B = seeded_between(random, 1, 2);
    c.G = seeded_between(random, 1, 2);
    c.H = c.G * seeded_between(random, 1, 3);
    c.D = channels[seeded_between(random, 0, 5)];
    c.T = seeded_between(random, 1, 80);
    c.S = square ? c.T : seeded_between(random, 1, 80);
    c.causal = square || seeded_between(random, 0, 1);
    return c;
}

bool law_run_as(const struct law_row *row, plx_mechanism mechanism, plx_pass pass, int threads,
                const struct attention_case *c, struct case_data *data)
{
    char message[512] = "";
    struct case_call call = {.mechanism = mechanism,
                             .pass = PLX_FORWARD,
                             .kernel = row->kernel,
                             .dtype = row->dtype,
                             .threads = threads};
    enum case_result result = CASE_DONE;
    if (pass == PLX_BACKWARD) result = case_run(c, &call, data, message, sizeof message);
    call.pass = pass;
    if (result == CASE_DONE) result = case_run(c, &call, data, message, sizeof message);
    if (result == CASE_FAILED) law_fail(row, message);
    return result == CASE_DONE;
}

bool law_run(const struct law_row *row, const struct attention_case *c, struct case_data *data)
{
    return law_run_as(row, row->mechanism, row->pass, 0, c, data);
}

struct law_limits law_limits(const struct law_row *row, const struct attention_case *c,
                             const struct case_data *data)
{
    struct law_limits limits = {{0}};
    struct case_data oracle = case_data_copy(data), naive = case_data_copy(data);
    struct law_row reference = *row;
    reference.kernel = "reference";
    case_oracle(c, row->mechanism, row->pass, &oracle);
    law_run(&reference, c, &naive);
    struct term_sizes terms = term_sizes(c, row->mechanism, row->pass, row->dtype, &oracle);
    for (int n = 0; n < CASE_TENSORS; n++) {
        if (!case_writes(row->mechanism, row->pass, (enum case_tensor)n)) continue;
        struct comparison base = compare_values(naive.values[n], oracle.values[n], data->counts[n]);
        bool statistic = n == CASE_LSE || n == CASE_PROBE_MEAN;
        plx_dtype storage = statistic ? PLX_F32 : row->dtype;
        limits.of[n] = compare_limit(&base, storage, &terms.of[n]);
    }
    case_data_destroy(&oracle);
    case_data_destroy(&naive);
    return limits;
}

void law_expect_near(const struct law_row *row, const char *what, const double *a, const double *b,
                     int64_t count, double limit)
{
    for (int64_t n = 0; n < count; n++) {
        char text[200];
        if (a[n] == b[n] || fabs(a[n] - b[n]) <= limit) continue;
        snprintf(text, sizeof text, "%s[%lld]: %.9g differs from %.9g by %.3g, more than %.3g",
                 what, (long long)n, a[n], b[n], fabs(a[n] - b[n]), limit);
        law_fail(row, text);
        return;
    }
}

void law_expect_same(const struct law_row *row, const char *what, const double *a, const double *b,
                     int64_t count)
{
    for (int64_t n = 0; n < count; n++) {
        char text[200];
        if (a[n] == b[n]) continue;
        snprintf(text, sizeof text, "%s[%lld]: %.17g must be exactly %.17g", what, (long long)n,
                 a[n], b[n]);
        law_fail(row, text);
        return;
    }
}

void law_copy_rows(const struct case_data *from, int64_t from_b, int64_t from_first,
                   struct case_data *to, int64_t to_b, int64_t to_first, int64_t count,
                   enum case_tensor tensor)
{
    const int64_t *shape = from->shapes[tensor];
    int64_t width = shape[2] * (from->ranks[tensor] == 4 ? shape[3] : 1);
    int64_t source = (from_b * shape[1] + from_first) * width;
    int64_t target = (to_b * to->shapes[tensor][1] + to_first) * width;
    memcpy(to->values[tensor] + target, from->values[tensor] + source,
           sizeof(double) * (size_t)(count * width));
}
