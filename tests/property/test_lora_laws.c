/* test_lora_laws.c: what adapters on a model's projections must keep: they begin as nothing, they
 * alone learn, and merged into their weights they are the same model in a plain folder. */
#include "../model_case.h"
#include "../unit/io_files.h"

#include "compare.h"
#include "convert/convert.h"
#include "io/model_file.h"
#include "io/weights.h"
#include "optim/optim.h"

static const struct lora every = {.rank = 3, .alpha = 5, .targets = LORA_ALL};

static struct model_config adapted(const char *mixer)
{
    struct model_config config = case_config(2, mixer);
    config.family = FAMILY_OURS;
    config.lora = every;
    return config;
}

static void copy_values(struct model *to, struct model *from)
{
    struct param_list *target = model_params(to);
    for (int i = 0; i < target->count; i++) {
        const struct param *source = param_find(model_params(from), target->items[i].name);
        for (int64_t e = 0; e < plx_tensor_count(&source->value); e++)
            case_set(&target->items[i].value, e, case_get(&source->value, e));
    }
}

/* Logits [21,V] of the case's batch, as doubles. */
enum { TOKENS = 21 };
static double *logits_of(struct case_model *m, struct case_batch *batch)
{
    const int64_t shape[2] = {TOKENS, model_get_config(m->model)->vocab_size};
    struct plx_tensor logits = case_tensor(m->be.storage, 2, shape);
    CASE_OK(m, model_reserve(m->model, TOKENS, 2, false, RECOMPUTE_NONE, NULL));
    CASE_OK(m, model_logits(m->model, &batch->batch, &logits));
    double *values = malloc((size_t)plx_tensor_count(&logits) * sizeof *values);
    for (int64_t i = 0; i < plx_tensor_count(&logits); i++) values[i] = case_get(&logits, i);
    free(logits.data);
    return values;
}

static void fill_batch(struct case_batch *batch, uint64_t seed)
{
    struct rng rng = rng_make(seed, 9);
    case_batch_fill(batch, (int64_t[]){13, 8}, 2, 61, &rng);
}

/* ---- Training -------------------------------------------------------------------------------- */

/* Without a step behind it B is zero, and the model is the one without adapters, bit for bit. */
static void adapters_begin_as_nothing(void **state)
{
    (void)state;
    struct case_model plain, with;
    struct case_batch batch;
    struct model_config config = adapted("parallax");
    case_open(&with, &config, &ops_cpu, PLX_F32, 4);
    model_init(with.model, 4);
    config.lora = (struct lora){0};
    case_open(&plain, &config, &ops_cpu, PLX_F32, 4);
    copy_values(plain.model, with.model);
    fill_batch(&batch, 4);
    double *expected = logits_of(&plain, &batch), *actual = logits_of(&with, &batch);
    assert_memory_equal(expected, actual, TOKENS * 61 * sizeof *actual);
    free(expected);
    free(actual);
    case_close(&plain);
    case_close(&with);
}

/* The one batch is learnt; every other bit stays, and neither gradients nor state are kept for
 * frozen matrices. */
static void adapters_learn_alone(struct case_model *m, const char *optimizer)
{
    struct param_list *rows = model_params(m->model);
    struct case_batch batch;
    struct model_loss loss;
    struct model_memory all, memory;
    struct optim *optim;
    double first = 0;
    fill_batch(&batch, 3);
    struct plx_tensor *before = calloc((size_t)rows->count, sizeof *before);
    for (int i = 0; i < rows->count; i++) {
        before[i] = case_tensor(PLX_F32, rows->items[i].value.rank, rows->items[i].value.shape);
        memcpy(before[i].data, rows->items[i].value.data,
               (size_t)plx_tensor_count(&before[i]) * sizeof(float));
    }
    CASE_OK(m, model_reserve(m->model, TOKENS, 2, false, RECOMPUTE_NONE, &all));
    param_list_train_only(rows, false, true);
    CASE_OK(m, model_reserve(m->model, TOKENS, 2, true, RECOMPUTE_FULL, &memory));
    assert_true(memory.grads < memory.params / 2);
    struct optim_config config = optim_config_default(optimizer);
    config.lr = 0.03;
    CASE_OK(m, optim_create(&m->be, &config, rows, &optim));
    for (int s = 0; s < 60; s++) {
        CASE_OK(m, model_zero_grads(m->model));
        CASE_OK(m, model_loss_backward(m->model, &batch.batch, 1.0 / TOKENS, &loss));
        CASE_OK(m, optim_step(optim, 1, 1));
        if (s == 0) first = loss.sum;
    }
    print_message("%s: loss %.3f -> %.3f\n", optimizer, first / TOKENS, loss.sum / TOKENS);
    assert_true(loss.sum < first / 2);
    for (int i = 0; i < rows->count; i++) {
        bool same = memcmp(before[i].data, rows->items[i].value.data,
                           (size_t)plx_tensor_count(&before[i]) * sizeof(float)) == 0;
        assert_true(same != rows->items[i].adapts);
        free(before[i].data);
    }
    free(before);
    optim_destroy(optim);
}

static void both_optimisers_train_adapters_alone(void **state)
{
    (void)state;
    static const char *const optimizers[] = {"adamw", "muon"};
    for (int i = 0; i < 2; i++) {
        struct case_model m;
        const struct model_config config = adapted("parallax");
        case_open(&m, &config, &ops_cpu, PLX_F32, 3);
        model_init(m.model, 3);
        adapters_learn_alone(&m, optimizers[i]);
        case_close(&m);
    }
}

/* ---- Merging --------------------------------------------------------------------------------- */

static struct convert_report convert_to(const char *source, const char *target, const char *dtype)
{
    struct error err = {0};
    struct convert_report report;
    const struct convert_options options = {.dtype = dtype};
    assert_ok(convert_folder(source, target, &options, &report, &err), &err);
    return report;
}

/* A folder of the model's values. */
static const char *saved(struct case_model *m, const char *name)
{
    static char path[512]; /* outlives the buffers that take turns */
    snprintf(path, sizeof path, "%s", io_absent(name));
    CASE_OK(m, file_make_folder(path, &m->err));
    CASE_OK(m, model_save(m->model, NULL, path, PLX_F32, &m->err));
    return path;
}

static void open_folder(struct case_model *m, const char *folder, const struct ops *ops,
                        plx_dtype dtype)
{
    *m = (struct case_model){0};
    const struct backend_config backend = {
        .ops = ops, .storage = dtype, .compute = dtype, .threads = 1};
    CASE_OK(m, backend_create(&m->be, &backend, &m->err));
    CASE_OK(m, model_open(&m->be, folder, &m->model, &m->err));
}

static double *folder_logits(const char *folder, const struct ops *ops, plx_dtype dtype,
                             struct case_batch *batch)
{
    struct case_model m;
    open_folder(&m, folder, ops, dtype);
    double *logits = logits_of(&m, batch);
    case_close(&m);
    return logits;
}

/* The merged folder computes what the adapters did. Run in double, only the rounding of the merged
 * weights is left, and it may be no more than what f32 makes of the model as it was. */
static void merged_logits_are_the_adapters(void **state)
{
    (void)state;
    static const char *const mixers[] = {"parallax", "softmax"};
    for (int i = 0; i < 2; i++) {
        struct case_model m;
        struct case_batch batch;
        const struct model_config config = adapted(mixers[i]);
        const uint64_t seed = case_seed(mixers[i]);
        case_open(&m, &config, &ops_cpu, PLX_F32, seed);
        fill_batch(&batch, seed);
        const char *source = saved(&m, "adapted"), *target = io_absent("merged");
        struct convert_report report = convert_to(source, target, NULL);
        assert_int_equal(report.config.family, i == 0 ? FAMILY_OURS : FAMILY_QWEN3);
        assert_int_equal(report.added + report.dropped, 0);
        assert_true(report.merged > 0 && report.proof == CONVERT_LOGITS_DIFFER);
        double *exact = folder_logits(source, &ops_ref, PLX_F64, &batch),
               *naive = folder_logits(source, &ops_ref, PLX_F32, &batch),
               *merged = folder_logits(target, &ops_ref, PLX_F64, &batch);
        struct comparison ours = compare_values(merged, exact, TOKENS * 61),
                          theirs = compare_values(naive, exact, TOKENS * 61);
        print_message("%s: merged %.2g, apart %.2g of the largest logit\n", mixers[i],
                      ours.max_abs / ours.largest, theirs.max_abs / theirs.largest);
        assert_true(compare_within(&ours, &theirs, PLX_F32, NULL));
        free(exact);
        free(naive);
        free(merged);
        case_close(&m);
    }
}

static void assert_same_file(const char *left, const char *right, const char *name)
{
    struct error err = {0};
    char path[600], *a, *b;
    size_t a_size, b_size;
    snprintf(path, sizeof path, "%s/%s", left, name);
    assert_ok(file_read_all(path, 1 << 24, &a, &a_size, &err), &err);
    snprintf(path, sizeof path, "%s/%s", right, name);
    assert_ok(file_read_all(path, 1 << 24, &b, &b_size, &err), &err);
    assert_int_equal(a_size, b_size);
    assert_memory_equal(a, b, a_size);
    free(a);
    free(b);
}

/* Adapters that have learned nothing leave the weights as they were, bit for bit; a narrower type
 * is the merged f32 model rounded. */
static void merging_rounds_once(void **state)
{
    (void)state;
    struct case_model with, plain;
    struct model_config config = adapted("parallax");
    case_open(&with, &config, &ops_cpu, PLX_F32, case_seed("rounding"));
    const char *source = saved(&with, "adapted");
    const char *merged = io_absent("merged"), *half = io_absent("half"),
               *direct = io_absent("direct");
    convert_to(source, merged, NULL);
    convert_to(merged, half, "BF16");
    convert_to(source, direct, "BF16");
    assert_same_file(half, direct, "model.safetensors");

    struct param_list *params = model_params(with.model);
    for (int i = 0; i < params->count; i++)
        if (params->items[i].adapts && params->items[i].init == PARAM_INIT_ZERO)
            CASE_OK(&with, with.be.ops->zero(&with.be, &params->items[i].value));
    config.lora = (struct lora){0};
    case_open(&plain, &config, &ops_cpu, PLX_F32, 1);
    copy_values(plain.model, with.model);
    source = saved(&with, "untrained");
    merged = io_absent("merged");
    convert_to(source, merged, NULL);
    const char *expected = saved(&plain, "plain"), *again = io_absent("again");
    convert_to(expected, again, NULL);
    assert_same_file(again, merged, "model.safetensors");
    assert_same_file(again, merged, "config.json");
    case_close(&plain);
    case_close(&with);
}

/* A model takes its adapters from a folder that has none: they start, the rest is read. */
static void adapters_come_beside_a_plain_folder(void **state)
{
    (void)state;
    struct case_model plain, with, again;
    struct model_config config = adapted("softmax");
    case_open(&with, &config, &ops_cpu, PLX_F32, 5);
    config.lora = (struct lora){0};
    case_open(&plain, &config, &ops_cpu, PLX_F32, 8);
    const char *folder = saved(&plain, "plain");
    CASE_OK(&with, model_load_adapted(with.model, folder, 6, &with.err));
    const struct param_list *rows = model_params(with.model);
    for (int i = 0; i < rows->count; i++) {
        const struct param *row = &rows->items[i];
        const struct param *source = param_find(model_params(plain.model), row->name);
        assert_true((source == NULL) == row->adapts);
        if (source != NULL) case_assert_same_bits(&row->value, &source->value);
    }
    /* As a whole, the folder lacks them; and what holds them is no plain model. */
    assert_refused(model_load_values(with.model, folder, &with.err), PLX_BAD_DATA,
                   "lora_A.weight, which the model needs, is missing", &with.err);
    folder = saved(&with, "adapted");
    assert_refused(model_load_adapted(with.model, folder, 6, &with.err), PLX_BAD_DATA,
                   "lora_A.weight is no part of the model", &with.err);
    assert_refused(model_load_values(plain.model, folder, &plain.err), PLX_BAD_DATA,
                   "lora_A.weight is no part of the model", &plain.err);
    open_folder(&again, folder, &ops_cpu, PLX_F32);
    assert_int_equal(model_get_config(again.model)->lora.rank, every.rank);
    assert_true(model_get_config(again.model)->lora.alpha == every.alpha);
    assert_int_equal(model_get_config(again.model)->lora.targets, every.targets);
    case_close(&again);
    case_close(&plain);
    case_close(&with);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(adapters_begin_as_nothing),
        cmocka_unit_test(both_optimisers_train_adapters_alone),
        cmocka_unit_test(merged_logits_are_the_adapters),
        cmocka_unit_test(merging_rounds_once),
        cmocka_unit_test(adapters_come_beside_a_plain_folder),
    };
    return cmocka_run_group_tests_name("adapters", tests, io_folder_make, io_folder_remove);
}
