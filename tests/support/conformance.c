/* conformance.c: see conformance.h. */
#include "conformance.h"

#include <stdio.h>
#include <string.h>

#include "compare.h"
#include "device/device_memory.h"
#include "terms.h"

/* What every row is compared with. */
struct expected {
    struct case_data oracle, naive;
    struct term_sizes terms;
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
    const struct case_data *naive = &expected->naive, *oracle = &expected->oracle;
    int64_t count = got->counts[tensor];
    bool good = same_values(got->values[tensor], again->values[tensor], count);
    if (!good) {
        snprintf(text, sizeof text, "%s: a second run gave other bits", case_tensor_names[tensor]);
        report(conformance, call, c, text);
    }
    struct comparison kernel = compare_values(got->values[tensor], oracle->values[tensor], count);
    struct comparison base = compare_values(naive->values[tensor], oracle->values[tensor], count);
    /* lse and t are f32 whatever the dtype of q; a wide output still has bf16 factors. */
    bool statistic = tensor == CASE_LSE || tensor == CASE_PROBE_MEAN;
    plx_dtype storage = statistic ? case_dtype(c, call, tensor) : call->dtype;
    if (compare_within(&kernel, &base, storage, &expected->terms.of[tensor])) return good;
    compare_describe(detail, sizeof detail, &kernel, got->values[tensor], oracle->values[tensor],
                     got->ranks[tensor], got->shapes[tensor]);
    snprintf(text, sizeof text, "%s%s (naive: max abs %.3g, rms ratio %.3g)",
             case_tensor_names[tensor], detail, base.max_abs, base.rms_ratio);
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

/* One call. What backward reads was saved by the forward of the same name, because that is the pair
 * a user runs, and errors of the logits that both share cancel. */
static enum case_result run_pass(const struct attention_case *c, struct case_call call,
                                 struct case_data *data, char *message, size_t size)
{
    if (call.pass == PLX_BACKWARD) {
        struct case_call forward = call;
        forward.pass = PLX_FORWARD;
        enum case_result result = case_run(c, &forward, data, message, size);
        if (result != CASE_DONE) return result;
    }
    return case_run(c, &call, data, message, size);
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

/* One row on one case. */
static void run_row(struct conformance *conformance, const struct attention_case *c,
                    struct case_call call, int row, const struct expected *expected)
{
    char message[512], name[256];
    case_call_name(name, sizeof name, &call, c->name);
    device_announce(name);
    struct conformance_tally *tally = &conformance->tallies[call.mechanism][call.pass];
    struct case_data first = case_data_copy(&expected->naive), second = case_data_copy(&first);
    call.device = conformance->device;
    call.threads = 1;
    call.deterministic = true;
    /* The naive result is the reference row's first run; decode writes what forward wrote. */
    enum case_result result = CASE_DONE;
    if (strcmp(call.kernel, "reference") != 0)
        result = run_pass(c, call, &first, message, sizeof message);
    call.threads = 2;
    if (result == CASE_DONE) result = run_pass(c, call, &second, message, sizeof message);
    if (result == CASE_FAILED) report(conformance, &call, c, message);
    if (result == CASE_REFUSED) {
        tally->refused[row]++;
    } else {
        bool good = result == CASE_DONE;
        if (good && call.device != PLX_CPU && call.pass != PLX_BACKWARD)
            good = check_bare(conformance, c, call, &first);
        if (good && call.device != PLX_CPU && call.pass == PLX_BACKWARD)
            good = check_free(conformance, c, call, &first, expected);
        for (int n = 0; result == CASE_DONE && n < CASE_TENSORS; n++)
            if (case_writes(call.mechanism, call.pass, (enum case_tensor)n))
                good &= check_output(conformance, c, &call, (enum case_tensor)n, &first, &second,
                                     expected);
        tally->ran[row]++;
        tally->failed += !good;
    }
    case_data_destroy(&first);
    case_data_destroy(&second);
    device_announce("nothing");
}

/* On a GPU only its own rows; each other row says so by itself, but not before its memory is there.
 */
static bool belongs(const struct conformance *conformance, const char *kernel)
{
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

/* The oracle, and the naive result of every pass up to the deepest. */
static struct expected expect(struct conformance *conformance, const struct attention_case *c,
                              struct case_call call, plx_pass deepest, uint64_t seed)
{
    char message[512];
    struct expected expected = {.oracle = case_data_create(c, call.dtype, seed)};
    expected.naive = case_data_copy(&expected.oracle);
    case_oracle(c, call.mechanism, deepest, &expected.oracle);
    expected.terms =
        term_sizes(c, call.mechanism, deepest, case_dtype(c, &call, CASE_O), &expected.oracle);
    call.threads = 1;
    for (call.pass = PLX_FORWARD; call.pass <= deepest; call.pass++) {
        if (case_run(c, &call, &expected.naive, message, sizeof message) == CASE_DONE) continue;
        report(conformance, &call, c, message);
        conformance->tallies[call.mechanism][call.pass].failed++;
    }
    return expected;
}

void conformance_run(struct conformance *conformance, const struct attention_case *c,
                     plx_mechanism mechanism, plx_dtype dtype, plx_pass first, plx_pass last,
                     uint64_t seed)
{
    struct case_call call = {.mechanism = mechanism, .kernel = "reference", .dtype = dtype};
    if (!any_wanted(conformance, c, call, first, last)) return;
    bool to_backward =
        first <= PLX_BACKWARD && last >= PLX_BACKWARD && case_has_pass(c, PLX_BACKWARD);
    struct expected expected =
        expect(conformance, c, call, to_backward ? PLX_BACKWARD : PLX_FORWARD, seed);
    for (call.pass = first; call.pass <= last; call.pass++) {
        if (!case_has_pass(c, call.pass)) continue;
        for (int row = 0; plx_kernel_name(mechanism, call.pass, row); row++) {
            call.kernel = plx_kernel_name(mechanism, call.pass, row);
            if (wanted(conformance, c, &call)) run_row(conformance, c, call, row, &expected);
        }
    }
    case_data_destroy(&expected.oracle);
    case_data_destroy(&expected.naive);
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
