/* test_convert.c: what a conversion refuses, with its sentence, and what is on the disk afterwards:
 * the whole target or nothing of it, whatever the source or the disk does. */
#include "../model_case.h"
#include "io_files.h"

#include "convert/convert.h"
#include "io/model_file.h"
#include "io/weights.h"

static const char *fresh(const struct model_config *config)
{
    struct error err = {0};
    struct convert_report report;
    static char path[512]; /* outlives the buffers that take turns */
    snprintf(path, sizeof path, "%s", io_absent("source"));
    assert_ok(convert_init(config, path, &(struct convert_options){.seed = 5}, &report, &err),
              &err);
    return path;
}

/* Refused with the sentence, and nothing is left of the target. */
static void expect_refusal(const char *source, struct convert_options options, plx_status status,
                           const char *says)
{
    struct error err = {0};
    struct convert_report report;
    const char *target = io_absent("target");
    assert_refused(convert_folder(source, target, &options, &report, &err), status, says, &err);
    assert_false(file_exists(target));
    assert_false(file_exists(io_path("target.partial")));
}

/* ---- Wishes that cannot be fulfilled --------------------------------------------------------- */

static struct model_config softmax_model(void)
{
    struct model_config config = case_config(2, "softmax");
    config.probe_norm = true;
    return config;
}

static void probes_are_neither_doubled_nor_lost(void **state)
{
    (void)state;
    struct model_config config = case_config(2, "parallax");
    config.layer[0].mixer = mixer_find("softmax");
    config.family = FAMILY_OURS;
    const char *source = fresh(&config);
    expect_refusal(source, (struct convert_options){.attention = CONVERT_TO_PARALLAX},
                   PLX_INVALID_ARGUMENT, "layer 1 is parallax already, so no probe can be added");
    expect_refusal(source, (struct convert_options){.attention = CONVERT_TO_SOFTMAX},
                   PLX_INVALID_ARGUMENT,
                   "would throw away the probes of 1 layers and with them whatever they have "
                   "learned; say --drop-probe");
    config = softmax_model();
    source = fresh(&config);
    expect_refusal(source,
                   (struct convert_options){.attention = CONVERT_TO_SOFTMAX, .drop_probe = true},
                   PLX_INVALID_ARGUMENT, "every layer is softmax already");
}

static void layouts_that_cannot_say_the_model_are_refused(void **state)
{
    (void)state;
    static const struct {
        enum model_family family;
        const char *says;
    } cases[] = {
        {FAMILY_LLAMA, "model_type \"llama\" needs that qk_norm is off"},
        {FAMILY_QWEN2, "model_type \"qwen2\" needs that qk_norm is off"},
        {FAMILY_MISTRAL, "model_type \"mistral\" needs that qk_norm is off"},
        {FAMILY_FLA, "model_type \"parallax\" needs that every mixer is parallax"},
    };
    struct model_config config = softmax_model();
    const char *source = fresh(&config);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        expect_refusal(source,
                       (struct convert_options){.to_family = true, .family = cases[i].family},
                       PLX_UNSUPPORTED, cases[i].says);
    expect_refusal(source,
                   (struct convert_options){
                       .attention = CONVERT_TO_PARALLAX, .to_family = true, .family = FAMILY_FLA},
                   PLX_UNSUPPORTED, "model_type \"parallax\" needs that qk_norm_eps is 1e-5");
}

static void existing_targets_are_left_alone(void **state)
{
    (void)state;
    struct error err = {0};
    struct convert_report report;
    struct model_config config = softmax_model();
    const char *source = fresh(&config), *target = io_absent("target");
    io_write_text(target, "precious");
    const struct convert_options options = {0};
    assert_refused(convert_folder(source, target, &options, &report, &err), PLX_INVALID_ARGUMENT,
                   "target: exists already", &err);
    assert_refused(convert_folder(source, source, &options, &report, &err), PLX_INVALID_ARGUMENT,
                   "source: exists already", &err);
    assert_refused(convert_folder(source, "", &options, &report, &err), PLX_INVALID_ARGUMENT,
                   "cannot be the name of a folder", &err);
    char *text;
    size_t size;
    assert_ok(file_read_all(target, 100, &text, &size, &err), &err);
    assert_string_equal(text, "precious");
    free(text);
    /* What an interrupted run left behind is no target, and makes room. */
    target = io_absent("target");
    assert_ok(file_make_folder(io_path("target.partial/sub"), &err), &err);
    io_write_text(io_path("target.partial/junk"), "x");
    assert_ok(convert_folder(source, target, &options, &report, &err), &err);
    assert_false(file_exists(io_path("target.partial")));
    assert_false(file_exists(io_inside(target, "junk")));
}

/* ---- Sources that are not what they say ------------------------------------------------------ */

static void numbers_that_do_not_fit_are_refused(void **state)
{
    (void)state;
    struct error err = {0};
    struct case_model m;
    struct model_config config = softmax_model();
    case_open(&m, &config, &ops_ref, PLX_F32, 6);
    struct param *param = param_find(model_params(m.model), "model.layers.1.mlp.up_proj.weight");
    ((float *)param->value.data)[17] = 1e9f;
    const char *source = io_absent("source");
    assert_ok(file_make_folder(source, &err), &err);
    assert_ok(model_save(m.model, NULL, source, PLX_F32, &err), &err);
    case_close(&m);
    expect_refusal(source, (struct convert_options){.dtype = "F16"}, PLX_BAD_DATA,
                   "tensor model.layers.1.mlp.up_proj.weight: element 17 is 1e+09, too large for "
                   "F16");
}

static void bad_sources_are_refused(void **state)
{
    (void)state;
    struct error err = {0};
    struct model_config config = softmax_model();
    const struct convert_options options = {0};
    expect_refusal(io_absent("nothing"), options, PLX_IO_ERROR, "nothing: does not exist");
    const char *source = fresh(&config);
    io_write_text(io_inside(source, "config.json"), "{\"model_type\":\"gpt\"}");
    expect_refusal(source, options, PLX_UNSUPPORTED, "model_type is \"gpt\"");

    source = fresh(&config);
    assert_ok(file_remove_tree(io_inside(source, "model.safetensors"), &err), &err);
    expect_refusal(source, options, PLX_IO_ERROR, "holds neither model.safetensors nor");
    io_write_text(io_inside(source, "model.safetensors.index.json"),
                  "{\"weight_map\":{\"a\":\"../../secret\"}}");
    expect_refusal(source, options, PLX_BAD_DATA, "not the plain name of a file in this folder");
    io_write_text(io_inside(source, "model.safetensors"), "short");
    expect_refusal(source, options, PLX_BAD_DATA, "model.safetensors: has 5 bytes");

    /* Weights of another model: one layer more, and other shapes. */
    source = fresh(&config);
    char *json;
    config.layers = 1;
    assert_ok(model_config_format(&config, &json, &err), &err);
    io_write_text(io_inside(source, "config.json"), json);
    free(json);
    expect_refusal(source, options, PLX_BAD_DATA, "is no part of the model");
    config.layers = 2;
    config.intermediate_size = 48;
    assert_ok(model_config_format(&config, &json, &err), &err);
    io_write_text(io_inside(source, "config.json"), json);
    free(json);
    expect_refusal(source, options, PLX_BAD_DATA, "but shape [48, 32] is expected");
}

/* ---- What else is in a folder ---------------------------------------------------------------- */

static void companions_come_along(void **state)
{
    (void)state;
    struct error err = {0};
    struct convert_report report;
    char *text;
    size_t size;
    struct model_config config = softmax_model();
    const char *source = fresh(&config), *target = io_absent("target");
    io_write_text(io_inside(source, "tokenizer.json"), "{\"any\": 1}");
    io_write_text(io_inside(source, "tokenizer_config.json"), "");
    io_write_text(io_inside(source, "private.key"), "secret");
    const struct convert_options options = {.attention = CONVERT_TO_PARALLAX, .seed = 2};
    assert_ok(convert_folder(source, target, &options, &report, &err), &err);
    assert_ok(file_read_all(io_inside(target, "tokenizer.json"), 100, &text, &size, &err), &err);
    assert_string_equal(text, "{\"any\": 1}");
    free(text);
    assert_true(file_exists(io_inside(target, "tokenizer_config.json")));
    assert_false(file_exists(io_inside(target, "private.key")));
    assert_false(file_exists(io_inside(target, "model.safetensors.index.json")));
    /* Our own layout brings the code that transformers loads. */
    assert_ok(
        file_read_all(io_inside(target, "modeling_qwen3_parallax.py"), 1 << 16, &text, &size, &err),
        &err);
    assert_non_null(strstr(text, "class Qwen3ParallaxForCausalLM"));
    free(text);
    assert_ok(file_read_all(io_inside(target, "config.json"), 1 << 16, &text, &size, &err), &err);
    assert_non_null(strstr(text, "modeling_qwen3_parallax.Qwen3ParallaxConfig"));
    assert_non_null(strstr(text, "\"torch_dtype\": \"float32\""));
    free(text);
}

/* ---- Disks that fail ------------------------------------------------------------------------- */

/* Every call that writes fails once: nothing is left. A killed process leaves no target either,
 * unless the target is whole. */
static void failing_disks_leave_no_target(void **state)
{
    (void)state;
    struct model_config config = case_config(1, "softmax");
    const char *source = fresh(&config);
    const struct convert_options options = {.attention = CONVERT_TO_PARALLAX, .shard_bytes = 20000};
    static const enum file_fault faults[] = {FILE_FAULT_NO_SPACE, FILE_FAULT_IO, FILE_FAULT_KILL};
    for (int f = 0; f < 3; f++) {
        bool pending = false;
        int64_t call = 1;
        for (; !pending && call < 1000; call++) {
            struct error err = {0};
            struct convert_report report;
            const char *target = io_absent("target");
            io_absent("target.partial");
            file_fault_after(faults[f], call);
            plx_status status = convert_folder(source, target, &options, &report, &err);
            pending = file_fault_pending();
            file_fault_after(FILE_FAULT_NONE, 0);
            if (pending) {
                assert_ok(status, &err);
            } else {
                assert_int_equal(status, PLX_IO_ERROR);
                /* The last call flushes the folder that the target has been renamed in. */
                if (faults[f] != FILE_FAULT_KILL)
                    assert_false(file_exists(io_path("target.partial")));
            }
            if (!file_exists(target)) continue;
            struct weights *weights;
            assert_ok(weights_open(target, &weights, &err), &err);
            weights_close(weights);
        }
        assert_true(call > 20 && call < 1000);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(probes_are_neither_doubled_nor_lost),
        cmocka_unit_test(layouts_that_cannot_say_the_model_are_refused),
        cmocka_unit_test(existing_targets_are_left_alone),
        cmocka_unit_test(numbers_that_do_not_fit_are_refused),
        cmocka_unit_test(bad_sources_are_refused),
        cmocka_unit_test(companions_come_along),
        cmocka_unit_test(failing_disks_leave_no_target),
    };
    return cmocka_run_group_tests(tests, io_folder_make, io_folder_remove);
}
