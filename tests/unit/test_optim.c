/* test_optim.c: whole optimiser steps: which group gets which update at which rate and decay,
 * clipping, refusal of gradients that are not finite, state for checkpoints. The expected weights
 * come from the formulas written out here in double; Newton-Schulz itself is test_muon.c's subject.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "optim/optim.h"

/* ---- A small parameter list with memory, on one backend ---- */

struct setting {
    const char *name;
    const struct ops *ops;
    plx_dtype storage;
    double tolerance;
};

static const struct setting settings[] = {
    {"reference f64", &ops_ref, PLX_F64, 1e-13},
    {"reference f32", &ops_ref, PLX_F32, 3e-6},
    {"cpu f32", &ops_cpu, PLX_F32, 3e-6},
};
enum { SETTINGS = sizeof settings / sizeof *settings, MAX_ELEMENTS = 64, PARAMS = 10 };

static const struct {
    const char *name;
    int rank;
    int64_t shape[2];
    enum param_group group;
} rows[PARAMS] = {
    {"embed.weight", 2, {8, 6}, PARAM_EMBEDDING}, {"wide.weight", 2, {5, 9}, PARAM_MATRIX},
    {"norm.weight", 1, {6, 0}, PARAM_NORM},       {"tall.weight", 2, {11, 4}, PARAM_MATRIX},
    {"gate.weight", 2, {2, 6}, PARAM_THIN},       {"gate.bias", 1, {2, 0}, PARAM_BIAS},
    {"square.weight", 2, {6, 6}, PARAM_MATRIX},   {"head.weight", 2, {8, 6}, PARAM_HEAD},
    {"wide_2.weight", 2, {5, 9}, PARAM_MATRIX},   {"wide_3.weight", 2, {5, 9}, PARAM_MATRIX},
};

struct fixture {
    struct error err;
    struct backend be;
    struct param_list params;
    struct arena values, grads;
    struct optim *optim;
};

static void fill(struct plx_tensor *tensor, uint64_t stream, double length)
{
    struct rng rng = rng_make(7, stream);
    for (int64_t e = 0; e < plx_tensor_count(tensor); e++) {
        double value = length * rng_normal(&rng);
        if (tensor->dtype == PLX_F64)
            ((double *)tensor->data)[e] = value;
        else
            ((float *)tensor->data)[e] = (float)value;
    }
}

static double element(const struct plx_tensor *tensor, int64_t e)
{
    return tensor->dtype == PLX_F64 ? ((const double *)tensor->data)[e]
                                    : ((const float *)tensor->data)[e];
}

static void set_element(const struct plx_tensor *tensor, int64_t e, double value)
{
    if (tensor->dtype == PLX_F64)
        ((double *)tensor->data)[e] = value;
    else
        ((float *)tensor->data)[e] = (float)value;
}

/* Bit i is set where row i is not to be trained, or only elsewhere. */
static void setup_rows(struct fixture *f, const struct setting *setting,
                       const struct optim_config *config, unsigned frozen, unsigned remote)
{
    *f = (struct fixture){.optim = NULL};
    struct backend_config backend = {.ops = setting->ops,
                                     .storage = setting->storage,
                                     .compute = setting->storage,
                                     .threads = 2};
    if (backend_create(&f->be, &backend, &f->err) != PLX_OK) fail_msg("%s", f->err.text);
    f->be.err = &f->err;
    for (int i = 0; i < PARAMS; i++)
        assert_int_equal(param_add(&f->params, setting->storage, rows[i].rank, rows[i].shape,
                                   PARAM_INIT_NORMAL, 1.0, rows[i].group, "%s", rows[i].name),
                         i);
    size_t room = (size_t)param_list_elements(&f->params) * sizeof(double) + PARAMS * 128;
    assert_int_equal(arena_create(&f->values, &device_cpu, NULL, room, &f->err), PLX_OK);
    assert_int_equal(arena_create(&f->grads, &device_cpu, NULL, room, &f->err), PLX_OK);
    param_list_carve_values(&f->params, &f->values);
    param_list_carve_active(&f->params, backend_precision(&f->be), &f->values);
    for (int i = 0; i < PARAMS; i++) {
        fill(&f->params.items[i].value, (uint64_t)i, 0.5);
        f->params.items[i].frozen = frozen >> i & 1;
        f->params.items[i].remote = remote >> i & 1;
    }
    /* Gradients get their memory after the optimiser is made, as in training. */
    if (optim_create(&f->be, config, &f->params, &f->optim) != PLX_OK) fail_msg("%s", f->err.text);
    param_list_carve_grads(&f->params, &f->grads);
}

static void setup(struct fixture *f, const struct setting *setting,
                  const struct optim_config *config)
{
    setup_rows(f, setting, config, 0, 0);
}

/* One process of two, which owns the even rows or the odd ones. */
static void setup_half(struct fixture *f, const struct setting *setting,
                       const struct optim_config *config, int half)
{
    setup_rows(f, setting, config, 0, half == 0 ? 0xaaaa : 0x5555);
}

static void fill_grads(struct fixture *f, int step, double length)
{
    for (int i = 0; i < PARAMS; i++)
        if (param_has_grad(&f->params.items[i]))
            fill(&f->params.items[i].grad, 1000 + (uint64_t)(100 * step + i), length);
}

static void teardown(struct fixture *f)
{
    optim_destroy(f->optim);
    param_list_destroy(&f->params);
    arena_destroy(&f->values);
    arena_destroy(&f->grads);
    backend_destroy(&f->be);
}

/* Rates of the groups as distinct numbers, so that no mix-up can go unnoticed. */
static struct optim_config distinct_config(const char *name)
{
    struct optim_config config = optim_config_default(name);
    config.lr = 0.05;
    config.weight_decay = 0.2;
    config.embedding_lr = 0.5;
    config.head_lr = 0.7;
    config.norm_lr = 0.11;
    config.other_lr = 0.3;
    config.clip = 0.0;
    return config;
}

static double expected_lr(const struct optim_config *config, enum param_group group)
{
    const double multipliers[PARAM_GROUPS] = {
        [PARAM_MATRIX] = 1.0,           [PARAM_THIN] = config->other_lr,
        [PARAM_HEAD] = config->head_lr, [PARAM_EMBEDDING] = config->embedding_lr,
        [PARAM_NORM] = config->norm_lr, [PARAM_BIAS] = config->other_lr};
    return config->lr * multipliers[group];
}

static bool expected_decay(const struct optim_config *config, enum param_group group)
{
    return config->decay_norms || group == PARAM_MATRIX || group == PARAM_THIN ||
           group == PARAM_HEAD;
}

/* ---- The formulas, in double ---- */

struct oracle {
    double w[PARAMS][MAX_ELEMENTS], m[PARAMS][MAX_ELEMENTS], v[PARAMS][MAX_ELEMENTS];
};

static void oracle_start(struct oracle *oracle, const struct fixture *f)
{
    memset(oracle, 0, sizeof *oracle);
    for (int i = 0; i < PARAMS; i++)
        for (int64_t e = 0; e < plx_tensor_count(&f->params.items[i].value); e++)
            oracle->w[i][e] = element(&f->params.items[i].value, e);
}

static void oracle_adamw(struct oracle *oracle, int i, const struct plx_tensor *grad,
                         const struct optim_config *config, double lr, double decay, int step)
{
    for (int64_t e = 0; e < plx_tensor_count(grad); e++) {
        double g = element(grad, e), *m = &oracle->m[i][e], *v = &oracle->v[i][e];
        *m = config->beta1 * *m + (1.0 - config->beta1) * g;
        *v = config->beta2 * *v + (1.0 - config->beta2) * g * g;
        double mean = *m / (1.0 - pow(config->beta1, step));
        double square = *v / (1.0 - pow(config->beta2, step));
        oracle->w[i][e] =
            oracle->w[i][e] * (1.0 - lr * decay) - lr * mean / (sqrt(square) + config->eps);
    }
}

/* y = NS(u) in double by the reference operations. */
static void oracle_newton_schulz(const struct optim_config *config, int64_t *shape, double *u)
{
    struct error err = {0};
    struct backend be;
    struct backend_config reference = {
        .ops = &ops_ref, .storage = PLX_F64, .compute = PLX_F64, .threads = 1};
    assert_int_equal(backend_create(&be, &reference, &err), PLX_OK);
    assert_int_equal(backend_reserve(&be, 1 << 16), PLX_OK);
    struct plx_tensor tensor = plx_tensor_dense(u, PLX_F64, 3, (int64_t[]){1, shape[0], shape[1]});
    struct muon_iteration iteration = {config->coefficients, config->ns_steps};
    assert_int_equal(muon_orthogonalise(&be, &iteration, &tensor, &tensor), PLX_OK);
    backend_destroy(&be);
}

static void oracle_muon(struct oracle *oracle, int i, const struct param *param,
                        const struct optim_config *config, double lr, double decay)
{
    double u[MAX_ELEMENTS], mu = config->momentum, fresh = config->momentum_ema ? 1.0 - mu : 1.0;
    int64_t count = plx_tensor_count(&param->grad);
    for (int64_t e = 0; e < count; e++) {
        double g = element(&param->grad, e);
        oracle->m[i][e] = mu * oracle->m[i][e] + fresh * g;
        u[e] = config->nesterov ? fresh * g + mu * oracle->m[i][e] : oracle->m[i][e];
    }
    int64_t shape[2] = {param->value.shape[0], param->value.shape[1]};
    oracle_newton_schulz(config, shape, u);
    double scale = muon_scale_factor(config->scale, shape[0], shape[1]);
    for (int64_t e = 0; e < count; e++)
        oracle->w[i][e] = oracle->w[i][e] * (1.0 - lr * decay) - lr * scale * u[e];
}

static void assert_weights(const struct oracle *oracle, const struct fixture *f,
                           const struct setting *setting)
{
    for (int i = 0; i < PARAMS; i++)
        for (int64_t e = 0; e < plx_tensor_count(&f->params.items[i].value); e++) {
            double actual = element(&f->params.items[i].value, e);
            if (!(fabs(actual - oracle->w[i][e]) <= setting->tolerance))
                fail_msg("%s, %s[%lld]: %.15g instead of %.15g", setting->name, rows[i].name,
                         (long long)e, actual, oracle->w[i][e]);
        }
}

/* Four steps with changing factors against the formulas. */
static void run_against_formulas(const struct setting *setting, const struct optim_config *config)
{
    static const double lr_factors[4] = {0.5, 1.0, 1.0, 0.25}, decay_factors[4] = {1, 1, 0.5, 0.1};
    bool is_muon = strcmp(config->name, "muon") == 0;
    struct fixture f;
    setup(&f, setting, config);
    struct oracle oracle;
    oracle_start(&oracle, &f);
    for (int step = 1; step <= 4; step++) {
        fill_grads(&f, step, 0.3);
        for (int i = 0; i < PARAMS; i++) {
            struct param *param = &f.params.items[i];
            double lr = expected_lr(config, param->group) * lr_factors[step - 1];
            double decay = expected_decay(config, param->group)
                               ? config->weight_decay * decay_factors[step - 1]
                               : 0.0;
            if (is_muon && param->group == PARAM_MATRIX)
                oracle_muon(&oracle, i, param, config, lr, decay);
            else
                oracle_adamw(&oracle, i, &param->grad, config, lr, decay, step);
        }
        if (optim_step(f.optim, lr_factors[step - 1], decay_factors[step - 1]) != PLX_OK)
            fail_msg("%s", f.err.text);
        assert_int_equal(optim_steps(f.optim), step);
        assert_weights(&oracle, &f, setting);
        assert_int_equal(f.be.scratch.used, 0);
        assert_false(arena_overflowed(&f.be.scratch));
    }
    teardown(&f);
}

static void adamw_follows_its_formula(void **unused)
{
    (void)unused;
    for (int s = 0; s < SETTINGS; s++)
        for (int decay_norms = 0; decay_norms < 2; decay_norms++) {
            struct optim_config config = distinct_config("adamw");
            config.decay_norms = decay_norms;
            run_against_formulas(&settings[s], &config);
        }
}

static void muon_follows_its_formula(void **unused)
{
    (void)unused;
    for (int s = 0; s < SETTINGS; s++)
        for (int bits = 0; bits < 8; bits++) {
            struct optim_config config = distinct_config("muon");
            config.nesterov = bits & 1;
            config.momentum_ema = bits & 2;
            config.decay_norms = bits & 4;
            run_against_formulas(&settings[s], &config);
        }
}

static void every_scale_and_list_reaches_the_update(void **unused)
{
    (void)unused;
    for (int scale = MUON_SCALE_KELLER; scale <= MUON_SCALE_NONE; scale++)
        for (int list = MUON_QUINTIC; list <= MUON_OPT; list++) {
            struct optim_config config = distinct_config("muon");
            config.scale = (enum muon_scale)scale;
            config.coefficients = (enum muon_coefficients)list;
            config.ns_steps = 3 + list;
            run_against_formulas(&settings[0], &config);
        }
}

/* Both momentum forms point the same way, so the weights they give differ by rounding and epsilon
 * only. */
static void momentum_forms_give_one_direction(void **unused)
{
    (void)unused;
    struct fixture ema, sum;
    struct optim_config config = distinct_config("muon");
    setup(&ema, &settings[0], &config);
    config.momentum_ema = false;
    setup(&sum, &settings[0], &config);
    for (int step = 1; step <= 3; step++) {
        fill_grads(&ema, step, 1e4);
        fill_grads(&sum, step, 1e4);
        assert_int_equal(optim_step(ema.optim, 1.0, 1.0), PLX_OK);
        assert_int_equal(optim_step(sum.optim, 1.0, 1.0), PLX_OK);
    }
    for (int i = 0; i < PARAMS; i++)
        for (int64_t e = 0; e < plx_tensor_count(&ema.params.items[i].value); e++)
            assert_true(fabs(element(&ema.params.items[i].value, e) -
                             element(&sum.params.items[i].value, e)) < 1e-9);
    teardown(&ema);
    teardown(&sum);
}

/* Three steps of one weight, worked out with a calculator's formula outside this program. */
static void adamw_gives_known_numbers(void **unused)
{
    (void)unused;
    static const double grads[3] = {0.5, -0.25, 2.0};
    static const double expected[3] = {0.890000002, 0.8542630578558273, 0.7800870710960708};
    struct optim_config config = optim_config_default("adamw");
    config.lr = 0.1;
    config.clip = 0.0;
    struct fixture f;
    setup(&f, &settings[0], &config);
    struct plx_tensor *value = &f.params.items[1].value, *grad = &f.params.items[1].grad;
    set_element(value, 7, 1.0);
    for (int step = 0; step < 3; step++) {
        set_element(grad, 7, grads[step]);
        assert_int_equal(optim_step(f.optim, 1.0, 1.0), PLX_OK);
        assert_true(fabs(element(value, 7) - expected[step]) < 1e-14);
    }
    teardown(&f);
}

static void defaults_are_the_papers(void **unused)
{
    (void)unused;
    struct optim_config adamw = optim_config_default("adamw"), muon = optim_config_default("muon");
    assert_true(adamw.lr == 3e-4 && adamw.weight_decay == 0.1 && adamw.clip == 1.0);
    assert_true(adamw.beta1 == 0.9 && adamw.beta2 == 0.95 && adamw.eps == 1e-8);
    assert_true(adamw.embedding_lr == 1.0 && adamw.norm_lr == 1.0);
    assert_true(muon.lr == 5e-3 && muon.weight_decay == 0.1 && muon.clip == 1.0);
    assert_true(muon.beta1 == 0.8 && muon.beta2 == 0.95 && muon.eps == 1e-7);
    assert_true(muon.momentum == 0.95 && muon.nesterov && muon.ns_steps == 5);
    assert_true(muon.embedding_lr == 0.3 && muon.norm_lr == 0.015);
    assert_int_equal(muon.coefficients, MUON_QUINTIC);
}

/* ---- Clipping and refusal ---- */

static double gradient_norm(const struct fixture *f)
{
    double sum = 0.0;
    for (int i = 0; i < PARAMS; i++)
        for (int64_t e = 0; e < plx_tensor_count(&f->params.items[i].grad); e++)
            sum += pow(element(&f->params.items[i].grad, e), 2.0);
    return sqrt(sum);
}

/* The step that the formulas give with gradients scaled by clip / norm; the gradients themselves
 * stay. */
static void long_gradients_are_clipped_and_short_ones_are_not(void **unused)
{
    (void)unused;
    for (int s = 0; s < 2 * SETTINGS; s++) {
        const struct setting *setting = &settings[s / 2];
        struct optim_config config = distinct_config("adamw");
        config.clip = 1.5;
        config.eps = 0.1; /* else the length of a gradient would hardly show */
        struct fixture f, scaled;
        setup(&f, setting, &config);
        config.clip = 0.0;
        setup(&scaled, setting, &config);
        fill_grads(&f, 1, s % 2 ? 2.0 : 0.01);
        fill_grads(&scaled, 1, s % 2 ? 2.0 : 0.01);
        double norm = gradient_norm(&f), before = element(&f.params.items[3].grad, 5);
        assert_true((norm > 1.5) == (s % 2 == 1));
        for (int i = 0; i < PARAMS && norm > 1.5; i++) {
            struct plx_tensor *grad = &scaled.params.items[i].grad;
            for (int64_t e = 0; e < plx_tensor_count(grad); e++)
                set_element(grad, e, element(grad, e) * (1.5 / norm));
        }
        struct optim_report report;
        assert_int_equal(optim_step(f.optim, 1.0, 1.0), PLX_OK);
        assert_int_equal(optim_step(scaled.optim, 1.0, 1.0), PLX_OK);
        assert_int_equal(optim_read_report(f.optim, &report), PLX_OK);
        assert_true(fabs(report.grad_norm / norm - 1.0) < 1e-6);
        assert_int_equal(report.bad_step, 0);
        assert_true(element(&f.params.items[3].grad, 5) == before);
        struct oracle expected;
        oracle_start(&expected, &scaled);
        assert_weights(&expected, &f, setting);
        teardown(&f);
        teardown(&scaled);
    }
}

/* Everything a step may change, byte for byte. */
struct snapshot {
    unsigned char *bytes;
    size_t size;
};

static void snapshot_add(struct snapshot *snapshot, const struct plx_tensor *tensor)
{
    size_t size = (size_t)plx_tensor_count(tensor) * plx_dtype_size(tensor->dtype);
    snapshot->bytes = realloc(snapshot->bytes, snapshot->size + size);
    memcpy(snapshot->bytes + snapshot->size, tensor->data, size);
    snapshot->size += size;
}

static struct snapshot snapshot_take(struct fixture *f)
{
    struct snapshot snapshot = {NULL, 0};
    for (int i = 0; i < PARAMS; i++) {
        snapshot_add(&snapshot, &f->params.items[i].value);
        snapshot_add(&snapshot, &f->params.items[i].grad);
    }
    struct optim_tensor state;
    for (int i = 0; optim_state(f->optim, i, &state); i++) snapshot_add(&snapshot, &state.tensor);
    return snapshot;
}

static void assert_same_snapshot(const struct snapshot *a, const struct snapshot *b)
{
    assert_int_equal(a->size, b->size);
    assert_memory_equal(a->bytes, b->bytes, a->size);
}

/* The bad step and those after it, which the host has not looked at yet. */
static void gradients_that_are_not_finite_change_nothing(void **unused)
{
    (void)unused;
    static const double poisons[3] = {NAN, INFINITY, -INFINITY};
    for (int s = 0; s < 2 * SETTINGS; s++)
        for (int p = 0; p < 3; p++) {
            struct optim_config config = distinct_config(s % 2 ? "muon" : "adamw");
            config.clip = p == 2 ? 0.0 : 1.0;
            struct fixture f;
            setup(&f, &settings[s / 2], &config);
            fill_grads(&f, 1, 0.5);
            assert_int_equal(optim_step(f.optim, 1.0, 1.0), PLX_OK);
            fill_grads(&f, 2, 0.5);
            double healthy[2] = {element(&f.params.items[3].grad, 43),
                                 element(&f.params.items[6].grad, 0)};
            struct snapshot before = snapshot_take(&f);
            set_element(&f.params.items[3].grad, 43, poisons[p]);
            set_element(&f.params.items[6].grad, 0, NAN);
            assert_int_equal(optim_step(f.optim, 1.0, 1.0), PLX_OK);
            set_element(&f.params.items[3].grad, 43, healthy[0]);
            set_element(&f.params.items[6].grad, 0, healthy[1]);
            assert_int_equal(optim_step(f.optim, 1.0, 1.0), PLX_OK);
            struct snapshot after = snapshot_take(&f);
            assert_same_snapshot(&before, &after);
            struct optim_report report;
            assert_int_equal(optim_read_report(f.optim, &report), PLX_BAD_DATA);
            assert_false(isfinite(report.grad_norm));
            assert_int_equal(report.bad_step, 2);
            assert_non_null(strstr(f.err.text, rows[3].name));
            assert_null(strstr(f.err.text, rows[6].name));
            assert_int_equal(optim_steps(f.optim), 1);
            free(before.bytes), free(after.bytes);
            teardown(&f);
        }
}

/* Freezing rows of every group is the same as gradients of zero for the others' norm and update;
 * the frozen rows keep their bits, though weight decay alone would move them. */
static void frozen_rows_stay_and_have_no_part_in_the_norm(void **unused)
{
    (void)unused;
    static const char *const names[] = {"adamw", "muon"};
    for (int s = 0; s < 2 * SETTINGS; s++)
        for (unsigned frozen = 1; frozen < (1u << PARAMS) - 1; frozen = 3 * frozen + 1) {
            struct optim_config config = distinct_config(names[s % 2]);
            config.clip = 1.5;
            struct fixture some, all;
            setup_rows(&some, &settings[s / 2], &config, frozen, 0);
            setup(&all, &settings[s / 2], &config);
            for (int step = 1; step <= 2; step++) {
                struct optim_report some_report, all_report;
                fill_grads(&some, step, 2.0);
                fill_grads(&all, step, 2.0);
                for (int i = 0; i < PARAMS; i++)
                    if (frozen >> i & 1) fill(&all.params.items[i].grad, 0, 0.0);
                assert_int_equal(optim_step(some.optim, 1.0, 1.0), PLX_OK);
                assert_int_equal(optim_step(all.optim, 1.0, 1.0), PLX_OK);
                assert_int_equal(optim_read_report(some.optim, &some_report), PLX_OK);
                assert_int_equal(optim_read_report(all.optim, &all_report), PLX_OK);
                assert_true(some_report.grad_norm == all_report.grad_norm);
            }
            int64_t trained = 0;
            for (int i = 0; i < PARAMS; i++) {
                const struct plx_tensor *value = &some.params.items[i].value;
                bool stays = frozen >> i & 1;
                if (stays) fill(&all.params.items[i].value, (uint64_t)i, 0.5);
                if (!stays) trained += plx_tensor_count(value);
                for (int64_t e = 0; e < plx_tensor_count(value); e++)
                    assert_true(element(value, e) == element(&all.params.items[i].value, e));
            }
            assert_int_equal(param_list_trained(&some.params), trained);
            assert_true(optim_bytes(some.optim) < optim_bytes(all.optim));
            teardown(&some);
            teardown(&all);
        }
}

/* Two processes with half of the parameters each, which add up their squares between the halves of
 * a step, walk as one. */
static void owners_together_walk_as_one(void **unused)
{
    (void)unused;
    static const char *const names[] = {"adamw", "muon"};
    for (int s = 0; s < 2 * SETTINGS; s++) {
        struct optim_config config = distinct_config(names[s % 2]);
        config.clip = 1.5;
        struct fixture whole, halves[2];
        setup(&whole, &settings[s / 2], &config);
        for (int h = 0; h < 2; h++) setup_half(&halves[h], &settings[s / 2], &config, h);
        for (int step = 1; step <= 3; step++) {
            fill_grads(&whole, step, 2.0);
            assert_int_equal(optim_step(whole.optim, 1.0, 1.0), PLX_OK);
            for (int h = 0; h < 2; h++) {
                fill_grads(&halves[h], step, 2.0);
                assert_int_equal(optim_begin(halves[h].optim, 1.0, 1.0), PLX_OK);
                assert_int_equal(optim_measure(halves[h].optim), PLX_OK);
            }
            double *squares[2];
            for (int h = 0; h < 2; h++) squares[h] = optim_squares(halves[h].optim)->data;
            for (int i = 0; i < PARAMS; i++) squares[0][i] = squares[1][i] += squares[0][i];
            for (int h = 0; h < 2; h++) assert_int_equal(optim_update(halves[h].optim), PLX_OK);
        }
        for (int i = 0; i < PARAMS; i++)
            assert_memory_equal(halves[i % 2].params.items[i].value.data,
                                whole.params.items[i].value.data,
                                (size_t)plx_tensor_count(&whole.params.items[i].value) *
                                    plx_dtype_size(whole.be.storage));
        assert_true(optim_bytes(halves[0].optim) < optim_bytes(whole.optim));
        teardown(&whole);
        for (int h = 0; h < 2; h++) teardown(&halves[h]);
    }
}

static void missing_gradients_are_refused(void **unused)
{
    (void)unused;
    struct optim_config config = optim_config_default("muon");
    struct fixture f;
    setup(&f, &settings[0], &config);
    f.params.items[2].grad.data = NULL;
    assert_int_equal(optim_step(f.optim, 1.0, 1.0), PLX_INVALID_ARGUMENT);
    assert_non_null(strstr(f.err.text, "norm.weight"));
    teardown(&f);
}

/* ---- State ---- */

static void state_is_named_and_shaped(void **unused)
{
    (void)unused;
    struct optim_config config = optim_config_default("muon");
    struct fixture f;
    setup(&f, &settings[1], &config);
    struct optim_tensor state;
    int index = 0;
    size_t elements = 0;
    for (int i = 0; i < PARAMS; i++) {
        static const char *const adamw[] = {"m", "v"}, *const muon[] = {"momentum"};
        bool is_matrix = rows[i].group == PARAM_MATRIX;
        for (int t = 0; t < (is_matrix ? 1 : 2); t++) {
            char name[64];
            snprintf(name, sizeof name, "%s.%s", rows[i].name, is_matrix ? muon[t] : adamw[t]);
            assert_true(optim_state(f.optim, index++, &state));
            assert_string_equal(state.name, name);
            assert_int_equal(state.tensor.rank, rows[i].rank);
            assert_int_equal(state.tensor.dtype, PLX_F32);
            for (int axis = 0; axis < rows[i].rank; axis++)
                assert_int_equal(state.tensor.shape[axis], rows[i].shape[axis]);
            for (int64_t e = 0; e < plx_tensor_count(&state.tensor); e++)
                assert_true(element(&state.tensor, e) == 0.0);
            elements += (size_t)plx_tensor_count(&state.tensor);
        }
    }
    assert_false(optim_state(f.optim, index, &state));
    assert_false(optim_state(f.optim, index + 100, &state));
    assert_true(optim_bytes(f.optim) >= 4 * elements);
    teardown(&f);
}

static void copy_run(struct fixture *to, struct fixture *from)
{
    struct optim_tensor source, target;
    for (int i = 0; i < PARAMS; i++)
        memcpy(to->params.items[i].value.data, from->params.items[i].value.data,
               (size_t)plx_tensor_count(&from->params.items[i].value) *
                   plx_dtype_size(from->be.storage));
    for (int i = 0; optim_state(from->optim, i, &source); i++) {
        assert_true(optim_state(to->optim, i, &target));
        assert_string_equal(source.name, target.name);
        memcpy(target.tensor.data, source.tensor.data,
               (size_t)plx_tensor_count(&source.tensor) * plx_dtype_size(source.tensor.dtype));
    }
    optim_set_steps(to->optim, optim_steps(from->optim));
}

static void a_copied_state_continues_bit_for_bit(void **unused)
{
    (void)unused;
    for (int s = 0; s < SETTINGS; s++)
        for (int kind = 0; kind < 2; kind++) {
            struct optim_config config = optim_config_default(kind == 0 ? "adamw" : "muon");
            struct fixture first, second;
            setup(&first, &settings[s], &config);
            setup(&second, &settings[s], &config);
            for (int step = 1; step <= 3; step++) {
                fill_grads(&first, step, 0.5);
                assert_int_equal(optim_step(first.optim, 1.0, 1.0), PLX_OK);
            }
            copy_run(&second, &first);
            for (int step = 4; step <= 6; step++) {
                fill_grads(&first, step, 0.5);
                fill_grads(&second, step, 0.5);
                assert_int_equal(optim_step(first.optim, 0.5, 1.0), PLX_OK);
                assert_int_equal(optim_step(second.optim, 0.5, 1.0), PLX_OK);
            }
            struct snapshot a = snapshot_take(&first), b = snapshot_take(&second);
            assert_same_snapshot(&a, &b);
            free(a.bytes), free(b.bytes);
            teardown(&first);
            teardown(&second);
        }
}

/* ---- Configuration ---- */

static void bad_configurations_are_refused(void **unused)
{
    (void)unused;
    struct optim_config good = optim_config_default("muon");
    struct fixture f;
    setup(&f, &settings[0], &good);
    struct {
        struct optim_config config;
        const char *word;
    } cases[12];
    for (size_t c = 0; c < 12; c++) cases[c].config = good;
    cases[0].config = optim_config_default("sgd"), cases[0].word = "sgd";
    cases[1].config.lr = -1e-3, cases[1].word = "lr";
    cases[2].config.lr = NAN, cases[2].word = "lr";
    cases[3].config.weight_decay = -0.1, cases[3].word = "weight_decay";
    cases[4].config.beta1 = 1.0, cases[4].word = "beta1";
    cases[5].config.beta2 = 1.5, cases[5].word = "beta2";
    cases[6].config.eps = 0.0, cases[6].word = "eps";
    cases[7].config.momentum = 1.0, cases[7].word = "momentum";
    cases[8].config.ns_steps = -1, cases[8].word = "ns_steps";
    cases[9].config.embedding_lr = INFINITY, cases[9].word = "embedding_lr";
    cases[10].config.clip = -1.0, cases[10].word = "clip";
    cases[11].config.name = NULL, cases[11].word = "adamw";
    for (size_t c = 0; c < 12; c++) {
        struct optim *optim = f.optim;
        error_clear(&f.err);
        assert_int_equal(optim_create(&f.be, &cases[c].config, &f.params, &optim),
                         PLX_INVALID_ARGUMENT);
        assert_null(optim);
        if (strstr(f.err.text, cases[c].word) == NULL)
            fail_msg("\"%s\" does not name %s", f.err.text, cases[c].word);
    }
    f.params.items[2].group = PARAM_MATRIX; /* a gain has one axis */
    error_clear(&f.err);
    struct optim *optim;
    assert_int_equal(optim_create(&f.be, &good, &f.params, &optim), PLX_INVALID_ARGUMENT);
    assert_non_null(strstr(f.err.text, "norm.weight"));
    teardown(&f);
    optim_destroy(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(adamw_follows_its_formula),
        cmocka_unit_test(muon_follows_its_formula),
        cmocka_unit_test(every_scale_and_list_reaches_the_update),
        cmocka_unit_test(momentum_forms_give_one_direction),
        cmocka_unit_test(adamw_gives_known_numbers),
        cmocka_unit_test(defaults_are_the_papers),
        cmocka_unit_test(long_gradients_are_clipped_and_short_ones_are_not),
        cmocka_unit_test(gradients_that_are_not_finite_change_nothing),
        cmocka_unit_test(frozen_rows_stay_and_have_no_part_in_the_norm),
        cmocka_unit_test(owners_together_walk_as_one),
        cmocka_unit_test(missing_gradients_are_refused),
        cmocka_unit_test(state_is_named_and_shaped),
        cmocka_unit_test(a_copied_state_continues_bit_for_bit),
        cmocka_unit_test(bad_configurations_are_refused),
    };
    return cmocka_run_group_tests_name("optim", tests, NULL, NULL);
}
