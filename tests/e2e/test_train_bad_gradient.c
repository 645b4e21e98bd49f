/* A gradient that is not finite, where the loss still is: the run ends with a sentence that names
 * the step, the parameter and the last good checkpoint, nothing of it reaches the weights, and the
 * run resumes to the weights of one that nothing disturbed. The linker puts this file's
 * __wrap_model_loss_backward in the place of the real one. */
#include "../train_case.h"

#include <math.h>

#include "model.h"

plx_status __real_model_loss_backward(struct model *model, const struct batch *batch, double scale,
                                      struct model_loss *loss);
plx_status __wrap_model_loss_backward(struct model *model, const struct batch *batch, double scale,
                                      struct model_loss *loss);

/* Backward passes until one leaves the poison in the gradient of a row; 0: none does. */
static int64_t passes_left;
static float poison;
enum { POISONED_ROW = 3 };

plx_status __wrap_model_loss_backward(struct model *model, const struct batch *batch, double scale,
                                      struct model_loss *loss)
{
    plx_status status = __real_model_loss_backward(model, batch, scale, loss);
    if (passes_left > 0 && --passes_left == 0)
        *(float *)model_params(model)->items[POISONED_ROW].grad.data = poison;
    return status;
}

static void assert_says(const struct error *err, const char *words)
{
    if (strstr(err->text, words) == NULL) fail_msg("\"%s\" does not say %s", err->text, words);
}

/* Fails a step of the case's six, which checkpoints every two, one backward pass a step. */
static void check_step(int64_t step, float value, const char *sentence, const char *kept)
{
    struct error err = {0};
    passes_left = step;
    poison = value;
    assert_int_equal(run("bad", "", &err), PLX_BAD_DATA);
    assert_int_equal(passes_left, 0);
    assert_says(&err, sentence);
    assert_says(&err, "layers.0.");
    assert_says(&err, "no parameter was changed");
    assert_says(&err, kept);
    assert_recovers("bad", &err);
}

static void a_bad_gradient_ends_the_run_and_leaves_the_checkpoint(void **state)
{
    (void)state;
    check_step(5, NAN, "step 5: ", "the last good checkpoint is");
    check_step(5, INFINITY, "step 5: ", "step-00000004");
    check_step(4, -INFINITY, "step 4: ", "step-00000002");
}

static void a_bad_first_step_leaves_nothing(void **state)
{
    (void)state;
    struct error err = {0};
    passes_left = 1;
    poison = NAN;
    assert_int_equal(run("first", "", &err), PLX_BAD_DATA);
    assert_says(&err, "step 1: ");
    assert_says(&err, "no checkpoint had been written");
    assert_recovers("first", &err);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_bad_gradient_ends_the_run_and_leaves_the_checkpoint),
        cmocka_unit_test(a_bad_first_step_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
