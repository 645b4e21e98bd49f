/* conformance.c: see conformance.h. */
#include "conformance.h"

#include <stdio.h>
#include <string.h>

#include "compare.h"
#include "device_memory.h"
#include "terms.h"

/* What every row of a dtype is compared with: the exact result, the naive one, how far the naive
 * one is from it, and the sizes of the terms. */
struct expected {
    const struct case_data *oracle;
    struct case_data naive;
    struct term_sizes terms;
    struct comparison base[CASE_TENSORS];
};

static void report(const struct conformance *conformance, const struct case_call *call,
                   const struct attention_case *c, const char *text)
{
    char name[256];
    case_call_name(name, sizeof name, call, c->name);
    fprintf(stderr, "FAILED %s: %s\n    again: %s --seed %llu --only %s\n", name, text,
            conformance->options->program, (unsigned long long)conformance->options->seed, name);
}

/* Same bits: NaN equals NaN. */
static bool same_values(const double *a, const double *b, int64_t count)
{
    return count == 0 || memcmp(a, b, sizeof *a * (size_t)count) == 0;
}

/* One output of one call; true where it repeats and lies within the rule. */
static bool check_output(const struct conformance *conformance, const struct attention_case *c,
                         const struct case_call *call, enum case_tensor tensor,
                         const struct case_data *got, const struct case_data *again,
                         const struct expected *expected)
{
    char text[512], detail[400];
    const struct case_data *oracle = expected->oracle;
    const struct comparison *base = &expected->base[tensor];
    int64_t count = got->counts[tensor];
    bool good = same_values(got->values[tensor], again->values[tensor], count);
    if (!good) {
        snprintf(text, sizeof text, "%s: a second run gave other bits", case_tensor_names[tensor]);
        report(conformance, call, c, text);
    }
    struct comparison kernel = compare_values(got->values[tensor], oracle->values[tensor], count);
    /* lse and t are f32 whatever the dtype of q; a wide output still has bf16 factors. */
    bool statistic = tensor == CASE_LSE || tensor == CASE_PROBE_MEAN;
    plx_dtype storage = statistic ? case_dtype(c, call, tensor) : call->dtype;
    if (compare_within(&kernel, base, storage, &expected->terms.of[tensor])) return good;
    compare_describe(detail, sizeof detail, &kernel, got->values[tensor], oracle->values[tensor],
                     got->ranks[tensor], got->shapes[tensor]);
    snprintf(text, sizeof text, "%s%s (naive: max abs %.3g, rms ratio %.3g)",
             case_tensor_names[tensor], detail, base->max_abs, base->rms_ratio);
    report(conformance, call, c, text);
    return false;
}

/* On a GPU also without the optional outputs: o must have the same bits. */
static bool check_bare(const struct conformance *conformance, const struct attention_case *c,
                       struct case_call call, const struct case_data *first)
{
    char message[512];
    struct case_data bare = case_data_copy(first);
    call.bare = true;
    bool good = case_run(c, &call, &bare, message, sizeof message) == CASE_DONE;
    if (!good) {
        report(conformance, &call, c, message);
    } else if (!same_values(bare.values[CASE_O], first->values[CASE_O], first->counts[CASE_O])) {
        report(conformance, &call, c, "o: without the optional outputs it has other bits");
        good = false;
    }
    case_data_destroy(&bare);
    return good;
}

static bool has_kernel(plx_mechanism mechanism, plx_pass pass, const char *kernel)
{
    const char *name;
    for (int n = 0; (name = plx_kernel_name(mechanism, pass, n)); n++)
        if (strcmp(name, kernel) == 0) return true;
    return false;
}

/* What backward reads, saved by the forward of the same name, because that is the pair a user runs,
 * and errors of the logits that both share cancel. A backward that has no such forward reads what
 * the library's choice saved. */
static enum case_result run_forward(const struct attention_case *c, struct case_call call,
                                    struct case_data *data, char *message, size_t size)
{
    call.pass = PLX_FORWARD;
    if (!has_kernel(call.mechanism, PLX_FORWARD, call.kernel)) call.kernel = NULL;
    return case_run(c, &call, data, message, size);
}

/* The same call twice, on the CPU with one thread and with two. The naive result is the reference
 * row's first run; decode writes what forward wrote. */
static enum case_result run_twice(const struct attention_case *c, struct case_call call,
                                  struct case_data *first, struct case_data *second, char *message,
                                  size_t size)
{
    enum case_result result = CASE_DONE;
    const bool reference = strcmp(call.kernel, "reference") == 0;
    call.threads = 1;
    if (!reference && call.pass == PLX_BACKWARD)
        result = run_forward(c, call, first, message, size);
    if (result != CASE_DONE) return result;
    *second = case_data_copy(first);
    if (!reference) result = case_run(c, &call, first, message, size);
    call.threads = 2;
    if (result == CASE_DONE) result = case_run(c, &call, second, message, size);
    return result;
}

/* For tools that slow everything down: the first run stands for both. */
static enum case_result run_once(const struct attention_case *c, struct case_call call,
                                 struct case_data *first, struct case_data *second, char *message,
                                 size_t size)
{
    enum case_result result = CASE_DONE;
    if (call.pass == PLX_BACKWARD) result = run_forward(c, call, first, message, size);
    if (result == CASE_DONE) result = case_run(c, &call, first, message, size);
    *second = case_data_copy(first);
    return result;
}

/* On a GPU also without the promise of equal bits: only the errors are judged. */
static bool check_free(const struct conformance *conformance, const struct attention_case *c,
                       struct case_call call, const struct case_data *first,
                       const struct expected *expected)
{
    char message[512];
    struct case_data free_order = case_data_copy(first);
    call.deterministic = false;
    bool good = case_run(c, &call, &free_order, message, sizeof message) == CASE_DONE;
    if (!good) report(conformance, &call, c, message);
    for (int n = 0; good && n < CASE_TENSORS; n++)
        if (case_writes(call.mechanism, call.pass, (enum case_tensor)n))
            good &= check_output(conformance, c, &call, (enum case_tensor)n, &free_order,
                                 &free_order, expected);
    case_data_destroy(&free_order);
    return good;
}

/* Everything about the outputs of two calls. */
static bool check_outputs(const struct conformance *conformance, const struct attention_case *c,
                          struct case_call call, const struct case_data *first,
                          const struct case_data *second, const struct expected *expected)
{
    bool good = true;
    if (call.device != PLX_CPU && call.pass == PLX_BACKWARD)
        good = check_free(conformance, c, call, first, expected);
    else if (call.device != PLX_CPU && !conformance->options->sanitize)
        good = check_bare(conformance, c, call, first);
    for (int n = 0; n < CASE_TENSORS; n++)
        if (case_writes(call.mechanism, call.pass, (enum case_tensor)n))
            good &=
                check_output(conformance, c, &call, (enum case_tensor)n, first, second, expected);
    return good;
}

/* Cases run in several threads, which share the counts. */
static void count(int *tally)
{
#pragma omp atomic
    ++*tally;
}

/* One row on one case. */
static void run_row(struct conformance *conformance, const struct attention_case *c,
                    struct case_call call, int row, const struct expected *expected)
{
    char message[512], name[256];
    struct conformance_tally *tally = &conformance->tallies[call.mechanism][call.pass];
    struct case_data first = case_data_copy(&expected->naive), second = {0};
    call.device = conformance->device;
    call.deterministic = true;
    case_call_name(name, sizeof name, &call, c->name);
    device_announce(name);
    const bool once = conformance->options->sanitize;
    if (once) printf("  %s\n", name), fflush(stdout);
    enum case_result result =
        (once ? run_once : run_twice)(c, call, &first, &second, message, sizeof message);
    if (result == CASE_FAILED) report(conformance, &call, c, message);
    bool good = result == CASE_REFUSED;
    if (result == CASE_DONE) good = check_outputs(conformance, c, call, &first, &second, expected);
    count(result == CASE_REFUSED ? &tally->refused[row] : &tally->ran[row]);
    if (!good) count(&tally->failed);
    case_data_destroy(&first);
    case_data_destroy(&second);
    device_announce(NULL);
}

/* On a GPU only its own rows; each other row would refuse by itself. */
static bool belongs(const struct conformance *conformance, const char *kernel)
{
    if (conformance->kernel && strcmp(kernel, conformance->kernel) != 0) return false;
    return conformance->device == PLX_CPU || strncmp(kernel, "cuda", 4) == 0;
}

/* True where a row is to run: `name` is that of the call. */
static bool wanted(const struct conformance *conformance, const struct attention_case *c,
                   const struct case_call *call)
{
    char name[256];
    case_call_name(name, sizeof name, call, c->name);
    return belongs(conformance, call->kernel) && test_options_match(conformance->options, name);
}

/* True where --only leaves something of this case to do. */
static bool any_wanted(const struct conformance *conformance, const struct attention_case *c,
                       struct case_call call, plx_pass first, plx_pass last)
{
    for (call.pass = first; call.pass <= last; call.pass++) {
        if (!case_has_pass(c, call.pass)) continue;
        for (int row = 0; plx_kernel_name(call.mechanism, call.pass, row); row++) {
            call.kernel = plx_kernel_name(call.mechanism, call.pass, row);
            if (wanted(conformance, c, &call)) return true;
        }
    }
    return false;
}

static struct case_data oracle_create(const struct attention_case *c, plx_mechanism mechanism,
                                      const struct case_data *inputs, plx_pass deepest)
{
    struct case_data oracle = case_data_copy(inputs);
    case_oracle(c, mechanism, deepest, &oracle);
    return oracle;
}

/* The naive result of every pass up to the deepest. */
static struct expected expect(struct conformance *conformance, const struct attention_case *c,
                              struct case_call call, const struct case_data *inputs,
                              plx_pass deepest, const struct case_data *oracle)
{
    char message[512];
    struct expected expected = {.oracle = oracle, .naive = case_data_copy(inputs)};
    expected.terms = term_sizes(c, call.mechanism, deepest, case_dtype(c, &call, CASE_O), oracle);
    call.kernel = "reference";
    for (call.pass = PLX_FORWARD; call.pass <= deepest; call.pass++) {
        if (case_run(c, &call, &expected.naive, message, sizeof message) == CASE_DONE) continue;
        report(conformance, &call, c, message);
        count(&conformance->tallies[call.mechanism][call.pass].failed);
    }
    for (int n = 0; n < CASE_TENSORS; n++)
        expected.base[n] =
            compare_values(expected.naive.values[n], oracle->values[n], expected.naive.counts[n]);
    return expected;
}

/* Every row of a dtype. */
static void run_dtype(struct conformance *conformance, const struct attention_case *c,
                      struct case_call call, plx_pass first, plx_pass last,
                      const struct case_data *inputs, plx_pass deepest,
                      const struct case_data *oracle)
{
    struct expected expected = expect(conformance, c, call, inputs, deepest, oracle);
    for (call.pass = first; call.pass <= last; call.pass++) {
        if (!case_has_pass(c, call.pass)) continue;
        for (int row = 0; plx_kernel_name(call.mechanism, call.pass, row); row++) {
            call.kernel = plx_kernel_name(call.mechanism, call.pass, row);
            if (wanted(conformance, c, &call)) run_row(conformance, c, call, row, &expected);
        }
    }
    case_data_destroy(&expected.naive);
}

void conformance_run(struct conformance *conformance, const struct attention_case *c,
                     plx_mechanism mechanism, const struct case_dtypes *dtypes, plx_pass first,
                     plx_pass last, uint64_t seed)
{
    const bool to_backward =
        first <= PLX_BACKWARD && last >= PLX_BACKWARD && case_has_pass(c, PLX_BACKWARD);
    const plx_pass deepest = to_backward ? PLX_BACKWARD : PLX_FORWARD;
    struct case_data inputs = {0};
    struct case_data oracle = {0};
    for (int n = 0; n < dtypes->count; n++) {
        struct case_call call = {.mechanism = mechanism, .dtype = dtypes->of[n]};
        if (!any_wanted(conformance, c, call, first, last)) continue;
        if (!inputs.values[0]) {
            inputs = case_data_create_shared(c, dtypes, seed);
            oracle = oracle_create(c, mechanism, &inputs, deepest);
        }
        run_dtype(conformance, c, call, first, last, &inputs, deepest, &oracle);
    }
    case_data_destroy(&inputs);
    case_data_destroy(&oracle);
}

int conformance_report(const struct conformance *conformance, plx_mechanism mechanism)
{
    static const char *const passes[] = {"forward", "backward", "decode"};
    int failed = 0;
    for (int pass = 0; pass < 3; pass++) {
        const struct conformance_tally *tally = &conformance->tallies[mechanism][pass];
        failed += tally->failed;
        for (int row = 0; plx_kernel_name(mechanism, (plx_pass)pass, row); row++)
            if (tally->ran[row] + tally->refused[row] > 0)
                printf("    %-9s %-14s %5d cases, %5d refused\n", passes[pass],
                       plx_kernel_name(mechanism, (plx_pass)pass, row), tally->ran[row],
                       tally->refused[row]);
    }
    fflush(stdout);
    return failed;
}
