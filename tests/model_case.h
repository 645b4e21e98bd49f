/* model_case.h: what the tests of models share: small configurations, a model on a backend, packed
 * batches.
 *
 * Sizes are those of the gradient check: E 32, V 61, four query heads on two key heads of 8
 * channels, two sequences of 13 and 8 tokens. Weights are larger than a training start and gains
 * differ from 1, so that every path carries weight in the loss. */
#ifndef TESTS_MODEL_CASE_H
#define TESTS_MODEL_CASE_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "core/transfer.h"
#include "mixers/mixer.h"
#include "model.h"

/* ---- Seeds ---- */

/* TEST_SEED repeats a run; otherwise a new seed each time, printed. */
static inline uint64_t case_seed(const char *what)
{
    const char *text = getenv("TEST_SEED");
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    uint64_t seed = text != NULL ? strtoull(text, NULL, 10) : (uint64_t)now.tv_nsec;
    printf("%s: TEST_SEED=%llu\n", what, (unsigned long long)seed);
    return seed;
}

/* ---- Values ---- */

static inline double case_get(const struct plx_tensor *tensor, int64_t i)
{
    return tensor->dtype == PLX_F64 ? ((const double *)tensor->data)[i]
                                    : ((const float *)tensor->data)[i];
}

static inline void case_set(const struct plx_tensor *tensor, int64_t i, double value)
{
    if (tensor->dtype == PLX_F64)
        ((double *)tensor->data)[i] = value;
    else
        ((float *)tensor->data)[i] = (float)value;
}

static inline void case_fill(const struct plx_tensor *tensor, struct rng *rng, double std)
{
    for (int64_t i = 0; i < plx_tensor_count(tensor); i++)
        case_set(tensor, i, std * rng_normal(rng));
}

/* malloc'd; free with free(tensor.data). */
static inline struct plx_tensor case_tensor(plx_dtype dtype, int rank, const int64_t *shape)
{
    struct plx_tensor tensor = plx_tensor_dense(NULL, dtype, rank, shape);
    tensor.data = calloc((size_t)plx_tensor_count(&tensor) + 1, plx_dtype_size(dtype));
    assert_non_null(tensor.data);
    return tensor;
}

static inline void case_assert_same_bits(const struct plx_tensor *a, const struct plx_tensor *b)
{
    assert_int_equal(plx_tensor_count(a), plx_tensor_count(b));
    assert_int_equal(a->dtype, b->dtype);
    assert_memory_equal(a->data, b->data, (size_t)plx_tensor_count(a) * plx_dtype_size(a->dtype));
}

/* ---- Configurations ---- */

static inline struct model_config case_config(int layers, const char *mixer)
{
    struct model_config config = model_config_default();
    config.vocab_size = 61;
    config.hidden_size = 32;
    config.intermediate_size = 40;
    config.layers = layers;
    config.heads = 4;
    config.kv_heads = 2;
    config.head_dim = 8;
    config.max_position = 64;
    config.initializer_range = 0.25;
    config.rope.theta = 100;
    for (int l = 0; l < layers; l++) config.layer[l].mixer = mixer_find(mixer);
    return config;
}

/* ---- A model on a backend ---- */

struct case_model {
    struct error err;
    struct backend be;
    struct model *model;
};

#define CASE_OK(m, call)                                                                           \
    do {                                                                                           \
        plx_status case_status_ = (call);                                                          \
        if (case_status_ != PLX_OK) fail_msg("%s: %s", #call, (m)->err.text);                      \
    } while (0)

static inline void case_perturb_gains(struct model *model, uint64_t seed)
{
    const struct backend *be = model_backend(model);
    struct param_list *params = model_params(model);
    struct rng rng = rng_make(seed, 77);
    for (int p = 0; p < params->count; p++) {
        const struct param *param = &params->items[p];
        if (param->init != PARAM_INIT_ONE) continue;
        struct plx_tensor gains =
            case_tensor(param->value.dtype, param->value.rank, param->value.shape);
        for (int64_t i = 0; i < plx_tensor_count(&gains); i++)
            case_set(&gains, i, 1 + 0.2 * rng_normal(&rng));
        assert_int_equal(
            transfer_upload(be->device, be->stream, &param->value, gains.data, be->err), PLX_OK);
        free(gains.data);
    }
}

/* An adapter begins as nothing; a trained one is not. */
static inline void case_perturb_adapters(struct model *model, uint64_t seed)
{
    struct param_list *params = model_params(model);
    struct rng rng = rng_make(seed, 78);
    for (int p = 0; p < params->count; p++)
        if (params->items[p].adapts && params->items[p].init == PARAM_INIT_ZERO)
            case_fill(&params->items[p].value, &rng, 0.3);
}

/* m must not move afterwards. */
static inline void case_open_on(struct case_model *m, const struct model_config *config,
                                const struct backend_config *backend, uint64_t seed)
{
    *m = (struct case_model){0};
    CASE_OK(m, backend_create(&m->be, backend, &m->err));
    CASE_OK(m, model_create(&m->be, config, &m->model));
    CASE_OK(m, model_init(m->model, seed));
    case_perturb_gains(m->model, seed);
    case_perturb_adapters(m->model, seed);
}

/* One thread: two that share a core with other work wait for each other most of the time. */
static inline void case_open(struct case_model *m, const struct model_config *config,
                             const struct ops *ops, plx_dtype storage, uint64_t seed)
{
    const struct backend_config backend = {
        .ops = ops, .storage = storage, .compute = storage, .threads = 1};
    case_open_on(m, config, &backend, seed);
}

static inline void case_close(struct case_model *m)
{
    model_destroy(m->model);
    backend_destroy(&m->be);
}

/* ---- Batches ---- */

enum { CASE_MAX_TOKENS = 1280, CASE_MAX_SEQUENCES = 16 };

struct case_batch {
    int32_t ids[CASE_MAX_TOKENS], targets[CASE_MAX_TOKENS], positions[CASE_MAX_TOKENS];
    int32_t offsets[CASE_MAX_SEQUENCES + 1];
    struct batch batch;
};

/* Random ids and targets in sequences of the given lengths; about every fifth token is not scored.
 */
static inline void case_batch_fill(struct case_batch *b, const int64_t *lengths, int64_t sequences,
                                   int64_t vocab, struct rng *rng)
{
    int64_t n = 0;
    b->offsets[0] = 0;
    for (int64_t s = 0; s < sequences; s++) {
        for (int64_t t = 0; t < lengths[s]; t++, n++) {
            b->ids[n] = (int32_t)rng_below(rng, (uint64_t)vocab);
            b->targets[n] = rng_below(rng, 5) == 0 ? -1 : (int32_t)rng_below(rng, (uint64_t)vocab);
            b->positions[n] = (int32_t)t;
        }
        b->offsets[s + 1] = (int32_t)n;
    }
    b->batch = (struct batch){.tokens = n,
                              .sequences = sequences,
                              .ids = b->ids,
                              .targets = b->targets,
                              .positions = b->positions,
                              .offsets = b->offsets};
}

#endif
