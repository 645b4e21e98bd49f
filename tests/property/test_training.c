/* test_training.c: laws of training a small model with the real optimisers: one batch can be learnt
 * by heart, in 8 bits too, both backends walk the same path, and a decay branched off a
 * constant-rate trunk equals one run. */
#include "../model_case.h"

#include "optim/optim.h"

struct run {
    struct case_model m;
    struct optim *optim;
    struct case_batch batch;
    struct schedule_config schedule;
    double rate; /* that of the schedule is multiplied by it */
};

static void make_optim(struct run *run, const char *optimizer)
{
    struct optim_config optim = optim_config_default(optimizer);
    optim.lr = strcmp(optimizer, "muon") == 0 ? 0.02 : 0.01;
    optim.other_lr = optim.head_lr = optim.embedding_lr = 0.5;
    CASE_OK(&run->m, optim_create(&run->m.be, &optim, model_params(run->m.model), &run->optim));
}

/* One thread: at these sizes two would mostly wait for each other. */
static const struct backend_config exact = {&ops_ref, PLX_F64, PLX_F64, .threads = 1},
                                   f32 = {&ops_cpu, PLX_F32, PLX_F32, .threads = 1},
                                   fp8 = {&ops_cpu, PLX_F32, PLX_F32, 1, .fp8_linear = true};

static void open_run(struct run *run, const char *mixer, const struct backend_config *backend,
                     const char *optimizer, int64_t steps)
{
    struct model_config config = case_config(2, mixer);
    config.initializer_range = 0.1;
    config.intermediate_size = 48; /* a multiple of 16, as fp8 asks */
    run->m = (struct case_model){0};
    run->rate = 1;
    CASE_OK(&run->m, backend_create(&run->m.be, backend, &run->m.err));
    CASE_OK(&run->m, model_create(&run->m.be, &config, &run->m.model));
    CASE_OK(&run->m, model_init(run->m.model, 3));
    case_perturb_gains(run->m.model, 3);
    struct rng rng = rng_make(3, 9);
    case_batch_fill(&run->batch, (int64_t[]){13, 8}, 2, config.vocab_size, &rng);
    struct model_memory memory;
    CASE_OK(&run->m, model_reserve(run->m.model, 21, 2, true, RECOMPUTE_NONE, &memory));
    make_optim(run, optimizer);
    run->schedule = (struct schedule_config){.kind = SCHEDULE_WSD,
                                             .steps = steps,
                                             .warmup = 2,
                                             .decay_ratio = 0.2,
                                             .weight_decay_gamma = 1.0};
}

static void close_run(struct run *run)
{
    optim_destroy(run->optim);
    case_close(&run->m);
}

/* One step on the one batch; returns the mean loss before it. */
static double step(struct run *run)
{
    int64_t index = optim_steps(run->optim), scored = 0;
    for (int64_t n = 0; n < run->batch.batch.tokens; n++) scored += run->batch.targets[n] >= 0;
    struct model_loss loss;
    CASE_OK(&run->m, model_zero_grads(run->m.model));
    CASE_OK(&run->m,
            model_loss_backward(run->m.model, &run->batch.batch, 1.0 / (double)scored, &loss));
    CASE_OK(&run->m, optim_step(run->optim, run->rate * schedule_lr(&run->schedule, index),
                                schedule_weight_decay(&run->schedule, index)));
    assert_int_equal(loss.count, scored);
    return loss.sum / (double)scored;
}

static void one_batch_is_learnt_by_heart(void **unused)
{
    (void)unused;
    static const char *const mixers[] = {"softmax", "parallax"}, *const optimizers[] = {"adamw",
                                                                                        "muon"};
    for (int i = 0; i < 8; i++) {
        const char *mixer = mixers[i / 2 % 2], *optimizer = optimizers[i % 2];
        struct run run;
        open_run(&run, mixer, i < 4 ? &f32 : &fp8, optimizer, 150);
        double first = step(&run), last = first;
        for (int s = 1; s < 150; s++) last = step(&run);
        print_message("%s, %s, %s: loss %.3f -> %.4f\n", i < 4 ? "f32" : "fp8", mixer, optimizer,
                      first, last);
        assert_true(first > 3.0);
        assert_true(last < 0.1);
        close_run(&run);
    }
}

static void backends_walk_the_same_path(void **unused)
{
    (void)unused;
    static const char *const optimizers[] = {"adamw", "muon"};
    for (int i = 0; i < 2; i++) {
        struct run slow, fast;
        open_run(&slow, "parallax", &exact, optimizers[i], 20);
        open_run(&fast, "parallax", &f32, optimizers[i], 20);
        /* Both begin at the float weights. */
        struct param_list *from = model_params(fast.m.model), *to = model_params(slow.m.model);
        for (int p = 0; p < from->count; p++)
            for (int64_t e = 0; e < plx_tensor_count(&from->items[p].value); e++)
                case_set(&to->items[p].value, e, case_get(&from->items[p].value, e));
        for (int s = 0; s < 20; s++) {
            double a = step(&slow), b = step(&fast);
            if (!(fabs(a - b) <= 1e-3 * a))
                fail_msg("%s, step %d: %.7f in double, %.7f on the cpu", optimizers[i], s, a, b);
        }
        close_run(&slow);
        close_run(&fast);
    }
}

static void copy_tensor(const struct plx_tensor *to, const struct plx_tensor *from)
{
    memcpy(to->data, from->data, (size_t)plx_tensor_count(from) * plx_dtype_size(from->dtype));
}

static void a_branched_decay_equals_one_run(void **unused)
{
    (void)unused;
    struct run whole, trunk, branch;
    open_run(&whole, "parallax", &f32, "muon", 30);
    open_run(&trunk, "parallax", &f32, "muon", 30);
    open_run(&branch, "parallax", &f32, "muon", 30);
    trunk.schedule.kind = SCHEDULE_CONSTANT;
    for (int s = 0; s < 30; s++) step(&whole);
    for (int s = 0; s < 24; s++) step(&trunk);

    struct param_list *from = model_params(trunk.m.model), *to = model_params(branch.m.model);
    for (int p = 0; p < from->count; p++) copy_tensor(&to->items[p].value, &from->items[p].value);
    struct optim_tensor source, target;
    for (int i = 0; optim_state(trunk.optim, i, &source); i++) {
        assert_true(optim_state(branch.optim, i, &target));
        copy_tensor(&target.tensor, &source.tensor);
    }
    optim_set_steps(branch.optim, optim_steps(trunk.optim));
    for (int s = 24; s < 30; s++) step(&branch);
    struct param_list *expected = model_params(whole.m.model);
    for (int p = 0; p < expected->count; p++)
        case_assert_same_bits(&to->items[p].value, &expected->items[p].value);
    close_run(&whole);
    close_run(&trunk);
    close_run(&branch);
}

static struct plx_tensor copy_of(const struct plx_tensor *tensor)
{
    struct plx_tensor copy = case_tensor(tensor->dtype, tensor->rank, tensor->shape);
    copy_tensor(&copy, tensor);
    return copy;
}

/* With the rest of the model frozen, the probe gets the gradients that it would get anyway and
 * learns; no bit of the rest moves, and the optimiser keeps nothing for it. */
static void the_probe_learns_alone(void **unused)
{
    (void)unused;
    static const char *const optimizers[] = {"adamw", "muon"};
    enum { MOST_PARAMS = 64 };
    for (int i = 0; i < 2; i++) {
        struct run whole, probe;
        open_run(&whole, "parallax", &f32, optimizers[i], 20);
        open_run(&probe, "parallax", &f32, optimizers[i], 20);
        struct param_list *free_rows = model_params(whole.m.model);
        struct param_list *rows = model_params(probe.m.model);
        optim_destroy(probe.optim);
        param_list_train_only(rows, true, false);
        make_optim(&probe, optimizers[i]);
        struct plx_tensor before[MOST_PARAMS];
        assert_true(rows->count <= MOST_PARAMS);
        for (int p = 0; p < rows->count; p++) {
            before[p] = copy_of(&rows->items[p].value);
            bool named = strstr(rows->items[p].name, ".r_") != NULL;
            assert_true(rows->items[p].probe == named && rows->items[p].frozen == !named);
        }
        /* The gradients of one pass, before clipping scales them by norms that differ. */
        struct model_loss loss;
        CASE_OK(&whole.m, model_loss_backward(whole.m.model, &whole.batch.batch, 1.0, &loss));
        CASE_OK(&probe.m, model_loss_backward(probe.m.model, &probe.batch.batch, 1.0, &loss));
        for (int p = 0; p < rows->count; p++)
            if (rows->items[p].probe)
                case_assert_same_bits(&rows->items[p].grad, &free_rows->items[p].grad);
        double first = step(&probe), last = first;
        for (int s = 1; s < 20; s++) last = step(&probe);
        assert_true(last < first);
        for (int p = 0; p < rows->count; p++) {
            const struct plx_tensor *after = &rows->items[p].value;
            size_t bytes = (size_t)plx_tensor_count(after) * plx_dtype_size(after->dtype);
            bool same = memcmp(before[p].data, after->data, bytes) == 0;
            assert_true(same == rows->items[p].frozen);
            free(before[p].data);
        }
        struct optim_tensor state;
        for (int t = 0; optim_state(probe.optim, t, &state); t++)
            assert_non_null(strstr(state.name, ".r_"));
        close_run(&whole);
        close_run(&probe);
    }
}

/* ---- In 8 bits ---- */

/* Of two gradients; the cosine of their angle is 1 where both point the same way. */
struct angle {
    double ab, aa, bb;
};

static double cosine(struct angle angle)
{
    return angle.ab / sqrt(angle.aa * angle.bb);
}

static struct angle angle_of(const struct plx_tensor *a, const struct plx_tensor *b)
{
    struct angle angle = {0};
    for (int64_t i = 0; i < plx_tensor_count(a); i++) {
        angle.ab += case_get(a, i) * case_get(b, i);
        angle.aa += case_get(a, i) * case_get(a, i);
        angle.bb += case_get(b, i) * case_get(b, i);
    }
    return angle;
}

/* Operands of four binary digits: a product is off by a few hundredths, and what a dozen of them in
 * a row make of a gradient by more; the probe, whose terms cancel, doubles that. */
static void gradients_in_fp8_point_where_those_in_f32_do(void **unused)
{
    (void)unused;
    static const char *const mixers[] = {"softmax", "parallax"};
    static const double expected[] = {0.98, 0.95};
    for (int i = 0; i < 2; i++) {
        struct run wide, narrow;
        struct model_loss loss;
        struct angle all = {0};
        double least = 1;
        open_run(&wide, mixers[i], &f32, "adamw", 1);
        open_run(&narrow, mixers[i], &fp8, "adamw", 1);
        CASE_OK(&wide.m, model_loss_backward(wide.m.model, &wide.batch.batch, 1, &loss));
        CASE_OK(&narrow.m, model_loss_backward(narrow.m.model, &narrow.batch.batch, 1, &loss));
        const struct param_list *a = model_params(wide.m.model), *b = model_params(narrow.m.model);
        for (int p = 0; p < a->count; p++) {
            const struct angle angle = angle_of(&a->items[p].grad, &b->items[p].grad);
            least = fmin(least, cosine(angle));
            all = (struct angle){all.ab + angle.ab, all.aa + angle.aa, all.bb + angle.bb};
        }
        print_message("%s: cosine of the gradient %.4f, of a parameter's at least %.4f\n",
                      mixers[i], cosine(all), least);
        assert_true(cosine(all) > expected[i] && cosine(all) < 0.99999 && least > 0.9);
        close_run(&wide);
        close_run(&narrow);
    }
}

/* At a tenth of the rate, where a difference does not feed on itself; what is left is rounding to 8
 * bits, and not none at all. */
static void losses_in_fp8_stay_beside_those_in_f32(void **unused)
{
    (void)unused;
    static const char *const optimizers[] = {"adamw", "muon"};
    for (int i = 0; i < 2; i++) {
        struct run wide, narrow;
        double apart = 0, first = 0, last = 0;
        open_run(&wide, "parallax", &f32, optimizers[i], 20);
        open_run(&narrow, "parallax", &fp8, optimizers[i], 20);
        wide.rate = narrow.rate = 0.1;
        for (int s = 0; s < 20; s++) {
            last = step(&wide);
            first = s == 0 ? last : first;
            apart = fmax(apart, fabs(step(&narrow) - last));
        }
        print_message("%s: loss %.3f -> %.3f, in fp8 apart by %.2e\n", optimizers[i], first, last,
                      apart);
        assert_true(apart > 1e-5 && apart < 0.02 * first);
        close_run(&wide);
        close_run(&narrow);
    }
}

static void matrices_that_do_not_fit_are_refused(void **unused)
{
    (void)unused;
    struct model_config config = case_config(2, "parallax");
    struct case_model m = {0};
    CASE_OK(&m, backend_create(&m.be, &fp8, &m.err));
    assert_int_equal(model_create(&m.be, &config, &m.model), PLX_UNSUPPORTED);
    assert_string_equal(m.err.text, "--dtype fp8: model.layers.0.mlp.gate_proj.weight is [40,32], "
                                    "but both extents must be multiples of 16");
    backend_destroy(&m.be);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_batch_is_learnt_by_heart),
        cmocka_unit_test(backends_walk_the_same_path),
        cmocka_unit_test(a_branched_decay_equals_one_run),
        cmocka_unit_test(the_probe_learns_alone),
        cmocka_unit_test(gradients_in_fp8_point_where_those_in_f32_do),
        cmocka_unit_test(losses_in_fp8_stay_beside_those_in_f32),
        cmocka_unit_test(matrices_that_do_not_fit_are_refused),
    };
    return cmocka_run_group_tests_name("training", tests, NULL, NULL);
}
