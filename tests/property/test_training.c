/* test_training.c: laws of training a small model with the real optimisers: one batch can be learnt
 * by heart, both backends walk the same path, and a decay branched off a constant-rate trunk equals
 * one run. */
#include "../model_case.h"

#include "optim/optim.h"

struct run {
    struct case_model m;
    struct optim *optim;
    struct case_batch batch;
    struct schedule_config schedule;
};

static void make_optim(struct run *run, const char *optimizer)
{
    struct optim_config optim = optim_config_default(optimizer);
    optim.lr = strcmp(optimizer, "muon") == 0 ? 0.02 : 0.01;
    optim.other_lr = optim.head_lr = optim.embedding_lr = 0.5;
    CASE_OK(&run->m, optim_create(&run->m.be, &optim, model_params(run->m.model), &run->optim));
}

static void open_run(struct run *run, const char *mixer, const struct ops *ops, plx_dtype storage,
                     const char *optimizer, int64_t steps)
{
    struct model_config config = case_config(2, mixer);
    config.initializer_range = 0.1;
    run->m = (struct case_model){0};
    /* One thread: at these sizes two would mostly wait for each other. */
    const struct backend_config backend = {
        .ops = ops, .storage = storage, .compute = storage, .threads = 1};
    CASE_OK(&run->m, backend_create(&run->m.be, &backend, &run->m.err));
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
    CASE_OK(&run->m, optim_step(run->optim, schedule_lr(&run->schedule, index),
                                schedule_weight_decay(&run->schedule, index)));
    assert_int_equal(loss.count, scored);
    return loss.sum / (double)scored;
}

static void one_batch_is_learnt_by_heart(void **unused)
{
    (void)unused;
    static const char *const mixers[] = {"softmax", "parallax"}, *const optimizers[] = {"adamw",
                                                                                        "muon"};
    for (int i = 0; i < 4; i++) {
        struct run run;
        open_run(&run, mixers[i / 2], &ops_cpu, PLX_F32, optimizers[i % 2], 150);
        double first = step(&run), last = first;
        for (int s = 1; s < 150; s++) last = step(&run);
        print_message("%s, %s: loss %.3f -> %.4f\n", mixers[i / 2], optimizers[i % 2], first, last);
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
        struct run exact, fast;
        open_run(&exact, "parallax", &ops_ref, PLX_F64, optimizers[i], 20);
        open_run(&fast, "parallax", &ops_cpu, PLX_F32, optimizers[i], 20);
        /* Both begin at the float weights. */
        struct param_list *from = model_params(fast.m.model), *to = model_params(exact.m.model);
        for (int p = 0; p < from->count; p++)
            for (int64_t e = 0; e < plx_tensor_count(&from->items[p].value); e++)
                case_set(&to->items[p].value, e, case_get(&from->items[p].value, e));
        for (int s = 0; s < 20; s++) {
            double a = step(&exact), b = step(&fast);
            if (!(fabs(a - b) <= 1e-3 * a))
                fail_msg("%s, step %d: %.7f in double, %.7f on the cpu", optimizers[i], s, a, b);
        }
        close_run(&exact);
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
    open_run(&whole, "parallax", &ops_cpu, PLX_F32, "muon", 30);
    open_run(&trunk, "parallax", &ops_cpu, PLX_F32, "muon", 30);
    open_run(&branch, "parallax", &ops_cpu, PLX_F32, "muon", 30);
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
        open_run(&whole, "parallax", &ops_cpu, PLX_F32, optimizers[i], 20);
        open_run(&probe, "parallax", &ops_cpu, PLX_F32, optimizers[i], 20);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_batch_is_learnt_by_heart),
        cmocka_unit_test(backends_walk_the_same_path),
        cmocka_unit_test(a_branched_decay_equals_one_run),
        cmocka_unit_test(the_probe_learns_alone),
    };
    return cmocka_run_group_tests_name("training", tests, NULL, NULL);
}
