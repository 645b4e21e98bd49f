/* test_gpu_model.c: whole models on a GPU: golden models, the course of training, and resuming.
 *
 * In f32 a model is held to the CPU's tolerance, in bf16 to twice what the naive bf16 model gets
 * wrong (../rounded_ops.h), in fp8 to twice what the CPU's imitation of it does. Golden models are
 * looked for in $PLX_GOLDEN_MODELS, which a machine without the source tree needs, beside
 * test_model_golden.c, and in the shared data. Without a GPU the program says "skipped, no GPU" and
 * exits with 77. */
#include "../cache_laws.h"
#include "../model_laws.h"

#include <unistd.h>

#include "../rounded_ops.h"
#include "../unit/io_files.h"
#include "device_memory.h"
#include "io/checkpoint.h"
#include "op_backends.h"
#include "parity.h"

/* ---- Backends ---- */

/* Those from IMITATED_FP8 on are of training alone: caches and packed weights know no fp8. */
enum { EXACT, NAIVE_BF16, GPU_F32, GPU_BF16, IMITATED_FP8, GPU_FP8, BACKENDS };

static struct backend_config backend_of(int which)
{
    const struct backend_config configs[BACKENDS] = {
        [EXACT] = {.ops = &ops_cpu, .threads = 1},
        [NAIVE_BF16] = {.ops = rounded_ops(), .compute = PLX_BF16, .threads = 1},
        [GPU_F32] = {.ops = &ops_cuda},
        [GPU_BF16] = {.ops = &ops_cuda, .compute = PLX_BF16, .bf16_activations = true},
        [IMITATED_FP8] = {.ops = &ops_cpu, .threads = 1, .fp8_linear = true},
        [GPU_FP8] = {
            .ops = &ops_cuda, .compute = PLX_BF16, .bf16_activations = true, .fp8_linear = true}};
    struct backend_config config = configs[which];
    config.deterministic = true;
    return config;
}

static bool has_fp8;

static bool is_missing(int which)
{
    return which == GPU_FP8 && !has_fp8;
}

/* ---- Golden models ---- */

static bool find_golden(const char *name, char *folder, size_t size)
{
    const char *const places[] = {getenv("PLX_GOLDEN_MODELS"), SOURCE_FOLDER "/tests/golden/models",
                                  SHARED_DATA "/golden"};
    for (int p = 0; p < 3; p++) {
        if (places[p] == NULL) continue;
        snprintf(folder, size, "%s/%s", places[p], name);
        if (access(folder, R_OK) == 0) return true;
    }
    return false;
}

/* The largest error of loss, logits and gradients. Greedy tokens may differ in bf16: where two are
 * as likely, rounding decides. */
static double golden_error(const char *folder, int which, double tolerance)
{
    struct case_model m = {0};
    struct parity_result result;
    char reference[600];
    const struct backend_config config = backend_of(which);
    snprintf(reference, sizeof reference, "%s/io.safetensors", folder);
    CASE_OK(&m, backend_create(&m.be, &config, &m.err));
    CASE_OK(&m, model_open(&m.be, folder, &m.model, &m.err));
    plx_status status = parity_run(m.model, reference, tolerance, NULL, &result, &m.err);
    bool greedy = status == PLX_BAD_DATA && result.greedy_mismatches > 0 && which != GPU_F32;
    if (status != PLX_OK && !greedy) fail_msg("%s: %s", folder, m.err.text);
    case_close(&m);
    return result.worst;
}

static void golden_models(void **state)
{
    (void)state;
    static const char *const names[] = {"qwen3_tiny_tied", "parallax_tiny_qknorm_gqa", "qwen2_tiny",
                                        "llama_tiny", "mistral_tiny"};
    int found = 0;
    for (int n = 0; n < 5; n++) {
        char folder[512];
        if (!find_golden(names[n], folder, sizeof folder)) continue;
        found++;
        double f32 = golden_error(folder, GPU_F32, 1e-5);
        double naive = golden_error(folder, NAIVE_BF16, INFINITY),
               bf16 = golden_error(folder, GPU_BF16, INFINITY);
        print_message("%-25s f32 %.2e, bf16 %.2e, %.2f times the naive model's\n", names[n], f32,
                      bf16, bf16 / naive);
        assert_true(bf16 <= 2 * naive);
    }
    if (found > 0) return;
    print_message("skipped: no golden models\n");
    skip();
}

/* ---- Training ---- */

struct run {
    struct case_model m;
    struct optim *optim;
    struct case_batch batch;
};

/* rate: of the rate with which the batch is learnt by heart. */
static void run_open(struct run *run, int which, const char *mixer, const char *optimizer,
                     double rate)
{
    struct model_config config = case_config(2, mixer);
    struct optim_config optim = optim_config_default(optimizer);
    const struct backend_config backend = backend_of(which);
    struct rng rng = rng_make(3, 9);
    config.initializer_range = 0.1;
    config.intermediate_size = 48; /* a multiple of 16, as fp8 asks */
    optim.lr = rate * (strcmp(optimizer, "muon") == 0 ? 0.02 : 0.01);
    optim.other_lr = optim.head_lr = optim.embedding_lr = 0.5;
    case_open_on(&run->m, &config, &backend, 3);
    case_batch_fill(&run->batch, (int64_t[]){13, 8}, 2, config.vocab_size, &rng);
    CASE_OK(&run->m, model_reserve(run->m.model, 21, 2, true, RECOMPUTE_NONE, NULL));
    CASE_OK(&run->m, optim_create(&run->m.be, &optim, model_params(run->m.model), &run->optim));
}

static void run_close(struct run *run)
{
    optim_destroy(run->optim);
    case_close(&run->m);
}

/* The mean loss before the step. */
static double step(struct run *run)
{
    struct model_loss loss;
    struct optim_report report;
    int64_t scored = 0;
    for (int64_t n = 0; n < run->batch.batch.tokens; n++) scored += run->batch.targets[n] >= 0;
    CASE_OK(&run->m, model_zero_grads(run->m.model));
    CASE_OK(&run->m,
            model_loss_backward(run->m.model, &run->batch.batch, 1.0 / (double)scored, &loss));
    CASE_OK(&run->m, optim_step(run->optim, 1, 1));
    CASE_OK(&run->m, optim_read_report(run->optim, &report));
    return loss.sum / (double)scored;
}

/* At a rate so small that a difference does not feed on itself: what is left is rounding. */
static void losses_follow_the_cpu(void **state)
{
    (void)state;
    enum { STEPS = 20 };
    static const char *const mixers[] = {"softmax", "parallax"}, *const optimizers[] = {"adamw",
                                                                                        "muon"};
    for (int i = 0; i < 4; i++) {
        double exact[STEPS], apart[BACKENDS] = {0};
        for (int b = 0; b < BACKENDS; b++) {
            struct run run;
            if (is_missing(b)) continue;
            run_open(&run, b, mixers[i / 2], optimizers[i % 2], 0.1);
            for (int s = 0; s < STEPS; s++) {
                double loss = step(&run);
                if (b == EXACT) exact[s] = loss;
                apart[b] = fmax(apart[b], fabs(loss - exact[s]));
            }
            run_close(&run);
        }
        print_message("%s, %s: loss %.4f -> %.4f; apart in f32 %.1e, in bf16 %.1e, naive %.1e\n",
                      mixers[i / 2], optimizers[i % 2], exact[0], exact[STEPS - 1], apart[GPU_F32],
                      apart[GPU_BF16], apart[NAIVE_BF16]);
        assert_true(apart[GPU_F32] <= 1e-5 * exact[0]);
        assert_true(apart[GPU_BF16] <= 2 * apart[NAIVE_BF16]);
        print_message("    in fp8 %.1e, imitated %.1e\n", apart[GPU_FP8], apart[IMITATED_FP8]);
        assert_true(apart[GPU_FP8] <= 2 * apart[IMITATED_FP8]);
    }
}

static void one_batch_is_learnt_by_heart(void **state)
{
    (void)state;
    static const char *const mixers[] = {"softmax", "parallax"}, *const optimizers[] = {"adamw",
                                                                                        "muon"};
    static const int backends[] = {GPU_F32, GPU_BF16, GPU_FP8};
    static const char *const names[] = {"f32", "bf16", "fp8"};
    for (int i = 0; i < 12; i++) {
        struct run run;
        if (is_missing(backends[i / 4])) continue;
        run_open(&run, backends[i / 4], mixers[i / 2 % 2], optimizers[i % 2], 1);
        double first = step(&run), last = first;
        for (int s = 1; s < 150; s++) last = step(&run);
        print_message("%s, %s, %s: loss %.3f -> %.4f\n", names[i / 4], mixers[i / 2 % 2],
                      optimizers[i % 2], first, last);
        assert_true(first > 3.0 && last < 0.1);
        run_close(&run);
    }
}

/* ---- Gradients and weights ---- */

/* All values or gradients, malloc'd. */
static float *downloaded(struct case_model *m, bool gradients, int64_t *count)
{
    const struct param_list *params = model_params(m->model);
    float *all = malloc((size_t)param_list_elements(params) * sizeof *all);
    assert_non_null(all);
    *count = 0;
    for (int p = 0; p < params->count; p++) {
        const struct plx_tensor *tensor =
            gradients ? &params->items[p].grad : &params->items[p].value;
        CASE_OK(m, transfer_download(m->be.device, m->be.stream, tensor, all + *count, &m->err));
        *count += plx_tensor_count(tensor);
    }
    return all;
}

static void gradients_of_parts_add_up(void **state)
{
    (void)state;
    struct run run;
    int32_t offsets[2][2];
    int64_t count;
    run_open(&run, GPU_F32, "parallax", "adamw", 1);
    CASE_OK(&run.m, model_zero_grads(run.m.model));
    gradients_of(&run.m, &run.batch.batch, 0.1);
    float *whole = downloaded(&run.m, true, &count);
    CASE_OK(&run.m, model_zero_grads(run.m.model));
    for (int s = 0; s < 2; s++) {
        const struct batch part = sequence_of(&run.batch.batch, s, offsets[s]);
        gradients_of(&run.m, &part, 0.1);
    }
    float *sum = downloaded(&run.m, true, &count);
    const struct plx_tensor a = plx_tensor_dense(sum, PLX_F32, 1, &count),
                            b = plx_tensor_dense(whole, PLX_F32, 1, &count);
    assert_close("accumulated gradients", &a, &b, 1e-5);
    free(whole);
    free(sum);
    run_close(&run);
}

/* Five steps, or three and two more from a checkpoint of another process's, end in the same bits.
 */
static void resuming_changes_no_bit(void **state)
{
    (void)state;
    static const char *const optimizers[] = {"adamw", "muon"};
    static const int backends[] = {GPU_F32, GPU_BF16, GPU_FP8};
    for (int i = 0; i < 6; i++) {
        const int which = backends[i / 2];
        const struct train_state train = {.step = 3};
        struct error err = {0};
        struct run whole, rest;
        int64_t count;
        if (is_missing(which)) continue;
        run_open(&whole, which, "parallax", optimizers[i % 2], 1);
        for (int s = 0; s < 3; s++) step(&whole);
        assert_int_equal(checkpoint_save(io_path("run"), whole.m.model, whole.optim, NULL, NULL,
                                         &train, 0, &err),
                         PLX_OK);
        for (int s = 0; s < 2; s++) step(&whole);
        run_open(&rest, which, "parallax", optimizers[i % 2], 1);
        step(&rest);
        assert_int_equal(checkpoint_load(io_path("run/checkpoints/step-00000003"), rest.m.model,
                                         rest.optim, &err),
                         PLX_OK);
        for (int s = 0; s < 2; s++) step(&rest);
        float *a = downloaded(&whole.m, false, &count), *b = downloaded(&rest.m, false, &count);
        assert_memory_equal(a, b, (size_t)count * sizeof *a);
        free(a);
        free(b);
        run_close(&whole);
        run_close(&rest);
        assert_int_equal(file_remove_tree(io_path("run"), &err), PLX_OK);
    }
}

/* ---- Generation ---- */

enum { TEXTS = 2, TOKENS_EACH = 24 };

/* Decodes both texts token by token, the later ones by a captured graph, into logits of the shape
 * that the forward's have. */
static struct plx_tensor decoded(struct case_model *m, const struct case_batch *b)
{
    const int64_t V = model_get_config(m->model)->vocab_size;
    struct plx_tensor all = case_tensor(PLX_F32, 2, (int64_t[]){TEXTS * TOKENS_EACH, V}),
                      logits = case_tensor(PLX_F32, 2, (int64_t[]){TEXTS, V});
    struct model_cache *cache;
    CASE_OK(m,
            model_cache_create(
                m->model, &(struct model_cache_config){.sequences = TEXTS, .capacity = TOKENS_EACH},
                &cache));
    for (int64_t at = 0; at < TOKENS_EACH; at++) {
        const int32_t ids[TEXTS] = {b->ids[at], b->ids[TOKENS_EACH + at]};
        CASE_OK(m, model_decode(m->model, cache, ids, (int64_t[TEXTS]){1, 1}, &logits));
        for (int64_t s = 0; s < TEXTS; s++)
            memcpy((float *)all.data + (s * TOKENS_EACH + at) * V,
                   (const float *)logits.data + s * V, (size_t)V * sizeof(float));
    }
    model_cache_destroy(cache);
    free(logits.data);
    return all;
}

/* Of two texts by a model on a backend: the forward's logits, and the decoded ones where wanted. */
static void generate(const struct model_config *config, int which, const struct case_batch *b,
                     struct plx_tensor *forward, struct plx_tensor *by_token)
{
    const struct backend_config backend = backend_of(which);
    struct case_model m;
    case_open_on(&m, config, &backend, 4);
    CASE_OK(&m, model_reserve(m.model, TEXTS * TOKENS_EACH, TEXTS, false, RECOMPUTE_NONE, NULL));
    *forward = logits_of(&m, &b->batch);
    if (by_token != NULL) *by_token = decoded(&m, b);
    case_close(&m);
}

/* In f32 decoding equals the forward; in bf16 it is no further from the CPU's f32 than twice what
 * the forward is. The wide model takes the fast kernels for attention and for few rows. */
static void decoding_equals_forward(void **state)
{
    (void)state;
    static const char *const mixers[] = {"softmax", "parallax"};
    for (int i = 0; i < 4; i++) {
        struct model_config config = case_config(2, mixers[i % 2]);
        struct case_batch b;
        struct plx_tensor exact, forward, by_token;
        struct rng rng = rng_make(4, 4);
        if (i >= 2)
            config.hidden_size = 256, config.head_dim = 128, config.initializer_range = 0.06;
        case_batch_fill(&b, (int64_t[]){TOKENS_EACH, TOKENS_EACH}, TEXTS, config.vocab_size, &rng);
        generate(&config, GPU_F32, &b, &forward, &by_token);
        assert_close("decoded against forward, f32", &by_token, &forward, 2e-5);
        free(forward.data), free(by_token.data);
        generate(&config, EXACT, &b, &exact, NULL);
        generate(&config, GPU_BF16, &b, &forward, &by_token);
        double largest, error = largest_difference(&by_token, &exact, &largest),
                        allowed = 2 * largest_difference(&forward, &exact, &largest);
        print_message("%s, width %lld: decoded in bf16 %.2e off, the forward %.2e, largest %.2f\n",
                      mixers[i % 2], (long long)config.hidden_size, error, allowed / 2, largest);
        assert_true(error <= allowed);
        free(exact.data), free(forward.data), free(by_token.data);
    }
}

/* Texts that take turns in the places and pages of a small pool, passes of which are graphs whose
 * table of pages changes: as the forward, in f32 and in bf16. */
static void decoding_in_turns_equals_forward(void **state)
{
    (void)state;
    static const char *const mixers[] = {"softmax", "parallax"};
    for (int i = 0; i < 2 * CACHE_EXTENTS; i++) {
        const struct cache_extent extent = cache_extents[i / 2];
        struct model_config config = case_config(2, mixers[i % 2]);
        struct plx_tensor exact = {0};
        struct case_batch b;
        struct rng rng = rng_make(5, 5);
        config.hidden_size = 256, config.head_dim = 128, config.initializer_range = 0.06;
        config.layer[1].window = i % 4 < 2 ? 0 : 9;
        case_batch_fill(&b, cache_lengths, CACHE_TEXTS, config.vocab_size, &rng);
        for (int which = EXACT; which < IMITATED_FP8; which++) {
            const struct backend_config backend = backend_of(which);
            struct case_model m;
            if (which == NAIVE_BF16) continue;
            case_open_on(&m, &config, &backend, 4);
            struct plx_tensor forward = cache_expected(&m, &b);
            if (which == EXACT) {
                exact = forward;
                case_close(&m);
                continue;
            }
            struct plx_tensor turns = cache_decoded(&m, &b, extent.page, extent.pages);
            double largest, error = largest_difference(&turns, &exact, &largest),
                            allowed = 2 * largest_difference(&forward, &exact, &largest);
            if (which == GPU_F32) allowed = 2e-5 * largest;
            print_message("%s, pages of %lld: %s %.2e off, allowed %.2e\n", mixers[i % 2],
                          (long long)extent.page, which == GPU_F32 ? "f32" : "bf16", error,
                          allowed);
            assert_true(error <= allowed);
            free(forward.data), free(turns.data);
            case_close(&m);
        }
        free(exact.data);
    }
}

/* Tokens are drawn on the GPU, in graphs, as the CPU draws them from the same logits. */
static void draws_are_of_the_logits(void **state)
{
    (void)state;
    struct model_config config = case_config(2, "parallax");
    struct case_batch b;
    struct rng rng = rng_make(6, 6);
    config.hidden_size = 256, config.head_dim = 128, config.initializer_range = 0.06;
    case_batch_fill(&b, cache_lengths, CACHE_TEXTS, config.vocab_size, &rng);
    for (int which = GPU_F32; which < IMITATED_FP8; which++) {
        const struct backend_config backend = backend_of(which);
        struct case_model m;
        case_open_on(&m, &config, &backend, 4);
        cache_draws_are_of_its_logits(&m, &b);
        case_close(&m);
    }
}

/* Logits of a folder's model with packed weights: the forward's, and those decoded in turns. */
static void packed_logits(const char *folder, int which, enum packing packing,
                          const struct case_batch *b, struct plx_tensor *forward,
                          struct plx_tensor *turns)
{
    struct backend_config backend = backend_of(which);
    struct case_model m = {0};
    backend.packing = packing;
    CASE_OK(&m, backend_create(&m.be, &backend, &m.err));
    CASE_OK(&m, model_open(&m.be, folder, &m.model, &m.err));
    *forward = cache_expected(&m, b);
    *turns = cache_decoded(&m, b, 16, 6);
    case_close(&m);
}

static void save_wide_model(const char *folder, struct case_batch *b)
{
    struct model_config config = case_config(2, "parallax");
    const struct backend_config cpu = backend_of(EXACT);
    struct case_model m;
    struct rng rng = rng_make(6, 6);
    config.hidden_size = 256, config.head_dim = 128, config.initializer_range = 0.06;
    case_batch_fill(b, cache_lengths, CACHE_TEXTS, config.vocab_size, &rng);
    case_open_on(&m, &config, &cpu, 4);
    CASE_OK(&m, file_make_folder(folder, &m.err));
    CASE_OK(&m, model_save(m.model, NULL, folder, PLX_F32, &m.err));
    case_close(&m);
}

/* Packed weights on a GPU are those of the CPU; prompts take the products of many rows, single
 * tokens those of few. */
static void packed_weights_equal_the_cpus(void **state)
{
    (void)state;
    char folder[256];
    struct error err = {0};
    struct case_batch b;
    snprintf(folder, sizeof folder, "%s", io_path("packed"));
    save_wide_model(folder, &b);
    for (enum packing kind = PACKING_BF16; kind < PACKINGS; kind++) {
        struct plx_tensor forward[IMITATED_FP8], turns[IMITATED_FP8];
        for (int which = EXACT; which < IMITATED_FP8; which++)
            packed_logits(folder, which, kind, &b, &forward[which], &turns[which]);
        double largest, naive = largest_difference(&forward[NAIVE_BF16], &forward[EXACT], &largest);
        for (int which = GPU_F32; which < IMITATED_FP8; which++) {
            const double allowed = which == GPU_F32 ? 2e-5 * largest : 2 * naive,
                         whole = largest_difference(&forward[which], &forward[EXACT], &largest),
                         apart = largest_difference(&turns[which], &forward[EXACT], &largest);
            print_message("%s weights, %s: forward %.2e off, decoded %.2e, allowed %.2e\n",
                          packing_name(kind), which == GPU_F32 ? "f32" : "bf16", whole, apart,
                          allowed);
            assert_true(whole <= allowed && apart <= allowed);
        }
        for (int which = EXACT; which < IMITATED_FP8; which++)
            free(forward[which].data), free(turns[which].data);
    }
    assert_int_equal(file_remove_tree(folder, &err), PLX_OK);
}

int main(void)
{
    if (!device_ready()) return 77;
    has_fp8 = op_backend_has_fp8();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden_models),
        cmocka_unit_test(losses_follow_the_cpu),
        cmocka_unit_test(one_batch_is_learnt_by_heart),
        cmocka_unit_test(gradients_of_parts_add_up),
        cmocka_unit_test(resuming_changes_no_bit),
        cmocka_unit_test(decoding_equals_forward),
        cmocka_unit_test(decoding_in_turns_equals_forward),
        cmocka_unit_test(draws_are_of_the_logits),
        cmocka_unit_test(packed_weights_equal_the_cpus),
    };
    return cmocka_run_group_tests_name("models on a GPU", tests, io_folder_make, io_folder_remove);
}
