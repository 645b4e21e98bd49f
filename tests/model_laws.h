/* model_laws.h: what the laws of models share: the models they hold for, logits and gradients of a
 * batch, comparisons, and the list of tests, every law for every model. */
#ifndef TESTS_MODEL_LAWS_H
#define TESTS_MODEL_LAWS_H

#include "model_case.h"

/* ---- Models ---- */

struct setup {
    const char *name;
    const char *mixers[2];
    int64_t windows[2];
    bool gate;
};

static const struct setup setups[] = {
    {"softmax", {"softmax", "softmax"}, {0, 0}, false},
    {"parallax", {"parallax", "parallax"}, {0, 0}, false},
    {"parallax, windows", {"parallax", "parallax"}, {4, 7}, true},
    {"mixed", {"softmax", "parallax"}, {5, 0}, false},
};
enum { SETUPS = sizeof setups / sizeof setups[0] };

/* Tables of operations, what is stored with them, and how near each other their results must lie.
 */
static const struct {
    const struct ops *ops;
    plx_dtype storage;
    double bound;
} law_tables[] = {{&ops_ref, PLX_F64, 1e-12}, {&ops_cpu, PLX_F32, 2e-5}};
enum { LAW_TABLES = sizeof law_tables / sizeof law_tables[0] };

static inline struct model_config setup_config(const struct setup *setup)
{
    struct model_config config = case_config(2, "softmax");
    for (int l = 0; l < 2; l++) {
        config.layer[l].mixer = mixer_find(setup->mixers[l]);
        config.layer[l].window = setup->windows[l];
    }
    config.probe_gate = setup->gate;
    return config;
}

/* ---- Logits ---- */

/* malloc'd logits [N,V] of a batch. */
static inline struct plx_tensor logits_of(struct case_model *m, const struct batch *batch)
{
    struct plx_tensor logits = case_tensor(
        m->be.storage, 2, (int64_t[]){batch->tokens, model_get_config(m->model)->vocab_size});
    CASE_OK(m, model_logits(m->model, batch, &logits));
    return logits;
}

static inline double largest_difference(const struct plx_tensor *a, const struct plx_tensor *b,
                                        double *largest)
{
    double difference = 0;
    *largest = 0;
    for (int64_t i = 0; i < plx_tensor_count(a); i++) {
        double d = fabs(case_get(a, i) - case_get(b, i));
        if (!(d <= difference)) difference = d;
        *largest = fmax(*largest, fabs(case_get(b, i)));
    }
    return difference;
}

static inline void assert_close(const char *what, const struct plx_tensor *a,
                                const struct plx_tensor *b, double bound)
{
    double largest, difference = largest_difference(a, b, &largest);
    if (!(difference <= bound * largest))
        fail_msg("%s: %.3e apart, largest %.3e", what, difference, largest);
}

/* Rows first .. first + count - 1 of a matrix. */
static inline struct plx_tensor rows_of(const struct plx_tensor *tensor, int64_t first,
                                        int64_t count)
{
    return plx_tensor_slice(*tensor, 0, first, count);
}

/* One sequence of a batch as a batch of its own. */
static inline struct batch sequence_of(const struct batch *batch, int64_t s, int32_t offsets[2])
{
    const int64_t start = batch->offsets[s], count = batch->offsets[s + 1] - start;
    offsets[0] = 0;
    offsets[1] = (int32_t)count;
    return (struct batch){.tokens = count,
                          .sequences = 1,
                          .ids = batch->ids + start,
                          .targets = batch->targets + start,
                          .positions = batch->positions + start,
                          .offsets = offsets};
}

/* ---- Gradients ---- */

static inline void gradients_of(struct case_model *m, const struct batch *batch, double scale)
{
    struct model_loss loss;
    CASE_OK(m, model_loss_backward(m->model, batch, scale, &loss));
}

static inline struct plx_tensor *copy_gradients(struct case_model *m)
{
    struct param_list *params = model_params(m->model);
    struct plx_tensor *copies = calloc((size_t)params->count, sizeof *copies);
    for (int p = 0; p < params->count; p++) {
        const struct plx_tensor *grad = &params->items[p].grad;
        copies[p] = case_tensor(grad->dtype, grad->rank, grad->shape);
        memcpy(copies[p].data, grad->data,
               (size_t)plx_tensor_count(grad) * plx_dtype_size(grad->dtype));
    }
    return copies;
}

static inline void free_gradients(struct case_model *m, struct plx_tensor *copies)
{
    for (int p = 0; p < model_params(m->model)->count; p++) free(copies[p].data);
    free(copies);
}

/* ---- A batch of uneven sequences ---- */

static const int64_t lengths[] = {13, 1, 8, 0, 21};
enum { SEQUENCES = sizeof lengths / sizeof lengths[0], TOKENS = 43 };

/* ---- Every law for every model ---- */

enum { MOST_LAWS = 16 };

struct law {
    const char *name;
    void (*test)(void **state); /* *state is the setup */
};

struct law_tests {
    char names[MOST_LAWS * SETUPS][96];
    struct CMUnitTest tests[MOST_LAWS * SETUPS];
};

static inline void law_tests_fill(struct law_tests *tests, const struct law *laws, int count)
{
    for (int i = 0; i < count * SETUPS; i++) {
        snprintf(tests->names[i], sizeof tests->names[i], "%s: %s", laws[i / SETUPS].name,
                 setups[i % SETUPS].name);
        tests->tests[i] = (struct CMUnitTest){.name = tests->names[i],
                                              .test_func = laws[i / SETUPS].test,
                                              .initial_state = (void *)&setups[i % SETUPS]};
    }
}

#endif
