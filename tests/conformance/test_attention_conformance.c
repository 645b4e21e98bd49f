/* test_attention_conformance.c: every kernel row x pass x dtype x case against the double oracle.
 *
 * Rows are enumerated through plx_kernel_name, so a new kernel is covered by being in its table. A
 * case is drawn once a dtype; the oracle (reference in double, proven by finite differences) and
 * the naive result (reference in float, same storage dtype) are computed once; then every row that
 * accepts the case runs twice, with one thread and with two, on poisoned guarded memory, and must
 * give the same bits both times and an error within the rule of compare.h. Backward reads what the
 * naive forward saved, so its error is its own. `--only parallax/backward/portable` and `--seed N`
 * repeat a part. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "attention_case.h"
#include "compare.h"

static struct test_options options;

static const int32_t ragged_q[] = {37, 0, 64, 1}, ragged_k[] = {37, 5, 64, 70};
static const int32_t short_k[] = {3, 0, 33};
static const int32_t packed_q[] = {0, 5, 5, 69, 70, 130};
static const int32_t packed_k[] = {0, 9, 12, 12, 100, 117};

/* B, T, S, H, G, D, then what differs from full dense attention over normal values. */
static const struct attention_case cases[] = {
    /* Lengths: nothing, one, and around the tile sizes. */
    {"length_0", 2, 0, 0, 2, 1, 64, .causal = true},
    {"no_queries", 2, 0, 5, 2, 1, 64, .causal = true},
    {"no_keys", 2, 5, 0, 2, 1, 64, .causal = false},
    {"length_1", 2, 1, 1, 2, 1, 64, .causal = true},
    {"length_2", 1, 2, 2, 2, 2, 64, .causal = true},
    {"length_63", 1, 63, 63, 2, 1, 64, .causal = true},
    {"length_64", 1, 64, 64, 2, 1, 64, .causal = true},
    {"length_65", 1, 65, 65, 2, 1, 64, .causal = true},
    {"length_65_full", 2, 65, 65, 2, 1, 64, .causal = false},
    {"length_127", 1, 127, 127, 1, 1, 64, .causal = true},
    {"length_128", 1, 128, 128, 1, 1, 128, .causal = true},
    {"length_129", 1, 129, 129, 1, 1, 64, .causal = true},
    {"length_129_full", 1, 129, 129, 1, 1, 64, .causal = false},
    {"length_1000", 1, 1000, 1000, 1, 1, 16, .causal = true},
    {"length_4096_window", 1, 4096, 4096, 1, 1, 16, .causal = true, .window = 100},
    {"cache_4096", 1, 3, 4096, 2, 1, 64, .causal = true},
    /* T != S. */
    {"T_less_causal", 2, 33, 100, 2, 1, 64, .causal = true},
    {"T_less_full", 1, 33, 100, 2, 1, 64, .causal = false},
    {"T_more_causal", 2, 100, 33, 2, 1, 64, .causal = true},
    {"T_more_full", 1, 100, 33, 2, 1, 64, .causal = false},
    {"one_query", 2, 1, 300, 4, 2, 64, .causal = true},
    {"four_queries", 1, 4, 257, 4, 1, 128, .causal = true},
    /* Heads. */
    {"gqa_1", 1, 33, 33, 4, 4, 32, .causal = true},
    {"gqa_2", 2, 33, 33, 4, 2, 32, .causal = true},
    {"gqa_4", 1, 33, 33, 4, 1, 32, .causal = true},
    {"gqa_8", 1, 33, 33, 8, 1, 64, .causal = true},
    {"gqa_3", 1, 33, 33, 6, 2, 32, .causal = true},
    {"gqa_5", 1, 33, 33, 5, 1, 32, .causal = true},
    {"gqa_7", 1, 17, 40, 14, 2, 32, .causal = true},
    /* Head channels. */
    {"D_1", 1, 40, 40, 2, 1, 1, .causal = true},
    {"D_3", 1, 40, 40, 2, 1, 3, .causal = true},
    {"D_16", 1, 40, 40, 2, 1, 16, .causal = true},
    {"D_60", 1, 40, 40, 2, 1, 60, .causal = true},
    {"D_80", 1, 70, 70, 2, 1, 80, .causal = true},
    {"D_100", 1, 40, 40, 2, 1, 100, .causal = true},
    {"D_128", 1, 70, 70, 2, 1, 128, .causal = true},
    {"D_200", 1, 40, 40, 2, 1, 200, .causal = true},
    {"D_256", 1, 70, 70, 2, 1, 256, .causal = true},
    {"D_300", 1, 20, 20, 1, 1, 300, .causal = true},
    /* Windows: the tile edges, a window over several tiles, and one wider than everything. */
    {"window_1", 1, 70, 70, 2, 1, 64, .causal = true, .window = 1},
    {"window_7", 1, 130, 130, 2, 1, 64, .causal = true, .window = 7},
    {"window_200", 1, 1024, 1024, 1, 1, 16, .causal = true, .window = 200},
    {"window_wide", 1, 70, 70, 2, 1, 64, .causal = true, .window = 1000},
    {"window_T_less", 1, 20, 150, 2, 1, 64, .causal = true, .window = 65},
    {"window_T_more", 1, 150, 20, 2, 1, 64, .causal = true, .window = 9},
    /* Memory. */
    {"padded", 2, 66, 66, 4, 2, 64, .causal = true, .view = VIEW_PADDED},
    {"padded_odd", 1, 35, 50, 2, 1, 60, .view = VIEW_PADDED},
    {"head_major", 2, 66, 66, 4, 2, 64, .causal = true, .view = VIEW_HEAD_MAJOR},
    {"wide", 2, 66, 66, 4, 2, 64, .causal = true, .wide = true},
    {"wide_padded", 1, 40, 70, 2, 1, 80, .wide = true, .view = VIEW_PADDED},
    /* Layouts. */
    {"ragged", 4, 64, 70, 2, 1, 64, .causal = true, .q_lengths = ragged_q, .k_lengths = ragged_k},
    {"ragged_full", 4, 64, 70, 2, 1, 64, .q_lengths = ragged_q, .k_lengths = ragged_k},
    {"ragged_keys", 3, 33, 33, 2, 1, 64, .causal = true, .k_lengths = short_k},
    {"ragged_queries", 4, 64, 64, 2, 1, 64, .causal = true, .q_lengths = ragged_q},
    {"packed", 1, 130, 130, 4, 2, 64, .causal = true, .q_offsets = packed_q, .sequences = 5},
    {"packed_full", 1, 130, 130, 2, 1, 64, .q_offsets = packed_q, .sequences = 5},
    {"packed_window", 1, 130, 130, 2, 1, 64, .causal = true, .window = 20, .q_offsets = packed_q,
     .sequences = 5},
    {"packed_keys", 1, 130, 117, 2, 1, 64, .causal = true, .q_offsets = packed_q,
     .k_offsets = packed_k, .sequences = 5},
    {"packed_keys_full", 1, 130, 117, 2, 1, 64, .q_offsets = packed_q, .k_offsets = packed_k,
     .sequences = 5},
    /* Values. */
    {"scale", 1, 66, 66, 2, 1, 64, .causal = true, .scale = 0.03},
    {"negative_scale", 1, 66, 66, 2, 1, 64, .causal = true, .scale = -0.1},
    {"large_logits", 1, 150, 150, 2, 1, 64, .causal = true, .values = VALUES_LARGE},
    {"constant_rows", 1, 66, 66, 2, 1, 64, .causal = true, .values = VALUES_CONSTANT},
    {"one_hot", 1, 66, 66, 2, 1, 64, .causal = true, .values = VALUES_ONE_HOT},
    {"key_offset", 1, 150, 150, 2, 1, 64, .causal = true, .values = VALUES_OFFSET},
    {"nan_query", 1, 66, 66, 2, 1, 64, .causal = true, .values = VALUES_NAN_QUERY},
};

enum { CASES = sizeof cases / sizeof cases[0], MAX_ROWS = 16 };

/* Counts of one mechanism and pass. */
struct tally {
    int ran[MAX_ROWS], refused[MAX_ROWS], failed;
};

static void report(const struct case_call *call, const struct attention_case *c, const char *text)
{
    char name[256];
    case_call_name(name, sizeof name, call, c->name);
    print_error("FAILED %s: %s\n    again: %s --seed %llu --only %s\n", name, text, options.program,
                (unsigned long long)options.seed, name);
}

/* Same bits: NaN equals NaN. */
static bool same_values(const double *a, const double *b, int64_t count)
{
    return count == 0 || memcmp(a, b, sizeof *a * (size_t)count) == 0;
}

/* Compares what one call wrote with the oracle and with its repetition; true where all holds. */
static bool check_outputs(const struct attention_case *c, const struct case_call *call,
                          const struct case_data *got, const struct case_data *again,
                          const struct case_data *naive, const struct case_data *oracle)
{
    bool good = true;
    for (int n = 0; n < CASE_TENSORS; n++) {
        enum case_tensor tensor = (enum case_tensor)n;
        char text[512], detail[400];
        if (!case_writes(call->mechanism, call->pass, tensor)) continue;
        int64_t count = got->counts[n];
        if (!same_values(got->values[n], again->values[n], count)) {
            snprintf(text, sizeof text, "%s: a second run with two threads gave other bits",
                     case_tensor_names[n]);
            report(call, c, text);
            good = false;
        }
        struct comparison kernel = compare_values(got->values[n], oracle->values[n], count);
        struct comparison base = compare_values(naive->values[n], oracle->values[n], count);
        /* lse and t are f32 whatever the dtype of q; a wide output still has bf16 factors. */
        bool statistic = n == CASE_LSE || n == CASE_PROBE_MEAN;
        plx_dtype storage = statistic ? case_dtype(c, call, tensor) : call->dtype;
        if (compare_within(&kernel, &base, storage)) continue;
        compare_describe(detail, sizeof detail, &kernel, got->values[n], oracle->values[n],
                         got->ranks[n], got->shapes[n]);
        snprintf(text, sizeof text, "%s%s (naive: max abs %.3g, rms ratio %.3g)",
                 case_tensor_names[n], detail, base.max_abs, base.rms_ratio);
        report(call, c, text);
        good = false;
    }
    return good;
}

/* One row on one case. */
static void run_row(const struct attention_case *c, struct case_call call, int row,
                    const struct case_data *naive, const struct case_data *oracle,
                    struct tally *tally)
{
    char name[256], message[512];
    case_call_name(name, sizeof name, &call, c->name);
    if (!test_options_match(&options, name)) return;
    struct case_data first = case_data_copy(naive), second = case_data_copy(naive);
    call.threads = 1;
    enum case_result result = case_run(c, &call, &first, message, sizeof message);
    call.threads = 2;
    if (result == CASE_DONE) result = case_run(c, &call, &second, message, sizeof message);
    if (result == CASE_FAILED) report(&call, c, message);
    if (result == CASE_REFUSED) {
        tally->refused[row]++;
    } else {
        bool good = result == CASE_DONE && check_outputs(c, &call, &first, &second, naive, oracle);
        tally->ran[row]++;
        tally->failed += !good;
    }
    case_data_destroy(&first);
    case_data_destroy(&second);
}

/* All rows of all passes on one case in one dtype. */
static void run_case(const struct attention_case *c, plx_mechanism mechanism, plx_dtype dtype,
                     struct tally tallies[3])
{
    char message[512];
    uint64_t seed = options.seed * 1000 + (uint64_t)(c - cases);
    struct case_data oracle = case_data_create(c, dtype, seed), naive = case_data_copy(&oracle);
    case_oracle(c, mechanism, PLX_BACKWARD, &oracle);
    struct case_call call = {.mechanism = mechanism, .kernel = "reference", .dtype = dtype};
    for (call.pass = PLX_FORWARD; call.pass <= PLX_BACKWARD; call.pass++) {
        if (case_run(c, &call, &naive, message, sizeof message) == CASE_DONE) continue;
        report(&call, c, message);
        tallies[call.pass].failed++;
    }
    for (call.pass = PLX_FORWARD; call.pass <= PLX_DECODE; call.pass++) {
        for (int row = 0; plx_kernel_name(mechanism, call.pass, row); row++) {
            call.kernel = plx_kernel_name(mechanism, call.pass, row);
            run_row(c, call, row, &naive, &oracle, &tallies[call.pass]);
        }
    }
    case_data_destroy(&oracle);
    case_data_destroy(&naive);
}

/* A row that this processor can run must have run something; otherwise nothing was proven about it.
 */
static bool row_was_covered(const char *name, int ran)
{
    plx_context *context;
    assert_int_equal(plx_context_create(NULL, &context), PLX_OK);
    uint32_t features = plx_context_features(context);
    plx_context_destroy(context);
    if (options.only || ran > 0) return true;
    if (strncmp(name, "amx", 3) == 0) return true;
    return strncmp(name, "avx512", 6) == 0 && !(features & PLX_FEATURE_AVX512);
}

static void run_mechanism(plx_mechanism mechanism)
{
    static const char *const passes[] = {"forward", "backward", "decode"};
    struct tally tallies[3] = {0};
    for (int n = 0; n < CASES; n++) {
        run_case(&cases[n], mechanism, PLX_F32, tallies);
        run_case(&cases[n], mechanism, PLX_BF16, tallies);
    }
    int failed = 0;
    for (int pass = 0; pass < 3; pass++) {
        failed += tallies[pass].failed;
        for (int row = 0; plx_kernel_name(mechanism, (plx_pass)pass, row); row++) {
            const char *name = plx_kernel_name(mechanism, (plx_pass)pass, row);
            const struct tally *tally = &tallies[pass];
            print_message("    %-9s %-12s %4d cases, %4d refused\n", passes[pass], name,
                          tally->ran[row], tally->refused[row]);
            if (row_was_covered(name, tally->ran[row])) continue;
            print_error("FAILED %s/%s accepted no case\n", passes[pass], name);
            failed++;
        }
    }
    assert_int_equal(failed, 0);
}

static void every_softmax_row_matches_the_oracle(void **state)
{
    (void)state;
    run_mechanism(PLX_SOFTMAX);
}

static void every_parallax_row_matches_the_oracle(void **state)
{
    (void)state;
    run_mechanism(PLX_PARALLAX);
}

int main(int argc, char **argv)
{
    options = test_options_read(argc, argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_softmax_row_matches_the_oracle),
        cmocka_unit_test(every_parallax_row_matches_the_oracle),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
