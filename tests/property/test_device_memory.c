/* test_device_memory.c: the host never touches a device's memory: start values, loss, gradients,
 * updates, logits, scores, generation, files, checkpoints and parity all work on a device whose
 * memory is closed to it, and give the bits of the CPU. */
#include "../model_laws.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../closed_device.h"
#include "../unit/io_files.h"
#include "io/checkpoint.h"
#include "parity.h"

enum { N = 42 };

/* One model on the CPU and its twin on the closed device, each with an optimiser. */
struct twin {
    struct case_model m;
    struct optim *optim;
};

struct twins {
    struct twin open, closed;
    struct case_batch batch;
};

static void twin_open(struct twin *twin, const struct model_config *config, const struct ops *ops,
                      const char *optimizer)
{
    const struct optim_config optim = optim_config_default(optimizer);
    case_open(&twin->m, config, ops, PLX_F32, 5);
    CASE_OK(&twin->m, model_reserve(twin->m.model, N, 4, true, RECOMPUTE_NONE, NULL));
    CASE_OK(&twin->m, optim_create(&twin->m.be, &optim, model_params(twin->m.model), &twin->optim));
}

static void twins_open(struct twins *twins, const struct model_config *config,
                       const char *optimizer)
{
    struct rng rng = rng_make(5, 3);
    twin_open(&twins->open, config, &ops_cpu, optimizer);
    twin_open(&twins->closed, config, closed_ops(), optimizer);
    case_batch_fill(&twins->batch, (int64_t[]){13, 8, 21}, 3, config->vocab_size, &rng);
}

static void twin_close(struct twin *twin)
{
    optim_destroy(twin->optim);
    case_close(&twin->m);
}

static void twins_close(struct twins *twins)
{
    twin_close(&twins->open);
    twin_close(&twins->closed);
}

/* A tensor's values on the host, malloc'd. */
static void *downloaded(const struct case_model *m, const struct plx_tensor *tensor)
{
    void *host = malloc((size_t)plx_tensor_count(tensor) * plx_dtype_size(tensor->dtype) + 1);
    assert_non_null(host);
    assert_int_equal(transfer_download(m->be.device, m->be.stream, tensor, host, NULL), PLX_OK);
    return host;
}

static void assert_same(const struct twins *twins, const struct plx_tensor *open,
                        const struct plx_tensor *closed)
{
    void *a = downloaded(&twins->open.m, open), *b = downloaded(&twins->closed.m, closed);
    assert_memory_equal(a, b, (size_t)plx_tensor_count(open) * plx_dtype_size(open->dtype));
    free(a);
    free(b);
}

static void assert_same_model(const struct twins *twins, bool gradients)
{
    const struct param_list *open = model_params(twins->open.m.model),
                            *closed = model_params(twins->closed.m.model);
    for (int p = 0; p < open->count; p++)
        if (gradients)
            assert_same(twins, &open->items[p].grad, &closed->items[p].grad);
        else
            assert_same(twins, &open->items[p].value, &closed->items[p].value);
}

static double step(struct twin *twin, const struct batch *batch)
{
    struct model_loss loss;
    struct optim_report report;
    CASE_OK(&twin->m, model_zero_grads(twin->m.model));
    CASE_OK(&twin->m, model_loss_backward(twin->m.model, batch, 0.05, &loss));
    CASE_OK(&twin->m, optim_step(twin->optim, 1, 1));
    CASE_OK(&twin->m, optim_read_report(twin->optim, &report));
    assert_true(report.grad_norm > 0);
    return loss.sum;
}

/* ---- The laws ---- */

static void test_closed(void **state)
{
    (void)state;
    struct case_model m;
    const struct model_config config = case_config(1, "parallax");
    case_open(&m, &config, closed_ops(), PLX_F32, 5);
    const volatile float *value = model_params(m.model)->items[0].value.data;
    pid_t child = fork();
    if (child == 0) {
        signal(SIGSEGV, SIG_DFL);
        _exit(value[0] == 0 ? 1 : 2);
    }
    int how = 0;
    assert_int_equal(waitpid(child, &how, 0), child);
    assert_true(WIFSIGNALED(how) && WTERMSIG(how) == SIGSEGV);
    case_close(&m);
}

static void test_training(void **state)
{
    static const char *const optimizers[] = {"adamw", "muon"};
    const struct model_config config = setup_config(*state);
    for (int o = 0; o < 2; o++) {
        struct twins twins;
        twins_open(&twins, &config, optimizers[o]);
        assert_same_model(&twins, false);
        for (int s = 0; s < 3; s++) {
            assert_true(step(&twins.open, &twins.batch.batch) ==
                        step(&twins.closed, &twins.batch.batch));
            assert_same_model(&twins, true);
            assert_same_model(&twins, false);
        }
        twins_close(&twins);
    }
}

static void test_running(void **state)
{
    const struct model_config config = setup_config(*state);
    const struct score_query queries[] = {{3, 7}, {0, 60}, {41, 1}, {3, 0}};
    struct twins twins;
    struct score scores[2][4];
    struct plx_tensor logits[2], decoded[2];
    twins_open(&twins, &config, "adamw");
    for (int i = 0; i < 2; i++) {
        struct case_model *m = i == 0 ? &twins.open.m : &twins.closed.m;
        struct model_cache *cache;
        logits[i] = logits_of(m, &twins.batch.batch);
        CASE_OK(m, model_score(m->model, &twins.batch.batch, queries, 4, scores[i]));
        decoded[i] = case_tensor(PLX_F32, 2, (int64_t[]){2, config.vocab_size});
        CASE_OK(m, model_cache_create(m->model,
                                      &(struct model_cache_config){.sequences = 2, .capacity = 9},
                                      &cache));
        CASE_OK(m, model_decode(m->model, cache, twins.batch.ids, (int64_t[]){5, 3}, &decoded[i]));
        for (int t = 0; t < 4; t++)
            CASE_OK(m, model_decode(m->model, cache, twins.batch.ids + 8 + t, (int64_t[]){1, 1},
                                    &decoded[i]));
        model_cache_destroy(cache);
    }
    case_assert_same_bits(&logits[0], &logits[1]);
    case_assert_same_bits(&decoded[0], &decoded[1]);
    for (int q = 0; q < 4; q++) {
        assert_true(scores[0][q].logprob == scores[1][q].logprob);
        assert_int_equal(scores[0][q].greedy, scores[1][q].greedy);
    }
    for (int i = 0; i < 2; i++) {
        free(logits[i].data);
        free(decoded[i].data);
    }
    twins_close(&twins);
}

/* What one of the two wrote, the other reads. */
static void test_files(void **state)
{
    const struct model_config config = setup_config(*state);
    const struct train_state train = {.step = 3, .tokens = 99};
    struct twins twins;
    struct error err = {0};
    twins_open(&twins, &config, "muon");
    for (int s = 0; s < 3; s++) step(&twins.closed, &twins.batch.batch);
    assert_int_equal(checkpoint_save(io_path("run"), twins.closed.m.model, twins.closed.optim, NULL,
                                     NULL, &train, 0, &err),
                     PLX_OK);
    assert_int_equal(checkpoint_load(io_path("run/checkpoints/step-00000003"), twins.open.m.model,
                                     twins.open.optim, &err),
                     PLX_OK);
    assert_same_model(&twins, false);
    /* The state is there too: both go on as one. */
    for (int s = 0; s < 2; s++)
        assert_true(step(&twins.open, &twins.batch.batch) ==
                    step(&twins.closed, &twins.batch.batch));
    assert_int_equal(checkpoint_save(io_path("back"), twins.open.m.model, twins.open.optim, NULL,
                                     NULL, &train, 0, &err),
                     PLX_OK);
    step(&twins.closed, &twins.batch.batch);
    assert_int_equal(checkpoint_load(io_path("back/checkpoints/step-00000003"),
                                     twins.closed.m.model, twins.closed.optim, &err),
                     PLX_OK);
    assert_same_model(&twins, false);
    assert_true(step(&twins.open, &twins.batch.batch) == step(&twins.closed, &twins.batch.batch));
    assert_int_equal(file_remove_tree(io_path("run"), &err), PLX_OK);
    assert_int_equal(file_remove_tree(io_path("back"), &err), PLX_OK);
    twins_close(&twins);
}

/* The golden models of the repository: loss, logits, gradients and greedy tokens. */
static void test_parity(void **state)
{
    (void)state;
    static const char *const names[] = {"qwen2_tiny", "llama_tiny", "mistral_tiny"};
    for (int n = 0; n < 3; n++) {
        char folder[512], reference[600];
        struct case_model m = {0};
        struct parity_result result;
        const struct backend_config backend = {.ops = closed_ops(), .threads = 1};
        snprintf(folder, sizeof folder, "%s/tests/golden/models/%s", SOURCE_FOLDER, names[n]);
        snprintf(reference, sizeof reference, "%s/io.safetensors", folder);
        CASE_OK(&m, backend_create(&m.be, &backend, &m.err));
        CASE_OK(&m, model_open(&m.be, folder, &m.model, &m.err));
        CASE_OK(&m, parity_run(m.model, reference, 1e-4, NULL, &result, &m.err));
        assert_true(result.compared > 10 && result.greedy_tokens > 0);
        case_close(&m);
    }
}

int main(void)
{
    static const struct law laws[] = {
        {"training", test_training}, {"running", test_running}, {"files", test_files}};
    enum { LAWS = sizeof laws / sizeof laws[0], ALL = LAWS * SETUPS };
    static struct law_tests all;
    law_tests_fill(&all, laws, LAWS);
    all.tests[ALL] = (struct CMUnitTest){.name = "memory is closed", .test_func = test_closed};
    all.tests[ALL + 1] = (struct CMUnitTest){.name = "parity", .test_func = test_parity};
    return _cmocka_run_group_tests("a device's memory", all.tests, ALL + 2, io_folder_make,
                                   io_folder_remove);
}
