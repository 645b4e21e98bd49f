/* test_model_golden.c: whole models against public implementations: loss, logits, every gradient
 * and greedy tokens.
 *
 * qwen3_tiny_tied comes from transformers' Qwen3ForCausalLM, parallax_tiny_qknorm_gqa from
 * flash-linear-attention's ParallaxForCausalLM, both in f32 (shared/golden/README.md); the others
 * lie beside this file (models/README.md). TOLERANCE is relative to the largest value of each
 * tensor. On both operation tables; on the reference in
 * double it measures the recordings' own rounding. */
#include "../model_case.h"

#include <unistd.h>

#include "io/model_file.h"
#include "parity.h"

/* f32 sums over 128 products in a different order, through three layers: 1e-5 is what the
 * references themselves keep to (their README), and the errors printed here are several times
 * smaller. */
static const double tolerance = 1e-5;

#define SHARED SHARED_DATA "/golden/"
#define MODELS SOURCE_FOLDER "/tests/golden/models/"

struct golden {
    const char *name, *folder;
    const struct ops *ops;
    plx_dtype storage;
    int parameters; /* gradients to compare */
    int64_t greedy; /* tokens */
};

static const struct golden goldens[] = {
    {"qwen3, fast operations, f32", SHARED "qwen3_tiny_tied", &ops_cpu, PLX_F32, 35, 48},
    {"qwen3, reference, f64", SHARED "qwen3_tiny_tied", &ops_ref, PLX_F64, 35, 48},
    {"parallax, fast operations, f32", SHARED "parallax_tiny_qknorm_gqa", &ops_cpu, PLX_F32, 42,
     48},
    {"parallax, reference, f64", SHARED "parallax_tiny_qknorm_gqa", &ops_ref, PLX_F64, 42, 48},
    {"qwen2, fast operations, f32", MODELS "qwen2_tiny", &ops_cpu, PLX_F32, 26, 32},
    {"qwen2, reference, f64", MODELS "qwen2_tiny", &ops_ref, PLX_F64, 26, 32},
    {"llama, fast operations, f32", MODELS "llama_tiny", &ops_cpu, PLX_F32, 21, 32},
    {"llama, reference, f64", MODELS "llama_tiny", &ops_ref, PLX_F64, 21, 32},
    {"mistral, fast operations, f32", MODELS "mistral_tiny", &ops_cpu, PLX_F32, 21, 32},
    {"mistral, reference, f64", MODELS "mistral_tiny", &ops_ref, PLX_F64, 21, 32},
};

static void golden_open(struct case_model *m, const struct golden *golden, char *reference,
                        size_t size)
{
    if (access(golden->folder, R_OK) != 0) {
        print_message("skipped: shared data absent\n");
        skip();
    }
    *m = (struct case_model){0};
    const struct backend_config backend = {
        .ops = golden->ops, .storage = golden->storage, .compute = golden->storage, .threads = 1};
    snprintf(reference, size, "%s/io.safetensors", golden->folder);
    CASE_OK(m, backend_create(&m->be, &backend, &m->err));
    CASE_OK(m, model_open(&m->be, golden->folder, &m->model, &m->err));
}

static void test_golden(void **state)
{
    const struct golden *golden = *state;
    struct case_model m;
    struct parity_result result;
    char reference[4096 + 32];
    golden_open(&m, golden, reference, sizeof reference);
    CASE_OK(&m, parity_run(m.model, reference, tolerance, NULL, &result, &m.err));
    printf("%s: worst %.3e in %s\n", golden->name, result.worst, result.worst_name);
    assert_int_equal(result.compared, golden->parameters + 2);
    assert_int_equal(result.missing, 0);
    assert_int_equal(result.greedy_tokens, golden->greedy);
    case_close(&m);
}

/* The comparison must be able to fail: one weight moved by a little, one gain, one tolerance too
 * small. */
static void test_refuses_other_weights(void **state)
{
    (void)state;
    struct case_model m;
    struct parity_result result;
    char reference[4096 + 32];
    golden_open(&m, &goldens[2], reference, sizeof reference);
    struct param *gain = param_find(model_params(m.model), "model.layers.1.attn.r_norm.weight");
    assert_non_null(gain);
    ((float *)gain->value.data)[3] *= 1.001f;
    assert_int_equal(parity_run(m.model, reference, tolerance, NULL, &result, &m.err),
                     PLX_BAD_DATA);
    assert_non_null(strstr(m.err.text, "more than the tolerance"));
    assert_true(result.worst > tolerance);
    ((float *)gain->value.data)[3] /= 1.001f;
    error_clear(&m.err);
    assert_int_equal(parity_run(m.model, reference, 1e-9, NULL, &result, &m.err), PLX_BAD_DATA);
    case_close(&m);
}

/* A reference of another model is refused by the first name that this one does not have. */
static void test_refuses_other_model(void **state)
{
    (void)state;
    struct case_model m;
    struct parity_result result;
    char reference[4096 + 32];
    golden_open(&m, &goldens[0], reference, sizeof reference);
    snprintf(reference, sizeof reference, "%s/golden/parallax_tiny_qknorm_gqa/io.safetensors",
             SHARED_DATA);
    assert_int_equal(parity_run(m.model, reference, tolerance, NULL, &result, &m.err),
                     PLX_BAD_DATA);
    assert_non_null(strstr(m.err.text, "is not something this model could have"));
    case_close(&m);
}

int main(void)
{
    enum { COUNT = sizeof goldens / sizeof goldens[0] };
    struct CMUnitTest tests[COUNT + 2] = {cmocka_unit_test(test_refuses_other_weights),
                                          cmocka_unit_test(test_refuses_other_model)};
    for (int i = 0; i < COUNT; i++)
        tests[i + 2] = (struct CMUnitTest){.name = goldens[i].name,
                                           .test_func = test_golden,
                                           .initial_state = (void *)&goldens[i]};
    return cmocka_run_group_tests_name("golden models", tests, NULL, NULL);
}
