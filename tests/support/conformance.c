/* conformance.c: see conformance.h. */
#include "conformance.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "compare.h"
#include "device/device_memory.h"

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

/* The naive result in several orders of the channels: its error on few rows is otherwise luck. The
 * first is the plain order; its data is also what the rows read. */
enum { NAIVE_ORDERS = 4 };

struct naive_results {
    struct case_data data[NAIVE_ORDERS];
    int count;
};

/* One output of one call; true where it repeats and lies within the rule. */
static bool check_output(const struct conformance *conformance, const struct attention_case *c,
                         const struct case_call *call, enum case_tensor tensor,
                         const struct case_data *got, const struct case_data *again,
                         const struct naive_results *naive, const struct case_data *oracle)
{
    char text[512], detail[400];
    int64_t count = got->counts[tensor];
    bool good = same_values(got->values[tensor], again->values[tensor], count);
    if (!good) {
        snprintf(text, sizeof text, "%s: a second run gave other bits", case_tensor_names[tensor]);
        report(conformance, call, c, text);
    }
    struct comparison kernel = compare_values(got->values[tensor], oracle->values[tensor], count);
    struct comparison base =
        compare_values(naive->data[0].values[tensor], oracle->values[tensor], count);
    for (int n = 1; n < naive->count; n++) {
        struct comparison other =
            compare_values(naive->data[n].values[tensor], oracle->values[tensor], count);
        base.max_abs = fmax(base.max_abs, other.max_abs);
        base.rms = fmax(base.rms, other.rms);
    }
    /* lse and t are f32 whatever the dtype of q; a wide output still has bf16 factors. */
    bool statistic = tensor == CASE_LSE || tensor == CASE_PROBE_MEAN;
    plx_dtype storage = statistic ? case_dtype(c, call, tensor) : call->dtype;
    if (compare_within(&kernel, &base, storage)) return good;
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

/* One row on one case. */
static void run_row(struct conformance *conformance, const struct attention_case *c,
                    struct case_call call, int row, const struct naive_results *naive,
                    const struct case_data *oracle)
{
    char message[512], name[256];
    case_call_name(name, sizeof name, &call, c->name);
    device_announce(name);
    struct conformance_tally *tally = &conformance->tallies[call.mechanism][call.pass];
    struct case_data first = case_data_copy(&naive->data[0]);
    struct case_data second = case_data_copy(&naive->data[0]);
    call.device = conformance->device;
    call.threads = 1;
    enum case_result result = case_run(c, &call, &first, message, sizeof message);
    call.threads = 2;
    if (result == CASE_DONE) result = case_run(c, &call, &second, message, sizeof message);
    if (result == CASE_FAILED) report(conformance, &call, c, message);
    if (result == CASE_REFUSED) {
        tally->refused[row]++;
    } else {
        bool good = result == CASE_DONE;
        if (good && call.device != PLX_CPU && call.pass != PLX_BACKWARD)
            good = check_bare(conformance, c, call, &first);
        for (int n = 0; good && n < CASE_TENSORS; n++)
            if (case_writes(call.mechanism, call.pass, (enum case_tensor)n))
                good &= check_output(conformance, c, &call, (enum case_tensor)n, &first, &second,
                                     naive, oracle);
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

/* True where --only leaves something of this case to do. */
static bool wanted(const struct conformance *conformance, const struct attention_case *c,
                   struct case_call call, plx_pass first, plx_pass last)
{
    char name[256];
    for (call.pass = first; call.pass <= last; call.pass++) {
        for (int row = 0; plx_kernel_name(call.mechanism, call.pass, row); row++) {
            call.kernel = plx_kernel_name(call.mechanism, call.pass, row);
            case_call_name(name, sizeof name, &call, c->name);
            if (belongs(conformance, call.kernel) && test_options_match(conformance->options, name))
                return true;
        }
    }
    return false;
}

/* Where channel d of D goes in an order; order 0 leaves it. */
static int64_t placed(int order, int64_t d, int64_t D)
{
    if (order == 1) return D - 1 - d;
    if (order == 2) return (d + D / 2) % D;
    if (order == 3) return d % 2 ? (D + 1) / 2 + d / 2 : d / 2;
    return d;
}

static void reorder(struct case_data *data, int order, bool back)
{
    for (int n = 0; n < CASE_TENSORS; n++) {
        int64_t D = data->shapes[n][3];
        if (data->ranks[n] != 4 || D == 0) continue;
        double *row = malloc(sizeof *row * (size_t)D);
        if (!row) abort();
        for (double *x = data->values[n]; x < data->values[n] + data->counts[n]; x += D) {
            memcpy(row, x, sizeof *row * (size_t)D);
            for (int64_t d = 0; d < D; d++) {
                int64_t to = placed(order, d, D);
                x[back ? d : to] = row[back ? to : d];
            }
        }
        free(row);
    }
}

/* The reference in float, with all threads, in one order. */
static void run_naive(struct conformance *conformance, const struct attention_case *c,
                      struct case_call call, plx_pass pass, int order, struct case_data *naive)
{
    char message[512];
    call.pass = pass;
    reorder(naive, order, false);
    if (case_run(c, &call, naive, message, sizeof message) != CASE_DONE) {
        report(conformance, &call, c, message);
        conformance->tallies[call.mechanism][pass].failed++;
    }
    reorder(naive, order, true);
}

/* Fills forward, and where backward is wanted also backward, which begins from saved statistics. */
static void run_naives(struct conformance *conformance, const struct attention_case *c,
                       struct case_call call, const struct case_data *oracle, bool to_backward,
                       struct naive_results *forward, struct naive_results *backward)
{
    bool gpu = conformance->device != PLX_CPU;
    forward->count = backward->count = gpu ? NAIVE_ORDERS : 1;
    for (int n = 0; n < forward->count; n++) {
        run_naive(conformance, c, call, PLX_FORWARD, n, &forward->data[n]);
        backward->data[n] = case_data_copy(&forward->data[n]);
        if (!to_backward) continue;
        for (int x = CASE_O; gpu && x <= CASE_VALUE_MEAN; x++)
            memcpy(backward->data[n].values[x], oracle->values[x],
                   sizeof(double) * (size_t)oracle->counts[x]);
        run_naive(conformance, c, call, PLX_BACKWARD, n, &backward->data[n]);
    }
}

void conformance_run(struct conformance *conformance, const struct attention_case *c,
                     plx_mechanism mechanism, plx_dtype dtype, plx_pass first, plx_pass last,
                     uint64_t seed)
{
    char name[256];
    struct case_call call = {.mechanism = mechanism, .kernel = "reference", .dtype = dtype};
    if (!wanted(conformance, c, call, first, last)) return;
    struct case_data oracle = case_data_create(c, dtype, seed);
    struct naive_results forward = {0}, backward = {0};
    for (int n = 0; n < NAIVE_ORDERS; n++) forward.data[n] = case_data_copy(&oracle);
    bool to_backward = first <= PLX_BACKWARD && last >= PLX_BACKWARD;
    case_oracle(c, mechanism, to_backward ? PLX_BACKWARD : PLX_FORWARD, &oracle);
    run_naives(conformance, c, call, &oracle, to_backward, &forward, &backward);
    for (call.pass = first; call.pass <= last; call.pass++) {
        const struct naive_results *naive = call.pass == PLX_BACKWARD ? &backward : &forward;
        for (int row = 0; plx_kernel_name(mechanism, call.pass, row); row++) {
            call.kernel = plx_kernel_name(mechanism, call.pass, row);
            case_call_name(name, sizeof name, &call, c->name);
            if (belongs(conformance, call.kernel) && test_options_match(conformance->options, name))
                run_row(conformance, c, call, row, naive, &oracle);
        }
    }
    case_data_destroy(&oracle);
    for (int n = 0; n < NAIVE_ORDERS; n++) case_data_destroy(&forward.data[n]);
    for (int n = 0; n < backward.count; n++) case_data_destroy(&backward.data[n]);
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
