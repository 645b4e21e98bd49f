/* test_gpu_step.c: training steps that are launched as graphs, against the same steps launched one
 * operation after another: every loss, weight and number of optimiser state must have the same
 * bits, whatever batches come, in which order, and whatever happens between steps. With --sanitize
 * a few steps of each model run, for tools that slow everything down. Without a GPU the program
 * says "skipped, no GPU" and exits with 77. */
#include "../model_case.h"

#include "device_memory.h"
#include "op_backends.h"
#include "seeded.h"
#include "train_step.h"

static struct test_options options;

/* ---- A run ---- */

enum { OFTEN = 6, KINDS = 13, STEPS = 8 * OFTEN + 2 * KINDS, FEW_STEPS = 2 };
enum { MICRO = 2, MOST_TOKENS = 96, MOST_SEQUENCES = 8, FILLED = 1, UNEVEN = 2, APART = 4 };

/* Batches of a kind have these lengths. FILLED: with empty sequences behind them. UNEVEN: as which
 * they count though they are alike. APART: launched as micro-batches that are not alike are. */
static const struct {
    int64_t lengths[MOST_SEQUENCES];
    int how;
} kinds[KINDS] = {
    {{48, 48}, 0}, {{20, 28, 48}, 0}, {{48, 20, 28}, 0}, {{30, 5, 61}, FILLED}, {{40, 40}, UNEVEN},
    {{96}, 0},     {{24, 24, 24}, 0}, {{7, 1, 40}, 0},   {{50, 40}, APART},     {{11, 12, 13}, 0},
    {{90}, 0},     {{1, 80, 10}, 0},  {{9, 9, 9, 9}, 0},
};

static int64_t sequences_of(int kind)
{
    int64_t count = 0;
    while (count < MOST_SEQUENCES && kinds[kind].lengths[count] > 0) count++;
    return kinds[kind].how == FILLED ? MOST_SEQUENCES : count;
}

/* Some kinds come often, the first most, as in training; then come more than a model keeps graphs
 * of. */
static int kind_of(int step)
{
    if (step >= 8 * OFTEN) return step % KINDS;
    return step % 2 == 0 ? 0 : step / 2 % OFTEN;
}

struct run {
    struct case_model m;
    struct sharding sharding;
    struct optim *optim;
    struct train_step step;
    struct case_batch batches[MICRO];
};

static const struct {
    const char *mixer, *optimizer;
    int64_t width, head_dim;
    bool rounds, halved, fp8; /* products in bf16, the optimiser's states, linear layers in fp8 */
    enum recompute recompute;
} variants[] = {
    {"parallax", "adamw", 32, 8, false, false, false, RECOMPUTE_NONE},
    {"softmax", "muon", 32, 8, false, false, false, RECOMPUTE_FULL},
    {"parallax", "muon", 256, 64, true, true, false, RECOMPUTE_SELECTIVE},
    {"parallax", "adamw", 256, 128, true, false, false, RECOMPUTE_NONE},
    {"softmax", "adamw", 256, 64, true, true, false, RECOMPUTE_FULL},
    {"parallax", "muon", 256, 128, true, false, true, RECOMPUTE_SELECTIVE},
};
enum { VARIANTS = sizeof variants / sizeof *variants };

static void run_open(struct run *run, int variant, bool graphs)
{
    struct model_config config = case_config(2, variants[variant].mixer);
    config.hidden_size = variants[variant].width;
    config.head_dim = variants[variant].head_dim;
    config.initializer_range = 0.06;
    config.intermediate_size = 48; /* a multiple of 16, as fp8 asks */
    struct backend_config backend = {.ops = &ops_cuda, .deterministic = true};
    backend.fp8_linear = variants[variant].fp8;
    if (variants[variant].rounds) backend.compute = PLX_BF16, backend.bf16_activations = true;
    struct optim_config optim = optim_config_default(variants[variant].optimizer);
    optim.bf16_moments = variants[variant].halved;
    case_open_on(&run->m, &config, &backend, 3);
    struct param_list *params = model_params(run->m.model);
    CASE_OK(&run->m, model_reserve(run->m.model, MOST_TOKENS, MOST_SEQUENCES, true,
                                   variants[variant].recompute, NULL));
    CASE_OK(&run->m, sharding_create(&run->sharding, NULL, &run->m.be, params, &optim));
    CASE_OK(&run->m, optim_create(&run->m.be, &optim, params, &run->optim));
    run->step = train_step_make(run->m.model, &run->sharding, run->optim, graphs);
}

static void run_close(struct run *run)
{
    train_step_forget(&run->step);
    optim_destroy(run->optim);
    sharding_destroy(&run->sharding);
    case_close(&run->m);
}

/* Numbers and bytes of a run, one behind the other. */
struct record {
    unsigned char *bytes;
    size_t size;
};

static void record_add(struct record *record, const void *bytes, size_t size)
{
    record->bytes = realloc(record->bytes, record->size + size);
    assert_non_null(record->bytes);
    memcpy(record->bytes + record->size, bytes, size);
    record->size += size;
}

static void record_tensor(struct record *record, struct run *run, const struct plx_tensor *tensor)
{
    const size_t size = (size_t)plx_tensor_count(tensor) * plx_dtype_size(tensor->dtype);
    void *host = malloc(size + 1);
    assert_non_null(host);
    CASE_OK(&run->m,
            transfer_download(run->m.be.device, run->m.be.stream, tensor, host, &run->m.err));
    record_add(record, host, size);
    free(host);
}

static void record_weights(struct record *record, struct run *run)
{
    const struct param_list *params = model_params(run->m.model);
    struct optim_tensor state;
    for (int p = 0; p < params->count; p++) {
        record_tensor(record, run, &params->items[p].value);
        record_tensor(record, run, &params->items[p].active);
    }
    for (int i = 0; optim_state(run->optim, i, &state); i++)
        record_tensor(record, run, &state.tensor);
}

/* One step on new batches of a kind, with rates of its own; bad: its loss counts as NaN. */
static void run_step(struct run *run, int step, bool bad)
{
    const int kind = kind_of(step);
    struct rng rng = rng_make(11, (uint64_t)step);
    CASE_OK(&run->m, train_step_begin(&run->step, kinds[kind].how != APART));
    for (int i = 0; i < MICRO; i++) {
        struct case_batch *b = &run->batches[i];
        case_batch_fill(b, kinds[kind].lengths, sequences_of(kind), 61, &rng);
        b->batch.uneven = kinds[kind].how == UNEVEN;
        CASE_OK(&run->m,
                train_step_add(&run->step, &b->batch, bad ? (double)NAN : 0.01, i == MICRO - 1));
    }
    CASE_OK(&run->m, train_step_update(&run->step, 1.0 / (1 + step % 7), 1.0 / (1 + step % 3)));
}

static int step_count(void)
{
    return options.sanitize ? FEW_STEPS : STEPS;
}

/* The steps, with other uses of the model and larger scratch between some of them. */
static struct record record_of(int variant, bool graphs)
{
    struct record record = {NULL, 0};
    struct run run;
    run_open(&run, variant, graphs);
    for (int step = 0; step < step_count(); step++) {
        double loss;
        struct model_loss after;
        run_step(&run, step, false);
        CASE_OK(&run.m, model_loss_read(run.m.model, &loss));
        assert_true(isfinite(loss) && loss > 1);
        record_add(&record, &loss, sizeof loss);
        if (step % 5 == 4) {
            CASE_OK(&run.m, model_loss(run.m.model, &run.batches[0].batch, &after));
            record_add(&record, &after.sum, sizeof after.sum);
        }
        if (step % 11 == 10)
            CASE_OK(&run.m, backend_reserve(&run.m.be, run.m.be.scratch.capacity + (1 << 20)));
        assert_int_equal(run.step.update.graph != NULL, graphs && step > 0);
    }
    record_weights(&record, &run);
    run_close(&run);
    return record;
}

static void graphs_change_no_bit(void **state)
{
    (void)state;
    const bool has_fp8 = op_backend_has_fp8();
    for (int variant = 0; variant < VARIANTS; variant++) {
        if (variants[variant].fp8 && !has_fp8) continue;
        struct record one_by_one = record_of(variant, false), graphs = record_of(variant, true);
        assert_int_equal(one_by_one.size, graphs.size);
        assert_memory_equal(one_by_one.bytes, graphs.bytes, graphs.size);
        print_message("%s, %s, %s: %d steps, %zu bytes\n", variants[variant].mixer,
                      variants[variant].optimizer,
                      variants[variant].fp8      ? "fp8"
                      : variants[variant].rounds ? "bf16"
                                                 : "f32",
                      step_count(), graphs.size);
        free(one_by_one.bytes);
        free(graphs.bytes);
    }
}

/* A step that is not finite is named, and nothing changes from it on, also in graphs. */
static void bad_steps_are_named(void **state)
{
    (void)state;
    enum { BAD = 8 };
    struct record before = {NULL, 0}, after = {NULL, 0};
    struct optim_report report;
    struct run run;
    run_open(&run, 3, true);
    for (int step = 0; step < BAD; step++) run_step(&run, step, false);
    record_weights(&before, &run);
    for (int step = BAD; step < BAD + 4; step++) run_step(&run, step, step == BAD);
    record_weights(&after, &run);
    assert_int_equal(optim_read_report(run.optim, &report), PLX_BAD_DATA);
    assert_int_equal(report.bad_step, BAD + 1);
    assert_int_equal(optim_steps(run.optim), BAD);
    assert_int_equal(before.size, after.size);
    assert_memory_equal(before.bytes, after.bytes, after.size);
    free(before.bytes);
    free(after.bytes);
    run_close(&run);
}

int main(int argc, char **argv)
{
    options = test_options_read(argc, argv);
    if (!device_ready()) return 77;
    const struct CMUnitTest few[] = {
        cmocka_unit_test(graphs_change_no_bit),
    };
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(graphs_change_no_bit),
        cmocka_unit_test(bad_steps_are_named),
    };
    return options.sanitize
               ? cmocka_run_group_tests_name("a few steps on a GPU", few, NULL, NULL)
               : cmocka_run_group_tests_name("steps as graphs on a GPU", tests, NULL, NULL);
}
