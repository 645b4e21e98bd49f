/* test_attention_conformance.c: every CPU kernel row x pass x dtype x case against the double
 * oracle; conformance.h says how, attention_cases.c holds the cases. `--only
 * parallax/backward/portable` and `--seed N` repeat a part. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "conformance.h"

static struct test_options options;

/* A row that this processor can run must have run something; otherwise nothing was proven about it.
 */
static bool row_was_covered(const char *name, int ran)
{
    plx_context *context;
    assert_int_equal(plx_context_create(NULL, &context), PLX_OK);
    uint32_t features = plx_context_features(context);
    plx_context_destroy(context);
    if (options.only || ran > 0) return true;
    if (strncmp(name, "amx", 3) == 0 || strncmp(name, "cuda", 4) == 0) return true;
    return strncmp(name, "avx512", 6) == 0 && !(features & PLX_FEATURE_AVX512);
}

static void run_mechanism(plx_mechanism mechanism)
{
    static const char *const passes[] = {"forward", "backward", "decode"};
    static const struct case_dtypes wide = {1, {PLX_F32}}, narrow = {2, {PLX_F16, PLX_BF16}};
    struct conformance conformance = {.options = &options};
    for (int n = 0; n < attention_case_count; n++) {
        uint64_t seed = options.seed * 1000 + (uint64_t)n;
        const struct attention_case *c = &attention_cases[n];
        conformance_run(&conformance, c, mechanism, &wide, PLX_FORWARD, PLX_DECODE, seed);
        conformance_run(&conformance, c, mechanism, &narrow, PLX_FORWARD, PLX_DECODE, seed);
    }
    int failed = conformance_report(&conformance, mechanism);
    for (int pass = 0; pass < 3; pass++) {
        for (int row = 0; plx_kernel_name(mechanism, (plx_pass)pass, row); row++) {
            const char *name = plx_kernel_name(mechanism, (plx_pass)pass, row);
            if (row_was_covered(name, conformance.tallies[mechanism][pass].ran[row])) continue;
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
