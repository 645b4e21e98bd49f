/* test_parity.c: the comparison of a model with a recorded reference: what it accepts, reports and
 * refuses.
 *
 * The reference is made here, by the model itself: then everything agrees, and each test spoils one
 * thing. */
#include "../model_case.h"

#include "io/safetensors.h"
#include "io_files.h"
#include "parity.h"

enum { ROWS = 2, TIME = 11, PROMPT = 4, GREEDY = 9, ENTRIES = 64 };

/* Everything a reference file holds, before it is written. */
struct recording {
    struct case_model m;
    int32_t ids[ROWS * TIME], greedy[ROWS * GREEDY];
    struct case_batch batch;
    double loss;
    struct plx_tensor logits;
    char names[ENTRIES][PARAM_NAME_MAX + 8];
    struct safetensors_write entries[ENTRIES];
    int count;
};

static void record_entry(struct recording *r, const char *prefix, const char *name,
                         struct plx_tensor tensor)
{
    snprintf(r->names[r->count], sizeof r->names[0], "%s%s", prefix, name);
    r->entries[r->count] = (struct safetensors_write){r->names[r->count], tensor};
    r->count++;
}

static struct safetensors_write *entry_named(struct recording *r, const char *name)
{
    for (int i = 0; i < r->count; i++)
        if (strcmp(r->entries[i].name, name) == 0) return &r->entries[i];
    fail_msg("no entry %s", name);
    return NULL;
}

/* Greedy continuation by whole forward passes, without the cache that parity uses. */
static void record_greedy(struct recording *r)
{
    for (int row = 0; row < ROWS; row++) {
        int32_t *ids = r->greedy + row * GREEDY;
        memcpy(ids, r->ids + row * TIME, PROMPT * sizeof *ids);
        for (int n = PROMPT; n < GREEDY; n++) {
            int32_t positions[GREEDY], offsets[2] = {0, n};
            for (int i = 0; i < n; i++) positions[i] = i;
            const struct batch batch = {.tokens = n,
                                        .sequences = 1,
                                        .ids = ids,
                                        .positions = positions,
                                        .offsets = offsets};
            struct plx_tensor logits = case_tensor(PLX_F64, 2, (int64_t[]){n, 61});
            CASE_OK(&r->m, model_logits(r->m.model, &batch, &logits));
            ids[n] = 0;
            for (int v = 1; v < 61; v++)
                if (case_get(&logits, (n - 1) * 61 + v) > case_get(&logits, (n - 1) * 61 + ids[n]))
                    ids[n] = v;
            free(logits.data);
        }
    }
}

static void record(struct recording *r)
{
    const struct model_config config = case_config(2, "parallax");
    uint64_t seed = case_seed("recording");
    struct rng rng = rng_make(seed, 4);
    struct model_loss loss;
    *r = (struct recording){0};
    case_open(&r->m, &config, &ops_ref, PLX_F64, seed);
    case_batch_fill(&r->batch, (int64_t[]){TIME, TIME}, ROWS, config.vocab_size, &rng);
    for (int n = 0; n < ROWS * TIME; n++)
        r->batch.targets[n] = n % TIME == TIME - 1 ? -1 : r->batch.ids[n + 1];
    memcpy(r->ids, r->batch.ids, sizeof r->ids);
    CASE_OK(&r->m, model_reserve(r->m.model, ROWS * TIME, ROWS, true, RECOMPUTE_NONE, NULL));
    CASE_OK(&r->m, model_zero_grads(r->m.model));
    CASE_OK(&r->m,
            model_loss_backward(r->m.model, &r->batch.batch, 1.0 / (ROWS * (TIME - 1)), &loss));
    r->loss = loss.sum / (ROWS * (TIME - 1));
    r->logits = case_tensor(PLX_F64, 2, (int64_t[]){ROWS * TIME, 61});
    CASE_OK(&r->m, model_logits(r->m.model, &r->batch.batch, &r->logits));
    record_greedy(r);
    record_entry(r, "", "input_ids", plx_tensor_dense(r->ids, PLX_I32, 2, (int64_t[]){ROWS, TIME}));
    record_entry(r, "", "loss", plx_tensor_dense(&r->loss, PLX_F64, 1, (int64_t[]){1}));
    record_entry(r, "", "logits",
                 plx_tensor_dense(r->logits.data, PLX_F64, 3, (int64_t[]){ROWS, TIME, 61}));
    record_entry(r, "", "greedy_from_4",
                 plx_tensor_dense(r->greedy, PLX_I32, 2, (int64_t[]){ROWS, GREEDY}));
    const struct param_list *params = model_params(r->m.model);
    for (int p = 0; p < params->count; p++) {
        struct plx_tensor grad = params->items[p].grad;
        struct plx_tensor copy = case_tensor(PLX_F64, grad.rank, grad.shape);
        memcpy(copy.data, grad.data, (size_t)plx_tensor_count(&grad) * sizeof(double));
        record_entry(r, "grad.", params->items[p].name, copy);
    }
}

static void record_free(struct recording *r)
{
    for (int i = 0; i < r->count; i++)
        if (strncmp(r->names[i], "grad.", 5) == 0) free(r->entries[i].tensor.data);
    free(r->logits.data);
    case_close(&r->m);
}

static plx_status compare(struct recording *r, double tolerance, FILE *out,
                          struct parity_result *result)
{
    const char *path = io_path("reference.safetensors");
    CASE_OK(&r->m, safetensors_save(path, r->entries, r->count, NULL, 0, &r->m.err));
    return parity_run(r->m.model, path, tolerance, out, result, &r->m.err);
}

static void expect_refusal(struct recording *r, double tolerance, const char *part)
{
    struct parity_result result;
    assert_int_equal(compare(r, tolerance, NULL, &result), PLX_BAD_DATA);
    if (strstr(r->m.err.text, part) == NULL)
        fail_msg("said: %s\nexpected: %s", r->m.err.text, part);
    error_clear(&r->m.err);
}

/* ---- Tests ---- */

static void test_agreement(void **state)
{
    (void)state;
    struct recording r;
    struct parity_result result;
    char *text = NULL;
    size_t size = 0;
    record(&r);
    FILE *out = open_memstream(&text, &size);
    CASE_OK(&r.m, compare(&r, 1e-12, out, &result));
    fclose(out);
    assert_int_equal(result.compared, model_params(r.m.model)->count + 2);
    assert_int_equal(result.missing, 0);
    assert_true(result.worst <= 1e-12);
    assert_int_equal(result.greedy_tokens, ROWS * (GREEDY - PROMPT));
    assert_int_equal(result.greedy_mismatches, 0);
    assert_non_null(strstr(text, "grad.model.layers.1.self_attn.r_norm.weight\n"));
    assert_null(strstr(text, "not compared"));
    free(text);
    record_free(&r);
}

static void test_missing_tensors(void **state)
{
    (void)state;
    struct recording r;
    struct parity_result result;
    char *text = NULL;
    size_t size = 0;
    record(&r);
    const int all = r.count;
    r.count = 2; /* input_ids and loss */
    FILE *out = open_memstream(&text, &size);
    CASE_OK(&r.m, compare(&r, 1e-12, out, &result));
    fclose(out);
    assert_int_equal(result.compared, 1);
    assert_int_equal(result.missing, model_params(r.m.model)->count + 1);
    assert_int_equal(result.greedy_tokens, 0);
    assert_non_null(strstr(text, "not compared, because not in the reference: logits\n"));
    assert_non_null(strstr(text, "and "));
    free(text);
    r.entries[0] = r.entries[1];
    r.count = 1;
    expect_refusal(&r, 1e-12, "holds no input_ids");
    r.count = all;
    record_free(&r);
}

static void test_differences(void **state)
{
    (void)state;
    struct recording r;
    record(&r);
    double *gradient = entry_named(&r, "grad.model.layers.0.mlp.up_proj.weight")->tensor.data;
    const double kept = gradient[5];
    gradient[5] += 1e-3;
    expect_refusal(&r, 1e-9, "grad.model.layers.0.mlp.up_proj.weight differs by ");
    gradient[5] = NAN;
    expect_refusal(&r, 1e9, "grad.model.layers.0.mlp.up_proj.weight differs by inf");
    gradient[5] = kept;
    r.loss *= 1.001;
    expect_refusal(&r, 1e-9, "loss differs by ");
    r.loss /= 1.001;
    r.greedy[GREEDY + PROMPT] = (r.greedy[GREEDY + PROMPT] + 1) % 61;
    expect_refusal(&r, 1e-9, " of 10 greedy tokens differ");
    record_free(&r);
}

static void test_malformed_references(void **state)
{
    (void)state;
    struct recording r;
    record(&r);
    struct safetensors_write *loss = entry_named(&r, "loss");
    loss->name = "grad.model.layers.7.mlp.up_proj.weight";
    expect_refusal(&r, 1,
                   "grad.model.layers.7.mlp.up_proj.weight is not something this model could have");
    loss->name = "greedy_from_x";
    expect_refusal(&r, 1, "greedy_from_x is not something this model could have");
    loss->name = "loss";
    struct safetensors_write *logits = entry_named(&r, "logits");
    logits->tensor = plx_tensor_dense(logits->tensor.data, PLX_F64, 3, (int64_t[]){ROWS, TIME, 60});
    expect_refusal(&r, 1, "logits is [2, 11, 60] but must be [2, 11, 61]");
    logits->tensor = plx_tensor_dense(logits->tensor.data, PLX_F64, 3, (int64_t[]){ROWS, TIME, 61});
    struct safetensors_write *greedy = entry_named(&r, "greedy_from_4");
    greedy->tensor = plx_tensor_dense(r.greedy, PLX_I32, 2, (int64_t[]){ROWS, PROMPT});
    expect_refusal(&r, 1, "greedy_from_4 must be [2, more than 4]");
    greedy->tensor = plx_tensor_dense(r.greedy, PLX_I32, 2, (int64_t[]){1, GREEDY});
    expect_refusal(&r, 1, "greedy_from_4 must be [2, 9]");
    greedy->tensor = plx_tensor_dense(r.greedy, PLX_I32, 2, (int64_t[]){ROWS, GREEDY});
    r.entries[0].tensor = plx_tensor_dense(r.ids, PLX_I32, 1, (int64_t[]){ROWS * TIME});
    expect_refusal(&r, 1, "holds no input_ids [rows, time]");
    record_free(&r);
}

static void test_foreign_ids(void **state)
{
    (void)state;
    struct recording r;
    record(&r);
    r.ids[3] = 61;
    expect_refusal(&r, 1, "input_ids holds the id 61 but the model knows 0 to 60");
    r.ids[3] = 0;
    r.greedy[12] = -1;
    expect_refusal(&r, 1, "greedy_from_4 holds the id -1 but the model knows 0 to 60");
    record_free(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_agreement),   cmocka_unit_test(test_missing_tensors),
        cmocka_unit_test(test_differences), cmocka_unit_test(test_malformed_references),
        cmocka_unit_test(test_foreign_ids),
    };
    return cmocka_run_group_tests_name("parity", tests, io_folder_make, io_folder_remove);
}
