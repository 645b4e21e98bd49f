/* test_model_memory.c: what a model allocates, when, and what happens when it cannot.
 *
 * Reservations equal a list written down here by hand; scratch is used up to the plan and not
 * beyond; batches that the plan does not cover are refused in words; and every allocation that a
 * model makes is failed in turn, which must give PLX_OUT_OF_MEMORY and leave nothing behind
 * (allocations are counted, and LeakSanitizer looks too). */
#include "../model_case.h"
#include "optim/optim.h"

/* ---- Allocation faults: the C library's own functions, or the sanitizer's, behind a countdown
 * ---- */

#ifdef __SANITIZE_ADDRESS__
#define REAL(name) __interceptor_##name
#else
#define REAL(name) __libc_##name
#endif
void *REAL(malloc)(size_t size);
void *REAL(calloc)(size_t count, size_t size);
void *REAL(realloc)(void *block, size_t size);
void *REAL(memalign)(size_t alignment, size_t size);
void REAL(free)(void *block);

static bool counting;
static long live, countdown; /* countdown 0: nothing fails */

static bool must_fail(void)
{
    return counting && countdown > 0 && --countdown == 0;
}

static void *counted(void *block)
{
    if (counting && block != NULL) live++;
    return block;
}

void *malloc(size_t size)
{
    return must_fail() ? NULL : counted(REAL(malloc)(size));
}

void *calloc(size_t count, size_t size)
{
    return must_fail() ? NULL : counted(REAL(calloc)(count, size));
}

void *realloc(void *block, size_t size)
{
    if (must_fail()) return NULL;
    void *moved = REAL(realloc)(block, size);
    return block == NULL ? counted(moved) : moved;
}

void *aligned_alloc(size_t alignment, size_t size)
{
    return must_fail() ? NULL : counted(REAL(memalign)(alignment, size));
}

void free(void *block)
{
    if (counting && block != NULL) live--;
    REAL(free)(block);
}

static plx_status everything(struct backend *be, const struct model_config *config)
{
    struct model *model;
    struct model_cache *cache = NULL;
    plx_status status = model_create(be, config, &model);
    if (status != PLX_OK) {
        assert_null(model);
        return status;
    }
    status = model_reserve(model, 21, 2, true, RECOMPUTE_NONE, NULL);
    if (status == PLX_OK)
        status = model_cache_create(
            model, &(struct model_cache_config){.sequences = 2, .capacity = 9}, &cache);
    if (status != PLX_OK) assert_null(cache);
    model_cache_destroy(cache);
    model_destroy(model);
    return status;
}

static void test_allocation_failures(void **state)
{
    (void)state;
    const struct model_config config = case_config(2, "parallax");
    const struct backend_config backend = {
        .ops = &ops_ref, .storage = PLX_F32, .compute = PLX_F32, .threads = 1};
    struct error err = {0};
    struct backend be;
    int failures = 0;
    for (long fail_at = 1;; fail_at++) {
        error_clear(&err);
        assert_int_equal(backend_create(&be, &backend, &err), PLX_OK);
        countdown = fail_at;
        live = 0;
        counting = true;
        plx_status status = everything(&be, &config);
        bool reached = countdown == 0;
        arena_destroy(&be.scratch);
        counting = false;
        assert_int_equal(live, 0);
        backend_destroy(&be);
        assert_int_equal(status, reached ? PLX_OUT_OF_MEMORY : PLX_OK);
        if (!reached) break;
        assert_true(err.text[0] != '\0');
        failures++;
    }
    printf("%d allocations failed in turn\n", failures);
    assert_true(failures > 15);
}

/* ---- Exact sizes ---- */

/* What a tensor of so many numbers takes in an arena, red zones of sanitizer builds included. */
static size_t taken(int64_t numbers, plx_dtype dtype)
{
    struct arena arena = arena_measuring(&device_cpu);
    arena_push(&arena, (size_t)numbers * plx_dtype_size(dtype));
    return arena.used;
}

static size_t taken_by(const int64_t *tensors, int count, plx_dtype dtype)
{
    size_t bytes = 0;
    for (int i = 0; i < count; i++) bytes += taken(tensors[i], dtype);
    return bytes;
}

/* What selective recomputation keeps of the record of a Parallax block with every option, and what
 * it makes again. */
static void record_bytes(const struct model_config *config, int64_t N, plx_dtype dtype,
                         size_t *kept, size_t *cheap)
{
    const int64_t E = config->hidden_size, F = config->intermediate_size;
    const int64_t H = config->heads, G = config->kv_heads, D = config->head_dim;
    const int64_t kept_tensors[] = {N,                      /* norm before the mixer: rstd */
                                    N * H * D, N * H,       /* q: projected, rstd */
                                    N * G * D, N * G,       /* k */
                                    N * G * D,              /* v */
                                    N * H * D, N * H,       /* r: projected, rstd */
                                    N * H,                  /* r: gate */
                                    N * H * D, N * H,       /* attention: o, lse */
                                    N * H,     N * H * D,   /* probe mean, value mean */
                                    N * E,                  /* h */
                                    N,                      /* norm before the MLP: rstd */
                                    N * F,     N * F};      /* gate, up */
    const int64_t cheap_tensors[] = {N * H * D,             /* q: normed and rotated */
                                     N * G * D,             /* k */
                                     N * H * D, N * H * D}; /* r: normed; gated and rotated */
    *kept = taken_by(kept_tensors, sizeof kept_tensors / sizeof *kept_tensors, dtype);
    *cheap = taken_by(cheap_tensors, sizeof cheap_tensors / sizeof *cheap_tensors, dtype);
}

static struct model_config full_config(void)
{
    struct model_config config = case_config(3, "parallax");
    config.probe_gate = true;
    return config;
}

static void test_activations(void **state)
{
    (void)state;
    const struct model_config config = full_config();
    enum { N = 21, L = 3 };
    struct case_model m;
    struct model_memory kept, selective, full, forward;
    size_t record, cheap;
    case_open(&m, &config, &ops_ref, PLX_F64, 1);
    CASE_OK(&m, model_reserve(m.model, N, 2, true, RECOMPUTE_NONE, &kept));
    CASE_OK(&m, model_reserve(m.model, N, 2, true, RECOMPUTE_SELECTIVE, &selective));
    CASE_OK(&m, model_reserve(m.model, N, 2, true, RECOMPUTE_FULL, &full));
    CASE_OK(&m, model_reserve(m.model, N, 2, false, RECOMPUTE_NONE, &forward));
    record_bytes(&config, N, PLX_F64, &record, &cheap);
    const size_t input = taken(N * config.hidden_size, PLX_F64), inputs = (L + 1) * input,
                 final = input + taken(N, PLX_F64);
    assert_int_equal(kept.activations, inputs + L * (record + cheap) + final);
    assert_int_equal(selective.activations, inputs + L * record + cheap + final);
    assert_int_equal(full.activations, inputs + record + cheap + final);
    assert_int_equal(forward.activations, 2 * input + record + cheap + final);
    size_t params = 0;
    for (int p = 0; p < model_params(m.model)->count; p++)
        params += taken(plx_tensor_count(&model_params(m.model)->items[p].value), PLX_F64);
    assert_int_equal(kept.params, params);
    assert_int_equal(kept.grads, params);
    assert_int_equal(forward.grads, params); /* they stay */
    case_close(&m);
}

/* Model and optimiser on a backend that measures: the sizes of real ones, and not one tensor. */
static void test_measuring(void **state)
{
    (void)state;
    const struct model_config config = full_config();
    const struct optim_config muon = optim_config_default("muon");
    struct case_model m;
    struct model_memory real, measured;
    struct optim *real_optim, *measured_optim;
    struct model *model;
    case_open(&m, &config, &ops_cpu, PLX_F32, 1);
    struct backend dry = backend_dry(&m.be);
    CASE_OK(&m, model_create(&dry, &config, &model));
    CASE_OK(&m, model_reserve(model, 21, 2, true, RECOMPUTE_NONE, &measured));
    CASE_OK(&m, optim_create(&dry, &muon, model_params(model), &measured_optim));
    assert_int_equal(m.be.scratch.capacity, 0);
    for (int p = 0; p < model_params(model)->count; p++) {
        assert_null(model_params(model)->items[p].value.data);
        assert_null(model_params(model)->items[p].grad.data);
    }
    CASE_OK(&m, model_reserve(m.model, 21, 2, true, RECOMPUTE_NONE, &real));
    CASE_OK(&m, optim_create(&m.be, &muon, model_params(m.model), &real_optim));
    assert_memory_equal(&measured, &real, sizeof real);
    assert_int_equal(optim_bytes(measured_optim), optim_bytes(real_optim));
    assert_int_equal(dry.scratch.peak, m.be.scratch.capacity);
    optim_destroy(measured_optim);
    model_destroy(model);
    optim_destroy(real_optim);
    case_close(&m);
}

static void test_scratch(void **state)
{
    (void)state;
    const struct model_config config = full_config();
    const struct {
        const struct ops *ops;
        plx_dtype storage;
    } tables[] = {{&ops_ref, PLX_F64}, {&ops_cpu, PLX_F32}};
    for (int i = 0; i < 6; i++) {
        struct case_model m;
        struct case_batch b;
        struct rng rng = rng_make(2, 2);
        struct model_memory memory;
        struct model_loss loss;
        case_open(&m, &config, tables[i % 2].ops, tables[i % 2].storage, 1);
        CASE_OK(&m, model_reserve(m.model, 40, 5, true, (enum recompute)(i / 2), &memory));
        CASE_OK(&m, model_zero_grads(m.model));
        case_batch_fill(&b, (int64_t[]){3, 7, 20, 9, 1}, 5, config.vocab_size, &rng);
        CASE_OK(&m, model_loss_backward(m.model, &b.batch, 1, &loss));
        case_batch_fill(&b, (int64_t[]){40}, 1, config.vocab_size, &rng);
        CASE_OK(&m, model_loss_backward(m.model, &b.batch, 1, &loss));
        assert_int_equal(m.be.scratch.peak, memory.scratch);
        assert_int_equal(m.be.scratch.used, 0);
        case_batch_fill(&b, (int64_t[]){11, 6}, 2, config.vocab_size, &rng);
        CASE_OK(&m, model_loss_backward(m.model, &b.batch, 1, &loss));
        CASE_OK(&m, model_loss(m.model, &b.batch, &loss));
        assert_false(arena_overflowed(&m.be.scratch));
        case_close(&m);
    }
}

/* ---- Refusals ---- */

static void expect(struct case_model *m, plx_status actual, plx_status status, const char *sentence)
{
    assert_int_equal(actual, status);
    if (strcmp(m->err.text, sentence) != 0)
        fail_msg("said: %s\nexpected: %s", m->err.text, sentence);
    error_clear(&m->err);
    assert_int_equal(m->be.scratch.used, 0);
}

static void test_refusals(void **state)
{
    (void)state;
    const struct model_config config = case_config(1, "softmax");
    struct case_model m;
    struct case_batch b;
    struct rng rng = rng_make(3, 3);
    struct model_loss loss;
    case_open(&m, &config, &ops_ref, PLX_F32, 1);
    case_batch_fill(&b, (int64_t[]){6, 4}, 2, config.vocab_size, &rng);
    expect(&m, model_loss(m.model, &b.batch, &loss), PLX_INVALID_ARGUMENT,
           "a batch of 10 tokens in 2 sequences exceeds the 0 tokens in 0 sequences reserved");
    expect(&m, model_zero_grads(m.model), PLX_INVALID_ARGUMENT,
           "the model has no gradients reserved");
    CASE_OK(&m, model_reserve(m.model, 10, 1, false, RECOMPUTE_NONE, NULL));
    expect(&m, model_loss(m.model, &b.batch, &loss), PLX_INVALID_ARGUMENT,
           "a batch of 10 tokens in 2 sequences exceeds the 10 tokens in 1 sequences reserved");
    expect(&m, model_loss_backward(m.model, &b.batch, 1, &loss), PLX_INVALID_ARGUMENT,
           "the model was reserved without gradients");
    CASE_OK(&m, model_reserve(m.model, 10, 2, true, RECOMPUTE_NONE, NULL));
    b.ids[7] = 61;
    expect(&m, model_loss(m.model, &b.batch, &loss), PLX_INVALID_ARGUMENT,
           "token 7 of the batch is 61 but must be from 0 to 60");
    b.ids[7] = 60;
    b.targets[2] = 99;
    expect(&m, model_loss(m.model, &b.batch, &loss), PLX_INVALID_ARGUMENT,
           "target 2 of the batch is 99 but must be at most 60");
    b.targets[2] = -5;
    b.offsets[1] = 11;
    expect(&m, model_loss(m.model, &b.batch, &loss), PLX_INVALID_ARGUMENT,
           "sequence 1 of the batch begins at 11 but ends at 10");
    b.offsets[1] = 6;
    b.offsets[2] = 9;
    expect(&m, model_loss(m.model, &b.batch, &loss), PLX_INVALID_ARGUMENT,
           "the offsets of a batch of 10 tokens run from 0 to 9");
    b.offsets[2] = 10;
    CASE_OK(&m, model_loss(m.model, &b.batch, &loss));
    expect(&m, model_reserve(m.model, 0, 1, false, RECOMPUTE_NONE, NULL), PLX_INVALID_ARGUMENT,
           "a batch of 0 tokens: must be from 1 to 8388607");
    case_close(&m);
}

static void test_empty_batch(void **state)
{
    (void)state;
    const struct model_config config = case_config(1, "parallax");
    struct case_model m;
    struct model_loss loss = {.sum = 1, .count = 1};
    const struct batch empty = {0};
    case_open(&m, &config, &ops_ref, PLX_F32, 1);
    CASE_OK(&m, model_loss(m.model, &empty, &loss));
    assert_true(loss.sum == 0 && loss.count == 0);
    case_close(&m);
}

static void test_cache_refusals(void **state)
{
    (void)state;
    const struct model_config config = case_config(1, "parallax");
    struct case_model m;
    struct model_cache *cache;
    case_open(&m, &config, &ops_ref, PLX_F32, 1);
    expect(&m,
           model_cache_create(m.model, &(struct model_cache_config){.sequences = 0, .capacity = 5},
                              &cache),
           PLX_INVALID_ARGUMENT, "a cache of 0 sequences of 5 tokens");
    assert_null(cache);
    expect(&m,
           model_cache_create(
               m.model, &(struct model_cache_config){.sequences = INT32_MAX, .capacity = INT32_MAX},
               &cache),
           PLX_OUT_OF_MEMORY, "a cache of 72057594004373504 pages of 64 tokens of 16 numbers each");
    CASE_OK(&m, model_cache_create(
                    m.model, &(struct model_cache_config){.sequences = 2, .capacity = 5}, &cache));
    struct plx_tensor logits = case_tensor(PLX_F32, 2, (int64_t[]){2, 61});
    expect(&m, model_decode(m.model, cache, (int32_t[]){1, 2, 3, -4}, (int64_t[]){2, 2}, &logits),
           PLX_INVALID_ARGUMENT, "token 3 to decode is -4 but must be from 0 to 60");
    logits.shape[0] = 1;
    expect(&m, model_decode(m.model, cache, (int32_t[]){1, 2}, (int64_t[]){0, 0}, &logits),
           PLX_INVALID_ARGUMENT, "no sequence of the cache has a new token");
    expect(&m, model_decode(m.model, cache, (int32_t[]){1, 2}, (int64_t[]){3, -1}, &logits),
           PLX_INVALID_ARGUMENT, "-1 new tokens do not fit a cache that holds 0 of at most 5");
    logits.shape[0] = 2;
    logits.device = PLX_CUDA;
    expect(&m, model_decode(m.model, cache, (int32_t[]){1, 2}, (int64_t[]){1, 1}, &logits),
           PLX_INVALID_ARGUMENT, "logits must be f32 [2, 61] in the host's memory");
    logits.device = PLX_CPU;
    logits.shape[0] = 1;
    expect(&m, model_decode(m.model, cache, (int32_t[]){1, 2}, (int64_t[]){1, 1}, &logits),
           PLX_INVALID_ARGUMENT, "logits must be f32 [2, 61] in the host's memory");
    struct model_draws draws = {.vocab = 62, .penalty = 1.5};
    expect(&m, model_decode_draw(m.model, cache, (int32_t[]){1, 2}, (int64_t[]){1, 1}, &draws),
           PLX_INVALID_ARGUMENT, "draws from 62 ids of a model that has 61");
    draws.vocab = 61;
    expect(&m, model_decode_draw(m.model, cache, (int32_t[]){1, 2}, (int64_t[]){1, 1}, &draws),
           PLX_INVALID_ARGUMENT, "a penalty of 1.5, but the cache is for draws without");
    assert_int_equal(model_cache_length(cache, 0), 0);
    /* Per layer k and v of 2 pages x 64 tokens x 2 heads x 8 channels, the numbers of a pass (ids
     * and positions of 2 x 5 tokens, lengths and last rows of 2 sequences), the table, and what
     * draws are told, have drawn and have seen. */
    assert_int_equal(model_cache_use(cache).bytes,
                     2 * taken(2048, PLX_F32) + taken(24, PLX_I32) + taken(2, PLX_I32) +
                         taken(2 * DRAW_NUMBERS, PLX_F64) + 3 * taken(2, PLX_I32));
    free(logits.data);
    model_cache_destroy(cache);
    case_close(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_allocation_failures),
        cmocka_unit_test(test_activations),
        cmocka_unit_test(test_measuring),
        cmocka_unit_test(test_scratch),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_empty_batch),
        cmocka_unit_test(test_cache_refusals),
    };
    return cmocka_run_group_tests_name("memory of the model", tests, NULL, NULL);
}
