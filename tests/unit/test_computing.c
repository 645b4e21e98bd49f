/* test_computing.c: what --device, --dtype and their like come to, and what is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "computing.h"

static plx_status config_of(const char *device, const char *dtype, struct backend_config *config,
                            struct error *err)
{
    const struct computing computing = {.device = device, .dtype = dtype, .kernel = ""};
    error_clear(err);
    return computing_config(&computing, config, err);
}

static bool has_gpu(void)
{
    struct device_facts facts;
    return device_cuda.describe(0, &facts, NULL) == PLX_OK;
}

static void expect_refusal(const char *device, const char *dtype, const char *sentence)
{
    struct backend_config config;
    struct error err = {0};
    assert_int_equal(config_of(device, dtype, &config, &err), PLX_INVALID_ARGUMENT);
    assert_string_equal(err.text, sentence);
}

static void test_devices(void **state)
{
    (void)state;
    struct backend_config config;
    struct error err = {0};
    char name[32];
    assert_int_equal(config_of("cpu", "", &config, &err), PLX_OK);
    assert_ptr_equal(config.ops, &ops_cpu);
    assert_string_equal(computing_device_name(&config, name, sizeof name), "cpu");
    assert_int_equal(config_of("auto", "", &config, &err), PLX_OK);
    assert_ptr_equal(config.ops, has_gpu() ? &ops_cuda : &ops_cpu);
    assert_int_equal(config_of("cuda:0", "", &config, &err) == PLX_OK, has_gpu());
    if (has_gpu()) assert_string_equal(computing_device_name(&config, name, sizeof name), "cuda:0");
    if (!has_gpu()) assert_non_null(strstr(err.text, "device: cuda: this "));
    expect_refusal("gpu", "", "--device: \"gpu\" is none of auto, cpu, cuda, cuda:N");
    expect_refusal("", "", "--device: \"\" is none of auto, cpu, cuda, cuda:N");
    expect_refusal("cuda:", "", "--device: \"cuda:\" is none of auto, cpu, cuda, cuda:N");
    expect_refusal("cuda:-1", "", "--device: \"cuda:-1\" is none of auto, cpu, cuda, cuda:N");
    expect_refusal("cuda:1x", "", "--device: \"cuda:1x\" is none of auto, cpu, cuda, cuda:N");
    expect_refusal("auto:1", "", "--device: \"auto:1\" is none of auto, cpu, cuda, cuda:N");
    expect_refusal("cpu:1", "", "device: cpu 1 does not exist, only cpu 0");
}

static void test_precision(void **state)
{
    (void)state;
    struct backend_config config;
    struct error err = {0};
    assert_int_equal(config_of("cpu", "", &config, &err), PLX_OK);
    assert_string_equal(computing_dtype_name(&config), "f32");
    assert_int_equal(config_of("cpu", "bf16", &config, &err), PLX_OK);
    assert_int_equal(config.compute, PLX_BF16);
    assert_false(config.bf16_activations);
    expect_refusal("cpu", "f64", "--dtype: \"f64\" is none of f32, bf16, fp8");
    assert_int_equal(config_of("cpu", "fp8", &config, &err), PLX_OK);
    assert_true(config.fp8_linear && config.compute == PLX_F32);
    assert_string_equal(computing_dtype_name(&config), "fp8");
    if (!has_gpu()) return;
    assert_int_equal(config_of("cuda", "", &config, &err), PLX_OK);
    assert_string_equal(computing_dtype_name(&config), "bf16");
    assert_true(config.bf16_activations);
    assert_int_equal(config_of("cuda", "f32", &config, &err), PLX_OK);
    assert_int_equal(config.compute, PLX_F32);
    assert_false(config.bf16_activations);
    assert_int_equal(config_of("cuda", "fp8", &config, &err), PLX_OK);
    assert_true(config.fp8_linear && config.bf16_activations);
}

static void test_weights(void **state)
{
    (void)state;
    struct backend_config config;
    struct error err = {0};
    struct computing computing = {.device = "cpu", .dtype = "", .kernel = "", .weights = "int8"};
    assert_int_equal(computing_config(&computing, &config, &err), PLX_OK);
    assert_int_equal(config.packing, PACKING_INT8);
    computing.weights = "int4";
    assert_int_equal(computing_config(&computing, &config, &err), PLX_INVALID_ARGUMENT);
    assert_string_equal(err.text, "--weights: \"int4\" is none of f32, bf16, int8");
    error_clear(&err);
    computing.weights = "";
    assert_int_equal(computing_config(&computing, &config, &err), PLX_OK);
    assert_int_equal(config.packing, PACKING_NONE);
    if (!has_gpu()) return;
    computing.device = "cuda";
    assert_int_equal(computing_config(&computing, &config, &err), PLX_OK);
    assert_int_equal(config.packing, PACKING_BF16);
    computing.dtype = "f32";
    assert_int_equal(computing_config(&computing, &config, &err), PLX_OK);
    assert_int_equal(config.packing, PACKING_NONE);
    computing.device = "cuda", computing.weights = "int8";
    assert_int_equal(computing_config(&computing, &config, &err), PLX_OK);
    assert_int_equal(config.packing, PACKING_INT8);
    computing.weights = NULL, computing.portable = true;
    assert_int_equal(computing_config(&computing, &config, &err), PLX_INVALID_ARGUMENT);
    assert_non_null(strstr(err.text, "--portable: chooses among the CPU's kernels"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_devices),
        cmocka_unit_test(test_precision),
        cmocka_unit_test(test_weights),
    };
    return cmocka_run_group_tests_name("computing", tests, NULL, NULL);
}
