/* test_train_memory.c: what a run plans is what it takes, and a plan that does not fit is refused
 * with settings that do. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "train_memory.h"

struct rig {
    struct train_options options;
    struct backend be;
    struct train_shape shape;
    struct train_memory memory;
    struct error err;
};

static void rig_open(struct rig *rig)
{
    static const char settings[] =
        "{\"hidden_size\": 32, \"intermediate_size\": 96, \"layers\": 8, "
        "\"heads\": 2, \"kv_heads\": 1, \"head_dim\": 16, \"context\": "
        "64, \"batch\": 12, \"accumulate\": 3, \"threads\": 1}";
    struct backend_config backend;
    struct model_config model;
    memset(rig, 0, sizeof *rig);
    struct error *err = &rig->err;
    assert_int_equal(options_set_defaults(train_option_table(), &rig->options, err), PLX_OK);
    assert_int_equal(options_set_json(train_option_table(), settings, strlen(settings), "settings",
                                      &rig->options, err),
                     PLX_OK);
    assert_int_equal(train_model_config(&rig->options, 257, 256, &model, err), PLX_OK);
    assert_int_equal(train_backend_config(&rig->options, &backend, err), PLX_OK);
    assert_int_equal(backend_create(&rig->be, &backend, err), PLX_OK);
    assert_int_equal(train_shape_make(&rig->options, &model, 12, &rig->shape, err), PLX_OK);
    assert_int_equal(train_memory_measure(&rig->be, &rig->options, NULL, &rig->shape, &rig->memory),
                     PLX_OK);
}

static void rig_close(struct rig *rig)
{
    backend_destroy(&rig->be);
    options_clear(train_option_table(), &rig->options);
}

static plx_status check(struct rig *rig, size_t available)
{
    error_clear(&rig->err);
    return train_memory_check(&rig->be, &rig->options, NULL, &rig->shape, &rig->memory, available);
}

static void plans_are_kept(void **state)
{
    (void)state;
    struct rig rig;
    struct train_parts parts;
    struct train_memory taken;
    rig_open(&rig);
    assert_int_equal(train_parts_create(&rig.be, &rig.options, NULL, &rig.shape, &parts, &taken),
                     PLX_OK);
    assert_memory_equal(&rig.memory.model, &taken.model, sizeof taken.model);
    assert_int_equal(rig.memory.optimiser, taken.optimiser);
    assert_int_equal(rig.memory.scratch, rig.be.scratch.capacity);
    assert_true(rig.memory.total > rig.memory.model.activations + rig.memory.scratch);
    train_parts_destroy(&parts);
    rig_close(&rig);
}

/* The settings of a refusal are tried: what they plan is within what was available. */
static void refusals_name_what_fits(void **state)
{
    (void)state;
    struct rig rig;
    rig_open(&rig);
    assert_int_equal(check(&rig, 0), PLX_OK); /* unknown */
    assert_int_equal(check(&rig, 2 * rig.memory.total), PLX_OK);
    const size_t available = rig.memory.total / 2;
    assert_int_equal(check(&rig, available), PLX_OUT_OF_MEMORY);
    const char *batch = strstr(rig.err.text, "it fits with --batch ");
    assert_non_null(batch);
    char *accumulate;
    struct train_shape fit = rig.shape;
    struct train_memory memory;
    fit.batch = strtoll(batch + strlen("it fits with --batch "), &accumulate, 10);
    assert_int_equal(strncmp(accumulate, " --accumulate ", 14), 0);
    assert_int_equal(strtoll(accumulate + 14, NULL, 10) * fit.batch, 3 * 12);
    assert_int_equal(train_memory_measure(&rig.be, &rig.options, NULL, &fit, &memory), PLX_OK);
    assert_true(memory.total <= available);
    rig_close(&rig);
}

/* One row of a deep model is only made smaller by recomputing. */
static void recomputation_is_named(void **state)
{
    (void)state;
    struct rig rig;
    rig_open(&rig);
    rig.shape.batch = rig.options.batch = 1;
    rig.options.context = 768;
    assert_int_equal(train_memory_measure(&rig.be, &rig.options, NULL, &rig.shape, &rig.memory),
                     PLX_OK);
    assert_int_equal(check(&rig, rig.memory.total / 2), PLX_OUT_OF_MEMORY);
    assert_non_null(strstr(rig.err.text, "it fits with --recompute full"));
    assert_null(strstr(rig.err.text, "--batch"));
    rig_close(&rig);
}

static void what_never_fits_is_said(void **state)
{
    (void)state;
    struct rig rig;
    rig_open(&rig);
    assert_int_equal(check(&rig, rig.memory.model.params), PLX_OUT_OF_MEMORY);
    assert_non_null(strstr(rig.err.text, "even --recompute full --batch 1 needs"));
    rig_close(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plans_are_kept),
        cmocka_unit_test(refusals_name_what_fits),
        cmocka_unit_test(recomputation_is_named),
        cmocka_unit_test(what_never_fits_is_said),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
