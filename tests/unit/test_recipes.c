/* test_recipes.c: every file of recipes/ is accepted by the table of training options, and the two
 * models of recipes/novels have the parameters that their page states. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "cli.h"
#include "train.h"

enum { BYTES_AND_END = 257 };

/* Parameters of the model that a recipe of bytes describes. */
static int64_t parameters(const char *recipe)
{
    struct train_options options = {0};
    struct model_config config;
    struct param_list params;
    struct error err = {0};
    char path[1024];
    snprintf(path, sizeof path, "%s/recipes/%s", SOURCE_FOLDER, recipe);
    assert_int_equal(options_set_defaults(train_option_table(), &options, &err), PLX_OK);
    if (options_set_file(train_option_table(), path, &options, &err) != PLX_OK)
        fail_msg("%s", err.text);
    assert_int_equal(train_model_config(&options, BYTES_AND_END, BYTES_AND_END - 1, &config, &err),
                     PLX_OK);
    assert_int_equal(model_describe(&config, &params, &err), PLX_OK);
    int64_t count = param_list_elements(&params);
    param_list_destroy(&params);
    options_clear(train_option_table(), &options);
    return count;
}

static void recipes_are_accepted(void **state)
{
    (void)state;
    static const char *const recipes[] = {"retrofit/base.json",      "retrofit/softmax.json",
                                          "retrofit/zero-gain.json", "retrofit/zero-weight.json",
                                          "retrofit/copy-q.json",    "retrofit/probe.json",
                                          "retrofit/lora.json"};
    for (size_t i = 0; i < sizeof recipes / sizeof *recipes; i++)
        assert_true(parameters(recipes[i]) > 0);
}

/* A unit of the feed-forward layer has 3 x 768 weights, and W_R has 768 x 768: 256 units more pay
 * for it, but for the gain of its norm, 128 a layer. */
static void novels_are_twins(void **state)
{
    (void)state;
    assert_int_equal(parameters("novels/parallax.json"), 85155840);
    assert_int_equal(parameters("novels/softmax.json"), 85155840 - 12 * 128);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(recipes_are_accepted),
        cmocka_unit_test(novels_are_twins),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
