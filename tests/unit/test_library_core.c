/* test_library_core.c: statuses, version, contexts, forced kernels and dispatch of libparallax. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "core/context.h"
#include "core/dispatch.h"
#include "parallax/parallax.h"

/* ---- Status and version -------------------------------------------------------------------- */

static void every_status_has_its_name_and_text(void **state)
{
    (void)state;
    assert_string_equal(plx_status_name(PLX_OK), "PLX_OK");
    assert_string_equal(plx_status_text(PLX_OK), "success");
    assert_string_equal(plx_status_name(PLX_BAD_DATA), "PLX_BAD_DATA");
    assert_string_equal(plx_status_name((plx_status)99), "PLX_UNKNOWN");
    assert_string_equal(plx_status_name((plx_status)-1), "PLX_UNKNOWN");
    assert_true(strlen(plx_status_text((plx_status)99)) > 0);
#define EXPECT(name, value, text)                                                                  \
    assert_int_equal(name, value);                                                                 \
    assert_string_equal(plx_status_name((plx_status)(value)), #name);                              \
    assert_string_equal(plx_status_text((plx_status)(value)), text);
    PLX_STATUS_LIST(EXPECT)
#undef EXPECT
}

static void version_and_build_agree_with_the_header(void **state)
{
    (void)state;
    char version[64];
    snprintf(version, sizeof version, "parallax %d.%d.%d,", PLX_VERSION_MAJOR, PLX_VERSION_MINOR,
             PLX_VERSION_PATCH);
    assert_int_equal(plx_version(),
                     PLX_VERSION_MAJOR * 10000 + PLX_VERSION_MINOR * 100 + PLX_VERSION_PATCH);
    assert_ptr_equal(strstr(plx_build(), version), plx_build());
    assert_non_null(strstr(plx_build(), "CUDA"));
    assert_null(strchr(plx_build(), '\n'));
}

/* ---- Contexts ------------------------------------------------------------------------------ */

static void a_default_context_uses_the_processor(void **state)
{
    (void)state;
    plx_context *context = NULL;
    assert_int_equal(plx_context_create(NULL, &context), PLX_OK);
    assert_int_equal(plx_context_threads(context), cpu_threads());
    assert_true(cpu_threads() >= 1);
    assert_int_equal(plx_context_features(context), cpu_features());
    assert_string_equal(plx_error(context), "");
    plx_context_destroy(context);
    plx_context_destroy(NULL);
}

static void features_build_on_each_other(void **state)
{
    (void)state;
    uint32_t features = cpu_features();
    if (features & (PLX_FEATURE_AVX512_BF16 | PLX_FEATURE_AVX512_VNNI))
        assert_true(features & PLX_FEATURE_AVX512);
    struct plx_context_config config = {.disabled_features = PLX_FEATURE_AVX512, .threads = 3};
    plx_context *context;
    assert_int_equal(plx_context_create(&config, &context), PLX_OK);
    assert_int_equal(plx_context_features(context), features & ~(uint32_t)PLX_FEATURE_AVX512);
    assert_int_equal(plx_context_threads(context), 3);
    plx_context_destroy(context);
}

static void impossible_configurations_are_refused(void **state)
{
    (void)state;
    char long_name[100];
    memset(long_name, 'x', sizeof long_name - 1);
    long_name[sizeof long_name - 1] = '\0';
    const struct {
        struct plx_context_config config;
        plx_status status;
    } refused[] = {
        {{.threads = -1}, PLX_INVALID_ARGUMENT},
        {{.device = PLX_CUDA, .device_index = -1}, PLX_INVALID_ARGUMENT},
        {{.device = (plx_device)7}, PLX_INVALID_ARGUMENT},
        {{.kernel = long_name}, PLX_INVALID_ARGUMENT},
    };
    for (size_t n = 0; n < sizeof refused / sizeof refused[0]; n++) {
        plx_context *context = (plx_context *)(void *)long_name;
        assert_int_equal(plx_context_create(&refused[n].config, &context), refused[n].status);
        assert_null(context);
    }
    assert_int_equal(plx_context_create(NULL, NULL), PLX_INVALID_ARGUMENT);
}

static void a_null_context_is_answered_not_followed(void **state)
{
    (void)state;
    struct plx_parallax_args args = {0};
    struct plx_softmax_args softmax = {0};
    struct plx_attention attention = {0};
    struct plx_tensor tensor = {0};
    size_t bytes;
    const char *name;
    assert_string_equal(plx_error(NULL), "the context is NULL");
    assert_int_equal(plx_context_features(NULL), 0);
    assert_int_equal(plx_context_threads(NULL), 0);
    assert_int_equal(plx_convert(NULL, &tensor, &tensor), PLX_INVALID_ARGUMENT);
    assert_int_equal(plx_parallax_workspace(NULL, &attention, PLX_FORWARD, &args, &bytes),
                     PLX_INVALID_ARGUMENT);
    assert_int_equal(plx_parallax_kernel(NULL, &attention, PLX_FORWARD, &args, &name),
                     PLX_INVALID_ARGUMENT);
    assert_int_equal(plx_parallax_forward(NULL, &attention, &args, NULL, 0, NULL),
                     PLX_INVALID_ARGUMENT);
    assert_int_equal(plx_softmax_workspace(NULL, &attention, PLX_FORWARD, &softmax, &bytes),
                     PLX_INVALID_ARGUMENT);
    assert_int_equal(plx_softmax_kernel(NULL, &attention, PLX_FORWARD, &softmax, &name),
                     PLX_INVALID_ARGUMENT);
    assert_int_equal(plx_softmax_backward(NULL, &attention, &softmax, NULL, 0, NULL),
                     PLX_INVALID_ARGUMENT);
    assert_int_equal(plx_parallax_merge(NULL, NULL, 0, NULL), PLX_INVALID_ARGUMENT);
    assert_int_equal(plx_softmax_merge(NULL, NULL, 0, NULL), PLX_INVALID_ARGUMENT);
}

static void long_sentences_are_cut_not_overrun(void **state)
{
    (void)state;
    plx_context *context;
    assert_int_equal(plx_context_create(NULL, &context), PLX_OK);
    assert_int_equal(context_fail(context, PLX_INTERNAL, "%2000d", 1), PLX_INTERNAL);
    assert_int_equal(strlen(plx_error(context)), sizeof context->error - 1);
    context_begin(context);
    assert_string_equal(plx_error(context), "");
    plx_context_destroy(context);
}

/* ---- Dispatch ------------------------------------------------------------------------------ */

static const char *takes_even(const void *problem, const plx_context *context)
{
    (void)context;
    return *(const int *)problem % 2 ? "the number is odd" : NULL;
}

static const char *takes_small(const void *problem, const plx_context *context)
{
    (void)context;
    return *(const int *)problem > 9 ? "the number is large" : NULL;
}

static const struct kernel_row even = {.name = "even", .refuse = takes_even};
static const struct kernel_row small = {.name = "small", .refuse = takes_small};
static const struct kernel_row *const rows[] = {&even, &small};
static const struct kernel_table table = {rows, 2};

static const struct kernel_row *choose(const char *kernel, int number, plx_status expected,
                                       const char *sentence)
{
    plx_context *context;
    const struct kernel_row *row = NULL;
    struct plx_context_config config = {.kernel = kernel};
    assert_int_equal(plx_context_create(&config, &context), PLX_OK);
    assert_int_equal(dispatch_choose(context, table, &number, &row), expected);
    assert_string_equal(plx_error(context), sentence);
    plx_context_destroy(context);
    return row;
}

static void the_first_row_that_accepts_is_chosen(void **state)
{
    (void)state;
    assert_ptr_equal(choose(NULL, 4, PLX_OK, ""), &even);
    assert_ptr_equal(choose(NULL, 5, PLX_OK, ""), &small);
    choose(NULL, 11, PLX_UNSUPPORTED,
           "kernel: none of 2 serves this call; the last, \"small\", does not because the number "
           "is large");
}

static void a_forced_row_is_the_only_candidate(void **state)
{
    (void)state;
    assert_ptr_equal(choose("small", 4, PLX_OK, ""), &small);
    choose("even", 5, PLX_UNSUPPORTED, "kernel: \"even\" was asked for, but the number is odd");
    choose("evn", 4, PLX_UNSUPPORTED, "kernel: \"evn\" is not among the 2 kernels of this pass");
}

static void every_table_ends_with_the_reference(void **state)
{
    (void)state;
    for (plx_mechanism m = PLX_SOFTMAX; m <= PLX_PARALLAX; m++) {
        for (plx_pass pass = PLX_FORWARD; pass <= PLX_DECODE; pass++) {
            int count = 0;
            while (plx_kernel_name(m, pass, count)) count++;
            assert_true(count >= 2);
            assert_true(strncmp(plx_kernel_name(m, pass, 0), "cuda", 4) == 0);
            assert_string_equal(plx_kernel_name(m, pass, count - 1), "reference");
        }
        assert_null(plx_kernel_name(m, PLX_FORWARD, -1));
        assert_null(plx_kernel_name(m, (plx_pass)3, 0));
    }
    assert_null(plx_kernel_name((plx_mechanism)2, PLX_FORWARD, 0));
}

static void amx_says_why_it_does_not_run(void **state)
{
    (void)state;
    plx_context *context;
    const char *name = NULL;
    struct plx_context_config config = {.kernel = "amx_bf16"};
    struct plx_tensor x = plx_tensor_4d(NULL, PLX_BF16, 1, 8, 1, 64);
    struct plx_softmax_args args = {.q = x, .k = x, .v = x, .o = x};
    struct plx_attention attention = {.causal = true};
    assert_int_equal(plx_context_create(&config, &context), PLX_OK);
    assert_int_equal(plx_softmax_kernel(context, &attention, PLX_FORWARD, &args, &name),
                     PLX_UNSUPPORTED);
    assert_string_equal(
        plx_error(context),
        "kernel: \"amx_bf16\" was asked for, but AMX kernels are not part of this version");
    plx_context_destroy(context);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_status_has_its_name_and_text),
        cmocka_unit_test(version_and_build_agree_with_the_header),
        cmocka_unit_test(a_default_context_uses_the_processor),
        cmocka_unit_test(features_build_on_each_other),
        cmocka_unit_test(impossible_configurations_are_refused),
        cmocka_unit_test(a_null_context_is_answered_not_followed),
        cmocka_unit_test(long_sentences_are_cut_not_overrun),
        cmocka_unit_test(the_first_row_that_accepts_is_chosen),
        cmocka_unit_test(a_forced_row_is_the_only_candidate),
        cmocka_unit_test(every_table_ends_with_the_reference),
        cmocka_unit_test(amx_says_why_it_does_not_run),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
